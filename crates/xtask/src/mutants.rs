//! `cargo xtask mutants`: plants known bugs, one at a time, and demands that the simulator finds
//! each of them. A check that cannot fail is no check.
//!
//! A mutant is a line of the product replaced by a wrong one, in a copy of the sources; if the line
//! is not there any more, the mutant is out of date and that is a failure too. Nothing in the
//! product knows of mutants.

use anyhow::{Context, Result, bail, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

struct Mutant {
    name: &'static str,
    file: &'static str,
    find: &'static str,
    replace: &'static str,
}

/// Seeds within which each mutant must be found.
const SEEDS: u32 = 600;

const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "acknowledged before fsync",
        file: "crates/commitlog/src/log.rs",
        find: "let durable = self.count_for_flush(i64::from(header.records_count), now);",
        replace: "let durable = self.count_for_flush(i64::from(header.records_count), now) && false;",
    },
    Mutant {
        name: "deduplication state lost on recovery",
        file: "crates/partition/src/recovery.rs",
        find: "producers.close(log.start_offset()..log.first_dirty_offset());",
        replace: "producers = Producers::default();",
    },
    Mutant {
        name: "sequence advanced before the append",
        file: "crates/partition/src/append.rs",
        find: "self.check_content(now, batch)?;",
        replace: "if let Err(refused) = self.check_content(now, batch) { \
                  self.producers.apply(&batch.header, self.log.end_offset(), now.instant); \
                  return Err(refused); }",
    },
    Mutant {
        name: "a duplicate acknowledged before its original is durable",
        file: "crates/broker/src/apis/produce.rs",
        find: "wait: (appended.last_offset >= high_watermark)",
        replace: "wait: (appended.last_offset >= high_watermark && !appended.duplicate)",
    },
    Mutant {
        name: "offset commit without a generation check",
        file: "crates/coordinator/src/groups/classic/group.rs",
        find: "self.check_member_of(member_id, instance_id, generation)?;\n        match self.state {",
        replace: "match self.state {",
    },
    Mutant {
        name: "torn tail accepted",
        file: "crates/commitlog/src/scan.rs",
        find: "if computed == found.header.crc {",
        replace: "if computed == found.header.crc || true {",
    },
    Mutant {
        name: "last stable offset too high",
        file: "crates/partition/src/transactions.rs",
        find: "first_unstable.clamp(self.log.start_offset(), high_watermark)",
        replace: "first_unstable.max(high_watermark)",
    },
    Mutant {
        name: "aborted index off by one",
        file: "crates/partition/src/transactions.rs",
        find: "first_offset,\n                last_offset: marker_offset,",
        replace: "first_offset: first_offset + 1,\n                last_offset: marker_offset,",
    },
    Mutant {
        name: "marker before PrepareCommit is durable",
        file: "crates/broker/src/transactions/mod.rs",
        find: "    release(broker, shard, high_watermark);\n}\n\n/// Lets out",
        replace: "    let held = std::mem::take(&mut broker.transactions.shards[shard as usize].held); \
                  let (markers, replies): (VecDeque<_>, VecDeque<_>) = \
                  held.into_iter().partition(|(_, held)| matches!(held, Held::Markers(_))); \
                  broker.transactions.shards[shard as usize].held = replies; \
                  for (_, held) in markers { if let Held::Markers(markers) = held { \
                  markers::write(broker, shard, markers); } } \
                  release(broker, shard, high_watermark);\n}\n\n/// Lets out",
    },
    Mutant {
        name: "late EndTxn accepted",
        file: "crates/coordinator/src/transactions/end.rs",
        find: "guard::admit(draft, caller, \"EndTxn\") {",
        replace: "guard::admit(draft, caller, \"EndTxn\") && false {",
    },
    Mutant {
        name: "late TxnOffsetCommit accepted",
        file: "crates/broker/src/apis/txn_offset_commit.rs",
        find: "newest.note(Wrote::Offsets, producer, connection) {",
        replace: "newest.note(Wrote::Offsets, producer, connection) || true {",
    },
    Mutant {
        name: "transactional offset visible before commit",
        file: "crates/coordinator/src/groups/offsets/mod.rs",
        find: "self.pending.put(producer_id, key.into(), offset);",
        replace: "let place: Place = key.into(); \
                  self.insert(place.clone(), offset.clone()); \
                  self.pending.put(producer_id, place, offset);",
    },
    Mutant {
        name: "fencing forgotten on reload",
        file: "crates/coordinator/src/transactions/mod.rs",
        find: "entry.transaction = Some(transaction);",
        replace: "entry.transaction = Some(match &entry.transaction { \
                  Some(before) if !self.loaded => \
                  Transaction { producer_epoch: before.producer_epoch, ..transaction }, \
                  _ => transaction });",
    },
    Mutant {
        name: "relay: rows marked before the commit",
        file: "crates/relay/src/relay.rs",
        find: "Outcome::Publish(Ok(())) if self.is_exactly_once() => Operation::Commit,",
        replace: "Outcome::Publish(Ok(())) \
                  if self.is_exactly_once() && self.end.is_some() && self.until == self.batch.len() \
                  => self.confirm_end(), \
                  Outcome::Confirm(Ok(())) if self.is_exactly_once() && self.done < self.until \
                  => Operation::Commit, \
                  Outcome::Publish(Ok(())) if self.is_exactly_once() => Operation::Commit,",
    },
    Mutant {
        name: "relay: progress read before InitProducerId",
        file: "crates/relay/src/relay.rs",
        find: "Outcome::Started | Outcome::Wait => Operation::Init,\n            \
               Outcome::Init(Ok(())) if self.is_exactly_once() => Operation::ReadProgress,\n            \
               Outcome::Init(Ok(())) => Operation::Open(None),\n            \
               Outcome::ReadProgress(progress) if self.refusal.is_some() => self.refused(progress),\n            \
               Outcome::ReadProgress(Ok(progress)) => {\n                \
               self.progress.clone_from(&progress);\n                \
               Operation::Open(progress)\n            }",
        replace: "Outcome::Started | Outcome::Wait if self.is_exactly_once() => \
                  Operation::ReadProgress, \
                  Outcome::Started | Outcome::Wait => Operation::Init, \
                  Outcome::Init(Ok(())) if self.is_exactly_once() => \
                  Operation::Open(self.progress.clone()), \
                  Outcome::Init(Ok(())) => Operation::Open(None), \
                  Outcome::ReadProgress(progress) if self.refusal.is_some() => self.refused(progress), \
                  Outcome::ReadProgress(Ok(progress)) => { \
                  self.progress = progress; Operation::Init }",
    },
    Mutant {
        name: "relay: an unknown commit taken for failed, and sent again",
        file: "crates/relay/src/relay.rs",
        find: "Outcome::Init(Ok(())) if self.is_exactly_once() => Operation::ReadProgress,",
        replace: "Outcome::Init(Ok(())) if self.is_exactly_once() && self.done < self.until => \
                  self.publish(), \
                  Outcome::Init(Ok(())) if self.is_exactly_once() => Operation::ReadProgress,",
    },
    Mutant {
        name: "relay: resume by the commit's LSN alone, rest skipped",
        file: "crates/relay/src/resume.rs",
        find: "std::cmp::Ordering::Equal => open.rows > done,",
        replace: "std::cmp::Ordering::Equal => open.rows > done && false,",
    },
    Mutant {
        name: "relay: resume by the commit's LSN alone, all repeated",
        file: "crates/relay/src/resume.rs",
        find: "std::cmp::Ordering::Equal => open.rows > done,",
        replace: "std::cmp::Ordering::Equal => open.rows > done || true,",
    },
    Mutant {
        name: "sink: offset and rows in two transactions",
        file: "crates/sink/src/sink.rs",
        find: "Operation::Apply(Transaction {\n            batch: Arc::clone(&self.batch),",
        replace: "if self.exactly_once() && !self.committed { \
                  self.committed = true; self.until = self.batch.len(); \
                  let moves = self.moves(); self.skip = Some(moves.clone()); \
                  return Operation::Apply(Transaction::new(Vec::new(), moves)); } \
                  if self.exactly_once() { return Operation::Apply(Transaction { \
                  batch: Arc::clone(&self.batch), from: self.done, until: self.until, \
                  moves: Vec::new() }); } \
                  Operation::Apply(Transaction {\n            batch: Arc::clone(&self.batch),",
    },
    Mutant {
        name: "sink: the epoch not checked",
        file: "crates/sink/src/target.rs",
        find: "self.epoch == epoch && self.from == next_offset",
        replace: "(self.epoch == epoch || true) && self.from == next_offset",
    },
    Mutant {
        name: "sink: the fence left out",
        file: "crates/sink/src/target.rs",
        find: "self.epoch == epoch && self.from == next_offset",
        replace: "true || self.epoch == epoch && self.from == next_offset",
    },
];

