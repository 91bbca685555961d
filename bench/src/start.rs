//! From the start of a broker to its first answer, and from its crash to its last record.
//!
//! `first-ack` and `recovered` begin before the broker does, and print the time of day at which they
//! had what they waited for; who started the broker knows when that was.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Result, ensure};

use crate::broker::Broker;
use crate::figures::Figures;

const LIMIT: Duration = Duration::from_secs(180);

/// A refused connection costs microseconds, so that asking often does not slow the start down.
const ASK_EVERY: Duration = Duration::from_millis(1);

/// Partitions of one request when each gets one record.
const PARTITIONS_PER_REQUEST: usize = 500;

#[derive(clap::Args)]
pub struct FirstAck {
    /// Where the broker will be.
    #[arg(long)]
    bootstrap: String,
    /// A topic to create there.
    #[arg(long)]
    topic: String,
}

#[derive(clap::Args)]
pub struct OneEach {
    /// The broker's address.
    #[arg(long)]
    bootstrap: String,
    /// A topic that does not exist yet.
    #[arg(long)]
    topic: String,
    #[arg(long)]
    partitions: i32,
}

#[derive(clap::Args)]
pub struct Recovered {
    /// Where the broker will be.
    #[arg(long)]
    bootstrap: String,
    #[arg(long)]
    topic: String,
    #[arg(long)]
    partitions: i32,
    /// How many records must be there.
    #[arg(long)]
    records: i64,
}

pub fn first_ack(args: &FirstAck) -> Result<Figures> {
    let mut created = false;
    until(|| {
        let mut broker = Broker::connect(&args.bootstrap)?;
        if !created {
            broker.create_topic(&args.topic, 1)?;
            created = true;
        }
        broker.produce(&args.topic, &[0], b"first")
    })
}

pub fn recovered(args: &Recovered) -> Result<Figures> {
    until(|| {
        let ends = Broker::connect(&args.bootstrap)?.ends(&args.topic, args.partitions)?;
        let there: i64 = ends.iter().sum();
        ensure!(
            there == args.records,
            "of {} records {there} are there",
            args.records
        );
        Ok(())
    })
}

pub fn one_each(args: &OneEach) -> Result<Figures> {
    let mut broker = Broker::connect(&args.bootstrap)?;
    broker.create_topic(&args.topic, args.partitions)?;
    let all: Vec<i32> = (0..args.partitions).collect();
    for some in all.chunks(PARTITIONS_PER_REQUEST) {
        broker.produce(&args.topic, some, b"one record of a few bytes")?;
    }
    let mut figures = Figures::default();
    figures.set("records", f64::from(args.partitions));
    Ok(figures)
}

/// Tries until it works; when that was.
fn until(mut attempt: impl FnMut() -> Result<()>) -> Result<Figures> {
    let started = Instant::now();
    while let Err(error) = attempt() {
        ensure!(
            started.elapsed() < LIMIT,
            "not within {} s; last: {error:#}",
            LIMIT.as_secs()
        );
        std::thread::sleep(ASK_EVERY);
    }
    let mut figures = Figures::default();
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    figures.set("unix_s", now.as_secs_f64());
    Ok(figures)
}
