//! `crash-campaign`: faults of processes, disks, files and clocks under a real broker, and the
//! judge of what is left. `cargo xtask crash` builds everything and runs it where it may mount.
//!
//! Each part is one kind of fault. Whatever the fault: everything that was acknowledged is there,
//! once and in order, nothing with a bad CRC passes for a record, and the broker starts or says why
//! not. What a part needs is tried out first, and the part is skipped, with the reason, where it
//! cannot be had. Choices follow from the seed; timing is the machine's.

mod churn;
mod clock;
mod damage;
mod disk;
mod disk_full;
mod failing_sync;
mod group;
mod load;
mod power;
mod report;
mod sigkill;
mod tool;
mod transactions;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use crash_campaign::process::{Broker, say};

use disk::Format;
use report::{Outcome, Report};

/// Faults under a real broker, and the judge of what is left.
#[derive(Parser)]
struct Args {
    /// The broker: a built `oncelog`
    #[arg(long)]
    binary: PathBuf,
    /// Where data goes; what a failed part leaves stays there
    #[arg(long)]
    work: PathBuf,
    /// Only this part; may be repeated
    #[arg(long, value_name = "PART")]
    only: Vec<String>,
    /// Rounds of each part; without it, a few, for a minute and a half in all
    #[arg(long)]
    rounds: Option<u32>,
    /// Rounds for an hour: hundreds where they are quick, dozens where not
    #[arg(long, conflicts_with = "rounds")]
    long: bool,
    /// Repeats the choices of a run that printed it
    #[arg(long)]
    seed: Option<u64>,
    /// Only say what the parts are
    #[arg(long)]
    list: bool,
}

struct Part {
    name: &'static str,
    about: &'static str,
    rounds: u32,
    rounds_long: u32,
    /// What it needs, tried out in a directory of its own.
    probe: fn(&std::path::Path) -> Result<()>,
    run: fn(&Task) -> Report,
}

const PARTS: &[Part] = &[
    Part {
        name: "sigkill",
        about: "SIGKILL under load, while starting, while stopping",
        rounds: 5,
        rounds_long: 150,
        probe: |_| Ok(()),
        run: sigkill::run,
    },
    Part {
        name: "transactions",
        about: "SIGKILL of the broker and of read-process-write loops, and zombies",
        rounds: 6,
        rounds_long: 150,
        probe: |_| Ok(()),
        run: transactions::run,
    },
    Part {
        name: "power-ext4",
        about: "power cuts with the data on ext4",
        rounds: 3,
        rounds_long: 30,
        probe: |dir| disk::probe_power_cut(dir, Format::Ext4),
        run: |task| power::run(task, Format::Ext4),
    },
    Part {
        name: "power-xfs",
        about: "power cuts with the data on XFS",
        rounds: 3,
        rounds_long: 30,
        probe: |dir| disk::probe_power_cut(dir, Format::Xfs),
        run: |task| power::run(task, Format::Xfs),
    },
    Part {
        name: "disk-full",
        about: "a disk that fills up: appends, rolls, checkpoints, topics, a start",
        rounds: 5,
        rounds_long: 60,
        probe: |_| disk::may_mount(),
        run: disk_full::run,
    },
    Part {
        name: "fsync",
        about: "a device that takes writes and fails at fsync, once",
        rounds: 3,
        rounds_long: 30,
        probe: disk::probe_failing_sync,
        run: failing_sync::run,
    },
    Part {
        name: "damage",
        about: "flipped bits, cut and missing files, each kind of file",
        rounds: 20,
        rounds_long: 600,
        probe: |_| Ok(()),
        run: damage::run,
    },
    Part {
        name: "clock",
        about: "a clock that jumps by seconds to days, both ways",
        rounds: 6,
        rounds_long: 150,
        probe: clock::probe,
        run: clock::run,
    },
];

/// What a part is asked to do.
pub struct Task {
    pub name: &'static str,
    pub binary: PathBuf,
    /// A directory of its own, empty.
    pub dir: PathBuf,
    pub rounds: u32,
    pub seed: u64,
}

impl Task {
    /// A broker that is not started yet, with its data in the part's directory.
    pub fn broker(&self, settings: &[&str]) -> Broker {
        Broker::on(&self.binary, &self.dir.join("data"), &self.dir, settings)
    }

    /// What repeats `rounds` rounds from `seed`.
    pub fn replay(&self, rounds: u32, seed: u64) -> String {
        let name = self.name;
        format!("cargo xtask crash --only {name} --rounds {rounds} --seed {seed}")
    }
}

fn main() -> Result<()> {
    let args = Args::parse();
    if args.list {
        for part in PARTS {
            let (few, many) = (part.rounds, part.rounds_long);
            println!("{:<12} {:>4} {:>4}  {}", part.name, few, many, part.about);
        }
        return Ok(());
    }
    for name in &args.only {
        let known = PARTS.iter().any(|part| part.name == name);
        ensure!(known, "no part `{name}`; --list names them");
    }
    // As the first process of its namespace it would not see these signals otherwise; at its end
    // the kernel ends every broker and undoes every mount.
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        let armed = Arc::new(AtomicBool::new(true));
        signal_hook::flag::register_conditional_shutdown(signal, 130, armed)?;
    }
    let seed = args.seed.unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        now.map_or(1, |now| now.as_nanos() as u64 % 1_000_000_000)
    });
    let chosen = |part: &&Part| args.only.is_empty() || args.only.iter().any(|n| n == part.name);
    let mut outcomes = Vec::new();
    for part in PARTS.iter().filter(chosen) {
        outcomes.push((part.name, run_one(part, &args, seed)?));
    }
    if !report::summary(&outcomes) {
        std::process::exit(1);
    }
    Ok(())
}

fn run_one(part: &'static Part, args: &Args, seed: u64) -> Result<Outcome> {
    let dir = args.work.join(part.name);
    let fresh = || -> Result<()> {
        if dir.exists() {
            std::fs::remove_dir_all(&dir)?;
        }
        std::fs::create_dir_all(&dir).context(dir.display().to_string())
    };
    fresh()?;
    if let Err(why) = (part.probe)(&dir) {
        say(&format!("SKIPPED {}: {why:#}", part.name));
        return Ok(Outcome::Skipped(format!("{why:#}")));
    }
    fresh()?;
    let rounds = match args.long {
        true => part.rounds_long,
        false => args.rounds.unwrap_or(part.rounds),
    };
    let task = Task {
        name: part.name,
        binary: args.binary.clone(),
        dir: dir.clone(),
        rounds,
        seed,
    };
    say(&format!(
        "{}: {}; {rounds} rounds ({})",
        part.name,
        part.about,
        task.replay(rounds, seed)
    ));
    let began = Instant::now();
    let run = std::panic::AssertUnwindSafe(|| (part.run)(&task));
    let report = std::panic::catch_unwind(run).unwrap_or_else(|panic| {
        let words = panic.downcast_ref::<String>().cloned();
        let words = words.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        let first = words.unwrap_or_default();
        Report {
            broken: vec![first.lines().next().unwrap_or("it panicked").to_owned()],
            ..Report::default()
        }
    });
    for broken in report.broken.iter().take(10) {
        say(&format!("  BROKEN: {broken}"));
    }
    match report.failure() {
        None => std::fs::remove_dir_all(&dir)?,
        Some(_) => say(&format!(
            "  FAILED; again with: {}\n  its files are in {}",
            task.replay(rounds, seed),
            dir.display()
        )),
    }
    Ok(Outcome::Ran {
        report,
        seconds: began.elapsed().as_secs_f32(),
    })
}
