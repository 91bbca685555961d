//! ListOffsets and DeleteRecords: where the log begins and ends, and moving its beginning.

use crate::fetch::Isolation;
use crate::partition::{Partition, Work};
use oncelog_commitlog::lookup::{TimestampHit, TimestampLookup};
use oncelog_wire::ErrorCode;
use oncelog_wire::clock::Now;

/// `timestamp` of a ListOffsets request when it is not a time.
pub mod special_timestamp {
    pub const LATEST: i64 = -1;
    pub const EARLIEST: i64 = -2;
    /// The record with the largest timestamp (KIP-734).
    pub const MAX_TIMESTAMP: i64 = -3;
    /// First offset on the local disk (KIP-405): without tiered storage, the earliest.
    pub const EARLIEST_LOCAL: i64 = -4;
    /// Last offset in tiered storage (KIP-1005): there is none.
    pub const LATEST_TIERED: i64 = -5;
    /// First offset not yet in tiered storage (KIP-1023): Kafka answers "none" without it.
    pub const EARLIEST_PENDING_UPLOAD: i64 = -6;
}

/// Offset, timestamp and epoch as ListOffsets answers them; -1 for what is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListedOffset {
    pub timestamp: i64,
    pub offset: i64,
    pub leader_epoch: i32,
}

impl ListedOffset {
    /// No record fits; not an error.
    pub const NONE: ListedOffset = ListedOffset {
        timestamp: -1,
        offset: -1,
        leader_epoch: -1,
    };

    /// The answer to a [`OffsetAnswer::Lookup`] that the host has run.
    pub fn from_lookup(hit: Option<TimestampHit>) -> ListedOffset {
        hit.map_or(ListedOffset::NONE, |hit| ListedOffset {
            timestamp: hit.timestamp,
            offset: hit.offset,
            leader_epoch: hit.leader_epoch,
        })
    }
}

#[derive(Debug)]
pub enum OffsetAnswer {
    Known(ListedOffset),
    /// Files must be read: run it as a disk operation, then [`ListedOffset::from_lookup`].
    Lookup(TimestampLookup),
}

/// What became of a DeleteRecords.
#[derive(Debug)]
pub struct DeletedRecords {
    /// The log's new (or unchanged) start: `low_watermark` of the answer.
    pub low_watermark: i64,
    pub work: Vec<Work>,
}

impl Partition {
    /// Answers one partition of a ListOffsets request.
    ///
    /// `timestamp` is milliseconds since the Unix epoch, or one of [`special_timestamp`]. A
    /// record at or past the end of what `isolation` may see is never named.
    pub fn list_offset(
        &self,
        timestamp: i64,
        isolation: Isolation,
        current_leader_epoch: Option<i32>,
    ) -> Result<OffsetAnswer, ErrorCode> {
        self.check_leader_epoch(current_leader_epoch)?;
        let visible_end = self.visible_end(isolation);
        Ok(match timestamp {
            special_timestamp::LATEST => OffsetAnswer::Known(ListedOffset {
                timestamp: -1,
                offset: visible_end,
                leader_epoch: self.leader_epoch(),
            }),
            special_timestamp::EARLIEST | special_timestamp::EARLIEST_LOCAL => {
                let offset = self.log.start_offset();
                OffsetAnswer::Known(ListedOffset {
                    timestamp: -1,
                    offset,
                    leader_epoch: self.log.epoch_at(offset).unwrap_or(-1),
                })
            }
            special_timestamp::LATEST_TIERED | special_timestamp::EARLIEST_PENDING_UPLOAD => {
                OffsetAnswer::Known(ListedOffset::NONE)
            }
            special_timestamp::MAX_TIMESTAMP => {
                OffsetAnswer::Lookup(self.log.max_timestamp_lookup(visible_end))
            }
            _ => OffsetAnswer::Lookup(self.log.timestamp_lookup(timestamp, visible_end)),
        })
    }

    /// Moves the log's start up to `before_offset` (exclusive end of what is deleted); -1 means
    /// the high watermark.
    ///
    /// Errors: OFFSET_OUT_OF_RANGE(1) past the high watermark or below -1, POLICY_VIOLATION(44)
    /// for a topic whose `cleanup.policy` does not delete. An offset below the start is fine and
    /// changes nothing.
    pub fn delete_records(
        &mut self,
        now: Now,
        before_offset: i64,
    ) -> Result<DeletedRecords, ErrorCode> {
        if !self.config.log.cleanup_delete {
            return Err(ErrorCode::PolicyViolation);
        }
        let high_watermark = self.high_watermark();
        let before_offset = match before_offset {
            -1 => high_watermark,
            offset => offset,
        };
        if before_offset < 0 || before_offset > high_watermark {
            return Err(ErrorCode::OffsetOutOfRange);
        }
        let mut ops = Vec::new();
        if before_offset > self.log.start_offset() {
            let deletion = self.log.delete_records_before(before_offset, now);
            ops = self.start_moved(now.instant, deletion);
        }
        self.assert_invariants();
        Ok(DeletedRecords {
            low_watermark: self.log.start_offset(),
            work: ops.into_iter().map(Work::unwatched).collect(),
        })
    }
}
