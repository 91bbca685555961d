//! `cargo xtask bench`: Oncelog beside Apache Kafka and the floor, on this machine, in one run.
//!
//! Ratios are what counts, not absolute figures: machines differ and drift. So the systems take
//! turns (A B C A B C) on new data that is deleted after each measurement, with one client for all
//! of them, and a ratio is taken pair by pair; what is reported is its median and its spread. Each
//! broker is warmed up before it counts, and the first run of each row is dropped.
//!
//! Here is only the order of things. The measuring programs and the floor are in bench/.

mod outcome;
mod probe;
mod report;
mod rows;
mod system;

use std::time::Instant;

use anyhow::{Context, Result, ensure};

use outcome::{Measured, Outcome};
use probe::Tools;
use rows::{Measure, ROWS, Row, STAGES, Stage};
use system::{Binaries, Broker, System, bench_dir};

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

pub fn run(args: &Args) -> Result<()> {
    if args.list {
        for row in ROWS {
            println!("{:<4} {} ({})", row.id(), row.title, mode(row));
        }
        return Ok(());
    }
    let plan = plan(args)?;
    let binaries = Binaries::build()?;
    std::fs::create_dir_all(bench_dir())?;
    raise_open_files()?;
    let started = Instant::now();
    let mut outcomes = Vec::new();
    for stage in STAGES {
        outcomes.extend(run_stage(&plan, &binaries, stage)?);
    }
    outcomes.sort_by_key(|outcome| (outcome.row.number, outcome.row.part));
    report::report(args, &outcomes, started.elapsed())
}

fn plan(args: &Args) -> Result<Plan> {
    for number in &args.rows {
        ensure!(
            ROWS.iter().any(|row| row.number == *number),
            "no row {number}; --list names them"
        );
    }
    let wanted = |row: &&Row| args.rows.is_empty() || args.rows.contains(&row.number);
    let all = [System::Kafka, System::Oncelog, System::Floor];
    let systems = all
        .into_iter()
        .filter(|s| args.only.is_empty() || args.only.contains(s));
    ensure!(
        args.pairs > 0 && args.seconds > 0.0,
        "nothing would be measured"
    );
    Ok(Plan {
        rows: ROWS.iter().filter(wanted).collect(),
        systems: systems.collect(),
        pairs: args.pairs(),
        seconds: args.seconds(),
    })
}

fn mode(row: &Row) -> &'static str {
    match row.measure {
        Measure::On(stage, _) => stage.describe(),
    }
}

/// For the 10,000 connections, on both ends.
fn raise_open_files() -> Result<()> {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).context("raising the limit of open files")
}

/// The rows of one stage, on brokers that run for all of them.
fn run_stage(plan: &Plan, binaries: &Binaries, stage: Stage) -> Result<Vec<Outcome>> {
    let of_stage = |row: &&&'static Row| matches!(row.measure, Measure::On(s, _) if s == stage);
    let rows: Vec<&'static Row> = plan.rows.iter().filter(of_stage).copied().collect();
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    println!("\n=== {}", stage.describe());
    let tools = Tools {
        binaries,
        seconds: plan.seconds,
    };
    let mut brokers = Vec::new();
    for (system, durability) in stage.systems() {
        if plan.systems.contains(&system) {
            let broker = Broker::start(binaries, system, durability)
                .with_context(|| format!("starting {}", system.name()))?;
            brokers.push(broker);
        }
    }
    for broker in &brokers {
        let warm = tools.lasting(WARM_SECONDS.min(plan.seconds));
        rows::produce_big(&warm, broker).with_context(|| broker.system.name())?;
        rows::produce_small(&warm, broker).with_context(|| broker.system.name())?;
    }
    Ok(rows
        .into_iter()
        .map(|row| run_row(plan, &tools, &brokers, row))
        .collect())
}

fn run_row(plan: &Plan, tools: &Tools, brokers: &[Broker], row: &'static Row) -> Outcome {
    let Measure::On(stage, measure) = row.measure else {
        unreachable!("rows of a stage run on brokers")
    };
    println!("--- row {}: {}", row.id(), row.title);
    for broker in brokers {
        // What fails here fails again below, and is reported there.
        let _ = measure(&tools.lasting(DROPPED_SECONDS.min(plan.seconds)), broker);
    }
    let mut measured = Measured::new();
    for _ in 0..plan.pairs {
        for broker in brokers {
            let one = measure(tools, broker).map_err(|error| format!("{error:#}"));
            report::show(row, broker.system, &one);
            measured.entry(broker.system).or_default().push(one);
        }
    }
    Outcome {
        row,
        mode: stage.describe(),
        measured,
    }
}
