//! The whole broker as one deterministic value, and the pure steps around it.
//!
//! A host (`oncelog-server` with sockets and files, `oncelog-sim` with a seeded world) does:
//!
//! 1. [`open`]: recover everything from a [`oncelog_commitlog::Disk`];
//! 2. for each frame: [`prepare`] it, then [`Broker::handle`] it as an [`Input`];
//! 3. carry out each [`Effect`] of [`Broker::poll_effect`]; completions come back as inputs;
//! 4. turn an [`Answer`] into bytes with [`Answer::encode`];
//! 5. send [`Input::Tick`] when [`Broker::next_deadline`] has passed.
//!
//! Steps 2 (prepare) and 4 touch no state and run outside whatever guards the broker. There is no
//! clock, randomness, thread, socket or file here; see the crate's `clippy.toml`.

mod answer;
mod apis;
mod broker;
mod config;
mod connections;
mod coordinators;
mod deletion;
mod effect;
mod figures;
mod groups;
mod housekeeping;
mod input;
mod limits;
mod open;
mod pinned;
mod prepare;
mod quorum;
mod sessions;
mod shutdown;
mod timers;
mod topics;
mod transactions;
mod waiters;

pub use answer::{Answer, AnswerBody, AnswerError, Chunk};
pub use broker::Broker;
pub use effect::{Effect, Level};
pub use figures::{Counters, Figures, PartitionFigures, TopicFigures};
pub use input::{ConnectionId, Input, OpId};
pub use open::{OpenError, OpenReport, Opened, open, open_reporting};
pub use pinned::PinnedFile;
pub use prepare::{Prepared, PreparedBatch, Refusal, prepare};
