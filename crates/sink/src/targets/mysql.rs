//! [`Target`] with MariaDB and MySQL.
//!
//! Rows go in statements of many rows, prepared once for each power of two, so that few statements serve
//! every size of batch.
//!
//! Non-obvious:
//! - READ COMMITTED and strict mode, whatever the defaults: no locks on gaps, and a value that does not
//!   fit is refused instead of cut.
//! - ON DUPLICATE KEY UPDATE goes by any unique index of the table, not by `key.columns` alone.
//! - INSERT IGNORE does not say which rows were there, and ignores more than duplicates: the inbox is
//!   asked first. Two instances that both have an event (in two partitions) meet at its primary key; the
//!   second tries its batch again.
//! - Text keys are rarely exact here ([`crate::plan`]): most collations have no regard to case, and all
//!   but few none to spaces at the end. Then the order of the records is kept, which is right, but does
//!   not rule out deadlocks; the server ends those, and the batch is tried again. DDL commits by itself:
//!   there is none here.

use std::collections::HashSet;
use std::time::Duration;

use mysql::prelude::Queryable;
use mysql::{AccessMode, Conn, Error, IsolationLevel, Opts, OptsBuilder, TxOpts, Value as Sent};
use oncelog_pipeline::database::Database;
use oncelog_pipeline::failpoint;

use crate::config::{Config, Mode};
use crate::dead_letter::Letter;
use crate::mapping::Change;
use crate::plan::{self, Step, Values};
use crate::record::TopicPartition;
use crate::table::{Column, Kind, Table, Value, int};
use crate::target::{
    Applied, Claim, Effect, Entry, Move, Request, Target, TargetError, Transaction, fenced,
    other_cluster,
};

const CONNECT_WAIT: Duration = Duration::from_secs(10);
/// Longer than a lock is waited for by default (`innodb_lock_wait_timeout`).
const SILENCE: Duration = Duration::from_secs(90);
/// Rows of one statement: a power of two. Longer ones gain little.
const ROWS_MAX: usize = 512;
/// What the protocol can count.
const PARAMETERS_MAX: usize = 65_535;
const PRUNE_ROWS: u64 = 5_000;
const PRUNE_ROUNDS: usize = 10;

pub struct MySql {
    sink: String,
    server: Opts,
    config: Config,
    open: Option<Open>,
}

struct Open {
    connection: Conn,
    statements: Statements,
    /// As indexes into a row's values; empty in insert mode.
    key: Vec<usize>,
    exact: bool,
}

/// Without the rows.
struct Statements {
    put: Rows,
    delete: Option<Rows>,
    inbox: Rows,
}

/// `before (?, ?), (?, ?) after`
struct Rows {
    before: String,
    row: String,
    between: &'static str,
    after: String,
    width: usize,
}

impl MySql {
    /// Errors: the URL is none.
    pub fn new(config: &Config) -> Result<MySql, String> {
        Ok(MySql {
            sink: config.name.clone(),
            server: server(&config.database)?,
            config: config.clone(),
            open: None,
        })
    }

    fn opened(&mut self) -> &mut Open {
        self.open.as_mut().expect("a sink begins with Open")
    }
}

/// Errors: the URL is none.
pub(crate) fn server(url: &str) -> Result<Opts, String> {
    let known = url
        .strip_prefix("mariadb://")
        .map(|rest| format!("mysql://{rest}"));
    let parsed = Opts::from_url(known.as_deref().unwrap_or(url))
        .map_err(|error| format!("database: {error}"))?;
    let init = [
        "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
        "SET SESSION sql_mode = CONCAT(@@sql_mode, ',STRICT_ALL_TABLES')",
        // MariaDB alone can end a transaction that a paused client has left, whose locks hold up
        // whoever claims the partitions.
        "SET SESSION time_zone = '+00:00' /*M!100300 , SESSION idle_transaction_timeout = 60 */",
    ];
    let builder = OptsBuilder::from_opts(parsed)
        .tcp_connect_timeout(Some(CONNECT_WAIT))
        .read_timeout(Some(SILENCE))
        .write_timeout(Some(SILENCE))
        .tcp_keepalive_time_ms(Some(30_000))
        .stmt_cache_size(64)
        .init(init.iter().map(|one| (*one).to_owned()).collect());
    Ok(builder.into())
}

