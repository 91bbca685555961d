//! `oncelog relay`: one relay of a pipeline, as a process.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Result;
use clap::Args as ClapArgs;

use crate::options::Options;
use crate::pipeline::Pipeline;
use crate::pipeline::running::Running;

/// Run one outbox relay of a pipeline: committed rows of a database to topics
#[derive(ClapArgs, Debug)]
pub struct Args {
    /// The pipeline's file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,

    /// Which [[relay]] of it, by its name; the only one if there is one
    name: Option<String>,

    /// Which shard of it this instance runs; stronger than the file's
    #[arg(long)]
    shard: Option<u32>,

    /// Serve /metrics and /readyz here
    #[arg(long, value_name = "IP:PORT")]
    http: Option<SocketAddr>,
}

pub fn run(options: &Options, args: &Args) -> Result<()> {
    let pipeline = Pipeline::read(&args.config)?;
    let mut config = pipeline.relay(args.name.as_deref())?.clone();
    config.shard = args.shard.unwrap_or(config.shard);
    let bootstrap = options.bootstrap_or(pipeline.bootstrap.as_deref());
    super::until_stopped(Running::relay(config, bootstrap), args.http)
}
