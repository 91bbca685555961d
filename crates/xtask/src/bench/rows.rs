//! The rows: what is measured against which brokers, and what is wanted of it.
//!
//! The numbers are those of the project's goals; a part of a row has a letter. A ratio is always
//! Oncelog's figure by Apache Kafka's, pair by pair.

use anyhow::Result;

use super::own;
use super::probe::{Figures, Tools, figures};
use super::row::Better::{Higher, Lower};
use super::row::Goal::{Figure, Ratio};
use super::row::Measure::{On, Own};
use super::row::{Goal, Metric, Row, Stage, metric, row};
use super::system::Broker;

const fn throughput(goals: &'static [Goal]) -> Metric {
    metric("mb_per_s", "throughput", "MB/s", Higher, goals)
}

const fn records(goals: &'static [Goal]) -> Metric {
    metric("records_per_s", "throughput", "records/s", Higher, goals)
}

const fn cpu(goals: &'static [Goal]) -> Metric {
    metric("cpu_s_per_gb", "broker CPU", "s/GB", Lower, goals)
}

const fn ack_p50(goals: &'static [Goal]) -> Metric {
    metric("ack_p50_ms", "ack p50", "ms", Lower, goals)
}

const fn ack_p99(goals: &'static [Goal]) -> Metric {
    metric("ack_p99_ms", "ack p99", "ms", Lower, goals)
}

const fn e2e_p50(goals: &'static [Goal]) -> Metric {
    metric("e2e_p50_ms", "end to end p50", "ms", Lower, goals)
}

const fn e2e_p99(goals: &'static [Goal]) -> Metric {
    metric("e2e_p99_ms", "end to end p99", "ms", Lower, goals)
}

/// Ratios of p50 and p99, the same for acknowledgements and end to end.
macro_rules! latencies {
    ($p50:expr, $p99:expr) => {
        &[ack_p50($p50), ack_p99($p99), e2e_p50($p50), e2e_p99($p99)]
    };
}

const TRANSACTIONS: &[Metric] = &[
    metric("txn_per_s", "transactions", "per s", Higher, &[Ratio(15.0)]),
    metric("p50_ms", "begin to commit p50", "ms", Lower, &[Figure(1.0)]),
    metric("p99_ms", "begin to commit p99", "ms", Lower, &[]),
    metric("cpu_ms_per_txn", "broker CPU", "ms each", Lower, &[]),
];

const PAGE_CACHE: Stage = Stage::PageCache;

