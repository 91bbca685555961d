//! Work that waits: for a disk operation, for a high watermark, for bytes to fetch.
//!
//! The records here say what to go on with; who wakes them is in the API's own file.

use crate::connections::RequestId;
use crate::input::OpId;
use crate::topics::PartitionKey;
use oncelog_wire::messages::{ListOffsetsResponse, ProduceResponse, ResponseBody};
use std::collections::BTreeMap;

#[derive(Default)]
pub struct Waiters {
    pub disk: BTreeMap<OpId, DiskWork>,
    pub produce: BTreeMap<RequestId, ParkedProduce>,
    pub fetch: BTreeMap<RequestId, crate::apis::fetch::ParkedFetch>,
    pub list_offsets: BTreeMap<RequestId, ParkedListOffsets>,
    pub deletion: crate::deletion::Deletion,
}

/// What goes on when a disk operation has completed.
#[derive(Clone, Debug)]
pub enum DiskWork {
    /// A batch of a hosted partition, the append that ends at `last_offset`.
    Appended { key: PartitionKey, last_offset: i64 },
    /// The metadata log's one outstanding append.
    Metadata,
    /// The directories of deleted topics have their new names.
    TopicFilesRenamed,
    /// Nobody waits: index files, snapshots, checkpoints, removals.
    Background,
    /// The answer waits for what it says to be on disk.
    Answer {
        request: RequestId,
        response: Box<ResponseBody>,
    },
    TimestampLookup {
        request: RequestId,
        /// Indexes of the topic and the partition in the response.
        at: (usize, usize),
    },
    Compaction { key: PartitionKey },
}

/// A produce request whose appends are not all below their high watermarks.
pub struct ParkedProduce {
    pub response: ProduceResponse,
    /// The watermark that each partition must reach, and where its answer stands.
    pub waiting: BTreeMap<(PartitionKey, i64), (usize, usize)>,
}

/// A ListOffsets request with timestamp lookups on disk.
pub struct ParkedListOffsets {
    pub response: ListOffsetsResponse,
    pub outstanding: usize,
}
