//! docs/performance.md and its plots: the generated part of the page, between two markers.
//!
//! The rest of the page is written by people, and is left alone. No figure on it is typed.

use std::fmt::Write;

use anyhow::{Context, Result};
use serde_json::Value;

use super::outcome::Outcome;
use super::plot::{Line, Plot};
use super::report::{goals, with_spread};
use super::row::Metric;
use super::system::System;

const PAGE: &str = "docs/performance.md";
const BEGIN: &str = "<!-- cargo xtask bench: from here on generated -->\n";
const END: &str = "<!-- cargo xtask bench: generated until here -->\n";

const SYSTEMS: [System; 3] = [System::Kafka, System::Oncelog, System::Floor];

/// Figures of the latency plot: name and title.
const PERCENTILES: [(&str, &str); 4] = [
    ("ack_p50_ms", "p50"),
    ("ack_p99_ms", "p99"),
    ("ack_p99_9_ms", "p99.9"),
    ("ack_max_ms", "max"),
];

pub fn write(outcomes: &[Outcome], run: &Value) -> Result<()> {
    let path = crate::root().join(PAGE);
    let page = std::fs::read_to_string(&path).with_context(|| PAGE)?;
    let (before, rest) = page
        .split_once(BEGIN)
        .context("no first marker in the page")?;
    let (_, after) = rest.split_once(END).context("no last marker in the page")?;
    let mut text = String::new();
    describe(&mut text, run);
    for (file, plot) in plots(outcomes) {
        if let Some(svg) = plot.svg() {
            std::fs::write(crate::root().join("docs").join(file), svg)?;
            let _ = writeln!(text, "![{}]({file})\n", plot.title);
        }
    }
    table(&mut text, outcomes);
    Ok(std::fs::write(
        &path,
        format!("{before}{BEGIN}\n{text}\n{END}{after}"),
    )?)
}

fn describe(text: &mut String, run: &Value) {
    let words = |value: &Value| value.as_str().map_or(value.to_string(), str::to_owned);
    let machine = &run["machine"];
    let _ = writeln!(
        text,
        "Measured on {}, at commit {}, in {} s: {} pairs of {} s each (fewer where a row says so), \
         on {} with {} cores and {} of memory, Linux {}. Apache Kafka {} with `{}`.\n",
        words(&run["date"]),
        words(&run["commit"]),
        run["took_s"],
        run["pairs"],
        run["seconds"],
        words(&machine["cpu"]),
        machine["cores"],
        words(&machine["memory"]),
        words(&machine["kernel"]),
        words(&run["kafka"]["version"]),
        super::system::JVM.join(" "),
    );
}

fn plots(outcomes: &[Outcome]) -> Vec<(&'static str, Plot)> {
    let of = |figure: &str| -> Vec<Line> {
        let lines = outcomes
            .iter()
            .map(|outcome| line(outcome, figure, outcome.row.title));
        lines.filter(|line| !line.values.is_empty()).collect()
    };
    let mut latencies = Vec::new();
    for outcome in outcomes {
        let percentiles = PERCENTILES.iter().map(|(figure, title)| {
            line(outcome, figure, &format!("{}, {title}", outcome.row.title))
        });
        latencies.extend(percentiles.filter(|line| !line.values.is_empty()));
    }
    vec![
        (
            "performance-throughput.svg",
            Plot {
                title: "Throughput",
                axis: "MB/s (more is better)",
                lines: of("mb_per_s"),
            },
        ),
        (
            "performance-cpu.svg",
            Plot {
                title: "Processor time of the broker",
                axis: "seconds per GB moved (less is better)",
                lines: of("cpu_s_per_gb"),
            },
        ),
        (
            "performance-latency.svg",
            Plot {
                title: "Time to the acknowledgement",
                axis: "ms (less is better)",
                lines: latencies,
            },
        ),
    ]
}

fn line(outcome: &Outcome, figure: &str, title: &str) -> Line {
    let value = |system| Some((system, outcome.spread(system, figure)?));
    let values = SYSTEMS.into_iter().filter_map(value).collect();
    let label = format!("{} {title}", outcome.row.id());
    Line { label, values }
}

fn table(text: &mut String, outcomes: &[Outcome]) {
    text.push_str(
        "| Row | What | Kafka | Oncelog | Floor | Oncelog / Kafka | Goal |\n\
         |---|---|---|---|---|---|---|\n",
    );
    for outcome in outcomes {
        let row = outcome.row;
        let pairs = outcome.measured.values().map(Vec::len).max().unwrap_or(0);
        let _ = writeln!(
            text,
            "| **{}** | **{}**; {}; {pairs} pairs | | | | | |",
            row.id(),
            row.title,
            row.mode()
        );
        for metric in row.metrics {
            let _ = writeln!(text, "{}", metric_row(outcome, metric));
        }
        for why in outcome.failures() {
            let _ = writeln!(text, "| | **failed** {} | | | | | |", why.replace('|', "/"));
        }
    }
}

/// Oncelog's figure by Kafka's, where that says something.
pub fn ratio(outcome: &Outcome, metric: &Metric) -> String {
    match metric.compared {
        true => with_spread(outcome.ratio(System::Kafka, metric.figure)),
        false => "-".to_owned(),
    }
}

fn metric_row(outcome: &Outcome, metric: &Metric) -> String {
    let of = |system| with_spread(outcome.spread(system, metric.figure));
    let below = match outcome.worse(metric) {
        Some(true) => " **below Kafka**",
        _ => "",
    };
    format!(
        "| | {}, {} | {} | {} | {} | {}{below} | {} |",
        metric.title,
        metric.unit,
        of(System::Kafka),
        of(System::Oncelog),
        of(System::Floor),
        ratio(outcome, metric),
        goals(outcome, metric)
    )
}