pub(crate) fn connect(server: &Opts) -> Result<Conn, TargetError> {
    Conn::new(server.clone()).map_err(|error| failed(&error))
}

/// What the table looks like; `None` where it is not there.
pub(crate) fn describe(connection: &mut Conn, table: &str) -> Result<Option<Table>, Error> {
    let (schema, name) = match table.split_once('.') {
        Some((schema, name)) => (Some(schema), name),
        None => (None, table),
    };
    // MariaDB's JSON is text with a check.
    let maria: Option<String> = connection.query_first("SELECT VERSION()")?;
    let maria = maria.is_some_and(|version| version.contains("MariaDB"));
    let checks: Vec<String> = match maria {
        true => connection.exec(
            "SELECT CHECK_CLAUSE FROM information_schema.CHECK_CONSTRAINTS \
             WHERE CONSTRAINT_SCHEMA = COALESCE(?, DATABASE()) AND TABLE_NAME = ?",
            (schema, name),
        )?,
        false => Vec::new(),
    };
    let rows: Vec<(String, String, String, String, bool, Option<String>)> = connection.exec(
        "SELECT COLUMN_NAME, DATA_TYPE, COLUMN_TYPE, IS_NULLABLE, \
            COLUMN_DEFAULT IS NOT NULL OR EXTRA LIKE '%auto_increment%' OR EXTRA LIKE '%GENERATED%', \
            COLLATION_NAME \
         FROM information_schema.COLUMNS \
         WHERE TABLE_SCHEMA = COALESCE(?, DATABASE()) AND TABLE_NAME = ? ORDER BY ORDINAL_POSITION",
        (schema, name),
    )?;
    if rows.is_empty() {
        return Ok(None);
    }
    let columns = rows
        .into_iter()
        .map(|(name, base, whole, nullable, optional, collation)| {
            let json = checks
                .iter()
                .any(|check| *check == format!("json_valid(`{name}`)"));
            let kind = if json {
                Kind::Json
            } else {
                kind(&base, whole.contains("unsigned"))
            };
            let exact = match kind {
                Kind::Int { .. } | Kind::Uuid => true,
                // `binary` is filled up with zeros.
                Kind::Bytes => base != "binary",
                Kind::Text => collation.is_some_and(|collation| {
                    collation.ends_with("_0900_bin") || collation.ends_with("_nopad_bin")
                }),
                _ => false,
            };
            Column {
                name,
                kind,
                type_name: whole,
                nullable: nullable == "YES",
                optional,
                exact,
            }
        });
    let columns = columns.collect();
    Ok(Some(Table {
        name: table.to_owned(),
        columns,
        unique: unique_indexes(connection, schema, name)?,
    }))
}

/// The columns of each, in their order; none with a column that is indexed in part.
fn unique_indexes(
    connection: &mut Conn,
    schema: Option<&str>,
    name: &str,
) -> Result<Vec<Vec<String>>, Error> {
    let indexes: Vec<(String, String)> = connection.exec(
        "SELECT INDEX_NAME, COLUMN_NAME FROM information_schema.STATISTICS \
         WHERE TABLE_SCHEMA = COALESCE(?, DATABASE()) AND TABLE_NAME = ? AND NON_UNIQUE = 0 \
            AND SUB_PART IS NULL AND COLUMN_NAME IS NOT NULL ORDER BY INDEX_NAME, SEQ_IN_INDEX",
        (schema, name),
    )?;
    let mut unique: Vec<(String, Vec<String>)> = Vec::new();
    for (index, column) in indexes {
        match unique.last_mut() {
            Some((last, columns)) if *last == index => columns.push(column),
            _ => unique.push((index, vec![column])),
        }
    }
    Ok(unique.into_iter().map(|(_, columns)| columns).collect())
}

