//! One partition of a topic: what may be appended to its log, what of it may be read, and when.
//!
//! - [`Partition`]: the log, its producers and its high watermark as one value, with the methods
//!   that a broker's APIs need. In the role of the only replica for now.
//! - [`Producers`]: idempotent producers, the last five batches of each, and open transactions.
//! - [`snapshot`]: producers on disk, in Kafka's format and five batches deep.
//!
//! Like everything below `server` and `sim` it is pure: time is an argument, disk work is returned
//! as values. It knows no requests and parks nobody.

mod append;
mod config;
mod endings;
mod fetch;
mod housekeeping;
mod offsets;
mod partition;
mod producers;
mod recovery;
mod rejection;
mod rewrite;
pub mod snapshot;
mod snapshot_files;
mod transactions;
mod verification;

pub use append::Appended;
pub use config::{PartitionConfig, TargetCompression};
pub use fetch::{AbortedTransaction, EpochEndOffset, FetchParams, FetchView, Isolation};
pub use housekeeping::Done;
pub use offsets::{DeletedRecords, ListedOffset, OffsetAnswer, special_timestamp};
pub use partition::{Completes, Identity, Partition, Work};
pub use producers::{
    AppendedMarker, BatchEntry, OpenTransaction, ProducerBatch, ProducerState, Producers, WINDOW,
    Window,
};
pub use recovery::{Created, Opened, RecoveryError};
pub use rejection::{RecordError, Rejection};
pub use transactions::EndTransactionMarker;
pub use verification::VerificationGuard;
