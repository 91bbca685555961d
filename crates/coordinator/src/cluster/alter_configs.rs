//! AlterConfigs (key 33, versions 0-2): a resource's configuration replaced as a whole; and what
//! it shares with IncrementalAlterConfigs.
//!
//! Behaviour: what a request does not name goes back to its default. Each resource stands alone:
//! one that is refused does not hold up the others. A mistake in a topic's values is
//! INVALID_CONFIG, in a broker's INVALID_REQUEST, as in Kafka (KAFKA-13609).
//!
//! Deviations from Kafka: a broker takes only keys that Oncelog acts on and that may change while
//! it runs; log levels, client metrics and groups have no configuration here (INVALID_REQUEST).

use super::config::broker_keys::{BROKER_KEYS, broker_key};
use super::config::{BrokerConfig, Update, check_topic_configs, did_you_mean, same_start};
use super::limits::CONFIG_VALUE_BYTES;
use super::record::MetadataRecord;
use super::refusal::{Refusal, code_and_message};
use super::repeated::repeated;
use super::resource::{ConfigResource, ResourceType};
use super::state::Cluster;
use oncelog_wire::messages::alter_configs_request::AlterConfigsResource;
use oncelog_wire::messages::alter_configs_response::AlterConfigsResourceResponse;
use oncelog_wire::messages::{AlterConfigsRequest, AlterConfigsResponse, ConfigRecord};
use std::collections::BTreeMap;

impl Cluster {
    pub fn alter_configs(
        &self,
        config: &BrokerConfig,
        request: &AlterConfigsRequest,
    ) -> (Vec<MetadataRecord>, AlterConfigsResponse) {
        let mut records = Vec::new();
        let mut response = AlterConfigsResponse::default();
        if let Err(refusal) = Refusal::too_many(request.resources.len()) {
            response
                .responses
                .push(answer(&request.resources[0], &Err(refusal)));
            return (records, response);
        }
        let keys = request
            .resources
            .iter()
            .map(|r| (r.resource_type, r.resource_name.as_str()));
        let repeated = repeated(keys);
        for ask in &request.resources {
            let decided = match repeated.contains(&(ask.resource_type, ask.resource_name.as_str()))
            {
                true => Err(named_twice()),
                false => self.replaced(config, ask),
            };
            let outcome = decided.map(|decided| records.extend(decided));
            response.responses.push(answer(ask, &outcome));
        }
        if request.validate_only {
            records.clear();
        }
        (records, response)
    }

    fn replaced(
        &self,
        config: &BrokerConfig,
        ask: &AlterConfigsResource,
    ) -> Result<Vec<MetadataRecord>, Refusal> {
        let resource = self.alterable(ask.resource_type, &ask.resource_name)?;
        if !repeated(ask.configs.iter().map(|entry| entry.name.as_str())).is_empty() {
            return Err(keys_twice());
        }
        let mut values = BTreeMap::new();
        for entry in &ask.configs {
            let Some(value) = &entry.value else {
                return Err(no_null(&entry.name));
            };
            values.insert(entry.name.clone(), value.clone());
        }
        self.changes(config, resource, values)
    }

    /// The resource that a request means, if its configuration can be changed at all.
    pub(super) fn alterable(&self, kind: i8, name: &str) -> Result<ConfigResource, Refusal> {
        let refuse = |message: String| Err(Refusal::invalid_request(message));
        let name = name.to_owned();
        match ResourceType::from_code(kind) {
            Some(kind @ ResourceType::Topic) if self.topics.contains_key(&name) => {
                Ok(ConfigResource { kind, name })
            }
            Some(ResourceType::Topic) => Err(Refusal::unknown_topic(&name)),
            Some(kind @ ResourceType::Broker) => {
                self.check_broker_name(&name)?;
                Ok(ConfigResource { kind, name })
            }
            Some(ResourceType::BrokerLogger) => {
                refuse("Log levels are set when the broker starts and cannot be changed.".to_owned())
            }
            Some(ResourceType::ClientMetrics) => {
                refuse("Client metrics are not collected, so there is nothing to configure.".to_owned())
            }
            Some(ResourceType::Group) => refuse(
                "Groups have no configuration of their own yet; the broker's group.* keys hold for all."
                    .to_owned(),
            ),
            None => refuse(format!("Unknown resource type {kind}.")),
        }
    }

