//! What a run of librdkafka's test runner says became of a test: its report (JSON, with a state per
//! test), and its log for the reasons.
//!
//! The runner's word is not enough: a test that leaves its checks out because it lacks something can
//! still end as PASSED. Where the log tells of nothing but left-out parts, the outcome is vacuous; if
//! only some parts were left out, the row says so.

use super::super::table::Outcome;

/// What became of `test`, and why if it did not simply pass. `ended` is false for a runner that had
/// to be killed.
pub fn outcome(test: &str, report: &str, log: &str, ended: bool) -> (Outcome, String) {
    let said = Said::read(test, log);
    let report: serde_json::Value = serde_json::from_str(report).unwrap_or_default();
    let state = report["tests"][test]["state"].as_str();
    match (state, said.failure) {
        (Some("PASSED"), None) => passed(&said.left_out, said.subtests_passed),
        (Some("SKIPPED"), None) => {
            let reason = said.left_out.first();
            (
                Outcome::Skip,
                reason
                    .map_or("the runner does not say why", String::as_str)
                    .to_owned(),
            )
        }
        (_, Some(failure)) => (Outcome::Fail, failure),
        (Some(state), None) => (Outcome::Fail, format!("it ended as {state}")),
        (None, None) if ended => (
            Outcome::Fail,
            "the runner ended without a result".to_owned(),
        ),
        (None, None) => (Outcome::Fail, "not done in time; killed".to_owned()),
    }
}

fn passed(left_out: &[String], subtests_passed: usize) -> (Outcome, String) {
    if left_out.is_empty() {
        return (Outcome::Pass, String::new());
    }
    let what = left_out.join("; ");
    if subtests_passed == 0 {
        return (Outcome::Vacuous, what);
    }
    (
        Outcome::Pass,
        format!(
            "{} of {} parts left out: {what}",
            left_out.len(),
            left_out.len() + subtests_passed
        ),
    )
}

/// What the log says of one test.
#[derive(Debug, Default, PartialEq)]
struct Said {
    /// The first failure.
    failure: Option<String>,
    subtests_passed: usize,
    /// Parts that the test did not do, or the whole of it, with its reasons.
    left_out: Vec<String>,
}

impl Said {
    fn read(test: &str, log: &str) -> Said {
        let mut said = Said::default();
        let mut lines = log.lines();
        while let Some(line) = lines.next() {
            // "### Test "NAME (SUBTEST)" failed at FILE:LINE:FUNCTION() at TIME: ###", and the reason
            // on the next line.
            if let Some(failed) = line.strip_prefix("### Test \"") {
                let name = failed.split([' ', '"']).next().unwrap_or_default();
                if name == test && said.failure.is_none() {
                    said.failure = Some(failure(failed, lines.next().unwrap_or_default()));
                }
                continue;
            }
            // "[NAME   / 1.095s] TEXT"
            let Some((name, text)) = line.strip_prefix('[').and_then(|line| line.split_once('/'))
            else {
                continue;
            };
            if name.trim_end() == test {
                let text = text.split_once("] ").map_or("", |(_, text)| text);
                said.line(text);
            }
        }
        said
    }

    fn line(&mut self, text: &str) {
        // Its closing bracket is on the next line if the reason ends with a line break.
        let subtest = text
            .strip_prefix("[ ")
            .map(|text| text.trim_end_matches(" ]"));
        if let Some((name, reason)) = subtest.and_then(|text| text.split_once(": SKIP: ")) {
            self.left_out
                .push(format!("{}: {}", without_line(name), reason.trim()));
        } else if subtest.is_some_and(|text| text.contains(": PASS (")) {
            self.subtests_passed += 1;
        } else if let Some((_, reason)) = text.split_once("SKIPPING TEST: ") {
            // Without a line break at its end, the next line follows in the same one.
            let reason = reason.split('[').next().unwrap_or_default();
            self.left_out.push(reason.trim().to_owned());
        } else if LEFT_OUT
            .iter()
            .any(|start| text.trim_start().starts_with(start))
        {
            self.left_out.push(text.trim().to_owned());
        }
    }
}

