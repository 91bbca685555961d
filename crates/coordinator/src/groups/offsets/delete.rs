//! OffsetDelete, API key 47, version 0 (KIP-496), and the offsets of deleted topics.
//!
//! A consumer group may be alive; only topics that its members subscribe to are refused, with
//! GROUP_SUBSCRIBED_TO_TOPIC for each partition. Other kinds of groups must be empty. Whether the
//! subscription can be read is up to the client: if not, every topic counts as subscribed.
//!
//! Offsets that are pending in transactions are deleted as well: their tombstone is newer.

use super::super::GroupShard;
use super::super::group::Group;
use super::super::records;
use crate::{Outcome, ReplyTo, Topics};
use oncelog_wire::ErrorCode;
use oncelog_wire::messages::offset_delete_response::{
    OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};
use oncelog_wire::messages::{OffsetDeleteRequest, OffsetDeleteResponse};

impl GroupShard {
    pub fn offset_delete(
        &mut self,
        reply: ReplyTo,
        request: &OffsetDeleteRequest,
        topics: &dyn Topics,
    ) -> Outcome {
        self.assert_loaded();
        let group = match self.may_delete_offsets(&request.group_id) {
            Ok(group) => group,
            Err(error) => {
                let error_code = error.code();
                let refusal = OffsetDeleteResponse {
                    error_code,
                    ..Default::default()
                };
                return Outcome::answer(reply, refusal);
            }
        };
        let mut out = Outcome::default();
        let mut answered = Vec::with_capacity(request.topics.len());
        for topic in &request.topics {
            let count = topics.topic(&topic.name).map_or(0, |view| view.partitions);
            let is_subscribed = group.is_subscribed_to(&topic.name);
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for partition in topic
                .partitions
                .iter()
                .map(|partition| partition.partition_index)
            {
                let error = if !(0..count).contains(&partition) {
                    ErrorCode::UnknownTopicOrPartition
                } else if is_subscribed {
                    ErrorCode::GroupSubscribedToTopic
                } else {
                    let group_id = &request.group_id;
                    if self.offsets.knows(group_id, &topic.name, partition) {
                        let gone = records::offset_tombstone(group_id, &topic.name, partition);
                        out.records.push(gone);
                    }
                    ErrorCode::None
                };
                partitions.push(OffsetDeleteResponsePartition {
                    partition_index: partition,
                    error_code: error.code(),
                });
            }
            answered.push(OffsetDeleteResponseTopic {
                name: topic.name.clone(),
                partitions,
            });
        }
        out.reply(
            reply,
            OffsetDeleteResponse {
                topics: answered,
                ..Default::default()
            },
        );
        out
    }

    fn may_delete_offsets(&self, group_id: &str) -> Result<&Group, ErrorCode> {
        if group_id.is_empty() {
            return Err(ErrorCode::InvalidGroupId);
        }
        let group = self
            .groups
            .get(group_id)
            .ok_or(ErrorCode::GroupIdNotFound)?;
        group.may_delete_offsets().map(|()| group)
    }

    /// These topics are gone, and with them every offset committed for them.
    pub fn topics_deleted(&mut self, names: &[&str]) -> Outcome {
        self.assert_loaded();
        let mut out = Outcome::default();
        for group_id in self.offsets.groups() {
            for (topic, partition) in self.offsets.places_of(group_id) {
                if names.contains(&topic) {
                    out.records
                        .push(records::offset_tombstone(group_id, topic, partition));
                }
            }
        }
        out
    }
}
