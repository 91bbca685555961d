//! A pipeline's file: Kafka's keys for the broker, `[[relay]]` and `[[sink]]` tables, and
//! `bootstrap.servers` where the broker is not the embedded one.
//!
//! ```toml
//! bootstrap.servers = "kafka-1:9092"   # leave it out for the broker that `oncelog start` runs
//!
//! [[relay]]
//! name = "orders"
//! database = "postgresql://shop@localhost/shop"
//!
//! [[sink]]
//! name = "warehouse"
//! topics = ["outbox.event.order"]
//! database = "sqlite:warehouse.db"
//! table = "orders"
//! ```
//!
//! Keys may be written dotted, quoted or as tables, as everywhere in Oncelog's files; so each relay's
//! and sink's table is flattened to dotted keys before it is read.

pub mod figures;
pub mod running;

use std::path::{Path, PathBuf};

use oncelog_relay::launch;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::failure::Failure;

/// Tables whose own keys are dotted names: they stay tables.
const MAPS: [&str; 3] = ["router", "properties", "columns"];

/// Top-level keys that are not the broker's.
pub const OWN_KEYS: [&str; 3] = ["bootstrap", "relay", "sink"];

#[derive(Debug, Default)]
pub struct Pipeline {
    /// Where the file is, for messages.
    pub path: PathBuf,
    pub bootstrap: Option<String>,
    pub relays: Vec<oncelog_relay::config::Config>,
    pub sinks: Vec<oncelog_sink::config::Config>,
}

impl Pipeline {
    /// Errors: a file that cannot be read or is no TOML; a key that is not known.
    pub fn read(path: &Path) -> Result<Pipeline, Failure> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            Failure::usage(format!("{} cannot be read", path.display())).why(error.to_string())
        })?;
        Pipeline::parse(path, &text)
    }

    fn parse(path: &Path, text: &str) -> Result<Pipeline, Failure> {
        let refuse =
            |why: String| Failure::usage(format!("{} is no pipeline", path.display())).why(why);
        let table: toml::Table = toml::from_str(text).map_err(|error| refuse(error.to_string()))?;
        let mut pipeline = Pipeline {
            path: path.to_owned(),
            bootstrap: servers(&table).map_err(refuse)?,
            ..Pipeline::default()
        };
        pipeline.relays = each(&table, "relay").map_err(refuse)?;
        pipeline.sinks = each(&table, "sink").map_err(refuse)?;
        for relay in &pipeline.relays {
            launch::validate(relay).map_err(refuse)?;
        }
        let names = pipeline
            .relays
            .iter()
            .map(|relay| (&relay.name, relay.shard));
        twice(names, "relay").map_err(refuse)?;
        twice(pipeline.sinks.iter().map(|sink| &sink.name), "sink").map_err(refuse)?;
        Ok(pipeline)
    }

    /// The relay of that name, or the only one.
    pub fn relay(&self, name: Option<&str>) -> Result<&oncelog_relay::config::Config, Failure> {
        let names: Vec<&str> = self
            .relays
            .iter()
            .map(|relay| relay.name.as_str())
            .collect();
        self.pick(name, &names, "relay")
            .map(|index| &self.relays[index])
    }

    /// The sink of that name, or the only one.
    pub fn sink(&self, name: Option<&str>) -> Result<&oncelog_sink::config::Config, Failure> {
        let names: Vec<&str> = self.sinks.iter().map(|sink| sink.name.as_str()).collect();
        self.pick(name, &names, "sink")
            .map(|index| &self.sinks[index])
    }

    fn pick(&self, name: Option<&str>, names: &[&str], kind: &str) -> Result<usize, Failure> {
        let found = match name {
            Some(name) => names.iter().position(|known| *known == name),
            None if names.len() == 1 => Some(0),
            None => None,
        };
        found.ok_or_else(|| {
            let path = self.path.display();
            let what = match (name, names) {
                (_, []) => format!("{path} has no [[{kind}]]"),
                (Some(name), _) => format!("{path} has no {kind} {name}"),
                (None, _) => format!("{path} has more than one {kind}"),
            };
            let failure = Failure::usage(what);
            if names.is_empty() {
                failure
            } else {
                failure.next(format!("name one of: {}", names.join(", ")))
            }
        })
    }
}

fn servers(table: &toml::Table) -> Result<Option<String>, String> {
    let mut found = Map::new();
    for (key, value) in table {
        flatten(key, value, &mut found)?;
    }
    match found.get("bootstrap.servers") {
        None => Ok(None),
        Some(Value::String(servers)) => Ok(Some(servers.clone())),
        Some(Value::Array(servers)) => {
            let servers: Vec<&str> = servers.iter().filter_map(Value::as_str).collect();
            Ok(Some(servers.join(",")))
        }
        Some(other) => Err(format!("bootstrap.servers = {other} is no host:port")),
    }
}

