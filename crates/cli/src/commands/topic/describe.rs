//! `oncelog topic describe`: one line for the topic and one for each partition, in the words and order
//! of Kafka's own tool.

use std::collections::BTreeMap;
use std::io::{self, Write};

use anyhow::Result;
use clap::Args as ClapArgs;
use oncelog_wire::messages::DescribeTopicPartitionsRequest;
use oncelog_wire::messages::describe_configs_response::DescribeConfigsResourceResult;
use oncelog_wire::messages::describe_topic_partitions_request::{Cursor, TopicRequest};
use oncelog_wire::messages::metadata_response::MetadataResponseTopic;
use oncelog_wire::{ApiKey, ErrorCode};
use serde_json::{Map, Value, json};

use crate::admin::configs::{self, Resource};
use crate::admin::offsets::{self, Answer, TopicPartition};
use crate::admin::{Cluster, check};
use crate::failure::Failure;
use crate::options::Options;
use crate::output::{self, comma_list};

/// Show a topic's partitions, replicas and changed configuration
#[derive(ClapArgs, Debug)]
pub struct Args {
    /// Topics; all if none is named
    topic: Vec<String>,

    /// The names are regular expressions
    #[arg(short, long, requires = "topic")]
    regex: bool,

    /// Show each partition's first and next offset too
    #[arg(long)]
    offsets: bool,
}

/// Eligible leaders of one partition; both None if the cluster does not tell.
#[derive(Default)]
struct Eligible {
    elr: Option<Vec<i32>>,
    last_known_elr: Option<Vec<i32>>,
}

/// What is shown besides the topics themselves.
struct Details {
    eligible: BTreeMap<TopicPartition, Eligible>,
    /// First and next offset; empty unless asked for.
    bounds: BTreeMap<TopicPartition, (Answer, Answer)>,
}

pub fn run(options: &Options, args: &Args) -> Result<()> {
    let mut cluster = Cluster::connect(options)?;
    let mut topics = if args.topic.is_empty() {
        cluster.topics(None)?
    } else {
        let names = super::names(&mut cluster, &args.topic, args.regex)?;
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        cluster.existing_topics(&names)?
    };
    topics.sort_by(|a, b| a.name.cmp(&b.name));
    for topic in &mut topics {
        topic
            .partitions
            .sort_by_key(|partition| partition.partition_index);
    }
    let resources: Vec<Resource> = topics
        .iter()
        .map(|topic| Resource::Topic(name(topic).into()))
        .collect();
    let configs = configs::describe(&mut cluster, &resources)?;
    let bounds = if args.offsets {
        bounds(&mut cluster, &topics)?
    } else {
        BTreeMap::new()
    };
    let details = Details {
        eligible: eligible(&mut cluster, &topics)?,
        bounds,
    };

    if options.json() {
        let all = topics
            .iter()
            .zip(&configs)
            .map(|(topic, configs)| to_json(topic, configs, &details));
        return Ok(output::print_json(&Value::Array(all.collect()))?);
    }
    let mut out = io::stdout().lock();
    for (topic, configs) in topics.iter().zip(&configs) {
        print(topic, configs, &details, &mut out)?;
    }
    Ok(())
}

fn name(topic: &MetadataResponseTopic) -> &str {
    topic.name.as_deref().unwrap_or_default()
}

/// Those that somebody set: on the topic, on the brokers, or in a file.
fn changed(configs: &[DescribeConfigsResourceResult]) -> impl Iterator<Item = (&str, &str)> {
    configs
        .iter()
        .filter(|config| !configs::is_default(config))
        .map(|config| {
            (
                config.name.as_str(),
                config.value.as_deref().unwrap_or_default(),
            )
        })
}

fn bounds(
    cluster: &mut Cluster<'_>,
    topics: &[MetadataResponseTopic],
) -> Result<BTreeMap<TopicPartition, (Answer, Answer)>, Failure> {
    let all = |timestamp: i64| -> BTreeMap<TopicPartition, i64> {
        let partitions = topics.iter().flat_map(|topic| {
            topic
                .partitions
                .iter()
                .map(|partition| (name(topic).to_owned(), partition.partition_index))
        });
        partitions.map(|partition| (partition, timestamp)).collect()
    };
    let first = offsets::list(cluster, &all(offsets::EARLIEST))?;
    let mut next = offsets::list(cluster, &all(offsets::LATEST))?;
    Ok(first
        .into_iter()
        .map(|(partition, first)| {
            let next = next
                .remove(&partition)
                .unwrap_or(Err(ErrorCode::UnknownServerError));
            (partition, (first, next))
        })
        .collect())
}

