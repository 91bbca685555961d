//! What became of the transactions that a partition's batches belong to.
//!
//! Below the last stable offset the leader's list of aborted transactions says it. Above, where
//! a transaction is open, the markers say it that lie between there and the end.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use oncelog_wire::records::{Batch, ControlRecord, EndTxn};

use crate::admin::fetch::{Isolation, Source};
use crate::admin::offsets::TopicPartition;
use crate::failure::Failure;

/// One control record is all that a control batch holds.
const CONTROL_BYTES_MAX: usize = 1 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Not of a transaction.
    Plain,
    Committed,
    Aborted,
    Open,
}

impl Fate {
    /// None if the records are of no transaction.
    pub fn name(self) -> Option<&'static str> {
        match self {
            Fate::Plain => None,
            Fate::Committed => Some("committed"),
            Fate::Aborted => Some("aborted"),
            Fate::Open => Some("open"),
        }
    }
}

/// How far a partition goes, for two kinds of readers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    pub last_stable_offset: i64,
    pub high_watermark: i64,
}

/// Both ends, as the leader tells them with an answer from `offset` on.
pub fn ends(
    source: &mut Source<'_, '_>,
    partition: &TopicPartition,
    offset: i64,
) -> Result<Ends, Failure> {
    let fetched = source.fetch(partition, offset, Isolation::ReadCommitted)?;
    Ok(Ends {
        last_stable_offset: fetched.last_stable_offset,
        high_watermark: fetched.high_watermark,
    })
}

/// Every batch of the range that holds a client's records, in order, with its fate. A batch may
/// reach over both ends of the range. Stops early when `each` says so with `false`.
pub fn scan(
    source: &mut Source<'_, '_>,
    partition: &TopicPartition,
    range: Range<i64>,
    ends: Ends,
    each: &mut dyn FnMut(&Batch, Fate) -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let stable = range.start..range.end.min(ends.last_stable_offset);
    let mut is_over = false;
    let mut aborted = Aborted::default();
    batches(
        source,
        partition,
        stable,
        Isolation::ReadCommitted,
        |batch, list| {
            if let Some(list) = list {
                aborted = Aborted::new(list);
            }
            let Some(fate) = aborted.fate(batch) else {
                return Ok(true);
            };
            is_over = !each(batch, fate)?;
            Ok(!is_over)
        },
    )?;
    let unstable = range.start.max(ends.last_stable_offset)..range.end.min(ends.high_watermark);
    if is_over || unstable.is_empty() {
        return Ok(());
    }
    let mut markers = Markers::default();
    // A marker is behind its batches: the whole rest may tell.
    let rest = unstable.start..ends.high_watermark;
    batches(
        source,
        partition,
        rest,
        Isolation::ReadUncommitted,
        |batch, _| {
            markers.note(batch);
            Ok(true)
        },
    )?;
    batches(
        source,
        partition,
        unstable,
        Isolation::ReadUncommitted,
        |batch, _| match markers.fate(batch) {
            Some(fate) => each(batch, fate),
            None => Ok(true),
        },
    )
}

