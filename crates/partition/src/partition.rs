//! One partition of a topic, in the role of its only replica and leader.
//!
//! [`Partition`] ties the log, the producers and the high watermark together and keeps what is
//! true between them. It deliberately knows no requests (the broker takes those apart), parks
//! nobody (the broker waits for the high watermark), does no IO (disk work is returned as
//! [`Work`]) and has no followers yet.
//!
//! Its methods are in one file per concern: `append`, `transactions`, `fetch`, `offsets`,
//! `housekeeping`, `recovery`.

use crate::config::PartitionConfig;
use crate::endings::Endings;
use crate::producers::Producers;
use crate::snapshot_files::SnapshotFiles;
use crate::verification::Verifications;
use oncelog_commitlog::{DiskOp, Log};
use oncelog_wire::Uuid;
use oncelog_wire::clock::Instant;
use std::sync::Arc;

/// Who a partition is; fixed for its life but for the leader epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub topic: Arc<str>,
    /// The partition's number within the topic.
    pub index: i32,
    pub topic_id: Uuid,
    pub leader_epoch: i32,
}

impl Identity {
    /// The partition's directory, as Kafka names it.
    pub fn dir(&self) -> String {
        format!("{}-{}", self.topic, self.index)
    }
}

/// The state of one partition.
///
/// # Invariants
///
/// - `log.start_offset() <= high_watermark <= log.end_offset()`, and the last stable offset is
///   between the first two. (asserted after every change)
/// - The high watermark never goes down, and everything below it is as durable as the topic's
///   flush settings promise: with one replica it is the end of what the log has written without
///   a hole.
/// - `producers` is exactly what [`Producers::apply`] and [`Producers::apply_marker`] make of every
///   batch in the log, in offset order, plus what older, deleted batches left behind, minus what expired. Hence a sequence
///   never advances before its record is in the log.
/// - The snapshot at offset N describes the log below N; one whose N lies past the log's end is
///   never on disk while the log can grow.
#[derive(Debug)]
pub struct Partition {
    pub(crate) identity: Identity,
    pub(crate) config: PartitionConfig,
    pub(crate) log: Log,
    pub(crate) producers: Producers,
    pub(crate) endings: Endings,
    pub(crate) verifications: Verifications,
    pub(crate) snapshots: SnapshotFiles,
    /// When the newest snapshot was written.
    pub(crate) snapshot_taken: Instant,
    /// When idle producers are looked for next.
    pub(crate) next_expiry: Instant,
}

/// Disk work of a partition, and what its completion means to it.
///
/// The broker hands `op` to its host and, once that is done, the rest to
/// [`Partition::work_done`].
#[derive(Debug)]
pub struct Work {
    pub op: DiskOp,
    pub completes: Completes,
}

/// To be given back to [`Partition::work_done`] when the operation is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completes {
    /// Nobody waits for it.
    Nothing,
    /// The batch that ends with `last_offset` is written (and synced, if the operation said so).
    Append { last_offset: i64 },
    /// A compaction pass has written its files; they are not in use yet.
    Compaction,
    /// The files of a compaction pass are in use.
    CompactionInstalled,
}

impl Work {
    pub(crate) fn unwatched(op: DiskOp) -> Work {
        Work {
            op,
            completes: Completes::Nothing,
        }
    }
}

impl Partition {
    pub fn topic(&self) -> &Arc<str> {
        &self.identity.topic
    }

    pub fn index(&self) -> i32 {
        self.identity.index
    }

    pub fn topic_id(&self) -> Uuid {
        self.identity.topic_id
    }

    pub fn leader_epoch(&self) -> i32 {
        self.identity.leader_epoch
    }

    pub fn config(&self) -> &PartitionConfig {
        &self.config
    }

    pub fn log_start_offset(&self) -> i64 {
        self.log.start_offset()
    }

    /// The offset that the next record gets; may be ahead of what is written.
    pub fn log_end_offset(&self) -> i64 {
        self.log.end_offset()
    }

    /// Everything below may be read, and is what acks=all waits for.
    pub fn high_watermark(&self) -> i64 {
        self.log.written_end_offset()
    }

    /// Bytes of all segments, as DescribeLogDirs reports them.
    pub fn size_bytes(&self) -> u64 {
        self.log.size_bytes()
    }

    /// For DescribeProducers and metrics.
    pub fn producers(&self) -> &Producers {
        &self.producers
    }

    /// No append is on its way to the disk.
    pub fn is_idle(&self) -> bool {
        self.log.is_idle()
    }

    /// For reading the whole log back (internal topics after a restart).
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Takes over changed topic configs; in force from the next append on.
    pub fn set_config(&mut self, config: PartitionConfig) {
        self.log.set_config(config.log.clone());
        self.config = config;
    }

    /// A new election made this replica leader again.
    ///
    /// # Panics
    /// If the epoch goes down: elections are numbered upwards.
    pub fn set_leader_epoch(&mut self, leader_epoch: i32) {
        assert!(leader_epoch >= self.identity.leader_epoch);
        self.identity.leader_epoch = leader_epoch;
        self.log.begin_epoch(leader_epoch);
    }

    /// The invariants that cost nothing to check, in release too.
    pub(crate) fn assert_invariants(&self) {
        let (start, end) = (self.log.start_offset(), self.log.end_offset());
        let high_watermark = self.high_watermark();
        let stable = self.last_stable_offset();
        assert!(
            start <= stable && stable <= high_watermark && high_watermark <= end,
            "{}-{}: log start {start} <= last stable {stable} <= high watermark {high_watermark} \
             <= log end {end} does not hold",
            self.topic(),
            self.index(),
        );
        assert!(
            self.snapshots.newest().is_none_or(|offset| offset <= end),
            "a snapshot past the log's end {end}"
        );
    }
}
