//! Groups: committed offsets, and groups of one member in either protocol.
//!
//! One member a group is little, and makes every answer immediate; what several do to each other
//! is the coordinator's own random tests' matter.

use super::World;
use super::logs::name_of;
use crate::requests::code;
use bytes::Bytes;
use oncelog_wire::ErrorCode;
use oncelog_wire::clock::Instant;
use oncelog_wire::messages::consumer_group_heartbeat_request::TopicPartitions;
use oncelog_wire::messages::join_group_request::JoinGroupRequestProtocol;
use oncelog_wire::messages::leave_group_request::MemberIdentity;
use oncelog_wire::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use oncelog_wire::messages::offset_delete_request::{
    OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use oncelog_wire::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use oncelog_wire::messages::sync_group_request::SyncGroupRequestAssignment;
use oncelog_wire::messages::{
    ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse, DeleteGroupsRequest,
    DeleteGroupsResponse, HeartbeatRequest, HeartbeatResponse, JoinGroupRequest, JoinGroupResponse,
    LeaveGroupRequest, LeaveGroupResponse, OffsetCommitRequest, OffsetCommitResponse,
    OffsetDeleteRequest, OffsetDeleteResponse, OffsetFetchRequest, OffsetFetchResponse,
    SyncGroupRequest, SyncGroupResponse,
};

/// Between the steps of time, so that nothing falls due exactly with one.
const CLASSIC_SESSION_MS: i32 = 10_500;
/// The broker's default.
const CONSUMER_SESSION_MS: i64 = 45_000;
const CONSUMER: &str = "consumer";
const CONSUMER_MEMBER: &str = "the-one-member";
/// Enough for a member to give up, to be given, and to say so.
const ROUNDS: usize = 6;

#[derive(Default)]
pub struct Members {
    classic: [Option<Classic>; 2],
    consumer: Option<Consumer>,
}

struct Classic {
    id: String,
    generation: i32,
    synced: bool,
    heard: Instant,
}

struct Consumer {
    epoch: i32,
    subscribed: u8,
    owned: Vec<TopicPartitions>,
    heard: Instant,
}

impl Members {
    /// Members that were not heard of for the length of a session are gone.
    pub fn expire(&mut self, now: Instant) {
        for member in &mut self.classic {
            member.take_if(|member| now.ms_since(member.heard) > i64::from(CLASSIC_SESSION_MS));
        }
        let gone = |member: &mut Consumer| now.ms_since(member.heard) >= CONSUMER_SESSION_MS;
        self.consumer.take_if(gone);
    }

    /// Every session begins anew. True if a round was not finished: what became of it the log
    /// does not say, and its member is forgotten here.
    pub fn restarted(&mut self, now: Instant) -> bool {
        let mut unfinished = false;
        for member in &mut self.classic {
            unfinished |= member.take_if(|member| !member.synced).is_some();
            if let Some(member) = member {
                member.heard = now;
            }
        }
        if let Some(member) = &mut self.consumer {
            member.heard = now;
        }
        unfinished
    }
}

fn classic_group(which: usize) -> String {
    format!("classic-{which}")
}

impl World {
    // ---- offsets ----

    /// A commit outside of any membership.
    pub fn commit_alone(&mut self, topic: u8, partition: i32, b: u8) {
        let group = format!("alone-{}", b % 2);
        let told = self.commit(&group, -1, "", topic, partition, i64::from(b));
        self.committed(group, topic, partition, i64::from(b), told);
    }

    fn commit(
        &mut self,
        group: &str,
        generation: i32,
        member: &str,
        topic: u8,
        partition: i32,
        offset: i64,
    ) -> ErrorCode {
        let request = OffsetCommitRequest {
            group_id: group.to_owned(),
            generation_id_or_member_epoch: generation,
            member_id: member.to_owned(),
            topics: vec![OffsetCommitRequestTopic {
                name: name_of(topic),
                partitions: vec![OffsetCommitRequestPartition {
                    partition_index: partition,
                    committed_offset: offset,
                    committed_leader_epoch: -1,
                    committed_metadata: Some("note".to_owned()),
                    ..Default::default()
                }],
                ..Default::default()
            }],
            ..Default::default()
        };
        let answer: OffsetCommitResponse = self.host().ask(9, request);
        code(answer.topics[0].partitions[0].error_code)
    }

    fn exists(&self, topic: u8, partition: i32) -> bool {
        let known = self.model.topics.get(&topic);
        known.is_some_and(|known| (partition as usize) < known.partitions.len())
    }

    /// A commit that may be made was answered so.
    fn committed(
        &mut self,
        group: String,
        topic: u8,
        partition: i32,
        offset: i64,
        told: ErrorCode,
    ) {
        if !self.exists(topic, partition) {
            return assert_eq!(told, ErrorCode::UnknownTopicOrPartition);
        }
        assert_eq!(told, ErrorCode::None);
        self.model
            .committed
            .insert((group, topic, partition), offset);
    }

    pub fn delete_offset_or_group(&mut self, topic: u8, partition: i32, b: u8) {
        let group = format!("alone-{}", b % 2);
        let there = self.model.committed.keys().any(|(of, ..)| *of == group);
        if b & 2 != 0 {
            let request = DeleteGroupsRequest {
                groups_names: vec![group.clone()],
                ..Default::default()
            };
            let answer: DeleteGroupsResponse = self.host().ask(2, request);
            let told = code(answer.results[0].error_code);
            // A group without anything left may be there or not.
            if there {
                assert_eq!(told, ErrorCode::None);
            }
            self.model.committed.retain(|(of, ..), _| *of != group);
            return;
        }
        let request = OffsetDeleteRequest {
            group_id: group.clone(),
            topics: vec![OffsetDeleteRequestTopic {
                name: name_of(topic),
                partitions: vec![OffsetDeleteRequestPartition {
                    partition_index: partition,
                }],
            }],
        };
        let answer: OffsetDeleteResponse = self.host().ask(0, request);
        if there {
            assert_eq!(code(answer.error_code), ErrorCode::None);
            let told = code(answer.topics[0].partitions[0].error_code);
            match self.exists(topic, partition) {
                true => assert_eq!(told, ErrorCode::None),
                false => assert_eq!(told, ErrorCode::UnknownTopicOrPartition),
            }
        }
        self.model.committed.remove(&(group, topic, partition));
    }

    /// Every committed offset of every group, and -1 where there is none.
    pub fn check_committed(&mut self) {
        let groups = ["alone-0", "alone-1", "classic-0", "classic-1", CONSUMER];
        for group in groups {
            for topic in self.model.topics.keys().copied().collect::<Vec<_>>() {
                let count = self.model.topics[&topic].partitions.len() as i32;
                let request = OffsetFetchRequest {
                    groups: vec![OffsetFetchRequestGroup {
                        group_id: group.to_owned(),
                        member_epoch: -1,
                        topics: Some(vec![OffsetFetchRequestTopics {
                            name: name_of(topic),
                            partition_indexes: (0..count).collect(),
                            ..Default::default()
                        }]),
                        ..Default::default()
                    }],
                    ..Default::default()
                };
                let answer: OffsetFetchResponse = self.host().ask(9, request);
                for told in &answer.groups[0].topics[0].partitions {
                    let place = (group.to_owned(), topic, told.partition_index);
                    let expected = self.model.committed.get(&place);
                    assert_eq!(told.committed_offset, *expected.unwrap_or(&-1), "{place:?}");
                    assert_eq!(told.metadata.as_deref() == Some("note"), expected.is_some());
                }
            }
        }
    }

    // ---- the classic protocol ----

    pub fn classic(&mut self, a: u8, b: u8, c: u8) {
        let which = usize::from(a & 1);
        match b % 6 {
            0 | 1 => self.join(which),
            2 => self.sync(which),
            3 => self.beat(which, c),
            4 => self.commit_as_member(which, a, c),
            _ => self.leave(which),
        }
    }

    fn join(&mut self, which: usize) {
        let group = classic_group(which);
        let member = self.members.classic[which].take();
        let request = |member_id: &str| JoinGroupRequest {
            group_id: group.clone(),
            session_timeout_ms: CLASSIC_SESSION_MS,
            rebalance_timeout_ms: CLASSIC_SESSION_MS,
            member_id: member_id.to_owned(),
            protocol_type: CONSUMER.to_owned(),
            protocols: vec![JoinGroupRequestProtocol {
                name: "range".to_owned(),
                metadata: Bytes::from_static(b"m"),
                ..Default::default()
            }],
            ..Default::default()
        };
        let id = match &member {
            Some(member) => member.id.clone(),
            None => {
                let told: JoinGroupResponse = self.host().ask(6, request(""));
                assert_eq!(code(told.error_code), ErrorCode::MemberIdRequired);
                told.member_id
            }
        };
        let joined: JoinGroupResponse = self.host().ask(6, request(&id));
        assert_eq!(code(joined.error_code), ErrorCode::None, "{joined:?}");
        assert_eq!((&joined.member_id, &joined.leader), (&id, &id));
        assert_eq!(joined.members.len(), 1);
        if let Some(member) = member {
            assert!(joined.generation_id >= member.generation);
        }
        self.members.classic[which] = Some(Classic {
            id,
            generation: joined.generation_id,
            synced: false,
            heard: self.now(),
        });
    }

    fn sync(&mut self, which: usize) {
        let now = self.now();
        let Some(member) = &mut self.members.classic[which] else {
            return;
        };
        member.heard = now;
        let assignment = Bytes::from(format!("for {}", member.id));
        let request = SyncGroupRequest {
            group_id: classic_group(which),
            generation_id: member.generation,
            member_id: member.id.clone(),
            protocol_type: Some(CONSUMER.to_owned()),
            protocol_name: Some("range".to_owned()),
            assignments: vec![SyncGroupRequestAssignment {
                member_id: member.id.clone(),
                assignment: assignment.clone(),
                ..Default::default()
            }],
            ..Default::default()
        };
        member.synced = true;
        let answer: SyncGroupResponse = self.host().ask(5, request);
        assert_eq!(code(answer.error_code), ErrorCode::None);
        assert_eq!(answer.assignment, assignment);
    }

    /// A heartbeat; now and then of another generation, or of somebody unknown.
    fn beat(&mut self, which: usize, c: u8) {
        let now = self.now();
        let mut request = HeartbeatRequest {
            group_id: classic_group(which),
            member_id: "nobody".to_owned(),
            ..Default::default()
        };
        let mut expected = ErrorCode::UnknownMemberId;
        if let Some(member) = &mut self.members.classic[which] {
            request.member_id = member.id.clone();
            request.generation_id = member.generation + i32::from(c % 4 == 3);
            expected = match c % 4 {
                3 => ErrorCode::IllegalGeneration,
                _ => {
                    member.heard = now;
                    ErrorCode::None
                }
            };
        }
        let answer: HeartbeatResponse = self.host().ask(4, request);
        assert_eq!(code(answer.error_code), expected);
    }

    fn commit_as_member(&mut self, which: usize, a: u8, c: u8) {
        let (topic, partition, offset) = (a / 2 % 3, i32::from(c % 4), i64::from(c));
        let now = self.now();
        let Some(member) = &mut self.members.classic[which] else {
            return;
        };
        let (id, generation, synced) = (member.id.clone(), member.generation, member.synced);
        let group = classic_group(which);
        let told = self.commit(&group, generation + 1, &id, topic, partition, offset);
        if self.exists(topic, partition) {
            assert_eq!(told, ErrorCode::IllegalGeneration);
        }
        let told = self.commit(&group, generation, &id, topic, partition, offset);
        if synced {
            self.committed(group, topic, partition, offset, told);
        } else if self.exists(topic, partition) {
            assert_eq!(told, ErrorCode::RebalanceInProgress);
        }
        // A commit is as good as a heartbeat.
        let exists = self.exists(topic, partition);
        if let Some(member) = &mut self.members.classic[which]
            && exists
        {
            member.heard = now;
        }
    }

    fn leave(&mut self, which: usize) {
        let Some(member) = self.members.classic[which].take() else {
            return;
        };
        let request = LeaveGroupRequest {
            group_id: classic_group(which),
            members: vec![MemberIdentity {
                member_id: member.id,
                ..Default::default()
            }],
            ..Default::default()
        };
        let answer: LeaveGroupResponse = self.host().ask(5, request);
        assert_eq!(code(answer.error_code), ErrorCode::None);
        assert_eq!(code(answer.members[0].error_code), ErrorCode::None);
    }

    // ---- the consumer protocol ----

    pub fn consumer(&mut self, a: u8, b: u8, c: u8) {
        match (&self.members.consumer, b % 6) {
            (None, 0..=3) => self.consumer_joins(a % 3),
            (None, _) => {
                let answer = self.consumer_beat(5, None, None);
                let unknown = [ErrorCode::UnknownMemberId, ErrorCode::GroupIdNotFound];
                assert!(unknown.contains(&code(answer.error_code)), "{answer:?}");
            }
            (Some(_), 0..=2) => self.consumer_settles(),
            (Some(member), 3) => {
                let (epoch, offset) = (member.epoch, i64::from(c));
                let (topic, partition) = (a / 3 % 3, i32::from(c % 4));
                let told = self.commit(
                    CONSUMER,
                    epoch + 1,
                    CONSUMER_MEMBER,
                    topic,
                    partition,
                    offset,
                );
                if self.exists(topic, partition) {
                    assert_eq!(told, ErrorCode::StaleMemberEpoch);
                }
                let told = self.commit(CONSUMER, epoch, CONSUMER_MEMBER, topic, partition, offset);
                self.committed(CONSUMER.to_owned(), topic, partition, offset, told);
            }
            (Some(_), 4) => {
                let answer = self.consumer_beat(-1, None, None);
                assert_eq!(code(answer.error_code), ErrorCode::None);
                assert_eq!(answer.member_epoch, -1);
                self.members.consumer = None;
            }
            (Some(_), _) => {
                let subscribed = a % 3;
                let member = self.members.consumer.as_mut().expect("just seen");
                member.subscribed = subscribed;
                self.consumer_round(Some(subscribed));
            }
        }
    }

    fn consumer_joins(&mut self, subscribed: u8) {
        self.members.consumer = Some(Consumer {
            epoch: 0,
            subscribed,
            owned: Vec::new(),
            heard: self.now(),
        });
        self.consumer_round(Some(subscribed));
    }

    /// Heartbeats until nothing changes: then the member has its whole topic.
    fn consumer_settles(&mut self) {
        for _ in 0..ROUNDS {
            self.consumer_round(None);
        }
        let member = self.members.consumer.as_ref().expect("it is a member");
        let mut owned: Vec<i32> = Vec::new();
        let known = self.model.topics.get(&member.subscribed);
        for topic in &member.owned {
            assert_eq!(Some(topic.topic_id), known.map(|known| known.topic.id));
            owned.extend(&topic.partitions);
        }
        owned.sort();
        let count = known.map_or(0, |known| known.partitions.len() as i32);
        assert_eq!(owned, (0..count).collect::<Vec<i32>>());
    }

    /// One heartbeat as a client sends it: with what it owns, taking what it is assigned.
    fn consumer_round(&mut self, subscribe: Option<u8>) {
        let now = self.now();
        let member = self.members.consumer.as_ref().expect("it is a member");
        let (epoch, owned) = (member.epoch, member.owned.clone());
        let answer = self.consumer_beat(epoch, subscribe, Some(owned));
        assert_eq!(code(answer.error_code), ErrorCode::None, "{answer:?}");
        let member = self.members.consumer.as_mut().expect("it is a member");
        assert!(answer.member_epoch >= member.epoch, "epochs rise");
        member.epoch = answer.member_epoch;
        member.heard = now;
        if let Some(assignment) = answer.assignment {
            let taken = assignment
                .topic_partitions
                .into_iter()
                .map(|topic| TopicPartitions {
                    topic_id: topic.topic_id,
                    partitions: topic.partitions,
                    ..Default::default()
                });
            member.owned = taken.collect();
        }
    }

    fn consumer_beat(
        &mut self,
        epoch: i32,
        subscribe: Option<u8>,
        owned: Option<Vec<TopicPartitions>>,
    ) -> ConsumerGroupHeartbeatResponse {
        let request = ConsumerGroupHeartbeatRequest {
            group_id: CONSUMER.to_owned(),
            member_id: CONSUMER_MEMBER.to_owned(),
            member_epoch: epoch,
            rebalance_timeout_ms: if epoch == 0 { 60_000 } else { -1 },
            subscribed_topic_names: subscribe.map(|topic| vec![name_of(topic)]),
            topic_partitions: owned,
            ..Default::default()
        };
        self.host().ask(1, request)
    }

    /// Who is a member by the model is one by the broker, and nobody else.
    pub fn check_members(&mut self) {
        for which in 0..2 {
            self.beat(which, 0);
        }
        if self.members.consumer.is_some() {
            self.consumer_settles();
        }
    }
}
