//! `cargo xtask streams`: a Kafka Streams word count with exactly_once_v2, two instances of it, and
//! SIGKILLs of them and of the broker while lines come in; in the end every count has to be exact.
//!
//! The application, its input and its judge are conformance/java/smoke/WordCount.java; here is what
//! starts and kills. It takes minutes, most of them Java's, so it is no part of `cargo xtask test`.
//! With `--against kafka` the same is done to Apache Kafka, which says whether the test is right.

use std::fs::File;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};

use crate::tally::Tally;
use crate::{cargo, kafka, oncelog, process, toolbox};

const ID: &str = "word-count";
const INSTANCES: usize = 2;
const READY_LIMIT: Duration = Duration::from_secs(90);
const STOP_LIMIT: Duration = Duration::from_secs(60);
/// Beyond the time that the input takes: what a killed instance held is worked off.
const PATIENCE: Duration = Duration::from_secs(10 * 60);
/// A small machine's two virtual machines take seconds to begin; less would only kill beginners.
const PAUSE_MS: (u64, u64) = (3_000, 12_000);

#[derive(clap::Args)]
pub struct Args {
    /// For how long lines come in, and something is killed every few seconds.
    #[arg(long, default_value_t = 180)]
    seconds: u64,
    /// Start this peer instead of `oncelog`.
    #[arg(long, value_enum)]
    against: Option<Peer>,
    /// This `oncelog` instead of the release binary, which is built if it has to be.
    #[arg(long, conflicts_with = "against")]
    binary: Option<PathBuf>,
    /// Repeats the choices of a run that printed it.
    #[arg(long)]
    seed: Option<u64>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Peer {
    /// Apache Kafka, as `cargo xtask kafka start` starts it
    Kafka,
}

pub fn run(args: &Args) -> Result<()> {
    let seed = args.seed.unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        now.map_or(1, |now| u64::from(now.subsec_nanos()))
    });
    println!("--seconds {} --seed {seed}", args.seconds);
    let home = crate::root().join("target/streams");
    if home.exists() {
        std::fs::remove_dir_all(&home)?;
    }
    std::fs::create_dir_all(&home)?;
    let mut world = World::new(args, &home)?;
    let tally = world.run(args.seconds, seed)?;
    ensure!(
        tally.failed == 0 && tally.passed > 0,
        "the counts are not exact; logs are in target/streams"
    );
    Ok(())
}

enum Program {
    Oncelog(PathBuf),
    Kafka,
}

/// The broker on its directory and port, which it keeps, and the instances of the application.
struct World {
    program: Program,
    home: PathBuf,
    classes: PathBuf,
    address: SocketAddr,
    broker: Option<Child>,
    instances: Vec<Option<Child>>,
    kills: [u32; 2],
}

impl World {
    fn new(args: &Args, home: &Path) -> Result<World> {
        let program = match (args.against, &args.binary) {
            (Some(Peer::Kafka), _) => Program::Kafka,
            (None, Some(binary)) => Program::Oncelog(binary.canonicalize()?),
            (None, None) => Program::Oncelog(cargo::release_binary("oncelog")?),
        };
        Ok(World {
            program,
            home: home.to_owned(),
            classes: toolbox::java_smoke()?,
            address: free_address()?,
            broker: None,
            instances: (0..INSTANCES).map(|_| None).collect(),
            kills: [0, 0],
        })
    }

    fn run(&mut self, seconds: u64, seed: u64) -> Result<Tally> {
        self.start_broker()?;
        let mut make = self.word_count("make")?;
        process::run(&mut make, PATIENCE)?;
        for instance in 0..INSTANCES {
            self.start_instance(instance)?;
        }
        let mut feed = self.word_count("feed")?;
        feed.arg(seconds.to_string());
        feed.stdin(Stdio::null())
            .stdout(File::create(self.home.join("feed"))?);
        let mut feed = process::spawn(&mut feed)?;
        let outcome = self.kill_until_fed(&mut feed, seed);
        if outcome.is_err() {
            let _ = process::stop(&mut feed, Duration::ZERO);
        }
        outcome?;
        let said = std::fs::read_to_string(self.home.join("feed"))?;
        let fed = said.lines().find_map(|line| line.strip_prefix("fed "));
        let fed = fed.context("the input was not sent whole")?.to_owned();
        println!(
            "killed: the broker {} times, an instance {} times; {fed} lines",
            self.kills[0], self.kills[1]
        );
        let mut judge = self.word_count("judge")?;
        judge.arg(fed);
        let mut tally = Tally::default();
        process::run_lines(&mut judge, PATIENCE, |line| {
            println!("{line}");
            tally.count_check(line);
        })?;
        Ok(tally)
    }

