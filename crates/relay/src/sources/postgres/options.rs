//! What the user of an outbox in PostgreSQL configures: Debezium's names where it has the option.

use std::time::Duration;

use oncelog_pipeline::database::Database;
use serde::Deserialize;

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// As libpq takes it: `postgresql://user:password@host:port/database`.
    pub url: String,
    /// The relay's name, which is not configured here: whose slot, claims and position it is.
    #[serde(skip)]
    pub relay: String,
    /// `outbox` (found on the search path) or `schema.outbox`. Empty: logical messages alone.
    #[serde(default = "defaults::table")]
    pub table: String,
    /// Polling: the column that numbers the rows as they are inserted.
    #[serde(rename = "sequence.column", default = "defaults::sequence")]
    pub sequence: String,
    /// The prefix that makes a logical message an event.
    #[serde(rename = "message.prefix", default = "defaults::prefix")]
    pub message_prefix: String,
    /// `oncelog_<relay>` without it.
    #[serde(rename = "slot.name", default)]
    pub slot_name: Option<String>,
    /// PostgreSQL 17: the slot is copied to the standbys.
    #[serde(rename = "slot.failover", default)]
    pub slot_failover: bool,
    #[serde(rename = "publication.name", default = "defaults::publication")]
    pub publication: String,
    /// What becomes of rows that were there before the slot was. Without it, they are a reason to stop.
    #[serde(rename = "snapshot.mode", default)]
    pub snapshot: Option<Snapshot>,
    #[serde(rename = "heartbeat.interval.ms", default = "defaults::heartbeat_ms")]
    pub heartbeat_ms: u64,
    /// Rows that wait between the slot's stream and the relay.
    #[serde(rename = "max.queue.size", default = "defaults::queue_rows")]
    pub queue_rows: usize,
    /// Their bytes. A single row may be larger.
    #[serde(rename = "max.queue.size.in.bytes", default = "defaults::queue_bytes")]
    pub queue_bytes: usize,
    /// Go on, on this timeline, with a position of an earlier one: somebody has looked and decided.
    #[serde(rename = "accept.timeline", default)]
    pub accept_timeline: Option<u32>,
    /// Polling: the longest pause between two looks for new rows.
    #[serde(
        rename = "poll.interval.max.ms",
        default = "defaults::poll_interval_ms"
    )]
    pub poll_interval_ms: u64,
    /// Polling: how many relays share the outbox, by a hash of the aggregate's id.
    #[serde(default = "defaults::shards")]
    pub shards: u32,
    /// Polling: which of them this one is, from 0.
    #[serde(default)]
    pub shard: u32,
    /// Polling: the column whose hash chooses the shard: that of the aggregate's id.
    #[serde(rename = "shard.column", default = "defaults::shard_by")]
    pub shard_by: String,
    /// How long published rows stay; -1: for ever. Without it: polling deletes them at once, and the
    /// slot's reader leaves the table alone.
    #[serde(rename = "retention.ms", default)]
    pub retention_ms: Option<i64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Snapshot {
    /// They are passed over.
    #[serde(alias = "never")]
    NoData,
}

mod defaults {
    pub fn table() -> String {
        "outbox".to_owned()
    }

    pub fn sequence() -> String {
        "seq".to_owned()
    }

    pub fn prefix() -> String {
        "outbox".to_owned()
    }

    pub fn publication() -> String {
        "oncelog_outbox".to_owned()
    }

    pub fn heartbeat_ms() -> u64 {
        10_000
    }

    pub fn queue_rows() -> usize {
        8_192
    }

    pub fn queue_bytes() -> usize {
        8 << 20
    }

    pub fn poll_interval_ms() -> u64 {
        50
    }

    pub fn shards() -> u32 {
        1
    }

    pub fn shard_by() -> String {
        "aggregateid".to_owned()
    }
}

/// PostgreSQL's own limit for names.
const NAME_BYTES_MAX: usize = 63;

impl Options {
    /// The defaults.
    pub fn new(url: &str, relay: &str) -> Options {
        Options {
            url: url.to_owned(),
            relay: relay.to_owned(),
            table: defaults::table(),
            sequence: defaults::sequence(),
            message_prefix: defaults::prefix(),
            slot_name: None,
            slot_failover: false,
            publication: defaults::publication(),
            snapshot: None,
            heartbeat_ms: defaults::heartbeat_ms(),
            queue_rows: defaults::queue_rows(),
            queue_bytes: defaults::queue_bytes(),
            accept_timeline: None,
            poll_interval_ms: defaults::poll_interval_ms(),
            shards: defaults::shards(),
            shard: 0,
            shard_by: defaults::shard_by(),
            retention_ms: None,
        }
    }

