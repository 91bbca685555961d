//! SQLite: a cursor over a column that is `INTEGER PRIMARY KEY AUTOINCREMENT`.
//!
//! SQLite has one writer at a time, so such a column grows in the order of the commits, and a rowid is
//! never given twice: whatever is committed later is greater than all that could be read before. No
//! other database has this (outbox-facts.md, section 4).
//!
//! Two small tables of our own are beside the outbox: `oncelog_outbox_source` gives the database an
//! identity, and `oncelog_outbox_position` holds what each relay has confirmed. For exactly once the
//! truth is in the progress topic, and the table only serves to notice that the two disagree.

mod setup;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use oncelog_pipeline::database::Database;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, params};
use serde::Deserialize;

use crate::position::{Position, Progress};
use crate::row::{Columns, Operation, OutboxRow, Value};
use crate::source::{Batch, Lag, Limit, Source, SourceError};

pub use setup::{apply, check, ddl};

#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    #[serde(skip)]
    pub path: PathBuf,
    /// Whose position it is, where several relays read one database.
    #[serde(skip)]
    pub relay: String,
    pub table: String,
    /// The AUTOINCREMENT column.
    #[serde(rename = "sequence.column")]
    pub sequence: String,
    /// How long published rows stay: 0 deletes them at once, -1 never.
    #[serde(rename = "retention.ms")]
    pub retention_ms: i64,
    /// The longest pause between two looks for new rows.
    #[serde(rename = "poll.interval.max.ms")]
    pub poll_interval_max_ms: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            path: PathBuf::new(),
            relay: String::new(),
            table: "outbox".to_owned(),
            sequence: "seq".to_owned(),
            retention_ms: 0,
            poll_interval_max_ms: 50,
        }
    }
}

impl Options {
    fn retention(&self) -> Option<Duration> {
        u64::try_from(self.retention_ms)
            .ok()
            .map(Duration::from_millis)
    }
}

const POLL_INTERVAL_MIN: Duration = Duration::from_millis(1);
/// How long a writer of the application may hold the database before we call it lost.
const BUSY: Duration = Duration::from_secs(10);
/// Rows that one pruning deletes: it holds the database's only write lock.
const PRUNE_ROWS_MAX: usize = 1_000;
const PRUNE_EVERY: Duration = Duration::from_secs(1);
/// Deleting published rows takes them out of the index of their ids, which have no order: its pages are
/// read and written again and again unless they fit. In KiB, and negative, as SQLite wants it.
const CACHE_KIB: i64 = -16_384;
/// For the same reason: in pages, of 4 KiB for the most part. SQLite's own is 1,000.
const WAL_PAGES: i64 = 4_000;

pub struct Sqlite {
    options: Options,
    open: Option<Open>,
}

struct Open {
    connection: Connection,
    identity: String,
    exactly_once: bool,
    columns: Columns,
    /// The greatest sequence that was handed out.
    cursor: i64,
    read: String,
    pruned: Instant,
}

impl Sqlite {
    pub fn new(options: Options) -> Sqlite {
        Sqlite {
            options,
            open: None,
        }
    }

    fn open_now(&mut self) -> Result<&mut Open, SourceError> {
        self.open
            .as_mut()
            .ok_or_else(|| SourceError::Lost("the database is not open".to_owned()))
    }

    /// Where to go on, if `progress` and the database's own books agree.
    fn start(
        &self,
        connection: &Connection,
        identity: &str,
        progress: Option<&Progress>,
        exactly_once: bool,
    ) -> Result<i64, SourceError> {
        let own = position(connection, &self.options.relay).map_err(lost)?;
        let Some(progress) = progress else {
            return match own {
                Some((sequence, true)) if exactly_once => Err(SourceError::Refused(format!(
                    "{} says that rows up to {sequence} were published exactly once, and the \
                     progress topic knows nothing of it. Is this another cluster, or was the topic \
                     deleted? Going on could publish rows twice. To go on after row {sequence} all \
                     the same: UPDATE oncelog_outbox_position SET exactly_once = 0 WHERE relay = '{}'",
                    self.options.path.display(),
                    self.options.relay
                ))),
                own => Ok(own.map_or(0, |(sequence, _)| sequence)),
            };
        };
        if progress.source != identity {
            return Err(SourceError::Refused(format!(
                "the progress topic holds a position of {}, and {} is {identity}: another database, \
                 or one that was made anew. A relay of another name starts from the beginning",
                progress.source,
                self.options.path.display()
            )));
        }
        let Position::Cursor { sequence } = progress.position else {
            return Err(SourceError::Refused(format!(
                "the progress topic holds {}, which is no position in SQLite",
                progress.position
            )));
        };
        let greatest = greatest(connection, &self.options.table).map_err(lost)?;
        if greatest < sequence {
            return Err(SourceError::Refused(format!(
                "rows up to {sequence} were published, and {} has given out sequences up to \
                 {greatest} only: it was restored from an older copy. Rows that it will give the \
                 same sequences would be passed over. To go on: UPDATE sqlite_sequence SET seq = \
                 {sequence} WHERE name = '{}'",
                self.options.path.display(),
                self.options.table
            )));
        }
        match own {
            Some((confirmed, true)) if confirmed > sequence => Err(SourceError::Refused(format!(
                "rows up to {confirmed} are confirmed in {}, and the progress topic only knows of \
                 {sequence}: records of it were lost, or it is of another cluster",
                self.options.path.display()
            ))),
            // Confirmed at a weaker guarantee since.
            Some((confirmed, false)) => Ok(confirmed.max(sequence)),
            _ => Ok(sequence),
        }
    }
}

