//! librdkafka's own test suite, from the sources that the crate `rdkafka-sys` in Cargo.lock carries.
//!
//! One process per test number, because a test that hangs takes its whole process along; a number
//! may stand for several tests. Never the suite's quick mode, which leaves most of a test out and
//! says PASSED all the same. Tests that need no broker (those flagged as local, and those against
//! librdkafka's own mock cluster) say nothing about ours and are not run.
//!
//! Some tests call Kafka's command line tools; they find them in a directory that looks like a Kafka
//! distribution and is made of the jars that the other suites use.

mod build;
mod output;

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::expected::{Expectations, Expected};
use super::table::{Outcome, Row};
use super::target::Target;
use crate::{process, toolbox};

pub const SUITE: &str = "librdkafka";
pub const SUITE_CONSUMER: &str = "librdkafka, group.protocol=consumer";

/// A number's tests together. The runner has a limit per test of its own; this is for when it hangs.
const LIMIT: Duration = Duration::from_secs(15 * 60);

/// What the suite takes for granted: four partitions, and Kafka's default wait for a first
/// generation, by which two consumers that start together get one assignment and not two.
const BROKER: [&str; 2] = ["num.partitions=4", "group.initial.rebalance.delay.ms=3000"];

/// A part of the tests that takes two minutes, for every change.
pub const SHORT: &[&str] = &["0001"];

/// One entry of the suite's table of tests.
#[derive(Clone, Debug, PartialEq)]
struct Test {
    name: String,
    /// What it wants of the broker: `default` (topics are made on demand) or `noautocreate`.
    scenario: String,
    needs_broker: bool,
    /// The suite leaves it out unless it is asked for such tests.
    known_issue: bool,
    /// It joins consumer groups, so that there are two protocols to try it with.
    subscribes: bool,
}

impl Test {
    fn number(&self) -> &str {
        self.name.split('_').next().unwrap_or_default()
    }
}

/// What to run of the suite, and how.
pub struct Run<'a> {
    pub target: &'a Target,
    pub expectations: &'a Expectations,
    /// Run only tests whose names start with one of these; all if there are none.
    pub only: &'a [String],
    /// Processes at a time.
    pub jobs: usize,
    pub consumer_protocol: bool,
}

impl Run<'_> {
    fn suite(&self) -> &'static str {
        if self.consumer_protocol {
            SUITE_CONSUMER
        } else {
            SUITE
        }
    }

    fn wants(&self, test: &Test) -> bool {
        let named =
            self.only.is_empty() || self.only.iter().any(|only| test.name.starts_with(only));
        named && test.needs_broker && (test.subscribes || !self.consumer_protocol)
    }

    /// Runs the tests, against a broker of its own for each scenario.
    pub fn run(&self) -> Result<Vec<Row>> {
        let sources = build::built()?;
        let kafka_home = kafka_home()?;
        let mut tests = listed(&sources.join("tests"))?;
        tests.retain(|test| self.wants(test));
        let mut rows = Vec::new();
        for (scenario, auto_create) in [("default", true), ("noautocreate", false)] {
            let mut numbers: BTreeMap<String, Vec<Test>> = BTreeMap::new();
            for test in tests.iter().filter(|test| test.scenario.contains(scenario)) {
                if let Some(omitted) = self.omitted(test) {
                    rows.push(omitted);
                } else {
                    let number = test.number().to_owned();
                    numbers.entry(number).or_default().push(test.clone());
                }
            }
            if numbers.is_empty() {
                continue;
            }
            if scenario != "default" && !self.target.takes_settings() {
                rows.extend(self.out_of_reach(numbers.values().flatten(), scenario));
                continue;
            }
            let auto_create = format!("auto.create.topics.enable={auto_create}");
            let broker = self.target.start(&[BROKER[0], BROKER[1], &auto_create])?;
            let logs = toolbox::conformance_dir()
                .join("librdkafka-logs")
                .join(self.suite().replace([' ', ','], "-"));
            std::fs::create_dir_all(&logs)?;
            let world = World {
                tests: sources.join("tests"),
                kafka_home: kafka_home.clone(),
                logs,
                scenario,
                bootstrap: broker.bootstrap(),
                suite: self.suite(),
                consumer_protocol: self.consumer_protocol,
            };
            rows.extend(world.run_all(numbers, self.jobs)?);
            broker.stop()?;
        }
        Ok(rows)
    }

    fn out_of_reach<'t>(&self, tests: impl Iterator<Item = &'t Test>, scenario: &str) -> Vec<Row> {
        let why = format!("wants a broker set up as `{scenario}`, and this one runs already");
        tests
            .map(|test| Row::new(self.suite(), &test.name, Outcome::Skip, &why))
            .collect()
    }

    /// The row of a test that is not run because its file of expectations says why not.
    fn omitted(&self, test: &Test) -> Option<Row> {
        let Expected { outcome, reason } = self.expectations.of(self.suite(), &test.name)?;
        (*outcome == Outcome::Omit)
            .then(|| Row::new(self.suite(), &test.name, Outcome::Omit, reason))
    }
}

/// What the processes of one scenario share.
struct World {
    tests: PathBuf,
    kafka_home: PathBuf,
    logs: PathBuf,
    scenario: &'static str,
    bootstrap: String,
    suite: &'static str,
    consumer_protocol: bool,
}

