//! Throughput of one producer, and of one consumer, on one topic: librdkafka's own
//! `rdkafka_performance`, held to account.
//!
//! The seconds are the client's: to its last acknowledgement, or from the first record that it read to
//! the last. From a producer's is taken what went by until the broker had a first record, which is
//! the client's connecting (half a second where it wants a producer id); to it is added how long the
//! broker takes after the client's end to have everything, which matters for acks=0 alone. What was sent, what was delivered and
//! what the broker counts (ListOffsets) must be the same number; otherwise there is no figure.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::account::Process;
use crate::broker::Broker;
use crate::figures::Figures;

/// For a broker that was sent everything to have it.
const DRAIN_LIMIT: Duration = Duration::from_secs(60);

#[derive(clap::Args)]
pub struct Args {
    /// The broker's address.
    #[arg(long)]
    pub bootstrap: String,
    /// A topic that does not exist yet.
    #[arg(long)]
    pub topic: String,
    #[arg(long, default_value_t = 1)]
    pub partitions: i32,
    /// Bytes of a record's value.
    #[arg(long, default_value_t = 1000)]
    pub size: u64,
    #[arg(long)]
    records: u64,
    /// A setting of librdkafka's, key=value; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
    /// The broker's process, to account for its processor time.
    #[arg(long)]
    pid: Option<u32>,
    /// The program rdkafka_performance.
    #[arg(long)]
    client: PathBuf,
}

pub fn produce(args: &Args) -> Result<Figures> {
    let mut broker = Broker::connect(&args.bootstrap)?;
    broker.create_topic(&args.topic, args.partitions)?;
    let meter = Meter::start(args.pid)?;
    let mut client = client(args, &["-P"]);
    if args.partitions == 1 {
        client.args(["-p", "0"]);
    }
    client.args(["-s", &args.size.to_string()]);
    let mut child = start(&mut client)?;
    let connecting = wait_for_first(&mut broker, args, &mut child)?;
    let said = Said::of(child, " messages produced ")?;
    let delivered = said.before(" delivered ")?;
    ensure!(
        delivered == args.records,
        "{} records were sent and {delivered} delivered",
        args.records
    );
    let whole = Duration::from_millis(said.before("ms: ")?);
    let drained = wait_for_ends(&mut broker, args)?;
    meter.stop(args, whole.saturating_sub(connecting) + drained)
}

/// Waits until the broker has a first record; how long that was.
fn wait_for_first(broker: &mut Broker, args: &Args, client: &mut Child) -> Result<Duration> {
    let started = Instant::now();
    let none = |broker: &mut Broker| -> Result<bool> {
        let ends = broker.ends(&args.topic, args.partitions)?;
        Ok(ends.iter().all(|end| *end == 0))
    };
    // A client that has ended without sending anything says why.
    while none(broker)? && client.try_wait()?.is_none() {
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(started.elapsed())
}

/// Waits until the broker has all that was sent.
fn wait_for_ends(broker: &mut Broker, args: &Args) -> Result<Duration> {
    let started = Instant::now();
    loop {
        let there: i64 = broker.ends(&args.topic, args.partitions)?.iter().sum();
        if there == args.records as i64 {
            return Ok(started.elapsed());
        }
        ensure!(
            there < args.records as i64 && started.elapsed() < DRAIN_LIMIT,
            "{} records were sent and the broker has {there}",
            args.records
        );
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Fills a topic, then reads all of it; only the reading is measured.
pub fn consume(args: &Args) -> Result<Figures> {
    ensure!(args.partitions == 1, "one partition is read here");
    produce(args)?;
    let meter = Meter::start(args.pid)?;
    let mut client = client(args, &["-C", "-p", "0", "-o", "beginning"]);
    let said = Said::of(start(&mut client)?, " consumed ")?;
    let bytes = said.before(" bytes)")?;
    let sent = args.records * args.size;
    ensure!(bytes == sent, "{sent} bytes were sent and {bytes} read");
    meter.stop(args, Duration::from_millis(said.before("ms: ")?))
}

/// The client with what is the same for every use of it: quiet, and of so many records.
fn client(args: &Args, mode: &[&str]) -> Command {
    let mut client = Command::new(&args.client);
    client.args(mode);
    client.args(["-q", "-b", &args.bootstrap, "-t", &args.topic]);
    client.args(["-c", &args.records.to_string()]);
    for setting in &args.settings {
        client.args(["-X", setting]);
    }
    client
}

fn start(client: &mut Command) -> Result<Child> {
    // Its warnings, about settings that it makes itself, are of no interest unless it fails.
    client
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    client
        .spawn()
        .context("could not start rdkafka_performance")
}

/// The line in which the client sums up.
struct Said(String);

impl Said {
    /// Waits for its end; the line that holds `mark`.
    fn of(client: Child, mark: &str) -> Result<Said> {
        let output = client.wait_with_output()?;
        let said = String::from_utf8_lossy(&output.stdout);
        let Some(line) = said.lines().rfind(|line| line.contains(mark)) else {
            let complaint = String::from_utf8_lossy(&output.stderr);
            let status = output.status;
            bail!(
                "rdkafka_performance: {status}: {} {}",
                said.trim(),
                complaint.trim()
            );
        };
        Ok(Said(line.to_owned()))
    }

    /// The number right in front of some words.
    fn before(&self, words: &str) -> Result<u64> {
        let front = self.0.split(words).next().unwrap_or_default();
        let start = front
            .rfind(|c: char| !c.is_ascii_digit())
            .map_or(0, |at| at + 1);
        let number = front[start..].parse();
        number.with_context(|| format!("no number before {words:?} in: {}", self.0))
    }
}

/// The broker's processor time between `start` and `stop`.
struct Meter {
    process: Option<Process>,
    cpu: Duration,
}

impl Meter {
    fn start(pid: Option<u32>) -> Result<Meter> {
        let process = pid.map(Process);
        let cpu = process.map(Process::cpu).transpose()?.unwrap_or_default();
        Ok(Meter { process, cpu })
    }

    fn stop(self, args: &Args, took: Duration) -> Result<Figures> {
        let seconds = took.as_secs_f64();
        // A megabyte is 1,000,000 bytes here.
        let megabytes = (args.records * args.size) as f64 / 1e6;
        ensure!(seconds > 0.0, "too little was moved to be measured");
        let mut figures = Figures::default();
        figures.set("records", args.records as f64);
        figures.set("seconds", seconds);
        figures.set("records_per_s", args.records as f64 / seconds);
        figures.set("mb_per_s", megabytes / seconds);
        if let Some(process) = self.process {
            let cpu = process.cpu()? - self.cpu;
            figures.set("cpu_s_per_gb", cpu.as_secs_f64() / (megabytes / 1000.0));
        }
        Ok(figures)
    }
}

#[cfg(test)]
mod tests {
    use super::Said;

    fn check(line: &str, words: &str, want: Option<u64>) {
        assert_eq!(Said(line.to_owned()).before(words).ok(), want);
    }

    #[test]
    fn numbers_are_found_by_the_words_behind_them() {
        let produced = "% 3000 messages produced (300000 bytes), 2999 delivered (offset 7, 1 failed) \
                        in 42ms: 71428 msgs/s and 7.14 MB/s, 0 produce failures";
        check(produced, " delivered ", Some(2999));
        check(produced, "ms: ", Some(42));
        check(produced, " failed)", Some(1));
        check(produced, " lost", None);
    }
}