impl Source for Sqlite {
    fn open(&mut self, progress: Option<&Progress>, exactly_once: bool) -> Result<(), SourceError> {
        self.open = None;
        let options = &self.options;
        let connection =
            connect(&options.path).map_err(|error| match error.sqlite_error_code() {
                Some(ErrorCode::CannotOpen) => SourceError::Refused(format!(
                    "there is no database that can be opened at {}: {error}",
                    options.path.display()
                )),
                _ => lost(error),
            })?;
        let columns = setup::columns(&connection, options).map_err(SourceError::Refused)?;
        own_tables(&connection, exactly_once).map_err(lost)?;
        let identity = identity(&connection).map_err(lost)?;
        let cursor = self.start(&connection, &identity, progress, exactly_once)?;
        let (table, sequence) = (quoted(&options.table), quoted(&options.sequence));
        self.open = Some(Open {
            read: format!(
                "SELECT {sequence}, * FROM {table} WHERE {sequence} > ?1 ORDER BY {sequence} LIMIT ?2"
            ),
            connection,
            identity,
            exactly_once,
            columns,
            cursor,
            pruned: Instant::now(),
        });
        Ok(())
    }

    fn identity(&self) -> String {
        self.open
            .as_ref()
            .map_or_else(String::new, |open| open.identity.clone())
    }

    fn read(&mut self, limit: Limit, wait: Duration) -> Result<Batch, SourceError> {
        let pause_max = Duration::from_millis(self.options.poll_interval_max_ms.max(1));
        let open = self.open_now()?;
        let deadline = Instant::now() + wait;
        let mut pause = POLL_INTERVAL_MIN;
        loop {
            let rows = open.take(limit).map_err(lost)?;
            let left = deadline.saturating_duration_since(Instant::now());
            if !rows.is_empty() || left.is_zero() {
                return Ok(Batch {
                    rows,
                    heartbeat: None,
                });
            }
            std::thread::sleep(pause.min(left));
            pause = (pause * 2).min(pause_max);
        }
    }

    fn confirm(&mut self, position: &Position) -> Result<(), SourceError> {
        let Position::Cursor { sequence } = *position else {
            return Err(SourceError::Refused(format!(
                "{position} is no position in SQLite"
            )));
        };
        let options = self.options.clone();
        self.open_now()?.confirm(&options, sequence).map_err(lost)
    }

    fn lag(&mut self) -> Result<Lag, SourceError> {
        let options = self.options.clone();
        self.open_now()?.lag(&options).map_err(lost)
    }
}

impl Open {
    fn take(&mut self, limit: Limit) -> rusqlite::Result<Vec<OutboxRow>> {
        let mut statement = self.connection.prepare_cached(&self.read)?;
        let mut found = statement.query(params![self.cursor, limit.rows as i64])?;
        let mut rows = Vec::new();
        let mut bytes = 0;
        while let Some(row) = found.next()? {
            let sequence: i64 = row.get(0)?;
            let values = (1..=self.columns.len()).map(|index| row.get_ref(index).map(value));
            let row = OutboxRow {
                position: Position::Cursor { sequence },
                operation: Operation::Insert,
                columns: Arc::clone(&self.columns),
                values: values.collect::<Result<_, _>>()?,
            };
            bytes += row.size();
            // It is read again with the next batch.
            if bytes > limit.bytes && !rows.is_empty() {
                break;
            }
            self.cursor = sequence;
            rows.push(row);
        }
        Ok(rows)
    }

