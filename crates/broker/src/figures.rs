//! What the broker can tell of itself, for metrics and health: a snapshot, taken on demand.

use crate::broker::Broker;
use oncelog_coordinator::groups::GroupFigures;
use oncelog_coordinator::transactions::TransactionFigures;

/// Counts since the start.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counters {
    pub messages_in: u64,
    pub bytes_in: u64,
    pub duplicate_batches: u64,
}

#[derive(Clone, Debug, Default)]
pub struct Figures {
    pub counters: Counters,
    pub connections: usize,
    pub topics: Vec<TopicFigures>,
    pub groups: Vec<GroupFigures>,
    /// By shard.
    pub transactions: Vec<TransactionFigures>,
}

#[derive(Clone, Debug)]
pub struct TopicFigures {
    pub name: String,
    pub partitions: Vec<PartitionFigures>,
}

#[derive(Clone, Copy, Debug)]
pub struct PartitionFigures {
    pub start_offset: i64,
    /// The high watermark: what a consumer can read up to.
    pub end_offset: i64,
    pub size_bytes: u64,
}

impl Broker {
    /// Offsets, sizes, groups and counters as they are now.
    pub fn figures(&self) -> Figures {
        let partition = |hosted: &crate::topics::Hosted| PartitionFigures {
            start_offset: hosted.partition.log_start_offset(),
            end_offset: hosted.partition.high_watermark(),
            size_bytes: hosted.partition.size_bytes(),
        };
        let topic = |topic: &crate::topics::HostedTopic| TopicFigures {
            name: topic.name.to_string(),
            partitions: topic.partitions.iter().map(partition).collect(),
        };
        Figures {
            counters: self.counters,
            connections: self.connections.count(),
            topics: self.topics.iter().map(topic).collect(),
            groups: self
                .groups
                .shards()
                .flat_map(|shard| shard.figures())
                .collect(),
            transactions: self
                .transactions
                .shards()
                .map(|shard| shard.figures())
                .collect(),
        }
    }
}
