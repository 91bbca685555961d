//! What the pipeline was given and what came of it: the service's events, what its topics hold at the
//! end, and what the sink's table holds.

use crate::database::Row;
use crate::database::target::Line;
use oncelog_relay::relay::Stop;
use oncelog_sink::target::Move;
use std::collections::BTreeSet;

/// An event in its topic, as a read_committed consumer reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    pub partition: i32,
    pub offset: i64,
    pub id: String,
    pub aggregate: u32,
    pub version: u32,
}

#[derive(Default)]
pub struct Pipeline {
    /// In the order of their commits.
    pub committed: Vec<Row>,
    /// Ids of events that never were.
    pub rolled_back: BTreeSet<String>,
    /// The service has nothing more to do, and the relay has sent all of it.
    pub shop_done: bool,
    pub relay_done: bool,
    /// Partitions that a sink has read to their ends since.
    pub covered: BTreeSet<i32>,
    /// What there is at the end: of each partition in the order of its offsets.
    pub published: Vec<Published>,
    /// Ids of events that no topic can take.
    pub dead_letters: Vec<String>,
    /// In the order in which they were inserted.
    pub lines: Vec<Line>,
    /// By an instance of the sink that had been replaced.
    pub written_late: Option<Move>,
    /// Relays that had to stop.
    pub fenced: usize,
    pub refused: usize,
}

impl Pipeline {
    pub fn note_stop(&mut self, stop: &Stop) {
        match stop {
            Stop::Fenced(_) => self.fenced += 1,
            Stop::Refused(_) | Stop::Poison(_) => self.refused += 1,
        }
    }
}
