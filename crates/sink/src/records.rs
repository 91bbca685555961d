//! The narrow port for "a consumer of topics", a member of a group. `kafka` implements it with librdkafka;
//! `sim` with frames to a simulated broker.
//!
//! Calls may block; a sink has a thread of its own.

use std::time::Duration;

use crate::record::{Place, SinkRecord, TopicPartition};

/// How much one poll may hand out: it ends a batch at whichever comes first. A single record may be
/// larger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    pub rows: usize,
    pub bytes: usize,
    /// The longest that a batch that has begun waits to be filled.
    pub wait: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rebalance {
    /// These are to be started with [`Records::assign`], even if there are none.
    Assigned(Vec<TopicPartition>),
    /// These are given up already: nothing of them was under way, since polls and transactions take
    /// turns.
    Revoked(Vec<TopicPartition>),
}

/// Records in the order of their partition's offsets, of partitions that are still this member's.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Polled {
    pub records: Vec<SinkRecord>,
    /// In their order.
    pub rebalances: Vec<Rebalance>,
}

/// What a partition has: from its first record's offset to that after its last stable one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    pub partition: TopicPartition,
    pub beginning: i64,
    pub end: i64,
    /// The group's, where it was asked for and there is one.
    pub committed: Option<i64>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordsError {
    /// The cluster cannot be reached, or the group has gone on without this member: begin anew.
    #[error("{0}")]
    Lost(String),
    /// Going on could lose a record, or needs somebody. The text says what, why and what next.
    #[error("{0}")]
    Refused(String),
}

pub trait Records: Send {
    /// A new member of the group; the one before it leaves. The cluster's id, empty where it has none.
    fn subscribe(&mut self) -> Result<String, RecordsError>;

    /// The records that follow, as soon as there are any; none after `wait` without one. At a rebalance
    /// it returns at once.
    fn poll(&mut self, limit: Limit, wait: Duration) -> Result<Polled, RecordsError>;

    /// One for each partition, in their order.
    fn ranges(
        &mut self,
        partitions: &[TopicPartition],
        committed: bool,
    ) -> Result<Vec<Range>, RecordsError>;

    /// Answers [`Rebalance::Assigned`]: reads on from these places.
    fn assign(&mut self, places: &[Place]) -> Result<(), RecordsError>;

    /// Reads on from other places in partitions that were assigned before.
    fn seek(&mut self, places: &[Place]) -> Result<(), RecordsError>;

    /// The group's offsets. `advisory`: nobody waits for the answer, which nothing depends on.
    fn commit(&mut self, places: &[Place], advisory: bool) -> Result<(), RecordsError>;

    /// Leaves the group.
    fn leave(&mut self);

    /// Where each of these partitions ends, if it has no record for a reader from that place on: only
    /// markers of transactions, and records that were aborted or compacted away. Others are left out.
    fn probe(&mut self, places: &[Place]) -> Result<Vec<Place>, RecordsError>;
}
