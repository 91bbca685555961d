//! A segment's sparse indexes: offset to position, timestamp to offset.
//!
//! Formats and rules are Kafka's (`OffsetIndex`, `TimeIndex`, `LogSegment.append`), all numbers
//! big-endian:
//!
//! - `.index`: {i32 offset - base offset, i32 position}. The offset is the *last* one of the batch
//!   that starts at the position.
//! - `.timeindex`: {i64 timestamp, i32 offset - base offset}: the largest timestamp in the segment
//!   so far, and the last offset of the batch that has it.
//!
//! An entry is added for the first batch that starts more than `index.interval.bytes` after the
//! batch of the entry before it (or the segment's start); a time entry only if the timestamp grew.
//! Sealing a segment adds the largest timestamp of all as the last time entry.
//!
//! [`SegmentIndex`] is the index of the active segment, in memory, in the files' own encoding.
//! [`IndexFile`] and [`TimeIndexFile`] look things up in a sealed segment's files.
//!
//! Index files are hints: whoever follows one checks the batch that it finds there and falls back
//! to scanning the segment (see [`crate::slice`]). Deliberately not here: when files are written.

use crate::disk::{Disk, read_exact_at};
use bytes::Bytes;
use oncelog_wire::records::BatchHeader;
use std::io;

pub(crate) const INDEX_ENTRY_BYTES: usize = 8;
pub(crate) const TIME_ENTRY_BYTES: usize = 12;

