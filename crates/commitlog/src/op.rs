//! Disk work as values: what the pure log wants done, executed by a host against a [`Disk`].
//!
//! Contract with the host:
//! - [`DiskOp::Append`]s may run in any order and in parallel, also with each other on one file:
//!   positions are explicit and never overlap. A host may group many of them into one sync.
//! - [`DiskOp::Steps`] about one partition's directory run in the order in which the core emitted
//!   them, each after the one before. Those that touch the data directory itself (a directory that
//!   is renamed or removed, a file in it), or more than one directory, run after all before them and
//!   before all behind them. Within one, no step runs before a sync in front of it holds. They never
//!   touch bytes that an unfinished append writes.
//! - The rest (`LookupTimestamp`, `ReadBatches`, `Compact`) only read files that exist and write
//!   files that nobody else has seen; a host runs them wherever they stall nobody.
//! - Any error from an append or from steps stops the broker; it is not an outcome.

use crate::disk::FileName;
use bytes::Bytes;

#[derive(Clone, Debug)]
pub enum DiskOp {
    Append(Append),
    Steps(Vec<DiskStep>),
    LookupTimestamp(crate::lookup::TimestampLookup),
    ReadBatches(crate::slice::LogSlice),
    Compact(Box<crate::compaction::CompactionPlan>),
}

/// One record batch on its way to the active segment: the rewritten header, then the producer's
/// own bytes untouched.
#[derive(Clone, Debug)]
pub struct Append {
    pub file: FileName,
    pub position: u64,
    /// The batch's first 61 bytes, with base offset and leader epoch filled in.
    pub header: [u8; 61],
    /// The batch from byte 61 on: a slice of the request frame.
    pub body: Bytes,
    /// The file's name may not be durable yet: a durable append also syncs the directories that
    /// [`Append::dirs_to_sync`] names.
    pub create: bool,
    /// Completed only once `sync` returned for the file (earlier bytes of the file included).
    pub durable: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiskStep {
    /// Replaces the file's content (index, snapshot, checkpoint): truncate to 0, write. Atomic
    /// replacement is spelled out as write to a temporary name, sync, rename, sync_dir.
    Write {
        file: FileName,
        content: Bytes,
    },
    Sync {
        file: FileName,
    },
    SyncDir {
        dir: FileName,
    },
    Rename {
        from: FileName,
        to: FileName,
    },
    Remove {
        file: FileName,
    },
    RemoveDir {
        dir: FileName,
    },
    Truncate {
        file: FileName,
        length: u64,
    },
}

#[derive(Debug)]
pub enum DiskOutcome {
    Done,
    /// `None`: no record at or after the timestamp below the bound.
    Timestamp(Option<crate::lookup::TimestampHit>),
    /// Whole batches, back to back.
    Batches(Bytes),
    Compacted(Box<crate::compaction::CompactionOutcome>),
}
