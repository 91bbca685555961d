//! Many partitions: how long a topic of them takes to be there, and what they cost when idle.
//!
//! A topic is there when every partition answers for its end (ListOffsets).

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::account::Process;
use crate::broker::Broker;
use crate::figures::Figures;

/// What creation has left to be done behind the answer may take this long before the broker counts
/// as idle. It is not free: `cpu_s` is all that the broker used until then.
const SETTLE_MAX: Duration = Duration::from_secs(15);

/// Of a core, over a second: nothing is being done any more.
const QUIET_PERCENT: f64 = 1.0;

#[derive(clap::Args)]
pub struct Args {
    /// The broker's address.
    #[arg(long)]
    bootstrap: String,
    /// The broker's process.
    #[arg(long)]
    pid: u32,
    /// A topic that does not exist yet.
    #[arg(long)]
    topic: String,
    #[arg(long)]
    count: i32,
    /// How long the idle broker is watched.
    #[arg(long, default_value_t = 5.0)]
    idle_seconds: f64,
}

pub fn run(args: &Args) -> Result<Figures> {
    let process = Process(args.pid);
    let mut broker = Broker::connect(&args.bootstrap)?;
    let before = process.cpu()?;
    let started = Instant::now();
    broker.create_topic(&args.topic, args.count)?;
    let mut figures = Figures::default();
    figures.set("create_s", started.elapsed().as_secs_f64());
    let settling = Instant::now();
    while process.idle_cpu_percent(1.0)? > QUIET_PERCENT && settling.elapsed() < SETTLE_MAX {}
    figures.set("cpu_s", (process.cpu()? - before).as_secs_f64());
    figures.set(
        "idle_cpu_percent",
        process.idle_cpu_percent(args.idle_seconds)?,
    );
    Ok(figures)
}