/// A batch's timestamp where it has none, as Kafka's `NO_TIMESTAMP`.
pub(crate) const NO_TIMESTAMP: i64 = -1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OffsetEntry {
    /// The last offset of the batch at `position`.
    pub last_offset: i64,
    pub position: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimeEntry {
    pub timestamp: i64,
    /// The last offset of the batch that has this timestamp.
    pub last_offset: i64,
}

/// The indexes of a segment that is being written, and what indexing needs to go on.
#[derive(Clone, Debug)]
pub(crate) struct SegmentIndex {
    base_offset: i64,
    offsets: Vec<u8>,
    times: Vec<u8>,
    bytes_since_entry: u64,
    /// The largest timestamp, or [`NO_TIMESTAMP`], and the batch that has it.
    max: TimeEntry,
}

impl SegmentIndex {
    pub fn new(base_offset: i64) -> SegmentIndex {
        SegmentIndex {
            base_offset,
            offsets: Vec::new(),
            times: Vec::new(),
            bytes_since_entry: 0,
            max: TimeEntry {
                timestamp: NO_TIMESTAMP,
                last_offset: base_offset,
            },
        }
    }

    /// Goes on from index files: keeps the entries for batches that start below `limit`, if they
    /// are well-formed and rise. The caller goes on with [`SegmentIndex::push`] from the batch at
    /// the returned position: the last entry's batch, or 0 if nothing can be used.
    pub fn resume(
        base_offset: i64,
        offsets: &[u8],
        times: &[u8],
        limit: u64,
    ) -> (SegmentIndex, u64) {
        let mut index = SegmentIndex::new(base_offset);
        let mut kept = OffsetEntry {
            last_offset: base_offset - 1,
            position: 0,
        };
        for bytes in offsets.chunks(INDEX_ENTRY_BYTES) {
            let Some(entry) = decode_offset(base_offset, bytes) else {
                return (SegmentIndex::new(base_offset), 0);
            };
            if entry.last_offset <= kept.last_offset || entry.position <= kept.position {
                return (SegmentIndex::new(base_offset), 0);
            }
            if entry.position >= limit {
                break;
            }
            index.offsets.extend_from_slice(bytes);
            kept = entry;
        }
        for bytes in times.chunks(TIME_ENTRY_BYTES) {
            let Some(entry) = decode_time(base_offset, bytes) else {
                return (SegmentIndex::new(base_offset), 0);
            };
            if entry.timestamp <= index.max.timestamp || entry.last_offset < index.max.last_offset {
                return (SegmentIndex::new(base_offset), 0);
            }
            if entry.last_offset > kept.last_offset {
                break;
            }
            index.times.extend_from_slice(bytes);
            index.max = entry;
        }
        (index, kept.position)
    }

    /// Notes a batch at `position` of `size` bytes. Batches come in order.
    pub fn push(&mut self, batch: &IndexedBatch, interval_bytes: u64) {
        if batch.max_timestamp > self.max.timestamp {
            self.max = TimeEntry {
                timestamp: batch.max_timestamp,
                last_offset: batch.last_offset,
            };
        }
        if self.bytes_since_entry > interval_bytes {
            self.offsets.extend_from_slice(&encode_offset(
                self.base_offset,
                batch.last_offset,
                batch.position,
            ));
            self.note_max_timestamp();
            self.bytes_since_entry = 0;
        }
        self.bytes_since_entry += batch.size;
    }

    /// As [`SegmentIndex::push`], for the batch that [`SegmentIndex::resume`] said to go on from:
    /// its own entry, if it has one, is there already.
    pub fn push_resumed(&mut self, batch: &IndexedBatch) {
        if batch.max_timestamp > self.max.timestamp {
            self.max = TimeEntry {
                timestamp: batch.max_timestamp,
                last_offset: batch.last_offset,
            };
        }
        self.bytes_since_entry = batch.size;
    }

    /// The segment gets no more batches: the largest timestamp becomes the last time entry.
    pub fn seal(&mut self) {
        self.note_max_timestamp();
    }

    fn note_max_timestamp(&mut self) {
        let last = self.times_len().checked_sub(1).map(|i| self.time(i));
        let newest = last.map_or(NO_TIMESTAMP, |entry| entry.timestamp);
        if self.max.timestamp > newest {
            let relative = relative(self.base_offset, self.max.last_offset);
            self.times
                .extend_from_slice(&self.max.timestamp.to_be_bytes());
            self.times.extend_from_slice(&relative.to_be_bytes());
        }
    }

    /// Another entry may not fit (Kafka keeps the last time entry free for the seal).
    pub fn is_full(&self, index_bytes_max: u64) -> bool {
        let max = index_bytes_max as usize;
        self.offsets_len() >= max / INDEX_ENTRY_BYTES
            || self.times_len() + 1 >= max / TIME_ENTRY_BYTES
    }

    /// The largest timestamp and its batch's last offset; [`NO_TIMESTAMP`] if there is none.
    pub fn max_timestamp(&self) -> TimeEntry {
        self.max
    }

    /// The last entry whose batch ends at or below `offset`: the batch that holds `offset` starts
    /// at or after its position.
    pub fn floor(&self, offset: i64) -> Option<OffsetEntry> {
        let after = partition_point(self.offsets_len(), |i| self.offset(i).last_offset <= offset);
        after.checked_sub(1).map(|i| self.offset(i))
    }

    /// The last entry whose batch starts at or below `position`.
    pub fn floor_position(&self, position: u64) -> Option<OffsetEntry> {
        let after = partition_point(self.offsets_len(), |i| self.offset(i).position <= position);
        after.checked_sub(1).map(|i| self.offset(i))
    }

    /// The first entry whose batch reaches `offset`: the batch that holds `offset` starts at or
    /// before its position.
    pub fn ceiling(&self, offset: i64) -> Option<OffsetEntry> {
        let at = partition_point(self.offsets_len(), |i| self.offset(i).last_offset < offset);
        (at < self.offsets_len()).then(|| self.offset(at))
    }

    /// The first entry whose batch starts at or after `position`.
    pub fn ceiling_position(&self, position: u64) -> Option<OffsetEntry> {
        let at = partition_point(self.offsets_len(), |i| self.offset(i).position < position);
        (at < self.offsets_len()).then(|| self.offset(at))
    }

    /// The last time entry at or below `timestamp`: no earlier batch has a larger timestamp.
    pub fn time_floor(&self, timestamp: i64) -> Option<TimeEntry> {
        let after = partition_point(self.times_len(), |i| self.time(i).timestamp <= timestamp);
        after.checked_sub(1).map(|i| self.time(i))
    }

    /// The content of `.index`.
    pub fn offset_bytes(&self) -> Bytes {
        Bytes::copy_from_slice(&self.offsets)
    }

    /// The content of `.timeindex`.
    pub fn time_bytes(&self) -> Bytes {
        Bytes::copy_from_slice(&self.times)
    }

    pub fn offsets_len(&self) -> usize {
        self.offsets.len() / INDEX_ENTRY_BYTES
    }

    fn times_len(&self) -> usize {
        self.times.len() / TIME_ENTRY_BYTES
    }

    fn offset(&self, i: usize) -> OffsetEntry {
        let bytes = &self.offsets[i * INDEX_ENTRY_BYTES..][..INDEX_ENTRY_BYTES];
        decode_offset(self.base_offset, bytes).expect("was encoded here or checked on the way in")
    }

    fn time(&self, i: usize) -> TimeEntry {
        let bytes = &self.times[i * TIME_ENTRY_BYTES..][..TIME_ENTRY_BYTES];
        decode_time(self.base_offset, bytes).expect("was encoded here or checked on the way in")
    }
}

/// What an index wants to know of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IndexedBatch {
    pub position: u64,
    pub size: u64,
    pub last_offset: i64,
    pub max_timestamp: i64,
}

