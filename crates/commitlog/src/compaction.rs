//! Compaction: of each key, only the last record stays. Kafka's log cleaner, for one log.
//!
//! [`Log::compaction_plan`] decides under the lock whether and what; [`execute`] reads and writes
//! outside of it, only files that nobody else has seen; [`Log::apply_compaction`] puts the result
//! in the place of the old segments. One plan rewrites one group of segments (small neighbours
//! become one of up to `segment.bytes`), so that not the whole log needs to fit on the disk twice;
//! the next plan goes on with the same keys until all groups are done.
//!
//! # What stays
//!
//! - Offsets, timestamps, epochs, sequences and codec of what stays are unchanged.
//! - The newest record of each key in the *dirty* section (what no pass has covered yet), and older
//!   records of keys that do not occur there. Records without a key go, as in Kafka.
//! - A tombstone stays until `delete.retention.ms` after the pass that first met it: that pass
//!   writes the horizon into the batch (attribute bit 6, base timestamp), a later one removes it.
//! - Of transactions that were committed, what would stay without one; of aborted ones nothing. Which
//!   those are the plan knows from the lists of aborted transactions, and the limit that the caller
//!   gives lies below everything undecided.
//! - A marker, until a pass meets no batch of its transaction any more, and `delete.retention.ms`
//!   longer, by the same horizon as tombstones: a reader who saw some of the data learns its end. An
//!   aborted transaction is on the list for as long as a pass meets batches of it.
//! - A batch that holds a producer's last sequence, without records if need be; the marker that was a
//!   producer's last batch, whole (Kafka empties it, and forgets the epoch in it when it replays).
//! - The active segment, what is not synced or not below the caller's limit, and what is younger
//!   than `min.compaction.lag.ms`.
//!
//! # The swap, and why a crash in it loses nothing
//!
//! 1. `execute` writes `<base>.{log,index,timeindex}.cleaned` and syncs them. A crash: recovery
//!    removes `.cleaned` files.
//! 2. The directory is synced; the files are renamed to `.swap`, the log last; the directory is
//!    synced. A crash: the checkpoint says nothing of a swap, recovery removes `.swap` files. (Where
//!    there is no checkpoint yet, one is written first: a log without one has no gaps. Kafka, which
//!    has no such checkpoint, would complete the swap; the files are whole.)
//! 3. The checkpoint is replaced: it names the segments that go and the one that comes, and counts
//!    the latter among the log's. This commits the swap. From here on recovery completes it, by
//!    doing what of 4 to 6 is not done.
//! 4. The segments that go, but for the one whose name the new one takes, are renamed to
//!    `.deleted`.
//! 5. `.swap` files are renamed to their final names, over the old ones, the log last.
//! 6. The directory is synced, and the checkpoint is replaced by one without the swap, so that no
//!    later `.swap` file of the same name is taken for this one's.
//!
//! Between 3 and 6 it does not matter which of the renames a crash takes back: every record that
//! stays is in the new segment, under one of its two names, and the checkpoint names the old ones.

mod execute;
mod filter;
mod key_map;
mod transactions;

pub(crate) use execute::execute;

use crate::aborted::AbortedTxn;
use crate::checkpoint::Swap;
use crate::disk::FileName;
use crate::file_names::{CLEANED, SEGMENT_KINDS, SWAP, segment_file, with_suffix};
use crate::index::TimeEntry;
use crate::limits;
use crate::log::Log;
use crate::op::{DiskOp, DiskStep};
use crate::segment::Segment;
use key_map::KeyMap;
use oncelog_wire::clock::{Instant, Now};
use std::collections::BTreeSet;
use std::sync::Arc;

/// What a log remembers of its compaction.
#[derive(Debug)]
pub(crate) struct Cleaner {
    /// Everything below was compacted.
    pub first_dirty_offset: i64,
    /// A plan was handed out, or its result is not in place yet.
    running: bool,
    /// The rest of a pass whose earlier groups are done.
    rest: Option<CompactionPlan>,
    /// Not again before: the last one failed.
    retry_at: Instant,
}

