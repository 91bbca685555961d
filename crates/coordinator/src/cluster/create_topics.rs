//! CreateTopics (key 19, versions 2-7): new topics, placed and configured.
//!
//! Behaviour: every topic of a request stands alone; one that is refused does not hold up the
//! others. -1 partitions or replicas mean `num.partitions` and `default.replication.factor`
//! (KIP-464). The answer carries the effective configuration (v5+, KIP-525) and the id (v7+).
//!
//! Deviations from Kafka: names that collide within one request are refused too (Kafka compares
//! with existing topics only); the broker's own topics cannot be made by hand; at most 10,000
//! partitions per request are answered with POLICY_VIOLATION as in Kafka, topic by topic; a
//! request that only validates gets no topic id, for none has been chosen.

use super::config::{BrokerConfig, check_topic_configs, effective_topic, topic_keys::TOPIC_KEYS};
use super::limits::PARTITIONS_PER_REQUEST;
use super::placement::new_partition;
use super::record::MetadataRecord;
use super::refusal::{Refusal, code_and_message};
use super::repeated::repeated;
use super::resource::ResourceType;
use super::state::Cluster;
use super::topic_name::{METADATA_TOPIC, check_topic_name, is_internal, without_dots};
use crate::seed::Seed;
use oncelog_wire::messages::create_topics_request::CreatableTopic;
use oncelog_wire::messages::create_topics_response::{CreatableTopicConfigs, CreatableTopicResult};
use oncelog_wire::messages::{
    ConfigRecord, CreateTopicsRequest, CreateTopicsResponse, TopicRecord,
};
use oncelog_wire::{ErrorCode, Uuid};
use std::collections::{BTreeMap, BTreeSet};

/// A topic that has passed every check.
#[derive(Clone, Debug)]
pub(super) struct NewTopic {
    pub name: String,
    /// The replicas of each partition.
    pub partitions: Vec<Vec<i32>>,
    pub configs: BTreeMap<String, String>,
}

impl NewTopic {
    /// The topic first, then its configuration, then its partitions: who replays a partition
    /// knows by then how it is configured.
    pub fn to_records(&self, id: Uuid) -> Vec<MetadataRecord> {
        let topic = TopicRecord {
            name: self.name.clone(),
            topic_id: id,
            ..Default::default()
        };
        let config = |(name, value): (&String, &String)| {
            MetadataRecord::from(ConfigRecord {
                resource_type: ResourceType::Topic.code(),
                resource_name: self.name.clone(),
                name: name.clone(),
                value: Some(value.clone()),
                ..Default::default()
            })
        };
        let partitions = self.partitions.iter().cloned().enumerate();
        let mut records = vec![topic.into()];
        records.extend(self.configs.iter().map(config));
        records.extend(partitions.map(|(index, replicas)| new_partition(id, index, replicas)));
        records
    }
}

/// What the topics before this one in the same request have taken.
#[derive(Default)]
pub(super) struct Taken {
    dotless: BTreeSet<String>,
    partitions: usize,
}

impl Taken {
    pub fn take(&mut self, topic: &NewTopic) {
        self.dotless.insert(without_dots(&topic.name));
        self.partitions += topic.partitions.len();
    }

    /// Whether so many partitions more are too many for one request.
    pub fn check_partitions(&self, more: usize) -> Result<(), Refusal> {
        if self.partitions.saturating_add(more) <= PARTITIONS_PER_REQUEST {
            return Ok(());
        }
        let message = format!(
            "Excessively large number of partitions per request: at most {PARTITIONS_PER_REQUEST} are made at once."
        );
        Err(Refusal::new(ErrorCode::PolicyViolation, message))
    }
}

impl Cluster {
    pub fn create_topics(
        &self,
        config: &BrokerConfig,
        request: &CreateTopicsRequest,
        seed: &mut Seed,
    ) -> (Vec<MetadataRecord>, CreateTopicsResponse) {
        let mut records = Vec::new();
        let mut taken = Taken::default();
        let mut response = CreateTopicsResponse::default();
        if let Err(refusal) = Refusal::too_many(request.topics.len()) {
            response
                .topics
                .push(refused(&request.topics[0].name, refusal));
            return (records, response);
        }
        let repeated = repeated(request.topics.iter().map(|topic| topic.name.as_str()));
        for name in &repeated {
            let refusal = Refusal::invalid_request("Duplicate topic name.");
            response.topics.push(refused(name, refusal));
        }
        for topic in request
            .topics
            .iter()
            .filter(|t| !repeated.contains(t.name.as_str()))
        {
            let new = match self.plan_topic(config, topic, &taken) {
                Ok(new) => new,
                Err(refusal) => {
                    response.topics.push(refused(&topic.name, refusal));
                    continue;
                }
            };
            taken.take(&new);
            let mut id = Uuid::ZERO;
            if !request.validate_only {
                id = self.new_topic_id(seed);
                records.extend(new.to_records(id));
            }
            response.topics.push(self.created(config, &new, id));
        }
        (records, response)
    }

    /// An id that no topic has.
    pub(super) fn new_topic_id(&self, seed: &mut Seed) -> Uuid {
        loop {
            let id = seed.uuid();
            if !self.names.contains_key(&id) {
                return id;
            }
        }
    }