impl IndexedBatch {
    pub fn new(header: &BatchHeader, position: u64, size: u64) -> IndexedBatch {
        IndexedBatch {
            position,
            size,
            last_offset: header.last_offset(),
            max_timestamp: max_timestamp(header),
        }
    }
}

/// The largest timestamp of a batch's records: none if compaction has left the batch empty,
/// whatever its header remembers.
pub(crate) fn max_timestamp(header: &BatchHeader) -> i64 {
    match header.records_count {
        0 => NO_TIMESTAMP,
        _ => header.max_timestamp,
    }
}

/// A sealed segment's `.index`. Entries are read one by one: a lookup takes about twenty small
/// reads from the page cache and no memory.
pub(crate) struct IndexFile<'a> {
    disk: &'a dyn Disk,
    file: &'a str,
    base_offset: i64,
    len: usize,
}

impl<'a> IndexFile<'a> {
    /// `None` if there is no such file or its length is no multiple of an entry's.
    pub fn open(disk: &'a dyn Disk, file: &'a str, base_offset: i64) -> io::Result<Option<Self>> {
        let len = entries(disk, file, INDEX_ENTRY_BYTES)?;
        Ok(len.map(|len| IndexFile {
            disk,
            file,
            base_offset,
            len,
        }))
    }

    pub fn floor(&self, offset: i64) -> io::Result<Option<OffsetEntry>> {
        self.last_where(|entry| entry.last_offset <= offset)
    }

    pub fn floor_position(&self, position: u64) -> io::Result<Option<OffsetEntry>> {
        self.last_where(|entry| entry.position <= position)
    }

    pub fn last(&self) -> io::Result<Option<OffsetEntry>> {
        self.len.checked_sub(1).map(|i| self.get(i)).transpose()
    }

    fn last_where(&self, holds: impl Fn(&OffsetEntry) -> bool) -> io::Result<Option<OffsetEntry>> {
        last_where(self.len, |i| self.get(i), holds)
    }

    fn get(&self, i: usize) -> io::Result<OffsetEntry> {
        let mut bytes = [0; INDEX_ENTRY_BYTES];
        let position = (i * INDEX_ENTRY_BYTES) as u64;
        read_exact_at(self.disk, self.file, position, &mut bytes)?;
        decode_offset(self.base_offset, &bytes).ok_or_else(|| bad_entry(self.file))
    }
}

/// A sealed segment's `.timeindex`, as [`IndexFile`].
pub(crate) struct TimeIndexFile<'a> {
    disk: &'a dyn Disk,
    file: &'a str,
    base_offset: i64,
    len: usize,
}

impl<'a> TimeIndexFile<'a> {
    pub fn open(disk: &'a dyn Disk, file: &'a str, base_offset: i64) -> io::Result<Option<Self>> {
        let len = entries(disk, file, TIME_ENTRY_BYTES)?;
        Ok(len.map(|len| TimeIndexFile {
            disk,
            file,
            base_offset,
            len,
        }))
    }

    pub fn floor(&self, timestamp: i64) -> io::Result<Option<TimeEntry>> {
        last_where(
            self.len,
            |i| self.get(i),
            |entry| entry.timestamp <= timestamp,
        )
    }

    pub fn last(&self) -> io::Result<Option<TimeEntry>> {
        self.len.checked_sub(1).map(|i| self.get(i)).transpose()
    }

    fn get(&self, i: usize) -> io::Result<TimeEntry> {
        let mut bytes = [0; TIME_ENTRY_BYTES];
        let position = (i * TIME_ENTRY_BYTES) as u64;
        read_exact_at(self.disk, self.file, position, &mut bytes)?;
        decode_time(self.base_offset, &bytes).ok_or_else(|| bad_entry(self.file))
    }
}

fn entries(disk: &dyn Disk, file: &str, entry_bytes: usize) -> io::Result<Option<usize>> {
    let len = disk.len(file)?.map(|len| len as usize);
    Ok(len
        .filter(|len| len % entry_bytes == 0)
        .map(|len| len / entry_bytes))
}

