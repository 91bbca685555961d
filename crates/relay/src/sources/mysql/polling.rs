//! Polling: rows are claimed, handed out, and deleted once they are published.
//!
//! AUTO_INCREMENT is not commit order, and MySQL has nothing that says which numbers may still be under
//! way. So there is no cursor: whatever is committed and in the table is claimed, oldest number first,
//! and a smaller number that commits later is claimed later. Within an aggregate that is the order of its
//! writers, as long as something makes them wait for each other (a lock on the aggregate): who comes
//! later takes its number after the one before has committed.
//!
//! Exactly once, by a claim's token ([`super::claim`]):
//! 1. Read rows; store their numbers under token + 1 by compare-and-swap; only then hand them out.
//! 2. Events and the token are committed to Kafka.
//! 3. `confirm` deletes the rows and empties the claim, in one transaction.
//!
//! After a crash, a progress with the claim's token means that 3. is missing; the token before it, that
//! 2. is. Anything else is another history, and is refused.
//!
//! Without a progress topic nothing is claimed: a row is done once it is deleted. Deleting fewer rows than
//! were handed out means that another instance was there; the relay begins anew.

use std::time::{Duration, Instant};

use mysql::consts::{ColumnFlags, ColumnType};
use mysql::prelude::Queryable;
use mysql::{Column, Conn, Row};

use super::claim::{self, Claim};
use super::connection::{Database, Server, failed, outbox_id};
use super::options::Options;
use super::tables::{Tables, quoted};
use crate::position::{Position, Progress};
use crate::row::{Columns, Operation, OutboxRow, Value};
use crate::source::{Batch, Lag, Limit, Source, SourceError};

const POLL_INTERVAL_MIN: Duration = Duration::from_millis(1);
/// Rows asked for at first, before anything is known of their size.
const PAGE_MIN: usize = 64;
/// Numbers in one statement.
const CHUNK: usize = 1_000;
/// Rows that are counted for the lag, at most.
const COUNTED_MAX: u64 = 100_000;
/// How often rows that were kept long enough are looked for, and how many batches of them are deleted.
const PRUNE_INTERVAL: Duration = Duration::from_secs(10);
const PRUNE_BATCHES: usize = 20;

pub struct Polling {
    options: Options,
    identity: String,
    open: Option<Open>,
}

struct Open {
    conn: Conn,
    tables: Tables,
    mariadb: bool,
    exactly_once: bool,
    columns: Columns,
    claim: Claim,
    /// The last claim of which something is published.
    published: u64,
    /// Of the claim's rows.
    handed_out: usize,
    confirmed: usize,
    page: usize,
    pruned: Option<Instant>,
}

impl Polling {
    pub fn new(options: Options) -> Polling {
        Polling {
            options,
            identity: String::new(),
            open: None,
        }
    }

    fn opened(&mut self) -> Result<&mut Open, SourceError> {
        let not_open = || SourceError::Lost("the source is not open".to_owned());
        self.open.as_mut().ok_or_else(not_open)
    }

    /// How many rows of the claim are published, where that fits the progress.
    fn reconcile(&self, claim: &Claim, progress: Option<&Progress>) -> Result<usize, SourceError> {
        let by_hand = "Which rows are published cannot be told from this; bring source and topics \
            together by hand, then delete the relay's progress and its row in oncelog_outbox_claim";
        let Some(progress) = progress else {
            let is_fresh = claim.token == 0 || (claim.token == 1 && !claim.sequences.is_empty());
            return if is_fresh {
                Ok(0)
            } else {
                Err(SourceError::Refused(format!(
                    "the relay has published rows (its claim {} is there), and its progress topic \
                    has no progress: the topic was deleted, or is another cluster's. {by_hand}",
                    claim.token
                )))
            };
        };
        let Position::Claim { token, rows } = progress.position else {
            let position = &progress.position;
            return Err(SourceError::Refused(format!(
                "the progress is no claim, but {position}: the relay read the source in another way \
                before. Give it another name once nothing is waiting"
            )));
        };
        if progress.source != self.identity {
            return Err(SourceError::Refused(format!(
                "the progress is of the outbox {}, and this is {}: another database, or an outbox \
                that was made anew. {by_hand}",
                progress.source, self.identity
            )));
        }
        let rows = usize::try_from(rows).unwrap_or(usize::MAX);
        if token == claim.token && (rows <= claim.sequences.len() || claim.sequences.is_empty()) {
            return Ok(rows.min(claim.sequences.len()));
        }
        if token.checked_add(1) == Some(claim.token) && !claim.sequences.is_empty() {
            return Ok(0);
        }
        Err(SourceError::Refused(format!(
            "the progress is at {}, and the database's last claim is {} with {} rows: the database \
            or the topics were restored from a backup. {by_hand}",
            progress.position,
            claim.token,
            claim.sequences.len()
        )))
    }
}

