//! Committed offsets, of groups of any kind.
//!
//! `commit`, `txn_commit` and `delete` decide records, `fetch` reads, `expire` removes what nobody
//! needs any more; the store itself changes by replay alone. `pending` is what open transactions
//! have committed.
//!
//! An offset remembers the id of the topic that it was committed for. If the topic was deleted
//! and made anew, the offset is not given out, even if its tombstone is not written yet.

mod commit;
mod delete;
mod expire;
pub mod fetch;
mod pending;
pub mod txn_commit;

use oncelog_wire::Uuid;
use oncelog_wire::messages::{OffsetCommitKey, OffsetCommitValue};
use std::collections::{BTreeMap, BTreeSet};

use pending::PendingOffsets;
pub(crate) use pending::Place;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CommittedOffset {
    pub offset: i64,
    /// -1 if the client gave none.
    pub leader_epoch: i32,
    pub metadata: Box<str>,
    pub commit_timestamp_ms: i64,
    /// -1 unless the client asked for its own retention time (OffsetCommit 2-4).
    pub expire_timestamp_ms: i64,
    /// Zero if it was not known at the time.
    pub topic_id: Uuid,
    /// Where the commit lies in the offsets partition.
    pub record_offset: i64,
}

impl CommittedOffset {
    fn new(value: OffsetCommitValue, record_offset: i64) -> CommittedOffset {
        CommittedOffset {
            offset: value.offset,
            leader_epoch: value.leader_epoch,
            metadata: value.metadata.into_boxed_str(),
            commit_timestamp_ms: value.commit_timestamp,
            expire_timestamp_ms: value.expire_timestamp,
            topic_id: value.topic_id,
            record_offset,
        }
    }
}

type Topics = BTreeMap<String, BTreeMap<i32, CommittedOffset>>;

/// Group, topic, partition -> offset. No group or topic is there without an offset.
#[derive(Debug, Default)]
pub(crate) struct Offsets {
    by_group: BTreeMap<String, Topics>,
    pending: PendingOffsets,
}

impl Offsets {
    pub(super) fn put(
        &mut self,
        key: OffsetCommitKey,
        value: OffsetCommitValue,
        record_offset: i64,
    ) {
        self.insert(key.into(), CommittedOffset::new(value, record_offset));
    }

    pub(super) fn put_pending(
        &mut self,
        producer_id: i64,
        key: OffsetCommitKey,
        value: OffsetCommitValue,
        record_offset: i64,
    ) {
        let offset = CommittedOffset::new(value, record_offset);
        self.pending.put(producer_id, key.into(), offset);
    }

    /// Gives the groups that offsets were committed in.
    pub(super) fn end_transaction(&mut self, producer_id: i64, commit: bool) -> Vec<String> {
        let mut groups = Vec::new();
        for (place, offset) in self.pending.end(producer_id) {
            let newest = self.get(&place.group_id, &place.topic, place.partition);
            let is_newer = newest.is_none_or(|it| it.record_offset < offset.record_offset);
            if commit && is_newer {
                groups.push(place.group_id.clone());
                self.insert(place, offset);
            }
        }
        groups
    }

    fn insert(&mut self, place: Place, offset: CommittedOffset) {
        let topics = self.by_group.entry(place.group_id).or_default();
        let partitions = topics.entry(place.topic).or_default();
        partitions.insert(place.partition, offset);
    }

    pub(super) fn remove(&mut self, key: OffsetCommitKey) {
        let place = Place::from(key);
        self.pending.remove(&place);
        let Some(topics) = self.by_group.get_mut(&place.group_id) else {
            return;
        };
        let Some(partitions) = topics.get_mut(&place.topic) else {
            return;
        };
        partitions.remove(&place.partition);
        if partitions.is_empty() {
            topics.remove(&place.topic);
        }
        if topics.is_empty() {
            self.by_group.remove(&place.group_id);
        }
    }

    fn get(&self, group_id: &str, topic: &str, partition: i32) -> Option<&CommittedOffset> {
        self.by_group.get(group_id)?.get(topic)?.get(&partition)
    }

    fn topics_of(
        &self,
        group_id: &str,
    ) -> impl Iterator<Item = (&str, &BTreeMap<i32, CommittedOffset>)> {
        let topics = self.by_group.get(group_id).into_iter().flatten();
        topics.map(|(topic, partitions)| (topic.as_str(), partitions))
    }

    pub(super) fn of_group(
        &self,
        group_id: &str,
    ) -> impl Iterator<Item = (&str, i32, &CommittedOffset)> {
        self.topics_of(group_id).flat_map(|(topic, partitions)| {
            partitions
                .iter()
                .map(move |(partition, offset)| (topic, *partition, offset))
        })
    }

    /// Every group with something committed or pending.
    fn groups(&self) -> BTreeSet<&str> {
        let committed = self.by_group.keys().map(String::as_str);
        committed.chain(self.pending.groups()).collect()
    }

    /// Something of this partition waits for the end of a transaction. What was committed for
    /// another topic of the same name does not count.
    fn is_unstable(&self, group_id: &str, topic: &str, partition: i32, topic_id: Uuid) -> bool {
        let mut pending = self.pending.of_partition(group_id, topic, partition);
        pending.any(|(_, offset)| !is_other_topic(offset.topic_id, topic_id))
    }

    /// Something is committed or pending for this partition.
    fn knows(&self, group_id: &str, topic: &str, partition: i32) -> bool {
        self.get(group_id, topic, partition).is_some()
            || self.is_pending(group_id, topic, partition)
    }

    fn is_pending(&self, group_id: &str, topic: &str, partition: i32) -> bool {
        let mut pending = self.pending.of_partition(group_id, topic, partition);
        pending.next().is_some()
    }

    fn has_pending(&self, group_id: &str) -> bool {
        self.pending.has_group(group_id)
    }

    /// How many partitions have something pending.
    pub(super) fn pending_count(&self, group_id: &str) -> usize {
        self.pending.places_of(group_id).count()
    }

    /// Every partition of a group that something is committed or pending for, each once.
    pub(super) fn places_of(&self, group_id: &str) -> impl Iterator<Item = (&str, i32)> {
        let committed = self.of_group(group_id);
        let committed = committed.map(|(topic, partition, _)| (topic, partition));
        let pending = self.pending.places_of(group_id);
        let only_pending = pending
            .filter(move |(topic, partition)| self.get(group_id, topic, *partition).is_none());
        committed.chain(only_pending)
    }

    #[cfg(test)]
    pub(super) fn all(&self) -> &BTreeMap<String, Topics> {
        &self.by_group
    }

    /// Producer and place -> pending offset.
    #[cfg(test)]
    pub(super) fn all_pending(&self) -> BTreeMap<(i64, Place), CommittedOffset> {
        self.pending.all()
    }
}

/// Both ids are known and differ: the topic is not the one that the offset was committed for.
fn is_other_topic(one: Uuid, other: Uuid) -> bool {
    !one.is_zero() && !other.is_zero() && one != other
}
