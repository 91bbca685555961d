//! Records -> state, and the state as records again.

use super::record::MetadataRecord;
use super::resource::{ConfigResource, ResourceType};
use super::state::{Cluster, PartitionState, RegisteredBroker, TopicState};
use super::topic_name::{check_topic_name, without_dots};
use oncelog_wire::Uuid;
use oncelog_wire::messages::{
    ConfigRecord, FeatureLevelRecord, PartitionChangeRecord, PartitionRecord, ProducerIdsRecord,
    RemoveTopicRecord, TopicRecord,
};

/// A record that does not fit the state that the records before it made: the log is damaged, or
/// written by something else.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    #[error("topic {name} with id {id} cannot be made: {why}")]
    BadTopic { name: String, id: Uuid, why: String },
    #[error("there is no topic with id {0}")]
    UnknownTopic(Uuid),
    #[error("topic {topic} has {count} partitions, and the record is for partition {partition}")]
    BadPartition {
        topic: String,
        count: usize,
        partition: i32,
    },
    #[error("configurations of resources of type {0} are not known here")]
    UnknownResource(i8),
    #[error("producer ids go back from {from} to {to}")]
    ProducerIdsGoBack { from: i64, to: i64 },
}

impl Cluster {
    /// Applies one committed record. After an error the state is as it was before.
    pub fn replay(&mut self, record: &MetadataRecord) -> Result<(), ReplayError> {
        match record {
            MetadataRecord::RegisterBroker(record) => {
                // Our own registration comes from our configuration, see `Cluster::new`.
                if record.broker_id != self.node_id {
                    let record = record.clone();
                    self.brokers
                        .insert(record.broker_id, RegisteredBroker { record });
                }
            }
            MetadataRecord::Topic(record) => self.replay_topic(record)?,
            MetadataRecord::Partition(record) => self.replay_partition(record)?,
            MetadataRecord::PartitionChange(record) => self.replay_partition_change(record)?,
            MetadataRecord::RemoveTopic(record) => self.replay_remove_topic(record)?,
            MetadataRecord::Config(record) => self.replay_config(record)?,
            MetadataRecord::FeatureLevel(record) => self.replay_feature_level(record),
            MetadataRecord::ProducerIds(record) => self.replay_producer_ids(record)?,
            MetadataRecord::NoOp(_) => {}
        }
        self.metadata_offset += 1;
        Ok(())
    }

    fn replay_topic(&mut self, record: &TopicRecord) -> Result<(), ReplayError> {
        let TopicRecord { name, topic_id, .. } = record;
        let problem = if let Err(why) = check_topic_name(name) {
            Some(why)
        } else if self.topics.contains_key(name) || self.names.contains_key(topic_id) {
            Some("the name or the id is taken".to_owned())
        } else if let Some(other) = self.colliding(name) {
            Some(format!("it collides with {other}"))
        } else if topic_id.is_zero() {
            Some("the id is zero".to_owned())
        } else {
            None
        };
        if let Some(why) = problem {
            let (name, id) = (name.clone(), *topic_id);
            return Err(ReplayError::BadTopic { name, id, why });
        }
        let topic = TopicState {
            name: name.clone(),
            id: *topic_id,
            partitions: Vec::new(),
        };
        self.topics.insert(name.clone(), topic);
        self.names.insert(*topic_id, name.clone());
        self.dotless.insert(without_dots(name), name.clone());
        self.topics_epoch += 1;
        Ok(())
    }

    fn replay_partition(&mut self, record: &PartitionRecord) -> Result<(), ReplayError> {
        let topic = self.topic_mut(record.topic_id)?;
        let state = PartitionState {
            replicas: record.replicas.clone(),
            isr: record.isr.clone(),
            removing_replicas: record.removing_replicas.clone(),
            adding_replicas: record.adding_replicas.clone(),
            leader: record.leader,
            leader_recovery_state: record.leader_recovery_state,
            leader_epoch: record.leader_epoch,
            partition_epoch: record.partition_epoch,
            directories: record.directories.clone(),
            eligible_leader_replicas: record.eligible_leader_replicas.clone().unwrap_or_default(),
            last_known_elr: record.last_known_elr.clone().unwrap_or_default(),
        };
        let count = topic.partitions.len();
        match usize::try_from(record.partition_id) {
            Ok(index) if index < count => topic.partitions[index] = state,
            Ok(index) if index == count => topic.partitions.push(state),
            _ => return Err(bad_partition(topic, record.partition_id)),
        }
        self.topics_epoch += 1;
        Ok(())
    }

    /// KIP-497: what the record does not name stays; a new leader means a new leader epoch.
    fn replay_partition_change(
        &mut self,
        record: &PartitionChangeRecord,
    ) -> Result<(), ReplayError> {
        const NO_CHANGE: i32 = -2;
        let topic = self.topic_mut(record.topic_id)?;
        let index = usize::try_from(record.partition_id).unwrap_or(usize::MAX);
        if index >= topic.partitions.len() {
            return Err(bad_partition(topic, record.partition_id));
        }
        let partition = &mut topic.partitions[index];
        let set = |field: &mut Vec<i32>, change: &Option<Vec<i32>>| {
            if let Some(change) = change {
                field.clone_from(change);
            }
        };
        set(&mut partition.isr, &record.isr);
        set(&mut partition.replicas, &record.replicas);
        set(&mut partition.removing_replicas, &record.removing_replicas);
        set(&mut partition.adding_replicas, &record.adding_replicas);
        set(
            &mut partition.eligible_leader_replicas,
            &record.eligible_leader_replicas,
        );
        set(&mut partition.last_known_elr, &record.last_known_elr);
        if let Some(directories) = &record.directories {
            partition.directories.clone_from(directories);
        }
        if record.leader != NO_CHANGE {
            partition.leader = record.leader;
            partition.leader_epoch = partition.leader_epoch.wrapping_add(1);
        }
        if record.leader_recovery_state >= 0 {
            partition.leader_recovery_state = record.leader_recovery_state;
        }
        partition.partition_epoch = partition.partition_epoch.wrapping_add(1);
        self.topics_epoch += 1;
        Ok(())
    }