impl Source for Polling {
    fn open(&mut self, progress: Option<&Progress>, exactly_once: bool) -> Result<(), SourceError> {
        self.open = None;
        self.options.validate().map_err(SourceError::Refused)?;
        let database = Database::new(&self.options)?;
        let mut conn = database.connect()?;
        let tables = database.tables;
        let server = Server::ask(&mut conn)?;
        let id = outbox_id(&mut conn, &tables)?;
        self.identity = format!("{}:{id}", server.kind());
        index(&mut conn, &tables, &self.options)?;
        let key = self.options.key();
        let mut claim = Claim::default();
        let mut published = 0;
        if exactly_once {
            let (relay, shards) = (&self.options.relay, self.options.shards);
            if let Some(other) = claim::of_other_shards(&mut conn, &tables, relay, shards)? {
                return Err(SourceError::Refused(format!(
                    "the relay ran with another number of shards before, and the claim of {other} \
                    is not done with; run it once more with that number, until nothing is waiting"
                )));
            }
            claim = claim::load(&mut conn, &tables, &key)?;
            published = self.reconcile(&claim, progress)?;
        }
        let mut open = Open {
            conn,
            tables,
            mariadb: server.mariadb,
            exactly_once,
            columns: Columns::default(),
            published: progress.map_or(0, claim_token),
            claim,
            handed_out: published,
            confirmed: 0,
            page: PAGE_MIN,
            pruned: None,
        };
        open.describe(&self.options)?;
        if published > 0 {
            tracing::info!(
                "{published} rows of claim {} were published",
                open.claim.token
            );
            open.finish(&self.options, published)?;
        }
        self.open = Some(open);
        Ok(())
    }

    fn identity(&self) -> String {
        self.identity.clone()
    }

