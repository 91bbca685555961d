//! [`Target`] with SQLite, in WAL mode: one writer at a time, and whoever reads sees whole batches.
//!
//! Rows are applied one by one, with prepared statements: there is no server to save a round trip to,
//! and a row that is refused is known at once.
//!
//! Non-obvious:
//! - `synchronous=FULL`, so that COMMIT means that it is on disk, also to those who read the group's
//!   offsets; one sync for a batch of thousands costs little.
//! - An instance that is paused in the middle of a transaction keeps the file locked as long: no other
//!   can take over, and none can do harm.

use std::time::Duration;

use oncelog_pipeline::database::{Database, sqlite_path};
use oncelog_pipeline::failpoint;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{
    CachedStatement, Connection, ErrorCode, OpenFlags, OptionalExtension, ToSql, params,
};

use crate::config::{Config, Mode};
use crate::dead_letter::Letter;
use crate::mapping::Change;
use crate::table::{Column, Kind, Table, Value, int};
use crate::target::{
    Applied, Claim, Effect, Move, Request, Target, TargetError, Transaction, fenced, other_cluster,
};

/// Rows that are pruned in one transaction, and how many of these at a time.
const PRUNE_ROWS: u64 = 5_000;
const PRUNE_ROUNDS: usize = 10;
/// Event ids have no order, so that a batch touches about as many pages of the inbox as it has rows: 64 MB
/// of them stay in memory, and go from the log to the file when there are 64 MB to go, not at each batch.
const PRAGMAS: [(&str, &str); 4] = [
    ("journal_mode", "WAL"),
    ("synchronous", "FULL"),
    ("cache_size", "-65536"),
    ("wal_autocheckpoint", "16384"),
];
/// Sequences grow with time, so that the first event that stays ends the search. (`+sink`: not by the index
/// of the ids, which would have to be sorted.)
const PRUNE: &str = "DELETE FROM oncelog_sink_inbox WHERE seq IN (\
     SELECT seq FROM oncelog_sink_inbox WHERE +sink = ?1 AND seq < coalesce((\
         SELECT seq FROM oncelog_sink_inbox WHERE +sink = ?1 AND seen_at >= unixepoch() - ?2 \
         ORDER BY seq LIMIT 1), 9223372036854775807) \
     ORDER BY seq LIMIT ?3)";
const BUSY_WAIT: Duration = Duration::from_secs(5);

pub struct Sqlite {
    sink: String,
    path: String,
    table: String,
    put: String,
    delete: String,
    connection: Option<Connection>,
}

impl Sqlite {
    pub fn new(config: &Config) -> Sqlite {
        Sqlite {
            sink: config.name.clone(),
            path: sqlite_path(&config.database).to_owned(),
            table: config.table.clone(),
            put: put(config),
            delete: delete(config),
            connection: None,
        }
    }

    fn connection(&self) -> &Connection {
        self.connection.as_ref().expect("a sink begins with Open")
    }

    /// Runs `work` between BEGIN and COMMIT; whatever fails, nothing of it stays.
    fn transaction<T>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, TargetError>,
    ) -> Result<T, TargetError> {
        let connection = self.connection();
        connection
            .execute_batch("BEGIN IMMEDIATE")
            .map_err(|error| failed(&error))?;
        let done = work(connection).and_then(|done| {
            failpoint::reach("sink-before-commit");
            connection
                .execute_batch("COMMIT")
                .map_err(|error| failed(&error))?;
            Ok(done)
        });
        if done.is_err() && !connection.is_autocommit() {
            connection
                .execute_batch("ROLLBACK")
                .map_err(|error| TargetError::Lost(format!("ROLLBACK: {error}")))?;
        }
        done
    }
}

/// Opened as a sink does it. `create`: the file may not be there yet.
pub(crate) fn connect(path: &str, create: bool) -> Result<Connection, TargetError> {
    let mut flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    if create {
        flags |= OpenFlags::SQLITE_OPEN_CREATE;
    }
    let connection = Connection::open_with_flags(path, flags).map_err(|error| failed(&error))?;
    connection
        .busy_timeout(BUSY_WAIT)
        .map_err(|error| failed(&error))?;
    for (pragma, value) in PRAGMAS {
        let set = connection.pragma_update(None, pragma, value);
        set.map_err(|error| failed(&error))?;
    }
    connection.set_prepared_statement_cache_capacity(32);
    Ok(connection)
}

