//! The log through a replication slot, as a [`Source`].
//!
//! The slot is made when the relay first opens. Positions are those of whole transactions and of rows
//! within them ([`crate::resume`]); the slot is only told what it need not keep any more, and only when
//! that is durable elsewhere: in the progress topic, or in a table ([`super::position`]).
//!
//! Heartbeats come from the server's keep-alives, which say how far it has read the log: no write to
//! the database is needed for them, and they move on while other databases of the server write.

use std::time::{Duration, Instant};

use postgres::Client;

use super::connection::failure;
use super::opening::Opening;
use super::options::Options;
use super::pgoutput::Lsn;
use super::position;
use super::retention::Pruning;
use super::slot::{self, Place};
use super::stream::Stream;
use crate::position::{Position, Progress};
use crate::source::{Batch, Lag, Limit, Source, SourceError};

pub struct Cdc {
    options: Options,
    open: Option<Open>,
}

struct Open {
    /// For SQL; the stream has a connection of its own.
    client: Client,
    stream: Stream,
    identity: String,
    exactly_once: bool,
    /// No heartbeat is before it.
    at: Lsn,
    /// There is nothing to do up to here, and nobody was told.
    passed: Lsn,
    heartbeat: Instant,
    pruning: Option<Pruning>,
    written: Option<Written>,
}

/// The end of the log at a time, to know how fast it grows.
struct Written {
    at: Instant,
    lsn: Lsn,
    rate: Option<f64>,
}

impl Cdc {
    pub fn new(options: Options) -> Cdc {
        Cdc {
            options,
            open: None,
        }
    }

    /// The most bytes of rows that were waiting for the relay since [`Source::open`].
    pub fn queue_bytes_max(&self) -> usize {
        self.open
            .as_ref()
            .map_or(0, |open| open.stream.feed().bytes_max())
    }

    fn open_now(&mut self) -> Result<&mut Open, SourceError> {
        let closed = || SourceError::Lost("the replication slot is not open".to_owned());
        self.open.as_mut().ok_or_else(closed)
    }
}

impl Source for Cdc {
    fn open(&mut self, progress: Option<&Progress>, exactly_once: bool) -> Result<(), SourceError> {
        // The server frees the slot when it notices that the old stream has ended.
        self.open = None;
        self.options.validate().map_err(SourceError::Refused)?;
        if self.options.shards > 1 {
            return Err(SourceError::Refused(
                "shards: a slot is read by one relay, in the order of the commits. Shards are for \
                 capture = \"polling\""
                    .to_owned(),
            ));
        }
        let opened = Opening::new(&self.options, exactly_once)?.run(progress)?;
        let now = Instant::now();
        // What is known of a slot without a progress should be recorded soon.
        let first = if opened.from == 0 {
            self.options.heartbeat()
        } else {
            Duration::ZERO
        };
        self.open = Some(Open {
            client: opened.client,
            stream: opened.stream,
            identity: opened.identity,
            exactly_once,
            at: opened.from,
            passed: opened.made,
            heartbeat: now.checked_sub(first).unwrap_or(now),
            pruning: opened.pruning,
            written: None,
        });
        Ok(())
    }

    fn identity(&self) -> String {
        self.open
            .as_ref()
            .map_or_else(String::new, |open| open.identity.clone())
    }

    fn read(&mut self, limit: Limit, wait: Duration) -> Result<Batch, SourceError> {
        let every = self.options.heartbeat();
        let open = self.open_now()?;
        let taken = open.stream.feed().take(limit, wait)?;
        if let Some(place) = taken.rows.last().and_then(|row| Place::of(&row.position)) {
            open.at = open.at.max(place.from());
        }
        open.passed = open.passed.max(taken.passed.unwrap_or(0));
        if taken.rows.is_empty() {
            open.prune()?;
        }
        let due = taken.rows.is_empty() && open.passed > open.at;
        let mut heartbeat = None;
        if due && open.heartbeat.elapsed() >= every {
            open.heartbeat = Instant::now();
            open.at = open.passed;
            heartbeat = Some(Position::Wal {
                commit_lsn: open.at,
                end_lsn: open.at,
                rows: 0,
            });
        }
        Ok(Batch {
            rows: taken.rows,
            heartbeat,
        })
    }

    fn confirm(&mut self, position: &Position) -> Result<(), SourceError> {
        let Some(place) = Place::of(position) else {
            return Err(SourceError::Refused(format!(
                "{position} is no position in PostgreSQL's log"
            )));
        };
        let options = self.options.clone();
        let open = self.open_now()?;
        // A heartbeat has no row that could come again.
        if !open.exactly_once && place.rows > 0 {
            position::store(&mut open.client, &options, &open.identity, place)?;
        }
        if place.end_lsn != 0 {
            open.stream.confirm(place.end_lsn)?;
        }
        open.prune()
    }

    fn lag(&mut self) -> Result<Lag, SourceError> {
        let name = self.options.slot();
        let open = self.open_now()?;
        let Some(slot) = slot::slot(&mut open.client, &name)? else {
            return Err(SourceError::Lost(format!("slot {name} was dropped")));
        };
        let row = open.client.query_one(
            "SELECT (pg_current_wal_lsn() - '0/0')::int8, setting::int8 FROM pg_settings
             WHERE name = 'max_slot_wal_keep_size'",
            &[],
        );
        let row = row.map_err(|error| failure("the log", &error))?;
        let rate = open.rate(row.get::<_, i64>(0).cast_unsigned());
        // In megabytes; -1 is no limit.
        let budget = u64::try_from(row.get::<_, i64>(1))
            .ok()
            .map(|megabytes| megabytes << 20);
        Ok(Lag {
            retained_wal_bytes: Some(slot.retained),
            warning: slot::warning(&name, &slot, budget, rate),
            ..Lag::default()
        })
    }
}

impl Open {
    fn prune(&mut self) -> Result<(), SourceError> {
        match &mut self.pruning {
            Some(pruning) => pruning.prune(&mut self.client),
            None => Ok(()),
        }
    }

    /// Bytes of log per second, over at least a second.
    fn rate(&mut self, lsn: Lsn) -> Option<f64> {
        let now = Instant::now();
        let Some(before) = &mut self.written else {
            self.written = Some(Written {
                at: now,
                lsn,
                rate: None,
            });
            return None;
        };
        let seconds = now.duration_since(before.at).as_secs_f64();
        if seconds >= 1.0 {
            before.rate = Some(lsn.saturating_sub(before.lsn) as f64 / seconds);
            (before.at, before.lsn) = (now, lsn);
        }
        before.rate
    }
}
