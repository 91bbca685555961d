//! `cargo xtask dump-log DIR`: Kafka's own DumpLogSegments reads a data directory, and any
//! complaint of its is a failure.
//!
//! Reads every .log (each record of each batch, so decompression too), .index, .timeindex, .txnindex
//! and .snapshot. Gaps between offsets are counted but are no complaint, since compaction leaves
//! them. The directory should belong to a stopped broker.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::{process, toolbox};

#[derive(clap::Args)]
pub struct Args {
    /// A data directory, with one directory per partition in it.
    dir: PathBuf,
}

/// One call's time limit; a call reads up to `CALL_BYTES_MAX` of file names.
const LIMIT: Duration = Duration::from_secs(10 * 60);

/// File names go in one argument, and the kernel takes up to 128 KiB for one.
const CALL_BYTES_MAX: usize = 100_000;

const KINDS: [&str; 5] = ["log", "index", "timeindex", "txnindex", "snapshot"];

pub fn run(args: &Args) -> Result<()> {
    let found = dump(&args.dir)?;
    println!("{}", found.line());
    for complaint in &found.complaints {
        println!("  {complaint}");
    }
    ensure!(
        found.complaints.is_empty(),
        "DumpLogSegments has {} complaints",
        found.complaints.len()
    );
    Ok(())
}

/// What DumpLogSegments found in a directory.
#[derive(Default)]
pub struct Found {
    pub files: usize,
    pub batches: usize,
    pub records: usize,
    pub gaps: usize,
    pub complaints: Vec<String>,
    current: String,
}

impl Found {
    pub fn line(&self) -> String {
        format!(
            "{} files, {} batches, {} records, {} gaps between offsets, {} complaints",
            self.files,
            self.batches,
            self.records,
            self.gaps,
            self.complaints.len()
        )
    }

    fn complain(&mut self, what: &str) {
        let name = self.current.clone();
        self.complaints.push(format!("{name}: {what}"));
    }

    /// One line of DumpLogSegments' output.
    fn line_of_output(&mut self, line: &str) {
        let lower = line.to_ascii_lowercase();
        if let Some(file) = line.strip_prefix("Dumping ") {
            self.files += 1;
            file.clone_into(&mut self.current);
        } else if line.starts_with("baseOffset: ") {
            self.batches += 1;
        } else if line.starts_with("| offset: ") {
            self.records += 1;
        } else if line.starts_with("Non-consecutive offsets in ") {
            self.gaps += 1;
        }
        let bad = lower.contains("isvalid: false")
            || (line.starts_with("Found ") && lower.contains(" invalid bytes at the end of "))
            || COMPLAINTS.iter().any(|start| line.starts_with(start));
        if bad {
            self.complain(line);
        }
    }
}

/// How the lines begin that report what does not fit: indexes, snapshots, an end with an exception.
const COMPLAINTS: [&str; 7] = [
    "Exception in thread ",
    "Snapshot is corrupt ",
    "Mismatches in ",
    "The following indexed offsets are not found in ",
    "Found timestamp mismatch in ",
    "Found out of order timestamp in ",
    "Ignoring unknown file ",
];

/// Runs DumpLogSegments over every file of every partition in `dir`.
pub fn dump(dir: &Path) -> Result<Found> {
    let files = segment_files(dir)?;
    ensure!(!files.is_empty(), "no segments in {}", dir.display());
    let mut found = Found::default();
    let mut rest = files.as_slice();
    while !rest.is_empty() {
        let mut bytes = 0;
        let fits = rest.iter().take_while(|file| {
            bytes += file.len() + 1;
            bytes <= CALL_BYTES_MAX
        });
        let (call, later) = rest.split_at(fits.count().max(1));
        rest = later;
        let mut java = toolbox::java(None, "ERROR", "256M")?;
        java.args(["org.apache.kafka.tools.DumpLogSegments", "--deep-iteration"]);
        java.args(["--files", &call.join(",")]);
        let before = found.complaints.len();
        let well =
            process::run_lines(&mut merged(&java), LIMIT, |line| found.line_of_output(line))?;
        if !well && found.complaints.len() == before {
            found.complain("DumpLogSegments ended with an error here");
        }
    }
    if found.files != files.len() && found.complaints.is_empty() {
        bail!(
            "DumpLogSegments read {} of {} files",
            found.files,
            files.len()
        );
    }
    Ok(found)
}

/// The same command with its standard error in its standard output: some complaints go there.
fn merged(command: &Command) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", "exec \"$@\" 2>&1", "sh"]);
    shell.arg(command.get_program()).args(command.get_args());
    shell
}

fn segment_files(dir: &Path) -> Result<Vec<String>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let partition = entry?.path();
        // The metadata log has snapshots of its own format, named OFFSET-EPOCH; a partition that is
        // being deleted loses its files one by one.
        let name = partition.file_name().and_then(|name| name.to_str());
        let skipped = |name: &str| name == "__cluster_metadata-0" || name.ends_with("-delete");
        if !partition.is_dir() || name.is_none_or(skipped) {
            continue;
        }
        for entry in std::fs::read_dir(&partition)? {
            let path = entry?.path();
            let kind = path
                .extension()
                .and_then(|kind| kind.to_str())
                .unwrap_or("");
            let name = path.to_str().context("a file name that is not UTF-8")?;
            if KINDS.contains(&kind) {
                files.push(name.to_owned());
            }
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::Found;

    fn check(output: &str, complaints: usize) {
        let mut found = Found::default();
        for line in output.lines() {
            found.line_of_output(line);
        }
        assert_eq!(found.complaints.len(), complaints, "{:?}", found.complaints);
    }

    #[test]
    fn complaints_are_found() {
        let batch = "baseOffset: 0 lastOffset: 0 count: 1 size: 70 crc: 1 isvalid:";
        check(&format!("Dumping a.log\n{batch} true"), 0);
        check(&format!("Dumping a.log\n{batch} false"), 1);
        check(
            "Dumping a.log\nFound 12 invalid bytes at the end of a.log",
            1,
        );
        check(
            "Dumping a.index\nMismatches in :a.index\n  Index offset: 1, log offset: 0",
            1,
        );
        check(
            "Dumping a.log\nNon-consecutive offsets in a.log\n  3 is followed by 9",
            0,
        );
    }
}
