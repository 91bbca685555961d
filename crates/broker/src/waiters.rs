//! Work that waits: for a disk operation, for a high watermark, for bytes to fetch.
//!
//! The records here say what to go on with; who wakes them is in the API's own file.

use crate::connections::RequestId;
use crate::input::OpId;
use crate::topics::PartitionKey;
use oncelog_partition::Completes;
use oncelog_wire::ResponseBody;
use oncelog_wire::messages::{ListOffsetsResponse, ProduceResponse};
use std::collections::BTreeMap;

#[derive(Default)]
pub struct Waiters {
    pub disk: BTreeMap<OpId, DiskWork>,
    pub produce: BTreeMap<RequestId, ParkedProduce>,
    pub fetch: BTreeMap<RequestId, crate::apis::fetch::ParkedFetch>,
    pub write_txn_markers: BTreeMap<RequestId, crate::apis::write_txn_markers::Parked>,
    pub list_offsets: BTreeMap<RequestId, ParkedListOffsets>,
    pub deletion: crate::deletion::Deletion,
}

/// What goes on when a disk operation has completed.
#[derive(Clone, Debug)]
pub enum DiskWork {
    /// Work of a partition: it is told, and so is a request that waited for just this.
    Partition {
        key: PartitionKey,
        completes: Completes,
        then: Option<(RequestId, Box<ResponseBody>)>,
    },
    /// The metadata log's one outstanding append.
    Metadata { last_offset: i64 },
    /// The directories of deleted topics have their new names.
    TopicFilesRenamed,
    /// Nobody waits: index files, snapshots, checkpoints, removals.
    Background,
    TimestampLookup {
        request: RequestId,
        /// Indexes of the topic and the partition in the response.
        at: (usize, usize),
        key: PartitionKey,
    },
}

/// A produce request whose appends are not all below their high watermarks.
pub struct ParkedProduce {
    pub response: ProduceResponse,
    /// The watermark that each partition must reach, and where the answers that wait for it stand
    /// (indexes of the topic and the partition in the response): more than one if the request
    /// holds a batch and its duplicate.
    pub waiting: BTreeMap<(PartitionKey, i64), Vec<(usize, usize)>>,
}

/// A ListOffsets request with timestamp lookups on disk.
pub struct ParkedListOffsets {
    pub version: i16,
    pub response: ListOffsetsResponse,
    pub outstanding: usize,
}
