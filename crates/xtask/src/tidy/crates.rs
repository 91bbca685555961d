//! Rules about crates: the cores stay pure, and every crate is on the map.

use super::{File, Findings};

/// The crates that have no clock, randomness, threads, sockets or files of their own.
const CORES: [&str; 5] = ["wire", "commitlog", "partition", "coordinator", "broker"];

/// Crates that no core may depend on.
const IMPURE: [&str; 12] = [
    "async-std",
    "crossbeam",
    "fastrand",
    "getrandom",
    "mio",
    "oncelog-server",
    "rand",
    "rayon",
    "rdkafka",
    "rustix",
    "socket2",
    "tokio",
];

/// What each core's clippy.toml has to ban, so that clippy finds it at the line.
const BANNED: [&str; 7] = [
    "std::time::Instant::now",
    "std::time::SystemTime::now",
    "std::thread::spawn",
    "std::thread::sleep",
    "std::fs::",
    "std::collections::HashMap",
    "std::collections::HashSet",
];

pub fn purity(files: &[File], findings: &mut Findings) {
    for core in CORES {
        let find = |name: &str| {
            files
                .iter()
                .find(|f| f.path == format!("crates/{core}/{name}"))
        };
        let Some(manifest) = find("Cargo.toml") else {
            continue; // not there yet
        };
        for (number, line) in manifest.text.lines().enumerate() {
            let name = line.split(['.', '=', ' ']).next().unwrap_or_default();
            if IMPURE.contains(&name) {
                findings.push(format!(
                    "{}:{}: a core crate depends on `{name}`: what it needs comes in as arguments",
                    manifest.path,
                    number + 1
                ));
            }
        }
        let bans = find("clippy.toml").map_or("", |file| file.text.as_str());
        for banned in BANNED.iter().filter(|banned| !bans.contains(**banned)) {
            findings.push(format!(
                "crates/{core}/clippy.toml: does not ban `{banned}`"
            ));
        }
    }
}

/// Every crate is in ARCHITECTURE.md.
pub fn mentioned(files: &[File], findings: &mut Findings) {
    let Some(map) = files.iter().find(|file| file.path == "ARCHITECTURE.md") else {
        return;
    };
    let manifests = files
        .iter()
        .filter_map(|file| file.path.strip_suffix("/Cargo.toml"));
    for name in manifests.filter_map(|path| path.strip_prefix("crates/")) {
        let shapes = [
            format!("`{name}`"),
            format!("`{name}/`"),
            format!("crates/{name}"),
        ];
        if !shapes.iter().any(|shape| map.text.contains(shape)) {
            findings.push(format!("ARCHITECTURE.md: no word of the crate `{name}`"));
        }
    }
}
