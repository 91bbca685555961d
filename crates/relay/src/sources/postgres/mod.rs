//! PostgreSQL: change data capture by `pgoutput`, or polling.
//!
//! [`Cdc`] reads the log through a replication slot: rows of an outbox table as they were committed,
//! and logical messages (`pg_logical_emit_message`), which need no table.
//! - `pgoutput` (the plugin's messages) → `transactions` (rows, each with its position; what is done is
//!   left out) → `feed` (a queue bounded in bytes) → `cdc` (the port). `stream` is the thread in
//!   between, `replication` its connection. `opening` is what comes before the first row, `slot` its
//!   judgement whether slot, progress and database agree.
//!
//! [`Polling`] claims rows of an outbox table with plain SQL (docs/decisions/0004-polling-claims-rows.md).
//!
//! Both name columns and values the same (`values`). [`ddl`] and [`check`] say what they need,
//! [`choose`] which of them fits.

mod catalog;
mod cdc;
mod claims;
mod connection;
mod feed;
mod logical;
mod opening;
mod options;
mod pgoutput;
mod polling;
mod position;
mod replication;
mod retention;
mod setup;
mod slot;
mod stream;
mod transactions;
mod values;

pub use cdc::Cdc;
pub use options::{Options, Snapshot};
pub use polling::Polling;
pub use setup::{Choice, Way, apply, check, check_for, choose, ddl, slot_ddl};
