//! ListOffsets (key 2, versions 1-11): offsets by timestamp or by special value.
//!
//! Behaviour: -2 earliest, -1 latest (bounded by the isolation level), -3 the record with the
//! largest timestamp (v7+), -4 earliest local (v8+), -5 latest tiered (v9+: none, there are no
//! tiers), -6 earliest pending upload (v11+: none); any other negative one, or one that the version
//! does not have yet, is UNSUPPORTED_VERSION. A partition that is named twice is INVALID_REQUEST. A
//! timestamp >= 0 finds the first record at or after it; the search reads index and batches on
//! disk, outside the core. -3 names no record that is not readable yet: while the newest record is
//! on its way to the disk, the answer may be "none".
//!
//! Non-obvious: the leader epoch is part of the answer since v4, and setting it before would make
//! the answer impossible to encode.

use super::{epoch, isolation};
use crate::broker::Broker;
use crate::connections::RequestId;
use crate::topics::PartitionKey;
use crate::waiters::{DiskWork, ParkedListOffsets};
use oncelog_commitlog::{DiskOp, DiskOutcome};
use oncelog_partition::{Isolation, ListedOffset, OffsetAnswer, special_timestamp};
use oncelog_wire::ErrorCode;
use oncelog_wire::ResponseBody;
use oncelog_wire::messages::list_offsets_request::ListOffsetsPartition;
use oncelog_wire::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use oncelog_wire::messages::{ListOffsetsRequest, ListOffsetsResponse};
use std::collections::BTreeSet;

pub(crate) fn handle(
    broker: &mut Broker,
    request: RequestId,
    version: i16,
    ask: ListOffsetsRequest,
) {
    let isolation = isolation(ask.isolation_level);
    let repeated = repeated(&ask);
    let mut response = ListOffsetsResponse::default();
    let mut lookups = Vec::new();
    for (at, topic) in ask.topics.iter().enumerate() {
        let mut entry = ListOffsetsTopicResponse {
            name: topic.name.clone(),
            ..Default::default()
        };
        for (place, partition) in topic.partitions.iter().enumerate() {
            let mut answer = ListOffsetsPartitionResponse {
                partition_index: partition.partition_index,
                timestamp: -1,
                offset: -1,
                leader_epoch: -1,
                ..Default::default()
            };
            let twice = repeated.contains(&(partition.partition_index, &topic.name[..]));
            let found = match twice {
                true => Err(ErrorCode::InvalidRequest),
                false => look(broker, &topic.name, partition, isolation, version),
            };
            match found {
                Ok((_, OffsetAnswer::Known(found))) => tell(&mut answer, found, version),
                Ok((key, OffsetAnswer::Lookup(lookup))) => {
                    lookups.push(((at, place), key, lookup));
                }
                Err(error) => answer.error_code = error.code(),
            }
            entry.partitions.push(answer);
        }
        response.topics.push(entry);
    }
    if lookups.is_empty() {
        return broker.answer(request, ResponseBody::ListOffsets(response));
    }
    let outstanding = lookups.len();
    let parked = ParkedListOffsets {
        version,
        response,
        outstanding,
    };
    broker.waiters.list_offsets.insert(request, parked);
    for (at, key, lookup) in lookups {
        let then = DiskWork::TimestampLookup { request, at, key };
        broker.disk(DiskOp::LookupTimestamp(lookup), then);
    }
}

fn look(
    broker: &Broker,
    topic: &str,
    ask: &ListOffsetsPartition,
    isolation: Isolation,
    version: i16,
) -> Result<(PartitionKey, OffsetAnswer), ErrorCode> {
    if ask.timestamp < 0 && since(ask.timestamp).is_none_or(|since| version < since) {
        return Err(ErrorCode::UnsupportedVersion);
    }
    let unknown = ErrorCode::UnknownTopicOrPartition;
    let topic_id = broker.topics.id_of(topic).ok_or(unknown)?;
    let index = ask.partition_index;
    let key = PartitionKey { topic_id, index };
    let hosted = broker.topics.get(key).ok_or(unknown)?;
    let epoch = epoch(ask.current_leader_epoch);
    let answer = hosted
        .partition
        .list_offset(ask.timestamp, isolation, epoch)?;
    Ok((key, answer))
}

/// The version that brought a special timestamp.
fn since(timestamp: i64) -> Option<i16> {
    match timestamp {
        special_timestamp::LATEST | special_timestamp::EARLIEST => Some(1),
        special_timestamp::MAX_TIMESTAMP => Some(7),
        special_timestamp::EARLIEST_LOCAL => Some(8),
        special_timestamp::LATEST_TIERED => Some(9),
        special_timestamp::EARLIEST_PENDING_UPLOAD => Some(11),
        _ => None,
    }
}

/// Partitions that the request names more than once. The number comes first, for it is quick to
/// compare, and a name may be long.
fn repeated(ask: &ListOffsetsRequest) -> BTreeSet<(i32, &str)> {
    let (mut seen, mut repeated) = (BTreeSet::new(), BTreeSet::new());
    for topic in &ask.topics {
        for partition in &topic.partitions {
            let named = (partition.partition_index, &topic.name[..]);
            if !seen.insert(named) {
                repeated.insert(named);
            }
        }
    }
    repeated
}

fn tell(answer: &mut ListOffsetsPartitionResponse, found: ListedOffset, version: i16) {
    answer.timestamp = found.timestamp;
    answer.offset = found.offset;
    if version >= 4 {
        answer.leader_epoch = found.leader_epoch;
    }
}

/// A lookup came back from disk.
pub(crate) fn found(
    broker: &mut Broker,
    request: RequestId,
    (topic, partition): (usize, usize),
    key: PartitionKey,
    outcome: Result<DiskOutcome, String>,
) {
    // Of a topic that was deleted meanwhile, the files that were read may be another's by now.
    let is_there = broker.topics.get(key).is_some();
    let parked = broker
        .waiters
        .list_offsets
        .get_mut(&request)
        .expect("parked until all are back");
    let answer = &mut parked.response.topics[topic].partitions[partition];
    match outcome {
        _ if !is_there => answer.error_code = ErrorCode::UnknownTopicOrPartition.code(),
        Ok(DiskOutcome::Timestamp(hit)) => {
            tell(answer, ListedOffset::from_lookup(hit), parked.version);
        }
        Ok(other) => panic!("the host completed a timestamp lookup with {other:?}"),
        Err(_) => answer.error_code = ErrorCode::KafkaStorageError.code(),
    }
    parked.outstanding -= 1;
    if parked.outstanding == 0 {
        let parked = broker
            .waiters
            .list_offsets
            .remove(&request)
            .expect("just looked at");
        broker.answer(request, ResponseBody::ListOffsets(parked.response));
    }
}
