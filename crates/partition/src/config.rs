//! The topic configs that a partition acts on, with Kafka's defaults.

use oncelog_commitlog::LogConfig;
use oncelog_wire::records::{Compression, TimestampType};

#[derive(Clone, Debug)]
pub struct PartitionConfig {
    /// Segments, retention, compaction, flushing, `max.message.bytes`.
    pub log: LogConfig,
    /// `compression.type`.
    pub compression: TargetCompression,
    /// `message.timestamp.type`.
    pub timestamp_type: TimestampType,
    /// `message.timestamp.before.max.ms`: how far a CreateTime may lie in the past.
    pub timestamp_before_max_ms: i64,
    /// `message.timestamp.after.max.ms`: how far a CreateTime may lie in the future.
    pub timestamp_after_max_ms: i64,
    /// `producer.id.expiration.ms` (a broker config).
    pub producer_id_expiration_ms: i64,
}

/// How batches are compressed at rest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TargetCompression {
    /// `producer`: as they were sent.
    #[default]
    Producer,
    /// Anything else; batches that were sent otherwise are encoded anew.
    Codec(Compression),
}

impl Default for PartitionConfig {
    fn default() -> PartitionConfig {
        PartitionConfig {
            log: LogConfig::default(),
            compression: TargetCompression::Producer,
            timestamp_type: TimestampType::CreateTime,
            timestamp_before_max_ms: i64::MAX,
            timestamp_after_max_ms: 60 * 60 * 1000,
            producer_id_expiration_ms: 24 * 60 * 60 * 1000,
        }
    }
}
