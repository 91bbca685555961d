//! What a run says: lines while it goes, a table at its end, and target/bench/results.json.

use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use super::Args;
use super::outcome::{Outcome, Spread};
use super::page;
use super::probe::Figures;
use super::row::{Better, Goal, Metric, Row};
use super::system::{Durability, JVM, System, bench_dir, settings};
use super::{pipeline, rows};
use crate::process;

/// One measurement, as it is done.
pub fn show(row: &Row, system: System, one: &Result<Figures, String>) {
    match one {
        Ok(figures) => {
            let shown = row.metrics.iter().filter_map(|metric| {
                let value = figures.get(metric.figure)?;
                Some(format!(
                    "{} {} {}",
                    metric.title,
                    number(*value),
                    metric.unit
                ))
            });
            println!(
                "{:<8} {}",
                system.name(),
                shown.collect::<Vec<_>>().join(", ")
            );
        }
        Err(why) => println!("{:<8} FAILED: {why}", system.name()),
    }
}

/// Three digits that say something.
pub fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        large if large >= 100.0 => format!("{value:.0}"),
        large if large >= 10.0 => format!("{value:.1}"),
        small if small >= 1.0 => format!("{value:.2}"),
        smaller if smaller >= 0.1 => format!("{value:.3}"),
        _ => format!("{value:.4}"),
    }
}

pub fn with_spread(spread: Option<Spread>) -> String {
    match spread {
        Some(Spread { median, min, max }) => {
            format!("{} ({}..{})", number(median), number(min), number(max))
        }
        None => "-".to_owned(),
    }
}

/// `>= 1.6x yes`, for each goal of a metric.
pub fn goals(outcome: &Outcome, metric: &Metric) -> String {
    let sign = match metric.better {
        Better::Higher => ">=",
        Better::Lower => "<=",
    };
    let one = |goal: &Goal| {
        let wanted = match goal {
            Goal::Ratio(wanted) => format!("{sign} {wanted}x"),
            Goal::Figure(wanted) => format!("{sign} {} {}", number(*wanted), metric.unit),
        };
        match outcome.met(metric, *goal) {
            Some(true) => format!("{wanted}: met"),
            Some(false) => format!("{wanted}: not met"),
            None => format!("{wanted}: not measured"),
        }
    };
    metric.goals.iter().map(one).collect::<Vec<_>>().join("; ")
}

/// Writes the table and the files; the lines that say what has failed and what is below Kafka.
pub fn report(args: &Args, outcomes: &[Outcome], took: Duration) -> Result<Vec<String>> {
    let run = description(args, took)?;
    let results = json!({
        "run": run,
        "rows": outcomes.iter().map(Outcome::json).collect::<Vec<Value>>(),
    });
    let file = bench_dir().join("results.json");
    std::fs::write(&file, serde_json::to_string_pretty(&results)? + "\n")?;
    table(outcomes);
    println!("\nfigures of every measurement: target/bench/results.json");
    let on_page = |rows: &[Row]| {
        let there = |outcome: &&Outcome| rows.iter().any(|row| row.numbers == outcome.row.numbers);
        outcomes.iter().filter(there).collect::<Vec<&Outcome>>()
    };
    if args.is_whole(rows::ROWS) {
        page::write(&on_page(rows::ROWS), &run)?;
        println!("written: docs/performance.md and its plots");
    }
    if args.is_whole(pipeline::ROWS) {
        page::write_pipeline(&on_page(pipeline::ROWS), &run)?;
        println!("written: docs/performance-pipeline.md");
    }
    let mut worse = Vec::new();
    for outcome in outcomes {
        let below = outcome
            .row
            .metrics
            .iter()
            .filter(|m| outcome.worse(m) == Some(true));
        worse.extend(below.map(|m| format!("row {} {}: below Kafka", outcome.row.id(), m.title)));
        let failed = outcome.failures().into_iter();
        worse.extend(failed.map(|why| format!("row {} FAILED: {why}", outcome.row.id())));
    }
    Ok(worse)
}

fn table(outcomes: &[Outcome]) {
    println!(
        "\n{:<4} {:<34} {:>22} {:>22} {:>22} {:>22}  goal",
        "row", "", "kafka", "oncelog", "floor", "oncelog / kafka"
    );
    for outcome in outcomes {
        println!(
            "{:<4} {} ({})",
            outcome.row.id(),
            outcome.row.title,
            outcome.row.mode()
        );
        for metric in outcome.row.metrics {
            let of = |system| with_spread(outcome.spread(system, metric.figure));
            println!(
                "{:<4} {:<34} {:>22} {:>22} {:>22} {:>22}  {}",
                "",
                format!("{}, {}", metric.title, metric.unit),
                of(System::Kafka),
                of(System::Oncelog),
                of(System::Floor),
                page::ratio(outcome, metric),
                goals(outcome, metric),
            );
        }
        for why in outcome.failures() {
            println!("     FAILED {why}");
        }
    }
}

/// Where, when and how: what a figure means nothing without.
fn description(args: &Args, took: Duration) -> Result<Value> {
    let git = |args: &[&str]| {
        let mut git = Command::new("git");
        git.args(args).current_dir(crate::root());
        process::output(&mut git).map(|text| text.trim().to_owned())
    };
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name"));
    let memory = read("/proc/meminfo");
    let memory_kib = memory
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"));
    let changed = !git(&["status", "--porcelain", "--untracked-files=no"])?.is_empty();
    let date = process::output(Command::new("date").args(["-u", "+%Y-%m-%d %H:%M UTC"]))?;
    let of = |system| {
        json!({
            "page cache": settings(system, Durability::PageCache),
            "fsync": settings(system, Durability::Fsync),
        })
    };
    Ok(json!({
        "commit": git(&["rev-parse", "--short=12", "HEAD"])?,
        "uncommitted_changes": changed,
        "date": date.trim(),
        "took_s": took.as_secs(),
        "pairs": args.pairs(),
        "seconds": args.seconds(),
        "machine": {
            "cpu": model.unwrap_or("unknown").trim_start_matches([' ', '\t', ':']),
            "cores": std::thread::available_parallelism()?.get(),
            "memory": memory_kib.unwrap_or("unknown").trim(),
            "kernel": read("/proc/sys/kernel/osrelease").trim(),
        },
        "kafka": { "version": kafka_version()?, "jvm": JVM, "settings": of(System::Kafka) },
        "oncelog": { "settings": of(System::Oncelog) },
    }))
}

/// The version of the jars that are started.
fn kafka_version() -> Result<String> {
    let pom = std::fs::read_to_string(crate::root().join("conformance/java/pom.xml"))?;
    let version = pom
        .split("<kafka.version>")
        .nth(1)
        .and_then(|rest| rest.split('<').next());
    Ok(version.unwrap_or("unknown").to_owned())
}
