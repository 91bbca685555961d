//! DescribeLogDirs (key 35, versions 1-5): sizes of the partitions in the one data directory.
//!
//! Deviations from Kafka: total and usable bytes (v4+) are -1 (unknown): the core does not ask the
//! file system.

use crate::broker::Broker;
use crate::connections::RequestId;
use oncelog_wire::ResponseBody;
use oncelog_wire::messages::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use oncelog_wire::messages::{DescribeLogDirsRequest, DescribeLogDirsResponse};

pub(crate) fn handle(broker: &mut Broker, request: RequestId, ask: DescribeLogDirsRequest) {
    let wanted = |name: &str, index: i32| match &ask.topics {
        None => true,
        Some(topics) => {
            let mut named = topics.iter().filter(|topic| topic.topic == name);
            named.any(|topic| topic.partitions.contains(&index))
        }
    };
    let mut result = DescribeLogDirsResult {
        log_dir: broker.config.log_dir.clone(),
        total_bytes: -1,
        usable_bytes: -1,
        ..Default::default()
    };
    for topic in broker.topics.iter() {
        let mut entry = DescribeLogDirsTopic {
            name: topic.name.to_string(),
            ..Default::default()
        };
        for (index, hosted) in topic.partitions.iter().enumerate() {
            let partition_index = index as i32;
            if wanted(&topic.name, partition_index) {
                entry.partitions.push(DescribeLogDirsPartition {
                    partition_index,
                    partition_size: hosted.partition.size_bytes() as i64,
                    ..Default::default()
                });
            }
        }
        if !entry.partitions.is_empty() {
            result.topics.push(entry);
        }
    }
    let response = DescribeLogDirsResponse {
        results: vec![result],
        ..Default::default()
    };
    broker.answer(request, ResponseBody::DescribeLogDirs(response));
}
