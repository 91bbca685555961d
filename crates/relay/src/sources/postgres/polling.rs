//! Polling, as a [`Source`]: rows of the outbox that are visible, in the order in which they were
//! inserted; deleted (or moved) when they are published.
//!
//! One statement reads a batch, and sees all that has committed. Whoever writes to an aggregate holds
//! its row's lock until the commit, so that the rows of one aggregate are numbered as they commit, and
//! a batch holds a row never without its elder siblings. What commits late with a low number belongs to
//! other aggregates, and comes with a later batch: there is no cursor that could be past it. (The
//! outbox's row is to be inserted after the lock is taken, not before: and its sequence must not be
//! cached by sessions.)
//!
//! Exactly once, a batch is claimed in the transaction that reads it ([`super::claims`]). At weaker
//! guarantees nothing is written until rows are done with.

use std::time::{Duration, Instant};

use postgres::{Client, Portal, Statement, Transaction};

use super::catalog::{self, Table};
use super::claims::{self, Claim};
use super::connection::{connect, failure};
use super::opening::no_table;
use super::options::{Options, quoted};
use super::retention::{self, Pruning};
use super::slot::span;
use super::values;
use crate::position::{Position, Progress};
use crate::row::{Operation, OutboxRow, Value};
use crate::source::{Batch, Lag, Limit, Source, SourceError};

const POLL_INTERVAL_MIN: Duration = Duration::from_millis(1);
/// Rows that are fetched at once until it is known how large they are.
const FETCH_ROWS_FIRST: usize = 16;
/// Counting more would take longer than it is worth.
const COUNT_MAX: i64 = 100_000;
/// A transaction that is older than this keeps deleted rows in the way of every poll.
const TRANSACTION_OLD: Duration = Duration::from_secs(300);

pub struct Polling {
    options: Options,
    open: Option<Open>,
}

struct Open {
    client: Client,
    table: Table,
    identity: String,
    exactly_once: bool,
    claim: Claim,
    statements: Statements,
    pruning: Option<Pruning>,
    /// Bytes of a row, as seen so far.
    row_bytes: usize,
    /// The last look found nothing, so that the next one is the cheap one.
    idle: bool,
}

struct Statements {
    any: Statement,
    oldest: Statement,
    again: Statement,
    done: Statement,
}

impl Polling {
    pub fn new(options: Options) -> Polling {
        Polling {
            options,
            open: None,
        }
    }

    fn open_now(&mut self) -> Result<&mut Open, SourceError> {
        self.open
            .as_mut()
            .ok_or_else(|| SourceError::Lost("the database is not open".to_owned()))
    }
}

impl Source for Polling {
    fn open(&mut self, progress: Option<&Progress>, exactly_once: bool) -> Result<(), SourceError> {
        self.open = None;
        self.options.validate().map_err(SourceError::Refused)?;
        let mut open = Open::new(&self.options, exactly_once)?;
        if exactly_once {
            open.recover(&self.options, progress)?;
        }
        self.open = Some(open);
        Ok(())
    }

    fn identity(&self) -> String {
        self.open
            .as_ref()
            .map_or_else(String::new, |open| open.identity.clone())
    }

    fn read(&mut self, limit: Limit, wait: Duration) -> Result<Batch, SourceError> {
        let options = self.options.clone();
        let pause_max = Duration::from_millis(options.poll_interval_ms).max(POLL_INTERVAL_MIN);
        let open = self.open_now()?;
        let deadline = Instant::now() + wait;
        let mut pause = POLL_INTERVAL_MIN;
        loop {
            let rows = open.next(&options, limit)?;
            let left = deadline.saturating_duration_since(Instant::now());
            if !rows.is_empty() || left.is_zero() {
                return Ok(Batch {
                    rows,
                    heartbeat: None,
                });
            }
            open.prune()?;
            std::thread::sleep(pause.min(left));
            pause = (pause * 2).min(pause_max);
        }
    }

