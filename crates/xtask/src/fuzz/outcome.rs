//! What came of one target's run, read from what libFuzzer said.

use std::path::PathBuf;

use anyhow::{Result, ensure};

#[derive(Debug, Default)]
pub struct Outcome {
    executions: u64,
    executions_per_second: u64,
    /// Edges of the program's flow that some input took.
    coverage: u64,
    /// Inputs in the corpus.
    corpus: u64,
    peak_rss_mb: u64,
    /// Why it failed, in libFuzzer's or the panic's words.
    why: Option<String>,
    /// The input that failed.
    pub input: Option<PathBuf>,
}

impl Outcome {
    pub const HEAD: &str = "target     executions   exec/s  coverage  corpus  peak RSS MB  outcome";

    /// `well`: the program ended with 0.
    pub fn read(said: &str, well: bool) -> Result<Outcome> {
        let mut outcome = Outcome::default();
        let number = |text: &str| text.split('/').next().and_then(|n| n.parse().ok());
        for line in said.lines() {
            if line.starts_with('#') {
                let words: Vec<&str> = line.split_whitespace().collect();
                for pair in words.windows(2) {
                    let figure = match pair[0] {
                        "cov:" => &mut outcome.coverage,
                        "corp:" => &mut outcome.corpus,
                        _ => continue,
                    };
                    *figure = number(pair[1]).unwrap_or(*figure);
                }
            } else if let Some(stat) = line.strip_prefix("stat::") {
                let (name, value) = stat.split_once(':').unwrap_or_default();
                let value = number(value.trim()).unwrap_or_default();
                match name {
                    "number_of_executed_units" => outcome.executions = value,
                    "average_exec_per_sec" => outcome.executions_per_second = value,
                    "peak_rss_mb" => outcome.peak_rss_mb = value,
                    _ => {}
                }
            } else if let Some((_, path)) = line.split_once("Test unit written to ") {
                // Slow inputs are reported too, and are no failure.
                if !path.contains("/slow-unit-") {
                    outcome.input = Some(PathBuf::from(path.trim()));
                }
            }
        }
        if !well {
            outcome.why = Some(reason(said));
        }
        ensure!(
            !well || outcome.executions > 0,
            "libFuzzer ran nothing; it said:\n{said}"
        );
        Ok(outcome)
    }

    /// The line below [`Outcome::HEAD`].
    pub fn line(&self, target: &str) -> String {
        format!(
            "{target:<10} {:>10} {:>8} {:>9} {:>7} {:>12}  {}",
            self.executions,
            self.executions_per_second,
            self.coverage,
            self.corpus,
            self.peak_rss_mb,
            if self.why.is_none() {
                "nothing found"
            } else {
                "FAILED"
            },
        )
    }

    /// What a person needs who is to mend it.
    pub fn failure(&self, target: &str) -> Option<String> {
        let why = self.why.as_ref()?;
        Some(match &self.input {
            Some(input) => format!(
                "{why}\n  input:  {path}\n  replay: cargo xtask fuzz {target} --replay {path}",
                path = input.display()
            ),
            None => why.clone(),
        })
    }
}

/// The panic's words if there are any, else libFuzzer's, else the last that was said.
fn reason(said: &str) -> String {
    let lines: Vec<&str> = said.lines().collect();
    if let Some(at) = lines.iter().position(|line| line.contains("panicked at")) {
        let end = lines.len().min(at + 3);
        return lines[at..end].join("\n");
    }
    let error = lines.iter().find(|line| line.contains("ERROR: "));
    error
        .or(lines.last())
        .copied()
        .unwrap_or_default()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::Outcome;

    const FIGURES: &str = "\
#2\tINITED cov: 50 ft: 60 corp: 1/1b exec/s: 0 rss: 30Mb
#1024\tpulse  cov: 70 ft: 80 corp: 12/3Kb lim: 4 exec/s: 512 rss: 31Mb
";
    const END: &str = "\
stat::number_of_executed_units: 2048
stat::average_exec_per_sec:     500
stat::peak_rss_mb:              44
";

    #[test]
    fn a_run_without_a_finding() {
        let slow = "artifact_prefix='x/'; Test unit written to x/slow-unit-1\n";
        let outcome = Outcome::read(&format!("{FIGURES}{slow}{END}"), true).unwrap();
        assert_eq!(outcome.failure("wire"), None);
        let line = outcome.line("wire");
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(words[..6], ["wire", "2048", "500", "70", "12", "44"]);
    }

    #[test]
    fn a_panic_names_its_input_and_how_to_replay_it() {
        let panic = "\
thread '<unnamed>' panicked at src/wire.rs:9:5:
two is not one
==7== ERROR: libFuzzer: deadly signal
artifact_prefix='x/'; Test unit written to x/crash-a
";
        let outcome = Outcome::read(&format!("{FIGURES}{panic}{END}"), false).unwrap();
        let failure = outcome.failure("wire").unwrap();
        assert!(failure.contains("two is not one"), "{failure}");
        assert!(failure.ends_with("cargo xtask fuzz wire --replay x/crash-a"));
    }

    #[test]
    fn too_much_memory_is_a_failure_too() {
        let oom = "==7== ERROR: libFuzzer: out-of-memory (used: 2050Mb; limit: 2048Mb)\n";
        let outcome = Outcome::read(oom, false).unwrap();
        assert!(outcome.failure("wire").unwrap().contains("out-of-memory"));
        assert!(Outcome::read("", true).is_err(), "no run at all");
    }
}
