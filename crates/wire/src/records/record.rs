//! What is inside a batch: one parser for records, over bytes at hand or over a stream.
//!
//! A record: varint length of the rest, i8 attributes (unused), varlong timestamp delta, varint
//! offset delta, key, value (varint length, -1 for null, and bytes), varint count of headers, each
//! a key and a nullable value. All varints are zigzag.

use std::io::Read;
use std::ops::Range;

use bytes::Bytes;

use super::{BatchError, BatchHeader, TimestampType};
use crate::limits;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub offset: i64,
    /// Milliseconds; the batch's own for LogAppendTime.
    pub timestamp: i64,
    pub key: Option<Bytes>,
    pub value: Option<Bytes>,
    /// In order, keys may repeat.
    pub headers: Vec<Header>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// UTF-8 if the producer kept to the protocol; nobody checks.
    pub key: Bytes,
    pub value: Option<Bytes>,
}

/// The records of one batch; after an error there are no more.
#[derive(Clone, Debug)]
pub struct Records {
    batch: BatchHeader,
    source: SliceSource,
    index: i32,
}

impl Records {
    /// `body`: what follows the header, decompressed.
    pub fn new(batch: BatchHeader, body: Bytes) -> Records {
        Records {
            batch,
            source: SliceSource {
                bytes: body,
                pos: 0,
            },
            index: 0,
        }
    }

    fn read(&mut self) -> Result<Record, What> {
        let bytes = self.source.bytes.clone();
        let slice = |range: Range<usize>| bytes.slice(range);
        let mut headers = Vec::new();
        let layout = scan(&mut self.source, |key, value| {
            headers.push(Header {
                key: slice(key),
                value: value.map(slice),
            });
        })?;
        let timestamp = match self.batch.timestamp_type() {
            TimestampType::CreateTime => self
                .batch
                .base_timestamp
                .wrapping_add(layout.timestamp_delta),
            TimestampType::LogAppendTime => self.batch.max_timestamp,
        };
        Ok(Record {
            offset: self
                .batch
                .base_offset
                .wrapping_add(i64::from(layout.offset_delta)),
            timestamp,
            key: layout.key.map(slice),
            value: layout.value.map(slice),
            headers,
        })
    }
}

impl Iterator for Records {
    type Item = Result<Record, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.index == self.batch.records_count {
            return None;
        }
        let index = self.index;
        match self.read() {
            Ok(record) => {
                self.index += 1;
                Some(Ok(record))
            }
            Err(what) => {
                self.index = self.batch.records_count;
                Some(Err(BatchError::InvalidRecord { index, what }))
            }
        }
    }
}

/// What is wrong with a record, in words.
pub(super) type What = &'static str;

const ENDS_EARLY: What = "the record ends early";

/// Where a record's parts lie, as positions in its source.
pub(super) struct Layout {
    pub timestamp_delta: i64,
    pub offset_delta: i32,
    pub key: Option<Range<usize>>,
    pub value: Option<Range<usize>>,
}

/// Decompressed bytes, read forwards. Positions count from the first one.
pub(super) trait Source {
    fn byte(&mut self) -> Result<u8, What>;
    fn skip(&mut self, len: usize) -> Result<(), What>;
    fn position(&self) -> usize;
}

/// Reads one record; `header` is called with the positions of each header's key and value.
///
/// Checks that every length lies within the record, and that the record is as long as it says.
pub(super) fn scan(
    source: &mut impl Source,
    mut header: impl FnMut(Range<usize>, Option<Range<usize>>),
) -> Result<Layout, What> {
    let len = varint(source)?;
    let len = usize::try_from(len).map_err(|_| "negative record length")?;
    let end = source.position().checked_add(len).ok_or(ENDS_EARLY)?;
    source.byte()?; // attributes: unused
    let timestamp_delta = varlong(source)?;
    let offset_delta = varint(source)?;
    let key = nullable(source, end)?;
    let value = nullable(source, end)?;
    let count = varint(source)?;
    if count < 0 {
        return Err("negative count of headers");
    }
    for _ in 0..count {
        let key = nullable(source, end)?.ok_or("header without a key")?;
        header(key, nullable(source, end)?);
    }
    if source.position() != end {
        return Err("the record's length is not that of its parts");
    }
    Ok(Layout {
        timestamp_delta,
        offset_delta,
        key,
        value,
    })
}

