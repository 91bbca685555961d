//! The topic configs that a log acts on, with Kafka's names, units and defaults.

/// One log's configuration. -1 means "no limit" where Kafka's does.
#[derive(Clone, Debug, PartialEq)]
pub struct LogConfig {
    /// `segment.bytes`: the active segment is rolled before it grows past this.
    pub segment_bytes: u64,
    /// `segment.ms`: the age, by timestamps, at which an append rolls the active segment.
    pub segment_ms: i64,
    /// `segment.index.bytes`: bound on an index file; a full index rolls the segment.
    pub segment_index_bytes: u64,
    /// `index.interval.bytes`: one index entry per this many bytes of log.
    pub index_interval_bytes: u64,
    /// `retention.bytes`, -1 for no limit.
    pub retention_bytes: i64,
    /// `retention.ms`, -1 for no limit.
    pub retention_ms: i64,
    /// `max.message.bytes`. Checked by whoever validates batches, not by the log.
    pub max_message_bytes: usize,
    /// `cleanup.policy` contains `delete`.
    pub cleanup_delete: bool,
    /// `cleanup.policy` contains `compact`.
    pub cleanup_compact: bool,
    /// `delete.retention.ms`: how long a tombstone stays after the pass that first met it.
    pub delete_retention_ms: i64,
    /// `min.cleanable.dirty.ratio`, 0 to 1.
    pub min_cleanable_dirty_ratio: f64,
    /// `min.compaction.lag.ms`: a segment with younger records is not compacted.
    pub min_compaction_lag_ms: i64,
    /// `max.compaction.lag.ms`: older records are compacted whatever the dirty ratio.
    pub max_compaction_lag_ms: i64,
    /// `file.delete.delay.ms`: how long a deleted segment's files stay under another name.
    pub file_delete_delay_ms: i64,
    /// `flush.messages`: an append that makes this many unsynced records is durable. 1: every one.
    pub flush_messages: i64,
    /// `flush.ms`: how long a written record may stay unsynced.
    pub flush_ms: i64,
    /// The host of this log appends a batch only when the one before it is synced. So only the last
    /// batch can be torn, and recovery refuses a flaw with a whole batch behind it.
    pub one_append_in_flight: bool,
}

impl LogConfig {
    /// Every append is synced before it counts as done.
    pub fn every_append_durable(&self) -> bool {
        self.flush_messages <= 1
    }

    /// The age that rolls a segment: a compacted log must not keep records in the active segment,
    /// out of the cleaner's reach, for longer than `max.compaction.lag.ms`.
    pub(crate) fn roll_ms(&self) -> i64 {
        match self.cleanup_compact {
            true => self.segment_ms.min(self.max_compaction_lag_ms.max(0)),
            false => self.segment_ms,
        }
    }
}

impl Default for LogConfig {
    /// Kafka's defaults, but for `flush_messages`: a single node has no replica to fall back on,
    /// so every append is durable unless it is told otherwise.
    fn default() -> LogConfig {
        const HOUR_MS: i64 = 60 * 60 * 1000;
        LogConfig {
            segment_bytes: 1 << 30,
            segment_ms: 7 * 24 * HOUR_MS,
            segment_index_bytes: 10 << 20,
            index_interval_bytes: 4096,
            retention_bytes: -1,
            retention_ms: 7 * 24 * HOUR_MS,
            max_message_bytes: 1_048_588,
            cleanup_delete: true,
            cleanup_compact: false,
            delete_retention_ms: 24 * HOUR_MS,
            min_cleanable_dirty_ratio: 0.5,
            min_compaction_lag_ms: 0,
            max_compaction_lag_ms: i64::MAX,
            file_delete_delay_ms: 60_000,
            flush_messages: 1,
            flush_ms: i64::MAX,
            one_append_in_flight: false,
        }
    }
}
