//! What a user writes of a sink: one `[[sink]]` table of pipeline.toml.
//!
//! Names have dots, as Kafka's do. In TOML a name with a dot is a table in a table; both
//! `group.id = "g"` and `"group.id" = "g"` are taken.

use std::collections::BTreeMap;
use std::time::Duration;

use oncelog_pipeline::database::Database;
use serde::Deserialize;
use serde_json::{Map, Value as Json};

/// What the user of a sink picks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Delivery {
    /// Nothing twice; what is under way in a crash is lost.
    AtMostOnce,
    /// Nothing lost; what is under way in a crash may be applied twice.
    AtLeastOnce,
    #[default]
    ExactlyOnce,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// By `key.columns`: a record inserts or replaces a row, a tombstone deletes it.
    #[default]
    Upsert,
    /// Each record is a new row.
    Insert,
}

/// What happens with a record that can never be a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnPoison {
    /// The sink stops before it, so that nothing overtakes it.
    #[default]
    Halt,
    /// It goes to the table `oncelog_dead_letter`, in the same transaction as the offset past it.
    Table,
}

/// Where a sink begins that has never read a partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reset {
    #[default]
    Earliest,
    Latest,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "Json")]
pub struct Config {
    pub name: String,
    /// Names, or librdkafka's regular expressions, which begin with `^`.
    pub topics: Vec<String>,
    pub group_id: String,
    /// `postgresql://…`, `mysql://…`, `mariadb://…` or `sqlite:path`.
    pub database: String,
    pub table: String,
    pub mode: Mode,
    pub delivery: Delivery,
    pub key_columns: Vec<String>,
    pub batch_max_rows: usize,
    pub batch_max_bytes: usize,
    /// The longest that a batch that has begun waits to be filled.
    pub batch_max_wait: Duration,
    pub auto_offset_reset: Reset,
    /// From the column to its source: [`crate::mapping`].
    pub columns: BTreeMap<String, String>,
    pub dead_letter: OnPoison,
    pub event_id_header: String,
    /// Whether event ids are remembered. A record without the header has none.
    pub inbox: bool,
    /// How long event ids are remembered; `None` is for ever.
    pub inbox_retention: Option<Duration>,
    /// librdkafka's, which win over ours.
    pub properties: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: String,
    topics: Vec<String>,
    #[serde(rename = "group.id")]
    group_id: Option<String>,
    database: String,
    table: String,
    #[serde(default)]
    mode: Mode,
    #[serde(default)]
    delivery: Delivery,
    #[serde(rename = "key.columns", default)]
    key_columns: Vec<String>,
    #[serde(rename = "batch.max.rows")]
    batch_max_rows: Option<usize>,
    #[serde(rename = "batch.max.bytes", default = "default_bytes")]
    batch_max_bytes: usize,
    #[serde(rename = "batch.max.wait.ms", default = "default_wait")]
    batch_max_wait_ms: u64,
    #[serde(rename = "auto.offset.reset", default)]
    auto_offset_reset: Reset,
    columns: BTreeMap<String, String>,
    #[serde(rename = "dead.letter", default)]
    dead_letter: OnPoison,
    #[serde(rename = "event.id.header", default = "default_header")]
    event_id_header: String,
    inbox: Option<bool>,
    #[serde(rename = "inbox.retention", default = "default_retention")]
    inbox_retention: String,
    #[serde(default)]
    properties: BTreeMap<String, Json>,
}

/// In SQLite each transaction waits for the disk and writes most pages of the index of event ids anew:
/// fewer and larger ones are faster.
fn default_rows(database: &str) -> usize {
    match Database::of(database) {
        Ok(Database::Sqlite) => 10_000,
        _ => 5_000,
    }
}

fn default_bytes() -> usize {
    4 << 20
}

fn default_wait() -> u64 {
    20
}

fn default_header() -> String {
    "id".to_owned()
}

fn default_retention() -> String {
    "7d".to_owned()
}

/// More would be one database transaction that others wait for too long.
const BATCH_ROWS_MAX: usize = 100_000;
const BATCH_BYTES_MAX: usize = 256 << 20;
/// Names of tables hold it, and of topics.
const NAME_LENGTH_MAX: usize = 100;

impl TryFrom<Json> for Config {
    type Error = String;

    fn try_from(written: Json) -> Result<Config, String> {
        let Json::Object(fields) = written else {
            return Err("a sink is a table of options".to_owned());
        };
        let mut flat = Map::new();
        for (name, value) in fields {
            match (name.as_str(), value) {
                ("columns", value) => drop(flat.insert(name, value)),
                ("properties", Json::Object(inner)) => {
                    let mut properties = Map::new();
                    inner
                        .into_iter()
                        .for_each(|(key, value)| flatten(key, value, &mut properties));
                    flat.insert(name, Json::Object(properties));
                }
                (_, value) => flatten(name, value, &mut flat),
            }
        }
        let written: Written =
            serde_json::from_value(Json::Object(flat)).map_err(|error| error.to_string())?;
        written.checked()
    }
}

/// `{group: {id: g}}` is `group.id: g`.
fn flatten(name: String, value: Json, flat: &mut Map<String, Json>) {
    match value {
        Json::Object(inner) => {
            for (key, value) in inner {
                flatten(format!("{name}.{key}"), value, flat);
            }
        }
        other => drop(flat.insert(name, other)),
    }
}