/// Calls `each` with every batch of the range, and the aborted transactions with the first one of
/// each answer.
fn batches(
    source: &mut Source<'_, '_>,
    partition: &TopicPartition,
    range: Range<i64>,
    isolation: Isolation,
    mut each: impl FnMut(&Batch, Option<&[(i64, i64)]>) -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let mut next = range.start;
    while next < range.end {
        let fetched = source.fetch(partition, next, isolation)?;
        let Some(last) = fetched.batches.last() else {
            return Ok(());
        };
        next = last.header.next_offset();
        let mut list = Some(fetched.aborted.as_slice());
        for batch in &fetched.batches {
            let is_wanted = batch.header.base_offset < range.end;
            if !is_wanted || !each(batch, list.take())? {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// The leader's list, followed through the batches of the same answer.
#[derive(Default)]
struct Aborted {
    /// First offset and producer of transactions that are not reached yet.
    ahead: BTreeSet<(i64, i64)>,
    /// Producers whose transaction is being read.
    current: BTreeSet<i64>,
}

impl Aborted {
    fn new(list: &[(i64, i64)]) -> Aborted {
        let ahead = list
            .iter()
            .map(|&(producer_id, first)| (first, producer_id));
        Aborted {
            ahead: ahead.collect(),
            current: BTreeSet::new(),
        }
    }

    /// None for a control batch.
    fn fate(&mut self, batch: &Batch) -> Option<Fate> {
        let header = &batch.header;
        while let Some(&(first, producer_id)) = self.ahead.first()
            && first <= header.last_offset()
        {
            self.ahead.pop_first();
            self.current.insert(producer_id);
        }
        if header.is_control() {
            if marker(batch) == Some(EndTxn::Abort) {
                self.current.remove(&header.producer_id);
            }
            return None;
        }
        Some(match () {
            () if !header.is_transactional() => Fate::Plain,
            () if self.current.contains(&header.producer_id) => Fate::Aborted,
            () => Fate::Committed,
        })
    }
}

/// Producer -> offsets and kinds of its markers.
#[derive(Default)]
struct Markers(BTreeMap<i64, BTreeMap<i64, EndTxn>>);

impl Markers {
    fn note(&mut self, batch: &Batch) {
        let header = &batch.header;
        if header.is_control()
            && let Some(end) = marker(batch)
        {
            let of_producer = self.0.entry(header.producer_id).or_default();
            of_producer.insert(header.base_offset, end);
        }
    }

    /// None for a control batch.
    fn fate(&self, batch: &Batch) -> Option<Fate> {
        let header = &batch.header;
        if header.is_control() {
            return None;
        }
        if !header.is_transactional() {
            return Some(Fate::Plain);
        }
        let markers = self.0.get(&header.producer_id);
        let end = markers.and_then(|markers| markers.range(header.next_offset()..).next());
        Some(match end {
            None => Fate::Open,
            Some((_, EndTxn::Commit)) => Fate::Committed,
            Some((_, EndTxn::Abort)) => Fate::Aborted,
        })
    }
}

/// What a control batch ends, if it is a marker.
fn marker(batch: &Batch) -> Option<EndTxn> {
    let record = batch.records(CONTROL_BYTES_MAX).ok()?.next()?.ok()?;
    match ControlRecord::parse(&record)? {
        ControlRecord::EndTxn { result, .. } => Some(result),
        ControlRecord::Other(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oncelog_wire::records::BatchBuilder;

    /// `7` records of producer 7's transaction, `7c` and `7a` its markers, `.` a plain record; each
    /// a batch of two offsets, a marker of one.
    fn log(words: &str) -> Vec<Batch> {
        let mut next = 0;
        let batch = |word: &str| {
            let producer_id = word.trim_end_matches(['a', 'c']).parse().unwrap_or(-1);
            let bytes = match word.chars().last() {
                Some(end @ ('a' | 'c')) => {
                    let end = if end == 'a' {
                        EndTxn::Abort
                    } else {
                        EndTxn::Commit
                    };
                    BatchBuilder::end_txn_marker(0, producer_id, 0, end, 0)
                }
                _ => {
                    let mut builder = BatchBuilder::new();
                    if producer_id >= 0 {
                        builder = builder.producer(producer_id, 0, 0).transactional(true);
                    }
                    builder.append(0, None, Some(b"a"), &[]);
                    builder.append(0, None, Some(b"b"), &[]);
                    builder.build()
                }
            };
            let mut batch = Batch::parse(&bytes).unwrap();
            batch.header.base_offset = next;
            next = batch.header.next_offset();
            batch
        };
        words.split_whitespace().map(batch).collect()
    }

    fn shown(fates: impl Iterator<Item = Option<Fate>>) -> String {
        let letters = fates.map(|fate| match fate {
            None => '|',
            Some(Fate::Plain) => '.',
            Some(Fate::Committed) => 'c',
            Some(Fate::Aborted) => 'a',
            Some(Fate::Open) => 'o',
        });
        letters.collect()
    }

    #[test]
    fn below_the_stable_offset_the_list_tells() {
        // Offsets:      0 2 4 6  7 9  10 12 13
        let log = log("7 . 8 7a 7 8c 7  7c 7");
        let fates = |list: &[(i64, i64)], from: usize| {
            let mut aborted = Aborted::new(list);
            shown(log[from..].iter().map(|batch| aborted.fate(batch)))
        };
        assert_eq!(fates(&[(7, 0)], 0), "a.c|c|c|c");
        assert_eq!(fates(&[], 0), "c.c|c|c|c");
        // From the middle on the list still has the transaction that reaches into what is read.
        assert_eq!(fates(&[(7, 0)], 1), ".c|c|c|c");
        assert_eq!(fates(&[(7, 7), (8, 4)], 0), "c.a|a|a|a");
    }

    #[test]
    fn above_it_the_markers_tell() {
        let log = log("7 . 8 7a 7 8c 7 7c 7 9");
        let mut markers = Markers::default();
        log.iter().for_each(|batch| markers.note(batch));
        let fates = log.iter().map(|batch| markers.fate(batch));
        assert_eq!(shown(fates), "a.c|c|c|oo");
    }
}
