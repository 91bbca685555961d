//! `oncelog topic create`

use anyhow::Result;
use clap::Args as ClapArgs;
use oncelog_wire::ErrorCode;
use oncelog_wire::messages::CreateTopicsRequest;
use oncelog_wire::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};

use crate::admin::{Cluster, refusal};
use crate::options::{Options, parse_property};
use crate::results::Results;

/// Create topics
#[derive(ClapArgs, Debug)]
pub struct Args {
    /// Names of the new topics
    #[arg(required = true)]
    topic: Vec<String>,

    /// Number of partitions [default: the cluster's]
    #[arg(short, long, value_parser = clap::value_parser!(i32).range(1..))]
    partitions: Option<i32>,

    /// Number of replicas of each partition [default: the cluster's]
    #[arg(short, long, value_parser = clap::value_parser!(i16).range(1..))]
    replication_factor: Option<i16>,

    /// A topic configuration, as retention.ms=1000; may be repeated
    #[arg(short, long = "config", value_name = "KEY=VALUE", value_parser = parse_property)]
    config: Vec<(String, String)>,

    /// A topic that exists already is no error
    #[arg(long)]
    if_not_exists: bool,

    /// Only check whether it could be done
    #[arg(long)]
    dry_run: bool,
}

pub fn run(options: &Options, args: &Args) -> Result<()> {
    let mut cluster = Cluster::connect(options)?;
    let configs: Vec<CreatableTopicConfig> = args
        .config
        .iter()
        .map(|(key, value)| CreatableTopicConfig {
            name: key.clone(),
            value: Some(value.clone()),
            ..CreatableTopicConfig::default()
        })
        .collect();
    let request = CreateTopicsRequest {
        topics: args
            .topic
            .iter()
            .map(|name| CreatableTopic {
                name: name.clone(),
                // -1 is the protocol's word for the cluster's own default.
                num_partitions: args.partitions.unwrap_or(-1),
                replication_factor: args.replication_factor.unwrap_or(-1),
                configs: configs.clone(),
                ..CreatableTopic::default()
            })
            .collect(),
        timeout_ms: i32::try_from(options.request_timeout().as_millis()).unwrap_or(i32::MAX),
        validate_only: args.dry_run,
        ..CreateTopicsRequest::default()
    };
    let done = if args.dry_run {
        "could create"
    } else {
        "created"
    };
    let mut results = Results::default();
    for topic in cluster.controller(&request)?.topics {
        let name = topic.name;
        let exists = topic.error_code == ErrorCode::TopicAlreadyExists.code();
        let outcome = match topic.error_code {
            0 => Ok(format!("{done} topic {name}")),
            _ if exists && args.if_not_exists => Ok(format!("topic {name} exists already")),
            code => {
                let what = format!("cannot create topic {name}");
                Err(refusal(what, code, topic.error_message.as_deref()))
            }
        };
        results.push(name, outcome);
    }
    results.finish(options)
}
