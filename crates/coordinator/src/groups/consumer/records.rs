//! The consumer group's records in `__consumer_offsets`, kinds 3 to 8 and 16, value version 0.
//!
//! | Kind | Key | Value |
//! |---|---|---|
//! | 3 ConsumerGroupMetadata | group | group epoch, hash of the subscribed topics |
//! | 4 ConsumerGroupPartitionMetadata | group | read over; Kafka wrote it before 4.1 |
//! | 5 ConsumerGroupMemberMetadata | group, member | what the member said of itself |
//! | 6 ConsumerGroupTargetAssignmentMetadata | group | assignment epoch |
//! | 7 ConsumerGroupTargetAssignmentMember | group, member | what the member is to have |
//! | 8 ConsumerGroupCurrentMemberAssignment | group, member | what the member has |
//! | 16 ConsumerGroupRegularExpression | group, expression | the topics that it matches |

use super::group::{ResolvedRegex, TargetMetadata};
use super::member::{CurrentAssignment, MemberMetadata, Partitions};
use crate::Record;
use crate::groups::records::{ReplayError, body, decode_value, record};
use oncelog_wire::messages::consumer_group_target_assignment_member_value::TopicPartition;
use oncelog_wire::messages::{
    ConsumerGroupCurrentMemberAssignmentKey, ConsumerGroupCurrentMemberAssignmentValue,
    ConsumerGroupMemberMetadataKey, ConsumerGroupMemberMetadataValue, ConsumerGroupMetadataKey,
    ConsumerGroupMetadataValue, ConsumerGroupPartitionMetadataKey,
    ConsumerGroupRegularExpressionKey, ConsumerGroupRegularExpressionValue,
    ConsumerGroupTargetAssignmentMemberKey, ConsumerGroupTargetAssignmentMemberValue,
    ConsumerGroupTargetAssignmentMetadataKey, ConsumerGroupTargetAssignmentMetadataValue,
};
use oncelog_wire::{DecodeError, Reader};

const VERSION: i16 = 0;

/// A record of a consumer group, understood; no value is a tombstone.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ConsumerRecord {
    pub group_id: String,
    pub change: Change,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Change {
    Group(Option<ConsumerGroupMetadataValue>),
    /// Of Kafka before 4.1: the hash has taken its place.
    PartitionMetadata,
    Member(String, Option<MemberMetadata>),
    TargetMetadata(Option<TargetMetadata>),
    Target(String, Option<Partitions>),
    Current(String, Option<CurrentAssignment>),
    Regex(String, Option<ResolvedRegex>),
}

impl Change {
    pub(crate) fn is_tombstone(&self) -> bool {
        match self {
            Change::Group(value) => value.is_none(),
            Change::PartitionMetadata => true,
            Change::Member(_, value) => value.is_none(),
            Change::TargetMetadata(value) => value.is_none(),
            Change::Target(_, value) => value.is_none(),
            Change::Current(_, value) => value.is_none(),
            Change::Regex(_, value) => value.is_none(),
        }
    }
}

/// None if the kind is not one of a consumer group's.
pub(crate) fn decode(
    kind: i16,
    key: &mut Reader,
    value: Option<&[u8]>,
) -> Result<Option<ConsumerRecord>, ReplayError> {
    let (group_id, change) = match kind {
        ConsumerGroupMetadataKey::API_KEY => (
            read(key, ConsumerGroupMetadataKey::decode)?.group_id,
            Change::Group(decode_value(
                kind,
                value,
                ConsumerGroupMetadataValue::decode,
            )?),
        ),
        ConsumerGroupPartitionMetadataKey::API_KEY => (
            read(key, ConsumerGroupPartitionMetadataKey::decode)?.group_id,
            Change::PartitionMetadata,
        ),
        ConsumerGroupMemberMetadataKey::API_KEY => {
            let key = read(key, ConsumerGroupMemberMetadataKey::decode)?;
            let value = decode_value(kind, value, ConsumerGroupMemberMetadataValue::decode)?;
            let value = value.map(MemberMetadata::from_record);
            (key.group_id, Change::Member(key.member_id, value))
        }
        ConsumerGroupTargetAssignmentMetadataKey::API_KEY => {
            let key = read(key, ConsumerGroupTargetAssignmentMetadataKey::decode)?;
            let decode = ConsumerGroupTargetAssignmentMetadataValue::decode;
            let value = decode_value(kind, value, decode)?.map(|value| TargetMetadata {
                epoch: value.assignment_epoch,
                timestamp_ms: value.assignment_timestamp,
            });
            (key.group_id, Change::TargetMetadata(value))
        }
        ConsumerGroupTargetAssignmentMemberKey::API_KEY => {
            let key = read(key, ConsumerGroupTargetAssignmentMemberKey::decode)?;
            let decode = ConsumerGroupTargetAssignmentMemberValue::decode;
            let value = decode_value(kind, value, decode)?.map(partitions);
            (key.group_id, Change::Target(key.member_id, value))
        }
        ConsumerGroupCurrentMemberAssignmentKey::API_KEY => {
            let key = read(key, ConsumerGroupCurrentMemberAssignmentKey::decode)?;
            let decode = ConsumerGroupCurrentMemberAssignmentValue::decode;
            let value = decode_value(kind, value, decode)?.map(CurrentAssignment::from_record);
            (key.group_id, Change::Current(key.member_id, value))
        }
        ConsumerGroupRegularExpressionKey::API_KEY => {
            let key = read(key, ConsumerGroupRegularExpressionKey::decode)?;
            let decode = ConsumerGroupRegularExpressionValue::decode;
            let value = decode_value(kind, value, decode)?.map(|value| ResolvedRegex {
                topics: value.topics.into_iter().collect(),
                topics_epoch: value.version,
                timestamp_ms: value.timestamp,
            });
            (key.group_id, Change::Regex(key.regular_expression, value))
        }
        _ => return Ok(None),
    };
    Ok(Some(ConsumerRecord { group_id, change }))
}

