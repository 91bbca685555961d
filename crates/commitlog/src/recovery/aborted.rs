//! The lists of aborted transactions, from `.txnindex` files and from the log.

use super::directory::FoundSegment;
use super::{RecoveryError, RecoveryReport, Result};
use crate::aborted::{self, AbortedSummary, AbortedTxn};
use crate::checkpoint::Checkpoint;
use crate::disk::{Disk, read_file};
use crate::execute::execute_step;
use crate::limits;
use crate::log::{Log, replace_file};
use crate::op::DiskStep;
use crate::segment::TXN_INDEX_UNFIT;
use std::io;

/// Reads what the checkpoint vouches for in the files; whether all of that is there. Whatever else they
/// say is in the log, too.
pub(super) fn load(
    disk: &dyn Disk,
    log: &mut Log,
    found: &[FoundSegment],
    checkpoint: Option<&Checkpoint>,
    report: &mut RecoveryReport,
) -> Result<bool> {
    let dir = log.dir.clone();
    let mut complete = true;
    for segment in &mut log.segments {
        let file = segment.txn_index_file(&dir);
        let has_file = found
            .iter()
            .any(|f| f.has_txn_index && f.base_offset == segment.base_offset);
        let mut read = Vec::new();
        if has_file {
            let content = read_file(disk, &file, limits::CHECKPOINT_FILE_BYTES_MAX);
            let content = content.map_err(RecoveryError::io(&file))?;
            let decoded = content.and_then(|content| aborted::decode(&content));
            read = decoded.unwrap_or_default();
        }
        let counted = counted(segment.base_offset, checkpoint);
        let in_file = read.len();
        if counted.fits(&read) {
            read.truncate(counted.count as usize);
        } else {
            report.note(format!(
                "the .txnindex of the segment at {} is lost or damaged; rebuilt from the log",
                segment.base_offset
            ));
            complete = false;
            read.clear();
        }
        segment.aborted_saved = match has_file && (read.is_empty() || read.len() < in_file) {
            true => TXN_INDEX_UNFIT,
            false => read.len(),
        };
        segment.aborted = read;
    }
    Ok(complete)
}

/// What the checkpoint says of a segment's list: nothing if there was none below its recovery point, or
/// if a compaction has left none.
fn counted(base_offset: i64, checkpoint: Option<&Checkpoint>) -> AbortedSummary {
    let mut all = checkpoint.iter().flat_map(|checkpoint| &checkpoint.aborted);
    let counted = all.find(|summary| summary.base_offset == base_offset);
    counted.map_or_else(|| AbortedSummary::of(base_offset, &[]), |found| *found)
}

/// Replaces what is known about markers at or past `from_offset` by `found`, which lists them all,
/// and makes every segment's file agree with its list.
///
/// Only for a log that was just recovered. Idempotent, as all of recovery.
pub fn restore_aborted(
    disk: &dyn Disk,
    log: &mut Log,
    from_offset: i64,
    found: &[AbortedTxn],
) -> io::Result<()> {
    let dir = log.dir.clone();
    let mut steps = Vec::new();
    for segment in &mut log.segments {
        let offsets = segment.base_offset.max(from_offset)..segment.next_offset;
        let mut list = segment.aborted_below(from_offset).to_vec();
        list.extend(found.iter().filter(|a| offsets.contains(&a.last_offset)));
        // Offsets are outside of a batch's CRC: on a damaged disk they need not rise.
        list.sort_by_key(|aborted| aborted.last_offset);
        list.dedup_by_key(|aborted| aborted.last_offset);
        if list != segment.aborted {
            segment.aborted = list;
            segment.aborted_saved = TXN_INDEX_UNFIT;
        }
        if segment.aborted_saved == segment.aborted.len() {
            continue;
        }
        segment.aborted_saved = segment.aborted.len();
        let file = segment.txn_index_file(&dir);
        match segment.aborted.as_slice() {
            [] => steps.push(DiskStep::Remove { file }),
            list => steps.extend(replace_file(file, aborted::encode(list))),
        }
    }
    if !steps.is_empty() {
        steps.push(DiskStep::SyncDir { dir });
    }
    steps.iter().try_for_each(|step| execute_step(disk, step))
}
