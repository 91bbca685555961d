//! The rows about what is around the log: read-process-write loops, outbox relays and sinks.
//!
//! They have a page of their own, docs/performance-pipeline.md, since what they are held against is not
//! a broker: in row 21 the place of Kafka is Debezium's, in Kafka Connect and on Oncelog. Each measurement has a new broker and new databases; those are on this machine, too, so
//! that two cores are shared by a database, a broker, and what is measured.

use anyhow::{Context, Result};

use super::probe::{self, Figures, Tools, new_topic};
use super::row::Better::{Higher, Lower};
use super::row::Goal::{self, Figure, Ratio};
use super::row::Measure::{Ours, Own};
use super::row::{Metric, Row, metric, row};
use super::system::{Broker, Durability, System, bench_dir};
use crate::toolbox;

const fn events(goals: &'static [Goal]) -> Metric {
    metric("events_per_s", "drain", "events/s", Higher, goals)
}

const fn relay_cpu(goals: &'static [Goal]) -> Metric {
    metric("cpu_us_per_event", "relay CPU", "us/event", Lower, goals)
}

const fn resident(goals: &'static [Goal]) -> Metric {
    metric("resident_max_mb", "most memory", "MB", Lower, goals)
}

const fn rows_applied(goals: &'static [Goal]) -> Metric {
    metric("rows_per_s", "applied", "rows/s", Higher, goals)
}

const fn sink_cpu() -> Metric {
    metric("cpu_us_per_row", "sink CPU", "us/row", Lower, &[])
}

macro_rules! drained {
    ($rate:expr) => {
        &[events($rate), relay_cpu(&[]), resident(&[])]
    };
    ($rate:expr, $cpu:expr) => {
        &[events($rate), relay_cpu($cpu), resident(&[])]
    };
}

macro_rules! latencies {
    ($p50:expr, $p99:expr) => {
        &[
            metric("p50_ms", "readable p50", "ms", Lower, $p50),
            metric("p99_ms", "readable p99", "ms", Lower, $p99),
            metric("commit_p50_ms", "of it the commit, p50", "ms", Lower, &[]),
            metric("commit_p99_ms", "of it the commit, p99", "ms", Lower, &[]),
            metric("cpu_percent", "relay CPU", "% of a core", Lower, &[]),
            resident(&[Figure(40.0)]),
        ]
    };
}

pub const ROWS: &[Row] = &[
    row(
        &[12],
        "",
        "read, process, write 1 KB: exactly once beside at least once, transactions of 100 ms",
        Own(eos_loop, 3),
        &[
            metric("cost_percent", "cost", "%", Lower, &[Figure(5.0)]).not_compared(),
            metric("records_per_s", "exactly once", "records/s", Higher, &[]),
            metric(
                "records_per_s_at_least_once",
                "at least once",
                "records/s",
                Higher,
                &[],
            ),
        ],
    ),
    row(
        &[21],
        "a",
        "relay, exactly once, PostgreSQL's log, a table; transactions of 1,000 rows",
        Own(postgres_table, 3),
        drained!(&[Figure(80_000.0), Ratio(2.6)], &[Figure(10.0)]),
    ),
    row(
        &[21],
        "b",
        "relay, exactly once, PostgreSQL's log, a table; transactions of one row",
        Ours(postgres_table_single, 3),
        drained!(&[]),
    ),
    row(
        &[22],
        "",
        "relay, exactly once, PostgreSQL's log, logical messages; transactions of 1,000",
        Ours(postgres_messages, 3),
        drained!(&[Figure(100_000.0)]),
    ),
    row(
        &[23],
        "a",
        "relay, exactly once, polling PostgreSQL",
        Ours(postgres_polling, 3),
        drained!(&[Figure(30_000.0)]),
    ),
    row(
        &[23],
        "b",
        "relay, exactly once, MariaDB's binlog; transactions of 1,000 rows",
        Ours(mariadb_binlog, 3),
        drained!(&[Figure(40_000.0)]),
    ),
    row(
        &[23],
        "c",
        "relay, exactly once, polling MariaDB",
        Ours(mariadb_polling, 3),
        drained!(&[]),
    ),
    row(
        &[23],
        "d",
        "relay, exactly once, SQLite",
        Ours(sqlite, 3),
        drained!(&[Figure(150_000.0)]),
    ),
    row(
        &[24],
        "a",
        "relay, exactly once, PostgreSQL's log: commit to readable, 200 commits/s",
        Ours(latency_200, 3),
        latencies!(&[Figure(3.0)], &[Figure(15.0)]),
    ),
    row(
        &[24],
        "b",
        "relay, exactly once, PostgreSQL's log: commit to readable, 5,000 commits/s",
        Ours(latency_5000, 3),
        latencies!(&[Figure(10.0)], &[Figure(40.0)]),
    ),
    row(
        &[24],
        "c",
        "relay, from the start of its process to the first waiting event readable",
        Ours(ready, 5),
        &[metric("ready_ms", "start", "ms", Lower, &[Figure(100.0)])],
    ),
    row(
        &[24],
        "d",
        "relay, PostgreSQL's log, one database transaction of 1 GB",
        Ours(large, 2),
        &[
            resident(&[Figure(40.0)]),
            metric("mb_per_s", "of payloads", "MB/s", Higher, &[]),
        ],
    ),
    row(
        &[25],
        "a",
        "sink to PostgreSQL: upsert, inbox and offsets in one transaction",
        Ours(apply_postgres, 3),
        &[rows_applied(&[Figure(50_000.0)]), sink_cpu(), resident(&[])],
    ),
    row(
        &[25],
        "b",
        "sink to SQLite: upsert, inbox and offsets in one transaction",
        Ours(apply_sqlite, 3),
        &[
            rows_applied(&[Figure(100_000.0)]),
            sink_cpu(),
            resident(&[]),
        ],
    ),
    row(
        &[25],
        "c",
        "sink to MariaDB: upsert, inbox and offsets in one transaction",
        Ours(apply_mariadb, 3),
        &[rows_applied(&[]), sink_cpu(), resident(&[])],
    ),
    row(
        &[26],
        "",
        "what a relay takes from 8 writers to PostgreSQL, which waits for its disk",
        Ours(tax, 3),
        &[
            metric("cost_percent", "cost", "%", Lower, &[Figure(5.0)]),
            metric("txn_per_s", "with the relay", "txn/s", Higher, &[]),
            metric("txn_per_s_without", "without it", "txn/s", Higher, &[]),
        ],
    ),
];

