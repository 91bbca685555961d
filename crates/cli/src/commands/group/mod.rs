//! `oncelog group`: list, describe, delete, reset-offsets, delete-offsets.

mod delete;
mod delete_offsets;
mod describe;
mod list;
mod reset_offsets;

use anyhow::Result;
use clap::{Args as ClapArgs, Subcommand};

use crate::options::Options;

/// List, describe and delete consumer groups, move and delete their offsets
#[derive(ClapArgs, Debug)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    List(list::Args),
    Describe(describe::Args),
    Delete(delete::Args),
    ResetOffsets(reset_offsets::Args),
    DeleteOffsets(delete_offsets::Args),
}

pub fn run(options: &Options, args: &Args) -> Result<()> {
    match &args.verb {
        Verb::List(args) => list::run(options, args),
        Verb::Describe(args) => describe::run(options, args),
        Verb::Delete(args) => delete::run(options, args),
        Verb::ResetOffsets(args) => reset_offsets::run(options, args),
        Verb::DeleteOffsets(args) => delete_offsets::run(options, args),
    }
}
