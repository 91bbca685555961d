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
use crate::segment::{Segment, TXN_INDEX_UNFIT};
use std::io;

/// Reads the files; whether none is lost or damaged, as far as the checkpoint and the files say.
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
        let mut sound = true;
        if has_file {
            let content = read_file(disk, &file, limits::CHECKPOINT_FILE_BYTES_MAX);
            let content = content.map_err(RecoveryError::io(&file))?;
            let read = content.and_then(|content| aborted::decode(&content));
            let offsets = segment.base_offset..i64::MAX;
            match read.filter(|read| read.iter().all(|a| offsets.contains(&a.last_offset))) {
                Some(read) => accept(segment, read),
                None => {
                    segment.aborted_saved = TXN_INDEX_UNFIT;
                    sound = false;
                }
            }
        }
        if let Some(checkpoint) = checkpoint {
            sound &= agrees(segment, checkpoint);
        }
        if !sound {
            report.note(format!(
                "the .txnindex of the segment at {} is lost or damaged; rebuilt from the log",
                segment.base_offset
            ));
        }
        complete &= sound;
    }
    Ok(complete)
}

/// Takes over what the file says about offsets that the segment still has.
fn accept(segment: &mut Segment, mut read: Vec<AbortedTxn>) {
    let count = read.len();
    read.retain(|aborted| aborted.last_offset < segment.next_offset);
    segment.aborted_saved = match read.len() == count && count > 0 {
        true => count,
        false => TXN_INDEX_UNFIT,
    };
    segment.aborted = read;
}

/// Compares with what the checkpoint counted. A file of a counted segment that the checkpoint says
/// nothing about is what a compaction has replaced by nothing.
fn agrees(segment: &mut Segment, checkpoint: &Checkpoint) -> bool {
    let base_offset = segment.base_offset;
    let nothing = AbortedSummary::of(base_offset, &[]);
    let mut counted = checkpoint.aborted.iter();
    let counted = counted.find(|summary| summary.base_offset == base_offset);
    let counted = counted.unwrap_or(&nothing);
    let fits = counted.fits(&segment.aborted);
    let whole = segment.next_offset <= checkpoint.recovery_point.offset;
    if fits && whole && segment.aborted.len() as u64 > counted.count {
        segment.aborted.truncate(counted.count as usize);
        segment.aborted_saved = TXN_INDEX_UNFIT;
    }
    fits
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
