//! `cargo xtask fuzz`: runs the targets of fuzz/ with cargo-fuzz and libFuzzer, and says how far
//! they got.
//!
//! cargo-fuzz builds them with the stable toolchain: coverage instrumentation needs no nightly. A
//! sanitizer does (`--sanitizer address` asks the compiler for it all the same, and finds what
//! unsafe code and C in the dependencies do). Everything lies in target/: cargo-fuzz in tools/, and
//! in fuzz/TARGET/ the seeds (written by the target itself), the corpus (kept from run to run), what
//! libFuzzer said last, and inputs that failed.

mod outcome;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::tally::Tally;
use crate::{cargo, process, toolbox};
use outcome::Outcome;

/// Pinned; what it builds with is in fuzz/Cargo.lock.
const CARGO_FUZZ: &str = "0.13.2";

const BUILD_LIMIT: Duration = Duration::from_secs(40 * 60);
/// On top of the time that a run was given: starting, the seeds, the last input.
const GRACE: Duration = Duration::from_secs(120);
const MINIMISE_SECONDS: u64 = 60;

/// An input that takes longer is a finding: a client could send it.
const INPUT_SECONDS_MAX: u32 = 20;
/// A process that holds more is a finding.
const RSS_MB_MAX: u32 = 2048;

struct Target {
    name: &'static str,
    about: &'static str,
    input_bytes_max: u32,
    /// How long it runs in `cargo xtask test`.
    test_seconds: u64,
    /// How many inputs `cargo xtask test` gives it at most.
    test_runs: u64,
    /// In fuzz/.
    dictionary: Option<&'static str>,
}

const TARGETS: &[Target] = &[
    Target {
        name: "wire",
        about: "frames, headers and messages of every API and version",
        input_bytes_max: 4096,
        test_seconds: 40,
        test_runs: 500_000,
        dictionary: None,
    },
    Target {
        name: "batches",
        about: "record batches, their codecs, and bombs",
        input_bytes_max: 8192,
        test_seconds: 40,
        test_runs: 80_000,
        dictionary: None,
    },
    Target {
        name: "recovery",
        about: "partitions opened from damaged files",
        input_bytes_max: 256,
        test_seconds: 50,
        test_runs: 5_000,
        dictionary: None,
    },
    Target {
        name: "apis",
        about: "sequences of requests against a model of the broker",
        input_bytes_max: 512,
        test_seconds: 50,
        test_runs: 2_000,
        dictionary: None,
    },
    Target {
        name: "config",
        about: "configuration files and variables",
        input_bytes_max: 1024,
        test_seconds: 15,
        test_runs: 6_000,
        dictionary: Some("config.dict"),
    },
    Target {
        name: "pgoutput",
        about: "messages of PostgreSQL's logical replication",
        input_bytes_max: 1024,
        test_seconds: 15,
        test_runs: 500_000,
        dictionary: None,
    },
];

#[derive(Clone, Copy, PartialEq, clap::ValueEnum)]
enum Sanitizer {
    /// Fast, and all that this project's own code needs: it has no unsafe
    None,
    /// Bad memory accesses in dependencies too; half as fast
    Address,
}

#[derive(clap::Args)]
pub struct Args {
    /// Which targets; all of them without it
    targets: Vec<String>,
    /// How long each target runs
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// How many targets run at the same time
    #[arg(long, default_value_t = 1)]
    jobs: usize,
    /// Run this one input through the target instead, and show what happens
    #[arg(long, value_name = "INPUT")]
    replay: Option<PathBuf>,
    #[arg(long, value_enum, default_value = "none")]
    sanitizer: Sanitizer,
    /// Only say what the targets are
    #[arg(long)]
    list: bool,
}

pub fn run(args: &Args) -> Result<()> {
    if args.list {
        for target in TARGETS {
            println!("{:<10} {}", target.name, target.about);
        }
        return Ok(());
    }
    let targets = chosen(&args.targets)?;
    if let Some(input) = &args.replay {
        let [target] = targets[..] else {
            bail!("--replay needs the one target that the input is for");
        };
        return replay(target, input, args.sanitizer);
    }
    let runs = targets.iter().map(|target| Run {
        target,
        seconds: args.seconds,
        limits: Vec::new(),
    });
    let tally = fuzz(runs.collect(), args.jobs, args.sanitizer)?;
    ensure!(tally.failed == 0, "{} targets failed", tally.failed);
    Ok(())
}

