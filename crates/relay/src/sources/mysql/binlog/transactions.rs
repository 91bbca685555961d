//! From events to rows of committed transactions, each with the position after it.
//!
//! A transaction is in the binlog as a whole once it is committed; but a server that was killed while
//! writing it leaves its beginning at the end of a file. So no row is handed out before the end of its
//! transaction has been seen. A transaction that is too large to be held until then is read twice: first
//! to its end, to see that it has one (it is *proven* then), and again from its start to hand out its rows
//! as they come.
//!
//! Invariants:
//! - What is held never exceeds `held_max` by more than one row.
//! - A position with rows names the start of their transaction, and the rows are counted the same
//!   whenever it is read: all inserts and updates of the outbox, of all shards.
//! - The last row of a transaction has the position after the transaction.

use std::sync::Arc;

use mysql::binlog::events::{Event, TableMapEvent};
use mysql_common::io::ParseBuf;

use super::event::{Change, Meaning, Rows, TableName, meaning, mentions};
use super::outbox::Outbox;
use super::queue::{Queue, Stopped};
use super::shape::Shape;
use crate::position::Position;
use crate::row::{Operation, OutboxRow};
use crate::source::SourceError;

/// Events made up for the stream, which are in no file.
const ARTIFICIAL: u16 = 0x20;
/// Offsets are sent as 32 bits.
const OFFSET_MAX: u64 = u32::MAX as u64;

/// Where the next event begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub file: Arc<str>,
    /// When the file was begun, in seconds since 1970; 0 until the server has said it.
    pub created: u32,
    pub offset: u64,
}

impl Place {
    fn at(&self, offset: u64, rows: u64) -> Position {
        Position::Binlog {
            file: Arc::clone(&self.file),
            created: self.created,
            offset,
            rows,
        }
    }
}

pub(super) struct Transactions {
    queue: Arc<Queue>,
    outbox: Outbox,
    place: Place,
    held_max: usize,
    /// Of the first transaction, which are done already.
    skip: u64,
    /// The transaction that begins there is known to have an end.
    proven: Option<(Arc<str>, u64)>,
    open: Option<Open>,
    /// Whether the stream has said which file it is of.
    described: bool,
}

#[derive(Default)]
struct Open {
    start: u64,
    /// Not only a DDL statement's announcement.
    body: bool,
    /// Rows of the outbox so far, also those that are skipped or another shard's.
    rows: u64,
    skip: u64,
    proven: bool,
    /// Too large to be held; what follows is only looked through.
    overflown: bool,
    held: Vec<(OutboxRow, u32)>,
    held_bytes: usize,
    savepoints: Vec<Savepoint>,
}

struct Savepoint {
    name: String,
    rows: u64,
    held: usize,
}

pub(super) enum Step {
    Next,
    /// Begin the stream again, from [`Transactions::place`].
    Again,
}

pub(super) enum Failure {
    Stopped,
    Source(SourceError),
}

impl From<Stopped> for Failure {
    fn from(_: Stopped) -> Failure {
        Failure::Stopped
    }
}

impl From<SourceError> for Failure {
    fn from(error: SourceError) -> Failure {
        Failure::Source(error)
    }
}

fn refused(why: impl Into<String>) -> Failure {
    Failure::Source(SourceError::Refused(why.into()))
}

impl Transactions {
    /// `rows` of the transaction that begins at `place` are done.
    pub fn new(
        queue: Arc<Queue>,
        outbox: Outbox,
        place: Place,
        rows: u64,
        held_max: usize,
    ) -> Self {
        // A row of it was handed out, so its end was seen then.
        let proven = (rows > 0).then(|| (Arc::clone(&place.file), place.offset));
        Transactions {
            queue,
            outbox,
            place,
            held_max,
            skip: rows,
            proven,
            open: None,
            described: false,
        }
    }

    pub fn place(&self) -> &Place {
        &self.place
    }

    /// A stream begins, at the place.
    pub fn begin_stream(&mut self) {
        self.described = false;
        self.outbox.forget_tables();
    }

