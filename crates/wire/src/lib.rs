//! Bytes <-> types: Kafka's protocol as values.
//!
//! - `messages`: every request, response and record schema, generated from Kafka's own.
//! - `RequestBody`, `ResponseBody`: all of them as one type each.
//! - `apis`: the one table of what is served.
//! - `frame`: whole requests and responses, on both sides.
//! - `records`: record batches, read, checked, patched and built.
//! - `compression`: the five codecs.
//! - `codec`: the primitives, bounded against whatever comes from the wire.
//!
//! Deliberately not here: sockets, and what any request means. This crate depends on nothing of
//! ours and is pure: no clock, no randomness, no files, no threads.

pub mod apis;
#[cfg(test)]
mod arbitrary;
mod body;
pub mod clock;
pub mod codec;
pub mod compression;
mod error_code;
pub mod frame;
pub mod limits;
pub mod messages;
pub mod records;

pub use body::{RequestBody, ResponseBody};
pub use codec::{
    Chunk, DecodeError, DecodeErrorKind, EncodeError, Encoded, RawTaggedField, Reader, Records,
    Uuid, Writer,
};
pub use error_code::ErrorCode;
pub use messages::ApiKey;

#[cfg(test)]
mod tests;
