//! Everything about a produced batch that can be checked without state or configuration.
//!
//! Pure, so that connections do it in parallel before the core sees the batch. The order of
//! checks is Kafka's (`ProduceRequest.validateRecords`, `UnifiedLog.analyzeAndValidateRecords`,
//! `LogValidator`), because the first error is the one a client is told.
//!
//! Deviations, both because a batch is stored as sent and never encoded anew: offset deltas must
//! count 0, 1, 2, ... (Kafka renumbers them), and no bytes may follow the batch (Kafka drops a
//! cut-off end).
//!
//! Deliberately not here: what depends on a topic's configuration (size, keys, timestamps; the
//! facts that those checks need are part of [`ProducedBatch`]) or on its state (sequences and
//! epochs). `partition` checks both.

use std::ops::Range;

use bytes::Bytes;

use super::header::{NO_TIMESTAMP, check_crc};
use super::record::{SliceSource, Source, StreamSource, TOO_LARGE, scan};
use super::{Batch, BatchError, BatchHeader, Compression, TimestampType};
use crate::{ErrorCode, limits};

/// One batch of a Produce request that passed; its bytes are as they were sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducedBatch {
    pub header: BatchHeader,
    /// Exactly one batch, its CRC checked.
    pub bytes: Bytes,
    pub compression: Compression,
    /// The largest timestamp among the records, [`NO_TIMESTAMP`] if none has one. The header's
    /// own need not be the same: Kafka corrects it (see `patch::max_timestamp`).
    pub max_timestamp: i64,
    /// The smallest timestamp among the records that have one, else [`NO_TIMESTAMP`].
    pub min_timestamp: i64,
    /// Which records have no key, as runs of indexes; a compacted topic refuses them, each by its
    /// index. After [`limits::KEYLESS_RUNS_MAX`] runs no more are noted.
    pub without_key: Vec<Range<i32>>,
}

impl ProducedBatch {
    pub fn record_count(&self) -> u32 {
        self.header.records_count.unsigned_abs()
    }

    pub fn size_bytes(&self) -> usize {
        self.bytes.len()
    }
}

/// What the walk through the records found.
struct Facts {
    max_timestamp: i64,
    min_timestamp: i64,
    without_key: Vec<Range<i32>>,
}

impl Facts {
    fn note_keyless(&mut self, index: i32) {
        let runs = self.without_key.len();
        match self.without_key.last_mut() {
            Some(run) if run.end == index => run.end += 1,
            _ if runs < limits::KEYLESS_RUNS_MAX => self.without_key.push(index..index + 1),
            _ => {}
        }
    }
}

/// The code and the words that the client is told.
type Refusal = (ErrorCode, String);

/// Checks what one partition of a Produce request of this version holds. The error is what the
/// client is told.
pub fn check_produced(bytes: &Bytes, version: i16) -> Result<ProducedBatch, (ErrorCode, String)> {
    check_produced_within(bytes, version, limits::DECOMPRESSED_BYTES_MAX)
}

/// With another bound on what a compressed batch holds, in bytes.
pub(crate) fn check_produced_within(
    bytes: &Bytes,
    version: i16,
    decompressed_max: usize,
) -> Result<ProducedBatch, Refusal> {
    let batch = only_batch(bytes)?;
    let compression = codec(&batch.header, version)?;
    if let Err(error) = check_crc(&batch.bytes) {
        return Err((ErrorCode::CorruptMessage, error.to_string()));
    }
    check_header(&batch.header)?;
    let facts = check_records(&batch, compression, decompressed_max)?;
    Ok(ProducedBatch {
        header: batch.header,
        bytes: batch.bytes,
        compression,
        max_timestamp: facts.max_timestamp,
        min_timestamp: facts.min_timestamp,
        without_key: facts.without_key,
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

fn codec(header: &BatchHeader, version: i16) -> Result<Compression, Refusal> {
    let codec = header
        .compression()
        .map_err(|error| invalid(&error.to_string()))?;
    if codec == Compression::Zstd && version < 7 {
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

fn check_records(
    batch: &Batch,
    codec: Compression,
    decompressed_max: usize,
) -> Result<Facts, Refusal> {
    let body = batch.body();
    if codec == Compression::None {
        let len = body.len();
        let mut source = SliceSource {
            bytes: body,
            pos: 0,
        };
        let facts = walk(&mut source, &batch.header)?;
        return if source.pos == len {
            Ok(facts)
        } else {
            Err(left_over())
        };
    }
    let corrupt = |_| (ErrorCode::CorruptMessage, codec.corrupt().to_string());
    let stream = codec.reader(&body).map_err(corrupt)?;
    let mut source = StreamSource::new(stream, decompressed_max);
    let facts = walk(&mut source, &batch.header)?;
    match source.at_end() {
        Ok(true) => Ok(facts),
        Ok(false) => Err(left_over()),
        Err(what) => Err((ErrorCode::CorruptMessage, what.to_string())),
    }
}

fn walk(source: &mut impl Source, header: &BatchHeader) -> Result<Facts, Refusal> {
    let mut facts = Facts {
        max_timestamp: NO_TIMESTAMP,
        min_timestamp: NO_TIMESTAMP,
        without_key: Vec::new(),
    };
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
        if layout.key.is_none() {
            facts.note_keyless(index);
        }
        let timestamp = header.base_timestamp.wrapping_add(layout.timestamp_delta);
        facts.max_timestamp = facts.max_timestamp.max(timestamp);
        let has_timestamp = timestamp != NO_TIMESTAMP;
        if has_timestamp && (facts.min_timestamp == NO_TIMESTAMP || timestamp < facts.min_timestamp)
        {
            facts.min_timestamp = timestamp;
        }
    }
    Ok(facts)
}

fn invalid(text: &str) -> Refusal {
    (ErrorCode::InvalidRecord, text.to_string())
}

fn left_over() -> Refusal {
    invalid("bytes are left after the last record of the batch")
}
