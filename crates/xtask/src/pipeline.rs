//! `cargo xtask pipeline`: the crash campaign of the whole pipeline, with everything that it needs.
//!
//! The campaign is a program of its own (conformance/pipeline): writers, a relay, a broker and a sink
//! between two databases, killed at random, and a judge who compares both ends. Here it gets the built
//! binaries, the servers' packages and, with `--kafka`, an Apache Kafka, which is not killed. A database
//! that cannot be had is skipped by the campaign itself, which says so.

use std::net::TcpListener;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::tally::Tally;
use crate::toolbox::{self, Missing};
use crate::{cargo, kafka, process};

const LIMIT: Duration = Duration::from_secs(12 * 3600);

#[derive(clap::Args, Default)]
pub struct Args {
    /// Only this pair; may be repeated. --list names those of a run.
    #[arg(long, value_name = "SOURCE:TARGET")]
    only: Vec<String>,
    /// All pairs of a source and a target, and more than 1,000 kills.
    #[arg(long)]
    long: bool,
    /// SIGKILLs for each pair, about.
    #[arg(long)]
    kills: Option<u64>,
    /// at-most-once, at-least-once or exactly-once, which is the default.
    #[arg(long)]
    level: Option<String>,
    /// Between the databases is an Apache Kafka.
    #[arg(long)]
    kafka: bool,
    /// Pairs at the same time: 2, if nothing is said; with --kafka one after another.
    #[arg(long)]
    jobs: Option<usize>,
    /// Repeat the choices of a run that printed this seed.
    #[arg(long)]
    seed: Option<u64>,
    /// Print the results as JSON, too.
    #[arg(long)]
    json: bool,
    /// Only say what the pairs are.
    #[arg(long)]
    list: bool,
}

pub fn run(args: &Args) -> Result<()> {
    let tally = campaign(args)?;
    if tally.failed > 0 {
        std::process::exit(1);
    }
    Ok(())
}

/// The short run, as a section of `cargo xtask test`.
pub fn short() -> Result<Tally> {
    campaign(&Args::default())
}

/// The tests of relay and sink that want a database server, or a broker.
pub fn databases() -> Result<Tally> {
    toolbox::need(&[&toolbox::POSTGRESQL, &toolbox::MARIADB])?;
    let mut tests = cargo::cargo(&["test", "--quiet", "--no-fail-fast"]);
    for package in ["oncelog-relay", "oncelog-sink", "databases"] {
        tests.args(["--package", package]);
    }
    // What only measures is for a person.
    tests.args(["--", "--ignored", "--skip", "rates", "--format", "pretty"]);
    tests.env("ONCELOG_BIN", cargo::release_binary("oncelog")?);
    crate::test::cargo_test(&mut tests)
}

fn campaign(args: &Args) -> Result<Tally> {
    for server in [&toolbox::POSTGRESQL, &toolbox::MARIADB] {
        match toolbox::need(&[server]) {
            // CI must have everything; a person may do without.
            Err(why) if why.is::<Missing>() && std::env::var_os("CI").is_none() => {
                println!("{}: {why:#}", server.name);
            }
            installed => installed?,
        }
    }
    let mut command = Command::new(cargo::release_binary("pipeline-campaign")?);
    command
        .arg("--binary")
        .arg(cargo::release_binary("oncelog")?);
    command
        .arg("--work")
        .arg(crate::root().join("target/pipeline"));
    for pair in &args.only {
        command.args(["--only", pair]);
    }
    if let Some(kills) = args.kills {
        command.args(["--kills", &kills.to_string()]);
    }
    if let Some(jobs) = args.jobs {
        command.args(["--jobs", &jobs.to_string()]);
    }
    if let Some(level) = &args.level {
        command.args(["--level", level]);
    }
    if let Some(seed) = args.seed {
        command.args(["--seed", &seed.to_string()]);
    }
    for (wanted, flag) in [
        (args.long, "--long"),
        (args.json, "--json"),
        (args.list, "--list"),
    ] {
        if wanted {
            command.arg(flag);
        }
    }
    if args.kafka && !args.list {
        with_kafka(&mut command)?;
    }
    let mut tally = Tally::default();
    let well = process::run_lines(&mut command, LIMIT, |line| {
        println!("{line}");
        tally.count_check(line);
    })?;
    if !well && tally.failed == 0 {
        tally.fail("pipeline", "the campaign ended with an error");
    }
    Ok(tally)
}

/// The campaign starts it itself, for each pair.
fn with_kafka(command: &mut Command) -> Result<()> {
    let home = crate::root().join("target/pipeline/kafka");
    if home.exists() {
        std::fs::remove_dir_all(&home)?;
    }
    let port = free_port()?;
    // As the campaign sets it for ours: a sink that was killed is missed soon.
    let settings = ["group.min.session.timeout.ms=1000".to_owned()];
    let java = kafka::prepare(&home, port, &settings, &["-Xmx512M"])?;
    command.arg("--bootstrap").arg(format!("127.0.0.1:{port}"));
    command
        .arg("--")
        .arg(java.get_program())
        .args(java.get_args());
    Ok(())
}

/// One that is free, with the next one, which Kafka's controller takes; below those that the kernel
/// hands out, so that it is free again after each kill.
fn free_port() -> Result<u16> {
    for port in (20_000..30_000).step_by(2) {
        let both = [port, port + 1].map(|port| TcpListener::bind(("127.0.0.1", port)));
        if both.iter().all(Result::is_ok) {
            return Ok(port);
        }
    }
    bail!("no port is free")
}
