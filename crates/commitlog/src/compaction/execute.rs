//! The reading and writing of a compaction step.
//!
//! Every batch's CRC is checked before it is copied: damage ends the step with an error and the
//! log as it is, it is neither dropped nor passed on.

use super::filter::{Filter, Kept, records_of};
use super::key_map::KeyMap;
use super::transactions::{Aborted, Walk};
use super::{
    CompactionOutcome, CompactionPlan, GroupResult, Keys, NewSegment, Planned, cleaned_files,
};
use crate::aborted::{self, AbortedTxn};
use crate::disk::{Disk, FileName};
use crate::file_names::{LOG, segment_file};
use crate::index::{IndexedBatch, NO_TIMESTAMP, SegmentIndex};
use crate::limits;
use crate::scan::Scanner;
use bytes::Bytes;
use oncelog_wire::records::{Batch, BatchError, BatchHeader};
use std::io;
use std::sync::Arc;

/// Carries one step out.
pub(crate) fn execute(disk: &dyn Disk, plan: &CompactionPlan) -> io::Result<CompactionOutcome> {
    let keys = match &plan.keys {
        Some(keys) => keys.clone(),
        None => Arc::new(read_keys(disk, plan)?),
    };
    let group_len = group_len(plan, &keys);
    let group = &plan.segments[..group_len];
    let mut walk = Walk {
        in_transaction: plan.in_transaction.clone(),
    };
    let result = match group {
        [] => GroupResult::Unchanged,
        group => rewrite(disk, plan, &keys, group, &mut walk)?,
    };
    Ok(CompactionOutcome {
        plan: plan.clone(),
        keys,
        group_len,
        in_transaction: walk.in_transaction,
        result,
    })
}

/// The last offset of each key in the dirty section, as far as memory allows.
fn read_keys(disk: &dyn Disk, plan: &CompactionPlan) -> io::Result<Keys> {
    let aborted = Aborted::new(&plan.aborted);
    let mut last_offsets = KeyMap::new(plan.keys_max);
    let mut end_offset = plan.first_dirty_offset;
    for segment in &plan.segments {
        if segment.next_offset <= plan.first_dirty_offset {
            continue;
        }
        let mut stopped = None;
        for_each_batch(disk, plan, segment, |batch| {
            if batch.header.is_control() || aborted.contains(&batch.header) {
                return Ok(true);
            }
            let stop = read_batch_keys(batch, plan.first_dirty_offset, &mut last_offsets)?;
            stopped = stop;
            Ok(stop.is_none())
        })?;
        if let Some(stopped) = stopped {
            end_offset = stopped;
            break;
        }
        end_offset = segment.next_offset;
    }
    Ok(Keys {
        last_offsets,
        end_offset,
    })
}

/// Notes the keys of a batch; `Some(offset)` if the section must end there.
fn read_batch_keys(
    batch: &Batch,
    first_dirty_offset: i64,
    last_offsets: &mut KeyMap,
) -> io::Result<Option<i64>> {
    if batch.header.next_offset() <= first_dirty_offset {
        return Ok(None);
    }
    for record in records_of(batch).map_err(invalid)? {
        let record = record.map_err(invalid)?;
        let Some(key) = record.key.filter(|_| record.offset >= first_dirty_offset) else {
            continue;
        };
        if !last_offsets.put(&key, record.offset) {
            return Ok(Some(record.offset));
        }
    }
    Ok(None)
}

/// How many of the plan's segments, from the first on, become one; 0 if the dirty section turned
/// out to be empty.
fn group_len(plan: &CompactionPlan, keys: &Keys) -> usize {
    let Some(first) = plan.segments.first() else {
        return 0;
    };
    if keys.end_offset <= plan.first_dirty_offset {
        return 0;
    }
    let mut bytes = 0;
    let fits = |segment: &&Planned| {
        bytes += segment.size;
        let alone = segment.base_offset == first.base_offset;
        let offsets = segment.next_offset - first.base_offset;
        segment.base_offset < keys.end_offset
            && (alone || bytes <= plan.segment_bytes && offsets <= i64::from(i32::MAX))
    };
    plan.segments.iter().take_while(fits).count()
}

fn rewrite(
    disk: &dyn Disk,
    plan: &CompactionPlan,
    keys: &Keys,
    group: &[Planned],
    walk: &mut Walk,
) -> io::Result<GroupResult> {
    let aborted = Aborted::new(&plan.aborted);
    let filter = Filter {
        keys,
        keep_batches: &plan.keep_batches,
        aborted: &aborted,
        now_ms: plan.now_ms,
        delete_retention_ms: plan.delete_retention_ms,
    };
    let mut output = Output::begin(disk, plan, group[0].base_offset)?;
    let mut changed = group.len() > 1;
    for segment in group {
        for_each_batch(disk, plan, segment, |batch| {
            let met = walk.meet(&batch.header);
            let kept = filter.apply(batch, met).map_err(invalid)?;
            changed |= kept != Kept::Whole;
            if batch.header.is_control() && filter.stays_listed(&batch.header, met) {
                let listed = aborted.by_marker(batch.header.base_offset);
                output.aborted.extend(listed);
            }
            match kept {
                Kept::Whole => output.push(&batch.bytes)?,
                Kept::Rewritten(bytes) => output.push(&bytes)?,
                Kept::Nothing => {}
            }
            Ok(true)
        })?;
    }
    if changed && output.size > 0 {
        return Ok(GroupResult::Rewritten(output.finish()?));
    }
    output.remove()?;
    Ok(match changed {
        true => GroupResult::Emptied,
        false => GroupResult::Unchanged,
    })
}

