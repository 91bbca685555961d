//! MySQL and MariaDB: the binlog, or polling.
//!
//! - [`Binlog`] reads the log that replicas read: nothing is written to the outbox, commits are seen in
//!   their order, and a table of the BLACKHOLE engine is enough.
//! - [`Polling`] claims rows and deletes them once they are published; it needs no privilege but to the
//!   tables.
//! - [`setup`] makes the tables, says what is wrong, and which of the two it is to be.
//!
//! TLS is not built in.

mod binlog;
mod claim;
mod connection;
mod options;
mod polling;
pub mod setup;
mod tables;

pub use binlog::Binlog;
pub use options::{Engine, Options};
pub use polling::Polling;
