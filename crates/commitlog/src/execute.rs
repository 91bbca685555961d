//! Carries disk work out, one operation at a time: the meaning of every [`DiskOp`].
//!
//! A host may do the same faster (one sync for many appends, steps of several logs at once), as
//! long as what it does cannot be told from this.

use crate::disk::{Disk, FileName};
use crate::file_names::parent;
use crate::op::{Append, DiskOp, DiskOutcome, DiskStep};
use crate::{compaction, lookup, slice};
use std::io;

pub fn execute(disk: &dyn Disk, op: &DiskOp) -> io::Result<DiskOutcome> {
    match op {
        DiskOp::Append(append) => execute_append(disk, append).map(|()| DiskOutcome::Done),
        DiskOp::Steps(steps) => {
            steps.iter().try_for_each(|step| execute_step(disk, step))?;
            Ok(DiskOutcome::Done)
        }
        DiskOp::LookupTimestamp(lookup) => {
            lookup::look_up(disk, lookup).map(DiskOutcome::Timestamp)
        }
        DiskOp::ReadBatches(slice) => slice::read(disk, slice).map(DiskOutcome::Batches),
        DiskOp::Compact(plan) => {
            let outcome = compaction::execute(disk, plan)?;
            Ok(DiskOutcome::Compacted(Box::new(outcome)))
        }
    }
}

/// Writes a batch and, if it is durable, syncs what makes it so.
pub fn execute_append(disk: &dyn Disk, append: &Append) -> io::Result<()> {
    disk.write_at(
        &append.file,
        append.position,
        &[&append.header, &append.body],
    )?;
    if append.durable {
        disk.sync(&append.file)?;
        for dir in append.dirs_to_sync() {
            disk.sync_dir(&dir)?;
        }
    }
    Ok(())
}

pub fn execute_step(disk: &dyn Disk, step: &DiskStep) -> io::Result<()> {
    match step {
        DiskStep::Write { file, content } => {
            if disk.len(file)?.is_some_and(|length| length > 0) {
                disk.truncate(file, 0)?;
            }
            disk.write_at(file, 0, &[content])
        }
        DiskStep::Sync { file } => disk.sync(file),
        DiskStep::SyncDir { dir } => disk.sync_dir(dir),
        DiskStep::Rename { from, to } => disk.rename(from, to),
        DiskStep::Remove { file } => disk.remove(file),
        DiskStep::RemoveDir { dir } => disk.remove_dir(dir),
        DiskStep::Truncate { file, length } => disk.truncate(file, *length),
    }
}

impl Append {
    /// Directories whose entries must be durable before a durable append counts as done, after
    /// the file itself: none, or the file's and the one above.
    pub fn dirs_to_sync(&self) -> Vec<FileName> {
        if !self.create || !self.durable {
            return Vec::new();
        }
        let dir = parent(&self.file);
        match dir {
            "" => vec!["".into()],
            dir => vec![dir.into(), parent(dir).into()],
        }
    }
}
