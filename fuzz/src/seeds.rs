//! The inputs that a target starts from are made by the target itself, not kept as files.

use std::path::Path;

/// Names the directory that the seeds go to, in place of fuzzing.
const VARIABLE: &str = "ONCELOG_FUZZ_SEEDS";

/// Writes the seeds and ends the process, if the environment says where to.
pub fn write_if_asked(seeds: fn() -> Vec<Vec<u8>>) {
    let Some(dir) = std::env::var_os(VARIABLE) else {
        return;
    };
    let dir = Path::new(&dir);
    std::fs::create_dir_all(dir).expect("the directory for the seeds");
    for (number, seed) in seeds().iter().enumerate() {
        let file = dir.join(format!("seed-{number:04}"));
        std::fs::write(file, seed).expect("a seed is written");
    }
    std::process::exit(0);
}