fn kind(base: &str, unsigned: bool) -> Kind {
    let whole = |bits: u32| match unsigned {
        false => int(bits, true),
        true => Kind::Int {
            min: 0,
            max: i64::MAX >> (63 - bits),
            bools: true,
        },
    };
    match base {
        "tinyint" => whole(8),
        "smallint" => whole(16),
        "mediumint" => whole(24),
        "int" | "integer" => whole(32),
        // All its digits do not fit into ours.
        "bigint" if unsigned => Kind::Number,
        "bigint" => int(64, true),
        "float" | "double" => Kind::Float,
        "decimal" | "numeric" => Kind::Number,
        "char" | "varchar" | "tinytext" | "text" | "mediumtext" | "longtext" => Kind::Text,
        "json" => Kind::Json,
        "binary" | "varbinary" | "tinyblob" | "blob" | "mediumblob" | "longblob" => Kind::Bytes,
        "uuid" => Kind::Uuid,
        "datetime" | "timestamp" => Kind::Timestamp { iso: false },
        _ => Kind::Other,
    }
}

impl Rows {
    fn sql(&self, rows: usize) -> String {
        let mut sql = self.before.clone();
        for index in 0..rows {
            if index > 0 {
                sql.push_str(self.between);
            }
            sql.push_str(&self.row);
        }
        sql.push_str(&self.after);
        sql
    }

    /// Runs it for all rows, some at a time: as many as a power of two.
    fn execute<'r, R>(
        &self,
        begun: &mut impl Queryable,
        rows: &'r [R],
        send: impl Fn(&'r R, &mut Vec<Sent>),
    ) -> Result<(), Error> {
        let most = (PARAMETERS_MAX / self.width).clamp(1, ROWS_MAX);
        let mut rest = rows;
        while !rest.is_empty() {
            let count = 1 << rest.len().min(most).ilog2();
            let (some, others) = rest.split_at(count);
            let statement = begun.prep(self.sql(count))?;
            let mut sent = Vec::with_capacity(count * self.width);
            some.iter().for_each(|row| send(row, &mut sent));
            begun.exec_drop(statement, sent)?;
            rest = others;
        }
        Ok(())
    }
}

fn marks(count: usize) -> String {
    vec!["?"; count].join(", ")
}

fn statements(config: &Config) -> Statements {
    let quote = |name: &String| Database::MySql.quote_column(name);
    let table = Database::MySql.quote(&config.table);
    let columns: Vec<String> = config.columns.keys().map(quote).collect();
    let key: Vec<String> = config.key_columns.iter().map(quote).collect();
    let upsert = config.mode == Mode::Upsert;
    let set = columns.iter().filter(|column| !key.contains(column));
    let mut set: Vec<String> = set
        .map(|column| format!("{column} = VALUES({column})"))
        .collect();
    if set.is_empty() {
        set = key
            .iter()
            .take(1)
            .map(|column| format!("{column} = {column}"))
            .collect();
    }
    let one = key.len() == 1;
    let equal: Vec<String> = key.iter().map(|column| format!("{column} = ?")).collect();
    Statements {
        put: Rows {
            before: format!("INSERT INTO {table} ({}) VALUES ", columns.join(", ")),
            row: format!("({})", marks(columns.len())),
            between: ", ",
            after: match upsert {
                true => format!(" ON DUPLICATE KEY UPDATE {}", set.join(", ")),
                false => String::new(),
            },
            width: columns.len(),
        },
        delete: upsert.then(|| Rows {
            before: match one {
                true => format!("DELETE FROM {table} WHERE {} IN (", key[0]),
                false => format!("DELETE FROM {table} WHERE "),
            },
            row: if one {
                "?".to_owned()
            } else {
                format!("({})", equal.join(" AND "))
            },
            between: if one { ", " } else { " OR " },
            after: if one { ")".to_owned() } else { String::new() },
            width: key.len(),
        }),
        inbox: Rows {
            before: "INSERT INTO oncelog_sink_inbox (sink, event_id, seen_at) VALUES ".to_owned(),
            row: "(?, ?, UTC_TIMESTAMP())".to_owned(),
            between: ", ",
            after: String::new(),
            width: 2,
        },
    }
}

