//! The partitions that this broker hosts, by topic id, and who waits on each.
//!
//! Two indexes, one truth: `by_id` holds the partitions, `by_name` only names them. A topic that
//! is deleted and made again has a new id, so late work for the old one finds nothing.

use crate::connections::RequestId;
use crate::transactions::markers::MarkerOf;
use oncelog_partition::Partition;
use oncelog_wire::Uuid;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// One partition of one incarnation of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionKey {
    pub topic_id: Uuid,
    pub index: i32,
}

pub struct Hosted {
    pub partition: Partition,
    /// Produce requests by the high watermark that they wait for.
    pub produce_waiters: BTreeSet<(i64, RequestId)>,
    /// Who waits for the markers in its log, by the high watermark that they wait for.
    pub(crate) marker_waiters: BTreeMap<i64, Vec<MarkerOf>>,
    /// Parked fetches that read this partition.
    pub fetch_waiters: BTreeSet<RequestId>,
    /// Pieces of disk work that were emitted and have not come back.
    pub in_flight: u32,
}

impl Hosted {
    pub fn new(partition: Partition) -> Hosted {
        Hosted {
            partition,
            produce_waiters: BTreeSet::new(),
            marker_waiters: BTreeMap::new(),
            fetch_waiters: BTreeSet::new(),
            in_flight: 0,
        }
    }
}

pub struct HostedTopic {
    pub name: Arc<str>,
    pub id: Uuid,
    pub partitions: Vec<Hosted>,
}

#[derive(Default)]
pub struct Topics {
    by_id: BTreeMap<Uuid, HostedTopic>,
    by_name: BTreeMap<Arc<str>, Uuid>,
}

impl Topics {
    pub fn add_topic(&mut self, name: &str, id: Uuid) {
        let name: Arc<str> = name.into();
        self.by_name.insert(name.clone(), id);
        let partitions = Vec::new();
        self.by_id.entry(id).or_insert(HostedTopic {
            name,
            id,
            partitions,
        });
    }

    /// Adds the next partition of a topic; partitions are made in order and never removed singly.
    pub fn add_partition(&mut self, id: Uuid, partition: Partition) {
        let topic = self.by_id.get_mut(&id).expect("the topic was added first");
        topic.partitions.push(Hosted::new(partition));
    }

    pub fn remove(&mut self, id: Uuid) -> Option<HostedTopic> {
        let topic = self.by_id.remove(&id)?;
        if self.by_name.get(&topic.name) == Some(&id) {
            self.by_name.remove(&topic.name);
        }
        Some(topic)
    }

    pub fn id_of(&self, name: &str) -> Option<Uuid> {
        self.by_name.get(name).copied()
    }

    pub fn topic(&self, id: Uuid) -> Option<&HostedTopic> {
        self.by_id.get(&id)
    }

    pub fn get(&self, key: PartitionKey) -> Option<&Hosted> {
        let topic = self.by_id.get(&key.topic_id)?;
        topic.partitions.get(usize::try_from(key.index).ok()?)
    }

    pub fn get_mut(&mut self, key: PartitionKey) -> Option<&mut Hosted> {
        let topic = self.by_id.get_mut(&key.topic_id)?;
        topic.partitions.get_mut(usize::try_from(key.index).ok()?)
    }

    pub fn iter(&self) -> impl Iterator<Item = &HostedTopic> {
        self.by_id.values()
    }

    pub fn keys(&self) -> Vec<PartitionKey> {
        let keys = |topic: &HostedTopic| {
            let topic_id = topic.id;
            (0..topic.partitions.len() as i32).map(move |index| PartitionKey { topic_id, index })
        };
        self.by_id.values().flat_map(keys).collect()
    }
}