    fn read(&mut self, limit: Limit, wait: Duration) -> Result<Batch, SourceError> {
        let deadline = Instant::now() + wait;
        let mut pause = POLL_INTERVAL_MIN;
        let pause_max = self.options.poll_interval_max();
        loop {
            let options = &self.options;
            let not_open = || SourceError::Lost("the source is not open".to_owned());
            let open = self.open.as_mut().ok_or_else(not_open)?;
            assert_eq!(
                open.handed_out, open.confirmed,
                "a batch is confirmed before the next one"
            );
            let rows = if open.handed_out < open.claim.sequences.len() {
                open.read_claim(options, limit)?
            } else {
                open.claim_rows(options, limit)?
            };
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
        let options = self.options.clone();
        let open = self.opened()?;
        let Position::Claim { token, rows } = *position else {
            return Err(SourceError::Refused(format!("{position} is no claim")));
        };
        let rows = usize::try_from(rows).unwrap_or(usize::MAX);
        assert_eq!(
            token, open.claim.token,
            "only what was handed out is confirmed"
        );
        if open.claim.sequences.is_empty() {
            return Ok(());
        }
        assert!(
            rows <= open.handed_out,
            "only what was handed out is confirmed"
        );
        open.finish(&options, rows)?;
        if let Some(retention) = options.retention() {
            open.prune(retention)?;
        }
        Ok(())
    }

    fn lag(&mut self) -> Result<Lag, SourceError> {
        let (shard, sequence) = (
            self.options.shard_filter(),
            self.options.sequence_column.clone(),
        );
        let open = self.opened()?;
        let outbox = &open.tables.outbox;
        let asked = format!(
            "SELECT COUNT(*) FROM (SELECT 1 FROM {outbox} {shard} LIMIT {COUNTED_MAX}) AS o"
        );
        let failed = |error| failed("counting what is waiting", error);
        let count: Option<u64> = open.conn.query_first(asked).map_err(failed)?;
        let mut oldest: Option<f64> = None;
        if open.columns.iter().any(|column| column == "created_at") {
            let sequence = quoted(&sequence);
            let asked = format!(
                "SELECT CAST(TIMESTAMPDIFF(MICROSECOND, created_at, NOW(6)) / 1e6 AS DOUBLE) \
                FROM {outbox} {shard} ORDER BY {sequence} LIMIT 1"
            );
            let age: Option<Option<f64>> = open.conn.query_first(asked).map_err(failed)?;
            oldest = age.flatten();
        }
        Ok(Lag {
            pending_rows: count,
            oldest_row_age: oldest.map(|age| Duration::from_secs_f64(age.max(0.0))),
            retained_wal_bytes: None,
            warning: None,
        })
    }
}

impl Options {
    /// With `WHERE`, or empty.
    fn shard_filter(&self) -> String {
        if self.shards == 1 {
            return String::new();
        }
        let column = quoted(&self.shard_column);
        let (shards, shard) = (self.shards, self.shard);
        format!("WHERE COALESCE(CRC32({column}), 0) % {shards} = {shard}")
    }
}

impl Open {
    /// Learns the columns.
    fn describe(&mut self, options: &Options) -> Result<(), SourceError> {
        let asked = format!("SELECT * FROM {} LIMIT 0", self.tables.outbox);
        let none = Limit { rows: 1, bytes: 0 };
        self.select(&asked, &options.sequence_column, none)
            .map(|_| ())
    }

    /// Rows that nobody has claimed: all there are, since what is claimed is deleted before.
    fn claim_rows(
        &mut self,
        options: &Options,
        limit: Limit,
    ) -> Result<Vec<OutboxRow>, SourceError> {
        let count = limit.rows.min(self.page);
        let asked = format!(
            "SELECT * FROM {} {} ORDER BY {} LIMIT {count}",
            self.tables.outbox,
            options.shard_filter(),
            quoted(&options.sequence_column)
        );
        let found = self.select(&asked, &options.sequence_column, limit)?;
        if found.is_empty() {
            return Ok(Vec::new());
        }
        let token = match self.exactly_once {
            true => self.published + 1,
            false => 0,
        };
        let (sequences, rows): (Vec<u64>, Vec<OutboxRow>) = found.into_iter().unzip();
        let claim = Claim { token, sequences };
        if self.exactly_once {
            let before = self.claim.token;
            claim::store(&mut self.conn, &self.tables, &options.key(), before, &claim)?;
        }
        self.claim = claim;
        self.confirmed = 0;
        self.handed_out = 0;
        Ok(self.hand_out(rows.into_iter().enumerate()))
    }

    /// The next rows of a claim that was made before a crash.
    fn read_claim(
        &mut self,
        options: &Options,
        limit: Limit,
    ) -> Result<Vec<OutboxRow>, SourceError> {
        let waiting = &self.claim.sequences[self.handed_out..];
        let count = waiting.len().min(limit.rows).min(self.page).min(CHUNK);
        let asked_for = waiting[..count].to_vec();
        let asked = format!(
            "SELECT * FROM {} WHERE {} ORDER BY {}",
            self.tables.outbox,
            among(&options.sequence_column, &asked_for),
            quoted(&options.sequence_column)
        );
        let found = self.select(&asked, &options.sequence_column, limit)?;
        let first = self.handed_out;
        let Some((last, _)) = found.last() else {
            // Somebody deleted them, so nobody misses them.
            tracing::warn!("{count} claimed rows are not in the outbox any more");
            self.handed_out += count;
            self.confirmed = self.handed_out;
            return Ok(Vec::new());
        };
        let until = asked_for.partition_point(|sequence| sequence <= last);
        if until != found.len() {
            tracing::warn!(
                "{} claimed rows are not in the outbox any more",
                until - found.len()
            );
        }
        let place = |sequence| asked_for.partition_point(|one| *one < sequence) + first;
        let rows = found
            .into_iter()
            .map(|(sequence, row)| (place(sequence), row));
        Ok(self.hand_out(rows))
    }

