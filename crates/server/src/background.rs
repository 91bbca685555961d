//! Disk work that nobody should wait behind: ordered steps, and long reads.
//!
//! - **Steps** (index files, snapshots, checkpoints, renames, removals) run on one thread in the
//!   order of emission. They have a thread of their own because syncing an old segment may take
//!   seconds, and no acknowledgement should wait for that.
//! - **Reads** (timestamp lookups, compaction) run on a few threads in any order. They only read
//!   files that exist and write files that nobody has seen, so a failed one is reported to the
//!   core and stops nothing.

use crate::commit::Completions;
use crate::disk::RealDisk;
use crate::fatal::Failure;
use oncelog_broker::OpId;
use oncelog_commitlog::{DiskOp, DiskOutcome, DiskStep};
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// A queue that threads wait at.
pub struct WorkQueue<T> {
    state: Mutex<State<T>>,
    ready: Condvar,
}

struct State<T> {
    work: VecDeque<T>,
    closed: bool,
}

impl<T> Default for WorkQueue<T> {
    fn default() -> WorkQueue<T> {
        let state = State {
            work: VecDeque::new(),
            closed: false,
        };
        WorkQueue {
            state: Mutex::new(state),
            ready: Condvar::new(),
        }
    }
}

impl<T> WorkQueue<T> {
    pub fn push(&self, work: T) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.work.push_back(work);
        drop(state);
        self.ready.notify_one();
    }

    /// Lets the threads end, once the queue is empty.
    pub fn close(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.closed = true;
        drop(state);
        self.ready.notify_all();
    }

    /// Waits; `None` when the queue is closed and empty.
    fn next(&self) -> Option<T> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(work) = state.work.pop_front() {
                return Some(work);
            }
            if state.closed {
                return None;
            }
            state = self
                .ready
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// The thread of ordered steps: returns when the queue is closed, or after a failure.
pub fn run_steps(
    queue: &WorkQueue<(OpId, Vec<DiskStep>)>,
    disk: &RealDisk,
    completions: &dyn Completions,
) {
    while let Some((op, steps)) = queue.next() {
        for step in steps {
            if completions.has_failed() {
                return;
            }
            if let Err(failure) = run_step(disk, step) {
                completions.failed(failure);
                return;
            }
        }
        completions.completed(vec![(op, DiskOutcome::Done)]);
    }
}

fn run_step(disk: &RealDisk, step: DiskStep) -> Result<(), Failure> {
    let (doing, file) = match &step {
        DiskStep::Sync { file } => ("syncing", file.clone()),
        DiskStep::Write { file, .. } => ("writing", file.clone()),
        DiskStep::SyncDir { dir } => ("syncing", dir.clone()),
        DiskStep::Rename { from, .. } => ("renaming", from.clone()),
        DiskStep::Remove { file } => ("removing", file.clone()),
        DiskStep::RemoveDir { dir } => ("removing", dir.clone()),
        DiskStep::Truncate { file, .. } => ("truncating", file.clone()),
    };
    oncelog_commitlog::execute_step(disk, &step)
        .map_err(|e| Failure::of_disk(disk, doing, &file, &e))
}

/// What a read brings: for the core to go on with.
pub type ReadResult = (OpId, Result<DiskOutcome, String>);

/// A reader's thread: returns when the queue is closed.
pub fn run_reads(queue: &WorkQueue<(OpId, DiskOp)>, disk: &RealDisk, give: &dyn Fn(ReadResult)) {
    while let Some((op, work)) = queue.next() {
        let outcome = oncelog_commitlog::execute(disk, &work).map_err(|e| e.to_string());
        drop(work);
        give((op, outcome));
    }
}

/// The names of the threads above, for a debugger.
pub fn spawn(
    name: &str,
    body: impl FnOnce() + Send + 'static,
) -> std::io::Result<std::thread::JoinHandle<()>> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(body)
}

pub type StepQueue = Arc<WorkQueue<(OpId, Vec<DiskStep>)>>;
pub type ReadQueue = Arc<WorkQueue<(OpId, DiskOp)>>;
