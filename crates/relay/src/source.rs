//! The narrow port for "an outbox in a database". One file per kind of source implements it
//! ([`crate::sources`]); `sim` implements it for a simulated database.
//!
//! Calls may block; the relay has a thread of its own.

use std::time::Duration;

use crate::position::{Position, Progress};
use crate::row::OutboxRow;

/// How much one read may hand out: it ends a batch at whichever comes first. A single row may be larger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    pub rows: usize,
    pub bytes: usize,
}

/// Rows in commit order. A database transaction may be cut between two batches.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    pub rows: Vec<OutboxRow>,
    /// Where no row is left: a place in the source that is past all rows so far, worth remembering.
    /// Heartbeats move it on, so that a log can be released in which nothing was of interest.
    pub heartbeat: Option<Position>,
}

#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The database cannot be reached, went away, or asked to try again. The relay begins anew.
    #[error("{0}")]
    Lost(String),
    /// Going on could lose or double a row, or needs somebody to change something. The text says what,
    /// why and what next; the relay stops.
    #[error("{0}")]
    Refused(String),
}

pub trait Source: Send {
    /// Connects anew, and goes on after `progress`; without one, after what [`Source::confirm`] was last
    /// told, or from the oldest row. Learns [`Source::identity`].
    ///
    /// Refuses where `progress` and the database disagree: another database or another history of it,
    /// a place that the database no longer has or has never had, rows confirmed that `progress` does
    /// not know of. `exactly_once` says whether the absence of a progress means that nothing has ever
    /// been published (so that a source which remembers otherwise refuses).
    fn open(&mut self, progress: Option<&Progress>, exactly_once: bool) -> Result<(), SourceError>;

    /// Which database, in its history: `postgresql:<system identifier>:<timeline>`, `sqlite:<uuid>`.
    /// Known after [`Source::open`].
    fn identity(&self) -> String;

    /// The rows that follow, as soon as there are any; none after `wait` without one. What was read before
    /// is confirmed by then.
    fn read(&mut self, limit: Limit, wait: Duration) -> Result<Batch, SourceError>;

    /// All rows up to `position` are done with: durable in the source when this returns (or, where that
    /// is only about releasing what a replication slot keeps, soon after). Rows are deleted here, where
    /// the source deletes.
    fn confirm(&mut self, position: &Position) -> Result<(), SourceError>;

    /// What is waiting, for metrics; asked every few seconds at most.
    fn lag(&mut self) -> Result<Lag, SourceError>;
}

/// What a source holds that is not published. `None` where it cannot be known cheaply.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Lag {
    pub pending_rows: Option<u64>,
    pub oldest_row_age: Option<Duration>,
    /// Bytes of log that a replication slot keeps on the server's disk.
    pub retained_wal_bytes: Option<u64>,
    /// A thing that somebody should know, in words: a slot that is about to be lost, a long transaction.
    pub warning: Option<String>,
}
