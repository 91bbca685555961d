//! `oncelog config describe`

use std::io;

use anyhow::Result;
use clap::Args as ClapArgs;
use serde_json::{Value, json};

use crate::admin::Cluster;
use crate::admin::configs::{self, is_default, source_name};
use crate::options::Options;
use crate::output::{self, Table, or_dash};

use super::Entity;

/// Show configuration that differs from Kafka's defaults
#[derive(ClapArgs, Debug)]
pub struct Args {
    #[command(flatten)]
    entity: Entity,

    /// Show the defaults too
    #[arg(short, long)]
    all: bool,
}

pub fn run(options: &Options, args: &Args) -> Result<()> {
    let resource = args.entity.resource()?;
    let mut cluster = Cluster::connect(options)?;
    let mut entries = configs::describe(&mut cluster, &[resource])?.remove(0);
    entries.retain(|config| args.all || !is_default(config));
    if options.json() {
        let entries: Vec<Value> = entries
            .iter()
            .map(|config| {
                json!({"name": config.name, "value": config.value,
                       "source": source_name(config.config_source),
                       "read_only": config.read_only, "sensitive": config.is_sensitive})
            })
            .collect();
        return Ok(output::print_json(&Value::Array(entries))?);
    }
    let mut table = Table::new(&["KEY", "VALUE", "SOURCE"]);
    for config in entries {
        // The broker never sends a sensitive value; an empty one is something else.
        let value = if config.is_sensitive {
            Some("(hidden)".into())
        } else {
            config.value
        };
        table.row([
            config.name,
            or_dash(value),
            source_name(config.config_source).into(),
        ]);
    }
    Ok(table.print(&mut io::stdout().lock())?)
}