/// One step of a compaction: find the last offset of each key (once), then rewrite one group of
/// segments.
#[derive(Clone, Debug)]
pub struct CompactionPlan {
    dir: FileName,
    /// Sealed segments, oldest first, from the first that was not yet rewritten.
    segments: Vec<Planned>,
    first_dirty_offset: i64,
    /// Last offsets of batches that are kept, empty if need be.
    keep_batches: Arc<BTreeSet<i64>>,
    /// `None` until the first step has read the dirty section.
    keys: Option<Arc<Keys>>,
    /// Aborted transactions that begin below the limit, by their markers.
    aborted: Arc<Vec<AbortedTxn>>,
    /// Producers whose transaction the groups before this one have begun and not ended.
    in_transaction: BTreeSet<i64>,
    now_ms: i64,
    delete_retention_ms: i64,
    segment_bytes: u64,
    index_interval_bytes: u64,
    keys_max: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Planned {
    base_offset: i64,
    size: u64,
    next_offset: i64,
}

/// What the dirty section says about keys.
#[derive(Debug)]
struct Keys {
    last_offsets: KeyMap,
    /// The section ends here: records from here on stay as they are.
    end_offset: i64,
}

/// The result of one step; for [`Log::apply_compaction`].
#[derive(Debug)]
pub struct CompactionOutcome {
    plan: CompactionPlan,
    keys: Arc<Keys>,
    /// How many of the plan's segments the group took.
    group_len: usize,
    /// As [`CompactionPlan::in_transaction`], after this group.
    in_transaction: BTreeSet<i64>,
    result: GroupResult,
}

#[derive(Debug)]
enum GroupResult {
    /// Nothing to remove: the segment stays as it is.
    Unchanged,
    /// Nothing was left.
    Emptied,
    /// A new segment stands under `.cleaned` names.
    Rewritten(NewSegment),
}

#[derive(Clone, Debug)]
struct NewSegment {
    base_offset: i64,
    size: u64,
    next_offset: i64,
    first_timestamp: i64,
    max_timestamp: TimeEntry,
    /// Its `.txnindex` is written if there are any.
    aborted: Vec<AbortedTxn>,
}

/// Bytes of a log that compaction could work on.
struct Cleanable {
    /// Number of sealed segments, from the first one, that may be compacted.
    count: usize,
    dirty_bytes: u64,
    clean_bytes: u64,
    /// When the oldest dirty record was written, by its timestamp.
    oldest_dirty: Option<i64>,
}

impl CompactionPlan {
    /// Tells at most so many keys apart, instead of [`limits::COMPACTION_KEYS_MAX`].
    pub fn limit_keys(&mut self, keys_max: usize) {
        assert!(keys_max > 0, "a pass without keys makes no progress");
        self.keys_max = keys_max;
    }
}

impl Cleaner {
    pub fn new(first_dirty_offset: i64) -> Cleaner {
        Cleaner {
            first_dirty_offset,
            running: false,
            rest: None,
            retry_at: Instant(0),
        }
    }

    pub fn log_starts_at(&mut self, start_offset: i64) {
        self.first_dirty_offset = self.first_dirty_offset.max(start_offset);
    }
}

impl Log {
    /// How much of the log is worth compacting, 0 to 1 (above 1 for a pass that is half done);
    /// `None` if it should not be compacted now.
    pub fn dirty_ratio(&self, now: Now, limit_offset: i64) -> Option<f64> {
        if !self.config.cleanup_compact
            || self.cleaner.running
            || now.instant < self.cleaner.retry_at
        {
            return None;
        }
        if self.cleaner.rest.is_some() {
            return Some(2.0);
        }
        let cleanable = self.cleanable(now, limit_offset);
        if cleanable.dirty_bytes == 0 {
            return None;
        }
        let dirty = cleanable.dirty_bytes as f64;
        let ratio = dirty / (dirty + cleanable.clean_bytes as f64);
        let age_ms = cleanable
            .oldest_dirty
            .map_or(0, |oldest| now.wall_ms.saturating_sub(oldest));
        let overdue = age_ms > self.config.max_compaction_lag_ms;
        (ratio > self.config.min_cleanable_dirty_ratio || overdue).then_some(ratio)
    }

