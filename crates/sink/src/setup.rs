//! What a sink needs in its database and on its cluster: the statements that make it, and a check that
//! names each fault with its fix.
//!
//! The tables of ours: `oncelog_sink_offset` (the truth about what has been applied),
//! `oncelog_sink_inbox` (the events that were), `oncelog_dead_letter` (an outbox with Debezium's columns,
//! for records that can never be a row). Only those that the configuration asks for.

use std::time::Duration;

use mysql::prelude::Queryable;
use oncelog_pipeline::database::{Database, sqlite_path, without_password};
use oncelog_pipeline::finding::Finding;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};

use crate::config::{Config, Delivery, Mode, OnPoison};
use crate::mapping::Mapping;
use crate::table::Table;
use crate::targets::{mysql as mariadb, postgres as postgresql, sqlite};

const OFFSET: &str = "oncelog_sink_offset";
const INBOX: &str = "oncelog_sink_inbox";
const LETTER: &str = "oncelog_dead_letter";

fn needed(config: &Config) -> Vec<&'static str> {
    let mut tables = Vec::new();
    if config.delivery == Delivery::ExactlyOnce {
        tables.push(OFFSET);
    }
    if config.inbox {
        tables.push(INBOX);
    }
    if config.dead_letter == OnPoison::Table {
        tables.push(LETTER);
    }
    tables
}

/// Statements that make the tables of ours, as far as they are not there. Errors: an unknown database.
pub fn ddl(config: &Config) -> Result<Vec<String>, String> {
    let database = Database::of(&config.database)?;
    let statements = needed(config)
        .into_iter()
        .flat_map(|table| create(database, table));
    Ok(statements
        .map(|statement| (*statement).to_owned())
        .collect())
}

fn create(database: Database, table: &str) -> &'static [&'static str] {
    match (database, table) {
        (Database::PostgreSql, OFFSET) => &[
            "CREATE TABLE IF NOT EXISTS oncelog_sink_offset (\n  sink text NOT NULL,\n  topic text NOT \
             NULL,\n  partition_id integer NOT NULL,\n  cluster_id text NOT NULL,\n  epoch bigint NOT \
             NULL,\n  next_offset bigint NOT NULL,\n  updated_at timestamptz NOT NULL DEFAULT now(),\n  \
             PRIMARY KEY (sink, topic, partition_id)\n) WITH (fillfactor = 50)",
        ],
        (Database::PostgreSql, INBOX) => &[
            "CREATE TABLE IF NOT EXISTS oncelog_sink_inbox (\n  sink text NOT NULL,\n  event_id text NOT \
             NULL,\n  seen_at timestamptz NOT NULL DEFAULT now(),\n  PRIMARY KEY (sink, event_id)\n)",
            "CREATE INDEX IF NOT EXISTS oncelog_sink_inbox_seen_at ON oncelog_sink_inbox (sink, seen_at)",
        ],
        (Database::PostgreSql, _) => &[
            "CREATE TABLE IF NOT EXISTS oncelog_dead_letter (\n  seq bigint GENERATED ALWAYS AS IDENTITY \
             PRIMARY KEY,\n  id varchar(255) NOT NULL,\n  aggregatetype varchar(255) NOT NULL,\n  \
             aggregateid varchar(255) NOT NULL,\n  type varchar(255) NOT NULL,\n  payload text,\n  error \
             text NOT NULL,\n  topic varchar(255) NOT NULL,\n  partition_id integer NOT NULL,\n  \
             record_offset bigint NOT NULL,\n  created_at timestamptz NOT NULL DEFAULT now()\n)",
        ],
        (Database::MySql, OFFSET) => &[
            "CREATE TABLE IF NOT EXISTS oncelog_sink_offset (\n  sink varchar(100) NOT NULL,\n  topic \
             varchar(249) NOT NULL,\n  partition_id int NOT NULL,\n  cluster_id varchar(255) NOT NULL,\n  \
             epoch bigint NOT NULL,\n  next_offset bigint NOT NULL,\n  updated_at datetime NOT NULL,\n  \
             PRIMARY KEY (sink, topic, partition_id)\n) ENGINE = InnoDB CHARACTER SET ascii COLLATE \
             ascii_bin",
        ],
        (Database::MySql, INBOX) => &[
            "CREATE TABLE IF NOT EXISTS oncelog_sink_inbox (\n  sink varbinary(100) NOT NULL,\n  event_id \
             varbinary(255) NOT NULL,\n  seen_at datetime NOT NULL,\n  PRIMARY KEY (sink, event_id),\n  \
             KEY oncelog_sink_inbox_seen_at (sink, seen_at)\n) ENGINE = InnoDB",
        ],
        (Database::MySql, _) => &[
            "CREATE TABLE IF NOT EXISTS oncelog_dead_letter (\n  seq bigint NOT NULL AUTO_INCREMENT \
             PRIMARY KEY,\n  id varchar(255) NOT NULL,\n  aggregatetype varchar(255) NOT NULL,\n  \
             aggregateid varchar(255) NOT NULL,\n  type varchar(255) NOT NULL,\n  payload longtext,\n  \
             error text NOT NULL,\n  topic varchar(255) NOT NULL,\n  partition_id int NOT NULL,\n  \
             record_offset bigint NOT NULL,\n  created_at timestamp(3) NOT NULL DEFAULT \
             CURRENT_TIMESTAMP(3)\n) ENGINE = InnoDB CHARACTER SET utf8mb4",
        ],
        (Database::Sqlite, OFFSET) => &[
            "CREATE TABLE IF NOT EXISTS oncelog_sink_offset (\n  sink TEXT NOT NULL,\n  topic TEXT NOT \
             NULL,\n  partition_id INTEGER NOT NULL,\n  cluster_id TEXT NOT NULL,\n  epoch INTEGER NOT \
             NULL,\n  next_offset INTEGER NOT NULL,\n  updated_at INTEGER NOT NULL,\n  PRIMARY KEY \
             (sink, topic, partition_id)\n) WITHOUT ROWID",
        ],
        (Database::Sqlite, INBOX) => &[
            "CREATE TABLE IF NOT EXISTS oncelog_sink_inbox (\n  seq INTEGER PRIMARY KEY,\n  sink TEXT NOT \
             NULL,\n  event_id TEXT NOT NULL,\n  seen_at INTEGER NOT NULL,\n  UNIQUE (sink, event_id)\n)",
        ],
        (Database::Sqlite, _) => &[
            "CREATE TABLE IF NOT EXISTS oncelog_dead_letter (\n  seq INTEGER PRIMARY KEY AUTOINCREMENT,\n  \
             id TEXT NOT NULL,\n  aggregatetype TEXT NOT NULL,\n  aggregateid TEXT NOT NULL,\n  type TEXT \
             NOT NULL,\n  payload TEXT,\n  error TEXT NOT NULL,\n  topic TEXT NOT NULL,\n  partition_id \
             INTEGER NOT NULL,\n  record_offset INTEGER NOT NULL,\n  created_at TEXT NOT NULL DEFAULT \
             (strftime('%Y-%m-%d %H:%M:%f', 'now'))\n)",
        ],
    }
}

