//! `oncelog cluster`: info, health.

mod health;
mod info;

use anyhow::Result;
use clap::{Args as ClapArgs, Subcommand};

use crate::options::Options;

/// Show the cluster's brokers and whether it is healthy
#[derive(ClapArgs, Debug)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    Info(info::Args),
    Health(health::Args),
}

pub fn run(options: &Options, args: &Args) -> Result<()> {
    match &args.verb {
        Verb::Info(args) => info::run(options, args),
        Verb::Health(args) => health::run(options, args),
    }
}
