//! Calling cargo: one release build for everything that is run, so that librdkafka and the
//! dependencies are compiled once for it.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::{process, toolbox};

const BUILD_LIMIT: Duration = Duration::from_secs(40 * 60);

/// The packages whose release binaries the suites run.
const RELEASE: [&str; 4] = ["oncelog", "oncelog-sim", "crash-campaign", "rdkafka-smoke"];

pub fn cargo(args: &[&str]) -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(args).current_dir(crate::root());
    command
}

/// Builds every release binary, in one call so that features and dependencies are shared.
pub fn build_release() -> Result<()> {
    static BUILT: OnceLock<()> = OnceLock::new();
    if BUILT.get().is_some() {
        return Ok(());
    }
    toolbox::need(&[&toolbox::MAKE])?;
    let mut command = cargo(&["build", "--release", "--quiet"]);
    for package in RELEASE {
        command.args(["--package", package]);
    }
    process::run(&mut command, BUILD_LIMIT)?;
    let _ = BUILT.set(());
    Ok(())
}

/// The path of a release binary, built first if it has to be.
pub fn release_binary(name: &str) -> Result<PathBuf> {
    build_release()?;
    Ok(target_dir()?.join("release").join(name))
}

fn target_dir() -> Result<PathBuf> {
    let metadata = process::output(&mut cargo(&[
        "metadata",
        "--format-version=1",
        "--no-deps",
        "--offline",
    ]))?;
    let metadata: serde_json::Value = serde_json::from_str(&metadata)?;
    let dir = metadata["target_directory"].as_str();
    Ok(PathBuf::from(
        dir.context("target_directory in cargo metadata")?,
    ))
}
