//! What a combination did and found, as a line of a table and as JSON.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use crate::combination::{Combination, Level};
use crate::judge::Verdict;

#[derive(Default)]
pub struct Report {
    /// SIGKILLs, by what was killed.
    pub kills: BTreeMap<&'static str, u64>,
    /// Failpoints that ended a process, by their names.
    pub failpoints: BTreeMap<String, u64>,
    /// Old instances that were continued while a new one ran, and ended as fenced.
    pub fenced: u64,
    /// Transactions of the writers.
    pub committed: u64,
    pub rolled_back: u64,
    pub failed: u64,
    pub topic: Verdict,
    pub target: Verdict,
    /// The longest that nothing arrived at the target.
    pub standstill: Duration,
    pub took: Duration,
    /// Everything else that was promised and is not so.
    pub broken: Vec<String>,
}

pub enum Outcome {
    Ran(Box<Report>),
    Skipped(String),
}

pub struct Row {
    pub combination: Combination,
    pub level: Level,
    pub outcome: Outcome,
}

impl Report {
    pub fn kills(&self) -> u64 {
        self.kills.values().sum()
    }

    /// Why this is a failure; `None` if all is as promised.
    pub fn failure(&self, level: Level) -> Option<String> {
        let (lost, duplicated) = match level {
            Level::AtMost => (true, false),
            Level::AtLeast => (false, true),
            Level::Exactly => (false, false),
        };
        let sides = [("topic", &self.topic), ("target", &self.target)];
        let wrong = sides
            .iter()
            .filter(|(_, verdict)| verdict.broken(lost, duplicated));
        let mut words: Vec<String> = wrong
            .map(|(side, verdict)| format!("{side}: {}", in_words(verdict)))
            .collect();
        if self.topic.committed == 0 {
            words.push("nothing was committed, so nothing was shown".to_owned());
        }
        let first = |text: &String| text.lines().collect::<Vec<_>>().join(" | ");
        words.extend(self.broken.iter().map(first));
        (!words.is_empty()).then(|| words.join("; "))
    }

    fn kinds(&self) -> String {
        let kinds = ["relay", "sink", "broker", "source", "target"];
        let counts = kinds.map(|kind| self.kills.get(kind).copied().unwrap_or(0).to_string());
        counts.join("/")
    }

    fn to_json(&self) -> Value {
        json!({
            "kills": self.kills,
            "failpoints": self.failpoints,
            "fenced": self.fenced,
            "transactions": {
                "committed": self.committed,
                "rolled_back": self.rolled_back,
                "failed": self.failed,
            },
            "topic": verdict_json(&self.topic),
            "target": verdict_json(&self.target),
            "standstill_ms": self.standstill.as_millis() as u64,
            "seconds": self.took.as_secs_f64(),
            "broken": self.broken,
        })
    }
}

fn verdict_json(verdict: &Verdict) -> Value {
    json!({
        "committed": verdict.committed,
        "delivered": verdict.delivered,
        "lost": verdict.lost,
        "duplicated": verdict.duplicated,
        "reordered": verdict.reordered,
        "phantom": verdict.phantom,
        "damaged": verdict.damaged,
        "examples": verdict.examples,
    })
}

fn in_words(verdict: &Verdict) -> String {
    format!(
        "of {} lost {}, duplicated {}, reordered {}, phantom {}, damaged {} ({})",
        verdict.committed,
        verdict.lost,
        verdict.duplicated,
        verdict.reordered,
        verdict.phantom,
        verdict.damaged,
        verdict.examples.join("; ")
    )
}

fn counts(verdict: &Verdict) -> String {
    let Verdict {
        lost,
        duplicated,
        reordered,
        phantom,
        damaged,
        ..
    } = verdict;
    format!("{lost}/{duplicated}/{reordered}/{}", phantom + damaged)
}

pub fn header() -> String {
    format!(
        "{:<34} {:<13} {:>5} {:>16} {:>10} {:>6} {:>7} {:>12} {:>12} {:>10} {:>7}\n{:<34} {:<13} {:>5} \
         {:>16} {:>10} {:>6} {:>7} {:>12} {:>12} {:>10} {:>7}",
        "source:target",
        "delivery",
        "kills",
        "r/s/b/src/tgt",
        "failpoints",
        "fenced",
        "events",
        "topic",
        "target",
        "standstill",
        "seconds",
        "",
        "",
        "",
        "",
        "",
        "",
        "",
        "l/d/r/p",
        "l/d/r/p",
        "max, s",
        ""
    )
}

pub fn line(row: &Row) -> String {
    let (combination, level) = (&row.combination, row.level);
    match &row.outcome {
        Outcome::Skipped(why) => format!("{combination:<34} {level:<13} skipped: {why}"),
        Outcome::Ran(report) => format!(
            "{combination:<34} {level:<13} {:>5} {:>16} {:>10} {:>6} {:>7} {:>12} {:>12} {:>10.1} \
             {:>7.0}",
            report.kills(),
            report.kinds(),
            report.failpoints.values().sum::<u64>(),
            report.fenced,
            report.topic.committed,
            counts(&report.topic),
            counts(&report.target),
            report.standstill.as_secs_f64(),
            report.took.as_secs_f64(),
        ),
    }
}

pub fn to_json(rows: &[Row], seed: u64) -> Value {
    let row = |row: &Row| {
        let mut value = match &row.outcome {
            Outcome::Ran(report) => report.to_json(),
            Outcome::Skipped(why) => json!({ "skipped": why }),
        };
        value["combination"] = row.combination.to_string().into();
        value["delivery"] = row.level.to_string().into();
        value
    };
    json!({ "seed": seed, "combinations": rows.iter().map(row).collect::<Vec<_>>() })
}

/// A line that a caller counts: `ok`, `FAIL` or `skip`.
pub fn verdict(row: &Row) -> String {
    let name = format!("pipeline {} {}", row.combination, row.level);
    match &row.outcome {
        Outcome::Skipped(why) => format!("skip {name}: {why}"),
        Outcome::Ran(report) => match report.failure(row.level) {
            None => format!("ok {name}: {} kills", report.kills()),
            Some(why) => format!("FAIL {name}: {why}"),
        },
    }
}
