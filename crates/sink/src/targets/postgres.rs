//! [`Target`] with PostgreSQL.
//!
//! A batch is about five statements, whatever its size: values go as arrays of text, one for each
//! column, and the server reads them as the column's type (`x.c::numeric`). That a cast to `varchar(5)`
//! would cut is avoided by casting to the type without its length: the assignment then refuses.
//!
//! Non-obvious:
//! - READ COMMITTED, whatever the default: the fence then waits for the one who holds the row, and looks
//!   at what that one has left.
//! - ON CONFLICT DO UPDATE refuses to touch a row twice. For keys that are not exact
//!   ([`crate::plan`]), where that can come up, the batch is done again row by row.
//! - An answer to COMMIT that is an error says that all was rolled back (a deferred constraint); no
//!   answer says nothing.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use oncelog_pipeline::database::Database;
use oncelog_pipeline::failpoint;
use postgres::error::{DbError, SqlState};
use postgres::{Client, Error, IsolationLevel, NoTls, Statement, Transaction as Begun};

use crate::config::{Config, Mode};
use crate::dead_letter::Letter;
use crate::mapping::Change;
use crate::plan::{self, Step, Values};
use crate::table::{Column, Kind, Table, Value, int};
use crate::target::{
    Applied, Claim, Effect, Entry, Move, Request, Target, TargetError, Transaction, fenced,
    other_cluster,
};

const CONNECT_WAIT: Duration = Duration::from_secs(10);
/// A server that does not answer is gone.
const SILENCE: Duration = Duration::from_secs(30);
/// Timestamps without a zone are in UTC. The server ends what a client has left that is gone or paused:
/// its locks would hold up whoever claims the partitions.
const SESSION: &str = "SET TimeZone = 'UTC'; SET tcp_keepalives_idle = 30; \
    SET tcp_keepalives_interval = 10; SET tcp_keepalives_count = 3; \
    SET idle_in_transaction_session_timeout = '60s'";
const PRUNE_ROWS: i64 = 5_000;
const PRUNE_ROUNDS: usize = 10;

pub struct PostgreSql {
    sink: String,
    server: postgres::Config,
    config: Config,
    open: Option<Open>,
}

struct Open {
    client: Client,
    fence: Statement,
    inbox: Option<Statement>,
    put: Statement,
    delete: Option<Statement>,
    /// As indexes into a row's values; empty in insert mode.
    key: Vec<usize>,
    exact: bool,
}

impl PostgreSql {
    /// Errors: the URL is none.
    pub fn new(config: &Config) -> Result<PostgreSql, String> {
        Ok(PostgreSql {
            sink: config.name.clone(),
            server: server(&config.database, &config.name)?,
            config: config.clone(),
            open: None,
        })
    }

    fn opened(&mut self) -> &mut Open {
        self.open.as_mut().expect("a sink begins with Open")
    }
}

/// Errors: the URL is none.
pub(crate) fn server(url: &str, sink: &str) -> Result<postgres::Config, String> {
    let mut server: postgres::Config = url
        .parse()
        .map_err(|error: Error| format!("database: {}", words(&error)))?;
    server.connect_timeout(CONNECT_WAIT);
    server.keepalives_idle(SILENCE);
    server.tcp_user_timeout(SILENCE);
    if server.get_application_name().is_none() {
        server.application_name(&format!("oncelog-sink-{sink}"));
    }
    Ok(server)
}

pub(crate) fn connect(server: &postgres::Config) -> Result<Client, TargetError> {
    let mut client = server.connect(NoTls).map_err(|error| failed(&error))?;
    client
        .batch_execute(SESSION)
        .map_err(|error| failed(&error))?;
    Ok(client)
}

