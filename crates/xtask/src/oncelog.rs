//! A started `oncelog` for the suites: the release binary, a free port, a new data directory.
//!
//! Its settings are the defaults, so that the suites see what a user sees; only the port, the data
//! directory and HTTP (off, so that several can run) differ.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use crate::process;

const READY_LIMIT: Duration = Duration::from_secs(10);
/// A shutdown syncs every partition; after the larger suites there are thousands.
const STOP_LIMIT: Duration = Duration::from_secs(120);

pub struct Oncelog {
    child: Child,
    address: SocketAddr,
    home: PathBuf,
}

impl Oncelog {
    /// Starts `binary` with its data in `home`/data (removed first) and its output in `home`/log.
    pub fn start(binary: &Path, home: &Path) -> Result<Oncelog> {
        Oncelog::start_with(binary, home, &[])
    }

    /// The same with broker settings, each `key=value`.
    pub fn start_with(binary: &Path, home: &Path, settings: &[&str]) -> Result<Oncelog> {
        ensure!(binary.exists(), "{} has not been built", binary.display());
        if home.exists() {
            std::fs::remove_dir_all(home)?;
        }
        // A port that is free now.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let mut command = command(binary, home, address, settings)?;
        let child = process::spawn(&mut command)?;
        let mut oncelog = Oncelog {
            child,
            address,
            home: home.to_owned(),
        };
        let started = Instant::now();
        while TcpStream::connect(address).is_err() {
            if let Some(status) = oncelog.child.try_wait()? {
                bail!("oncelog ended with {status}; it said:\n{}", oncelog.said());
            }
            if started.elapsed() > READY_LIMIT {
                bail!("oncelog does not answer; it said:\n{}", oncelog.said());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(oncelog)
    }

    pub fn bootstrap(&self) -> String {
        self.address.to_string()
    }

    /// The last that it printed.
    pub fn said(&self) -> String {
        let log = std::fs::read_to_string(self.home.join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    /// SIGTERM; it has to end by itself with 0. Returns its data directory.
    pub fn stop(mut self) -> Result<PathBuf> {
        if let Some(status) = self.child.try_wait()? {
            bail!(
                "oncelog had ended already, with {status}; it said:\n{}",
                self.said()
            );
        }
        if !process::stop(&mut self.child, STOP_LIMIT)? {
            bail!(
                "oncelog did not shut down cleanly; it said:\n{}",
                self.said()
            );
        }
        Ok(self.home.join("data"))
    }
}

/// The command that starts `binary` with its data in `home`/data and its output in `home`/log.
pub fn command(
    binary: &Path,
    home: &Path,
    address: SocketAddr,
    settings: &[impl AsRef<str>],
) -> Result<Command> {
    std::fs::create_dir_all(home)?;
    let log = std::fs::File::create(home.join("log"))?;
    let mut command = Command::new(binary);
    command.arg("start").arg("--data-dir");
    command.arg(home.join("data"));
    let own = [
        format!("listeners=PLAINTEXT://{address}"),
        "http.listener=".to_owned(),
    ];
    let own = own.iter().map(String::as_str);
    for setting in own.chain(settings.iter().map(AsRef::as_ref)) {
        command.args(["--set", setting]);
    }
    command.stdin(Stdio::null());
    command.stdout(log.try_clone()?).stderr(log);
    Ok(command)
}

impl Drop for Oncelog {
    fn drop(&mut self) {
        let _ = process::stop(&mut self.child, STOP_LIMIT);
    }
}
