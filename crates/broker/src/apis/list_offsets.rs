//! ListOffsets (key 2, versions 1-11): offsets by timestamp or by special value.
//!
//! Behaviour: -2 earliest, -1 latest (bounded by the isolation level), -3 the record with the
//! largest timestamp (v7+), -4 earliest local (v8+), -5 latest tiered (v9+: none, there are no
//! tiers), -6 earliest pending upload (v11+: none). A timestamp >= 0 finds the first record at or
//! after it; the search reads index and batches on disk, outside the core.

use super::{epoch, isolation};
use crate::broker::Broker;
use crate::connections::RequestId;
use crate::topics::PartitionKey;
use crate::waiters::{DiskWork, ParkedListOffsets};
use oncelog_commitlog::{DiskOp, DiskOutcome};
use oncelog_partition::{Isolation, ListedOffset, OffsetAnswer};
use oncelog_wire::ErrorCode;
use oncelog_wire::ResponseBody;
use oncelog_wire::messages::list_offsets_request::ListOffsetsPartition;
use oncelog_wire::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use oncelog_wire::messages::{ListOffsetsRequest, ListOffsetsResponse};

pub(crate) fn handle(broker: &mut Broker, request: RequestId, ask: ListOffsetsRequest) {
    let isolation = isolation(ask.isolation_level);
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
            match look(broker, &topic.name, partition, isolation) {
                Ok(OffsetAnswer::Known(found)) => tell(&mut answer, found),
                Ok(OffsetAnswer::Lookup(lookup)) => lookups.push(((at, place), lookup)),
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
        response,
        outstanding,
    };
    broker.waiters.list_offsets.insert(request, parked);
    for (at, lookup) in lookups {
        let then = DiskWork::TimestampLookup { request, at };
        broker.disk(DiskOp::LookupTimestamp(lookup), then);
    }
}

fn look(
    broker: &Broker,
    topic: &str,
    ask: &ListOffsetsPartition,
    isolation: Isolation,
) -> Result<OffsetAnswer, ErrorCode> {
    let unknown = ErrorCode::UnknownTopicOrPartition;
    let topic_id = broker.topics.id_of(topic).ok_or(unknown)?;
    let index = ask.partition_index;
    let key = PartitionKey { topic_id, index };
    let hosted = broker.topics.get(key).ok_or(unknown)?;
    let epoch = epoch(ask.current_leader_epoch);
    hosted
        .partition
        .list_offset(ask.timestamp, isolation, epoch)
}

fn tell(answer: &mut ListOffsetsPartitionResponse, found: ListedOffset) {
    answer.timestamp = found.timestamp;
    answer.offset = found.offset;
    answer.leader_epoch = found.leader_epoch;
}

/// A lookup came back from disk.
pub(crate) fn found(
    broker: &mut Broker,
    request: RequestId,
    (topic, partition): (usize, usize),
    outcome: Result<DiskOutcome, String>,
) {
    let parked = broker
        .waiters
        .list_offsets
        .get_mut(&request)
        .expect("parked until all are back");
    let answer = &mut parked.response.topics[topic].partitions[partition];
    match outcome {
        Ok(DiskOutcome::Timestamp(hit)) => tell(answer, ListedOffset::from_lookup(hit)),
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
