//! What lies in `__consumer_offsets`: Kafka's own keys and values, to and from bytes.
//!
//! A key is an i16 that names the kind of record, then the key's fields; a value is an i16
//! version, then the value's fields. Written are the versions that Kafka 4.3 writes: offsets as
//! kind 1 with value version 4 (1 if the client asked for its own retention time, the only
//! version that has a place for it), groups as kind 2 with value version 3. Read is every version
//! that Kafka reads.
//!
//! The kinds of the consumer group protocol are in `consumer/records`.
//!
//! Kinds that are not known here are skipped, as Kafka does for records of newer releases
//! (KIP-915); a known kind with a malformed body or an unknown version is an error.

use super::consumer::records::ConsumerRecord;
use crate::Record;
use bytes::Bytes;
use oncelog_wire::messages::{
    GroupMetadataKey, GroupMetadataValue, OffsetCommitKey, OffsetCommitValue,
};
use oncelog_wire::{DecodeError, EncodeError, Reader, Writer};

const KEY_LEGACY_OFFSET_COMMIT: i16 = 0;
const KEY_OFFSET_COMMIT: i16 = OffsetCommitKey::API_KEY;
const KEY_GROUP_METADATA: i16 = GroupMetadataKey::API_KEY;

const OFFSET_COMMIT_VERSION: i16 = 4;
const OFFSET_COMMIT_VERSION_WITH_EXPIRY: i16 = 1;
const GROUP_METADATA_VERSION: i16 = 3;

/// A record of the offsets partition, understood.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Replayed {
    Offset {
        key: OffsetCommitKey,
        value: Option<OffsetCommitValue>,
    },
    Group {
        group_id: String,
        value: Option<GroupMetadataValue>,
    },
    Consumer(ConsumerRecord),
    /// A kind of record that this release does not know.
    Unknown {
        kind: i16,
    },
}

/// Why a record cannot be replayed: the partition's bytes are not what Kafka would write.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    #[error("record key: {0}")]
    Key(DecodeError),
    #[error("record value of kind {kind}: {error}")]
    Value { kind: i16, error: DecodeError },
}

pub(crate) fn decode(key: &[u8], value: Option<&[u8]>) -> Result<Replayed, ReplayError> {
    // Copies: what is kept of a record must not keep its whole batch in memory.
    let mut key = Reader::new(Bytes::copy_from_slice(key));
    let kind = key.i16().map_err(ReplayError::Key)?;
    match kind {
        // Both keys have the same fields.
        KEY_LEGACY_OFFSET_COMMIT | KEY_OFFSET_COMMIT => Ok(Replayed::Offset {
            key: OffsetCommitKey::decode(&mut key, 0).map_err(ReplayError::Key)?,
            value: decode_value(kind, value, OffsetCommitValue::decode)?,
        }),
        KEY_GROUP_METADATA => Ok(Replayed::Group {
            group_id: GroupMetadataKey::decode(&mut key, 0)
                .map_err(ReplayError::Key)?
                .group,
            value: decode_value(kind, value, GroupMetadataValue::decode)?,
        }),
        kind => match super::consumer::records::decode(kind, &mut key, value)? {
            Some(record) => Ok(Replayed::Consumer(record)),
            None => Ok(Replayed::Unknown { kind }),
        },
    }
}

pub(crate) fn decode_value<T>(
    kind: i16,
    value: Option<&[u8]>,
    decode: impl Fn(&mut Reader, i16) -> Result<T, DecodeError>,
) -> Result<Option<T>, ReplayError> {
    let Some(value) = value else { return Ok(None) };
    let mut value = Reader::new(Bytes::copy_from_slice(value));
    let mut body = || {
        let version = value.i16()?;
        decode(&mut value, version)
    };
    body()
        .map(Some)
        .map_err(|error| ReplayError::Value { kind, error })
}

