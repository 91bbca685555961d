//! Reads Kafka's primitives from one frame, without trusting a byte of it.
//!
//! Invariants, whatever the input:
//! - no read past the end, no panic;
//! - no allocation larger than what the remaining bytes can hold, and all allocations together
//!   within the budget (`limits::decode_budget`);
//! - nesting is the schemas', which are not recursive, so the stack is bounded too.

use bytes::Bytes;

use super::{DecodeError, DecodeErrorKind, Nested, RawTaggedField, Records, Uuid};
use crate::limits;

/// A cursor over a frame. `bytes` and `records` values are slices of it: cheap, and they keep the
/// frame in memory for as long as they live.
#[derive(Debug)]
pub struct Reader {
    buf: Bytes,
    pos: usize,
    /// Reading stops here; a tagged field narrows it to its own size.
    end: usize,
    /// Bytes of memory that decoding may still allocate.
    budget: usize,
}

type Result<T> = std::result::Result<T, DecodeError>;

impl Reader {
    pub fn new(buf: Bytes) -> Reader {
        let budget = limits::decode_budget(buf.len());
        Reader::with_budget(buf, budget)
    }

    /// With a budget in bytes other than the usual one.
    pub fn with_budget(buf: Bytes, budget: usize) -> Reader {
        let end = buf.len();
        Reader {
            buf,
            pos: 0,
            end,
            budget,
        }
    }

    pub fn remaining(&self) -> usize {
        self.end - self.pos
    }

    pub fn position(&self) -> usize {
        self.pos
    }

    pub fn bool(&mut self) -> Result<bool> {
        Ok(self.i8()? != 0)
    }

    pub fn i8(&mut self) -> Result<i8> {
        Ok(i8::from_be_bytes(self.fixed()?))
    }

    pub fn i16(&mut self) -> Result<i16> {
        Ok(i16::from_be_bytes(self.fixed()?))
    }

    pub fn u16(&mut self) -> Result<u16> {
        Ok(u16::from_be_bytes(self.fixed()?))
    }

    pub fn i32(&mut self) -> Result<i32> {
        Ok(i32::from_be_bytes(self.fixed()?))
    }