    fn confirm(&mut self, position: &Position) -> Result<(), SourceError> {
        let open = self.open_now()?;
        match *position {
            Position::Claim { token, rows } if token == open.claim.token => open.confirm(rows),
            _ => Err(SourceError::Refused(format!(
                "{position} is none of claim {}",
                open.claim.token
            ))),
        }
    }

    fn lag(&mut self) -> Result<Lag, SourceError> {
        let options = self.options.clone();
        self.open_now()?.lag(&options)
    }
}

impl Open {
    fn new(options: &Options, exactly_once: bool) -> Result<Open, SourceError> {
        let (_, mut client) = connect(options)?;
        let facts = catalog::facts(&mut client)?;
        if facts.standby {
            return Err(SourceError::Refused(
                "the server is a standby, where no row can be deleted. Point the url to the primary"
                    .to_owned(),
            ));
        }
        let refused = |why: String| SourceError::Refused(why);
        let table = catalog::table(&mut client, options)?;
        let table = table.ok_or_else(|| refused(no_table(options)))?;
        let cache = catalog::sequence_cache(&mut client, options, &table)?;
        can_poll(&table, options, cache).map_err(refused)?;
        if exactly_once {
            claims::make(&mut client, options)?;
        }
        let keep = options.keeps_published();
        if keep {
            let published = retention::published(options);
            catalog::own_table(&mut client, &published, &retention::published_ddl(options))?;
        }
        let pruning = options.retention().filter(|_| keep).map(|retention| {
            Pruning::new(&retention::published(options), "published_at", retention)
        });
        Ok(Open {
            statements: Statements::new(&mut client, &table, options, keep)?,
            client,
            // Claims go with the data wherever it is copied to: the timeline does not matter.
            identity: format!("postgresql:{}/{}", facts.system, facts.database),
            table,
            exactly_once,
            claim: Claim::default(),
            pruning,
            row_bytes: 0,
            idle: false,
        })
    }

    /// Finishes the last claim as far as `progress` knows it; the rest of it comes first.
    fn recover(
        &mut self,
        options: &Options,
        progress: Option<&Progress>,
    ) -> Result<(), SourceError> {
        if let Some(progress) = progress
            && progress.source != self.identity
            && matches!(progress.position, Position::Claim { .. })
        {
            return Err(SourceError::Refused(format!(
                "the progress is of {}, and this database is {}: another one. Is the url right? If the \
                 database was moved with all its tables, a relay of another name can take over when \
                 the last claim is finished",
                progress.source, self.identity
            )));
        }
        let sequence = quoted(&options.sequence);
        let others = claims::unfinished_elsewhere(&mut self.client, options, &sequence)?;
        if !others.is_empty() {
            return Err(SourceError::Refused(format!(
                "the number of shards was changed, and rows that were claimed before are still in the \
                 outbox (claims of {}): they may be published already. Start it once with the number \
                 of shards as it was, until the outbox is empty",
                others.join(", ")
            )));
        }
        let last = claims::load(&mut self.client, options)?;
        self.claim = claims::recover(last, progress).map_err(SourceError::Refused)?;
        let done = self.claim.handed as u64;
        self.confirm(done)
    }

    fn next(&mut self, options: &Options, limit: Limit) -> Result<Vec<OutboxRow>, SourceError> {
        if self.claim.handed < self.claim.sequences.len() {
            let rows = self.again(limit)?;
            if !rows.is_empty() {
                return Ok(rows);
            }
            // Somebody has deleted the rest of them.
            self.claim.handed = self.claim.sequences.len();
            self.claim.confirmed = self.claim.handed;
        }
        if self.claim.confirmed < self.claim.handed {
            let why = "rows that were handed out were never confirmed";
            return Err(SourceError::Lost(why.to_owned()));
        }
        if self.idle {
            let found = self.client.query_opt(&self.statements.any, &[]);
            if found
                .map_err(|error| failure("the outbox", &error))?
                .is_none()
            {
                return Ok(Vec::new());
            }
        }
        let rows = self.claim(options, limit)?;
        self.idle = rows.is_empty();
        Ok(rows)
    }