pub const ROWS: &[Row] = &[
    row(
        &[1],
        "",
        "produce 1 KB, big batches",
        On(PAGE_CACHE, produce_big),
        &[throughput(&[Ratio(1.6)]), cpu(&[Ratio(0.5)])],
    ),
    row(
        &[2],
        "",
        "produce 100 B, big batches",
        On(PAGE_CACHE, produce_100),
        &[records(&[Ratio(1.4)]), cpu(&[Ratio(0.5)])],
    ),
    row(
        &[3],
        "",
        "produce 1 KB, batches of 16 KB, no linger",
        On(PAGE_CACHE, produce_small),
        &[throughput(&[Ratio(5.0)]), cpu(&[Ratio(0.15)])],
    ),
    row(
        &[4],
        "a",
        "produce 1 KB, big batches, acks=0",
        On(PAGE_CACHE, produce_acks_0),
        &[throughput(&[Ratio(1.7)]), cpu(&[])],
    ),
    row(
        &[4],
        "b",
        "produce 1 KB, big batches, acks=1",
        On(PAGE_CACHE, produce_acks_1),
        &[throughput(&[Ratio(1.7)]), cpu(&[])],
    ),
    row(
        &[5],
        "",
        "produce 1 KB, big batches, idempotent",
        On(PAGE_CACHE, produce_idempotent),
        &[
            throughput(&[Ratio(1.6)]),
            cpu(&[]),
            metric(
                "cost_percent",
                "cost of idempotence",
                "%",
                Lower,
                &[Figure(3.0)],
            )
            .not_compared(),
        ],
    ),
    row(
        &[6],
        "a",
        "consume 1 KB from the page cache",
        On(PAGE_CACHE, consume_1000),
        &[throughput(&[Ratio(1.0)]), cpu(&[Ratio(0.6)])],
    ),
    row(
        &[6],
        "b",
        "consume 100 B from the page cache",
        On(PAGE_CACHE, consume_100),
        &[records(&[Ratio(1.0)]), cpu(&[Ratio(0.6)])],
    ),
    row(
        &[7, 10],
        "",
        "latency at 100/s",
        On(PAGE_CACHE, latency_100),
        latencies!(&[Ratio(0.65)], &[Ratio(0.5)]),
    ),
    row(
        &[8, 10],
        "a",
        "latency at 1,000/s",
        On(PAGE_CACHE, latency_1000),
        latencies!(&[Ratio(0.6)], &[Ratio(0.2)]),
    ),
    row(
        &[8, 10],
        "b",
        "latency at 5,000/s",
        On(PAGE_CACHE, latency_5000),
        latencies!(&[Ratio(0.6)], &[Ratio(0.2)]),
    ),
    row(
        &[9, 10],
        "a",
        "latency at 20,000/s",
        On(PAGE_CACHE, latency_20000),
        latencies!(&[Ratio(0.02)], &[Ratio(0.03)]),
    ),
    row(
        &[9, 10],
        "b",
        "latency at 100,000/s",
        On(PAGE_CACHE, latency_100000),
        latencies!(&[Ratio(0.02)], &[Ratio(0.03), Figure(15.0)]),
    ),
    row(
        &[11],
        "a",
        "transactions of 1 record, one producer",
        Own(own::transactions_of_1, 3),
        TRANSACTIONS,
    ),
    row(
        &[11],
        "b",
        "transactions of 100 records, one producer",
        Own(own::transactions_of_100, 3),
        TRANSACTIONS,
    ),
    row(
        &[11],
        "c",
        "transactions of 1,000 records, one producer",
        Own(own::transactions_of_1000, 3),
        TRANSACTIONS,
    ),
    row(
        &[13],
        "a",
        "produce 1 KB, big batches",
        On(Stage::Fsync, produce_big),
        &[throughput(&[Ratio(2.0)]), cpu(&[])],
    ),
    row(
        &[13],
        "b",
        "produce 1 KB, batches of 16 KB, no linger",
        On(Stage::Fsync, produce_small),
        &[throughput(&[Ratio(20.0)]), cpu(&[])],
    ),
    row(
        &[13],
        "c",
        "latency at 1,000/s",
        On(Stage::Fsync, latency_1000),
        latencies!(&[], &[Ratio(0.03)]),
    ),
    row(
        &[13],
        "d",
        "produce 1 KB, big batches",
        On(Stage::OursFsync, produce_big),
        &[throughput(&[Ratio(1.05)]), cpu(&[])],
    ),
    row(
        &[13],
        "e",
        "produce 1 KB, batches of 16 KB, no linger",
        On(Stage::OursFsync, produce_small),
        &[throughput(&[Ratio(4.0)]), cpu(&[])],
    ),
    row(
        &[14],
        "",
        "resident memory of a new broker, and after rows 1 to 6",
        Own(own::memory, 2),
        &[
            metric("idle_mb", "idle", "MB", Lower, &[Ratio(0.05)]),
            metric("after_mb", "after rows 1 to 6", "MB", Lower, &[Ratio(0.1)]),
        ],
    ),
    row(
        &[15],
        "",
        "cold start, to the first acknowledged record",
        Own(own::cold_start, 5),
        &[
            metric(
                "start_ms",
                "start",
                "ms",
                Lower,
                &[Ratio(0.02), Figure(50.0)],
            ),
            metric("cpu_s", "CPU until then", "s", Lower, &[]),
        ],
    ),
    row(
        &[16],
        "a",
        "kill -9, start, all there: 2 GB in 10 partitions",
        Own(own::recovery_of_data, 2),
        &[metric(
            "recovery_s",
            "recovery",
            "s",
            Lower,
            &[Ratio(0.06), Figure(1.0)],
        )],
    ),
    row(
        &[16],
        "b",
        "kill -9, start, all there: one record in each of 6,000 partitions",
        Own(own::recovery_of_partitions, 2),
        &[metric(
            "recovery_s",
            "recovery",
            "s",
            Lower,
            &[Ratio(0.02), Figure(1.0)],
        )],
    ),
    row(
        &[17],
        "",
        "10,000 connections, opened at once",
        Own(own::connections, 2),
        &[
            metric("at_once_s", "all open", "s", Lower, &[Figure(2.0)]),
            metric(
                "not_open",
                "not open after 130 s",
                "",
                Lower,
                &[Figure(0.0)],
            ),
            metric("resets", "reset and tried again", "", Lower, &[]).not_compared(),
            metric(
                "one_by_one_us",
                "each, one by one",
                "us",
                Lower,
                &[Figure(60.0)],
            ),
            // Of a virtual machine with a heap of its own it says nothing.
            metric("kb_each", "memory each", "KB", Lower, &[Figure(10.0)]).not_compared(),
            metric(
                "idle_cpu_percent",
                "idle CPU",
                "% of a core",
                Lower,
                &[Figure(1.0)],
            ),
        ],
    ),
    row(
        &[18],
        "a",
        "create 1,000 partitions",
        Own(own::partitions_1000, 2),
        &[
            metric("create_s", "all there", "s", Lower, &[]),
            metric("cpu_s", "CPU until idle", "s", Lower, &[]),
            metric("idle_cpu_percent", "idle CPU", "% of a core", Lower, &[]),
        ],
    ),
    row(
        &[18],
        "b",
        "create 5,000 partitions",
        Own(own::partitions_5000, 2),
        &[
            metric("create_s", "all there", "s", Lower, &[Figure(2.0)]),
            metric("cpu_s", "CPU until idle", "s", Lower, &[]),
            metric(
                "idle_cpu_percent",
                "idle CPU",
                "% of a core",
                Lower,
                &[Figure(0.5)],
            ),
        ],
    ),
    row(
        &[19],
        "a",
        "group of 100 members, 300 partitions, classic",
        Own(own::group_classic, 3),
        &[
            metric("join_s", "each has its share", "s", Lower, &[Ratio(0.3)]),
            metric("leave_s", "after one left", "s", Lower, &[Ratio(0.3)]),
        ],
    ),
    row(
        &[19],
        "b",
        "group of 100 members, 300 partitions, KIP-848",
        Own(own::group_consumer, 3),
        &[
            metric("join_s", "each has its share", "s", Lower, &[Figure(1.0)]),
            metric("leave_s", "after one left", "s", Lower, &[Figure(1.0)]),
        ],
    ),
];