fn read<T>(
    key: &mut Reader,
    decode: impl Fn(&mut Reader, i16) -> Result<T, DecodeError>,
) -> Result<T, ReplayError> {
    decode(key, 0).map_err(ReplayError::Key)
}

fn partitions(value: ConsumerGroupTargetAssignmentMemberValue) -> Partitions {
    let mut partitions = Partitions::new();
    for topic in value.topic_partitions {
        if !topic.partitions.is_empty() {
            let of_topic = partitions.entry(topic.topic_id).or_default();
            of_topic.extend(topic.partitions);
        }
    }
    partitions
}

/// The group epoch and what the subscribed topics looked like when it was reached.
pub(crate) fn epoch(group_id: &str, epoch: i32, metadata_hash: i64) -> Record {
    let value = ConsumerGroupMetadataValue {
        epoch,
        metadata_hash,
        ..Default::default()
    };
    let value = body(VERSION, |w| value.encode(w, VERSION));
    record(epoch_key(group_id), Some(value))
}

pub(crate) fn epoch_tombstone(group_id: &str) -> Record {
    record(epoch_key(group_id), None)
}

pub(crate) fn partition_metadata_tombstone(group_id: &str) -> Record {
    let key = ConsumerGroupPartitionMetadataKey {
        group_id: group_id.to_owned(),
    };
    let kind = ConsumerGroupPartitionMetadataKey::API_KEY;
    record(body(kind, |w| key.encode(w, 0)), None)
}

/// `None` is a tombstone, here and below.
pub(crate) fn member(group_id: &str, member_id: &str, value: Option<&MemberMetadata>) -> Record {
    let key = ConsumerGroupMemberMetadataKey {
        group_id: group_id.to_owned(),
        member_id: member_id.to_owned(),
    };
    let key = body(ConsumerGroupMemberMetadataKey::API_KEY, |w| {
        key.encode(w, 0)
    });
    let value = value.map(MemberMetadata::to_record);
    record(
        key,
        value.map(|value| body(VERSION, |w| value.encode(w, VERSION))),
    )
}

pub(crate) fn target_metadata(group_id: &str, value: Option<TargetMetadata>) -> Record {
    let key = ConsumerGroupTargetAssignmentMetadataKey {
        group_id: group_id.to_owned(),
    };
    let kind = ConsumerGroupTargetAssignmentMetadataKey::API_KEY;
    let value = value.map(|value| ConsumerGroupTargetAssignmentMetadataValue {
        assignment_epoch: value.epoch,
        assignment_timestamp: value.timestamp_ms,
        ..Default::default()
    });
    record(
        body(kind, |w| key.encode(w, 0)),
        value.map(|value| body(VERSION, |w| value.encode(w, VERSION))),
    )
}

pub(crate) fn target(group_id: &str, member_id: &str, value: Option<&Partitions>) -> Record {
    let key = ConsumerGroupTargetAssignmentMemberKey {
        group_id: group_id.to_owned(),
        member_id: member_id.to_owned(),
    };
    let kind = ConsumerGroupTargetAssignmentMemberKey::API_KEY;
    let value = value.map(|partitions| ConsumerGroupTargetAssignmentMemberValue {
        topic_partitions: partitions
            .iter()
            .map(|(topic_id, partitions)| TopicPartition {
                topic_id: *topic_id,
                partitions: partitions.iter().copied().collect(),
                ..Default::default()
            })
            .collect(),
        ..Default::default()
    });
    record(
        body(kind, |w| key.encode(w, 0)),
        value.map(|value| body(VERSION, |w| value.encode(w, VERSION))),
    )
}

pub(crate) fn current(
    group_id: &str,
    member_id: &str,
    value: Option<&CurrentAssignment>,
) -> Record {
    let key = ConsumerGroupCurrentMemberAssignmentKey {
        group_id: group_id.to_owned(),
        member_id: member_id.to_owned(),
    };
    let kind = ConsumerGroupCurrentMemberAssignmentKey::API_KEY;
    let value = value.map(CurrentAssignment::to_record);
    record(
        body(kind, |w| key.encode(w, 0)),
        value.map(|value| body(VERSION, |w| value.encode(w, VERSION))),
    )
}

pub(crate) fn regex(group_id: &str, regex: &str, value: Option<&ResolvedRegex>) -> Record {
    let key = ConsumerGroupRegularExpressionKey {
        group_id: group_id.to_owned(),
        regular_expression: regex.to_owned(),
    };
    let kind = ConsumerGroupRegularExpressionKey::API_KEY;
    let value = value.map(|resolved| ConsumerGroupRegularExpressionValue {
        topics: resolved.topics.iter().cloned().collect(),
        version: resolved.topics_epoch,
        timestamp: resolved.timestamp_ms,
        ..Default::default()
    });
    record(
        body(kind, |w| key.encode(w, 0)),
        value.map(|value| body(VERSION, |w| value.encode(w, VERSION))),
    )
}

/// The tombstones of all that is known of a member: what it has, is to have, and said.
pub(crate) fn without_member(group_id: &str, member_id: &str) -> [Record; 3] {
    [
        current(group_id, member_id, None),
        target(group_id, member_id, None),
        member(group_id, member_id, None),
    ]
}

fn epoch_key(group_id: &str) -> bytes::Bytes {
    let key = ConsumerGroupMetadataKey {
        group_id: group_id.to_owned(),
    };
    body(ConsumerGroupMetadataKey::API_KEY, |w| key.encode(w, 0))
}
