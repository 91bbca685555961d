//! Memory for request frames, bounded over all connections.
//!
//! Rules:
//! - A frame is charged for the buffer that it really has, and that buffer grows only as bytes
//!   arrive. An announced length costs nothing.
//! - What a produce request holds is given back when the last slice of its frame is dropped, that
//!   is when its batches are written (the charge travels inside the frame's `Bytes`).
//! - While there is room, everybody takes. When there is none, those who ask wait in line.
//!
//! Frames that are half read hold memory while they wait for more, so a full budget alone could
//! deadlock: each waits for what another holds. Hence **the finisher**: the first in line, if no
//! other frame is finishing, is let past the limit to its end. It is the only one at a time, it
//! has a deadline (`limits::FINISHER_*`) after which its connection is closed, and its end gives
//! memory back. So somebody can always go on, and the sum stays below
//! `limit + socket.request.max.bytes`.
//!
//! Frames that are complete never wait here, and what they hold is given back by the disk and the
//! core, neither of which waits for a connection.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

pub struct Budget {
    limit: usize,
    /// What can still be taken; below 0 while a finisher is past the limit.
    available: AtomicI64,
    /// The length of `line.waiting`, to be looked at without the lock.
    waiters: AtomicUsize,
    line: Mutex<Line>,
    /// Times that somebody had to wait, for the operator.
    waited: AtomicU64,
}

#[derive(Default)]
struct Line {
    waiting: VecDeque<Waiter>,
    finishing: bool,
}

struct Waiter {
    bytes: usize,
    grant: oneshot::Sender<Grant>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Grant {
    Room,
    Finisher,
}

impl Budget {
    pub fn new(limit: usize) -> Arc<Budget> {
        Arc::new(Budget {
            limit,
            available: AtomicI64::new(limit.min(i64::MAX as usize) as i64),
            waiters: AtomicUsize::new(0),
            line: Mutex::new(Line::default()),
            waited: AtomicU64::new(0),
        })
    }

    pub fn limit(&self) -> usize {
        self.limit
    }

    pub fn in_use(&self) -> usize {
        (self.limit as i64 - self.available.load(Ordering::Relaxed)).max(0) as usize
    }

    /// How often a connection had to wait for memory.
    pub fn waited_total(&self) -> u64 {
        self.waited.load(Ordering::Relaxed)
    }

    /// A charge of 0 bytes, to be grown.
    pub fn empty(self: &Arc<Budget>) -> Charge {
        Charge {
            budget: self.clone(),
            bytes: 0,
            finisher: false,
            account: None,
        }
    }

    /// A charge of `bytes`, if there is room and nobody waits for it.
    pub fn try_charge(self: &Arc<Budget>, bytes: usize) -> Option<Charge> {
        let mut charge = self.empty();
        charge.try_grow(bytes).then_some(charge)
    }

    /// Takes bytes if they are there, whoever waits.
    fn try_take(&self, bytes: usize) -> bool {
        let bytes = bytes as i64;
        let rest = |available: i64| (available >= bytes).then(|| available - bytes);
        let (done, seen) = (Ordering::AcqRel, Ordering::Acquire);
        self.available.fetch_update(done, seen, rest).is_ok()
    }

    fn give_back(&self, bytes: usize) {
        self.available.fetch_add(bytes as i64, Ordering::AcqRel);
        if self.waiters.load(Ordering::Acquire) > 0 {
            self.serve_line(&mut self.lock());
        }
    }

    /// Grants what can be granted, first come, first served.
    fn serve_line(&self, line: &mut Line) {
        while let Some(first) = line.waiting.front() {
            let grant = if self.try_take(first.bytes) {
                Grant::Room
            } else if !line.finishing {
                let bytes = first.bytes as i64;
                self.available.fetch_sub(bytes, Ordering::AcqRel);
                line.finishing = true;
                Grant::Finisher
            } else {
                return;
            };
            let waiter = line.waiting.pop_front().expect("looked at above");
            self.waiters.fetch_sub(1, Ordering::AcqRel);
            if waiter.grant.send(grant).is_err() {
                // The connection went away while it waited.
                let bytes = waiter.bytes as i64;
                self.available.fetch_add(bytes, Ordering::AcqRel);
                if grant == Grant::Finisher {
                    line.finishing = false;
                }
            }
        }
    }

    fn finished(&self) {
        let mut line = self.lock();
        line.finishing = false;
        self.serve_line(&mut line);
    }

    fn lock(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Told when memory that a connection's requests held is free again.
pub trait Account: Send + Sync {
    fn returned(&self, bytes: usize);
}

/// Bytes of the budget held by one frame; given back on drop.
pub struct Charge {
    budget: Arc<Budget>,
    bytes: usize,
    finisher: bool,
    account: Option<Arc<dyn Account>>,
}

impl Charge {
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether this frame was let past the limit and must hurry.
    pub fn is_finisher(&self) -> bool {
        self.finisher
    }

    /// Takes more without waiting, if there is room and nobody waits for it.
    pub fn try_grow(&mut self, more: usize) -> bool {
        if self.finisher {
            let more = more as i64;
            self.budget.available.fetch_sub(more, Ordering::AcqRel);
        } else if self.budget.waiters.load(Ordering::Acquire) > 0 || !self.budget.try_take(more) {
            return false;
        }
        self.bytes += more;
        true
    }

    /// Takes more, in line with the others. Dropping the future gives up the place.
    pub async fn grow(&mut self, more: usize) {
        if self.try_grow(more) {
            return;
        }
        let (sender, receiver) = oneshot::channel();
        self.budget.waited.fetch_add(1, Ordering::Relaxed);
        {
            let mut line = self.budget.lock();
            line.waiting.push_back(Waiter {
                bytes: more,
                grant: sender,
            });
            self.budget.waiters.fetch_add(1, Ordering::AcqRel);
            self.budget.serve_line(&mut line);
        }
        let mut place = Place {
            charge: self,
            bytes: more,
            receiver,
        };
        if let Ok(grant) = (&mut place.receiver).await {
            place.accept(grant);
        }
    }

    /// Moves a part of this charge into one of its own.
    pub fn split(&mut self, bytes: usize) -> Charge {
        assert!(bytes <= self.bytes && !self.finisher, "split of a charge");
        self.bytes -= bytes;
        Charge {
            budget: self.budget.clone(),
            bytes,
            finisher: false,
            account: None,
        }
    }

    /// Takes over what another charge of the same budget holds.
    pub fn absorb(&mut self, mut other: Charge) {
        self.bytes += std::mem::take(&mut other.bytes);
    }

    /// Tells `account` when these bytes are free again.
    pub fn report_to(&mut self, account: Arc<dyn Account>) {
        self.account = Some(account);
    }

    /// The frame is complete: lets the next one past the limit.
    pub fn complete(&mut self) {
        if std::mem::take(&mut self.finisher) {
            self.budget.finished();
        }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.budget.give_back(self.bytes);
        }
        self.complete();
        if let Some(account) = self.account.take() {
            account.returned(self.bytes);
        }
    }
}

/// A place in the line. A grant that was sent but not yet seen is not lost with the future.
struct Place<'a> {
    charge: &'a mut Charge,
    bytes: usize,
    receiver: oneshot::Receiver<Grant>,
}

impl Place<'_> {
    fn accept(&mut self, grant: Grant) {
        self.charge.bytes += self.bytes;
        self.charge.finisher |= grant == Grant::Finisher;
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.receiver.close();
        // The charge gives the bytes back when it goes.
        if let Ok(grant) = self.receiver.try_recv() {
            self.accept(grant);
        }
    }
}

#[cfg(test)]
mod tests;
