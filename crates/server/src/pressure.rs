//! Which connections are given up for the memory that they hold: half-read requests while others
//! wait for it, and answers that nobody takes.
//!
//! A request that is half read holds memory, and whether the rest will come nobody knows. As long as
//! there is memory for all, it may take its time (`limits::FRAME_STALL`). While somebody waits, it
//! has to come at a pace; who holds memory and does not use it is closed, the laggard first, until
//! those who wait can be served. And if all that memory is held by requests that wait for more of it
//! themselves, so that the line stands still, some of those that hold most are closed: their clients
//! send again, and a standstill would serve nobody.
//!
//! A closed connection costs a well-behaved client a retry, never a record: a request that is half
//! here was not looked at. Complete requests are never given up.
//!
//! An answer that was encoded and does not fit into its socket is held until the client takes it (or
//! is closed as idle). One connection holds one such answer at most; if all of them together hold too
//! much, the largest are closed, first of those that take nothing at all.
//!
//! This file decides and does nothing: [`crate::listener`]'s sweep asks it once a second.

use crate::budget::Pressure;
use crate::limits;
use oncelog_broker::ConnectionId;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};

/// Share of the memory that is freed in one sweep while the line stands still: 1 / this.
const LOT_SHARE: usize = 8;

/// The marks that a connection leaves of its half-read request.
#[derive(Default)]
pub struct HalfFrame {
    held: AtomicUsize,
    since_ms: AtomicU64,
}

/// `since_ms`: there is no half-read request.
const NONE: u64 = 0;
/// `since_ms`: it waits for memory, which is not its client's fault.
const WAITS: u64 = u64::MAX;

/// A half-read request, as the sweep finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Half {
    pub connection: ConnectionId,
    /// Bytes of memory.
    pub held: usize,
    /// How long ago it should have had what it still lacks; `None`: it waits for memory.
    pub late_ms: Option<u64>,
}

impl HalfFrame {
    pub fn none(&self) {
        self.since_ms.store(NONE, SeqCst);
    }

    pub fn waits(&self, held: usize) {
        self.held.store(held, SeqCst);
        self.since_ms.store(WAITS, SeqCst);
    }

    /// It began at `began_ms`, and of its bytes `arrived` are here, the last of them now.
    pub fn goes_on(&self, held: usize, began_ms: u64, arrived: usize, now_ms: u64) {
        let pace = limits::PRESSED_FRAME_BYTES_PER_SECOND_MIN as u64;
        let paid_until = began_ms + arrived as u64 * 1_000 / pace;
        self.held.store(held, SeqCst);
        self.since_ms
            .store(paid_until.min(now_ms).max(NONE + 1), SeqCst);
    }

    pub fn seen(&self, connection: ConnectionId, now_ms: u64) -> Option<Half> {
        let late_ms = match self.since_ms.load(SeqCst) {
            NONE => return None,
            WAITS => None,
            since_ms => Some(now_ms.saturating_sub(since_ms)),
        };
        let held = self.held.load(SeqCst);
        Some(Half {
            connection,
            held,
            late_ms,
        })
    }
}

/// The connections to close, given all half-read requests, the line now and at the last sweep, and
/// the memory that there is in all.
pub fn victims(
    mut halves: Vec<Half>,
    now: Pressure,
    before: Pressure,
    limit: usize,
) -> Vec<ConnectionId> {
    if now.wanted == 0 {
        return Vec::new();
    }
    let stall_ms = limits::PRESSED_FRAME_STALL.as_millis() as u64;
    let is_late = |half: &Half| half.late_ms.is_some_and(|late| late >= stall_ms);
    halves.retain(|half| half.held > 0);
    halves.sort_by_key(|half| std::cmp::Reverse(half.late_ms));
    let late = halves.iter().filter(|half| is_late(half));
    let chosen = until_freed(late, now.wanted);
    let stands_still = before.wanted > 0 && now.served == before.served;
    if !chosen.is_empty() || !stands_still {
        return chosen;
    }
    let waiting: Vec<&Half> = halves.iter().filter(|h| h.late_ms.is_none()).collect();
    let held: usize = waiting.iter().map(|half| half.held).sum();
    if held < limit / 2 {
        // The memory is with complete requests: the disk will give it back.
        return Vec::new();
    }
    let mut most_first = waiting;
    most_first.sort_by_key(|half| std::cmp::Reverse(half.held));
    until_freed(most_first.into_iter(), limit / LOT_SHARE)
}

/// Bytes of answers that wait in a connection for its socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsent {
    pub connection: ConnectionId,
    pub held: usize,
    /// How long ago something last went either way.
    pub idle_ms: u64,
}

/// The connections to close so that unsent answers hold no more than `limit` bytes.
pub fn deaf(mut all: Vec<Unsent>, limit: usize) -> Vec<ConnectionId> {
    let mut held: usize = all.iter().map(|unsent| unsent.held).sum();
    if held <= limit {
        return Vec::new();
    }
    let stall_ms = limits::PRESSED_FRAME_STALL.as_millis() as u64;
    all.sort_by_key(|unsent| (unsent.idle_ms < stall_ms, std::cmp::Reverse(unsent.held)));
    let mut chosen = Vec::new();
    for unsent in all {
        if held <= limit {
            break;
        }
        held -= unsent.held;
        chosen.push(unsent.connection);
    }
    chosen
}

