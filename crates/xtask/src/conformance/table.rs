//! Rows of results: as lines on the terminal, and as the part of docs/kafka-compatibility.md that is
//! made of them.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result};

use super::results::Results;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Outcome {
    Pass,
    Fail,
    /// The test said itself that it cannot run here.
    Skip,
    /// It says that it passed, and has tested nothing.
    Vacuous,
    /// It was not run.
    Omit,
}

const OUTCOMES: [Outcome; 5] = [
    Outcome::Pass,
    Outcome::Fail,
    Outcome::Skip,
    Outcome::Vacuous,
    Outcome::Omit,
];

impl Outcome {
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Pass => "pass",
            Outcome::Fail => "fail",
            Outcome::Skip => "skip",
            Outcome::Vacuous => "vacuous",
            Outcome::Omit => "omit",
        }
    }

    pub fn named(name: &str) -> Option<Outcome> {
        OUTCOMES.into_iter().find(|outcome| outcome.name() == name)
    }

    /// The column of the table that it counts in.
    fn column(self) -> Outcome {
        if self == Outcome::Omit {
            Outcome::Skip
        } else {
            self
        }
    }
}

pub struct Row {
    pub suite: &'static str,
    pub test: String,
    pub outcome: Outcome,
    /// Why it did not pass, or what a pass left out; empty if there is nothing to say.
    pub why: String,
}

impl Row {
    pub fn new(suite: &'static str, test: &str, outcome: Outcome, why: &str) -> Row {
        Row {
            suite,
            test: test.to_owned(),
            outcome,
            why: one_line(why),
        }
    }

    pub fn line(&self) -> String {
        let outcome = match self.outcome {
            Outcome::Pass => "ok",
            Outcome::Fail => "FAIL",
            Outcome::Skip | Outcome::Omit => "skip",
            Outcome::Vacuous => "vacuous",
        };
        let mut line = format!("{outcome} {}: {}", self.suite, self.test);
        if !self.why.is_empty() {
            let _ = write!(line, ": {}", self.why);
        }
        line
    }

    /// Our own clients' checks say in their own source what they skip and why.
    pub fn explains_itself(&self) -> bool {
        self.outcome == Outcome::Skip && self.suite == super::clients::SUITE
    }
}

/// What a test says, for one line of a terminal or one cell of a table.
fn one_line(text: &str) -> String {
    const LEN_MAX: usize = 300;
    let mut line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.len() > LEN_MAX {
        line.truncate(line.floor_char_boundary(LEN_MAX));
        line.push_str("...");
    }
    line
}

/// Counts per suite, in the order in which the suites ran.
pub fn counts(rows: &[&Row]) -> String {
    let mut text =
        String::from("| Suite | pass | fail | skip | vacuous |\n|---|---|---|---|---|\n");
    for suite in suites(rows) {
        let _ = write!(text, "| {suite} |");
        for column in [
            Outcome::Pass,
            Outcome::Fail,
            Outcome::Skip,
            Outcome::Vacuous,
        ] {
            let of_suite = rows.iter().filter(|row| row.suite == suite);
            let count = of_suite
                .filter(|row| row.outcome.column() == column)
                .count();
            let _ = write!(text, " {count} |");
        }
        text.push('\n');
    }
    text
}

fn suites(rows: &[&Row]) -> Vec<&'static str> {
    let mut suites = Vec::new();
    for row in rows {
        if !suites.contains(&row.suite) {
            suites.push(row.suite);
        }
    }
    suites
}

const BEGIN: &str = "<!-- written by `cargo xtask conformance --write-docs`: begin -->";
const END: &str = "<!-- end -->";

/// Writes the results into the page between its two marks. `reason` gives the words of the
/// expectation for a row, if there is one.
pub fn write_docs(
    page: &Path,
    results: &[Results],
    reason: impl Fn(&Row) -> Option<String>,
) -> Result<()> {
    let text = std::fs::read_to_string(page)?;
    let (before, rest) = text
        .split_once(BEGIN)
        .context("the page has no mark for the results")?;
    let (_, after) = rest
        .split_once(END)
        .context("the results have no end mark")?;
    let part = shown(results, reason);
    Ok(std::fs::write(
        page,
        format!("{before}{BEGIN}\n\n{part}\n{END}{after}"),
    )?)
}

fn shown(results: &[Results], reason: impl Fn(&Row) -> Option<String>) -> String {
    let rows: Vec<&Row> = results.iter().flat_map(|suite| &suite.rows).collect();
    let mut part = counts(&rows);
    part.push_str("\nCommits:");
    for (at, suite) in results.iter().enumerate() {
        let comma = if at == 0 { "" } else { "," };
        let _ = write!(part, "{comma} {} at {}", suite.suite, suite.commit);
    }
    part.push_str(".\n\nWhat did not simply pass:\n\n");
    part.push_str("| Suite | Test | | Why |\n|---|---|---|---|\n");
    for row in &rows {
        let clean = row.outcome == Outcome::Pass && row.why.is_empty();
        if !clean {
            let why = reason(row).unwrap_or_else(|| row.why.clone());
            let (suite, test) = (row.suite, &row.test);
            let outcome = row.outcome.column().name();
            let why = why.replace('|', "\\|");
            let _ = writeln!(part, "| {suite} | {test} | {outcome} | {why} |");
        }
    }
    for suite in suites(&rows) {
        let of_suite = rows.iter().filter(|row| row.suite == suite);
        let passed = of_suite.filter(|row| row.outcome == Outcome::Pass);
        let names: Vec<&str> = passed.map(|row| row.test.as_str()).collect();
        let _ = write!(part, "\nPassed, {suite}: {}.\n", names.join(", "));
    }
    part
}
