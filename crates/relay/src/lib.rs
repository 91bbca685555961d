//! The outbox relay: committed rows of a database to topics, at most once, at least once or exactly
//! once.
//!
//! - The pure loop: [`relay`] (which operation comes next), [`router`] (from a row to a record),
//!   [`dead_letter`], [`position`] (what the progress topic holds). No clock, no threads, no sockets.
//! - Its two narrow ports: [`source`] ("an outbox in a database") and [`topics`] ("a transaction on
//!   topics").
//! - For real, with the feature `real`: `host` runs the loop, `kafka` is the port to topics, `sources`
//!   has one file or folder per kind of database.
//!
//! Nothing here knows of our broker: it speaks to any Kafka cluster.

pub mod config;
pub mod dead_letter;
pub mod event;
#[cfg(feature = "real")]
pub mod host;
#[cfg(feature = "real")]
pub mod kafka;
#[cfg(feature = "real")]
pub mod launch;
pub mod position;
pub mod relay;
pub mod resume;
pub mod router;
pub mod row;
pub mod source;
#[cfg(feature = "real")]
pub mod sources;
pub mod topics;
