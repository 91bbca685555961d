//! Which records of a batch stay, and the batch that is left.

use super::Keys;
use super::transactions::Aborted;
use crate::checkpoint::crc32c;
use crate::limits;
use bytes::Bytes;
use oncelog_wire::records::{
    Batch, BatchBuilder, BatchError, BatchHeader, ControlRecord, HEADER_LEN, LOG_OVERHEAD,
    NO_TIMESTAMP, Record,
};
use std::collections::BTreeSet;

pub(super) struct Filter<'a> {
    pub keys: &'a Keys,
    pub keep_batches: &'a BTreeSet<i64>,
    pub aborted: &'a Aborted<'a>,
    pub now_ms: i64,
    pub delete_retention_ms: i64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    /// The batch stays as it is.
    Whole,
    Rewritten(Bytes),
    Nothing,
}

impl Filter<'_> {
    /// `met`, for a marker: whether this pass has met a batch of its transaction.
    pub fn apply(&self, batch: &Batch, met: bool) -> Result<Kept, BatchError> {
        let header = &batch.header;
        if !self.covers(header) {
            return Ok(Kept::Whole);
        }
        if header.is_control() {
            return self.apply_to_control(batch, met);
        }
        if self.aborted.contains(header) {
            return Ok(self.without_records(header));
        }
        let horizon = header.delete_horizon_ms();
        let tombstones_stay = horizon.is_none_or(|horizon| self.now_ms < horizon);
        let mut kept = Vec::new();
        let mut has_tombstone = false;
        for record in records_of(batch)? {
            let record = record?;
            if self.keeps(&record, tombstones_stay) {
                has_tombstone |= record.value.is_none();
                kept.push(record);
            }
        }
        let needs_horizon = has_tombstone && horizon.is_none();
        if kept.len() == header.records_count as usize && !needs_horizon && !kept.is_empty() {
            return Ok(Kept::Whole);
        }
        if kept.is_empty() {
            return Ok(self.without_records(header));
        }
        let mut builder = BatchBuilder::like(header);
        if needs_horizon {
            builder = builder.delete_horizon_ms(self.horizon_ms());
        }
        for record in &kept {
            builder.append_record(record);
        }
        Ok(Kept::Rewritten(builder.build()))
    }

    /// Whether the transaction that a marker aborted has to stay on the list.
    pub fn stays_listed(&self, marker: &BatchHeader, met: bool) -> bool {
        met || !self.covers(marker)
    }

    fn covers(&self, header: &BatchHeader) -> bool {
        header.base_offset < self.keys.end_offset
    }

    fn horizon_ms(&self) -> i64 {
        self.now_ms.saturating_add(self.delete_retention_ms.max(0))
    }

    /// What is left of a batch none of whose records stays.
    fn without_records(&self, header: &BatchHeader) -> Kept {
        match self.keep_batches.contains(&header.last_offset()) {
            true if header.records_count == 0 => Kept::Whole,
            true => Kept::Rewritten(emptied(header)),
            false => Kept::Nothing,
        }
    }

    fn apply_to_control(&self, batch: &Batch, met: bool) -> Result<Kept, BatchError> {
        let header = &batch.header;
        let is_marker = match ControlRecord::of_batch(batch)? {
            Some(ControlRecord::EndTxn { .. }) => true,
            Some(ControlRecord::Other(_)) => false,
            // Kafka's cleaner has emptied it when its transaction was gone.
            None => return Ok(self.without_records(header)),
        };
        if met || !is_marker {
            return Ok(Kept::Whole);
        }
        let Some(horizon) = header.delete_horizon_ms() else {
            let mut builder = BatchBuilder::like(header).delete_horizon_ms(self.horizon_ms());
            for record in records_of(batch)? {
                builder.append_record(&record?);
            }
            return Ok(Kept::Rewritten(builder.build()));
        };
        let gone = self.now_ms >= horizon && !self.keep_batches.contains(&header.last_offset());
        Ok(match gone {
            true => Kept::Nothing,
            false => Kept::Whole,
        })
    }

    fn keeps(&self, record: &Record, tombstones_stay: bool) -> bool {
        if record.offset >= self.keys.end_offset {
            return true;
        }
        let Some(key) = &record.key else {
            return false;
        };
        let newest = self.keys.last_offsets.get(key);
        let is_newest = newest.is_none_or(|newest| record.offset >= newest);
        is_newest && (record.value.is_some() || tombstones_stay)
    }
}

/// The records of a batch, whose offsets are among those that its header claims.
pub(super) fn records_of(
    batch: &Batch,
) -> Result<impl Iterator<Item = Result<Record, BatchError>>, BatchError> {
    let claimed = batch.header.base_offset..=batch.header.last_offset();
    let records = batch.records(limits::DECOMPRESSED_BATCH_BYTES_MAX)?;
    Ok((0..).zip(records).map(move |(index, record)| {
        let record = record?;
        match claimed.contains(&record.offset) {
            true => Ok(record),
            false => Err(BatchError::InvalidRecord {
                index,
                what: "its offset is not one of the batch's",
            }),
        }
    }))
}

/// A batch without records that still says which offsets and sequences its producer wrote, as
/// Kafka's `DefaultRecordBatch.writeEmptyHeader`.
fn emptied(header: &BatchHeader) -> Bytes {
    const CODEC_BITS: i16 = 0x07;
    const DELETE_HORIZON_BIT: i16 = 1 << 6;
    let mut empty = *header;
    empty.batch_length = (HEADER_LEN - LOG_OVERHEAD) as i32;
    empty.attributes &= !(CODEC_BITS | DELETE_HORIZON_BIT);
    empty.base_timestamp = NO_TIMESTAMP;
    empty.records_count = 0;
    empty.crc = crc32c(&empty.to_bytes()[21..]);
    Bytes::copy_from_slice(&empty.to_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_past_its_batch_is_refused() {
        let mut builder = BatchBuilder::new().base_offset(7);
        builder.append(1, Some(b"a"), None, &[]);
        builder.append(1, Some(b"b"), None, &[]);
        let mut bytes = builder.build().to_vec();
        bytes[23..27].fill(0); // the last offset delta
        let crc = crc32c(&bytes[21..]);
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
        let batch = Batch::parse(&bytes.into()).unwrap();
        let found: Vec<_> = records_of(&batch).unwrap().collect();
        assert_eq!(found[0].as_ref().unwrap().offset, 7);
        assert!(matches!(
            found[1],
            Err(BatchError::InvalidRecord { index: 1, .. })
        ));
    }
}
