//! The thread that reads the slot's stream into the queue.
//!
//! While the queue is full it does not read, and goes on to tell the server that it lives: else the
//! server would end the stream after `wal_sender_timeout`.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::feed::{Feed, Put};
use super::pgoutput::{self, Lsn};
use super::replication::{Link, Received, Replication};
use super::transactions::{Broken, Item, Transactions};
use crate::row::OutboxRow;
use crate::source::{Limit, SourceError};

/// Less than half of the least sensible `wal_sender_timeout`.
const REPORT_EVERY: Duration = Duration::from_secs(5);
const TICK: Duration = Duration::from_secs(1);

/// Dropping it ends the stream.
pub struct Stream {
    feed: Arc<Feed>,
    link: Arc<Link>,
    thread: Option<JoinHandle<()>>,
}

impl Stream {
    /// `replication` has been started. `limit` is the queue's.
    pub fn start(
        replication: Replication,
        transactions: Transactions,
        limit: Limit,
    ) -> std::io::Result<Stream> {
        let feed = Arc::new(Feed::new(limit));
        let link = replication.link();
        let mut pump = Pump {
            replication,
            link: Arc::clone(&link),
            transactions,
            feed: Arc::clone(&feed),
            reported: Instant::now(),
        };
        let named = std::thread::Builder::new().name("replication".to_owned());
        let thread = named.spawn(move || {
            let ended = pump.run();
            pump.feed.end(ended);
        })?;
        Ok(Stream {
            feed,
            link,
            thread: Some(thread),
        })
    }

    pub fn feed(&self) -> &Feed {
        &self.feed
    }

    /// The server need not keep what is before `lsn`.
    pub fn confirm(&self, lsn: Lsn) -> Result<(), SourceError> {
        let sent = self.link.confirm(lsn);
        sent.map_err(|error| SourceError::Lost(format!("the replication connection: {error}")))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.feed.close();
        self.link.end();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that reads the replication slot has panicked");
        }
    }
}

struct Pump {
    replication: Replication,
    link: Arc<Link>,
    transactions: Transactions,
    feed: Arc<Feed>,
    reported: Instant,
}

impl Pump {
    fn run(&mut self) -> SourceError {
        loop {
            match self.step() {
                Ok(true) => {}
                Ok(false) => return SourceError::Lost("the stream was ended".to_owned()),
                Err(error) => return error,
            }
        }
    }

    /// `false`: nobody reads any more.
    fn step(&mut self) -> Result<bool, SourceError> {
        self.report(false)?;
        let item = match self.replication.receive(TICK)? {
            Received::Nothing => return Ok(!self.feed.is_closed()),
            Received::KeepAlive { wal_end, answer } => {
                if !self.transactions.is_open() {
                    self.feed.pass(wal_end);
                }
                self.report(answer)?;
                return Ok(true);
            }
            Received::Data(data) => {
                let message = pgoutput::decode(data);
                let message = message.map_err(|error| SourceError::Refused(error.to_string()))?;
                self.transactions.take(message).map_err(broken)?
            }
        };
        match item {
            None => Ok(true),
            Some(Item::Passed(lsn)) => {
                self.feed.pass(lsn);
                Ok(true)
            }
            Some(Item::Row(row)) => self.put(row),
        }
    }

    fn put(&mut self, row: OutboxRow) -> Result<bool, SourceError> {
        let mut row = row;
        loop {
            match self.feed.put(row, TICK) {
                Put::Done => return Ok(true),
                Put::Closed => return Ok(false),
                Put::Full(again) => row = again,
            }
            self.report(false)?;
        }
    }

    /// When it is time, or at once.
    fn report(&mut self, now: bool) -> Result<(), SourceError> {
        if !now && self.reported.elapsed() < REPORT_EVERY {
            return Ok(());
        }
        self.reported = Instant::now();
        let sent = self.link.report();
        sent.map_err(|error| SourceError::Lost(format!("the replication connection: {error}")))
    }
}

fn broken(broken: Broken) -> SourceError {
    SourceError::Refused(match broken {
        Broken::History(mismatch) => mismatch.to_string(),
        Broken::Protocol(what) => format!("the server's stream makes no sense: {what}"),
    })
}
