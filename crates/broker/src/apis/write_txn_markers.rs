//! WriteTxnMarkers (key 27, versions 1-2): an operator ends a transaction that hangs, in the
//! partitions that are named.
//!
//! Behaviour: one control batch per partition, answered when all of them are as durable as any
//! write; whoever leads the partition judges epochs (see `oncelog_partition`). It goes past the
//! coordinator, as in Kafka: it is for transactions that no coordinator knows of.

use crate::broker::Broker;
use crate::connections::RequestId;
use crate::transactions::markers::{self, MarkerOf};
use oncelog_partition::EndTransactionMarker;
use oncelog_wire::messages::write_txn_markers_request::WritableTxnMarker;
use oncelog_wire::messages::write_txn_markers_response::{
    WritableTxnMarkerPartitionResult, WritableTxnMarkerResult, WritableTxnMarkerTopicResult,
};
use oncelog_wire::messages::{WriteTxnMarkersRequest, WriteTxnMarkersResponse};
use oncelog_wire::{ErrorCode, ResponseBody};

/// A request whose markers are not all durable.
pub struct Parked {
    response: WriteTxnMarkersResponse,
    outstanding: usize,
}

pub(crate) fn handle(broker: &mut Broker, request: RequestId, ask: &WriteTxnMarkersRequest) {
    let response = WriteTxnMarkersResponse {
        markers: ask.markers.iter().map(empty_result).collect(),
        ..Default::default()
    };
    let topics = ask.markers.iter().flat_map(|marker| &marker.topics);
    let outstanding = topics.map(|topic| topic.partition_indexes.len()).sum();
    if outstanding == 0 {
        return broker.answer(request, ResponseBody::WriteTxnMarkers(response));
    }
    let parked = Parked {
        response,
        outstanding,
    };
    broker.waiters.write_txn_markers.insert(request, parked);
    for (m, marker) in ask.markers.iter().enumerate() {
        let end = EndTransactionMarker {
            producer_id: marker.producer_id,
            producer_epoch: marker.producer_epoch,
            coordinator_epoch: marker.coordinator_epoch,
            transaction_version: marker.transaction_version,
            commit: marker.transaction_result,
        };
        for (t, topic) in marker.topics.iter().enumerate() {
            for (p, index) in topic.partition_indexes.iter().enumerate() {
                let at = (m, t, p);
                let of = MarkerOf::Request { request, at };
                markers::write_one(broker, &topic.name, *index, &end, of);
            }
        }
    }
}

fn empty_result(marker: &WritableTxnMarker) -> WritableTxnMarkerResult {
    let topics = marker.topics.iter().map(|topic| {
        let partition = |index: &i32| WritableTxnMarkerPartitionResult {
            partition_index: *index,
            ..Default::default()
        };
        WritableTxnMarkerTopicResult {
            name: topic.name.clone(),
            partitions: topic.partition_indexes.iter().map(partition).collect(),
            ..Default::default()
        }
    });
    WritableTxnMarkerResult {
        producer_id: marker.producer_id,
        topics: topics.collect(),
        ..Default::default()
    }
}

/// One of the markers is durable, or was refused.
pub(crate) fn ended(
    broker: &mut Broker,
    request: RequestId,
    (marker, topic, partition): (usize, usize, usize),
    error: ErrorCode,
) {
    let Some(parked) = broker.waiters.write_txn_markers.get_mut(&request) else {
        return;
    };
    let result = &mut parked.response.markers[marker].topics[topic].partitions[partition];
    result.error_code = error.code();
    parked.outstanding -= 1;
    if parked.outstanding > 0 {
        return;
    }
    if let Some(parked) = broker.waiters.write_txn_markers.remove(&request) {
        broker.answer(request, ResponseBody::WriteTxnMarkers(parked.response));
    }
}
