//! IncrementalAlterConfigs (key 44, versions 0-1): single values set, deleted, appended to or
//! subtracted from (KIP-339). What a value may be is decided in [`super::alter_configs`].
//!
//! Behaviour: APPEND and SUBTRACT work on lists, beginning with what is in effect below the
//! resource where it has no value of its own; an element is never there twice.

use super::alter_configs::{keys_twice, named_twice, no_null};
use super::config::broker_keys::broker_key;
use super::config::topic_keys::topic_key;
use super::config::{BrokerConfig, ConfigType, effective_broker, effective_topic, split_list};
use super::record::MetadataRecord;
use super::refusal::{Refusal, code_and_message};
use super::repeated::repeated;
use super::resource::{ConfigResource, ResourceType};
use super::state::Cluster;
use oncelog_wire::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use oncelog_wire::messages::incremental_alter_configs_response::AlterConfigsResourceResponse;
use oncelog_wire::messages::{IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse};
use std::collections::BTreeSet;

const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

impl Cluster {
    pub fn incremental_alter_configs(
        &self,
        config: &BrokerConfig,
        request: &IncrementalAlterConfigsRequest,
    ) -> (Vec<MetadataRecord>, IncrementalAlterConfigsResponse) {
        let mut records = Vec::new();
        let mut response = IncrementalAlterConfigsResponse::default();
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
                false => self.altered(config, ask),
            };
            let outcome = decided.map(|decided| records.extend(decided));
            response.responses.push(answer(ask, &outcome));
        }
        if request.validate_only {
            records.clear();
        }
        (records, response)
    }

    fn altered(
        &self,
        config: &BrokerConfig,
        ask: &AlterConfigsResource,
    ) -> Result<Vec<MetadataRecord>, Refusal> {
        let resource = self.alterable(ask.resource_type, &ask.resource_name)?;
        if !repeated(ask.configs.iter().map(|entry| entry.name.as_str())).is_empty() {
            return Err(keys_twice());
        }
        let mut values = self.configs.get(&resource).cloned().unwrap_or_default();
        for entry in &ask.configs {
            let name = &entry.name;
            match (entry.config_operation, &entry.value) {
                (DELETE, _) => {
                    // A value that is not known any more can still be removed.
                    values.remove(name);
                }
                (SET | APPEND | SUBTRACT, None) => return Err(no_null(name)),
                (SET, Some(value)) => {
                    values.insert(name.clone(), value.clone());
                }
                (APPEND | SUBTRACT, Some(value)) => {
                    let list = self.edited(config, &resource, values.get(name), entry, value)?;
                    values.insert(name.clone(), list);
                }
                (unknown, _) => {
                    let message = format!("Unknown operation type {unknown}.");
                    return Err(Refusal::invalid_request(message));
                }
            }
        }
        self.changes(config, resource, values)
    }

    /// A list with elements added or taken out.
    fn edited(
        &self,
        config: &BrokerConfig,
        resource: &ConfigResource,
        own: Option<&String>,
        entry: &AlterableConfig,
        value: &str,
    ) -> Result<String, Refusal> {
        let name = entry.name.as_str();
        let layers = self.layers(config, None);
        let inherited = match resource.kind {
            ResourceType::Topic => {
                topic_key(name).map(|key| (key.def.kind, Some(effective_topic(key, &layers).value)))
            }
            _ => broker_key(name).map(|def| (def.kind, effective_broker(def, &layers).value)),
        };
        let Some((ConfigType::List, inherited)) = inherited else {
            let operation = if entry.config_operation == APPEND {
                "APPEND"
            } else {
                "SUBTRACT"
            };
            let message = format!("Can't {operation} to key {name} because its type is not LIST.");
            return Err(Refusal::invalid_config(message));
        };
        let own = own
            .cloned()
            .or_else(|| inherited.map(|value| value.to_text()));
        let mut list = split_list(&own.unwrap_or_default());
        let change = split_list(value);
        if entry.config_operation == APPEND {
            let mut known: BTreeSet<String> = list.iter().cloned().collect();
            list.extend(
                change
                    .into_iter()
                    .filter(|element| known.insert(element.clone())),
            );
        } else {
            let gone: BTreeSet<String> = change.into_iter().collect();
            list.retain(|element| !gone.contains(element));
        }
        Ok(list.join(","))
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

#[cfg(test)]
#[path = "incremental_alter_configs_tests.rs"]
mod tests;
