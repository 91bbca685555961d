//! The group coordinator's settings, under Kafka's names.

use super::consumer;

/// Times in milliseconds, sizes as the names say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupConfig {
    /// `group.min.session.timeout.ms`
    pub min_session_timeout_ms: i32,
    /// `group.max.session.timeout.ms`
    pub max_session_timeout_ms: i32,
    /// `group.initial.rebalance.delay.ms`. Kafka's default is 3,000; 0 is kinder where one
    /// machine is the whole cluster and the first member is often the only one.
    pub initial_rebalance_delay_ms: i32,
    /// `group.max.size`: members of one classic group.
    pub max_size: usize,
    /// `group.consumer.session.timeout.ms`
    pub consumer_session_timeout_ms: i32,
    /// `group.consumer.heartbeat.interval.ms`: what members are told.
    pub consumer_heartbeat_interval_ms: i32,
    /// `group.consumer.max.size`: members of one consumer group.
    pub consumer_max_size: usize,
    /// `group.consumer.assignors`: `uniform` and `range`, the default first. Not empty.
    pub consumer_assignors: Vec<String>,
    /// `offsets.retention.minutes`, in milliseconds.
    pub offsets_retention_ms: i64,
    /// `offsets.retention.check.interval.ms`
    pub offsets_retention_check_interval_ms: i64,
    /// `offset.metadata.max.bytes`; Kafka compares it with UTF-16 units, and so does this.
    pub offset_metadata_max: usize,
    /// The largest value of one group's record: the offsets topic's `max.message.bytes` less
    /// room for the rest of the batch. A group that outgrows it cannot complete a rebalance.
    pub group_record_bytes_max: usize,
}

impl Default for GroupConfig {
    fn default() -> GroupConfig {
        GroupConfig {
            min_session_timeout_ms: 6_000,
            max_session_timeout_ms: 1_800_000,
            initial_rebalance_delay_ms: 0,
            max_size: i32::MAX as usize,
            consumer_session_timeout_ms: 45_000,
            consumer_heartbeat_interval_ms: 5_000,
            consumer_max_size: i32::MAX as usize,
            consumer_assignors: vec![consumer::UNIFORM.to_owned(), consumer::RANGE.to_owned()],
            offsets_retention_ms: 7 * 24 * 60 * 60 * 1_000,
            offsets_retention_check_interval_ms: 600_000,
            offset_metadata_max: 4_096,
            group_record_bytes_max: (1 << 20) - 4_096,
        }
    }
}
