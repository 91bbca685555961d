//! Replay: the only thing that changes what a shard durably knows.
//!
//! Records come in the order of the partition, each with its offset there. Those of a
//! transactional batch come with their producer's id, and its marker after them.
//!
//! Of plain and transactional commits for the same partition the one with the largest record
//! offset counts, not the one whose transaction ended last: that is what compaction keeps, too.
//! A tombstone takes what was pending before it along, so that a transaction which ends later
//! does not bring it back.

use super::GroupShard;
use super::classic::ClassicGroup;
use super::group::Group;
use super::records::{self, ReplayError, Replayed};
use oncelog_wire::clock::Now;

impl GroupShard {
    /// Takes one record of the partition, in the order of the partition.
    ///
    /// While the shard is loading these are all records from the start of the log; afterwards the
    /// shard's own, at once when they are appended. An error means that the partition's bytes are
    /// not a coordinator's records; nothing has changed then.
    pub fn replay(
        &mut self,
        key: &[u8],
        value: Option<&[u8]>,
        record_offset: i64,
        now: Now,
    ) -> Result<(), ReplayError> {
        let replayed = records::decode(key, value)?;
        self.apply(replayed, None, record_offset, now);
        Ok(())
    }

    /// The same for a record of a transactional batch. Offsets are pending until
    /// [`GroupShard::replay_marker`]; anything else, which no coordinator writes in transactions,
    /// counts at once.
    pub fn replay_transactional(
        &mut self,
        producer_id: i64,
        key: &[u8],
        value: Option<&[u8]>,
        record_offset: i64,
        now: Now,
    ) -> Result<(), ReplayError> {
        let replayed = records::decode(key, value)?;
        self.apply(replayed, Some(producer_id), record_offset, now);
        Ok(())
    }

    /// The producer's transaction has ended in this partition. A marker of one that nothing is
    /// pending for says nothing here.
    pub fn replay_marker(&mut self, producer_id: i64, commit: bool, now: Now) {
        for group_id in self.offsets.end_transaction(producer_id, commit) {
            self.simple_group(group_id, now);
        }
    }

    fn apply(
        &mut self,
        replayed: Replayed,
        producer_id: Option<i64>,
        record_offset: i64,
        now: Now,
    ) {
        match replayed {
            Replayed::Offset {
                key,
                value: Some(value),
            } => {
                self.simple_group(key.group.clone(), now);
                match producer_id {
                    None => self.offsets.put(key, value, record_offset),
                    Some(id) => self.offsets.put_pending(id, key, value, record_offset),
                }
            }
            Replayed::Offset { key, value: None } => self.offsets.remove(key),
            Replayed::Group {
                group_id,
                value: Some(value),
            } => {
                let fresh = || Group::Classic(ClassicGroup::new(now));
                let group = self.groups.entry(group_id).or_insert_with(fresh);
                if let Group::Consumer(_) = group {
                    *group = fresh();
                }
                if let Group::Classic(group) = group {
                    group.replay(value);
                }
            }
            Replayed::Group {
                group_id,
                value: None,
            } => {
                // An empty classic group that became a consumer group has left this behind.
                if let Some(Group::Classic(_)) = self.groups.get(&group_id) {
                    self.groups.remove(&group_id);
                    self.deadlines.disarm(&group_id);
                }
            }
            Replayed::Consumer(record) => self.replay_consumer(record, now),
            Replayed::Unknown { .. } => {}
        }
    }

    /// Offsets without a group: a simple group, known by its offsets alone.
    fn simple_group(&mut self, group_id: String, now: Now) {
        self.groups
            .entry(group_id)
            .or_insert_with(|| Group::Classic(ClassicGroup::new(now)));
    }
}