/// A first draft of the target table: text, but for what is known not to be. Errors: an unknown database.
pub fn table_ddl(config: &Config) -> Result<String, String> {
    let database = Database::of(&config.database)?;
    let of = |postgresql, mysql, sqlite| match database {
        Database::PostgreSql => postgresql,
        Database::MySql => mysql,
        Database::Sqlite => sqlite,
    };
    let columns = config.columns.iter().map(|(name, source)| {
        let key = config.key_columns.contains(name);
        let kind = match source.as_str() {
            "partition" => of("integer", "int", "INTEGER"),
            "offset" => of("bigint", "bigint", "INTEGER"),
            "timestamp" => of("timestamptz", "datetime(3)", "TIMESTAMP"),
            "value" if !key => of("jsonb", "json", "JSON"),
            // An index of MySQL's needs a length.
            _ if key => of("text", "varchar(255)", "TEXT"),
            _ => of("text", "longtext", "TEXT"),
        };
        let null = if key { " NOT NULL" } else { "" };
        format!("  {} {kind}{null}", database.quote_column(name))
    });
    let mut lines: Vec<String> = columns.collect();
    if !config.key_columns.is_empty() {
        let key = config
            .key_columns
            .iter()
            .map(|name| database.quote_column(name));
        lines.push(format!(
            "  PRIMARY KEY ({})",
            key.collect::<Vec<_>>().join(", ")
        ));
    }
    let table = database.quote(&config.table);
    Ok(format!(
        "CREATE TABLE IF NOT EXISTS {table} (\n{}\n)",
        lines.join(",\n")
    ))
}

/// Runs such statements. SQLite's file is made where it is not there. Errors: which one failed, and why.
pub fn execute(config: &Config, statements: &[String]) -> Result<(), String> {
    let mut connection = Connection::open(config, true)?;
    for statement in statements {
        let done = connection.execute(statement);
        done.map_err(|error| format!("{error}, in:\n{statement}"))?;
    }
    Ok(())
}

/// `bootstrap`: where the cluster is; `None` leaves the topics out.
pub fn check(config: &Config, bootstrap: Option<&str>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let shown = without_password(&config.database);
    match Connection::open(config, false) {
        Ok(mut connection) => {
            findings.push(Finding::fine(format!("{shown} can be reached")));
            check_ours(config, &mut connection, &mut findings);
            check_table(config, &mut connection, &mut findings);
        }
        Err(error) => findings.push(Finding::fault(
            format!("{shown} cannot be reached: {error}"),
            "start the database, or correct `database` in the configuration",
        )),
    }
    if let Some(bootstrap) = bootstrap {
        check_topics(config, bootstrap, &mut findings);
    }
    findings
}