/// Asks DescribeTopicPartitions page by page, if the cluster has it (Kafka 3.7 and later).
fn eligible(
    cluster: &mut Cluster<'_>,
    topics: &[MetadataResponseTopic],
) -> Result<BTreeMap<TopicPartition, Eligible>, Failure> {
    let mut eligible = BTreeMap::new();
    if topics.is_empty() || !cluster.bootstrap().offers(ApiKey::DescribeTopicPartitions) {
        return Ok(eligible);
    }
    let names = topics.iter().map(|topic| TopicRequest {
        name: name(topic).into(),
        ..TopicRequest::default()
    });
    let mut request = DescribeTopicPartitionsRequest {
        topics: names.collect(),
        ..DescribeTopicPartitionsRequest::default()
    };
    loop {
        let response = cluster.any(&request)?;
        for topic in response.topics {
            let name = topic.name.unwrap_or_default();
            check(topic.error_code, None, || {
                format!("cannot describe topic {name}")
            })?;
            for partition in topic.partitions {
                let found = Eligible {
                    elr: partition.eligible_leader_replicas,
                    last_known_elr: partition.last_known_elr,
                };
                eligible.insert((name.clone(), partition.partition_index), found);
            }
        }
        match response.next_cursor {
            None => return Ok(eligible),
            Some(next) => {
                let cursor = Cursor {
                    topic_name: next.topic_name,
                    partition_index: next.partition_index,
                    ..Cursor::default()
                };
                // Asking again from the same place would go on for ever.
                if request.cursor.as_ref() == Some(&cursor) {
                    return Err(Failure::refused("cannot describe the topics")
                        .why("the broker repeats the same page"));
                }
                request.cursor = Some(cursor);
            }
        }
    }
}

fn print(
    topic: &MetadataResponseTopic,
    configs: &[DescribeConfigsResourceResult],
    details: &Details,
    out: &mut impl Write,
) -> io::Result<()> {
    let name = name(topic);
    let replication = topic
        .partitions
        .first()
        .map_or(0, |partition| partition.replica_nodes.len());
    let configs: Vec<String> = changed(configs)
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    writeln!(
        out,
        "Topic: {name}\tTopicId: {}\tPartitionCount: {}\tReplicationFactor: {replication}\tConfigs: {}",
        topic.topic_id,
        topic.partitions.len(),
        configs.join(",")
    )?;
    for partition in &topic.partitions {
        let index = partition.partition_index;
        let leader = if partition.leader_id < 0 {
            "none".into()
        } else {
            partition.leader_id.to_string()
        };
        write!(
            out,
            "\tTopic: {name}\tPartition: {index}\tLeader: {leader}\tReplicas: {}\tIsr: {}",
            comma_list(&partition.replica_nodes),
            comma_list(&partition.isr_nodes)
        )?;
        let key = (name.to_owned(), index);
        let nothing = Eligible::default();
        let eligible = details.eligible.get(&key).unwrap_or(&nothing);
        let list = |ids: &Option<Vec<i32>>| ids.as_deref().map_or("N/A".into(), comma_list);
        write!(
            out,
            "\tElr: {}\tLastKnownElr: {}",
            list(&eligible.elr),
            list(&eligible.last_known_elr)
        )?;
        if let Some((first, next)) = details.bounds.get(&key) {
            write!(out, "\tFirst: {}\tNext: {}", show(*first), show(*next))?;
        }
        writeln!(out)?;
    }
    Ok(())
}

fn show(answer: Answer) -> String {
    answer.map_or_else(
        |code| code.kafka_name().to_owned(),
        |offset| offset.to_string(),
    )
}

fn to_json(
    topic: &MetadataResponseTopic,
    configs: &[DescribeConfigsResourceResult],
    details: &Details,
) -> Value {
    let partitions: Vec<Value> = topic
        .partitions
        .iter()
        .map(|partition| {
            let key = (name(topic).to_owned(), partition.partition_index);
            let mut object = Map::new();
            object.insert("partition".into(), json!(partition.partition_index));
            let leader = Some(partition.leader_id).filter(|&id| id >= 0);
            object.insert("leader".into(), json!(leader));
            object.insert("leader_epoch".into(), json!(partition.leader_epoch));
            object.insert("replicas".into(), json!(partition.replica_nodes));
            object.insert("isr".into(), json!(partition.isr_nodes));
            if let Some(eligible) = details.eligible.get(&key) {
                object.insert("elr".into(), json!(eligible.elr));
                object.insert("last_known_elr".into(), json!(eligible.last_known_elr));
            }
            if let Some((first, next)) = details.bounds.get(&key) {
                object.insert("first_offset".into(), json!(first.ok()));
                object.insert("next_offset".into(), json!(next.ok()));
            }
            Value::Object(object)
        })
        .collect();
    json!({
        "name": name(topic),
        "topic_id": topic.topic_id.to_string(),
        "internal": topic.is_internal,
        "configs": changed(configs).collect::<BTreeMap<_, _>>(),
        "partitions": partitions,
    })
}