    fn plan_topic(
        &self,
        config: &BrokerConfig,
        topic: &CreatableTopic,
        taken: &Taken,
    ) -> Result<NewTopic, Refusal> {
        self.check_new_name(&topic.name, taken)?;
        let new = NewTopic {
            name: topic.name.clone(),
            partitions: self.plan_partitions(config, topic, taken)?,
            configs: plan_configs(topic)?,
        };
        check_topic_configs(&self.layers(config, Some(&new.configs)))
            .map_err(Refusal::invalid_config)?;
        Ok(new)
    }

    /// Whether a topic of this name can come into being.
    pub(super) fn check_new_name(&self, name: &str, taken: &Taken) -> Result<(), Refusal> {
        let invalid = |message: String| Refusal::new(ErrorCode::InvalidTopicException, message);
        check_topic_name(name).map_err(invalid)?;
        if name == METADATA_TOPIC || is_internal(name) {
            let message =
                format!("Topic '{name}' is the broker's own; it is made when it is needed.");
            return Err(invalid(message));
        }
        if self.topics.contains_key(name) {
            let message = format!("Topic '{name}' already exists.");
            return Err(Refusal::new(ErrorCode::TopicAlreadyExists, message));
        }
        if let Some(other) = self.colliding(name) {
            return Err(invalid(format!(
                "Topic '{name}' collides with existing topic: {other} ('.' and '_' count as the same)."
            )));
        }
        if taken.dotless.contains(&without_dots(name)) {
            return Err(invalid(format!(
                "Topic '{name}' collides with another topic of this request ('.' and '_' count as the same)."
            )));
        }
        Ok(())
    }

    fn plan_partitions(
        &self,
        config: &BrokerConfig,
        topic: &CreatableTopic,
        taken: &Taken,
    ) -> Result<Vec<Vec<i32>>, Refusal> {
        if !topic.assignments.is_empty() {
            return self.plan_assigned(topic, taken);
        }
        let replication_factor = match topic.replication_factor {
            -1 => config.default_replication_factor,
            given => given,
        };
        if replication_factor < 1 {
            let message =
                "Replication factor must be larger than 0, or -1 to use the default value.";
            return Err(Refusal::new(ErrorCode::InvalidReplicationFactor, message));
        }
        let partitions = match topic.num_partitions {
            -1 => config.num_partitions,
            given => given,
        };
        let count = usize::try_from(partitions).unwrap_or(0);
        if count == 0 {
            let message = "Number of partitions was set to an invalid non-positive value.";
            return Err(Refusal::new(ErrorCode::InvalidPartitions, message));
        }
        taken.check_partitions(count)?;
        self.place(0, count, replication_factor)
    }

    fn plan_assigned(
        &self,
        topic: &CreatableTopic,
        taken: &Taken,
    ) -> Result<Vec<Vec<i32>>, Refusal> {
        let also = |what| {
            format!("A manual partition assignment was specified, but {what} was not set to -1.")
        };
        if topic.replication_factor != -1 {
            return Err(Refusal::invalid_request(also("replication factor")));
        }
        if topic.num_partitions != -1 {
            return Err(Refusal::invalid_request(also("the number of partitions")));
        }
        taken.check_partitions(topic.assignments.len())?;
        let refuse = |message: String| Refusal::new(ErrorCode::InvalidReplicaAssignment, message);
        let mut by_index = BTreeMap::new();
        let mut size = None;
        for assignment in &topic.assignments {
            let (index, replicas) = (assignment.partition_index, &assignment.broker_ids);
            if by_index.insert(index, replicas.clone()).is_some() {
                let message =
                    format!("Found multiple manual partition assignments for partition {index}.");
                return Err(refuse(message));
            }
            self.check_assignment(replicas, size)?;
            size = Some(replicas.len());
        }
        if by_index.keys().copied().ne(0..by_index.len() as i32) {
            let message = "Partitions should be a consecutive 0-based integer sequence.";
            return Err(refuse(message.to_owned()));
        }
        Ok(by_index.into_values().collect())
    }

    fn created(&self, config: &BrokerConfig, new: &NewTopic, id: Uuid) -> CreatableTopicResult {
        let layers = self.layers(config, Some(&new.configs));
        let configs = TOPIC_KEYS.iter().map(|key| {
            let effective = effective_topic(key, &layers);
            CreatableTopicConfigs {
                name: key.def.name.to_owned(),
                value: Some(effective.value.to_text()),
                config_source: effective.source.code(),
                ..Default::default()
            }
        });
        CreatableTopicResult {
            name: new.name.clone(),
            topic_id: id,
            error_message: None,
            num_partitions: new.partitions.len() as i32,
            replication_factor: new.partitions[0].len() as i16,
            configs: Some(configs.collect()),
            ..Default::default()
        }
    }
}

fn plan_configs(topic: &CreatableTopic) -> Result<BTreeMap<String, String>, Refusal> {
    let mut configs = BTreeMap::new();
    for config in &topic.configs {
        let Some(value) = &config.value else {
            let message = format!(
                "Null value not supported for topic configs: {}",
                config.name
            );
            return Err(Refusal::invalid_config(message));
        };
        configs.insert(config.name.clone(), value.clone());
    }
    Ok(configs)
}

fn refused(name: &str, refusal: Refusal) -> CreatableTopicResult {
    let (error_code, error_message) = code_and_message::<()>(&Err(refusal));
    CreatableTopicResult {
        name: name.to_owned(),
        error_code,
        error_message,
        ..Default::default()
    }
}

#[cfg(test)]
#[path = "create_topics_tests.rs"]
mod tests;
