//! `cargo xtask <command>`: the project's own automation, one file per command.

mod codegen;

use clap::Parser;

#[derive(Parser)]
enum Command {
    /// Generate crates/wire/src/messages from Kafka's schemas.
    Codegen(codegen::Args),
}

fn main() -> anyhow::Result<()> {
    match Command::parse() {
        Command::Codegen(args) => codegen::run(&args),
    }
}
