//! Metadata (key 3, versions 0-13): brokers, topics, leaders.
//!
//! Behaviour: named topics that do not exist are created when both the broker
//! (`auto.create.topics.enable`) and the request (v4+) allow it.
//!
//! Deviations from Kafka: the answer waits for the creation and then describes the new topic,
//! where Kafka answers LEADER_NOT_AVAILABLE and lets the client ask again.

use crate::apis;
use crate::broker::Broker;
use crate::connections::RequestId;
use crate::input::ConnectionId;
use crate::prepare::Prepared;
use oncelog_wire::messages::MetadataRequest;
use oncelog_wire::{RequestBody, ResponseBody};

pub(crate) fn handle(
    broker: &mut Broker,
    connection: ConnectionId,
    request: RequestId,
    prepared: Prepared,
) {
    let RequestBody::Metadata(ask) = &prepared.body else {
        unreachable!("dispatched by type");
    };
    if !prepared.topics_ensured {
        let missing = to_create(broker, ask, prepared.version);
        if !missing.is_empty() {
            return apis::ensure_topics(broker, connection, request, prepared, missing);
        }
    }
    let listener = broker.listener_of(connection);
    let response = broker
        .cluster
        .metadata_response(ask, prepared.version, &listener);
    broker.answer(request, ResponseBody::Metadata(response));
}

fn to_create(broker: &Broker, ask: &MetadataRequest, version: i16) -> Vec<String> {
    let allowed = version < 4 || ask.allow_auto_topic_creation;
    if !broker.config.auto_create_topics_enable || !allowed {
        return Vec::new();
    }
    let named = ask
        .topics
        .iter()
        .flatten()
        .filter_map(|topic| topic.name.as_ref());
    let missing = named.filter(|name| broker.cluster.topic(name).is_none());
    missing.cloned().collect()
}