impl Target for MySql {
    fn open(&mut self) -> Result<Table, TargetError> {
        self.open = None;
        let mut connection = connect(&self.server)?;
        let table =
            describe(&mut connection, &self.config.table).map_err(|error| failed(&error))?;
        let table = table.ok_or_else(|| {
            TargetError::Refused(format!("the database has no table {}", self.config.table))
        })?;
        let names: Vec<&String> = self.config.columns.keys().collect();
        let upsert = self.config.mode == Mode::Upsert;
        let key = self.config.key_columns.iter().filter(|_| upsert);
        let key = key.filter_map(|name| names.iter().position(|known| *known == name));
        let key: Vec<usize> = key.collect();
        let exact = |index: &usize| {
            table
                .column(names[*index])
                .is_some_and(|column| column.exact)
        };
        self.open = Some(Open {
            connection,
            statements: statements(&self.config),
            exact: !key.is_empty() && key.iter().all(exact),
            key,
        });
        Ok(table)
    }

    fn claim(&mut self, cluster: &str, requests: &[Request]) -> Result<Vec<Claim>, TargetError> {
        let sink = self.sink.clone();
        let mut sorted: Vec<&Request> = requests.iter().collect();
        sorted.sort_by(|one, other| one.partition.cmp(&other.partition));
        let mut begun = begin(&mut self.opened().connection)?;
        let mut claims = Vec::with_capacity(sorted.len());
        for request in sorted {
            let partition = &request.partition;
            let found =
                claim(&mut begun, &sink, cluster, request).map_err(|error| failed(&error))?;
            let (epoch, next_offset, stored) = found;
            if let Some(other) = other_cluster(partition, &stored, cluster) {
                return Err(TargetError::Refused(other));
            }
            claims.push(Claim {
                partition: partition.clone(),
                epoch,
                next_offset,
            });
        }
        begun.commit().map_err(|error| failed(&error))?;
        Ok(claims)
    }

    fn apply(&mut self, transaction: &Transaction) -> Result<Applied, TargetError> {
        let sink = self.sink.clone();
        let applied = apply(self.opened(), &sink, transaction)?;
        failpoint::reach("sink-after-commit");
        Ok(applied)
    }

    fn prune(&mut self, older: Duration) -> Result<u64, TargetError> {
        let (sink, seconds) = (self.sink.clone(), older.as_secs());
        let connection = &mut self.opened().connection;
        let mut all = 0;
        for _ in 0..PRUNE_ROUNDS {
            let pruned = connection.exec_drop(
                "DELETE FROM oncelog_sink_inbox WHERE sink = ? \
                 AND seen_at < UTC_TIMESTAMP() - INTERVAL ? SECOND ORDER BY seen_at LIMIT ?",
                (&sink, seconds, PRUNE_ROWS),
            );
            pruned.map_err(|error| failed(&error))?;
            all += connection.affected_rows();
            if connection.affected_rows() < PRUNE_ROWS {
                break;
            }
        }
        Ok(all)
    }
}

fn begin(connection: &mut Conn) -> Result<mysql::Transaction<'_>, TargetError> {
    let options = TxOpts::default()
        .set_isolation_level(Some(IsolationLevel::ReadCommitted))
        .set_access_mode(Some(AccessMode::ReadWrite));
    connection
        .start_transaction(options)
        .map_err(|error| failed(&error))
}