/// What the table looks like; `None` where it is not there.
pub(crate) fn describe(connection: &Connection, table: &str) -> rusqlite::Result<Option<Table>> {
    let (schema, name) = table.split_once('.').unwrap_or(("main", table));
    let mut rows = connection.prepare(
        "SELECT name, type, \"notnull\", dflt_value IS NOT NULL, pk, hidden \
         FROM pragma_table_xinfo(?1, ?2) ORDER BY cid",
    )?;
    let mut key: Vec<(i64, String)> = Vec::new();
    let columns = rows.query_map([name, schema], |row| {
        let (name, declared): (String, String) = (row.get(0)?, row.get(1)?);
        let (not_null, default): (bool, bool) = (row.get(2)?, row.get(3)?);
        let (pk, hidden): (i64, i64) = (row.get(4)?, row.get(5)?);
        if pk > 0 {
            key.push((pk, name.clone()));
        }
        let rowid = pk > 0 && declared.eq_ignore_ascii_case("INTEGER");
        Ok(Column {
            name,
            kind: kind(&declared),
            nullable: !not_null,
            optional: default || hidden != 0 || rowid,
            type_name: if declared.is_empty() {
                "untyped".to_owned()
            } else {
                declared
            },
            exact: false,
        })
    })?;
    let columns: Vec<Column> = columns.collect::<Result<_, _>>()?;
    if columns.is_empty() {
        return Ok(None);
    }
    key.sort_unstable();
    let mut unique: Vec<Vec<String>> = Vec::new();
    if !key.is_empty() {
        unique.push(key.into_iter().map(|(_, name)| name).collect());
    }
    let mut indexes = connection.prepare(
        "SELECT name FROM pragma_index_list(?1, ?2) WHERE \"unique\" = 1 AND partial = 0",
    )?;
    let indexes = indexes.query_map([name, schema], |row| row.get::<_, String>(0))?;
    for index in indexes {
        let mut of =
            connection.prepare("SELECT name FROM pragma_index_info(?1, ?2) ORDER BY seqno")?;
        let names = of.query_map([index?.as_str(), schema], |row| {
            row.get::<_, Option<String>>(0)
        })?;
        // An expression has no name.
        let names: Option<Vec<String>> = names.collect::<Result<_, _>>()?;
        unique.extend(names);
    }
    Ok(Some(Table {
        name: table.to_owned(),
        columns,
        unique,
    }))
}

/// By SQLite's own rules of affinity, with the names that people use beside them.
fn kind(declared: &str) -> Kind {
    let declared = declared.to_ascii_uppercase();
    let has = |word: &str| declared.contains(word);
    if has("INT") || has("BOOL") {
        int(64, true)
    } else if has("JSON") {
        Kind::Json
    } else if has("DATETIME") || has("TIMESTAMP") {
        Kind::Timestamp { iso: true }
    } else if has("CHAR") || has("CLOB") || has("TEXT") {
        Kind::Text
    } else if has("UUID") {
        Kind::Uuid
    } else if has("DATE") || has("TIME") {
        Kind::Other
    } else if has("BLOB") {
        Kind::Bytes
    } else if has("REAL") || has("FLOA") || has("DOUB") {
        Kind::Float
    } else if has("DEC") || has("NUM") {
        Kind::Number
    } else {
        Kind::Any
    }
}

fn put(config: &Config) -> String {
    let quote = |name: &String| Database::Sqlite.quote_column(name);
    let columns: Vec<String> = config.columns.keys().map(quote).collect();
    let marks = vec!["?"; columns.len()].join(", ");
    let table = Database::Sqlite.quote(&config.table);
    let insert = format!(
        "INSERT INTO {table} ({}) VALUES ({marks})",
        columns.join(", ")
    );
    if config.mode == Mode::Insert {
        return insert;
    }
    let key: Vec<String> = config.key_columns.iter().map(quote).collect();
    let set = columns.iter().filter(|column| !key.contains(column));
    let set: Vec<String> = set
        .map(|column| format!("{column} = excluded.{column}"))
        .collect();
    let action = match set.is_empty() {
        true => "NOTHING".to_owned(),
        false => format!("UPDATE SET {}", set.join(", ")),
    };
    format!("{insert} ON CONFLICT ({}) DO {action}", key.join(", "))
}

fn delete(config: &Config) -> String {
    let equal = |name: &String| format!("{} = ?", Database::Sqlite.quote_column(name));
    let key: Vec<String> = config.key_columns.iter().map(equal).collect();
    let table = Database::Sqlite.quote(&config.table);
    format!("DELETE FROM {table} WHERE {}", key.join(" AND "))
}

