//! One segment as the log remembers it, and the exact positions at the log's tail.

use crate::aborted::AbortedTxn;
use crate::checkpoint::Point;
use crate::disk::FileName;
use crate::file_names::{INDEX, LOG, SEGMENT_KINDS, TIME_INDEX, TXN_INDEX, segment_file};
use crate::index::{NO_TIMESTAMP, SegmentIndex, TimeEntry};
use crate::limits;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether a segment is still the one that a reader was told of.
///
/// Readers work outside of any lock, and a name is all that they have. A compaction puts another
/// file in the place of a segment's, and after a deletion a new topic of the same name may write
/// a file of the same name. So the log ends the tenure *before* it hands out the steps that rename
/// anything: who opens the file first and finds the tenure unbroken afterwards has the right one.
///
/// (A compacted segment's tenure begins when its swap is decided, a little before its file has the
/// name. Until then the name leads to the old file of the first segment that it stands for: what is
/// found there is right, and what lay in the others may not be found yet.)
///
/// The one thing that is shared between the log and the values it hands out. It is written here
/// and read by hosts only, so nothing that the log decides depends on it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tenure {
    ended: Arc<AtomicBool>,
}

impl Tenure {
    pub fn end(&self) {
        self.ended.store(true, Ordering::SeqCst);
    }

    pub fn lasts(&self) -> bool {
        !self.ended.load(Ordering::SeqCst)
    }
}

/// A segment; the last one of a log is the active one, the only one that grows.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    pub base_offset: i64,
    pub size: u64,
    /// One past the last offset in the segment; the base offset if it is empty.
    pub next_offset: i64,
    /// The first batch's largest timestamp, by which the segment's age is reckoned.
    pub first_timestamp: i64,
    pub max_timestamp: TimeEntry,
    /// Wall clock, when this process made or found the segment: stands in for its age if its
    /// records have no timestamps (Kafka asks the file's modification time).
    pub seen_ms: i64,
    /// The active segment has it; a sealed one keeps it until the next roll, because readers
    /// near the tail are likely to need it. Otherwise lookups read the index files.
    pub index: Option<SegmentIndex>,
    /// The transactions whose abort marker is in this segment, by the marker's offset.
    pub aborted: Vec<AbortedTxn>,
    /// How many of `aborted`, from the first one, are all that `.txnindex` says (0: no file);
    /// [`TXN_INDEX_UNFIT`] if it says anything else.
    pub aborted_saved: usize,
    pub tenure: Tenure,
}

/// The file has to be written anew, or removed.
pub(crate) const TXN_INDEX_UNFIT: usize = usize::MAX;

impl Segment {
    pub fn new(base_offset: i64, seen_ms: i64) -> Segment {
        Segment {
            base_offset,
            size: 0,
            next_offset: base_offset,
            first_timestamp: NO_TIMESTAMP,
            max_timestamp: TimeEntry {
                timestamp: NO_TIMESTAMP,
                last_offset: base_offset,
            },
            seen_ms,
            index: Some(SegmentIndex::new(base_offset)),
            aborted: Vec::new(),
            aborted_saved: 0,
            tenure: Tenure::default(),
        }
    }

    pub fn log_file(&self, dir: &str) -> FileName {
        segment_file(dir, self.base_offset, LOG)
    }

    pub fn index_file(&self, dir: &str) -> FileName {
        segment_file(dir, self.base_offset, INDEX)
    }

    pub fn time_index_file(&self, dir: &str) -> FileName {
        segment_file(dir, self.base_offset, TIME_INDEX)
    }

    pub fn txn_index_file(&self, dir: &str) -> FileName {
        segment_file(dir, self.base_offset, TXN_INDEX)
    }

    /// The kinds of files that a sealed segment has, the log last.
    pub fn kinds(&self) -> impl Iterator<Item = &'static str> {
        let aborted = !self.aborted.is_empty() && self.aborted_saved == self.aborted.len();
        let has = move |kind: &&str| *kind != TXN_INDEX || aborted;
        SEGMENT_KINDS.into_iter().filter(has)
    }

    /// The place after the last batch.
    pub fn end(&self) -> Point {
        Point {
            offset: self.next_offset,
            segment: self.base_offset,
            position: self.size,
        }
    }

    /// The timestamp that retention and compaction lag go by.
    pub fn age_timestamp(&self) -> i64 {
        match self.max_timestamp.timestamp {
            NO_TIMESTAMP => self.seen_ms,
            timestamp => timestamp,
        }
    }
}

/// Where the last batches of the active segment begin. Without a gap from the first one on.
#[derive(Clone, Debug, Default)]
pub(crate) struct RecentBatches {
    batches: VecDeque<(i64, u32)>,
}

impl RecentBatches {
    pub fn push(&mut self, base_offset: i64, position: u64) {
        if self.batches.len() == limits::RECENT_BATCHES_MAX {
            self.batches.pop_front();
        }
        let position = u32::try_from(position).expect("a segment is rolled before 2 GiB");
        self.batches.push_back((base_offset, position));
    }

    pub fn clear(&mut self) {
        self.batches.clear();
    }

    /// Where the batch that holds `offset` begins, if it is one of the recent ones.
    pub fn position_of(&self, offset: i64) -> Option<u64> {
        let after = self.batches.partition_point(|(base, _)| *base <= offset);
        after.checked_sub(1).map(|i| u64::from(self.batches[i].1))
    }

    /// The last recent batch that begins at or below `position`.
    pub fn floor_position(&self, position: u64) -> Option<u64> {
        let after = self
            .batches
            .partition_point(|(_, at)| u64::from(*at) <= position);
        after.checked_sub(1).map(|i| u64::from(self.batches[i].1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recent_batches_are_exact_or_silent() {
        let mut recent = RecentBatches::default();
        assert_eq!(recent.position_of(0), None);
        let count = limits::RECENT_BATCHES_MAX as i64 + 2;
        for i in 0..count {
            recent.push(i * 10, i as u64 * 100);
        }
        assert_eq!(recent.position_of(19), None, "forgotten");
        assert_eq!(recent.position_of(20), Some(200));
        assert_eq!(recent.position_of(29), Some(200));
        assert_eq!(recent.position_of(30), Some(300));
        assert_eq!(recent.floor_position(199), None);
        assert_eq!(recent.floor_position(399), Some(300));
        recent.clear();
        assert_eq!(recent.position_of(25), None);
    }
}
