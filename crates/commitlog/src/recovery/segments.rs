//! Segment by segment: what is trusted is looked at briefly, the rest is scanned.

use super::directory::{self, FoundSegment};
use super::{RecoveryError, RecoveryReport, Result};
use crate::checkpoint::{Checkpoint, Point};
use crate::config::LogConfig;
use crate::disk::{Disk, read_exact_at, read_file};
use crate::epochs::LeaderEpochs;
use crate::execute::execute_step;
use crate::index::{
    self, IndexFile, IndexedBatch, NO_TIMESTAMP, SegmentIndex, TimeEntry, TimeIndexFile,
};
use crate::limits;
use crate::log::replace_file;
use crate::op::DiskStep;
use crate::scan::{Flaw, Found, Scanner, indexed_position, locate, read_header};
use crate::segment::Segment;
use bytes::Bytes;
use oncelog_wire::clock::Now;
use oncelog_wire::records::Batch;

/// A sealed segment's index that says nothing of this much at the segment's end is incomplete: it
/// was written while the segment still grew.
const UNINDEXED_BYTES_MAX: u64 = 64 << 10;

pub(super) struct Loader<'a> {
    pub disk: &'a dyn Disk,
    pub dir: &'a str,
    pub config: &'a LogConfig,
    pub now: Now,
    pub report: &'a mut RecoveryReport,
    pub epochs: &'a mut LeaderEpochs,
    /// See [`super::Recovered::first_gap`].
    pub first_gap: Option<i64>,
    /// A batch that was scanned is one, perhaps the end of a transaction.
    pub has_control: bool,
}

/// How offsets must go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Offsets {
    /// Every batch begins where the one before it ended.
    Gapless,
    /// Compaction may have left gaps.
    Rising,
}

