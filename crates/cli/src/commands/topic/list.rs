//! `oncelog topic list`

use std::io;

use anyhow::Result;
use clap::Args as ClapArgs;
use serde_json::{Value, json};

use crate::admin::Cluster;
use crate::options::Options;
use crate::output::{self, Table};

/// List topics
#[derive(ClapArgs, Debug)]
pub struct Args {
    /// Leave out the cluster's internal topics
    #[arg(long)]
    exclude_internal: bool,
}

pub fn run(options: &Options, args: &Args) -> Result<()> {
    let mut topics = Cluster::connect(options)?.topics(None)?;
    topics.retain(|topic| !(args.exclude_internal && topic.is_internal));
    topics.sort_by(|a, b| a.name.cmp(&b.name));
    let rows = topics.iter().map(|topic| {
        let replication = topic
            .partitions
            .first()
            .map_or(0, |partition| partition.replica_nodes.len());
        (
            topic.name.as_deref().unwrap_or_default(),
            topic.partitions.len(),
            replication,
        )
    });
    if options.json() {
        let rows: Vec<Value> = rows
            .zip(&topics)
            .map(|((name, partitions, replication), topic)| {
                json!({"name": name, "topic_id": topic.topic_id.to_string(),
                       "partitions": partitions, "replication_factor": replication,
                       "internal": topic.is_internal})
            })
            .collect();
        return Ok(output::print_json(&Value::Array(rows))?);
    }
    let mut table = Table::new(&["NAME", "PARTITIONS", "REPLICATION-FACTOR"]);
    for (name, partitions, replication) in rows {
        table.row([
            name.to_owned(),
            partitions.to_string(),
            replication.to_string(),
        ]);
    }
    Ok(table.print(&mut io::stdout().lock())?)
}