    /// What was claimed before, and not handed out since it was opened.
    fn again(&mut self, limit: Limit) -> Result<Vec<OutboxRow>, SourceError> {
        let failed = |error: postgres::Error| failure("the outbox", &error);
        let left = self.claim.sequences[self.claim.handed..].to_vec();
        let mut transaction = self.client.transaction().map_err(failed)?;
        let portal = transaction
            .bind(&self.statements.again, &[&left])
            .map_err(failed)?;
        let mut fetch = Fetch::new(&self.table, self.row_bytes, limit);
        fetch.run(&mut transaction, &portal)?;
        transaction.commit().map_err(failed)?;
        self.row_bytes = fetch.row_bytes;
        // Positions count the rows of the claim, those that are gone as well.
        let mut index = self.claim.handed;
        let mut rows = Vec::new();
        for (sequence, values) in fetch.rows {
            while self
                .claim
                .sequences
                .get(index)
                .is_some_and(|claimed| *claimed != sequence)
            {
                index += 1;
            }
            index += 1;
            rows.push(self.row(index, values));
        }
        if !rows.is_empty() {
            self.claim.handed = index.min(self.claim.sequences.len());
        }
        Ok(rows)
    }

    fn claim(&mut self, options: &Options, limit: Limit) -> Result<Vec<OutboxRow>, SourceError> {
        let failed = |error: postgres::Error| failure("the outbox", &error);
        let count = i64::try_from(limit.rows).unwrap_or(i64::MAX);
        let mut transaction = self.client.transaction().map_err(failed)?;
        let portal = transaction
            .bind(&self.statements.oldest, &[&count])
            .map_err(failed)?;
        let mut fetch = Fetch::new(&self.table, self.row_bytes, limit);
        fetch.run(&mut transaction, &portal)?;
        if fetch.rows.is_empty() {
            return Ok(Vec::new());
        }
        let sequences: Vec<i64> = fetch.rows.iter().map(|(sequence, _)| *sequence).collect();
        let mut token = 0;
        if self.exactly_once {
            token = self.claim.token + 1;
            claims::store(&mut transaction, options, token, &sequences)?;
        }
        transaction.commit().map_err(failed)?;
        self.row_bytes = fetch.row_bytes;
        self.claim = Claim {
            token,
            handed: sequences.len(),
            confirmed: 0,
            sequences,
        };
        let rows = fetch.rows.into_iter().enumerate();
        Ok(rows
            .map(|(index, (_, values))| self.row(index + 1, values))
            .collect())
    }

    /// The row that is number `count` of the claim, from 1.
    fn row(&self, count: usize, values: Vec<Value>) -> OutboxRow {
        OutboxRow {
            position: Position::Claim {
                token: self.claim.token,
                rows: count as u64,
            },
            operation: Operation::Insert,
            columns: self.table.columns.clone(),
            values,
        }
    }

    /// Deletes or moves the first `rows` rows of the claim, but for those that are gone already.
    fn confirm(&mut self, rows: u64) -> Result<(), SourceError> {
        let rows = usize::try_from(rows)
            .unwrap_or(usize::MAX)
            .min(self.claim.sequences.len());
        if rows > self.claim.confirmed {
            let done = &self.claim.sequences[self.claim.confirmed..rows];
            let deleted = self.client.execute(&self.statements.done, &[&done]);
            deleted.map_err(|error| failure("published rows", &error))?;
            self.claim.confirmed = rows;
        }
        self.prune()
    }

    fn prune(&mut self) -> Result<(), SourceError> {
        match &mut self.pruning {
            Some(pruning) => pruning.prune(&mut self.client),
            None => Ok(()),
        }
    }