    pub fn take(&mut self, event: &Event) -> Result<Step, Failure> {
        let start = self.place.offset;
        let meaning = meaning(event).map_err(refused)?;
        if let Meaning::Rotate { file, offset } = meaning {
            return self.rotate(file, offset);
        }
        if let Meaning::Format { created } = meaning {
            return self.describe(created, event);
        }
        self.advance(event);
        let written = event.header().timestamp();
        match meaning {
            Meaning::Begin { body } => self.begin(start, body)?,
            Meaning::Query(text) => return self.query(start, &text),
            Meaning::Commit => return self.commit(),
            Meaning::Prepare => return self.prepared(),
            Meaning::TableMap { table } => self.table_map(&table, event)?,
            Meaning::Rows(rows) => self.rows(&rows, written)?,
            Meaning::Unreadable { table_id, why } => self.unreadable(table_id, why)?,
            Meaning::Incident => {
                return Err(refused(
                    "the server has noted in its binlog that events are missing from it (an \
                    incident): rows of the outbox may be among them",
                ));
            }
            Meaning::Format { .. } | Meaning::Rotate { .. } | Meaning::Nothing => {}
        }
        self.idle()?;
        Ok(Step::Next)
    }

    /// An event says where it ends, in 32 bits, of which a large transaction may need more.
    fn advance(&mut self, event: &Event) {
        let header = event.header();
        // A heartbeat's place is that of the server's reading, which is what was sent last.
        let heartbeat = matches!(header.event_type_raw(), 27 | 41);
        if header.log_pos() == 0 || header.flags_raw() & ARTIFICIAL != 0 || heartbeat {
            return;
        }
        let before = self.place.offset;
        let mut end = (before & !OFFSET_MAX) | u64::from(header.log_pos());
        if before > end && before - end > OFFSET_MAX / 2 {
            end += OFFSET_MAX + 1;
        }
        self.place.offset = before.max(end);
    }

    fn rotate(&mut self, file: String, offset: u64) -> Result<Step, Failure> {
        // The first one only repeats what was asked for.
        if !self.described {
            return Ok(Step::Next);
        }
        if *self.place.file != *file {
            self.torn()?;
            if self.skip > 0 {
                let Place { file, offset, .. } = &self.place;
                return Err(refused(format!(
                    "{} rows of the transaction at {file}:{offset} were published, and the file \
                    ends there now: this is not the binlog that was read before",
                    self.skip
                )));
            }
            self.place = Place {
                file: file.into(),
                created: 0,
                offset,
            };
        }
        Ok(Step::Next)
    }

    fn describe(&mut self, created: u32, event: &Event) -> Result<Step, Failure> {
        if self.place.created != 0 && self.place.created != created {
            let (file, before) = (&self.place.file, self.place.created);
            return Err(refused(format!(
                "the server's {file} was begun at {created} (seconds since 1970), and the one that \
                the relay had read was begun at {before}: RESET MASTER was run, or the server is \
                another one or restored from a backup. What was written in between cannot be told \
                from this; bring source and topics together by hand, then delete the relay's \
                progress"
            )));
        }
        if self.described {
            self.torn()?;
        }
        self.place.created = created;
        self.outbox.forget_tables();
        self.advance(event);
        self.idle()?;
        if !self.described {
            self.described = true;
            self.queue.started();
        }
        Ok(Step::Next)
    }

    /// A file ends in the middle of a transaction: the server was killed while writing it, and rolled it
    /// back when it came back.
    fn torn(&mut self) -> Result<(), Failure> {
        let Some(open) = self.open.take() else {
            return Ok(());
        };
        let at = format!("{}:{}", self.place.file, open.start);
        if open.skip > 0 {
            return Err(refused(format!(
                "{} rows of the transaction at {at} were published, and it has no end now",
                open.skip
            )));
        }
        if open.rows > 0 {
            tracing::warn!("the transaction at {at} was never committed: its rows are passed over");
        }
        Ok(())
    }

    /// Tells where it is, between transactions.
    fn idle(&mut self) -> Result<(), Failure> {
        if self.open.is_some() || self.place.created == 0 || self.skip > 0 {
            return Ok(());
        }
        if self.place.offset <= OFFSET_MAX {
            self.queue.reached(self.place.at(self.place.offset, 0))?;
        }
        Ok(())
    }

