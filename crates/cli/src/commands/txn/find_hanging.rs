//! `oncelog txn find-hanging`: transactions that are open in a partition and that nobody will end.
//!
//! Unlike Kafka's own tool it looks at all topics unless some are named, says why a transaction
//! hangs, and names the command that ends it.

use std::collections::BTreeSet;
use std::io::{self, Write};

use anyhow::Result;
use clap::Args as ClapArgs;
use serde_json::{Value, json};

use crate::admin::Cluster;
use crate::admin::offsets::TopicPartition;
use crate::admin::transactions::{self, Open, Prospect};
use crate::commands::scope::{self, Scope};
use crate::failure::Failure;
use crate::options::Options;
use crate::output::{self, Table};

use super::{age, describe_producers};

/// Find transactions that nobody will end, and that hold readers up
#[derive(ClapArgs, Debug)]
pub struct Args {
    /// TOPIC, or TOPIC:PARTITION,PARTITION; all topics if none is named
    topic: Vec<Scope>,

    /// Only partitions with a replica on this broker, as that broker knows them
    #[arg(long, value_name = "ID")]
    broker: Option<i32>,

    /// Look only at transactions without a write for longer than this: at least the largest
    /// transaction timeout that the cluster allows
    #[arg(long, value_name = "DURATION", default_value = "15m")]
    idle_for: age::Age,
}

pub fn run(options: &Options, args: &Args) -> Result<()> {
    let mut cluster = Cluster::connect(options)?;
    let partitions = partitions(&mut cluster, args)?;
    let producers = transactions::producers(&mut cluster, &partitions, args.broker)?;
    let now_ms = age::now_ms();
    let open: Vec<Open> = producers
        .iter()
        .flat_map(|(place, producers)| producers.iter().map(move |it| Open::of(place, it)))
        .flatten()
        .filter(|open| now_ms.saturating_sub(open.producer.last_timestamp) > args.idle_for.ms)
        .collect();
    let prospects = transactions::prospects(&mut cluster, &open)?;
    let hanging: Vec<(&Open, &Prospect)> = open
        .iter()
        .zip(&prospects)
        .filter(|(_, prospect)| prospect.hangs())
        .collect();
    if options.json() {
        let all = hanging
            .iter()
            .map(|(open, prospect)| to_json(open, prospect));
        return Ok(output::print_json(&Value::Array(all.collect()))?);
    }
    table(&hanging, now_ms).print(&mut io::stdout().lock())?;
    let mut err = io::stderr().lock();
    if hanging.is_empty() {
        writeln!(
            err,
            "No transaction hangs: looked at {} partitions.",
            partitions.len()
        )?;
    }
    for (open, _) in hanging {
        writeln!(err, "next: {}", command(open))?;
    }
    Ok(())
}

fn partitions(cluster: &mut Cluster<'_>, args: &Args) -> Result<BTreeSet<TopicPartition>, Failure> {
    let named = match args.topic.is_empty() {
        true => None,
        false => Some(scope::partitions(cluster, &args.topic)?),
    };
    let mut all = BTreeSet::new();
    for topic in cluster.topics(None)? {
        let Some(name) = topic.name else { continue };
        for partition in topic.partitions {
            let here = |id| partition.replica_nodes.contains(&id);
            let place = (name.clone(), partition.partition_index);
            let is_named = named.as_ref().is_none_or(|named| named.contains(&place));
            if is_named && args.broker.is_none_or(here) {
                all.insert(place);
            }
        }
    }
    Ok(all)
}

fn table(hanging: &[(&Open, &Prospect)], now_ms: i64) -> Table {
    let mut table = Table::new(&[
        "TOPIC",
        "PARTITION",
        "PRODUCER-ID",
        "PRODUCER-EPOCH",
        "COORDINATOR-EPOCH",
        "START-OFFSET",
        "LAST-TIMESTAMP",
        "IDLE-FOR",
        "WHY",
    ]);
    for (open, prospect) in hanging {
        let producer = &open.producer;
        table.row([
            open.partition.0.clone(),
            open.partition.1.to_string(),
            producer.producer_id.to_string(),
            producer.producer_epoch.to_string(),
            producer.coordinator_epoch.to_string(),
            producer.current_txn_start_offset.to_string(),
            age::time(producer.last_timestamp),
            age::duration(now_ms.saturating_sub(producer.last_timestamp)),
            prospect.reason(),
        ]);
    }
    table
}

/// What ends it.
fn command(open: &Open) -> String {
    let (topic, partition) = &open.partition;
    let start = open.producer.current_txn_start_offset;
    format!("oncelog txn abort {topic} {partition} --start-offset {start}")
}

fn to_json(open: &Open, prospect: &Prospect) -> Value {
    let mut shown = describe_producers::to_json(&open.partition, &open.producer);
    shown["why"] = json!(prospect.reason());
    shown["next"] = json!(command(open));
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use oncelog_wire::messages::describe_producers_response::ProducerState;

    #[test]
    fn what_hangs_comes_with_the_reason_and_the_command() {
        let producer = ProducerState {
            producer_id: 5,
            current_txn_start_offset: 9,
            last_timestamp: 1_700_000_000_000,
            ..ProducerState::default()
        };
        let place = ("t".to_owned(), 1);
        let open = Open::of(&place, &producer).unwrap();
        let shown = to_json(&open, &Prospect::NoId);
        assert_eq!(shown["next"], "oncelog txn abort t 1 --start-offset 9");
        assert_eq!(shown["why"], "no transactional id has this producer");
        let mut out = Vec::new();
        let table = table(&[(&open, &Prospect::NoId)], 1_700_001_000_000);
        table.print(&mut out).unwrap();
        let out = String::from_utf8(out).unwrap();
        assert!(out.contains("16m 40s"), "{out}");
        let ended = ProducerState {
            current_txn_start_offset: -1,
            ..producer
        };
        assert!(Open::of(&place, &ended).is_none());
    }
}
