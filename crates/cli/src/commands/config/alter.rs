//! `oncelog config alter`

use anyhow::Result;
use clap::Args as ClapArgs;

use crate::admin::{Cluster, configs};
use crate::failure::Failure;
use crate::options::Options;
use crate::results::Results;

use super::{Changes, Entity};

/// Change single keys; all others stay as they are
#[derive(ClapArgs, Debug)]
pub struct Args {
    #[command(flatten)]
    entity: Entity,

    #[command(flatten)]
    changes: Changes,

    /// Only check whether it could be done
    #[arg(long)]
    dry_run: bool,
}

pub fn run(options: &Options, args: &Args) -> Result<()> {
    let resource = args.entity.resource()?;
    let changes = args.changes.to_vec();
    if changes.is_empty() {
        return Err(Failure::usage("nothing to change is given")
            .next("use --set KEY=VALUE or --delete KEY")
            .into());
    }
    let mut cluster = Cluster::connect(options)?;
    configs::alter(&mut cluster, &resource, &changes, args.dry_run)?;
    let done = if args.dry_run {
        "could change"
    } else {
        "changed"
    };
    let mut results = Results::default();
    results.push(
        args.entity.name.clone(),
        Ok(format!("{done} the configuration of {resource}")),
    );
    results.finish(options)
}
