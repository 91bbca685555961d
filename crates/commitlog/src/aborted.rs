//! Aborted transactions: what a read_committed reader has to leave out.
//!
//! Each segment knows the transactions whose abort marker is in it, in memory and, in Kafka's format,
//! in its `.txnindex` file: 34 bytes per transaction, big endian,
//!
//! ```text
//! i16 version = 0, i64 producer id, i64 first offset, i64 last offset (the marker's),
//! i64 last stable offset when the marker was written
//! ```
//!
//! A segment without aborted transactions has no file. A sealed segment's file is whole; the active
//! one's is written with every checkpoint, and before a producer snapshot
//! ([`Log::txn_index_steps`]), so that whoever replays the log from a snapshot on finds again
//! whatever no file says yet.
//!
//! The format has no checksum. The checkpoint counts the entries below the recovery point and has
//! their CRC, so a file that is lost or damaged is noticed ([`crate::recovery`]).
//!
//! Deliberately not here: which transactions there are. The log is told.

use crate::log::{Log, replace_file};
use crate::op::DiskStep;
use crate::segment::Segment;
use bytes::{BufMut, Bytes, BytesMut};
use crc_fast::{CrcAlgorithm, Digest};

/// A transaction that was aborted, Kafka's `AbortedTxn`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AbortedTxn {
    pub producer_id: i64,
    /// Offset of its first batch.
    pub first_offset: i64,
    /// Offset of its marker.
    pub last_offset: i64,
    /// The first offset of the earliest transaction that was open when the marker was written, else
    /// the offset after the marker: no transaction that ended later has anything below.
    pub last_stable_offset: i64,
}

pub(crate) const ENTRY_BYTES: usize = 2 + 4 * 8;
const VERSION: i16 = 0;

impl AbortedTxn {
    fn to_bytes(self) -> [u8; ENTRY_BYTES] {
        let mut bytes = [0; ENTRY_BYTES];
        bytes[..2].copy_from_slice(&VERSION.to_be_bytes());
        let fields = [
            self.producer_id,
            self.first_offset,
            self.last_offset,
            self.last_stable_offset,
        ];
        for (at, field) in bytes[2..].chunks_exact_mut(8).zip(fields) {
            at.copy_from_slice(&field.to_be_bytes());
        }
        bytes
    }

    /// `None` for what cannot be.
    fn parse(bytes: &[u8; ENTRY_BYTES]) -> Option<AbortedTxn> {
        let (version, rest) = bytes.split_first_chunk()?;
        let mut fields = rest
            .as_chunks::<8>()
            .0
            .iter()
            .copied()
            .map(i64::from_be_bytes);
        let entry = AbortedTxn {
            producer_id: fields.next()?,
            first_offset: fields.next()?,
            last_offset: fields.next()?,
            last_stable_offset: fields.next()?,
        };
        let sound = i16::from_be_bytes(*version) == VERSION
            && entry.producer_id >= 0
            && (0..entry.last_offset).contains(&entry.first_offset)
            && entry.last_stable_offset >= 0;
        sound.then_some(entry)
    }
}

/// The content of a `.txnindex`.
pub(crate) fn encode(entries: &[AbortedTxn]) -> Bytes {
    let mut content = BytesMut::with_capacity(entries.len() * ENTRY_BYTES);
    for entry in entries {
        content.put_slice(&entry.to_bytes());
    }
    content.freeze()
}

/// `None` for what [`encode`] cannot have made of any segment's list.
pub(crate) fn decode(content: &[u8]) -> Option<Vec<AbortedTxn>> {
    let (entries, rest) = content.as_chunks::<ENTRY_BYTES>();
    let entries = entries.iter().map(AbortedTxn::parse);
    let entries = entries.collect::<Option<Vec<AbortedTxn>>>()?;
    let rise = entries
        .windows(2)
        .all(|pair| pair[0].last_offset < pair[1].last_offset);
    (rest.is_empty() && rise).then_some(entries)
}

/// What a checkpoint says about a segment's list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AbortedSummary {
    pub base_offset: i64,
    /// Entries below the recovery point.
    pub count: u64,
    /// CRC-32C of those entries as the file has them.
    pub crc: u32,
}

impl AbortedSummary {
    pub fn of(base_offset: i64, entries: &[AbortedTxn]) -> AbortedSummary {
        let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
        for entry in entries {
            digest.update(&entry.to_bytes());
        }
        AbortedSummary {
            base_offset,
            count: entries.len() as u64,
            crc: digest.finalize() as u32,
        }
    }

