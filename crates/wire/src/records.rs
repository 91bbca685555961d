//! Record batches, format v2: the only format there is since Kafka 4.0.
//!
//! - `header`: the 61 bytes at the front, read and patched in place.
//! - `batches`: a buffer of batches, one after the other.
//! - `record`: what is inside a batch.
//! - `validate`: everything about a produced batch that can be checked without state or
//!   configuration.
//! - `build`: making batches, for internal topics, compaction, clients and tests.
//!
//! Deliberately not here: v0 and v1, producer state, where a batch is stored.

mod batches;
mod build;
mod control;
mod header;
mod record;
mod validate;

pub use crate::compression::{Compression, CompressionError};
pub use batches::{Batch, Batches};
pub use build::BatchBuilder;
pub use control::{ControlRecord, EndTxn};
pub use header::{
    BatchHeader, HEADER_LEN, LOG_OVERHEAD, NO_PARTITION_LEADER_EPOCH, NO_PRODUCER_EPOCH,
    NO_PRODUCER_ID, NO_SEQUENCE, NO_TIMESTAMP, TimestampType, crc_is_valid, patch,
};
pub use record::{Header, Record, Records as RecordIter};
#[cfg(test)]
pub(crate) use validate::check_produced_within;
pub use validate::{ProducedBatch, check_produced};

/// Why bytes are no valid batch.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    #[error("the batch needs {needed} bytes, and {available} are there")]
    Truncated { needed: usize, available: usize },
    #[error("batch length {0} is not possible")]
    InvalidLength(i32),
    #[error("magic {0} is not 2")]
    UnsupportedMagic(i8),
    #[error("CRC-32C is {computed:08x}, the header says {stored:08x}")]
    CrcMismatch { stored: u32, computed: u32 },
    #[error("record {index}: {what}")]
    InvalidRecord { index: i32, what: &'static str },
    #[error("bytes are left after the last of {count} records")]
    TrailingBytes { count: i32 },
    #[error(transparent)]
    Compression(#[from] CompressionError),
}