    /// Errors: an option that makes no sense, in words.
    pub fn validate(&self) -> Result<(), String> {
        let slot = self.slot();
        let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        if slot.is_empty() || slot.len() > NAME_BYTES_MAX || !slot.bytes().all(legal) {
            return Err(format!(
                "slot.name: {slot:?} is no name of a slot: 1 to {NAME_BYTES_MAX} of a-z, 0-9 and _"
            ));
        }
        if self.publication.is_empty() || self.publication.contains(',') {
            return Err(format!(
                "publication.name: {:?} is not one name",
                self.publication
            ));
        }
        if self.shards == 0 || self.shard >= self.shards {
            let (shard, shards) = (self.shard, self.shards);
            return Err(format!(
                "shard: {shard} is none of {shards} shards (they begin with 0)"
            ));
        }
        if self.queue_rows == 0 || self.queue_bytes == 0 {
            return Err("max.queue.size: nothing fits into a queue of 0".to_owned());
        }
        if self.retention_ms.is_some_and(|millis| millis < -1) {
            return Err("retention.ms: a number of milliseconds, or -1 for ever".to_owned());
        }
        if self.heartbeat_ms == 0 {
            return Err("heartbeat.interval.ms: 0 would write progress without a pause".to_owned());
        }
        Ok(())
    }

    pub fn slot(&self) -> String {
        if let Some(name) = &self.slot_name {
            return name.clone();
        }
        let fitting = self
            .relay
            .chars()
            .map(|char| match char.to_ascii_lowercase() {
                char if char.is_ascii_alphanumeric() => char,
                _ => '_',
            });
        let name: String = "oncelog_".chars().chain(fitting).collect();
        name.chars().take(NAME_BYTES_MAX).collect()
    }

    /// By which the server shows our connections: whose they are.
    pub(super) fn application(&self) -> String {
        let name = format!("oncelog/{}", self.relay);
        let ascii = name
            .chars()
            .map(|char| if char.is_ascii_graphic() { char } else { '?' });
        ascii.take(NAME_BYTES_MAX).collect()
    }

    /// Under which claims are kept. Shards have their own.
    pub(super) fn claimant(&self) -> String {
        match self.shards {
            1 => self.relay.clone(),
            shards => format!("{}#{}/{shards}", self.relay, self.shard),
        }
    }

    pub(super) fn heartbeat(&self) -> Duration {
        Duration::from_millis(self.heartbeat_ms)
    }

    /// When rows are to be pruned that are published; `None`: never, or not by their age.
    pub(super) fn retention(&self) -> Option<Duration> {
        self.retention_ms
            .and_then(|millis| u64::try_from(millis).ok())
            .map(Duration::from_millis)
    }

    /// Whether polling moves rows to another table when they are published.
    pub(super) fn keeps_published(&self) -> bool {
        self.retention_ms.is_some_and(|millis| millis != 0)
    }

    /// Schema (where it is named) and name.
    pub(super) fn table_parts(&self) -> (Option<&str>, &str) {
        match self.table.split_once('.') {
            Some((schema, name)) => (Some(schema), name),
            None => (None, &self.table),
        }
    }

    /// The outbox, as SQL names it.
    pub(super) fn quoted_table(&self) -> String {
        self.quoted_beside("")
    }

    /// A table of ours in the outbox's schema, whose name begins as the outbox's does.
    pub(super) fn quoted_beside(&self, suffix: &str) -> String {
        let (schema, name) = self.table_parts();
        let name = quoted(&format!("{name}{suffix}"));
        schema.map_or(name.clone(), |schema| format!("{}.{name}", quoted(schema)))
    }

    /// A table of ours, by its own name, in the outbox's schema.
    pub(super) fn own_table(&self, name: &str) -> String {
        let (schema, _) = self.table_parts();
        schema.map_or(quoted(name), |schema| {
            format!("{}.{}", quoted(schema), quoted(name))
        })
    }
}

pub(super) fn quoted(name: &str) -> String {
    Database::PostgreSql.quote_column(name)
}

/// As a string of SQL.
pub(super) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debeziums_names_are_read() {
        let json = r#"{"url": "postgresql://h/d", "slot.name": "s", "publication.name": "p",
            "heartbeat.interval.ms": 500, "table": "app.events", "snapshot.mode": "never"}"#;
        let options: Options = serde_json::from_str(json).unwrap();
        assert_eq!(
            (options.slot().as_str(), options.publication.as_str()),
            ("s", "p")
        );
        assert_eq!(options.heartbeat(), Duration::from_millis(500));
        assert_eq!(
            options.quoted_beside("_published"),
            "\"app\".\"events_published\""
        );
        assert_eq!(options.snapshot, Some(Snapshot::NoData));
        assert!(serde_json::from_str::<Options>(r#"{"url": "", "slot": "s"}"#).is_err());
    }

    #[test]
    fn a_slot_is_named_for_its_relay() {
        assert_eq!(
            Options::new("", "Orders-EU 1").slot(),
            "oncelog_orders_eu_1"
        );
        let long = Options::new("", &"x".repeat(100));
        assert_eq!(long.slot().len(), 63);
        assert_eq!(long.validate(), Ok(()));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let refused = |change: fn(&mut Options)| {
            let mut options = Options::new("", "r");
            change(&mut options);
            options.validate().unwrap_err()
        };
        assert!(refused(|options| options.slot_name = Some("A".into())).contains("slot.name"));
        assert!(refused(|options| options.shard = 1).contains("shard"));
        assert!(refused(|options| options.queue_rows = 0).contains("max.queue.size"));
        assert!(refused(|options| options.heartbeat_ms = 0).contains("heartbeat"));
    }
}
