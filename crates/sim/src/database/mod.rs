//! Two simulated databases: the service's, with its outbox, and the one that the sink writes to.
//!
//! A client has connections, and one question at a time on each of them. Questions and answers take
//! their time; a connection breaks before or after a question is carried out, so that nobody knows; and
//! what a client has sent before it was gone may still be carried out, however late.
//!
//! What a database has committed stays. All that a question does is one transaction.
//!
//! - [`outbox`]: the service's transactions, what they commit and in which order, and the three ways to
//!   read it: [`log`] (a replication slot), [`claims`] (polling) and a cursor (one writer).
//! - [`target`]: the sink's offsets, inbox and rows.
//!
//! What it does not cover: SQL, isolation levels, locks between a sink's transactions (each is one
//! step here), and a database that loses what it has committed.

pub mod claims;
pub mod log;
pub mod outbox;
pub mod target;

use oncelog_relay::position::{Position, Progress};
use oncelog_relay::source::{Batch, SourceError};
use oncelog_sink::table::Table;
use oncelog_sink::target::{Applied, Claim, Request, TargetError, Transaction};
use std::collections::BTreeMap;

pub use outbox::{Kind, Outbox, Row};
pub use target::Target;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DatabaseConnection(pub u64);

/// The questions of the relay (those of [`oncelog_relay::source::Source`]) and of the sink (those of
/// [`oncelog_sink::target::Target`]).
#[derive(Debug)]
pub enum Ask {
    Open {
        progress: Option<Progress>,
        exactly_once: bool,
    },
    /// At most so many rows.
    Read(usize),
    Confirm(Position),
    Describe,
    Claim(String, Vec<Request>),
    Apply(Transaction),
}

#[derive(Debug)]
pub enum Answer {
    Opened(Result<String, SourceError>),
    Read(Result<Batch, SourceError>),
    Confirmed(Result<(), SourceError>),
    Described(Table),
    Claimed(Result<Vec<Claim>, TargetError>),
    Applied(Result<Applied, TargetError>),
}

pub struct Databases {
    pub outbox: Outbox,
    pub target: Target,
    /// Those that are up, and whose they are.
    connections: BTreeMap<DatabaseConnection, usize>,
    next_connection: u64,
}

impl Databases {
    pub fn new(kind: Kind) -> Databases {
        Databases {
            outbox: Outbox::new(kind),
            target: Target::default(),
            connections: BTreeMap::new(),
            next_connection: 1,
        }
    }

    pub fn connect(&mut self, actor: usize) -> DatabaseConnection {
        let connection = DatabaseConnection(self.next_connection);
        self.next_connection += 1;
        self.connections.insert(connection, actor);
        connection
    }

    /// Whose connection it is, while it is up.
    pub fn owner(&self, connection: DatabaseConnection) -> Option<usize> {
        self.connections.get(&connection).copied()
    }

    /// The connection has ended.
    pub fn disconnect(&mut self, connection: DatabaseConnection) -> Option<usize> {
        self.outbox.forget(connection);
        self.connections.remove(&connection)
    }

    /// Both are down and up again: all connections have ended, and transactions that were open.
    pub fn crash(&mut self) -> BTreeMap<DatabaseConnection, usize> {
        self.outbox.crash();
        std::mem::take(&mut self.connections)
    }

    pub fn answer(&mut self, connection: DatabaseConnection, ask: Ask) -> Answer {
        match ask {
            Ask::Open {
                progress,
                exactly_once,
            } => {
                let opened = self
                    .outbox
                    .open(connection, progress.as_ref(), exactly_once);
                Answer::Opened(opened.map(|()| self.outbox.identity()))
            }
            Ask::Read(rows_max) => Answer::Read(self.outbox.read(connection, rows_max)),
            Ask::Confirm(position) => Answer::Confirmed(self.outbox.confirm(connection, &position)),
            Ask::Describe => Answer::Described(target::table()),
            Ask::Claim(cluster, requests) => {
                Answer::Claimed(self.target.claim(&cluster, &requests))
            }
            Ask::Apply(transaction) => Answer::Applied(self.target.apply(&transaction)),
        }
    }
}