    /// Each with its place in the claim.
    fn hand_out(&mut self, rows: impl Iterator<Item = (usize, OutboxRow)>) -> Vec<OutboxRow> {
        let token = self.claim.token;
        let mut handed_out = Vec::new();
        for (place, mut row) in rows {
            self.handed_out = place + 1;
            let rows = self.handed_out as u64;
            row.position = Position::Claim { token, rows };
            handed_out.push(row);
        }
        handed_out
    }

    /// Rows with their numbers, as many as the limit allows, without their positions. Learns how many
    /// rows to ask for.
    fn select(
        &mut self,
        asked: &str,
        sequence: &str,
        limit: Limit,
    ) -> Result<Vec<(u64, OutboxRow)>, SourceError> {
        let doing = "reading the outbox";
        let mut result = self
            .conn
            .query_iter(asked)
            .map_err(|error| failed(doing, error))?;
        let described = result.columns();
        let described = described.as_ref();
        let same = described.len() == self.columns.len()
            && described
                .iter()
                .zip(&*self.columns)
                .all(|(new, known)| new.name_str() == **known);
        if !same {
            let names = described
                .iter()
                .map(|column| column.name_str().into_owned());
            self.columns = names.collect();
        }
        let place = self.columns.iter().position(|name| name == sequence);
        let mut found = Vec::new();
        let mut bytes = 0;
        for row in result.by_ref() {
            let row = row.map_err(|error| failed(doing, error))?;
            let number = place.and_then(|place| row.get_opt::<u64, _>(place)?.ok());
            let number = number.ok_or_else(|| {
                SourceError::Refused(format!("a row of the outbox has no number in {sequence}"))
            })?;
            let row = OutboxRow {
                position: Position::Claim { token: 0, rows: 0 },
                operation: Operation::Insert,
                columns: Columns::clone(&self.columns),
                values: values(row)?,
            };
            let size = row.size();
            if !found.is_empty() && bytes + size > limit.bytes {
                break;
            }
            bytes += size;
            found.push((number, row));
        }
        drop(result);
        self.page = next_page(self.page, found.len(), bytes, limit);
        Ok(found)
    }

    /// The first `rows` of the claim are done with: deletes them, or moves them to where they are kept.
    fn finish(&mut self, options: &Options, rows: usize) -> Result<(), SourceError> {
        let doing = "deleting published rows";
        let failed = |error| failed(doing, error);
        let published = &self.claim.sequences[self.confirmed.min(rows)..rows];
        let is_all = rows == self.claim.sequences.len();
        let mut deleted = 0;
        self.conn.query_drop("START TRANSACTION").map_err(failed)?;
        for chunk in published.chunks(CHUNK) {
            let found = self.one_by_one(&options.sequence_column, chunk);
            if options.retention().is_some() {
                self.conn.query_drop(self.keep(&found)).map_err(failed)?;
            }
            self.conn
                .query_drop(format!("DELETE o FROM {found}"))
                .map_err(failed)?;
            deleted += self.conn.affected_rows();
        }
        if !self.exactly_once && deleted != published.len() as u64 {
            self.conn.query_drop("ROLLBACK").map_err(failed)?;
            return Err(SourceError::Lost(format!(
                "{} of {} rows were deleted by somebody else, perhaps another instance",
                published.len() as u64 - deleted.min(published.len() as u64),
                published.len()
            )));
        }
        if self.exactly_once && is_all {
            let table = &self.tables.claim;
            let done = format!("UPDATE {table} SET sequences = '[]' WHERE relay = ? AND token = ?");
            self.conn
                .exec_drop(done, (options.key(), self.claim.token))
                .map_err(failed)?;
        }
        self.conn.query_drop("COMMIT").map_err(failed)?;
        self.published = self.claim.token;
        self.confirmed = rows;
        if is_all {
            self.claim.sequences.clear();
            self.handed_out = 0;
            self.confirmed = 0;
        }
        Ok(())
    }

