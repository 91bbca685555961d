//! Disk work that nobody should wait behind: ordered steps, and long reads.
//!
//! - **Steps** (index files, snapshots, checkpoints, renames, removals) run on one thread
//!   ([`crate::steps`]). They have a thread of their own because syncing an old segment may take
//!   seconds, and no acknowledgement should wait for that.
//! - **Reads** (timestamp lookups, compaction) run on a few threads in any order. They only read
//!   files that exist and write files that nobody has seen, so a failed one is reported to the
//!   core and stops nothing.

use crate::disk::RealDisk;
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

    /// Waits; everything that is there then, and `None` when the queue is closed and empty.
    pub fn take_all(&self) -> Option<Vec<T>> {
        let first = self.next()?;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        Some(std::iter::once(first).chain(state.work.drain(..)).collect())
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