/// What the table looks like; `None` where it is not there.
pub(crate) fn describe(client: &mut Client, table: &str) -> Result<Option<Table>, Error> {
    let quoted = Database::PostgreSql.quote(table);
    let there = client.query_one("SELECT to_regclass($1)::oid", &[&quoted])?;
    let Some(oid) = there.get::<_, Option<u32>>(0) else {
        return Ok(None);
    };
    let columns = client.query(
        "SELECT a.attname::text, format_type(a.atttypid, -1), \
            coalesce(b.typname, t.typname)::text, a.attnotnull, \
            a.atthasdef OR a.attidentity <> '', coalesce(c.collisdeterministic, true) \
         FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid \
         LEFT JOIN pg_type b ON b.oid = t.typbasetype \
         LEFT JOIN pg_collation c ON c.oid = a.attcollation \
         WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum",
        &[&oid],
    )?;
    let columns = columns.iter().map(|row| {
        let base: String = row.get(2);
        let kind = kind(&base);
        let deterministic: bool = row.get(5);
        Column {
            name: row.get(0),
            kind,
            type_name: row.get(1),
            nullable: !row.get::<_, bool>(3),
            optional: row.get(4),
            exact: match kind {
                Kind::Bool | Kind::Int { .. } | Kind::Bytes | Kind::Uuid => true,
                Kind::Text => deterministic && matches!(base.as_str(), "text" | "varchar"),
                _ => false,
            },
        }
    });
    let columns = columns.collect();
    let unique = client.query(
        "SELECT array_agg(a.attname::text ORDER BY k.n) \
         FROM pg_index i, unnest(i.indkey::int2[]) WITH ORDINALITY AS k(attnum, n), pg_attribute a \
         WHERE i.indrelid = $1 AND i.indisunique AND i.indisvalid AND i.indpred IS NULL \
            AND i.indexprs IS NULL AND k.n <= i.indnkeyatts \
            AND a.attrelid = i.indrelid AND a.attnum = k.attnum GROUP BY i.indexrelid",
        &[&oid],
    )?;
    Ok(Some(Table {
        name: table.to_owned(),
        columns,
        unique: unique.iter().map(|row| row.get(0)).collect(),
    }))
}

/// By the name of the base type.
fn kind(base: &str) -> Kind {
    match base {
        "bool" => Kind::Bool,
        "int2" => int(16, false),
        "int4" => int(32, false),
        "int8" => int(64, false),
        "float4" | "float8" => Kind::Float,
        "numeric" => Kind::Number,
        "text" | "varchar" | "bpchar" | "citext" | "name" => Kind::Text,
        "json" | "jsonb" => Kind::Json,
        "bytea" => Kind::Bytes,
        "uuid" => Kind::Uuid,
        "timestamp" | "timestamptz" => Kind::Timestamp { iso: true },
        _ => Kind::Other,
    }
}

/// `SELECT x.c1::type1, … FROM unnest($1::text[], …) AS x(c1, …)` without its first and last word.
struct Arrays {
    values: String,
    source: String,
}

fn arrays(columns: &[&Column]) -> Arrays {
    let numbered = 1..=columns.len();
    let values = numbered.clone().zip(columns).map(|(n, column)| {
        // The text of bytes is hexadecimal, as bytea reads it.
        format!("x.c{n}::{}", column.type_name)
    });
    let parameters: Vec<String> = numbered.clone().map(|n| format!("${n}::text[]")).collect();
    let names: Vec<String> = numbered.map(|n| format!("c{n}")).collect();
    Arrays {
        values: values.collect::<Vec<_>>().join(", "),
        source: format!(
            "unnest({}) AS x({})",
            parameters.join(", "),
            names.join(", ")
        ),
    }
}

fn put(config: &Config, columns: &[&Column]) -> String {
    let quote = |name: &str| Database::PostgreSql.quote_column(name);
    let names: Vec<String> = columns.iter().map(|column| quote(&column.name)).collect();
    let Arrays { values, source } = arrays(columns);
    let table = Database::PostgreSql.quote(&config.table);
    let insert = format!(
        "INSERT INTO {table} ({}) SELECT {values} FROM {source}",
        names.join(", ")
    );
    if config.mode == Mode::Insert {
        return insert;
    }
    let key: Vec<String> = config.key_columns.iter().map(|name| quote(name)).collect();
    let set = names.iter().filter(|name| !key.contains(name));
    let set: Vec<String> = set
        .map(|name| format!("{name} = EXCLUDED.{name}"))
        .collect();
    let action = match set.is_empty() {
        true => "NOTHING".to_owned(),
        false => format!("UPDATE SET {}", set.join(", ")),
    };
    format!("{insert} ON CONFLICT ({}) DO {action}", key.join(", "))
}

