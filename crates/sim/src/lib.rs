//! The second host of the broker: a seeded world in which everything that can go wrong does.
//!
//! One scheduler drives one broker, its disk, its network and its clients from one random number
//! generator; there is no clock, no thread and no socket, so a seed gives the same run every time.
//! The broker is the real one, the clients speak real Kafka frames. In some worlds the loops of relay
//! and sink run beside them, the real ones too, between simulated databases.
//!
//! - [`plan`]: what a seed draws (sizes, faults, clients).
//! - [`world`]: the scheduler, the network, the events.
//! - [`host`]: the broker's host here: disk work in pieces, crashes between any two of them.
//! - [`database`]: the databases of relay and sink.
//! - [`actors`]: the clients, and the shop, the relay and the sinks.
//! - [`checks`]: what must hold, one file each; each says what it does not cover.
//!
//! What it does not cover: several brokers, slow or partial frames (the real server's tests do),
//! and anything below [`oncelog_commitlog::Disk`].

pub mod actors;
pub mod checks;
pub mod database;
pub mod history;
pub mod host;
pub mod plan;
pub mod world;

pub use world::{Failure, Outcome, run};
