//! Which files are part of the log: finishes what a crash interrupted, and compares with the
//! checkpoint.

use super::{RecoveryError, RecoveryReport, Result};
use crate::checkpoint::{Checkpoint, Swap};
use crate::disk::Disk;
use crate::execute::execute_step;
use crate::file_names::{
    CHECKPOINT, LOG, Meaning, SEGMENT_KINDS, SWAP, TXN_INDEX, in_dir, meaning, segment_file,
    with_suffix,
};
use crate::limits;
use crate::log::replace_file;
use crate::op::DiskStep;
use crate::scan::Scanner;
use std::collections::BTreeMap;

/// A segment's file, as it is on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FoundSegment {
    pub base_offset: i64,
    pub bytes: u64,
    pub has_txn_index: bool,
}

/// Removes leftovers; completes a compaction's swap that was committed, undoes one that was not.
pub(super) fn finish_interrupted(
    disk: &dyn Disk,
    dir: &str,
    checkpoint: Option<&Checkpoint>,
    report: &mut RecoveryReport,
) -> Result<()> {
    let names = disk.list(dir).map_err(RecoveryError::io(dir))?;
    let mut swaps = BTreeMap::<i64, Vec<&'static str>>::new();
    let mut changed = false;
    for name in &names {
        match meaning(name) {
            Meaning::Leftover => {
                remove(disk, &in_dir(dir, name))?;
                changed = true;
            }
            Meaning::Swap { base_offset, kind } => swaps.entry(base_offset).or_default().push(kind),
            Meaning::Live { .. } | Meaning::Other => {}
        }
    }
    let committed = checkpoint.and_then(|checkpoint| checkpoint.swap.as_ref());
    if let (Some(checkpoint), Some(swap)) = (checkpoint, committed) {
        let kinds = swap.replacement.and_then(|base| swaps.remove(&base));
        complete(disk, dir, swap, &kinds.unwrap_or_default(), report)?;
        forget_swap(disk, dir, checkpoint)?;
    }
    for (base_offset, kinds) in swaps {
        if checkpoint.is_none() && kinds.contains(&LOG) {
            let swap = uncommitted_swap(disk, dir, base_offset, &names)?;
            complete(disk, dir, &swap, &kinds, report)?;
            continue;
        }
        for kind in kinds {
            remove(
                disk,
                &with_suffix(&segment_file(dir, base_offset, kind), SWAP),
            )?;
            changed = true;
        }
    }
    if changed {
        disk.sync_dir(dir).map_err(RecoveryError::io(dir))?;
    }
    Ok(())
}

