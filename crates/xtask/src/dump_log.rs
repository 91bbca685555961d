//! `cargo xtask dump-log DIR`: Kafka's own DumpLogSegments reads a data directory, and any
//! complaint of its is a failure.
//!
//! Reads every .log (each record of each batch, so decompression too), .index, .timeindex, .txnindex
//! and .snapshot, and has Kafka decode each record of the internal topics. Gaps between offsets are
//! counted but are no complaint, since compaction leaves them. The directory should belong to a
//! stopped broker.

use std::collections::BTreeMap;
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

/// The largest batch that it finds behind an index entry; without this, 5 MiB, and an exception past
/// that.
const BATCH_BYTES_MAX: &str = "1073741824";

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
    /// Records of the internal topics that Kafka decoded.
    pub decoded: usize,
    /// Entries of producer snapshots.
    pub producers: usize,
    /// Ends of transactions.
    pub markers: usize,
    /// Entries of indexes of aborted transactions.
    pub aborted: usize,
    pub gaps: usize,
    /// Batches of each codec.
    pub codecs: BTreeMap<String, usize>,
    pub complaints: Vec<String>,
    current: String,
}

const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];

impl Found {
    pub fn line(&self) -> String {
        let codec = |(codec, batches): (&String, &usize)| format!("{codec} {batches}");
        let codecs: Vec<String> = self.codecs.iter().map(codec).collect();
        format!(
            "{} files, {} batches ({}), {} records ({} of internal topics decoded), {} producers in \
             snapshots, {} markers, {} aborted transactions, {} gaps between offsets, {} complaints",
            self.files,
            self.batches,
            codecs.join(", "),
            self.records,
            self.decoded,
            self.producers,
            self.markers,
            self.aborted,
            self.gaps,
            self.complaints.len()
        )
    }

    /// What a run over everything should have met and did not.
    pub fn missing(&self) -> Vec<String> {
        let unseen = CODECS
            .iter()
            .filter(|codec| !self.codecs.contains_key(**codec));
        let mut missing: Vec<String> = unseen.map(|codec| format!("{codec} batches")).collect();
        for (count, what) in [
            (self.decoded, "records of internal topics"),
            (self.producers, "producer snapshots"),
            (self.markers, "transactions"),
            (self.aborted, "indexes of aborted transactions"),
            (self.gaps, "compacted segments"),
        ] {
            if count == 0 {
                missing.push(what.to_owned());
            }
        }
        missing
    }

    fn complain(&mut self, what: &str) {
        let name = self.current.clone();
        self.complaints.push(format!("{name}: {what}"));
    }