    fn lag(&mut self, options: &Options) -> Result<Lag, SourceError> {
        let failed = |error: postgres::Error| failure("the outbox", &error);
        let (table, sequence) = (options.quoted_table(), quoted(&options.sequence));
        let here = shard(options)
            .map(|here| format!("WHERE {here}"))
            .unwrap_or_default();
        let count = format!(
            "SELECT count(*) FROM (SELECT FROM {table} {here} LIMIT {COUNT_MAX}) AS pending"
        );
        let pending: i64 = self.client.query_one(&count, &[]).map_err(failed)?.get(0);
        let mut oldest_row_age = None;
        if self.table.columns.iter().any(|name| name == "created_at") {
            let oldest = format!(
                "SELECT extract(epoch FROM now() - created_at)::float8 FROM {table} {here}
                 ORDER BY {sequence} LIMIT 1"
            );
            let row = self.client.query_opt(&oldest, &[]).map_err(failed)?;
            let seconds = row.and_then(|row| row.get::<_, Option<f64>>(0));
            oldest_row_age =
                seconds.map(|age| Duration::try_from_secs_f64(age).unwrap_or_default());
        }
        let longest = self.client.query_opt(
            "SELECT pid, extract(epoch FROM now() - xact_start)::float8 FROM pg_stat_activity
             WHERE backend_xmin IS NOT NULL AND xact_start IS NOT NULL AND pid <> pg_backend_pid()
             ORDER BY xact_start LIMIT 1",
            &[],
        );
        let longest = longest.map_err(failed)?.and_then(|row| {
            let age = Duration::try_from_secs_f64(row.get(1)).ok()?;
            (age >= TRANSACTION_OLD).then(|| (row.get::<_, i32>(0), age))
        });
        Ok(Lag {
            pending_rows: Some(pending.unsigned_abs()),
            oldest_row_age,
            retained_wal_bytes: None,
            warning: longest.map(|(pid, age)| {
                format!(
                    "process {pid} of the server is in a transaction since {}: until it ends, every \
                     poll steps over the rows that were deleted since",
                    span(age)
                )
            }),
        })
    }
}

/// Rows of a portal, until a limit of bytes is reached.
struct Fetch<'a> {
    table: &'a Table,
    limit: Limit,
    row_bytes: usize,
    bytes: usize,
    rows: Vec<(i64, Vec<Value>)>,
}

impl Fetch<'_> {
    fn new(table: &Table, row_bytes: usize, limit: Limit) -> Fetch<'_> {
        Fetch {
            table,
            limit,
            row_bytes,
            bytes: 0,
            rows: Vec::new(),
        }
    }

    /// In pieces, each as large as rows so far say that it may be; each new one at most doubles what
    /// was there, so that a few large rows after many small ones do no harm.
    fn run(
        &mut self,
        transaction: &mut Transaction<'_>,
        portal: &Portal,
    ) -> Result<(), SourceError> {
        while self.rows.len() < self.limit.rows && self.bytes < self.limit.bytes {
            let piece = self.piece();
            let max = i32::try_from(piece).unwrap_or(i32::MAX);
            let found = transaction.query_portal(portal, max);
            let found = found.map_err(|error| failure("the outbox", &error))?;
            let last = found.len() < piece;
            for row in &found {
                if !self.take(row)? {
                    return Ok(());
                }
            }
            self.row_bytes = self.bytes / self.rows.len().max(1);
            if last {
                break;
            }
        }
        Ok(())
    }

    fn piece(&self) -> usize {
        let fitting = match self.row_bytes {
            0 => FETCH_ROWS_FIRST,
            bytes => (self.limit.bytes - self.bytes) / bytes,
        };
        let doubling = (self.rows.len() * 2).max(FETCH_ROWS_FIRST);
        let trusted = if self.row_bytes > 0 && self.rows.is_empty() {
            fitting
        } else {
            doubling
        };
        fitting
            .min(trusted)
            .clamp(1, self.limit.rows - self.rows.len())
    }

    /// `false`: it would be too much, and stays for the next batch.
    fn take(&mut self, row: &postgres::Row) -> Result<bool, SourceError> {
        let mut values = Vec::with_capacity(self.table.types.len());
        let mut bytes = size_of::<OutboxRow>();
        for (index, type_oid) in self.table.types.iter().enumerate() {
            let text: Option<&str> = row
                .try_get(index + 1)
                .map_err(|error| failure(&self.table.name, &error))?;
            bytes += text.map_or(0, str::len) + size_of::<Value>();
            values.push(text.map_or(Value::Null, |text| {
                values::value(*type_oid, text.as_bytes())
            }));
        }
        if !self.rows.is_empty() && self.bytes + bytes > self.limit.bytes {
            return Ok(false);
        }
        self.bytes += bytes;
        let sequence = row
            .try_get(0)
            .map_err(|error| failure(&self.table.name, &error))?;
        self.rows.push((sequence, values));
        Ok(true)
    }
}