    /// The rows with these numbers, as `o`, each looked up in the index. A list (`IN`) of most of a table's
    /// rows would make the server go through all of them, and wait for those that others are just
    /// inserting.
    fn one_by_one(&self, column: &str, sequences: &[u64]) -> String {
        let column = quoted(column);
        // The first row gives the column its name; 0 is never a number.
        let (row, name) = if self.mariadb {
            ("", "`0`")
        } else {
            ("ROW", "column_0")
        };
        let mut rows = format!("{row}(0)");
        for sequence in sequences {
            rows.push_str(&format!(",{row}({sequence})"));
        }
        let outbox = &self.tables.outbox;
        format!("(VALUES {rows}) AS n STRAIGHT_JOIN {outbox} AS o ON o.{column} = n.{name}")
    }

    fn keep(&self, found: &str) -> String {
        let columns: Vec<String> = self.columns.iter().map(|column| quoted(column)).collect();
        let of_outbox: Vec<String> = columns.iter().map(|column| format!("o.{column}")).collect();
        let (published, columns) = (&self.tables.published, columns.join(", "));
        let of_outbox = of_outbox.join(", ");
        format!(
            "INSERT INTO {published} ({columns}, published_at) SELECT {of_outbox}, NOW(3) FROM {found}"
        )
    }