#[derive(clap::Args)]
pub struct Args {
    /// Only the mutants whose names contain this
    #[arg(long)]
    only: Option<String>,
}

/// All of them.
pub fn run_all() -> Result<()> {
    run(&Args { only: None })
}

pub fn run(args: &Args) -> Result<()> {
    let root = crate::root();
    let copy = root.join("target/mutants/source");
    copy_sources(&root, &copy)?;
    let wanted = |mutant: &&Mutant| {
        args.only
            .as_ref()
            .is_none_or(|only| mutant.name.contains(only))
    };
    let mut missed = Vec::new();
    for mutant in MUTANTS.iter().filter(wanted) {
        let began = Instant::now();
        let found = plant_and_hunt(&root, &copy, mutant)?;
        let took = began.elapsed().as_secs();
        match found {
            Some(how) => println!("caught  {:<44} {how} ({took} s)", mutant.name),
            None => {
                println!(
                    "MISSED  {:<44} not within {SEEDS} seeds ({took} s)",
                    mutant.name
                );
                missed.push(mutant.name);
            }
        }
    }
    ensure!(
        missed.is_empty(),
        "the simulator does not find: {}",
        missed.join(", ")
    );
    Ok(())
}

/// Copies what git tracks (as it is in the working tree), so that the build has its own sources.
fn copy_sources(root: &Path, copy: &Path) -> Result<()> {
    let listed = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .args([
            "Cargo.toml",
            "Cargo.lock",
            "bench",
            "crates",
            "conformance",
            ".cargo",
        ])
        .current_dir(root)
        .output()
        .context("git ls-files")?;
    ensure!(listed.status.success(), "git ls-files failed");
    for file in String::from_utf8(listed.stdout)?.lines() {
        let (from, to) = (root.join(file), copy.join(file));
        if !from.is_file() {
            continue;
        }
        // Unchanged files keep their time, so that cargo builds only what differs.
        let content = std::fs::read(&from)?;
        if std::fs::read(&to).is_ok_and(|old| old == content) {
            continue;
        }
        std::fs::create_dir_all(to.parent().context("a file has a directory")?)?;
        std::fs::write(&to, content)?;
    }
    Ok(())
}