impl Target for Sqlite {
    fn open(&mut self) -> Result<Table, TargetError> {
        self.connection = None;
        let connection = connect(&self.path, false)?;
        let table = describe(&connection, &self.table).map_err(|error| failed(&error))?;
        let table = table.ok_or_else(|| {
            TargetError::Refused(format!("{} has no table {}", self.path, self.table))
        })?;
        self.connection = Some(connection);
        Ok(table)
    }

    fn claim(&mut self, cluster: &str, requests: &[Request]) -> Result<Vec<Claim>, TargetError> {
        self.transaction(|connection| {
            let claims = requests
                .iter()
                .map(|request| claim(connection, &self.sink, cluster, request));
            claims.collect()
        })
    }

    fn apply(&mut self, transaction: &Transaction) -> Result<Applied, TargetError> {
        let applied = self.transaction(|connection| {
            for moved in &transaction.moves {
                step(connection, &self.sink, moved)?;
            }
            let mut batch = Batch::new(self, connection)?;
            for (index, entry) in transaction.entries().iter().enumerate() {
                if let Some(id) = &entry.event_id
                    && !batch.is_new(id, index)?
                {
                    batch.applied.duplicates += 1;
                    continue;
                }
                batch.take(&entry.effect, index)?;
            }
            Ok(batch.applied)
        })?;
        failpoint::reach("sink-after-commit");
        Ok(applied)
    }

    fn prune(&mut self, older: Duration) -> Result<u64, TargetError> {
        let mut all = 0;
        for _ in 0..PRUNE_ROUNDS {
            let pruned = self.connection().execute(
                PRUNE,
                params![self.sink, older.as_secs() as i64, PRUNE_ROWS as i64],
            );
            let pruned = pruned.map_err(|error| failed(&error))? as u64;
            all += pruned;
            if pruned < PRUNE_ROWS {
                break;
            }
        }
        Ok(all)
    }
}

fn claim(
    connection: &Connection,
    sink: &str,
    cluster: &str,
    request: &Request,
) -> Result<Claim, TargetError> {
    let (topic, partition) = (
        request.partition.topic.as_ref(),
        request.partition.partition,
    );
    let stored: Option<String> = connection
        .query_row(
            "SELECT cluster_id FROM oncelog_sink_offset \
             WHERE sink = ?1 AND topic = ?2 AND partition_id = ?3",
            params![sink, topic, partition],
            |row| row.get(0),
        )
        .optional()
        .map_err(|error| failed(&error))?;
    if let Some(other) = other_cluster(&request.partition, stored.as_deref().unwrap_or(""), cluster)
    {
        return Err(TargetError::Refused(other));
    }
    connection
        .query_row(
            "INSERT INTO oncelog_sink_offset \
             (sink, topic, partition_id, cluster_id, epoch, next_offset, updated_at) \
             VALUES (?1, ?2, ?3, ?4, 1, ?5, unixepoch()) \
             ON CONFLICT (sink, topic, partition_id) DO UPDATE SET epoch = epoch + 1, \
             cluster_id = CASE ?4 WHEN '' THEN cluster_id ELSE ?4 END, updated_at = unixepoch() \
             RETURNING epoch, next_offset",
            params![sink, topic, partition, cluster, request.first],
            |row| {
                Ok(Claim {
                    partition: request.partition.clone(),
                    epoch: row.get(0)?,
                    next_offset: row.get(1)?,
                })
            },
        )
        .map_err(|error| failed(&error))
}

/// The fence, and the offset.
fn step(connection: &Connection, sink: &str, moved: &Move) -> Result<(), TargetError> {
    let mut update = connection
        .prepare_cached(
            "UPDATE oncelog_sink_offset SET next_offset = ?1, updated_at = unixepoch() \
             WHERE sink = ?2 AND topic = ?3 AND partition_id = ?4 AND next_offset = ?5 AND epoch = ?6",
        )
        .map_err(|error| failed(&error))?;
    let (topic, partition) = (moved.partition.topic.as_ref(), moved.partition.partition);
    let hit = update.execute(params![
        moved.to,
        sink,
        topic,
        partition,
        moved.from,
        moved.epoch
    ]);
    match hit.map_err(|error| failed(&error))? {
        1 => Ok(()),
        _ => Err(fenced(moved)),
    }
}

