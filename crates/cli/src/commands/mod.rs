//! One file per command; a noun with several verbs is a directory with one file per verb. What
//! arguments of several commands have in common is in `scope`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;

use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::pipeline::figures::Alone;
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
fn until_stopped(running: Running, http: Option<SocketAddr>) -> Result<()> {
    let interrupt = Interrupt::install()?;
    if let Some(address) = http {
        serve_figures(address, Alone(running.shown()))?;
    }
    while !running.has_ended() && !interrupt.asked() {
        std::thread::sleep(Duration::from_millis(50));
    }
    running.ask_to_stop();
    Ok(running.join()?)
}

/// `/metrics`, `/readyz` and the like, on a thread that ends with the process.
fn serve_figures(address: SocketAddr, figures: Alone) -> Result<()> {
    let failed = |error: std::io::Error| {
        Failure::refused(format!("HTTP cannot be served at {address}")).why(error.to_string())
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(failed)?;
    let listener = runtime
        .block_on(tokio::net::TcpListener::bind(address))
        .map_err(failed)?;
    tracing::info!("figures at http://{address}/metrics");
    std::thread::spawn(move || {
        runtime.block_on(oncelog_console::serve(listener, Arc::new(figures)));
    });
    Ok(())
}
