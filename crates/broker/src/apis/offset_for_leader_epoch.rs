//! OffsetForLeaderEpoch (key 23, versions 2-4): where an epoch ends (KIP-101, KIP-320).
//!
//! Behaviour: a consumer that kept an epoch learns whether its position still exists. Unknown
//! epochs are answered with -1/-1, as Kafka does.

use super::epoch;
use crate::broker::Broker;
use crate::connections::RequestId;
use crate::topics::PartitionKey;
use oncelog_partition::EpochEndOffset as EndOffset;
use oncelog_wire::ErrorCode;
use oncelog_wire::ResponseBody;
use oncelog_wire::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderTopicResult,
};
use oncelog_wire::messages::{OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse};

pub(crate) fn handle(broker: &mut Broker, request: RequestId, ask: OffsetForLeaderEpochRequest) {
    let mut response = OffsetForLeaderEpochResponse::default();
    for topic in ask.topics {
        let topic_id = broker.topics.id_of(&topic.topic);
        let mut entry = OffsetForLeaderTopicResult {
            topic: topic.topic,
            ..Default::default()
        };
        for ask in topic.partitions {
            let index = ask.partition;
            let key = topic_id.map(|topic_id| PartitionKey { topic_id, index });
            let hosted = key.and_then(|key| broker.topics.get(key));
            let end = hosted
                .ok_or(ErrorCode::UnknownTopicOrPartition)
                .and_then(|hosted| {
                    let partition = &hosted.partition;
                    partition
                        .offset_for_leader_epoch(ask.leader_epoch, epoch(ask.current_leader_epoch))
                });
            let (error, end) = match end {
                Ok(end) => (ErrorCode::None, end),
                Err(error) => (error, EndOffset::UNDEFINED),
            };
            entry.partitions.push(EpochEndOffset {
                error_code: error.code(),
                partition: index,
                leader_epoch: end.leader_epoch,
                end_offset: end.end_offset,
                ..Default::default()
            });
        }
        response.topics.push(entry);
    }
    broker.answer(request, ResponseBody::OffsetForLeaderEpoch(response));
}
