//! A member of a classic group: JoinGroup, SyncGroup, Heartbeat, and the whole again when told so.

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use oncelog_wire::messages::{
    ConsumerProtocolAssignment, ConsumerProtocolSubscription, HeartbeatRequest, JoinGroupRequest,
    JoinGroupResponse, LeaveGroupRequest, SyncGroupRequest, consumer_protocol_assignment,
    join_group_request, sync_group_request,
};
use oncelog_wire::{ErrorCode, Reader, ResponseBody, Writer};

use super::{Group, Next, Share};
use crate::broker::{Broker, no_error};

const SESSION_TIMEOUT_MS: i32 = 45_000;
const REBALANCE_TIMEOUT_MS: i32 = 60_000;
const ASSIGNOR: &str = "range";
const PROTOCOL_TYPE: &str = "consumer";

struct Member<'a> {
    group: &'a Group,
    broker: Broker,
    id: String,
    generation: i32,
}

/// Lives until the measurement is over or the member is to leave.
pub fn member(group: &Group, number: usize) -> Result<()> {
    let broker = Broker::connect(&group.address)?;
    let mut member = Member {
        group,
        broker,
        id: String::new(),
        generation: -1,
    };
    loop {
        group.report(number, None);
        let Some(partitions) = member.join_and_sync()? else {
            continue;
        };
        let generation = member.generation;
        group.report(
            number,
            Some(Share {
                generation,
                partitions,
            }),
        );
        loop {
            match group.next(number) {
                Next::Heartbeat if member.heartbeat()? => {}
                Next::Heartbeat => break,
                Next::Leave => {
                    group.report(number, None);
                    return member.leave();
                }
                Next::Stop => return Ok(()),
            }
        }
    }
}

impl Member<'_> {
    /// The partitions given; `None` if it has to be begun again.
    fn join_and_sync(&mut self) -> Result<Option<Vec<i32>>> {
        let joined = self.join()?;
        match ErrorCode::from_code(joined.error_code) {
            ErrorCode::None => {}
            ErrorCode::MemberIdRequired => {
                self.id = joined.member_id;
                return Ok(None);
            }
            ErrorCode::UnknownMemberId => {
                self.id = String::new();
                return Ok(None);
            }
            // It loads, or another rebalance has come in between.
            ErrorCode::CoordinatorLoadInProgress
            | ErrorCode::NotCoordinator
            | ErrorCode::RebalanceInProgress => return Ok(None),
            error => bail!("JoinGroup: {error:?}"),
        }
        self.id = joined.member_id.clone();
        self.generation = joined.generation_id;
        self.sync(&joined)
    }

    fn join(&mut self) -> Result<JoinGroupResponse> {
        let mut subscription = Writer::new();
        let topics = vec![self.group.name.clone()];
        subscription.i16(0);
        ConsumerProtocolSubscription {
            topics,
            ..Default::default()
        }
        .encode(&mut subscription, 0)?;
        let request = JoinGroupRequest {
            group_id: self.group.name.clone(),
            session_timeout_ms: SESSION_TIMEOUT_MS,
            rebalance_timeout_ms: REBALANCE_TIMEOUT_MS,
            member_id: self.id.clone(),
            protocol_type: PROTOCOL_TYPE.to_owned(),
            protocols: vec![join_group_request::JoinGroupRequestProtocol {
                name: ASSIGNOR.to_owned(),
                metadata: subscription.into_bytes().context("nothing is external")?,
                ..Default::default()
            }],
            ..Default::default()
        };
        match self.broker.ask(5, request)? {
            ResponseBody::JoinGroup(answer) => Ok(answer),
            _ => bail!("not an answer to JoinGroup"),
        }
    }

    fn sync(&mut self, joined: &JoinGroupResponse) -> Result<Option<Vec<i32>>> {
        let assignments = if joined.leader == self.id {
            self.assign(joined)?
        } else {
            Vec::new()
        };
        let request = SyncGroupRequest {
            group_id: self.group.name.clone(),
            generation_id: self.generation,
            member_id: self.id.clone(),
            assignments,
            ..Default::default()
        };
        let ResponseBody::SyncGroup(answer) = self.broker.ask(3, request)? else {
            bail!("not an answer to SyncGroup");
        };
        match ErrorCode::from_code(answer.error_code) {
            ErrorCode::None => decoded(answer.assignment).map(Some),
            ErrorCode::RebalanceInProgress | ErrorCode::IllegalGeneration => Ok(None),
            ErrorCode::UnknownMemberId => {
                self.id = String::new();
                Ok(None)
            }
            error => bail!("SyncGroup: {error:?}"),
        }
    }

    /// As the leader: every member its share, in turn.
    fn assign(
        &self,
        joined: &JoinGroupResponse,
    ) -> Result<Vec<sync_group_request::SyncGroupRequestAssignment>> {
        let members = joined.members.len() as i32;
        let mut assignments = Vec::new();
        for (number, member) in (0..).zip(&joined.members) {
            let share = (0..self.group.partitions).filter(|p| p % members == number);
            assignments.push(sync_group_request::SyncGroupRequestAssignment {
                member_id: member.member_id.clone(),
                assignment: encoded(&self.group.name, share.collect())?,
                ..Default::default()
            });
        }
        Ok(assignments)
    }

    /// Whether the member may stay as it is.
    fn heartbeat(&mut self) -> Result<bool> {
        let request = HeartbeatRequest {
            group_id: self.group.name.clone(),
            generation_id: self.generation,
            member_id: self.id.clone(),
            ..Default::default()
        };
        let ResponseBody::Heartbeat(answer) = self.broker.ask(3, request)? else {
            bail!("not an answer to Heartbeat");
        };
        match ErrorCode::from_code(answer.error_code) {
            ErrorCode::None => Ok(true),
            ErrorCode::RebalanceInProgress | ErrorCode::IllegalGeneration => Ok(false),
            ErrorCode::UnknownMemberId => {
                self.id = String::new();
                Ok(false)
            }
            error => bail!("Heartbeat: {error:?}"),
        }
    }

    fn leave(&mut self) -> Result<()> {
        let request = LeaveGroupRequest {
            group_id: self.group.name.clone(),
            member_id: self.id.clone(),
            ..Default::default()
        };
        let ResponseBody::LeaveGroup(answer) = self.broker.ask(1, request)? else {
            bail!("not an answer to LeaveGroup");
        };
        no_error(answer.error_code).context("LeaveGroup")
    }
}

/// What consumers agree on: a version, then the assignment in that version.
fn encoded(topic: &str, partitions: Vec<i32>) -> Result<Bytes> {
    let mut w = Writer::new();
    w.i16(0);
    let topic = topic.to_owned();
    ConsumerProtocolAssignment {
        assigned_partitions: vec![consumer_protocol_assignment::TopicPartition {
            topic,
            partitions,
        }],
        ..Default::default()
    }
    .encode(&mut w, 0)?;
    w.into_bytes().context("nothing is external")
}

fn decoded(assignment: Bytes) -> Result<Vec<i32>> {
    // A member that joined after the leader had made the shares has none.
    if assignment.is_empty() {
        return Ok(Vec::new());
    }
    let mut r = Reader::new(assignment);
    let version = r.i16()?;
    let assignment = ConsumerProtocolAssignment::decode(&mut r, version)?;
    let topics = assignment.assigned_partitions.into_iter();
    Ok(topics.flat_map(|topic| topic.partitions).collect())
}
