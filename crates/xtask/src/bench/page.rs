//! docs/performance.md with its plots, and docs/performance-pipeline.md: the generated part of each
//! page, between two markers.
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
const PIPELINE_PAGE: &str = "docs/performance-pipeline.md";
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

/// The page of the brokers, with its plots.
pub fn write(outcomes: &[&Outcome], run: &Value) -> Result<()> {
    let mut text = String::new();
    describe(&mut text, run);
    for (file, plot) in plots(outcomes) {
        if let Some(svg) = plot.svg() {
            std::fs::write(crate::root().join("docs").join(file), svg)?;
            let _ = writeln!(text, "![{}]({file})\n", plot.title);
        }
    }
    table(&mut text, outcomes);
    replace(PAGE, &text)
}

/// The page of what is around the log.
pub fn write_pipeline(outcomes: &[&Outcome], run: &Value) -> Result<()> {
    let mut text = String::new();
    describe(&mut text, run);
    pipeline_table(&mut text, outcomes);
    replace(PIPELINE_PAGE, &text)
}

/// Puts `text` between the markers of a page.
fn replace(page: &str, text: &str) -> Result<()> {
    let path = crate::root().join(page);
    let whole = std::fs::read_to_string(&path).context(page.to_owned())?;
    let (before, rest) = whole
        .split_once(BEGIN)
        .context("no first marker in the page")?;
    let (_, after) = rest.split_once(END).context("no last marker in the page")?;
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

fn plots(outcomes: &[&Outcome]) -> Vec<(&'static str, Plot)> {
    let of = |figure: &str| -> Vec<Line> {
        let lines = outcomes
            .iter()
            .map(|outcome| line(outcome, figure, outcome.row.label()));
        lines.filter(|line| !line.values.is_empty()).collect()
    };
    let mut latencies = Vec::new();
    for outcome in outcomes {
        let percentiles = PERCENTILES.iter().map(|(figure, title)| {
            line(outcome, figure, format!("{}, {title}", outcome.row.label()))
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

fn line(outcome: &Outcome, figure: &str, label: String) -> Line {
    let value = |system| Some((system, outcome.spread(system, figure)?));
    let values = SYSTEMS.into_iter().filter_map(value).collect();
    Line { label, values }
}

fn table(text: &mut String, outcomes: &[&Outcome]) {
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

fn pipeline_table(text: &mut String, outcomes: &[&Outcome]) {
    text.push_str(
        "| Row | What | Peer | Oncelog | Oncelog / peer | Goal |\n|---|---|---|---|---|---|\n",
    );
    for outcome in outcomes {
        let (id, title, mode) = (outcome.row.id(), outcome.row.title, outcome.row.mode());
        let times = outcome.measured.values().map(Vec::len).max().unwrap_or(0);
        let _ = writeln!(
            text,
            "| **{id}** | **{title}**; {mode}; {times} times | | | | |"
        );
        for metric in outcome.row.metrics {
            let of = |system| with_spread(outcome.spread(system, metric.figure));
            let _ = writeln!(
                text,
                "| | {}, {} | {} | {} | {} | {} |",
                metric.title,
                metric.unit,
                of(System::Kafka),
                of(System::Oncelog),
                ratio(outcome, metric),
                goals(outcome, metric),
            );
        }
        for why in outcome.failures() {
            let _ = writeln!(text, "| | **failed** {} | | | | |", why.replace('|', "/"));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::outcome::Measured;
    use crate::bench::probe::Figures;
    use crate::bench::rows::ROWS;

    fn row_1() -> Outcome {
        let of = |mb_per_s: f64| Ok(Figures::from([("mb_per_s".to_owned(), mb_per_s)]));
        Outcome {
            row: &ROWS[0],
            measured: Measured::from([
                (System::Kafka, vec![of(500.0), of(400.0)]),
                (
                    System::Oncelog,
                    vec![of(400.0), Err("no | answer".to_owned())],
                ),
            ]),
        }
    }

    #[test]
    fn the_table_shows_what_is_below_kafka_and_what_has_failed() {
        let mut text = String::new();
        table(&mut text, &[&row_1()]);
        let lines: Vec<&str> = text.lines().collect();
        let throughput = "| | throughput, MB/s | 450 (400..500) | 400 (400..400) | - | \
                          0.800 (0.800..0.800) **below Kafka** | >= 1.6x: not met |";
        assert_eq!(lines[3], throughput);
        assert_eq!(lines[5], "| | **failed** oncelog: no / answer | | | | | |");
    }

    #[test]
    fn only_what_was_measured_is_plotted() {
        let drawn: Vec<bool> = plots(&[&row_1()])
            .iter()
            .map(|(_, plot)| plot.svg().is_some())
            .collect();
        assert_eq!(drawn, [true, false, false]);
    }

    #[test]
    fn the_pages_have_their_markers() {
        for page in [PAGE, PIPELINE_PAGE] {
            let page = std::fs::read_to_string(crate::root().join(page)).unwrap();
            let (_, rest) = page.split_once(BEGIN).unwrap();
            assert!(rest.contains(END));
        }
    }

    #[test]
    fn a_pipelines_row_stands_beside_its_goal() {
        let mut text = String::new();
        pipeline_table(&mut text, &[&row_1()]);
        let line = text.lines().nth(3).unwrap();
        let throughput = "| | throughput, MB/s | 450 (400..500) | 400 (400..400) | \
                          0.800 (0.800..0.800) | >= 1.6x: not met |";
        assert_eq!(line, throughput);
    }
}
