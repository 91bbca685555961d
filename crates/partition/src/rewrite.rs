//! The two places where a batch is not stored as it was sent.
//!
//! - **Timestamps.** LogAppendTime puts the broker's time into the header; a CreateTime header
//!   whose maximum timestamp is not that of its records is set right, as Kafka does, because
//!   time indexes and retention believe it. Only the header changes; the CRC follows without
//!   reading the body.
//! - **`compression.type`** other than `producer`: a batch in another codec is encoded anew, as
//!   Kafka does. This is the one exception to "stored as sent" for record bytes, and it takes its
//!   time under the broker's lock; the default never comes here.
//!
//! Base offset and leader epoch are outside the CRC and are filled in by the log.

use crate::config::{PartitionConfig, TargetCompression};
use crate::rejection::Rejection;
use bytes::Bytes;
use oncelog_wire::ErrorCode;
use oncelog_wire::clock::Now;
use oncelog_wire::records::{
    Batch, BatchBuilder, BatchHeader, Compression, HEADER_LEN, NO_TIMESTAMP, ProducedBatch,
    TimestampType, patch,
};

/// A batch ready for the log: offsets and leader epoch still to be filled in.
#[derive(Clone, Debug)]
pub(crate) struct Rewritten {
    /// What `header_bytes` say.
    pub header: BatchHeader,
    pub header_bytes: [u8; HEADER_LEN],
    /// The batch from byte 61 on.
    pub body: Bytes,
    /// The broker's time if it was put in, else -1.
    pub append_time_ms: i64,
}

impl Rewritten {
    /// What `batch` becomes in a topic of this configuration.
    ///
    /// Errors: MESSAGE_TOO_LARGE(10) if it had to be encoded anew and holds too much for that.
    pub(crate) fn for_topic(
        config: &PartitionConfig,
        now: Now,
        batch: &ProducedBatch,
    ) -> Result<Rewritten, Rejection> {
        let mut rewritten = match config.compression {
            TargetCompression::Codec(codec) if codec != batch.compression => {
                Rewritten::as_is(recompress(batch, codec)?)
            }
            _ => Rewritten::as_is(Batch {
                header: batch.header,
                bytes: batch.bytes.clone(),
            }),
        };
        let max_timestamp = match config.timestamp_type {
            TimestampType::CreateTime => batch.max_timestamp,
            TimestampType::LogAppendTime => {
                rewritten.append_time_ms = now.wall_ms;
                now.wall_ms
            }
        };
        rewritten.stamp(config.timestamp_type, max_timestamp);
        Ok(rewritten)
    }

    pub(crate) fn as_is(batch: Batch) -> Rewritten {
        let header_bytes = batch.bytes.first_chunk();
        Rewritten {
            header: batch.header,
            header_bytes: *header_bytes.expect("a parsed batch has its header"),
            body: batch.body(),
            append_time_ms: NO_TIMESTAMP,
        }
    }

    pub(crate) fn size_bytes(&self) -> usize {
        HEADER_LEN + self.body.len()
    }

    fn stamp(&mut self, timestamp_type: TimestampType, max_timestamp: i64) {
        let already = (self.header.timestamp_type(), self.header.max_timestamp);
        if already != (timestamp_type, max_timestamp) {
            patch::max_timestamp(&mut self.header_bytes, timestamp_type, max_timestamp);
            let header = BatchHeader::parse(&self.header_bytes);
            self.header = header.expect("only the timestamp was changed");
        }
    }
}

/// What a batch may hold to be encoded anew, in bytes: all of it is in memory at once, while the
/// broker waits. Kafka's clients send no more, by default, even with all their batches together.
const RECOMPRESSED_BYTES_MAX: usize = 32 << 20;