fn check_ours(config: &Config, connection: &mut Connection, findings: &mut Vec<Finding>) {
    for table in needed(config) {
        findings.push(match connection.describe(table) {
            Ok(Some(_)) => may_write(connection, table),
            Ok(None) => Finding::fault(
                format!("table {table} is not there"),
                "run `oncelog sink init`, or the statements that it prints",
            ),
            Err(error) => Finding::fault(
                format!("table {table} cannot be looked at: {error}"),
                "give the user the privilege to read it",
            ),
        });
    }
}

fn may_write(connection: &mut Connection, table: &str) -> Finding {
    let quoted = connection.database().quote(table);
    let tried = [
        (
            "INSERT",
            format!("INSERT INTO {quoted} SELECT * FROM {quoted} WHERE 1 = 0"),
        ),
        ("DELETE", format!("DELETE FROM {quoted} WHERE 1 = 0")),
    ];
    // Its counter cannot be given a value, by anybody.
    let from = usize::from(table == LETTER);
    may(connection, table, &tried[from..])
}

/// Statements that change nothing, for which the privileges are asked nevertheless.
fn may(connection: &mut Connection, table: &str, tried: &[(&str, String)]) -> Finding {
    for (privilege, statement) in tried {
        if let Err(error) = connection.execute(statement) {
            return Finding::fault(
                format!("{privilege} on table {table} is not possible: {error}"),
                format!("GRANT SELECT, INSERT, UPDATE, DELETE ON {table} to the user of the sink"),
            );
        }
    }
    Finding::fine(format!("table {table} is there and can be written to"))
}

fn check_table(config: &Config, connection: &mut Connection, findings: &mut Vec<Finding>) {
    let name = &config.table;
    let table = match connection.describe(name) {
        Ok(Some(table)) => table,
        Ok(None) => {
            findings.push(Finding::fault(
                format!("table {name} is not there"),
                "create it; `oncelog sink init` prints a draft",
            ));
            return;
        }
        Err(error) => {
            findings.push(Finding::fault(
                format!("table {name}: {error}"),
                "see the error",
            ));
            return;
        }
    };
    match Mapping::new(config, &table) {
        Ok(_) => findings.push(Finding::fine(format!("all mapped columns are in {name}"))),
        Err(error) => {
            findings.push(Finding::fault(
                error,
                "correct [columns], or add the column",
            ));
            return;
        }
    }
    check_nulls(config, &table, findings);
    check_unique(config, &table, connection.database(), findings);
    findings.push(may(
        connection,
        name,
        &changes(config, connection.database()),
    ));
}

fn changes(config: &Config, database: Database) -> Vec<(&'static str, String)> {
    let table = database.quote(&config.table);
    let columns = config
        .columns
        .keys()
        .map(|name| database.quote_column(name));
    let columns: Vec<String> = columns.collect();
    let list = columns.join(", ");
    let mut tried = vec![(
        "INSERT",
        format!("INSERT INTO {table} ({list}) SELECT {list} FROM {table} WHERE 1 = 0"),
    )];
    if config.mode == Mode::Upsert {
        let first = &columns[0];
        tried.push((
            "UPDATE",
            format!("UPDATE {table} SET {first} = {first} WHERE 1 = 0"),
        ));
        tried.push(("DELETE", format!("DELETE FROM {table} WHERE 1 = 0")));
    }
    tried
}

fn check_nulls(config: &Config, table: &Table, findings: &mut Vec<Finding>) {
    let missing = table.columns.iter().filter(|column| {
        !column.nullable && !column.optional && !config.columns.contains_key(&column.name)
    });
    let missing: Vec<&str> = missing.map(|column| column.name.as_str()).collect();
    findings.push(match missing.is_empty() {
        true => Finding::fine("all columns that are NOT NULL are mapped, or have a default"),
        false => Finding::fault(
            format!(
                "NOT NULL without a default, and not mapped: {}",
                missing.join(", ")
            ),
            "map them in [columns], or give them a default",
        ),
    });
}

