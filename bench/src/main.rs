//! The measuring programs of `cargo xtask bench`: one command per kind of measurement.
//!
//! Each works against any broker that speaks the Kafka protocol, and prints its figures as one line
//! of JSON. What is sent is counted again on the broker's side (ListOffsets) before a figure counts:
//! a difference is an error, never a result. Which programs run against which broker in which order
//! is not known here; see crates/xtask/src/bench.
//!
//! `floor` is the exception: not a measurement but a stub to be measured.

mod account;
mod broker;
mod connections;
mod figures;
mod floor;
mod groups;
mod latency;
mod partitions;
mod pipeline;
mod start;
mod throughput;
mod transactions;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use figures::Figures;

/// Measures a broker of the Kafka protocol; prints one line of JSON.
#[derive(Parser)]
enum Command {
    /// How fast records are taken in, through librdkafka.
    Produce(throughput::Args),
    /// How fast records are handed out, through librdkafka.
    Consume(throughput::Args),
    /// Acknowledgement and end-to-end latency at a fixed rate, through librdkafka.
    Latency(latency::Args),
    /// How fast one producer commits, through librdkafka.
    Transactions(transactions::Args),
    /// Many connections: the time to open them, and what they cost when idle.
    Connections(connections::Args),
    /// Many partitions: the time to create them, and what they cost when idle.
    Partitions(partitions::Args),
    /// A consumer group of many members: the time until each has its share.
    Group(groups::Args),
    /// Wait for a broker that is not there yet; when it acknowledged its first record.
    FirstAck(start::FirstAck),
    /// One record to each of many partitions, to be found again after a crash.
    OneEach(start::OneEach),
    /// Wait until every partition of a filled topic answers with its end.
    Recovered(start::Recovered),
    /// What a process has used so far.
    Account(account::Args),
    /// Delete a topic.
    Delete(broker::Delete),
    /// A loop that reads, processes and writes: what exactly once costs it.
    EosLoop(pipeline::eos_loop::Args),
    /// A relay: how fast it publishes what waits for it, and when it begins to.
    RelayDrain(pipeline::drain::Args),
    /// A relay: from the commit in the database to the reader of committed events.
    RelayLatency(pipeline::latency::Args),
    /// A relay: its memory while one large transaction passes through it.
    RelayLarge(pipeline::large::Args),
    /// A sink: how fast it makes rows of a topic that is full.
    SinkApply(pipeline::apply::Args),
    /// A relay: what it takes from those who write to the database.
    OutboxTax(pipeline::tax::Args),
    /// Run the floor: a stub that keeps no promise, to show what a machine and a client leave room for.
    Floor(floor::Args),
}

fn main() -> ExitCode {
    match run(&Command::parse()) {
        Ok(figures) => {
            println!("{}", figures.json());
            ExitCode::SUCCESS
        }
        Err(error) => {
            let why = format!("{error:#}");
            println!("{}", serde_json::json!({ "error": why }));
            ExitCode::FAILURE
        }
    }
}

fn run(command: &Command) -> Result<Figures> {
    match command {
        Command::Produce(args) => throughput::produce(args),
        Command::Consume(args) => throughput::consume(args),
        Command::Latency(args) => latency::run(args),
        Command::Transactions(args) => transactions::run(args),
        Command::Connections(args) => connections::run(args),
        Command::Partitions(args) => partitions::run(args),
        Command::Group(args) => groups::run(args),
        Command::FirstAck(args) => start::first_ack(args),
        Command::OneEach(args) => start::one_each(args),
        Command::Recovered(args) => start::recovered(args),
        Command::Account(args) => account::run(args),
        Command::Delete(args) => broker::delete(args),
        Command::EosLoop(args) => pipeline::eos_loop::run(args),
        Command::RelayDrain(args) => pipeline::drain::run(args),
        Command::RelayLatency(args) => pipeline::latency::run(args),
        Command::RelayLarge(args) => pipeline::large::run(args),
        Command::SinkApply(args) => pipeline::apply::run(args),
        Command::OutboxTax(args) => pipeline::tax::run(args),
        Command::Floor(args) => floor::run(args).map(|()| Figures::default()),
    }
}
