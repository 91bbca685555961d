//! Reading: from an offset to a range of bytes of one segment file.
//!
//! Two steps, because the second one reads: [`Log::slice`] says where to look, from memory alone,
//! and [`resolve`] finds the exact range, outside of any lock, from the index file and batch
//! headers. At the log's tail, where readers usually are, the first step already knows the exact
//! positions and the second reads nothing.
//!
//! A resolved range is whole batches: from the first one that reaches the offset asked for, as
//! many as fit the byte limit and end below the upper bound. Kafka cuts the last batch off
//! wherever the limit falls and lets the client drop it; nothing is lost by not sending it.
//!
//! # Invariants
//!
//! - Nothing at or past the upper bound is looked at: it may not be written yet.
//! - An index is a hint, in a file or in memory, which may come from a file. What it points to is
//!   checked against the batch that is there, and if they differ the segment is scanned from its
//!   start.
//! - A slice stays valid while segments are deleted or compacted: a deleted one gives
//!   `ErrorKind::NotFound`, and a compacted one is found in its new form. But the file may be
//!   replaced between finding and reading, and a name may come to mean another topic's file. Whoever
//!   sends bytes to a client opens the file, finds the range in what was opened, and then asks
//!   [`LogSlice::is_current`]; [`read`], which is for a log that nobody changes meanwhile, only
//!   checks that it finds whole batches.

use crate::disk::{Disk, FileName, read_exact_at};
use crate::index::{IndexFile, OffsetEntry};
use crate::limits;
use crate::log::Log;
use crate::scan::{Scanner, entry_position, indexed_position, locate, locate_written};
use crate::segment::{Segment, Tenure};
use bytes::Bytes;
use oncelog_wire::records::BatchHeader;
use std::io;

/// Where to look for the batches from an offset on. See [`resolve`].
#[derive(Clone, Debug)]
pub struct LogSlice {
    file: FileName,
    /// Of a sealed segment.
    index_file: Option<FileName>,
    base_offset: i64,
    offset: i64,
    upper_bound: i64,
    max_bytes: u64,
    at_least_one: bool,
    start: Hint,
    end: Hint,
    /// A batch boundary at most `max_bytes` after the start; exact if it is the last such.
    cut: Option<Hint>,
    /// No batch at or past this offset is in the range.
    end_offset_max: i64,
    /// Bytes of the segment when the slice was made; the file's own length is the bound as well.
    size: u64,
    tenure: Tenure,
}

/// Where a batch begins (or the segment ends).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hint {
    /// Just the one that is wanted.
    Exact(u64),
    /// The one that is wanted or one before it, by the index: it may have been read from a damaged
    /// file. `None`: the segment's first.
    Entry(Option<OffsetEntry>),
}

impl Hint {
    fn position(self) -> u64 {
        match self {
            Hint::Exact(position) => position,
            Hint::Entry(entry) => entry.map_or(0, |entry| entry.position),
        }
    }

    fn is_exact(self) -> bool {
        matches!(self, Hint::Exact(_))
    }
}

/// Whole batches in a segment file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    pub file: FileName,
    pub position: u64,
    pub len: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("offset {offset} is outside of the log, {start_offset} to {end_offset}")]
pub struct OutOfRange {
    pub offset: i64,
    pub start_offset: i64,
    pub end_offset: i64,
}

impl Log {
    /// Where to read from `offset` on: batches that end below `upper_bound` (exclusive), at most
    /// `max_bytes` of them or, with `at_least_one`, the first one even if it is larger.
    ///
    /// `None` if there is nothing below the bound. Everything below `upper_bound` must have been
    /// written: at most [`Log::written_end_offset`].
    pub fn slice(
        &self,
        offset: i64,
        upper_bound: i64,
        max_bytes: u64,
        at_least_one: bool,
    ) -> Result<Option<LogSlice>, OutOfRange> {
        if offset < self.start_offset || offset > self.end_offset() {
            return Err(OutOfRange {
                offset,
                start_offset: self.start_offset,
                end_offset: self.end_offset(),
            });
        }
        let upper_bound = upper_bound.min(self.end_offset());
        let at = self.segments.partition_point(|s| s.next_offset <= offset);
        let Some(segment) = self.segments.get(at) else {
            return Ok(None);
        };
        if offset >= upper_bound || segment.base_offset >= upper_bound {
            return Ok(None);
        }
        let is_active = at + 1 == self.segments.len();
        let recent = |offset| self.recent.position_of(offset).filter(|_| is_active);
        let floor = |offset| segment.index.as_ref().and_then(|index| index.floor(offset));
        let start = match recent(offset) {
            Some(position) => Hint::Exact(position),
            None => Hint::Entry(floor(offset)),
        };
        // A segment that a compaction may replace is as long as its file, and no position in it
        // is known from memory.
        let size = segment.index.as_ref().map_or(u64::MAX, |_| segment.size);
        let end = match recent(upper_bound) {
            _ if upper_bound >= segment.next_offset => Hint::Exact(size),
            Some(position) => Hint::Exact(position),
            None => Hint::Entry(floor(upper_bound - 1)),
        };
        let limit = start.position().saturating_add(max_bytes);
        let cut = match &segment.index {
            _ if start.is_exact() => self.recent.floor_position(limit).map(Hint::Exact),
            Some(index) => Some(Hint::Entry(index.floor_position(limit))),
            None => None,
        };
        Ok(Some(LogSlice {
            end_offset_max: end_offset_max(segment, start, offset, max_bytes).min(upper_bound),
            file: segment.log_file(&self.dir),
            index_file: segment
                .index
                .is_none()
                .then(|| segment.index_file(&self.dir)),
            base_offset: segment.base_offset,
            offset,
            upper_bound,
            max_bytes,
            at_least_one,
            start,
            end,
            cut,
            size,
            tenure: segment.tenure.clone(),
        }))
    }

