//! The coordinators: replicated state machines that turn requests into records and answers.
//!
//! Every coordinator has the same two halves. *Decide* takes a request and gives an [`Outcome`]:
//! the records to append and the answers to send once they are committed. *Replay* takes one
//! record and is the only thing that changes durable state, whether the record was just decided
//! here or is read back after a restart. What is not durable (parked requests, deadlines, the
//! progress of a rebalance) belongs to whoever leads now and is lost with the leadership, as in
//! Kafka.
//!
//! Deliberately not here: partitions, logs, high watermarks, connections. The broker appends the
//! records, replays them here at once and holds every answer back until they are committed.
//!
//! Pure: time is an argument, randomness is a [`seed::Seed`].

pub mod cluster;
pub mod groups;
mod outcome;
#[cfg(test)]
mod script_args;
pub mod seed;
mod topics;
pub mod transactions;

pub use outcome::{Caller, Markers, Outcome, Record, ReplyTo};
pub use topics::{TopicView, Topics};
