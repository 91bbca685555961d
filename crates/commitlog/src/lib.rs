//! One partition's files: segments, indexes, recovery, retention, compaction, leader epochs.
//!
//! [`Log`] is pure state: its methods decide and return [`DiskOp`]s, values that a host carries out
//! with [`execute`] against a [`Disk`], outside of whatever lock guards the log. [`recover`] makes a
//! log from what is on the disk. File formats are Kafka's wherever Kafka has one; see
//! docs/storage-format.md.
//!
//! Deliberately not here: what a batch means (producers, transactions, high watermark: the crate
//! `partition`), the real disk (the hosts), time, randomness, threads.
//!
//! Invariants of the crate as a whole:
//! - What an append that was durable wrote is found by `recover` after any crash, unless an
//!   append before it was not finished.
//! - Nothing is served past the first batch that does not check.
//! - Damage below the recovery point is refused in words, never cut away.

mod aborted;
mod background;
mod checkpoint;
pub mod compaction;
mod completions;
mod config;
pub mod disk;
mod epochs;
mod execute;
mod file_names;
mod index;
pub mod limits;
mod log;
pub mod lookup;
pub mod op;
mod partition_metadata;
pub mod recovery;
mod retention;
mod scan;
mod segment;
pub mod slice;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;

pub use aborted::AbortedTxn;
pub use compaction::{CompactionOutcome, CompactionPlan};
pub use config::LogConfig;
pub use disk::{Disk, FileName};
pub use epochs::UNDEFINED_EPOCH;
pub use execute::{execute, execute_append, execute_step};
pub use log::{Appended, Log};
pub use lookup::{TimestampHit, TimestampLookup, look_up};
pub use op::{Append, DiskOp, DiskOutcome, DiskStep};
pub use recovery::{
    Recovered, RecoveryError, RecoveryReport, recover, replay_batches, restore_aborted,
};
pub use slice::{LogSlice, OutOfRange, Resolved, read, resolve};