/// Epoch, next offset, the cluster's id as it was.
fn claim(
    begun: &mut mysql::Transaction<'_>,
    sink: &str,
    cluster: &str,
    request: &Request,
) -> Result<(i64, i64, String), Error> {
    let TopicPartition { topic, partition } = &request.partition;
    let (topic, place) = (topic.as_ref(), *partition);
    begun.exec_drop(
        "INSERT INTO oncelog_sink_offset \
         (sink, topic, partition_id, cluster_id, epoch, next_offset, updated_at) \
         VALUES (?, ?, ?, ?, 1, ?, UTC_TIMESTAMP()) \
         ON DUPLICATE KEY UPDATE epoch = epoch + 1, updated_at = UTC_TIMESTAMP(), \
            cluster_id = IF(cluster_id = '', VALUES(cluster_id), cluster_id)",
        (sink, topic, place, cluster, request.first),
    )?;
    let row = begun.exec_first(
        "SELECT epoch, next_offset, cluster_id FROM oncelog_sink_offset \
         WHERE sink = ? AND topic = ? AND partition_id = ? FOR UPDATE",
        (sink, topic, place),
    )?;
    row.ok_or_else(|| {
        Error::IoError(std::io::Error::other(
            "the row that was just written is not there",
        ))
    })
}

fn apply(open: &mut Open, sink: &str, transaction: &Transaction) -> Result<Applied, TargetError> {
    let lost = |error: Error| failed(&error);
    let mut begun = begin(&mut open.connection)?;
    for moved in &transaction.moves {
        fence(&mut begun, sink, moved)?;
    }
    let entries = transaction.entries();
    let new = remember(&mut begun, &open.statements.inbox, sink, entries)?;
    let entries = || entries.iter().zip(&new).filter(|(_, new)| **new);
    let changes = entries().filter_map(|(entry, _)| match &entry.effect {
        Effect::Change(change) => Some(change),
        Effect::Letter(_) => None,
    });
    let changes: Vec<&Change> = changes.collect();
    let steps = match open.exact {
        true => plan::net(changes.into_iter(), &open.key),
        false => plan::runs(changes.into_iter()),
    };
    for step in steps {
        let (statement, rows) = match step {
            Step::Put(rows) => (Some(&open.statements.put), rows),
            Step::Delete(keys) => (open.statements.delete.as_ref(), keys),
        };
        let statement = statement.expect("deletes are of a sink with a key");
        statement.execute(&mut begun, &rows, values).map_err(lost)?;
    }
    for (entry, _) in entries() {
        if let Effect::Letter(letter) = &entry.effect {
            insert_letter(&mut begun, letter).map_err(lost)?;
        }
    }
    failpoint::reach("sink-before-commit");
    begun.commit().map_err(lost)?;
    Ok(Applied {
        duplicates: new.iter().filter(|new| !**new).count() as u64,
    })
}

/// The offset moves on, if this instance is still the one to move it.
fn fence(begun: &mut mysql::Transaction<'_>, sink: &str, moved: &Move) -> Result<(), TargetError> {
    let TopicPartition { topic, partition } = &moved.partition;
    let updated = begun.exec_drop(
        "UPDATE oncelog_sink_offset SET next_offset = ?, updated_at = UTC_TIMESTAMP() \
         WHERE sink = ? AND topic = ? AND partition_id = ? AND next_offset = ? AND epoch = ?",
        (
            moved.to,
            sink,
            topic.as_ref(),
            partition,
            moved.from,
            moved.epoch,
        ),
    );
    updated.map_err(|error| failed(&error))?;
    match begun.affected_rows() {
        1 => Ok(()),
        _ => Err(fenced(moved)),
    }
}

