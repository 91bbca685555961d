//! `cargo xtask bench`: Oncelog beside Apache Kafka and the floor, on this machine, in one run.
//!
//! Ratios are what counts, not absolute figures: machines differ and drift. So the systems take
//! turns (A B C A B C) on new data that is deleted after each measurement, with one client for all
//! of them, and a ratio is taken pair by pair; what is reported is its median and its spread. Each
//! broker is warmed up before it counts, and the first run of each row is dropped.
//!
//! Here is only the order of things. The measuring programs and the floor are in bench/.

mod client;
mod outcome;
mod own;
mod page;
mod pipeline;
mod plot;
mod probe;
mod report;
mod row;
mod rows;
mod system;

use std::fs::File;
use std::sync::Mutex;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use outcome::{Measured, Outcome};
use probe::{Figures, Tools};
use row::{Measure, Row, STAGES, Stage};
use system::{Binaries, Broker, System, bench_dir};

use crate::toolbox::{self, Missing};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only these rows, as in 1,3,8; all without it. --list names them.
    #[arg(long, value_delimiter = ',')]
    rows: Vec<u32>,
    /// Only say what the rows are.
    #[arg(long)]
    list: bool,
    /// How often each system is measured.
    #[arg(long, default_value_t = 5)]
    pairs: usize,
    /// How long a measurement of throughput or latency lasts.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Two short pairs: to see that something works, not how fast it is.
    #[arg(long, conflicts_with_all = ["pairs", "seconds"])]
    quick: bool,
    /// Only these systems.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<System>,
}

impl Args {
    fn pairs(&self) -> usize {
        if self.quick { 2 } else { self.pairs }
    }

    /// Whether it is a run that a page with these rows can be made of.
    fn is_whole(&self, of: &[Row]) -> bool {
        let wanted = |row: &Row| row.numbers.iter().any(|number| self.rows.contains(number));
        let rows = self.rows.is_empty() || of.iter().all(wanted);
        rows && self.only.is_empty() && !self.quick
    }

    fn seconds(&self) -> f64 {
        if self.quick { 1.0 } else { self.seconds }
    }
}

/// What a run measures.
struct Plan {
    rows: Vec<&'static Row>,
    systems: Vec<System>,
    pairs: usize,
    seconds: f64,
}

/// Warming a broker up: twice this long.
const WARM_SECONDS: f64 = 3.0;

/// The first run of a row, which does not count.
const DROPPED_SECONDS: f64 = 1.0;

/// In the order of their numbers, but for what is on another page.
fn all_rows() -> impl Iterator<Item = &'static Row> {
    rows::ROWS.iter().chain(pipeline::ROWS)
}

pub fn run(args: &Args) -> Result<()> {
    if args.list {
        for row in all_rows() {
            println!("{:<4} {} ({})", row.id(), row.title, row.mode());
        }
        return Ok(());
    }
    let worse = measure(args)?;
    for line in &worse {
        println!("{line}");
    }
    if !worse.is_empty() {
        // The lines above have said it all.
        std::process::exit(1);
    }
    Ok(())
}

/// Whether the harness works: a few short measurements without Kafka, of which none may fail. What
/// they come to is not judged.
pub fn smoke() -> Result<()> {
    let mut rows = vec![1, 7, 12];
    match toolbox::need(&[&toolbox::POSTGRESQL, &toolbox::MARIADB]) {
        // CI must have everything; a person may do without.
        Err(why) if why.is::<Missing>() && std::env::var_os("CI").is_none() => {
            println!("rows with a database are left out: {why:#}");
        }
        installed => {
            installed?;
            rows.extend([22, 25]);
        }
    }
    let failures = measure(&Args {
        rows,
        list: false,
        pairs: 1,
        seconds: 1.0,
        quick: true,
        only: vec![System::Oncelog, System::Floor],
    })?;
    ensure!(failures.is_empty(), "{}", failures.join("; "));
    Ok(())
}

/// Measures, and reports; what has failed and what is below Kafka.
fn measure(args: &Args) -> Result<Vec<String>> {
    let plan = plan(args)?;
    let _alone = lock()?;
    let binaries = Binaries::build()?;
    raise_open_files()?;
    let rates = Mutex::default();
    let tools = Tools {
        binaries: &binaries,
        seconds: plan.seconds,
        divisor: if args.quick { 10 } else { 1 },
        rates: &rates,
    };
    let started = Instant::now();
    let mut outcomes = Vec::new();
    for stage in STAGES {
        let of_stage = plan.rows.iter().filter(|row| row.is_of(stage));
        let rows: Vec<&'static Row> = of_stage.copied().collect();
        let done = run_stage(&plan, &tools, stage, &rows);
        outcomes.extend(done.unwrap_or_else(|error| failed(&plan, &rows, &error)));
    }
    outcomes.extend(run_own(&plan, &tools));
    outcomes.sort_by_key(|outcome| (outcome.row.numbers[0], outcome.row.part));
    report::report(args, &outcomes, started.elapsed())
}

