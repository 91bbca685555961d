//! `cargo xtask crash`: the crash campaign, with everything that it needs.
//!
//! The campaign is a program of its own (conformance/crash). Here it gets the built binary, the
//! tools that make and break file systems, and namespaces for its mounts and processes: when it is
//! gone, however it went, so are they. Without root it runs all the same, and skips the parts that
//! mount.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Result;

use crate::tally::Tally;
use crate::toolbox::{self, Program};
use crate::{cargo, process};

const LIMIT: Duration = Duration::from_secs(12 * 3600);

const TOOLS: [Program; 4] = [
    Program {
        name: "mkfs.ext4",
        packages: &["e2fsprogs"],
    },
    Program {
        name: "mkfs.xfs",
        packages: &["xfsprogs"],
    },
    Program {
        name: "xfs_io",
        packages: &["xfsprogs"],
    },
    Program {
        name: "faketime",
        packages: &["faketime"],
    },
];

#[derive(clap::Args, Default)]
pub struct Args {
    /// Only this kind of fault; may be repeated.
    #[arg(long, value_name = "PART")]
    only: Vec<String>,
    /// Rounds of each part; without it, a few, for about a minute and a half in all.
    #[arg(long)]
    rounds: Option<u32>,
    /// The long run: hundreds of rounds where they are quick, dozens where they are not.
    #[arg(long, conflicts_with = "rounds")]
    long: bool,
    /// Repeat the choices of a run that printed this seed.
    #[arg(long)]
    seed: Option<u64>,
    /// Only say what the parts are, with their rounds in a short and a long run.
    #[arg(long)]
    list: bool,
}

pub fn run(args: &Args) -> Result<()> {
    let tally = campaign(args)?;
    if tally.failed > 0 {
        std::process::exit(1);
    }
    Ok(())
}

/// The short run, as a section of `cargo xtask test`.
pub fn short() -> Result<Tally> {
    campaign(&Args::default())
}

fn campaign(args: &Args) -> Result<Tally> {
    let binary = cargo::release_binary("oncelog")?;
    let mut command = contained(cargo::release_binary("crash-campaign")?)?;
    command.arg("--binary").arg(binary);
    command
        .arg("--work")
        .arg(crate::root().join("target/crash"));
    for part in &args.only {
        command.args(["--only", part]);
    }
    if let Some(rounds) = args.rounds {
        command.args(["--rounds", &rounds.to_string()]);
    }
    if let Some(seed) = args.seed {
        command.args(["--seed", &seed.to_string()]);
    }
    for (wanted, flag) in [(args.long, "--long"), (args.list, "--list")] {
        if wanted {
            command.arg(flag);
        }
    }
    let mut tally = Tally::default();
    let well = process::run_lines(&mut command, LIMIT, |line| {
        println!("{line}");
        tally.count_check(line);
    })?;
    if !well && tally.failed == 0 {
        tally.fail("crash", "the campaign ended with an error");
    }
    Ok(tally)
}

/// The program in namespaces of its own, if that is allowed here.
fn contained(program: PathBuf) -> Result<Command> {
    // The first dies with this process, the second takes what it started along.
    let shell = ["--pdeathsig", "KILL", "unshare"];
    let namespaces = ["--mount", "--pid", "--fork", "--kill-child"];
    let within = || {
        let mut command = Command::new("setpriv");
        command.args(shell).args(namespaces);
        command
    };
    let mut probe = within();
    probe.arg("true").stderr(Stdio::null());
    if !probe.status().is_ok_and(|status| status.success()) {
        println!("no namespaces may be made here: what needs mounts will be skipped");
        return Ok(Command::new(program));
    }
    for tool in &TOOLS {
        match toolbox::need(&[tool]) {
            // The campaign skips what it cannot have and says so; CI must have everything.
            Err(why) if std::env::var_os("CI").is_none() => println!("{}: {why:#}", tool.name),
            installed => installed?,
        }
    }
    let mut command = within();
    command.arg(program);
    Ok(command)
}
