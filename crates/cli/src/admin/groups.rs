//! Consumer groups of both protocols, and their committed offsets.
//!
//! Deliberately not here: share groups and Streams groups. They are listed, and refused by name.

use std::collections::BTreeMap;

use oncelog_wire::messages::consumer_group_describe_response as consumer;
use oncelog_wire::messages::describe_groups_response as classic;
use oncelog_wire::messages::list_groups_response::ListedGroup;
use oncelog_wire::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use oncelog_wire::messages::{
    ConsumerGroupDescribeRequest, ConsumerProtocolAssignment, DescribeGroupsRequest,
    ListGroupsRequest, OffsetCommitRequest, OffsetFetchRequest,
};
use oncelog_wire::{ApiKey, ErrorCode, Reader};

use crate::failure::Failure;

use super::offsets::TopicPartition;
use super::{Cluster, check, coordinator, refusal};

/// A group, whatever its protocol.
#[derive(Debug)]
pub struct Group {
    pub id: String,
    /// `Classic` or `Consumer`.
    pub kind: &'static str,
    /// Kafka's word: Empty, Stable, ...
    pub state: String,
    /// The partition assignor, empty if there is none.
    pub assignor: String,
    /// The broker that coordinates the group.
    pub coordinator: i32,
    pub members: Vec<Member>,
}

#[derive(Debug)]
pub struct Member {
    pub id: String,
    /// The static member's `group.instance.id`.
    pub instance: Option<String>,
    pub client: String,
    pub host: String,
    pub assigned: Vec<TopicPartition>,
}

/// Every group of the cluster: each broker lists those that it coordinates.
pub fn list(cluster: &mut Cluster<'_>) -> Result<Vec<(i32, ListedGroup)>, Failure> {
    let nodes: Vec<i32> = cluster.nodes.keys().copied().collect();
    let mut all = Vec::new();
    for node in nodes {
        let response = cluster.while_retriable(
            |cluster| cluster.on(node, &ListGroupsRequest::default()),
            |response| response.error_code,
        )?;
        check(response.error_code, None, || {
            format!("broker {node} cannot list its groups")
        })?;
        all.extend(response.groups.into_iter().map(|group| (node, group)));
    }
    all.sort_by(|(_, a), (_, b)| a.group_id.cmp(&b.group_id));
    Ok(all)
}

/// The broker that coordinates a group; every group has one, existing or not.
pub fn coordinator(cluster: &mut Cluster<'_>, group: &str) -> Result<i32, Failure> {
    coordinator::find(cluster, coordinator::Kind::Group, group)
}

/// Errors: the group does not exist, or is of a kind that is not described here.
pub fn describe(cluster: &mut Cluster<'_>, group: &str) -> Result<Group, Failure> {
    find(cluster, group)?
        .ok_or_else(|| cannot_describe(group, ErrorCode::GroupIdNotFound.code(), None))
}

/// As [`describe`], but None if the group does not exist.
pub fn find(cluster: &mut Cluster<'_>, group: &str) -> Result<Option<Group>, Failure> {
    let node = coordinator(cluster, group)?;
    if cluster
        .connection(node)?
        .offers(ApiKey::ConsumerGroupDescribe)
        && let Some(found) = describe_consumer(cluster, node, group)?
    {
        return Ok(Some(found));
    }
    describe_classic(cluster, node, group)
}

/// None if the group is not of the new protocol.
fn describe_consumer(
    cluster: &mut Cluster<'_>,
    node: i32,
    group: &str,
) -> Result<Option<Group>, Failure> {
    let request = ConsumerGroupDescribeRequest {
        group_ids: vec![group.to_owned()],
        ..ConsumerGroupDescribeRequest::default()
    };
    let described = cluster.while_retriable(
        |cluster| Ok(cluster.on(node, &request)?.groups.into_iter().next()),
        |described| {
            described
                .as_ref()
                .map_or(0, |described| described.error_code)
        },
    )?;
    let Some(described) = described else {
        return Ok(None);
    };
    match ErrorCode::from_code(described.error_code) {
        ErrorCode::None => {}
        ErrorCode::GroupIdNotFound | ErrorCode::UnsupportedVersion => return Ok(None),
        _ => {
            return Err(cannot_describe(
                group,
                described.error_code,
                described.error_message,
            ));
        }
    }
    Ok(Some(Group {
        id: described.group_id,
        kind: "Consumer",
        state: described.group_state,
        assignor: described.assignor_name,
        coordinator: node,
        members: described.members.into_iter().map(consumer_member).collect(),
    }))
}

fn consumer_member(member: consumer::Member) -> Member {
    let assigned = member
        .assignment
        .topic_partitions
        .into_iter()
        .flat_map(|topic| {
            let name = topic.topic_name;
            topic
                .partitions
                .into_iter()
                .map(move |partition| (name.clone(), partition))
        })
        .collect();
    Member {
        id: member.member_id,
        instance: member.instance_id,
        client: member.client_id,
        host: member.client_host,
        assigned,
    }
}

