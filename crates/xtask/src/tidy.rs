//! `cargo xtask tidy`: the rules of the house that neither rustfmt nor clippy knows.
//!
//! It reads what git tracks (and what is new and not ignored); it changes nothing. Each rule is one
//! function, and reports `path:line: what, and what to do`. The rules themselves, with reasons, are
//! in CONTRIBUTING.md.

mod crates;
mod exceptions;
mod source;

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::process;

/// A file of the repository.
struct File {
    /// From the root, with slashes.
    path: String,
    text: String,
}

impl File {
    fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    fn is_generated(&self) -> bool {
        self.path.starts_with("crates/wire/src/messages/")
    }

    /// Tests are exempt from limits of size, not from anything else.
    fn is_test(&self) -> bool {
        let name = self.path.rsplit('/').next().unwrap_or_default();
        self.path.contains("/tests/") || name == "tests.rs" || name.ends_with("_tests.rs")
    }
}

/// What is wrong: `path:line: what`.
type Findings = Vec<String>;

pub fn run() -> Result<()> {
    let findings = check(&crate::root())?;
    for finding in &findings {
        println!("{finding}");
    }
    if !findings.is_empty() {
        bail!("{} findings", findings.len());
    }
    println!("tidy");
    Ok(())
}

fn check(root: &Path) -> Result<Findings> {
    let files = tracked(root)?;
    let mut findings = Findings::new();
    for file in &files {
        source::whitespace(file, &mut findings);
        source::machine_paths(file, &mut findings);
        if file.is_rust() {
            source::header(file, &mut findings);
            source::words(file, &mut findings);
            source::names(file, &mut findings);
        }
    }
    exceptions::sizes(&files, &mut findings);
    crates::purity(&files, &mut findings);
    crates::mentioned(&files, &mut findings);
    Ok(findings)
}

fn tracked(root: &Path) -> Result<Vec<File>> {
    let mut git = std::process::Command::new("git");
    git.args(["ls-files", "--cached", "--others", "--exclude-standard"]);
    let listed = process::output(git.current_dir(root))?;
    let mut files = Vec::new();
    for path in listed.lines() {
        let on_disk: PathBuf = root.join(path);
        // Deleted but not yet committed, or not text: nothing to say about it.
        if let Ok(text) = std::fs::read_to_string(on_disk) {
            files.push(File {
                path: path.to_owned(),
                text,
            });
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files.dedup_by(|a, b| a.path == b.path);
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_repository_is_tidy() {
        let findings = check(&crate::root()).unwrap();
        assert!(findings.is_empty(), "{}", findings.join("\n"));
    }

    /// Runs one rule over one file, and says how many findings there are.
    fn check_one(path: &str, text: &str, rule: fn(&File, &mut Findings)) -> usize {
        let file = File {
            path: path.into(),
            text: text.into(),
        };
        let mut findings = Findings::new();
        rule(&file, &mut findings);
        findings.len()
    }

    #[test]
    fn each_rule_finds_what_it_is_for() {
        let path = "crates/broker/src/x.rs";
        assert_eq!(
            check_one(path, "//! Says why.\nfn a() {}\n", source::header),
            0
        );
        assert_eq!(check_one(path, "fn a() {}\n", source::header), 1);
        assert_eq!(check_one(path, "let a = 1; \n\tb\n", source::whitespace), 1);
        assert_eq!(
            check_one(path, concat!("fn a() { to", "do!() }\n"), source::words),
            1
        );
        assert_eq!(
            check_one(path, "struct GroupCoordinator;\n", source::names),
            0
        );
        assert_eq!(
            check_one(
                path,
                concat!("pub struct GroupMan", "ager;\n"),
                source::names
            ),
            1
        );
        assert_eq!(
            check_one(path, concat!("mod ut", "il;\n"), source::names),
            1
        );
        assert_eq!(check_one("crates/a/src/common.rs", "", source::names), 1);
        assert_eq!(
            check_one(path, concat!("// see /wo", "rk/x\n"), source::machine_paths),
            1
        );
    }

    #[test]
    fn long_functions_and_files_are_found() {
        let long = format!("//! x\nfn long() {{\n{}}}\n", "    a();\n".repeat(80));
        let file = File {
            path: "crates/a/src/a.rs".into(),
            text: long,
        };
        let mut findings = Findings::new();
        exceptions::sizes(&[file], &mut findings);
        assert_eq!(findings.len(), 1, "{findings:?}");
        let many = format!(
            "//! x\n{}#[cfg(test)]\nmod tests {{\n}}\n",
            "a\n".repeat(801)
        );
        let file = File {
            path: "crates/a/src/a.rs".into(),
            text: many,
        };
        let mut findings = Findings::new();
        exceptions::sizes(&[file], &mut findings);
        assert_eq!(findings.len(), 1, "{findings:?}");
    }
}
