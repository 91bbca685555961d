//! `oncelog completions`: a script that teaches a shell the commands and options.

use std::io::{self, Write};

use anyhow::Result;
use clap::{Args as ClapArgs, CommandFactory};
use clap_complete::Shell;

/// Print a completion script for a shell
///
/// bash: oncelog completions bash > ~/.local/share/bash-completion/completions/oncelog
/// zsh:  oncelog completions zsh > "${fpath[1]}/_oncelog"
/// fish: oncelog completions fish > ~/.config/fish/completions/oncelog.fish
#[derive(ClapArgs, Debug)]
#[command(verbatim_doc_comment)]
pub struct Args {
    shell: Shell,
}

/// `C` is the whole command line, which only `main` knows.
pub fn run<C: CommandFactory>(args: &Args) -> Result<()> {
    // Into memory first: the generator would panic on a closed pipe.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut C::command(), "oncelog", &mut script);
    io::stdout().lock().write_all(&script)?;
    Ok(())
}
