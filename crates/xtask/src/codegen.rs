//! `cargo xtask codegen`: Kafka's message schemas -> crates/wire/src/messages/*.rs.
//!
//! The schemas are the JSON files inside Kafka's own published jars; the Rust that comes out is
//! committed, so that a build needs neither Java nor Maven. `--check` says whether the committed
//! files are still what the schemas give.
//!
//! Deliberately not here: how a primitive is read or written. That is `Reader` and `Writer` in
//! `wire`; generated code only names fields, versions and order.

mod emit;
mod emit_bodies;
mod emit_struct;
mod jars;
mod list;
mod schema;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use schema::Schema;

/// The Kafka release whose schemas are generated from.
const KAFKA_VERSION: &str = "4.3.1";

#[derive(clap::Args)]
pub struct Args {
    /// Directory that holds the Kafka jars; without it they are fetched with Maven.
    #[arg(long)]
    jars: Option<PathBuf>,
    /// Write nothing; fail if the committed files differ from what would be written.
    #[arg(long)]
    check: bool,
}

impl Args {
    /// As `--check` gives them.
    pub fn check() -> Args {
        Args {
            jars: None,
            check: true,
        }
    }
}

pub fn run(args: &Args) -> Result<()> {
    let root = workspace_root();
    let jar_dir = match &args.jars {
        Some(dir) => dir.clone(),
        None => jars::fetch(&root.join("target/kafka-jars"))?,
    };
    let schemas = jars::read_schemas(&jar_dir)?;
    let scratch = root.join("target/codegen");
    if scratch.exists() {
        std::fs::remove_dir_all(&scratch)?;
    }
    std::fs::create_dir_all(&scratch)?;
    write_all(&scratch, &generate(&schemas)?)?;
    rustfmt(&scratch)?;

    let target = root.join("crates/wire/src/messages");
    let new = read_dir(&scratch)?;
    let old = read_dir(&target)?;
    if args.check {
        return check(&old, &new);
    }
    std::fs::create_dir_all(&target)?;
    for name in old.keys().filter(|name| !new.contains_key(*name)) {
        std::fs::remove_file(target.join(name))?;
    }
    write_all(&target, &new)?;
    println!("{} files in {}", new.len(), target.display());
    Ok(())
}

/// File name -> source, for every message and for the three files that list them.
fn generate(schemas: &[Schema]) -> Result<BTreeMap<String, String>> {
    let mut files = BTreeMap::new();
    for schema in schemas {
        let source = emit::message(schema).with_context(|| schema.name.clone())?;
        files.insert(format!("{}.rs", emit::snake(&schema.name)), source);
    }
    files.insert("mod.rs".into(), emit_bodies::mod_file(schemas));
    files.insert("api_key.rs".into(), emit_bodies::api_key_file(schemas)?);
    files.insert("every.rs".into(), emit_bodies::every_file(schemas)?);
    Ok(files)
}

fn check(old: &BTreeMap<String, String>, new: &BTreeMap<String, String>) -> Result<()> {
    let differing: Vec<&String> = new
        .keys()
        .chain(old.keys())
        .filter(|name| old.get(*name) != new.get(*name))
        .collect();
    if let Some(first) = differing.first() {
        bail!(
            "{} generated files differ from the committed ones, first {first}; run `cargo xtask codegen`",
            differing.len()
        );
    }
    println!("{} generated files are up to date", new.len());
    Ok(())
}

fn rustfmt(dir: &Path) -> Result<()> {
    // mod.rs names every other file, so formatting it formats all of them.
    let status = Command::new("rustfmt")
        .args(["--edition", "2024"])
        .arg(dir.join("mod.rs"))
        .status()
        .context("could not start rustfmt")?;
    if !status.success() {
        bail!("rustfmt failed on {}", dir.display());
    }
    Ok(())
}

fn write_all(dir: &Path, files: &BTreeMap<String, String>) -> Result<()> {
    for (name, source) in files {
        let path = dir.join(name);
        // Untouched files keep their times, so that cargo rebuilds nothing.
        if std::fs::read_to_string(&path).is_ok_and(|old| old == *source) {
            continue;
        }
        std::fs::write(&path, source).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

fn read_dir(dir: &Path) -> Result<BTreeMap<String, String>> {
    let mut files = BTreeMap::new();
    if !dir.exists() {
        return Ok(files);
    }
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        files.insert(name, std::fs::read_to_string(entry.path())?);
    }
    Ok(files)
}

fn workspace_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .expect("crates/xtask lies two levels below the workspace root")
        .to_path_buf()
}
