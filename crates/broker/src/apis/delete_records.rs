//! DeleteRecords (key 21, versions 0-2): move a partition's log start offset forward.
//!
//! Behaviour: -1 means the high watermark; an offset beyond it is OFFSET_OUT_OF_RANGE; one below
//! the log start is a success that changes nothing. Topics that are only compacted are refused
//! (POLICY_VIOLATION), and so are the broker's own (INVALID_TOPIC_EXCEPTION), as in Kafka. The new
//! log start is on disk before the answer.

use crate::broker::Broker;
use crate::connections::RequestId;
use crate::topics::PartitionKey;
use oncelog_coordinator::cluster::is_internal;
use oncelog_wire::ErrorCode;
use oncelog_wire::ResponseBody;
use oncelog_wire::messages::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsTopicResult,
};
use oncelog_wire::messages::{DeleteRecordsRequest, DeleteRecordsResponse};

pub(crate) fn handle(broker: &mut Broker, request: RequestId, ask: DeleteRecordsRequest) {
    let mut response = DeleteRecordsResponse::default();
    let (now, mut work) = (broker.now, Vec::new());
    for topic in ask.topics {
        let topic_id = broker.topics.id_of(&topic.name);
        let mut entry = DeleteRecordsTopicResult {
            name: topic.name,
            ..Default::default()
        };
        for ask in topic.partitions {
            let index = ask.partition_index;
            let mut result = DeleteRecordsPartitionResult {
                partition_index: index,
                low_watermark: -1,
                ..Default::default()
            };
            let key = topic_id.map(|topic_id| PartitionKey { topic_id, index });
            match key.and_then(|key| broker.topics.get_mut(key)) {
                None => result.error_code = ErrorCode::UnknownTopicOrPartition.code(),
                Some(_) if is_internal(&entry.name) => {
                    result.error_code = ErrorCode::InvalidTopicException.code();
                }
                Some(hosted) => match hosted.partition.delete_records(now, ask.offset) {
                    Ok(deleted) => {
                        result.low_watermark = deleted.low_watermark;
                        work.extend(key.map(|key| (key, deleted.work)));
                    }
                    Err(error) => result.error_code = error.code(),
                },
            }
            entry.partitions.push(result);
        }
        response.topics.push(entry);
    }
    work.retain(|(_, work)| !work.is_empty());
    let Some((last_key, last)) = work.pop() else {
        return broker.answer(request, ResponseBody::DeleteRecords(response));
    };
    for (key, work) in work {
        broker.run(key, work);
    }
    // Steps complete in order, so the last one's completion stands for all.
    let response = Box::new(ResponseBody::DeleteRecords(response));
    broker.run_then(last_key, last, Some((request, response)));
}
