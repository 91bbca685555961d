//! Everything about a produced batch that can be checked without state.
//!
//! Pure, so that connections do it in parallel before the core sees the batch. The order of
//! checks is Kafka's (`ProduceRequest.validateRecords`, `UnifiedLog.analyzeAndValidateRecords`,
//! `LogValidator`), because the first error is the one a client is told.
//!
//! Deviations, both because a batch is stored as sent and never encoded anew: offset deltas must
//! count 0, 1, 2, ... (Kafka renumbers them), and no bytes may follow the batch (Kafka drops a
//! cut-off end).
//!
//! Deliberately not here: sequences and epochs (`partition`), and what a topic's own codec asks
//! for.

use bytes::Bytes;

use super::header::{NO_TIMESTAMP, check_crc};
use super::record::{SliceSource, Source, StreamSource, TOO_LARGE, scan};
use super::{Batch, BatchError, BatchHeader, Compression, TimestampType};
use crate::{ErrorCode, limits};

/// What a topic, and the request's version, ask of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProduceRules {
    /// Version of the Produce request.
    pub version: i16,
    /// `max.message.bytes`, of the batch as sent.
    pub max_message_bytes: usize,
    /// `cleanup.policy` has `compact`: every record needs a key.
    pub compacted: bool,
    pub timestamp_type: TimestampType,
    /// `message.timestamp.before.max.ms` and `.after.max.ms`; bind CreateTime only.
    pub timestamp_before_max_ms: i64,
    pub timestamp_after_max_ms: i64,
    /// The wall clock, in milliseconds.
    pub now_ms: i64,
    /// Bytes that a compressed batch may have when decompressed.
    pub decompressed_bytes_max: usize,
}

impl Default for ProduceRules {
    /// Kafka's defaults of a topic, the newest version, and no clock.
    fn default() -> ProduceRules {
        ProduceRules {
            version: crate::messages::ProduceRequest::MAX_VERSION,
            max_message_bytes: 1_048_588,
            compacted: false,
            timestamp_type: TimestampType::CreateTime,
            timestamp_before_max_ms: i64::MAX,
            timestamp_after_max_ms: i64::MAX,
            now_ms: 0,
            decompressed_bytes_max: limits::DECOMPRESSED_BYTES_MAX,
        }
    }
}

/// A batch that passed; its bytes are as they were sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidatedBatch {
    pub header: BatchHeader,
    /// Exactly one batch, its CRC checked.
    pub bytes: Bytes,
    /// The largest timestamp among the records, [`NO_TIMESTAMP`] if none has one. The header's
    /// own need not be the same: Kafka corrects it (see `patch::max_timestamp`).
    pub max_timestamp: i64,
}

type Refusal = (ErrorCode, String);

/// Checks what one partition of a Produce request holds. The error is what the client is told.
pub fn validate_produced(
    bytes: &Bytes,
    rules: &ProduceRules,
) -> Result<ValidatedBatch, (ErrorCode, String)> {
    let batch = only_batch(bytes)?;
    let codec = codec(&batch.header, rules)?;
    if batch.bytes.len() > rules.max_message_bytes {
        let (size, max) = (batch.bytes.len(), rules.max_message_bytes);
        let text = format!("the batch has {size} bytes, max.message.bytes is {max}");
        return Err((ErrorCode::MessageTooLarge, text));
    }
    if let Err(error) = check_crc(&batch.bytes) {
        return Err((ErrorCode::CorruptMessage, error.to_string()));
    }
    check_header(&batch.header)?;
    let max_timestamp = check_records(&batch, codec, rules)?;
    Ok(ValidatedBatch {
        header: batch.header,
        bytes: batch.bytes,
        max_timestamp,
    })
}

fn only_batch(bytes: &Bytes) -> Result<Batch, Refusal> {
    if bytes.is_empty() {
        return Err(invalid(
            "a produce request needs a record batch for each partition",
        ));
    }
    let batch = Batch::parse(bytes).map_err(|error| match error {
        BatchError::UnsupportedMagic(_) | BatchError::InvalidRecord { .. } => {
            (ErrorCode::InvalidRecord, error.to_string())
        }
        _ => (ErrorCode::CorruptMessage, error.to_string()),
    })?;
    if batch.bytes.len() != bytes.len() {
        return Err(invalid(
            "a produce request may have one record batch for each partition",
        ));
    }
    Ok(batch)
}