/// Visits the batches of a segment for as long as the visitor returns true.
///
/// Their offsets, which the CRC does not cover, rise and lie within the segment: a record under a
/// wrong one would be taken for the newest of its key.
fn for_each_batch(
    disk: &dyn Disk,
    plan: &CompactionPlan,
    segment: &Planned,
    mut visit: impl FnMut(&Batch) -> io::Result<bool>,
) -> io::Result<()> {
    let file = segment_file(&plan.dir, segment.base_offset, LOG);
    let mut scanner = Scanner::new(disk, &file, 0, segment.size, limits::SCAN_CHUNK_BYTES);
    let mut expected = segment.base_offset;
    while let Some(step) = scanner.next_checked()? {
        let found = step.map_err(|flaw| flaw.into_error(&file))?;
        let header = &found.header;
        let sound = header.base_offset >= expected && header.last_offset() < segment.next_offset;
        let bytes = scanner.read(&found)?;
        let goes_on = match sound {
            true => Batch::parse(&bytes)
                .map_err(invalid)
                .and_then(|batch| visit(&batch)),
            false => Err(misplaced(header, expected)),
        };
        expected = header.next_offset();
        let goes_on = goes_on.map_err(|error| {
            let message = format!("{file} at byte {}: {error}", found.position);
            io::Error::new(error.kind(), message)
        })?;
        if !goes_on {
            break;
        }
    }
    Ok(())
}

fn misplaced(header: &BatchHeader, expected: i64) -> io::Error {
    let (first, last) = (header.base_offset, header.last_offset());
    let message = format!("offsets {first} to {last} where {expected} or more is expected");
    io::Error::new(io::ErrorKind::InvalidData, message)
}

fn invalid(error: BatchError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// A segment that is being written under `.cleaned` names.
struct Output<'a> {
    disk: &'a dyn Disk,
    /// Index, time index, transaction index, log.
    files: [FileName; 4],
    base_offset: i64,
    interval_bytes: u64,
    index: SegmentIndex,
    /// Bytes pushed, and how many of them are written.
    size: u64,
    written: u64,
    pending: Vec<u8>,
    next_offset: i64,
    first_timestamp: i64,
    aborted: Vec<AbortedTxn>,
}

impl<'a> Output<'a> {
    fn begin(disk: &'a dyn Disk, plan: &CompactionPlan, base_offset: i64) -> io::Result<Self> {
        let output = Output {
            disk,
            files: cleaned_files(&plan.dir, base_offset),
            base_offset,
            interval_bytes: plan.index_interval_bytes,
            index: SegmentIndex::new(base_offset),
            size: 0,
            written: 0,
            pending: Vec::new(),
            next_offset: base_offset,
            first_timestamp: NO_TIMESTAMP,
            aborted: Vec::new(),
        };
        output.remove()?; // what a step that failed has left
        Ok(output)
    }

    fn push(&mut self, batch: &Bytes) -> io::Result<()> {
        let header = BatchHeader::parse(batch).map_err(invalid)?;
        let size = batch.len() as u64;
        if self.size + size > limits::SEGMENT_BYTES_MAX {
            let message = "the compacted segment does not fit 2 GiB";
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        let batch_at = IndexedBatch::new(&header, self.size, size);
        self.index.push(&batch_at, self.interval_bytes);
        if self.size == 0 {
            self.first_timestamp = batch_at.max_timestamp;
        }
        self.size += size;
        self.next_offset = header.next_offset();
        self.pending.extend_from_slice(batch);
        if self.pending.len() >= limits::SCAN_CHUNK_BYTES {
            self.write()?;
        }
        Ok(())
    }

    fn write(&mut self) -> io::Result<()> {
        let [_, _, _, log] = &self.files;
        self.disk.write_at(log, self.written, &[&self.pending])?;
        self.written += self.pending.len() as u64;
        self.pending.clear();
        Ok(())
    }

    fn finish(mut self) -> io::Result<NewSegment> {
        if !self.pending.is_empty() {
            self.write()?;
        }
        self.index.seal();
        let [index, times, transactions, log] = &self.files;
        self.disk
            .write_at(index, 0, &[&self.index.offset_bytes()])?;
        self.disk.write_at(times, 0, &[&self.index.time_bytes()])?;
        if !self.aborted.is_empty() {
            let entries = aborted::encode(&self.aborted);
            self.disk.write_at(transactions, 0, &[&entries])?;
            self.disk.sync(transactions)?;
        }
        for file in [index, times, log] {
            self.disk.sync(file)?;
        }
        Ok(NewSegment {
            base_offset: self.base_offset,
            size: self.size,
            next_offset: self.next_offset,
            first_timestamp: self.first_timestamp,
            max_timestamp: self.index.max_timestamp(),
            aborted: self.aborted,
        })
    }

    fn remove(&self) -> io::Result<()> {
        self.files
            .iter()
            .try_for_each(|file| self.disk.remove(file))
    }
}
