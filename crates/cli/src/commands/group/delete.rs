//! `oncelog group delete`

use std::collections::BTreeMap;

use anyhow::Result;
use clap::Args as ClapArgs;
use oncelog_wire::messages::DeleteGroupsRequest;

use crate::admin::{Cluster, groups, refusal};
use crate::options::Options;
use crate::results::Results;

/// Delete groups that have no members, with all their offsets
#[derive(ClapArgs, Debug)]
pub struct Args {
    /// Groups to delete
    #[arg(required = true)]
    group: Vec<String>,
}

pub fn run(options: &Options, args: &Args) -> Result<()> {
    let mut cluster = Cluster::connect(options)?;
    let mut by_coordinator: BTreeMap<i32, Vec<String>> = BTreeMap::new();
    for group in &args.group {
        let coordinator = groups::coordinator(&mut cluster, group)?;
        by_coordinator
            .entry(coordinator)
            .or_default()
            .push(group.clone());
    }
    let mut results = Results::default();
    for (coordinator, groups_names) in by_coordinator {
        let request = DeleteGroupsRequest {
            groups_names,
            ..DeleteGroupsRequest::default()
        };
        for result in cluster.on(coordinator, &request)?.results {
            let group = result.group_id;
            let outcome = match result.error_code {
                0 => Ok(format!("deleted group {group}")),
                code => Err(refusal(format!("cannot delete group {group}"), code, None)),
            };
            results.push(group, outcome);
        }
    }
    results.finish(options)
}
