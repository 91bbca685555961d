//! Finding an offset by timestamp (ListOffsets).
//!
//! [`Log`] names the segments to look into, from memory; [`look_up`] reads them, outside of any
//! lock: the time index narrows it down to a stretch of batches, the batch headers to one batch,
//! and that one is decompressed to find the record. As Kafka's `LogSegment.findOffsetByTimestamp`
//! and `RecordBatch.offsetOfMaxTimestamp`.
//!
//! Nothing at or past the upper bound is read: it may not be written yet.

use crate::disk::{Disk, FileName};
use crate::index::{NO_TIMESTAMP, OffsetEntry, TimeEntry, TimeIndexFile};
use crate::limits;
use crate::log::Log;
use crate::scan::{self, Found, Scanner};
use crate::segment::Segment;
use oncelog_wire::records::{Batch, BatchHeader, Record};
use std::io;

/// What to look for, and where. Execute with [`look_up`].
#[derive(Clone, Debug)]
pub struct TimestampLookup {
    target: Target,
    segments: Vec<LookIn>,
    start_offset: i64,
    upper_bound: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    /// The first record at or after this time.
    AtOrAfter(i64),
    /// The first record that has the segment's largest timestamp.
    Max { timestamp: i64, last_offset: i64 },
}

#[derive(Clone, Debug)]
struct LookIn {
    file: FileName,
    base_offset: i64,
    size: u64,
    from: Begin,
}

#[derive(Clone, Debug)]
enum Begin {
    /// The batch wanted begins here or later.
    Entry(Option<OffsetEntry>),
    /// As the index files say.
    Indexes { times: FileName, offsets: FileName },
}

/// A record that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimestampHit {
    /// Milliseconds since the Unix epoch.
    pub timestamp: i64,
    pub offset: i64,
    /// -1 if the batch has none.
    pub leader_epoch: i32,
}

impl Log {
    /// A lookup of the first record with a timestamp of at least `timestamp`, below `upper_bound`.
    pub fn timestamp_lookup(&self, timestamp: i64, upper_bound: i64) -> TimestampLookup {
        let candidates = self
            .segments
            .iter()
            .filter(|s| s.max_timestamp.timestamp >= timestamp && s.size > 0);
        let segments = candidates
            .filter(|s| s.base_offset < upper_bound && s.next_offset > self.start_offset)
            .take(limits::LOOKUP_SEGMENTS_MAX)
            .map(|segment| self.look_in(segment, timestamp, upper_bound));
        TimestampLookup {
            target: Target::AtOrAfter(timestamp),
            segments: segments.collect(),
            start_offset: self.start_offset,
            upper_bound,
        }
    }

    /// A lookup of the record with the largest timestamp (KIP-734), the first of several. Finds
    /// nothing if that record lies at or past `upper_bound`, as in Kafka.
    pub fn max_timestamp_lookup(&self, upper_bound: i64) -> TimestampLookup {
        let mut best: Option<&Segment> = None;
        for segment in &self.segments {
            let timestamp = segment.max_timestamp.timestamp;
            let best_yet = best.map_or(NO_TIMESTAMP, |best| best.max_timestamp.timestamp);
            if timestamp > best_yet && segment.next_offset > self.start_offset {
                best = Some(segment);
            }
        }
        let max = best.map(|segment| segment.max_timestamp);
        let target = max.map_or(Target::AtOrAfter(i64::MAX), |max| Target::Max {
            timestamp: max.timestamp,
            last_offset: max.last_offset,
        });
        let readable = best.filter(|_| max.is_some_and(|max| max.last_offset < upper_bound));
        let segments = readable.map(|segment| {
            let timestamp = segment.max_timestamp.timestamp;
            self.look_in(segment, timestamp, upper_bound)
        });
        TimestampLookup {
            target,
            segments: segments.into_iter().collect(),
            start_offset: self.start_offset,
            upper_bound,
        }
    }

    fn look_in(&self, segment: &Segment, timestamp: i64, upper_bound: i64) -> LookIn {
        let from = match &segment.index {
            Some(index) => {
                let entry = index.time_floor(timestamp);
                // Below the batch of the entry, which may itself be the one wanted; and below the
                // bound, so that what is there is written.
                let below = |entry: TimeEntry| entry.last_offset.min(upper_bound) - 1;
                let floor = entry.and_then(|entry| index.floor(below(entry)));
                Begin::Entry(floor)
            }
            None => Begin::Indexes {
                times: segment.time_index_file(&self.dir),
                offsets: segment.index_file(&self.dir),
            },
        };
        LookIn {
            file: segment.log_file(&self.dir),
            base_offset: segment.base_offset,
            // As long as its file, if a compaction may replace it.
            size: segment.index.as_ref().map_or(u64::MAX, |_| segment.size),
            from,
        }
    }
}

