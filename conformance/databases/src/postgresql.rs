//! PostgreSQL with `wal_level = logical`.
//!
//! PostgreSQL refuses to run as root; so as root it is run as the package's user, `postgres`.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal};
use tempfile::TempDir;

use crate::port;

/// Where Debian's packages put the binaries: `/usr/lib/postgresql/<major>/bin`.
const PACKAGES: &str = "/usr/lib/postgresql";
const SUPERUSER: &str = "postgres";
/// Starting includes the recovery after a SIGKILL.
const START_LIMIT: Duration = Duration::from_secs(60);
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// What tests need of a server; whoever starts it may say otherwise. `fsync` is off since a killed
/// process loses nothing that the kernel has.
const SETTINGS: &[(&str, &str)] = &[
    ("wal_level", "logical"),
    ("fsync", "off"),
    ("max_wal_senders", "20"),
    ("max_replication_slots", "20"),
    ("listen_addresses", "127.0.0.1"),
    ("shared_buffers", "64MB"),
    ("log_min_messages", "warning"),
];

/// A server of its own. Dropping it kills it and removes its files.
pub struct PostgreSql {
    binaries: PathBuf,
    directory: TempDir,
    port: u16,
    settings: Vec<(String, String)>,
    server: Option<Child>,
}

impl PostgreSql {
    pub fn start() -> Result<PostgreSql> {
        PostgreSql::start_with(&[])
    }

    /// `settings` are those of postgresql.conf, and win over the defaults here.
    pub fn start_with(settings: &[(&str, &str)]) -> Result<PostgreSql> {
        let binaries = binaries(Path::new(PACKAGES))?;
        let directory = tempfile::Builder::new().prefix("postgresql-").tempdir()?;
        if rustix::process::geteuid().is_root() {
            let owner = format!("{SUPERUSER}:");
            run(Command::new("chown").arg(owner).arg(directory.path()))?;
        }
        let mut all: Vec<(String, String)> = Vec::new();
        for (name, value) in SETTINGS.iter().chain(settings) {
            all.retain(|(known, _)| known != name);
            all.push(((*name).to_owned(), (*value).to_owned()));
        }
        let mut server = PostgreSql {
            binaries,
            directory,
            port: port::free()?,
            settings: all,
            server: None,
        };
        let mut initdb = server.command("initdb");
        initdb.args([
            "--auth=trust",
            "--no-sync",
            "--encoding=UTF8",
            "--locale=C.UTF-8",
        ]);
        initdb
            .args(["--username", SUPERUSER, "--pgdata"])
            .arg(server.data());
        run(&mut initdb)?;
        server.run_server()?;
        Ok(server)
    }