    /// One line of DumpLogSegments' output. `decoding`: the records have to come out decoded.
    fn line_of_output(&mut self, line: &str, decoding: bool) {
        let lower = line.to_ascii_lowercase();
        if let Some(file) = line.strip_prefix("Dumping ") {
            self.files += 1;
            file.clone_into(&mut self.current);
        } else if line.starts_with("baseOffset: ") {
            self.batches += 1;
            if let Some(rest) = line.split("compresscodec: ").nth(1) {
                let codec = rest.split_whitespace().next().unwrap_or_default();
                *self.codecs.entry(codec.to_owned()).or_default() += 1;
            }
        } else if line.starts_with("| offset: ") {
            self.records += 1;
            // A marker has nothing to decode, in an internal topic as in any other.
            let marker = line.contains(" endTxnMarker: ");
            self.markers += usize::from(marker);
            match line.contains(": {\"type\":\"") {
                true if decoding => self.decoded += 1,
                false if decoding && !marker => self.complain(line),
                _ => {}
            }
        } else if line.starts_with("version: ") && line.contains(" lastStableOffset: ") {
            self.aborted += 1;
        } else if line.starts_with("producerId: ") {
            self.producers += 1;
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

/// How DumpLogSegments is to read a partition's files.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    Records,
    /// `__consumer_offsets`, each record decoded.
    Offsets,
    /// `__transaction_state`, the same.
    Transactions,
    /// `__cluster_metadata`, the same.
    Metadata,
}

impl Way {
    fn of_partition(name: &str) -> Way {
        match name {
            "__cluster_metadata-0" => Way::Metadata,
            name if name.starts_with("__consumer_offsets-") => Way::Offsets,
            name if name.starts_with("__transaction_state-") => Way::Transactions,
            _ => Way::Records,
        }
    }

    fn arguments(self) -> &'static [&'static str] {
        match self {
            Way::Records => &["--deep-iteration"],
            Way::Offsets => &["--offsets-decoder", "--print-data-log"],
            Way::Transactions => &["--transaction-log-decoder", "--print-data-log"],
            Way::Metadata => &["--cluster-metadata-decoder"],
        }
    }
}

/// Runs DumpLogSegments over every file of every partition in `dir`.
pub fn dump(dir: &Path) -> Result<Found> {
    let files = segment_files(dir)?;
    ensure!(!files.is_empty(), "no segments in {}", dir.display());
    let mut found = Found::default();
    for way in [Way::Records, Way::Offsets, Way::Transactions, Way::Metadata] {
        let of_way = files.iter().filter(|(of, _)| *of == way);
        let names: Vec<&str> = of_way.map(|(_, name)| name.as_str()).collect();
        dump_files(&names, way, &mut found)?;
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

fn dump_files(mut rest: &[&str], way: Way, found: &mut Found) -> Result<()> {
    while !rest.is_empty() {
        let mut bytes = 0;
        let fits = rest.iter().take_while(|file| {
            bytes += file.len() + 1;
            bytes <= CALL_BYTES_MAX
        });
        let (call, later) = rest.split_at(fits.count().max(1));
        rest = later;
        let mut java = toolbox::java(&[], "ERROR", "256M")?;
        java.arg("org.apache.kafka.tools.DumpLogSegments");
        java.args(way.arguments())
            .args(["--max-message-size", BATCH_BYTES_MAX])
            .args(["--files", &call.join(",")]);
        let before = found.complaints.len();
        let decoding = way != Way::Records;
        let well = process::run_lines(&mut merged(&java), LIMIT, |line| {
            found.line_of_output(line, decoding);
        })?;
        if !well && found.complaints.len() == before {
            found.complain("DumpLogSegments ended with an error here");
        }
    }
    Ok(())
}

/// The same command with its standard error in its standard output: some complaints go there.
fn merged(command: &Command) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", "exec \"$@\" 2>&1", "sh"]);
    shell.arg(command.get_program()).args(command.get_args());
    shell
}

/// The files that it can read, and how.
fn segment_files(dir: &Path) -> Result<Vec<(Way, String)>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let partition = entry?.path();
        // A partition that is being deleted loses its files one by one.
        let name = partition.file_name().and_then(|name| name.to_str());
        let Some(name) = name.filter(|name| partition.is_dir() && !name.ends_with("-delete"))
        else {
            continue;
        };
        let way = Way::of_partition(name);
        for entry in std::fs::read_dir(&partition)? {
            let path = entry?.path();
            let kind = path
                .extension()
                .and_then(|kind| kind.to_str())
                .unwrap_or("");
            let name = path.to_str().context("a file name that is not UTF-8")?;
            if KINDS.contains(&kind) {
                files.push((way, name.to_owned()));
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
            found.line_of_output(line, false);
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

    #[test]
    fn what_was_met_is_counted() {
        let mut found = Found::default();
        let batch = "baseOffset: 0 lastOffset: 0 magic: 2 compresscodec: zstd crc: 1 isvalid: true";
        found.line_of_output(batch, false);
        found.line_of_output("| offset: 0 keySize: -1", false);
        found.line_of_output("producerId: 1 producerEpoch: 0", false);
        found.line_of_output(
            r#"| offset: 0 key: {"type":"1","data":{}} payload: <NULL>"#,
            true,
        );
        assert_eq!(found.codecs.get("zstd"), Some(&1));
        assert_eq!((found.records, found.decoded, found.producers), (2, 1, 1));
        let missing = ["none", "gzip", "snappy", "lz4"].map(|codec| format!("{codec} batches"));
        let rest = [
            "transactions",
            "indexes of aborted transactions",
            "compacted segments",
        ];
        let missing: Vec<String> = missing.into_iter().chain(rest.map(str::to_owned)).collect();
        assert_eq!(found.missing(), missing);
        found.line_of_output("| offset: 1 keySize: 3 key: ???", true);
        assert_eq!(found.complaints.len(), 1);
        found.line_of_output(
            "| offset: 2 keySize: 4 valueSize: 6 endTxnMarker: COMMIT coordinatorEpoch: 0",
            true,
        );
        found.line_of_output(
            "version: 0 producerId: 1 firstOffset: 0 lastOffset: 5 lastStableOffset: 0",
            false,
        );
        assert_eq!((found.markers, found.aborted), (1, 1));
        assert_eq!((found.records, found.complaints.len()), (4, 1));
    }
}
