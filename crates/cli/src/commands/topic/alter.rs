//! `oncelog topic alter`: more partitions, and configuration. Partitions cannot become fewer.

use anyhow::Result;
use clap::Args as ClapArgs;
use oncelog_wire::messages::CreatePartitionsRequest;
use oncelog_wire::messages::create_partitions_request::CreatePartitionsTopic;

use crate::admin::configs::{self, Resource};
use crate::admin::{Cluster, refusal};
use crate::commands::config::Changes;
use crate::failure::Failure;
use crate::options::Options;
use crate::results::Results;

/// Change topics: number of partitions, configuration
#[derive(ClapArgs, Debug)]
pub struct Args {
    /// Topics to change
    #[arg(required = true)]
    topic: Vec<String>,

    /// The names are regular expressions
    #[arg(short, long)]
    regex: bool,

    /// The new number of partitions, more than there are. Keys move to other partitions
    #[arg(short, long, value_parser = clap::value_parser!(i32).range(1..))]
    partitions: Option<i32>,

    #[command(flatten)]
    changes: Changes,

    /// Only check whether it could be done
    #[arg(long)]
    dry_run: bool,
}

pub fn run(options: &Options, args: &Args) -> Result<()> {
    let changes = args.changes.to_vec();
    if args.partitions.is_none() && changes.is_empty() {
        return Err(Failure::usage("nothing to change is given")
            .next("use -p, --set KEY=VALUE, --delete KEY")
            .into());
    }
    let mut cluster = Cluster::connect(options)?;
    let names = super::names(&mut cluster, &args.topic, args.regex)?;
    let done = if args.dry_run {
        "could change"
    } else {
        "changed"
    };
    let mut results = Results::default();
    for name in names {
        let outcome = alter(&mut cluster, args, &changes, &name);
        results.push(
            name.clone(),
            outcome.map(|()| format!("{done} topic {name}")),
        );
    }
    results.finish(options)
}

fn alter(
    cluster: &mut Cluster<'_>,
    args: &Args,
    changes: &[configs::Change],
    name: &str,
) -> Result<(), Failure> {
    if !changes.is_empty() {
        configs::alter(
            cluster,
            &Resource::Topic(name.into()),
            changes,
            args.dry_run,
        )?;
    }
    let Some(count) = args.partitions else {
        return Ok(());
    };
    let timeout = cluster.options().request_timeout();
    let request = CreatePartitionsRequest {
        topics: vec![CreatePartitionsTopic {
            name: name.into(),
            count,
            assignments: None,
            ..CreatePartitionsTopic::default()
        }],
        timeout_ms: i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX),
        validate_only: args.dry_run,
        ..CreatePartitionsRequest::default()
    };
    let what = format!("cannot change the number of partitions of topic {name}");
    match cluster.controller(&request)?.results.first() {
        None => Err(Failure::refused(what).why("the answer is empty")),
        Some(result) if result.error_code == 0 => Ok(()),
        Some(result) => Err(refusal(
            what,
            result.error_code,
            result.error_message.as_deref(),
        )),
    }
}