    fn confirm(&mut self, options: &Options, sequence: i64) -> rusqlite::Result<()> {
        let now = Instant::now();
        let prune = now.duration_since(self.pruned) >= PRUNE_EVERY;
        let transaction = self.connection.transaction()?;
        transaction.execute(
            "INSERT INTO oncelog_outbox_position (relay, sequence, exactly_once) VALUES (?1, ?2, ?3)
             ON CONFLICT (relay) DO UPDATE SET exactly_once = excluded.exactly_once,
                 sequence = max(oncelog_outbox_position.sequence, excluded.sequence)",
            params![options.relay, sequence, self.exactly_once],
        )?;
        let (table, column) = (quoted(&options.table), quoted(&options.sequence));
        match options.retention() {
            Some(Duration::ZERO) => {
                let delete = format!("DELETE FROM {table} WHERE {column} <= ?1");
                transaction.prepare_cached(&delete)?.execute([sequence])?;
            }
            Some(retention) if prune => {
                let delete = format!(
                    "DELETE FROM {table} WHERE {column} IN (SELECT {column} FROM {table} \
                     WHERE {column} <= ?1 AND julianday(created_at) < julianday('now') - ?2 \
                     ORDER BY {column} LIMIT {PRUNE_ROWS_MAX})"
                );
                let days = retention.as_secs_f64() / 86_400.0;
                transaction
                    .prepare_cached(&delete)?
                    .execute(params![sequence, days])?;
                self.pruned = now;
            }
            _ => {}
        }
        transaction.commit()
    }

    fn lag(&self, options: &Options) -> rusqlite::Result<Lag> {
        let (table, column) = (quoted(&options.table), quoted(&options.sequence));
        let count = format!("SELECT count(*) FROM {table} WHERE {column} > ?1");
        let pending: i64 = self
            .connection
            .query_row(&count, [self.cursor], |row| row.get(0))?;
        let has_time = self.columns.iter().any(|name| name == "created_at");
        let oldest = format!(
            "SELECT (julianday('now') - julianday(created_at)) * 86400.0 FROM {table} \
             WHERE {column} > ?1 ORDER BY {column} LIMIT 1"
        );
        let age: Option<Option<f64>> = match has_time {
            true => {
                let asked = self
                    .connection
                    .query_row(&oldest, [self.cursor], |row| row.get(0));
                asked.optional()?
            }
            false => None,
        };
        let age = age
            .flatten()
            .filter(|seconds| seconds.is_finite() && *seconds >= 0.0);
        Ok(Lag {
            pending_rows: Some(pending.unsigned_abs()),
            oldest_row_age: age.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()),
            ..Lag::default()
        })
    }
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY)?;
    connection.pragma_update(None, "cache_size", CACHE_KIB)?;
    connection.pragma_update(None, "wal_autocheckpoint", WAL_PAGES)?;
    Ok(connection)
}

/// For exactly once what is confirmed may be lost in a power cut: the progress topic knows it. At most
/// once it must not, since what is confirmed is then sent.
fn own_tables(connection: &Connection, exactly_once: bool) -> rusqlite::Result<()> {
    let synchronous = if exactly_once { "NORMAL" } else { "FULL" };
    connection.pragma_update(None, "synchronous", synchronous)?;
    for statement in setup::OWN_TABLES {
        connection.execute(statement, [])?;
    }
    Ok(())
}

fn identity(connection: &Connection) -> rusqlite::Result<String> {
    let id: String =
        connection.query_row("SELECT id FROM oncelog_outbox_source", [], |row| row.get(0))?;
    Ok(format!("sqlite:{id}"))
}

fn position(connection: &Connection, relay: &str) -> rusqlite::Result<Option<(i64, bool)>> {
    let asked = connection.query_row(
        "SELECT sequence, exactly_once FROM oncelog_outbox_position WHERE relay = ?1",
        [relay],
        |row| Ok((row.get(0)?, row.get(1)?)),
    );
    asked.optional()
}

/// The greatest sequence that was ever given out, deleted rows included.
fn greatest(connection: &Connection, table: &str) -> rusqlite::Result<i64> {
    let asked = connection.query_row(
        "SELECT seq FROM sqlite_sequence WHERE name = ?1",
        [table],
        |row| row.get(0),
    );
    Ok(asked.optional()?.unwrap_or(0))
}

fn value(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(value) => Value::Int(value),
        ValueRef::Real(value) => Value::Float(value),
        ValueRef::Text(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => Value::Text(text.to_owned()),
            Err(_) => Value::Bytes(bytes.to_vec()),
        },
        ValueRef::Blob(bytes) => Value::Bytes(bytes.to_vec()),
    }
}

fn quoted(name: &str) -> String {
    Database::Sqlite.quote_column(name)
}

fn lost(error: rusqlite::Error) -> SourceError {
    SourceError::Lost(format!("SQLite: {error}"))
}

#[cfg(test)]
mod tests;
