//! `oncelog sink`: one sink of a pipeline, as a process; what its database needs, and whether it is
//! there.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Result;
use clap::{Args as ClapArgs, Subcommand};
use oncelog_pipeline::database::without_password;
use oncelog_sink::setup;

use crate::failure::Failure;
use crate::options::Options;
use crate::output::findings;
use crate::pipeline::Pipeline;
use crate::pipeline::running::Running;

/// Run one sink of a pipeline (topics to tables); `init` and `check` prepare its database
#[derive(ClapArgs, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    which: Option<Which>,

    /// Serve /metrics and /readyz here
    #[arg(long, value_name = "IP:PORT")]
    http: Option<SocketAddr>,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// Print the statements that make the tables a sink needs; with --apply, run them
    Init(Init),
    /// Look whether a sink can run, and name each fault with its fix
    Check(Which),
}

#[derive(ClapArgs, Debug)]
struct Which {
    /// The pipeline's file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,

    /// Which [[sink]] of it, by its name; the only one if there is one
    name: Option<String>,
}

#[derive(ClapArgs, Debug)]
struct Init {
    #[command(flatten)]
    which: Which,

    /// The target's own table, too, with a column of text for each that is mapped
    #[arg(long)]
    table: bool,

    /// Run the statements in the database
    #[arg(long)]
    apply: bool,
}

pub fn run(options: &Options, args: &Args) -> Result<()> {
    match (&args.verb, &args.which) {
        (Some(Verb::Init(args)), _) => init(args),
        (Some(Verb::Check(which)), _) => check(options, which),
        (None, Some(which)) => {
            let (config, bootstrap) = find(options, which)?;
            super::until_stopped(Running::sink(config, bootstrap), args.http)
        }
        (None, None) => Err(Failure::usage("which sink?")
            .next("oncelog sink --config pipeline.toml [NAME]")
            .into()),
    }
}

fn find(
    options: &Options,
    which: &Which,
) -> Result<(oncelog_sink::config::Config, String), Failure> {
    let pipeline = Pipeline::read(&which.config)?;
    let config = pipeline.sink(which.name.as_deref())?.clone();
    Ok((config, options.bootstrap_or(pipeline.bootstrap.as_deref())))
}

fn init(args: &Init) -> Result<()> {
    let pipeline = Pipeline::read(&args.which.config)?;
    let config = pipeline.sink(args.which.name.as_deref())?;
    let refused = |why: String| Failure::refused("the sink's tables cannot be made").why(why);
    let mut statements = setup::ddl(config).map_err(refused)?;
    if args.table {
        statements.insert(0, setup::table_ddl(config).map_err(refused)?);
    }
    for statement in &statements {
        println!("{statement};");
    }
    if args.apply {
        setup::execute(config, &statements).map_err(refused)?;
        println!("-- applied to {}", without_password(&config.database));
    }
    Ok(())
}

fn check(options: &Options, which: &Which) -> Result<()> {
    let pipeline = Pipeline::read(&which.config)?;
    let config = pipeline.sink(which.name.as_deref())?;
    // The embedded broker need not run yet.
    let bootstrap = options.bootstrap_given_or(pipeline.bootstrap.as_deref());
    let found = setup::check(config, bootstrap.as_deref());
    findings(options, &found)
}
