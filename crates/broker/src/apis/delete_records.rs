//! DeleteRecords (key 21, versions 0-2): move a partition's log start offset forward.
//!
//! Behaviour: -1 means the high watermark; an offset beyond it is OFFSET_OUT_OF_RANGE; one below
//! the log start is a success that changes nothing. Topics that are only compacted are refused
//! (POLICY_VIOLATION), as in Kafka. The new log start is on disk before the answer.

use crate::broker::Broker;
use crate::connections::RequestId;
use crate::topics::PartitionKey;
use crate::waiters::DiskWork;
use oncelog_wire::ErrorCode;
use oncelog_wire::messages::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsTopicResult,
};
use oncelog_wire::messages::{DeleteRecordsRequest, DeleteRecordsResponse, ResponseBody};

pub(crate) fn handle(broker: &mut Broker, request: RequestId, ask: DeleteRecordsRequest) {
    let mut response = DeleteRecordsResponse::default();
    let mut work = Vec::new();
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
                Some(hosted) => match hosted.partition.delete_records(ask.offset, broker.now) {
                    Ok((low_watermark, ops)) => {
                        result.low_watermark = low_watermark;
                        work.extend(ops);
                    }
                    Err(error) => result.error_code = error.code(),
                },
            }
            entry.partitions.push(result);
        }
        response.topics.push(entry);
    }
    let Some(last) = work.pop() else {
        return broker.answer(request, ResponseBody::DeleteRecords(response));
    };
    // Steps complete in order, so the last one's completion stands for all.
    broker.background(work);
    let response = Box::new(ResponseBody::DeleteRecords(response));
    broker.disk(last, DiskWork::Answer { request, response });
}
