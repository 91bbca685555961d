//! Group commit: many appends, one sync.
//!
//! Durable appends wait in lanes, one thread each; a file always has the same lane. A thread takes
//! all that waits (up to [`limits::COMMIT_GROUP_BYTES`]), writes it, syncs each file once, and
//! hands every completion of that file back at once. What arrives meanwhile is the next group, so
//! groups grow with the load and a lone append waits for nothing.
//!
//! Appends that need no sync never come here: who emitted them writes them ([`write_appends`]).
//!
//! Invariants: an append is completed only after `sync` of its file returned, and, if the file is new,
//! of the directories that lead to it; after the first failure nothing is
//! completed any more.

use crate::disk::RealDisk;
use crate::fatal::Failure;
use crate::limits;
use oncelog_broker::OpId;
use oncelog_commitlog::{Append, Disk, DiskOutcome, FileName};
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Where finished disk work goes: the core, or a test.
pub trait Completions: Send + Sync {
    fn completed(&self, done: Vec<(OpId, DiskOutcome)>);
    fn failed(&self, failure: Failure);
    /// Nothing may be written or completed any more.
    fn has_failed(&self) -> bool;
}

pub struct Commit {
    lanes: Vec<Lane>,
}

#[derive(Default)]
struct Lane {
    queue: Mutex<Queue>,
    ready: Condvar,
}

#[derive(Default)]
struct Queue {
    appends: Vec<(OpId, Append)>,
    thread_waits: bool,
    closed: bool,
}

/// Lanes to be woken: one bit each.
#[derive(Clone, Copy, Default)]
pub struct Wake(u64);

impl Commit {
    pub fn new(lanes: usize) -> Commit {
        assert!((1..=64).contains(&lanes), "between 1 and 64 lanes");
        Commit {
            lanes: (0..lanes).map(|_| Lane::default()).collect(),
        }
    }

    pub fn lanes(&self) -> usize {
        self.lanes.len()
    }

    /// Queues an append; called with the core locked, so the wake-up is left for later.
    pub fn push(&self, op: OpId, append: Append, wake: &mut Wake) {
        let lane = self.lane_of(&append.file);
        let mut queue = self.lanes[lane].lock();
        queue.appends.push((op, append));
        if queue.thread_waits {
            wake.0 |= 1 << lane;
        }
    }

    pub fn wake(&self, wake: Wake) {
        let mut bits = wake.0;
        while bits != 0 {
            self.lanes[bits.trailing_zeros() as usize]
                .ready
                .notify_one();
            bits &= bits - 1;
        }
    }

    /// Lets the threads end, once their queues are empty.
    pub fn close(&self) {
        for lane in &self.lanes {
            lane.lock().closed = true;
            lane.ready.notify_all();
        }
    }

    /// A lane's thread: returns after [`Commit::close`], or after a failure.
    pub fn run(&self, lane: usize, disk: &RealDisk, completions: &dyn Completions) {
        while let Some(group) = self.lanes[lane].next_group() {
            if completions.has_failed() {
                return;
            }
            if let Err(failure) = self.commit(group, disk, completions) {
                completions.failed(failure);
                return;
            }
        }
    }

    fn commit(
        &self,
        group: Vec<(OpId, Append)>,
        disk: &RealDisk,
        completions: &dyn Completions,
    ) -> Result<(), Failure> {
        let mut files: HashMap<FileName, Vec<(OpId, Append)>> = HashMap::new();
        for (op, append) in group {
            files
                .entry(append.file.clone())
                .or_default()
                .push((op, append));
        }
        for appends in files.values() {
            write_appends(disk, appends)?;
        }
        for (file, appends) in files {
            sync(disk, &file, &appends)?;
            if completions.has_failed() {
                return Ok(());
            }
            // Frees the record bytes before anybody is told.
            let ops: Vec<OpId> = appends.into_iter().map(|(op, _)| op).collect();
            completions.completed(ops.into_iter().map(|op| (op, DiskOutcome::Done)).collect());
        }
        Ok(())
    }

    fn lane_of(&self, file: &str) -> usize {
        let mut hasher = DefaultHasher::new();
        file.hash(&mut hasher);
        (hasher.finish() % self.lanes.len() as u64) as usize
    }
}

impl Lane {
    fn next_group(&self) -> Option<Vec<(OpId, Append)>> {
        let mut queue = self.lock();
        while queue.appends.is_empty() {
            if queue.closed {
                return None;
            }
            queue.thread_waits = true;
            // The timeout is for safety alone: a lost wake-up would cost a second, not a broker.
            let wait = Duration::from_secs(1);
            let waited = self.ready.wait_timeout(queue, wait);
            queue = waited.unwrap_or_else(PoisonError::into_inner).0;
            queue.thread_waits = false;
        }
        let mut bytes = 0;
        let mut count = 0;
        for (_, append) in &queue.appends {
            bytes += append.body.len();
            count += 1;
            if bytes >= limits::COMMIT_GROUP_BYTES {
                break;
            }
        }
        if count == queue.appends.len() {
            return Some(std::mem::take(&mut queue.appends));
        }
        let rest = queue.appends.split_off(count);
        Some(std::mem::replace(&mut queue.appends, rest))
    }

    // A queue is sound after any panic: each change is a single push or take.
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes appends of one or several files, in order; neighbours go out in one call.
pub fn write_appends(disk: &RealDisk, appends: &[(OpId, Append)]) -> Result<(), Failure> {
    let mut rest = appends;
    while let Some((_, first)) = rest.first() {
        let mut end = first.position;
        let mut buffers: Vec<&[u8]> = Vec::with_capacity(2 * rest.len().min(64));
        let mut taken = 0;
        for (_, append) in rest {
            if append.position != end || append.file != first.file {
                break;
            }
            buffers.extend([&append.header[..], &append.body[..]]);
            end += (append.header.len() + append.body.len()) as u64;
            taken += 1;
        }
        disk.write_at(&first.file, first.position, &buffers)
            .map_err(|e| Failure::of_disk(disk, "writing", &first.file, &e))?;
        rest = &rest[taken..];
    }
    Ok(())
}

/// Syncs a file and, if one of its appends says that it is new, the directories that lead to it.
fn sync(disk: &RealDisk, file: &str, appends: &[(OpId, Append)]) -> Result<(), Failure> {
    let failed = |what: &str, e| Failure::of_disk(disk, "syncing", what, &e);
    disk.sync(file).map_err(|e| failed(file, e))?;
    if appends.iter().any(|(_, append)| append.create) {
        let mut name = file;
        while !name.is_empty() {
            name = name.rsplit_once('/').map_or("", |(parent, _)| parent);
            disk.sync_dir(name).map_err(|e| failed(name, e))?;
        }
    }
    Ok(())
}

/// Starts a lane's threads; they end after [`Commit::close`].
pub fn spawn(
    commit: &Arc<Commit>,
    disk: &Arc<RealDisk>,
    completions: &Arc<dyn Completions>,
) -> std::io::Result<Vec<std::thread::JoinHandle<()>>> {
    let start = |lane| {
        let (commit, disk, completions) = (commit.clone(), disk.clone(), completions.clone());
        std::thread::Builder::new()
            .name(format!("commit-{lane}"))
            .spawn(move || commit.run(lane, &disk, &*completions))
    };
    (0..commit.lanes()).map(start).collect()
}

#[cfg(test)]
mod tests;
