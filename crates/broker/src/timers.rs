//! Every deadline that the broker waits for, in one ordered place.
//!
//! A timer is named by what it is for; setting it again moves it. The host is told only the
//! earliest one and sends [`crate::Input::Tick`] when it has passed.
//!
//! | timer | fires when |
//! |---|---|
//! | `Fetch` | a parked fetch has waited for `max_wait_ms` |
//! | `Produce` | an acks=all produce has waited for its `timeout_ms` |
//! | `Shard` | a group coordinator shard has a session, join or retention deadline |
//! | `TransactionShard` | a transaction coordinator's shard has a timeout or an expiry |
//! | `Partition` | a partition's own deadline (flush.ms, delayed file deletion) |
//! | `Retention` | retention is looked at for all partitions |
//! | `Upkeep` | compaction and checkpoints are looked at for all partitions |
//! | `RemoveDeleted` | the files of a deleted topic have outlived `file.delete.delay.ms` |

use crate::connections::RequestId;
use crate::topics::PartitionKey;
use oncelog_wire::clock::Instant;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    Fetch(RequestId),
    Produce(RequestId),
    Shard(i32),
    TransactionShard(i32),
    Partition(PartitionKey),
    Retention,
    Upkeep,
    RemoveDeleted(u64),
}

#[derive(Default)]
pub struct Timers {
    by_time: BTreeSet<(Instant, Timer)>,
    at: BTreeMap<Timer, Instant>,
}

impl Timers {
    /// Sets or moves a timer; [`Instant::NEVER`] clears it.
    pub fn set(&mut self, timer: Timer, at: Instant) {
        if self.at.get(&timer) == Some(&at) {
            return;
        }
        self.clear(&timer);
        if at != Instant::NEVER {
            self.by_time.insert((at, timer.clone()));
            self.at.insert(timer, at);
        }
    }

    pub fn clear(&mut self, timer: &Timer) {
        if let Some(at) = self.at.remove(timer) {
            self.by_time.remove(&(at, timer.clone()));
        }
    }

    pub fn next(&self) -> Option<Instant> {
        self.by_time.first().map(|(at, _)| *at)
    }

    /// Takes one timer whose time has come.
    pub fn pop_due(&mut self, now: Instant) -> Option<Timer> {
        let (at, _) = self.by_time.first()?;
        if *at > now {
            return None;
        }
        let (_, timer) = self.by_time.pop_first()?;
        self.at.remove(&timer);
        Some(timer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moved_timer_fires_once_at_its_new_time() {
        let mut timers = Timers::default();
        timers.set(Timer::Upkeep, Instant(10));
        timers.set(Timer::Shard(3), Instant(15));
        timers.set(Timer::Upkeep, Instant(20));
        assert_eq!(timers.next(), Some(Instant(15)));
        assert_eq!(timers.pop_due(Instant(14)), None);
        assert_eq!(timers.pop_due(Instant(30)), Some(Timer::Shard(3)));
        assert_eq!(timers.pop_due(Instant(30)), Some(Timer::Upkeep));
        assert_eq!(timers.pop_due(Instant(30)), None);
        timers.set(Timer::Upkeep, Instant(40));
        timers.set(Timer::Upkeep, Instant::NEVER);
        assert_eq!(timers.next(), None);
    }
}