impl Loader<'_> {
    /// Trusts what the checkpoint vouches for, scans the rest. The last segment returned is the
    /// active one.
    pub fn load_checkpointed(
        &mut self,
        found: &[FoundSegment],
        checkpoint: &Checkpoint,
    ) -> Result<Vec<Segment>> {
        let point = checkpoint.recovery_point;
        let below = found.partition_point(|s| s.base_offset < point.segment);
        let (sealed, tail) = found.split_at(below);
        let mut segments = self.load_sealed_before(sealed, point.segment)?;
        self.load_tail(tail, point, Offsets::Gapless, &mut segments)?;
        Ok(segments)
    }

    /// No checkpoint that can be read: scans everything, or after a clean shutdown trusts
    /// everything.
    ///
    /// `young`: there never was one. Then nothing was compacted or deleted either, both of which
    /// write one first: the log starts at 0, and a gap is an append that a crash took, in front of
    /// one to the next segment that was quicker.
    pub fn load_all(
        &mut self,
        found: &[FoundSegment],
        trusted: bool,
        young: bool,
    ) -> Result<Vec<Segment>> {
        // Kafka's cleaner leaves empty segments behind; only the last one may be empty here. In a young
        // log the appends to it are lost: what follows it goes, and it stays, for the next recovery to
        // see, should this one be interrupted, that the log is young.
        let last = found.last().map(|segment| segment.base_offset);
        let stays =
            |s: &FoundSegment| s.bytes > 0 || Some(s.base_offset) == last || young && !trusted;
        let (found, empty): (Vec<_>, Vec<_>) = found.iter().copied().partition(stays);
        let empty: Vec<i64> = empty.iter().map(|segment| segment.base_offset).collect();
        directory::remove_segments(self.disk, self.dir, &empty)?;
        let Some((last, before)) = found.split_last() else {
            // Everything was deleted, and the checkpoint that knew the end is lost: where the newest
            // epoch begins is no later, and in a log that was emptied it is the end itself. Its
            // offsets are not given out a second time.
            let end = self.epochs.latest_start().unwrap_or(0);
            return Ok(vec![Segment::new(end, self.now.wall_ms)]);
        };
        if trusted {
            let mut segments = self.load_sealed_before(before, last.base_offset)?;
            segments.push(self.load_trusted(last, last.bytes, None)?);
            return Ok(segments);
        }
        let (first, offsets) = match young {
            true => (0, Offsets::Gapless),
            false => (found[0].base_offset, Offsets::Rising),
        };
        let start = Point {
            offset: first,
            segment: first,
            position: 0,
        };
        let mut segments = Vec::new();
        self.load_tail(&found, start, offsets, &mut segments)?;
        Ok(segments)
    }

    /// Complete segments, of which each ends before the next begins, and the last before `end`: one
    /// that reaches further would hide the others' batches.
    fn load_sealed_before(&mut self, found: &[FoundSegment], end: i64) -> Result<Vec<Segment>> {
        let mut segments = Vec::new();
        let next = found.iter().skip(1).map(|segment| segment.base_offset);
        for (found, limit) in found.iter().zip(next.chain([end])) {
            let segment = self.load_sealed(found)?;
            if segment.next_offset > limit {
                return Err(RecoveryError::Damaged {
                    file: segment.log_file(self.dir).to_string(),
                    position: segment.size,
                    what: format!(
                        "the batches end before offset {}, and the next segment begins at {limit}",
                        segment.next_offset
                    ),
                });
            }
            segments.push(segment);
        }
        Ok(segments)
    }

    /// A segment that is complete and synced: its index files are checked, or written anew.
    fn load_sealed(&mut self, found: &FoundSegment) -> Result<Segment> {
        if let Some(segment) = self.check_sealed(found)? {
            return Ok(segment);
        }
        let mut segment =
            self.scan_headers(found, found.bytes, SegmentIndex::new(found.base_offset), 0)?;
        self.seal(&mut segment)?;
        Ok(segment)
    }

    /// What the index files and a few headers say of a sealed segment; `None` if the index files
    /// are missing, incomplete or do not fit.
    fn check_sealed(&self, found: &FoundSegment) -> Result<Option<Segment>> {
        let mut segment = Segment::new(found.base_offset, self.now.wall_ms);
        segment.size = found.bytes;
        segment.index = None;
        let log_file = segment.log_file(self.dir);
        let io = RecoveryError::io(&log_file);
        let (index_file, times_file) = (
            segment.index_file(self.dir),
            segment.time_index_file(self.dir),
        );
        let offsets = IndexFile::open(self.disk, &index_file, found.base_offset).map_err(&io)?;
        let times = TimeIndexFile::open(self.disk, &times_file, found.base_offset).map_err(&io)?;
        let (Some(offsets), Some(times)) = (offsets, times) else {
            return Ok(None);
        };
        let (Ok(entry), Ok(time)) = (offsets.last(), times.last()) else {
            return Ok(None);
        };
        let first = read_header(self.disk, &log_file, 0).map_err(&io)?;
        let Some(first) = first.filter(|header| header.base_offset >= found.base_offset) else {
            return Ok(None); // the scan that follows says what is wrong
        };
        let from = entry.map_or(0, |entry| entry.position);
        if from >= found.bytes {
            return Ok(None);
        }
        let chunk = limits::LOCATE_CHUNK_BYTES;
        let mut scanner = Scanner::new(self.disk, &log_file, from, found.bytes, chunk);
        let mut max_timestamp = NO_TIMESTAMP;
        let mut unindexed_from = None;
        while let Some(step) = scanner.next().map_err(&io)? {
            let Ok(batch) = step else { return Ok(None) };
            let is_first = unindexed_from.is_none();
            if is_first && entry.is_some_and(|e| e.last_offset != batch.header.last_offset()) {
                return Ok(None);
            }
            let unindexed_from = *unindexed_from.get_or_insert(batch.end());
            if !is_first && batch.position - unindexed_from > UNINDEXED_BYTES_MAX {
                return Ok(None);
            }
            // Segments are searched by their ends: one that ended before it begins would lead readers
            // of others past these.
            if batch.header.base_offset < segment.next_offset {
                return Ok(None); // the scan that follows says what is wrong
            }
            max_timestamp = max_timestamp.max(index::max_timestamp(&batch.header));
            segment.next_offset = batch.header.next_offset();
        }
        let indexed_max = time.map_or(NO_TIMESTAMP, |time| time.timestamp);
        if max_timestamp.max(index::max_timestamp(&first)) > indexed_max {
            return Ok(None);
        }
        if let Some(time) = time
            && !self.has_batch(&segment, &time)?
        {
            return Ok(None);
        }
        segment.first_timestamp = index::max_timestamp(&first);
        segment.max_timestamp = time.unwrap_or(segment.max_timestamp);
        Ok(Some(segment))
    }

    /// Whether there is a batch with this last offset and timestamp: retention goes by it.
    fn has_batch(&self, segment: &Segment, time: &TimeEntry) -> Result<bool> {
        let file = segment.log_file(self.dir);
        let io = RecoveryError::io(&file);
        let index_file = segment.index_file(self.dir);
        let below = time.last_offset - 1;
        let (disk, base_offset) = (self.disk, segment.base_offset);
        let from = indexed_position(disk, &file, &index_file, base_offset, |index| {
            index.floor(below)
        });
        let from = from.map_err(&io)?;
        let Ok(located) = locate(disk, &file, from, segment.size, time.last_offset) else {
            return Ok(false); // the scan that follows says what is wrong
        };
        let header = read_header(disk, &file, located.position()).map_err(&io)?;
        Ok(header.is_some_and(|header| {
            header.last_offset() == time.last_offset
                && index::max_timestamp(&header) == time.timestamp
        }))
    }

    /// A segment that may go on: trusted up to `limit`, indexed in memory. `expected`: the offset
    /// that the trusted part must end before.
    fn load_trusted(
        &mut self,
        found: &FoundSegment,
        limit: u64,
        expected: Option<i64>,
    ) -> Result<Segment> {
        let names = Segment::new(found.base_offset, 0);
        let bytes_max = limits::CHECKPOINT_FILE_BYTES_MAX;
        // Unreadable is as good as missing: it is rebuilt from the log, which will say so if the
        // disk is at fault.
        let read = |file: &str| read_file(self.disk, file, bytes_max).unwrap_or_default();
        let offsets = read(&names.index_file(self.dir));
        let times = read(&names.time_index_file(self.dir));
        if let (Some(offsets), Some(times)) = (offsets, times) {
            let (index, from) = SegmentIndex::resume(found.base_offset, &offsets, &times, limit);
            let fits = |segment: &Segment| expected.is_none_or(|e| e == segment.next_offset);
            if from > 0
                && let Ok(segment) = self.scan_headers(found, limit, index, from)
                && fits(&segment)
            {
                return Ok(segment);
            }
        }
        let index = SegmentIndex::new(found.base_offset);
        let segment = self.scan_headers(found, limit, index, 0)?;
        match expected {
            Some(expected) if expected != segment.next_offset => Err(RecoveryError::Damaged {
                file: segment.log_file(self.dir).to_string(),
                position: limit,
                what: format!(
                    "the batches end before offset {}, the checkpoint says {expected}",
                    segment.next_offset
                ),
            }),
            _ => Ok(segment),
        }
    }

    /// Goes on with `index` over the headers of a trusted part, from `from` to exactly `limit`.
    fn scan_headers(
        &self,
        found: &FoundSegment,
        limit: u64,
        index: SegmentIndex,
        from: u64,
    ) -> Result<Segment> {
        let mut segment = Segment::new(found.base_offset, self.now.wall_ms);
        let file = segment.log_file(self.dir);
        let io = RecoveryError::io(&file);
        let damaged = |position, what: String| RecoveryError::Damaged {
            file: file.to_string(),
            position,
            what,
        };
        let last_indexed = index.floor(i64::MAX);
        segment.index = Some(index);
        segment.size = from;
        if from > 0 {
            let first = read_header(self.disk, &file, 0).map_err(&io)?;
            let first = first.ok_or_else(|| damaged(0, "no batch".to_owned()))?;
            segment.first_timestamp = index::max_timestamp(&first);
        }
        let chunk = limits::SCAN_CHUNK_BYTES;
        let mut scanner = Scanner::new(self.disk, &file, from, limit, chunk);
        while let Some(step) = scanner.next().map_err(&io)? {
            let batch = step.map_err(|flaw| damaged(flaw.position, flaw.what))?;
            let resumed = from > 0 && batch.position == from;
            if resumed && last_indexed.is_some_and(|e| e.last_offset != batch.header.last_offset())
            {
                return Err(damaged(
                    from,
                    "another batch than the index says".to_owned(),
                ));
            }
            check_offset(&segment, &batch, Offsets::Rising)
                .map_err(|flaw| damaged(flaw.position, flaw.what))?;
            grow(
                &mut segment,
                &batch,
                resumed,
                self.config.index_interval_bytes,
            );
        }
        Ok(segment)
    }

    /// Scans from `point` on and checks every batch; ends the log before the first that does not
    /// check.
    fn load_tail(
        &mut self,
        found: &[FoundSegment],
        point: Point,
        offsets: Offsets,
        segments: &mut Vec<Segment>,
    ) -> Result<()> {
        let mut next_offset = point.offset;
        for (i, candidate) in found.iter().enumerate() {
            let trusted = match candidate.base_offset == point.segment {
                true => point.position,
                false => 0,
            };
            let base = candidate.base_offset;
            let follows_on = trusted > 0
                || base == next_offset
                || (offsets == Offsets::Rising && base > next_offset);
            if !follows_on {
                let note = format!("nothing continues the log at offset {next_offset}");
                self.remove_from(&found[i..], note)?;
                break;
            }
            if base > next_offset {
                self.first_gap.get_or_insert(next_offset);
            }
            let expected = (trusted > 0).then_some(point.offset);
            let mut segment = match trusted {
                0 => Segment::new(base, self.now.wall_ms),
                limit => self.load_trusted(candidate, limit, expected)?,
            };
            let flaw = self.scan(&mut segment, candidate.bytes, offsets)?;
            next_offset = segment.next_offset;
            if let Some(flaw) = flaw {
                self.cut(&segment, candidate, &found[i + 1..], &flaw)?;
                segments.push(segment);
                break;
            }
            segments.push(segment);
        }
        let continues = segments.last().is_some_and(|s| s.index.is_some());
        if !continues {
            segments.push(Segment::new(next_offset, self.now.wall_ms));
        }
        self.finish_tail(segments, found, point)
    }

    /// Checks the batches of a segment past `segment.size`, and takes those that check.
    fn scan(
        &mut self,
        segment: &mut Segment,
        bytes: u64,
        offsets: Offsets,
    ) -> Result<Option<Flaw>> {
        let file = segment.log_file(self.dir);
        let io = RecoveryError::io(&file);
        let from = segment.size;
        let chunk = limits::SCAN_CHUNK_BYTES;
        let mut scanner = Scanner::new(self.disk, &file, from, bytes, chunk);
        let mut flaw = None;
        while let Some(step) = scanner.next_checked().map_err(&io)? {
            let checked =
                step.and_then(|batch| check_offset(segment, &batch, offsets).map(|()| batch));
            match checked {
                Ok(batch) => {
                    let header = &batch.header;
                    if header.base_offset > segment.next_offset {
                        self.first_gap.get_or_insert(segment.next_offset);
                    }
                    self.epochs
                        .assign(header.partition_leader_epoch, header.base_offset);
                    self.has_control |= header.is_control();
                    grow(segment, &batch, false, self.config.index_interval_bytes);
                }
                Err(found) => {
                    flaw = Some(found);
                    break;
                }
            }
        }
        self.report.scanned_bytes += segment.size - from;
        Ok(flaw)
    }

    /// Ends the log where `segment` ends, before the flaw.
    fn cut(
        &mut self,
        segment: &Segment,
        found: &FoundSegment,
        after: &[FoundSegment],
        flaw: &Flaw,
    ) -> Result<()> {
        if self.config.one_append_in_flight {
            self.refuse_if_a_batch_follows(segment, found.bytes, flaw)?;
        }
        let bytes = found.bytes - segment.size;
        let note = format!(
            "cut {bytes} bytes off the segment at {}, from offset {} on (byte {}: {})",
            found.base_offset, segment.next_offset, flaw.position, flaw.what
        );
        self.remove_from(after, note)?;
        self.report.truncated_bytes += bytes;
        let file = segment.log_file(self.dir);
        let io = RecoveryError::io(&file);
        self.disk.truncate(&file, segment.size).map_err(&io)?;
        self.disk.sync(&file).map_err(&io)
    }

    /// An error if a whole batch stands anywhere behind the flaw: then what is flawed was synced
    /// before that batch was written.
    fn refuse_if_a_batch_follows(&self, segment: &Segment, end: u64, flaw: &Flaw) -> Result<()> {
        let file = segment.log_file(self.dir);
        let io = RecoveryError::io(&file);
        let mut rest = vec![0; (end - flaw.position) as usize];
        read_exact_at(self.disk, &file, flaw.position, &mut rest).map_err(io)?;
        let rest = Bytes::from(rest);
        let is_whole = |at: &usize| {
            let batch = Batch::parse(&rest.slice(*at..));
            batch.is_ok_and(|batch| {
                batch.header.base_offset >= segment.next_offset && batch.check_crc().is_ok()
            })
        };
        let Some(behind) = (1..rest.len()).find(is_whole) else {
            return Ok(());
        };
        Err(RecoveryError::Damaged {
            file: file.to_string(),
            position: flaw.position,
            what: format!(
                "{}, and a whole batch stands behind it at byte {}",
                flaw.what,
                flaw.position + behind as u64
            ),
        })
    }

    /// Removes what stands behind the log's end.
    fn remove_from(&mut self, after: &[FoundSegment], note: String) -> Result<()> {
        let bytes: u64 = after.iter().map(|segment| segment.bytes).sum();
        self.report.truncated_bytes += bytes;
        self.report.note(match after.len() {
            0 => note,
            count => format!("{note}; removed {count} segments after it, {bytes} bytes"),
        });
        let bases: Vec<i64> = after.iter().map(|segment| segment.base_offset).collect();
        directory::remove_segments(self.disk, self.dir, &bases)
    }

    /// Makes the scanned part durable, and its sealed segments' indexes.
    fn finish_tail(
        &mut self,
        segments: &mut [Segment],
        found: &[FoundSegment],
        point: Point,
    ) -> Result<()> {
        let mut scanned = false;
        for segment in segments.iter() {
            let exists = found.iter().any(|f| f.base_offset == segment.base_offset);
            let trusted = match segment.base_offset == point.segment {
                true => point.position,
                false => 0,
            };
            if exists && segment.size > trusted {
                let file = segment.log_file(self.dir);
                self.disk.sync(&file).map_err(RecoveryError::io(&file))?;
                scanned = true;
            }
        }
        if scanned {
            self.disk
                .sync_dir(self.dir)
                .map_err(RecoveryError::io(self.dir))?;
        }
        let Some((_, sealed)) = segments.split_last_mut() else {
            return Ok(());
        };
        for segment in sealed.iter_mut().filter(|segment| segment.index.is_some()) {
            self.seal(segment)?;
        }
        Ok(())
    }

    /// Writes the index files of a segment that gets no more batches.
    fn seal(&mut self, segment: &mut Segment) -> Result<()> {
        let mut index = segment
            .index
            .take()
            .expect("a scanned segment has its index");
        index.seal();
        let dir = self.dir;
        let mut steps = replace_file(segment.index_file(dir), index.offset_bytes());
        steps.extend(replace_file(
            segment.time_index_file(dir),
            index.time_bytes(),
        ));
        steps.push(DiskStep::SyncDir { dir: dir.into() });
        for step in &steps {
            execute_step(self.disk, step).map_err(RecoveryError::io(dir))?;
        }
        self.report.rebuilt_indexes += 1;
        Ok(())
    }
}