fn delete(config: &Config, key: &[&Column]) -> String {
    let Arrays { source, .. } = arrays(key);
    let equal = key.iter().enumerate().map(|(index, column)| {
        let name = Database::PostgreSql.quote_column(&column.name);
        format!("t.{name} = x.c{}::{}", index + 1, column.type_name)
    });
    let equal: Vec<String> = equal.collect();
    let table = Database::PostgreSql.quote(&config.table);
    format!(
        "DELETE FROM {table} AS t USING {source} WHERE {}",
        equal.join(" AND ")
    )
}

const FENCE: &str = "UPDATE oncelog_sink_offset AS o SET next_offset = m.to_offset, updated_at = now() \
    FROM unnest($2::text[], $3::int4[], $4::int8[], $5::int8[], $6::int8[]) \
        AS m(topic, partition_id, epoch, from_offset, to_offset) \
    WHERE o.sink = $1 AND o.topic = m.topic AND o.partition_id = m.partition_id \
        AND o.epoch = m.epoch AND o.next_offset = m.from_offset \
    RETURNING o.topic, o.partition_id";

const INBOX: &str = "INSERT INTO oncelog_sink_inbox (sink, event_id, seen_at) \
    SELECT $1, x.id, now() FROM unnest($2::text[]) AS x(id) \
    ON CONFLICT DO NOTHING RETURNING event_id";

impl Target for PostgreSql {
    fn open(&mut self) -> Result<Table, TargetError> {
        self.open = None;
        let mut client = connect(&self.server)?;
        let lost = |error: Error| failed(&error);
        let table = describe(&mut client, &self.config.table).map_err(lost)?;
        let table = table.ok_or_else(|| {
            TargetError::Refused(format!("the database has no table {}", self.config.table))
        })?;
        // A column that is not there is the mapping's to refuse.
        let found = self.config.columns.keys().map(|name| table.column(name));
        let Some(columns) = found.collect::<Option<Vec<&Column>>>() else {
            return Ok(table);
        };
        let names: Vec<&String> = self.config.columns.keys().collect();
        let upsert = self.config.mode == Mode::Upsert;
        let key = self.config.key_columns.iter().filter(|_| upsert);
        let key = key.filter_map(|name| names.iter().position(|known| *known == name));
        let key: Vec<usize> = key.collect();
        let key_columns: Vec<&Column> = key.iter().map(|index| columns[*index]).collect();
        let weak = self.config.delivery != crate::config::Delivery::ExactlyOnce;
        let put = client.prepare(&put(&self.config, &columns)).map_err(lost)?;
        let delete = (!key.is_empty()).then(|| client.prepare(&delete(&self.config, &key_columns)));
        let delete = delete.transpose().map_err(lost)?;
        let inbox = self
            .config
            .inbox
            .then(|| client.prepare(INBOX))
            .transpose()
            .map_err(lost)?;
        // The tables of ours are needed with exactly once alone.
        let fence = if weak { "SELECT 1" } else { FENCE };
        self.open = Some(Open {
            fence: client.prepare(fence).map_err(lost)?,
            inbox,
            put,
            delete,
            exact: key_columns.iter().all(|column| column.exact),
            key,
            client,
        });
        Ok(table)
    }

