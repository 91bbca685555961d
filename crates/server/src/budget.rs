//! Memory for request frames, bounded over all connections.
//!
//! Rules:
//! - A frame is charged for the buffer that it really has, and that buffer grows only as bytes
//!   arrive. An announced length costs nothing.
//! - What a produce request holds is given back when the last slice of its frame is dropped, that
//!   is when its batches are written (the charge travels inside the frame's `Bytes`).
//! - While there is room, everybody takes. When there is none, those who ask wait in line.
//! - **Small frames do not wait behind large ones.** They are charged whole, a share of the memory
//!   is theirs alone, and they have a line of their own that is served first. So large frames that
//!   go nowhere cannot keep small ones from being served.
//!
//! Frames that are half read hold memory while they wait for more, so a full budget alone could
//! deadlock: each waits for what another holds. Hence **the finisher**: the first in line, if no
//! other frame is finishing, is let past the limit to its end. It is the only one at a time, it
//! has a deadline (`limits::FINISHER_*`) after which its connection is closed, and its end gives
//! memory back. So somebody can always go on, and the sum stays below
//! `limit + socket.request.max.bytes`. Who holds memory and does not use it while others wait is
//! found by the sweep ([`crate::pressure`]).
//!
//! Frames that are complete never wait here, and what they hold is given back by the disk and the
//! core, neither of which waits for a connection.

use crate::limits;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

pub struct Budget {
    limit: usize,
    /// What only small frames may take.
    reserve: usize,
    /// What can still be taken; below 0 while a finisher is past the limit.
    available: AtomicI64,
    /// How many wait in each lane, to be looked at without the lock.
    small_waiters: AtomicUsize,
    large_waiters: AtomicUsize,
    line: Mutex<Line>,
    /// Times that somebody had to wait, for the operator.
    waited: AtomicU64,
}

/// Which rules a frame takes memory by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    Small,
    Large,
}

impl Lane {
    /// Of a frame of so many bytes.
    pub fn of(frame_bytes: usize) -> Lane {
        match frame_bytes <= limits::SMALL_FRAME_BYTES {
            true => Lane::Small,
            false => Lane::Large,
        }
    }
}

#[derive(Default)]
struct Line {
    small: VecDeque<Waiter>,
    large: VecDeque<Waiter>,
    /// The sum of what they wait for.
    wanted: usize,
    /// How many were granted what they waited for, ever.
    served: u64,
    finishing: bool,
}

impl Line {
    fn of(&mut self, lane: Lane) -> &mut VecDeque<Waiter> {
        match lane {
            Lane::Small => &mut self.small,
            Lane::Large => &mut self.large,
        }
    }
}

/// The state of the line, for the sweep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pressure {
    /// The sum of what is waited for; 0: nobody waits.
    pub wanted: usize,
    /// Grows whenever somebody in line is served.
    pub served: u64,
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
        Budget::with_reserve(limit, limit / limits::SMALL_FRAME_SHARE)
    }

    /// `reserve`: the part of `limit` that is for small frames alone.
    fn with_reserve(limit: usize, reserve: usize) -> Arc<Budget> {
        Arc::new(Budget {
            limit,
            reserve,
            available: AtomicI64::new(limit.min(i64::MAX as usize) as i64),
            small_waiters: AtomicUsize::new(0),
            large_waiters: AtomicUsize::new(0),
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

    pub fn pressure(&self) -> Pressure {
        if self.waiters() == 0 {
            return Pressure::default();
        }
        let line = self.lock();
        Pressure {
            wanted: line.wanted,
            served: line.served,
        }
    }

    /// A charge of 0 bytes, to be grown.
    pub fn empty(self: &Arc<Budget>) -> Charge {
        Charge {
            budget: self.clone(),
            bytes: 0,
            lane: Lane::Large,
            finisher: false,
            account: None,
        }
    }

    /// A charge of `bytes`, if there is room and nobody waits for it.
    pub fn try_charge(self: &Arc<Budget>, bytes: usize) -> Option<Charge> {
        let mut charge = self.empty();
        charge.try_grow(bytes).then_some(charge)
    }

    fn waiters(&self) -> usize {
        let small = self.small_waiters.load(Ordering::Acquire);
        small + self.large_waiters.load(Ordering::Acquire)
    }

    fn count_of(&self, lane: Lane) -> &AtomicUsize {
        match lane {
            Lane::Small => &self.small_waiters,
            Lane::Large => &self.large_waiters,
        }
    }

    /// Whether somebody waits who comes first.
    fn is_queued(&self, lane: Lane) -> bool {
        match lane {
            Lane::Small => self.small_waiters.load(Ordering::Acquire) > 0,
            Lane::Large => self.waiters() > 0,
        }
    }

    /// Takes bytes if they are there, whoever waits.
    fn try_take(&self, bytes: usize, lane: Lane) -> bool {
        let bytes = bytes as i64;
        let floor = match lane {
            Lane::Small => 0,
            Lane::Large => self.reserve as i64,
        };
        let rest = |available: i64| (available - bytes >= floor).then(|| available - bytes);
        let (done, seen) = (Ordering::AcqRel, Ordering::Acquire);
        self.available.fetch_update(done, seen, rest).is_ok()
    }

    fn give_back(&self, bytes: usize) {
        self.available.fetch_add(bytes as i64, Ordering::AcqRel);
        if self.waiters() > 0 {
            self.serve_line(&mut self.lock());
        }
    }

    /// Grants what can be granted: the small first, and in each lane first come, first served.
    fn serve_line(&self, line: &mut Line) {
        loop {
            let lane = match line.small.is_empty() {
                true => Lane::Large,
                false => Lane::Small,
            };
            let Some(first) = line.of(lane).front() else {
                return;
            };
            let bytes = first.bytes;
            let grant = if self.try_take(bytes, lane) {
                Grant::Room
            } else if !line.finishing {
                self.available.fetch_sub(bytes as i64, Ordering::AcqRel);
                line.finishing = true;
                Grant::Finisher
            } else {
                return;
            };
            let waiter = line.of(lane).pop_front().expect("looked at above");
            self.count_of(lane).fetch_sub(1, Ordering::AcqRel);
            line.wanted -= bytes;
            line.served += 1;
            if waiter.grant.send(grant).is_err() {
                // The connection went away while it waited.
                self.available.fetch_add(bytes as i64, Ordering::AcqRel);
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
    lane: Lane,
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

    /// From here on it grows by the rules of this lane; a new charge is in the large one.
    pub fn use_lane(&mut self, lane: Lane) {
        self.lane = lane;
    }

    /// Takes more without waiting, if there is room and nobody waits for it.
    pub fn try_grow(&mut self, more: usize) -> bool {
        let budget = &self.budget;
        if self.finisher {
            let more = more as i64;
            budget.available.fetch_sub(more, Ordering::AcqRel);
        } else if budget.is_queued(self.lane) || !budget.try_take(more, self.lane) {
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
            line.of(self.lane).push_back(Waiter {
                bytes: more,
                grant: sender,
            });
            line.wanted += more;
            self.budget
                .count_of(self.lane)
                .fetch_add(1, Ordering::AcqRel);
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
            lane: self.lane,
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