fn each<T: DeserializeOwned>(table: &toml::Table, kind: &str) -> Result<Vec<T>, String> {
    let listed = match table.get(kind) {
        None => return Ok(Vec::new()),
        Some(toml::Value::Array(listed)) => listed,
        Some(_) => {
            return Err(format!(
                "write [[{kind}]], in double brackets: there may be several"
            ));
        }
    };
    let one = |(index, value): (usize, &toml::Value)| {
        let name = value.get("name").and_then(toml::Value::as_str);
        let name = name.map_or_else(
            || format!("number {}", index + 1),
            |name| format!("{name:?}"),
        );
        let toml::Value::Table(table) = value else {
            return Err(format!("{kind} {name} is no table"));
        };
        let flat = keys(table).map_err(|why| format!("{kind} {name}: {why}"))?;
        serde_json::from_value(Value::Object(flat))
            .map_err(|error| format!("{kind} {name}: {error}"))
    };
    listed.iter().enumerate().map(one).collect()
}

/// A relay's or sink's keys, dotted; [`MAPS`] hold dotted keys of their own.
fn keys(table: &toml::Table) -> Result<Map<String, Value>, String> {
    let mut found = Map::new();
    for (key, value) in table {
        match value {
            toml::Value::Table(inner) if MAPS.contains(&key.as_str()) => {
                let mut map = Map::new();
                for (key, value) in inner {
                    flatten(key, value, &mut map)?;
                }
                if key == "properties" {
                    map.values_mut().for_each(to_text);
                }
                found.insert(key.clone(), Value::Object(map));
            }
            _ => flatten(key, value, &mut found)?,
        }
    }
    Ok(found)
}

fn flatten(key: &str, value: &toml::Value, found: &mut Map<String, Value>) -> Result<(), String> {
    match value {
        toml::Value::Table(inner) => {
            for (name, value) in inner {
                flatten(&format!("{key}.{name}"), value, found)?;
            }
        }
        toml::Value::Datetime(date) => return Err(format!("{key} = {date}: nothing takes a date")),
        other => {
            let value = serde_json::to_value(other).map_err(|error| error.to_string())?;
            found.insert(key.to_owned(), value);
        }
    }
    Ok(())
}

/// librdkafka takes texts alone.
fn to_text(value: &mut Value) {
    if !value.is_string() {
        *value = Value::String(value.to_string());
    }
}

fn twice<T: PartialEq + std::fmt::Debug>(
    names: impl Iterator<Item = T>,
    kind: &str,
) -> Result<(), String> {
    let mut seen = Vec::new();
    for name in names {
        if seen.contains(&name) {
            return Err(format!(
                "two of kind {kind} are called {name:?}: each needs its own name"
            ));
        }
        seen.push(name);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Pipeline, String> {
        let parsed = Pipeline::parse(Path::new("pipeline.toml"), text);
        parsed.map_err(|failure| failure.to_string())
    }

    #[test]
    fn keys_may_be_dotted_quoted_or_tables() {
        let pipeline = parse(
            r#"
            bootstrap.servers = ["a:1", "b:2"]
            num.partitions = 3
            [[relay]]
            name = "orders"
            database = "sqlite:a.db"
            on.poison = "quarantine"
            "batch.max.rows" = 7
            router.route.topic.replacement = "x.${routedByValue}"
            [relay.properties]
            linger.ms = 5
            "#,
        )
        .unwrap();
        assert_eq!(pipeline.bootstrap.as_deref(), Some("a:1,b:2"));
        let relay = pipeline.relay(None).unwrap();
        assert_eq!(relay.settings().limit.rows, 7);
        assert_eq!(relay.router.topic_replacement, "x.${routedByValue}");
        assert_eq!(relay.properties["linger.ms"], "5");
    }

    #[test]
    fn what_is_not_known_is_refused_with_its_place() {
        let relay = "[[relay]]\nname = \"orders\"\ndatabase = \"sqlite:a.db\"\n";
        let unknown = parse(&format!("{relay}slot.nam = \"x\"")).unwrap_err();
        assert!(
            unknown.contains("orders") && unknown.contains("slot.nam"),
            "{unknown}"
        );
        let twice = parse(&format!("{relay}{relay}")).unwrap_err();
        assert!(twice.contains("orders"), "{twice}");
        assert!(
            parse("[relay]\nname = \"a\"")
                .unwrap_err()
                .contains("[[relay]]")
        );
        assert!(parse("name =").is_err());
    }

    #[test]
    fn one_of_several_has_to_be_named() {
        let relay =
            |name: &str| format!("[[relay]]\nname = \"{name}\"\ndatabase = \"sqlite:a.db\"\n");
        let pipeline = parse(&(relay("a") + &relay("b"))).unwrap();
        assert_eq!(pipeline.relay(Some("b")).unwrap().name, "b");
        let unnamed = pipeline.relay(None).unwrap_err().to_string();
        assert!(unnamed.contains("a, b"), "{unnamed}");
        assert!(pipeline.relay(Some("c")).is_err());
        assert!(
            pipeline
                .sink(None)
                .unwrap_err()
                .to_string()
                .contains("no [[sink]]")
        );
    }
}