/// None if the group does not exist.
fn describe_classic(
    cluster: &mut Cluster<'_>,
    node: i32,
    group: &str,
) -> Result<Option<Group>, Failure> {
    let request = DescribeGroupsRequest {
        groups: vec![group.to_owned()],
        ..DescribeGroupsRequest::default()
    };
    let described = cluster.while_retriable(
        |cluster| Ok(cluster.on(node, &request)?.groups.into_iter().next()),
        |described| {
            described
                .as_ref()
                .map_or(0, |described| described.error_code)
        },
    )?;
    let described = described.ok_or_else(|| {
        Failure::refused(format!("cannot describe group {group}")).why("the answer is empty")
    })?;
    match ErrorCode::from_code(described.error_code) {
        // Before version 6 a group that does not exist is called dead.
        ErrorCode::None if described.group_state == "Dead" => return Ok(None),
        ErrorCode::None => {}
        ErrorCode::GroupIdNotFound => return not_classic(cluster, group).map(|()| None),
        _ => {
            return Err(cannot_describe(
                group,
                described.error_code,
                described.error_message,
            ));
        }
    }
    let is_consumer = matches!(described.protocol_type.as_str(), "consumer" | "");
    let members = described
        .members
        .into_iter()
        .map(|member| classic_member(member, is_consumer))
        .collect::<Result<_, Failure>>()?;
    Ok(Some(Group {
        id: described.group_id,
        kind: "Classic",
        state: described.group_state,
        assignor: described.protocol_data,
        coordinator: node,
        members,
    }))
}

/// A group of a kind that neither protocol describes is listed all the same: say which it is.
fn not_classic(cluster: &mut Cluster<'_>, group: &str) -> Result<(), Failure> {
    let listed = list(cluster)?
        .into_iter()
        .find(|(_, listed)| listed.group_id == group);
    match listed {
        None => Ok(()),
        Some((_, listed)) => Err(Failure::refused(format!(
            "group {group} is a {} group",
            listed.group_type
        ))
        .why("only groups of the classic and the consumer protocol are supported here")),
    }
}

/// `is_consumer`: whether the assignment is a consumer's; other protocols (Connect) have their own.
fn classic_member(
    member: classic::DescribedGroupMember,
    is_consumer: bool,
) -> Result<Member, Failure> {
    let mut assigned = Vec::new();
    if is_consumer && !member.member_assignment.is_empty() {
        let mut reader = Reader::new(member.member_assignment);
        let assignment = reader
            .i16()
            .and_then(|version| {
                // A newer version only adds fields at the end.
                let version = version.clamp(
                    ConsumerProtocolAssignment::MIN_VERSION,
                    ConsumerProtocolAssignment::MAX_VERSION,
                );
                ConsumerProtocolAssignment::decode(&mut reader, version)
            })
            .map_err(|error| {
                Failure::refused(format!(
                    "the assignment of member {} is unreadable",
                    member.member_id
                ))
                .why(error.to_string())
            })?;
        for topic in assignment.assigned_partitions {
            let name = topic.topic;
            assigned.extend(
                topic
                    .partitions
                    .into_iter()
                    .map(|partition| (name.clone(), partition)),
            );
        }
    }
    Ok(Member {
        id: member.member_id,
        instance: member.group_instance_id,
        client: member.client_id,
        host: member.client_host,
        assigned,
    })
}

fn cannot_describe(group: &str, code: i16, message: Option<String>) -> Failure {
    refusal(
        format!("cannot describe group {group}"),
        code,
        message.as_deref(),
    )
}

/// Everything that the group has committed.
pub fn committed(
    cluster: &mut Cluster<'_>,
    node: i32,
    group: &str,
) -> Result<BTreeMap<TopicPartition, i64>, Failure> {
    let request = OffsetFetchRequest {
        group_id: group.to_owned(),
        topics: None,
        ..OffsetFetchRequest::default()
    };
    let response = cluster.while_retriable(
        |cluster| cluster.on(node, &request),
        |response| response.error_code,
    )?;
    check(response.error_code, None, || {
        format!("cannot read the offsets of group {group}")
    })?;
    let mut committed = BTreeMap::new();
    for topic in response.topics {
        for partition in topic.partitions {
            let index = partition.partition_index;
            check(partition.error_code, None, || {
                format!(
                    "cannot read the offset of group {group} in {} partition {index}",
                    topic.name
                )
            })?;
            if partition.committed_offset >= 0 {
                committed.insert((topic.name.clone(), index), partition.committed_offset);
            }
        }
    }
    Ok(committed)
}

/// Commits from outside: allowed only while the group has no members.
pub fn commit(
    cluster: &mut Cluster<'_>,
    node: i32,
    group: &str,
    offsets: &BTreeMap<TopicPartition, i64>,
) -> Result<BTreeMap<TopicPartition, ErrorCode>, Failure> {
    let mut topics: BTreeMap<&str, Vec<OffsetCommitRequestPartition>> = BTreeMap::new();
    for ((topic, partition), &offset) in offsets {
        topics
            .entry(topic)
            .or_default()
            .push(OffsetCommitRequestPartition {
                partition_index: *partition,
                committed_offset: offset,
                committed_metadata: Some(String::new()),
                ..OffsetCommitRequestPartition::default()
            });
    }
    let request = OffsetCommitRequest {
        group_id: group.to_owned(),
        topics: topics
            .into_iter()
            .map(|(topic, partitions)| OffsetCommitRequestTopic {
                name: topic.to_owned(),
                partitions,
                ..OffsetCommitRequestTopic::default()
            })
            .collect(),
        ..OffsetCommitRequest::default()
    };
    let response = cluster.on(node, &request)?;
    let mut codes = BTreeMap::new();
    for topic in response.topics {
        for partition in topic.partitions {
            let code = ErrorCode::from_code(partition.error_code);
            codes.insert((topic.name.clone(), partition.partition_index), code);
        }
    }
    Ok(codes)
}