/// The same records, sequences and flags in another codec.
fn recompress(batch: &ProducedBatch, codec: Compression) -> Result<Batch, Rejection> {
    // It has been decoded once, under a larger limit, so nothing else can be wrong with it.
    let too_large = |error| Rejection::new(ErrorCode::MessageTooLarge, format!("{error}"));
    let sent = Batch {
        header: batch.header,
        bytes: batch.bytes.clone(),
    };
    let header = &batch.header;
    let mut builder = BatchBuilder::new()
        .compression(codec)
        .transactional(header.is_transactional())
        .producer(
            header.producer_id,
            header.producer_epoch,
            header.base_sequence,
        );
    let records = sent.records(RECOMPRESSED_BYTES_MAX).map_err(too_large)?;
    for record in records {
        builder.append_record(&record.map_err(too_large)?);
    }
    Ok(Batch::parse(&builder.build()).expect("the builder makes whole batches"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use oncelog_wire::clock::Instant;
    use oncelog_wire::records::{Record, check_produced, crc_is_valid};

    const NOW: Now = Now {
        instant: Instant(1),
        wall_ms: 70_000,
    };

    fn sent(codec: Compression) -> ProducedBatch {
        let mut builder = BatchBuilder::new()
            .compression(codec)
            .transactional(true)
            .producer(9, 2, 40);
        builder.append(50_000, Some(b"a"), Some(b"1"), &[(b"h", None)]);
        builder.append(60_000, None, Some(&[7; 900]), &[]);
        builder.append(55_000, Some(b"c"), None, &[]);
        check_produced(&builder.build(), 9).unwrap()
    }

    fn stored(rewritten: &Rewritten) -> Batch {
        let bytes = Bytes::from([&rewritten.header_bytes[..], &rewritten.body].concat());
        assert!(crc_is_valid(&bytes));
        assert_eq!(bytes.len(), rewritten.size_bytes());
        let batch = Batch::parse(&bytes).unwrap();
        assert_eq!(batch.header, rewritten.header);
        batch
    }

    fn records(batch: &Batch) -> Vec<Record> {
        let records = batch.records(1 << 20).unwrap();
        records.map(|record| record.unwrap()).collect()
    }

    #[test]
    fn by_default_a_batch_is_stored_as_sent() {
        for codec in Compression::ALL {
            let batch = sent(codec);
            let config = PartitionConfig::default();
            let rewritten = Rewritten::for_topic(&config, NOW, &batch).unwrap();
            assert_eq!(stored(&rewritten).bytes, batch.bytes);
            assert_eq!(rewritten.append_time_ms, -1);
        }
    }

    #[test]
    fn log_append_time_changes_the_header_alone() {
        let config = PartitionConfig {
            timestamp_type: TimestampType::LogAppendTime,
            ..Default::default()
        };
        let batch = sent(Compression::Lz4);
        let rewritten = Rewritten::for_topic(&config, NOW, &batch).unwrap();
        assert_eq!(rewritten.append_time_ms, 70_000);
        assert_eq!(rewritten.body, batch.bytes.slice(HEADER_LEN..));
        let stored = stored(&rewritten);
        assert_eq!(stored.header.timestamp_type(), TimestampType::LogAppendTime);
        assert!(
            records(&stored)
                .iter()
                .all(|record| record.timestamp == 70_000)
        );
    }

    #[test]
    fn a_header_that_lies_about_its_maximum_is_set_right() {
        let mut lying = sent(Compression::None);
        let mut header_bytes = *lying.bytes.first_chunk().unwrap();
        patch::max_timestamp(&mut header_bytes, TimestampType::CreateTime, 1);
        let bytes = [&header_bytes[..], &lying.bytes[HEADER_LEN..]].concat();
        lying = check_produced(&bytes.into(), 9).unwrap();
        assert_eq!(lying.header.max_timestamp, 1);
        let config = PartitionConfig::default();
        let rewritten = Rewritten::for_topic(&config, NOW, &lying).unwrap();
        assert_eq!(stored(&rewritten).header.max_timestamp, 60_000);
    }

    #[test]
    fn what_holds_too_much_is_not_encoded_anew() {
        let mut builder = BatchBuilder::new().compression(Compression::Zstd);
        for _ in 0..33 {
            builder.append(1, None, Some(&[0; 1 << 20]), &[]);
        }
        let bomb = check_produced(&builder.build(), 9).unwrap();
        let config = |compression| PartitionConfig {
            compression,
            ..Default::default()
        };
        let codec = TargetCompression::Codec(Compression::Lz4);
        let refused = Rewritten::for_topic(&config(codec), NOW, &bomb).unwrap_err();
        assert_eq!(refused.code, ErrorCode::MessageTooLarge);
        let as_sent = config(TargetCompression::Producer);
        assert!(Rewritten::for_topic(&as_sent, NOW, &bomb).is_ok());
    }

    #[test]
    fn another_codec_keeps_records_and_sequences() {
        for from in Compression::ALL {
            for to in Compression::ALL {
                let batch = sent(from);
                let config = PartitionConfig {
                    compression: TargetCompression::Codec(to),
                    ..Default::default()
                };
                let rewritten = Rewritten::for_topic(&config, NOW, &batch).unwrap();
                let stored = stored(&rewritten);
                assert_eq!(stored.header.compression(), Ok(to));
                let original = Batch::parse(&batch.bytes).unwrap();
                assert_eq!(records(&stored), records(&original));
                let producer = |h: &BatchHeader| {
                    (
                        h.producer_id,
                        h.producer_epoch,
                        h.base_sequence,
                        h.last_sequence(),
                        h.is_transactional(),
                    )
                };
                assert_eq!(producer(&stored.header), producer(&original.header));
            }
        }
    }
}
