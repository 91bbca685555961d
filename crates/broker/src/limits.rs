//! Every bound of the broker's own state, in one place.

/// Partitions that one fetch session may remember.
pub const SESSION_PARTITIONS: usize = 100_000;

/// A fetch session must have been idle this long before another may take its slot (Kafka's
/// `min.incremental.fetch.session.eviction.ms`).
pub const SESSION_EVICTION_MS: i64 = 120_000;

/// Producer ids reserved from the metadata log at a time (Kafka's block size).
pub const PRODUCER_ID_BLOCK: i64 = 1_000;

/// Bytes read from a coordinator's partition at a time when it is loaded.
pub const LOAD_CHUNK_BYTES: u64 = 4 << 20;

/// How often retention and producer expiry look at every partition is configured
/// (`log.retention.check.interval.ms`); compaction looks this often, as Kafka's cleaner does.
pub const COMPACTION_CHECK_MS: i64 = 15_000;

/// A fetch never waits longer than this, whatever the client asks.
pub const FETCH_WAIT_MS_MAX: i64 = 300_000;

const _: () = assert!(LOAD_CHUNK_BYTES as usize > oncelog_wire::records::HEADER_LEN);