    fn prune(&mut self, retention: Duration) -> Result<(), SourceError> {
        if self
            .pruned
            .is_some_and(|pruned| pruned.elapsed() < PRUNE_INTERVAL)
        {
            return Ok(());
        }
        self.pruned = Some(Instant::now());
        let delete = format!(
            "DELETE FROM {} WHERE published_at < NOW(3) - INTERVAL {} MICROSECOND \
            ORDER BY published_at LIMIT {CHUNK}",
            self.tables.published,
            retention.as_micros()
        );
        for _ in 0..PRUNE_BATCHES {
            let doing = "deleting rows that were kept long enough";
            self.conn
                .query_drop(&delete)
                .map_err(|error| failed(doing, error))?;
            if self.conn.affected_rows() < CHUNK as u64 {
                self.pruned = Some(Instant::now());
                return Ok(());
            }
        }
        // There are more: go on with the next confirmation.
        self.pruned = None;
        Ok(())
    }
}

fn claim_token(progress: &Progress) -> u64 {
    match progress.position {
        Position::Claim { token, .. } => token,
        _ => 0,
    }
}

/// Twice as many as long as they fit; else as many as fit by what they were on average.
fn next_page(page: usize, rows: usize, bytes: usize, limit: Limit) -> usize {
    if rows == 0 {
        return page;
    }
    let fitting = limit.bytes / (bytes / rows).max(1);
    let more = if rows < page {
        page
    } else {
        page.saturating_mul(2)
    };
    more.min(fitting.saturating_add(1))
        .clamp(1, limit.rows.max(1))
}

fn among(column: &str, sequences: &[u64]) -> String {
    let numbers: Vec<String> = sequences.iter().map(u64::to_string).collect();
    format!("{} IN ({})", quoted(column), numbers.join(","))
}

/// The index that begins with the sequence's column, the primary key first.
pub(super) fn index(
    conn: &mut Conn,
    tables: &Tables,
    options: &Options,
) -> Result<String, SourceError> {
    let asked = "SELECT INDEX_NAME FROM information_schema.STATISTICS \
        WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ? AND COLUMN_NAME = ? AND SEQ_IN_INDEX = 1 \
        ORDER BY INDEX_NAME <> 'PRIMARY', NON_UNIQUE LIMIT 1";
    let column = &options.sequence_column;
    let found: Option<String> = conn
        .exec_first(asked, (&tables.database, &tables.name, column))
        .map_err(|error| failed("looking for the outbox's index", error))?;
    found.map(|index| quoted(&index)).ok_or_else(|| {
        SourceError::Refused(format!(
            "{} has no column {column} with an index (AUTO_INCREMENT): polling needs one to read by; \
            `oncelog outbox init` makes an outbox that has it",
            tables.outbox
        ))
    })
}

/// The text protocol has all as text; what a column is says what becomes of it.
fn values(row: Row) -> Result<Vec<Value>, SourceError> {
    let columns = row.columns();
    let mut values = Vec::with_capacity(columns.len());
    for (found, column) in row.unwrap_raw().into_iter().zip(columns.iter()) {
        values.push(match found {
            None | Some(mysql::Value::NULL) => Value::Null,
            Some(mysql::Value::Bytes(bytes)) => value(bytes, column),
            Some(other) => {
                let name = column.name_str();
                return Err(SourceError::Refused(format!("{name} came as {other:?}")));
            }
        });
    }
    Ok(values)
}

/// The character set of what is no text.
const BINARY: u16 = 63;

fn value(bytes: Vec<u8>, column: &Column) -> Value {
    use ColumnType as T;
    let members = ColumnFlags::ENUM_FLAG | ColumnFlags::SET_FLAG;
    let is_binary = column.character_set() == BINARY && !column.flags().intersects(members);
    let text = match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => return Value::Bytes(error.into_bytes()),
    };
    match column.column_type() {
        T::MYSQL_TYPE_TINY
        | T::MYSQL_TYPE_SHORT
        | T::MYSQL_TYPE_INT24
        | T::MYSQL_TYPE_LONG
        | T::MYSQL_TYPE_LONGLONG
        | T::MYSQL_TYPE_YEAR => text.parse().map_or_else(|_| Value::Text(text), Value::Int),
        T::MYSQL_TYPE_FLOAT | T::MYSQL_TYPE_DOUBLE => text
            .parse()
            .map_or_else(|_| Value::Text(text), Value::Float),
        T::MYSQL_TYPE_BIT | T::MYSQL_TYPE_GEOMETRY => Value::Bytes(text.into_bytes()),
        T::MYSQL_TYPE_STRING
        | T::MYSQL_TYPE_VAR_STRING
        | T::MYSQL_TYPE_VARCHAR
        | T::MYSQL_TYPE_BLOB
        | T::MYSQL_TYPE_TINY_BLOB
        | T::MYSQL_TYPE_MEDIUM_BLOB
        | T::MYSQL_TYPE_LONG_BLOB
            if is_binary =>
        {
            Value::Bytes(text.into_bytes())
        }
        _ => Value::Text(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_rows_are_asked_for_as_fit() {
        let limit = Limit {
            rows: 1_000,
            bytes: 100_000,
        };
        assert_eq!(next_page(64, 64, 6_400, limit), 128);
        assert_eq!(next_page(800, 800, 80_000, limit), 1_000);
        assert_eq!(next_page(64, 1, 100, limit), 64);
        assert_eq!(next_page(64, 10, 100_000, limit), 11);
        assert_eq!(next_page(64, 1, 1_000_000, limit), 1);
        assert_eq!(next_page(64, 0, 0, limit), 64);
    }

    #[test]
    fn texts_become_what_their_columns_are() {
        let check = |text: &str, kind, character_set| {
            value(
                text.into(),
                &Column::new(kind).with_character_set(character_set),
            )
        };
        let text = |text: &str| Value::Text(text.to_owned());
        assert_eq!(
            check("7", ColumnType::MYSQL_TYPE_LONGLONG, BINARY),
            Value::Int(7)
        );
        let large = "18446744073709551615";
        assert_eq!(
            check(large, ColumnType::MYSQL_TYPE_LONGLONG, BINARY),
            text(large)
        );
        let blob = Value::Bytes(b"x".to_vec());
        assert_eq!(check("x", ColumnType::MYSQL_TYPE_BLOB, BINARY), blob);
        assert_eq!(check("x", ColumnType::MYSQL_TYPE_BLOB, 45), text("x"));
        assert_eq!(
            check("2024-01-01", ColumnType::MYSQL_TYPE_DATE, BINARY),
            text("2024-01-01")
        );
    }
}
