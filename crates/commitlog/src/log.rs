//! One partition's log: pure state, whose disk work is returned as [`DiskOp`]s.
//!
//! [`Log`] assigns offsets, knows where everything is, and decides what to write, flush, roll and
//! delete. It reads and writes nothing itself: appends and the rest come back as values, and what
//! needs reading (finding a batch in a segment, a timestamp, compaction) is handed out as
//! a value too, to be carried out by [`crate::execute`] outside of whatever lock guards the log.
//!
//! Its methods are in one file per concern: here getters and appending; [`crate::slice`] and
//! [`crate::lookup`] reading; [`crate::background`] flushes, checkpoints and shutdown;
//! [`crate::retention`] deletion; [`crate::compaction`].
//!
//! Deliberately not here: producers, high watermark, who is told what (`partition`), and any
//! look into a batch past its header.

use crate::checkpoint::Point;
use crate::compaction::Cleaner;
use crate::completions::Completions;
use crate::config::LogConfig;
use crate::disk::FileName;
use crate::epochs::LeaderEpochs;
use crate::file_names::{PARTITION_METADATA, TMP, in_dir, with_suffix};
use crate::index::{self, IndexedBatch};
use crate::limits;
use crate::op::{Append, DiskOp, DiskStep};
use crate::segment::{RecentBatches, Segment};
use bytes::Bytes;
use oncelog_wire::Uuid;
use oncelog_wire::clock::{Instant, Now};
use oncelog_wire::records::{BatchHeader, HEADER_LEN, patch};
use std::collections::VecDeque;

/// The log of one partition.
///
/// # Invariants
///
/// - `segments` is never empty; bases rise; a segment's offsets lie below the next one's base.
///   Only the last one, the active one, grows.
/// - `start_offset <= end_offset()`. The first segments may hold records below the start offset:
///   they are no longer part of the log.
/// - Positions of appends never overlap, and an append never lands in a sealed segment.
/// - `completions.synced()` never lies past a byte that a power cut could still take, as seen by
///   a [`DiskStep`] that is emitted now.
#[derive(Debug)]
pub struct Log {
    pub(crate) dir: FileName,
    pub(crate) config: LogConfig,
    pub(crate) segments: VecDeque<Segment>,
    /// The active segment's file, kept so that an append need not make the name anew.
    pub(crate) active_file: FileName,
    pub(crate) recent: RecentBatches,
    pub(crate) start_offset: i64,
    pub(crate) epochs: LeaderEpochs,
    /// The epochs differ from `leader-epoch-checkpoint`.
    pub(crate) epochs_changed: bool,
    pub(crate) completions: Completions,
    pub(crate) flush: FlushState,
    /// The recovery point of the newest checkpoint on disk.
    pub(crate) checkpointed: Point,
    /// There is one, or it was handed out for writing.
    pub(crate) has_checkpoint: bool,
    /// Files under their `.deleted` names, and when to remove them.
    pub(crate) deleted: VecDeque<(Instant, Vec<FileName>)>,
    pub(crate) cleaner: Cleaner,
    pub(crate) sealed_bytes: u64,
}

/// What was handed out for writing and not yet for syncing.
#[derive(Clone, Debug, Default)]
pub(crate) struct FlushState {
    pub unsynced_records: i64,
    /// When the first append since the last sync was handed out.
    pub unsynced_since: Option<Instant>,
    /// The active segment has an append that was not durable, since its last sync.
    pub active_unsynced: bool,
    /// The active segment's directory entry may not be durable, nor does an append in flight make it so.
    pub entry_unsynced: bool,
    /// Before the append that ends here is done, that entry is not durable.
    pub entry_synced_by: i64,
    /// Sealed segments that had such an append.
    pub sealed_unsynced: Vec<FileName>,
}

/// What [`Log::append`] decided.
#[derive(Debug)]
pub struct Appended {
    pub base_offset: i64,
    pub last_offset: i64,
    /// The batch begins a new segment.
    pub rolled: bool,
    /// Give its completion to [`Log::append_done`].
    pub append: DiskOp,
    /// What a roll leaves to do (index files): nobody waits for it, and the append does not
    /// depend on it.
    pub after: Vec<DiskOp>,
}

impl Log {
    /// An empty log in a new directory, named as Kafka names it (`topic-partition`).
    ///
    /// The steps make the directory and its `partition.metadata` durable.
    pub fn create(dir: &str, topic_id: Uuid, config: LogConfig, now: Now) -> (Log, Vec<DiskOp>) {
        let log = Log::new(dir, config, 0, now);
        let file = in_dir(dir, PARTITION_METADATA);
        let content = crate::partition_metadata::encode(topic_id);
        let steps = vec![
            DiskStep::Write {
                file: file.clone(),
                content,
            },
            DiskStep::Sync { file },
            DiskStep::SyncDir { dir: dir.into() },
            DiskStep::SyncDir { dir: "".into() },
        ];
        (log, vec![DiskOp::Steps(steps)])
    }

