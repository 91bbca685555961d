//! The cluster's metadata: topics, partitions, configurations, brokers, producer-id blocks.
//!
//! One state, [`Cluster`], changed only by [`Cluster::replay`] of [`MetadataRecord`]s, which are
//! Kafka's own. Every administrative request has a file with a *decide* method: it looks at the
//! state and gives the records and the answer, and changes nothing. Whoever owns the metadata log
//! appends the records, and when they are committed replays them and sends the answer. Requests
//! that only look (Metadata, the Describe APIs) are answered from the state at once.
//!
//! Deliberately not here: the log and its quorum (the broker's `quorum`), and what a partition
//! does with its configuration.
//!
//! Invariants:
//! - the partitions of a topic are numbered from 0 without a gap, and never removed singly;
//! - a topic's name and its id stand for one another; a topic that is deleted and made again has
//!   another id;
//! - no two topics have names that differ only in `.` and `_`;
//! - producer ids only rise: a block that was given out is never given out again.

mod alter_configs;
mod auto_create;
pub mod config;
mod create_partitions;
mod create_topics;
mod delete_topics;
mod describe_cluster;
mod describe_configs;
mod describe_topic_partitions;
mod incremental_alter_configs;
mod limits;
mod list_config_resources;
mod metadata;
mod placement;
mod producer_ids;
mod record;
mod refusal;
mod repeated;
mod replay;
mod resource;
mod state;
mod topic_name;

#[cfg(test)]
mod testing;

pub use auto_create::AutoCreated;
pub use config::{
    BrokerConfig, ConfigError, Listener, TimestampType, TopicConfig, TransactionSettings,
};
pub use limits::TOPIC_NAME_LEN;
pub use producer_ids::PRODUCER_ID_BLOCK;
pub use record::{BadRecord, MetadataRecord};
pub use replay::ReplayError;
pub use resource::{ConfigResource, ResourceType};
pub use state::{Cluster, PartitionState, RegisteredBroker, TopicState};
pub use topic_name::{
    INTERNAL_TOPICS, OFFSETS_TOPIC, TRANSACTION_STATE_TOPIC, check_topic_name, is_internal,
};
