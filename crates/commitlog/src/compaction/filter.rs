//! Which records of a batch stay, and the batch that is left.

use super::Keys;
use crate::checkpoint::crc32c;
use crate::limits;
use bytes::Bytes;
use oncelog_wire::records::{
    Batch, BatchBuilder, BatchError, BatchHeader, HEADER_LEN, LOG_OVERHEAD, NO_TIMESTAMP, Record,
};
use std::collections::BTreeSet;

pub(super) struct Filter<'a> {
    pub keys: &'a Keys,
    pub keep_batches: &'a BTreeSet<i64>,
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
    pub fn apply(&self, batch: &Batch) -> Result<Kept, BatchError> {
        let header = &batch.header;
        let covered = header.base_offset < self.keys.end_offset;
        if header.is_control() || header.is_transactional() || !covered {
            return Ok(Kept::Whole);
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
            let keep = self.keep_batches.contains(&header.last_offset());
            return Ok(match keep {
                true if header.records_count == 0 => Kept::Whole,
                true => Kept::Rewritten(emptied(header)),
                false => Kept::Nothing,
            });
        }
        let mut builder = BatchBuilder::like(header);
        if needs_horizon {
            let horizon = self.now_ms.saturating_add(self.delete_retention_ms.max(0));
            builder = builder.delete_horizon_ms(horizon);
        }
        for record in &kept {
            builder.append_record(record);
        }
        Ok(Kept::Rewritten(builder.build()))
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
