//! MariaDB with a binlog in row format.
//!
//! No option file is read and no service of the package is touched: everything a server has is in its
//! directory. `root` needs no password over TCP from 127.0.0.1.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal};
use tempfile::TempDir;

use crate::port;

/// Where Debian's package puts the server.
const SERVER: &str = "/usr/sbin/mariadbd";
const INSTALLER: &str = "/usr/bin/mariadb-install-db";
const DATABASE: &str = "shop";
/// Starting includes the recovery after a SIGKILL.
const START_LIMIT: Duration = Duration::from_secs(60);
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// What tests need of a server; whoever starts it may say otherwise. Durability is the package's own:
/// a killed process loses nothing that the kernel has.
const SETTINGS: &[(&str, &str)] = &[
    ("bind_address", "127.0.0.1"),
    ("skip_name_resolve", "ON"),
    ("server_id", "1"),
    ("log_bin", "binlog"),
    ("binlog_format", "ROW"),
    ("binlog_row_image", "FULL"),
    ("character_set_server", "utf8mb4"),
    ("innodb_buffer_pool_size", "64M"),
    ("innodb_log_file_size", "32M"),
    ("key_buffer_size", "1M"),
    ("max_allowed_packet", "64M"),
    ("local_infile", "ON"),
];

/// A server of its own. Dropping it kills it and removes its files.
pub struct MariaDb {
    directory: TempDir,
    port: u16,
    settings: Vec<(String, String)>,
    server: Option<Child>,
}

impl MariaDb {
    pub fn start() -> Result<MariaDb> {
        MariaDb::start_with(&[])
    }

    /// `settings` are those of the server's option file, and win over the defaults here.
    pub fn start_with(settings: &[(&str, &str)]) -> Result<MariaDb> {
        installed(Path::new(SERVER))?;
        let directory = tempfile::Builder::new().prefix("mariadb-").tempdir()?;
        let mut server = MariaDb {
            directory,
            port: port::free()?,
            settings: Vec::new(),
            server: None,
        };
        for (name, value) in SETTINGS.iter().chain(settings) {
            server.set(name, value);
        }
        let mut install = Command::new(INSTALLER);
        install.arg("--no-defaults").args(as_owner());
        install.args(["--auth-root-authentication-method=normal", "--skip-test-db"]);
        install.args(["--innodb-log-file-size=8M", "--innodb-buffer-pool-size=16M"]);
        install.arg(format!("--datadir={}", server.data().display()));
        // Servers that share one remove each other's temporary tables.
        install.arg(format!("--tmpdir={}", server.directory.path().display()));
        run(&mut install)?;
        server.run_server()?;
        server.client("", &format!("CREATE DATABASE {DATABASE}"))?;
        Ok(server)
    }

