//! Ordered disk steps: index files, snapshots, checkpoints, renames, removals.
//!
//! A piece of work is a list of steps, among them syncs that the next step relies on. A few pieces
//! are carried out one after the other, as they were emitted. Many at once (thousands of partitions
//! that are made, or written out at a shutdown) would wait for the device at every one of their
//! syncs; instead each goes as far as its next sync, one sync of the whole file system serves them
//! all, and so on. So a shutdown of a thousand partitions takes about ten syncs, not ten thousand.
//!
//! Invariants:
//! - within a piece, no step is done before the sync in front of it holds;
//! - pieces that touch the same partition's directory keep their order, and one that touches the
//!   data directory itself waits for all before it and holds up all behind it;
//! - after a failure nothing more is done or completed.

use crate::background::WorkQueue;
use crate::commit::Completions;
use crate::disk::RealDisk;
use crate::fatal::Failure;
use crate::limits;
use oncelog_broker::OpId;
use oncelog_commitlog::{DiskOutcome, DiskStep, execute_step};
use std::collections::{HashSet, VecDeque};

/// The thread of ordered steps: returns when the queue is closed, or after a failure.
pub fn run(
    queue: &WorkQueue<(OpId, Vec<DiskStep>)>,
    disk: &RealDisk,
    completions: &dyn Completions,
) {
    while let Some(work) = queue.take_all() {
        let work = work.into_iter().map(Piece::new).collect();
        if let Err(stop) = carry_out(work, disk, completions) {
            if let Stop::Failed(failure) = stop {
                completions.failed(failure);
            }
            return;
        }
    }
}

enum Stop {
    Failed(Failure),
    /// Another thread's failure, or the end.
    Ended,
}

type Result<T> = std::result::Result<T, Stop>;

struct Piece {
    op: OpId,
    /// The directory that all of it is about; `None`: more than one, or the data directory.
    directory: Option<String>,
    steps: VecDeque<DiskStep>,
}

fn carry_out(mut pieces: Vec<Piece>, disk: &RealDisk, completions: &dyn Completions) -> Result<()> {
    if pieces.len() < limits::STEPS_TOGETHER_MIN {
        for mut piece in pieces {
            while let Some(step) = piece.steps.pop_front() {
                do_step(disk, &step, completions)?;
            }
            completions.completed(vec![(piece.op, DiskOutcome::Done)]);
        }
        return Ok(());
    }
    while !pieces.is_empty() {
        pieces = advance_all(pieces, disk, completions)?;
    }
    Ok(())
}

/// Takes every piece that may go on past its next sync; returns those that are not done.
fn advance_all(
    pieces: Vec<Piece>,
    disk: &RealDisk,
    completions: &dyn Completions,
) -> Result<Vec<Piece>> {
    let mut before = Before::default();
    let (mut done, mut waiting, mut left) = (Vec::new(), Vec::new(), Vec::new());
    for mut piece in pieces {
        if before.blocks(&piece) {
            before.add(&piece);
            left.push(piece);
            continue;
        }
        piece.go_to_sync(disk, completions)?;
        if piece.steps.is_empty() {
            done.push((piece.op, DiskOutcome::Done));
        } else {
            before.add(&piece);
            waiting.push(left.len());
            left.push(piece);
        }
    }
    if !done.is_empty() {
        completions.completed(done);
    }
    // A failure may be of anything on the file system, and from before this broker's time: then
    // each of our own syncs tells whether it is ours.
    let synced = waiting.is_empty() || disk.sync_file_system().is_ok();
    for index in waiting {
        left[index].pass_syncs(synced, disk, completions)?;
    }
    Ok(left)
}

/// What the pieces in front of one touch and have not done with.
#[derive(Default)]
struct Before {
    directories: HashSet<String>,
    everything: bool,
}

impl Before {
    fn blocks(&self, piece: &Piece) -> bool {
        match &piece.directory {
            Some(directory) => self.everything || self.directories.contains(directory),
            None => self.everything || !self.directories.is_empty(),
        }
    }

    fn add(&mut self, piece: &Piece) {
        match &piece.directory {
            Some(directory) => {
                self.directories.insert(directory.clone());
            }
            None => self.everything = true,
        }
    }
}

impl Piece {
    fn new((op, steps): (OpId, Vec<DiskStep>)) -> Piece {
        Piece {
            op,
            directory: only_directory(&steps).map(str::to_owned),
            steps: steps.into(),
        }
    }

    fn go_to_sync(&mut self, disk: &RealDisk, completions: &dyn Completions) -> Result<()> {
        while let Some(step) = self.steps.front()
            && synced_name(step).is_none()
        {
            do_step(disk, step, completions)?;
            self.steps.pop_front();
        }
        Ok(())
    }

    /// Takes the syncs in front. Where the file system is `synced`, that was their sync too, but for
    /// what it did not reach.
    fn pass_syncs(
        &mut self,
        synced: bool,
        disk: &RealDisk,
        completions: &dyn Completions,
    ) -> Result<()> {
        while let Some(step) = self.steps.front()
            && let Some(name) = synced_name(step)
        {
            // What cannot be looked at cannot be synced either, and that says why.
            if !synced || disk.is_elsewhere(name).unwrap_or(true) {
                do_step(disk, step, completions)?;
            }
            self.steps.pop_front();
        }
        Ok(())
    }
}

fn synced_name(step: &DiskStep) -> Option<&str> {
    match step {
        DiskStep::Sync { file: name } | DiskStep::SyncDir { dir: name } => Some(name),
        _ => None,
    }
}

/// The one directory in the data directory that all steps are about. (A sync of the data directory
/// itself changes nothing.)
fn only_directory(steps: &[DiskStep]) -> Option<&str> {
    let mut only = None;
    for step in steps {
        let inside = |name| str::split_once(name, '/').map(|(directory, _)| directory);
        let directory = match step {
            DiskStep::SyncDir { dir } if dir.is_empty() => continue,
            DiskStep::SyncDir { dir } => Some(&**dir),
            DiskStep::Rename { from, to } if inside(from) != inside(to) => return None,
            DiskStep::Sync { file }
            | DiskStep::Write { file, .. }
            | DiskStep::Remove { file }
            | DiskStep::Truncate { file, .. }
            | DiskStep::Rename { from: file, .. } => inside(file),
            DiskStep::RemoveDir { .. } => return None,
        };
        let directory = directory?;
        if *only.get_or_insert(directory) != directory {
            return None;
        }
    }
    only
}

fn do_step(disk: &RealDisk, step: &DiskStep, completions: &dyn Completions) -> Result<()> {
    if completions.has_failed() {
        return Err(Stop::Ended);
    }
    let (doing, file) = match step {
        DiskStep::Sync { file } => ("syncing", file),
        DiskStep::Write { file, .. } => ("writing", file),
        DiskStep::SyncDir { dir } => ("syncing", dir),
        DiskStep::Rename { from, .. } => ("renaming", from),
        DiskStep::Remove { file } => ("removing", file),
        DiskStep::RemoveDir { dir } => ("removing", dir),
        DiskStep::Truncate { file, .. } => ("truncating", file),
    };
    execute_step(disk, step).map_err(|e| Stop::Failed(Failure::of_disk(disk, doing, file, &e)))
}

#[cfg(test)]
mod tests;
