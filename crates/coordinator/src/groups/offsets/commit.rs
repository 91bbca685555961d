//! OffsetCommit, API key 8, versions 2-10.
//!
//! - Who may commit is the group's to say; an offset under generation -1 for a group that is
//!   empty or does not exist is a simple consumer's, and makes a simple group.
//! - Versions 2-4 carry a retention time of the client's; later ones rely on the configuration.
//! - From version 9 a group that does not exist is GROUP_ID_NOT_FOUND, before ILLEGAL_GENERATION.
//! - Version 10 names topics by id alone.
//! - A consumer group goes by member epochs, STALE_MEMBER_EPOCH; one partition of the past refuses
//!   the whole request, as in Kafka.
//! - An error about the group is repeated for each partition that has none of its own; one
//!   partition's error does not stop the others.

use super::super::GroupShard;
use super::super::group::{Committer, Group};
use super::super::records;
use crate::{Caller, Outcome, ReplyTo, Topics};
use oncelog_wire::clock::Now;
use oncelog_wire::messages::offset_commit_request::OffsetCommitRequestPartition;
use oncelog_wire::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use oncelog_wire::messages::{
    OffsetCommitKey, OffsetCommitRequest, OffsetCommitResponse, OffsetCommitValue,
};
use oncelog_wire::{ErrorCode, Uuid};

impl GroupShard {
    pub fn offset_commit(
        &mut self,
        now: Now,
        reply: ReplyTo,
        caller: &Caller,
        request: OffsetCommitRequest,
        topics: &dyn Topics,
    ) -> Outcome {
        self.assert_loaded();
        let mut out = Outcome::default();
        let verdict = self.may_commit(caller, &request, topics);
        if verdict.is_ok() {
            self.committed_offsets(now, &request);
        }
        let expire_timestamp = match request.retention_time_ms {
            -1 => -1,
            retention_ms => now.wall_ms.saturating_add(retention_ms),
        };
        let mut answered = Vec::with_capacity(request.topics.len());
        for topic in request.topics {
            let named = resolve(caller.api_version, &topic.name, topic.topic_id, topics);
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for partition in topic.partitions {
                let checked = named
                    .and_then(|named| named.check(partition.partition_index))
                    .and_then(|named| verdict.map(|()| named))
                    .and_then(|named| {
                        self.check_metadata(partition.committed_metadata.as_deref())?;
                        Ok(named)
                    });
                partitions.push(OffsetCommitResponsePartition {
                    partition_index: partition.partition_index,
                    error_code: checked.err().unwrap_or(ErrorCode::None).code(),
                    ..Default::default()
                });
                let Ok(named) = checked else { continue };
                let value = value(now, partition, expire_timestamp, named.id);
                let key = OffsetCommitKey {
                    group: request.group_id.clone(),
                    topic: named.name.to_owned(),
                    partition: partitions.last().expect("just pushed").partition_index,
                };
                out.records.push(records::offset(&key, &value));
            }
            answered.push(OffsetCommitResponseTopic {
                name: topic.name,
                topic_id: topic.topic_id,
                partitions,
                ..Default::default()
            });
        }
        out.reply(
            reply,
            OffsetCommitResponse {
                topics: answered,
                ..Default::default()
            },
        );
        out
    }

    fn may_commit(
        &self,
        caller: &Caller,
        request: &OffsetCommitRequest,
        topics: &dyn Topics,
    ) -> Result<(), ErrorCode> {
        let Some(group) = self.groups.get(&request.group_id) else {
            return match request.generation_id_or_member_epoch {
                ..0 => Ok(()),
                _ if caller.api_version >= 9 => Err(ErrorCode::GroupIdNotFound),
                _ => Err(ErrorCode::IllegalGeneration),
            };
        };
        let committer = Committer {
            member_id: &request.member_id,
            instance_id: request.group_instance_id.as_deref(),
            generation_or_epoch: request.generation_id_or_member_epoch,
            is_transactional: false,
            api_version: caller.api_version,
        };
        group.may_commit(&committer)?;
        for topic in &request.topics {
            let named = resolve(caller.api_version, &topic.name, topic.topic_id, topics);
            let Ok(named) = named else { continue };
            for partition in &topic.partitions {
                group.may_commit_partition(&committer, named.id, partition.partition_index)?;
            }
        }
        Ok(())
    }

    /// A commit is a sign of life.
    fn committed_offsets(&mut self, now: Now, request: &OffsetCommitRequest) {
        let session_ends = match self.groups.get_mut(&request.group_id) {
            Some(Group::Classic(group)) => group.committed_offsets(now, &request.member_id),
            // In the consumer protocol a heartbeat alone is.
            Some(Group::Consumer(_)) | None => return,
        };
        self.deadlines.arm(&request.group_id, session_ends);
    }

    pub(super) fn check_metadata(&self, metadata: Option<&str>) -> Result<(), ErrorCode> {
        let max = self.config.offset_metadata_max;
        let Some(metadata) = metadata else {
            return Ok(());
        };
        // Kafka counts as Java does, in UTF-16 units, never more than bytes of UTF-8.
        if metadata.len() <= max || metadata.encode_utf16().count() <= max {
            return Ok(());
        }
        Err(ErrorCode::OffsetMetadataTooLarge)
    }
}

/// A topic that exists.
#[derive(Clone, Copy)]
pub(super) struct Named<'a> {
    name: &'a str,
    pub(super) id: Uuid,
    partitions: i32,
}

impl Named<'_> {
    pub(super) fn check(self, partition: i32) -> Result<Self, ErrorCode> {
        match (0..self.partitions).contains(&partition) {
            true => Ok(self),
            false => Err(ErrorCode::UnknownTopicOrPartition),
        }
    }
}

fn resolve<'a>(
    api_version: i16,
    name: &'a str,
    id: Uuid,
    topics: &'a dyn Topics,
) -> Result<Named<'a>, ErrorCode> {
    let name = match api_version >= 10 {
        true => topics.topic_by_id(id).ok_or(ErrorCode::UnknownTopicId)?,
        false => name,
    };
    named(name, topics)
}

pub(super) fn named<'a>(name: &'a str, topics: &dyn Topics) -> Result<Named<'a>, ErrorCode> {
    let view = topics
        .topic(name)
        .ok_or(ErrorCode::UnknownTopicOrPartition)?;
    Ok(Named {
        name,
        id: view.id,
        partitions: view.partitions,
    })
}

fn value(
    now: Now,
    partition: OffsetCommitRequestPartition,
    expire_timestamp: i64,
    topic_id: Uuid,
) -> OffsetCommitValue {
    OffsetCommitValue {
        offset: partition.committed_offset,
        leader_epoch: partition.committed_leader_epoch,
        metadata: partition.committed_metadata.unwrap_or_default(),
        commit_timestamp: now.wall_ms,
        expire_timestamp,
        topic_id,
        ..Default::default()
    }
}
