//! DescribeConfigs (key 32, versions 1-4): every value that counts, where it comes from, and what
//! it was chosen from.
//!
//! Behaviour: a topic shows all of Kafka's topic configurations; a broker shows the keys that
//! Oncelog acts on; the broker with the empty name shows the dynamic values that hold for all;
//! a group shows what the broker's configuration makes of it. Synonyms, documentation (v3+) on
//! request. No value is a secret, so none is hidden.
//!
//! Deviations from Kafka: a resource that is named twice is described once; log levels are not configuration here (INVALID_REQUEST); see also
//! `config::effective` for one on synonyms.

use super::config::broker_keys::{BROKER_KEYS, broker_key};
use super::config::topic_keys::TOPIC_KEYS;
use super::config::{
    BrokerConfig, ConfigDef, ConfigSynonym, Effective, Update, Value, effective_broker,
    effective_topic,
};
use super::refusal::{Refusal, code_and_message};
use super::resource::{ConfigResource, ResourceType};
use super::state::Cluster;
use super::topic_name::check_topic_name;
use oncelog_wire::ErrorCode;
use oncelog_wire::messages::describe_configs_request::DescribeConfigsResource;
use oncelog_wire::messages::describe_configs_response::{
    DescribeConfigsResourceResult as Entry, DescribeConfigsResult, DescribeConfigsSynonym,
};
use oncelog_wire::messages::{DescribeConfigsRequest, DescribeConfigsResponse};
use std::collections::BTreeSet;

/// The configurations of a group and the broker keys that they come from (KIP-848).
const GROUP_KEYS: &[(&str, &str)] = &[
    (
        "consumer.heartbeat.interval.ms",
        "group.consumer.heartbeat.interval.ms",
    ),
    (
        "consumer.session.timeout.ms",
        "group.consumer.session.timeout.ms",
    ),
];

impl Cluster {
    pub fn describe_configs(
        &self,
        config: &BrokerConfig,
        request: &DescribeConfigsRequest,
    ) -> DescribeConfigsResponse {
        let describe = |ask: &DescribeConfigsResource| {
            let described = self.described(config, ask);
            let (error_code, error_message) = code_and_message(&described);
            let mut configs = described.unwrap_or_default();
            if let Some(keys) = ask
                .configuration_keys
                .as_ref()
                .filter(|keys| !keys.is_empty())
            {
                configs.retain(|entry| keys.contains(&entry.name));
            }
            for entry in &mut configs {
                if !request.include_synonyms {
                    entry.synonyms.clear();
                }
                if !request.include_documentation {
                    entry.documentation = None;
                }
            }
            DescribeConfigsResult {
                error_code,
                error_message,
                resource_type: ask.resource_type,
                resource_name: ask.resource_name.clone(),
                configs,
                ..Default::default()
            }
        };
        if let Err(refusal) = Refusal::too_many(request.resources.len()) {
            let (error_code, error_message) = code_and_message::<()>(&Err(refusal));
            let result = DescribeConfigsResult {
                error_code,
                error_message,
                ..Default::default()
            };
            let results = vec![result];
            return DescribeConfigsResponse {
                results,
                ..Default::default()
            };
        }
        let mut seen = BTreeSet::new();
        let asked = request.resources.iter();
        let once = asked.filter(|ask| seen.insert((ask.resource_type, ask.resource_name.as_str())));
        DescribeConfigsResponse {
            results: once.map(describe).collect(),
            ..Default::default()
        }
    }