    /// Of the superuser and the database `postgres`.
    pub fn url(&self) -> String {
        format!("postgresql://{SUPERUSER}@127.0.0.1:{}/postgres", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The data directory.
    pub fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// Runs statements with psql; gives their rows, columns separated by `|`.
    pub fn sql(&self, statements: &str) -> Result<String> {
        let mut psql = self.command("psql");
        psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d"])
            .arg(self.url());
        psql.arg("-c").arg(statements);
        let output = psql.output().context("psql")?;
        let told = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{statements}: {told}");
        Ok(String::from_utf8_lossy(&output.stdout)
            .trim_end()
            .to_owned())
    }

    /// SIGKILL to the server and all of its processes: what a power cut of the process looks like.
    pub fn kill(&mut self) -> Result<()> {
        let Some(mut server) = self.server.take() else {
            return Ok(());
        };
        let children = children_of(server.id());
        server.kill().context("killing PostgreSQL")?;
        server.wait()?;
        for child in &children {
            if let Some(pid) = i32::try_from(*child).ok().and_then(Pid::from_raw) {
                // It may have noticed by itself and be gone.
                let _ = rustix::process::kill_process(pid, Signal::KILL);
            }
        }
        // One that lives on keeps the shared memory, and the next start is refused.
        let deadline = Instant::now() + STOP_LIMIT;
        while children.iter().any(|child| lives(*child)) {
            ensure!(
                Instant::now() < deadline,
                "processes of PostgreSQL do not end"
            );
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// An orderly stop ("fast": sessions are ended).
    pub fn stop(&mut self) -> Result<()> {
        let Some(mut server) = self.server.take() else {
            return Ok(());
        };
        let pid = i32::try_from(server.id()).ok().and_then(Pid::from_raw);
        rustix::process::kill_process(pid.context("a process id")?, Signal::INT)?;
        let deadline = Instant::now() + STOP_LIMIT;
        while server.try_wait()?.is_none() {
            if Instant::now() > deadline {
                self.server = Some(server);
                self.kill()?;
                bail!("PostgreSQL does not stop");
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

    /// Makes it go on with the next timeline, as a standby that is promoted does.
    pub fn promote(&mut self) -> Result<()> {
        self.stop()?;
        let signal = self.data().join("standby.signal");
        std::fs::write(&signal, "")?;
        if rustix::process::geteuid().is_root() {
            run(Command::new("chown")
                .arg(format!("{SUPERUSER}:"))
                .arg(&signal))?;
        }
        self.run_server()?;
        let mut promote = self.command("pg_ctl");
        promote
            .args(["promote", "--wait", "--pgdata"])
            .arg(self.data());
        run(&mut promote)
    }

    fn run_server(&mut self) -> Result<()> {
        let mut command = self.command("postgres");
        command
            .arg("-D")
            .arg(self.data())
            .args(["-p", &self.port.to_string()]);
        command
            .arg("-c")
            .arg(setting("unix_socket_directories", self.directory.path()));
        for (name, value) in &self.settings {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.log())?;
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        self.server = Some(command.spawn().context("starting postgres")?);
        let deadline = Instant::now() + START_LIMIT;
        while !self.is_ready()? {
            let server = self.server.as_mut().context("the server")?;
            let ended = server.try_wait()?;
            if ended.is_some() || Instant::now() > deadline {
                let log = std::fs::read_to_string(self.log()).unwrap_or_default();
                let tail: Vec<&str> = log.lines().rev().take(10).collect();
                let tail: Vec<&str> = tail.into_iter().rev().collect();
                self.kill()?;
                bail!(
                    "PostgreSQL did not start ({ended:?}); its log ends:\n{}",
                    tail.join("\n")
                );
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn is_ready(&self) -> Result<bool> {
        let mut ask = self.command("pg_isready");
        ask.args(["-q", "-h", "127.0.0.1", "-p", &self.port.to_string()]);
        Ok(ask.status().context("pg_isready")?.success())
    }

    fn log(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    /// One of the package's programs, as a user that PostgreSQL accepts.
    fn command(&self, program: &str) -> Command {
        let program = self.binaries.join(program);
        let mut command = if rustix::process::geteuid().is_root() {
            let mut command = Command::new("setpriv");
            command.args([
                "--reuid",
                SUPERUSER,
                "--regid",
                SUPERUSER,
                "--init-groups",
                "--",
            ]);
            command.arg(program);
            command
        } else {
            Command::new(program)
        };
        command.current_dir(self.directory.path());
        // Nobody's settings but those here.
        for name in [
            "PGHOST",
            "PGPORT",
            "PGUSER",
            "PGDATABASE",
            "PGOPTIONS",
            "PGDATA",
        ] {
            command.env_remove(name);
        }
        command
    }
}

impl Drop for PostgreSql {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            eprintln!("{error:#}");
        }
    }
}

/// The newest version there is.
fn binaries(packages: &Path) -> Result<PathBuf> {
    let listed = std::fs::read_dir(packages).into_iter().flatten().flatten();
    let version = |entry: &std::fs::DirEntry| entry.file_name().to_str()?.parse::<u32>().ok();
    let newest = listed.filter_map(|entry| Some((version(&entry)?, entry.path().join("bin"))));
    let newest = newest
        .filter(|(_, bin)| bin.join("postgres").exists())
        .max();
    let (_, bin) = newest.with_context(|| {
        format!(
            "no PostgreSQL server in {}: apt-get install postgresql",
            packages.display()
        )
    })?;
    Ok(bin)
}

fn setting(name: &str, value: &Path) -> std::ffi::OsString {
    [OsStr::new(name), OsStr::new("="), value.as_os_str()]
        .into_iter()
        .collect()
}

fn run(command: &mut Command) -> Result<()> {
    let name = format!("{command:?}");
    let output = command.output().with_context(|| name.clone())?;
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{name}: {told}");
    Ok(())
}

/// The processes whose parent it is, while it lives.
fn children_of(parent: u32) -> Vec<u32> {
    let listed = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = listed.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| stat(*pid).is_some_and(|(_, of)| of == parent))
        .collect()
}

fn lives(pid: u32) -> bool {
    stat(pid).is_some_and(|(state, _)| state != "Z")
}

/// State and parent.
fn stat(pid: u32) -> Option<(String, u32)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before, in brackets, may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    Some((fields.next()?.to_owned(), fields.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_package_is_named() {
        let nowhere = tempfile::tempdir().unwrap();
        let error = binaries(nowhere.path()).unwrap_err().to_string();
        assert!(error.contains("apt-get install postgresql"), "{error}");
    }

    #[test]
    #[ignore = "needs PostgreSQL; cargo xtask test runs it"]
    fn what_was_committed_survives_a_kill() {
        let mut server = PostgreSql::start_with(&[("max_connections", "30")]).unwrap();
        assert_eq!(
            server.sql("SHOW wal_level; SHOW max_connections").unwrap(),
            "logical\n30"
        );
        server
            .sql("CREATE TABLE t (a int); INSERT INTO t VALUES (7)")
            .unwrap();
        server.kill().unwrap();
        assert!(server.sql("SELECT 1").is_err());
        server.restart().unwrap();
        assert_eq!(server.sql("SELECT a FROM t").unwrap(), "7");
        server.promote().unwrap();
        let timeline = "SELECT substring(pg_walfile_name(pg_current_wal_lsn()), 1, 8)";
        assert_eq!(server.sql(timeline).unwrap(), "00000002");
    }
}