    /// Bytes from `offset` to `upper_bound`: exact within the last few hundred batches, to within
    /// an index interval in the rest of the active segment, `u64::MAX` ("plenty") before it.
    pub fn bytes_between(&self, offset: i64, upper_bound: i64) -> u64 {
        let active = self.active();
        let upper_bound = upper_bound.min(active.next_offset);
        if offset >= upper_bound {
            return 0;
        }
        if offset < active.base_offset {
            return u64::MAX;
        }
        let index = active
            .index
            .as_ref()
            .expect("the active segment has its index");
        let position = |offset: i64| match self.recent.position_of(offset) {
            _ if offset >= active.next_offset => active.size,
            Some(position) => position,
            None => index.floor(offset).map_or(0, |entry| entry.position),
        };
        position(upper_bound).saturating_sub(position(offset))
    }
}

/// No batch at or past this offset is in the range of a read that begins at `start`, where `offset`
/// is.
fn end_offset_max(segment: &Segment, start: Hint, offset: i64, max_bytes: u64) -> i64 {
    let start_max = match &segment.index {
        _ if start.is_exact() => Some(start.position()),
        Some(index) => index.ceiling(offset).map(|entry| entry.position),
        None => None,
    };
    // The first batch that is known to begin behind the limit is not in the range.
    let behind = start_max.and_then(|position| {
        let limit = position.saturating_add(max_bytes.max(1));
        segment.index.as_ref()?.ceiling_position(limit)
    });
    behind.map_or(segment.next_offset, |entry| entry.last_offset)
}

impl LogSlice {
    /// The segment's file.
    pub fn file(&self) -> &FileName {
        &self.file
    }

    pub fn offset(&self) -> i64 {
        self.offset
    }

    /// Only offsets below this one are in the range that [`resolve`] finds.
    pub fn end_offset_max(&self) -> i64 {
        self.end_offset_max
    }

    /// What this slice knows from memory still holds: its file was not replaced, and its topic not
    /// deleted. To be asked *after* the file was opened; what was opened before is then the right
    /// one, and stays so whatever happens to the name. If not, nothing of it may be sent.
    pub fn is_current(&self) -> bool {
        self.tenure.lasts()
    }
}

/// Finds the exact range of a slice: at most `max_bytes`, and never more than the slice itself
/// allows. `None` if no batch fits; with `at_least_one` (and if the slice was made so) the first
/// batch always fits.
///
/// Errors: `NotFound` if the segment was deleted since, `InvalidData` if there is no batch where
/// one was written.
pub fn resolve(
    disk: &dyn Disk,
    slice: &LogSlice,
    max_bytes: u32,
    at_least_one: bool,
) -> io::Result<Option<Resolved>> {
    let max_bytes = slice.max_bytes.min(u64::from(max_bytes));
    let at_least_one = slice.at_least_one && at_least_one;
    let size = match slice.start.is_exact() && slice.end.is_exact() {
        true => slice.size,
        false => disk
            .len(&slice.file)?
            .ok_or_else(|| gone(slice))?
            .min(slice.size),
    };
    let (start, first_offset) = find_start(disk, slice, size)?;
    let end = find_end(disk, slice, size)?.max(start);
    // No CRC covers a batch's base offset: readers would go on behind all that follows.
    if let Some(offset) = first_offset.filter(|offset| *offset >= slice.upper_bound && end > start)
    {
        let (file, bound) = (&slice.file, slice.upper_bound);
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!(
                "{file} at byte {start}: offset {offset}, before batches that end below {bound}"
            ),
        ));
    }
    let limit = start.saturating_add(max_bytes);
    let len = match end <= limit {
        true => end - start,
        false => cut(disk, slice, start, end, limit, at_least_one)? - start,
    };
    if len == 0 {
        return Ok(None);
    }
    Ok(Some(Resolved {
        file: slice.file.clone(),
        position: start,
        len: u32::try_from(len).expect("a segment is smaller than 2 GiB"),
    }))
}

