//! One file per command; a noun with several verbs is a directory with one file per verb. What
//! arguments of several commands have in common is in `scope`.

use std::time::Duration;

use anyhow::Result;

use crate::interrupt::Interrupt;
use crate::pipeline::running::Running;

pub mod audit;
pub mod cluster;
pub mod completions;
pub mod config;
pub mod consume;
pub mod demo;
pub mod group;
pub mod outbox;
pub mod produce;
pub mod relay;
pub mod scope;
pub mod sink;
pub mod start;
pub mod topic;
pub mod txn;

/// Runs until it stops by itself, or SIGINT or SIGTERM asks for it.
fn until_stopped(running: Running) -> Result<()> {
    let interrupt = Interrupt::install()?;
    while !running.has_ended() && !interrupt.asked() {
        std::thread::sleep(Duration::from_millis(50));
    }
    running.ask_to_stop();
    Ok(running.join()?)
}
