//! The narrow port for "a transaction on a database". One file per kind of database implements it
//! (`targets`); `sim` implements it for a simulated one.
//!
//! # The fence
//!
//! With exactly once, each partition has a row in `oncelog_sink_offset`: the next offset, and an epoch.
//! An instance that is assigned a partition *claims* it: one transaction adds one to the epoch and reads
//! the next offset. Each batch's transaction then moves the next offset on, from where the instance knows
//! it to be, if and only if the epoch is still its own; if no row is hit, nothing of the batch stays.
//!
//! This fences at least as well as the generation of the consumer group would (which librdkafka does not
//! show). Claim and batch both write the same row, so the database puts them in an order. A batch before
//! the claim is seen by it, in the next offset that it reads; a batch after it hits no row. The
//! generation says only that an assignment was handed out at some time, and it starts again when the
//! group is deleted or has expired; the epoch is counted by the very database that it protects, never
//! starts again, and changes exactly when somebody begins to rely on what it has read. An instance that
//! claims wrongly (two groups with one sink's name) takes the partition from its owner, who notices: that
//! costs time, not rows.
//!
//! Calls may block; a sink has a thread of its own.

use std::sync::Arc;
use std::time::Duration;

use crate::dead_letter::Letter;
use crate::mapping::Change;
use crate::record::TopicPartition;
use crate::table::Table;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// The database cannot be reached or went away: nothing is known of how the transaction ended.
    #[error("{0}")]
    Lost(String),
    /// The transaction was rolled back because of others (a deadlock, a lock's timeout, a
    /// serialization failure): it may be tried again as it is.
    #[error("{0}")]
    Again(String),
    /// The epoch of a partition is not this instance's any more; rolled back.
    #[error("{0}")]
    Fenced(String),
    /// An entry that the database will never take; rolled back. Which one is not known where `index`,
    /// counted in the transaction's entries, is `None`.
    #[error("{reason}")]
    Rejected {
        index: Option<usize>,
        reason: String,
    },
    /// Something that somebody has to change: a table that is not there, a privilege.
    #[error("{0}")]
    Refused(String),
}

/// A partition that an instance was assigned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub partition: TopicPartition,
    /// Where to begin, if it was never claimed before.
    pub first: i64,
}

/// A partition that is this instance's, until somebody else claims it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    pub partition: TopicPartition,
    pub epoch: i64,
    pub next_offset: i64,
}

/// The fence, and the offset that moves on with the rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    pub partition: TopicPartition,
    pub epoch: i64,
    pub from: i64,
    pub to: i64,
}

impl Move {
    /// Whether the partition's row in the database is as this instance left it. The databases say it in
    /// SQL, in the WHERE of their UPDATE; `sim` runs it from here.
    pub fn fits(&self, epoch: i64, next_offset: i64) -> bool {
        self.epoch == epoch && self.from == next_offset
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    Change(Change),
    Letter(Letter),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// `None`: nothing is remembered of it.
    pub event_id: Option<Arc<str>>,
    pub effect: Effect,
}

/// Entries in the order of their records, moves for all partitions that they are of. Without moves there
/// is no fence and no inbox (the weaker guarantees).
#[derive(Clone, Debug, PartialEq)]
pub struct Transaction {
    pub(crate) batch: Arc<Vec<Entry>>,
    pub(crate) from: usize,
    pub(crate) until: usize,
    pub moves: Vec<Move>,
}

impl Transaction {
    pub fn new(entries: Vec<Entry>, moves: Vec<Move>) -> Transaction {
        Transaction {
            from: 0,
            until: entries.len(),
            batch: Arc::new(entries),
            moves,
        }
    }

    pub fn entries(&self) -> &[Entry] {
        &self.batch[self.from..self.until]
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Entries whose event id was in the inbox: nothing was done for them.
    pub duplicates: u64,
}

pub trait Target: Send {
    /// Connects anew and looks at the table.
    fn open(&mut self) -> Result<Table, TargetError>;

    /// Takes the partitions, in one transaction. Refuses, and takes none, where one of them was claimed
    /// with another cluster's id before.
    fn claim(&mut self, cluster: &str, requests: &[Request]) -> Result<Vec<Claim>, TargetError>;

    /// In one transaction: the moves, the inbox, the rows in the order of the entries.
    fn apply(&mut self, transaction: &Transaction) -> Result<Applied, TargetError>;

    /// Forgets event ids that are older, some thousand at a time; how many there were.
    fn prune(&mut self, older: Duration) -> Result<u64, TargetError>;
}

/// Why a partition cannot be claimed that was claimed before with `stored` as the cluster's id. An empty
/// id is unknown.
pub fn other_cluster(partition: &TopicPartition, stored: &str, cluster: &str) -> Option<String> {
    if stored.is_empty() || cluster.is_empty() || stored == cluster {
        return None;
    }
    Some(format!(
        "the offsets of {partition} in oncelog_sink_offset are those of cluster {stored}, and this is \
         cluster {cluster}: they mean nothing here. Nothing was changed. Point bootstrap.servers at the \
         former cluster; or give the sink a new name, which begins at auto.offset.reset; or delete its \
         rows from oncelog_sink_offset"
    ))
}

pub fn fenced(moved: &Move) -> TargetError {
    TargetError::Fenced(format!(
        "another instance has taken over {} (this one had epoch {} and was at offset {})",
        moved.partition, moved.epoch, moved.from
    ))
}