pub(crate) fn offset(key: &OffsetCommitKey, value: &OffsetCommitValue) -> Record {
    let version = match value.expire_timestamp {
        -1 => OFFSET_COMMIT_VERSION,
        _ => OFFSET_COMMIT_VERSION_WITH_EXPIRY,
    };
    record(
        offset_key(key),
        Some(body(version, |w| value.encode(w, version))),
    )
}

pub(crate) fn offset_tombstone(group_id: &str, topic: &str, partition: i32) -> Record {
    let key = OffsetCommitKey {
        group: group_id.to_owned(),
        topic: topic.to_owned(),
        partition,
    };
    record(offset_key(&key), None)
}

pub(crate) fn group(group_id: &str, value: &GroupMetadataValue) -> Record {
    let version = GROUP_METADATA_VERSION;
    record(
        group_key(group_id),
        Some(body(version, |w| value.encode(w, version))),
    )
}

pub(crate) fn group_tombstone(group_id: &str) -> Record {
    record(group_key(group_id), None)
}

fn offset_key(key: &OffsetCommitKey) -> Bytes {
    body(KEY_OFFSET_COMMIT, |w| key.encode(w, 0))
}

fn group_key(group_id: &str) -> Bytes {
    let key = GroupMetadataKey {
        group: group_id.to_owned(),
    };
    body(KEY_GROUP_METADATA, |w| key.encode(w, 0))
}

/// `kind` in front of a key, the version in front of a value.
pub(crate) fn body(
    prefix: i16,
    encode: impl FnOnce(&mut Writer) -> Result<(), EncodeError>,
) -> Bytes {
    let mut writer = Writer::new();
    writer.i16(prefix);
    // Every string in here came through the reader or is bounded by this crate, so it fits.
    encode(&mut writer).expect("a coordinator record fits Kafka's schema");
    writer
        .into_bytes()
        .expect("no external bytes in a coordinator record")
}

