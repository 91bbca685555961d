//! OffsetFetch, API key 9, versions 1-10.
//!
//! - Up to version 7 a request names one group, from version 8 several; [`groups`] and
//!   [`response`] translate, so that everything between knows only the newer form.
//! - From version 2 the topics may be null: everything that the group has committed.
//! - Version 10 names topics by id alone; one that does not exist is UNKNOWN_TOPIC_ID for each
//!   of its partitions, or left out where everything is asked for.
//! - No offset, no group, no topic: offset -1 without an error.
//! - `require_stable` (7+): a partition that an open transaction has committed an offset for is
//!   UNSTABLE_OFFSET_COMMIT, so that a reader waits for the marker. Without it, what was committed
//!   before is given. Where everything is asked for, partitions with nothing but pending offsets
//!   are left out, as in Kafka. Stable or not, the answer waits until everything appended so far
//!   is committed, as every answer here does.

use super::super::GroupShard;
use super::{CommittedOffset, is_other_topic};
use crate::Topics;
use oncelog_wire::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use oncelog_wire::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use oncelog_wire::messages::{OffsetFetchRequest, OffsetFetchResponse};
use oncelog_wire::{ErrorCode, Uuid};

/// The groups that a request of any version asks for.
pub fn groups(api_version: i16, request: OffsetFetchRequest) -> Vec<OffsetFetchRequestGroup> {
    if api_version >= 8 {
        return request.groups;
    }
    let topics = request.topics.map(|topics| {
        let newer = topics.into_iter().map(|topic| OffsetFetchRequestTopics {
            name: topic.name,
            partition_indexes: topic.partition_indexes,
            ..Default::default()
        });
        newer.collect()
    });
    vec![OffsetFetchRequestGroup {
        group_id: request.group_id,
        topics,
        ..Default::default()
    }]
}

/// A group's part of the answer if it cannot be given: not the coordinator, still loading.
pub fn refused(
    api_version: i16,
    request: &OffsetFetchRequestGroup,
    error: ErrorCode,
) -> OffsetFetchResponseGroup {
    let mut refused = OffsetFetchResponseGroup {
        group_id: request.group_id.clone(),
        ..Default::default()
    };
    if api_version >= 2 {
        refused.error_code = error.code();
    } else {
        // Version 1 has no place for an error but the partitions.
        let topics = request.topics.iter().flatten();
        refused.topics = topics.map(|topic| refused_topic(topic, error)).collect();
    }
    refused
}

/// The response of any version, from the parts in the order of [`groups`].
pub fn response(api_version: i16, groups: Vec<OffsetFetchResponseGroup>) -> OffsetFetchResponse {
    if api_version >= 8 {
        return OffsetFetchResponse {
            groups,
            ..Default::default()
        };
    }
    let group = groups.into_iter().next().unwrap_or_default();
    let topics = group
        .topics
        .into_iter()
        .map(|topic| OffsetFetchResponseTopic {
            name: topic.name,
            partitions: topic.partitions.into_iter().map(older_partition).collect(),
            ..Default::default()
        });
    OffsetFetchResponse {
        topics: topics.collect(),
        error_code: group.error_code,
        ..Default::default()
    }
}

fn older_partition(partition: OffsetFetchResponsePartitions) -> OffsetFetchResponsePartition {
    OffsetFetchResponsePartition {
        partition_index: partition.partition_index,
        committed_offset: partition.committed_offset,
        committed_leader_epoch: partition.committed_leader_epoch,
        metadata: partition.metadata,
        error_code: partition.error_code,
        ..Default::default()
    }
}

impl GroupShard {
    /// One group's part of the answer.
    pub fn offset_fetch(
        &self,
        api_version: i16,
        request: &OffsetFetchRequestGroup,
        require_stable: bool,
        topics: &dyn Topics,
    ) -> OffsetFetchResponseGroup {
        self.assert_loaded();
        let asked = Asked {
            api_version,
            group_id: &request.group_id,
            require_stable,
            topics,
        };
        let group_id = &request.group_id;
        if let Some(group) = self.groups.get(group_id) {
            let member_id = request.member_id.as_deref().unwrap_or_default();
            if let Err(error) = group.may_fetch(member_id, request.member_epoch) {
                return refused(api_version, request, error);
            }
        }
        let found = match &request.topics {
            None => self.all_topics(&asked),
            Some(wanted) => wanted.iter().map(|t| self.one_topic(&asked, t)).collect(),
        };
        OffsetFetchResponseGroup {
            group_id: group_id.clone(),
            topics: found,
            ..Default::default()
        }
    }