    fn replay_remove_topic(&mut self, record: &RemoveTopicRecord) -> Result<(), ReplayError> {
        let id = record.topic_id;
        let name = self
            .names
            .remove(&id)
            .ok_or(ReplayError::UnknownTopic(id))?;
        self.topics.remove(&name);
        self.dotless.remove(&without_dots(&name));
        self.configs.remove(&ConfigResource::topic(&name));
        self.topics_epoch += 1;
        Ok(())
    }

    fn replay_config(&mut self, record: &ConfigRecord) -> Result<(), ReplayError> {
        let kind = ResourceType::from_code(record.resource_type)
            .ok_or(ReplayError::UnknownResource(record.resource_type))?;
        let name = record.resource_name.clone();
        let resource = ConfigResource { kind, name };
        let values = self.configs.entry(resource.clone()).or_default();
        match &record.value {
            Some(value) => values.insert(record.name.clone(), value.clone()),
            None => values.remove(&record.name),
        };
        if values.is_empty() {
            self.configs.remove(&resource);
        }
        Ok(())
    }

    fn replay_feature_level(&mut self, record: &FeatureLevelRecord) {
        match record.feature_level {
            0 => self.features.remove(&record.name),
            level => self.features.insert(record.name.clone(), level),
        };
    }

    fn replay_producer_ids(&mut self, record: &ProducerIdsRecord) -> Result<(), ReplayError> {
        let (from, to) = (self.next_producer_id, record.next_producer_id);
        if to < from {
            return Err(ReplayError::ProducerIdsGoBack { from, to });
        }
        self.next_producer_id = to;
        Ok(())
    }

    fn topic_mut(&mut self, id: Uuid) -> Result<&mut TopicState, ReplayError> {
        let name = self.names.get(&id).ok_or(ReplayError::UnknownTopic(id))?;
        Ok(self
            .topics
            .get_mut(name)
            .expect("names and topics go together"))
    }

    /// Records that bring this state about in a new [`Cluster`] of the same broker.
    pub fn to_records(&self) -> Vec<MetadataRecord> {
        let mut records = Vec::new();
        for (name, level) in &self.features {
            let record = FeatureLevelRecord {
                name: name.clone(),
                feature_level: *level,
                ..Default::default()
            };
            records.push(record.into());
        }
        let others = self
            .brokers
            .values()
            .filter(|b| b.record.broker_id != self.node_id);
        records.extend(others.map(|broker| MetadataRecord::from(broker.record.clone())));
        for topic in self.topics.values() {
            let record = TopicRecord {
                name: topic.name.clone(),
                topic_id: topic.id,
                ..Default::default()
            };
            records.push(record.into());
            let partitions = topic.partitions.iter().enumerate();
            records.extend(partitions.map(|(i, state)| to_record(topic.id, i, state)));
        }
        for (resource, values) in &self.configs {
            let record = |(name, value): (&String, &String)| ConfigRecord {
                resource_type: resource.kind.code(),
                resource_name: resource.name.clone(),
                name: name.clone(),
                value: Some(value.clone()),
                ..Default::default()
            };
            records.extend(
                values
                    .iter()
                    .map(|value| MetadataRecord::from(record(value))),
            );
        }
        if self.next_producer_id > 0 {
            let record = ProducerIdsRecord {
                broker_id: self.node_id,
                next_producer_id: self.next_producer_id,
                ..Default::default()
            };
            records.push(record.into());
        }
        records
    }
}

fn bad_partition(topic: &TopicState, partition: i32) -> ReplayError {
    ReplayError::BadPartition {
        topic: topic.name.clone(),
        count: topic.partitions.len(),
        partition,
    }
}

fn to_record(topic_id: Uuid, index: usize, state: &PartitionState) -> MetadataRecord {
    let some = |list: &Vec<i32>| (!list.is_empty()).then(|| list.clone());
    let record = PartitionRecord {
        partition_id: index as i32,
        topic_id,
        replicas: state.replicas.clone(),
        isr: state.isr.clone(),
        removing_replicas: state.removing_replicas.clone(),
        adding_replicas: state.adding_replicas.clone(),
        leader: state.leader,
        leader_recovery_state: state.leader_recovery_state,
        leader_epoch: state.leader_epoch,
        partition_epoch: state.partition_epoch,
        directories: state.directories.clone(),
        eligible_leader_replicas: some(&state.eligible_leader_replicas),
        last_known_elr: some(&state.last_known_elr),
        ..Default::default()
    };
    record.into()
}

#[cfg(test)]
#[path = "replay_tests.rs"]
mod tests;