    /// The next step of a compaction, if one is due: to be executed, and its outcome given to
    /// [`Log::apply_compaction`], or its failure to [`Log::compaction_failed`]. Until then there
    /// is no other plan.
    ///
    /// Only what lies wholly below `limit_offset` is touched: no transaction that begins there may
    /// be undecided, even after a power cut.
    /// `keep_batches`: last offsets of the batches that hold a producer's last sequences or epoch.
    pub fn compaction_plan(
        &mut self,
        now: Now,
        limit_offset: i64,
        keep_batches: BTreeSet<i64>,
    ) -> Option<CompactionPlan> {
        self.dirty_ratio(now, limit_offset)?;
        self.cleaner.running = true;
        if let Some(rest) = self.cleaner.rest.take() {
            return Some(rest);
        }
        let count = self.cleanable(now, limit_offset).count;
        for segment in self.segments.iter_mut().take(count) {
            segment.index = None; // see `Log::roll`
        }
        let aborted = self.segments.iter().flat_map(|segment| &segment.aborted);
        let aborted = aborted.filter(|aborted| aborted.first_offset < limit_offset);
        let planned = |segment: &Segment| Planned {
            base_offset: segment.base_offset,
            size: segment.size,
            next_offset: segment.next_offset,
        };
        Some(CompactionPlan {
            dir: self.dir.clone(),
            segments: self.segments.iter().take(count).map(planned).collect(),
            first_dirty_offset: self.cleaner.first_dirty_offset,
            keep_batches: Arc::new(keep_batches),
            keys: None,
            aborted: Arc::new(aborted.copied().collect()),
            in_transaction: BTreeSet::new(),
            now_ms: now.wall_ms,
            delete_retention_ms: self.config.delete_retention_ms,
            segment_bytes: self.config.segment_bytes.min(limits::SEGMENT_BYTES_MAX),
            index_interval_bytes: self.config.index_interval_bytes,
            keys_max: limits::COMPACTION_KEYS_MAX,
        })
    }

    /// Puts what a step has written in the place of the old segments: when the returned work is
    /// done, the caller says so to [`Log::compaction_installed`]. Until then there is no other
    /// plan: it would read files that are about to be replaced; and a slice at an offset that
    /// moves into another file may be found empty, as if nothing more were there yet.
    ///
    /// If the log's front was deleted meanwhile, the step's work is thrown away.
    pub fn apply_compaction(&mut self, outcome: CompactionOutcome, now: Now) -> Vec<DiskOp> {
        assert!(
            self.cleaner.running,
            "{}: no compaction is running",
            self.dir
        );
        let mut plan = outcome.plan;
        let group: Vec<Planned> = plan.segments.drain(..outcome.group_len).collect();
        if group.is_empty() {
            // There is nothing in the dirty section.
            self.compaction_failed(now);
            return Vec::new();
        }
        let Some(at) = self.find_group(&group) else {
            return self.discard_cleaned(&outcome.result);
        };
        let mut steps = match &outcome.result {
            GroupResult::Rewritten(_) if !self.has_checkpoint => self.checkpoint_steps(None),
            _ => Vec::new(),
        };
        let is_last = plan
            .segments
            .first()
            .is_none_or(|s| s.base_offset >= outcome.keys.end_offset);
        if is_last {
            let end = outcome.keys.end_offset;
            self.cleaner.first_dirty_offset = self.cleaner.first_dirty_offset.max(end);
        } else {
            plan.keys = Some(outcome.keys);
            plan.in_transaction = outcome.in_transaction;
            self.cleaner.rest = Some(plan);
        }
        let replacement = match outcome.result {
            GroupResult::Unchanged if is_last => {
                return vec![DiskOp::Steps(self.checkpoint_steps(None))];
            }
            GroupResult::Unchanged => return Vec::new(),
            GroupResult::Emptied => None,
            GroupResult::Rewritten(new) => Some(new),
        };
        steps.extend(self.swap(at, group.len(), replacement, now));
        vec![DiskOp::Steps(steps)]
    }

    /// Everything below was compacted.
    pub fn first_dirty_offset(&self) -> i64 {
        self.cleaner.first_dirty_offset
    }

    /// The work that [`Log::apply_compaction`] returned is done, all of it (also if it was none).
    pub fn compaction_installed(&mut self) {
        self.cleaner.running = false;
    }

    /// A step could not be carried out: nothing changed. The next plan comes after a while.
    pub fn compaction_failed(&mut self, now: Now) {
        self.cleaner.running = false;
        self.cleaner.rest = None;
        self.cleaner.retry_at = now.instant.plus_ms(limits::COMPACTION_RETRY_MS);
    }

