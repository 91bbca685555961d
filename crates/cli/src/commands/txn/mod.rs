//! `oncelog txn`: list, describe, explain, describe-producers, find-hanging, abort.

mod abort;
mod age;
mod describe;
mod describe_producers;
mod explain;
mod find_hanging;
mod list;

use anyhow::Result;
use clap::{Args as ClapArgs, Subcommand};

use crate::options::Options;

/// List, describe and explain transactions, find those that hang and end them
#[derive(ClapArgs, Debug)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    List(list::Args),
    Describe(describe::Args),
    Explain(explain::Args),
    DescribeProducers(describe_producers::Args),
    FindHanging(find_hanging::Args),
    Abort(abort::Args),
}

pub fn run(options: &Options, args: &Args) -> Result<()> {
    match &args.verb {
        Verb::List(args) => list::run(options, args),
        Verb::Describe(args) => describe::run(options, args),
        Verb::Explain(args) => explain::run(options, args),
        Verb::DescribeProducers(args) => describe_producers::run(options, args),
        Verb::FindHanging(args) => find_hanging::run(options, args),
        Verb::Abort(args) => abort::run(options, args),
    }
}
