//! The sources of crates that Cargo.lock pins, copied from where cargo keeps them; nothing is ever
//! written there.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::cargo::cargo;
use crate::{process, toolbox};

/// Sees to it that `to` holds the sources of `krate` as Cargo.lock has it, and what `build` made of
/// them. Another `recipe` is another build.
pub fn copied(
    krate: &str,
    recipe: &str,
    to: &Path,
    build: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let from = source_of(krate)?;
    let mut made_from = std::fs::read(from.join("Cargo.toml"))?;
    made_from.extend_from_slice(recipe.as_bytes());
    toolbox::once_from(to, &made_from, || {
        let mut copy = Command::new("cp");
        copy.arg("-r").arg(from.join(".")).arg(to);
        process::run(&mut copy, Duration::from_secs(60))?;
        build()
    })
}

fn source_of(krate: &str) -> Result<PathBuf> {
    let metadata = process::output(&mut cargo(&["metadata", "--format-version=1", "--locked"]))?;
    let metadata: serde_json::Value = serde_json::from_str(&metadata)?;
    let packages = metadata["packages"].as_array();
    let mut packages = packages.context("cargo metadata without packages")?.iter();
    let package = packages.find(|package| package["name"] == krate);
    let manifest = package.and_then(|package| package["manifest_path"].as_str());
    let manifest = manifest.with_context(|| format!("{krate} is not in Cargo.lock"))?;
    let dir = Path::new(manifest).parent();
    Ok(dir.context("a manifest is in a directory")?.to_owned())
}
