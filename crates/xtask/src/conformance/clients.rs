//! The clients of `cargo xtask smoke` as one more suite: a row per client, and one for each check
//! that did not pass.

use anyhow::Result;

use super::table::{Outcome, Row};
use super::target::Target;
use crate::smoke::{CLIENTS, Client, smoke};

pub const SUITE: &str = "clients";

pub fn run(target: &Target) -> Result<Vec<Row>> {
    let broker = target.start(SUITE, &[])?;
    let mut rows = Vec::new();
    for client in CLIENTS {
        let name = name(client);
        match smoke(client, &broker.bootstrap(), false) {
            Ok(tally) => {
                let mut row = |check: &str, outcome| {
                    let (test, why) = check.split_once(": ").unwrap_or((check, ""));
                    rows.push(Row::new(SUITE, &format!("{name}: {test}"), outcome, why));
                };
                row(&format!("{} checks", tally.passed), Outcome::Pass);
                tally
                    .failures
                    .iter()
                    .for_each(|check| row(check, Outcome::Fail));
                tally
                    .skips
                    .iter()
                    .for_each(|check| row(check, Outcome::Skip));
            }
            Err(error) => rows.push(Row::new(SUITE, name, Outcome::Fail, &format!("{error:#}"))),
        }
    }
    rows.extend(broker.stop(SUITE)?);
    Ok(rows)
}

fn name(client: Client) -> &'static str {
    match client {
        Client::Python => "kafka-python",
        Client::Confluent => "confluent-kafka",
        Client::Node => "kafkajs",
        Client::Java => "kafka-clients (Java)",
        Client::JavaOld => "kafka-clients (Java) 3.9, transactions",
        Client::Tools => "Kafka's console tools",
        Client::Rdkafka => "rdkafka",
    }
}