    /// Of `root` and the database `shop`.
    pub fn url(&self) -> String {
        format!("mysql://root@127.0.0.1:{}/{DATABASE}", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The data directory, which has the binlog too.
    pub fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// Runs statements with the package's client; gives their rows, columns separated by tabs.
    pub fn sql(&self, statements: &str) -> Result<String> {
        self.client(DATABASE, statements)
    }

    /// SIGKILL.
    pub fn kill(&mut self) -> Result<()> {
        let Some(mut server) = self.server.take() else {
            return Ok(());
        };
        server.kill().context("killing MariaDB")?;
        server.wait()?;
        Ok(())
    }

    /// An orderly stop.
    pub fn stop(&mut self) -> Result<()> {
        let Some(mut server) = self.server.take() else {
            return Ok(());
        };
        let pid = i32::try_from(server.id()).ok().and_then(Pid::from_raw);
        rustix::process::kill_process(pid.context("a process id")?, Signal::TERM)?;
        let deadline = Instant::now() + STOP_LIMIT;
        while server.try_wait()?.is_none() {
            if Instant::now() > deadline {
                self.server = Some(server);
                self.kill()?;
                bail!("MariaDB does not stop");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Starts it again, after an orderly stop where it still runs. The same port and files.
    pub fn restart(&mut self) -> Result<()> {
        self.stop()?;
        self.run_server()
    }

    /// From the next start on.
    pub fn set(&mut self, name: &str, value: &str) {
        self.settings.retain(|(known, _)| known != name);
        self.settings.push((name.to_owned(), value.to_owned()));
    }

    /// From the next start on, the server is told nothing of `name`.
    pub fn unset(&mut self, name: &str) {
        self.settings.retain(|(known, _)| known != name);
    }

    fn run_server(&mut self) -> Result<()> {
        let mut command = Command::new(SERVER);
        command.arg("--no-defaults").args(as_owner());
        command.arg(format!("--datadir={}", self.data().display()));
        command.arg(format!("--tmpdir={}", self.directory.path().display()));
        command.arg(format!("--port={}", self.port));
        for file in ["socket", "pid-file"] {
            command.arg(format!(
                "--{file}={}",
                self.directory.path().join(file).display()
            ));
        }
        for (name, value) in &self.settings {
            command.arg(format!("--{name}={value}"));
        }
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.log())?;
        command.current_dir(self.directory.path());
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        self.server = Some(command.spawn().context("starting mariadbd")?);
        let deadline = Instant::now() + START_LIMIT;
        while self.client("", "SELECT 1").is_err() {
            let server = self.server.as_mut().context("the server")?;
            let ended = server.try_wait()?;
            if ended.is_some() || Instant::now() > deadline {
                let log = std::fs::read_to_string(self.log()).unwrap_or_default();
                let tail: Vec<&str> = log.lines().rev().take(10).collect();
                let tail: Vec<&str> = tail.into_iter().rev().collect();
                self.kill()?;
                bail!(
                    "MariaDB did not start ({ended:?}); its log ends:\n{}",
                    tail.join("\n")
                );
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn client(&self, database: &str, statements: &str) -> Result<String> {
        let mut client = Command::new("mariadb");
        client.args([
            "--no-defaults",
            "--protocol=tcp",
            "--host=127.0.0.1",
            "--user=root",
        ]);
        client.args([
            "--batch",
            "--raw",
            "--skip-column-names",
            "--local-infile=1",
        ]);
        client.arg(format!("--port={}", self.port));
        client.arg(format!("--execute={statements}"));
        if !database.is_empty() {
            client.arg(database);
        }
        let output = client.output().context("the client `mariadb`")?;
        let told = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{statements}: {told}");
        Ok(String::from_utf8_lossy(&output.stdout)
            .trim_end()
            .to_owned())
    }

    fn log(&self) -> PathBuf {
        self.directory.path().join("log")
    }
}

impl Drop for MariaDb {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            eprintln!("{error:#}");
        }
    }
}

/// MariaDB refuses to run as root unless it is told to.
fn as_owner() -> Option<&'static str> {
    rustix::process::geteuid()
        .is_root()
        .then_some("--user=root")
}

fn installed(server: &Path) -> Result<()> {
    let missing = || {
        format!(
            "no MariaDB server at {}: apt-get install mariadb-server",
            server.display()
        )
    };
    ensure!(server.exists(), missing());
    Ok(())
}

fn run(command: &mut Command) -> Result<()> {
    let name = format!("{command:?}");
    let output = command.output().with_context(|| name.clone())?;
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{name}: {told}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_package_is_named() {
        let error = installed(Path::new("/nowhere/mariadbd"))
            .unwrap_err()
            .to_string();
        assert!(error.contains("apt-get install mariadb-server"), "{error}");
    }

    #[test]
    #[ignore = "needs MariaDB; cargo xtask test runs it"]
    fn what_was_committed_survives_a_kill() {
        let mut server = MariaDb::start_with(&[("max_connections", "30")]).unwrap();
        let asked = "SELECT @@binlog_format, @@binlog_row_image, @@log_bin, @@max_connections";
        assert_eq!(server.sql(asked).unwrap(), "ROW\tFULL\t1\t30");
        server
            .sql("CREATE TABLE t (a int); INSERT INTO t VALUES (7)")
            .unwrap();
        server.kill().unwrap();
        assert!(server.sql("SELECT 1").is_err());
        server.restart().unwrap();
        assert_eq!(server.sql("SELECT a FROM t").unwrap(), "7");
    }
}
