//! Control records: what the broker itself writes between a client's records.
//!
//! Key {i16 version, i16 type}; the value of an abort or commit marker {i16 version, i32
//! coordinator epoch}. Newer versions may add fields at the end; they are ignored.

use bytes::{BufMut, Bytes, BytesMut};

use super::{Batch, BatchBuilder, BatchError, Record};
use crate::limits;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndTxn {
    Abort,
    Commit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlRecord {
    /// The end of a producer's transaction in this partition.
    EndTxn {
        result: EndTxn,
        coordinator_epoch: i32,
    },
    /// Raft's, or newer than this code; the number is its type.
    Other(i16),
}

impl ControlRecord {
    /// `None` if the record is too short for what it claims to be.
    pub fn parse(record: &Record) -> Option<ControlRecord> {
        let key = record.key.as_ref()?;
        let kind = i16::from_be_bytes(key.get(2..4)?.try_into().ok()?);
        let result = match kind {
            0 => EndTxn::Abort,
            1 => EndTxn::Commit,
            other => return Some(ControlRecord::Other(other)),
        };
        let value = record.value.as_ref()?;
        let coordinator_epoch = i32::from_be_bytes(value.get(2..6)?.try_into().ok()?);
        Some(ControlRecord::EndTxn {
            result,
            coordinator_epoch,
        })
    }
}

impl ControlRecord {
    /// What a control batch says; its CRC is checked. `None` for one without a record, which is what
    /// Kafka's log cleaner may leave of it.
    pub fn of_batch(batch: &Batch) -> Result<Option<ControlRecord>, BatchError> {
        batch.check_crc()?;
        let Some(record) = batch.records(limits::DECOMPRESSED_BYTES_MAX)?.next() else {
            return Ok(None);
        };
        let what = "too short for a control record";
        let parsed = ControlRecord::parse(&record?);
        let parsed = parsed.ok_or(BatchError::InvalidRecord { index: 0, what })?;
        Ok(Some(parsed))
    }
}

impl BatchBuilder {
    /// A whole batch that ends a transaction: one control record.
    pub fn end_txn_marker(
        timestamp: i64,
        producer_id: i64,
        producer_epoch: i16,
        result: EndTxn,
        coordinator_epoch: i32,
    ) -> Bytes {
        let mut key = BytesMut::new();
        key.put_i16(0);
        key.put_i16(match result {
            EndTxn::Abort => 0,
            EndTxn::Commit => 1,
        });
        let mut value = BytesMut::new();
        value.put_i16(0);
        value.put_i32(coordinator_epoch);
        let mut batch = BatchBuilder::new()
            .producer(producer_id, producer_epoch, super::NO_SEQUENCE)
            .transactional(true)
            .control(true);
        batch.append(timestamp, Some(&key), Some(&value), &[]);
        batch.build()
    }
}