    fn kill_until_fed(&mut self, feed: &mut Child, seed: u64) -> Result<()> {
        let mut random = seed;
        let began = Instant::now();
        loop {
            let pause = PAUSE_MS.0 + draw(&mut random) % (PAUSE_MS.1 - PAUSE_MS.0);
            let until = Instant::now() + Duration::from_millis(pause);
            while Instant::now() < until {
                if let Some(status) = feed.try_wait()? {
                    ensure!(status.success(), "the input ended with {status}");
                    return Ok(());
                }
                std::thread::sleep(Duration::from_millis(100));
            }
            ensure!(
                began.elapsed() < PATIENCE * 6,
                "the input is not sent to its end"
            );
            match draw(&mut random) % 5 {
                0 | 1 => self.kill_broker()?,
                2 | 3 => self.kill_instance(draw(&mut random) as usize % INSTANCES)?,
                _ => {
                    self.kill_instance(draw(&mut random) as usize % INSTANCES)?;
                    self.kill_broker()?;
                }
            }
        }
    }

    fn start_broker(&mut self) -> Result<()> {
        let mut command = match &self.program {
            Program::Oncelog(binary) => {
                oncelog::command(binary, &self.home, self.address, &[] as &[&str])?
            }
            Program::Kafka => kafka::prepare(&self.home, self.address.port(), &[], &["-Xmx512M"])?,
        };
        let child = self.broker.insert(process::spawn(&mut command)?);
        let began = Instant::now();
        while TcpStream::connect(self.address).is_err() {
            if let Some(status) = child.try_wait()? {
                bail!(
                    "the broker ended with {status}; see {}",
                    self.home.display()
                );
            }
            ensure!(began.elapsed() < READY_LIMIT, "the broker does not answer");
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    fn kill_broker(&mut self) -> Result<()> {
        let mut child = self.broker.take().context("the broker runs")?;
        if let Some(status) = child.try_wait()? {
            bail!("the broker had ended by itself, with {status}");
        }
        child.kill()?;
        child.wait()?;
        self.kills[0] += 1;
        self.start_broker()
    }

    fn start_instance(&mut self, number: usize) -> Result<()> {
        let mut app = self.word_count("app")?;
        app.arg(self.home.join(format!("state-{number}")));
        let log = self.home.join(format!("app-{number}.log"));
        let log = File::options().create(true).append(true).open(log)?;
        app.stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        self.instances[number] = Some(process::spawn(&mut app)?);
        Ok(())
    }

    fn kill_instance(&mut self, number: usize) -> Result<()> {
        if let Some(mut child) = self.instances[number].take() {
            if let Some(status) = child.try_wait()? {
                bail!("an instance had ended by itself, with {status}");
            }
            child.kill()?;
            child.wait()?;
            self.kills[1] += 1;
        }
        self.start_instance(number)
    }

    fn word_count(&self, what: &str) -> Result<Command> {
        let mut java = toolbox::java(&[&self.classes], "WARN", "256M")?;
        java.args(["-XX:+UseSerialGC", "smoke.WordCount", what]);
        java.arg(self.address.to_string()).arg(ID);
        Ok(java)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let instances = self.instances.iter_mut().filter_map(Option::as_mut);
        for child in instances.chain(self.broker.as_mut()) {
            let _ = process::stop(child, STOP_LIMIT);
        }
    }
}

/// A port that is free, and the next one as well: Kafka's controller takes that. Below those that
/// the kernel gives to outgoing connections, so that it is free again after each kill.
fn free_address() -> Result<SocketAddr> {
    for port in (20_000..30_000).step_by(2) {
        let both = [port, port + 1];
        let free = both.map(|port| TcpListener::bind(("127.0.0.1", port)).is_ok());
        if free == [true, true] {
            return Ok(SocketAddr::from(([127, 0, 0, 1], port)));
        }
    }
    bail!("no port is free")
}

/// SplitMix64.
fn draw(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
