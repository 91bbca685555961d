//! librdkafka's own test suite, from the sources that the crate `rdkafka-sys` in Cargo.lock carries.
//!
//! One process per test number, because a test that hangs takes its whole process along; a number
//! may stand for several tests. Never the suite's quick mode, which leaves most of a test out and
//! says PASSED all the same. Tests that need no broker (those flagged as local, and those against
//! librdkafka's own mock cluster) say nothing about ours and are not run.
//!
//! Of a few tests parts cannot pass here, and the first part that fails ends the test: these run with
//! one process per part, so that the other parts count.
//!
//! Some tests call Kafka's command line tools; they find them in a directory that looks like a Kafka
//! distribution and is made of the jars that the other suites use.

mod build;
mod list;
mod output;

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

use super::expected::Expectations;
use super::table::{Outcome, Row};
use super::target::{Target, slug};
use crate::{process, toolbox};
use list::{Test, listed, parts};

pub const SUITE: &str = "librdkafka";
pub const SUITE_CONSUMER: &str = "librdkafka, group.protocol=consumer";

/// A number's tests together. The runner has a limit per test of its own; this is for when it hangs.
const LIMIT: Duration = Duration::from_secs(30 * 60);

/// What the suite takes for granted: four partitions, and Kafka's default wait for a first
/// generation, by which two consumers that start together get one assignment and not two.
const BROKER: [&str; 2] = ["num.partitions=4", "group.initial.rebalance.delay.ms=3000"];

/// The quick half of the tests, which takes two minutes, for every change.
pub const SHORT: &[&str] = &[
    "0001", "0002", "0003", "0005", "0007", "0008", "0011", "0012", "0013", "0017", "0018", "0022",
    "0029", "0030", "0031", "0034", "0035", "0036", "0040", "0041", "0042", "0044", "0048", "0054",
    "0056", "0057", "0059", "0060", "0063", "0064", "0065", "0067", "0070", "0073", "0082", "0085",
    "0090", "0099", "0102", "0107", "0111", "0112", "0118", "0130", "0140",
];

/// Takes ten minutes with the consumer group protocol, mostly asleep.
const LONGEST: &str = "0113";

/// Run part by part; the parts are the functions that begin a sub-test.
const IN_PARTS: [&str; 1] = ["0081_admin"];

/// What one process runs: the tests of a number, or one part of a test.
struct Job {
    tests: Vec<Test>,
    part: Option<String>,
}

impl Job {
    fn number(&self) -> &str {
        self.tests.first().map_or("", Test::number)
    }

    /// What the row of `test` is called.
    fn name(&self, test: &Test) -> String {
        match &self.part {
            Some(part) => format!("{}/{part}", test.name),
            None => test.name.clone(),
        }
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
            let of_scenario = tests.iter().filter(|test| test.scenario.contains(scenario));
            let of_scenario: Vec<Test> = of_scenario.cloned().collect();
            let mut jobs = jobs(&sources.join("tests"), of_scenario)?;
            for job in &mut jobs {
                rows.extend(self.take_omitted(job));
            }
            jobs.retain(|job| !job.tests.is_empty());
            if jobs.is_empty() {
                continue;
            }
            if scenario != "default" && !self.target.takes_settings() {
                rows.extend(self.out_of_reach(&jobs, scenario));
                continue;
            }
            let auto_create = format!("auto.create.topics.enable={auto_create}");
            let settings = [BROKER[0], BROKER[1], &auto_create];
            let broker = self.target.start(self.suite(), &settings)?;
            let logs = toolbox::conformance_dir()
                .join("logs")
                .join(slug(self.suite()));
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
            rows.extend(world.run_all(jobs, self.jobs)?);
            rows.extend(broker.stop(&format!("{}, {scenario}", self.suite()))?);
        }
        Ok(rows)
    }

    fn out_of_reach(&self, jobs: &[Job], scenario: &str) -> Vec<Row> {
        let why = format!("wants a broker set up as `{scenario}`, and this one runs already");
        let names = jobs
            .iter()
            .flat_map(|job| job.tests.iter().map(|test| job.name(test)));
        names
            .map(|name| Row::new(self.suite(), &name, Outcome::Skip, &why))
            .collect()
    }

    /// Takes out of `job` what is not to run, as the file of expectations says; the rows for that.
    fn take_omitted(&self, job: &mut Job) -> Vec<Row> {
        let mut rows = Vec::new();
        let mut stay = Vec::new();
        for test in std::mem::take(&mut job.tests) {
            let name = job.name(&test);
            match self.expectations.of(self.suite(), &name) {
                Some(expected) if expected.outcome == Outcome::Omit => {
                    let reason = &expected.reason;
                    rows.push(Row::new(self.suite(), &name, Outcome::Omit, reason));
                }
                _ => stay.push(test),
            }
        }
        job.tests = stay;
        rows
    }
}