    fn claim(&mut self, cluster: &str, requests: &[Request]) -> Result<Vec<Claim>, TargetError> {
        let sink = self.sink.clone();
        let mut begun = begin(&mut self.opened().client)?;
        let mut sorted: Vec<&Request> = requests.iter().collect();
        sorted.sort_by(|one, other| one.partition.cmp(&other.partition));
        let claims = sorted
            .into_iter()
            .map(|request| claim(&mut begun, &sink, cluster, request));
        let claims = claims.collect::<Result<Vec<_>, _>>()?;
        begun.commit().map_err(|error| failed(&error))?;
        Ok(claims)
    }

    fn apply(&mut self, transaction: &Transaction) -> Result<Applied, TargetError> {
        let sink = self.sink.clone();
        let open = self.opened();
        let applied = match apply(open, &sink, transaction, false) {
            Err(Failed::Twice) => apply(open, &sink, transaction, true),
            other => other,
        };
        let applied = applied.map_err(|error| match error {
            Failed::Target(error) => error,
            Failed::Twice => TargetError::Refused("a single row is touched twice".to_owned()),
        })?;
        failpoint::reach("sink-after-commit");
        Ok(applied)
    }

    fn prune(&mut self, older: Duration) -> Result<u64, TargetError> {
        let (sink, seconds) = (self.sink.clone(), older.as_secs_f64());
        let client = &mut self.opened().client;
        let mut all = 0;
        for _ in 0..PRUNE_ROUNDS {
            let pruned = client.execute(
                "DELETE FROM oncelog_sink_inbox WHERE ctid = ANY(ARRAY(SELECT ctid \
                 FROM oncelog_sink_inbox WHERE sink = $1 AND seen_at < now() - \
                 make_interval(secs => $2) LIMIT $3))",
                &[&sink, &seconds, &PRUNE_ROWS],
            );
            let pruned = pruned.map_err(|error| failed(&error))?;
            all += pruned;
            if pruned < PRUNE_ROWS as u64 {
                break;
            }
        }
        Ok(all)
    }
}

enum Failed {
    Target(TargetError),
    /// A statement was to touch one row twice.
    Twice,
}

impl From<TargetError> for Failed {
    fn from(error: TargetError) -> Failed {
        Failed::Target(error)
    }
}

impl From<Error> for Failed {
    fn from(error: Error) -> Failed {
        match error.code() {
            Some(code) if *code == SqlState::CARDINALITY_VIOLATION => Failed::Twice,
            _ => Failed::Target(failed(&error)),
        }
    }
}

fn begin(client: &mut Client) -> Result<Begun<'_>, TargetError> {
    let begun = client
        .build_transaction()
        .isolation_level(IsolationLevel::ReadCommitted)
        .start();
    begun.map_err(|error| failed(&error))
}

fn claim(
    begun: &mut Begun<'_>,
    sink: &str,
    cluster: &str,
    request: &Request,
) -> Result<Claim, TargetError> {
    let (topic, partition) = (
        request.partition.topic.as_ref(),
        request.partition.partition,
    );
    let row = begun
        .query_one(
            "INSERT INTO oncelog_sink_offset AS o \
             (sink, topic, partition_id, cluster_id, epoch, next_offset) VALUES ($1, $2, $3, $4, 1, $5) \
             ON CONFLICT (sink, topic, partition_id) DO UPDATE \
             SET epoch = o.epoch + 1, updated_at = now(), \
                cluster_id = CASE o.cluster_id WHEN '' THEN EXCLUDED.cluster_id ELSE o.cluster_id END \
             RETURNING epoch, next_offset, cluster_id",
            &[&sink, &topic, &partition, &cluster, &request.first],
        )
        .map_err(|error| failed(&error))?;
    let stored: String = row.get(2);
    if let Some(other) = other_cluster(&request.partition, &stored, cluster) {
        return Err(TargetError::Refused(other));
    }
    Ok(Claim {
        partition: request.partition.clone(),
        epoch: row.get(0),
        next_offset: row.get(1),
    })
}

