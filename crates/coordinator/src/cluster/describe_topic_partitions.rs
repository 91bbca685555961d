//! DescribeTopicPartitions (key 75, version 0): partitions in pages (KIP-966).
//!
//! Behaviour: topics in order of name, from the cursor on, up to a number of partitions that the
//! client and `max.request.partition.size.limit` bound; then a cursor to go on from. No topics
//! named means all.
//!
//! Deviations from Kafka: a page that ends exactly with a topic carries a cursor to the next one,
//! where Kafka's ends the listing; a topic that does not exist counts as one partition; a cursor that makes no sense is INVALID_REQUEST on every topic
//! named, the answer having no other place for it, as in Kafka.

use super::config::BrokerConfig;
use super::limits::PARTITIONS_PER_ANSWER_MIN;
use super::metadata::{TOPIC_OPERATIONS, why_unknown};
use super::state::{Cluster, TopicState};
use super::topic_name::is_internal;
use oncelog_wire::ErrorCode;
use oncelog_wire::messages::describe_topic_partitions_response::{
    Cursor, DescribeTopicPartitionsResponsePartition as Partition,
    DescribeTopicPartitionsResponseTopic as Topic,
};
use oncelog_wire::messages::{DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse};
use std::collections::BTreeSet;

impl Cluster {
    pub fn describe_topic_partitions(
        &self,
        config: &BrokerConfig,
        request: &DescribeTopicPartitionsRequest,
    ) -> DescribeTopicPartitionsResponse {
        let mut response = DescribeTopicPartitionsResponse::default();
        let all = request.topics.is_empty();
        let mut names: BTreeSet<&str> = match all {
            true => self.topics.keys().map(String::as_str).collect(),
            false => request
                .topics
                .iter()
                .map(|topic| topic.name.as_str())
                .collect(),
        };
        let (from_topic, from_partition) = match &request.cursor {
            Some(cursor) => (cursor.topic_name.as_str(), cursor.partition_index),
            None => ("", 0),
        };
        let lost = request.cursor.is_some() && !all && !names.contains(from_topic);
        if from_partition < 0 || lost {
            response.topics = names
                .iter()
                .map(|name| refused(name, ErrorCode::InvalidRequest))
                .collect();
            return response;
        }
        names.retain(|name| *name >= from_topic);
        let limit = request
            .response_partition_limit
            .min(config.max_request_partition_size_limit);
        let mut room = limit.max(PARTITIONS_PER_ANSWER_MIN) as usize;
        let go_on = |name: &str, partition_index: usize| {
            Some(Cursor {
                topic_name: name.to_owned(),
                partition_index: partition_index as i32,
                ..Default::default()
            })
        };
        for name in names {
            if room == 0 {
                response.next_cursor = go_on(name, 0);
                break;
            }
            let Some(topic) = self.topics.get(name) else {
                response.topics.push(refused(name, why_unknown(name)));
                room -= 1;
                continue;
            };
            let first = if name == from_topic {
                from_partition as usize
            } else {
                0
            };
            let count = topic.partitions.len().saturating_sub(first);
            let shown = count.min(room);
            response
                .topics
                .push(self.described_partitions(topic, first, shown));
            room -= shown;
            if shown < count {
                response.next_cursor = go_on(name, first + shown);
                break;
            }
        }
        response
    }

    fn described_partitions(&self, topic: &TopicState, first: usize, count: usize) -> Topic {
        let partitions = topic.partitions.iter().enumerate().skip(first).take(count);
        let show = partitions.map(|(index, state)| {
            let seen = self.seen(state);
            Partition {
                error_code: seen.error.code(),
                partition_index: index as i32,
                leader_id: seen.leader,
                leader_epoch: state.leader_epoch,
                replica_nodes: state.replicas.clone(),
                isr_nodes: state.isr.clone(),
                eligible_leader_replicas: Some(state.eligible_leader_replicas.clone()),
                last_known_elr: Some(state.last_known_elr.clone()),
                offline_replicas: seen.offline,
                ..Default::default()
            }
        });
        Topic {
            name: Some(topic.name.clone()),
            topic_id: topic.id,
            is_internal: is_internal(&topic.name),
            partitions: show.collect(),
            topic_authorized_operations: TOPIC_OPERATIONS,
            ..Default::default()
        }
    }
}