    fn cleanable(&self, now: Now, limit_offset: i64) -> Cleanable {
        let limit = limit_offset.min(self.completions.synced().offset);
        let newest = now
            .wall_ms
            .saturating_sub(self.config.min_compaction_lag_ms.max(0));
        let sealed = self.segments.len() - 1;
        let mut cleanable = Cleanable {
            count: 0,
            dirty_bytes: 0,
            clean_bytes: 0,
            oldest_dirty: None,
        };
        for segment in self.segments.iter().take(sealed) {
            let dirty = segment.next_offset > self.cleaner.first_dirty_offset;
            let young = self.config.min_compaction_lag_ms > 0 && segment.age_timestamp() > newest;
            if segment.next_offset > limit || (dirty && young) {
                break;
            }
            cleanable.count += 1;
            if dirty {
                cleanable.dirty_bytes += segment.size;
                let timestamp = match segment.first_timestamp {
                    timestamp if timestamp >= 0 => timestamp,
                    _ => segment.seen_ms,
                };
                cleanable.oldest_dirty.get_or_insert(timestamp);
            } else {
                cleanable.clean_bytes += segment.size;
            }
        }
        cleanable
    }

    /// Where a planned group stands among the sealed segments, if all of it still does.
    fn find_group(&self, group: &[Planned]) -> Option<usize> {
        let first = group.first()?.base_offset;
        let at = self.segments.iter().position(|s| s.base_offset == first)?;
        let sealed = self.segments.len() - 1;
        let same = group.iter().enumerate().all(|(i, planned)| {
            let segment = self.segments.get(at + i).filter(|_| at + i < sealed);
            segment.is_some_and(|s| s.base_offset == planned.base_offset && s.size == planned.size)
        });
        same.then_some(at)
    }

    fn discard_cleaned(&self, result: &GroupResult) -> Vec<DiskOp> {
        let GroupResult::Rewritten(new) = result else {
            return Vec::new();
        };
        let files = cleaned_files(&self.dir, new.base_offset);
        vec![DiskOp::Steps(
            files.map(|file| DiskStep::Remove { file }).into(),
        )]
    }

    /// Steps 2 to 6 of the protocol above, and the same in memory.
    fn swap(
        &mut self,
        at: usize,
        count: usize,
        new: Option<NewSegment>,
        now: Now,
    ) -> Vec<DiskStep> {
        let dir = self.dir.clone();
        let mut old: Vec<Segment> = self.segments.drain(at..at + count).collect();
        old.iter().for_each(|segment| segment.tenure.end());
        let swap = Swap {
            replaced: old.iter().map(|segment| segment.base_offset).collect(),
            replacement: new.as_ref().map(|new| new.base_offset),
        };
        let mut steps = Vec::new();
        let mut last_renames = Vec::new();
        if let Some(new) = new {
            // The new segment takes the place of its first predecessor, whose files it replaces.
            let first = old.remove(0);
            self.sealed_bytes = self.sealed_bytes + new.size - first.size;
            let segment = new.into_segment(now);
            steps.push(DiskStep::SyncDir { dir: dir.clone() });
            steps.extend(renames(&dir, &segment, CLEANED, SWAP));
            last_renames = renames(&dir, &segment, SWAP, "");
            if segment.aborted.is_empty() && !first.aborted.is_empty() {
                let file = first.txn_index_file(&dir);
                last_renames.push(DiskStep::Remove { file });
            }
            self.segments.insert(at, segment);
        }
        // This syncs the directory before it replaces the checkpoint.
        steps.extend(self.checkpoint_steps(Some(swap)));
        if !old.is_empty() {
            steps.extend(self.retire(&old, now));
        }
        steps.extend(last_renames);
        steps.extend(self.checkpoint_steps(None));
        steps
    }
}

impl NewSegment {
    fn into_segment(self, now: Now) -> Segment {
        let mut segment = Segment::new(self.base_offset, now.wall_ms);
        segment.size = self.size;
        segment.next_offset = self.next_offset;
        segment.first_timestamp = self.first_timestamp;
        segment.max_timestamp = self.max_timestamp;
        segment.index = None;
        segment.aborted_saved = self.aborted.len();
        segment.aborted = self.aborted;
        segment
    }
}

/// Steps that give a segment's files another suffix.
fn renames(dir: &str, segment: &Segment, from: &str, to: &str) -> Vec<DiskStep> {
    let rename = |kind| {
        let file = segment_file(dir, segment.base_offset, kind);
        DiskStep::Rename {
            from: with_suffix(&file, from),
            to: with_suffix(&file, to),
        }
    };
    segment.kinds().map(rename).collect()
}

fn cleaned_files(dir: &str, base_offset: i64) -> [FileName; 4] {
    SEGMENT_KINDS.map(|kind| with_suffix(&segment_file(dir, base_offset, kind), CLEANED))
}
