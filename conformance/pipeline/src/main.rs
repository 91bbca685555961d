//! `pipeline-campaign`: database to topic to database, as processes of the real binary, under SIGKILL,
//! failpoints and old instances that wake up; and the judge of what arrives. `cargo xtask pipeline`
//! builds everything and runs it.
//!
//! What is committed is known from the source database alone, what arrived from the topic and from the
//! target database: nothing is taken from a program's own counters. Choices follow from the seed; timing
//! is the machine's.

mod broker;
mod combination;
mod event;
mod faults;
mod judge;
mod process;
mod report;
mod server;
mod sql;
mod tables;
mod topic;
mod trial;
mod watch;
mod world;
mod writers;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use crash_campaign::random::Random;

use broker::Foreign;
use combination::{Combination, Engine, Level, combinations};
use report::{Outcome, Row};
use trial::Trial;
use world::World;

/// Kills of every process between two databases, and the judge of what arrives.
#[derive(Parser)]
struct Args {
    /// A built `oncelog`
    #[arg(long)]
    binary: PathBuf,
    /// Where data goes; what a failed combination leaves stays there
    #[arg(long)]
    work: PathBuf,
    /// Only this pair; may be repeated
    #[arg(long, value_name = "SOURCE:TARGET")]
    only: Vec<Combination>,
    /// All pairs of a source and a target, instead of each of them once
    #[arg(long)]
    long: bool,
    /// SIGKILLs for each pair, about
    #[arg(long)]
    kills: Option<u64>,
    /// The guarantee that relay and sink are run at
    #[arg(long, default_value_t)]
    level: Level,
    /// Pairs at the same time, each with a broker and databases of its own. They wait most of the time
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Repeats the choices of a run that printed it
    #[arg(long)]
    seed: Option<u64>,
    /// Print the results as JSON at the end
    #[arg(long)]
    json: bool,
    /// Only say what the pairs are
    #[arg(long)]
    list: bool,
    /// Another broker's address, with the command that starts it
    #[arg(long, value_name = "ADDRESS", requires = "command")]
    bootstrap: Option<String>,
    /// The command that starts the broker at --bootstrap; it is not killed
    #[arg(last = true)]
    command: Vec<String>,
}

/// Of one pair in a short run, and in a long one.
const KILLS: u64 = 25;
const KILLS_LONG: u64 = 50;

fn main() -> Result<()> {
    let args = Args::parse();
    let chosen = match args.only.is_empty() {
        true => combinations(args.long),
        false => args.only.clone(),
    };
    if args.list {
        chosen.iter().for_each(|one| println!("{one}"));
        return Ok(());
    }
    end_in_order()?;
    let seed = args.seed.unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        now.map_or(1, |now| now.as_nanos() as u64 % 1_000_000_000)
    });
    let binary = args.binary.canonicalize().context("the binary")?;
    let work = args.work.clone();
    std::fs::create_dir_all(&work)?;
    println!("{}", report::header());
    let trials: Vec<Trial<'_>> = chosen
        .into_iter()
        .map(|combination| Trial {
            combination,
            level: args.level,
            binary: &binary,
            home: work.join(combination.to_string().replace(':', "-")),
            kills: args
                .kills
                .unwrap_or(if args.long { KILLS_LONG } else { KILLS }),
            seed,
            foreign: foreign(&args),
        })
        .collect();
    // All pairs share another's broker and its topics.
    let jobs = if args.bootstrap.is_some() {
        1
    } else {
        args.jobs
    };
    finish(&run_all(&trials, jobs)?, seed, args.json)
}

