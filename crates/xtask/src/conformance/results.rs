//! The last whole run of each suite, kept under target/conformance/results, so that a table can be
//! made of suites that ran one by one.
//!
//! Only runs against `oncelog` as it was started for them are kept. A line is
//! `suite | test | outcome | why`; the first says which commit it was.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use super::table::{Outcome, Row};
use super::{Suite, target};
use crate::{process, toolbox};

/// A suite's results, and the commit that they are of.
pub struct Results {
    pub suite: &'static str,
    pub commit: String,
    pub rows: Vec<Row>,
}

pub fn keep(suite: Suite, rows: &[Row]) -> Result<()> {
    let mut git = Command::new("git");
    git.current_dir(crate::root());
    let mut text = process::output(git.args(["log", "-1", "--format=%h of %cs"]))?;
    for row in rows {
        let (suite, test, why) = (row.suite, &row.test, &row.why);
        let _ = writeln!(text, "{suite} | {test} | {} | {why}", row.outcome.name());
    }
    let path = path(suite);
    std::fs::create_dir_all(path.parent().context("it is in a directory")?)?;
    Ok(std::fs::write(path, text)?)
}

pub fn kept(suite: Suite) -> Result<Results> {
    let name = suite.name();
    let path = path(suite);
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("there is no whole run of {name} yet; run it first"))?;
    let mut lines = text.lines();
    let commit = lines.next().unwrap_or_default().to_owned();
    let rows = lines.map(|line| row(suite, line));
    let rows: Option<Vec<Row>> = rows.collect();
    Ok(Results {
        suite: name,
        commit,
        rows: rows.with_context(|| format!("{} is not whole", path.display()))?,
    })
}

fn row(suite: Suite, line: &str) -> Option<Row> {
    let mut fields = line.splitn(4, " | ");
    let of = fields.next()?;
    let suite = [suite.name(), target::DUMP]
        .into_iter()
        .find(|name| *name == of)?;
    let (test, outcome) = (fields.next()?, Outcome::named(fields.next()?)?);
    Some(Row::new(suite, test, outcome, fields.next()?))
}

fn path(suite: Suite) -> PathBuf {
    let name = suite.name().replace([' ', ',', '.', '='], "-");
    toolbox::conformance_dir()
        .join("results")
        .join(name + ".txt")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_again() {
        let read = row(Suite::Rdkafka, "rdkafka | a::b | fail | x | y").unwrap();
        assert_eq!(read.line(), "FAIL rdkafka: a::b: x | y");
        assert!(row(Suite::Rdkafka, "DumpLogSegments | after it | pass | ").is_some());
        assert!(row(Suite::Rdkafka, "librdkafka | a | pass | ").is_none());
    }
}
