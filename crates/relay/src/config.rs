//! A relay as its user writes it down: one `[[relay]]` of a pipeline's file. Names are Kafka's,
//! librdkafka's and Debezium's where they have one.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::relay::{self, Delivery, OnPoison};
use crate::router;
use crate::source::Limit;

/// How rows are found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Capture {
    /// The log where the database lets us read it, else polling; `oncelog outbox check` says which and
    /// why.
    #[default]
    Auto,
    /// The database's log: a replication slot, the binlog.
    Cdc,
    /// Queries.
    Polling,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Config {
    /// Part of the transactional id and of the progress topic: a relay of another name is another one.
    pub name: String,
    /// `postgresql://…`, `mysql://…`, `mariadb://…` or `sqlite:PATH`.
    pub database: String,
    #[serde(default)]
    pub delivery: Delivery,
    #[serde(default)]
    pub capture: Capture,
    #[serde(default, rename = "on.poison")]
    pub on_poison: OnPoison,
    #[serde(rename = "dead.letter.topic")]
    dead_letter_topic: Option<String>,
    #[serde(rename = "transactional.id")]
    transactional_id: Option<String>,
    #[serde(rename = "progress.topic")]
    progress_topic: Option<String>,
    #[serde(default = "batch_rows", rename = "batch.max.rows")]
    batch_rows_max: usize,
    #[serde(default = "batch_bytes", rename = "batch.max.bytes")]
    batch_bytes_max: usize,
    /// How many relays share the outbox, by a hash of the aggregate's id.
    #[serde(default = "one")]
    pub shards: u32,
    #[serde(default)]
    pub shard: u32,
    /// Debezium's EventRouter.
    #[serde(default)]
    pub router: router::Options,
    /// librdkafka's properties.
    #[serde(default)]
    pub properties: BTreeMap<String, String>,
    /// The options of the kind of source that `database` leads to, which knows them and refuses others.
    #[serde(flatten)]
    pub source: Map<String, Value>,
}

fn batch_rows() -> usize {
    2_000
}

fn batch_bytes() -> usize {
    4 << 20
}

fn one() -> u32 {
    1
}

/// More than these are a mistake, and memory.
const BATCH_ROWS_MAX: usize = 100_000;
const BATCH_BYTES_MAX: usize = 256 << 20;
const SHARDS_MAX: u32 = 1_000;
/// What is left of a topic's 249 characters for a relay's name.
const NAME_LENGTH_MAX: usize = 200;
/// How long a read waits for a row before the loop comes by again.
const READ_WAIT: Duration = Duration::from_millis(500);

impl Config {
    /// Errors: values that make no sense, in words.
    pub fn validate(&self) -> Result<(), String> {
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        let refuse = |what: &str| Err(format!("relay {:?}: {what}", self.name));
        if self.name.is_empty()
            || self.name.len() > NAME_LENGTH_MAX
            || !self.name.bytes().all(legal)
        {
            return refuse("a name is 1 to 200 of a-z, A-Z, 0-9, '.', '_' and '-': topics bear it");
        }
        if !(1..=BATCH_ROWS_MAX).contains(&self.batch_rows_max) {
            return refuse("batch.max.rows is 1 to 100000");
        }
        if !(1..=BATCH_BYTES_MAX).contains(&self.batch_bytes_max) {
            return refuse("batch.max.bytes is 1 to 268435456");
        }
        if !(1..=SHARDS_MAX).contains(&self.shards) || !(0..self.shards).contains(&self.shard) {
            return refuse("shards is 1 to 1000, and shard is below it, from 0");
        }
        router::Router::new(self.router.clone())
            .map(drop)
            .map_err(|why| format!("relay {:?}: {why}", self.name))
    }

    /// Stable over restarts, and of this shard alone: it is what fences.
    pub fn transactional_id(&self) -> String {
        let base = self.transactional_id.clone();
        let base = base.unwrap_or_else(|| format!("oncelog-relay-{}", self.name));
        if self.shards == 1 {
            base
        } else {
            format!("{base}-{}", self.shard)
        }
    }

    pub fn progress_topic(&self) -> String {
        let given = self.progress_topic.clone();
        given.unwrap_or_else(|| format!("oncelog.relay.{}.progress", self.name))
    }

    pub fn dead_letter_topic(&self) -> String {
        let given = self.dead_letter_topic.clone();
        given.unwrap_or_else(|| format!("oncelog.relay.{}.dead-letter", self.name))
    }

    pub fn settings(&self) -> relay::Settings {
        relay::Settings {
            name: self.name.clone(),
            delivery: self.delivery,
            on_poison: self.on_poison,
            dead_letter_topic: self.dead_letter_topic(),
            limit: Limit {
                rows: self.batch_rows_max,
                bytes: self.batch_bytes_max,
            },
            read_wait: READ_WAIT,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(more: &str) -> Result<Config, String> {
        let text = format!(r#"{{"name": "orders", "database": "sqlite:a.db"{more}}}"#);
        let config: Config = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        config.validate().map(|()| config)
    }

    #[test]
    fn the_defaults_need_a_name_and_a_database_only() {
        let config = config("").unwrap();
        assert_eq!(config.delivery, Delivery::ExactlyOnce);
        assert_eq!(config.transactional_id(), "oncelog-relay-orders");
        assert_eq!(config.progress_topic(), "oncelog.relay.orders.progress");
    }

    #[test]
    fn a_shard_has_a_transactional_id_of_its_own() {
        let config = config(r#", "shards": 4, "shard": 3"#).unwrap();
        assert_eq!(config.transactional_id(), "oncelog-relay-orders-3");
        assert_eq!(config.progress_topic(), "oncelog.relay.orders.progress");
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for wrong in [
            r#", "shards": 2, "shard": 2"#,
            r#", "batch.max.rows": 0"#,
            r#", "delivery": "twice""#,
            r#", "router": {"route.topic.regex": "("}"#,
        ] {
            assert!(config(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_not_known_here_is_the_sources() {
        let config = config(r#", "slot.name": "x", "batch.max.rows": 7"#).unwrap();
        assert_eq!(config.source.keys().collect::<Vec<_>>(), ["slot.name"]);
    }
}
