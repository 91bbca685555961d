//! `oncelog cluster info`

use std::collections::BTreeMap;
use std::io::{self, Write};

use anyhow::Result;
use clap::Args as ClapArgs;
use serde_json::{Value, json};

use crate::admin::Cluster;
use crate::options::Options;
use crate::output::{self, Table, or_dash};

/// Show the cluster's id, controller, brokers and finalized features
#[derive(ClapArgs, Debug)]
pub struct Args {}

pub fn run(options: &Options, _: &Args) -> Result<()> {
    let mut cluster = Cluster::connect(options)?;
    let features: BTreeMap<String, i16> = cluster
        .bootstrap()
        .finalized_features
        .iter()
        .map(|feature| (feature.name.clone(), feature.max_version_level))
        .collect();
    if options.json() {
        let brokers: Vec<Value> = cluster
            .nodes
            .iter()
            .map(|(id, node)| {
                json!({"id": id, "host": node.host, "port": node.port, "rack": node.rack})
            })
            .collect();
        return Ok(output::print_json(&json!({
            "cluster_id": cluster.cluster_id, "controller": cluster.controller,
            "brokers": brokers, "features": features,
        }))?);
    }
    let mut out = io::stdout().lock();
    writeln!(out, "Cluster: {}", or_dash(cluster.cluster_id.as_ref()))?;
    let features: Vec<String> = features
        .iter()
        .map(|(name, level)| format!("{name}={level}"))
        .collect();
    writeln!(
        out,
        "Features: {}\n",
        or_dash(Some(features.join(" ")).filter(|text| !text.is_empty()))
    )?;
    let mut table = Table::new(&["ID", "ADDRESS", "RACK", "CONTROLLER"]);
    for (id, node) in &cluster.nodes {
        let controller = if cluster.controller == Some(*id) {
            "yes"
        } else {
            "-"
        };
        table.row([
            id.to_string(),
            node.address(),
            or_dash(node.rack.as_ref()),
            controller.into(),
        ]);
    }
    Ok(table.print(&mut out)?)
}
