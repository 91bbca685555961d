//! The deadlines of a consumer group's members.
//!
//! - A session goes on with every heartbeat that is accepted, `group.consumer.session.timeout.ms`
//!   long. Loading the group starts them all anew.
//! - A member that has to give up partitions has its own rebalance timeout to report that it did,
//!   from when it is told.
//!
//! A member that misses either is put out of the group. Replay starts the deadlines, so they are
//! there on whichever broker leads; heartbeats move them.

use super::group::ConsumerGroup;
use crate::groups::GroupConfig;
use oncelog_wire::clock::{Instant, Now};
use std::collections::BTreeMap;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Timers {
    session_ends: Instant,
    /// `NEVER` unless partitions are being revoked.
    revocation_ends: Instant,
}

impl ConsumerGroup {
    /// Gives the session's end, if this is its start.
    pub(super) fn start_session(
        &mut self,
        member_id: &str,
        now: Now,
        config: &GroupConfig,
    ) -> Instant {
        if self.timers.contains_key(member_id) {
            return Instant::NEVER;
        }
        let timers = Timers {
            session_ends: session_end(now, config),
            revocation_ends: Instant::NEVER,
        };
        self.timers.insert(member_id.to_owned(), timers);
        timers.session_ends
    }

    /// Follows the member's state: a revocation has a deadline, and only a revocation has one.
    pub(super) fn start_revocation(&mut self, member_id: &str, now: Now) -> Instant {
        let member = &self.members[member_id];
        let ends = match ConsumerGroup::is_revoking(member) {
            true => now
                .instant
                .plus_ms(member.metadata.rebalance_timeout_ms.into()),
            false => Instant::NEVER,
        };
        let timers = self.timers.get_mut(member_id);
        timers.expect("a member has a session").revocation_ends = ends;
        ends
    }

    /// The member was heard of. Gives the session's new end.
    pub(super) fn keep_alive(
        &mut self,
        member_id: &str,
        now: Now,
        config: &GroupConfig,
    ) -> Instant {
        let Some(timers) = self.timers.get_mut(member_id) else {
            // A new member: replay starts its session.
            return Instant::NEVER;
        };
        timers.session_ends = session_end(now, config);
        timers.session_ends
    }

    /// Everything has been replayed: all deadlines are counted from now.
    pub(crate) fn load(&mut self, now: Now, config: &GroupConfig) {
        self.timers.clear();
        self.topics_seen = None;
        let members: Vec<String> = self.members.keys().cloned().collect();
        for member_id in members {
            self.start_session(&member_id, now, config);
            self.start_revocation(&member_id, now);
        }
    }

    /// When a member will be late; `NEVER` if none can be.
    pub(crate) fn next_deadline(&self) -> Instant {
        let timers = self.timers.values();
        timers
            .map(|timers| timers.session_ends.min(timers.revocation_ends))
            .fold(Instant::NEVER, Instant::min)
    }

    /// Members that are late, and for what.
    pub(crate) fn late(&self, now: Now) -> BTreeMap<String, &'static str> {
        let timers = self.timers.iter();
        let late = timers.filter_map(|(member_id, timers)| {
            let reason = if timers.session_ends <= now.instant {
                "no heartbeat within its session"
            } else if timers.revocation_ends <= now.instant {
                "partitions not given up within its rebalance timeout"
            } else {
                return None;
            };
            Some((member_id.clone(), reason))
        });
        late.collect()
    }
}

fn session_end(now: Now, config: &GroupConfig) -> Instant {
    now.instant
        .plus_ms(config.consumer_session_timeout_ms.into())
}
