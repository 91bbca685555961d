//! The integration tests of the crate `rdkafka` that Cargo.lock pins, each test in its own process.
//!
//! They are built in target/conformance/rdkafka, a workspace of its own with the crate's own lock
//! file, so that nothing of theirs comes into ours. Two lines of theirs are changed, which want the
//! broker at localhost:9092 where the others take the address that they are told.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::expected::Expectations;
use super::table::{Outcome, Row};
use super::target::Target;
use super::{librdkafka, sources};
use crate::{process, toolbox};

pub const SUITE: &str = "rdkafka";

/// A file, a line in it, and what it becomes.
const CHANGES: [[&str; 3]; 2] = [
    [
        "tests/test_high_producers.rs",
        r#".set("bootstrap.servers", "localhost")"#,
        r#".set("bootstrap.servers", crate::utils::get_bootstrap_server())"#,
    ],
    [
        "tests/test_metadata.rs",
        "assert_eq!(broker_metadata[0].port(), 9092);",
        r#"assert!(crate::utils::get_bootstrap_server()
            .ends_with(&format!(":{}", broker_metadata[0].port())));"#,
    ],
];

const BUILD_LIMIT: Duration = Duration::from_secs(30 * 60);
const TEST_LIMIT: Duration = Duration::from_secs(3 * 60);

pub fn run(target: &Target, expectations: &Expectations, only: &[String]) -> Result<Vec<Row>> {
    let binaries = built()?;
    // What the tests take for granted.
    let broker = target.start(SUITE, &["num.partitions=3", "node.id=0"])?;
    let logs = toolbox::conformance_dir().join("logs").join(SUITE);
    std::fs::create_dir_all(&logs)?;
    let mut rows = Vec::new();
    for (name, binary) in &binaries {
        for test in listed(binary)? {
            // The module that the test programs share brings its own test into each of them.
            if test.starts_with("utils::") {
                continue;
            }
            let full = format!("{name}::{test}");
            if !only.is_empty() && !only.iter().any(|only| full.starts_with(only)) {
                continue;
            }
            let expected = expectations.of(SUITE, &full);
            if let Some(omitted) = expected.filter(|e| e.outcome == Outcome::Omit) {
                rows.push(Row::new(SUITE, &full, Outcome::Omit, &omitted.reason));
                continue;
            }
            let log = logs.join(format!("{}.log", full.replace("::", "-")));
            let started = Instant::now();
            let (outcome, why) = run_one(binary, &test, &broker.bootstrap(), &log)?;
            let row = Row::new(SUITE, &full, outcome, &why);
            println!("{} ({:.0} s)", row.line(), started.elapsed().as_secs_f32());
            rows.push(row);
        }
    }
    rows.extend(broker.stop(SUITE)?);
    Ok(rows)
}

/// The test programs, with their names.
fn built() -> Result<Vec<(String, PathBuf)>> {
    toolbox::need(&[&toolbox::MAKE, &toolbox::GCC])?;
    toolbox::need_headers(&[&toolbox::ZLIB])?;
    let dir = toolbox::conformance_dir().join("rdkafka");
    sources::copied("rdkafka", &CHANGES.concat().concat(), &dir, || {
        let manifest = dir.join("Cargo.toml");
        let text = std::fs::read_to_string(&manifest)?;
        std::fs::write(&manifest, format!("{text}\n[workspace]\n"))?;
        for [file, line, instead] in CHANGES {
            let text = std::fs::read_to_string(dir.join(file))?;
            let changed = text.replace(line, instead);
            ensure!(changed != text, "{file} has no line `{line}` any more");
            std::fs::write(dir.join(file), changed)?;
        }
        Ok(())
    })?;
    println!("building rdkafka's tests (a few minutes, once)");
    let mut command = crate::cargo::cargo(&["test", "--no-run", "--quiet", "--locked"]);
    command.current_dir(&dir);
    command.args([
        "--tests",
        "--no-default-features",
        "--features",
        "tokio,libz",
    ]);
    command.args(["--message-format", "json"]);
    let mut binaries = Vec::new();
    let well = process::run_lines(&mut command, BUILD_LIMIT, |line| {
        binaries.extend(test_program(line));
    })?;
    ensure!(well, "rdkafka's tests could not be built");
    ensure!(!binaries.is_empty(), "rdkafka has no test programs");
    binaries.sort();
    Ok(binaries)
}

/// A line of cargo's JSON, if it tells of a test program.
fn test_program(line: &str) -> Option<(String, PathBuf)> {
    let message: serde_json::Value = serde_json::from_str(line).ok()?;
    let executable = message["executable"].as_str()?;
    let target = &message["target"];
    let is_test = target["kind"].as_array()?.iter().any(|kind| kind == "test");
    is_test.then(|| Some((target["name"].as_str()?.to_owned(), executable.into())))?
}

fn listed(binary: &Path) -> Result<Vec<String>> {
    let list = process::output(Command::new(binary).args(["--list", "--format", "terse"]))?;
    let tests = list.lines().filter_map(|line| line.strip_suffix(": test"));
    Ok(tests.map(str::to_owned).collect())
}

fn run_one(binary: &Path, test: &str, bootstrap: &str, log: &Path) -> Result<(Outcome, String)> {
    let mut command = Command::new(binary);
    command.args(["--exact", test, "--nocapture", "--test-threads", "1"]);
    command.env("KAFKA_HOST", bootstrap);
    command.env("KAFKA_VERSION", librdkafka::KAFKA_VERSION);
    let ended = process::run_logged(&mut command, log, TEST_LIMIT)?;
    let said = std::fs::read(log).with_context(|| log.display().to_string())?;
    let said = String::from_utf8_lossy(&said);
    let passed = said.contains("test result: ok. 1 passed");
    Ok(match ended {
        None => (Outcome::Fail, "not done in time; killed".to_owned()),
        Some(status) if status.success() && passed => (Outcome::Pass, String::new()),
        Some(status) => (
            Outcome::Fail,
            panic_of(&said).unwrap_or_else(|| status.to_string()),
        ),
    })
}

/// What a test that panicked said: the place, and the line after it.
fn panic_of(said: &str) -> Option<String> {
    let (_, panic) = said
        .split_once("' panicked at ")
        .or_else(|| said.split_once(") panicked at "))?;
    let lines: Vec<&str> = panic.lines().take(2).collect();
    Some(lines.join(" "))
}
