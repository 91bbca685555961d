//! What the broker takes and what it stands: time to start, memory at rest, ten thousand idle
//! connections, and clients that mean no good. With the built binary, whose memory is read from
//! `/proc`, so nothing of the clients is counted.
//!
//! The figures are printed. The bars are those that the project promises; in a debug build, those
//! that depend on the compiler are wider (`SLACK`).

mod answers;
mod churn;
mod connections;
mod crowds;
mod hostile;
mod large;
mod raw;
mod start;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

const ONCELOG: &str = env!("CARGO_BIN_EXE_oncelog");

/// What a debug build may take longer.
const SLACK: u32 = if cfg!(debug_assertions) { 3 } else { 1 };

/// Measurements disturb each other: one test at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A count that a longer run raises by the environment.
fn scaled(variable: &str, usual: usize) -> usize {
    let asked = std::env::var(variable).ok();
    asked.map_or(usual, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{variable}={text} is not a count"))
    })
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

/// Median and longest.
fn spread(mut times: Vec<Duration>) -> (Duration, Duration) {
    times.sort();
    (times[times.len() / 2], times[times.len() - 1])
}
