//! From the messages of `pgoutput` to rows of the outbox, each with the position after it.
//!
//! Rows are the INSERTs and UPDATEs of the outbox table, and the logical messages of its prefix that
//! are part of a transaction. DELETEs and TRUNCATEs are the outbox's pruning, other tables are somebody
//! else's: they only move the position on.
//!
//! A row is held back until the next message of its transaction: the last one carries the position
//! after all of it, which only the commit tells.
//!
//! Pure. Invariants: the rows of a transaction are counted the same in every run, wherever it begins;
//! a position with an `end_lsn` has all rows of its transaction, and of all before it, done.

use std::sync::Arc;

use super::logical::Contents;
use super::pgoutput::{Datum, Logical, Lsn, Message, Oid, Relation, Tuple};
use super::values;
use crate::position::Position;
use crate::resume::{Mismatch, Resume};
use crate::row::{Columns, Operation, OutboxRow, Value};

/// What the log is read for.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Schema and name; `None`: no table.
    pub table: Option<(String, String)>,
    pub message_prefix: String,
}

#[derive(Debug, PartialEq)]
pub enum Item {
    Row(OutboxRow),
    /// There is nothing to do before it that was not handed out.
    Passed(Lsn),
}

/// The log is not as it must be; what, for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Broken {
    /// The position and the log disagree: nothing may be published.
    History(Mismatch),
    /// The server said something that makes no sense.
    Protocol(String),
}

impl From<Mismatch> for Broken {
    fn from(mismatch: Mismatch) -> Broken {
        Broken::History(mismatch)
    }
}

pub struct Transactions {
    wanted: Wanted,
    resume: Resume,
    /// Of the wanted table, as it was last described.
    outbox: Option<Shape>,
    contents: Contents,
    open: Option<Open>,
}

struct Shape {
    oid: Oid,
    columns: Columns,
    types: Vec<Oid>,
}

struct Open {
    commit_lsn: Lsn,
    held: Option<OutboxRow>,
}

impl Transactions {
    pub fn new(wanted: Wanted, resume: Resume) -> Transactions {
        Transactions {
            wanted,
            resume,
            outbox: None,
            contents: Contents::default(),
            open: None,
        }
    }

    /// Whether a transaction has begun and not ended.
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    pub fn take(&mut self, message: Message<'_>) -> Result<Option<Item>, Broken> {
        match message {
            Message::Begin(begin) => {
                self.resume.begin(begin.commit_lsn)?;
                self.open = Some(Open {
                    commit_lsn: begin.commit_lsn,
                    held: None,
                });
                Ok(None)
            }
            Message::Commit(commit) => self.commit(commit.commit_lsn, commit.end_lsn),
            Message::Relation(relation) => self.relation(&relation).map(|()| None),
            Message::Insert { relation, new } => self.changed(relation, Operation::Insert, &new),
            Message::Update { relation, new, .. } => {
                self.changed(relation, Operation::Update, &new)
            }
            Message::Logical(logical) => self.logical(&logical),
            Message::Origin { .. }
            | Message::Type { .. }
            | Message::Delete { .. }
            | Message::Truncate { .. } => Ok(None),
        }
    }

    fn commit(&mut self, commit_lsn: Lsn, end_lsn: Lsn) -> Result<Option<Item>, Broken> {
        self.resume.end()?;
        let open = self.open.take();
        let open = open.filter(|open| open.commit_lsn == commit_lsn && end_lsn > commit_lsn);
        let open = open.ok_or_else(|| Broken::Protocol("a commit fits no begin".to_owned()))?;
        let Some(mut row) = open.held else {
            return Ok(Some(Item::Passed(end_lsn)));
        };
        if let Position::Wal { end_lsn: end, .. } = &mut row.position {
            *end = end_lsn;
        }
        Ok(Some(Item::Row(row)))
    }

    fn relation(&mut self, relation: &Relation<'_>) -> Result<(), Broken> {
        let Some((schema, name)) = &self.wanted.table else {
            return Ok(());
        };
        if relation.namespace != schema.as_bytes() || relation.name != name.as_bytes() {
            // It may be the outbox, renamed.
            self.outbox.take_if(|outbox| outbox.oid == relation.oid);
            return Ok(());
        }
        let names = relation.columns.iter().map(|column| {
            let name = std::str::from_utf8(column.name);
            name.map(str::to_owned).map_err(|_| {
                Broken::Protocol(format!(
                    "a column of {schema}.{name:?} has a name in no UTF-8"
                ))
            })
        });
        let columns: Vec<String> = names.collect::<Result<_, _>>()?;
        self.outbox = Some(Shape {
            oid: relation.oid,
            columns: columns.into(),
            types: relation
                .columns
                .iter()
                .map(|column| column.type_oid)
                .collect(),
        });
        Ok(())
    }

    fn changed(
        &mut self,
        relation: Oid,
        operation: Operation,
        new: &Tuple<'_>,
    ) -> Result<Option<Item>, Broken> {
        let Some(shape) = self.outbox.as_ref().filter(|outbox| outbox.oid == relation) else {
            return Ok(None);
        };
        let Some(rows) = self.resume.row()? else {
            return Ok(None);
        };
        if new.len() != shape.columns.len() {
            return Err(Broken::Protocol(format!(
                "a row has {} values for {} columns",
                new.len(),
                shape.columns.len()
            )));
        }
        let values = new
            .iter()
            .zip(&shape.types)
            .map(|(datum, type_oid)| match datum {
                Datum::Null => Value::Null,
                Datum::Unchanged => Value::Unchanged,
                Datum::Text(bytes) => values::value(*type_oid, bytes),
                // Not asked for.
                Datum::Binary(bytes) => Value::Bytes(bytes.to_vec()),
            });
        let values = values.collect();
        let columns = Arc::clone(&shape.columns);
        self.hold(rows, operation, columns, values)
    }

    fn logical(&mut self, logical: &Logical<'_>) -> Result<Option<Item>, Broken> {
        // One that is no part of a transaction may come in the middle of another's messages.
        let ours = logical.prefix == self.wanted.message_prefix.as_bytes();
        if !ours || !logical.transactional() {
            return Ok(None);
        }
        let Some(rows) = self.resume.row()? else {
            return Ok(None);
        };
        let (columns, values) = self.contents.row(logical.content);
        self.hold(rows, Operation::Insert, columns, values)
    }

    /// Hands out the row before it.
    fn hold(
        &mut self,
        rows: u64,
        operation: Operation,
        columns: Columns,
        values: Vec<Value>,
    ) -> Result<Option<Item>, Broken> {
        let outside = || Broken::Protocol("a row came outside of a transaction".to_owned());
        let open = self.open.as_mut().ok_or_else(outside)?;
        let position = Position::Wal {
            commit_lsn: open.commit_lsn,
            end_lsn: 0,
            rows,
        };
        let before = open.held.replace(OutboxRow {
            position,
            operation,
            columns,
            values,
        });
        Ok(before.map(Item::Row))
    }
}

#[cfg(test)]
#[path = "transactions_tests.rs"]
mod tests;
