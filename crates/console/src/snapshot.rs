//! What the console needs to know, as plain values.

/// Implemented by the host of a broker.
pub trait Figures: Send + Sync + 'static {
    fn readiness(&self) -> Readiness;

    /// `None` while there is no broker to ask (it recovers, or it has stopped).
    fn snapshot(&self) -> Option<Snapshot>;
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
