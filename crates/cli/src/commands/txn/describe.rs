//! `oncelog txn describe`

use std::io;

use anyhow::Result;
use clap::Args as ClapArgs;
use serde_json::{Value, json};

use crate::admin::Cluster;
use crate::admin::offsets::TopicPartition;
use crate::admin::transactions::{self, Transaction};
use crate::failure::Failure;
use crate::options::Options;
use crate::output::{self, Table, or_dash};

use super::age;

/// Show the state of transactional ids
#[derive(ClapArgs, Debug)]
pub struct Args {
    /// Transactional ids to describe
    #[arg(required = true)]
    transactional_id: Vec<String>,
}

pub fn run(options: &Options, args: &Args) -> Result<()> {
    let mut cluster = Cluster::connect(options)?;
    let all = args
        .transactional_id
        .iter()
        .map(|id| transactions::describe(&mut cluster, id))
        .collect::<Result<Vec<Transaction>, Failure>>()?;
    let now_ms = age::now_ms();
    if options.json() {
        let all = all.iter().map(|transaction| to_json(transaction, now_ms));
        return Ok(output::print_json(&Value::Array(all.collect()))?);
    }
    Ok(table(&all, now_ms).print(&mut io::stdout().lock())?)
}

fn table(all: &[Transaction], now_ms: i64) -> Table {
    let mut table = Table::new(&[
        "TRANSACTIONAL-ID",
        "COORDINATOR",
        "PRODUCER-ID",
        "PRODUCER-EPOCH",
        "STATE",
        "TIMEOUT",
        "STARTED",
        "OPEN-FOR",
        "PARTITIONS",
    ]);
    for transaction in all {
        let state = &transaction.state;
        let start = transaction.start_ms();
        let partitions: Vec<String> = transaction.partitions().iter().map(place).collect();
        table.row([
            state.transactional_id.clone(),
            transaction.coordinator.to_string(),
            state.producer_id.to_string(),
            state.producer_epoch.to_string(),
            state.transaction_state.clone(),
            age::duration(state.transaction_timeout_ms.into()),
            or_dash(start.map(age::time)),
            or_dash(start.map(|start| age::duration(now_ms.saturating_sub(start)))),
            or_dash(Some(partitions.join(",")).filter(|text| !text.is_empty())),
        ]);
    }
    table
}

/// `topic-0`, as Kafka's own tools write it.
fn place((topic, partition): &TopicPartition) -> String {
    format!("{topic}-{partition}")
}

pub fn to_json(transaction: &Transaction, now_ms: i64) -> Value {
    let state = &transaction.state;
    let start = transaction.start_ms();
    let partitions = transaction.partitions();
    let partitions: Vec<Value> = partitions
        .iter()
        .map(|(topic, partition)| json!({"topic": topic, "partition": partition}))
        .collect();
    json!({"transactional_id": state.transactional_id, "coordinator": transaction.coordinator,
           "producer_id": state.producer_id, "producer_epoch": state.producer_epoch,
           "state": state.transaction_state, "timeout_ms": state.transaction_timeout_ms,
           "start_ms": start, "open_for_ms": start.map(|start| now_ms.saturating_sub(start)),
           "partitions": partitions})
}

#[cfg(test)]
mod tests {
    use super::*;
    use oncelog_wire::messages::describe_transactions_response::{TopicData, TransactionState};

    #[test]
    fn open_and_empty() {
        let topic = |topic: &str, partitions: &[i32]| TopicData {
            topic: topic.into(),
            partitions: partitions.to_vec(),
            ..TopicData::default()
        };
        let open = TransactionState {
            transactional_id: "a".into(),
            transaction_state: "Ongoing".into(),
            transaction_timeout_ms: 60_000,
            transaction_start_time_ms: 1_700_000_000_000,
            producer_id: 7,
            producer_epoch: 3,
            topics: vec![topic("u", &[1]), topic("t", &[2, 0])],
            ..TransactionState::default()
        };
        let empty = TransactionState {
            transactional_id: "b".into(),
            transaction_state: "Empty".into(),
            transaction_start_time_ms: -1,
            ..TransactionState::default()
        };
        let all = [open, empty].map(|state| Transaction {
            coordinator: 1,
            state,
        });
        let mut out = Vec::new();
        let now_ms = 1_700_000_061_000;
        table(&all, now_ms).print(&mut out).unwrap();
        let lines = String::from_utf8(out).unwrap();
        let cells: Vec<Vec<&str>> = lines
            .lines()
            .map(|line| {
                line.split("  ")
                    .map(str::trim)
                    .filter(|c| !c.is_empty())
                    .collect()
            })
            .collect();
        assert_eq!(
            cells[1],
            [
                "a",
                "1",
                "7",
                "3",
                "Ongoing",
                "1m 0s",
                "2023-11-14T22:13:20.000Z",
                "1m 1s",
                "t-0,t-2,u-1"
            ]
        );
        assert_eq!(
            cells[2],
            ["b", "1", "0", "0", "Empty", "0.000s", "-", "-", "-"]
        );
        assert_eq!(to_json(&all[0], now_ms)["open_for_ms"], 61_000);
        assert_eq!(to_json(&all[1], now_ms)["start_ms"], Value::Null);
    }
}
