//! Markers: the end of a transaction, written to each of its partitions as a control batch.
//!
//! They come from a shard whose decision is committed, or from an operator (WriteTxnMarkers). Each
//! counts as written when the partition's high watermark has passed it; a partition that does not
//! exist any more needs none.

use crate::apis;
use crate::broker::Broker;
use crate::connections::RequestId;
use crate::groups::{self, OFFSETS_TOPIC};
use crate::topics::PartitionKey;
use oncelog_coordinator::Markers;
use oncelog_partition::{EndTransactionMarker, Rejection};
use oncelog_wire::ErrorCode;

/// Who is to hear that a marker is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum MarkerOf {
    Transaction {
        shard: i32,
        transactional_id: String,
        producer_id: i64,
        producer_epoch: i16,
        partition: (String, i32),
    },
    /// The place in a WriteTxnMarkers answer: marker, topic, partition.
    Request {
        request: RequestId,
        at: (usize, usize, usize),
    },
}

/// Ends a transaction in all of its partitions.
pub(crate) fn write(broker: &mut Broker, shard: i32, markers: Markers) {
    let marker = EndTransactionMarker {
        producer_id: markers.producer_id,
        producer_epoch: markers.producer_epoch,
        coordinator_epoch: markers.coordinator_epoch,
        transaction_version: markers.transaction_version,
        commit: markers.commit,
    };
    for partition in markers.partitions {
        let (topic, index) = (partition.0.clone(), partition.1);
        let of = MarkerOf::Transaction {
            shard,
            transactional_id: markers.transactional_id.clone(),
            producer_id: markers.producer_id,
            producer_epoch: markers.producer_epoch,
            partition,
        };
        write_one(broker, &topic, index, &marker, of);
    }
}

/// Writes one marker; `of` hears of it at once or later.
pub(crate) fn write_one(
    broker: &mut Broker,
    topic: &str,
    index: i32,
    marker: &EndTransactionMarker,
    of: MarkerOf,
) {
    let now = broker.now;
    let topic_id = broker.topics.id_of(topic);
    let key = topic_id.map(|topic_id| PartitionKey { topic_id, index });
    let hosted = key.and_then(|key| Some((key, broker.topics.get_mut(key)?)));
    let Some((key, hosted)) = hosted else {
        return ended(broker, of, ErrorCode::UnknownTopicOrPartition);
    };
    match hosted.partition.append_marker(now, marker) {
        Ok(appended) => {
            let wanted = appended.last_offset + 1;
            let is_written = wanted <= hosted.partition.high_watermark();
            if !is_written {
                hosted
                    .marker_waiters
                    .entry(wanted)
                    .or_default()
                    .push(of.clone());
            }
            broker.run(key, appended.work);
            if topic == OFFSETS_TOPIC && !appended.duplicate {
                groups::marker_appended(broker, index, marker);
            }
            if is_written {
                ended(broker, of, ErrorCode::None);
            }
        }
        Err(Rejection { code, .. }) => ended(broker, of, code),
    }
}

/// Markers below `high_watermark` are as durable as everything else there.
pub(crate) fn high_watermark_rose(broker: &mut Broker, key: PartitionKey, high_watermark: i64) {
    loop {
        let Some(hosted) = broker.topics.get_mut(key) else {
            return;
        };
        match hosted.marker_waiters.first_key_value() {
            Some((wanted, _)) if *wanted <= high_watermark => {
                let (_, waiters) = hosted.marker_waiters.pop_first().expect("just looked at");
                for of in waiters {
                    ended(broker, of, ErrorCode::None);
                }
            }
            _ => return,
        }
    }
}

/// The topic is gone, and what waited for its markers need not wait any more.
pub(crate) fn partition_removed(broker: &mut Broker, waiters: impl IntoIterator<Item = MarkerOf>) {
    for of in waiters {
        ended(broker, of, ErrorCode::UnknownTopicOrPartition);
    }
}

fn ended(broker: &mut Broker, of: MarkerOf, error: ErrorCode) {
    match of {
        MarkerOf::Request { request, at } => {
            apis::write_txn_markers::ended(broker, request, at, error);
        }
        MarkerOf::Transaction {
            shard,
            transactional_id,
            producer_id,
            producer_epoch,
            partition,
        } => super::tell(broker, shard, |state, now| {
            let partition = (partition.0.as_str(), partition.1);
            match error {
                // A partition that is gone needs no marker.
                ErrorCode::None | ErrorCode::UnknownTopicOrPartition => state.marker_written(
                    now,
                    &transactional_id,
                    producer_id,
                    producer_epoch,
                    partition,
                ),
                error => state.marker_refused(
                    now,
                    &transactional_id,
                    producer_id,
                    producer_epoch,
                    partition,
                    error,
                ),
            }
        }),
    }
}