    fn described(
        &self,
        config: &BrokerConfig,
        ask: &DescribeConfigsResource,
    ) -> Result<Vec<Entry>, Refusal> {
        let name = ask.resource_name.as_str();
        match ResourceType::from_code(ask.resource_type) {
            Some(ResourceType::Topic) => self.described_topic(config, name),
            Some(ResourceType::Broker) => {
                self.check_broker_name(name)?;
                Ok(match name.is_empty() {
                    true => self.described_all_brokers(),
                    false => self.described_broker(config),
                })
            }
            Some(ResourceType::BrokerLogger) => {
                let message = "Log levels are set when the broker starts and are not shown here.";
                Err(Refusal::invalid_request(message))
            }
            Some(ResourceType::ClientMetrics | ResourceType::Group) if name.is_empty() => Err(
                Refusal::invalid_request("The resource's name must not be empty."),
            ),
            Some(ResourceType::ClientMetrics) => Ok(Vec::new()),
            Some(ResourceType::Group) => Ok(self.described_group(config)),
            None => {
                let message = format!(
                    "Unexpected resource type {} for resource {name}",
                    ask.resource_type
                );
                Err(Refusal::invalid_request(message))
            }
        }
    }

    fn described_topic(&self, config: &BrokerConfig, name: &str) -> Result<Vec<Entry>, Refusal> {
        check_topic_name(name)
            .map_err(|message| Refusal::new(ErrorCode::InvalidTopicException, message))?;
        if !self.topics.contains_key(name) {
            return Err(Refusal::unknown_topic(name));
        }
        let overrides = self.configs.get(&ConfigResource::topic(name));
        let layers = self.layers(config, overrides);
        let show = |key| {
            let key: &super::config::topic_keys::TopicKey = key;
            let effective = effective_topic(key, &layers);
            let value = Some(effective.value.clone());
            entry(&key.def, value, effective, false)
        };
        Ok(TOPIC_KEYS.iter().map(show).collect())
    }

    fn described_broker(&self, config: &BrokerConfig) -> Vec<Entry> {
        let layers = self.layers(config, None);
        let show = |def: &'static ConfigDef| {
            let effective = effective_broker(def, &layers);
            let value = effective.value.clone();
            entry(def, value, effective, def.update == Update::ReadOnly)
        };
        BROKER_KEYS.iter().map(show).collect()
    }

    fn described_all_brokers(&self) -> Vec<Entry> {
        let values = self.configs.get(&ConfigResource::all_brokers());
        let layers = super::config::Layers {
            default_broker: values,
            ..Default::default()
        };
        let known = values
            .into_iter()
            .flatten()
            .filter_map(|(name, _)| broker_key(name));
        let show = |def| {
            let mut effective = effective_broker(def, &layers);
            effective
                .synonyms
                .retain(|synonym| synonym.source == effective.source);
            let value = effective.value.clone();
            entry(def, value, effective, false)
        };
        known.map(show).collect()
    }

    /// Read-only, for groups have no values of their own yet.
    fn described_group(&self, config: &BrokerConfig) -> Vec<Entry> {
        let layers = self.layers(config, None);
        let show = |(name, key): &(&str, &str)| {
            let def = broker_key(key).expect("a key of the table");
            let effective = effective_broker(def, &layers);
            let value = effective.value.clone();
            let mut entry = entry(def, value, effective, true);
            entry.name = name.to_string();
            entry
        };
        GROUP_KEYS.iter().map(show).collect()
    }
}

fn entry<V>(
    def: &ConfigDef,
    value: Option<Value>,
    effective: Effective<V>,
    read_only: bool,
) -> Entry {
    Entry {
        name: def.name.to_owned(),
        value: value.map(|value| value.to_text()),
        read_only,
        config_source: effective.source.code(),
        synonyms: effective.synonyms.into_iter().map(synonym).collect(),
        config_type: def.kind.code(),
        documentation: Some(def.doc.to_owned()),
        ..Default::default()
    }
}

fn synonym(synonym: ConfigSynonym) -> DescribeConfigsSynonym {
    DescribeConfigsSynonym {
        name: synonym.name.to_owned(),
        value: Some(synonym.text),
        source: synonym.source.code(),
        ..Default::default()
    }
}

#[cfg(test)]
#[path = "describe_configs_tests.rs"]
mod tests;
