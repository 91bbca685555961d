//! Configuration of topics, brokers and the cluster default: describe, and incremental change.

use oncelog_wire::messages::describe_configs_request::DescribeConfigsResource;
use oncelog_wire::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult,
};
use oncelog_wire::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use oncelog_wire::messages::{DescribeConfigsRequest, IncrementalAlterConfigsRequest};

use crate::failure::Failure;

use super::{Cluster, check};

/// What has a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resource {
    Topic(String),
    /// None is the default of all brokers in the cluster.
    Broker(Option<i32>),
    Group(String),
}

impl Resource {
    fn wire_type(&self) -> i8 {
        match self {
            Resource::Topic(_) => 2,
            Resource::Broker(_) => 4,
            Resource::Group(_) => 32,
        }
    }

    fn wire_name(&self) -> String {
        match self {
            Resource::Topic(name) | Resource::Group(name) => name.clone(),
            Resource::Broker(None) => String::new(),
            Resource::Broker(Some(id)) => id.to_string(),
        }
    }

    /// A broker answers for its own configuration; everything else any broker knows.
    fn answered_by(&self) -> Option<i32> {
        match self {
            Resource::Broker(id) => *id,
            _ => None,
        }
    }
}

impl std::fmt::Display for Resource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Resource::Topic(name) => write!(f, "topic {name}"),
            Resource::Group(name) => write!(f, "group {name}"),
            Resource::Broker(Some(id)) => write!(f, "broker {id}"),
            Resource::Broker(None) => f.write_str("the brokers' default"),
        }
    }
}

/// Where a value comes from, in Kafka's words.
pub fn source_name(source: i8) -> &'static str {
    match source {
        1 => "DYNAMIC_TOPIC_CONFIG",
        2 => "DYNAMIC_BROKER_CONFIG",
        3 => "DYNAMIC_DEFAULT_BROKER_CONFIG",
        4 => "STATIC_BROKER_CONFIG",
        5 => "DEFAULT_CONFIG",
        6 => "DYNAMIC_BROKER_LOGGER_CONFIG",
        7 => "DYNAMIC_CLIENT_METRICS_CONFIG",
        8 => "DYNAMIC_GROUP_CONFIG",
        _ => "UNKNOWN",
    }
}

/// Whether the value is Kafka's built-in default, set by nobody.
pub fn is_default(config: &DescribeConfigsResourceResult) -> bool {
    config.config_source == 5
}

/// Every config of each resource, sorted by name, in the order of `resources`.
pub fn describe(
    cluster: &mut Cluster<'_>,
    resources: &[Resource],
) -> Result<Vec<Vec<DescribeConfigsResourceResult>>, Failure> {
    resources
        .iter()
        .map(|resource| describe_one(cluster, resource))
        .collect()
}

fn describe_one(
    cluster: &mut Cluster<'_>,
    resource: &Resource,
) -> Result<Vec<DescribeConfigsResourceResult>, Failure> {
    let request = DescribeConfigsRequest {
        resources: vec![DescribeConfigsResource {
            resource_type: resource.wire_type(),
            resource_name: resource.wire_name(),
            ..DescribeConfigsResource::default()
        }],
        ..DescribeConfigsRequest::default()
    };
    let response = match resource.answered_by() {
        Some(node) => cluster.on(node, &request)?,
        None => cluster.any(&request)?,
    };
    let what = || format!("cannot read the configuration of {resource}");
    let Some(DescribeConfigsResult {
        error_code,
        error_message,
        mut configs,
        ..
    }) = response.results.into_iter().next()
    else {
        return Err(Failure::refused(what()).why("the answer is empty"));
    };
    check(error_code, error_message.as_deref(), what)?;
    configs.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(configs)
}

/// One change to one key. The numbers are the protocol's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub key: String,
    pub operation: Operation,
    /// None for a delete.
    pub value: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Set = 0,
    Delete = 1,
    Append = 2,
    Subtract = 3,
}

/// Applies all changes to one resource, or none.
pub fn alter(
    cluster: &mut Cluster<'_>,
    resource: &Resource,
    changes: &[Change],
    validate_only: bool,
) -> Result<(), Failure> {
    let request = IncrementalAlterConfigsRequest {
        resources: vec![AlterConfigsResource {
            resource_type: resource.wire_type(),
            resource_name: resource.wire_name(),
            configs: changes
                .iter()
                .map(|change| AlterableConfig {
                    name: change.key.clone(),
                    config_operation: change.operation as i8,
                    value: change.value.clone(),
                    ..AlterableConfig::default()
                })
                .collect(),
            ..AlterConfigsResource::default()
        }],
        validate_only,
        ..IncrementalAlterConfigsRequest::default()
    };
    let response = match resource.answered_by() {
        Some(node) => cluster.on(node, &request)?,
        None => cluster.controller(&request)?,
    };
    let what = || format!("cannot change the configuration of {resource}");
    let Some(result) = response.responses.first() else {
        return Err(Failure::refused(what()).why("the answer is empty"));
    };
    check(result.error_code, result.error_message.as_deref(), what)
}
