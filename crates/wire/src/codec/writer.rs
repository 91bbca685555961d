//! Writes Kafka's primitives, and notes where record bytes must be spliced in.
//!
//! Record bytes are not copied: long ones stay a `Bytes`, external ones stay a token and a length
//! until whoever sends the frame puts them in.

use bytes::{BufMut, Bytes, BytesMut};

use super::{EncodeError, Nested, Records, Uuid};
use crate::limits;

/// Most responses fit; larger ones grow.
const FRAME_CAPACITY: usize = 256;

/// A piece of an encoded frame, to be sent in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chunk {
    Bytes(Bytes),
    /// `len` bytes that the sender knows by `token`.
    External {
        token: u32,
        len: u32,
    },
}

impl Chunk {
    pub fn len(&self) -> usize {
        match self {
            Chunk::Bytes(bytes) => bytes.len(),
            Chunk::External { len, .. } => *len as usize,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What a [`Writer`] wrote. No chunk is empty; `total_len` is the sum of their lengths in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    pub chunks: Vec<Chunk>,
    pub total_len: usize,
}

impl Encoded {
    /// All bytes in one piece; `None` if some of them are external.
    pub fn to_bytes(&self) -> Option<Bytes> {
        if let [Chunk::Bytes(bytes)] = &self.chunks[..] {
            return Some(bytes.clone());
        }
        let mut all = BytesMut::with_capacity(self.total_len);
        for chunk in &self.chunks {
            match chunk {
                Chunk::Bytes(bytes) => all.extend_from_slice(bytes),
                Chunk::External { .. } => return None,
            }
        }
        Some(all.freeze())
    }
}

#[derive(Debug, Default)]
pub struct Writer {
    /// What was written since the last splice.
    buf: BytesMut,
    done: Vec<Piece>,
    done_len: usize,
}

#[derive(Debug)]
enum Piece {
    Written(BytesMut),
    Spliced(Chunk),
}

type Result<T = ()> = std::result::Result<T, EncodeError>;

impl Writer {
    pub fn new() -> Writer {
        Writer::default()
    }

    pub fn with_capacity(bytes: usize) -> Writer {
        Writer {
            buf: BytesMut::with_capacity(bytes),
            ..Writer::default()
        }
    }

    /// Bytes written so far, spliced ones included.
    pub fn len(&self) -> usize {
        self.done_len + self.buf.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// With room for the length of the frame in front; see [`Writer::finish_frame`].
    pub fn frame() -> Writer {
        let mut w = Writer::with_capacity(FRAME_CAPACITY);
        w.i32(0);
        w
    }

    pub fn finish(mut self) -> Encoded {
        self.close_piece();
        let chunk = |piece| match piece {
            Piece::Written(bytes) => Chunk::Bytes(bytes.freeze()),
            Piece::Spliced(chunk) => chunk,
        };
        Encoded {
            chunks: self.done.into_iter().map(chunk).collect(),
            total_len: self.done_len,
        }
    }

    /// Fills in the length that [`Writer::frame`] left room for: of all that follows it.
    pub fn finish_frame(mut self) -> Result<Encoded> {
        let len = self.len() - size_of::<i32>();
        let prefix = i32::try_from(len).map_err(|_| EncodeError::TooLong(len))?;
        self.close_piece();
        match self.done.first_mut() {
            Some(Piece::Written(bytes)) => {
                bytes[..size_of::<i32>()].copy_from_slice(&prefix.to_be_bytes());
            }
            _ => unreachable!("a frame starts with bytes that were written"),
        }
        Ok(self.finish())
    }

    /// Everything in one piece; `None` if some bytes are external.
    pub fn into_bytes(self) -> Option<Bytes> {
        if self.done.is_empty() {
            return Some(self.buf.freeze());
        }
        self.finish().to_bytes()
    }

    pub fn bool(&mut self, value: bool) {
        self.buf.put_u8(u8::from(value));
    }

    pub fn i8(&mut self, value: i8) {
        self.buf.put_i8(value);
    }

    pub fn i16(&mut self, value: i16) {
        self.buf.put_i16(value);
    }

    pub fn u16(&mut self, value: u16) {
        self.buf.put_u16(value);
    }

    pub fn i32(&mut self, value: i32) {
        self.buf.put_i32(value);
    }

    pub fn u32(&mut self, value: u32) {
        self.buf.put_u32(value);
    }

    pub fn i64(&mut self, value: i64) {
        self.buf.put_i64(value);
    }

    pub fn f64(&mut self, value: f64) {
        self.buf.put_f64(value);
    }

    pub fn uuid(&mut self, value: Uuid) {
        self.buf.put_slice(&value.0);
    }

    pub fn raw(&mut self, bytes: &[u8]) {
        self.buf.put_slice(bytes);
    }

    pub fn unsigned_varint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.buf.put_u8(value as u8 | 0x80);
            value >>= 7;
        }
        self.buf.put_u8(value as u8);
    }

    pub fn string(&mut self, value: &str, flex: bool) -> Result {
        if value.len() > limits::STRING_BYTES_MAX {
            return Err(EncodeError::TooLong(value.len()));
        }
        if flex {
            self.compact_len(value.len())?;
        } else {
            self.i16(value.len() as i16);
        }
        self.raw(value.as_bytes());
        Ok(())
    }

    pub fn nullable_string(&mut self, value: Option<&str>, flex: bool) -> Result {
        match value {
            Some(value) => self.string(value, flex),
            None if flex => self.null_compact(),
            None => {
                self.i16(-1);
                Ok(())
            }
        }
    }

    pub fn bytes(&mut self, value: &Bytes, flex: bool) -> Result {
        self.len_prefix(value.len(), flex)?;
        self.raw(value);
        Ok(())
    }

    pub fn nullable_bytes(&mut self, value: Option<&Bytes>, flex: bool) -> Result {
        match value {
            Some(value) => self.bytes(value, flex),
            None => self.null(flex),
        }
    }

    pub fn records(&mut self, value: &Records, flex: bool) -> Result {
        self.len_prefix(value.len(), flex)?;
        match value {
            Records::Bytes(bytes) if bytes.len() < limits::SPLICE_BYTES_MIN => self.raw(bytes),
            Records::Bytes(bytes) => self.splice(Chunk::Bytes(bytes.clone())),
            Records::External { token, len } => {
                self.splice(Chunk::External {
                    token: *token,
                    len: *len,
                });
            }
        }
        Ok(())
    }

    pub fn nullable_records(&mut self, value: Option<&Records>, flex: bool) -> Result {
        match value {
            Some(value) => self.records(value, flex),
            None => self.null(flex),
        }
    }

    pub(crate) fn array<T>(
        &mut self,
        values: &[T],
        flex: bool,
        mut element: impl FnMut(&mut Writer, &T),
    ) -> Result {
        self.len_prefix(values.len(), flex)?;
        for value in values {
            element(self, value);
        }
        Ok(())
    }

    pub(crate) fn nullable_array<T>(
        &mut self,
        values: Option<&[T]>,
        flex: bool,
        element: impl FnMut(&mut Writer, &T),
    ) -> Result {
        match values {
            Some(values) => self.array(values, flex, element),
            None => self.null(flex),
        }
    }

    pub(crate) fn strings(&mut self, values: &[String], flex: bool) -> Result {
        self.len_prefix(values.len(), flex)?;
        values.iter().try_for_each(|value| self.string(value, flex))
    }

    pub(crate) fn nullable_strings(&mut self, values: Option<&[String]>, flex: bool) -> Result {
        match values {
            Some(values) => self.strings(values, flex),
            None => self.null(flex),
        }
    }

    pub(crate) fn structs<T: Nested>(&mut self, values: &[T], flex: bool, version: i16) -> Result {
        self.len_prefix(values.len(), flex)?;
        values
            .iter()
            .try_for_each(|value| value.encode(self, version))
    }

    pub(crate) fn nullable_structs<T: Nested>(
        &mut self,
        values: Option<&[T]>,
        flex: bool,
        version: i16,
    ) -> Result {
        match values {
            Some(values) => self.structs(values, flex, version),
            None => self.null(flex),
        }
    }

    /// One byte before the struct: -1 for null, 1 for a value.
    pub(crate) fn nullable_struct<T: Nested>(&mut self, value: Option<&T>, version: i16) -> Result {
        self.i8(if value.is_some() { 1 } else { -1 });
        value.map_or(Ok(()), |value| value.encode(self, version))
    }

    /// In a tagged field the marker is a varint, and null is 0.
    pub(crate) fn nullable_tagged_struct<T: Nested>(
        &mut self,
        value: Option<&T>,
        version: i16,
    ) -> Result {
        self.unsigned_varint(u32::from(value.is_some()));
        value.map_or(Ok(()), |value| value.encode(self, version))
    }

    pub(crate) fn check_version(&self, version: i16, min: i16, max: i16) -> Result {
        if (min..=max).contains(&version) {
            return Ok(());
        }
        Err(EncodeError::UnsupportedVersion(version))
    }

    /// A length or count as a plain varint, as tag sections have it.
    pub(crate) fn length_varint(&mut self, len: usize) -> Result {
        if len > i32::MAX as usize {
            return Err(EncodeError::TooLong(len));
        }
        self.unsigned_varint(len as u32);
        Ok(())
    }

    fn len_prefix(&mut self, len: usize, flex: bool) -> Result {
        if flex {
            return self.compact_len(len);
        }
        self.i32(i32::try_from(len).map_err(|_| EncodeError::TooLong(len))?);
        Ok(())
    }

    fn compact_len(&mut self, len: usize) -> Result {
        if len >= i32::MAX as usize {
            return Err(EncodeError::TooLong(len));
        }
        self.unsigned_varint(len as u32 + 1);
        Ok(())
    }

    fn null(&mut self, flex: bool) -> Result {
        if flex {
            return self.null_compact();
        }
        self.i32(-1);
        Ok(())
    }

    fn null_compact(&mut self) -> Result {
        self.unsigned_varint(0);
        Ok(())
    }

    fn splice(&mut self, chunk: Chunk) {
        if chunk.is_empty() {
            return;
        }
        self.close_piece();
        self.done_len += chunk.len();
        self.done.push(Piece::Spliced(chunk));
    }

    fn close_piece(&mut self) {
        if !self.buf.is_empty() {
            self.done_len += self.buf.len();
            self.done.push(Piece::Written(self.buf.split()));
        }
    }
}
