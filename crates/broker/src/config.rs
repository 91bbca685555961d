//! From the cluster's topic configurations to what a partition acts on.

use oncelog_commitlog::LogConfig;
use oncelog_coordinator::cluster::{self, BrokerConfig, Cluster, TopicConfig};
use oncelog_coordinator::transactions::TransactionConfig;
use oncelog_partition::{PartitionConfig, TargetCompression};
use oncelog_wire::records::TimestampType;

/// The effective configuration of a topic's partitions.
pub(crate) fn of_topic(cluster: &Cluster, config: &BrokerConfig, name: &str) -> PartitionConfig {
    let topic = cluster.topic_config(config, name);
    PartitionConfig {
        compression: match topic.compression_type {
            Some(codec) => TargetCompression::Codec(codec),
            None => TargetCompression::Producer,
        },
        timestamp_type: match topic.message_timestamp_type {
            cluster::TimestampType::CreateTime => TimestampType::CreateTime,
            cluster::TimestampType::LogAppendTime => TimestampType::LogAppendTime,
        },
        timestamp_before_max_ms: topic.message_timestamp_before_max_ms,
        timestamp_after_max_ms: topic.message_timestamp_after_max_ms,
        producer_id_expiration_ms: config.producer_id_expiration_ms,
        log: log_config(&topic, config),
    }
}

/// What the transaction coordinator takes from the broker's configuration.
pub(crate) fn of_transactions(config: &BrokerConfig) -> TransactionConfig {
    TransactionConfig {
        max_timeout_ms: config.transactions.max_timeout_ms,
        transactional_id_expiration_ms: config.transactions.transactional_id_expiration_ms,
        two_phase_commit_enable: config.transactions.two_phase_commit_enable,
        ..TransactionConfig::default()
    }
}

fn log_config(topic: &TopicConfig, config: &BrokerConfig) -> LogConfig {
    LogConfig {
        segment_bytes: config
            .internal_segment_bytes
            .unwrap_or(topic.segment_bytes as u64),
        segment_ms: topic.segment_ms,
        segment_index_bytes: topic.segment_index_bytes as u64,
        index_interval_bytes: topic.index_interval_bytes as u64,
        retention_bytes: topic.retention_bytes,
        retention_ms: topic.retention_ms,
        max_message_bytes: topic.max_message_bytes as usize,
        cleanup_delete: topic.cleanup_delete,
        cleanup_compact: topic.cleanup_compact && config.log_cleaner_enable,
        delete_retention_ms: topic.delete_retention_ms,
        min_cleanable_dirty_ratio: topic.min_cleanable_dirty_ratio,
        min_compaction_lag_ms: topic.min_compaction_lag_ms,
        max_compaction_lag_ms: topic.max_compaction_lag_ms,
        file_delete_delay_ms: topic.file_delete_delay_ms,
        flush_messages: topic.flush_messages,
        flush_ms: topic.flush_ms,
        one_append_in_flight: false,
    }
}