fn refused(name: &str, code: ErrorCode) -> Topic {
    Topic {
        error_code: code.code(),
        name: Some(name.to_owned()),
        is_internal: is_internal(name),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{cluster_with, config};
    use super::*;
    use oncelog_wire::messages::describe_topic_partitions_request::{self, TopicRequest};

    /// Pages through, and writes what came as `topic:partitions` or `topic!code`, pages by `|`.
    fn pages(limit: i32, config_limit: &str, topics: &[&str], from: Option<(&str, i32)>) -> String {
        let cluster = cluster_with(&[("a", 3), ("b", 2), ("c", 1)]);
        let config = config(&[("max.request.partition.size.limit", config_limit)]);
        let cursor = |(topic, partition): (&str, i32)| describe_topic_partitions_request::Cursor {
            topic_name: topic.to_owned(),
            partition_index: partition,
            ..Default::default()
        };
        let named = |name: &&str| TopicRequest {
            name: name.to_string(),
            ..Default::default()
        };
        let mut request = DescribeTopicPartitionsRequest {
            topics: topics.iter().map(named).collect(),
            response_partition_limit: limit,
            cursor: from.map(cursor),
            ..Default::default()
        };
        let mut pages = Vec::new();
        loop {
            let response = cluster.describe_topic_partitions(&config, &request);
            response
                .encode(&mut oncelog_wire::Writer::new(), 0)
                .expect("fits the version");
            let show = |topic: &Topic| {
                let name = topic.name.as_deref().unwrap();
                let list = topic
                    .partitions
                    .iter()
                    .map(|p| p.partition_index.to_string());
                match topic.error_code {
                    0 => format!("{name}:{}", list.collect::<Vec<_>>().join(",")),
                    code => format!("{name}!{code}"),
                }
            };
            pages.push(
                response
                    .topics
                    .iter()
                    .map(show)
                    .collect::<Vec<_>>()
                    .join(" "),
            );
            match response.next_cursor {
                Some(next) => {
                    request.cursor = Some(cursor((&next.topic_name, next.partition_index)))
                }
                None => return pages.join(" | "),
            }
        }
    }

    #[test]
    fn every_partition_comes_once_whatever_the_page() {
        assert_eq!(pages(2000, "2000", &[], None), "a:0,1,2 b:0,1 c:0");
        assert_eq!(pages(2, "2000", &[], None), "a:0,1 | a:2 b:0 | b:1 c:0");
        assert_eq!(pages(3, "2000", &[], None), "a:0,1,2 | b:0,1 c:0");
        assert_eq!(pages(2000, "5", &[], None), "a:0,1,2 b:0,1 | c:0");
        assert_eq!(pages(-1, "2000", &["c", "b"], None), "b:0 | b:1 | c:0");
        assert_eq!(pages(2000, "2000", &[], Some(("b", 1))), "b:1 c:0");
        assert_eq!(pages(2000, "2000", &[], Some(("aa", 5))), "b:0,1 c:0");
        assert_eq!(
            pages(2000, "2000", &[], Some(("a", i32::MAX))),
            "a: b:0,1 c:0"
        );
    }

    #[test]
    fn mistakes() {
        assert_eq!(
            pages(9, "9", &["a", "x", "b b"], None),
            "a:0,1,2 b b!17 x!3"
        );
        assert_eq!(pages(1, "9", &["c", "x", "y"], None), "c:0 | x!3 | y!3");
        assert_eq!(pages(9, "9", &["a"], Some(("b", 0))), "a!42");
        assert_eq!(pages(9, "9", &["a"], Some(("a", -1))), "a!42");
    }
}