/// The statements of one transaction.
struct Batch<'c> {
    sink: &'c str,
    inbox: Option<CachedStatement<'c>>,
    put: CachedStatement<'c>,
    delete: Option<CachedStatement<'c>>,
    connection: &'c Connection,
    delete_sql: &'c str,
    applied: Applied,
}

impl<'c> Batch<'c> {
    fn new(target: &'c Sqlite, connection: &'c Connection) -> Result<Batch<'c>, TargetError> {
        Ok(Batch {
            sink: &target.sink,
            inbox: None,
            put: connection
                .prepare_cached(&target.put)
                .map_err(|error| failed(&error))?,
            delete: None,
            connection,
            delete_sql: &target.delete,
            applied: Applied::default(),
        })
    }

    /// Whether the event has not been seen; it has now.
    fn is_new(&mut self, id: &str, index: usize) -> Result<bool, TargetError> {
        if self.inbox.is_none() {
            let insert = self.connection.prepare_cached(
                "INSERT INTO oncelog_sink_inbox (sink, event_id, seen_at) \
                 VALUES (?1, ?2, unixepoch()) ON CONFLICT DO NOTHING",
            );
            self.inbox = Some(insert.map_err(|error| failed(&error))?);
        }
        let insert = self.inbox.as_mut().expect("it was just prepared");
        let new = insert.execute([self.sink, id]);
        Ok(new.map_err(|error| failed_at(&error, index))? == 1)
    }

    fn take(&mut self, effect: &Effect, index: usize) -> Result<(), TargetError> {
        let (statement, values) = match effect {
            Effect::Letter(letter) => {
                return insert_letter(self.connection, letter)
                    .map_err(|error| failed_at(&error, index));
            }
            Effect::Change(Change::Put(values)) => (&mut self.put, values),
            Effect::Change(Change::Delete(key)) => {
                if self.delete.is_none() {
                    let delete = self.connection.prepare_cached(self.delete_sql);
                    self.delete = Some(delete.map_err(|error| failed(&error))?);
                }
                (self.delete.as_mut().expect("it was just prepared"), key)
            }
        };
        bind_and_execute(statement, values).map_err(|error| failed_at(&error, index))
    }
}

fn bind_and_execute(statement: &mut CachedStatement<'_>, values: &[Value]) -> rusqlite::Result<()> {
    for (index, value) in values.iter().enumerate() {
        statement.raw_bind_parameter(index + 1, value)?;
    }
    statement.raw_execute().map(drop)
}

fn insert_letter(connection: &Connection, letter: &Letter) -> rusqlite::Result<()> {
    let mut insert = connection.prepare_cached(
        "INSERT INTO oncelog_dead_letter (id, aggregatetype, aggregateid, type, payload, error, topic, \
         partition_id, record_offset) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )?;
    insert.execute(params![
        letter.id,
        letter.aggregate_type,
        letter.aggregate_id,
        letter.kind,
        letter.payload,
        letter.error,
        letter.topic,
        letter.partition,
        letter.offset
    ])?;
    Ok(())
}

impl ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Value::Null => ValueRef::Null,
            Value::Bool(value) => ValueRef::Integer(i64::from(*value)),
            Value::Int(value) => ValueRef::Integer(*value),
            Value::Float(value) => ValueRef::Real(*value),
            Value::Text(text) => ValueRef::Text(text.as_bytes()),
            Value::Bytes(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

/// What an error means that is not about one row.
pub(crate) fn failed(error: &rusqlite::Error) -> TargetError {
    use ErrorCode as Code;
    let text = error.to_string();
    match error.sqlite_error_code() {
        Some(Code::DatabaseBusy | Code::DatabaseLocked | Code::SchemaChanged) => {
            TargetError::Again(text)
        }
        Some(Code::ConstraintViolation | Code::TypeMismatch | Code::TooBig) => {
            TargetError::Rejected {
                index: None,
                reason: text,
            }
        }
        // The disk is full, or ill: somebody may free it, and then it goes on.
        Some(
            Code::DiskFull
            | Code::SystemIoFailure
            | Code::OutOfMemory
            | Code::OperationInterrupted
            | Code::OperationAborted
            | Code::FileLockingProtocolFailed,
        ) => TargetError::Lost(text),
        _ => TargetError::Refused(text),
    }
}

fn failed_at(error: &rusqlite::Error, at: usize) -> TargetError {
    match failed(error) {
        TargetError::Rejected { reason, .. } => TargetError::Rejected {
            index: Some(at),
            reason,
        },
        other => other,
    }
}

#[cfg(test)]
#[path = "sqlite_tests.rs"]
mod tests;
