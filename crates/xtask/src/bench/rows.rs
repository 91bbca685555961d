//! The rows: what is measured against which brokers, and what is wanted of it.
//!
//! The numbers are those of the goals of the project; a part of a row has a letter. A ratio is
//! always Oncelog's figure by Apache Kafka's, pair by pair.

use anyhow::Result;

use super::probe::{Figures, Tools};
use super::system::{Broker, Durability, System};

pub struct Row {
    pub number: u32,
    pub part: &'static str,
    pub title: &'static str,
    pub measure: Measure,
    pub metrics: &'static [Metric],
}

impl Row {
    pub fn id(&self) -> String {
        format!("{}{}", self.number, self.part)
    }
}

pub enum Measure {
    /// On brokers that run for many rows.
    On(Stage, fn(&Tools, &Broker) -> Result<Figures>),
}

/// Which brokers run at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Nobody waits for the disk.
    PageCache,
    /// Everybody does, before each acknowledgement.
    Fsync,
    /// Oncelog does, Kafka does not.
    OursFsync,
}

pub const STAGES: [Stage; 3] = [Stage::PageCache, Stage::OursFsync, Stage::Fsync];

impl Stage {
    pub fn systems(self) -> Vec<(System, Durability)> {
        use Durability::{Fsync, PageCache};
        match self {
            Stage::PageCache => vec![
                (System::Kafka, PageCache),
                (System::Oncelog, PageCache),
                (System::Floor, PageCache),
            ],
            Stage::Fsync => vec![
                (System::Kafka, Fsync),
                (System::Oncelog, Fsync),
                (System::Floor, Fsync),
            ],
            Stage::OursFsync => vec![(System::Kafka, PageCache), (System::Oncelog, Fsync)],
        }
    }

    pub fn describe(self) -> &'static str {
        match self {
            Stage::PageCache => "no fsync on either side",
            Stage::Fsync => "fsync before every acknowledgement on both sides",
            Stage::OursFsync => "Oncelog's fsync against Kafka's page cache",
        }
    }
}

pub struct Metric {
    /// Its name among the figures of the measurement.
    pub figure: &'static str,
    pub title: &'static str,
    pub unit: &'static str,
    pub better: Better,
    pub goals: &'static [Goal],
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Better {
    Higher,
    Lower,
}

#[derive(Clone, Copy)]
pub enum Goal {
    /// Of the ratio to Kafka: at least or at most this, whichever is better.
    Ratio(f64),
    /// Of Oncelog's own figure.
    Figure(f64),
}

use Better::{Higher, Lower};
use Goal::Ratio;

const fn metric(
    figure: &'static str,
    title: &'static str,
    unit: &'static str,
    better: Better,
    goals: &'static [Goal],
) -> Metric {
    Metric {
        figure,
        title,
        unit,
        better,
        goals,
    }
}

const fn throughput(goals: &'static [Goal]) -> Metric {
    metric("mb_per_s", "throughput", "MB/s", Higher, goals)
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

const fn row(
    number: u32,
    part: &'static str,
    title: &'static str,
    measure: Measure,
    metrics: &'static [Metric],
) -> Row {
    Row {
        number,
        part,
        title,
        measure,
        metrics,
    }
}

/// Batches of librdkafka's full size, which is 1,000,000 bytes.
const BIG: &[&str] = &["--set", "linger.ms=5", "--set", "batch.size=1000000"];
const SMALL: &[&str] = &["--set", "linger.ms=0", "--set", "batch.size=16384"];

fn produce(tools: &Tools, broker: &Broker, settings: &[&[&str]]) -> Result<Figures> {
    let seconds = tools.seconds.to_string();
    let mut args = vec!["--seconds", &seconds];
    args.extend(settings.iter().copied().flatten());
    tools.measure(broker, "produce", &args)
}

pub fn produce_big(tools: &Tools, broker: &Broker) -> Result<Figures> {
    produce(tools, broker, &[BIG, &["--set", "acks=all"]])
}

pub fn produce_small(tools: &Tools, broker: &Broker) -> Result<Figures> {
    produce(tools, broker, &[SMALL, &["--set", "acks=all"]])
}

fn latency(tools: &Tools, broker: &Broker, rate: &str) -> Result<Figures> {
    let seconds = tools.seconds.to_string();
    let settings = ["--set", "linger.ms=0", "--set", "socket.nagle.disable=true"];
    let mut args = vec!["--rate", rate, "--seconds", &seconds];
    args.extend(settings);
    tools.measure(broker, "latency", &args)
}

pub fn latency_1000(tools: &Tools, broker: &Broker) -> Result<Figures> {
    latency(tools, broker, "1000")
}

use Measure::On;

pub const ROWS: &[Row] = &[
    row(
        1,
        "",
        "produce 1 KB, big batches",
        On(Stage::PageCache, produce_big),
        &[throughput(&[Ratio(1.6)]), cpu(&[Ratio(0.5)])],
    ),
    row(
        3,
        "",
        "produce 1 KB, batches of 16 KB, no linger",
        On(Stage::PageCache, produce_small),
        &[throughput(&[Ratio(5.0)]), cpu(&[Ratio(0.15)])],
    ),
    row(
        8,
        "",
        "latency at 1,000/s",
        On(Stage::PageCache, latency_1000),
        &[ack_p50(&[Ratio(0.6)]), ack_p99(&[Ratio(0.2)])],
    ),
    row(
        13,
        "a",
        "produce 1 KB, big batches",
        On(Stage::Fsync, produce_big),
        &[throughput(&[Ratio(2.0)]), cpu(&[])],
    ),
    row(
        13,
        "b",
        "produce 1 KB, batches of 16 KB, no linger",
        On(Stage::Fsync, produce_small),
        &[throughput(&[Ratio(20.0)]), cpu(&[])],
    ),
    row(
        13,
        "c",
        "latency at 1,000/s",
        On(Stage::Fsync, latency_1000),
        &[ack_p50(&[]), ack_p99(&[Ratio(0.03)])],
    ),
    row(
        13,
        "d",
        "produce 1 KB, big batches",
        On(Stage::OursFsync, produce_big),
        &[throughput(&[Ratio(1.05)]), cpu(&[])],
    ),
    row(
        13,
        "e",
        "produce 1 KB, batches of 16 KB, no linger",
        On(Stage::OursFsync, produce_small),
        &[throughput(&[Ratio(4.0)]), cpu(&[])],
    ),
];
