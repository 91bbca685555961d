//! Deletion from the log's front: by age, by size, by DeleteRecords; and of the whole log.
//!
//! Kafka's rules (`UnifiedLog.deleteOldSegments`): only whole segments go, oldest first, and only
//! below an offset that the caller gives (the high watermark). The active segment goes only after
//! it was rolled.
//!
//! A deletion is first written to the checkpoint, as the log's new start; then the files are
//! renamed to `.deleted`, and removed when `file.delete.delay.ms` is over. A crash in between
//! leaves files that recovery removes: they lie below the log's start.

use crate::checkpoint::Point;
use crate::disk::FileName;
use crate::file_names::{DELETED, parent, segment_file, with_suffix};
use crate::log::Log;
use crate::op::{DiskOp, DiskStep};
use crate::segment::Segment;
use oncelog_wire::Uuid;
use oncelog_wire::clock::Now;
use std::fmt::Write as _;

/// Bytes that a file name may have.
const FILE_NAME_BYTES_MAX: usize = 255;

impl Log {
    /// Deletes old segments as `cleanup.policy`, `retention.ms` and `retention.bytes` say, and
    /// what DeleteRecords left behind. Nothing at or past `limit_offset` goes.
    pub fn apply_retention(&mut self, now: Now, limit_offset: i64) -> Vec<DiskOp> {
        let mut count = self.breached_count();
        if self.config.cleanup_delete {
            count = count.max(self.count_by_size(count));
            count = count.max(self.count_by_age(now, count));
        }
        count = count.min(self.count_below(limit_offset));
        if count == 0 {
            return Vec::new();
        }
        let mut ops = Vec::new();
        if count == self.segments.len() {
            ops.push(DiskOp::Steps(self.roll(now)));
        }
        ops.push(DiskOp::Steps(self.delete_first(count, now)));
        ops
    }

    /// Moves the log's start up to `offset` (DeleteRecords). The new start is durable once the
    /// returned work is done.
    ///
    /// # Panics
    /// If `offset` lies outside the log.
    pub fn delete_records_before(&mut self, offset: i64, now: Now) -> Vec<DiskOp> {
        assert!(self.start_offset <= offset && offset <= self.end_offset());
        if offset == self.start_offset {
            return Vec::new();
        }
        self.start_offset = offset;
        self.epochs_changed |= self.epochs.truncate_from_start(offset);
        let count = self.breached_count().min(self.count_below(offset));
        let steps = match count {
            0 => self.checkpoint_steps(None),
            count => self.delete_first(count, now),
        };
        vec![DiskOp::Steps(steps)]
    }

    /// Deletes the whole log: steps that rename its directory, and the directory's new name, to
    /// be removed (`DiskStep::RemoveDir`) when `file.delete.delay.ms` is over. Recovery should
    /// remove every directory whose name ends with `-delete`.
    ///
    /// `unique` tells deletions of the same name apart; the topic's id does.
    ///
    /// # Panics
    /// If an append is in flight: it would make the directory anew.
    pub fn delete(self, unique: Uuid) -> (Vec<DiskStep>, FileName) {
        assert!(self.is_idle(), "{}: appends are in flight", self.dir);
        self.segments
            .iter()
            .for_each(|segment| segment.tenure.end());
        let mut suffix = String::from(".");
        for byte in unique.0 {
            write!(suffix, "{byte:02x}").expect("writes to a string");
        }
        suffix.push_str("-delete");
        let above = parent(&self.dir);
        let name = self.dir.strip_prefix(above).unwrap_or(&self.dir);
        let name = name.trim_start_matches('/');
        let mut kept = name.len().min(FILE_NAME_BYTES_MAX - suffix.len());
        while !name.is_char_boundary(kept) {
            kept -= 1;
        }
        let name = format!("{}{suffix}", &name[..kept]);
        let renamed: FileName = match above {
            "" => name.into(),
            above => format!("{above}/{name}").into(),
        };
        let steps = vec![
            DiskStep::Rename {
                from: self.dir.clone(),
                to: renamed.clone(),
            },
            DiskStep::SyncDir { dir: above.into() },
        ];
        (steps, renamed)
    }

    /// Segments wholly below the log's start offset.
    fn breached_count(&self) -> usize {
        let ends = self.segments.iter().skip(1).map(|s| s.base_offset);
        ends.take_while(|end| *end <= self.start_offset).count()
    }

    /// How many segments from the front may go for size; `gone` go anyway.
    fn count_by_size(&self, gone: usize) -> usize {
        let Ok(retained) = u64::try_from(self.config.retention_bytes) else {
            return 0;
        };
        let mut size: u64 = self.segments.iter().skip(gone).map(|s| s.size).sum();
        let enough = |segment: &&Segment| {
            let left = size.checked_sub(segment.size);
            size = left.unwrap_or(0);
            left.is_some_and(|left| left >= retained)
        };
        gone + self.segments.iter().skip(gone).take_while(enough).count()
    }

    fn count_by_age(&self, now: Now, gone: usize) -> usize {
        if self.config.retention_ms < 0 {
            return 0;
        }
        let retention_ms = self.config.retention_ms;
        let old =
            |segment: &&Segment| now.wall_ms.saturating_sub(segment.age_timestamp()) > retention_ms;
        gone + self.segments.iter().skip(gone).take_while(old).count()
    }

    /// Segments that lie wholly below `offset`; the active one only if it holds anything.
    fn count_below(&self, offset: i64) -> usize {
        let below = |segment: &&Segment| segment.next_offset <= offset && segment.size > 0;
        self.segments.iter().take_while(below).count()
    }

    /// Takes the first `count` segments out of the log. There must be one more.
    fn delete_first(&mut self, count: usize, now: Now) -> Vec<DiskStep> {
        let segments: Vec<Segment> = self.segments.drain(..count).collect();
        let first = self.segments.front().expect("the active segment stays");
        let start = Point {
            offset: first.base_offset,
            segment: first.base_offset,
            position: 0,
        };
        self.completions.synced_to(start);
        self.start_offset = self.start_offset.max(start.offset);
        self.epochs_changed |= self.epochs.truncate_from_start(self.start_offset);
        self.cleaner.log_starts_at(self.start_offset);
        let mut steps = self.checkpoint_steps(None);
        steps.extend(self.retire(&segments, now));
        steps
    }

    /// Renames the files of segments that are out of the log, for removal later. The checkpoint
    /// says already that they are out, so nothing depends on the renames being durable.
    pub(crate) fn retire(&mut self, segments: &[Segment], now: Now) -> Vec<DiskStep> {
        let dir = self.dir.clone();
        let (mut steps, mut files) = (Vec::new(), Vec::new());
        for segment in segments {
            self.sealed_bytes -= segment.size;
            segment.tenure.end();
            let log_file = segment.log_file(&dir);
            self.flush.sealed_unsynced.retain(|file| *file != log_file);
            for kind in segment.kinds() {
                let from = segment_file(&dir, segment.base_offset, kind);
                let to = with_suffix(&from, DELETED);
                files.push(to.clone());
                steps.push(DiskStep::Rename { from, to });
            }
        }
        let at = now.instant.plus_ms(self.config.file_delete_delay_ms);
        self.deleted.push_back((at, files));
        steps
    }
}
