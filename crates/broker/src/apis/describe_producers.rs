//! DescribeProducers (key 61, version 0): who has written to a partition, and whose transaction is
//! open there.

use crate::broker::Broker;
use crate::connections::RequestId;
use crate::topics::PartitionKey;
use oncelog_partition::ProducerState as State;
use oncelog_wire::messages::describe_producers_request::TopicRequest;
use oncelog_wire::messages::describe_producers_response::{
    PartitionResponse, ProducerState, TopicResponse,
};
use oncelog_wire::messages::{DescribeProducersRequest, DescribeProducersResponse};
use oncelog_wire::{ErrorCode, ResponseBody};

pub(crate) fn handle(broker: &mut Broker, request: RequestId, ask: &DescribeProducersRequest) {
    let topic = |topic: &TopicRequest| TopicResponse {
        name: topic.name.clone(),
        partitions: topic
            .partition_indexes
            .iter()
            .map(|index| partition(broker, &topic.name, *index))
            .collect(),
        ..Default::default()
    };
    let response = DescribeProducersResponse {
        topics: ask.topics.iter().map(topic).collect(),
        ..Default::default()
    };
    broker.answer(request, ResponseBody::DescribeProducers(response));
}

fn partition(broker: &Broker, topic: &str, index: i32) -> PartitionResponse {
    let mut response = PartitionResponse {
        partition_index: index,
        ..Default::default()
    };
    let topic_id = broker.topics.id_of(topic);
    let key = topic_id.map(|topic_id| PartitionKey { topic_id, index });
    match key.and_then(|key| broker.topics.get(key)) {
        None => response.error_code = ErrorCode::UnknownTopicOrPartition.code(),
        Some(hosted) => {
            let producers = hosted.partition.producers().iter();
            response.active_producers = producers.map(|(id, state)| describe(id, state)).collect();
        }
    }
    response
}

fn describe(producer_id: i64, state: &State) -> ProducerState {
    ProducerState {
        producer_id,
        producer_epoch: i32::from(state.epoch),
        last_sequence: state.window.last().map_or(-1, |last| last.last_sequence),
        last_timestamp: state.last_timestamp,
        coordinator_epoch: state.coordinator_epoch,
        current_txn_start_offset: state.current_txn_first_offset.unwrap_or(-1),
        ..Default::default()
    }
}
