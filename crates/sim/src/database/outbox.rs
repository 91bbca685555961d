//! The service's database: transactions that run side by side and commit in another order than that
//! in which they took their numbers, and an outbox that a relay reads in one of three ways.
//!
//! A transaction locks an aggregate before it inserts an event of it, as a service does that changes
//! the aggregate in the same transaction. So the events of one aggregate are numbered in the order of
//! their commits, and those of two are not.

use super::DatabaseConnection;
use super::claims::Claims;
use super::log::Log;
use oncelog_relay::position::{Position, Progress};
use oncelog_relay::row::{Columns, Operation, OutboxRow, Value};
use oncelog_relay::source::{Batch, SourceError};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// How the relay reads it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// A replication slot: `Position::Wal`.
    #[default]
    Log,
    /// Rows are claimed under a token: `Position::Claim`.
    Claims,
    /// One transaction at a time, and a cursor over the numbers: `Position::Cursor`.
    Cursor,
}

/// An event in the outbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Taken when it is inserted; a rollback leaves a hole.
    pub sequence: i64,
    pub aggregate: u32,
    /// Which of the aggregate's events it is, from 1.
    pub version: u32,
    /// Has nothing to route it by: no topic can ever take it.
    pub unroutable: bool,
}

impl Row {
    pub fn id(&self) -> String {
        format!("e{}", self.sequence)
    }
}

/// A transaction of the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TransactionNumber(u64);

pub struct Outbox {
    kind: Kind,
    columns: Columns,
    next_sequence: i64,
    next_transaction: u64,
    open: BTreeMap<TransactionNumber, Vec<Row>>,
    locks: BTreeMap<u32, TransactionNumber>,
    /// Committed events of each aggregate.
    versions: BTreeMap<u32, u32>,
    log: Log,
    claims: Claims,
    cursor: Cursor,
    /// Committed and not deleted, by number; of `Claims` and `Cursor`.
    table: BTreeMap<i64, Row>,
}

/// The position that the relay has confirmed, and how far each connection has read.
#[derive(Default)]
struct Cursor {
    confirmed: i64,
    readers: BTreeMap<DatabaseConnection, i64>,
}

const COLUMNS: [&str; 4] = ["id", "aggregatetype", "aggregateid", "payload"];

impl Outbox {
    pub fn new(kind: Kind) -> Outbox {
        Outbox {
            kind,
            columns: COLUMNS.iter().map(|name| (*name).to_owned()).collect(),
            next_sequence: 1,
            next_transaction: 1,
            open: BTreeMap::new(),
            locks: BTreeMap::new(),
            versions: BTreeMap::new(),
            log: Log::default(),
            claims: Claims::default(),
            cursor: Cursor::default(),
            table: BTreeMap::new(),
        }
    }

    pub fn identity(&self) -> String {
        "simulated:1:1".to_owned()
    }

    /// `None`: with a cursor, somebody else is writing.
    pub fn begin(&mut self) -> Option<TransactionNumber> {
        if self.kind == Kind::Cursor && !self.open.is_empty() {
            return None;
        }
        let number = TransactionNumber(self.next_transaction);
        self.next_transaction += 1;
        self.open.insert(number, Vec::new());
        Some(number)
    }

    /// False: another transaction has locked the aggregate, or this one is gone.
    pub fn insert(&mut self, number: TransactionNumber, aggregate: u32, unroutable: bool) -> bool {
        let Some(rows) = self.open.get_mut(&number) else {
            return false;
        };
        if *self.locks.entry(aggregate).or_insert(number) != number {
            return false;
        }
        let committed = self.versions.get(&aggregate).copied().unwrap_or(0);
        let own = rows.iter().filter(|row| row.aggregate == aggregate).count() as u32;
        rows.push(Row {
            sequence: self.next_sequence,
            aggregate,
            version: committed + own + 1,
            unroutable,
        });
        self.next_sequence += 1;
        true
    }

    /// What it has committed; nothing where the transaction is gone.
    pub fn commit(&mut self, number: TransactionNumber) -> Vec<Row> {
        let rows = self.end(number);
        for row in &rows {
            *self.versions.entry(row.aggregate).or_default() += 1;
        }
        match self.kind {
            Kind::Log => self.log.append(rows.clone()),
            Kind::Claims | Kind::Cursor => {
                self.table
                    .extend(rows.iter().map(|row| (row.sequence, row.clone())));
            }
        }
        rows
    }

    /// What will never be.
    pub fn roll_back(&mut self, number: TransactionNumber) -> Vec<Row> {
        self.end(number)
    }

    fn end(&mut self, number: TransactionNumber) -> Vec<Row> {
        self.locks.retain(|_, owner| *owner != number);
        self.open.remove(&number).unwrap_or_default()
    }

    /// Transactions that are open are rolled back; their rows are in nobody's hands.
    pub fn crash(&mut self) {
        self.open.clear();
        self.locks.clear();
        self.log.crash();
        self.claims.crash();
        self.cursor.readers.clear();
    }

    pub fn forget(&mut self, connection: DatabaseConnection) {
        self.log.forget(connection);
        self.claims.forget(connection);
        self.cursor.readers.remove(&connection);
    }

