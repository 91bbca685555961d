//! A member of a KIP-848 group: heartbeats say what it has, answers say what it should have.

use anyhow::{Result, bail};
use oncelog_wire::messages::{
    ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse, consumer_group_heartbeat_request,
};
use oncelog_wire::{ErrorCode, ResponseBody, Uuid};

use super::{Group, Next, Share};
use crate::broker::Broker;

const REBALANCE_TIMEOUT_MS: i32 = 60_000;

const JOIN: i32 = 0;
const LEAVE: i32 = -1;

struct Member<'a> {
    group: &'a Group,
    broker: Broker,
    id: String,
    epoch: i32,
    owned: Vec<(Uuid, Vec<i32>)>,
    /// Whether the broker has not been told yet what is owned.
    tell: bool,
}

/// Lives until the measurement is over or the member is to leave.
pub fn member(group: &Group, number: usize) -> Result<()> {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&(number as u64 + 1).to_be_bytes());
    let mut member = Member {
        group,
        broker: Broker::connect(&group.address)?,
        // Clients make their own, which must be unique within the group.
        id: Uuid(id).to_string(),
        epoch: JOIN,
        owned: Vec::new(),
        tell: true,
    };
    loop {
        member.heartbeat()?;
        let partitions = member
            .owned
            .iter()
            .flat_map(|(_, partitions)| partitions.clone());
        let share = Share {
            generation: member.epoch,
            partitions: partitions.collect(),
        };
        group.report(number, (member.epoch != JOIN).then_some(share));
        if member.tell {
            continue;
        }
        match group.next(number) {
            Next::Heartbeat => {}
            Next::Leave => {
                group.report(number, None);
                member.epoch = LEAVE;
                return member.ask().map(|_| ());
            }
            Next::Stop => return Ok(()),
        }
    }
}

impl Member<'_> {
    fn heartbeat(&mut self) -> Result<()> {
        let answer = self.ask()?;
        match ErrorCode::from_code(answer.error_code) {
            ErrorCode::None => {}
            ErrorCode::CoordinatorLoadInProgress | ErrorCode::NotCoordinator => return Ok(()),
            ErrorCode::UnknownMemberId | ErrorCode::FencedMemberEpoch => {
                (self.epoch, self.tell) = (JOIN, true);
                self.owned.clear();
                return Ok(());
            }
            error => bail!(
                "ConsumerGroupHeartbeat: {error:?} {:?}",
                answer.error_message
            ),
        }
        self.epoch = answer.member_epoch;
        self.tell = false;
        if let Some(assignment) = answer.assignment {
            let topics = assignment.topic_partitions.into_iter();
            self.owned = topics
                .map(|topic| (topic.topic_id, topic.partitions))
                .collect();
            self.tell = true;
        }
        Ok(())
    }

    fn ask(&mut self) -> Result<ConsumerGroupHeartbeatResponse> {
        let joins = self.epoch == JOIN;
        let owned = self.owned.iter().map(|(topic_id, partitions)| {
            consumer_group_heartbeat_request::TopicPartitions {
                topic_id: *topic_id,
                partitions: partitions.clone(),
                ..Default::default()
            }
        });
        let request = ConsumerGroupHeartbeatRequest {
            group_id: self.group.name.clone(),
            member_id: self.id.clone(),
            member_epoch: self.epoch,
            rebalance_timeout_ms: if joins { REBALANCE_TIMEOUT_MS } else { -1 },
            subscribed_topic_names: joins.then(|| vec![self.group.name.clone()]),
            topic_partitions: self.tell.then(|| owned.collect()),
            ..Default::default()
        };
        match self.broker.ask(1, request)? {
            ResponseBody::ConsumerGroupHeartbeat(answer) => Ok(answer),
            _ => bail!("not an answer to ConsumerGroupHeartbeat"),
        }
    }
}
