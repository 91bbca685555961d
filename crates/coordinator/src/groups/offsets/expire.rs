//! Offsets that nobody needs any more, `offsets.retention.minutes` (KIP-211).
//!
//! The time counts from when the group became empty; for simple groups, and for topics that a
//! living consumer group has stopped subscribing to, from each offset's own commit. An offset
//! with a retention time of its own (OffsetCommit 2-4) goes by that. Offsets in use never expire,
//! nor does one of a partition that a transaction has an offset pending for. A group that is empty
//! and has no offset left, not even a pending one, goes as well.

use super::super::GroupShard;
use super::super::group::{Group, RetentionStart};
use super::super::records;
use super::CommittedOffset;
use crate::{Outcome, Record};
use oncelog_wire::clock::Now;

impl GroupShard {
    pub(in super::super) fn expire_offsets(&self, now: Now, out: &mut Outcome) {
        for (group_id, group) in &self.groups {
            let before = out.records.len();
            let is_last_gone = self.expire_offsets_of(now, group_id, group, &mut out.records);
            let expired = out.records.len() - before;
            if expired > 0 {
                out.log
                    .push(format!("group {group_id}: {expired} offsets expired"));
            }
            if is_last_gone && group.is_abandoned() {
                group.bury(group_id, &mut out.records);
                out.log.push(format!("group {group_id}: expired"));
            }
        }
    }

    /// Whether no offset is left, committed or pending.
    fn expire_offsets_of(
        &self,
        now: Now,
        group_id: &str,
        group: &Group,
        records: &mut Vec<Record>,
    ) -> bool {
        let start = group.retention_start();
        let mut is_last_gone = !self.offsets.has_pending(group_id);
        for (topic, partition, offset) in self.offsets.of_group(group_id) {
            let is_expired = !group.is_subscribed_to(topic)
                && !self.offsets.is_pending(group_id, topic, partition)
                && has_expired(offset, start, now, self.config.offsets_retention_ms);
            if is_expired {
                records.push(records::offset_tombstone(group_id, topic, partition));
            } else {
                is_last_gone = false;
            }
        }
        is_last_gone
    }
}

fn has_expired(
    offset: &CommittedOffset,
    start: RetentionStart,
    now: Now,
    retention_ms: i64,
) -> bool {
    let since_ms = match start {
        RetentionStart::Never => return false,
        _ if offset.expire_timestamp_ms != -1 => return now.wall_ms >= offset.expire_timestamp_ms,
        RetentionStart::Since(since_ms) => since_ms,
        RetentionStart::Commit => offset.commit_timestamp_ms,
    };
    now.wall_ms.saturating_sub(since_ms) >= retention_ms
}
