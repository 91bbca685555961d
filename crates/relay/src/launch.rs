//! From a [`Config`] to a running relay: which source its database and its options lead to, and the
//! producer beside it.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use oncelog_pipeline::database::{Database, sqlite_path};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::config::{Capture, Config};
use crate::host::{self, Figures};
use crate::kafka::{self, Kafka};
use crate::relay::{Relay, Stop};
use crate::router::Router;
use crate::source::{Source, SourceError};
use crate::sources::{mysql, postgres, sqlite};
use oncelog_pipeline::finding::Finding;

/// How the rows are found, and why so.
pub struct Chosen {
    pub source: Box<dyn Source>,
    pub how: String,
}

/// A database, with the options of its kind of source.
enum Options {
    PostgreSql(postgres::Options),
    MySql(mysql::Options),
    Sqlite(sqlite::Options),
}

/// Errors: options that do not go together, or that nobody knows, in words.
pub fn validate(config: &Config) -> Result<(), String> {
    options(config).map(drop)
}

/// Connects only where `capture` is `auto` and the database has both ways. Errors: as of [`validate`];
/// neither way is open, and why.
pub fn source(config: &Config) -> Result<Chosen, String> {
    let chosen = |source: Box<dyn Source>, how: &str| Chosen {
        source,
        how: how.to_owned(),
    };
    let refused = |error: SourceError| error.to_string();
    let (log, polling) = ("the log: capture is cdc", "queries: capture is polling");
    Ok(match (options(config)?, config.capture) {
        (Options::Sqlite(options), _) => chosen(
            Box::new(sqlite::Sqlite::new(options)),
            "a cursor over the table: SQLite commits in the order of its sequence",
        ),
        (Options::PostgreSql(options), Capture::Cdc) => {
            chosen(Box::new(postgres::Cdc::new(options)), log)
        }
        (Options::PostgreSql(options), Capture::Polling) => {
            chosen(Box::new(postgres::Polling::new(options)), polling)
        }
        (Options::PostgreSql(options), Capture::Auto) => {
            let choice = postgres::choose(&options).map_err(refused)?;
            match choice.way {
                postgres::Way::Cdc => chosen(Box::new(postgres::Cdc::new(options)), &choice.reason),
                postgres::Way::Polling => {
                    chosen(Box::new(postgres::Polling::new(options)), &choice.reason)
                }
            }
        }
        (Options::MySql(options), Capture::Cdc) => {
            chosen(Box::new(mysql::Binlog::new(options)), log)
        }
        (Options::MySql(options), Capture::Polling) => {
            chosen(Box::new(mysql::Polling::new(options)), polling)
        }
        (Options::MySql(options), Capture::Auto) => {
            let (way, reason) = mysql::setup::choose(&options).map_err(refused)?;
            match way {
                mysql::setup::Way::Binlog => chosen(Box::new(mysql::Binlog::new(options)), &reason),
                mysql::setup::Way::Polling => {
                    chosen(Box::new(mysql::Polling::new(options)), &reason)
                }
            }
        }
    })
}

/// The statements that make the outbox and what a relay keeps beside it.
pub fn ddl(config: &Config) -> Result<Vec<String>, String> {
    Ok(match options(config)? {
        Options::Sqlite(options) => sqlite::ddl(&options),
        Options::PostgreSql(options) => postgres::ddl(&options),
        Options::MySql(options) => mysql::setup::ddl(&options),
    })
}

/// Runs the statements of [`ddl`]. Errors: which one the database refused, and its words.
pub fn apply(config: &Config) -> Result<(), String> {
    match options(config)? {
        Options::Sqlite(options) => sqlite::apply(&options),
        Options::PostgreSql(options) => postgres::apply(&options, &postgres::ddl(&options)),
        Options::MySql(options) => mysql::setup::init(&options).map_err(|error| error.to_string()),
    }
}

/// What was looked at, for a relay that runs with `config`.
pub fn check(config: &Config) -> Result<Vec<Finding>, String> {
    Ok(match options(config)? {
        Options::Sqlite(options) => sqlite::check(&options),
        Options::PostgreSql(options) => match config.capture {
            Capture::Auto => postgres::check(&options),
            Capture::Cdc => postgres::check_for(&options, postgres::Way::Cdc),
            Capture::Polling => postgres::check_for(&options, postgres::Way::Polling),
        },
        Options::MySql(options) => {
            use mysql::setup::{Way, choose};
            let way = match config.capture {
                Capture::Auto => choose(&options).map_or(Way::Binlog, |(way, _)| way),
                Capture::Cdc => Way::Binlog,
                Capture::Polling => Way::Polling,
            };
            mysql::setup::check(&options, way)
        }
    })
}

fn options(config: &Config) -> Result<Options, String> {
    config.validate()?;
    let name = &config.name;
    let wrong = |why: String| format!("relay {name:?}: {why}");
    let database = Database::of(&config.database).map_err(wrong)?;
    let mut fields = config.source.clone();
    if database == Database::Sqlite {
        if config.capture == Capture::Cdc {
            return Err(wrong(
                "SQLite has no log to read changes from; leave capture out".to_owned(),
            ));
        }
        if config.shards != 1 {
            return Err(wrong("an outbox in SQLite has one shard".to_owned()));
        }
        let options: sqlite::Options = read(fields).map_err(wrong)?;
        return Ok(Options::Sqlite(sqlite::Options {
            path: sqlite_path(&config.database).into(),
            relay: name.clone(),
            ..options
        }));
    }
    fields.insert("shards".to_owned(), config.shards.into());
    fields.insert("shard".to_owned(), config.shard.into());
    fields.insert("url".to_owned(), config.database.clone().into());
    if database == Database::PostgreSql {
        let mut options: postgres::Options = read(fields).map_err(wrong)?;
        options.relay.clone_from(name);
        options.validate().map_err(wrong)?;
        return Ok(Options::PostgreSql(options));
    }
    let mut options: mysql::Options = read(fields).map_err(wrong)?;
    options.relay.clone_from(name);
    options.validate().map_err(wrong)?;
    Ok(Options::MySql(options))
}

fn read<T: DeserializeOwned>(fields: Map<String, Value>) -> Result<T, String> {
    serde_json::from_value(Value::Object(fields)).map_err(|error| error.to_string())
}

/// Runs a relay on the thread that calls, until `stop` is set (then `None`) or it stops by itself.
/// Errors: a configuration that makes no sense.
pub fn run(
    config: &Config,
    bootstrap: &str,
    stop: &Arc<AtomicBool>,
    figures: &Figures,
) -> Result<Option<Stop>, String> {
    let router = Router::new(config.router.clone())?;
    let mut relay = Relay::new(config.settings(), router);
    let mut chosen = source(config)?;
    tracing::info!("relay {}: {}", config.name, chosen.how);
    let settings = kafka::Settings {
        bootstrap: bootstrap.to_owned(),
        delivery: config.delivery,
        transactional_id: config.transactional_id(),
        progress_topic: config.progress_topic(),
        shards: config.shards as i32,
        shard: config.shard as i32,
        properties: config.properties.clone().into_iter().collect(),
    };
    let mut topics = Kafka::new(settings, Arc::clone(stop))?;
    Ok(host::run(
        &mut relay,
        chosen.source.as_mut(),
        &mut topics,
        stop,
        figures,
    ))
}