fn apply(
    open: &mut Open,
    sink: &str,
    transaction: &Transaction,
    one_by_one: bool,
) -> Result<Applied, Failed> {
    let mut begun = begin(&mut open.client)?;
    if !transaction.moves.is_empty() {
        fence(&mut begun, &open.fence, sink, &transaction.moves)?;
    }
    let new = match &open.inbox {
        Some(inbox) => remember(&mut begun, inbox, sink, transaction.entries())?,
        None => vec![true; transaction.entries().len()],
    };
    let entries = || {
        transaction
            .entries()
            .iter()
            .zip(&new)
            .filter(|(_, new)| **new)
    };
    let changes = entries().filter_map(|(entry, _)| match &entry.effect {
        Effect::Change(change) => Some(change),
        Effect::Letter(_) => None,
    });
    let changes: Vec<&Change> = changes.collect();
    let steps = match open.exact && !open.key.is_empty() {
        true => plan::net(changes.into_iter(), &open.key),
        false => plan::runs(changes.into_iter()),
    };
    for step in steps {
        let (statement, rows) = match step {
            Step::Put(rows) => (Some(&open.put), rows),
            Step::Delete(keys) => (open.delete.as_ref(), keys),
        };
        let statement = statement.expect("deletes are of a sink with a key");
        let most = if one_by_one { 1 } else { rows.len() };
        for some in rows.chunks(most) {
            execute(&mut begun, statement, some)?;
        }
    }
    for (entry, _) in entries() {
        if let Effect::Letter(letter) = &entry.effect {
            insert_letter(&mut begun, letter)?;
        }
    }
    failpoint::reach("sink-before-commit");
    begun.commit()?;
    Ok(Applied {
        duplicates: new.iter().filter(|new| !**new).count() as u64,
    })
}

fn fence(
    begun: &mut Begun<'_>,
    statement: &Statement,
    sink: &str,
    moves: &[Move],
) -> Result<(), Failed> {
    let topics: Vec<&str> = moves
        .iter()
        .map(|moved| moved.partition.topic.as_ref())
        .collect();
    let partitions: Vec<i32> = moves
        .iter()
        .map(|moved| moved.partition.partition)
        .collect();
    let epochs: Vec<i64> = moves.iter().map(|moved| moved.epoch).collect();
    let from: Vec<i64> = moves.iter().map(|moved| moved.from).collect();
    let to: Vec<i64> = moves.iter().map(|moved| moved.to).collect();
    let hit = begun.query(
        statement,
        &[&sink, &topics, &partitions, &epochs, &from, &to],
    )?;
    if hit.len() == moves.len() {
        return Ok(());
    }
    let hit: HashSet<(String, i32)> = hit.iter().map(|row| (row.get(0), row.get(1))).collect();
    let missed = moves.iter().find(|moved| {
        let partition = &moved.partition;
        !hit.contains(&(partition.topic.to_string(), partition.partition))
    });
    Err(Failed::Target(fenced(missed.unwrap_or(&moves[0]))))
}

/// Which entries are new: those whose event has not been seen, of several with one id the first.
fn remember(
    begun: &mut Begun<'_>,
    statement: &Statement,
    sink: &str,
    entries: &[Entry],
) -> Result<Vec<bool>, Failed> {
    let mut ids: Vec<&str> = entries
        .iter()
        .filter_map(|entry| entry.event_id.as_deref())
        .collect();
    if ids.is_empty() {
        return Ok(vec![true; entries.len()]);
    }
    // The same order everywhere, so that no two transactions wait for each other.
    ids.sort_unstable();
    ids.dedup();
    let known = ids.len();
    let rows = begun.query(statement, &[&sink, &ids])?;
    let mut seen: HashSet<&str> = HashSet::new();
    let new: Option<HashSet<&str>> =
        (rows.len() < known).then(|| rows.iter().map(|row| row.get::<_, &str>(0)).collect());
    let is_new = |id: &Arc<str>| new.as_ref().is_none_or(|new| new.contains(id.as_ref()));
    let mut fresh = Vec::with_capacity(entries.len());
    for entry in entries {
        let id = entry.event_id.as_ref();
        fresh.push(id.is_none_or(|id| is_new(id) && seen.insert(id)));
    }
    Ok(fresh)
}