    /// A broker is named by its number, all of them by nothing.
    pub(super) fn check_broker_name(&self, name: &str) -> Result<(), Refusal> {
        let message = match name.parse::<i32>() {
            _ if name.is_empty() || name == self.node_id.to_string() => return Ok(()),
            Ok(_) => format!(
                "Unexpected broker id, expected {} or empty string, but received {name}.",
                self.node_id
            ),
            Err(_) => format!("Broker id must be an integer, but it is: {name}"),
        };
        Err(Refusal::invalid_request(message))
    }

    /// The records that give a resource these values and no others.
    pub(super) fn changes(
        &self,
        config: &BrokerConfig,
        resource: ConfigResource,
        values: BTreeMap<String, String>,
    ) -> Result<Vec<MetadataRecord>, Refusal> {
        if let Some(name) = values
            .iter()
            .find(|(_, v)| v.len() > CONFIG_VALUE_BYTES)
            .map(|(n, _)| n)
        {
            let message = format!("The value of {name} is longer than {CONFIG_VALUE_BYTES} bytes.");
            return Err(Refusal::invalid_config(message));
        }
        match resource.kind {
            ResourceType::Topic => check_topic_configs(&self.layers(config, Some(&values)))
                .map_err(Refusal::invalid_config)?,
            _ => self.check_broker_values(config, &resource, &values)?,
        }
        let none = BTreeMap::new();
        let before = self.configs.get(&resource).unwrap_or(&none);
        let removed = before
            .keys()
            .filter(|name| !values.contains_key(*name))
            .map(|name| (name, None));
        let set = values
            .iter()
            .filter(|(name, value)| before.get(*name) != Some(*value));
        let set = set.map(|(name, value)| (name, Some(value.clone())));
        let record = |(name, value): (&String, Option<String>)| {
            MetadataRecord::from(ConfigRecord {
                resource_type: resource.kind.code(),
                resource_name: resource.name.clone(),
                name: name.clone(),
                value,
                ..Default::default()
            })
        };
        Ok(removed.chain(set).map(record).collect())
    }

    fn check_broker_values(
        &self,
        config: &BrokerConfig,
        resource: &ConfigResource,
        values: &BTreeMap<String, String>,
    ) -> Result<(), Refusal> {
        for name in values.keys() {
            check_dynamic(name)?;
        }
        let mut layers = self.layers(config, None);
        match resource.name.is_empty() {
            true => layers.default_broker = Some(values),
            false => layers.broker = Some(values),
        }
        let together = [layers.file, layers.default_broker, layers.broker];
        let together = together.into_iter().flatten().flatten();
        let properties = together
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        match BrokerConfig::from_properties(&properties) {
            Ok(_) => Ok(()),
            Err(errors) => {
                let errors: Vec<String> = errors.iter().map(|e| e.message.clone()).collect();
                Err(Refusal::invalid_request(errors.join("; ")))
            }
        }
    }
}

fn answer(
    ask: &AlterConfigsResource,
    outcome: &Result<(), Refusal>,
) -> AlterConfigsResourceResponse {
    let (error_code, error_message) = code_and_message(outcome);
    AlterConfigsResourceResponse {
        error_code,
        error_message,
        resource_type: ask.resource_type,
        resource_name: ask.resource_name.clone(),
        ..Default::default()
    }
}

fn check_dynamic(name: &str) -> Result<(), Refusal> {
    match broker_key(name) {
        Some(def) if def.update == Update::ClusterWide => Ok(()),
        Some(_) => {
            let message = format!(
                "Cannot update {name} dynamically: it is read when the broker starts; change it \
                 in the broker's configuration."
            );
            Err(Refusal::invalid_request(message))
        }
        None => {
            let known = BROKER_KEYS
                .iter()
                .map(|def| def.name)
                .filter(|key| same_start(key, name));
            let hint = match did_you_mean(name, known) {
                Some(near) => format!("; did you mean {near}?"),
                None => ", or one that has no effect here.".to_owned(),
            };
            Err(Refusal::invalid_request(format!(
                "Unknown broker config name: {name}{hint}"
            )))
        }
    }
}

pub(super) fn named_twice() -> Refusal {
    Refusal::invalid_request("Each resource must appear at most once.")
}

pub(super) fn keys_twice() -> Refusal {
    Refusal::invalid_request("Error due to duplicate config keys")
}

pub(super) fn no_null(name: &str) -> Refusal {
    Refusal::invalid_request(format!("Null value not supported for : {name}"))
}

#[cfg(test)]
#[path = "alter_configs_tests.rs"]
mod tests;