fn check_unique(config: &Config, table: &Table, database: Database, findings: &mut Vec<Finding>) {
    let sorted = |columns: &[String]| {
        let mut columns = columns.to_vec();
        columns.sort();
        columns
    };
    let key = sorted(&config.key_columns);
    let (same, other): (Vec<_>, Vec<_>) = table
        .unique
        .iter()
        .partition(|unique| sorted(unique) == key);
    let (name, keys) = (&config.table, config.key_columns.join(", "));
    let mapped = |unique: &&Vec<String>| unique.iter().all(|c| config.columns.contains_key(c));
    if config.mode == Mode::Upsert {
        findings.push(match same.is_empty() {
            false => Finding::fine(format!("a unique index is over key.columns ({keys})")),
            true => Finding::fault(
                format!("no unique index of {name} is over exactly key.columns ({keys})"),
                format!("CREATE UNIQUE INDEX ON {name} ({keys}), or make it the primary key"),
            ),
        });
        // A column that is not mapped never has the value of another row.
        let other = other.into_iter().find(mapped);
        if let (Database::MySql, Some(other)) = (database, other) {
            findings.push(Finding::fault(
                format!(
                    "{name} has another unique index, over ({}): ON DUPLICATE KEY UPDATE would take a \
                     row with the same values there for the one to replace",
                    other.join(", ")
                ),
                "drop that index, or take its columns as key.columns",
            ));
        }
        return;
    }
    if config.delivery == Delivery::AtLeastOnce
        && let Some(unique) = table.unique.iter().find(mapped)
    {
        findings.push(Finding::fault(
            format!(
                "mode = \"insert\" with delivery = \"at-least-once\", and a unique index over ({}): \
                 what comes twice is refused, and the sink halts there",
                unique.join(", ")
            ),
            "use mode = \"upsert\", or delivery = \"exactly-once\"",
        ));
    }
}

fn check_topics(config: &Config, bootstrap: &str, findings: &mut Vec<Finding>) {
    const ANSWER: Duration = Duration::from_secs(10);
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", bootstrap);
    for (name, value) in &config.properties {
        client.set(name, value);
    }
    let consumer: Result<BaseConsumer, _> = client.create();
    let metadata = consumer.and_then(|consumer| consumer.fetch_metadata(None, ANSWER));
    let metadata = match metadata {
        Ok(metadata) => metadata,
        Err(error) => {
            findings.push(Finding::fault(
                format!("no broker could be reached at {bootstrap}: {error}"),
                "start it, or correct bootstrap.servers",
            ));
            return;
        }
    };
    findings.push(Finding::fine(format!(
        "the cluster at {bootstrap} can be reached"
    )));
    for topic in &config.topics {
        if topic.starts_with('^') {
            findings.push(Finding::fine(format!(
                "{topic} is a pattern: topics may come later"
            )));
            continue;
        }
        let found = metadata.topics().iter().find(|found| found.name() == topic);
        findings.push(match found.map_or(0, |found| found.partitions().len()) {
            0 => Finding::fault(
                format!("topic {topic} is not there"),
                format!("create it: oncelog topic create {topic}"),
            ),
            count => Finding::fine(format!("topic {topic} is there, with {count} partitions")),
        });
    }
    findings.push(Finding::fine(
        "records are read with isolation.level=read_committed, whatever [properties] says",
    ));
}

/// A connection of whichever database.
enum Connection {
    PostgreSql(Box<postgres::Client>),
    MySql(Box<mysql::Conn>),
    Sqlite(rusqlite::Connection),
}

impl Connection {
    fn open(config: &Config, create: bool) -> Result<Connection, String> {
        let url = &config.database;
        let words = |error: crate::target::TargetError| error.to_string();
        Ok(match Database::of(url)? {
            Database::PostgreSql => {
                let server = postgresql::server(url, &config.name)?;
                Connection::PostgreSql(Box::new(postgresql::connect(&server).map_err(words)?))
            }
            Database::MySql => {
                let server = mariadb::server(url)?;
                Connection::MySql(Box::new(mariadb::connect(&server).map_err(words)?))
            }
            Database::Sqlite => {
                Connection::Sqlite(sqlite::connect(sqlite_path(url), create).map_err(words)?)
            }
        })
    }

    fn database(&self) -> Database {
        match self {
            Connection::PostgreSql(_) => Database::PostgreSql,
            Connection::MySql(_) => Database::MySql,
            Connection::Sqlite(_) => Database::Sqlite,
        }
    }

    fn execute(&mut self, statement: &str) -> Result<(), String> {
        match self {
            Connection::PostgreSql(client) => client
                .batch_execute(statement)
                .map_err(|error| postgresql::words(&error)),
            Connection::MySql(connection) => connection
                .query_drop(statement)
                .map_err(|error| error.to_string()),
            Connection::Sqlite(connection) => connection
                .execute_batch(statement)
                .map_err(|error| error.to_string()),
        }
    }

    fn describe(&mut self, table: &str) -> Result<Option<Table>, String> {
        match self {
            Connection::PostgreSql(client) => {
                postgresql::describe(client, table).map_err(|error| postgresql::words(&error))
            }
            Connection::MySql(connection) => {
                mariadb::describe(connection, table).map_err(|error| error.to_string())
            }
            Connection::Sqlite(connection) => {
                sqlite::describe(connection, table).map_err(|error| error.to_string())
            }
        }
    }
}
