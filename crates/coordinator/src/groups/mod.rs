//! The group coordinator: groups and their committed offsets, one [`GroupShard`] per partition of
//! `__consumer_offsets`.
//!
//! A group lives in the partition that its name hashes to ([`partition_for`]), and with it
//! everything that is known of it, so shards share nothing. Requests about one group are methods
//! that take the request and give an [`Outcome`]. Requests about several groups (OffsetFetch
//! from version 8, DescribeGroups, ListGroups, DeleteGroups) may touch several shards: their
//! methods give each shard's part, and the caller answers when every shard that it asked has
//! committed what it had appended.
//!
//! Rooms: `classic/` the classic group protocol; `consumer/` the new one (KIP-848); `offsets/`
//! commits, of groups of any kind, plain and in transactions; `group` what every kind of group has
//! to answer; `admin` list, describe, delete; `records` the formats; `replay` taking them;
//! `deadlines` when to look at which group again.
//!
//! Deliberately not here: whether a producer may write to its transaction. That is between the
//! partition and the transaction coordinator; a commit that they refuse is never replayed.
//!
//! Invariants:
//! - offsets and what a group's record says change by replay alone;
//! - replaying all records into a fresh shard gives the same durable state;
//! - every request is answered exactly once;
//! - nothing here knows whether a record is committed. The caller holds answers back.

mod admin;
mod classic;
mod config;
mod consumer;
pub(crate) mod deadlines;
mod figures;
mod group;
pub mod offsets;
mod records;
mod replay;
#[cfg(test)]
mod tests;

pub use config::GroupConfig;
pub use figures::GroupFigures;
pub use records::ReplayError;

use crate::seed::Seed;
use crate::{Caller, Outcome, ReplyTo};
use classic::{ClassicGroup, Join, Parked, Step};
use deadlines::Deadlines;
use group::Group;
use offsets::Offsets;
use oncelog_wire::ErrorCode;
use oncelog_wire::clock::{Instant, Now};
use oncelog_wire::messages::leave_group_request::MemberIdentity;
use oncelog_wire::messages::leave_group_response::MemberResponse;
use oncelog_wire::messages::{
    HeartbeatRequest, HeartbeatResponse, JoinGroupRequest, LeaveGroupRequest, LeaveGroupResponse,
    SyncGroupRequest,
};
use std::collections::BTreeMap;

/// The partition of `__consumer_offsets`, which has `partitions` of them, that a group lives in.
///
/// Kafka's rule: Java's `String.hashCode` (over UTF-16 units), without its sign, modulo.
pub fn partition_for(group_id: &str, partitions: i32) -> i32 {
    assert!(partitions > 0, "a topic has at least one partition");
    let hash = |hash: i32, unit: u16| hash.wrapping_mul(31).wrapping_add(i32::from(unit));
    // Kafka's abs: the sign bit cleared, not the absolute value.
    (group_id.encode_utf16().fold(0, hash) & i32::MAX) % partitions
}

/// The groups of one partition of `__consumer_offsets`.
#[derive(Debug)]
pub struct GroupShard {
    config: GroupConfig,
    seed: Seed,
    groups: BTreeMap<String, Group>,
    offsets: Offsets,
    deadlines: Deadlines,
    /// False while the partition is being read back.
    loaded: bool,
    next_retention_check: Instant,
}

impl GroupShard {
    /// An empty shard that is still loading: replay the partition, then call
    /// [`GroupShard::loaded`].
    pub fn new(config: GroupConfig, seed: Seed) -> GroupShard {
        GroupShard {
            config,
            seed,
            groups: BTreeMap::new(),
            offsets: Offsets::default(),
            deadlines: Deadlines::default(),
            loaded: false,
            next_retention_check: Instant::NEVER,
        }
    }

    /// Everything has been replayed: from now on the shard decides. Members of loaded groups have
    /// a session from now.
    pub fn loaded(&mut self, now: Now) -> Outcome {
        assert!(!self.loaded, "a shard is loaded once");
        self.loaded = true;
        self.next_retention_check = now
            .instant
            .plus_ms(self.config.offsets_retention_check_interval_ms);
        let mut out = Outcome::default();
        for (group_id, group) in &mut self.groups {
            let config = &self.config;
            let next = match group {
                Group::Classic(group) => {
                    group.load(now);
                    group.shrink(&mut Step {
                        group_id,
                        now,
                        config,
                        out: &mut out,
                    });
                    group.next_deadline()
                }
                Group::Consumer(group) => group.loaded(group_id, now, config, &mut out),
            };
            self.deadlines.arm(group_id, next);
        }
        out
    }

