//! Every message in every version: what is written is read again, and no bytes do harm.

use bytes::Bytes;

use super::every::every_message;
use crate::arbitrary::Gen;
use crate::messages::*;
use crate::{EncodeError, Reader, Uuid, Writer};

const SEEDS: u64 = 40;

#[test]
fn what_is_written_is_read_again() {
    for entry in every_message() {
        for version in entry.min..=entry.max {
            for seed in 0..SEEDS {
                (entry.round_trip)(&mut Gen::new(seed), version);
            }
        }
    }
}

#[test]
fn every_prefix_of_a_message_is_an_error() {
    for entry in every_message() {
        for version in entry.min..=entry.max {
            let bytes = (entry.round_trip)(&mut Gen::new(3), version);
            for len in 0..bytes.len().min(400) {
                assert!(
                    (entry.decode)(bytes.slice(..len), version).is_err(),
                    "{} v{version} cut to {len}",
                    entry.name
                );
            }
        }
    }
}

/// That nothing here panics is one half; how little is allocated is `tests/allocation.rs`.
#[test]
fn garbage_does_no_harm() {
    for entry in every_message() {
        for version in entry.min..=entry.max {
            let mut g = Gen::new(version as u64);
            for _ in 0..50 {
                let len = g.below(120);
                let noise: Bytes = (0..len).map(|_| g.next() as u8).collect();
                let _ = (entry.decode)(noise, version);
                let small: Bytes = (0..len).map(|_| g.below(4) as u8).collect();
                let _ = (entry.decode)(small, version);
                let mut damaged = (entry.round_trip)(&mut g, version).to_vec();
                if !damaged.is_empty() {
                    let at = g.below(damaged.len());
                    damaged[at] = [0x00, 0x7f, 0x80, 0xff][g.below(4)];
                    let _ = (entry.decode)(damaged.into(), version);
                }
            }
        }
    }
}

#[test]
fn versions_outside_the_schema_are_refused() {
    for entry in every_message() {
        for version in [entry.min - 1, entry.max + 1, i16::MIN, i16::MAX] {
            assert!(
                (entry.decode)(Bytes::from(vec![0; 64]), version).is_err(),
                "{}",
                entry.name
            );
        }
    }
    let error = ProduceRequest::default().encode(&mut Writer::new(), 2);
    assert_eq!(error, Err(EncodeError::UnsupportedVersion(2)));
}

#[test]
fn a_value_without_a_place_is_refused_unless_ignorable() {
    let mut request = FetchRequest {
        session_id: 7,
        ..Default::default()
    };
    // SessionId is ignorable, ForgottenTopicsData is not.
    request.encode(&mut Writer::new(), 6).unwrap();
    request.forgotten_topics_data = vec![Default::default()];
    assert_eq!(
        request.encode(&mut Writer::new(), 6),
        Err(EncodeError::FieldNotInVersion {
            field: "FetchRequest.forgotten_topics_data",
            version: 6
        })
    );
    request.encode(&mut Writer::new(), 7).unwrap();
}

#[test]
fn null_is_refused_where_the_version_has_none() {
    let request = OffsetFetchRequest {
        topics: None,
        ..Default::default()
    };
    assert_eq!(
        request.encode(&mut Writer::new(), 1),
        Err(EncodeError::NullNotAllowed {
            field: "OffsetFetchRequest.topics",
            version: 1
        })
    );
    request.encode(&mut Writer::new(), 2).unwrap();
    // Group id "", topics null: allowed from version 2.
    let bytes = Bytes::from_static(&[0, 0, 0xff, 0xff, 0xff, 0xff]);
    assert!(OffsetFetchRequest::decode(&mut Reader::new(bytes.clone()), 1).is_err());
    let decoded = OffsetFetchRequest::decode(&mut Reader::new(bytes), 2).unwrap();
    assert_eq!(decoded.topics, None);
}

#[test]
fn defaults_are_the_schemas() {
    let fetch = FetchRequest::default();
    assert_eq!(
        (fetch.replica_id, fetch.max_bytes, fetch.session_epoch),
        (-1, i32::MAX, -1)
    );
    assert_eq!(fetch.cluster_id, None);
    assert_eq!(fetch.replica_state.replica_id, -1);
    // Nullable, and no default stated: empty, not null, as Kafka has it.
    assert_eq!(MetadataRequest::default().topics, Some(Vec::new()));
    assert!(MetadataRequest::default().allow_auto_topic_creation);
    assert_eq!(
        produce_request::PartitionProduceData::default().records,
        None
    );
    // The schema says `"default": null` without quotes, which Kafka reads as none stated.
    assert!(
        ConsumerGroupMemberMetadataValue::default()
            .classic_member_metadata
            .is_some()
    );
}

/// Bytes that Kafka 4.3.1 wrote, by `MessageUtil.toByteBufferAccessor` of the named message.
#[test]
fn bytes_that_kafka_wrote() {
    let value = ConsumerGroupMemberMetadataValue {
        client_id: "c".into(),
        client_host: "h".into(),
        subscribed_topic_names: vec!["t".into()],
        rebalance_timeout_ms: 5,
        classic_member_metadata: None,
        ..Default::default()
    };
    let mut w = Writer::new();
    value.encode(&mut w, 0).unwrap();
    assert_eq!(hex(&w.into_bytes().unwrap()), KAFKA_MEMBER_METADATA);
    let response = FetchResponse {
        responses: vec![fetch_response::FetchableTopicResponse {
            topic_id: Uuid([7; 16]),
            partitions: vec![fetch_response::PartitionData {
                partition_index: 3,
                high_watermark: 10,
                aborted_transactions: None,
                current_leader: fetch_response::LeaderIdAndEpoch {
                    leader_id: 1,
                    leader_epoch: 2,
                    ..Default::default()
                },
                ..Default::default()
            }],
            ..Default::default()
        }],
        ..Default::default()
    };
    let mut w = Writer::new();
    response.encode(&mut w, 16).unwrap();
    assert_eq!(hex(&w.into_bytes().unwrap()), KAFKA_FETCH_RESPONSE);
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

const KAFKA_MEMBER_METADATA: &str = "01010263026802027401000000050101000100";
const KAFKA_FETCH_RESPONSE: &str = "00000000000000000000020707070707070707070707070707070702000000030000000000000000000affffffffffffffffffffffffffffffff00ffffffff000101090000000100000002000000";