fn bad_entry(file: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("{file} holds a negative entry"),
    )
}

fn last_where<T>(
    len: usize,
    get: impl Fn(usize) -> io::Result<T>,
    holds: impl Fn(&T) -> bool,
) -> io::Result<Option<T>> {
    let (mut low, mut high) = (0, len);
    let mut found = None;
    while low < high {
        let middle = low + (high - low) / 2;
        let entry = get(middle)?;
        if holds(&entry) {
            found = Some(entry);
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Ok(found)
}

fn partition_point(len: usize, holds: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut high) = (0, len);
    while low < high {
        let middle = low + (high - low) / 2;
        if holds(middle) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}

fn relative(base_offset: i64, offset: i64) -> i32 {
    i32::try_from(offset - base_offset).expect("a segment is rolled before its offsets need more")
}

fn encode_offset(base_offset: i64, last_offset: i64, position: u64) -> [u8; INDEX_ENTRY_BYTES] {
    let relative = relative(base_offset, last_offset);
    let position = i32::try_from(position).expect("a segment is rolled before 2 GiB");
    let mut bytes = [0; INDEX_ENTRY_BYTES];
    bytes[..4].copy_from_slice(&relative.to_be_bytes());
    bytes[4..].copy_from_slice(&position.to_be_bytes());
    bytes
}

/// `None` for a short or negative entry.
fn decode_offset(base_offset: i64, bytes: &[u8]) -> Option<OffsetEntry> {
    let (relative, position) = bytes.split_first_chunk()?;
    let relative = i32::from_be_bytes(*relative);
    let position = i32::from_be_bytes(position.try_into().ok()?);
    Some(OffsetEntry {
        last_offset: base_offset.checked_add(i64::from(u32::try_from(relative).ok()?))?,
        position: u64::try_from(position).ok()?,
    })
}

fn decode_time(base_offset: i64, bytes: &[u8]) -> Option<TimeEntry> {
    let (timestamp, relative) = bytes.split_first_chunk()?;
    let relative = i32::from_be_bytes(relative.try_into().ok()?);
    Some(TimeEntry {
        timestamp: i64::from_be_bytes(*timestamp),
        last_offset: base_offset.checked_add(i64::from(u32::try_from(relative).ok()?))?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::MemoryDisk;

    fn batch(position: u64, size: u64, last_offset: i64, max_timestamp: i64) -> IndexedBatch {
        IndexedBatch {
            position,
            size,
            last_offset,
            max_timestamp,
        }
    }

    /// Four batches of 100 bytes at base offset 1000, an entry per 100 bytes.
    fn sample() -> SegmentIndex {
        let mut index = SegmentIndex::new(1000);
        for (i, timestamp) in [50, 70, 60, 80].into_iter().enumerate() {
            let i = i as u64;
            index.push(
                &batch(i * 101, 101, 1000 + i as i64 * 10 + 9, timestamp),
                100,
            );
        }
        index
    }

    #[test]
    fn the_bytes_are_kafkas() {
        let mut index = sample();
        // The first batch has no entry; the third brings no larger timestamp.
        assert_eq!(
            &index.offset_bytes()[..],
            [
                0, 0, 0, 19, 0, 0, 0, 101, 0, 0, 0, 29, 0, 0, 0, 202, 0, 0, 0, 39, 0, 0, 1, 47
            ]
        );
        let times = [
            0, 0, 0, 0, 0, 0, 0, 70, 0, 0, 0, 19, 0, 0, 0, 0, 0, 0, 0, 80, 0, 0, 0, 39,
        ];
        assert_eq!(&index.time_bytes()[..], times);
        index.push(&batch(404, 10, 1049, 60), 100);
        assert_eq!(index.offsets.len(), 32, "101 bytes after an entry");
        index.push(&batch(414, 10, 1059, 90), 100);
        assert_eq!(index.offsets.len(), 32, "10 bytes after an entry");
        assert_eq!(&index.time_bytes()[..], times);
        index.seal();
        assert_eq!(index.times.len(), 36, "the seal adds the largest timestamp");
        assert_eq!(
            &index.time_bytes()[24..],
            [0, 0, 0, 0, 0, 0, 0, 90, 0, 0, 0, 59]
        );
        index.seal();
        assert_eq!(index.times.len(), 36, "once");
    }

    #[test]
    fn floors() {
        let index = sample();
        let at = |entry: Option<OffsetEntry>| entry.map(|e| (e.last_offset, e.position));
        assert_eq!(at(index.floor(1018)), None);
        assert_eq!(at(index.floor(1019)), Some((1019, 101)));
        assert_eq!(at(index.floor(1028)), Some((1019, 101)));
        assert_eq!(at(index.floor(9999)), Some((1039, 303)));
        assert_eq!(at(index.floor_position(100)), None);
        assert_eq!(at(index.floor_position(302)), Some((1029, 202)));
        let time = |timestamp| index.time_floor(timestamp).map(|e| e.last_offset);
        assert_eq!(
            (time(69), time(70), time(79), time(99)),
            (None, Some(1019), Some(1019), Some(1039))
        );
    }

    #[test]
    fn files_answer_as_memory_does() {
        let disk = MemoryDisk::new();
        let index = sample();
        disk.write_at("a.index", 0, &[&index.offset_bytes()])
            .unwrap();
        disk.write_at("a.timeindex", 0, &[&index.time_bytes()])
            .unwrap();
        let file = IndexFile::open(&disk, "a.index", 1000).unwrap().unwrap();
        let times = TimeIndexFile::open(&disk, "a.timeindex", 1000)
            .unwrap()
            .unwrap();
        for offset in 990..1060 {
            assert_eq!(file.floor(offset).unwrap(), index.floor(offset));
        }
        for position in 0..500 {
            assert_eq!(
                file.floor_position(position).unwrap(),
                index.floor_position(position)
            );
        }
        for timestamp in 0..100 {
            assert_eq!(times.floor(timestamp).unwrap(), index.time_floor(timestamp));
        }
        assert_eq!(file.last().unwrap(), index.floor(i64::MAX));
        disk.write_at("odd.index", 0, &[&[0; 9]]).unwrap();
        assert!(IndexFile::open(&disk, "odd.index", 0).unwrap().is_none());
        assert!(IndexFile::open(&disk, "none.index", 0).unwrap().is_none());
        disk.write_at("negative.index", 0, &[&[255; 8]]).unwrap();
        let negative = IndexFile::open(&disk, "negative.index", 0)
            .unwrap()
            .unwrap();
        assert!(negative.floor(5).is_err());
    }

    #[test]
    fn resuming_gives_the_index_that_was_never_interrupted() {
        let batches: Vec<IndexedBatch> = (0..50)
            .map(|i| batch(i * 37, 37, 1000 + i as i64, (i as i64 * 7919) % 101))
            .collect();
        let mut whole = SegmentIndex::new(1000);
        for batch in &batches {
            whole.push(batch, 100);
        }
        for cut in 0..50 {
            let limit = cut * 37;
            let (mut index, from) =
                SegmentIndex::resume(1000, &whole.offset_bytes(), &whole.time_bytes(), limit);
            assert!(
                from <= limit && limit - from <= 5 * 37,
                "cut {cut} resumes at {from}"
            );
            for batch in batches.iter().filter(|batch| batch.position >= from) {
                match batch.position == from && from > 0 {
                    true => index.push_resumed(batch),
                    false => index.push(batch, 100),
                }
            }
            assert_eq!(index.offset_bytes(), whole.offset_bytes(), "cut {cut}");
            assert_eq!(index.time_bytes(), whole.time_bytes(), "cut {cut}");
            assert_eq!(index.max_timestamp(), whole.max_timestamp(), "cut {cut}");
            assert_eq!(
                index.bytes_since_entry, whole.bytes_since_entry,
                "cut {cut}"
            );
        }
    }

    #[test]
    fn resuming_from_nonsense_begins_anew() {
        let whole = sample();
        let (offsets, times) = (whole.offset_bytes(), whole.time_bytes());
        let check = |offsets: &[u8], times: &[u8]| {
            let (index, from) = SegmentIndex::resume(1000, offsets, times, 1 << 20);
            assert_eq!((index.offsets_len(), from), (0, 0));
        };
        check(&[0; 16], &times);
        check(&offsets[..23], &times);
        check(&offsets, &times[..23]);
        check(&offsets, &[0xff; 12]);
        check(&[&offsets[8..], &offsets[..8]].concat(), &times);
        let (index, from) = SegmentIndex::resume(1000, &offsets, &times, 303);
        assert_eq!((index.offsets_len(), from), (2, 202));
    }

    #[test]
    fn full_as_in_kafka() {
        let index = sample();
        assert!(!index.is_full(48));
        assert!(index.is_full(24), "three offset entries");
        assert!(
            index.is_full(35),
            "room for two time entries, one of them the seal's"
        );
    }
}
