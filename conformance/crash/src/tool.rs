//! The command line tool against the broker under test.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

#[derive(Clone)]
pub struct Tool {
    binary: PathBuf,
    bootstrap: String,
}

impl Tool {
    pub fn new(binary: &Path, bootstrap: &str) -> Tool {
        Tool {
            binary: binary.to_owned(),
            bootstrap: bootstrap.to_owned(),
        }
    }

    /// Its standard error if it fails.
    pub fn run(&self, args: &[&str], input: &str) -> Result<(), String> {
        let mut child = Command::new(&self.binary)
            .args(["-b", &self.bootstrap])
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // It may end before it has read everything.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let output = child.wait_with_output().unwrap();
        match output.status.success() {
            true => Ok(()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }

    pub fn create_topic(&self, name: &str, partitions: i32, configs: &[&str]) {
        let partitions = partitions.to_string();
        let mut args = vec!["topic", "create", name, "-p", &partitions];
        args.extend(configs.iter().flat_map(|config| ["-c", *config]));
        self.run(&args, "")
            .unwrap_or_else(|why| panic!("creating {name}: {why}"));
    }
}
