//! InitProducerId (key 22, versions 0-5, and 6 where two-phase commit is enabled): a producer id for
//! an idempotent producer; with a transactional id, see [`super::transactions`].
//!
//! Behaviour: without a transactional id, a fresh id with epoch 0, from a block of 1000 that is
//! reserved in the metadata log, so that no id is ever given out twice. An id without an epoch, or
//! an epoch without an id (v3+), is INVALID_REQUEST, and so is an empty transactional id, as in Kafka;
//! both are not looked at otherwise. Version 6 is UNSUPPORTED_VERSION where it is not advertised.

use crate::apis::transactions;
use crate::broker::Broker;
use crate::connections::RequestId;
use crate::input::ConnectionId;
use crate::prepare::Prepared;
use crate::quorum::{self, Again, Job};
use oncelog_wire::ErrorCode;
use oncelog_wire::messages::InitProducerIdResponse;
use oncelog_wire::{RequestBody, ResponseBody};

pub(crate) fn handle(
    broker: &mut Broker,
    connection: ConnectionId,
    request: RequestId,
    prepared: Prepared,
) {
    let RequestBody::InitProducerId(ask) = &prepared.body else {
        unreachable!("dispatched by type");
    };
    let unsupported = prepared.version > 5 && !broker.config.transactions.two_phase_commit_enable;
    let half = (ask.producer_id == -1) != (ask.producer_epoch == -1);
    let refused = match ask.transactional_id.as_deref() {
        _ if unsupported => Some(ErrorCode::UnsupportedVersion),
        _ if half => Some(ErrorCode::InvalidRequest),
        None => None,
        Some("") => Some(ErrorCode::InvalidRequest),
        Some(_) => return transactions::handle(broker, connection, request, prepared),
    };
    let mut response = InitProducerIdResponse {
        producer_id: -1,
        producer_epoch: -1,
        ..Default::default()
    };
    if let Some(error) = refused {
        response.error_code = error.code();
        return broker.answer(request, ResponseBody::InitProducerId(response));
    }
    let Some(producer_id) = broker.quorum.producer_ids.next() else {
        let then = Again {
            connection,
            request,
            prepared: Box::new(prepared),
        };
        return quorum::submit(broker, Job::ProducerIds { then });
    };
    response.producer_id = producer_id;
    response.producer_epoch = 0;
    broker.answer(request, ResponseBody::InitProducerId(response));
}
