//! `oncelog`: the one binary. Parses the command line and hands it to one file per command.
//!
//! To add a command: a file in `commands`, a variant in [`Command`], an arm in [`run`].
//! Errors are printed here and nowhere else; the exit codes are in `failure`.

mod admin;
mod audit;
mod client;
mod commands;
mod failure;
mod interrupt;
mod offset;
mod options;
mod output;
mod pipeline;
mod reach;
mod results;
mod template;

use std::io::{self, IsTerminal};
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use commands::{
    audit as audit_command, cluster, completions, config, consume, demo, group, outbox, produce,
    relay, sink, start, topic, txn,
};
use failure::{EXIT_CODES_HELP, Exit, Failure};
use options::{GlobalArgs, Options};

/// Move messages with a delivery guarantee that you pick and can check
#[derive(Parser)]
#[command(name = "oncelog", version, after_help = EXIT_CODES_HELP, propagate_version = true)]
struct Cli {
    #[command(flatten)]
    global: GlobalArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Start(start::Args),
    Demo(demo::Args),
    Relay(relay::Args),
    Outbox(outbox::Args),
    Sink(sink::Args),
    Audit(audit_command::Args),
    Produce(produce::Args),
    Consume(consume::Args),
    Topic(topic::Args),
    Group(group::Args),
    Txn(txn::Args),
    Config(config::Args),
    Cluster(cluster::Args),
    Completions(completions::Args),
}

fn run(cli: &Cli) -> Result<()> {
    let options = Options::resolve(&cli.global)?;
    match &cli.command {
        Command::Start(args) => start::run(args),
        Command::Relay(args) => relay::run(&options, args),
        Command::Outbox(args) => outbox::run(&options, args),
        Command::Sink(args) => sink::run(&options, args),
        Command::Audit(args) => audit_command::run(&options, args),
        Command::Produce(args) => produce::run(&options, args),
        Command::Consume(args) => consume::run(&options, args),
        Command::Topic(args) => topic::run(&options, args),
        Command::Group(args) => group::run(&options, args),
        Command::Txn(args) => txn::run(&options, args),
        Command::Config(args) => config::run(&options, args),
        Command::Cluster(args) => cluster::run(&options, args),
        Command::Demo(args) => demo::run(&options, args),
        Command::Completions(args) => completions::run::<Cli>(args),
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    // A broker has a log of its own.
    if !matches!(cli.command, Command::Start(_)) {
        let service = matches!(cli.command, Command::Relay(_) | Command::Sink(_));
        start_logging(cli.global.verbose, service);
    }
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => report(error, &cli.global),
    }
}

/// Log lines go to standard error: our own warnings always, librdkafka's only when asked for.
fn start_logging(verbose: u8, service: bool) {
    let filter = match (verbose, service) {
        (0, false) => "error,oncelog=warn,librdkafka=off,rdkafka=off",
        (0, true) => {
            "warn,oncelog=info,oncelog_relay=info,oncelog_sink=info,librdkafka=off,rdkafka=off"
        }
        (1, _) => "warn,oncelog=info,oncelog_relay=info,oncelog_sink=info,librdkafka=info",
        _ => {
            "info,oncelog=debug,oncelog_relay=debug,oncelog_sink=debug,librdkafka=debug,rdkafka=debug"
        }
    };
    let lines = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(filter))
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(verbose > 0);
    // A command's lines stand beside what it prints; a service's are a log.
    if service {
        lines.init()
    } else {
        lines.without_time().init()
    }
}

fn report(error: anyhow::Error, global: &GlobalArgs) -> ExitCode {
    // Whoever read our output has seen enough, as with `| head -1`.
    let broken_pipe = |error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe;
    if error.downcast_ref::<io::Error>().is_some_and(broken_pipe) {
        return ExitCode::SUCCESS;
    }
    let failure = error.downcast::<Failure>().unwrap_or_else(|other| {
        Failure::new(Exit::Failed, "the command failed").why(format!("{other:#}"))
    });
    match global.format {
        options::Format::Text => eprintln!("{failure}"),
        options::Format::Json => eprintln!("{}", failure.to_json()),
    }
    ExitCode::from(failure.exit as u8)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
