//! First, last and timed offsets of many partitions, with one request to each leader.

use std::collections::BTreeMap;

use oncelog_wire::ErrorCode;
use oncelog_wire::messages::ListOffsetsRequest;
use oncelog_wire::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use oncelog_wire::messages::metadata_response::MetadataResponseTopic;

use crate::failure::Failure;

use super::Cluster;

/// A partition by topic name and number.
pub type TopicPartition = (String, i32);

/// ListOffsets' special timestamp: the high watermark.
pub const LATEST: i64 = -1;
/// ListOffsets' special timestamp: the first offset that is still there.
pub const EARLIEST: i64 = -2;

/// What a partition answers; an error is Kafka's code.
pub type Answer = Result<i64, ErrorCode>;

/// Looks up one timestamp (or [`LATEST`], [`EARLIEST`]) in each partition, as read_uncommitted does. A
/// timestamp after the last record gives -1.
///
/// A partition without a leader, or of a topic that is gone, has an error in the answer.
pub fn list(
    cluster: &mut Cluster<'_>,
    wanted: &BTreeMap<TopicPartition, i64>,
) -> Result<BTreeMap<TopicPartition, Answer>, Failure> {
    let mut names: Vec<&str> = wanted.keys().map(|(topic, _)| topic.as_str()).collect();
    names.dedup();
    if names.is_empty() {
        return Ok(BTreeMap::new());
    }
    let leaders = leaders(&cluster.topics(Some(&names))?);
    let mut answers = BTreeMap::new();
    let mut by_leader: BTreeMap<i32, BTreeMap<&str, Vec<ListOffsetsPartition>>> = BTreeMap::new();
    for ((topic, partition), &timestamp) in wanted {
        match leaders.get(&(topic.clone(), *partition)) {
            Some(Ok(leader)) => by_leader
                .entry(*leader)
                .or_default()
                .entry(topic)
                .or_default()
                .push(ListOffsetsPartition {
                    partition_index: *partition,
                    timestamp,
                    ..ListOffsetsPartition::default()
                }),
            Some(Err(code)) => drop(answers.insert((topic.clone(), *partition), Err(*code))),
            None => {
                let missing = Err(ErrorCode::UnknownTopicOrPartition);
                answers.insert((topic.clone(), *partition), missing);
            }
        }
    }
    for (leader, topics) in by_leader {
        let request = ListOffsetsRequest {
            replica_id: -1,
            topics: topics
                .into_iter()
                .map(|(topic, partitions)| ListOffsetsTopic {
                    name: topic.to_owned(),
                    partitions,
                    ..ListOffsetsTopic::default()
                })
                .collect(),
            ..ListOffsetsRequest::default()
        };
        for topic in cluster.on(leader, &request)?.topics {
            for partition in topic.partitions {
                let answer = match ErrorCode::from_code(partition.error_code) {
                    ErrorCode::None => Ok(partition.offset),
                    code => Err(code),
                };
                answers.insert((topic.name.clone(), partition.partition_index), answer);
            }
        }
    }
    Ok(answers)
}

/// The leader of every partition, or why there is none.
pub fn leaders(
    topics: &[MetadataResponseTopic],
) -> BTreeMap<TopicPartition, Result<i32, ErrorCode>> {
    let mut leaders = BTreeMap::new();
    for topic in topics {
        let Some(name) = &topic.name else { continue };
        for partition in &topic.partitions {
            let leader = match ErrorCode::from_code(partition.error_code) {
                _ if partition.leader_id < 0 => Err(ErrorCode::LeaderNotAvailable),
                // The leader's own state is the leader's to tell.
                ErrorCode::None | ErrorCode::ReplicaNotAvailable => Ok(partition.leader_id),
                code => Err(code),
            };
            leaders.insert((name.clone(), partition.partition_index), leader);
        }
    }
    leaders
}
