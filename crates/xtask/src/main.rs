//! `cargo xtask <command>`: the project's own automation, one file per command.

mod bench;
mod cargo;
mod codegen;
mod conformance;
mod crash;
mod debezium;
mod dump_log;
mod fuzz;
mod hostile;
mod kafka;
mod mutants;
mod oncelog;
mod pipeline;
mod process;
mod smoke;
mod streams;
mod tally;
mod test;
mod tidy;
mod toolbox;

use std::path::PathBuf;

use clap::Parser;

#[derive(Parser)]
enum Command {
    /// The whole test run: everything that CI runs.
    Test(test::Args),
    /// Check the rules of the house that neither rustfmt nor clippy knows.
    Tidy,
    /// Run real clients against a broker.
    Smoke(smoke::Args),
    /// Run the test suites of librdkafka and others against a broker.
    Conformance(conformance::Args),
    /// Start or stop Apache Kafka, as a peer to compare with.
    Kafka(kafka::Args),
    /// Measure Oncelog beside Apache Kafka, and write docs/performance.md.
    Bench(bench::Args),
    /// Have Kafka's DumpLogSegments read a data directory; any complaint fails.
    DumpLog(dump_log::Args),
    /// Let clients that mean no good at a broker, a million connections of them.
    Hostile(hostile::Args),
    /// Kill, cut the power, fill disks, fail syncs, damage files, jump clocks; count what is lost.
    Crash(crash::Args),
    /// Kill everything between two databases, and compare what is in them.
    Pipeline(pipeline::Args),
    /// Kill a Kafka Streams application and the broker, and demand exact counts.
    Streams(streams::Args),
    /// Kill a Kafka Connect worker with Debezium and the broker, and demand each event once.
    Debezium(debezium::Args),
    /// Plant known bugs and demand that the simulator finds each of them.
    Mutants(mutants::Args),
    /// Feed the fuzz targets generated inputs; what fails is minimised and kept.
    Fuzz(fuzz::Args),
    /// Generate crates/wire/src/messages from Kafka's schemas.
    Codegen(codegen::Args),
}

fn main() -> anyhow::Result<()> {
    match Command::parse() {
        Command::Test(args) => test::run(&args),
        Command::Tidy => tidy::run(),
        Command::Smoke(args) => smoke::run(&args),
        Command::Conformance(args) => conformance::run(&args),
        Command::Kafka(args) => kafka::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::DumpLog(args) => dump_log::run(&args),
        Command::Hostile(args) => hostile::run(&args),
        Command::Crash(args) => crash::run(&args),
        Command::Pipeline(args) => pipeline::run(&args),
        Command::Streams(args) => streams::run(&args),
        Command::Debezium(args) => debezium::run(&args),
        Command::Mutants(args) => mutants::run(&args),
        Command::Fuzz(args) => fuzz::run(&args),
        Command::Codegen(args) => codegen::run(&args),
    }
}

/// The root of the repository.
fn root() -> PathBuf {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).map_or(here.clone(), PathBuf::from)
}
