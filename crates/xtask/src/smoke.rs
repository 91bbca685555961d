//! `cargo xtask smoke`: real clients of each kind against a broker, one printed line per check.
//!
//! The checks are in conformance/; here is only what starts each client. A line is `ok NAME`,
//! `FAIL NAME: why` or `skip NAME: reason`.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::tally::Tally;
use crate::{kafka, process, toolbox};

/// A client's whole run. The slowest, Kafka's tools, takes two minutes.
const LIMIT: Duration = Duration::from_secs(20 * 60);

#[derive(Clone, Copy, Debug, PartialEq, clap::ValueEnum)]
pub enum Client {
    /// kafka-python
    Python,
    /// confluent-kafka for Python, which is librdkafka with its whole admin client
    Confluent,
    /// kafkajs
    Node,
    /// Kafka's own Java client
    Java,
    /// The checks of transactions with a Java client of before the second protocol of them
    JavaOld,
    /// Kafka's console tools, each a process of its own
    Tools,
    /// The rdkafka crate
    Rdkafka,
}

pub const CLIENTS: [Client; 7] = [
    Client::Python,
    Client::Confluent,
    Client::Node,
    Client::Java,
    Client::JavaOld,
    Client::Tools,
    Client::Rdkafka,
];

#[derive(clap::Args)]
pub struct Args {
    /// Which client; all of them without it.
    #[arg(long, value_enum)]
    client: Option<Client>,
    /// The broker's address.
    #[arg(long, required_unless_present = "against", conflicts_with = "against")]
    bootstrap: Option<String>,
    /// Start this peer for the run, and stop it afterwards.
    #[arg(long, value_enum)]
    against: Option<Peer>,
    /// The peer's port on 127.0.0.1; its controller takes the next one.
    #[arg(long, default_value_t = kafka::PORT, requires = "against")]
    port: u16,
    /// Only checks with this in their name.
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
    /// Leave the topics that the checks made.
    #[arg(long)]
    keep: bool,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Peer {
    /// Apache Kafka, as `cargo xtask kafka start` starts it
    Kafka,
}

pub fn run(args: &Args) -> Result<()> {
    let bootstrap = match (&args.bootstrap, args.against) {
        (Some(bootstrap), _) => bootstrap.clone(),
        (None, _) => kafka::start(args.port, false, &[])?,
    };
    let mut whole = Tally::default();
    let mut outcome = Ok(());
    for client in CLIENTS
        .into_iter()
        .filter(|c| args.client.is_none_or(|only| only == *c))
    {
        match smoke_only(client, &bootstrap, args.keep, args.only.as_deref()) {
            Ok(tally) => whole += tally,
            Err(error) => outcome = Err(error),
        }
    }
    if args.against.is_some() {
        kafka::stop()?;
    }
    outcome?;
    println!("{}", whole.line());
    ensure!(whole.failed == 0, "{} checks failed", whole.failed);
    Ok(())
}

/// Runs one client's checks, showing them. `keep` leaves the topics that they made.
pub fn smoke(client: Client, bootstrap: &str, keep: bool) -> Result<Tally> {
    smoke_only(client, bootstrap, keep, None)
}

fn smoke_only(client: Client, bootstrap: &str, keep: bool, only: Option<&str>) -> Result<Tally> {
    let mut command = prepare(client)?;
    command.arg(bootstrap);
    if let Some(only) = only {
        command.env("ONCELOG_SMOKE_ONLY", only);
    }
    if keep {
        command.env("ONCELOG_SMOKE_KEEP", "1");
    }
    let mut tally = Tally::default();
    let well = process::run_lines(&mut command, LIMIT, |line| {
        println!("{line}");
        tally.count_check(line);
    })?;
    ensure!(tally.passed + tally.failed > 0, "the client ran no check");
    if !well && tally.failed == 0 {
        tally.fail(
            "the client's run",
            "it ended with an error after its checks",
        );
    }
    Ok(tally)
}

/// The command that runs a client's checks; the broker's address is its one argument.
fn prepare(client: Client) -> Result<Command> {
    let conformance = crate::root().join("conformance");
    match client {
        Client::Python => python(&conformance.join("python/smoke_kafka_python.py")),
        Client::Confluent => python(&conformance.join("python/smoke_confluent.py")),
        Client::Node => {
            let mut node = Command::new("node");
            node.env("NODE_PATH", toolbox::node_modules()?);
            node.arg(conformance.join("node/smoke_kafkajs.js"));
            Ok(node)
        }
        Client::Java => java(&[], "smoke.Smoke"),
        Client::JavaOld => {
            let jar = toolbox::old_client()?.join("*");
            java(&[&jar], "smoke.Transactions")
        }
        Client::Tools => java(&[], "smoke.Tools"),
        Client::Rdkafka => crate::cargo::release_binary("rdkafka-smoke").map(Command::new),
    }
}

fn java(first: &[&Path], main: &str) -> Result<Command> {
    let classes = toolbox::java_smoke()?;
    let mut first = first.to_vec();
    first.push(&classes);
    let mut java = toolbox::java(&first, "ERROR", "256M")?;
    java.arg(main);
    Ok(java)
}

fn python(script: &Path) -> Result<Command> {
    let mut python = Command::new(toolbox::python()?);
    python
        .args(["-B", "-W", "ignore::DeprecationWarning"])
        .arg(script);
    Ok(python)
}