    fn begin(&mut self, start: u64, body: bool) -> Result<(), Failure> {
        if let Some(open) = self.open.take().filter(|open| open.rows > 0) {
            return Err(refused(format!(
                "the transaction at {}:{} ends in a way that this program does not know",
                self.place.file, open.start
            )));
        }
        let proven = self.proven.take();
        self.open = Some(Open {
            start,
            body,
            skip: std::mem::take(&mut self.skip),
            proven: proven.is_some_and(|(file, at)| file == self.place.file && at == start),
            ..Open::default()
        });
        Ok(())
    }

    fn query(&mut self, start: u64, text: &str) -> Result<Step, Failure> {
        let word = |i| {
            text.split_whitespace()
                .nth(i)
                .unwrap_or_default()
                .to_ascii_uppercase()
        };
        match (word(0).as_str(), word(1).as_str()) {
            ("BEGIN", _) | ("XA", "START") => match &mut self.open {
                Some(open) => open.body = true,
                None => self.begin(start, true)?,
            },
            ("COMMIT", _) => return self.commit(),
            ("ROLLBACK", "TO") => self.rollback_to(text)?,
            ("ROLLBACK", _) => self.open = None,
            ("SAVEPOINT", _) => self.savepoint(text),
            ("XA", "END") => {}
            (first, _) => self.statement(first, text)?,
        }
        self.idle()?;
        Ok(Step::Next)
    }

    /// One that is not about transactions: DDL, or a change that was logged as a statement.
    fn statement(&mut self, first: &str, text: &str) -> Result<(), Failure> {
        let ours = mentions(text, self.outbox.name());
        let changes = matches!(first, "INSERT" | "REPLACE" | "LOAD");
        if ours && changes {
            return Err(refused(format!(
                "a change of the outbox is in the binlog as a statement, not as rows: the session \
                that wrote it had another binlog_format than ROW. It stands at {}:{}",
                self.place.file, self.place.offset
            )));
        }
        if ours {
            self.outbox.columns_changed();
        }
        if self.open.as_ref().is_some_and(|open| !open.body) {
            self.open = None;
        }
        Ok(())
    }

    fn savepoint(&mut self, text: &str) {
        if let Some(open) = &mut self.open {
            let name = savepoint_name(text);
            let (rows, held) = (open.rows, open.held.len());
            open.savepoints.retain(|known| known.name != name);
            open.savepoints.push(Savepoint { name, rows, held });
        }
    }

    /// In the binlog only where the transaction also changed a table that cannot roll back.
    fn rollback_to(&mut self, text: &str) -> Result<(), Failure> {
        let Some(open) = &mut self.open else {
            return Ok(());
        };
        let name = savepoint_name(text);
        let found = open.savepoints.iter().position(|known| known.name == name);
        let Some(found) = found else {
            return Err(refused(format!(
                "the binlog goes back to an unknown savepoint: {text}"
            )));
        };
        open.savepoints.truncate(found + 1);
        let savepoint = &open.savepoints[found];
        if open.rows == savepoint.rows {
            return Ok(());
        }
        if open.overflown || open.proven {
            return Err(refused(format!(
                "the transaction at {}:{} has more rows of the outbox than fit into buffer.bytes, \
                and takes some of them back (ROLLBACK TO SAVEPOINT); a larger buffer.bytes helps",
                self.place.file, open.start
            )));
        }
        open.held.truncate(savepoint.held);
        Ok(())
    }

    fn commit(&mut self) -> Result<Step, Failure> {
        let Some(mut open) = self.open.take() else {
            self.idle()?;
            return Ok(Step::Next);
        };
        if open.overflown {
            self.place.offset = open.start;
            self.proven = Some((Arc::clone(&self.place.file), open.start));
            self.skip = open.skip;
            return Ok(Step::Again);
        }
        if open.skip > open.rows {
            return Err(refused(format!(
                "{} rows of the transaction at {}:{} were published, and it has {} now: this is not \
                the binlog that was read before",
                open.skip, self.place.file, open.start, open.rows
            )));
        }
        let end = if self.place.offset <= OFFSET_MAX {
            self.place.at(self.place.offset, 0)
        } else {
            // Nobody could begin to read there. The file ends here, since it is over its size.
            self.place.at(open.start, open.rows)
        };
        if let Some((last, _)) = open.held.last_mut() {
            last.position = end.clone();
        }
        for (row, written) in open.held {
            self.queue.push(row, written)?;
        }
        self.queue.reached(end)?;
        Ok(Step::Next)
    }

