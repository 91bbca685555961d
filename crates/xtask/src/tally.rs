//! Counting: what passed, what failed, what was skipped and why.

use std::ops::AddAssign;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tally {
    pub passed: u32,
    pub failed: u32,
    pub skipped: u32,
    /// What failed, with why.
    pub failures: Vec<String>,
    /// What was skipped, with the reason.
    pub skips: Vec<String>,
}

impl Tally {
    pub fn pass() -> Tally {
        Tally {
            passed: 1,
            ..Tally::default()
        }
    }

    pub fn skip(what: &str, reason: &str) -> Tally {
        let skips = vec![format!("{what}: {reason}")];
        Tally {
            skipped: 1,
            skips,
            ..Tally::default()
        }
    }

    pub fn fail(&mut self, what: &str, why: &str) {
        self.failed += 1;
        self.failures.push(format!("{what}: {why}"));
    }

    /// A line of a smoke script: `ok NAME`, `FAIL NAME: why`, `skip NAME: reason`.
    pub fn count_check(&mut self, line: &str) {
        if line.starts_with("ok ") {
            self.passed += 1;
        } else if let Some(failure) = line.strip_prefix("FAIL ") {
            self.failed += 1;
            self.failures.push(failure.to_owned());
        } else if let Some(skip) = line.strip_prefix("skip ") {
            self.skipped += 1;
            self.skips.push(skip.to_owned());
        }
    }

    /// A line of `cargo test`: the result of one test binary, or of one test.
    pub fn count_cargo_test(&mut self, line: &str) {
        if let Some(test) = line.strip_prefix("test ") {
            if let Some(name) = test.strip_suffix(" ... FAILED") {
                self.failures.push(name.to_owned());
            } else if let Some((name, reason)) = test.split_once(" ... ignored") {
                let reason = reason.trim_start_matches(", ");
                let reason = if reason.is_empty() {
                    "ignored in the source"
                } else {
                    reason
                };
                self.skips.push(format!("{name}: {reason}"));
            }
        }
        let Some(result) = line.strip_prefix("test result: ") else {
            return;
        };
        let count = |what: &str| -> u32 {
            let parts = result.split(['.', ';']).map(str::trim);
            let number = parts.filter_map(|part| part.strip_suffix(what)).next_back();
            number
                .and_then(|number| number.trim().parse().ok())
                .unwrap_or(0)
        };
        self.passed += count("passed");
        self.failed += count("failed");
        self.skipped += count("ignored");
    }

    pub fn line(&self) -> String {
        format!(
            "{} passed, {} failed, {} skipped",
            self.passed, self.failed, self.skipped
        )
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Tally) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
        self.failures.extend(other.failures);
        self.skips.extend(other.skips);
    }
}

#[cfg(test)]
mod tests {
    use super::Tally;

    fn check(lines: &[&str], count: fn(&mut Tally, &str), want: &str, failures: &[&str]) {
        let mut tally = Tally::default();
        for line in lines {
            count(&mut tally, line);
        }
        assert_eq!(tally.line(), want);
        assert_eq!(tally.failures, failures);
    }

    #[test]
    fn cargo_test_lines_are_counted() {
        check(
            &[
                "test a::works ... ok",
                "test a::breaks ... FAILED",
                "test a::slow ... ignored, takes an hour",
                "test result: FAILED. 1 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out",
                "test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out",
            ],
            Tally::count_cargo_test,
            "13 passed, 1 failed, 1 skipped",
            &["a::breaks"],
        );
    }

    #[test]
    fn smoke_lines_are_counted() {
        check(
            &[
                "ok one (0.1 s)",
                "FAIL two: why",
                "skip three: reason",
                "okay, chatter",
            ],
            Tally::count_check,
            "1 passed, 1 failed, 1 skipped",
            &["two: why"],
        );
    }
}
