//! `cargo xtask conformance`: test suites that others wrote, against the built binary.
//!
//! librdkafka's own suite (with both consumer group protocols), rdkafka's integration tests, and the
//! clients of `cargo xtask smoke`. Each row of the result is pass, fail, skip or vacuous (a test that
//! says PASSED and has tested nothing). conformance/expected.txt says what is expected of each test
//! that does not simply pass, and why; whatever differs from it fails the command.
//!
//! With `--against kafka` the same runs against Apache Kafka, which tells a bug of ours from a quirk
//! of a test's.

mod clients;
mod expected;
mod librdkafka;
mod rdkafka;
mod results;
mod sources;
mod table;
mod target;

use std::time::Instant;

use anyhow::{Result, bail, ensure};

use crate::tally::Tally;
use expected::Expectations;
use results::Results;
use table::{Outcome, Row};
use target::Target;

#[derive(clap::Args)]
pub struct Args {
    /// Only this suite; may be repeated.
    #[arg(long, value_enum)]
    suite: Vec<Suite>,
    /// Only tests whose names start like this; may be repeated.
    #[arg(long = "test", value_name = "NAME")]
    tests: Vec<String>,
    /// Use the broker at this address instead of starting `oncelog`.
    #[arg(long, value_name = "ADDRESS", conflicts_with = "against")]
    bootstrap: Option<String>,
    /// Start this peer instead of `oncelog`. What differs from the expectations is shown, and is no
    /// failure.
    #[arg(long, value_enum)]
    against: Option<Peer>,
    /// How many of librdkafka's tests run at a time. Most of them wait most of the time.
    #[arg(long, default_value_t = 3)]
    jobs: usize,
    /// Write the results of the last whole run of each suite into docs/kafka-compatibility.md.
    #[arg(long, conflicts_with_all = ["bootstrap", "against"])]
    write_docs: bool,
    /// Run nothing: only write those results.
    #[arg(long, requires = "write_docs", conflicts_with_all = ["suite", "tests"])]
    only_docs: bool,
}

#[derive(Clone, Copy, PartialEq, clap::ValueEnum)]
enum Suite {
    /// librdkafka's own tests
    Librdkafka,
    /// Those of them that use consumer groups, with the consumer group protocol of KIP-848
    LibrdkafkaConsumer,
    /// The integration tests of the crate rdkafka
    Rdkafka,
    /// Our own checks through other clients, as in `cargo xtask smoke`
    Clients,
}

const SUITES: [Suite; 4] = [
    Suite::Librdkafka,
    Suite::LibrdkafkaConsumer,
    Suite::Rdkafka,
    Suite::Clients,
];

impl Suite {
    fn name(self) -> &'static str {
        match self {
            Suite::Librdkafka => librdkafka::SUITE,
            Suite::LibrdkafkaConsumer => librdkafka::SUITE_CONSUMER,
            Suite::Rdkafka => rdkafka::SUITE,
            Suite::Clients => clients::SUITE,
        }
    }
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Peer {
    /// Apache Kafka, as `cargo xtask kafka start` starts it
    Kafka,
}

pub fn run(args: &Args) -> Result<()> {
    let target = match (&args.bootstrap, args.against) {
        (Some(address), _) => Target::Address(address.clone()),
        (None, Some(Peer::Kafka)) => Target::Kafka,
        (None, None) => Target::Oncelog,
    };
    let expectations = expectations()?;
    if args.only_docs {
        return write_docs(&expectations);
    }
    let asked = |suite: &Suite| args.suite.is_empty() || args.suite.contains(suite);
    let suites: Vec<Suite> = SUITES.into_iter().filter(asked).collect();
    let started = Instant::now();
    let mut rows = Vec::new();
    for suite in &suites {
        println!("\n=== {}", suite.name());
        let mut of_suite = run_suite(*suite, &target, &expectations, &args.tests, args.jobs)?;
        of_suite.sort_by(|a, b| a.test.cmp(&b.test));
        if matches!(target, Target::Oncelog) && args.tests.is_empty() {
            results::keep(*suite, &of_suite)?;
        }
        rows.extend(of_suite);
    }
    ensure!(!rows.is_empty(), "no test has such a name");
    println!();
    for row in rows
        .iter()
        .filter(|row| row.outcome != Outcome::Pass || !row.why.is_empty())
    {
        println!("{}", row.line());
    }
    println!("\n{}", table::counts(&rows.iter().collect::<Vec<_>>()));
    println!("{} tests in {} s", rows.len(), started.elapsed().as_secs());
    let complete: Vec<&str> = if args.tests.is_empty() {
        suites.iter().map(|suite| suite.name()).collect()
    } else {
        Vec::new()
    };
    let differences = expectations.differences(&rows, &complete);
    for difference in &differences {
        println!("{difference}");
    }
    if args.write_docs {
        write_docs(&expectations)?;
    }
    if !differences.is_empty() && !matches!(target, Target::Kafka) {
        bail!(
            "{} results differ from what conformance/expected.txt says",
            differences.len()
        );
    }
    Ok(())
}

fn run_suite(
    suite: Suite,
    target: &Target,
    expectations: &Expectations,
    only: &[String],
    jobs: usize,
) -> Result<Vec<Row>> {
    match suite {
        Suite::Librdkafka | Suite::LibrdkafkaConsumer => librdkafka::Run {
            target,
            expectations,
            only,
            jobs,
            consumer_protocol: suite == Suite::LibrdkafkaConsumer,
        }
        .run(),
        Suite::Rdkafka => rdkafka::run(target, expectations, only),
        // They are not tests with names to choose from.
        Suite::Clients if only.is_empty() => clients::run(target),
        Suite::Clients => Ok(Vec::new()),
    }
}

/// The part of librdkafka's suite that takes two minutes, for `cargo xtask test`.
pub fn short() -> Result<Tally> {
    let expectations = expectations()?;
    let only: Vec<String> = librdkafka::SHORT
        .iter()
        .map(|&test| test.to_owned())
        .collect();
    let rows = run_suite(Suite::Librdkafka, &Target::Oncelog, &expectations, &only, 4)?;
    let mut tally = Tally::default();
    for row in &rows {
        match row.outcome {
            Outcome::Pass => tally.passed += 1,
            Outcome::Fail => {}
            Outcome::Skip | Outcome::Vacuous | Outcome::Omit => {
                tally += Tally::skip(&row.test, &row.why);
            }
        }
    }
    for difference in expectations.differences(&rows, &[]) {
        tally.fail("librdkafka", &difference);
    }
    Ok(tally)
}

fn expectations() -> Result<Expectations> {
    Expectations::read(&crate::root().join("conformance/expected.txt"))
}

fn write_docs(expectations: &Expectations) -> Result<()> {
    let kept: Result<Vec<Results>> = SUITES.into_iter().map(results::kept).collect();
    let page = crate::root().join("docs/kafka-compatibility.md");
    table::write_docs(&page, &kept?, |row| {
        let expected = expectations.of(row.suite, &row.test)?;
        (expected.outcome == row.outcome).then(|| expected.reason.clone())
    })
}