fn codec(header: &BatchHeader, rules: &ProduceRules) -> Result<Compression, Refusal> {
    let codec = header
        .compression()
        .map_err(|error| invalid(&error.to_string()))?;
    if codec == Compression::Zstd && rules.version < 7 {
        let text = "zstd needs Produce version 7 or newer".to_string();
        return Err((ErrorCode::UnsupportedCompressionType, text));
    }
    Ok(codec)
}

fn check_header(header: &BatchHeader) -> Result<(), Refusal> {
    if header.base_offset != 0 {
        return Err(invalid("the base offset of a produced batch must be 0"));
    }
    if header.records_count == 0 || header.last_offset_delta != header.records_count - 1 {
        let (count, last) = (header.records_count, header.last_offset_delta);
        return Err(invalid(&format!(
            "{count} records cannot end at offset delta {last}"
        )));
    }
    if header.is_control() {
        return Err(invalid("clients may not write control records"));
    }
    if header.has_producer_id() && (header.base_sequence < 0 || header.producer_epoch < 0) {
        return Err(invalid(
            "a batch with a producer id needs an epoch and a sequence",
        ));
    }
    if header.is_transactional() && !header.has_producer_id() {
        return Err(invalid("a transactional batch needs a producer id"));
    }
    if header.delete_horizon_ms().is_some() {
        return Err(invalid("clients may not set a delete horizon"));
    }
    if header.timestamp_type() == TimestampType::LogAppendTime {
        let text = "producers may not set the timestamp type LogAppendTime".to_string();
        return Err((ErrorCode::InvalidTimestamp, text));
    }
    Ok(())
}

/// The largest timestamp of the records.
fn check_records(batch: &Batch, codec: Compression, rules: &ProduceRules) -> Result<i64, Refusal> {
    let body = batch.body();
    if codec == Compression::None {
        let len = body.len();
        let mut source = SliceSource {
            bytes: body,
            pos: 0,
        };
        let max = walk(&mut source, &batch.header, rules)?;
        return if source.pos == len {
            Ok(max)
        } else {
            Err(left_over())
        };
    }
    let corrupt = |_| (ErrorCode::CorruptMessage, codec.corrupt().to_string());
    let stream = codec.reader(&body).map_err(corrupt)?;
    let mut source = StreamSource::new(stream, rules.decompressed_bytes_max);
    let max = walk(&mut source, &batch.header, rules)?;
    match source.at_end() {
        Ok(true) => Ok(max),
        Ok(false) => Err(left_over()),
        Err(what) => Err((ErrorCode::CorruptMessage, what.to_string())),
    }
}

fn walk(
    source: &mut impl Source,
    header: &BatchHeader,
    rules: &ProduceRules,
) -> Result<i64, Refusal> {
    let create_time = rules.timestamp_type == TimestampType::CreateTime;
    let earliest = rules.now_ms.saturating_sub(rules.timestamp_before_max_ms);
    let latest = rules.now_ms.saturating_add(rules.timestamp_after_max_ms);
    let mut max_timestamp = NO_TIMESTAMP;
    for index in 0..header.records_count {
        let layout = scan(source, |_, _| {}).map_err(|what| {
            let code = match what {
                TOO_LARGE => ErrorCode::MessageTooLarge,
                _ => ErrorCode::InvalidRecord,
            };
            (code, format!("record {index}: {what}"))
        })?;
        if layout.offset_delta != index {
            let delta = layout.offset_delta;
            return Err(invalid(&format!(
                "record {index} has the offset delta {delta}"
            )));
        }
        if rules.compacted && layout.key.is_none() {
            return Err(invalid(&format!(
                "record {index} has no key, and the topic is compacted"
            )));
        }
        let timestamp = header.base_timestamp.wrapping_add(layout.timestamp_delta);
        if create_time && timestamp != NO_TIMESTAMP && !(earliest..=latest).contains(&timestamp) {
            let text = format!(
                "record {index} has the timestamp {timestamp}, allowed is {earliest} to {latest}"
            );
            return Err((ErrorCode::InvalidTimestamp, text));
        }
        max_timestamp = max_timestamp.max(timestamp);
    }
    Ok(max_timestamp)
}

fn invalid(text: &str) -> Refusal {
    (ErrorCode::InvalidRecord, text.to_string())
}

fn left_over() -> Refusal {
    invalid("bytes are left after the last record of the batch")
}
