//! What a partition does between requests: expire producers, flush, delete and compact old
//! segments, checkpoint its producers, shut down; and what the completion of disk work means.
//!
//! Deliberately without a timer of its own: the broker calls [`Partition::housekeeping`] at
//! [`Partition::next_deadline`] or at any other time, and a call that finds nothing due is cheap.

use crate::partition::{Completes, Partition, Work};
use crate::snapshot;
use oncelog_commitlog::{CompactionPlan, DiskOp, DiskOutcome, DiskStep, FileName};
use oncelog_wire::clock::{Instant, Now};

/// How often idle producers are looked for, at most; Kafka's
/// `producer.id.expiration.check.interval.ms`.
const EXPIRY_CHECK_MS: i64 = 600_000;

/// Idle times of producers live in snapshots: without one now and then, a broker that is killed
/// every few minutes would never expire anybody.
const SNAPSHOT_MS: i64 = 60 * 60 * 1000;

/// What a completion has changed.
#[derive(Debug, Default)]
pub struct Done {
    /// The high watermark moved up to here: answer who waits for it.
    pub high_watermark: Option<i64>,
    /// Follow-up work.
    pub work: Vec<Work>,
}

impl Partition {
    /// Takes in that a piece of [`Work`] is done.
    pub fn work_done(&mut self, now: Now, completes: Completes, outcome: DiskOutcome) -> Done {
        let mut done = Done::default();
        match completes {
            Completes::Nothing => {}
            Completes::Append { last_offset } => {
                let before = self.high_watermark();
                let high_watermark = self.log.append_done(last_offset);
                assert!(
                    high_watermark >= before,
                    "the high watermark never goes down"
                );
                self.endings.high_watermark_is(high_watermark);
                done.high_watermark = (high_watermark > before).then_some(high_watermark);
            }
            Completes::Compaction => {
                let DiskOutcome::Compacted(outcome) = outcome else {
                    panic!("a compaction ended with {outcome:?}");
                };
                let ops = self.log.apply_compaction(*outcome, now);
                let mut work: Vec<Work> = ops.into_iter().map(Work::unwatched).collect();
                match work.last_mut() {
                    Some(last) => last.completes = Completes::CompactionInstalled,
                    None => self.log.compaction_installed(),
                }
                done.work.extend(work);
            }
            Completes::CompactionInstalled => self.log.compaction_installed(),
        }
        self.assert_invariants();
        done
    }

    /// The operation behind [`Completes::Compaction`] failed, which only reads and writes files
    /// that nobody uses: the log is as it was, and a later housekeeping tries again.
    pub fn compaction_failed(&mut self, now: Now) {
        self.log.compaction_failed(now);
    }

    /// Whatever is due now by the partition's own deadlines: producers, checkpoints, flushes,
    /// files whose removal was put off.
    pub fn housekeeping(&mut self, now: Now) -> Vec<Work> {
        let mut ops = Vec::new();
        self.expire_producers(now.instant);
        // With the log's own checkpoint, so that a crash replays no more than it re-scans.
        if self.log.checkpoint_due() || self.snapshot_deadline() <= now.instant {
            ops.push(self.take_snapshot(now.instant, self.high_watermark(), false));
        }
        ops.extend(self.log.work_due(now));
        self.assert_invariants();
        ops.into_iter().map(Work::unwatched).collect()
    }

    /// Retention by time and size. Apart from [`Partition::housekeeping`] because how often it is
    /// looked at is a promise to users (`log.retention.check.interval.ms`): records with old
    /// timestamps live at least that long.
    pub fn apply_retention(&mut self, now: Now) -> Vec<Work> {
        let deleted = self.log.apply_retention(now, self.high_watermark());
        let ops = self.start_moved(now.instant, deleted);
        self.assert_invariants();
        ops.into_iter().map(Work::unwatched).collect()
    }

    /// Begins a compaction if the log is dirty enough and none runs.
    pub fn compact(&mut self, now: Now) -> Option<Work> {
        let plan = self.compaction_plan(now)?;
        Some(Work {
            op: DiskOp::Compact(Box::new(plan)),
            completes: Completes::Compaction,
        })
    }

    /// When to call [`Partition::housekeeping`] next; [`Instant::NEVER`] if nothing will be due.
    pub fn next_deadline(&self) -> Instant {
        let mut deadline = self.log.next_deadline().min(self.snapshot_deadline());
        if !self.producers.is_empty() || !self.verifications.is_empty() {
            deadline = deadline.min(self.next_expiry);
        }
        deadline
    }

