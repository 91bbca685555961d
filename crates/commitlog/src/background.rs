//! What a log does without being asked: flushes, checkpoints, removal of deleted files; and
//! shutdown.
//!
//! A caller asks [`Log::next_deadline`] after it changed something, and [`Log::work_due`] when
//! that has come. Nobody needs to wait for this work: its order alone makes it right. Steps run in
//! the order in which they were emitted, so a checkpoint that comes after a sync tells the truth
//! by the time it is written, and the log may count as synced what it has asked to be synced
//! ([`crate::completions`]).
//!
//! Three reasons to flush, besides durable appends: `flush.ms`; a sealed segment that was not
//! written durably (Kafka flushes at the roll too); and [`limits::UNSYNCED_BYTES_MAX`], which
//! bounds recovery.

use crate::checkpoint::{Checkpoint, Point, Swap};
use crate::file_names::{CHECKPOINT, LEADER_EPOCH_CHECKPOINT, in_dir, parent};
use crate::limits;
use crate::log::{Log, replace_file};
use crate::op::{DiskOp, DiskStep};
use oncelog_wire::clock::{Instant, Now};

impl Log {
    /// When to call [`Log::work_due`]: [`Instant::NEVER`] if nothing is due, `Instant(0)` for at
    /// once.
    pub fn next_deadline(&self) -> Instant {
        if self.sealed_flush_due() || self.behind_flush_due() || self.checkpoint_due() {
            return Instant(0);
        }
        let removal = self.deleted.front().map_or(Instant::NEVER, |(at, _)| *at);
        removal.min(self.flush_deadline())
    }

    /// Flushes, checkpoints and removals that are due.
    pub fn work_due(&mut self, now: Now) -> Vec<DiskOp> {
        let mut steps = Vec::new();
        let timed = self.flush_deadline() <= now.instant;
        if timed || self.sealed_flush_due() || self.behind_flush_due() {
            steps.extend(self.flush_steps(now));
        }
        if self.checkpoint_due() {
            steps.extend(self.checkpoint_steps(None));
        }
        while self
            .deleted
            .front()
            .is_some_and(|(at, _)| *at <= now.instant)
        {
            let (_, files) = self.deleted.pop_front().expect("just seen");
            steps.extend(files.into_iter().map(|file| DiskStep::Remove { file }));
        }
        match steps.is_empty() {
            true => Vec::new(),
            false => vec![DiskOp::Steps(steps)],
        }
    }

    /// A checkpoint is about to be written: a good moment for whatever else recovery should not
    /// have to rebuild.
    pub fn checkpoint_due(&self) -> bool {
        let (point, last) = (
            self.normalized(self.completions.synced()),
            self.checkpointed,
        );
        point.segment != last.segment || point.position - last.position >= limits::CHECKPOINT_BYTES
    }

    /// Everything synced, indexes and checkpoint written: the next start has nothing to recover.
    ///
    /// # Panics
    /// If an append is still in flight.
    pub fn shut_down(&mut self) -> Vec<DiskOp> {
        assert!(self.is_idle(), "{}: appends are in flight", self.dir);
        let mut steps = Vec::new();
        for (_, files) in self.deleted.drain(..) {
            steps.extend(files.into_iter().map(|file| DiskStep::Remove { file }));
        }
        let changed = self.epochs_changed || self.checkpointed.offset != self.end_offset();
        if changed || self.completions.synced().offset != self.end_offset() {
            let files = std::mem::take(&mut self.flush.sealed_unsynced);
            steps.extend(files.into_iter().map(|file| DiskStep::Sync { file }));
            if self.active().size > 0 {
                let file = self.active_file.clone();
                steps.push(DiskStep::Sync { file });
            }
            steps.extend(self.entry_steps());
            self.completions.synced_to(self.active().end());
            self.flush.active_unsynced = false;
            self.flush.unsynced_since = None;
            let index = self.active_mut().index.as_mut();
            // The next start drops the entry that this adds and goes on from the one before it.
            index.expect("the active segment has its index").seal();
            steps.extend(self.checkpoint_steps(None));
        }
        match steps.is_empty() {
            true => Vec::new(),
            false => vec![DiskOp::Steps(steps)],
        }
    }

    /// Sealed segments that were not written durably are written by now.
    fn sealed_flush_due(&self) -> bool {
        !self.flush.sealed_unsynced.is_empty() && self.sealed_are_written()
    }

