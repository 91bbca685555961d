//! Rules about one file's text: header, words, names, whitespace, paths.
//!
//! The patterns are put together from halves, so that this file does not find itself.

use super::{File, Findings};

/// Words that say that something is not finished.
const WORDS: [&str; 5] = [
    concat!("to", "do!"),
    concat!("unim", "plemented!"),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
    concat!("db", "g!"),
];

/// Names that say nothing: modules (and files) by these names, types that end with them.
const MODULES: [&str; 9] = [
    "common",
    "helper",
    "helpers",
    "manager",
    "misc",
    "types",
    "util",
    "utils",
    "utilities",
];
const TYPES: [&str; 4] = ["Manager", "Helper", "Util", "Utils"];

/// Places on somebody's machine.
const PATHS: [&str; 3] = [
    concat!("/wo", "rk/"),
    concat!("/ro", "ot/"),
    concat!("/fa", "rm/"),
];

fn report(file: &File, line: usize, what: &str, findings: &mut Findings) {
    findings.push(format!("{}:{}: {what}", file.path, line + 1));
}

/// Every Rust file but unit tests opens with a comment that says what it is for.
pub fn header(file: &File, findings: &mut Findings) {
    // Tests in files of their own belong to the module above them, which has the header.
    let of_tests = file
        .path
        .split_once("/tests/")
        .is_some_and(|(_, path)| path.contains('/') && !path.ends_with("/main.rs"));
    if file.is_generated() || of_tests || file.path.ends_with("tests.rs") {
        return;
    }
    let first = file
        .text
        .lines()
        .map(str::trim)
        .find(|line| !line.is_empty());
    if !first.is_some_and(|line| line.starts_with("//!")) {
        report(
            file,
            0,
            "no //! header: say what the module is for and what it is not",
            findings,
        );
    }
}

pub fn words(file: &File, findings: &mut Findings) {
    for (number, line) in file.text.lines().enumerate() {
        for word in WORDS {
            if let Some(at) = line.find(word)
                && !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_')
            {
                report(
                    file,
                    number,
                    &format!("`{word}`: finish it, or refuse and say so"),
                    findings,
                );
            }
        }
    }
}

pub fn names(file: &File, findings: &mut Findings) {
    let stem = file
        .path
        .rsplit('/')
        .next()
        .unwrap_or_default()
        .trim_end_matches(".rs");
    let folder = file.path.rsplit('/').nth(1).unwrap_or_default();
    if MODULES.contains(&stem) || MODULES.contains(&folder) {
        report(
            file,
            0,
            "a name that says nothing: name the file for what it does",
            findings,
        );
    }
    if file.is_generated() {
        return; // Kafka's names
    }
    for (number, line) in file.text.lines().enumerate() {
        let mut words = line.split(|c: char| !c.is_alphanumeric() && c != '_');
        let Some(keyword) =
            words.find(|word| ["struct", "enum", "trait", "type", "mod"].contains(word))
        else {
            continue;
        };
        let declared = line.trim_start();
        if !declared.starts_with("pub") && !declared.starts_with(keyword) {
            continue;
        }
        let name = words.next().unwrap_or_default();
        let vague = match keyword {
            "mod" => MODULES.contains(&name),
            _ => TYPES.iter().any(|end| name.ends_with(end)),
        };
        if vague {
            report(
                file,
                number,
                &format!("`{name}` says nothing: what does it do?"),
                findings,
            );
        }
    }
}

pub fn whitespace(file: &File, findings: &mut Findings) {
    // In tables, and in scripts of expected answers, every space counts, the last one too.
    let counts = ["/scripts/", "/golden/"]
        .iter()
        .any(|folder| file.path.contains(folder));
    if counts || file.path.ends_with(".tsv") {
        return;
    }
    for (number, line) in file.text.lines().enumerate() {
        if line.ends_with([' ', '\t']) {
            report(file, number, "white space at the end of the line", findings);
        }
    }
}

pub fn machine_paths(file: &File, findings: &mut Findings) {
    for (number, line) in file.text.lines().enumerate() {
        for path in PATHS {
            if line.contains(path) {
                report(
                    file,
                    number,
                    &format!("`{path}` is a place on one machine"),
                    findings,
                );
            }
        }
    }
}
