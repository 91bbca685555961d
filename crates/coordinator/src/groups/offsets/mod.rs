//! Committed offsets, of groups of any kind.
//!
//! `commit` and `delete` decide records, `fetch` reads, `expire` removes what nobody needs any
//! more; the store itself changes by replay alone.
//!
//! An offset remembers the id of the topic that it was committed for. If the topic was deleted
//! and made anew, the offset is not given out, even if its tombstone is not written yet.

mod commit;
mod delete;
mod expire;
pub mod fetch;

use oncelog_wire::Uuid;
use oncelog_wire::messages::{OffsetCommitKey, OffsetCommitValue};
use std::collections::BTreeMap;

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
}

type Topics = BTreeMap<String, BTreeMap<i32, CommittedOffset>>;

/// Group, topic, partition -> offset. No group or topic is there without an offset.
#[derive(Debug, Default)]
pub(crate) struct Offsets {
    by_group: BTreeMap<String, Topics>,
}

impl Offsets {
    pub(super) fn put(&mut self, key: OffsetCommitKey, value: OffsetCommitValue) {
        let topics = self.by_group.entry(key.group).or_default();
        topics.entry(key.topic).or_default().insert(
            key.partition,
            CommittedOffset {
                offset: value.offset,
                leader_epoch: value.leader_epoch,
                metadata: value.metadata.into_boxed_str(),
                commit_timestamp_ms: value.commit_timestamp,
                expire_timestamp_ms: value.expire_timestamp,
                topic_id: value.topic_id,
            },
        );
    }

    pub(super) fn remove(&mut self, key: &OffsetCommitKey) {
        let Some(topics) = self.by_group.get_mut(&key.group) else {
            return;
        };
        let Some(partitions) = topics.get_mut(&key.topic) else {
            return;
        };
        partitions.remove(&key.partition);
        if partitions.is_empty() {
            topics.remove(&key.topic);
        }
        if topics.is_empty() {
            self.by_group.remove(&key.group);
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

    fn groups(&self) -> impl Iterator<Item = &str> {
        self.by_group.keys().map(String::as_str)
    }

    #[cfg(test)]
    pub(super) fn all(&self) -> &BTreeMap<String, Topics> {
        &self.by_group
    }
}

/// Both ids are known and differ: the topic is not the one that the offset was committed for.
fn is_other_topic(one: Uuid, other: Uuid) -> bool {
    !one.is_zero() && !other.is_zero() && one != other
}
