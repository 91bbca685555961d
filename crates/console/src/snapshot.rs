//! What the console needs to know, as plain values.

/// Implemented by the host of a broker.
pub trait Figures: Send + Sync + 'static {
    fn readiness(&self) -> Readiness;

    /// `None` while there is no broker to ask (it recovers, or it has stopped; or there never is one).
    fn snapshot(&self) -> Option<Snapshot>;

    /// The relays and sinks of this process.
    fn pipeline(&self) -> PipelineSnapshot {
        PipelineSnapshot::default()
    }
}

/// Relays and sinks at one moment; counters since the start.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PipelineSnapshot {
    pub relays: Vec<RelaySnapshot>,
    pub sinks: Vec<SinkSnapshot>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct RelaySnapshot {
    pub name: String,
    /// Whether nothing has failed since something last succeeded.
    pub running: bool,
    pub published: u64,
    pub transactions: u64,
    pub quarantined: u64,
    pub restarts: u64,
    /// `None` where the source does not know.
    pub pending_rows: Option<u64>,
    pub oldest_row_age_seconds: Option<f64>,
    pub retained_wal_bytes: Option<u64>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct SinkSnapshot {
    pub name: String,
    pub running: bool,
    pub applied: u64,
    pub transactions: u64,
    pub duplicates_skipped: u64,
    pub dead_letters: u64,
    pub fenced: u64,
    pub restarts: u64,
    pub partitions: u64,
    /// From a record's time to its row's commit: of each bucket the upper bound and how many were
    /// within it and above the one before; the last bound is infinite.
    pub latency_buckets: Vec<(f64, u64)>,
    pub latency_sum_seconds: f64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    Ready,
    /// Clients are not served, and why.
    NotReady(String),
}

/// A broker at one moment. Offsets are record offsets, sizes bytes, counters since the start.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub node_id: i32,
    /// `host:port` that clients are told.
    pub bootstrap: String,
    pub data_directory: String,
    pub durability: String,
    pub topics: Vec<TopicSnapshot>,
    pub groups: Vec<GroupSnapshot>,
    pub transactions: TransactionsSnapshot,
    pub connections: u64,
    pub messages_in: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub duplicate_batches: u64,
    pub request_memory_bytes: u64,
    pub request_memory_limit_bytes: u64,
    pub request_memory_waits: u64,
}

#[derive(Clone, Debug, Default)]
pub struct TopicSnapshot {
    pub name: String,
    /// In order of their number.
    pub partitions: Vec<PartitionSnapshot>,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct PartitionSnapshot {
    pub start_offset: i64,
    pub high_watermark: i64,
    pub size_bytes: u64,
}

#[derive(Clone, Debug, Default)]
pub struct GroupSnapshot {
    pub group: String,
    pub members: u64,
    pub offsets: Vec<CommittedOffset>,
}

#[derive(Clone, Debug, Default)]
pub struct TransactionsSnapshot {
    /// Transactional ids by the state that they are in.
    pub by_state: Vec<(&'static str, u64)>,
    /// How long the oldest transaction that is open has been so; 0 if none is.
    pub oldest_open_seconds: u64,
    /// Producers that were fenced since the start, by reason.
    pub fenced: Vec<(&'static str, u64)>,
}

#[derive(Clone, Debug, Default)]
pub struct CommittedOffset {
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
}
