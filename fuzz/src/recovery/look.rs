//! What a recovered partition shows, and what lies in its files.

use crate::partition_world::{DIR, FETCH};
use bytes::Bytes;
use oncelog_commitlog::testing::MemoryDisk;
use oncelog_commitlog::{Disk, read};
use oncelog_partition::{FetchParams, Isolation, Partition};
use oncelog_wire::records::{Batch, Batches};
use std::collections::BTreeMap;

/// What anybody could see of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub start: i64,
    pub end: i64,
    pub batches: Vec<Batch>,
    /// Offsets from which on a read failed, up to the next segment.
    pub unreadable: Vec<i64>,
    /// The newest batch of each producer: id, epoch, sequence, offset.
    pub producers: Vec<(i64, i16, i32, i64)>,
    /// Producer and first offset of what is open.
    pub open: Vec<(i64, i64)>,
    /// Producer and first offset of what is aborted, below the last stable offset.
    pub aborted: Vec<(i64, i64)>,
    pub last_stable_offset: i64,
}

pub fn look(disk: &MemoryDisk, partition: &Partition) -> Seen {
    let mut seen = Seen {
        start: partition.log_start_offset(),
        end: partition.high_watermark(),
        batches: Vec::new(),
        unreadable: Vec::new(),
        producers: Vec::new(),
        open: partition
            .open_transactions()
            .map(|open| (open.producer_id, open.first_offset))
            .collect(),
        aborted: Vec::new(),
        last_stable_offset: partition.last_stable_offset(),
    };
    let mut offset = seen.start;
    while offset < seen.end {
        let Some(batch) = batch_at(disk, partition, offset) else {
            if ends_with_a_gap(disk, offset, seen.end) {
                break;
            }
            seen.unreadable.push(offset);
            let mut names = live_logs(disk).into_keys();
            match names.find(|base| *base > offset) {
                Some(base) => offset = base,
                None => break,
            }
            continue;
        };
        assert!(
            batch.header.last_offset() >= offset,
            "a batch from before {offset}"
        );
        let aborted = aborted_at(partition, offset);
        seen.aborted.extend(aborted);
        offset = batch.header.next_offset();
        seen.batches.push(batch);
    }
    seen.aborted.sort_unstable();
    seen.aborted.dedup();
    for (id, state) in partition.producers().iter() {
        if let Some(last) = state.window.last() {
            let newest = (id, state.epoch, last.last_sequence, last.last_offset);
            seen.producers.push(newest);
        }
    }
    seen
}

/// Whether nothing is missing from `offset` on: an empty segment says where the log ends, and what was
/// lost before it was never acknowledged.
fn ends_with_a_gap(disk: &MemoryDisk, offset: i64, end: i64) -> bool {
    let logs = live_logs(disk);
    let is_empty = |(base, log): (&i64, &Bytes)| *base == end && log.is_empty();
    let last = placed(&logs).pop();
    logs.last_key_value().is_some_and(is_empty)
        && last.is_none_or(|last| last.batch.header.last_offset() < offset)
}

/// The first batch that a reader at this offset is given; `None` if it is refused.
pub fn batch_at(disk: &MemoryDisk, partition: &Partition, offset: i64) -> Option<Batch> {
    let params = FetchParams {
        fetch_offset: offset,
        max_bytes: 1,
        ..FETCH
    };
    let view = partition.fetch(&params).expect("an offset of the log");
    let bytes = read(disk, &view.slice?).ok()?;
    let batch = Batches::new(bytes).next()?;
    Some(batch.expect("a slice is whole batches"))
}

/// What a read_committed reader at this offset is told.
fn aborted_at(partition: &Partition, offset: i64) -> Vec<(i64, i64)> {
    let params = FetchParams {
        fetch_offset: offset,
        isolation: Isolation::ReadCommitted,
        max_bytes: 1,
        ..FETCH
    };
    let view = partition.fetch(&params).expect("an offset of the log");
    let aborted = view.aborted_transactions.expect("is read_committed");
    aborted
        .iter()
        .map(|aborted| (aborted.producer_id, aborted.first_offset))
        .collect()
}

/// The content of each segment, by base offset.
pub fn live_logs(disk: &MemoryDisk) -> BTreeMap<i64, Bytes> {
    let mut logs = BTreeMap::new();
    for name in disk.list(DIR).expect("the directory is there") {
        let base = name.strip_suffix(".log").and_then(|base| base.parse().ok());
        let content = disk.content(&format!("{DIR}/{name}"));
        if let (Some(base), Some(content)) = (base, content) {
            logs.insert(base, Bytes::from(content));
        }
    }
    logs
}

/// A batch's place.
#[derive(Clone, Debug)]
pub struct Placed {
    pub segment: i64,
    pub at: usize,
    pub batch: Batch,
}

/// Every batch of the segments, in order.
pub fn placed(logs: &BTreeMap<i64, Bytes>) -> Vec<Placed> {
    let mut all = Vec::new();
    for (segment, content) in logs {
        let mut at = 0;
        for batch in Batches::with_partial_end(content.clone()).map_while(Result::ok) {
            let segment = *segment;
            let length = batch.bytes.len();
            all.push(Placed { segment, at, batch });
            at += length;
        }
    }
    all
}
