//! JoinGroup, API key 11, versions 0-9, for classic groups.
//!
//! - Version 0 has no rebalance timeout: the session timeout stands in.
//! - From version 4 (KIP-394) a dynamic member without an id is given one with
//!   MEMBER_ID_REQUIRED and joins again with it. The id is pending for the session timeout, and a
//!   rebalance waits for it.
//! - From version 5 (KIP-345) an instance id makes a member static. A Join under a known instance
//!   id and no member id replaces the old member, whose later requests are fenced. In a stable
//!   group this changes nothing for the others as long as the protocol stays.
//! - Version 9 (KIP-814): a static leader that comes back to a stable group is told who is in
//!   the group, and to skip the assignment. Before, it was answered with its old id as leader so
//!   that it takes itself for a follower.
//! - From version 8 (KIP-800) clients say why they join; the reason is logged.
//!
//! Deviations from Kafka: the first refused Join does not create a group; a Join that replaces a
//! parked one of the same member answers the older with REBALANCE_IN_PROGRESS, where Kafka lets
//! it run into the client's timeout; a static member that is replaced has its new process's client
//! id and host, where Kafka keeps the old ones; an absent static member alone is looked for again
//! after a second at least.

use super::Step;
use super::group::{ClassicGroup, State};
use super::member::{Member, Parked, join_refused};
use super::rebalance::JoinPhase;
use crate::Caller;
use crate::ReplyTo;
use crate::groups::records;
use crate::seed::Seed;
use bytes::Bytes;
use oncelog_wire::ErrorCode;
use oncelog_wire::messages::{JoinGroupRequest, JoinGroupResponse};

/// How long a member that has just come may wait for the others before it is taken for gone; it
/// cannot send heartbeats yet. Kafka's value, not configurable there either.
const NEW_MEMBER_JOIN_TIMEOUT_MS: i64 = 5 * 60 * 1_000;

/// Of a client's own name, this much goes into its member id; clients take the id as opaque.
const MEMBER_ID_PREFIX_BYTES_MAX: usize = 255;

/// A JoinGroup request in the terms of the group.
#[derive(Debug)]
pub(crate) struct Join {
    parked: Parked,
    /// Empty if the client has none yet.
    member_id: String,
    instance_id: Option<String>,
    client_id: String,
    client_host: String,
    session_timeout_ms: i32,
    rebalance_timeout_ms: i32,
    protocol_type: String,
    protocols: Vec<(String, Bytes)>,
    reason: Option<String>,
}

impl Join {
    pub(crate) fn new(reply: ReplyTo, caller: &Caller, request: JoinGroupRequest) -> Join {
        let rebalance_timeout_ms = match caller.api_version {
            0 => request.session_timeout_ms,
            _ => request.rebalance_timeout_ms,
        };
        // A copy: the metadata outlives the request's frame, which may be much larger.
        let own = |metadata: &Bytes| Bytes::copy_from_slice(metadata);
        let protocols = request.protocols.iter();
        Join {
            parked: Parked {
                reply,
                api_version: caller.api_version,
            },
            member_id: request.member_id,
            instance_id: request.group_instance_id,
            client_id: caller.client_id.clone(),
            client_host: caller.client_host.clone(),
            session_timeout_ms: request.session_timeout_ms,
            rebalance_timeout_ms,
            protocol_type: request.protocol_type,
            protocols: protocols
                .map(|p| (p.name.clone(), own(&p.metadata)))
                .collect(),
            reason: request.reason,
        }
    }

    fn refused(&self, member_id: &str, error: ErrorCode) -> JoinGroupResponse {
        join_refused(self.parked.api_version, member_id, error)
    }

    fn reason(&self) -> &str {
        self.reason.as_deref().unwrap_or("not provided")
    }
}

