//! How Kafka's primitives are laid out: `Reader`, `Writer`, and the few types they trade in.
//!
//! Deliberately not here: which fields a message has. That is `messages`, generated from Kafka's
//! schemas; the two meet in the small vocabulary of `prelude`.

mod error;
mod reader;
mod tagged;
mod uuid;
mod writer;

pub use error::{DecodeError, DecodeErrorKind, EncodeError};
pub use reader::Reader;
pub use tagged::RawTaggedField;
pub use uuid::{ParseUuidError, Uuid};
pub use writer::{Chunk, Encoded, Writer};

use bytes::Bytes;

/// The value of a `records` field: batches as they lie on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Records {
    /// The bytes themselves; when decoded, a slice of the frame.
    Bytes(Bytes),
    /// `len` bytes that the sender of the frame will put in, known to it by `token`.
    ///
    /// Only for encoding. This is how a Fetch answer carries slices of files.
    External { token: u32, len: u32 },
}

impl Records {
    pub fn len(&self) -> usize {
        match self {
            Records::Bytes(bytes) => bytes.len(),
            Records::External { len, .. } => *len as usize,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Default for Records {
    fn default() -> Records {
        Records::Bytes(Bytes::new())
    }
}

impl From<Bytes> for Records {
    fn from(bytes: Bytes) -> Records {
        Records::Bytes(bytes)
    }
}

/// A struct inside a message. The version is the message's.
pub(crate) trait Nested: Sized {
    /// The fewest bytes that one value takes on the wire; bounds an array's count.
    fn min_size(version: i16) -> usize;
    fn decode(r: &mut Reader, version: i16) -> Result<Self, DecodeError>;
    fn encode(&self, w: &mut Writer, version: i16) -> Result<(), EncodeError>;
}

/// A field that the version has no place for, and that may not be dropped.
pub(crate) fn absent(
    is_default: bool,
    field: &'static str,
    version: i16,
) -> Result<(), EncodeError> {
    if is_default {
        Ok(())
    } else {
        Err(EncodeError::FieldNotInVersion { field, version })
    }
}

/// The value of a field that may be null, in a version in which it may not.
pub(crate) fn required<'a, T>(
    value: &'a Option<T>,
    field: &'static str,
    version: i16,
) -> Result<&'a T, EncodeError> {
    value
        .as_ref()
        .ok_or(EncodeError::NullNotAllowed { field, version })
}

/// What generated code uses.
pub(crate) mod prelude {
    pub(crate) use super::tagged::push_tag;
    pub(crate) use super::{
        DecodeError, EncodeError, Nested, RawTaggedField, Reader, Records, Uuid, Writer, absent,
        required,
    };
    #[cfg(test)]
    pub(crate) use crate::arbitrary::{Arbitrary, Gen};
    pub(crate) use bytes::Bytes;
}