    /// Another broker coordinates these groups from now on: every parked request is answered
    /// with NOT_COORDINATOR, which need not wait for anything to be committed.
    pub fn resign(mut self, now: Now) -> Outcome {
        let mut out = Outcome::default();
        for (group_id, group) in &mut self.groups {
            // Heartbeats of consumer groups are answered at once: nothing is parked.
            if let Group::Classic(group) = group {
                group.resign(&mut Step {
                    group_id,
                    now,
                    config: &self.config,
                    out: &mut out,
                });
            }
        }
        out
    }

    /// When to call [`GroupShard::tick`] next; may be early, is never late.
    pub fn next_deadline(&self) -> Instant {
        self.deadlines.next().min(self.next_retention_check)
    }

    /// Does what is due.
    pub fn tick(&mut self, now: Now) -> Outcome {
        self.assert_loaded();
        let mut out = Outcome::default();
        while let Some(group_id) = self.deadlines.pop_due(now.instant) {
            let Some(group) = self.groups.get_mut(&group_id) else {
                continue;
            };
            let next = match group {
                Group::Classic(group) => {
                    group.expire(&mut Step {
                        group_id: &group_id,
                        now,
                        config: &self.config,
                        out: &mut out,
                    });
                    group.next_deadline()
                }
                Group::Consumer(group) => {
                    group.expire(&group_id, now, &mut out);
                    group.next_deadline()
                }
            };
            // Something that is due again at once waits for the next tick, so that this one ends.
            self.deadlines
                .arm(&group_id, next.max(Instant(now.instant.0 + 1)));
        }
        if self.next_retention_check <= now.instant {
            self.next_retention_check = now
                .instant
                .plus_ms(self.config.offsets_retention_check_interval_ms);
            self.expire_offsets(now, &mut out);
        }
        out
    }

    // ---- the classic group protocol ----

    /// The answer may come with a later call, when the others have joined.
    pub fn join_group(
        &mut self,
        now: Now,
        reply: ReplyTo,
        caller: &Caller,
        request: JoinGroupRequest,
    ) -> Outcome {
        self.assert_loaded();
        if let Err(error) = self.check_join(&request) {
            let refusal = classic::join_refused(caller.api_version, &request.member_id, error);
            return Outcome::answer(reply, refusal);
        }
        let group_id = request.group_id.clone();
        let mut out = Outcome::default();
        let mut birth = Vec::new();
        // An empty consumer group gives way to a classic one.
        let consumer = match self.groups.remove(&group_id) {
            Some(Group::Classic(group)) => {
                self.groups.insert(group_id.clone(), Group::Classic(group));
                None
            }
            consumer => consumer,
        };
        if let Some(consumer) = &consumer {
            consumer.bury(&group_id, &mut birth);
        }
        let is_created = !self.groups.contains_key(&group_id);
        let group = self
            .groups
            .entry(group_id.clone())
            .or_insert_with(|| Group::Classic(ClassicGroup::new(now)));
        if is_created {
            birth.extend(group.birth(&group_id));
        }
        let mut step = Step {
            group_id: &group_id,
            now,
            config: &self.config,
            out: &mut out,
        };
        match group {
            Group::Classic(group) => {
                group.join(&mut step, &mut self.seed, Join::new(reply, caller, request));
                self.deadlines.arm(&group_id, group.next_deadline());
            }
            Group::Consumer(_) => panic!("it has just given way"),
        }
        if is_created && group.is_abandoned() {
            // The join was refused, so there is nothing to remember.
            self.groups.remove(&group_id);
            if let Some(consumer) = consumer {
                self.groups.insert(group_id, consumer);
            }
        } else {
            out.records.splice(0..0, birth);
        }
        out
    }

    fn check_join(&self, request: &JoinGroupRequest) -> Result<(), ErrorCode> {
        let sessions = self.config.min_session_timeout_ms..=self.config.max_session_timeout_ms;
        if request.group_id.is_empty() {
            return Err(ErrorCode::InvalidGroupId);
        }
        if !sessions.contains(&request.session_timeout_ms) {
            return Err(ErrorCode::InvalidSessionTimeout);
        }
        if !request.member_id.is_empty() && !self.groups.contains_key(&request.group_id) {
            return Err(ErrorCode::UnknownMemberId);
        }
        match self.groups.get(&request.group_id) {
            Some(Group::Consumer(group)) if !group.is_empty() => {
                Err(ErrorCode::InconsistentGroupProtocol)
            }
            Some(Group::Consumer(_)) if !request.member_id.is_empty() => {
                Err(ErrorCode::UnknownMemberId)
            }
            _ => Ok(()),
        }
    }

