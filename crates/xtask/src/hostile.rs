//! `cargo xtask hostile`: clients that mean no good, in numbers that a test run has no time for.
//!
//! The patterns are tests of the built binary (crates/cli/tests/limits), which `cargo xtask test` runs
//! with small counts; here they run one by one, optimised, and print what each costs the broker in
//! memory and how others are served meanwhile. Their bars hold here too: what exceeds one fails.

use std::time::Duration;

use anyhow::Result;

use crate::{cargo, process, toolbox};

const LIMIT: Duration = Duration::from_secs(2 * 60 * 60);

#[derive(clap::Args)]
pub struct Args {
    /// Connections that are opened and closed.
    #[arg(long, default_value_t = 1_000_000)]
    connections: usize,
    /// How long a thousand clients send a byte a second.
    #[arg(long, default_value_t = 90)]
    seconds: usize,
    /// Elements of the lists in requests of every API that takes one.
    #[arg(long, default_value_t = 100_000)]
    elements: usize,
    /// Producer ids, groups; a tenth as many topics, a fiftieth as many members of one group.
    #[arg(long, default_value_t = 50_000)]
    crowd: usize,
    /// Only tests with this in their name: `churn`, `crowds::producer_ids`.
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
}

pub fn run(args: &Args) -> Result<()> {
    toolbox::need(&[&toolbox::MAKE])?; // librdkafka's build
    let test = ["test", "--release", "--quiet", "--package", "oncelog"];
    let mut command = cargo::cargo(&test);
    command.args(["--test", "limits", "--", "--test-threads=1"]);
    command.args(args.only.as_slice());
    for (variable, count) in [
        ("ONCELOG_HOSTILE_CONNECTIONS", args.connections),
        ("ONCELOG_HOSTILE_SECONDS", args.seconds),
        ("ONCELOG_HOSTILE_ELEMENTS", args.elements),
        ("ONCELOG_HOSTILE_PRODUCERS", args.crowd),
        ("ONCELOG_HOSTILE_GROUPS", args.crowd),
        ("ONCELOG_HOSTILE_TOPICS", args.crowd / 10),
        ("ONCELOG_HOSTILE_MEMBERS", args.crowd / 50),
    ] {
        command.env(variable, count.max(1).to_string());
    }
    process::run(&mut command, LIMIT)
}