    /// An empty log that starts at `start_offset`.
    pub(crate) fn new(dir: &str, config: LogConfig, start_offset: i64, now: Now) -> Log {
        let segment = Segment::new(start_offset, now.wall_ms);
        let end = segment.end();
        Log {
            dir: dir.into(),
            config,
            active_file: segment.log_file(dir),
            segments: VecDeque::from([segment]),
            recent: RecentBatches::default(),
            start_offset,
            epochs: LeaderEpochs::default(),
            epochs_changed: false,
            completions: Completions::new(end),
            flush: FlushState {
                entry_unsynced: true,
                ..Default::default()
            },
            checkpointed: end,
            has_checkpoint: false,
            deleted: VecDeque::new(),
            cleaner: Cleaner::new(start_offset),
            sealed_bytes: 0,
        }
    }

    pub fn dir(&self) -> &str {
        &self.dir
    }

    pub fn config(&self) -> &LogConfig {
        &self.config
    }

    /// In force from the next append, deletion or compaction on.
    pub fn set_config(&mut self, config: LogConfig) {
        self.config = config;
    }

    /// The first offset that is part of the log.
    pub fn start_offset(&self) -> i64 {
        self.start_offset
    }

    /// The offset that the next record gets; may be ahead of what is written.
    pub fn end_offset(&self) -> i64 {
        self.active().next_offset
    }

    /// Bytes of all segments, what was handed out for writing included.
    pub fn size_bytes(&self) -> u64 {
        self.sealed_bytes + self.active().size
    }

    pub fn segment_count(&self) -> usize {
        self.segments.len()
    }

    /// Base offset of the segment that takes appends.
    pub fn active_base_offset(&self) -> i64 {
        self.active().base_offset
    }

    /// Everything below was written, without a hole.
    pub fn written_end_offset(&self) -> i64 {
        self.completions.written().offset
    }

    /// Everything below survives a power cut, as seen by steps emitted from now on.
    pub fn recovery_point(&self) -> i64 {
        self.completions.synced().offset
    }

    /// No append is on its way to the disk.
    pub fn is_idle(&self) -> bool {
        self.completions.is_idle()
    }

    /// Epoch of the newest batch.
    pub fn latest_epoch(&self) -> Option<i32> {
        self.epochs.latest()
    }

    /// Epoch of the record at `offset`.
    pub fn epoch_at(&self, offset: i64) -> Option<i32> {
        self.epochs.at(offset)
    }

    /// The largest epoch not above `epoch` and the offset where it ends (exclusive), as
    /// OffsetForLeaderEpoch answers it; (-1, -1) for an epoch newer than the log's newest.
    pub fn end_offset_for_epoch(&self, epoch: i32) -> (i32, i64) {
        self.epochs.end_offset_for(epoch, self.end_offset())
    }

    /// Appends a batch at the log's end: assigns its offsets and epoch, and rolls the segment
    /// first if that is due.
    ///
    /// `header` is the parsed form of `header_bytes`, `body` the batch from byte 61 on. Neither
    /// is checked here: whoever took the batch in did that.
    pub fn append(
        &mut self,
        header: &BatchHeader,
        mut header_bytes: [u8; HEADER_LEN],
        body: Bytes,
        leader_epoch: i32,
        now: Now,
    ) -> Appended {
        let size = (HEADER_LEN + body.len()) as u64;
        assert_eq!(size, header.size_in_bytes() as u64, "one whole batch");
        assert!(size <= limits::SEGMENT_BYTES_MAX, "a batch fits a segment");
        let base_offset = self.end_offset();
        let last_offset = base_offset + i64::from(header.last_offset_delta);
        let mut after = Vec::new();
        let rolled = self.must_roll(size, last_offset, header.max_timestamp, now);
        if rolled {
            after.push(DiskOp::Steps(self.roll(now)));
        }
        patch::offset_and_epoch(&mut header_bytes, base_offset, leader_epoch);
        self.epochs_changed |= self.epochs.assign(leader_epoch, base_offset);
        let durable = self.count_for_flush(i64::from(header.records_count), now);
        let create = self.flush.entry_unsynced;
        if create && durable {
            self.flush.entry_unsynced = false;
            self.flush.entry_synced_by = last_offset + 1;
        }
        let start = self.active().end();
        self.recent.push(base_offset, start.position);
        self.grow_active(header, last_offset, size);
        self.completions.begin(start, self.active().end(), durable);
        let append = DiskOp::Append(Append {
            file: self.active_file.clone(),
            position: start.position,
            header: header_bytes,
            body,
            create,
            durable,
        });
        Appended {
            base_offset,
            last_offset,
            rolled,
            append,
            after,
        }
    }

    /// A leader was elected: notes where its epoch begins, before it writes anything, so that
    /// whoever asks about this epoch is not told that it is unknown.
    pub fn begin_epoch(&mut self, leader_epoch: i32) {
        self.epochs_changed |= self.epochs.begin(leader_epoch, self.end_offset());
    }

