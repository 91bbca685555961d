//! `oncelog start`: the broker itself, which is all of `oncelog_server::run`; and the relays and sinks
//! of a pipeline's file beside it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Result;
use clap::Args as ClapArgs;
use oncelog_server::{RunningServer, StartArgs, StopBeside};

use crate::failure::Failure;
use crate::pipeline::figures::snapshot;
use crate::pipeline::running::Running;
use crate::pipeline::{OWN_KEYS, Pipeline};

/// Start a broker: on 9092, HTTP on 9644, data in ./oncelog-data, nothing to configure first
#[derive(ClapArgs, Debug)]
pub struct Args {
    /// A TOML file with Kafka's keys (and a pipeline's relays and sinks), or a Kafka server.properties
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Where the data lives; short for `--set log.dirs=DIR`
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,

    /// Any configuration key; may be repeated. Stronger than KAFKA_* variables and the file
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_setting)]
    set: Vec<(String, String)>,
}

fn parse_setting(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected KEY=VALUE".to_owned()),
    }
}

pub fn run(args: &Args) -> Result<()> {
    let pipeline = match &args.config {
        Some(path)
            if path
                .extension()
                .is_some_and(|extension| extension == "toml") =>
        {
            Pipeline::read(path)?
        }
        _ => Pipeline::default(),
    };
    let args = StartArgs {
        config: args.config.clone(),
        data_dir: args.data_dir.clone(),
        set: args.set.clone(),
        others: OWN_KEYS.to_vec(),
    };
    let beside = |server: &RunningServer| start_pipeline(pipeline, server);
    // The server's errors already say what, why and what next.
    oncelog_server::run_beside(args, beside)
        .map_err(|error| Failure::refused(error.to_string()).into())
}

/// Relays and sinks, on the broker of this process unless the file names others. One that stops by
/// itself says why, and leaves the others running.
fn start_pipeline(pipeline: Pipeline, server: &RunningServer) -> StopBeside {
    let embedded = server.bootstrap_servers();
    let bootstrap = pipeline.bootstrap.as_deref().unwrap_or(&embedded);
    let relays = pipeline.relays.into_iter();
    let mut running: Vec<Running> = relays
        .map(|config| Running::relay(config, bootstrap.to_owned()))
        .collect();
    let sinks = pipeline.sinks.into_iter();
    running.extend(sinks.map(|config| Running::sink(config, bootstrap.to_owned())));
    for one in &running {
        println!("  running      {}", one.name);
    }
    let shown: Vec<_> = running.iter().map(Running::shown).collect();
    server.show_pipeline(Arc::new(move || snapshot(&shown)));
    let stop = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&stop);
    let watch = std::thread::spawn(move || {
        while !asked.load(Ordering::Relaxed) {
            let (ended, others) = running.into_iter().partition(Running::has_ended);
            running = others;
            report_ended(ended);
            std::thread::sleep(Duration::from_millis(100));
        }
        running.iter().for_each(Running::ask_to_stop);
        report_ended(running);
    });
    Box::new(move || {
        stop.store(true, Ordering::Relaxed);
        let _ = watch.join();
    })
}

fn report_ended(ended: Vec<Running>) {
    for one in ended {
        if let Err(failure) = one.join() {
            tracing::error!("{failure}");
        }
    }
}
