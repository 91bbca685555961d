//! Configuration: the tables of keys, and what a set of values comes to.
//!
//! Two tables say everything there is to know of a key: [`broker_keys`] and [`topic_keys`]. Keys
//! that Kafka has and Oncelog does not are in [`foreign`], with the reason. Nothing else in the
//! project may name a key's default or range.
//!
//! Deliberately not here: files and environment variables (the command reads them and hands over
//! a map), and what a value does once it is in [`BrokerConfig`] or [`TopicConfig`].

mod broker_config;
pub mod broker_keys;
mod definition;
mod effective;
pub mod foreign;
mod listeners;
mod suggest;
mod topic_config;
pub mod topic_keys;

pub use broker_config::{BrokerConfig, ConfigError, TransactionSettings};
pub use definition::{ConfigDef, ConfigType, Update, Valid, Value, split_list};
pub use effective::{ConfigSource, ConfigSynonym, Effective, Layers};
pub use listeners::Listener;
pub use topic_config::{TimestampType, TopicConfig, check_topic_configs};

pub(crate) use effective::{effective_broker, effective_topic};
pub(crate) use suggest::{did_you_mean, same_start};
