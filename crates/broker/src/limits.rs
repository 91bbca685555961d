//! Every bound of the broker's own state, in one place.

/// Partitions that one fetch session may remember.
pub const SESSION_PARTITIONS: usize = 100_000;

/// Partitions that all fetch sessions together may remember: some 300 MB.
pub const SESSIONS_PARTITIONS: usize = 1_000_000;

/// A fetch session must have been idle this long before another may take its slot (Kafka's
/// `min.incremental.fetch.session.eviction.ms`).
pub const SESSION_EVICTION_MS: i64 = 120_000;

/// Bytes read from a coordinator's partition at a time when it is loaded.
pub const LOAD_CHUNK_BYTES: u64 = 4 << 20;

/// A fetch never waits longer than this, whatever the client asks.
pub const FETCH_WAIT_MS_MAX: i64 = 300_000;

const _: () = assert!(LOAD_CHUNK_BYTES as usize > oncelog_wire::records::HEADER_LEN);

/// A batch of a coordinator's or the metadata log, decompressed (they are written uncompressed).
pub const INTERNAL_BATCH_BYTES_MAX: usize = 128 << 20;

/// A coordinator's batch is closed at this size; a single record may be larger
/// (`GroupConfig::group_record_bytes_max`).
pub const COORDINATOR_BATCH_BYTES: usize = 512 << 10;

/// Bytes that a file name may have.
pub const FILE_NAME_BYTES_MAX: usize = 255;