impl ClassicGroup {
    pub(crate) fn join(&mut self, step: &mut Step, seed: &mut Seed, join: Join) {
        if !self.has_room_for(&join.member_id, step.config.max_size) {
            step.out.reply(
                join.parked.reply,
                join.refused("", ErrorCode::GroupMaxSizeReached),
            );
            self.remove_member(step, &join.member_id);
            self.complete_join_if_all_joined(step);
            return;
        }
        if !self.supports(&join.protocol_type, &join.protocols) {
            let error = ErrorCode::InconsistentGroupProtocol;
            step.out
                .reply(join.parked.reply, join.refused(&join.member_id, error));
            return;
        }
        if join.member_id.is_empty() {
            self.join_without_id(step, seed, join);
        } else {
            self.join_with_id(step, join);
        }
    }

    fn has_room_for(&self, member_id: &str, max_size: usize) -> bool {
        let member = self.members.get(member_id);
        match self.state {
            State::Empty | State::Dead => true,
            // Counted by who has joined, so that of a group that is too large (the limit was
            // lowered) the last to rejoin are turned away.
            State::PreparingRebalance => {
                let joined = self
                    .members
                    .values()
                    .filter(|m| m.awaiting_join.is_some())
                    .count();
                member.is_some_and(|m| m.awaiting_join.is_some()) || joined < max_size
            }
            State::CompletingRebalance | State::Stable => {
                member.is_some() || self.members.len() < max_size
            }
        }
    }

    fn join_without_id(&mut self, step: &mut Step, seed: &mut Seed, join: Join) {
        let name = join.instance_id.as_deref().unwrap_or(&join.client_id);
        let member_id = new_member_id(name, seed);
        if let Some(instance_id) = &join.instance_id {
            match self.static_members.get(instance_id).cloned() {
                Some(old_id) => self.replace_static_member(step, &old_id, member_id, join),
                None => self.add_member(step, member_id, join),
            }
        } else if join.parked.api_version >= 4 {
            let lapses = step.now.instant.plus_ms(join.session_timeout_ms.into());
            step.log(format_args!(
                "member id {member_id} given out, to join with"
            ));
            let error = ErrorCode::MemberIdRequired;
            step.out
                .reply(join.parked.reply, join.refused(&member_id, error));
            self.pending_members.insert(member_id, lapses);
        } else {
            self.add_member(step, member_id, join);
        }
    }

    fn join_with_id(&mut self, step: &mut Step, join: Join) {
        let member_id = join.member_id.clone();
        if join.instance_id.is_none() && self.pending_members.remove(&member_id).is_some() {
            self.add_member(step, member_id, join);
            return;
        }
        if let Err(error) = self.check_member(&member_id, join.instance_id.as_deref()) {
            step.out
                .reply(join.parked.reply, join.refused(&member_id, error));
            return;
        }
        let unchanged = self.members[&member_id].protocols == join.protocols;
        let answer_now = match self.state {
            // It did not get the first answer.
            State::CompletingRebalance => unchanged,
            // A leader's Join asks for a rebalance: what it assigns by may have changed
            // elsewhere, a topic's partitions for example.
            State::Stable => unchanged && !self.is_leader(&member_id),
            _ => false,
        };
        if answer_now {
            let everybody = self.is_leader(&member_id);
            step.out.reply(
                join.parked.reply,
                self.joined(&member_id, join.parked, everybody),
            );
            return;
        }
        let reason = format!("member {member_id} joins; client reason: {}", join.reason());
        self.update_member(step, &member_id, join);
        self.rebalance(step, &reason);
    }

