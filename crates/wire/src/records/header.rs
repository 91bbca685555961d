//! The header of a batch: 61 bytes, of which the first 21 lie outside the CRC.
//!
//! ```text
//!  0 base offset i64      16 magic i8 = 2           35 max timestamp i64
//!  8 length i32           17 CRC-32C of 21.. u32    43 producer id i64
//! 12 leader epoch i32     21 attributes i16         51 producer epoch i16
//!                         23 last offset delta i32  53 base sequence i32
//!                         27 base timestamp i64     57 record count i32
//! ```
//!
//! That is why a batch is stored as it was sent: base offset and leader epoch, the two things
//! that only the log knows, are filled in without touching the CRC.

use crc_fast::CrcAlgorithm::Crc32Iscsi as CRC_32C;

use super::{BatchError, Compression, CompressionError};

/// Bytes of a batch's header.
pub const HEADER_LEN: usize = 61;
/// Bytes that the length field does not count: base offset and the length itself.
pub const LOG_OVERHEAD: usize = 12;

pub const NO_TIMESTAMP: i64 = -1;
pub const NO_PRODUCER_ID: i64 = -1;
pub const NO_PRODUCER_EPOCH: i16 = -1;
pub const NO_SEQUENCE: i32 = -1;
pub const NO_PARTITION_LEADER_EPOCH: i32 = -1;

const CRC_AT: usize = 17;
const CRC_COVERS_FROM: usize = 21;

const TIMESTAMP_TYPE_BIT: i16 = 1 << 3;
const TRANSACTIONAL_BIT: i16 = 1 << 4;
const CONTROL_BIT: i16 = 1 << 5;
const DELETE_HORIZON_BIT: i16 = 1 << 6;

/// Whose clock a batch's timestamps are from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TimestampType {
    #[default]
    CreateTime,
    LogAppendTime,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    pub base_offset: i64,
    /// Bytes after this field: the whole batch less [`LOG_OVERHEAD`]. At least 49 when parsed.
    pub batch_length: i32,
    pub partition_leader_epoch: i32,
    pub crc: u32,
    pub attributes: i16,
    /// Not negative when parsed.
    pub last_offset_delta: i32,
    /// Milliseconds; with a delete horizon, that horizon.
    pub base_timestamp: i64,
    pub max_timestamp: i64,
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub base_sequence: i32,
    /// As the sender says; may be 0 after compaction, and is not negative when parsed.
    pub records_count: i32,
}

impl BatchHeader {
    /// From the first [`HEADER_LEN`] bytes; what follows is not looked at.
    ///
    /// Errors: too few bytes, another magic, a length or count that cannot be.
    pub fn parse(bytes: &[u8]) -> Result<BatchHeader, BatchError> {
        // Length and magic come first, so that an old format is called that, and not truncated.
        if let Some(magic) = bytes.get(16).filter(|magic| **magic != 2) {
            return Err(BatchError::UnsupportedMagic(*magic as i8));
        }
        let Some(header) = bytes.first_chunk::<HEADER_LEN>() else {
            let available = bytes.len();
            return Err(BatchError::Truncated {
                needed: HEADER_LEN,
                available,
            });
        };
        let parsed = BatchHeader {
            base_offset: i64::from_be_bytes(field(header, 0)),
            batch_length: i32::from_be_bytes(field(header, 8)),
            partition_leader_epoch: i32::from_be_bytes(field(header, 12)),
            crc: u32::from_be_bytes(field(header, CRC_AT)),
            attributes: i16::from_be_bytes(field(header, 21)),
            last_offset_delta: i32::from_be_bytes(field(header, 23)),
            base_timestamp: i64::from_be_bytes(field(header, 27)),
            max_timestamp: i64::from_be_bytes(field(header, 35)),
            producer_id: i64::from_be_bytes(field(header, 43)),
            producer_epoch: i16::from_be_bytes(field(header, 51)),
            base_sequence: i32::from_be_bytes(field(header, 53)),
            records_count: i32::from_be_bytes(field(header, 57)),
        };
        if parsed.batch_length < (HEADER_LEN - LOG_OVERHEAD) as i32 {
            return Err(BatchError::InvalidLength(parsed.batch_length));
        }
        if parsed.last_offset_delta < 0 || parsed.records_count < 0 {
            let what = "negative record count or last offset delta";
            return Err(BatchError::InvalidRecord { index: -1, what });
        }
        Ok(parsed)
    }

    /// The 61 bytes, with the CRC that the struct holds.
    pub fn to_bytes(&self) -> [u8; HEADER_LEN] {
        let mut out = [0; HEADER_LEN];
        put(&mut out, 0, self.base_offset.to_be_bytes());
        put(&mut out, 8, self.batch_length.to_be_bytes());
        put(&mut out, 12, self.partition_leader_epoch.to_be_bytes());
        out[16] = 2;
        put(&mut out, CRC_AT, self.crc.to_be_bytes());
        put(&mut out, 21, self.attributes.to_be_bytes());
        put(&mut out, 23, self.last_offset_delta.to_be_bytes());
        put(&mut out, 27, self.base_timestamp.to_be_bytes());
        put(&mut out, 35, self.max_timestamp.to_be_bytes());
        put(&mut out, 43, self.producer_id.to_be_bytes());
        put(&mut out, 51, self.producer_epoch.to_be_bytes());
        put(&mut out, 53, self.base_sequence.to_be_bytes());
        put(&mut out, 57, self.records_count.to_be_bytes());
        out
    }