    /// All that was committed is read. The confirmation of the last may have been lost.
    pub fn is_drained(&self) -> bool {
        match self.kind {
            Kind::Log => self.log.is_drained(),
            Kind::Claims => self.table.is_empty(),
            Kind::Cursor => {
                let last = self.table.keys().last().copied().unwrap_or(0);
                self.cursor.readers.values().any(|read| *read >= last)
            }
        }
    }

    /// As [`oncelog_relay::source::Source::open`].
    pub fn open(
        &mut self,
        connection: DatabaseConnection,
        progress: Option<&Progress>,
        exactly_once: bool,
    ) -> Result<(), SourceError> {
        if let Some(progress) = progress
            && progress.source != self.identity()
        {
            let source = &progress.source;
            return Err(SourceError::Refused(format!("the progress is of {source}")));
        }
        let position = progress.map(|progress| &progress.position);
        match self.kind {
            Kind::Log => self.log.open(connection, position, exactly_once),
            Kind::Claims => self
                .claims
                .open(connection, position, exactly_once, &mut self.table),
            Kind::Cursor => self.cursor.open(connection, position, exactly_once),
        }
    }

    /// As [`oncelog_relay::source::Source::read`], without waiting.
    pub fn read(
        &mut self,
        connection: DatabaseConnection,
        rows_max: usize,
    ) -> Result<Batch, SourceError> {
        let mut heartbeat = None;
        let rows = match self.kind {
            Kind::Log => {
                let (rows, passed) = self.log.read(connection, rows_max)?;
                heartbeat = passed;
                rows
            }
            Kind::Claims => self.claims.read(connection, rows_max, &self.table)?,
            Kind::Cursor => self.cursor.read(connection, rows_max, &self.table)?,
        };
        let rows = rows
            .into_iter()
            .map(|(row, position)| self.row(&row, position));
        Ok(Batch {
            rows: rows.collect(),
            heartbeat,
        })
    }

    /// As [`oncelog_relay::source::Source::confirm`].
    pub fn confirm(
        &mut self,
        connection: DatabaseConnection,
        position: &Position,
    ) -> Result<(), SourceError> {
        match self.kind {
            Kind::Log => self.log.confirm(connection, position),
            Kind::Claims => self.claims.confirm(position, &mut self.table),
            Kind::Cursor => self.cursor.confirm(position, &mut self.table),
        }
    }

    fn row(&self, row: &Row, position: Position) -> OutboxRow {
        let (id, aggregate) = (row.id(), row.aggregate.to_string());
        let payload = format!("{{\"aggregate\":{aggregate},\"version\":{}}}", row.version);
        let kind = match row.unroutable {
            true => Value::Null,
            false => Value::Text("order".to_owned()),
        };
        OutboxRow {
            position,
            operation: Operation::Insert,
            columns: Arc::clone(&self.columns),
            values: vec![
                Value::Text(id),
                kind,
                Value::Text(aggregate),
                Value::Text(payload),
            ],
        }
    }
}

/// The question came on a connection that has not opened the source, or whose place another took.
pub fn not_open() -> SourceError {
    SourceError::Lost("another connection reads this outbox".to_owned())
}

pub fn other_kind(position: &Position) -> SourceError {
    SourceError::Refused(format!("{position} is no position in this source"))
}

/// Somebody would have to explain how it came to this.
pub fn gap(confirmed: &impl std::fmt::Display, progress: &impl std::fmt::Display) -> SourceError {
    SourceError::Refused(format!(
        "confirmed up to {confirmed}, and the progress only knows of {progress}: a gap"
    ))
}

impl Cursor {
    fn open(
        &mut self,
        connection: DatabaseConnection,
        position: Option<&Position>,
        exactly_once: bool,
    ) -> Result<(), SourceError> {
        let from = match position {
            None if exactly_once && self.confirmed > 0 => {
                return Err(gap(&self.confirmed, &"nothing"));
            }
            None => self.confirmed,
            Some(Position::Cursor { sequence }) if *sequence < self.confirmed => {
                return Err(gap(&self.confirmed, sequence));
            }
            Some(Position::Cursor { sequence }) => *sequence,
            Some(other) => return Err(other_kind(other)),
        };
        self.readers.insert(connection, from);
        Ok(())
    }

    fn read(
        &mut self,
        connection: DatabaseConnection,
        rows_max: usize,
        table: &BTreeMap<i64, Row>,
    ) -> Result<Vec<(Row, Position)>, SourceError> {
        let from = self.readers.get_mut(&connection).ok_or_else(not_open)?;
        let new = table.range(*from + 1..).take(rows_max);
        let rows: Vec<(Row, Position)> = new
            .map(|(sequence, row)| {
                let position = Position::Cursor {
                    sequence: *sequence,
                };
                (row.clone(), position)
            })
            .collect();
        if let Some((row, _)) = rows.last() {
            *from = row.sequence;
        }
        Ok(rows)
    }

    fn confirm(
        &mut self,
        position: &Position,
        table: &mut BTreeMap<i64, Row>,
    ) -> Result<(), SourceError> {
        let Position::Cursor { sequence } = *position else {
            return Err(other_kind(position));
        };
        self.confirmed = self.confirmed.max(sequence);
        *table = table.split_off(&(sequence + 1));
        Ok(())
    }
}

/// The ids of these rows.
pub fn ids(rows: &[Row]) -> BTreeSet<String> {
    rows.iter().map(Row::id).collect()
}
