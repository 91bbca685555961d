//! The demo's processes: this same binary, each in a process of its own, to be killed for real.

use std::fs::File;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::failure::Failure;

const READY: Duration = Duration::from_secs(20);
/// How long a process may take to end after SIGTERM.
const STOP: Duration = Duration::from_secs(10);

/// One of them: what it is called, how it is started, and the process while it runs.
pub struct Process {
    name: String,
    args: Vec<String>,
    log: PathBuf,
    child: Child,
    /// Not to be ended with the demo.
    kept: bool,
}

impl Process {
    pub fn start(dir: &Path, name: &str, args: Vec<String>) -> Result<Process, Failure> {
        let log = dir.join(format!("{name}.log"));
        let child = spawn(&args, &log).map_err(|why| failed(name, "started", &why))?;
        Ok(Process {
            name: name.to_owned(),
            args,
            log,
            child,
            kept: false,
        })
    }

    /// SIGKILL, then the same command again.
    pub fn kill_and_restart(&mut self) -> Result<(), Failure> {
        self.kill()?;
        let child = spawn(&self.args, &self.log);
        self.child = child.map_err(|why| failed(&self.name, "started again", &why))?;
        Ok(())
    }

    fn kill(&mut self) -> Result<(), Failure> {
        let killed = self.child.kill().and_then(|()| self.child.wait());
        killed
            .map(drop)
            .map_err(|why| failed(&self.name, "killed", &why))
    }

    /// Errors: it has ended by itself, and its last words.
    pub fn check(&mut self) -> Result<(), Failure> {
        match self.child.try_wait() {
            Ok(Some(status)) => {
                let what = format!("the demo's {} ended with {status}", self.name);
                Err(Failure::refused(what).why(last_lines(&self.log)))
            }
            _ => Ok(()),
        }
    }

    /// SIGTERM, as an operator would; SIGKILL if that does not help.
    pub fn stop(&mut self) {
        // The standard library has no SIGTERM.
        let _ = Command::new("kill")
            .arg(self.child.id().to_string())
            .status();
        let began = Instant::now();
        while began.elapsed() < STOP {
            if let Ok(Some(_)) = self.child.try_wait() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.kill();
    }

    pub fn keep(&mut self) {
        self.kept = true;
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.kept {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// The broker, which others wait for.
pub struct Broker {
    pub process: Process,
    port: u16,
}

impl Broker {
    pub fn start(dir: &Path) -> Result<Broker, Failure> {
        let port = free_port().map_err(|why| failed("broker", "given a port", &why))?;
        let args = [
            "start",
            "--data-dir",
            &dir.join("broker").display().to_string(),
            "--set",
            &format!("listeners=PLAINTEXT://127.0.0.1:{port}"),
            "--set",
            "http.listener=",
        ];
        let args = args.map(str::to_owned).to_vec();
        let process = Process::start(dir, "broker", args)?;
        let mut broker = Broker { process, port };
        broker.wait_until_ready()?;
        Ok(broker)
    }

    pub fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Returns how long it took to be ready again.
    pub fn kill_and_restart(&mut self) -> Result<Duration, Failure> {
        let began = Instant::now();
        self.process.kill_and_restart()?;
        self.wait_until_ready()?;
        Ok(began.elapsed())
    }

    fn wait_until_ready(&mut self) -> Result<(), Failure> {
        let began = Instant::now();
        while began.elapsed() < READY {
            if TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
                return Ok(());
            }
            self.process.check()?;
            std::thread::sleep(Duration::from_millis(2));
        }
        Err(Failure::refused(format!(
            "the demo's broker was not ready within {READY:?}"
        )))
    }
}

/// Runs a command of this binary to its end.
pub fn run(args: &[&str]) -> Result<(), Failure> {
    let failure =
        |why: String| Failure::refused(format!("oncelog {} failed", args.join(" "))).why(why);
    let exe = std::env::current_exe().map_err(|why| failure(why.to_string()))?;
    let ran = Command::new(exe).args(args).stdin(Stdio::null()).output();
    let ran = ran.map_err(|why| failure(why.to_string()))?;
    if ran.status.success() {
        return Ok(());
    }
    Err(failure(
        String::from_utf8_lossy(&ran.stderr).trim().to_owned(),
    ))
}

fn failed(name: &str, what: &str, why: &std::io::Error) -> Failure {
    Failure::refused(format!("the demo's {name} could not be {what}")).why(why.to_string())
}

/// A port that the broker keeps over its restarts. Below the range that the kernel hands out: a
/// client that reconnects while the broker is down could be given that very port as its own, and
/// be connected to itself.
fn free_port() -> std::io::Result<u16> {
    const PORTS: std::ops::Range<u16> = 20_000..30_000;
    let count = PORTS.end - PORTS.start;
    let first = std::process::id() as u16 % count;
    (0..count)
        .map(|step| PORTS.start + (first + step) % count)
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .ok_or_else(|| std::io::Error::other("no port between 20000 and 30000 is free"))
}

fn spawn(args: &[String], log: &Path) -> std::io::Result<Child> {
    let log = File::options().create(true).append(true).open(log)?;
    Command::new(std::env::current_exe()?)
        .args(args)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
}

fn last_lines(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(5)..].join("\n")
}