impl World {
    fn run_all(&self, numbers: BTreeMap<String, Vec<Test>>, jobs: usize) -> Result<Vec<Row>> {
        let conf = self.logs.join("test.conf");
        let settings = format!(
            "metadata.broker.list={}\ntest.topic.random=true\ntest.timeout.multiplier=2\n",
            self.bootstrap
        );
        std::fs::write(&conf, settings)?;
        let waiting: Mutex<VecDeque<(String, Vec<Test>)>> =
            Mutex::new(numbers.into_iter().collect());
        let rows = Mutex::new(Ok(Vec::new()));
        std::thread::scope(|scope| {
            for _ in 0..jobs.max(1) {
                scope.spawn(|| {
                    loop {
                        let next = waiting.lock().ok().and_then(|mut queue| queue.pop_front());
                        let Some((number, tests)) = next else {
                            return;
                        };
                        let done = self.run_number(&number, &tests, &conf);
                        let Ok(mut rows) = rows.lock() else {
                            return;
                        };
                        match (&mut *rows, done) {
                            (Ok(rows), Ok(done)) => rows.extend(done),
                            (rows, Err(error)) => *rows = Err(error),
                            (Err(_), Ok(_)) => {}
                        }
                    }
                });
            }
        });
        rows.into_inner()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// One process, which runs every test of `number`, and what became of each.
    fn run_number(&self, number: &str, tests: &[Test], conf: &Path) -> Result<Vec<Row>> {
        let log = self.logs.join(format!("{number}-{}.log", self.scenario));
        let report = log.with_extension("json");
        if report.exists() {
            std::fs::remove_file(&report)?;
        }
        let library = |name: &str| self.tests.join("..").join(name).display().to_string();
        let mut runner = Command::new("./test-runner");
        runner.current_dir(&self.tests);
        runner.args(["-L", "-p1", "-V", KAFKA_VERSION, "-s", self.scenario]);
        if tests.iter().any(|test| test.known_issue) {
            runner.arg("-k");
        }
        runner.env(
            "LD_LIBRARY_PATH",
            format!("{}:{}", library("src"), library("src-cpp")),
        );
        runner.env("TESTS", number).env("TEST_REPORT", &report);
        runner.env("RDKAFKA_TEST_CONF", conf);
        runner.env("BROKERS", &self.bootstrap);
        runner.env("KAFKA_PATH", &self.kafka_home);
        // With it the suite leaves some tests out.
        runner.env_remove("CI");
        if self.consumer_protocol {
            runner.env("TEST_CONSUMER_GROUP_PROTOCOL", "consumer");
        }
        let started = Instant::now();
        let ended = process::run_logged(&mut runner, &log, LIMIT)?;
        let took = started.elapsed();
        let said = std::fs::read(&log).with_context(|| log.display().to_string())?;
        let said = output::without_colours(&String::from_utf8_lossy(&said));
        let states = std::fs::read_to_string(&report).unwrap_or_default();
        let mut rows = Vec::new();
        for test in tests {
            let (outcome, why) = output::outcome(&test.name, &states, &said, ended.is_some());
            let row = Row::new(self.suite, &test.name, outcome, &why);
            println!("{} ({:.0} s)", row.line(), took.as_secs_f32());
            rows.push(row);
        }
        Ok(rows)
    }
}

/// What the tests are told that the broker is.
pub const KAFKA_VERSION: &str = "4.3.1";

/// The tests that the suite's table names.
fn listed(dir: &Path) -> Result<Vec<Test>> {
    let table = std::fs::read_to_string(dir.join("test.c"))?;
    let mut tests = parse_table(&table)?;
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let is_source = name.ends_with(".c") || name.ends_with(".cpp");
        if is_source && std::fs::read_to_string(&path)?.contains("subscribe(") {
            let number = name.split('-').next().unwrap_or_default();
            for test in tests.iter_mut().filter(|test| test.number() == number) {
                test.subscribes = true;
            }
        }
    }
    Ok(tests)
}

/// Entries look like `_TEST(0107_topic_recreate, FLAGS, ..., .scenario = "noautocreate")`.
fn parse_table(text: &str) -> Result<Vec<Test>> {
    let start = text
        .find("struct test tests[] = {")
        .context("test.c has no table of tests")?;
    let table = &text[start..];
    let table = &table[..table.find("{NULL}").context("its table does not end")?];
    let entries = table.split("_TEST(").skip(1);
    let tests = entries.map(|entry| {
        let name = entry.split([',', ')']).next().unwrap_or_default().trim();
        let scenario = entry.split(".scenario = \"").nth(1);
        let scenario = scenario.and_then(|rest| rest.split('"').next());
        let local = ["TEST_F_LOCAL", "TEST_F_MANUAL"]
            .iter()
            .any(|flag| entry.contains(flag));
        Test {
            name: name.to_owned(),
            scenario: scenario.unwrap_or("default").to_owned(),
            needs_broker: !local && !name.contains("_mock"),
            // Not the flags for other systems, whose names go on.
            known_issue: ["TEST_F_KNOWN_ISSUE,", "TEST_F_KNOWN_ISSUE)"]
                .iter()
                .any(|flag| entry.contains(flag)),
            subscribes: false,
        }
    });
    Ok(tests.collect())
}

/// A directory laid out as Kafka's distribution is, as far as the tests look into it.
fn kafka_home() -> Result<PathBuf> {
    let jars = toolbox::jars()?;
    let home = toolbox::conformance_dir().join("kafka-home");
    if home.exists() {
        std::fs::remove_dir_all(&home)?;
    }
    std::fs::create_dir_all(&home)?;
    std::os::unix::fs::symlink(jars, home.join("libs"))?;
    let bin = crate::root().join("conformance/librdkafka/bin");
    std::os::unix::fs::symlink(bin, home.join("bin"))?;
    Ok(home)
}
