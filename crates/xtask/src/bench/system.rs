//! The systems under measurement: Apache Kafka, Oncelog, and the floor (a stub; see bench/).
//!
//! Each starts on a free port in a directory of its own under target/bench, and is killed and
//! removed when dropped. Kafka has its own defaults and the options of its own start script, but
//! for what `settings` names.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail, ensure};

use super::client;
use crate::{kafka, oncelog, process};

const READY_LIMIT: Duration = Duration::from_secs(120);

/// What kafka-server-start.sh and kafka-run-class.sh give the virtual machine.
pub const JVM: [&str; 7] = [
    "-Xmx1G",
    "-Xms1G",
    "-server",
    "-XX:+UseG1GC",
    "-XX:MaxGCPauseMillis=20",
    "-XX:InitiatingHeapOccupancyPercent=35",
    "-XX:+ExplicitGCInvokesConcurrent",
];

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum System {
    Kafka,
    Oncelog,
    Floor,
}

impl System {
    pub fn name(self) -> &'static str {
        match self {
            System::Kafka => "kafka",
            System::Oncelog => "oncelog",
            System::Floor => "floor",
        }
    }
}

/// What an acknowledgement means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// In the page cache: a crash of the machine may take it.
    PageCache,
    /// On the disk.
    Fsync,
}

impl Durability {
    fn setting(self) -> String {
        let messages = match self {
            Durability::PageCache => i64::MAX,
            Durability::Fsync => 1,
        };
        format!("log.flush.interval.messages={messages}")
    }
}

/// The directory of everything that a run makes.
pub fn bench_dir() -> PathBuf {
    crate::root().join("target/bench")
}

/// The settings of one broker of this kind, apart from ports and paths.
pub fn settings(system: System, durability: Durability) -> Vec<String> {
    // Data of a measurement that is over goes at once: what it leaves in memory would be paid for by
    // the next one. Kafka's default is a minute, and so is Oncelog's.
    let mut settings = vec![
        durability.setting(),
        "log.segment.delete.delay.ms=100".into(),
    ];
    if system == System::Kafka {
        // Undo what `cargo xtask kafka` makes smaller. The rebalance delay stays 0, as Oncelog's
        // is: 3 s of waiting would be no measurement.
        settings.push("offsets.topic.num.partitions=50".into());
        settings.push("transaction.state.log.num.partitions=50".into());
    }
    settings
}

/// What is run: brokers, measuring programs, the client of the throughput rows.
pub struct Binaries {
    pub dir: PathBuf,
    pub client: PathBuf,
}

const PACKAGES: [&str; 2] = ["oncelog", "oncelog-bench"];

impl Binaries {
    pub fn build() -> Result<Binaries> {
        let dir = crate::cargo::build_packages(&PACKAGES)?;
        let client = client::build(&PACKAGES)?;
        Ok(Binaries { dir, client })
    }

    /// A measuring program.
    pub fn probe(&self, name: &str) -> Command {
        let mut command = Command::new(self.dir.join("oncelog-bench"));
        command.arg(name);
        command
    }
}

/// A broker that runs, or that has been prepared to.
pub struct Broker {
    pub system: System,
    pub durability: Durability,
    pub address: SocketAddr,
    home: PathBuf,
    binary_dir: PathBuf,
    child: Option<Child>,
}

impl Broker {
    /// On a new data directory; it does not run yet.
    pub fn prepare(binaries: &Binaries, system: System, durability: Durability) -> Result<Broker> {
        let home = bench_dir().join(format!("{}-{durability:?}", system.name()).to_lowercase());
        if home.exists() {
            std::fs::remove_dir_all(&home)?;
        }
        let mut broker = Broker {
            system,
            durability,
            address: free_address()?,
            home,
            binary_dir: binaries.dir.clone(),
            child: None,
        };
        // Formats Kafka's directory, which is not a part of any start that is measured.
        broker.command()?;
        Ok(broker)
    }

    /// Prepared, started, and answering.
    pub fn start(binaries: &Binaries, system: System, durability: Durability) -> Result<Broker> {
        let mut broker = Broker::prepare(binaries, system, durability)?;
        broker.spawn()?;
        broker.wait()?;
        Ok(broker)
    }

    fn command(&mut self) -> Result<Command> {
        let settings = settings(self.system, self.durability);
        match self.system {
            System::Kafka => kafka::prepare(&self.home, self.address.port(), &settings, &JVM),
            System::Oncelog => {
                let binary = self.binary_dir.join("oncelog");
                oncelog::command(&binary, &self.home, self.address, &settings)
            }
            System::Floor => self.floor(),
        }
    }

    fn floor(&self) -> Result<Command> {
        std::fs::create_dir_all(&self.home)?;
        let mut command = Command::new(self.binary_dir.join("oncelog-bench"));
        command
            .args(["floor", "--port"])
            .arg(self.address.port().to_string());
        command.arg("--dir").arg(self.home.join("data"));
        if self.durability == Durability::Fsync {
            command.arg("--fsync");
        }
        let log = std::fs::File::create(self.home.join("log"))?;
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        Ok(command)
    }

    /// Starts the process; when that was.
    pub fn spawn(&mut self) -> Result<SystemTime> {
        let mut command = self.command()?;
        let now = SystemTime::now();
        self.child = Some(process::spawn(&mut command)?);
        Ok(now)
    }

    fn wait(&mut self) -> Result<()> {
        let started = Instant::now();
        while std::net::TcpStream::connect(self.address).is_err() {
            if let Some(status) = self
                .child
                .as_mut()
                .map(Child::try_wait)
                .transpose()?
                .flatten()
            {
                bail!(
                    "{} ended with {status}; see {}",
                    self.system.name(),
                    self.home.display()
                );
            }
            ensure!(
                started.elapsed() < READY_LIMIT,
                "{} does not answer; see {}",
                self.system.name(),
                self.home.display()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    pub fn pid(&self) -> Result<u32> {
        self.child
            .as_ref()
            .map(Child::id)
            .context("the broker does not run")
    }

    /// SIGKILL.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.kill();
        let _ = std::fs::remove_dir_all(self.home.join("data"));
    }
}

/// A free port whose successor is free too: Kafka's controller takes that one.
fn free_address() -> Result<SocketAddr> {
    loop {
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let Some(next) = address.port().checked_add(1) else {
            continue;
        };
        if TcpListener::bind(("127.0.0.1", next)).is_ok() {
            return Ok(address);
        }
    }
}