/// Steps 4 and 5 of the protocol in [`crate::compaction`].
fn complete(
    disk: &dyn Disk,
    dir: &str,
    swap: &Swap,
    kinds: &[&'static str],
    report: &mut RecoveryReport,
) -> Result<()> {
    let gone = |base: &&i64| Some(**base) != swap.replacement;
    let bases: Vec<i64> = swap.replaced.iter().filter(gone).copied().collect();
    remove_segments(disk, dir, &bases)?;
    let Some(base_offset) = swap.replacement else {
        return Ok(());
    };
    // The log last, as everywhere.
    for kind in SEGMENT_KINDS
        .into_iter()
        .filter(|kind| kinds.contains(kind))
    {
        let file = segment_file(dir, base_offset, kind);
        let rename = disk.rename(&with_suffix(&file, SWAP), &file);
        rename.map_err(RecoveryError::io(&file))?;
    }
    if !kinds.is_empty() {
        report.note(format!(
            "completed the compaction of the segment at {base_offset}"
        ));
        disk.sync_dir(dir).map_err(RecoveryError::io(dir))?;
    }
    Ok(())
}

/// Step 6: a later `.swap` file of the same name must not be taken for this one's.
fn forget_swap(disk: &dyn Disk, dir: &str, checkpoint: &Checkpoint) -> Result<()> {
    let without = Checkpoint {
        swap: None,
        ..checkpoint.clone()
    };
    let mut steps = replace_file(in_dir(dir, CHECKPOINT), without.encode().into());
    steps.push(DiskStep::SyncDir { dir: dir.into() });
    for step in &steps {
        execute_step(disk, step).map_err(RecoveryError::io(dir))?;
    }
    Ok(())
}

/// A `.swap` file without a checkpoint (Kafka's): it replaces the segments whose offsets it spans.
fn uncommitted_swap(
    disk: &dyn Disk,
    dir: &str,
    base_offset: i64,
    names: &[String],
) -> Result<Swap> {
    let file = with_suffix(&segment_file(dir, base_offset, LOG), SWAP);
    let io = RecoveryError::io(&file);
    let bytes = disk.len(&file).map_err(&io)?.unwrap_or(0);
    let mut scanner = Scanner::new(disk, &file, 0, bytes, limits::SCAN_CHUNK_BYTES);
    let mut next_offset = base_offset;
    while let Some(Ok(found)) = scanner.next().map_err(&io)? {
        next_offset = found.header.next_offset();
    }
    let replaced = names.iter().filter_map(|name| match meaning(name) {
        Meaning::Live {
            base_offset: base,
            kind: LOG,
        } if (base_offset..next_offset).contains(&base) => Some(base),
        _ => None,
    });
    Ok(Swap {
        replaced: replaced.collect(),
        replacement: Some(base_offset),
    })
}

/// The log's segments, in order, as far as the checkpoint goes all that it counts.
pub(super) fn find_segments(
    disk: &dyn Disk,
    dir: &str,
    checkpoint: Option<&Checkpoint>,
    report: &mut RecoveryReport,
) -> Result<Vec<FoundSegment>> {
    let names = disk.list(dir).map_err(RecoveryError::io(dir))?;
    let mut found = Vec::new();
    for name in &names {
        if let Meaning::Live {
            base_offset,
            kind: LOG,
        } = meaning(name)
        {
            let file = in_dir(dir, name);
            let bytes = disk.len(&file).map_err(RecoveryError::io(&file))?;
            let txn_index = format!("{base_offset:020}{TXN_INDEX}");
            found.push(FoundSegment {
                base_offset,
                bytes: bytes.unwrap_or(0),
                has_txn_index: names.binary_search(&txn_index).is_ok(),
            });
        }
    }
    if let Some(checkpoint) = checkpoint {
        check_counted(dir, &found, checkpoint)?;
        let deleted = |segment: &&FoundSegment| {
            segment.base_offset < checkpoint.recovery_point.segment
                && !checkpoint
                    .segments
                    .iter()
                    .any(|(base, _)| *base == segment.base_offset)
        };
        let bases: Vec<i64> = found
            .iter()
            .filter(deleted)
            .map(|s| s.base_offset)
            .collect();
        if let Some(base) = bases
            .iter()
            .find(|base| **base >= checkpoint.log_start_offset)
        {
            let file = segment_file(dir, *base, LOG).to_string();
            return Err(RecoveryError::Unexpected { file });
        }
        if !bases.is_empty() {
            report.note(format!(
                "removed {} segments that were deleted before",
                bases.len()
            ));
            remove_segments(disk, dir, &bases)?;
            found.retain(|segment| !bases.contains(&segment.base_offset));
        }
    }
    remove_orphans(disk, dir, &names, &found)?;
    Ok(found)
}

/// Everything that the checkpoint vouches for is there, in full length.
fn check_counted(dir: &str, found: &[FoundSegment], checkpoint: &Checkpoint) -> Result<()> {
    let bytes_of = |base: i64| {
        found
            .iter()
            .find(|s| s.base_offset == base)
            .map(|s| s.bytes)
    };
    for (base_offset, expected) in checkpoint.segments.iter().copied() {
        let file = || segment_file(dir, base_offset, LOG).to_string();
        match bytes_of(base_offset) {
            Some(bytes) if bytes == expected => {}
            Some(found) => {
                return Err(RecoveryError::WrongSize {
                    file: file(),
                    expected,
                    found,
                });
            }
            None => {
                return Err(RecoveryError::Missing {
                    file: file(),
                    bytes: expected,
                });
            }
        }
    }
    let point = checkpoint.recovery_point;
    let file = || segment_file(dir, point.segment, LOG).to_string();
    match bytes_of(point.segment) {
        Some(bytes) if bytes >= point.position => Ok(()),
        None if point.position == 0 => Ok(()),
        Some(found) => Err(RecoveryError::WrongSize {
            file: file(),
            expected: point.position,
            found,
        }),
        None => Err(RecoveryError::Missing {
            file: file(),
            bytes: point.position,
        }),
    }
}

/// Index files whose segment is not there.
fn remove_orphans(
    disk: &dyn Disk,
    dir: &str,
    names: &[String],
    found: &[FoundSegment],
) -> Result<()> {
    for name in names {
        if let Meaning::Live { base_offset, kind } = meaning(name)
            && kind != LOG
            && !found
                .iter()
                .any(|segment| segment.base_offset == base_offset)
        {
            remove(disk, &in_dir(dir, name))?;
        }
    }
    Ok(())
}

/// Removes segments with their indexes, the last first: what is left of the log stays whole if
/// this is interrupted.
pub(super) fn remove_segments(disk: &dyn Disk, dir: &str, bases: &[i64]) -> Result<()> {
    for base_offset in bases.iter().rev() {
        for kind in SEGMENT_KINDS.into_iter().rev() {
            remove(disk, &segment_file(dir, *base_offset, kind))?;
        }
        disk.sync_dir(dir).map_err(RecoveryError::io(dir))?;
    }
    Ok(())
}

fn remove(disk: &dyn Disk, file: &str) -> Result<()> {
    disk.remove(file).map_err(RecoveryError::io(file))
}