/// The processes to run, in order of the tests' numbers but for the longest, which goes first.
fn jobs(dir: &Path, tests: Vec<Test>) -> Result<Vec<Job>> {
    let mut jobs = Vec::new();
    let mut numbers: BTreeMap<String, Vec<Test>> = BTreeMap::new();
    for test in tests {
        if IN_PARTS.contains(&test.name.as_str()) {
            for part in parts(dir, test.number())? {
                jobs.push(Job {
                    tests: vec![test.clone()],
                    part: Some(part),
                });
            }
        } else {
            let number = test.number().to_owned();
            numbers.entry(number).or_default().push(test);
        }
    }
    let whole = numbers.into_values().map(|tests| Job { tests, part: None });
    jobs.extend(whole);
    jobs.sort_by_key(|job| (job.number() != LONGEST, job.number().to_owned()));
    Ok(jobs)
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
    fn run_all(&self, jobs: Vec<Job>, at_a_time: usize) -> Result<Vec<Row>> {
        let conf = self.logs.join("test.conf");
        let settings = format!(
            "metadata.broker.list={}\ntest.topic.random=true\ntest.timeout.multiplier=2\n",
            self.bootstrap
        );
        std::fs::write(&conf, settings)?;
        let waiting = Mutex::new(VecDeque::from(jobs));
        let run_some = || -> Result<Vec<Row>> {
            let mut rows = Vec::new();
            loop {
                let next = waiting.lock().ok().and_then(|mut queue| queue.pop_front());
                let Some(job) = next else {
                    return Ok(rows);
                };
                rows.extend(self.run_job(&job, &conf)?);
            }
        };
        std::thread::scope(|scope| {
            let runs: Vec<_> = (0..at_a_time.max(1))
                .map(|_| scope.spawn(run_some))
                .collect();
            let mut rows = Vec::new();
            for run in runs {
                let done = run
                    .join()
                    .map_err(|_| anyhow!("a thread of the run panicked"))?;
                rows.extend(done?);
            }
            Ok(rows)
        })
    }

    /// Runs one process, and says what became of each of its tests.
    fn run_job(&self, job: &Job, conf: &Path) -> Result<Vec<Row>> {
        let part = job.part.as_deref().unwrap_or("all");
        let name = format!("{}-{part}-{}", job.number(), self.scenario);
        let log = self.logs.join(format!("{name}.log"));
        // In the runner's own directory, because it has only 128 bytes for the path.
        let protocol = if self.consumer_protocol {
            "consumer"
        } else {
            "classic"
        };
        let report = format!("report-{protocol}-{name}.json");
        let report_path = self.tests.join(&report);
        if report_path.exists() {
            std::fs::remove_file(&report_path)?;
        }
        let mut runner = self.runner(job, conf);
        runner.env("TEST_REPORT", &report);
        let started = Instant::now();
        let ended = process::run_logged(&mut runner, &log, LIMIT)?;
        let took = started.elapsed();
        let said = std::fs::read(&log).with_context(|| log.display().to_string())?;
        let said = output::without_colours(&String::from_utf8_lossy(&said));
        let states = std::fs::read_to_string(&report_path).unwrap_or_default();
        let mut rows = Vec::new();
        for test in &job.tests {
            let (mut outcome, mut why) =
                output::outcome(&test.name, &states, &said, ended.is_some());
            if outcome == Outcome::Pass && job.part.is_some() && !said.contains(": PASS (") {
                outcome = Outcome::Vacuous;
                why = "the test has no such part".to_owned();
            }
            let row = Row::new(self.suite, &job.name(test), outcome, &why);
            println!("{} ({:.0} s)", row.line(), took.as_secs_f32());
            rows.push(row);
        }
        Ok(rows)
    }

    fn runner(&self, job: &Job, conf: &Path) -> Command {
        let library = |name: &str| self.tests.join("..").join(name).display().to_string();
        let libraries = format!("{}:{}", library("src"), library("src-cpp"));
        let mut runner = Command::new("./test-runner");
        runner.current_dir(&self.tests);
        runner.args(["-L", "-p1", "-V", KAFKA_VERSION, "-s", self.scenario]);
        if job.tests.iter().any(|test| test.known_issue) {
            runner.arg("-k");
        }
        runner.env("LD_LIBRARY_PATH", libraries);
        runner.env("TESTS", job.number());
        runner.env("RDKAFKA_TEST_CONF", conf);
        runner.env("BROKERS", &self.bootstrap);
        runner.env("KAFKA_PATH", &self.kafka_home);
        // With it the suite leaves some tests out.
        runner.env_remove("CI");
        if let Some(part) = &job.part {
            // Sub-tests are called FUNCTION:LINE.
            runner.env("SUBTESTS", format!("{part}:"));
        }
        if self.consumer_protocol {
            runner.env("TEST_CONSUMER_GROUP_PROTOCOL", "consumer");
        }
        runner
    }
}

/// What the tests are told that the broker is.
pub const KAFKA_VERSION: &str = "4.3.1";

/// A directory laid out as Kafka's distribution is, as far as the tests look into it.
fn kafka_home() -> Result<PathBuf> {
    let jars = toolbox::jars()?;
    let home = toolbox::conformance_dir().join("kafka-home");
    std::fs::create_dir_all(&home)?;
    let bin = crate::root().join("conformance/librdkafka/bin");
    for (name, target) in [("libs", jars), ("bin", bin)] {
        let link = home.join(name);
        if !link.exists() {
            std::os::unix::fs::symlink(target, link)?;
        }
    }
    Ok(home)
}