    fn one_topic(
        &self,
        asked: &Asked,
        wanted: &OffsetFetchRequestTopics,
    ) -> OffsetFetchResponseTopics {
        let name = match asked.api_version >= 10 {
            true => asked.topics.topic_by_id(wanted.topic_id),
            false => Some(wanted.name.as_str()),
        };
        let Some(name) = name else {
            return refused_topic(wanted, ErrorCode::UnknownTopicId);
        };
        let topic_id = asked.topic_id(name);
        let find = |partition: &i32| {
            let found = self.offsets.get(asked.group_id, name, *partition);
            let found = found.filter(|offset| !is_other_topic(offset.topic_id, topic_id));
            self.partition(asked, name, topic_id, *partition, found)
        };
        OffsetFetchResponseTopics {
            name: wanted.name.clone(),
            topic_id: wanted.topic_id,
            partitions: wanted.partition_indexes.iter().map(find).collect(),
            ..Default::default()
        }
    }

    fn all_topics(&self, asked: &Asked) -> Vec<OffsetFetchResponseTopics> {
        let mut found = Vec::new();
        for (name, offsets) in self.offsets.topics_of(asked.group_id) {
            let topic_id = asked.topic_id(name);
            if asked.api_version >= 10 && topic_id.is_zero() {
                continue;
            }
            let current = offsets
                .iter()
                .filter(|(_, o)| !is_other_topic(o.topic_id, topic_id));
            let partitions: Vec<_> = current
                .map(|(partition, offset)| {
                    self.partition(asked, name, topic_id, *partition, Some(offset))
                })
                .collect();
            if !partitions.is_empty() {
                let name = name.to_owned();
                found.push(OffsetFetchResponseTopics {
                    name,
                    topic_id,
                    partitions,
                    ..Default::default()
                });
            }
        }
        found
    }

    fn partition(
        &self,
        asked: &Asked,
        topic: &str,
        topic_id: Uuid,
        partition: i32,
        committed: Option<&CommittedOffset>,
    ) -> OffsetFetchResponsePartitions {
        let group_id = asked.group_id;
        if asked.require_stable
            && self
                .offsets
                .is_unstable(group_id, topic, partition, topic_id)
        {
            return no_offset(partition, ErrorCode::UnstableOffsetCommit);
        }
        match committed {
            Some(offset) => some_offset(partition, offset),
            None => no_offset(partition, ErrorCode::None),
        }
    }
}

/// What one group is asked for.
struct Asked<'a> {
    api_version: i16,
    group_id: &'a str,
    require_stable: bool,
    topics: &'a dyn Topics,
}

impl Asked<'_> {
    fn topic_id(&self, name: &str) -> Uuid {
        self.topics.topic(name).map_or(Uuid::ZERO, |view| view.id)
    }
}

fn refused_topic(wanted: &OffsetFetchRequestTopics, error: ErrorCode) -> OffsetFetchResponseTopics {
    let partitions = wanted.partition_indexes.iter();
    OffsetFetchResponseTopics {
        name: wanted.name.clone(),
        topic_id: wanted.topic_id,
        partitions: partitions
            .map(|partition| no_offset(*partition, error))
            .collect(),
        ..Default::default()
    }
}

fn some_offset(partition: i32, offset: &CommittedOffset) -> OffsetFetchResponsePartitions {
    OffsetFetchResponsePartitions {
        partition_index: partition,
        committed_offset: offset.offset,
        committed_leader_epoch: offset.leader_epoch,
        metadata: Some(offset.metadata.to_string()),
        ..Default::default()
    }
}

fn no_offset(partition: i32, error: ErrorCode) -> OffsetFetchResponsePartitions {
    OffsetFetchResponsePartitions {
        partition_index: partition,
        committed_offset: -1,
        committed_leader_epoch: -1,
        metadata: Some(String::new()),
        error_code: error.code(),
        ..Default::default()
    }
}