    /// The answer may come with a later call, when the leader has assigned.
    pub fn sync_group(
        &mut self,
        now: Now,
        reply: ReplyTo,
        caller: &Caller,
        request: SyncGroupRequest,
    ) -> Outcome {
        self.assert_loaded();
        let refused = |error| Outcome::answer(reply, classic::sync_refused(error));
        if request.group_id.is_empty() {
            return refused(ErrorCode::InvalidGroupId);
        }
        let group_id = request.group_id.clone();
        let Some(group) = self.groups.get_mut(&group_id) else {
            return refused(ErrorCode::UnknownMemberId);
        };
        let mut out = Outcome::default();
        let mut step = Step {
            group_id: &group_id,
            now,
            config: &self.config,
            out: &mut out,
        };
        let parked = Parked {
            reply,
            api_version: caller.api_version,
        };
        match group {
            Group::Classic(group) => {
                group.sync(&mut step, parked, request);
                self.deadlines.arm(&group_id, group.next_deadline());
            }
            // Its members do not speak the classic protocol.
            Group::Consumer(_) => return refused(ErrorCode::UnknownMemberId),
        }
        out
    }

    pub fn heartbeat(
        &mut self,
        now: Now,
        reply: ReplyTo,
        _caller: &Caller,
        request: &HeartbeatRequest,
    ) -> Outcome {
        self.assert_loaded();
        let group_id = &request.group_id;
        let error = match self.groups.get_mut(group_id) {
            _ if group_id.is_empty() => ErrorCode::InvalidGroupId,
            None => ErrorCode::UnknownMemberId,
            Some(Group::Classic(group)) => {
                let (error, session_ends) = group.heartbeat(now, request);
                self.deadlines.arm(group_id, session_ends);
                error
            }
            // Its members do not speak the classic protocol.
            Some(Group::Consumer(_)) => ErrorCode::UnknownMemberId,
        };
        let response = HeartbeatResponse {
            error_code: error.code(),
            ..Default::default()
        };
        Outcome::answer(reply, response)
    }

    pub fn leave_group(
        &mut self,
        now: Now,
        reply: ReplyTo,
        caller: &Caller,
        request: LeaveGroupRequest,
    ) -> Outcome {
        self.assert_loaded();
        let mut out = Outcome::default();
        let group_id = &request.group_id;
        let leaving = match caller.api_version {
            0..=2 => {
                vec![MemberIdentity {
                    member_id: request.member_id,
                    ..Default::default()
                }]
            }
            _ => request.members,
        };
        let members = match self.groups.get_mut(group_id) {
            _ if group_id.is_empty() => {
                let error_code = ErrorCode::InvalidGroupId.code();
                out.reply(
                    reply,
                    LeaveGroupResponse {
                        error_code,
                        ..Default::default()
                    },
                );
                return out;
            }
            None => leaving.into_iter().map(left_nothing).collect(),
            Some(Group::Classic(group)) => {
                let config = &self.config;
                let responses = group.leave(
                    &mut Step {
                        group_id,
                        now,
                        config,
                        out: &mut out,
                    },
                    leaving,
                );
                self.deadlines.arm(group_id, group.next_deadline());
                responses
            }
            Some(Group::Consumer(group)) => {
                let (responses, gone) = group.remove(group_id, leaving, &mut out.log);
                out.records = gone;
                responses
            }
        };
        out.reply(reply, left(caller.api_version, members));
        out
    }

    fn assert_loaded(&self) {
        assert!(
            self.loaded,
            "a shard that is loading answers nothing: the broker does"
        );
    }
}

fn left_nothing(member: MemberIdentity) -> MemberResponse {
    MemberResponse {
        member_id: member.member_id,
        group_instance_id: member.group_instance_id,
        error_code: ErrorCode::UnknownMemberId.code(),
        ..Default::default()
    }
}

/// Up to version 2 there is one member, and its error is the response's.
fn left(api_version: i16, members: Vec<MemberResponse>) -> LeaveGroupResponse {
    if api_version >= 3 {
        return LeaveGroupResponse {
            members,
            ..Default::default()
        };
    }
    let error_code = members.first().map_or(0, |member| member.error_code);
    LeaveGroupResponse {
        error_code,
        ..Default::default()
    }
}