    pub fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_be_bytes(self.fixed()?))
    }

    pub fn i64(&mut self) -> Result<i64> {
        Ok(i64::from_be_bytes(self.fixed()?))
    }

    pub fn f64(&mut self) -> Result<f64> {
        Ok(f64::from_be_bytes(self.fixed()?))
    }

    pub fn uuid(&mut self) -> Result<Uuid> {
        Ok(Uuid(self.fixed()?))
    }

    /// At most 5 bytes; bits beyond the 32nd are an error.
    pub fn unsigned_varint(&mut self) -> Result<u32> {
        let mut value = 0u32;
        for shift in (0..35).step_by(7) {
            let byte = self.fixed::<1>()?[0];
            if shift == 28 && byte > 0x0f {
                return Err(self.error(DecodeErrorKind::VarintTooLong));
            }
            value |= u32::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(self.error(DecodeErrorKind::VarintTooLong))
    }

    /// `flex`: compact (varint) length, as flexible versions have it.
    pub fn string(&mut self, flex: bool) -> Result<String> {
        self.nullable_string(flex)?
            .ok_or_else(|| self.error(DecodeErrorKind::NullNotAllowed))
    }

    pub fn nullable_string(&mut self, flex: bool) -> Result<Option<String>> {
        let len = if flex {
            self.compact_len()?
        } else {
            i64::from(self.i16()?)
        };
        let Some(len) = self.length(len)? else {
            return Ok(None);
        };
        if len > limits::STRING_BYTES_MAX {
            return Err(self.error(DecodeErrorKind::InvalidLength(len as i64)));
        }
        self.charge(len)?;
        let bytes = &self.buf[self.pos..self.pos + len];
        match std::str::from_utf8(bytes) {
            Ok(text) => {
                let text = text.to_owned();
                self.pos += len;
                Ok(Some(text))
            }
            Err(_) => Err(self.error(DecodeErrorKind::InvalidUtf8)),
        }
    }

    pub fn bytes(&mut self, flex: bool) -> Result<Bytes> {
        self.nullable_bytes(flex)?
            .ok_or_else(|| self.error(DecodeErrorKind::NullNotAllowed))
    }

    pub fn nullable_bytes(&mut self, flex: bool) -> Result<Option<Bytes>> {
        let len = if flex {
            self.compact_len()?
        } else {
            i64::from(self.i32()?)
        };
        Ok(self.length(len)?.map(|len| self.slice(len)))
    }

    pub fn records(&mut self, flex: bool) -> Result<Records> {
        Ok(Records::Bytes(self.bytes(flex)?))
    }

    pub fn nullable_records(&mut self, flex: bool) -> Result<Option<Records>> {
        Ok(self.nullable_bytes(flex)?.map(Records::Bytes))
    }

    /// Everything that is left, without copying.
    pub fn rest(&mut self) -> Bytes {
        self.slice(self.remaining())
    }

    pub(crate) fn array<T>(
        &mut self,
        flex: bool,
        min_size: usize,
        element: impl FnMut(&mut Reader) -> Result<T>,
    ) -> Result<Vec<T>> {
        self.nullable_array(flex, min_size, element)?
            .ok_or_else(|| self.error(DecodeErrorKind::NullNotAllowed))
    }

    /// `min_size`: the fewest bytes that one element takes, what bounds the count.
    pub(crate) fn nullable_array<T>(
        &mut self,
        flex: bool,
        min_size: usize,
        mut element: impl FnMut(&mut Reader) -> Result<T>,
    ) -> Result<Option<Vec<T>>> {
        let Some(count) = self.count(flex, min_size)? else {
            return Ok(None);
        };
        self.charge(count.saturating_mul(size_of::<T>()))?;
        let mut values = Vec::with_capacity(count);
        for _ in 0..count {
            values.push(element(self)?);
        }
        Ok(Some(values))
    }

    pub(crate) fn strings(&mut self, flex: bool) -> Result<Vec<String>> {
        self.array(flex, if flex { 1 } else { 2 }, |r| r.string(flex))
    }

    pub(crate) fn nullable_strings(&mut self, flex: bool) -> Result<Option<Vec<String>>> {
        self.nullable_array(flex, if flex { 1 } else { 2 }, |r| r.string(flex))
    }

    pub(crate) fn structs<T: Nested>(&mut self, flex: bool, version: i16) -> Result<Vec<T>> {
        self.array(flex, T::min_size(version), |r| T::decode(r, version))
    }

    pub(crate) fn nullable_structs<T: Nested>(
        &mut self,
        flex: bool,
        version: i16,
    ) -> Result<Option<Vec<T>>> {
        self.nullable_array(flex, T::min_size(version), |r| T::decode(r, version))
    }

    /// One byte before the struct: negative for null.
    pub(crate) fn nullable_struct<T: Nested>(&mut self, version: i16) -> Result<Option<T>> {
        if self.i8()? < 0 {
            Ok(None)
        } else {
            T::decode(self, version).map(Some)
        }
    }

    /// In a tagged field the marker is a varint, and null is 0.
    pub(crate) fn nullable_tagged_struct<T: Nested>(&mut self, version: i16) -> Result<Option<T>> {
        if self.unsigned_varint()? == 0 {
            Ok(None)
        } else {
            T::decode(self, version).map(Some)
        }
    }

    /// A tag section. `known` reads the value of a tag that the schema has in this version, or
    /// answers false without having read anything.
    pub(crate) fn tagged_fields(
        &mut self,
        mut known: impl FnMut(u32, &mut Reader) -> Result<bool>,
    ) -> Result<Vec<RawTaggedField>> {
        let count = self.unsigned_varint()? as usize;
        self.check_count(count, 2)?;
        let mut unknown = Vec::new();
        for done in 0..count {
            let tag = self.unsigned_varint()?;
            let size = self.unsigned_varint()?;
            let size = self
                .length(i64::from(size))?
                .expect("only negative lengths are null");
            let end = self.pos + size;
            let outer = std::mem::replace(&mut self.end, end);
            let found = known(tag, self)?;
            self.end = outer;
            if !found {
                if unknown.is_empty() {
                    // All at once: growing by doubling would hold three times as much.
                    let most = count - done;
                    self.charge(most.saturating_mul(size_of::<RawTaggedField>()))?;
                    unknown.reserve_exact(most);
                }
                unknown.push(RawTaggedField {
                    tag,
                    data: self.slice(size),
                });
            }
            if self.pos != end {
                return Err(self.error(DecodeErrorKind::TaggedFieldSize));
            }
        }
        Ok(unknown)
    }

    pub(crate) fn unknown_tagged_fields(&mut self) -> Result<Vec<RawTaggedField>> {
        self.tagged_fields(|_, _| Ok(false))
    }

    pub(crate) fn check_version(&self, version: i16, min: i16, max: i16) -> Result<()> {
        if (min..=max).contains(&version) {
            return Ok(());
        }
        Err(self.error(DecodeErrorKind::UnsupportedVersion(version)))
    }

    pub(crate) fn error(&self, kind: DecodeErrorKind) -> DecodeError {
        DecodeError {
            kind,
            offset: self.pos,
        }
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N]> {
        let available = self.remaining();
        if available < N {
            return Err(self.error(DecodeErrorKind::UnexpectedEnd {
                missing: N - available,
            }));
        }
        let value = self.buf[self.pos..self.pos + N]
            .try_into()
            .expect("the slice has length N");
        self.pos += N;
        Ok(value)
    }

    /// A compact length: one more than the length, 0 for null.
    fn compact_len(&mut self) -> Result<i64> {
        Ok(i64::from(self.unsigned_varint()?) - 1)
    }

    /// -1 is null; anything else must lie within what remains.
    fn length(&mut self, len: i64) -> Result<Option<usize>> {
        if len == -1 {
            return Ok(None);
        }
        let len =
            usize::try_from(len).map_err(|_| self.error(DecodeErrorKind::InvalidLength(len)))?;
        if len > self.remaining() {
            let missing = len - self.remaining();
            return Err(self.error(DecodeErrorKind::UnexpectedEnd { missing }));
        }
        Ok(Some(len))
    }

    fn count(&mut self, flex: bool, min_size: usize) -> Result<Option<usize>> {
        let count = if flex {
            self.compact_len()?
        } else {
            i64::from(self.i32()?)
        };
        if count == -1 {
            return Ok(None);
        }
        let count = usize::try_from(count)
            .map_err(|_| self.error(DecodeErrorKind::InvalidLength(count)))?;
        self.check_count(count, min_size)?;
        Ok(Some(count))
    }

    fn check_count(&self, count: usize, min_size: usize) -> Result<()> {
        if count > self.remaining() / min_size.max(1) {
            let remaining = self.remaining();
            return Err(self.error(DecodeErrorKind::CountTooLarge { count, remaining }));
        }
        Ok(())
    }

    fn charge(&mut self, bytes: usize) -> Result<()> {
        match self.budget.checked_sub(bytes) {
            Some(left) => {
                self.budget = left;
                Ok(())
            }
            None => Err(self.error(DecodeErrorKind::BudgetExceeded)),
        }
    }

    /// The caller has checked that `len` bytes remain.
    fn slice(&mut self, len: usize) -> Bytes {
        let slice = self.buf.slice(self.pos..self.pos + len);
        self.pos += len;
        slice
    }
}