    /// Whether a list begins with the entries that were counted.
    pub fn fits(&self, entries: &[AbortedTxn]) -> bool {
        let count = usize::try_from(self.count).unwrap_or(usize::MAX);
        let counted = entries.get(..count);
        counted.is_some_and(|counted| AbortedSummary::of(self.base_offset, counted) == *self)
    }
}

impl Segment {
    /// Aborted transactions whose markers lie below `offset`.
    pub(crate) fn aborted_below(&self, offset: i64) -> &[AbortedTxn] {
        let count = self.aborted.partition_point(|a| a.last_offset < offset);
        &self.aborted[..count]
    }
}

impl Log {
    /// The marker that was just appended has aborted a transaction.
    ///
    /// # Panics
    /// If the marker is not in the active segment, or not behind the one before it.
    pub fn note_aborted(&mut self, aborted: AbortedTxn) {
        let active = self.active_mut();
        let last = active
            .aborted
            .last()
            .map_or(-1, |before| before.last_offset);
        let here = last.max(active.base_offset - 1) + 1..active.next_offset;
        assert!(
            here.contains(&aborted.last_offset),
            "{aborted:?} in {here:?}"
        );
        active.aborted.push(aborted);
    }

    /// Aborted transactions that have something in `from_offset..upper_bound`, by their markers.
    pub fn aborted_transactions(&self, from_offset: i64, upper_bound: i64) -> Vec<AbortedTxn> {
        let mut found = Vec::new();
        let first = self
            .segments
            .partition_point(|s| s.next_offset <= from_offset);
        for segment in self.segments.range(first..) {
            let below = segment.aborted_below(from_offset).len();
            for aborted in &segment.aborted[below..] {
                if aborted.first_offset < upper_bound {
                    found.push(*aborted);
                }
                if aborted.last_stable_offset >= upper_bound {
                    return found;
                }
            }
        }
        found
    }

    /// Steps that bring the active segment's `.txnindex` up to date.
    pub fn txn_index_steps(&mut self) -> Vec<DiskStep> {
        let dir = self.dir.clone();
        let active = self.active_mut();
        if active.aborted_saved == active.aborted.len() {
            return Vec::new();
        }
        active.aborted_saved = active.aborted.len();
        let file = active.txn_index_file(&dir);
        let mut steps = match active.aborted.as_slice() {
            [] => vec![DiskStep::Remove { file }],
            entries => replace_file(file, encode(entries)),
        };
        steps.push(DiskStep::SyncDir { dir });
        steps
    }

    /// What the checkpoint that is being written says about the lists, given its recovery point.
    pub(crate) fn aborted_summaries(&self, recovery_point: i64) -> Vec<AbortedSummary> {
        let lists = self.segments.iter().map(|segment| {
            let below = segment.aborted_below(recovery_point);
            (segment.base_offset, below)
        });
        let lists = lists.filter(|(_, entries)| !entries.is_empty());
        lists
            .map(|(base_offset, entries)| AbortedSummary::of(base_offset, entries))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(producer_id: i64, first_offset: i64, last_offset: i64) -> AbortedTxn {
        AbortedTxn {
            producer_id,
            first_offset,
            last_offset,
            last_stable_offset: last_offset + 1,
        }
    }

    #[test]
    fn the_bytes_are_kafkas() {
        let content = encode(&[entry(7, 1, 5)]);
        let mut expected = vec![0, 0];
        for field in [7i64, 1, 5, 6] {
            expected.extend(field.to_be_bytes());
        }
        assert_eq!(content, expected);
        assert_eq!(decode(&content), Some(vec![entry(7, 1, 5)]));
        assert_eq!(decode(&[]), Some(Vec::new()));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let good = encode(&[entry(7, 1, 5), entry(8, 2, 9)]).to_vec();
        for length in (1..good.len()).filter(|length| length % ENTRY_BYTES != 0) {
            assert_eq!(decode(&good[..length]), None, "cut at {length}");
        }
        assert_eq!(decode(&encode(&[entry(8, 2, 9), entry(7, 1, 5)])), None);
        assert_eq!(decode(&encode(&[entry(-1, 1, 5)])), None);
        assert_eq!(decode(&encode(&[entry(7, 5, 5)])), None);
        let mut newer = good;
        newer[1] = 1;
        assert_eq!(decode(&newer), None);
    }

    #[test]
    fn a_summary_fits_what_it_counted_and_no_other() {
        let entries = [entry(7, 1, 5), entry(8, 2, 9)];
        let summary = AbortedSummary::of(0, &entries[..1]);
        assert!(summary.fits(&entries) && summary.fits(&entries[..1]));
        assert!(!summary.fits(&[]) && !summary.fits(&entries[1..]));
    }
}
