//! Staying in a classic group and leaving it: Heartbeat (12), LeaveGroup (13), expiry.
//!
//! - Heartbeat 0-4: in PreparingRebalance the answer is REBALANCE_IN_PROGRESS and the session
//!   goes on, so that the member has the whole rebalance timeout to come.
//! - LeaveGroup 0-5: from version 3 several members at once, with an error for each; an instance
//!   id with an empty member id removes a static member whoever it is now (for operators). From
//!   version 5 with reasons (KIP-800), which are logged.
//! - A session that ends, a pending id that lapses, a Sync that does not come and a join phase
//!   that takes too long are found by [`ClassicGroup::expire`].
//!
//! Deviation from Kafka: a member that is removed while its Sync is parked is answered with
//! UNKNOWN_MEMBER_ID; Kafka lets that request run into the client's timeout.

use super::Step;
use super::group::{ClassicGroup, State};
use oncelog_wire::ErrorCode;
use oncelog_wire::clock::{Instant, Now};
use oncelog_wire::messages::HeartbeatRequest;
use oncelog_wire::messages::leave_group_request::MemberIdentity;
use oncelog_wire::messages::leave_group_response::MemberResponse;

impl ClassicGroup {
    /// Also gives the session's new end.
    pub(crate) fn heartbeat(
        &mut self,
        now: Now,
        request: &HeartbeatRequest,
    ) -> (ErrorCode, Instant) {
        let instance_id = request.group_instance_id.as_deref();
        let check = self.check_member_of(&request.member_id, instance_id, request.generation_id);
        if let Err(error) = check {
            return (error, Instant::NEVER);
        }
        let ends = self.keep_alive(now, &request.member_id);
        match self.state {
            State::PreparingRebalance => (ErrorCode::RebalanceInProgress, ends),
            _ => (ErrorCode::None, ends),
        }
    }

    /// Starts the member's session anew and gives its end.
    pub(crate) fn keep_alive(&mut self, now: Now, member_id: &str) -> Instant {
        let Some(member) = self.members.get_mut(member_id) else {
            return Instant::NEVER;
        };
        member.touch(now);
        member.expires_at
    }

    /// An offset commit keeps the session alive, except while the new assignment is awaited.
    pub(crate) fn committed_offsets(&mut self, now: Now, member_id: &str) -> Instant {
        match self.state {
            State::Stable | State::PreparingRebalance => self.keep_alive(now, member_id),
            _ => Instant::NEVER,
        }
    }

    pub(crate) fn leave(
        &mut self,
        step: &mut Step,
        leaving: Vec<MemberIdentity>,
    ) -> Vec<MemberResponse> {
        let members_before = self.members.len();
        let mut left = Vec::new();
        let mut responses = Vec::new();
        for member in leaving {
            let result = self.leave_one(step, &member);
            if let Ok(member_id) = &result {
                left.push(member_id.clone());
            }
            responses.push(MemberResponse {
                member_id: member.member_id,
                group_instance_id: member.group_instance_id,
                error_code: result.err().unwrap_or(ErrorCode::None).code(),
                ..Default::default()
            });
        }
        if self.members.len() < members_before {
            self.rebalance(step, &format!("left: {}", left.join(", ")));
        } else if !left.is_empty() {
            // Only ids that were pending: at most, nobody has to wait for them any more.
            self.complete_join_if_all_joined(step);
        }
        responses
    }

    /// The id of the member that left.
    fn leave_one(
        &mut self,
        step: &mut Step,
        leaving: &MemberIdentity,
    ) -> Result<String, ErrorCode> {
        let instance_id = leaving.group_instance_id.as_deref();
        let member_id = if leaving.member_id.is_empty() {
            let current = instance_id.and_then(|instance| self.static_members.get(instance));
            current.ok_or(ErrorCode::UnknownMemberId)?.clone()
        } else {
            if !self.pending_members.contains_key(&leaving.member_id) {
                self.check_member(&leaving.member_id, instance_id)?;
            }
            leaving.member_id.clone()
        };
        let reason = leaving.reason.as_deref().unwrap_or("not provided");
        step.log(format_args!(
            "member {member_id} leaves; client reason: {reason}"
        ));
        self.remove_member(step, &member_id);
        Ok(member_id)
    }

    /// Takes a member or a pending id out, answers what it has parked, and leaves the rest of the
    /// group to the caller.
    pub(super) fn remove_member(&mut self, step: &mut Step, member_id: &str) {
        self.pending_members.remove(member_id);
        self.pending_sync.remove(member_id);
        if self.pending_sync.is_empty() {
            self.sync_deadline = Instant::NEVER;
        }
        let Some(mut member) = self.members.remove(member_id) else {
            return;
        };
        // Without an id in the answer a client that is still there joins anew.
        member.refuse_join("", ErrorCode::UnknownMemberId, step.out);
        member.refuse_sync(ErrorCode::UnknownMemberId, step.out);
        if let Some(instance_id) = &member.instance_id {
            self.static_members.remove(instance_id);
        }
        if self.is_leader(member_id) {
            self.leader = self.members.keys().next().cloned();
        }
    }

    /// Does everything that is due.
    pub(crate) fn expire(&mut self, step: &mut Step) {
        self.expire_pending(step);
        self.expire_members(step);
        if self.sync_deadline <= step.now.instant {
            self.expire_syncs(step);
        }
        if self
            .join_phase
            .is_some_and(|phase| phase.ends() <= step.now.instant)
        {
            self.join_phase_over(step);
        }
    }

    fn expire_pending(&mut self, step: &mut Step) {
        let due = |(_, lapses): &(&String, &Instant)| **lapses <= step.now.instant;
        let lapsed: Vec<String> = self
            .pending_members
            .iter()
            .filter(due)
            .map(|(id, _)| id.clone())
            .collect();
        for member_id in &lapsed {
            step.log(format_args!(
                "member id {member_id} lapsed, nobody joined with it"
            ));
            self.remove_member(step, member_id);
        }
        if !lapsed.is_empty() {
            self.complete_join_if_all_joined(step);
        }
    }

    fn expire_members(&mut self, step: &mut Step) {
        let mut failed = Vec::new();
        for (member_id, member) in &mut self.members {
            if member.expires_at > step.now.instant {
                continue;
            }
            if member.has_parked_heartbeat() {
                // Its answer will start the session anew.
                member.expires_at = Instant::NEVER;
            } else {
                failed.push(member_id.clone());
            }
        }
        for member_id in &failed {
            step.log(format_args!(
                "member {member_id} failed: no heartbeat within its session"
            ));
            self.remove_member(step, member_id);
        }
        if !failed.is_empty() {
            self.rebalance(step, &format!("failed: {}", failed.join(", ")));
        }
    }

    /// Members that took part in the join phase and never asked for their assignment.
    fn expire_syncs(&mut self, step: &mut Step) {
        let silent = std::mem::take(&mut self.pending_sync);
        self.sync_deadline = Instant::NEVER;
        for member_id in &silent {
            step.log(format_args!("member {member_id} failed: no Sync in time"));
            self.remove_member(step, member_id);
        }
        if !silent.is_empty() {
            self.prepare_rebalance(step, "members did not sync in time");
        }
    }

    /// Answers everything that is parked, because another coordinator takes over.
    pub(crate) fn resign(&mut self, step: &mut Step) {
        for (member_id, member) in &mut self.members {
            member.refuse_join(member_id, ErrorCode::NotCoordinator, step.out);
            member.refuse_sync(ErrorCode::NotCoordinator, step.out);
        }
    }
}
