//! `oncelog group delete-offsets`: forget what a group committed, partition by partition.

use std::collections::BTreeMap;

use anyhow::Result;
use clap::Args as ClapArgs;
use oncelog_wire::messages::OffsetDeleteRequest;
use oncelog_wire::messages::offset_delete_request::{
    OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};

use crate::admin::{Cluster, check, groups, refusal};
use crate::commands::scope::{Scope, partitions};
use crate::options::Options;
use crate::results::Results;

/// Delete a group's committed offsets of topics that no member reads
#[derive(ClapArgs, Debug)]
pub struct Args {
    /// The group
    group: String,

    /// TOPIC, or TOPIC:PARTITION,PARTITION; may be repeated
    #[arg(short, long, required = true)]
    topic: Vec<Scope>,
}

pub fn run(options: &Options, args: &Args) -> Result<()> {
    let group = &args.group;
    let mut cluster = Cluster::connect(options)?;
    let mut topics: BTreeMap<String, Vec<OffsetDeleteRequestPartition>> = BTreeMap::new();
    for (topic, partition_index) in partitions(&mut cluster, &args.topic)? {
        topics
            .entry(topic)
            .or_default()
            .push(OffsetDeleteRequestPartition { partition_index });
    }
    let coordinator = groups::coordinator(&mut cluster, group)?;
    let request = OffsetDeleteRequest {
        group_id: group.clone(),
        topics: topics
            .into_iter()
            .map(|(name, partitions)| OffsetDeleteRequestTopic { name, partitions })
            .collect(),
    };
    let response = cluster.on(coordinator, &request)?;
    check(response.error_code, None, || {
        format!("cannot delete offsets of group {group}")
    })?;
    let mut results = Results::default();
    for topic in response.topics {
        for partition in topic.partitions {
            let name = format!("{}@{}", topic.name, partition.partition_index);
            let outcome = match partition.error_code {
                0 => Ok(format!("deleted the offset of group {group} in {name}")),
                code => {
                    let what = format!("cannot delete the offset of group {group} in {name}");
                    Err(refusal(what, code, None))
                }
            };
            results.push(name, outcome);
        }
    }
    results.finish(options)
}
