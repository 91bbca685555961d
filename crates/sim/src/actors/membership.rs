//! A member of a consumer group in the classic protocol, as far as membership goes: join, sync,
//! heartbeat, and what the group's errors mean for it. Its assignment is a list of the numbers of
//! one topic's partitions.

use super::Context;
use crate::history::Violation;
use bytes::Bytes;
use oncelog_wire::messages::join_group_request::JoinGroupRequestProtocol;
use oncelog_wire::messages::join_group_response::JoinGroupResponseMember;
use oncelog_wire::messages::sync_group_request::SyncGroupRequestAssignment;
use oncelog_wire::messages::{
    HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, SyncGroupRequest, SyncGroupResponse,
};
use oncelog_wire::{ErrorCode, RequestBody};

pub const SESSION_MS: i32 = 6_000;

pub const JOIN_VERSION: i16 = 5;
pub const SYNC_VERSION: i16 = 3;
pub const HEARTBEAT_VERSION: i16 = 3;

pub struct Membership {
    group: &'static str,
    topic: &'static str,
    partitions: i32,
    pub member: String,
    pub generation: i32,
}

impl Membership {
    /// Of a group that reads a topic with so many partitions.
    pub fn new(group: &'static str, topic: &'static str, partitions: i32) -> Membership {
        Membership {
            group,
            topic,
            partitions,
            member: String::new(),
            generation: -1,
        }
    }

    pub fn join(&self) -> RequestBody {
        let protocol = JoinGroupRequestProtocol {
            name: "range".to_owned(),
            metadata: Bytes::from_static(b"sim"),
            ..Default::default()
        };
        let ask = JoinGroupRequest {
            group_id: self.group.to_owned(),
            session_timeout_ms: SESSION_MS,
            rebalance_timeout_ms: SESSION_MS,
            member_id: self.member.clone(),
            protocol_type: "consumer".to_owned(),
            protocols: vec![protocol],
            ..Default::default()
        };
        ask.into()
    }

    /// What to ask next: to sync, to join again with the id that was given; nothing if it should
    /// join again a little later.
    pub fn joined(&mut self, answer: &JoinGroupResponse) -> Option<(i16, RequestBody)> {
        self.member = answer.member_id.clone();
        match ErrorCode::from_code(answer.error_code) {
            ErrorCode::None => {}
            ErrorCode::MemberIdRequired => return Some((JOIN_VERSION, self.join())),
            error => {
                if error == ErrorCode::UnknownMemberId {
                    self.member.clear();
                }
                return None;
            }
        }
        self.generation = answer.generation_id;
        let ask = SyncGroupRequest {
            group_id: self.group.to_owned(),
            generation_id: self.generation,
            member_id: self.member.clone(),
            assignments: self.assign(answer),
            ..Default::default()
        };
        Some((SYNC_VERSION, ask.into()))
    }

    /// The leader gives partition p to member p mod n.
    fn assign(&self, answer: &JoinGroupResponse) -> Vec<SyncGroupRequestAssignment> {
        if answer.leader != self.member {
            return Vec::new();
        }
        let members = answer.members.iter().enumerate();
        let assignment = |(at, member): (usize, &JoinGroupResponseMember)| {
            let mine = |p: &i32| *p as usize % answer.members.len() == at;
            let partitions = (0..self.partitions).filter(mine);
            let bytes: Vec<u8> = partitions.map(|p| p as u8).collect();
            SyncGroupRequestAssignment {
                member_id: member.member_id.clone(),
                assignment: bytes.into(),
                ..Default::default()
            }
        };
        members.map(assignment).collect()
    }

    /// The partitions that are owned now; `None` if this member has to join again.
    pub fn synced(
        &mut self,
        context: &mut Context,
        answer: &SyncGroupResponse,
    ) -> Result<Option<Vec<i32>>, Violation> {
        if !self.still_member(answer.error_code) {
            return Ok(None);
        }
        // Not when it was joined: a generation is persisted by its leader's SyncGroup, and one
        // that a crash takes back before that never gave anybody anything.
        context.history.synced(self.group, self.generation);
        let mut owned = Vec::new();
        for partition in &answer.assignment {
            let partition = i32::from(*partition);
            let place = (self.topic.to_owned(), partition);
            context
                .history
                .owns(self.group, self.generation, &place, &self.member)?;
            owned.push(partition);
        }
        Ok(Some(owned))
    }

    pub fn heartbeat(&self) -> RequestBody {
        let ask = HeartbeatRequest {
            group_id: self.group.to_owned(),
            generation_id: self.generation,
            member_id: self.member.clone(),
            ..Default::default()
        };
        ask.into()
    }

    /// What a group's error means; false if this member has to join again.
    pub fn still_member(&mut self, code: i16) -> bool {
        match ErrorCode::from_code(code) {
            ErrorCode::None => return true,
            ErrorCode::UnknownMemberId => self.member.clear(),
            _ => {}
        }
        false
    }

    /// The newest generation of the group that anybody was told.
    pub fn newest(&self, context: &Context) -> i32 {
        let generations = &context.history.generation;
        generations.get(self.group).copied().unwrap_or(-1)
    }
}