    /// Too much is written and not synced.
    fn behind_flush_due(&self) -> bool {
        // Both in the same terms: right after a roll, the end that was written is still named by
        // the sealed segment, whose bytes a flush has dealt with.
        let written = self.normalized(self.completions.written());
        let synced = self.normalized(self.completions.synced());
        let base = match synced.segment == written.segment {
            true => synced.position,
            false => 0,
        };
        self.flush.active_unsynced
            && self.sealed_are_written()
            && written.position.saturating_sub(base) >= limits::UNSYNCED_BYTES_MAX
    }

    /// When `flush.ms` is over for the oldest unsynced append; never while a sealed segment has
    /// appends in flight, whose completion asks again.
    fn flush_deadline(&self) -> Instant {
        match self.flush.unsynced_since {
            Some(since) if self.sealed_are_written() && self.config.flush_ms != i64::MAX => {
                since.plus_ms(self.config.flush_ms.max(1)) // 0 would never be over
            }
            _ => Instant::NEVER,
        }
    }

    fn sealed_are_written(&self) -> bool {
        self.completions.written().offset >= self.active().base_offset
    }

    /// Syncs what is written, in sealed segments and in the active one.
    fn flush_steps(&mut self, now: Now) -> Vec<DiskStep> {
        let files = std::mem::take(&mut self.flush.sealed_unsynced);
        self.flush.entry_unsynced |= !files.is_empty(); // theirs may never have been synced
        let mut steps: Vec<DiskStep> = files
            .into_iter()
            .map(|file| DiskStep::Sync { file })
            .collect();
        let written = self.normalized(self.completions.written());
        self.flush.entry_unsynced |= self.entry_is_in_flight();
        if written.position > 0 {
            let file = self.active_file.clone();
            steps.push(DiskStep::Sync { file });
        }
        if !steps.is_empty() {
            steps.extend(self.entry_steps());
            // The active file may not be there yet, and then its name is not durable either.
            self.flush.entry_unsynced = written.position == 0;
        }
        let everything = written.offset == self.end_offset();
        self.flush.active_unsynced &= !everything;
        self.flush.unsynced_since = (!everything).then_some(now.instant);
        self.completions.synced_to(written);
        steps
    }

    /// Makes the active segment's name durable, if it may not be.
    fn entry_steps(&mut self) -> Vec<DiskStep> {
        if !std::mem::take(&mut self.flush.entry_unsynced) {
            return Vec::new();
        }
        let above = parent(&self.dir).into();
        vec![
            DiskStep::SyncDir {
                dir: self.dir.clone(),
            },
            DiskStep::SyncDir { dir: above },
        ]
    }

    /// Steps that write a checkpoint of the log as it is now, and before it what it vouches for.
    pub(crate) fn checkpoint_steps(&mut self, swap: Option<Swap>) -> Vec<DiskStep> {
        let dir = self.dir.clone();
        let mut steps = Vec::new();
        if std::mem::take(&mut self.epochs_changed) {
            let file = in_dir(&dir, LEADER_EPOCH_CHECKPOINT);
            steps.extend(replace_file(file, self.epochs.encode()));
        }
        let point = self.normalized(self.completions.synced());
        let active = self.active();
        if point.segment == active.base_offset && point.position > 0 {
            let index = active.index.as_ref();
            let index = index.expect("the active segment has its index");
            steps.extend(replace_file(active.index_file(&dir), index.offset_bytes()));
            let times = index.time_bytes();
            steps.extend(replace_file(active.time_index_file(&dir), times));
        }
        steps.extend(self.txn_index_steps());
        // What the checkpoint vouches for keeps its names, whatever happens to the renames below.
        steps.push(DiskStep::SyncDir { dir: dir.clone() });
        let before = self
            .segments
            .iter()
            .take_while(|s| s.base_offset < point.segment);
        let checkpoint = Checkpoint {
            log_start_offset: self.start_offset,
            recovery_point: point,
            first_dirty_offset: self.cleaner.first_dirty_offset,
            segments: before.map(|s| (s.base_offset, s.size)).collect(),
            aborted: self.aborted_summaries(point.offset),
            swap,
        };
        let file = in_dir(&dir, CHECKPOINT);
        steps.extend(replace_file(file, checkpoint.encode().into()));
        steps.push(DiskStep::SyncDir { dir });
        self.checkpointed = point;
        self.has_checkpoint = true;
        steps
    }

    /// The end of a sealed segment is the start of the next.
    pub(crate) fn normalized(&self, point: Point) -> Point {
        let next = self
            .segments
            .partition_point(|s| s.base_offset <= point.segment);
        match self.segments.get(next) {
            Some(next) if next.base_offset <= point.offset => Point {
                offset: point.offset,
                segment: next.base_offset,
                position: 0,
            },
            _ => point,
        }
    }
}
