//! Server-side assignors: who is to have which partition.
//!
//! Pure functions of the members, their subscriptions, what they were to have before, and how
//! many partitions each topic has. Both give every partition of every subscribed topic to exactly
//! one member that subscribes to its topic.

mod range;
#[cfg(test)]
mod tests;
mod uniform;

use super::member::Partitions;
use oncelog_wire::Uuid;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

pub(crate) const UNIFORM: &str = "uniform";
pub(crate) const RANGE: &str = "range";

/// A member, to an assignor.
#[derive(Clone, Debug)]
pub(super) struct Subscriber<'a> {
    pub member_id: &'a str,
    pub instance_id: Option<&'a str>,
    /// Topics that it subscribes to and that exist.
    pub topics: Rc<BTreeSet<Uuid>>,
    /// What it was to have so far.
    pub previous: &'a Partitions,
}

#[derive(Debug)]
pub(super) struct Assignment<'a> {
    pub members: Vec<Subscriber<'a>>,
    /// How many partitions each subscribed topic has.
    pub partition_counts: BTreeMap<Uuid, i32>,
}

impl Assignment<'_> {
    /// What each member is to have, in the order of `members`.
    ///
    /// # Panics
    /// If there is no assignor of that name: requests and configuration are checked for it.
    pub(super) fn by(&self, assignor: &str) -> Vec<Partitions> {
        match assignor {
            UNIFORM => uniform::assign(self),
            RANGE => range::assign(self),
            other => panic!("{other} is not an assignor"),
        }
    }

    /// Topic -> its subscribers, by their place in `members`. In the common case of a group whose
    /// members subscribe to the same, one list serves all topics.
    fn subscribers(&self) -> BTreeMap<Uuid, Rc<Vec<usize>>> {
        let Some(first) = self.members.first() else {
            return BTreeMap::new();
        };
        let mut members = self.members.iter();
        if members.all(|member| Rc::ptr_eq(&member.topics, &first.topics)) {
            let everybody = Rc::new((0..self.members.len()).collect());
            let topics = first.topics.iter();
            return topics
                .map(|topic| (*topic, Rc::clone(&everybody)))
                .collect();
        }
        let mut subscribers = BTreeMap::<Uuid, Vec<usize>>::new();
        for (at, member) in self.members.iter().enumerate() {
            for topic in member.topics.iter() {
                subscribers.entry(*topic).or_default().push(at);
            }
        }
        let subscribers = subscribers.into_iter();
        subscribers
            .map(|(topic, members)| (topic, Rc::new(members)))
            .collect()
    }

    fn partition_count(&self, topic: Uuid) -> i32 {
        let count = self.partition_counts.get(&topic);
        *count.expect("a subscribed topic has its number of partitions")
    }
}
