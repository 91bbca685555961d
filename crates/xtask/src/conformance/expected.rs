//! What is expected of each test that does not simply pass: conformance/expected.txt.
//!
//! A line is `suite | test | outcome | reason`; a test without a line has to pass. An outcome that
//! differs is a failure in both directions, so a line that no longer holds has to go. `unsteady`
//! stands for pass or fail: a race within the test itself, which the reason has to show. After `fail`
//! may stand a part of the words that the test fails with: it gets so far, and no failure before that
//! is expected.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::table::{Outcome, Row};

pub struct Expected {
    pub outcome: Outcome,
    pub reason: String,
    unsteady: bool,
    /// A part of what the test says when it fails.
    words: String,
}

impl Expected {
    fn parse(outcome: &str, reason: &str) -> Option<Expected> {
        let (name, words) = outcome.split_once(' ').unwrap_or((outcome, ""));
        let unsteady = name == "unsteady";
        Some(Expected {
            outcome: Outcome::named(if unsteady { "fail" } else { name })?,
            reason: reason.to_owned(),
            unsteady,
            words: words.trim().to_owned(),
        })
    }

    fn holds(&self, row: &Row) -> bool {
        let as_said = row.outcome == self.outcome && row.why.contains(&self.words);
        as_said || (self.unsteady && row.outcome == Outcome::Pass)
    }
}

pub struct Expectations {
    of: BTreeMap<(String, String), Expected>,
}

impl Expectations {
    pub fn read(path: &Path) -> Result<Expectations> {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        Expectations::parse(&text).with_context(|| path.display().to_string())
    }

    fn parse(text: &str) -> Result<Expectations> {
        let mut of = BTreeMap::new();
        for line in text.lines() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let fields: Vec<&str> = line.splitn(4, '|').map(str::trim).collect();
            let &[suite, test, outcome, reason] = fields.as_slice() else {
                bail!("not `suite | test | outcome | reason`: {line}");
            };
            if reason.is_empty() {
                bail!("without a reason: {line}");
            }
            let expected = Expected::parse(outcome, reason);
            let expected = expected.with_context(|| format!("what outcome? {line}"))?;
            if of
                .insert((suite.to_owned(), test.to_owned()), expected)
                .is_some()
            {
                bail!("there twice: {line}");
            }
        }
        Ok(Expectations { of })
    }

    pub fn of(&self, suite: &str, test: &str) -> Option<&Expected> {
        self.of.get(&(suite.to_owned(), test.to_owned()))
    }

    /// What differs between these rows and what is expected of them. `complete` names the suites of
    /// which `rows` has every test; an expectation for a test that they do not have is one too many.
    pub fn differences(&self, rows: &[Row], complete: &[&str]) -> Vec<String> {
        let mut differences = Vec::new();
        for row in rows {
            let expected = self.of(row.suite, &row.test);
            let holds = match expected {
                Some(expected) => expected.holds(row),
                None => row.outcome == Outcome::Pass || row.explains_itself(),
            };
            if !holds {
                let (outcome, words) =
                    expected.map_or(("pass", ""), |e| (e.outcome.name(), e.words.as_str()));
                let words = if words.is_empty() {
                    String::new()
                } else {
                    format!(" ({words})")
                };
                differences.push(format!("expected {outcome}{words}, but: {}", row.line()));
            }
        }
        for (suite, test) in self.of.keys() {
            let there = rows
                .iter()
                .any(|row| row.suite == suite && row.test == *test);
            if complete.contains(&suite.as_str()) && !there {
                differences.push(format!(
                    "an expectation for what is not there: {suite}: {test}"
                ));
            }
        }
        differences
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::{Outcome, Row};
    use super::Expectations;

    fn check(text: &str, rows: &[(&str, Outcome)], want: &[&str]) {
        let expectations = Expectations::parse(text).unwrap();
        let rows: Vec<Row> = rows
            .iter()
            .map(|(test, outcome)| Row::new("s", test, *outcome, "why"))
            .collect();
        assert_eq!(expectations.differences(&rows, &["s"]), want);
    }

    #[test]
    fn what_is_not_named_has_to_pass() {
        check("", &[("a", Outcome::Pass)], &[]);
        check(
            "",
            &[("a", Outcome::Fail)],
            &["expected pass, but: FAIL s: a: why"],
        );
    }

    #[test]
    fn an_expectation_has_to_hold() {
        let text = "# comment\n\ns | a | vacuous | tests nothing\n";
        check(text, &[("a", Outcome::Vacuous)], &[]);
        check(
            text,
            &[("a", Outcome::Pass)],
            &["expected vacuous, but: ok s: a: why"],
        );
        check(text, &[], &["an expectation for what is not there: s: a"]);
    }

    #[test]
    fn an_unsteady_test_may_pass_or_fail() {
        let text = "s | a | unsteady | a race in the test";
        check(text, &[("a", Outcome::Pass)], &[]);
        check(text, &[("a", Outcome::Fail)], &[]);
        let want = "expected fail, but: skip s: a: why";
        check(text, &[("a", Outcome::Skip)], &[want]);
    }

    #[test]
    fn a_failure_may_have_to_say_certain_words() {
        let text = "s | a | fail why | reason";
        check(text, &[("a", Outcome::Fail)], &[]);
        let text = "s | a | fail other words | reason";
        let want = "expected fail (other words), but: FAIL s: a: why";
        check(text, &[("a", Outcome::Fail)], &[want]);
    }

    #[test]
    fn a_line_without_a_reason_is_refused() {
        assert!(Expectations::parse("s | a | fail |").is_err());
        assert!(Expectations::parse("s | a | fail").is_err());
        assert!(Expectations::parse("s | a | maybe | so").is_err());
    }
}