fn plan(args: &Args) -> Result<Plan> {
    for number in &args.rows {
        ensure!(
            all_rows().any(|row| row.numbers.contains(number)),
            "no row {number}; --list names them"
        );
    }
    let wanted =
        |row: &&Row| args.rows.is_empty() || row.numbers.iter().any(|n| args.rows.contains(n));
    let all = [System::Kafka, System::Oncelog, System::Floor];
    let systems = all
        .into_iter()
        .filter(|s| args.only.is_empty() || args.only.contains(s));
    ensure!(
        args.pairs > 0 && args.seconds > 0.0,
        "nothing would be measured"
    );
    Ok(Plan {
        rows: all_rows().filter(wanted).collect(),
        systems: systems.collect(),
        pairs: args.pairs(),
        seconds: args.seconds(),
    })
}

/// Two runs at once would measure each other, and share directories.
fn lock() -> Result<File> {
    std::fs::create_dir_all(bench_dir())?;
    let lock = File::create(bench_dir().join("lock"))?;
    lock.try_lock()
        .context("another bench of this tree is running")?;
    Ok(lock)
}

/// For the 10,000 connections, on both ends.
fn raise_open_files() -> Result<()> {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).context("raising the limit of open files")
}

/// The rows of a stage whose brokers could not be had.
fn failed(plan: &Plan, rows: &[&'static Row], error: &anyhow::Error) -> Vec<Outcome> {
    let why = format!("{error:#}");
    println!("{why}");
    let all = plan
        .systems
        .iter()
        .map(|system| (*system, vec![Err(why.clone())]));
    let measured: Measured = all.collect();
    let outcome = |row: &&'static Row| Outcome {
        row,
        measured: measured.clone(),
    };
    rows.iter().map(outcome).collect()
}

/// The rows of one stage, on brokers that run for all of them.
fn run_stage(
    plan: &Plan,
    tools: &Tools,
    stage: Stage,
    rows: &[&'static Row],
) -> Result<Vec<Outcome>> {
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    println!("\n=== {}", stage.describe());
    let mut brokers = Vec::new();
    for (system, durability) in stage.systems() {
        if plan.systems.contains(&system) {
            let broker = Broker::start(tools.binaries, system, durability)
                .with_context(|| format!("starting {}", system.name()))?;
            brokers.push(broker);
        }
    }
    for broker in &brokers {
        let warm = tools.lasting(WARM_SECONDS.min(plan.seconds));
        rows::produce_big(&warm, broker).with_context(|| broker.system.name())?;
        rows::produce_small(&warm, broker).with_context(|| broker.system.name())?;
    }
    let mut outcomes = Vec::new();
    for row in rows {
        let Measure::On(_, measure) = row.measure else {
            continue;
        };
        println!("--- row {}: {}", row.id(), row.title);
        for broker in &brokers {
            // What fails here fails again below, and is reported there.
            let _ = measure(&tools.lasting(DROPPED_SECONDS.min(plan.seconds)), broker);
        }
        outcomes.push(take_turns(row, plan.pairs, &brokers, |broker| {
            (broker.system, measure(tools, broker))
        }));
    }
    Ok(outcomes)
}

/// The rows that start their own brokers.
fn run_own(plan: &Plan, tools: &Tools) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    for row in &plan.rows {
        if let Measure::Ours(measure, pairs_max) = row.measure
            && plan.systems.contains(&System::Oncelog)
        {
            println!("--- row {}: {}", row.id(), row.title);
            let pairs = plan.pairs.min(pairs_max);
            outcomes.push(take_turns(row, pairs, &[System::Oncelog], |system| {
                (*system, measure(tools))
            }));
        }
        if let Measure::Own(measure, pairs_max) = row.measure {
            println!("--- row {}: {}", row.id(), row.title);
            // The floor starts in no time, keeps nothing and knows no groups: nothing to learn.
            let real = plan
                .systems
                .iter()
                .filter(|system| **system != System::Floor);
            let systems: Vec<System> = real.copied().collect();
            let pairs = plan.pairs.min(pairs_max);
            outcomes.push(take_turns(row, pairs, &systems, |system| {
                (*system, measure(tools, *system))
            }));
        }
    }
    outcomes
}

/// Measures each of `those` in turn, and all of them `pairs` times.
fn take_turns<T>(
    row: &'static Row,
    pairs: usize,
    those: &[T],
    measure: impl Fn(&T) -> (System, Result<Figures>),
) -> Outcome {
    let mut measured = Measured::new();
    for _ in 0..pairs {
        for one in those {
            let (system, figures) = measure(one);
            let figures = figures.map_err(|error| format!("{error:#}"));
            report::show(row, system, &figures);
            measured.entry(system).or_default().push(figures);
        }
    }
    Outcome { row, measured }
}
