//! The broker under test: `oncelog start` in a process of its own, on a directory and a port that
//! it keeps over its restarts, so that it can be killed and measured like anybody's.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::process::{Pid, Signal, kill_process};

use crate::random::Random;

/// How long a start, recovery included, may take before a test gives up on it.
pub const START_WAIT: Duration = Duration::from_secs(60);

pub struct Broker {
    binary: PathBuf,
    child: Option<Child>,
    port: u16,
    data: PathBuf,
    log: PathBuf,
    /// `key=value`, for the next start.
    pub settings: Vec<String>,
    /// Added to its environment at the next start.
    pub environment: Vec<(String, String)>,
    /// The limit on open files that it is started under; `None`: the test's own.
    pub files_max: Option<u64>,
    /// Removed on drop, unless the test panics: then it is evidence.
    home: Option<tempfile::TempDir>,
}

impl Broker {
    /// A broker that is not started yet, on a new directory.
    pub fn new(binary: impl AsRef<Path>, settings: &[&str]) -> Broker {
        let home = tempfile::Builder::new()
            .prefix("oncelog-test-")
            .tempdir()
            .unwrap();
        let data = home.path().join("data");
        let mut broker = Broker::on(binary, &data, home.path(), settings);
        broker.home = Some(home);
        broker
    }

    /// A broker that is not started yet, on a directory that somebody else cares for.
    pub fn on(binary: impl AsRef<Path>, data: &Path, log_dir: &Path, settings: &[&str]) -> Broker {
        Broker {
            binary: binary.as_ref().to_owned(),
            child: None,
            port: free_port(),
            data: data.to_owned(),
            log: log_dir.join("broker.log"),
            settings: settings.iter().map(|s| (*s).to_owned()).collect(),
            environment: Vec::new(),
            files_max: None,
            home: None,
        }
    }

    pub fn started(binary: impl AsRef<Path>, settings: &[&str]) -> Broker {
        let mut broker = Broker::new(binary, settings);
        broker.start();
        broker
    }

    pub fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn data(&self) -> &Path {
        &self.data
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("it is running").id()
    }

