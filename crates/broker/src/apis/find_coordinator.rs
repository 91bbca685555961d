//! FindCoordinator (key 10, versions 0-6): where a group or a transactional id lives.
//!
//! Behaviour: this broker, once `__consumer_offsets` or `__transaction_state` exists; the first
//! request makes it and is answered when it is there. Key type 2 (share groups) is refused:
//! COORDINATOR_NOT_AVAILABLE would make clients retry for ever, so it is INVALID_REQUEST with a
//! message.

use crate::apis;
use crate::broker::Broker;
use crate::connections::RequestId;
use crate::groups::OFFSETS_TOPIC;
use crate::input::ConnectionId;
use crate::prepare::Prepared;
use crate::transactions::TRANSACTION_STATE_TOPIC;
use oncelog_wire::ErrorCode;
use oncelog_wire::messages::find_coordinator_response::Coordinator;
use oncelog_wire::messages::{FindCoordinatorRequest, FindCoordinatorResponse};
use oncelog_wire::{RequestBody, ResponseBody};

const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;

pub(crate) fn handle(
    broker: &mut Broker,
    connection: ConnectionId,
    request: RequestId,
    prepared: Prepared,
) {
    let RequestBody::FindCoordinator(ask) = &prepared.body else {
        unreachable!("dispatched by type");
    };
    if let Some((topic, false)) = home(broker, ask.key_type)
        && !prepared.topics_ensured
    {
        let names = vec![topic.to_owned()];
        return apis::ensure_topics(broker, connection, request, prepared, names);
    }
    let listener = broker.listener_of(connection);
    let response = match prepared.version {
        0..=3 => single(broker, ask, &listener),
        _ => batched(broker, ask, &listener),
    };
    broker.answer(request, ResponseBody::FindCoordinator(response));
}

/// The topic that keeps what a coordinator knows, and whether it is there.
fn home(broker: &Broker, key_type: i8) -> Option<(&'static str, bool)> {
    match key_type {
        GROUP => Some((OFFSETS_TOPIC, broker.groups.ready())),
        TRANSACTION => Some((TRANSACTION_STATE_TOPIC, broker.transactions.ready())),
        _ => None,
    }
}

fn batched(
    broker: &Broker,
    ask: &FindCoordinatorRequest,
    listener: &str,
) -> FindCoordinatorResponse {
    let entry = |key: &String| coordinator(broker, ask.key_type, key, listener);
    FindCoordinatorResponse {
        coordinators: ask.coordinator_keys.iter().map(entry).collect(),
        ..Default::default()
    }
}

fn single(
    broker: &Broker,
    ask: &FindCoordinatorRequest,
    listener: &str,
) -> FindCoordinatorResponse {
    let found = coordinator(broker, ask.key_type, &ask.key, listener);
    FindCoordinatorResponse {
        error_code: found.error_code,
        error_message: found.error_message,
        node_id: found.node_id,
        host: found.host,
        port: found.port,
        ..Default::default()
    }
}

fn coordinator(broker: &Broker, key_type: i8, key: &str, listener: &str) -> Coordinator {
    let nowhere = |error: ErrorCode, why: &str| Coordinator {
        key: key.to_owned(),
        node_id: -1,
        host: String::new(),
        port: -1,
        error_code: error.code(),
        error_message: Some(why.to_owned()),
        ..Default::default()
    };
    let Some((topic, ready)) = home(broker, key_type) else {
        let why = "only groups and transactions have a coordinator here";
        return nowhere(ErrorCode::InvalidRequest, why);
    };
    if !ready {
        let why = format!("{topic} could not be created; the broker's log says why");
        return nowhere(ErrorCode::CoordinatorNotAvailable, &why);
    }
    let own = broker.cluster.broker(broker.config.node_id);
    let Some(endpoint) = own.and_then(|broker| broker.endpoint(listener)) else {
        let why = format!("this broker advertises no address for listener {listener:?}");
        return nowhere(ErrorCode::CoordinatorNotAvailable, &why);
    };
    Coordinator {
        key: key.to_owned(),
        node_id: broker.config.node_id,
        host: endpoint.host.clone(),
        port: i32::from(endpoint.port),
        ..Default::default()
    }
}
