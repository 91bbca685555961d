//! `oncelog start`: the broker itself. Everything it does is `oncelog_server::run`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args as ClapArgs;
use oncelog_server::StartArgs;

use crate::failure::Failure;

/// Start a broker: on 9092, HTTP on 9644, data in ./oncelog-data, nothing to configure first
#[derive(ClapArgs, Debug)]
pub struct Args {
    /// A TOML file with Kafka's keys, or a Kafka server.properties
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Where the data lives; short for `--set log.dirs=DIR`
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,

    /// Any configuration key; may be repeated. Stronger than KAFKA_* variables and the file
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_setting)]
    set: Vec<(String, String)>,
}

fn parse_setting(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected KEY=VALUE".to_owned()),
    }
}

pub fn run(args: &Args) -> Result<()> {
    let args = StartArgs {
        config: args.config.clone(),
        data_dir: args.data_dir.clone(),
        set: args.set.clone(),
    };
    // The server's errors already say what, why and what next.
    oncelog_server::run(args).map_err(|error| Failure::refused(error.to_string()).into())
}