fn execute(
    begun: &mut Begun<'_>,
    statement: &Statement,
    rows: &[Values<'_>],
) -> Result<(), Failed> {
    let width = rows.first().map_or(0, |row| row.len());
    let arrays = (0..width).map(|index| rows.iter().map(|row| text(&row[index])).collect());
    let arrays: Vec<Vec<Option<Cow<'_, str>>>> = arrays.collect();
    let parameters = arrays
        .iter()
        .map(|array| array as &(dyn postgres::types::ToSql + Sync));
    let parameters: Vec<_> = parameters.collect();
    begun.execute(statement, &parameters)?;
    Ok(())
}

/// As the server reads it.
fn text(value: &Value) -> Option<Cow<'_, str>> {
    Some(match value {
        Value::Null => return None,
        Value::Bool(true) => "t".into(),
        Value::Bool(false) => "f".into(),
        Value::Int(value) => value.to_string().into(),
        Value::Float(value) => value.to_string().into(),
        Value::Text(text) => text.into(),
        Value::Bytes(bytes) => {
            const DIGITS: &[u8; 16] = b"0123456789abcdef";
            let mut hex = String::with_capacity(2 + 2 * bytes.len());
            hex.push_str("\\x");
            for byte in bytes {
                hex.push(DIGITS[usize::from(byte >> 4)] as char);
                hex.push(DIGITS[usize::from(byte & 15)] as char);
            }
            hex.into()
        }
    })
}

fn insert_letter(begun: &mut Begun<'_>, letter: &Letter) -> Result<(), Error> {
    begun.execute(
        "INSERT INTO oncelog_dead_letter (id, aggregatetype, aggregateid, type, payload, error, topic, \
         partition_id, record_offset) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        &[
            &letter.id,
            &letter.aggregate_type,
            &letter.aggregate_id,
            &letter.kind,
            &letter.payload,
            &letter.error,
            &letter.topic,
            &letter.partition,
            &letter.offset,
        ],
    )?;
    Ok(())
}

/// An error with what the server said of it.
pub(crate) fn words(error: &Error) -> String {
    let Some(answer) = error.as_db_error() else {
        let cause = std::error::Error::source(error).map(|cause| format!(": {cause}"));
        return format!("{error}{}", cause.unwrap_or_default());
    };
    let detail = answer
        .detail()
        .map(|detail| format!(" ({detail})"))
        .unwrap_or_default();
    format!("{}{detail} [{}]", answer.message(), answer.code().code())
}

pub(crate) fn failed(error: &Error) -> TargetError {
    let text = words(error);
    match error.as_db_error() {
        Some(answer) => meaning(answer, text),
        // Something of ours that cannot be sent will never be.
        None if error.to_string().starts_with("error serializing") => TargetError::Refused(text),
        None => TargetError::Lost(text),
    }
}

fn meaning(answer: &DbError, text: String) -> TargetError {
    let code = answer.code().code();
    match code {
        "40001" | "40P01" | "55P03" | "57014" => return TargetError::Again(text),
        // A standby was promoted, or is not yet; a table was changed under a prepared statement.
        "25006" | "26000" => return TargetError::Lost(text),
        "0A000" if text.contains("cached plan") => return TargetError::Lost(text),
        // A row of an index that is too large for it; a trigger that raises an exception.
        "54000" | "P0001" => {
            return TargetError::Rejected {
                index: None,
                reason: text,
            };
        }
        "42P01" => {
            return TargetError::Refused(format!("{text}; `oncelog sink init` says what makes it"));
        }
        _ => {}
    }
    match &code[..2] {
        // Connections, resources, an administrator, the system, its inside.
        "08" | "53" | "57" | "58" | "XX" => TargetError::Lost(text),
        // Data, constraints, a view's check option.
        "22" | "23" | "44" => TargetError::Rejected {
            index: None,
            reason: text,
        },
        _ => TargetError::Refused(text),
    }
}
