//! `oncelog outbox`: what an outbox needs in its database, and whether it is there.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args as ClapArgs, Subcommand};
use oncelog_pipeline::database::without_password;
use oncelog_relay::config::Config;
use oncelog_relay::launch;

use crate::failure::Failure;
use crate::options::Options;
use crate::output::findings;
use crate::pipeline::Pipeline;

/// Make an outbox in a database, and check whether a relay can read it
#[derive(ClapArgs, Debug)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// Print the statements that make an outbox; with --apply, run them
    Init(Init),
    /// Look whether a relay can run, say how it would read, and name each fault with its fix
    Check(Which),
}

#[derive(ClapArgs, Debug)]
struct Which {
    /// The database: postgresql://…, mysql://…, mariadb://… or sqlite:PATH
    #[arg(long, value_name = "URL", required_unless_present = "config")]
    db: Option<String>,

    /// The outbox's table, with --db
    #[arg(long, requires = "db")]
    table: Option<String>,

    /// A pipeline's file, instead of --db
    #[arg(long, value_name = "FILE", conflicts_with = "db")]
    config: Option<PathBuf>,

    /// Which [[relay]] of the file, by its name; the only one if there is one
    #[arg(conflicts_with = "db")]
    name: Option<String>,
}

#[derive(ClapArgs, Debug)]
struct Init {
    #[command(flatten)]
    which: Which,

    /// Run the statements in the database
    #[arg(long)]
    apply: bool,
}

impl Which {
    fn config(&self) -> Result<Config, Failure> {
        if let Some(path) = &self.config {
            return Pipeline::read(path)?.relay(self.name.as_deref()).cloned();
        }
        let mut fields = serde_json::json!({ "name": "outbox", "database": self.db });
        if let Some(table) = &self.table {
            fields["table"] = table.as_str().into();
        }
        serde_json::from_value(fields)
            .map_err(|error| Failure::usage("no such outbox").why(error.to_string()))
    }
}

pub fn run(options: &Options, args: &Args) -> Result<()> {
    match &args.verb {
        Verb::Init(args) => init(args),
        Verb::Check(which) => check(options, which),
    }
}

fn init(args: &Init) -> Result<()> {
    let config = args.which.config()?;
    let refused = |why: String| Failure::refused("the outbox cannot be made").why(why);
    for statement in launch::ddl(&config).map_err(refused)? {
        println!("{statement};");
    }
    if args.apply {
        launch::apply(&config).map_err(refused)?;
        println!("-- applied to {}", without_password(&config.database));
    }
    Ok(())
}

fn check(options: &Options, which: &Which) -> Result<()> {
    let config = which.config()?;
    let refused = |why: String| Failure::usage("the relay cannot be checked").why(why);
    let found = launch::check(&config).map_err(refused)?;
    if !options.json() {
        match launch::source(&config) {
            Ok(chosen) => println!("reads by: {}", chosen.how),
            Err(why) => println!("reads by: nothing, yet: {why}"),
        }
    }
    findings(options, &found)
}
