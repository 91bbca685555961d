//! How fast a relay publishes what waits for it, and what it takes for that; and how soon after its
//! start the first of it is there.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::Setting;
use super::arrivals::{Arrivals, Span};
use super::connect::Worker;
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
    /// Measure Debezium instead, whose jars and those of Kafka Connect are here; with postgres-table.
    #[arg(long, value_name = "JARS")]
    connect: Option<PathBuf>,
}

/// Events before those that count, for a virtual machine.
const WARM_ROWS: u64 = 50_000;

pub fn run(args: &Args) -> Result<Figures> {
    ensure!(
        args.rows > args.each && args.rows.is_multiple_of(args.each),
        "the rows are not whole transactions, two or more"
    );
    let origin = Origin::start(args.source, &args.setting)?;
    if let Some(jars) = &args.connect {
        return debezium(args, jars, &origin);
    }
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
    let mut figures = figures(args, &arrivals, &before, &span, Duration::ZERO)?;
    figures.set("resident_max_mb", resident as f64 / 1e6);
    figures.set("ready_ms", (span.first.at - started).as_secs_f64() * 1e3);
    Ok(figures)
}

fn debezium(args: &Args, jars: &Path, origin: &Origin) -> Result<Figures> {
    // For the outbox and its publication.
    origin.relay(&args.setting, "")?;
    let mut arrivals = Arrivals::prepare(&args.setting)?;
    let port = origin.postgresql()?.port();
    let mut worker = Worker::start(&args.setting, jars, port)?;
    origin.await_beginning(&mut worker.part)?;
    let before = arrivals.stable_ends()?;
    origin.fill(args.rows + 1, WARM_ROWS, args.each)?;
    arrivals.watch(&before, WARM_ROWS, &mut worker.part)?;
    worker.pause()?;
    origin.fill(1, args.rows, args.each)?;
    let before = arrivals.stable_ends()?;
    let cpu_before = worker.part.process.cpu()?;
    worker.resume()?;
    let span = arrivals.watch(&before, args.rows, &mut worker.part)?;
    let resident = worker.part.process.resident_max_bytes()?;
    drop(worker);
    let mut figures = figures(args, &arrivals, &before, &span, cpu_before)?;
    figures.set("resident_max_mb", resident as f64 / 1e6);
    Ok(figures)
}

/// Of a span after `before`, of a process that had used `cpu_before` then.
fn figures(
    args: &Args,
    arrivals: &Arrivals,
    before: &[i64],
    span: &Span,
    cpu_before: Duration,
) -> Result<Figures> {
    let counted = arrivals.count(before, &span.first.ends, &span.last.ends)?;
    let events = counted.events;
    ensure!(events == args.rows, "{} rows, {events} events", args.rows);
    let seconds = (span.last.at - span.first.at).as_secs_f64();
    let mut figures = Figures::default();
    let after_first = events - counted.before;
    figures.set("events_per_s", after_first as f64 / seconds);
    figures.set(
        "cpu_us_per_event",
        (span.last.cpu - cpu_before).as_secs_f64() * 1e6 / events as f64,
    );
    Ok(figures)
}
