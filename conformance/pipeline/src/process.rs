//! The processes of a pipeline: the same binary that anybody runs, each started with a file of its own
//! for what it says, to be stopped, continued and killed.

use std::fs::File;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// How a process is started, again and again.
pub struct Program {
    pub name: String,
    binary: PathBuf,
    args: Vec<String>,
    logs: PathBuf,
    starts: u32,
}

/// Killed when dropped.
pub struct Process {
    child: Child,
    pub log: PathBuf,
}

/// What is said at the end of a file.
const LAST_LINES: usize = 12;

impl Program {
    pub fn new(name: &str, binary: &Path, args: &[&str], logs: &Path) -> Program {
        Program {
            name: name.to_owned(),
            binary: binary.to_owned(),
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            logs: logs.to_owned(),
            starts: 0,
        }
    }

    pub fn start(&mut self) -> Result<Process> {
        self.start_with(None)
    }

    /// With a failpoint armed, as `name` or `name@7`.
    pub fn start_with(&mut self, failpoint: Option<&str>) -> Result<Process> {
        self.starts += 1;
        let log = self
            .logs
            .join(format!("{}-{:04}.log", self.name, self.starts));
        let mut file = File::create(&log)?;
        if let Some(failpoint) = failpoint {
            writeln!(file, "ONCELOG_FAILPOINT={failpoint}")?;
        }
        let mut command = Command::new(&self.binary);
        command.args(&self.args).stdin(Stdio::null());
        command.stdout(file.try_clone()?).stderr(file);
        command
            .env("RUST_BACKTRACE", "1")
            .env_remove("ONCELOG_FAILPOINT");
        if let Some(failpoint) = failpoint {
            command.env("ONCELOG_FAILPOINT", failpoint);
        }
        let child = command
            .spawn()
            .with_context(|| self.binary.display().to_string())?;
        Ok(Process { child, log })
    }

    /// Runs it to its end with other arguments.
    pub fn run(binary: &Path, args: &[&str]) -> Result<String> {
        let output = Command::new(binary)
            .args(args)
            .stdin(Stdio::null())
            .output()?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let told = String::from_utf8_lossy(&output.stderr);
        bail!("oncelog {}: {}", args.join(" "), told.trim());
    }
}

impl Process {
    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// How it ended, if it does so in time.
    pub fn wait(&mut self, patience: Duration) -> Option<ExitStatus> {
        let began = Instant::now();
        loop {
            let ended = self.ended();
            if ended.is_some() || began.elapsed() > patience {
                return ended;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        self.end();
    }

    pub fn signal(&self, signal: Signal) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // It may have ended by itself meanwhile.
            let _ = kill_process(pid, signal);
        }
    }

    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub fn last_words(&self) -> String {
        let said = self.said();
        let lines: Vec<&str> = said.lines().collect();
        lines[lines.len().saturating_sub(LAST_LINES)..].join("\n")
    }

    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

/// Whether that is how a failpoint ends a process.
pub fn is_abort(status: ExitStatus) -> bool {
    status.signal() == Some(Signal::ABORT.as_raw())
}