/// The loads of rows 1 to 6, on one broker.
pub const LOADS: [fn(&Tools, &Broker) -> Result<Figures>; 6] = [
    produce_big,
    produce_100,
    produce_small,
    produce_acks_0,
    produce_acks_1,
    consume_1000,
];

/// Batches of librdkafka's full size.
const BIG: &[&str] = &["--set", "linger.ms=5", "--set", "batch.size=1000000"];
/// The short queue ends a run soon after its time, where a broker is slow.
const SMALL: &[&str] = &[
    "--set",
    "linger.ms=0",
    "--set",
    "batch.size=16384",
    "--set",
    "queue.buffering.max.messages=20000",
];
const ACKS_ALL: &[&str] = &["--set", "acks=all"];

/// The most that one measurement writes, in bytes of values: it is memory until it is deleted.
const BYTES_MAX: usize = 2_000_000_000;

/// To begin with, where nothing is known of a broker's speed.
const RECORDS_MIN: usize = 20_000;

/// How long a measurement has to be to say how many records the next one needs.
const TELLING_SECONDS: f64 = 0.5;

/// Produces for about `tools.seconds`: as many records as the rate of the last time gives.
fn produce(tools: &Tools, broker: &Broker, size: usize, settings: &[&[&str]]) -> Result<Figures> {
    let size_text = size.to_string();
    let mut args = vec!["--size", &size_text];
    args.extend(settings.iter().copied().flatten());
    let records_max = tools.scaled(BYTES_MAX / size);
    let kind = format!("{:?} {:?} {args:?}", broker.system, broker.durability);
    loop {
        let known = tools.rate(&kind);
        let wanted = known.map_or(RECORDS_MIN, |rate| (rate * tools.seconds) as usize);
        let records = wanted.clamp(1, records_max);
        let figures = throughput_of(tools, broker, "produce", records, &args)?;
        tools.note_rate(&kind, figures["records_per_s"]);
        let telling = figures["seconds"] > TELLING_SECONDS.min(tools.seconds / 2.0);
        if known.is_some() && (telling || records == records_max) {
            return Ok(figures);
        }
    }
}

