//! What a reader may see: Fetch's checks, and the slice of the log that answers it.
//!
//! Record bytes never pass through here: a [`FetchView`] names a [`LogSlice`], which the host
//! resolves and sends outside the core.
//!
//! Order of checks, as Kafka's `Partition.fetchRecords`: the leader epoch that the client believes
//! in (KIP-320), then the epoch of what it fetched last (KIP-595's diverging epoch, Fetch v12+),
//! then the offset's range.

use crate::partition::Partition;
use oncelog_commitlog::LogSlice;
use oncelog_wire::ErrorCode;

/// `isolation_level` of Fetch and ListOffsets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Isolation {
    #[default]
    ReadUncommitted,
    ReadCommitted,
}

#[derive(Clone, Copy, Debug)]
pub struct FetchParams {
    pub fetch_offset: i64,
    /// `None` if the client sent -1.
    pub current_leader_epoch: Option<i32>,
    /// Epoch of the last record that the client has; `None` if it sent -1.
    pub last_fetched_epoch: Option<i32>,
    pub isolation: Isolation,
    pub max_bytes: u64,
    /// A first batch that is larger than `max_bytes` is given nevertheless, so that a reader
    /// makes progress (KIP-74).
    pub at_least_one: bool,
}

#[derive(Clone, Debug)]
pub struct FetchView {
    /// `None`: nothing to read at this offset now.
    pub slice: Option<LogSlice>,
    /// Readable bytes from the fetch offset on, for `min.bytes`; [`u64::MAX`] means "plenty".
    pub available_bytes: u64,
    pub high_watermark: i64,
    pub last_stable_offset: i64,
    pub log_start_offset: i64,
    /// What a read_committed reader has to leave out of the slice, by first offset; may name more,
    /// which is not in the slice. `None` for read_uncommitted.
    pub aborted_transactions: Option<Vec<AbortedTransaction>>,
    /// The client's log departs from this one: it must truncate to here. No records are given.
    pub diverging_epoch: Option<EpochEndOffset>,
}

/// From the first offset on, batches of this producer that are transactional were aborted, up to its
/// next abort marker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AbortedTransaction {
    pub producer_id: i64,
    pub first_offset: i64,
}

/// The largest epoch not above the one asked for, and where it ends (exclusive).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochEndOffset {
    pub leader_epoch: i32,
    pub end_offset: i64,
}

impl EpochEndOffset {
    /// What Kafka answers if it knows no such epoch.
    pub const UNDEFINED: EpochEndOffset = EpochEndOffset {
        leader_epoch: -1,
        end_offset: -1,
    };
}

impl Partition {
    /// Where to read for a Fetch of this partition.
    ///
    /// Errors: FENCED_LEADER_EPOCH(74), UNKNOWN_LEADER_EPOCH(75), OFFSET_OUT_OF_RANGE(1).
    /// An offset between the high watermark and the log's end is no error, there is just nothing
    /// to read yet.
    pub fn fetch(&self, params: &FetchParams) -> Result<FetchView, ErrorCode> {
        self.check_leader_epoch(params.current_leader_epoch)?;
        let offset = params.fetch_offset;
        let mut view = FetchView {
            slice: None,
            available_bytes: 0,
            high_watermark: self.high_watermark(),
            last_stable_offset: self.last_stable_offset(),
            log_start_offset: self.log.start_offset(),
            aborted_transactions: match params.isolation {
                Isolation::ReadCommitted => Some(Vec::new()),
                Isolation::ReadUncommitted => None,
            },
            diverging_epoch: None,
        };
        if let Some(fetched_epoch) = params.last_fetched_epoch {
            let end = self.end_of_epoch(fetched_epoch);
            if end == EpochEndOffset::UNDEFINED || offset < self.log.start_offset() {
                return Err(ErrorCode::OffsetOutOfRange);
            }
            if end.leader_epoch < fetched_epoch || end.end_offset < offset {
                view.diverging_epoch = Some(end);
                return Ok(view);
            }
        }
        if offset < self.log.start_offset() || offset > self.log.end_offset() {
            return Err(ErrorCode::OffsetOutOfRange);
        }
        let upper_bound = self.visible_end(params.isolation);
        if offset < upper_bound {
            let slice = self
                .log
                .slice(offset, upper_bound, params.max_bytes, params.at_least_one);
            view.slice = slice.map_err(|_| ErrorCode::OffsetOutOfRange)?;
            view.available_bytes = self.log.bytes_between(offset, upper_bound);
            if let (Some(slice), Some(aborted)) = (&view.slice, &mut view.aborted_transactions) {
                *aborted = self.aborted_between(offset, slice.end_offset_max());
            }
        }
        Ok(view)
    }

    /// Where `leader_epoch` ended (OffsetForLeaderEpoch, KIP-101/279); [`EpochEndOffset::UNDEFINED`]
    /// for an epoch older than all that the log knows.
    pub fn offset_for_leader_epoch(
        &self,
        leader_epoch: i32,
        current_leader_epoch: Option<i32>,
    ) -> Result<EpochEndOffset, ErrorCode> {
        self.check_leader_epoch(current_leader_epoch)?;
        Ok(self.end_of_epoch(leader_epoch))
    }

    /// The end (exclusive) of what a reader of this isolation may see.
    pub fn visible_end(&self, isolation: Isolation) -> i64 {
        match isolation {
            Isolation::ReadUncommitted => self.high_watermark(),
            Isolation::ReadCommitted => self.last_stable_offset(),
        }
    }

    fn aborted_between(&self, from_offset: i64, upper_bound: i64) -> Vec<AbortedTransaction> {
        let found = self.log.aborted_transactions(from_offset, upper_bound);
        let aborted = found.iter().map(|found| AbortedTransaction {
            producer_id: found.producer_id,
            first_offset: found.first_offset,
        });
        let mut aborted: Vec<AbortedTransaction> = aborted.collect();
        aborted.sort_unstable_by_key(|aborted| aborted.first_offset);
        aborted
    }

    /// FENCED_LEADER_EPOCH(74) for a client that has slept through an election,
    /// UNKNOWN_LEADER_EPOCH(75) for one that knows of an election before this broker does.
    pub(crate) fn check_leader_epoch(&self, believed: Option<i32>) -> Result<(), ErrorCode> {
        match believed {
            Some(epoch) if epoch < self.leader_epoch() => Err(ErrorCode::FencedLeaderEpoch),
            Some(epoch) if epoch > self.leader_epoch() => Err(ErrorCode::UnknownLeaderEpoch),
            _ => Ok(()),
        }
    }

    fn end_of_epoch(&self, epoch: i32) -> EpochEndOffset {
        let (leader_epoch, end_offset) = self.log.end_offset_for_epoch(epoch);
        EpochEndOffset {
            leader_epoch,
            end_offset,
        }
    }
}
