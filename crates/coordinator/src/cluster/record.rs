//! The records of `__cluster_metadata`: Kafka's own schemas in Kafka's own frame.
//!
//! A record's value is: frame version (1), the schema's key, the schema's version, each an
//! unsigned varint, then the message. Records are written in fixed versions and read in any that
//! their schema has, so a log written by Kafka's controller reads as far as its kinds of record
//! are known here; an unknown kind is an error and never skipped, for what it says would be lost.

use bytes::Bytes;
use oncelog_wire::messages::{
    ConfigRecord, FeatureLevelRecord, NoOpRecord, PartitionChangeRecord, PartitionRecord,
    ProducerIdsRecord, RegisterBrokerRecord, RemoveTopicRecord, TopicRecord,
};
use oncelog_wire::{DecodeError, EncodeError, Reader, Writer};

const FRAME_VERSION: u32 = 1;

/// Why bytes are no metadata record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRecord {
    #[error("{0}")]
    Decode(#[from] DecodeError),
    #[error("frame version {0}, and only 1 is known")]
    FrameVersion(u32),
    #[error("metadata records of kind {0} are not known here")]
    UnknownKind(u32),
    #[error("{0} bytes follow the record")]
    BytesLeft(usize),
}

macro_rules! metadata_records {
    ($($(#[$doc:meta])* $name:ident($message:ident) written in $version:literal;)*) => {
        /// One change of the cluster's metadata.
        #[derive(Clone, Debug, PartialEq)]
        pub enum MetadataRecord {
            $($(#[$doc])* $name($message),)*
        }

        $(impl From<$message> for MetadataRecord {
            fn from(message: $message) -> MetadataRecord {
                MetadataRecord::$name(message)
            }
        })*

        impl MetadataRecord {
            /// The value of a record in `__cluster_metadata`; its key is null.
            pub fn encode(&self) -> Bytes {
                let mut w = Writer::new();
                let written = match self {
                    $(MetadataRecord::$name(message) => {
                        frame(&mut w, $message::API_KEY, $version);
                        message.encode(&mut w, $version)
                    })*
                };
                finish(written, w)
            }

            pub fn decode(value: &[u8]) -> Result<MetadataRecord, BadRecord> {
                let mut r = Reader::new(Bytes::copy_from_slice(value));
                let frame_version = r.unsigned_varint()?;
                if frame_version != FRAME_VERSION {
                    return Err(BadRecord::FrameVersion(frame_version));
                }
                let kind = r.unsigned_varint()?;
                // A version beyond the schema's is refused by the message's own decode.
                let version = i16::try_from(r.unsigned_varint()?).unwrap_or(i16::MAX);
                let record = match i16::try_from(kind) {
                    $(Ok($message::API_KEY) => {
                        MetadataRecord::$name($message::decode(&mut r, version)?)
                    })*
                    _ => return Err(BadRecord::UnknownKind(kind)),
                };
                match r.remaining() {
                    0 => Ok(record),
                    left => Err(BadRecord::BytesLeft(left)),
                }
            }
        }
    };
}

metadata_records! {
    RegisterBroker(RegisterBrokerRecord) written in 3;
    Topic(TopicRecord) written in 0;
    Partition(PartitionRecord) written in 2;
    Config(ConfigRecord) written in 0;
    PartitionChange(PartitionChangeRecord) written in 2;
    RemoveTopic(RemoveTopicRecord) written in 0;
    FeatureLevel(FeatureLevelRecord) written in 0;
    ProducerIds(ProducerIdsRecord) written in 0;
    /// Kafka's controllers write these when nothing happens.
    NoOp(NoOpRecord) written in 0;
}

fn frame(w: &mut Writer, kind: i16, version: u32) {
    w.unsigned_varint(FRAME_VERSION);
    w.unsigned_varint(kind as u32);
    w.unsigned_varint(version);
}

/// What is decided here fits its schema: names and values came out of requests, whose strings are
/// no longer than a record's may be.
fn finish(written: Result<(), EncodeError>, w: Writer) -> Bytes {
    written.expect("a decided record fits its schema");
    w.into_bytes()
        .expect("metadata records hold no outside bytes")
}

#[cfg(test)]
mod tests {
    use super::*;
    use oncelog_wire::Uuid;
    use oncelog_wire::messages::register_broker_record::BrokerEndpoint;

    fn id() -> Uuid {
        Uuid(std::array::from_fn(|i| i as u8 + 1))
    }

    fn unhex(text: &str) -> Vec<u8> {
        let byte = |i| u8::from_str_radix(&text[i..i + 2], 16).unwrap();
        (0..text.len()).step_by(2).map(byte).collect()
    }

    /// The bytes are those that Kafka 4.3.1's `MetadataRecordSerde` writes for the same record.
    fn check(record: impl Into<MetadataRecord>, kafkas: &str) {
        let record = record.into();
        assert_eq!(record.encode(), unhex(kafkas), "{record:?}");
        assert_eq!(MetadataRecord::decode(&unhex(kafkas)), Ok(record));
    }

    #[test]
    fn bytes_are_kafkas() {
        check(
            TopicRecord {
                name: "orders".into(),
                topic_id: id(),
                ..Default::default()
            },
            "010200076f72646572730102030405060708090a0b0c0d0e0f1000",
        );
        check(
            PartitionRecord {
                partition_id: 3,
                topic_id: id(),
                replicas: vec![1],
                isr: vec![1],
                leader: 1,
                leader_epoch: 0,
                partition_epoch: 0,
                directories: vec![crate::cluster::placement::UNASSIGNED_DIRECTORY],
                ..Default::default()
            },
            "010302000000030102030405060708090a0b0c0d0e0f100200000001020000000101010000000100000000\
             00000000020000000000000000000000000000000100",
        );
        let config = ConfigRecord {
            resource_type: 2,
            resource_name: "orders".into(),
            name: "retention.ms".into(),
            value: Some("1000".into()),
            ..Default::default()
        };
        check(
            config.clone(),
            "01040002076f72646572730d726574656e74696f6e2e6d73053130303000",
        );
        check(
            ConfigRecord {
                resource_type: 4,
                resource_name: String::new(),
                value: None,
                ..config
            },
            "01040004010d726574656e74696f6e2e6d730000",
        );
        check(
            RemoveTopicRecord {
                topic_id: id(),
                ..Default::default()
            },
            "0109000102030405060708090a0b0c0d0e0f1000",
        );
        check(
            ProducerIdsRecord {
                broker_id: 1,
                broker_epoch: 7,
                next_producer_id: 2000,
                ..Default::default()
            },
            "010f0000000001000000000000000700000000000007d000",
        );
        check(
            PartitionChangeRecord {
                partition_id: 3,
                topic_id: id(),
                leader: 2,
                isr: Some(vec![2]),
                ..Default::default()
            },
            "010502000000030102030405060708090a0b0c0d0e0f100200050200000002010400000002",
        );
        check(
            RegisterBrokerRecord {
                broker_id: 1,
                incarnation_id: id(),
                broker_epoch: 7,
                end_points: vec![BrokerEndpoint {
                    name: "PLAINTEXT".into(),
                    host: "h".into(),
                    port: 9092,
                    ..Default::default()
                }],
                rack: Some("r".into()),
                fenced: false,
                ..Default::default()
            },
            "01000300000001000102030405060708090a0b0c0d0e0f100000000000000007020a504c41494e54455854\
             02682384000000010272000000",
        );
    }

    #[test]
    fn what_is_not_understood_is_an_error() {
        let good = unhex("0109000102030405060708090a0b0c0d0e0f1000");
        for end in 0..good.len() {
            assert!(
                MetadataRecord::decode(&good[..end]).is_err(),
                "cut at {end}"
            );
        }
        let with = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            MetadataRecord::decode(&bytes)
        };
        assert_eq!(with(0, 2), Err(BadRecord::FrameVersion(2)));
        assert_eq!(with(1, 99), Err(BadRecord::UnknownKind(99)));
        assert!(matches!(with(2, 1), Err(BadRecord::Decode(_))));
        let longer = [&good[..], &[0]].concat();
        assert_eq!(
            MetadataRecord::decode(&longer),
            Err(BadRecord::BytesLeft(1))
        );
    }
}
