//! Group commit: many appends, one sync.
//!
//! Durable appends wait in lanes; a file always has the same lane. A lane has two threads, of which
//! at most one writes and at most one syncs: while a sync is under way, which is mostly waiting for
//! the device, the other thread writes what arrives, and the next sync covers all of that. So groups
//! grow with the load, the device is never waited for by a write, and a lone append waits for
//! nothing: the thread that wrote it syncs it.
//!
//! A group of writes has at most [`limits::COMMIT_GROUP_BYTES`]. Each file is synced once for all that
//! was written to it, and every completion of that file is handed back at once.
//!
//! Appends that need no sync never come here: who emitted them writes them ([`write_appends`]).
//!
//! Invariants: an append is completed only after a sync of its file that began when it was written
//! has returned, and, if the file is new, syncs of the directories that lead to it; after the first
//! failure nothing is completed any more.

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

/// One that writes while the other syncs.
const THREADS_OF_A_LANE: usize = 2;

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
    /// Not written yet.
    appends: Vec<(OpId, Append)>,
    /// Not synced yet.
    written: Vec<Written>,
    a_thread_writes: bool,
    a_thread_syncs: bool,
    threads_waiting: usize,
    closed: bool,
    failed: bool,
}

impl Queue {
    /// Whether a waiting thread has something to do.
    fn may_wake(&self) -> bool {
        self.threads_waiting > 0 && !self.a_thread_writes && !self.appends.is_empty()
    }
}

/// An append whose bytes the operating system has.
struct Written {
    op: OpId,
    file: FileName,
    create: bool,
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
        if queue.may_wake() {
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
        let lane = &self.lanes[lane];
        while let Some(mut group) = lane.next_group() {
            if completions.has_failed() {
                return lane.fail();
            }
            // Neighbours go out in one call.
            group.sort_by(|(_, one), (_, other)| one.file.cmp(&other.file));
            let mut result = write_appends(disk, &group);
            let mut to_sync = match &result {
                Ok(()) => lane.written(group),
                Err(_) => None,
            };
            while let Some(written) = to_sync.take() {
                result = commit(written, disk, completions);
                if result.is_ok() && !completions.has_failed() {
                    to_sync = lane.synced();
                }
            }
            if let Err(failure) = result {
                completions.failed(failure);
                return lane.fail();
            }
        }
    }

    fn lane_of(&self, file: &str) -> usize {
        let mut hasher = DefaultHasher::new();
        file.hash(&mut hasher);
        (hasher.finish() % self.lanes.len() as u64) as usize
    }
}

impl Lane {
    /// What is to be written next; the caller is then the one thread that writes.
    fn next_group(&self) -> Option<Vec<(OpId, Append)>> {
        let mut queue = self.lock();
        while queue.appends.is_empty() || queue.a_thread_writes {
            if queue.failed || (queue.closed && queue.appends.is_empty()) {
                return None;
            }
            queue.threads_waiting += 1;
            // The timeout is for safety alone: a lost wake-up would cost a second, not a broker.
            let wait = Duration::from_secs(1);
            let waited = self.ready.wait_timeout(queue, wait);
            queue = waited.unwrap_or_else(PoisonError::into_inner).0;
            queue.threads_waiting -= 1;
        }
        queue.a_thread_writes = true;
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

    /// The caller has written its group; what it is to sync, unless the other thread is at it.
    fn written(&self, group: Vec<(OpId, Append)>) -> Option<Vec<Written>> {
        // Frees the record bytes.
        let written = group.into_iter().map(|(op, append)| Written {
            op,
            file: append.file,
            create: append.create,
        });
        let written: Vec<Written> = written.collect();
        let mut queue = self.lock();
        queue.a_thread_writes = false;
        queue.written.extend(written);
        if queue.may_wake() {
            self.ready.notify_one();
        }
        if queue.a_thread_syncs {
            return None;
        }
        queue.a_thread_syncs = true;
        Some(std::mem::take(&mut queue.written))
    }

    /// The caller has synced; what was written meanwhile.
    fn synced(&self) -> Option<Vec<Written>> {
        let mut queue = self.lock();
        queue.a_thread_syncs = !queue.written.is_empty();
        queue
            .a_thread_syncs
            .then(|| std::mem::take(&mut queue.written))
    }

    /// Nothing is written or synced any more.
    fn fail(&self) {
        self.lock().failed = true;
        self.ready.notify_all();
    }

    // A queue is sound after any panic: each change is a single push or take.
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Syncs what was written, file by file, and completes it.
fn commit(
    written: Vec<Written>,
    disk: &RealDisk,
    completions: &dyn Completions,
) -> Result<(), Failure> {
    let mut files: HashMap<FileName, Vec<Written>> = HashMap::new();
    for written in written {
        files.entry(written.file.clone()).or_default().push(written);
    }
    for (file, written) in files {
        let is_new = written.iter().any(|written| written.create);
        sync(disk, &file, is_new)?;
        if completions.has_failed() {
            return Ok(());
        }
        let done = written.iter().map(|w| (w.op, DiskOutcome::Done));
        completions.completed(done.collect());
    }
    Ok(())
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

/// Syncs a file and, if it is new, the directories that lead to it.
fn sync(disk: &RealDisk, file: &str, is_new: bool) -> Result<(), Failure> {
    let failed = |what: &str, e| Failure::of_disk(disk, "syncing", what, &e);
    disk.sync(file).map_err(|e| failed(file, e))?;
    if is_new {
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
    let start = |thread: usize| {
        let (commit, disk, completions) = (commit.clone(), disk.clone(), completions.clone());
        let lane = thread / THREADS_OF_A_LANE;
        std::thread::Builder::new()
            .name(format!("commit-{lane}"))
            .spawn(move || commit.run(lane, &disk, &*completions))
    };
    (0..THREADS_OF_A_LANE * commit.lanes()).map(start).collect()
}

#[cfg(test)]
mod tests;
