//! Tagged fields (KIP-482): the open end of a flexible struct.
//!
//! Fields with a tag that the schema does not have are kept as they came, so that what is read
//! and written again loses nothing.

use bytes::Bytes;

use super::{EncodeError, Writer};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawTaggedField {
    pub tag: u32,
    pub data: Bytes,
}

/// Encodes one known field and adds it to the section that is being put together; a field that
/// holds its default is left out.
pub(crate) fn push_tag(
    tags: &mut Vec<RawTaggedField>,
    tag: u32,
    is_default: bool,
    encode: impl FnOnce(&mut Writer) -> Result<(), EncodeError>,
) -> Result<(), EncodeError> {
    if is_default {
        return Ok(());
    }
    let mut w = Writer::new();
    encode(&mut w)?;
    tags.push(RawTaggedField {
        tag,
        data: w.into_bytes().ok_or(EncodeError::ExternalInTaggedField)?,
    });
    Ok(())
}

impl Writer {
    /// The section, in order of tag as the format demands.
    pub(crate) fn tagged_fields(&mut self, tags: &mut [RawTaggedField]) -> Result<(), EncodeError> {
        tags.sort_by_key(|field| field.tag);
        self.unknown_tagged_fields(tags)
    }

    /// A section with nothing but fields that the schema does not know, already in order.
    pub(crate) fn unknown_tagged_fields(
        &mut self,
        tags: &[RawTaggedField],
    ) -> Result<(), EncodeError> {
        if let Some(pair) = tags.windows(2).find(|pair| pair[0].tag >= pair[1].tag) {
            return Err(EncodeError::DuplicateTag(pair[1].tag));
        }
        self.length_varint(tags.len())?;
        for field in tags {
            self.unsigned_varint(field.tag);
            self.length_varint(field.data.len())?;
            self.raw(&field.data);
        }
        Ok(())
    }
}