/// The bytes of a slice: whole batches, empty if there are none. Their CRCs are not checked.
pub fn read(disk: &dyn Disk, slice: &LogSlice) -> io::Result<Bytes> {
    // A compaction may replace the file between finding and reading: look again, once.
    match read_once(disk, slice) {
        Err(error) if error.kind() == io::ErrorKind::InvalidData => read_once(disk, slice),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => read_once(disk, slice),
        result => result,
    }
}

fn read_once(disk: &dyn Disk, slice: &LogSlice) -> io::Result<Bytes> {
    let Some(resolved) = resolve(disk, slice, u32::MAX, true)? else {
        return Ok(Bytes::new());
    };
    let mut bytes = vec![0; resolved.len as usize];
    read_exact_at(disk, &resolved.file, resolved.position, &mut bytes)?;
    let mut position = 0;
    while position < bytes.len() {
        let header = BatchHeader::parse(&bytes[position..]).map_err(|error| {
            let at = resolved.position + position as u64;
            let message = format!("{} at byte {at}: {error}", resolved.file);
            io::Error::new(io::ErrorKind::InvalidData, message)
        })?;
        if position == 0 && header.last_offset() < slice.offset {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "another batch"));
        }
        position += header.size_in_bytes();
    }
    Ok(Bytes::from(bytes))
}

/// Where the first batch that reaches the slice's offset begins, and its base offset if it was looked
/// at.
fn find_start(disk: &dyn Disk, slice: &LogSlice, size: u64) -> io::Result<(u64, Option<i64>)> {
    if let Hint::Exact(position) = slice.start {
        return Ok((position, None));
    }
    let from = look_from(disk, slice, slice.start, slice.offset)?;
    let found = locate_written(disk, &slice.file, from, size, slice.offset)?;
    Ok(found.map_or((size, None), |found| {
        (found.position, Some(found.header.base_offset))
    }))
}

/// Where the batches that end below the upper bound end.
fn find_end(disk: &dyn Disk, slice: &LogSlice, size: u64) -> io::Result<u64> {
    if let Hint::Exact(position) = slice.end {
        return Ok(position.min(size));
    }
    let from = look_from(disk, slice, slice.end, slice.upper_bound)?;
    Ok(locate(disk, &slice.file, from, size, slice.upper_bound)?.position())
}

/// The best position known from which to look for the batches that end below `offset`.
fn look_from(disk: &dyn Disk, slice: &LogSlice, hint: Hint, offset: i64) -> io::Result<u64> {
    match &slice.index_file {
        // Entries below the batch wanted, so that what they point to is written.
        Some(file) => {
            let below = |index: &IndexFile<'_>| index.floor(offset - 1);
            indexed_position(disk, &slice.file, file, slice.base_offset, below)
        }
        None => hinted(disk, slice, hint),
    }
}

/// A position that the caller may begin to look at.
fn hinted(disk: &dyn Disk, slice: &LogSlice, hint: Hint) -> io::Result<u64> {
    match hint {
        Hint::Exact(position) => Ok(position),
        Hint::Entry(entry) => entry_position(disk, &slice.file, entry),
    }
}

/// Where to end so that whole batches fit below `limit`, given that not all up to `end` do.
fn cut(
    disk: &dyn Disk,
    slice: &LogSlice,
    start: u64,
    end: u64,
    limit: u64,
    at_least_one: bool,
) -> io::Result<u64> {
    let inside = |position: &u64| (start..=limit).contains(position);
    let known = match (slice.cut, &slice.index_file) {
        (Some(Hint::Exact(position)), _) if position > start && position <= limit => {
            // Exact for the slice's own limit; a smaller one is scanned for.
            if limit - start == slice.max_bytes {
                return Ok(position);
            }
            Some(position)
        }
        (Some(hint), _) => Some(hinted(disk, slice, hint)?),
        (None, Some(file)) => {
            let below = |index: &IndexFile<'_>| index.floor_position(limit);
            Some(indexed_position(
                disk,
                &slice.file,
                file,
                slice.base_offset,
                below,
            )?)
        }
        (None, None) => None,
    };
    let from = known.filter(inside).unwrap_or(start);
    let mut scanner = Scanner::new(disk, &slice.file, from, end, limits::LOCATE_CHUNK_BYTES);
    let mut position = from;
    while let Some(step) = scanner.next()? {
        let found = step.map_err(|flaw| flaw.into_error(&slice.file))?;
        let first = found.position == start;
        if found.end() > limit && !(first && at_least_one) {
            break;
        }
        position = found.end();
        if position >= limit {
            break;
        }
    }
    Ok(position)
}

fn gone(slice: &LogSlice) -> io::Error {
    let message = format!("{} is not there any more", slice.file);
    io::Error::new(io::ErrorKind::NotFound, message)
}
