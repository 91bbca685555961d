//! ConsumerGroupDescribe, API key 69, versions 0-1: consumer groups as operators see them.
//!
//! Version 1 (KIP-1099) says of each member which protocol it speaks; here all speak the new one.
//! A group that does not exist or is of another kind is GROUP_ID_NOT_FOUND. Topics that do not
//! exist any more are left out of the assignments.

use super::group::ConsumerGroup;
use super::member::{Held, Member, Partitions};
use crate::Topics;
use crate::groups::GroupShard;
use crate::groups::admin::ALL_GROUP_OPERATIONS;
use crate::groups::group::Group;
use oncelog_wire::ErrorCode;
use oncelog_wire::messages::consumer_group_describe_response::{
    Assignment, DescribedGroup, Member as DescribedMember, TopicPartitions,
};
use std::collections::BTreeSet;

/// Of a member that speaks the consumer protocol.
const MEMBER_TYPE_CONSUMER: i8 = 1;

impl GroupShard {
    /// In the order of `group_ids`. `operations`: the request asks for authorized operations.
    pub fn consumer_group_describe(
        &self,
        group_ids: &[String],
        operations: bool,
        topics: &dyn Topics,
    ) -> Vec<DescribedGroup> {
        self.assert_loaded();
        let describe = |group_id: &String| match self.groups.get(group_id) {
            Some(Group::Consumer(group)) => {
                let mut described = group.describe(topics);
                described.group_id = group_id.clone();
                described.assignor_name = group.assignor(&self.config).to_owned();
                if operations {
                    described.authorized_operations = ALL_GROUP_OPERATIONS;
                }
                described
            }
            Some(_) => not_found(
                group_id,
                format!("Group {group_id} is not a consumer group."),
            ),
            None => not_found(group_id, format!("Group {group_id} not found.")),
        };
        group_ids.iter().map(describe).collect()
    }
}

fn not_found(group_id: &str, message: String) -> DescribedGroup {
    DescribedGroup {
        group_id: group_id.to_owned(),
        error_code: ErrorCode::GroupIdNotFound.code(),
        error_message: Some(message),
        ..Default::default()
    }
}

impl ConsumerGroup {
    fn describe(&self, topics: &dyn Topics) -> DescribedGroup {
        let nothing = Partitions::new();
        let member = |(member_id, member): (&String, &Member)| {
            let target = self.target.get(member_id).unwrap_or(&nothing);
            let current = &member.current;
            let metadata = &member.metadata;
            DescribedMember {
                member_id: member_id.clone(),
                instance_id: metadata.instance_id.clone(),
                rack_id: metadata.rack_id.clone(),
                member_epoch: current.epoch,
                client_id: metadata.client_id.clone(),
                client_host: metadata.client_host.clone(),
                subscribed_topic_names: metadata.topic_names.iter().cloned().collect(),
                subscribed_topic_regex: Some(metadata.topic_regex.clone()),
                assignment: assignment(&all(&current.assigned, &current.revoking), topics),
                target_assignment: assignment(target, topics),
                member_type: MEMBER_TYPE_CONSUMER,
                ..Default::default()
            }
        };
        DescribedGroup {
            group_state: self.state().name().to_owned(),
            group_epoch: self.epoch,
            assignment_epoch: self.target_metadata.epoch,
            members: self.members.iter().map(member).collect(),
            ..Default::default()
        }
    }
}

/// What a member has still counts as its own while it gives it up.
fn all(assigned: &Held, revoking: &Held) -> Partitions {
    let mut all = Partitions::new();
    for (topic, partitions) in assigned.iter().chain(revoking) {
        let of_topic: &mut BTreeSet<i32> = all.entry(*topic).or_default();
        of_topic.extend(partitions.keys());
    }
    all
}

fn assignment(partitions: &Partitions, topics: &dyn Topics) -> Assignment {
    let named = partitions.iter().filter_map(|(topic_id, partitions)| {
        Some(TopicPartitions {
            topic_id: *topic_id,
            topic_name: topics.topic_by_id(*topic_id)?.to_owned(),
            partitions: partitions.iter().copied().collect(),
            ..Default::default()
        })
    });
    Assignment {
        topic_partitions: named.collect(),
        ..Default::default()
    }
}
