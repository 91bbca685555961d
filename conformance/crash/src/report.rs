//! What a part of the campaign did and found, and the table of all of them.

use std::collections::BTreeMap;

use crash_campaign::check::{Promise, Sent, Tally};
use crash_campaign::process::say;

#[derive(Default)]
pub struct Report {
    /// What was done to the broker, and how often.
    pub faults: BTreeMap<String, usize>,
    pub acknowledged: usize,
    /// Acknowledged, undamaged, and not where it was acknowledged.
    pub lost: usize,
    /// Twice, though an idempotent producer sent it.
    pub duplicated: usize,
    /// Out of the order that was promised.
    pub reordered: usize,
    /// Records that came back with other bytes, from other offsets, or that nobody sent.
    pub bad: usize,
    /// Everything else that was promised and is not so.
    pub broken: Vec<String>,
}

impl Report {
    pub fn fault(&mut self, what: &str) {
        self.faults(what, 1);
    }

    pub fn faults(&mut self, what: &str, times: usize) {
        *self.faults.entry(what.to_owned()).or_default() += times;
    }

    /// One producer's tally.
    pub fn add(&mut self, sent: &Sent, tally: &Tally) {
        self.acknowledged += tally.acknowledged;
        self.lost += tally.lost + tally.misplaced;
        self.bad += tally.phantom;
        match sent.promise {
            Promise::ExactlyOnce => {
                self.duplicated += tally.duplicated;
                self.reordered += tally.reordered;
            }
            Promise::InOrder => self.reordered += tally.reordered,
            Promise::AtLeastOnce => {}
        }
        if tally.refused > 0 {
            let producer = sent.producer;
            self.broken
                .push(format!("producer {producer}: {} refused", tally.refused));
        }
    }

    pub fn merge(&mut self, other: Report) {
        for (what, times) in other.faults {
            self.faults(&what, times);
        }
        self.acknowledged += other.acknowledged;
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
        self.bad += other.bad;
        self.broken.extend(other.broken);
    }

    /// Why this is a failure; `None` if all is as promised.
    pub fn failure(&self) -> Option<String> {
        let counts = self.lost + self.duplicated + self.reordered + self.bad;
        if counts + self.broken.len() == 0 {
            return None;
        }
        // In one line: a test run's summary shows no more.
        let first = self.broken.first().map(String::as_str).unwrap_or_default();
        let first = first.lines().collect::<Vec<_>>().join(" | ");
        Some(format!(
            "lost {}, duplicated {}, reordered {}, bad {}, broken promises {}: {first}",
            self.lost,
            self.duplicated,
            self.reordered,
            self.bad,
            self.broken.len()
        ))
    }

    pub fn faults_in_words(&self) -> String {
        let words = self.faults.iter().map(|(what, n)| format!("{n} {what}"));
        words.collect::<Vec<_>>().join(", ")
    }
}

/// A part that ran (with how long it took), or why it did not.
pub enum Outcome {
    Ran { report: Report, seconds: f32 },
    Skipped(String),
}

/// Prints the table, then `ok`, `FAIL` or `skip` for each part; whether nothing failed and
/// something ran.
pub fn summary(outcomes: &[(&'static str, Outcome)]) -> bool {
    let mut whole = Report::default();
    let mut ran = 0;
    let line = |name: &str, report: &Report, seconds: f32| {
        say(&format!(
            "{name:<12} {:>12} {:>6} {:>10} {:>9} {:>9} {:>8} {seconds:>8.0}",
            report.acknowledged,
            report.lost,
            report.duplicated,
            report.reordered,
            report.bad,
            report.broken.len(),
        ));
    };
    say(&format!(
        "\n{:<12} {:>12} {:>6} {:>10} {:>9} {:>9} {:>8} {:>8}",
        "part", "acknowledged", "lost", "duplicated", "reordered", "bad bytes", "broken", "seconds"
    ));
    let mut verdicts = Vec::new();
    let mut failed = false;
    let mut total = 0.0;
    for (name, outcome) in outcomes {
        match outcome {
            Outcome::Skipped(why) => verdicts.push(format!("skip crash {name}: {why}")),
            Outcome::Ran { report, seconds } => {
                ran += 1;
                total += seconds;
                line(name, report, *seconds);
                verdicts.push(match report.failure() {
                    None => format!("ok crash {name}: {}", report.faults_in_words()),
                    Some(why) => {
                        failed = true;
                        format!("FAIL crash {name}: {why}")
                    }
                });
                whole.merge(Report {
                    faults: report.faults.clone(),
                    broken: report.broken.clone(),
                    ..*report
                });
            }
        }
    }
    line("all", &whole, total);
    say("");
    for verdict in verdicts {
        // Standard output: the lines that a caller counts.
        println!("{verdict}");
    }
    ran > 0 && !failed
}
