//! SyncGroup, API key 14, versions 0-5, for classic groups.
//!
//! Members wait here for the leader's assignment. The leader's own Sync makes the generation
//! stable: its record goes out in the same outcome as everybody's answer, so nobody hears of an
//! assignment that could be lost.
//!
//! From version 5 (KIP-559) the request names protocol type and name, and a mismatch is
//! INCONSISTENT_GROUP_PROTOCOL.

use super::Step;
use super::group::{ClassicGroup, State};
use super::member::{Member, Parked, sync_refused};
use crate::groups::records;
use bytes::Bytes;
use oncelog_wire::ErrorCode;
use oncelog_wire::clock::Instant;
use oncelog_wire::messages::sync_group_request::SyncGroupRequestAssignment;
use oncelog_wire::messages::{SyncGroupRequest, SyncGroupResponse};
use std::collections::BTreeMap;

impl ClassicGroup {
    pub(crate) fn sync(&mut self, step: &mut Step, parked: Parked, request: SyncGroupRequest) {
        if let Err(error) = self.check_sync(&request) {
            step.out.reply(parked.reply, sync_refused(error));
            return;
        }
        let member_id = request.member_id;
        let leads = self.is_leader(&member_id);
        self.pending_sync.remove(&member_id);
        if self.pending_sync.is_empty() {
            self.sync_deadline = Instant::NEVER;
        }
        let member = self.members.get_mut(&member_id).expect("checked above");
        if self.state == State::Stable {
            // It came after the leader, or it asks again.
            member.touch(step.now);
            let response = self.synced(&self.members[&member_id]);
            step.out.reply(parked.reply, response);
            return;
        }
        member.park_sync(parked, step.out);
        if leads {
            self.assign(step, request.assignments);
        }
    }

    fn check_sync(&self, request: &SyncGroupRequest) -> Result<(), ErrorCode> {
        let instance_id = request.group_instance_id.as_deref();
        self.check_member_of(&request.member_id, instance_id, request.generation_id)?;
        let differs = |theirs: &Option<String>, ours: &Option<String>| {
            theirs.is_some() && ours.is_some() && theirs != ours
        };
        if differs(&request.protocol_type, &self.protocol_type)
            || differs(&request.protocol_name, &self.protocol)
        {
            return Err(ErrorCode::InconsistentGroupProtocol);
        }
        match self.state {
            State::PreparingRebalance => Err(ErrorCode::RebalanceInProgress),
            // Unreachable with a member, and the right answer if there is none.
            State::Empty | State::Dead => Err(ErrorCode::UnknownMemberId),
            State::CompletingRebalance | State::Stable => Ok(()),
        }
    }

    /// The leader has spoken: the generation becomes stable.
    fn assign(&mut self, step: &mut Step, assignments: Vec<SyncGroupRequestAssignment>) {
        let mut assignments: BTreeMap<String, Bytes> = assignments
            .into_iter()
            .map(|a| (a.member_id, a.assignment))
            .collect();
        let mut without = Vec::new();
        for (member_id, member) in &mut self.members {
            let assignment = assignments.remove(member_id).unwrap_or_default();
            if assignment.is_empty() {
                without.push(member_id.as_str());
            }
            // A copy: it outlives the request's frame.
            member.assignment = Bytes::copy_from_slice(&assignment);
        }
        if !without.is_empty() {
            step.log(format_args!(
                "the leader assigns nothing to {}",
                without.join(", ")
            ));
        }
        self.transition(State::Stable, step.now);
        let record = records::group(step.group_id, &self.to_record());
        let bytes = record.value.as_ref().map_or(0, Bytes::len);
        if bytes > step.config.group_record_bytes_max {
            self.refuse_assignment(step, bytes);
            return;
        }
        step.log(format_args!("stable, generation {}", self.generation));
        step.out.records.push(record);
        self.answer_syncs(step);
    }

    /// The group is too large to be written, so it cannot become stable. Kafka's answer too; the
    /// way out is fewer members, smaller metadata, or a larger `max.message.bytes`.
    fn refuse_assignment(&mut self, step: &mut Step, bytes: usize) {
        step.log(format_args!(
            "the record of generation {} has {bytes} bytes, more than the {} that fit",
            self.generation, step.config.group_record_bytes_max
        ));
        self.transition(State::CompletingRebalance, step.now);
        self.cancel_syncs(step, ErrorCode::UnknownServerError);
        self.prepare_rebalance(step, "the group is too large to be stored");
    }

    fn answer_syncs(&mut self, step: &mut Step) {
        let mut parked = Vec::new();
        for (member_id, member) in &mut self.members {
            if let Some(sync) = member.awaiting_sync.take() {
                member.touch(step.now);
                parked.push((member_id.clone(), sync));
            }
        }
        for (member_id, sync) in parked {
            step.out
                .reply(sync.reply, self.synced(&self.members[&member_id]));
        }
    }

    /// Forgets this generation's assignments and tells everybody who waits for one.
    pub(super) fn cancel_syncs(&mut self, step: &mut Step, error: ErrorCode) {
        for member in self.members.values_mut() {
            member.assignment = Bytes::new();
            if member.refuse_sync(error, step.out) {
                member.touch(step.now);
            }
        }
    }

    fn synced(&self, member: &Member) -> SyncGroupResponse {
        SyncGroupResponse {
            protocol_type: self.protocol_type.clone(),
            protocol_name: self.protocol.clone(),
            assignment: member.assignment.clone(),
            ..Default::default()
        }
    }
}