pub(crate) fn record(key: Bytes, value: Option<Bytes>) -> Record {
    Record { key, value }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oncelog_wire::Uuid;
    use oncelog_wire::messages::group_metadata_value::MemberMetadata;

    fn commit(expire_timestamp: i64) -> (OffsetCommitKey, OffsetCommitValue) {
        let key = OffsetCommitKey {
            group: "g".into(),
            topic: "t".into(),
            partition: 3,
        };
        let value = OffsetCommitValue {
            offset: 42,
            leader_epoch: if expire_timestamp == -1 { 7 } else { -1 },
            metadata: "note".into(),
            commit_timestamp: 1_000,
            expire_timestamp,
            topic_id: if expire_timestamp == -1 {
                Uuid(std::array::from_fn(|at| at as u8 + 1))
            } else {
                Uuid::ZERO
            },
            ..Default::default()
        };
        (key, value)
    }

    fn round_trip(record: &Record) -> Replayed {
        decode(&record.key, record.value.as_deref()).unwrap()
    }

    #[test]
    fn offsets_round_trip_in_the_versions_that_kafka_writes() {
        for (expiry, version) in [(-1, 4), (5_000, 1)] {
            let (key, value) = commit(expiry);
            let record = offset(&key, &value);
            assert_eq!(&record.key[..2], &[0, 1]);
            assert_eq!(&record.value.as_ref().unwrap()[..2], &[0, version]);
            assert_eq!(
                round_trip(&record),
                Replayed::Offset {
                    key,
                    value: Some(value)
                }
            );
        }
        let gone = offset_tombstone("g", "t", 3);
        assert_eq!(
            round_trip(&gone),
            Replayed::Offset {
                key: commit(-1).0,
                value: None
            }
        );
    }

    fn some_group() -> GroupMetadataValue {
        GroupMetadataValue {
            protocol_type: "consumer".into(),
            generation: 5,
            protocol: Some("range".into()),
            leader: Some("m1".into()),
            current_state_timestamp: 99,
            members: vec![MemberMetadata {
                member_id: "m1".into(),
                group_instance_id: Some("i1".into()),
                client_id: "c".into(),
                client_host: "/127.0.0.1".into(),
                rebalance_timeout: 300_000,
                session_timeout: 10_000,
                subscription: Bytes::from_static(b"sub"),
                assignment: Bytes::from_static(b"asg"),
                ..Default::default()
            }],
            ..Default::default()
        }
    }

    #[test]
    fn groups_round_trip() {
        let value = some_group();
        let record = group("g", &value);
        assert_eq!(&record.key[..], &[0, 2, 0, 1, b'g']);
        assert_eq!(&record.value.as_ref().unwrap()[..2], &[0, 3]);
        let expected = Replayed::Group {
            group_id: "g".into(),
            value: Some(value),
        };
        assert_eq!(round_trip(&record), expected);
        let expected = Replayed::Group {
            group_id: "g".into(),
            value: None,
        };
        assert_eq!(round_trip(&group_tombstone("g")), expected);
    }

    /// What Kafka 4.3.1 gives for the same values: `GroupCoordinatorRecordHelpers` through
    /// `GroupCoordinatorRecordSerde`, of kafka-group-coordinator-4.3.1.jar.
    #[test]
    fn the_bytes_are_those_that_kafka_writes() {
        let hex = |bytes: &Bytes| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        let (key, value) = commit(-1);
        let record = offset(&key, &value);
        assert_eq!(hex(&record.key), "000100016700017400000003");
        assert_eq!(
            hex(&record.value.unwrap()),
            "0004000000000000002a00000007056e6f746500000000000003e8\
             0100100102030405060708090a0b0c0d0e0f10"
        );
        let (key, value) = commit(5_000);
        assert_eq!(
            hex(&offset(&key, &value).value.unwrap()),
            "0001000000000000002a00046e6f746500000000000003e80000000000001388"
        );
        let record = group("g", &some_group());
        assert_eq!(hex(&record.key), "0002000167");
        assert_eq!(
            hex(&record.value.unwrap()),
            "00030008636f6e73756d657200000005000572616e676500026d310000000000000063\
             0000000100026d3100026931000163000a2f3132372e302e302e31000493e000002710\
             0000000373756200000003617367"
        );
    }

    #[test]
    fn older_versions_are_read() {
        // Key kind 0, value version 0: offset, metadata, commit timestamp (Kafka 0.8.2).
        let key = [0, 0, 0, 1, b'g', 0, 1, b't', 0, 0, 0, 2];
        let mut value = vec![0, 0];
        value.extend(7i64.to_be_bytes());
        value.extend([0, 0]);
        value.extend(11i64.to_be_bytes());
        let Replayed::Offset { key, value } = decode(&key, Some(&value)).unwrap() else {
            panic!("an offset");
        };
        let value = value.unwrap();
        assert_eq!(
            (key.group.as_str(), key.topic.as_str(), key.partition),
            ("g", "t", 2)
        );
        assert_eq!(
            (value.offset, value.leader_epoch, value.commit_timestamp),
            (7, -1, 11)
        );
    }

    #[test]
    fn unknown_kinds_are_skipped_and_malformed_records_refused() {
        assert_eq!(
            decode(&[0, 99, 1], Some(&[1])),
            Ok(Replayed::Unknown { kind: 99 })
        );
        assert!(matches!(decode(&[0], None), Err(ReplayError::Key(_))));
        assert!(matches!(
            decode(&[0, 2, 0, 9, b'g'], None),
            Err(ReplayError::Key(_))
        ));
        let key = group_key("g");
        for value in [&[0u8, 77][..], &[0], &[0, 3, 0, 4, b'c']] {
            let refused = decode(&key, Some(value));
            assert!(
                matches!(refused, Err(ReplayError::Value { kind: 2, .. })),
                "{refused:?}"
            );
        }
    }
}
