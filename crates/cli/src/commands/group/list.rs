//! `oncelog group list`

use std::io;

use anyhow::Result;
use clap::Args as ClapArgs;
use serde_json::{Value, json};

use crate::admin::{Cluster, groups};
use crate::options::Options;
use crate::output::{self, Table, or_dash};

/// List groups of every kind
#[derive(ClapArgs, Debug)]
pub struct Args {}

pub fn run(options: &Options, _: &Args) -> Result<()> {
    let groups = groups::list(&mut Cluster::connect(options)?)?;
    // Brokers before Kafka 2.6 do not send the state, before 3.7 not the type.
    let known = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    if options.json() {
        let rows: Vec<Value> = groups
            .iter()
            .map(|(coordinator, group)| {
                json!({"group": group.group_id, "type": known(&group.group_type),
                       "protocol_type": known(&group.protocol_type),
                       "state": known(&group.group_state), "coordinator": coordinator})
            })
            .collect();
        return Ok(output::print_json(&Value::Array(rows))?);
    }
    let mut table = Table::new(&["GROUP", "TYPE", "PROTOCOL", "STATE", "COORDINATOR"]);
    for (coordinator, group) in groups {
        table.row([
            group.group_id,
            or_dash(known(&group.group_type)),
            or_dash(known(&group.protocol_type)),
            or_dash(known(&group.group_state)),
            coordinator.to_string(),
        ]);
    }
    Ok(table.print(&mut io::stdout().lock())?)
}
