//! `cargo xtask test`: the whole test run, section by section. This is what CI runs.
//!
//! Every section runs, whatever failed before it, so that one run says everything; sections that
//! need something that cannot be had here are skipped with the reason. A section that uses the
//! binary and cannot have it fails. Last comes a table and the sum of all checks.

mod sections;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use crate::oncelog::Oncelog;
use crate::tally::Tally;
use crate::toolbox::Missing;
use sections::SECTIONS;
pub use sections::cargo_test;

#[derive(clap::Args)]
pub struct Args {
    /// Only this section; may be repeated.
    #[arg(long, value_name = "SECTION")]
    only: Vec<String>,
    /// Only say what the sections are.
    #[arg(long)]
    list: bool,
    /// Test the broker at this address instead of starting `oncelog`.
    #[arg(long, value_name = "ADDRESS")]
    bootstrap: Option<String>,
}

/// One part of the run.
struct Section {
    name: &'static str,
    about: &'static str,
    run: fn(&mut World) -> Result<Tally>,
}

/// What sections hand on to later ones: the broker that they share, and its data once stopped.
struct World {
    external: Option<String>,
    broker: Option<Oncelog>,
    data: Option<PathBuf>,
}

impl World {
    /// The address of the broker under test, started if it is not running.
    fn bootstrap(&mut self) -> Result<String> {
        if let Some(external) = &self.external {
            return Ok(external.clone());
        }
        if self.broker.is_none() {
            let binary = crate::cargo::release_binary("oncelog")?;
            let home = crate::toolbox::conformance_dir().join("oncelog");
            self.broker = Some(Oncelog::start(&binary, &home)?);
        }
        let broker = self.broker.as_ref().map(Oncelog::bootstrap);
        broker.ok_or_else(|| anyhow::anyhow!("the broker was started above"))
    }
}

struct Done {
    section: &'static Section,
    tally: Tally,
    took: Duration,
}

pub fn run(args: &Args) -> Result<()> {
    if args.list {
        for section in SECTIONS {
            println!("{:<18} {}", section.name, section.about);
        }
        return Ok(());
    }
    let known: BTreeSet<&str> = SECTIONS.iter().map(|section| section.name).collect();
    for name in &args.only {
        ensure!(
            known.contains(name.as_str()),
            "no section `{name}`; --list names them"
        );
    }
    let mut world = World {
        external: args.bootstrap.clone(),
        broker: None,
        data: None,
    };
    let mut done = Vec::new();
    for section in SECTIONS {
        if args.only.is_empty() || args.only.iter().any(|only| only == section.name) {
            done.push(run_one(section, &mut world));
        }
    }
    let sum = report(&done);
    drop(world); // stops its broker, which an exit would leave running
    if sum.failed > 0 {
        // The table has said it all; an error's text here would be the last line instead of it.
        std::process::exit(1);
    }
    if sum.passed == 0 {
        bail!("nothing was tested");
    }
    Ok(())
}

fn run_one(section: &'static Section, world: &mut World) -> Done {
    println!("\n=== {}: {}", section.name, section.about);
    let started = Instant::now();
    let tally = (section.run)(world).unwrap_or_else(|error| {
        println!("{error:#}");
        // A person may do without Java; continuous integration must not, or nobody would notice.
        let in_ci = std::env::var_os("CI").is_some();
        if !in_ci && let Some(missing) = error.downcast_ref::<Missing>() {
            return Tally::skip(section.name, &missing.to_string());
        }
        let mut tally = Tally::default();
        let why = format!("{error:#}");
        tally.fail(section.name, why.lines().next().unwrap_or_default());
        tally
    });
    let took = started.elapsed();
    println!(
        "--- {}: {} ({:.0} s)",
        section.name,
        tally.line(),
        took.as_secs_f32()
    );
    Done {
        section,
        tally,
        took,
    }
}

fn report(done: &[Done]) -> Tally {
    let mut sum = Tally::default();
    println!(
        "\n{:<18} {:>7} {:>7} {:>7} {:>7}",
        "section", "passed", "failed", "skipped", "seconds"
    );
    for Done {
        section,
        tally,
        took,
    } in done
    {
        println!(
            "{:<18} {:>7} {:>7} {:>7} {:>7.0}",
            section.name,
            tally.passed,
            tally.failed,
            tally.skipped,
            took.as_secs_f32()
        );
        sum += tally.clone();
    }
    let named = |kind: &str, of: fn(&Tally) -> &Vec<String>| {
        for Done { section, tally, .. } in done {
            for what in of(tally) {
                println!("{kind} {}: {what}", section.name);
            }
        }
    };
    println!();
    named("skipped", |tally| &tally.skips);
    named("FAILED", |tally| &tally.failures);
    println!("{}", sum.line());
    sum
}