    /// Starts the process and returns at once.
    pub fn spawn(&mut self) {
        assert!(self.child.is_none(), "it is running");
        let log = File::options().create(true).append(true).open(&self.log);
        let log = log.unwrap();
        let mut command = match self.files_max {
            None => Command::new(&self.binary),
            Some(files) => {
                let mut shell = Command::new("sh");
                let script = format!("ulimit -n {files} && exec \"$0\" \"$@\"");
                shell.args(["-c", &script]).arg(&self.binary);
                shell
            }
        };
        command
            .arg("start")
            .arg("--data-dir")
            .arg(&self.data)
            .args([
                "--set",
                &format!("listeners=PLAINTEXT://{}", self.bootstrap()),
            ])
            .args(["--set", "http.listener="])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        for setting in &self.settings {
            command.args(["--set", setting]);
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        self.child = Some(command.spawn().unwrap());
    }

    /// Starts it; returns how long it took until a request was answered.
    pub fn start(&mut self) -> Duration {
        let began = Instant::now();
        self.spawn();
        if let Err(why) = self.wait_until_ready(began) {
            panic!("{why}");
        }
        began.elapsed()
    }

    /// Returns when a request is answered.
    pub fn wait_until_ready(&mut self, began: Instant) -> Result<(), String> {
        while began.elapsed() < START_WAIT {
            if answers(self.port).is_ok() {
                return Ok(());
            }
            if let Some(status) = self.child.as_mut().unwrap().try_wait().unwrap() {
                self.child = None;
                return Err(format!("the broker ended with {status}:\n{}", self.tail()));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Err(format!("not ready within {START_WAIT:?}:\n{}", self.tail()))
    }

    pub fn is_running(&mut self) -> bool {
        match &mut self.child {
            Some(child) => child.try_wait().unwrap().is_none(),
            None => false,
        }
    }

    /// SIGKILL. Fails the test if the broker had ended by itself.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("it is running");
        if let Some(status) = child.try_wait().unwrap() {
            panic!("the broker ended by itself with {status}:\n{}", self.tail());
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// SIGTERM, and SIGKILL before it is done with that, or not.
    pub fn terminate_and_kill(&mut self, after: Duration) {
        self.signal_end();
        std::thread::sleep(after);
        let mut child = self.child.take().expect("it is running");
        let _ = child.kill();
        child.wait().unwrap();
    }

    /// SIGTERM, or nothing if it has ended by itself meanwhile; does not wait for its end.
    pub fn terminate_unless_ended(&mut self) {
        if self.is_running() {
            self.signal_end();
        }
    }

    /// SIGKILL, or nothing if it has ended by itself meanwhile.
    pub fn kill_unless_ended(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            child.wait().unwrap();
        }
    }

    /// SIGTERM, and its end.
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal_end();
        self.wait_for_end(Duration::from_secs(40))
            .unwrap_or_else(|| panic!("SIGTERM did not end the broker:\n{}", self.tail()))
    }

    fn signal_end(&self) {
        let pid = Pid::from_raw(self.pid() as i32).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
    }

    /// How it ended, if it does within `patience`.
    pub fn wait_for_end(&mut self, patience: Duration) -> Option<ExitStatus> {
        let began = Instant::now();
        while began.elapsed() < patience {
            if let Some(status) = self.child.as_mut()?.try_wait().unwrap() {
                self.child = None;
                return Some(status);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        None
    }

    /// Everything that it has printed so far, over all its starts.
    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The last lines of [`Broker::said`].
    pub fn tail(&self) -> String {
        let said = self.said();
        let lines: Vec<&str> = said.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// Resident memory in bytes, as the kernel counts it.
    pub fn resident(&self) -> u64 {
        self.memory("VmRSS:")
    }

    /// The most that was ever resident, since the start or [`Broker::forget_peak`].
    pub fn peak(&self) -> u64 {
        self.memory("VmHWM:")
    }

    /// Descriptors that are open: files, sockets, pipes.
    pub fn descriptors(&self) -> usize {
        let dir = std::fs::read_dir(format!("/proc/{}/fd", self.pid()));
        dir.map_or(0, Iterator::count)
    }

    pub fn forget_peak(&self) {
        std::fs::write(format!("/proc/{}/clear_refs", self.pid()), "5").unwrap();
    }

    fn memory(&self, field: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        let kib: u64 = line
            .and_then(|line| line.split_whitespace().next()?.parse().ok())
            .unwrap_or_else(|| panic!("a running process has {field}"));
        kib * 1024
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if let Some(home) = self.home.take()
            && std::thread::panicking()
        {
            let home = home.keep();
            say(&format!(
                "the broker's files are kept in {}",
                home.display()
            ));
        }
    }
}

/// One ApiVersions round trip.
pub fn answers(port: u16) -> io::Result<()> {
    // Length, API 18, version 0, correlation id 7, no client id.
    const REQUEST: [u8; 14] = [0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 7, 0xff, 0xff];
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    stream.write_all(&REQUEST)?;
    let mut answer = [0; 10];
    stream.read_exact(&mut answer)?;
    let error = i16::from_be_bytes([answer[8], answer[9]]);
    match (&answer[4..8], error) {
        ([0, 0, 0, 7], 0) => Ok(()),
        _ => Err(io::Error::other(format!("a strange answer: {answer:?}"))),
    }
}

/// A port that is free and that no outgoing connection takes while the broker is down: below the
/// range that the kernel hands out. Each process begins somewhere else (in a process namespace its
/// id says nothing), so that another run's broker does not take it either.
fn free_port() -> u16 {
    const FIRST: u16 = 15_000;
    const COUNT: u16 = 15_000;
    static START: OnceLock<u16> = OnceLock::new();
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = *START.get_or_init(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let nanos = now.map_or(0, |now| u64::from(now.subsec_nanos()));
        (Random::new(nanos).draw() % u64::from(COUNT)) as u16
    });
    loop {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + (start + step) % COUNT;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// A line on the terminal that the test harness does not swallow.
pub fn say(line: &str) {
    let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
}
