//! TxnOffsetCommit, API key 28, versions 0-5.
//!
//! - The records belong to the producer's transaction ([`Outcome::transactional`]): they are
//!   pending until its marker is replayed. Whether the transaction may be written to (epoch,
//!   verification, and from version 5 on adding the partition) is asked of the partition and the
//!   transaction coordinator, before and after this; [`refused`] is the answer if not.
//! - Who commits is named from version 3 on (KIP-447), and judged if named: UNKNOWN_MEMBER_ID,
//!   FENCED_INSTANCE_ID, ILLEGAL_GENERATION. A consumer group's STALE_MEMBER_EPOCH is
//!   ILLEGAL_GENERATION here. Unlike a plain commit it is taken while the group rebalances, and
//!   in any version of the request.
//! - A group that does not exist is a simple consumer's, unless a generation is named.
//! - A commit of this kind does not keep a member's session alive.

use super::super::GroupShard;
use super::super::group::Committer;
use super::super::records;
use super::commit::{Named, named};
use crate::{Caller, Outcome, ReplyTo, Topics};
use oncelog_wire::ErrorCode;
use oncelog_wire::clock::Now;
use oncelog_wire::messages::txn_offset_commit_request::TxnOffsetCommitRequestPartition;
use oncelog_wire::messages::txn_offset_commit_response::{
    TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic,
};
use oncelog_wire::messages::{
    OffsetCommitKey, OffsetCommitValue, TxnOffsetCommitRequest, TxnOffsetCommitResponse,
};

impl GroupShard {
    pub fn txn_offset_commit(
        &mut self,
        now: Now,
        reply: ReplyTo,
        caller: &Caller,
        request: &TxnOffsetCommitRequest,
        topics: &dyn Topics,
    ) -> Outcome {
        self.assert_loaded();
        let mut out = Outcome::default();
        let verdict = self.may_txn_commit(caller, request, topics);
        let response = answer(request, |topic, partition| {
            let named = named(topic, topics)?.check(partition.partition_index)?;
            verdict?;
            self.check_metadata(partition.committed_metadata.as_deref())?;
            let key = OffsetCommitKey {
                group: request.group_id.clone(),
                topic: topic.to_owned(),
                partition: partition.partition_index,
            };
            out.records
                .push(records::offset(&key, &value(now, partition, named)));
            Ok(())
        });
        if !out.records.is_empty() {
            out.transactional = Some((request.producer_id, request.producer_epoch));
        }
        out.reply(reply, response);
        out
    }

    fn may_txn_commit(
        &self,
        caller: &Caller,
        request: &TxnOffsetCommitRequest,
        topics: &dyn Topics,
    ) -> Result<(), ErrorCode> {
        if request.group_id.is_empty() {
            return Err(ErrorCode::InvalidGroupId);
        }
        let Some(group) = self.groups.get(&request.group_id) else {
            return match request.generation_id {
                ..0 => Ok(()),
                _ => Err(ErrorCode::IllegalGeneration),
            };
        };
        let committer = Committer {
            member_id: &request.member_id,
            instance_id: request.group_instance_id.as_deref(),
            generation_or_epoch: request.generation_id,
            is_transactional: true,
            api_version: caller.api_version,
        };
        let check = || {
            group.may_commit(&committer)?;
            for topic in &request.topics {
                let Ok(named) = named(&topic.name, topics) else {
                    continue;
                };
                for partition in &topic.partitions {
                    let partition = partition.partition_index;
                    group.may_commit_partition(&committer, named.id, partition)?;
                }
            }
            Ok(())
        };
        check().map_err(|error| match error {
            ErrorCode::StaleMemberEpoch => ErrorCode::IllegalGeneration,
            error => error,
        })
    }
}

/// The answer if nothing is committed, for a reason outside of the group.
pub fn refused(request: &TxnOffsetCommitRequest, error: ErrorCode) -> TxnOffsetCommitResponse {
    answer(request, |_, _| Err(error))
}

fn answer(
    request: &TxnOffsetCommitRequest,
    mut commit: impl FnMut(&str, &TxnOffsetCommitRequestPartition) -> Result<(), ErrorCode>,
) -> TxnOffsetCommitResponse {
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            let error = commit(&topic.name, partition).err();
            TxnOffsetCommitResponsePartition {
                partition_index: partition.partition_index,
                error_code: error.unwrap_or(ErrorCode::None).code(),
                ..Default::default()
            }
        });
        TxnOffsetCommitResponseTopic {
            name: topic.name.clone(),
            partitions: partitions.collect(),
            ..Default::default()
        }
    });
    TxnOffsetCommitResponse {
        topics: topics.collect(),
        ..Default::default()
    }
}

fn value(now: Now, partition: &TxnOffsetCommitRequestPartition, named: Named) -> OffsetCommitValue {
    OffsetCommitValue {
        offset: partition.committed_offset,
        leader_epoch: partition.committed_leader_epoch,
        metadata: partition.committed_metadata.clone().unwrap_or_default(),
        commit_timestamp: now.wall_ms,
        expire_timestamp: -1,
        topic_id: named.id,
        ..Default::default()
    }
}
