//! Metadata (key 3, versions 0-13): the answer, from the state as it is.
//!
//! Behaviour: no topics named means all of them (an empty list in version 0, null above); by name,
//! or from version 12 on by id. Whoever answers first makes the topics that are to be made on
//! demand, see [`super::auto_create`].

use super::state::{Cluster, PartitionState, TopicState};
use super::topic_name::{check_topic_name, is_internal};
use oncelog_wire::messages::metadata_request::MetadataRequestTopic;
use oncelog_wire::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use oncelog_wire::messages::{MetadataRequest, MetadataResponse};
use oncelog_wire::{ErrorCode, Uuid};
use std::collections::BTreeSet;

/// Bits of the operations that exist on a topic: there is no access control, so all are allowed.
/// READ 3, WRITE 4, CREATE 5, DELETE 6, ALTER 7, DESCRIBE 8, DESCRIBE_CONFIGS 10, ALTER_CONFIGS 11.
pub(super) const TOPIC_OPERATIONS: i32 = bits(&[3, 4, 5, 6, 7, 8, 10, 11]);
/// On the cluster: CREATE 5, ALTER 7, DESCRIBE 8, CLUSTER_ACTION 9, DESCRIBE_CONFIGS 10,
/// ALTER_CONFIGS 11, IDEMPOTENT_WRITE 12.
pub(super) const CLUSTER_OPERATIONS: i32 = bits(&[5, 7, 8, 9, 10, 11, 12]);

const fn bits(numbers: &[u32]) -> i32 {
    let mut all = 0;
    let mut at = 0;
    while at < numbers.len() {
        all |= 1 << numbers[at];
        at += 1;
    }
    all
}

impl Cluster {
    /// `listener`: the name of the listener on which the client asked; it is told the addresses
    /// that belong to it.
    pub fn metadata_response(
        &self,
        request: &MetadataRequest,
        version: i16,
        listener: &str,
    ) -> MetadataResponse {
        let mut response = MetadataResponse {
            brokers: self.metadata_brokers(listener),
            cluster_id: Some(self.cluster_id.clone()),
            controller_id: self.controller_id(),
            topics: self.metadata_topics(request, version),
            ..Default::default()
        };
        if version >= 8 && request.include_topic_authorized_operations {
            for topic in response
                .topics
                .iter_mut()
                .filter(|topic| topic.error_code == 0)
            {
                topic.topic_authorized_operations = TOPIC_OPERATIONS;
            }
        }
        if (8..=10).contains(&version) && request.include_cluster_authorized_operations {
            response.cluster_authorized_operations = CLUSTER_OPERATIONS;
        }
        response
    }

    /// The broker that clients send administrative requests to: any will do.
    pub(super) fn controller_id(&self) -> i32 {
        let mut usable = self.brokers.values().filter(|broker| !broker.record.fenced);
        usable.next().map_or(-1, |broker| broker.record.broker_id)
    }

    fn metadata_brokers(&self, listener: &str) -> Vec<MetadataResponseBroker> {
        let usable = self.brokers.values().filter(|broker| !broker.record.fenced);
        let known = usable.filter_map(|broker| Some((broker, broker.endpoint(listener)?)));
        let shown = known.map(|(broker, endpoint)| MetadataResponseBroker {
            node_id: broker.record.broker_id,
            host: endpoint.host.clone(),
            port: endpoint.port.into(),
            rack: broker.record.rack.clone(),
            ..Default::default()
        });
        shown.collect()
    }

    fn metadata_topics(
        &self,
        request: &MetadataRequest,
        version: i16,
    ) -> Vec<MetadataResponseTopic> {
        let asked = match &request.topics {
            Some(asked) if version > 0 || !asked.is_empty() => asked,
            _ => {
                return self
                    .topics
                    .values()
                    .map(|topic| self.metadata_topic(topic))
                    .collect();
            }
        };
        let by_id = |ask: &MetadataRequestTopic| !ask.topic_id.is_zero() || ask.name.is_none();
        if version < 12 && asked.iter().any(by_id) {
            // The fields exist in versions 10 and 11, and were not to be used yet.
            return asked
                .iter()
                .map(|ask| refused(ask, ErrorCode::InvalidRequest, version))
                .collect();
        }
        let mut seen = BTreeSet::new();
        let once = asked.iter().filter(|ask| match ask.topic_id {
            Uuid::ZERO => seen.insert((Uuid::ZERO, ask.name.as_deref())),
            id => seen.insert((id, None)),
        });
        once.map(|ask| self.metadata_asked(ask, version)).collect()
    }

    fn metadata_asked(&self, ask: &MetadataRequestTopic, version: i16) -> MetadataResponseTopic {
        let found = match (ask.topic_id, &ask.name) {
            (Uuid::ZERO, Some(name)) => self.topics.get(name).ok_or_else(|| why_unknown(name)),
            (Uuid::ZERO, None) => Err(ErrorCode::InvalidRequest),
            (id, _) => self.topic_by_id(id).ok_or(ErrorCode::UnknownTopicId),
        };
        match found {
            Ok(topic) => self.metadata_topic(topic),
            Err(code) => refused(ask, code, version),
        }
    }

    fn metadata_topic(&self, topic: &TopicState) -> MetadataResponseTopic {
        let partition = |(index, state): (usize, &PartitionState)| {
            let seen = self.seen(state);
            MetadataResponsePartition {
                error_code: seen.error.code(),
                partition_index: index as i32,
                leader_id: seen.leader,
                leader_epoch: state.leader_epoch,
                replica_nodes: state.replicas.clone(),
                isr_nodes: state.isr.clone(),
                offline_replicas: seen.offline,
                ..Default::default()
            }
        };
        MetadataResponseTopic {
            name: Some(topic.name.clone()),
            topic_id: topic.id,
            is_internal: is_internal(&topic.name),
            partitions: topic.partitions.iter().enumerate().map(partition).collect(),
            ..Default::default()
        }
    }

    /// A partition as clients see it: a broker that is away leads nothing and holds nothing.
    pub(super) fn seen(&self, partition: &PartitionState) -> Seen {
        let here = |id: &i32| {
            self.brokers
                .get(id)
                .is_some_and(|broker| !broker.record.fenced)
        };
        let offline = partition
            .replicas
            .iter()
            .copied()
            .filter(|id| !here(id))
            .collect();
        let (leader, error) = match here(&partition.leader) {
            true => (partition.leader, ErrorCode::None),
            false => (-1, ErrorCode::LeaderNotAvailable),
        };
        Seen {
            leader,
            error,
            offline,
        }
    }
}

pub(super) struct Seen {
    /// -1: none.
    pub leader: i32,
    pub error: ErrorCode,
    pub offline: Vec<i32>,
}

/// What a name is answered with that no topic has.
pub(super) fn why_unknown(name: &str) -> ErrorCode {
    match check_topic_name(name) {
        Ok(()) => ErrorCode::UnknownTopicOrPartition,
        Err(_) => ErrorCode::InvalidTopicException,
    }
}

fn refused(ask: &MetadataRequestTopic, code: ErrorCode, version: i16) -> MetadataResponseTopic {
    let name = match version {
        12.. => ask.name.clone().filter(|_| ask.topic_id.is_zero()),
        _ => Some(ask.name.clone().unwrap_or_default()),
    };
    MetadataResponseTopic {
        error_code: code.code(),
        is_internal: name.as_deref().is_some_and(is_internal),
        name,
        topic_id: ask.topic_id,
        ..Default::default()
    }
}

#[cfg(test)]
#[path = "metadata_tests.rs"]
mod tests;
