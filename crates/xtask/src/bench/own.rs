//! The rows that start a broker of their own: starts, crashes, memory, and what many of something
//! cost. All without fsync on either side, as rows 1 to 10.

use std::process::{Command, Stdio};
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context, Result};

use super::probe::{self, Figures, Tools, new_topic};
use super::rows;
use super::system::{Broker, Durability, System};
use crate::process;

/// A broker that has answered is not idle at once.
const SETTLE: Duration = Duration::from_secs(2);

/// A measuring program's own start, which must not count as the broker's.
const PROBE_STARTS: Duration = Duration::from_millis(200);

fn start(tools: &Tools, system: System) -> Result<Broker> {
    Broker::start(tools.binaries, system, Durability::PageCache)
}

/// Resident memory and processor time of a broker so far.
fn account(tools: &Tools, broker: &Broker) -> Result<Figures> {
    let mut probe = tools.binaries.probe("account");
    probe::figures(probe.args(["--pid", &broker.pid()?.to_string()]))
}

/// Runs a program that waits for a broker, starts the broker, and returns how long it took, in
/// seconds from the start of its process.
fn wait_while_starting(broker: &mut Broker, mut probe: Command) -> Result<f64> {
    probe.stdin(Stdio::null()).stdout(Stdio::piped());
    let waiting = process::spawn(&mut probe)?;
    std::thread::sleep(PROBE_STARTS);
    let spawned = broker.spawn()?.duration_since(UNIX_EPOCH)?;
    let said = waiting.wait_with_output()?;
    let figures = probe::parse(said.status.success(), &String::from_utf8(said.stdout)?)?;
    let there = figures.get("unix_s").context("no time in the figures")?;
    Ok(there - spawned.as_secs_f64())
}

pub fn memory(tools: &Tools, system: System) -> Result<Figures> {
    let broker = start(tools, system)?;
    std::thread::sleep(SETTLE);
    let idle = account(tools, &broker)?;
    // Enough of each for buffers and heap to have the size that they keep.
    let short = tools.lasting(tools.seconds / 2.0);
    for load in rows::LOADS {
        load(&short, &broker)?;
    }
    let after = account(tools, &broker)?;
    Ok(Figures::from([
        ("idle_mb".to_owned(), idle["resident_mb"]),
        ("after_mb".to_owned(), after["resident_mb"]),
    ]))
}

pub fn cold_start(tools: &Tools, system: System) -> Result<Figures> {
    let mut broker = Broker::prepare(tools.binaries, system, Durability::PageCache)?;
    let topic = new_topic();
    let probe = tools.against(&broker, "first-ack", &["--topic", &topic]);
    let seconds = wait_while_starting(&mut broker, probe)?;
    let used = account(tools, &broker)?;
    Ok(Figures::from([
        ("start_ms".to_owned(), seconds * 1000.0),
        ("cpu_s".to_owned(), used["cpu_s"]),
    ]))
}

/// SIGKILL after `fill`, then the time until all of it is there again. `fill` is given the topic and
/// its partitions and says how many records it made.
fn recovery(
    tools: &Tools,
    system: System,
    partitions: usize,
    fill: impl FnOnce(&Broker, &[&str]) -> Result<Figures>,
) -> Result<Figures> {
    let mut broker = start(tools, system)?;
    let topic = new_topic();
    let partitions = partitions.to_string();
    let of_topic = ["--topic", &topic, "--partitions", &partitions];
    let filled = fill(&broker, &of_topic)?;
    broker.kill()?;
    let mut probe = tools.against(&broker, "recovered", &of_topic);
    probe.args(["--records", &filled["records"].to_string()]);
    let seconds = wait_while_starting(&mut broker, probe)?;
    Ok(Figures::from([("recovery_s".to_owned(), seconds)]))
}

pub fn recovery_of_data(tools: &Tools, system: System) -> Result<Figures> {
    let records = tools.scaled(2_000_000);
    recovery(tools, system, 10, |broker, of_topic| {
        rows::fill(tools, broker, of_topic, records)
    })
}

pub fn recovery_of_partitions(tools: &Tools, system: System) -> Result<Figures> {
    recovery(tools, system, tools.scaled(6000), |broker, of_topic| {
        probe::figures(&mut tools.against(broker, "one-each", of_topic))
    })
}

/// Transactions of so many records.
fn transactions(tools: &Tools, system: System, records: &str) -> Result<Figures> {
    let broker = start(tools, system)?;
    let seconds = tools.seconds.to_string();
    let args = ["--records", records, "--seconds", &seconds];
    tools.measure(&broker, "transactions", &args)
}

pub fn transactions_of_1(tools: &Tools, system: System) -> Result<Figures> {
    transactions(tools, system, "1")
}

pub fn transactions_of_100(tools: &Tools, system: System) -> Result<Figures> {
    transactions(tools, system, "100")
}

pub fn transactions_of_1000(tools: &Tools, system: System) -> Result<Figures> {
    transactions(tools, system, "1000")
}

pub fn connections(tools: &Tools, system: System) -> Result<Figures> {
    let broker = start(tools, system)?;
    let pid = broker.pid()?.to_string();
    let count = tools.scaled(10_000).to_string();
    let one_by_one = tools.scaled(2_000).to_string();
    let args = [
        "--pid",
        &pid,
        "--count",
        &count,
        "--one-by-one",
        &one_by_one,
    ];
    probe::figures(&mut tools.against(&broker, "connections", &args))
}

fn partitions(tools: &Tools, system: System, count: usize) -> Result<Figures> {
    let broker = start(tools, system)?;
    let (topic, pid, count) = (new_topic(), broker.pid()?.to_string(), count.to_string());
    let args = ["--topic", &topic, "--pid", &pid, "--count", &count];
    probe::figures(&mut tools.against(&broker, "partitions", &args))
}

pub fn partitions_1000(tools: &Tools, system: System) -> Result<Figures> {
    partitions(tools, system, tools.scaled(1000))
}

pub fn partitions_5000(tools: &Tools, system: System) -> Result<Figures> {
    partitions(tools, system, tools.scaled(5000))
}

fn group(tools: &Tools, system: System, protocol: &str) -> Result<Figures> {
    let broker = start(tools, system)?;
    let run = |members: usize| {
        let (topic, members, partitions) =
            (new_topic(), members.to_string(), (members * 3).to_string());
        let mut probe = tools.against(&broker, "group", &["--topic", &topic]);
        probe.args(["--protocol", protocol, "--members", &members]);
        probe::figures(probe.args(["--partitions", &partitions]))
    };
    // Warms up, and has the topic of offsets made.
    run(10)?;
    run(tools.scaled(100))
}

pub fn group_classic(tools: &Tools, system: System) -> Result<Figures> {
    group(tools, system, "classic")
}

pub fn group_consumer(tools: &Tools, system: System) -> Result<Figures> {
    group(tools, system, "consumer")
}
