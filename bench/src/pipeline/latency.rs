//! From a row's commit in PostgreSQL to the consumer that reads committed events, at a fixed rate.
//!
//! Open loop, as in crate::latency: event i is due at start + i / rate, and its latency counts from
//! then; so the database's own commit is in it. How long that took is told beside it.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use hdrhistogram::Histogram;
use rdkafka::Message;
use rdkafka::consumer::BaseConsumer;
use rdkafka::error::KafkaError;

use super::Setting;
use super::arrivals::Arrivals;
use super::origin::{Origin, Source};
use crate::figures::Figures;

const INSERT: &str = "INSERT INTO outbox (aggregatetype, aggregateid, type, payload)
    VALUES ('order', $1, 'created', jsonb_build_object('text', repeat('x', 200)))";
/// What one connection can surely commit in a second.
const RATE_OF_WRITER: u64 = 1_500;
const HIGHEST: Duration = Duration::from_secs(300);
const DRAIN_LIMIT: Duration = Duration::from_secs(60);
const GLANCE: Duration = Duration::from_millis(20);

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    setting: Setting,
    /// Commits per second, of one event each.
    #[arg(long)]
    rate: u64,
    /// How long is counted.
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,
    /// How long rows are written at the same rate before that.
    #[arg(long, default_value_t = 1.0)]
    warm_seconds: f64,
}

struct Schedule {
    start: Instant,
    rate: u64,
    events: u64,
    counted_from: u64,
}

impl Schedule {
    fn due(&self, event: u64) -> Instant {
        let nanos = u128::from(event) * 1_000_000_000 / u128::from(self.rate);
        self.start + Duration::from_nanos(nanos as u64)
    }
}

pub fn run(args: &Args) -> Result<Figures> {
    rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1))?;
    let origin = Origin::start(Source::PostgresTable, &args.setting)?;
    let program = origin.relay(&args.setting, "")?;
    let mut arrivals = Arrivals::prepare(&args.setting)?;
    let mut relay = origin.begin(&program, &mut arrivals)?;
    let from = arrivals.stable_ends()?;
    let consumer = arrivals.consumer(&from)?;
    // Until it waits for more: its first fetches are none of the relay's time.
    let _ = consumer.poll(Duration::from_millis(500));
    let counted_from = (args.rate as f64 * args.warm_seconds) as u64;
    let schedule = Schedule {
        start: Instant::now() + Duration::from_millis(200),
        rate: args.rate,
        events: counted_from + (args.rate as f64 * args.seconds) as u64,
        counted_from,
    };
    let cpu_before = relay.process.cpu()?;
    let commits = Mutex::new(histogram()?);
    let mut read_times = histogram()?;
    let url = origin.url();
    let over = AtomicBool::new(false);
    std::thread::scope(|threads| {
        let writers = args.rate.div_ceil(RATE_OF_WRITER);
        let (schedule, commits, url) = (&schedule, &commits, &url);
        let writing: Vec<_> = (0..writers)
            .map(|writer| threads.spawn(move || write(schedule, url, writer, writers, commits)))
            .collect();
        let reading = threads.spawn(|| read(schedule, &consumer, &over, &mut read_times));
        let mut outcome = Ok(());
        for thread in writing {
            let written = thread.join().unwrap_or_else(|_| bail!("a writer panicked"));
            outcome = outcome.and(written);
        }
        let began = Instant::now();
        while !reading.is_finished() && began.elapsed() < DRAIN_LIMIT && outcome.is_ok() {
            outcome = relay.check();
            std::thread::sleep(GLANCE);
        }
        over.store(true, Ordering::Release);
        let read = reading
            .join()
            .unwrap_or_else(|_| bail!("the reader panicked"));
        outcome.and(read)
    })?;
    let cpu = relay.process.cpu()? - cpu_before;
    let seconds = schedule.events as f64 / args.rate as f64;
    let commits = commits.into_inner().expect("no thread panics with it");
    let mut figures = Figures::default();
    for (name, percentile) in [("p50_ms", 50.0), ("p99_ms", 99.0), ("p99_9_ms", 99.9)] {
        let at = |times: &Histogram<u64>| times.value_at_percentile(percentile) as f64 / 1e6;
        figures.set(name, at(&read_times));
        figures.set(&format!("commit_{name}"), at(&commits));
    }
    figures.set("max_ms", read_times.max() as f64 / 1e6);
    figures.set("cpu_percent", cpu.as_secs_f64() / seconds * 100.0);
    let resident = relay.process.resident_max_bytes()?;
    figures.set("resident_max_mb", resident as f64 / 1e6);
    Ok(figures)
}

fn histogram() -> Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(
        1_000,
        HIGHEST.as_nanos() as u64,
        3,
    )?)
}

/// Every `writers`-th event, from `writer` on, each in a transaction of its own.
fn write(
    schedule: &Schedule,
    url: &str,
    writer: u64,
    writers: u64,
    commits: &Mutex<Histogram<u64>>,
) -> Result<()> {
    rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1))?;
    let mut client = postgres::Client::connect(url, postgres::NoTls)?;
    let insert = client.prepare(INSERT)?;
    let mut times = histogram()?;
    for event in (writer..schedule.events).step_by(writers as usize) {
        let due = schedule.due(event);
        let wait = due.saturating_duration_since(Instant::now());
        if !wait.is_zero() {
            std::thread::sleep(wait);
        }
        client.execute(&insert, &[&event.to_string()])?;
        if event >= schedule.counted_from {
            times.saturating_record(due.elapsed().as_nanos() as u64);
        }
    }
    let mut commits = commits.lock().expect("no thread panics with it");
    commits.add(&times)?;
    Ok(())
}

fn read(
    schedule: &Schedule,
    consumer: &BaseConsumer,
    over: &AtomicBool,
    times: &mut Histogram<u64>,
) -> Result<()> {
    let mut count = 0;
    while count < schedule.events {
        ensure!(
            !over.load(Ordering::Acquire),
            "of {} events {count} were read",
            schedule.events
        );
        let message = match consumer.poll(GLANCE) {
            None | Some(Err(KafkaError::PartitionEOF(_))) => continue,
            Some(message) => message?,
        };
        let key = message.key().context("an event without its key")?;
        let event: u64 = std::str::from_utf8(key)?.parse()?;
        if event >= schedule.counted_from {
            times.saturating_record(schedule.due(event).elapsed().as_nanos() as u64);
        }
        count += 1;
    }
    Ok(())
}