impl Written {
    fn checked(self) -> Result<Config, String> {
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if self.name.is_empty()
            || self.name.len() > NAME_LENGTH_MAX
            || !self.name.chars().all(legal)
        {
            return Err(format!(
                "name: {:?} is not 1 to {NAME_LENGTH_MAX} of a-z, A-Z, 0-9, '.', '_', '-'",
                self.name
            ));
        }
        let positive = |name: &str, value: usize, max: usize| match value {
            0 => Err(format!("{name} is at least 1")),
            _ if value > max => Err(format!("{name} is at most {max}")),
            _ => Ok(()),
        };
        let batch_max_rows = (self.batch_max_rows).unwrap_or_else(|| default_rows(&self.database));
        positive("batch.max.rows", batch_max_rows, BATCH_ROWS_MAX)?;
        positive("batch.max.bytes", self.batch_max_bytes, BATCH_BYTES_MAX)?;
        if self.topics.is_empty() {
            return Err("topics: at least one".to_owned());
        }
        if self.columns.is_empty() {
            return Err("columns: at least one, as in: [columns] id = \"value.id\"".to_owned());
        }
        if self.mode == Mode::Upsert && self.key_columns.is_empty() {
            return Err("mode = \"upsert\" needs key.columns".to_owned());
        }
        if let Some(missing) = self
            .key_columns
            .iter()
            .find(|key| !self.columns.contains_key(*key))
        {
            return Err(format!("key.columns: {missing} has no source in [columns]"));
        }
        let exactly_once = self.delivery == Delivery::ExactlyOnce;
        if self.inbox == Some(true) && !exactly_once {
            return Err("inbox = true is of delivery = \"exactly-once\" alone".to_owned());
        }
        Ok(Config {
            group_id: self.group_id.unwrap_or_else(|| self.name.clone()),
            name: self.name,
            topics: self.topics,
            database: self.database,
            table: self.table,
            mode: self.mode,
            delivery: self.delivery,
            key_columns: self.key_columns,
            batch_max_rows,
            batch_max_bytes: self.batch_max_bytes,
            batch_max_wait: Duration::from_millis(self.batch_max_wait_ms),
            auto_offset_reset: self.auto_offset_reset,
            columns: self.columns,
            dead_letter: self.dead_letter,
            event_id_header: self.event_id_header,
            inbox: self.inbox.unwrap_or(exactly_once),
            inbox_retention: retention(&self.inbox_retention)?,
            properties: self
                .properties
                .into_iter()
                .map(property)
                .collect::<Result<_, _>>()?,
        })
    }
}

fn property((name, value): (String, Json)) -> Result<(String, String), String> {
    match value {
        Json::String(text) => Ok((name, text)),
        Json::Bool(_) | Json::Number(_) => Ok((name, value.to_string())),
        _ => Err(format!(
            "properties: {name} is neither text, a number nor a boolean"
        )),
    }
}

/// `90s`, `30m`, `12h`, `7d`, or `forever`.
fn retention(text: &str) -> Result<Option<Duration>, String> {
    if text == "forever" {
        return Ok(None);
    }
    let wrong = || format!("inbox.retention: {text:?} is not like 30m, 12h, 7d or forever");
    let unit = text.chars().last().ok_or_else(wrong)?;
    let seconds: u64 = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return Err(wrong()),
    };
    let count: u64 = text[..text.len() - 1].trim().parse().map_err(|_| wrong())?;
    let seconds = count
        .checked_mul(seconds)
        .filter(|s| *s > 0 && *s < 1 << 32);
    seconds
        .map(|seconds| Some(Duration::from_secs(seconds)))
        .ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINIMAL: &str = r#""name": "s", "topics": ["t"], "database": "sqlite:x", "table": "o",
        "key.columns": ["id"], "columns": {"id": "value.id"}"#;

    fn read(more: &str) -> Result<Config, String> {
        serde_json::from_str(&format!("{{{MINIMAL}{more}}}")).map_err(|error| error.to_string())
    }

    #[test]
    fn the_defaults_are_the_strict_ones() {
        let config = read("").unwrap();
        assert_eq!(config.group_id, "s");
        assert_eq!(config.delivery, Delivery::ExactlyOnce);
        assert_eq!(
            (config.mode, config.dead_letter),
            (Mode::Upsert, OnPoison::Halt)
        );
        assert_eq!(
            (config.inbox, config.event_id_header.as_str()),
            (true, "id")
        );
        assert_eq!(
            config.inbox_retention,
            Some(Duration::from_secs(7 * 86_400))
        );
        assert!(!read(r#", "delivery": "at-least-once""#).unwrap().inbox);
    }

    #[test]
    fn dots_may_be_tables_in_tables() {
        let config = read(
            r#", "group": {"id": "g"}, "batch": {"max": {"rows": 7, "wait.ms": 9}},
            "properties": {"fetch": {"min": {"bytes": 1}}, "check.crcs": true}"#,
        )
        .unwrap();
        assert_eq!((config.group_id.as_str(), config.batch_max_rows), ("g", 7));
        assert_eq!(config.batch_max_wait, Duration::from_millis(9));
        assert_eq!(config.properties["fetch.min.bytes"], "1");
        assert_eq!(config.properties["check.crcs"], "true");
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        for (more, word) in [
            (r#", "batch.max.rows": 0"#, "batch.max.rows"),
            (r#", "grp.id": "x""#, "grp.id"),
            (r#", "inbox.retention": "7x""#, "inbox.retention"),
            (r#", "inbox.retention": "µ""#, "inbox.retention"),
            (r#", "inbox": true, "delivery": "at-most-once""#, "inbox"),
            (r#", "delivery": "twice""#, "twice"),
        ] {
            let refused = read(more).unwrap_err();
            assert!(refused.contains(word), "{more}: {refused}");
        }
        let unmapped = MINIMAL.replace("[\"id\"]", "[\"key\"]");
        let refused = serde_json::from_str::<Config>(&format!("{{{unmapped}}}")).unwrap_err();
        assert!(refused.to_string().contains("key.columns"), "{refused}");
    }
}