fn broker(tools: &Tools) -> Result<Broker> {
    Broker::start(tools.binaries, System::Oncelog, Durability::PageCache)
}

/// Runs a program that measures a relay or a sink of ours.
fn around(tools: &Tools, name: &str, args: &[&str]) -> Result<Figures> {
    toolbox::need(&[&toolbox::POSTGRESQL, &toolbox::MARIADB])?;
    let broker = broker(tools)?;
    let home = bench_dir().join("pipeline");
    if home.exists() {
        std::fs::remove_dir_all(&home)?;
    }
    let mut probe = tools.against(&broker, name, args);
    probe.args(["--topic", &new_topic()]);
    probe
        .arg("--oncelog")
        .arg(tools.binaries.dir.join("oncelog"));
    probe.arg("--home").arg(&home);
    probe::figures(&mut probe).with_context(|| format!("logs are in {}", home.display()))
}

fn eos_loop(tools: &Tools, system: System) -> Result<Figures> {
    let broker = Broker::start(tools.binaries, system, Durability::PageCache)?;
    let seconds = (tools.seconds * 2.0 / 3.0).to_string();
    let records = tools.scaled(2_000_000).to_string();
    let args = ["--records", &records, "--seconds", &seconds];
    let mut probe = tools.against(&broker, "eos-loop", &args);
    probe::figures(probe.args(["--topic", &new_topic()]))
}

fn drain(tools: &Tools, source: &str, rows: usize, each: &str) -> Result<Figures> {
    let rows = tools.scaled(rows).to_string();
    let args = ["--source", source, "--rows", &rows, "--each", each];
    around(tools, "relay-drain", &args)
}

fn postgres_table(tools: &Tools, system: System) -> Result<Figures> {
    match system {
        System::Kafka => debezium(tools),
        _ => drain(tools, "postgres-table", 400_000, "1000"),
    }
}

/// It is slower, and would take long for as many rows.
fn debezium(tools: &Tools) -> Result<Figures> {
    let jars = toolbox::debezium_jars()?.display().to_string();
    let rows = tools.scaled(200_000).to_string();
    let args = [
        "--source",
        "postgres-table",
        "--rows",
        &rows,
        "--connect",
        &jars,
    ];
    around(tools, "relay-drain", &args)
}

fn postgres_table_single(tools: &Tools) -> Result<Figures> {
    drain(tools, "postgres-table", 200_000, "1")
}

fn postgres_messages(tools: &Tools) -> Result<Figures> {
    drain(tools, "postgres-messages", 400_000, "1000")
}

fn postgres_polling(tools: &Tools) -> Result<Figures> {
    drain(tools, "postgres-polling", 200_000, "1000")
}

fn mariadb_binlog(tools: &Tools) -> Result<Figures> {
    drain(tools, "mariadb-binlog", 400_000, "1000")
}

fn mariadb_polling(tools: &Tools) -> Result<Figures> {
    drain(tools, "mariadb-polling", 100_000, "1000")
}

fn sqlite(tools: &Tools) -> Result<Figures> {
    drain(tools, "sqlite", 400_000, "1000")
}

fn ready(tools: &Tools) -> Result<Figures> {
    drain(tools, "postgres-table", 20_000, "1000")
}

fn latency(tools: &Tools, rate: &str) -> Result<Figures> {
    let seconds = (tools.seconds * 2.0).to_string();
    around(
        tools,
        "relay-latency",
        &["--rate", rate, "--seconds", &seconds],
    )
}

fn latency_200(tools: &Tools) -> Result<Figures> {
    latency(tools, "200")
}

fn latency_5000(tools: &Tools) -> Result<Figures> {
    latency(tools, "5000")
}

fn large(tools: &Tools) -> Result<Figures> {
    let megabytes = tools.scaled(1_000).to_string();
    around(tools, "relay-large", &["--megabytes", &megabytes])
}

fn apply(tools: &Tools, target: &str, records: usize) -> Result<Figures> {
    let records = tools.scaled(records).to_string();
    around(
        tools,
        "sink-apply",
        &["--target", target, "--records", &records],
    )
}

fn apply_postgres(tools: &Tools) -> Result<Figures> {
    apply(tools, "postgres", 400_000)
}

fn apply_sqlite(tools: &Tools) -> Result<Figures> {
    apply(tools, "sqlite", 400_000)
}

fn apply_mariadb(tools: &Tools) -> Result<Figures> {
    apply(tools, "mariadb", 200_000)
}

fn tax(tools: &Tools) -> Result<Figures> {
    let seconds = tools.seconds.to_string();
    around(tools, "outbox-tax", &["--seconds", &seconds])
}