/// What `cargo xtask test` runs: every target for less than a minute. From a fixed seed and for a
/// number of inputs, so that a fresh clone does the same everywhere; finding more is what the
/// command is for.
pub fn short() -> Result<Tally> {
    let runs = TARGETS.iter().map(|target| Run {
        target,
        seconds: target.test_seconds,
        limits: vec![format!("-runs={}", target.test_runs), "-seed=1".to_owned()],
    });
    fuzz(runs.collect(), 2, Sanitizer::None)
}

/// One target's time, and what else libFuzzer is told of its length.
#[derive(Clone)]
struct Run {
    target: &'static Target,
    seconds: u64,
    limits: Vec<String>,
}

fn chosen(names: &[String]) -> Result<Vec<&'static Target>> {
    if names.is_empty() {
        return Ok(TARGETS.iter().collect());
    }
    let find = |name: &String| {
        let mut targets = TARGETS.iter();
        let found = targets.find(|target| target.name == name);
        found.with_context(|| format!("no target `{name}`; --list names them"))
    };
    names.iter().map(find).collect()
}

/// Runs each target for its time, up to `jobs` at once; the table of what came of it.
fn fuzz(runs: Vec<Run>, jobs: usize, sanitizer: Sanitizer) -> Result<Tally> {
    let binaries = build(sanitizer)?;
    let waiting = Mutex::new(runs.iter().cloned());
    let done = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        let work = || {
            // The lock is let go before the run begins.
            while let Some(run) = next(&waiting) {
                let target = run.target;
                println!("{}: {} s", target.name, run.seconds);
                let outcome = fuzz_one(&binaries, &run);
                let mut done = done.lock().expect("no run panics with the lock");
                done.push((target, outcome));
            }
        };
        for _ in 0..jobs.clamp(1, runs.len().max(1)) {
            scope.spawn(work);
        }
    });
    let done = done.into_inner().expect("no run panics with the lock");
    let mut tally = Tally::default();
    println!("{}", Outcome::HEAD);
    for (target, outcome) in done {
        let outcome = outcome.with_context(|| target.name)?;
        println!("{}", outcome.line(target.name));
        match outcome.failure(target.name) {
            None => tally.passed += 1,
            Some(failure) => {
                println!("{failure}");
                tally.fail(target.name, &failure);
            }
        }
    }
    Ok(tally)
}

fn next<T>(waiting: &Mutex<impl Iterator<Item = T>>) -> Option<T> {
    waiting.lock().expect("no run panics with the lock").next()
}

fn fuzz_one(binaries: &Path, run: &Run) -> Result<Outcome> {
    let Run {
        target, seconds, ..
    } = run;
    let binary = binaries.join(target.name);
    let dir = crate::root().join("target/fuzz").join(target.name);
    let [seeds, corpus, failed] = ["seeds", "corpus", "failed"].map(|name| dir.join(name));
    if seeds.exists() {
        std::fs::remove_dir_all(&seeds)?;
    }
    for dir in [&corpus, &failed] {
        std::fs::create_dir_all(dir)?;
    }
    let mut write_seeds = Command::new(&binary);
    write_seeds.env("ONCELOG_FUZZ_SEEDS", &seeds);
    write_seeds.stderr(Stdio::null()); // which sanitizers libFuzzer does not find
    process::run(&mut write_seeds, GRACE)?;

    let mut fuzz = Command::new(&binary);
    fuzz.arg(&corpus).arg(&seeds);
    fuzz.arg(format!("-artifact_prefix={}/", failed.display()));
    fuzz.arg(format!("-max_total_time={seconds}"));
    fuzz.arg(format!("-max_len={}", target.input_bytes_max));
    fuzz.arg(format!("-timeout={INPUT_SECONDS_MAX}"));
    fuzz.arg(format!("-rss_limit_mb={RSS_MB_MAX}"));
    fuzz.args(["-print_final_stats=1", "-report_slow_units=5"]);
    fuzz.args(&run.limits);
    if let Some(dictionary) = target.dictionary {
        let file = crate::root().join("fuzz").join(dictionary);
        fuzz.arg(format!("-dict={}", file.display()));
    }
    let said = dir.join("said");
    // To find the names for a backtrace takes longer than an input may; --replay shows it.
    fuzz.env("RUST_BACKTRACE", "0");
    fuzz.stderr(std::fs::File::create(&said)?);
    let limit = Duration::from_secs(*seconds) + GRACE;
    let well = process::run_lines(&mut fuzz, limit, |line| println!("{line}"))?;
    let text = String::from_utf8_lossy(&std::fs::read(&said)?).into_owned();
    let mut outcome = Outcome::read(&text, well)?;
    if let Some(input) = &outcome.input {
        outcome.input = Some(minimised(&binary, input)?);
    }
    Ok(outcome)
}

