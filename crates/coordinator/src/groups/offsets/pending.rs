//! Offsets committed in transactions that are still open.
//!
//! They lie beside the committed ones, one for each producer, until the transaction's marker (or
//! a tombstone) takes them. Of the same producer the newest counts. Reads are by partition, so
//! that a stable OffsetFetch costs one look-up; the end of a transaction goes by its producer.

use super::CommittedOffset;
use oncelog_wire::messages::OffsetCommitKey;
use std::collections::{BTreeMap, BTreeSet};

/// What an offset is committed for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub group_id: String,
    pub topic: String,
    pub partition: i32,
}

impl From<OffsetCommitKey> for Place {
    fn from(key: OffsetCommitKey) -> Place {
        Place {
            group_id: key.group,
            topic: key.topic,
            partition: key.partition,
        }
    }
}

/// Producer id -> its offset for one partition. Not empty.
type Producers = BTreeMap<i64, CommittedOffset>;
type Topics = BTreeMap<String, BTreeMap<i32, Producers>>;

/// Both maps say the same; nothing is there without an offset.
#[derive(Debug, Default)]
pub(crate) struct PendingOffsets {
    by_group: BTreeMap<String, Topics>,
    by_producer: BTreeMap<i64, BTreeSet<Place>>,
}

impl PendingOffsets {
    pub(super) fn put(&mut self, producer_id: i64, place: Place, offset: CommittedOffset) {
        let topics = self.by_group.entry(place.group_id.clone()).or_default();
        let partitions = topics.entry(place.topic.clone()).or_default();
        let producers = partitions.entry(place.partition).or_default();
        producers.insert(producer_id, offset);
        self.by_producer
            .entry(producer_id)
            .or_default()
            .insert(place);
    }

    /// A tombstone: whatever is pending here is forgotten, however its transaction ends.
    pub(super) fn remove(&mut self, place: &Place) {
        for producer_id in self.take(place, std::mem::take).into_keys() {
            let places = self.by_producer.get_mut(&producer_id);
            let places = places.expect("a pending offset is known by its producer");
            places.remove(place);
            if places.is_empty() {
                self.by_producer.remove(&producer_id);
            }
        }
    }

    /// The transaction has ended: gives what was pending in it.
    pub(super) fn end(&mut self, producer_id: i64) -> Vec<(Place, CommittedOffset)> {
        let places = self.by_producer.remove(&producer_id).unwrap_or_default();
        let mut ended = Vec::with_capacity(places.len());
        for place in places {
            let offset = self.take(&place, |producers| producers.remove(&producer_id));
            ended.push((place, offset.expect("a producer's place has its offset")));
        }
        ended
    }

    /// Lets `taken` take out of what is pending for one partition, and leaves nothing empty.
    fn take<T: Default>(&mut self, place: &Place, taken: impl FnOnce(&mut Producers) -> T) -> T {
        let Some(topics) = self.by_group.get_mut(&place.group_id) else {
            return T::default();
        };
        let Some(partitions) = topics.get_mut(&place.topic) else {
            return T::default();
        };
        let Some(producers) = partitions.get_mut(&place.partition) else {
            return T::default();
        };
        let taken = taken(producers);
        if producers.is_empty() {
            partitions.remove(&place.partition);
        }
        if partitions.is_empty() {
            topics.remove(&place.topic);
        }
        if topics.is_empty() {
            self.by_group.remove(&place.group_id);
        }
        taken
    }

    /// Of one partition, of every producer.
    pub(super) fn of_partition(
        &self,
        group_id: &str,
        topic: &str,
        partition: i32,
    ) -> impl Iterator<Item = (i64, &CommittedOffset)> {
        let topics = self.by_group.get(group_id);
        let partitions = topics.and_then(|topics| topics.get(topic));
        let producers = partitions.and_then(|partitions| partitions.get(&partition));
        let offsets = producers.into_iter().flatten();
        offsets.map(|(producer_id, offset)| (*producer_id, offset))
    }

    /// The partitions of a group that something is pending for.
    pub(super) fn places_of(&self, group_id: &str) -> impl Iterator<Item = (&str, i32)> {
        let topics = self.by_group.get(group_id).into_iter().flatten();
        topics.flat_map(|(topic, partitions)| {
            partitions
                .keys()
                .map(move |partition| (topic.as_str(), *partition))
        })
    }

    pub(super) fn has_group(&self, group_id: &str) -> bool {
        self.by_group.contains_key(group_id)
    }

    pub(super) fn groups(&self) -> impl Iterator<Item = &str> {
        self.by_group.keys().map(String::as_str)
    }

    #[cfg(test)]
    pub(super) fn all(&self) -> BTreeMap<(i64, Place), CommittedOffset> {
        let places = self.by_producer.iter();
        let all: BTreeMap<_, _> = places
            .flat_map(|(producer_id, places)| places.iter().map(|place| (*producer_id, place)))
            .map(|(producer_id, place)| {
                let offset =
                    &self.by_group[&place.group_id][&place.topic][&place.partition][&producer_id];
                ((producer_id, place.clone()), offset.clone())
            })
            .collect();
        let topics = self.by_group.values().flat_map(BTreeMap::values);
        let producers = topics.flat_map(BTreeMap::values).map(BTreeMap::len);
        assert_eq!(
            producers.sum::<usize>(),
            all.len(),
            "both maps say the same"
        );
        all
    }
}