    fn add_member(&mut self, step: &mut Step, member_id: String, join: Join) {
        let reason = format!("new member {member_id}; client reason: {}", join.reason());
        if let Some(JoinPhase::Initial { member_added, .. }) = &mut self.join_phase {
            *member_added = true;
        }
        if self.members.is_empty() {
            self.protocol_type = Some(join.protocol_type);
        }
        if self.leader.is_none() {
            self.leader = Some(member_id.clone());
        }
        if let Some(instance_id) = &join.instance_id {
            self.static_members
                .insert(instance_id.clone(), member_id.clone());
        }
        self.members.insert(
            member_id,
            Member {
                instance_id: join.instance_id,
                client_id: join.client_id,
                client_host: join.client_host,
                rebalance_timeout_ms: join.rebalance_timeout_ms,
                session_timeout_ms: join.session_timeout_ms,
                protocols: join.protocols,
                assignment: Bytes::new(),
                awaiting_join: Some(join.parked),
                awaiting_sync: None,
                is_new: true,
                expires_at: step.now.instant.plus_ms(NEW_MEMBER_JOIN_TIMEOUT_MS),
            },
        );
        self.rebalance(step, &reason);
    }

    /// Takes the member's own word for everything that a Join can change, and parks the Join.
    fn update_member(&mut self, step: &mut Step, member_id: &str, join: Join) {
        let member = self
            .members
            .get_mut(member_id)
            .expect("checked by the caller");
        member.protocols = join.protocols;
        member.rebalance_timeout_ms = join.rebalance_timeout_ms;
        member.session_timeout_ms = join.session_timeout_ms;
        member.park_join(join.parked, step.out);
    }

    /// The same instance under a new member id: a static member has been restarted.
    fn replace_static_member(
        &mut self,
        step: &mut Step,
        old_id: &str,
        member_id: String,
        join: Join,
    ) {
        step.log(format_args!(
            "instance {:?} is {member_id} now, was {old_id}; client reason: {}",
            join.instance_id,
            join.reason()
        ));
        let mut member = self
            .members
            .remove(old_id)
            .expect("static members are members");
        member.refuse_join(old_id, ErrorCode::FencedInstanceId, step.out);
        member.refuse_sync(ErrorCode::FencedInstanceId, step.out);
        member.is_new = false;
        member.client_id = join.client_id.clone();
        member.client_host = join.client_host.clone();
        if let Some(instance_id) = &member.instance_id {
            self.static_members
                .insert(instance_id.clone(), member_id.clone());
        }
        let leader_before = self.leader.clone();
        if self.is_leader(old_id) {
            self.leader = Some(member_id.clone());
        }
        if self.pending_sync.remove(old_id) {
            self.pending_sync.insert(member_id.clone());
        }
        self.members.insert(member_id.clone(), member);
        let reason = join.reason().to_owned();
        self.update_member(step, &member_id, join);
        self.members
            .get_mut(&member_id)
            .expect("just inserted")
            .touch(step.now);

        match self.state {
            State::Stable if self.protocol.as_deref() == Some(&self.select_protocol()) => {
                self.keep_stable(step, &member_id, leader_before);
            }
            State::Stable | State::CompletingRebalance => {
                // In CompletingRebalance the leader may be assigning to the old id just now.
                let reason = format!("member {member_id} replaced; client reason: {reason}");
                self.prepare_rebalance(step, &reason);
            }
            _ => self.complete_join_if_all_joined(step),
        }
    }

    /// Answers the replacement of a static member that nobody else needs to hear of.
    fn keep_stable(&mut self, step: &mut Step, member_id: &str, leader_before: Option<String>) {
        self.subscribed_topics = self.compute_subscribed_topics();
        step.out
            .records
            .push(records::group(step.group_id, &self.to_record()));
        let member = self.members.get_mut(member_id).expect("just inserted");
        let parked = member.awaiting_join.take().expect("just parked");
        let leads = self.is_leader(member_id);
        let mut response = self.joined(member_id, parked, leads && parked.api_version >= 9);
        if parked.api_version >= 9 {
            response.skip_assignment = leads;
        } else {
            response.leader = leader_before.unwrap_or_default();
        }
        step.out.reply(parked.reply, response);
    }
}

fn new_member_id(name: &str, seed: &mut Seed) -> String {
    let mut end = name.len().min(MEMBER_ID_PREFIX_BYTES_MAX);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}-{}", &name[..end], seed.uuid_text())
}