/// How tests begin the line that says what they leave out; other lines that begin with "Skipping"
/// are about records.
const LEFT_OUT: [&str; 5] = [
    "WARN: Will not be able to verify JMX metrics",
    "Skipping unauthorized",
    "Skipping test",
    "Skipping further",
    "Skipping RESOURCE_BROKER",
];

/// "NAME (SUBTEST)" failed at FILE:LINE:FUNCTION() at TIME: ###"
fn failure(heading: &str, reason: &str) -> String {
    let place = heading.split(" failed at ").nth(1).unwrap_or_default();
    let place: Vec<&str> = place.splitn(3, ':').take(2).collect();
    let place = place.join(":");
    match heading
        .split_once(" (")
        .and_then(|(_, rest)| rest.split_once(")\""))
    {
        Some((subtest, _)) => format!("{}: {} ({place})", without_line(subtest), reason.trim()),
        None => format!("{} ({place})", reason.trim()),
    }
}

/// "FUNCTION:LINE: PARAMETERS" without the line, which says nothing to a reader.
fn without_line(subtest: &str) -> String {
    let mut parts = subtest.splitn(3, ':');
    let function = parts.next().unwrap_or_default();
    let parameters = parts.nth(1).unwrap_or_default();
    format!("{function}{parameters}")
}

/// `text` without the escape sequences that colour a terminal.
pub fn without_colours(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("\x1b[") {
        plain.push_str(before);
        rest = after.split_once('m').map_or("", |(_, rest)| rest);
    }
    plain.push_str(rest);
    plain
}

#[cfg(test)]
mod tests {
    use super::super::super::table::Outcome;

    const REPORT: &str = r#"{"tests": {"0001_a": {"state": "PASSED"}, "0002_b": {"state": "SKIPPED"},
        "0003_c": {"state": "FAILED"}}}"#;

    fn check(test: &str, log: &str, ended: bool, want: (Outcome, &str)) {
        let log = super::without_colours(log);
        let (outcome, why) = super::outcome(test, REPORT, &log, ended);
        assert_eq!((outcome, why.as_str()), want);
    }

    #[test]
    fn a_pass_is_a_pass() {
        let log = "\x1b[36m[0001_a   /  1.0s] [ do_it:10: x=1: PASS (0.1s) ]\x1b[0m\n";
        check("0001_a", log, true, (Outcome::Pass, ""));
    }

    #[test]
    fn a_pass_that_tested_nothing_is_vacuous() {
        let log = "[0001_a   /  1.0s] [ do_it:10: x=1: SKIP: no ACLs\n ]\n";
        check(
            "0001_a",
            log,
            true,
            (Outcome::Vacuous, "do_it x=1: no ACLs"),
        );
    }

    #[test]
    fn a_pass_without_a_part_says_so() {
        let log = "[0001_a   /  1.0s] [ do_it:10: x=1: PASS (0.1s) ]\n\
                   [0001_a   /  1.0s] [ do_that:20: SKIP: no ACLs ]\n\
                   [0009_z   /  1.0s] [ do_that:20: SKIP: of another test ]\n";
        let want = "1 of 2 parts left out: do_that: no ACLs";
        check("0001_a", log, true, (Outcome::Pass, want));
    }

    #[test]
    fn the_first_failure_is_the_reason() {
        let log = "### Test \"0003_c (sub:29: y)\" failed at 0003-c.c:718:sub() at Thu Nov 26: ###\n\
                   Test assertion failed\n\
                   ### Test \"0003_c\" failed at test.c:1:x() at Thu: ###\nlater\n";
        let want = "sub y: Test assertion failed (0003-c.c:718)";
        check("0003_c", log, true, (Outcome::Fail, want));
    }

    #[test]
    fn no_result_is_a_failure() {
        let ended = "the runner ended without a result";
        check("0004_d", "", true, (Outcome::Fail, ended));
        check(
            "0004_d",
            "",
            false,
            (Outcome::Fail, "not done in time; killed"),
        );
        check(
            "0002_b",
            "[0002_b / 0s] WARN: SKIPPING TEST: no SSL[0002_b / 0s] more\n",
            true,
            (Outcome::Skip, "no SSL"),
        );
    }
}
