//! The sink: records of topics into a table of a database, at most once, at least once or with the
//! effect of exactly once.
//!
//! - The pure loop: [`sink`] (which operation comes next), [`mapping`] (from a record to a row),
//!   [`convert`] (from JSON to a column's type), [`plan`] (the net effect of a batch), [`dead_letter`].
//!   No clock, no threads, no sockets.
//! - Its two narrow ports: [`records`] ("a consumer of topics") and [`target`] ("a transaction on a
//!   database").
//! - For real, with the feature `real`: `host` runs the loop, `kafka` is the port to topics, `targets`
//!   has one file per kind of database, `setup` makes and checks what a sink needs.
//!
//! Nothing here knows of our broker: it speaks to any Kafka cluster.

pub mod config;
pub mod convert;
pub mod dead_letter;
#[cfg(feature = "real")]
pub mod host;
pub mod json;
#[cfg(feature = "real")]
pub mod kafka;
pub mod mapping;
pub mod plan;
pub mod record;
pub mod records;
#[cfg(feature = "real")]
pub mod setup;
pub mod sink;
pub mod table;
pub mod target;
#[cfg(feature = "real")]
pub mod targets;