fn plant_and_hunt(root: &Path, copy: &Path, mutant: &Mutant) -> Result<Option<String>> {
    let path: PathBuf = copy.join(mutant.file);
    let original = std::fs::read_to_string(&path).with_context(|| mutant.file.to_owned())?;
    ensure!(
        original.matches(mutant.find).count() == 1,
        "{}: its line does not stand exactly once in {}; bring the mutant up to date",
        mutant.name,
        mutant.file
    );
    std::fs::write(&path, original.replace(mutant.find, mutant.replace))?;
    let result = hunt(root, copy);
    std::fs::write(&path, original)?;
    result.with_context(|| mutant.name.to_owned())
}

/// What the simulator says, if it finds something.
fn hunt(root: &Path, copy: &Path) -> Result<Option<String>> {
    let cargo = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO"));
        command
            .args(arguments)
            .current_dir(copy)
            .env("CARGO_TARGET_DIR", root.join("target/mutants/target"));
        command
    };
    let mut build = cargo(&["build", "--release", "--quiet", "-p", "oncelog-sim"]);
    // Each is built once and caught in seconds: what counts is how soon it is built.
    for option in [
        "opt-level=1",
        "incremental=true",
        "debug=false",
        "codegen-units=64",
    ] {
        build.args(["--config", &format!("profile.release.{option}")]);
    }
    let built = build.output()?;
    if !built.status.success() {
        bail!(
            "the mutant does not build:\n{}",
            String::from_utf8_lossy(&built.stderr)
        );
    }
    let binary = root.join("target/mutants/target/release/oncelog-sim");
    let hunted = Command::new(binary)
        .args(["--seeds", &SEEDS.to_string()])
        .output()?;
    if hunted.status.success() {
        return Ok(None);
    }
    let said = String::from_utf8_lossy(&hunted.stderr).into_owned();
    let line = said
        .lines()
        .find(|line| line.starts_with("seed "))
        .unwrap_or("it crashed");
    Ok(Some(line.chars().take(140).collect()))
}