/// Which entries are new: those whose event has not been seen, of several with one id the first.
fn remember(
    begun: &mut mysql::Transaction<'_>,
    insert: &Rows,
    sink: &str,
    entries: &[Entry],
) -> Result<Vec<bool>, TargetError> {
    let ids = entries.iter().filter_map(|entry| entry.event_id.as_deref());
    let mut ids: Vec<&str> = ids.collect();
    if ids.is_empty() {
        return Ok(vec![true; entries.len()]);
    }
    ids.sort_unstable();
    ids.dedup();
    let mut known: HashSet<Vec<u8>> = HashSet::new();
    let mut rest = ids.as_slice();
    while !rest.is_empty() {
        let count = 1 << rest.len().min(ROWS_MAX).ilog2();
        let (some, others) = rest.split_at(count);
        let select = format!(
            "SELECT event_id FROM oncelog_sink_inbox WHERE sink = ? AND event_id IN ({})",
            marks(count)
        );
        let sent: Vec<Sent> = std::iter::once(&sink).chain(some).map(Sent::from).collect();
        let found: Result<Vec<Vec<u8>>, Error> = begun.exec(select, sent);
        known.extend(found.map_err(|error| failed(&error))?);
        rest = others;
    }
    ids.retain(|id| !known.contains(id.as_bytes()));
    let send = |id: &&str, sent: &mut Vec<Sent>| sent.extend([Sent::from(sink), Sent::from(*id)]);
    insert
        .execute(begun, &ids, send)
        .map_err(|error| match duplicate(&error) {
            true => TargetError::Again(error.to_string()),
            false => failed(&error),
        })?;
    let mut seen: HashSet<&str> = HashSet::new();
    let new = entries.iter().map(|entry| {
        let id = entry.event_id.as_deref();
        id.is_none_or(|id| !known.contains(id.as_bytes()) && seen.insert(id))
    });
    Ok(new.collect())
}

fn values(row: &Values<'_>, sent: &mut Vec<Sent>) {
    sent.extend(row.iter().map(|value| match value {
        Value::Null => Sent::NULL,
        Value::Bool(value) => Sent::Int(i64::from(*value)),
        Value::Int(value) => Sent::Int(*value),
        Value::Float(value) => Sent::Double(*value),
        Value::Text(text) => Sent::Bytes(text.as_bytes().to_vec()),
        Value::Bytes(bytes) => Sent::Bytes(bytes.clone()),
    }));
}

fn insert_letter(begun: &mut mysql::Transaction<'_>, letter: &Letter) -> Result<(), Error> {
    begun.exec_drop(
        "INSERT INTO oncelog_dead_letter (id, aggregatetype, aggregateid, type, payload, error, topic, \
         partition_id, record_offset) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            &letter.id,
            &letter.aggregate_type,
            &letter.aggregate_id,
            letter.kind,
            &letter.payload,
            &letter.error,
            &letter.topic,
            letter.partition,
            letter.offset,
        ),
    )
}

const DUPLICATE_ENTRY: u16 = 1062;

fn duplicate(error: &Error) -> bool {
    matches!(error, Error::MySqlError(answer) if answer.code == DUPLICATE_ENTRY)
}

pub(crate) fn failed(error: &Error) -> TargetError {
    let text = error.to_string();
    let Error::MySqlError(answer) = error else {
        return match error {
            Error::UrlError(_) | Error::FromValueError(_) | Error::FromRowError(_) => {
                TargetError::Refused(text)
            }
            _ => TargetError::Lost(text),
        };
    };
    match (answer.code, answer.state.as_str()) {
        // A lock's timeout, a deadlock, MariaDB's "record has changed since last read".
        (1205 | 1213 | 1020, _) => TargetError::Again(text),
        // The server goes down, has too many connections, ended this one; its disk is full; it only
        // reads.
        (1040 | 1053 | 1077 | 1079 | 1080 | 1927 | 3169 | 1021 | 1114 | 1290 | 1836, _) => {
            TargetError::Lost(text)
        }
        (1146, _) => {
            TargetError::Refused(format!("{text}; `oncelog sink init` says what makes it"))
        }
        // A wrong value, no default, a row or a packet that is too large, a constraint of MySQL.
        (1366 | 1364 | 1118 | 1153 | 3819, _) => TargetError::Rejected {
            index: None,
            reason: text,
        },
        (_, state) if state.starts_with("22") || state.starts_with("23") || state == "45000" => {
            TargetError::Rejected {
                index: None,
                reason: text,
            }
        }
        (_, state) if state.starts_with("08") || state.starts_with("70") => TargetError::Lost(text),
        _ => TargetError::Refused(text),
    }
}