    /// The append that ends with `last_offset` was carried out. To be called once for every
    /// append, in any order. Returns the end of what is written without a hole (exclusive).
    ///
    /// # Panics
    /// If no such append is in flight.
    pub fn append_done(&mut self, last_offset: i64) -> i64 {
        let end = last_offset + 1;
        let entry_synced = end == self.flush.entry_synced_by || !self.entry_is_in_flight();
        let others_synced = entry_synced && self.flush.sealed_unsynced.is_empty();
        self.completions.done(end, others_synced);
        if self.completions.synced().offset == self.end_offset() {
            self.flush.active_unsynced = false;
            self.flush.unsynced_since = None;
        }
        self.completions.written().offset
    }

    /// An append that is to make the active segment's directory entry durable is not done, as far as is
    /// known.
    pub(crate) fn entry_is_in_flight(&self) -> bool {
        self.completions.written().offset < self.flush.entry_synced_by
    }

    pub(crate) fn active(&self) -> &Segment {
        self.segments
            .back()
            .expect("there is always an active segment")
    }

    pub(crate) fn active_mut(&mut self) -> &mut Segment {
        self.segments
            .back_mut()
            .expect("there is always an active segment")
    }

    /// Kafka's `LogSegment.shouldRoll`.
    fn must_roll(&self, size: u64, last_offset: i64, max_timestamp: i64, now: Now) -> bool {
        let active = self.active();
        if active.size == 0 {
            return false;
        }
        let index = active
            .index
            .as_ref()
            .expect("the active segment has its index");
        let segment_bytes = self.config.segment_bytes.min(limits::SEGMENT_BYTES_MAX);
        let age_ms = match active.first_timestamp {
            first if first >= 0 && max_timestamp >= 0 => max_timestamp.saturating_sub(first),
            _ => now.wall_ms.saturating_sub(active.seen_ms),
        };
        active.size + size > segment_bytes
            || age_ms > self.config.roll_ms()
            || index.is_full(self.config.segment_index_bytes)
            || last_offset - active.base_offset > i64::from(i32::MAX)
    }

    /// Seals the active segment and begins another; the steps write the sealed one's index files.
    pub(crate) fn roll(&mut self, now: Now) -> Vec<DiskStep> {
        let dir = self.dir.clone();
        let count = self.segments.len();
        if let Some(previous) = count.checked_sub(2).and_then(|i| self.segments.get_mut(i)) {
            previous.index = None;
        }
        // A compaction moves batches: no position of a segment that it may replace is remembered.
        let compacted = self.config.cleanup_compact;
        let active_file = self.active_file.clone();
        let active = self.active_mut();
        assert!(active.size > 0, "an empty segment is not rolled");
        let index = active
            .index
            .as_mut()
            .expect("the active segment has its index");
        index.seal();
        let (offsets, times) = (index.offset_bytes(), index.time_bytes());
        let mut steps = replace_file(active.index_file(&dir), offsets);
        steps.extend(replace_file(active.time_index_file(&dir), times));
        steps.push(DiskStep::SyncDir { dir: dir.clone() });
        steps.extend(self.txn_index_steps());
        let active = self.active_mut();
        if compacted {
            active.index = None;
        }
        self.sealed_bytes += self.active().size;
        if self.flush.active_unsynced {
            self.flush.sealed_unsynced.push(active_file);
        }
        self.flush.active_unsynced = false;
        self.flush.entry_unsynced = true;
        let segment = Segment::new(self.end_offset(), now.wall_ms);
        self.active_file = segment.log_file(&dir);
        self.segments.push_back(segment);
        self.recent.clear();
        steps
    }

    fn grow_active(&mut self, header: &BatchHeader, last_offset: i64, size: u64) {
        let interval = self.config.index_interval_bytes;
        let active = self.active_mut();
        let batch = IndexedBatch {
            position: active.size,
            size,
            last_offset,
            max_timestamp: index::max_timestamp(header),
        };
        if active.size == 0 {
            active.first_timestamp = batch.max_timestamp;
        }
        let index = active
            .index
            .as_mut()
            .expect("the active segment has its index");
        index.push(&batch, interval);
        active.max_timestamp = index.max_timestamp();
        active.size += size;
        active.next_offset = last_offset + 1;
    }

    /// Whether the append that is being made has to be durable.
    fn count_for_flush(&mut self, records: i64, now: Now) -> bool {
        let flush = &mut self.flush;
        flush.unsynced_records += records.max(1);
        if flush.unsynced_records >= self.config.flush_messages.max(1) {
            flush.unsynced_records = 0;
            return true;
        }
        flush.active_unsynced = true;
        flush.unsynced_since.get_or_insert(now.instant);
        false
    }
}

/// Puts `content` in the place of `file`; durable once the directory is synced too.
pub(crate) fn replace_file(file: FileName, content: Bytes) -> Vec<DiskStep> {
    let temporary = with_suffix(&file, TMP);
    vec![
        DiskStep::Write {
            file: temporary.clone(),
            content,
        },
        DiskStep::Sync {
            file: temporary.clone(),
        },
        DiskStep::Rename {
            from: temporary,
            to: file,
        },
    ]
}
