//! The client of the throughput rows: `rdkafka_performance`, built from the sources of librdkafka
//! that the rdkafka crate carries.
//!
//! It sends the same buffer again and again without copying it, which no program does that has
//! something to say, but it leaves the broker as much of the machine as a client can. A loop on the
//! rdkafka crate copies each record and needs two to three times the processor time for it.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use super::system::bench_dir;
use crate::{cargo, process};

/// The crates whose C libraries it needs, in the order of linking.
const LIBRARIES: [&str; 3] = ["rdkafka", "zstd", "z"];

const LIMIT: Duration = Duration::from_secs(120);

/// Compiles it, for the C libraries that `packages` are built with; its path.
pub fn build(packages: &[&str]) -> Result<PathBuf> {
    let scripts = cargo::build_scripts(packages)?;
    let binary = bench_dir().join("rdkafka_performance");
    let mut cc = Command::new("cc");
    cc.args(["-O2", "-o"]).arg(&binary);
    let sources = PathBuf::from(text(script_of("rdkafka", &scripts)?, "out_dir")?);
    cc.arg("-I")
        .arg(sources.join("src"))
        .arg("-I")
        .arg(&sources);
    cc.arg(sources.join("examples/rdkafka_performance.c"));
    for library in LIBRARIES {
        let paths = script_of(library, &scripts)?["linked_paths"].as_array();
        for path in paths.into_iter().flatten().filter_map(Value::as_str) {
            cc.arg(format!("-L{}", path.trim_start_matches("native=")));
        }
        cc.arg(format!("-l:lib{library}.a"));
    }
    cc.args(["-lpthread", "-ldl", "-lrt", "-lm"]);
    process::run(&mut cc, LIMIT).context("building rdkafka_performance")?;
    Ok(binary)
}

/// The build script that made a static library.
fn script_of<'a>(library: &str, scripts: &'a [Value]) -> Result<&'a Value> {
    let linked = format!("static={library}");
    let made = |script: &&Value| {
        let libraries = script["linked_libs"].as_array().into_iter().flatten();
        libraries.into_iter().any(|one| *one == linked)
    };
    let script = scripts.iter().find(made);
    script.with_context(|| format!("no build script makes lib{library}.a"))
}

fn text<'a>(of: &'a Value, field: &str) -> Result<&'a str> {
    of[field]
        .as_str()
        .with_context(|| format!("no {field} in cargo's message"))
}