/// A smaller input that fails too, if there is one; only for panics (the others take too long).
fn minimised(binary: &Path, input: &Path) -> Result<PathBuf> {
    let name = input.file_name().unwrap_or_default().to_string_lossy();
    if !name.starts_with("crash-") {
        return Ok(input.to_owned());
    }
    let smaller = input.with_file_name(format!("minimised-{name}"));
    let mut minimise = Command::new(binary);
    minimise.args(["-minimize_crash=1", "-runs=100000"]);
    minimise.arg(format!("-max_total_time={MINIMISE_SECONDS}"));
    minimise.arg(format!("-exact_artifact_path={}", smaller.display()));
    minimise.arg(input).stderr(Stdio::null());
    process::run_lines(&mut minimise, GRACE, |_| {})?;
    Ok(if smaller.exists() {
        smaller
    } else {
        input.to_owned()
    })
}

fn replay(target: &Target, input: &Path, sanitizer: Sanitizer) -> Result<()> {
    ensure!(input.is_file(), "{} is no file", input.display());
    let mut command = Command::new(build(sanitizer)?.join(target.name));
    command.arg(input).env("RUST_BACKTRACE", "1");
    process::run(&mut command, GRACE)
}

/// What is fuzzed is what is shipped: the two lock files name the same versions.
fn check_locks() -> Result<()> {
    let root = crate::root();
    let [product, fuzz] = ["Cargo.lock", "fuzz/Cargo.lock"].map(|file| locked(&root.join(file)));
    let (product, fuzz) = (product?, fuzz?);
    for (name, versions) in fuzz {
        let shipped = product.get(&name).unwrap_or(&versions);
        ensure!(
            versions.is_subset(shipped),
            "fuzz/Cargo.lock has {name} {versions:?}, Cargo.lock {shipped:?}: copy Cargo.lock over \
             it, and cargo adds what is missing"
        );
    }
    Ok(())
}

/// The versions of each package in a lock file.
fn locked(file: &Path) -> Result<BTreeMap<String, BTreeSet<String>>> {
    let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let mut packages: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut name = "";
    for line in text.lines() {
        let value = |key| line.strip_prefix(key)?.strip_suffix('"');
        if let Some(found) = value("name = \"") {
            name = found;
        } else if let Some(version) = value("version = \"") {
            let versions = packages.entry(name.to_owned()).or_default();
            versions.insert(version.to_owned());
        }
    }
    Ok(packages)
}

/// Builds every target; the directory of their programs.
fn build(sanitizer: Sanitizer) -> Result<PathBuf> {
    check_locks()?;
    toolbox::need(&[&toolbox::CXX])?;
    let cargo_fuzz = toolbox::cargo_tool("cargo-fuzz", CARGO_FUZZ)?;
    let (name, dir) = match sanitizer {
        Sanitizer::None => ("none", "target/fuzz/build"),
        Sanitizer::Address => ("address", "target/fuzz/build-address"),
    };
    let dir = crate::root().join(dir);
    let mut build = Command::new(cargo_fuzz);
    build.args(["fuzz", "build", "--sanitizer", name, "--target-dir"]);
    build.arg(&dir).current_dir(crate::root());
    // libFuzzer is C++.
    build.env("CXX", toolbox::CXX.name);
    build.env("CARGO", cargo::program());
    if sanitizer == Sanitizer::Address {
        build.env("RUSTC_BOOTSTRAP", "1");
    }
    process::run(&mut build, BUILD_LIMIT)?;
    Ok(dir.join(cargo::host()?).join("release"))
}
