//! Calling cargo: one release build for everything that is run, so that librdkafka and the
//! dependencies are compiled once for it.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::{process, toolbox};

const BUILD_LIMIT: Duration = Duration::from_secs(40 * 60);

/// Builds these packages for release and returns the directory of their binaries.
pub fn build_packages(packages: &[&str]) -> Result<PathBuf> {
    toolbox::need(&[&toolbox::MAKE])?;
    let mut command = cargo(&["build", "--release", "--quiet"]);
    for package in packages {
        command.args(["--package", package]);
    }
    process::run(&mut command, BUILD_LIMIT)?;
    Ok(target_dir()?.join("release"))
}

/// What cargo says of the build scripts of these packages and of all that they depend on.
pub fn build_scripts(packages: &[&str]) -> Result<Vec<serde_json::Value>> {
    let mut command = cargo(&["build", "--release", "--quiet", "--message-format=json"]);
    for package in packages {
        command.args(["--package", package]);
    }
    let mut scripts = Vec::new();
    for line in process::output(&mut command)?.lines() {
        let message: serde_json::Value = serde_json::from_str(line)?;
        if message["reason"] == "build-script-executed" {
            scripts.push(message);
        }
    }
    Ok(scripts)
}

/// The packages whose release binaries the suites run.
const RELEASE: [&str; 5] = [
    "oncelog",
    "oncelog-sim",
    "crash-campaign",
    "pipeline-campaign",
    "rdkafka-smoke",
];

pub fn program() -> OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

pub fn cargo(args: &[&str]) -> Command {
    let mut command = Command::new(program());
    command.args(args).current_dir(crate::root());
    command
}

/// Builds every release binary, in one call so that features and dependencies are shared.
pub fn build_release() -> Result<()> {
    static BUILT: OnceLock<()> = OnceLock::new();
    if BUILT.get().is_some() {
        return Ok(());
    }
    build_packages(&RELEASE)?;
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

/// The triple that the compiler makes programs for if nobody says otherwise.
pub fn host() -> Result<String> {
    let said = process::output(Command::new("rustc").arg("-vV"))?;
    let host = said.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("`rustc -vV` names its host")?.to_owned())
}