fn until_freed<'a>(halves: impl Iterator<Item = &'a Half>, enough: usize) -> Vec<ConnectionId> {
    let mut freed = 0;
    let mut chosen = Vec::new();
    for half in halves {
        if freed >= enough {
            break;
        }
        freed += half.held;
        chosen.push(half.connection);
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: usize = 1000;

    fn half(connection: u64, held: usize, late_ms: Option<u64>) -> Half {
        Half {
            connection: ConnectionId(connection),
            held,
            late_ms,
        }
    }

    fn pressure(wanted: usize, served: u64) -> Pressure {
        Pressure { wanted, served }
    }

    fn check(halves: &[Half], now: Pressure, before: Pressure, closed: &[u64]) {
        let found = victims(halves.to_vec(), now, before, LIMIT);
        let closed: Vec<ConnectionId> = closed.iter().map(|id| ConnectionId(*id)).collect();
        assert_eq!(found, closed);
    }

    #[test]
    fn nobody_is_closed_while_nobody_waits() {
        let stalled = [half(1, 900, Some(29_000))];
        check(&stalled, pressure(0, 5), pressure(0, 5), &[]);
        check(&stalled, pressure(0, 5), pressure(100, 5), &[]);
    }

    #[test]
    fn the_laggards_go_first_and_only_as_many_as_it_takes() {
        let halves = [
            half(1, 200, Some(2_100)),
            half(2, 200, Some(9_000)),
            half(3, 200, Some(1_900)), // not late yet
            half(4, 200, Some(5_000)),
            half(5, 100, None),
            half(6, 0, Some(20_000)), // would free nothing
        ];
        check(&halves, pressure(300, 1), pressure(0, 0), &[2, 4]);
        check(&halves, pressure(200, 1), pressure(0, 0), &[2]);
        check(&halves, pressure(9_000, 1), pressure(0, 0), &[2, 4, 1]);
    }

    #[test]
    fn a_line_that_stands_still_is_cut_where_most_is_held() {
        let halves = [half(1, 250, None), half(2, 400, None), half(3, 250, None)];
        check(&halves, pressure(600, 7), pressure(600, 7), &[2]);
        // It moves, or it has only just formed.
        check(&halves, pressure(600, 8), pressure(600, 7), &[]);
        check(&halves, pressure(600, 7), pressure(0, 7), &[]);
        // The disk has most of the memory.
        check(&halves[..1], pressure(600, 7), pressure(600, 7), &[]);
        // A laggard is enough.
        let mut with_laggard = halves.to_vec();
        with_laggard.push(half(4, 50, Some(3_000)));
        check(&with_laggard, pressure(600, 7), pressure(600, 7), &[4]);
    }

    #[test]
    fn answers_that_nobody_takes_are_dropped_largest_first() {
        let unsent = |connection, held, idle_ms| Unsent {
            connection: ConnectionId(connection),
            held,
            idle_ms,
        };
        let all = [
            unsent(1, 300, 100), // it takes them, if slowly
            unsent(2, 100, 9_000),
            unsent(3, 200, 3_000),
            unsent(4, 50, 60_000),
        ];
        let check = |limit, closed: &[u64]| {
            let closed: Vec<ConnectionId> = closed.iter().map(|id| ConnectionId(*id)).collect();
            assert_eq!(deaf(all.to_vec(), limit), closed, "{limit}");
        };
        check(650, &[]);
        check(649, &[3]);
        check(400, &[3, 2]);
        check(299, &[3, 2, 4, 1]);
    }

    #[test]
    fn bytes_buy_time_but_not_much_of_it() {
        let id = ConnectionId(1);
        let late = |began_ms, arrived, at_ms, now_ms| {
            let marks = HalfFrame::default();
            marks.goes_on(1, began_ms, arrived, at_ms);
            marks.seen(id, now_ms).unwrap().late_ms.unwrap()
        };
        let pace = limits::PRESSED_FRAME_BYTES_PER_SECOND_MIN;
        assert_eq!(late(1_000, 0, 1_000, 3_000), 2_000);
        // A byte a second is late by its average, for all that it comes now.
        assert_eq!(late(1_000, 60, 61_000, 61_000), 60_000);
        // Who came fast and stopped is late since then.
        assert_eq!(late(1_000, 100 * pace, 2_000, 9_000), 7_000);
        // Who comes at the pace is not late.
        assert_eq!(late(1_000, 60 * pace, 61_000, 61_000), 0);
        let marks = HalfFrame::default();
        assert_eq!(marks.seen(id, 5_000), None);
        marks.waits(7);
        assert_eq!(marks.seen(id, 5_000), Some(half(1, 7, None)));
        marks.none();
        assert_eq!(marks.seen(id, 5_000), None);
    }
}