    /// Bytes of the whole batch, header included.
    pub fn size_in_bytes(&self) -> usize {
        LOG_OVERHEAD + self.batch_length as usize
    }

    pub fn last_offset(&self) -> i64 {
        self.base_offset
            .saturating_add(i64::from(self.last_offset_delta))
    }

    /// The offset after the last one.
    pub fn next_offset(&self) -> i64 {
        self.last_offset().saturating_add(1)
    }

    /// The last record's sequence, [`NO_SEQUENCE`] if there is none. Sequences wrap from
    /// `i32::MAX` to 0.
    pub fn last_sequence(&self) -> i32 {
        if self.base_sequence == NO_SEQUENCE {
            return NO_SEQUENCE;
        }
        let last = i64::from(self.base_sequence) + i64::from(self.last_offset_delta);
        (last % (i64::from(i32::MAX) + 1)) as i32
    }

    pub fn compression(&self) -> Result<Compression, CompressionError> {
        Compression::from_attributes(self.attributes)
    }

    pub fn timestamp_type(&self) -> TimestampType {
        if self.attributes & TIMESTAMP_TYPE_BIT == 0 {
            TimestampType::CreateTime
        } else {
            TimestampType::LogAppendTime
        }
    }

    pub fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL_BIT != 0
    }

    /// A batch of the broker's own: transaction markers.
    pub fn is_control(&self) -> bool {
        self.attributes & CONTROL_BIT != 0
    }

    pub fn has_producer_id(&self) -> bool {
        self.producer_id > NO_PRODUCER_ID
    }

    /// When compaction may remove the tombstones and markers of this batch, in milliseconds.
    pub fn delete_horizon_ms(&self) -> Option<i64> {
        (self.attributes & DELETE_HORIZON_BIT != 0).then_some(self.base_timestamp)
    }

    pub(super) fn set_attribute(&mut self, bit: Attribute, on: bool) {
        let bit = bit as i16;
        self.attributes = if on {
            self.attributes | bit
        } else {
            self.attributes & !bit
        };
    }
}

#[repr(i16)]
pub(super) enum Attribute {
    LogAppendTime = TIMESTAMP_TYPE_BIT,
    Transactional = TRANSACTIONAL_BIT,
    Control = CONTROL_BIT,
    DeleteHorizon = DELETE_HORIZON_BIT,
}

/// Whether a whole batch (and no more) is what its CRC says.
pub fn crc_is_valid(batch: &[u8]) -> bool {
    check_crc(batch).is_ok()
}

pub(super) fn check_crc(batch: &[u8]) -> Result<(), BatchError> {
    let stored = u32::from_be_bytes(field(batch, CRC_AT));
    let computed = crc_of(&batch[CRC_COVERS_FROM..]);
    if stored == computed {
        Ok(())
    } else {
        Err(BatchError::CrcMismatch { stored, computed })
    }
}

/// The CRC-32C of what follows the CRC field.
pub(super) fn crc_of(covered: &[u8]) -> u32 {
    crc_fast::checksum(CRC_32C, covered) as u32
}

/// Changes to a header in place, in front of a body that need not be at hand.
pub mod patch {
    use super::*;

    /// What the log knows when it appends. Outside the CRC.
    pub fn offset_and_epoch(header: &mut [u8; HEADER_LEN], base_offset: i64, leader_epoch: i32) {
        put(header, 0, base_offset.to_be_bytes());
        put(header, 12, leader_epoch.to_be_bytes());
    }

    /// The batch's largest timestamp and whose clock it is from, with the CRC to match.
    ///
    /// The body is not read: a CRC is linear, so the body's part follows from the old header and
    /// the old CRC. The old CRC must have been checked.
    pub fn max_timestamp(
        header: &mut [u8; HEADER_LEN],
        timestamp_type: TimestampType,
        max_timestamp: i64,
    ) {
        let mut changed = *header;
        let mut attributes = i16::from_be_bytes(field(header, 21));
        attributes = match timestamp_type {
            TimestampType::CreateTime => attributes & !TIMESTAMP_TYPE_BIT,
            TimestampType::LogAppendTime => attributes | TIMESTAMP_TYPE_BIT,
        };
        put(&mut changed, 21, attributes.to_be_bytes());
        put(&mut changed, 35, max_timestamp.to_be_bytes());
        let crc = crc_after_change(header, &changed);
        put(&mut changed, CRC_AT, crc.to_be_bytes());
        *header = changed;
    }

    /// The CRC of a batch whose header became `new`, given that `old` had the right one.
    fn crc_after_change(old: &[u8; HEADER_LEN], new: &[u8; HEADER_LEN]) -> u32 {
        let length = i32::from_be_bytes(field(old, 8)).max(0) as u64;
        let body_len = (length + LOG_OVERHEAD as u64).saturating_sub(HEADER_LEN as u64);
        let shifted = |header: &[u8; HEADER_LEN]| {
            let front = crc_fast::checksum(CRC_32C, &header[CRC_COVERS_FROM..]);
            crc_fast::checksum_combine(CRC_32C, front, 0, body_len)
        };
        let stored = u32::from_be_bytes(field(old, CRC_AT));
        let body = u64::from(stored) ^ shifted(old);
        (body ^ shifted(new)) as u32
    }
}

/// `N` bytes of a header; the caller has checked that they are there.
fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N]
        .try_into()
        .expect("the slice has length N")
}

fn put<const N: usize>(header: &mut [u8; HEADER_LEN], at: usize, value: [u8; N]) {
    header[at..at + N].copy_from_slice(&value);
}
