//! `oncelog-sim`: runs seeds, each twice, and says how to replay the one that failed.

use clap::Parser;
use oncelog_sim::{Failure, Outcome};
use std::process::ExitCode;

/// Simulates whole worlds: one broker, its disk, its network and its clients per seed.
#[derive(Parser)]
struct Args {
    /// How many seeds to run
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first seed
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Run this seed alone and print its trace
    #[arg(long)]
    replay: Option<u64>,
}

/// A panic in the broker is a failure of the seed like any other.
fn run(seed: u64, verbose: bool) -> Result<Outcome, Failure> {
    std::panic::catch_unwind(|| oncelog_sim::run(seed, verbose)).unwrap_or_else(|_| {
        let violation = "a panic; its message is above".to_owned();
        Err(Failure {
            violation,
            at_ms: 0,
        })
    })
}

fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(seed) = args.replay {
        return match run(seed, true) {
            Ok(outcome) => {
                println!("seed {seed}: {outcome:?}");
                ExitCode::SUCCESS
            }
            Err(failure) => failed(seed, &failure),
        };
    }
    let mut total = Outcome::default();
    for seed in args.from..args.from + args.seeds {
        let outcome = match (run(seed, false), run(seed, false)) {
            (Ok(first), Ok(second)) if first.trace_hash == second.trace_hash => first,
            (Ok(first), Ok(second)) => {
                eprintln!(
                    "seed {seed} gave two different runs ({:016x}, {:016x}): something is not \
                     deterministic",
                    first.trace_hash, second.trace_hash
                );
                return ExitCode::FAILURE;
            }
            (Err(failure), _) | (_, Err(failure)) => return failed(seed, &failure),
        };
        total.add(&outcome);
    }
    println!(
        "{} seeds, each twice with the same trace: {} events, {:.1} simulated hours, {} crashes, \
         {} acknowledged records; of transactions {} committed, {} aborted, {} in doubt, {} \
         instances fenced; of the service's {} events {} published, {} lines written, {} relays \
         stopped; no broken promise",
        args.seeds,
        total.events,
        total.virtual_ms as f64 / 3_600_000.0,
        total.crashes,
        total.acked,
        total.committed,
        total.aborted,
        total.in_doubt,
        total.fenced,
        total.events_committed,
        total.published,
        total.lines,
        total.relays_stopped,
    );
    ExitCode::SUCCESS
}

fn failed(seed: u64, failure: &Failure) -> ExitCode {
    eprintln!(
        "seed {seed}, after {} ms: {}",
        failure.at_ms, failure.violation
    );
    eprintln!("replay it with: cargo run --release -p oncelog-sim -- --replay {seed}");
    ExitCode::FAILURE
}
