//! When to look at which group again: one entry per group, for its earliest deadline.
//!
//! Entries may be early and are never late. A heartbeat only moves its member's deadline away, so
//! it leaves the entry alone and costs nothing; the entry then fires once for nothing, and the
//! group says when to come back.

use oncelog_wire::clock::Instant;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Default)]
pub(crate) struct Deadlines {
    queue: BTreeSet<(Instant, String)>,
    armed: BTreeMap<String, Instant>,
}

impl Deadlines {
    /// Makes sure that the group is looked at by `at`.
    pub(crate) fn arm(&mut self, group_id: &str, at: Instant) {
        if at == Instant::NEVER {
            return;
        }
        match self.armed.get_mut(group_id) {
            Some(armed) if *armed <= at => return,
            Some(armed) => {
                let before = std::mem::replace(armed, at);
                self.queue.remove(&(before, group_id.to_owned()));
            }
            None => {
                self.armed.insert(group_id.to_owned(), at);
            }
        }
        self.queue.insert((at, group_id.to_owned()));
    }

    pub(crate) fn disarm(&mut self, group_id: &str) {
        if let Some(at) = self.armed.remove(group_id) {
            self.queue.remove(&(at, group_id.to_owned()));
        }
    }

    /// The next group whose entry has come, taken out.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<String> {
        if self.queue.first()?.0 > now {
            return None;
        }
        let (_, group_id) = self.queue.pop_first()?;
        self.armed.remove(&group_id);
        Some(group_id)
    }

    /// `Instant::NEVER` if there is none.
    pub(crate) fn next(&self) -> Instant {
        self.queue.first().map_or(Instant::NEVER, |(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_only_moves_forward_in_time_by_firing() {
        let mut deadlines = Deadlines::default();
        deadlines.arm("g", Instant(50));
        deadlines.arm("g", Instant(90));
        assert_eq!(deadlines.next(), Instant(50));
        deadlines.arm("g", Instant(20));
        deadlines.arm("h", Instant(30));
        assert_eq!(deadlines.pop_due(Instant(19)), None);
        assert_eq!(deadlines.pop_due(Instant(40)).as_deref(), Some("g"));
        assert_eq!(deadlines.pop_due(Instant(40)).as_deref(), Some("h"));
        assert_eq!(deadlines.pop_due(Instant(90)), None);
        deadlines.arm("g", Instant(95));
        deadlines.disarm("g");
        assert_eq!(deadlines.next(), Instant::NEVER);
    }
}