    /// The last work of a clean shutdown: indexes, everything synced, producers at the log's end.
    ///
    /// # Panics
    /// If an append is still on its way to the disk: shut down after the last completion.
    pub fn shut_down(&mut self, now: Now) -> Vec<Work> {
        assert!(self.is_idle(), "appends are in flight");
        let mut ops = self.log.shut_down();
        let end = self.log.end_offset();
        // Without producers a snapshot only saves the next start a replay of headers.
        let nothing_to_replay = end == self.log.start_offset();
        let known = nothing_to_replay || self.snapshots.newest() == Some(end);
        if !self.producers.is_empty() || !known {
            ops.push(self.take_snapshot(now.instant, end, false));
        }
        ops.into_iter().map(Work::unwatched).collect()
    }

    /// Deletes the partition: steps that rename its directory, and the new name, which the caller
    /// removes after `file.delete.delay.ms`.
    ///
    /// # Panics
    /// If an append is still on its way to the disk.
    pub fn delete(self) -> (Vec<DiskStep>, FileName) {
        self.log.delete(self.identity.topic_id)
    }

    /// Compaction keeps every batch of a producer's window, without records if need be, and its last
    /// batch if that is a marker, so that the log alone can rebuild window and epoch. (Kafka keeps the
    /// last one.) It acts on no transaction's outcome that a power cut could take back.
    fn compaction_plan(&mut self, now: Now) -> Option<CompactionPlan> {
        let synced = self.log.recovery_point();
        let unsynced = self.endings.first_unsynced_offset(synced);
        let limit = self.last_stable_offset().min(unsynced.unwrap_or(i64::MAX));
        self.log.dirty_ratio(now, limit)?;
        let states = self.producers.iter().map(|(_, state)| state);
        let kept = states.flat_map(|state| {
            let window = state.window.entries().iter();
            let window = window.map(|entry| entry.last_offset);
            window.chain([state.last_offset])
        });
        let keep_batches = kept.collect();
        self.log.compaction_plan(now, limit, keep_batches)
    }

    fn expire_producers(&mut self, now: Instant) {
        if now >= self.next_expiry {
            let expiration_ms = self.config.producer_id_expiration_ms;
            self.producers.expire(now, expiration_ms);
            self.verifications.sweep();
            self.next_expiry = next_expiry(now, expiration_ms);
        }
    }

    /// What goes with `deletion`, the work that moved the log's start.
    ///
    /// First a snapshot at or past the new start, if there is none yet that is safe from a crash:
    /// producers are rebuilt from a snapshot and *every* batch above it. With a hole between the
    /// two, batches would be missing in a window and its last sequence might be too low: retries
    /// of what is in the log would be refused, or appended twice.
    pub(crate) fn start_moved(&mut self, now: Instant, deletion: Vec<DiskOp>) -> Vec<DiskOp> {
        if deletion.is_empty() {
            return deletion;
        }
        let mut ops = Vec::new();
        let start = self.log.start_offset();
        if !self.snapshots.cover(start, self.high_watermark()) {
            ops.push(self.take_snapshot(now, self.high_watermark(), false));
        }
        ops.extend(deletion);
        let steps = self.snapshots.prune(start, self.high_watermark());
        if !steps.is_empty() {
            ops.push(DiskOp::Steps(steps));
        }
        ops
    }

    /// Writes the producers as they are below `offset`, and removes snapshots that this makes
    /// useless.
    pub(crate) fn take_snapshot(
        &mut self,
        now: Instant,
        offset: i64,
        begins_segment: bool,
    ) -> DiskOp {
        self.snapshot_taken = now;
        let producers = self.producers.below(offset, &self.endings);
        let content = snapshot::encode(&producers, now);
        // Recovery finds aborted transactions again only if their markers lie past the snapshot.
        let mut steps = self.log.txn_index_steps();
        steps.extend(self.snapshots.write(offset, begins_segment, content));
        let start = self.log.start_offset();
        steps.extend(self.snapshots.prune(start, self.high_watermark()));
        DiskOp::Steps(steps)
    }

    /// Without producers there are no idle times to keep.
    fn snapshot_deadline(&self) -> Instant {
        match self.producers.is_empty() {
            true => Instant::NEVER,
            false => self.snapshot_taken.plus_ms(SNAPSHOT_MS),
        }
    }
}

pub(crate) fn next_expiry(now: Instant, expiration_ms: i64) -> Instant {
    now.plus_ms(expiration_ms.clamp(1, EXPIRY_CHECK_MS))
}