/// In the order of `trials`, as far as nobody asked for an end.
fn run_all(trials: &[Trial<'_>], jobs: usize) -> Result<Vec<Row>> {
    let next = AtomicUsize::new(0);
    let rows = Mutex::new(Vec::new());
    let work = || -> Result<()> {
        while !stopping() {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(trial) = trials.get(index) else {
                break;
            };
            let row = Row {
                combination: trial.combination,
                level: trial.level,
                outcome: run_one(trial)?,
            };
            println!("{}", report::line(&row));
            let mut rows = rows.lock().unwrap_or_else(PoisonError::into_inner);
            rows.push((index, row));
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let started: Vec<_> = (0..jobs.max(1)).map(|_| scope.spawn(work)).collect();
        let mut ended = started.into_iter().map(std::thread::ScopedJoinHandle::join);
        ended.try_for_each(|ended| ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })?;
    let mut rows = rows.into_inner().unwrap_or_else(PoisonError::into_inner);
    rows.sort_by_key(|(index, _)| *index);
    Ok(rows.into_iter().map(|(_, row)| row).collect())
}

fn foreign(args: &Args) -> Option<Foreign> {
    args.bootstrap.as_ref().map(|address| Foreign {
        address: address.clone(),
        command: args.command.clone(),
    })
}

fn run_one(trial: &Trial<'_>) -> Result<Outcome> {
    if trial.home.exists() {
        std::fs::remove_dir_all(&trial.home)?;
    }
    std::fs::create_dir_all(&trial.home)?;
    let Combination { source, target } = trial.combination;
    for engine in [source.engine(), target.engine] {
        if let Some(why) = missing(engine, &trial.home) {
            return Ok(Outcome::Skipped(why));
        }
    }
    // Each pair's choices are its own, whichever others run.
    let name = trial.combination.to_string();
    let own = name.bytes().fold(trial.seed, |sum, byte| {
        sum.wrapping_mul(31).wrapping_add(byte.into())
    });
    let report = trial.run(&mut Random::new(own));
    match report.failure(trial.level) {
        None => std::fs::remove_dir_all(&trial.home)?,
        Some(why) => {
            eprintln!("FAILED {}: {why}", trial.combination);
            eprintln!("  again with: {}", trial.replay());
            eprintln!("  its files are in {}", trial.home.display());
        }
    }
    Ok(Outcome::Ran(Box::new(report)))
}

/// Why there can be no server of this kind here; tried out once.
fn missing(engine: Engine, home: &std::path::Path) -> Option<String> {
    static POSTGRESQL: OnceLock<Option<String>> = OnceLock::new();
    static MARIADB: OnceLock<Option<String>> = OnceLock::new();
    let known = match engine {
        Engine::Sqlite => return None,
        Engine::PostgreSql => &POSTGRESQL,
        Engine::MariaDb => &MARIADB,
    };
    let probe = || {
        World::probe(engine, home)
            .err()
            .map(|error| format!("{error:#}"))
    };
    known.get_or_init(probe).clone()
}

fn finish(rows: &[Row], seed: u64, json: bool) -> Result<()> {
    if json {
        println!("{:#}", report::to_json(rows, seed));
    }
    let verdicts: Vec<String> = rows.iter().map(report::verdict).collect();
    let kills = rows.iter().filter_map(|row| match &row.outcome {
        Outcome::Ran(report) => Some(report.kills()),
        Outcome::Skipped(_) => None,
    });
    println!("\n{} SIGKILLs in all; seed {seed}", kills.sum::<u64>());
    verdicts.iter().for_each(|verdict| println!("{verdict}"));
    if verdicts.iter().any(|verdict| verdict.starts_with("FAIL")) {
        std::process::exit(1);
    }
    let ran = verdicts.iter().any(|verdict| verdict.starts_with("ok"));
    ensure!(ran, "nothing was tested");
    Ok(())
}

static STOPPING: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// Whether a signal has asked for an end: then everything that was started is ended first.
pub fn stopping() -> bool {
    STOPPING
        .get()
        .is_some_and(|stop| stop.load(Ordering::Relaxed))
}

/// The first signal ends everything in order, the second at once.
fn end_in_order() -> Result<()> {
    let stop = STOPPING.get_or_init(Arc::default);
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(stop))?;
        signal_hook::flag::register(signal, Arc::clone(stop))?;
    }
    Ok(())
}