/// Carries a lookup out. `None`: there is no such record.
///
/// Errors: `NotFound` if a segment was deleted since, `InvalidData` if a batch is damaged or
/// larger than [`limits::DECOMPRESSED_BATCH_BYTES_MAX`] when decompressed.
pub fn look_up(disk: &dyn Disk, lookup: &TimestampLookup) -> io::Result<Option<TimestampHit>> {
    for segment in &lookup.segments {
        if let Some(hit) = look_up_in(disk, lookup, segment)? {
            return Ok(Some(hit));
        }
    }
    Ok(None)
}

fn look_up_in(
    disk: &dyn Disk,
    lookup: &TimestampLookup,
    segment: &LookIn,
) -> io::Result<Option<TimestampHit>> {
    let from = match &segment.from {
        Begin::Entry(entry) => scan::entry_position(disk, &segment.file, *entry)?,
        Begin::Indexes { times, offsets } => {
            indexed_position(disk, lookup, segment, times, offsets)?
        }
    };
    let length = disk.len(&segment.file)?.ok_or(io::ErrorKind::NotFound)?;
    let end = length.min(segment.size);
    let mut next_offset = segment.base_offset;
    let mut scanner = Scanner::new(disk, &segment.file, from, end, limits::LOCATE_CHUNK_BYTES);
    while next_offset < lookup.upper_bound {
        let Some(step) = scanner.next()? else { break };
        let found = step.map_err(|flaw| flaw.into_error(&segment.file))?;
        next_offset = found.header.next_offset();
        if next_offset > lookup.upper_bound || next_offset <= lookup.start_offset {
            continue;
        }
        if lookup.target.may_be_in(&found.header)
            && let Some(hit) = find_record(&mut scanner, &found, lookup, &segment.file)?
        {
            return Ok(Some(hit));
        }
    }
    Ok(None)
}

/// As [`Log::look_in`] does it from memory; 0 if the files are missing or damaged.
fn indexed_position(
    disk: &dyn Disk,
    lookup: &TimestampLookup,
    segment: &LookIn,
    times: &str,
    offsets: &str,
) -> io::Result<u64> {
    let timestamp = match lookup.target {
        Target::AtOrAfter(timestamp) | Target::Max { timestamp, .. } => timestamp,
    };
    let Some(times) = TimeIndexFile::open(disk, times, segment.base_offset)? else {
        return Ok(0);
    };
    let Ok(Some(time)) = times.floor(timestamp) else {
        return Ok(0);
    };
    let below = time.last_offset.min(lookup.upper_bound) - 1;
    let (file, base_offset) = (&segment.file, segment.base_offset);
    scan::indexed_position(disk, file, offsets, base_offset, |index| index.floor(below))
}

impl Target {
    fn may_be_in(&self, header: &BatchHeader) -> bool {
        match self {
            Target::AtOrAfter(timestamp) => header.max_timestamp >= *timestamp,
            Target::Max {
                timestamp,
                last_offset,
            } => header.last_offset() == *last_offset && header.max_timestamp == *timestamp,
        }
    }

    fn is(&self, record: &Record) -> bool {
        match self {
            Target::AtOrAfter(timestamp) => record.timestamp >= *timestamp,
            Target::Max { timestamp, .. } => record.timestamp == *timestamp,
        }
    }
}

fn find_record(
    scanner: &mut Scanner<'_>,
    found: &Found,
    lookup: &TimestampLookup,
    file: &str,
) -> io::Result<Option<TimestampHit>> {
    let bad = |error: oncelog_wire::records::BatchError| {
        let message = format!("{file} at byte {}: {error}", found.position);
        io::Error::new(io::ErrorKind::InvalidData, message)
    };
    let bytes = scanner.read(found)?;
    let batch = Batch::parse(&bytes).map_err(bad)?;
    batch.check_crc().map_err(bad)?;
    let records = batch
        .records(limits::DECOMPRESSED_BATCH_BYTES_MAX)
        .map_err(bad)?;
    for record in records {
        let record = record.map_err(bad)?;
        if record.offset >= lookup.start_offset && lookup.target.is(&record) {
            return Ok(Some(TimestampHit {
                timestamp: record.timestamp,
                offset: record.offset,
                leader_epoch: found.header.partition_leader_epoch,
            }));
        }
    }
    Ok(None)
}