/// Whether a batch may follow what the segment holds.
fn check_offset(
    segment: &Segment,
    batch: &Found,
    offsets: Offsets,
) -> std::result::Result<(), Flaw> {
    let (base, expected) = (batch.header.base_offset, segment.next_offset);
    let fits = batch.header.last_offset() - segment.base_offset <= i64::from(i32::MAX);
    let follows = match offsets {
        Offsets::Gapless => base == expected,
        Offsets::Rising => base >= expected,
    };
    if follows && fits && batch.end() <= limits::SEGMENT_BYTES_MAX {
        return Ok(());
    }
    Err(Flaw {
        position: batch.position,
        what: format!("a batch at offset {base} where {expected} is expected"),
    })
}

fn grow(segment: &mut Segment, batch: &Found, resumed: bool, interval_bytes: u64) {
    let indexed = IndexedBatch::new(&batch.header, batch.position, batch.size());
    if batch.position == 0 {
        segment.first_timestamp = indexed.max_timestamp;
    }
    let index = segment
        .index
        .as_mut()
        .expect("a segment that grows has its index");
    match resumed {
        true => index.push_resumed(&indexed),
        false => index.push(&indexed, interval_bytes),
    }
    segment.max_timestamp = index.max_timestamp();
    segment.size = batch.end();
    segment.next_offset = batch.header.next_offset();
}
