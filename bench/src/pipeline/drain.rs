//! How fast a relay publishes what waits for it, and what it takes for that; and how soon after its
//! start the first of it is there.

use std::time::Instant;

use anyhow::{Result, ensure};

use super::Setting;
use super::arrivals::Arrivals;
use super::origin::{Origin, Source};
use crate::figures::Figures;

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    setting: Setting,
    #[arg(long, value_enum)]
    source: Source,
    /// Rows that wait.
    #[arg(long)]
    rows: u64,
    /// Rows of each of the transactions that wrote them.
    #[arg(long, default_value_t = 1_000)]
    each: u64,
}

pub fn run(args: &Args) -> Result<Figures> {
    ensure!(
        args.rows > args.each && args.rows.is_multiple_of(args.each),
        "the rows are not whole transactions, two or more"
    );
    let origin = Origin::start(args.source, &args.setting)?;
    let program = origin.relay(&args.setting, "")?;
    let mut arrivals = Arrivals::prepare(&args.setting)?;
    origin.begin(&program, &mut arrivals)?.stop()?;
    origin.fill(1, args.rows, args.each)?;
    let before = arrivals.stable_ends()?;
    let started = Instant::now();
    let mut relay = program.start()?;
    let span = arrivals.watch(&before, args.rows, &mut relay)?;
    let resident = relay.process.resident_max_bytes()?;
    drop(relay);
    let counted = arrivals.count(&before, &span.first.ends, &span.last.ends)?;
    let events = counted.events;
    ensure!(events == args.rows, "{} rows, {events} events", args.rows);
    let seconds = (span.last.at - span.first.at).as_secs_f64();
    let mut figures = Figures::default();
    let after_first = events - counted.before;
    figures.set("events_per_s", after_first as f64 / seconds);
    figures.set(
        "cpu_us_per_event",
        span.last.cpu.as_secs_f64() * 1e6 / events as f64,
    );
    figures.set("resident_max_mb", resident as f64 / 1e6);
    figures.set("ready_ms", (span.first.at - started).as_secs_f64() * 1e3);
    Ok(figures)
}
