//! A buffer of batches, one after the other: what a Fetch answer or a piece of a segment holds.

use bytes::Bytes;

use super::header::check_crc;
use super::{BatchError, BatchHeader, HEADER_LEN, RecordIter};

/// One whole batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    pub header: BatchHeader,
    /// Header and body, a slice of the buffer.
    pub bytes: Bytes,
}

impl Batch {
    /// The batch at the front of `bytes`; what follows it is left alone.
    pub fn parse(bytes: &Bytes) -> Result<Batch, BatchError> {
        let header = BatchHeader::parse(bytes)?;
        let needed = header.size_in_bytes();
        if needed > bytes.len() {
            return Err(BatchError::Truncated {
                needed,
                available: bytes.len(),
            });
        }
        Ok(Batch {
            header,
            bytes: bytes.slice(..needed),
        })
    }

    pub fn check_crc(&self) -> Result<(), BatchError> {
        check_crc(&self.bytes)
    }

    /// The records as they lie in the batch, possibly compressed.
    pub fn body(&self) -> Bytes {
        self.bytes.slice(HEADER_LEN..)
    }

    /// The records; the CRC is not checked. An error if the body is corrupt or holds more than
    /// `decompressed_max` bytes.
    pub fn records(&self, decompressed_max: usize) -> Result<RecordIter, BatchError> {
        let body = self
            .header
            .compression()?
            .decompress(&self.body(), decompressed_max)?;
        Ok(RecordIter::new(self.header, body))
    }
}

/// The batches of a buffer in order; after an error there are no more.
#[derive(Clone, Debug)]
pub struct Batches {
    rest: Bytes,
    position: usize,
    partial_end: bool,
}

impl Batches {
    /// Every byte must belong to a whole batch.
    pub fn new(bytes: Bytes) -> Batches {
        Batches {
            rest: bytes,
            position: 0,
            partial_end: false,
        }
    }

    /// The last batch may be cut off, and is then left out: Fetch answers end where a byte limit
    /// says.
    pub fn with_partial_end(bytes: Bytes) -> Batches {
        Batches {
            rest: bytes,
            position: 0,
            partial_end: true,
        }
    }

    /// Bytes of the whole batches seen so far.
    pub fn position(&self) -> usize {
        self.position
    }
}

impl Iterator for Batches {
    type Item = Result<Batch, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        match Batch::parse(&self.rest) {
            Ok(batch) => {
                self.rest = self.rest.slice(batch.bytes.len()..);
                self.position += batch.bytes.len();
                Some(Ok(batch))
            }
            Err(error) => {
                self.rest = Bytes::new();
                let cut_off = matches!(error, BatchError::Truncated { .. });
                if self.partial_end && cut_off {
                    None
                } else {
                    Some(Err(error))
                }
            }
        }
    }
}
