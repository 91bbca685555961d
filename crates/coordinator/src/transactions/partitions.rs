//! A set of partitions by topic: what a transaction touches.

use std::collections::{BTreeMap, BTreeSet};

/// No topic is in it without a partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Partitions {
    topics: BTreeMap<String, BTreeSet<i32>>,
}

impl Partitions {
    pub(crate) fn add(&mut self, topic: &str, partition: i32) {
        if let Some(partitions) = self.topics.get_mut(topic) {
            partitions.insert(partition);
            return;
        }
        let partitions = BTreeSet::from([partition]);
        self.topics.insert(topic.to_owned(), partitions);
    }

    pub(crate) fn contains(&self, topic: &str, partition: i32) -> bool {
        let partitions = self.topics.get(topic);
        partitions.is_some_and(|partitions| partitions.contains(&partition))
    }

    /// Whether it was there.
    pub(crate) fn remove(&mut self, topic: &str, partition: i32) -> bool {
        let Some(partitions) = self.topics.get_mut(topic) else {
            return false;
        };
        let was_there = partitions.remove(&partition);
        if partitions.is_empty() {
            self.topics.remove(topic);
        }
        was_there
    }

    /// Whether any partition of the topic was there.
    pub(crate) fn remove_topic(&mut self, topic: &str) -> bool {
        self.topics.remove(topic).is_some()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.topics.is_empty()
    }

    pub(crate) fn topics(&self) -> impl Iterator<Item = (&str, &BTreeSet<i32>)> {
        self.topics
            .iter()
            .map(|(topic, partitions)| (topic.as_str(), partitions))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, i32)> {
        self.topics()
            .flat_map(|(topic, partitions)| partitions.iter().map(move |at| (topic, *at)))
    }

    pub(crate) fn to_vec(&self) -> Vec<(String, i32)> {
        self.iter()
            .map(|(topic, at)| (topic.to_owned(), at))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_leaves_with_its_last_partition() {
        let mut partitions = Partitions::default();
        partitions.add("t", 1);
        partitions.add("t", 0);
        partitions.add("u", 0);
        assert_eq!(
            partitions.iter().collect::<Vec<_>>(),
            [("t", 0), ("t", 1), ("u", 0)]
        );
        assert!(partitions.remove("t", 0) && !partitions.remove("t", 0));
        assert!(partitions.contains("t", 1) && !partitions.contains("t", 0));
        assert!(partitions.remove("t", 1) && partitions.remove_topic("u"));
        assert!(partitions.is_empty() && !partitions.remove_topic("u"));
    }
}
