//! `oncelog demo`: a broker is killed with SIGKILL in the middle of three streams of records, one
//! for each way to acknowledge, and the tally at the end is counted from what can be read.
//!
//! The broker is this same binary in a process of its own (`oncelog start` on a temporary data
//! directory); the client is librdkafka, as any user would use it. Nothing in the tally comes from
//! the broker's or the producer's own books but *sent* and *acknowledged*, which are what the
//! client was told: *read*, *lost* and *duplicated* are counted from a full read of each topic by
//! a fresh consumer.

mod child;
mod stream;
mod tally;

use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args as ClapArgs;
use serde_json::json;

use crate::failure::Failure;
use crate::options::Options;
use child::Broker;
use stream::{Level, Stream};
use tally::Tally;

/// Kill a broker under load and count what is left: acks=0, acks=1 and idempotent, side by side
#[derive(ClapArgs, Debug)]
pub struct Args {
    /// Records that each of the three streams sends
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(100..=10_000_000))]
    pub records: u32,

    /// How often the broker is killed while they are sent
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(0..=100))]
    pub kills: u32,

    /// Leave the broker running and its data directory in place at the end
    #[arg(long)]
    pub keep: bool,
}

/// How long the streams take to send everything, so that there is a middle to kill in.
const SENDING: Duration = Duration::from_secs(6);

pub fn run(options: &Options, args: &Args) -> Result<()> {
    let say = |line: String| {
        if !options.json() {
            println!("{line}");
        }
    };
    let mut broker = Broker::start()?;
    say(format!(
        "A broker runs at {} (data: {}).",
        broker.bootstrap(),
        broker.data_dir().display()
    ));
    let levels = [Level::AtMostOnce, Level::AtLeastOnce, Level::Idempotent];
    say(format!(
        "Three producers send {} records each, over about {} s: {}.",
        args.records,
        SENDING.as_secs(),
        levels.map(Level::settings).join("; "),
    ));
    let pace = SENDING / args.records;
    let streams: Vec<Stream> = levels
        .iter()
        .map(|level| Stream::start(*level, broker.bootstrap(), args.records, pace))
        .collect::<Result<_, Failure>>()?;
    let began = Instant::now();
    for kill in 1..=args.kills {
        let at = SENDING * kill / (args.kills + 1);
        std::thread::sleep(at.saturating_sub(began.elapsed()));
        let ready = broker.kill_and_restart()?;
        say(format!(
            "  {:.1} s: SIGKILL. Started again on the same data, ready after {} ms.",
            at.as_secs_f64(),
            ready.as_millis()
        ));
    }
    let sent: Vec<_> = streams
        .into_iter()
        .map(Stream::finish)
        .collect::<Result<_, Failure>>()?;
    say("All sent. Reading everything back from the beginning with fresh consumers...".to_owned());
    let mut tallies = Vec::new();
    for sent in &sent {
        tallies.push(Tally::count(sent, broker.bootstrap())?);
    }
    report(&tallies, options);
    if args.keep {
        let (bootstrap, data) = broker.keep();
        say(format!(
            "\nThe broker still runs at {bootstrap} (data: {}).",
            data.display()
        ));
        say(format!("Try: oncelog topic list -b {bootstrap}"));
    }
    Ok(verdict(&tallies)?)
}

fn report(tallies: &[Tally], options: &Options) {
    if options.json() {
        let rows: Vec<_> = tallies.iter().map(Tally::to_json).collect();
        println!("{}", json!({ "streams": rows }));
        return;
    }
    println!(
        "\n{:<34} {:>8} {:>13} {:>8} {:>6} {:>11} {:>10}",
        "PRODUCER", "SENT", "ACKNOWLEDGED", "READ", "LOST", "DUPLICATED", "REORDERED"
    );
    for tally in tallies {
        println!(
            "{:<34} {:>8} {:>13} {:>8} {:>6} {:>11} {:>10}",
            tally.level.settings(),
            tally.sent,
            tally.acknowledged,
            tally.read,
            tally.lost,
            tally.duplicated,
            tally.reordered,
        );
    }
    println!("\nLOST: sent (acks=0) or acknowledged (acks=1, all), and not there afterwards.");
    println!(
        "acks=0 may lose, acks=1 with retries may duplicate; acks=all with idempotence does neither."
    );
}

/// What was promised is checked, not only shown.
fn verdict(tallies: &[Tally]) -> Result<(), Failure> {
    for tally in tallies {
        if let Some(broken) = tally.broken_promise() {
            return Err(Failure::refused(broken)
                .why("this is a bug in Oncelog")
                .next("run `oncelog demo --keep` and report it with the data directory"));
        }
    }
    Ok(())
}