impl Statements {
    fn new(
        client: &mut Client,
        table: &Table,
        options: &Options,
        keep: bool,
    ) -> Result<Statements, SourceError> {
        let (outbox, sequence) = (options.quoted_table(), quoted(&options.sequence));
        let texts: Vec<String> = table
            .columns
            .iter()
            .map(|name| format!("o.{}::text", quoted(name)))
            .collect();
        let select = format!(
            "SELECT o.{sequence}::int8, {} FROM {outbox} o",
            texts.join(", ")
        );
        let here = shard(options)
            .map(|here| format!("WHERE {here}"))
            .unwrap_or_default();
        let mut done = format!("DELETE FROM {outbox} WHERE {sequence} = ANY ($1)");
        if keep {
            let names: Vec<String> = table.columns.iter().map(|name| quoted(name)).collect();
            let (names, published) = (names.join(", "), retention::published(options));
            done = format!(
                "WITH done AS ({done} RETURNING {names})
                 INSERT INTO {published} ({names}) SELECT {names} FROM done"
            );
        }
        let mut prepare = |text: &str| {
            let prepared = client.prepare(text);
            prepared.map_err(|error| failure(&options.table, &error))
        };
        Ok(Statements {
            // From the index alone, as long as it is one shard.
            any: prepare(&format!(
                "SELECT {sequence} FROM {outbox} {here} ORDER BY {sequence} LIMIT 1"
            ))?,
            oldest: prepare(&format!("{select} {here} ORDER BY o.{sequence} LIMIT $1"))?,
            again: prepare(&format!(
                "{select} WHERE o.{sequence} = ANY ($1) ORDER BY o.{sequence}"
            ))?,
            done: prepare(&done)?,
        })
    }
}

/// Which rows are this shard's, as a condition; `None`: all.
fn shard(options: &Options) -> Option<String> {
    let (shards, shard) = (options.shards, options.shard);
    // The mask makes it positive; -2147483648 has no absolute value.
    let by = quoted(&options.shard_by);
    (shards > 1).then(|| format!("(hashtext({by}::text) & 2147483647) % {shards} = {shard}"))
}

/// Errors: why rows of the table cannot be polled, and what would change that.
pub fn can_poll(table: &Table, options: &Options, cache: Option<i64>) -> Result<(), String> {
    let sequence = &options.sequence;
    let at = table.columns.iter().position(|name| name == sequence);
    let whole_number = |type_oid: &u32| matches!(type_oid, 20 | 21 | 23);
    if !at
        .and_then(|at| table.types.get(at))
        .is_some_and(whole_number)
    {
        return Err(format!(
            "{} has no column {sequence} that numbers its rows as they are inserted; without it polling \
             knows no order. Run: ALTER TABLE {} ADD COLUMN {} bigint GENERATED ALWAYS AS IDENTITY \
             UNIQUE; or read the log, which needs none",
            table.name,
            options.quoted_table(),
            quoted(sequence)
        ));
    }
    if cache.is_some_and(|cache| cache > 1) {
        return Err(format!(
            "each session takes several numbers of {}.{sequence} at once, so that a later row may have \
             a lower one: an aggregate's rows would come in the wrong order. Run: ALTER TABLE {} ALTER \
             COLUMN {} SET CACHE 1",
            table.name,
            options.quoted_table(),
            quoted(sequence)
        ));
    }
    if options.shards > 1 && !table.columns.contains(&options.shard_by) {
        return Err(format!(
            "shard.by: {} has no column {}",
            table.name, options.shard_by
        ));
    }
    Ok(())
}
