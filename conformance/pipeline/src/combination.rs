//! What is combined: where events come from, where they go, and at which guarantee.

use std::fmt;
use std::str::FromStr;

/// The kinds of server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    Sqlite,
    PostgreSql,
    MariaDb,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Sqlite,
    PostgresCdc,
    /// `pg_logical_emit_message`: no outbox table at all.
    PostgresMessages,
    PostgresPolling,
    MariaDbBinlog,
    MariaDbPolling,
    /// Polling by two relays, by a hash of the account.
    PostgresShards,
    /// The binlog, read by two relays.
    MariaDbShards,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    pub engine: Engine,
    /// A row for each account, replaced and deleted; else a row for each event.
    pub upsert: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Combination {
    pub source: Source,
    pub target: Target,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Level {
    AtMost,
    AtLeast,
    #[default]
    Exactly,
}

const SOURCES: [(&str, Source); 8] = [
    ("sqlite", Source::Sqlite),
    ("postgres-cdc", Source::PostgresCdc),
    ("postgres-messages", Source::PostgresMessages),
    ("postgres-polling", Source::PostgresPolling),
    ("mariadb-binlog", Source::MariaDbBinlog),
    ("mariadb-polling", Source::MariaDbPolling),
    ("postgres-shards", Source::PostgresShards),
    ("mariadb-shards", Source::MariaDbShards),
];

const TARGETS: [(&str, Target); 6] = [
    ("sqlite", insert(Engine::Sqlite)),
    ("postgres", insert(Engine::PostgreSql)),
    ("mariadb", insert(Engine::MariaDb)),
    ("sqlite-upsert", upsert(Engine::Sqlite)),
    ("postgres-upsert", upsert(Engine::PostgreSql)),
    ("mariadb-upsert", upsert(Engine::MariaDb)),
];

const LEVELS: [(&str, Level); 3] = [
    ("at-most-once", Level::AtMost),
    ("at-least-once", Level::AtLeast),
    ("exactly-once", Level::Exactly),
];

/// Each source and each target once or more.
const SHORT: [&str; 8] = [
    "sqlite:postgres",
    "postgres-cdc:sqlite",
    "postgres-messages:mariadb-upsert",
    "postgres-polling:mariadb",
    "mariadb-binlog:postgres-upsert",
    "mariadb-polling:sqlite-upsert",
    "postgres-shards:postgres",
    "mariadb-shards:sqlite",
];

const fn insert(engine: Engine) -> Target {
    Target {
        engine,
        upsert: false,
    }
}

const fn upsert(engine: Engine) -> Target {
    Target {
        engine,
        upsert: true,
    }
}

impl Source {
    pub fn engine(self) -> Engine {
        match self {
            Source::Sqlite => Engine::Sqlite,
            Source::PostgresCdc
            | Source::PostgresMessages
            | Source::PostgresPolling
            | Source::PostgresShards => Engine::PostgreSql,
            Source::MariaDbBinlog | Source::MariaDbPolling | Source::MariaDbShards => {
                Engine::MariaDb
            }
        }
    }

    /// How many relays there are.
    pub fn shards(self) -> u32 {
        match self {
            Source::PostgresShards | Source::MariaDbShards => 2,
            _ => 1,
        }
    }
}

/// Those of a short run, or every source with every target that takes a row for each event, and each
/// upsert and each pair of shards once.
pub fn combinations(long: bool) -> Vec<Combination> {
    let short = SHORT
        .iter()
        .map(|text| text.parse().expect("a combination's own name"));
    let short: Vec<Combination> = short.collect();
    if !long {
        return short;
    }
    let mut all = Vec::new();
    for (_, source) in SOURCES.iter().filter(|(_, source)| source.shards() == 1) {
        for (_, target) in TARGETS.iter().filter(|(_, target)| !target.upsert) {
            all.push(Combination {
                source: *source,
                target: *target,
            });
        }
    }
    all.extend(
        short
            .into_iter()
            .filter(|one| one.target.upsert || one.source.shards() > 1),
    );
    all
}

fn named<T: Copy>(all: &[(&str, T)], kind: &str, name: &str) -> Result<T, String> {
    let found = all.iter().find(|(known, _)| *known == name);
    let names: Vec<&str> = all.iter().map(|(known, _)| *known).collect();
    let (_, found) =
        found.ok_or_else(|| format!("no {kind} `{name}`; one of {}", names.join(", ")))?;
    Ok(*found)
}

fn name_of<T: PartialEq>(all: &[(&'static str, T)], one: &T) -> &'static str {
    let found = all.iter().find(|(_, known)| known == one);
    found.map_or("", |(name, _)| name)
}

impl FromStr for Combination {
    type Err = String;

    fn from_str(text: &str) -> Result<Combination, String> {
        let (source, target) = text.split_once(':').ok_or("write SOURCE:TARGET")?;
        Ok(Combination {
            source: named(&SOURCES, "source", source)?,
            target: named(&TARGETS, "target", target)?,
        })
    }
}

impl fmt::Display for Combination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (source, target) = (
            name_of(&SOURCES, &self.source),
            name_of(&TARGETS, &self.target),
        );
        f.pad(&format!("{source}:{target}"))
    }
}

impl FromStr for Level {
    type Err = String;

    fn from_str(text: &str) -> Result<Level, String> {
        named(&LEVELS, "level", text)
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(name_of(&LEVELS, self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_run_has_each_source_and_each_engine() {
        let short = combinations(false);
        for (name, source) in SOURCES {
            assert!(short.iter().any(|one| one.source == source), "{name}");
        }
        for (name, target) in TARGETS {
            assert!(short.iter().any(|one| one.target == target), "{name}");
        }
    }

    #[test]
    fn a_long_run_has_all_pairs_once() {
        let mut names: Vec<String> = combinations(true).iter().map(ToString::to_string).collect();
        assert_eq!(names.len(), 23);
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), 23);
        assert!(names.iter().all(|name| name.parse::<Combination>().is_ok()));
    }

    #[test]
    fn what_is_not_there_is_refused() {
        assert!("sqlite".parse::<Combination>().is_err());
        assert!(
            "oracle:sqlite"
                .parse::<Combination>()
                .unwrap_err()
                .contains("postgres-cdc")
        );
        assert_eq!("exactly-once".parse::<Level>(), Ok(Level::Exactly));
        assert_eq!(Level::AtMost.to_string(), "at-most-once");
    }
}