    fn prepared(&mut self) -> Result<Step, Failure> {
        match self.open.take() {
            Some(open) if open.rows > 0 => Err(refused(format!(
                "the transaction at {}:{} is an XA transaction with rows of the outbox: they are in \
                the binlog before it is known whether they are committed. Write the outbox in plain \
                transactions, or use polling",
                self.place.file, open.start
            ))),
            _ => {
                self.idle()?;
                Ok(Step::Next)
            }
        }
    }

    fn table_map(&mut self, table: &TableName<'_>, event: &Event) -> Result<(), Failure> {
        if !self.outbox.is(table.database, table.name) {
            return Ok(());
        }
        let read = event.read_event::<TableMapEvent<'_>>();
        let map = read.map_err(|error| refused(format!("a table map is damaged: {error}")))?;
        self.outbox.learn(table.id, event.data(), &map)?;
        Ok(())
    }

    fn unreadable(&mut self, table_id: Option<u64>, why: &str) -> Result<(), Failure> {
        let ours = table_id.is_none_or(|id| self.outbox.shape(id).is_some());
        if !ours {
            return Ok(());
        }
        let (file, offset) = (&self.place.file, self.place.offset);
        Err(refused(format!("before {file}:{offset}: {why}")))
    }

    fn rows(&mut self, rows: &Rows<'_>, written: u32) -> Result<(), Failure> {
        let Some(shape) = self.outbox.shape(rows.table_id) else {
            return Ok(());
        };
        if rows.change == Change::Delete {
            return Ok(());
        }
        match &self.open {
            Some(open) if open.overflown => return Ok(()),
            Some(_) => {}
            None => return Err(refused("the binlog has rows outside of any transaction")),
        }
        let damaged = |why: String| {
            let place = &self.place;
            refused(format!(
                "a row before {}:{}: {why}",
                place.file, place.offset
            ))
        };
        if rows.columns != shape.len() {
            return Err(damaged(
                "it has another number of columns than its table".to_owned(),
            ));
        }
        let mut buffer = ParseBuf(rows.images);
        let mut read = Vec::new();
        while !buffer.is_empty() {
            if let Some(before) = rows.before {
                shape.read(before, &mut buffer).map_err(damaged)?;
            }
            let image = shape
                .read(rows.after.unwrap_or_default(), &mut buffer)
                .map_err(damaged)?;
            read.push(image.values);
        }
        let operation = match rows.change {
            Change::Update => Operation::Update,
            _ => Operation::Insert,
        };
        for values in read {
            self.hold(&shape, operation, values, written)?;
        }
        Ok(())
    }

    fn hold(
        &mut self,
        shape: &Arc<Shape>,
        operation: Operation,
        values: Vec<crate::row::Value>,
        written: u32,
    ) -> Result<(), Failure> {
        let Some(open) = &mut self.open else {
            return Ok(());
        };
        open.rows += 1;
        if open.overflown || open.rows <= open.skip || !self.outbox.owns(shape, &values)? {
            return Ok(());
        }
        let row = OutboxRow {
            position: self.place.at(open.start, open.rows),
            operation,
            columns: Arc::clone(&shape.columns),
            values,
        };
        if open.proven {
            for (row, written) in open.held.drain(..) {
                self.queue.push(row, written)?;
            }
        } else {
            open.held_bytes += row.size();
            self.queue.holds(open.held_bytes);
        }
        open.held.push((row, written));
        if open.held_bytes > self.held_max {
            open.overflown = true;
            open.held = Vec::new();
            open.held_bytes = 0;
        }
        self.queue.holds(open.held_bytes);
        Ok(())
    }
}

/// Of `SAVEPOINT x`, and of `ROLLBACK TO x`, however it is quoted.
fn savepoint_name(text: &str) -> String {
    let name = text.split_whitespace().next_back().unwrap_or_default();
    name.trim_matches('`').to_owned()
}
