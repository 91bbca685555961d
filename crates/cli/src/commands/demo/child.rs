//! The demo's broker: `oncelog start` in a process of its own, to be killed for real.

use std::fs::File;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::failure::Failure;

/// What the broker says, beside its data directory.
const LOG: &str = "broker.log";
const DATA: &str = "data";
const READY: Duration = Duration::from_secs(20);

pub struct Broker {
    child: Child,
    bootstrap: String,
    port: u16,
    /// Removed on drop, unless kept.
    data: Option<tempfile::TempDir>,
    path: PathBuf,
}

impl Broker {
    pub fn start() -> Result<Broker, Failure> {
        let failed = |why: std::io::Error| {
            Failure::refused("the demo's broker could not be started").why(why.to_string())
        };
        let data = tempfile::Builder::new()
            .prefix("oncelog-demo-")
            .tempdir()
            .map_err(failed)?;
        let path = data.path().to_owned();
        let port = free_port().map_err(failed)?;
        let child = spawn(port, &path).map_err(failed)?;
        let bootstrap = format!("127.0.0.1:{port}");
        let mut broker = Broker {
            child,
            bootstrap,
            port,
            data: Some(data),
            path,
        };
        broker.wait_until_ready()?;
        Ok(broker)
    }

    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    pub fn data_dir(&self) -> PathBuf {
        self.path.join(DATA)
    }

    /// SIGKILL, then the same command on the same directory; returns how long it took to be ready.
    pub fn kill_and_restart(&mut self) -> Result<Duration, Failure> {
        let failed = |why: std::io::Error| {
            Failure::refused("the demo's broker could not be killed and restarted")
                .why(why.to_string())
        };
        self.child.kill().map_err(failed)?;
        self.child.wait().map_err(failed)?;
        let began = Instant::now();
        self.child = spawn(self.port, &self.path).map_err(failed)?;
        self.wait_until_ready()?;
        Ok(began.elapsed())
    }

    /// Lets go of the broker and its directory; returns where they are.
    pub fn keep(mut self) -> (String, PathBuf) {
        if let Some(data) = self.data.take() {
            let _ = data.keep();
        }
        (self.bootstrap.clone(), self.data_dir())
    }

    fn wait_until_ready(&mut self) -> Result<(), Failure> {
        let began = Instant::now();
        while began.elapsed() < READY {
            if TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
                return Ok(());
            }
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(
                    Failure::refused(format!("the demo's broker ended with {status}"))
                        .why(last_lines(&self.path.join(LOG))),
                );
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Err(Failure::refused(format!(
            "the demo's broker was not ready within {READY:?}"
        )))
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if self.data.is_some() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
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

fn spawn(port: u16, dir: &Path) -> std::io::Result<Child> {
    let log = File::options()
        .create(true)
        .append(true)
        .open(dir.join(LOG))?;
    Command::new(std::env::current_exe()?)
        .arg("start")
        .arg("--data-dir")
        .arg(dir.join(DATA))
        .args(["--set", &format!("listeners=PLAINTEXT://127.0.0.1:{port}")])
        .args(["--set", "http.listener="])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
}

fn last_lines(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(5)..].join("\n")
}
