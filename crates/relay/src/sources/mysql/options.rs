//! What a user sets for an outbox in MySQL or MariaDB.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;

#[derive(Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// `mysql://user:password@host:port/database`, or `mariadb://…`. Without TLS, which is not built in.
    pub url: String,
    /// The outbox; of another database than the url's as `database.table`.
    pub table: String,
    /// Which relay it is: the same as long as its progress is to be kept. Set by whoever starts it.
    #[serde(skip)]
    pub relay: String,
    /// How many relays share the outbox, by the hash of `shard.column`.
    pub shards: u32,
    /// Which of them this is, from 0 on.
    pub shard: u32,
    /// Rows that are equal in it stay in order.
    #[serde(rename = "shard.column")]
    pub shard_column: String,
    /// Binlog: the replica's id, which no other replica of the server may have. The default follows from
    /// `relay` and `shard`.
    #[serde(rename = "database.server.id")]
    pub server_id: Option<u32>,
    /// Binlog: how often the progress moves on while there is traffic in other tables only.
    #[serde(rename = "heartbeat.interval.ms")]
    pub heartbeat_interval_ms: u64,
    /// Binlog: the most memory for rows that have been read ahead, in bytes. A single row may be larger.
    #[serde(rename = "buffer.bytes")]
    pub buffer_bytes: usize,
    /// Polling: an AUTO_INCREMENT column with an index.
    #[serde(rename = "sequence.column")]
    pub sequence_column: String,
    /// Polling: the pause between looking, once there has been nothing for a while.
    #[serde(rename = "poll.interval.max.ms")]
    pub poll_interval_max_ms: u64,
    /// Polling: published rows are kept for this long in `<table>_published`; without it they are
    /// deleted at once.
    #[serde(rename = "retention.ms")]
    pub retention_ms: Option<u64>,
    /// Only for the table that is to be made: BLACKHOLE keeps no rows, which is enough for the binlog.
    pub engine: Engine,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    #[default]
    InnoDb,
    Blackhole,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            url: String::new(),
            table: "outbox".into(),
            relay: String::new(),
            shards: 1,
            shard: 0,
            shard_column: "aggregateid".into(),
            server_id: None,
            heartbeat_interval_ms: 10_000,
            buffer_bytes: 16 << 20,
            sequence_column: "seq".into(),
            poll_interval_max_ms: 50,
            retention_ms: None,
            engine: Engine::InnoDb,
        }
    }
}

/// Not the url, which holds a password.
impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shard = format_args!("{}/{}", self.shard, self.shards);
        let mut debug = f.debug_struct("Options");
        debug
            .field("table", &self.table)
            .field("relay", &self.relay);
        debug.field("shard", &shard).finish_non_exhaustive()
    }
}

impl Options {
    pub fn heartbeat_interval(&self) -> Duration {
        Duration::from_millis(self.heartbeat_interval_ms)
    }

    pub fn poll_interval_max(&self) -> Duration {
        Duration::from_millis(self.poll_interval_max_ms.max(1))
    }

    pub fn retention(&self) -> Option<Duration> {
        self.retention_ms.map(Duration::from_millis)
    }

    /// Errors: what makes no sense, for a person.
    pub fn validate(&self) -> Result<(), String> {
        if self.relay.is_empty() || self.key().chars().count() > KEY_LENGTH_MAX {
            return Err(format!(
                "the relay's name {:?} is empty or too long",
                self.relay
            ));
        }
        if self.shards == 0 || self.shard >= self.shards {
            let (shard, shards) = (self.shard, self.shards);
            return Err(format!(
                "shard {shard} of {shards}: the shards are counted from 0 on"
            ));
        }
        if self.server_id == Some(0) {
            return Err("database.server.id 0 is no replica's".to_owned());
        }
        Ok(())
    }

    /// What names this relay's shard in the side tables.
    pub(super) fn key(&self) -> String {
        if self.shards == 1 {
            return self.relay.clone();
        }
        format!("{}#{}/{}", self.relay, self.shard, self.shards)
    }

    /// The replica's id. Without an option, one from 2^31 on, where hardly anybody picks ids by hand.
    pub(super) fn replica_id(&self) -> u32 {
        let derived = || (1 << 31) | (crc32fast::hash(self.key().as_bytes()) >> 1);
        self.server_id.unwrap_or_else(derived)
    }

    /// Whether rows with this text in the shard's column are this shard's: MySQL's `CRC32(text)`.
    pub(super) fn owns(&self, text: &[u8]) -> bool {
        self.shards == 1 || crc32fast::hash(text) % self.shards == self.shard
    }
}

/// Of the key of the side tables: a topic's name and a shard fit.
const KEY_LENGTH_MAX: usize = 249;

#[cfg(test)]
mod tests {
    use super::*;

    fn options(json: &str) -> Options {
        let mut options: Options = serde_json::from_str(json).unwrap();
        options.relay = "orders".into();
        options
    }

    #[test]
    fn defaults_and_what_makes_no_sense() {
        let plain = options(r#"{"url": "mysql://localhost/shop"}"#);
        assert_eq!(plain.validate(), Ok(()));
        assert_eq!(
            (plain.table.as_str(), plain.key().as_str()),
            ("outbox", "orders")
        );
        assert!(options(r#"{"shards": 2, "shard": 2}"#).validate().is_err());
        assert!(Options::default().validate().is_err());
        assert!(serde_json::from_str::<Options>(r#"{"tabel": "x"}"#).is_err());
        assert!(!format!("{:?}", options(r#"{"url": "mysql://a:secret@h/d"}"#)).contains("secret"));
    }

    #[test]
    fn each_shard_is_a_replica_of_its_own() {
        let first = options(r#"{"shards": 2}"#);
        let second = options(r#"{"shards": 2, "shard": 1}"#);
        assert_ne!(first.replica_id(), second.replica_id());
        assert!(first.replica_id() >= 1 << 31);
        assert_eq!(options(r#"{"database.server.id": 7}"#).replica_id(), 7);
        for text in ["a", "b", "c", "d"] {
            assert_ne!(first.owns(text.as_bytes()), second.owns(text.as_bytes()));
        }
    }
}
