//! `oncelog txn describe-producers`

use std::io;

use anyhow::Result;
use clap::Args as ClapArgs;
use oncelog_wire::messages::describe_producers_response::ProducerState;
use serde_json::{Value, json};

use crate::admin::offsets::TopicPartition;
use crate::admin::{Cluster, transactions};
use crate::commands::scope::{self, Scope};
use crate::options::Options;
use crate::output::{self, Table, or_dash};

use super::age;

/// Show who has written to partitions lately, and where a transaction is open
#[derive(ClapArgs, Debug)]
pub struct Args {
    /// TOPIC, or TOPIC:PARTITION,PARTITION
    #[arg(required = true)]
    topic: Vec<Scope>,

    /// Ask this broker instead of each partition's leader
    #[arg(long, value_name = "ID")]
    broker: Option<i32>,
}

pub fn run(options: &Options, args: &Args) -> Result<()> {
    let mut cluster = Cluster::connect(options)?;
    let partitions = scope::partitions(&mut cluster, &args.topic)?;
    let found = transactions::producers(&mut cluster, &partitions, args.broker)?;
    let rows = found
        .iter()
        .flat_map(|(place, producers)| producers.iter().map(move |producer| (place, producer)));
    if options.json() {
        let rows = rows.map(|(place, producer)| to_json(place, producer));
        return Ok(output::print_json(&Value::Array(rows.collect()))?);
    }
    let mut table = Table::new(&[
        "TOPIC",
        "PARTITION",
        "PRODUCER-ID",
        "PRODUCER-EPOCH",
        "COORDINATOR-EPOCH",
        "LAST-SEQUENCE",
        "LAST-TIMESTAMP",
        "TXN-START-OFFSET",
    ]);
    for ((topic, partition), producer) in rows {
        table.row([
            topic.clone(),
            partition.to_string(),
            producer.producer_id.to_string(),
            producer.producer_epoch.to_string(),
            or_dash(known(producer.coordinator_epoch.into())),
            or_dash(known(producer.last_sequence.into())),
            or_dash(known(producer.last_timestamp).map(age::time)),
            or_dash(known(producer.current_txn_start_offset)),
        ]);
    }
    Ok(table.print(&mut io::stdout().lock())?)
}

/// -1 is nothing.
fn known(number: i64) -> Option<i64> {
    Some(number).filter(|&number| number >= 0)
}

pub fn to_json((topic, partition): &TopicPartition, producer: &ProducerState) -> Value {
    json!({"topic": topic, "partition": partition, "producer_id": producer.producer_id,
           "producer_epoch": producer.producer_epoch,
           "coordinator_epoch": known(producer.coordinator_epoch.into()),
           "last_sequence": known(producer.last_sequence.into()),
           "last_timestamp": known(producer.last_timestamp),
           "txn_start_offset": known(producer.current_txn_start_offset)})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_is_null() {
        let producer = ProducerState {
            producer_id: 5,
            coordinator_epoch: -1,
            current_txn_start_offset: 9,
            ..ProducerState::default()
        };
        let shown = to_json(&("t".into(), 1), &producer);
        assert_eq!(
            shown,
            json!({"topic": "t", "partition": 1, "producer_id": 5, "producer_epoch": 0,
                   "coordinator_epoch": null, "last_sequence": null, "last_timestamp": null,
                   "txn_start_offset": 9})
        );
    }
}