/// A length and as many bytes, which must end before `end`; -1 is null.
fn nullable(source: &mut impl Source, end: usize) -> Result<Option<Range<usize>>, What> {
    let len = varint(source)?;
    if len == -1 {
        return Ok(None);
    }
    let len = usize::try_from(len).map_err(|_| "negative length")?;
    let start = source.position();
    if len > end.saturating_sub(start) {
        return Err("a part is longer than its record");
    }
    source.skip(len)?;
    Ok(Some(start..start + len))
}

fn varint(source: &mut impl Source) -> Result<i32, What> {
    let raw = raw_varint(source, 5)?;
    let raw = u32::try_from(raw).map_err(|_| "varint longer than 32 bits")?;
    Ok((raw >> 1) as i32 ^ -((raw & 1) as i32))
}

fn varlong(source: &mut impl Source) -> Result<i64, What> {
    let raw = raw_varint(source, 10)?;
    Ok((raw >> 1) as i64 ^ -((raw & 1) as i64))
}

fn raw_varint(source: &mut impl Source, bytes_max: u32) -> Result<u64, What> {
    let mut value = 0u64;
    for i in 0..bytes_max {
        let byte = source.byte()?;
        if i == 9 && byte > 1 {
            break;
        }
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err("varint that does not end")
}

#[derive(Clone, Debug)]
pub(super) struct SliceSource {
    pub bytes: Bytes,
    pub pos: usize,
}

impl Source for SliceSource {
    fn byte(&mut self) -> Result<u8, What> {
        let byte = *self.bytes.get(self.pos).ok_or(ENDS_EARLY)?;
        self.pos += 1;
        Ok(byte)
    }

    fn skip(&mut self, len: usize) -> Result<(), What> {
        if len > self.bytes.len() - self.pos {
            return Err(ENDS_EARLY);
        }
        self.pos += len;
        Ok(())
    }

    fn position(&self) -> usize {
        self.pos
    }
}

/// Over a decompressing stream, in a fixed buffer.
pub(super) struct StreamSource<'a> {
    stream: Box<dyn Read + 'a>,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Position of `buffer[start]`.
    position: usize,
    position_max: usize,
}

pub(super) const TOO_LARGE: What = "the batch is too large when decompressed";
const CORRUPT: What = "the compressed data is corrupt";

impl<'a> StreamSource<'a> {
    /// More than `position_max` bytes are an error.
    pub fn new(stream: Box<dyn Read + 'a>, position_max: usize) -> StreamSource<'a> {
        let buffer = vec![0; limits::DECOMPRESS_BUFFER_BYTES];
        StreamSource {
            stream,
            buffer,
            start: 0,
            end: 0,
            position: 0,
            position_max,
        }
    }

    pub fn at_end(&mut self) -> Result<bool, What> {
        Ok(self.available()? == 0)
    }

    /// Bytes in the buffer, filled if it was empty; 0 at the end of the stream.
    fn available(&mut self) -> Result<usize, What> {
        if self.start == self.end {
            self.start = 0;
            self.end = self.stream.read(&mut self.buffer).map_err(|_| CORRUPT)?;
        }
        Ok(self.end - self.start)
    }

    fn advance(&mut self, len: usize) -> Result<(), What> {
        self.start += len;
        self.position += len;
        if self.position > self.position_max {
            Err(TOO_LARGE)
        } else {
            Ok(())
        }
    }
}

impl Source for StreamSource<'_> {
    fn byte(&mut self) -> Result<u8, What> {
        if self.available()? == 0 {
            return Err(ENDS_EARLY);
        }
        let byte = self.buffer[self.start];
        self.advance(1)?;
        Ok(byte)
    }

    fn skip(&mut self, mut len: usize) -> Result<(), What> {
        while len > 0 {
            let step = self.available()?.min(len);
            if step == 0 {
                return Err(ENDS_EARLY);
            }
            self.advance(step)?;
            len -= step;
        }
        Ok(())
    }

    fn position(&self) -> usize {
        self.position
    }
}