fn throughput_of(
    tools: &Tools,
    broker: &Broker,
    name: &str,
    records: usize,
    args: &[&str],
) -> Result<Figures> {
    let client = tools.binaries.client.display().to_string();
    let records = records.to_string();
    let mut all = vec!["--client", &client, "--records", &records];
    all.extend(args);
    tools.measure(broker, name, &all)
}

/// Records of 1 KB to a topic that is named, with its partitions, by `of_topic`, and stays.
pub fn fill(tools: &Tools, broker: &Broker, of_topic: &[&str], records: usize) -> Result<Figures> {
    let mut filling = tools.against(broker, "produce", of_topic);
    filling.arg("--client").arg(&tools.binaries.client);
    filling.args(["--records", &records.to_string()]);
    figures(filling.args(BIG).args(ACKS_ALL))
}

pub fn produce_big(tools: &Tools, broker: &Broker) -> Result<Figures> {
    produce(tools, broker, 1000, &[BIG, ACKS_ALL])
}

fn produce_100(tools: &Tools, broker: &Broker) -> Result<Figures> {
    produce(tools, broker, 100, &[BIG, ACKS_ALL])
}

pub fn produce_small(tools: &Tools, broker: &Broker) -> Result<Figures> {
    produce(tools, broker, 1000, &[SMALL, ACKS_ALL])
}

fn produce_acks_0(tools: &Tools, broker: &Broker) -> Result<Figures> {
    produce(tools, broker, 1000, &[BIG, &["--set", "acks=0"]])
}

fn produce_acks_1(tools: &Tools, broker: &Broker) -> Result<Figures> {
    produce(tools, broker, 1000, &[BIG, &["--set", "acks=1"]])
}

/// Beside it, on the same broker, without idempotence: what that costs.
fn produce_idempotent(tools: &Tools, broker: &Broker) -> Result<Figures> {
    // As many requests in flight as an idempotent producer may have.
    let plain = ["--set", "max.in.flight=5"];
    let plain = produce(tools, broker, 1000, &[BIG, ACKS_ALL, &plain])?;
    let idempotent = ["--set", "enable.idempotence=true"];
    let mut figures = produce(tools, broker, 1000, &[BIG, ACKS_ALL, &idempotent])?;
    let cost = 100.0 * (1.0 - figures["mb_per_s"] / plain["mb_per_s"]);
    figures.insert("cost_percent".to_owned(), cost);
    Ok(figures)
}

/// What is read is written first; that is not measured.
fn consume(tools: &Tools, broker: &Broker, size: usize, records: usize) -> Result<Figures> {
    let size = size.to_string();
    let mut args = vec!["--size", &size];
    args.extend(BIG);
    throughput_of(tools, broker, "consume", tools.scaled(records), &args)
}

fn consume_1000(tools: &Tools, broker: &Broker) -> Result<Figures> {
    consume(tools, broker, 1000, 2_000_000)
}

fn consume_100(tools: &Tools, broker: &Broker) -> Result<Figures> {
    consume(tools, broker, 100, 12_000_000)
}

fn latency(tools: &Tools, broker: &Broker, rate: &str) -> Result<Figures> {
    let seconds = tools.seconds.to_string();
    let settings = ["--set", "linger.ms=0", "--set", "socket.nagle.disable=true"];
    let mut args = vec!["--rate", rate, "--seconds", &seconds];
    args.extend(settings);
    tools.measure(broker, "latency", &args)
}

fn latency_100(tools: &Tools, broker: &Broker) -> Result<Figures> {
    latency(tools, broker, "100")
}

fn latency_1000(tools: &Tools, broker: &Broker) -> Result<Figures> {
    latency(tools, broker, "1000")
}

fn latency_5000(tools: &Tools, broker: &Broker) -> Result<Figures> {
    latency(tools, broker, "5000")
}

fn latency_20000(tools: &Tools, broker: &Broker) -> Result<Figures> {
    latency(tools, broker, "20000")
}

fn latency_100000(tools: &Tools, broker: &Broker) -> Result<Figures> {
    latency(tools, broker, "100000")
}
