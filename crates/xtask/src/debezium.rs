//! `cargo xtask debezium`: a Kafka Connect worker with Debezium's PostgreSQL connector and
//! `exactly.once.support=required`, while a service writes into its outbox. The worker is killed, the
//! broker is killed, a worker is stopped until another has its work; in the end every committed event
//! has to be in the topic once and in order.
//!
//! Configuration, service and judge are in conformance/debezium, and docs/debezium.md shows the same
//! files; here is what starts and kills. It takes minutes, most of them Java's, so it is no part of
//! `cargo xtask test`. With `--against kafka` the same is done to Apache Kafka, which says whether
//! the test is right.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use databases::postgresql::PostgreSql;
use rustix::process::{Pid, Signal};
use serde_json::Value;

use crate::{cargo, kafka, oncelog, process, toolbox};

const CONNECTOR: &str = "outbox";
/// The connection of a stopped worker is given up, and with it the slot, before its successor does.
const DATABASE: &[(&str, &str)] = &[("wal_sender_timeout", "10s")];
const READY_LIMIT: Duration = Duration::from_secs(90);
/// A worker that was killed has to be missed before its work is given to the next one.
const RUNNING_LIMIT: Duration = Duration::from_secs(240);
const STOP_LIMIT: Duration = Duration::from_secs(30);
const JUDGE_LIMIT: Duration = Duration::from_secs(10 * 60);
const REST_TIMEOUT: Duration = Duration::from_secs(30);
/// For an overtaken worker to do its worst.
const ZOMBIE: Duration = Duration::from_secs(5);
/// Before a kill.
const PAUSE_MS: (u64, u64) = (500, 6_000);

#[derive(clap::Args)]
pub struct Args {
    /// How often the Connect worker is killed.
    #[arg(long, default_value_t = 6)]
    kills: u32,
    /// How often the broker is killed.
    #[arg(long, default_value_t = 2)]
    broker_kills: u32,
    /// How often the worker is stopped until another has its work, and goes on then.
    #[arg(long, default_value_t = 1)]
    zombies: u32,
    /// Start this peer instead of `oncelog`.
    #[arg(long, value_enum)]
    against: Option<Peer>,
    /// This `oncelog` instead of the release binary, which is built if it has to be.
    #[arg(long, conflicts_with = "against")]
    binary: Option<PathBuf>,
    /// The same without exactly once: the judge has to find doubled events, and says that it fails.
    #[arg(long)]
    at_least_once: bool,
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
    println!(
        "--kills {} --broker-kills {} --zombies {} --seed {seed}",
        args.kills, args.broker_kills, args.zombies
    );
    let home = crate::root().join("target/debezium");
    if home.exists() {
        std::fs::remove_dir_all(&home)?;
    }
    std::fs::create_dir_all(&home)?;
    let (figures, well) = World::new(args, &home, seed)?.run(args)?;
    println!("{figures}");
    ensure!(well, "not exactly once; logs are in target/debezium");
    Ok(())
}

enum Program {
    Oncelog(PathBuf),
    Kafka,
}

/// The database, the broker on its directory and port, which it keeps, the worker and the service.
struct World {
    program: Program,
    at_least_once: bool,
    home: PathBuf,
    jars: PathBuf,
    database: PostgreSql,
    broker_address: SocketAddr,
    worker_address: SocketAddr,
    broker: Option<Child>,
    worker: Option<Child>,
    zombie: Option<Child>,
    service: Option<Child>,
    /// Tasks that Connect had given up and that were started again by its REST interface.
    restarted: u32,
    random: u64,
}

impl World {
    fn new(args: &Args, home: &Path, seed: u64) -> Result<World> {
        let program = match (args.against, &args.binary) {
            (Some(Peer::Kafka), _) => Program::Kafka,
            (None, Some(binary)) => Program::Oncelog(binary.canonicalize()?),
            (None, None) => Program::Oncelog(cargo::release_binary("oncelog")?),
        };
        toolbox::need(&[&toolbox::POSTGRESQL])?;
        let database = PostgreSql::start_with(DATABASE)?;
        let worker_port = databases::port::free()?;
        Ok(World {
            program,
            at_least_once: args.at_least_once,
            home: home.to_owned(),
            jars: toolbox::debezium_jars()?,
            database,
            worker_address: SocketAddr::from(([127, 0, 0, 1], worker_port)),
            // Last: ports are given in their order, and the next one has to stay free as well.
            broker_address: free_address()?,
            broker: None,
            worker: None,
            zombie: None,
            service: None,
            restarted: 0,
            random: seed,
        })
    }

    /// The line of figures, and whether they are what they have to be.
    fn run(&mut self, args: &Args) -> Result<(String, bool)> {
        self.database
            .sql(&std::fs::read_to_string(resource("shop.sql"))?)?;
        self.start_broker()?;
        self.start_worker()?;
        self.register()?;
        self.await_running(None)?;
        let mut before = self.delivered()?;
        self.start_service()?;
        for victim in self.victims(args) {
            // One in three does not get to deliver anything: it dies while it starts or catches up.
            if !self.draw().is_multiple_of(3) {
                self.await_running(Some(&before))?;
            }
            self.pause();
            match victim {
                Victim::Worker => {
                    kill("the worker", &mut self.worker)?;
                    self.start_worker()?;
                }
                Victim::Broker => {
                    kill("the broker", &mut self.broker)?;
                    self.start_broker()?;
                }
                Victim::Zombie => self.overtake()?,
            }
            before = self.delivered()?;
        }
        self.await_running(Some(&before))?;
        self.pause();
        let written = self.stop_service()?;
        let mut judge = self.shop("judge")?;
        judge.arg(self.broker_address.to_string());
        let mut figures = String::new();
        let well = process::run_lines(&mut judge, JUDGE_LIMIT, |line| figures.push_str(line))?;
        ensure!(!figures.is_empty(), "the judge came to no judgement");
        Ok((
            format!(
                "worker killed {} times and overtaken {} times, broker killed {} times, \
                 failed tasks restarted {}; {written}; {figures}",
                args.kills, args.zombies, args.broker_kills, self.restarted
            ),
            well,
        ))
    }

    /// Whom to do what, in an order of chance.
    fn victims(&mut self, args: &Args) -> Vec<Victim> {
        let mut left = Vec::new();
        for (victim, times) in [
            (Victim::Worker, args.kills),
            (Victim::Broker, args.broker_kills),
            (Victim::Zombie, args.zombies),
        ] {
            left.extend((0..times).map(|_| victim));
        }
        let mut victims = Vec::new();
        while !left.is_empty() {
            let chosen = self.draw() as usize % left.len();
            victims.push(left.swap_remove(chosen));
        }
        victims
    }

    /// Stops the worker in the middle of its work; goes on with it when another one delivers, which has
    /// to have fenced it by then; and kills it.
    fn overtake(&mut self) -> Result<()> {
        let worker = self.worker.take().context("the worker runs")?;
        let pid = i32::try_from(worker.id()).ok().and_then(Pid::from_raw);
        let pid = pid.context("a process id")?;
        self.zombie = Some(worker);
        rustix::process::kill_process(pid, Signal::STOP)?;
        self.worker_address.set_port(databases::port::free()?);
        let before = self.delivered()?;
        self.start_worker()?;
        self.await_running(Some(&before))?;
        rustix::process::kill_process(pid, Signal::CONT)?;
        std::thread::sleep(ZOMBIE);
        kill("the overtaken worker", &mut self.zombie)
    }

    fn start_broker(&mut self) -> Result<()> {
        let home = self.home.join("broker");
        let mut command = match &self.program {
            Program::Oncelog(binary) => {
                oncelog::command(binary, &home, self.broker_address, &[] as &[&str])?
            }
            Program::Kafka => {
                kafka::prepare(&home, self.broker_address.port(), &[], &["-Xmx512M"])?
            }
        };
        let child = self.broker.insert(process::spawn(&mut command)?);
        answers("the broker", child, self.broker_address)
    }

    fn start_worker(&mut self) -> Result<()> {
        let file = self.home.join("worker.properties");
        let mut properties = std::fs::read_to_string(resource("worker.properties"))?;
        // The last value of a property counts.
        properties.push_str(&format!(
            "bootstrap.servers={}\nlisteners=http://{}\n",
            self.broker_address, self.worker_address
        ));
        if self.at_least_once {
            properties.push_str("exactly.once.source.support=disabled\n");
        }
        std::fs::write(&file, properties)?;
        let mut java = self.java("INFO", "512M")?;
        java.args(["org.apache.kafka.connect.cli.ConnectDistributed"]);
        java.arg(&file);
        let log = append(&self.home.join("worker.log"))?;
        java.stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let child = self.worker.insert(process::spawn(&mut java)?);
        answers("the worker", child, self.worker_address)
    }

    /// Hands over the connector, as soon as the worker is a member of its group.
    fn register(&mut self) -> Result<()> {
        let text = std::fs::read_to_string(resource("connector.json"))?;
        let mut config: Value = serde_json::from_str(&text)?;
        config["database.port"] = self.database.port().to_string().into();
        if self.at_least_once {
            config["exactly.once.support"] = "requested".into();
        }
        let path = format!("/connectors/{CONNECTOR}/config");
        let began = Instant::now();
        loop {
            self.worker_lives()?;
            let answer = self.rest("PUT", &path, &config.to_string());
            match answer {
                Ok((200 | 201, _)) => return Ok(()),
                Ok((400, said)) => bail!("the connector is refused: {said}"),
                _ if began.elapsed() < RUNNING_LIMIT => {}
                Ok((status, said)) => bail!("the connector is not taken: {status} {said}"),
                Err(error) => return Err(error.context("the connector is not taken")),
            }
            std::thread::sleep(Duration::from_millis(500));
        }
    }

    fn pause(&mut self) {
        let pause = PAUSE_MS.0 + self.draw() % (PAUSE_MS.1 - PAUSE_MS.0);
        std::thread::sleep(Duration::from_millis(pause));
    }

    /// Up to where the connector has confirmed the database's log, which it does for what is committed
    /// in the topic.
    fn delivered(&self) -> Result<String> {
        self.database
            .sql("SELECT confirmed_flush_lsn FROM pg_replication_slots")
    }

    /// Waits until the task runs, and has delivered more than `before`; what has failed is started
    /// again.
    fn await_running(&mut self, before: Option<&str>) -> Result<()> {
        let began = Instant::now();
        let mut last = String::new();
        while began.elapsed() < RUNNING_LIMIT {
            if let Some(status) = self
                .worker
                .as_mut()
                .context("the worker runs")?
                .try_wait()?
            {
                bail!("the worker ended with {status}; see target/debezium/worker.log");
            }
            let path = format!("/connectors/{CONNECTOR}/status");
            match self.rest("GET", &path, "") {
                Ok((200, said)) => {
                    let status: Value = serde_json::from_str(&said)?;
                    let states = [&status["connector"]["state"], &status["tasks"][0]["state"]];
                    // Until the new worker knows better, what the dead one said of its task is told.
                    if states.iter().all(|state| *state == "RUNNING")
                        && self.delivered()? != before.unwrap_or_default()
                    {
                        return Ok(());
                    }
                    if states.iter().any(|state| *state == "FAILED") {
                        self.restart_failed(&status);
                    }
                    last = said;
                }
                Ok((status, said)) => last = format!("{status} {said}"),
                Err(error) => last = format!("{error:#}"),
            }
            std::thread::sleep(Duration::from_millis(250));
        }
        bail!("the connector does not run and deliver; its worker says: {last}")
    }

    fn worker_lives(&mut self) -> Result<()> {
        let worker = self.worker.as_mut().context("the worker runs")?;
        if let Some(status) = worker.try_wait()? {
            bail!("the worker ended with {status}; see target/debezium/worker.log");
        }
        Ok(())
    }

    fn restart_failed(&mut self, status: &Value) {
        let failed = status["tasks"][0]["trace"].as_str().unwrap_or_default();
        println!("failed: {}", failed.lines().next().unwrap_or_default());
        let path = format!("/connectors/{CONNECTOR}/restart?includeTasks=true&onlyFailed=true");
        if let Ok((200..300, _)) = self.rest("POST", &path, "") {
            self.restarted += 1;
        }
        // Or it would be asked again before it has begun.
        std::thread::sleep(Duration::from_secs(2));
    }

    fn start_service(&mut self) -> Result<()> {
        let seed = self.draw() >> 1;
        let mut write = self.shop("write")?;
        write.arg(seed.to_string()).stdin(Stdio::piped());
        write.stdout(File::create(self.home.join("written"))?);
        self.service = Some(process::spawn(&mut write)?);
        Ok(())
    }

    /// What it says that it has written.
    fn stop_service(&mut self) -> Result<String> {
        let mut service = self.service.take().context("the service runs")?;
        // It writes until its input ends.
        drop(service.stdin.take());
        let status = service.wait()?;
        ensure!(status.success(), "the service ended with {status}");
        let said = std::fs::read_to_string(self.home.join("written"))?;
        Ok(said.trim().to_owned())
    }

    /// Shop.java, as a service or as the judge.
    fn shop(&self, what: &str) -> Result<Command> {
        let mut java = self.java("ERROR", "256M")?;
        java.arg(resource("Shop.java")).arg(what);
        let port = self.database.port();
        java.arg(format!(
            "jdbc:postgresql://127.0.0.1:{port}/postgres?user=postgres"
        ));
        Ok(java)
    }

    fn java(&self, log_level: &str, heap: &str) -> Result<Command> {
        let mut java = toolbox::java_of(&self.jars, &[], log_level, heap);
        // A small machine, and programs that do not run for long.
        java.args(["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]);
        Ok(java)
    }

    /// Status and body of a request to Connect's REST interface.
    fn rest(&self, method: &str, path: &str, body: &str) -> Result<(u16, String)> {
        let mut socket = TcpStream::connect(self.worker_address)?;
        socket.set_read_timeout(Some(REST_TIMEOUT))?;
        // With HTTP/1.0 the answer comes in one piece, and the connection ends with it.
        write!(
            socket,
            "{method} {path} HTTP/1.0\r\nHost: {}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            self.worker_address,
            body.len()
        )?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer)?;
        let status = answer.split_whitespace().nth(1);
        let status = status.context("an answer in HTTP")?.parse()?;
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        Ok((status, body.to_owned()))
    }

    /// SplitMix64.
    fn draw(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(mut zombie) = self.zombie.take() {
            // It may be stopped, and would not hear anything else.
            let _ = zombie.kill();
            let _ = zombie.wait();
        }
        let children = [&mut self.service, &mut self.worker, &mut self.broker];
        for child in children.into_iter().filter_map(Option::as_mut) {
            let _ = process::stop(child, STOP_LIMIT);
        }
    }
}

#[derive(Clone, Copy)]
enum Victim {
    Worker,
    Broker,
    Zombie,
}

/// SIGKILL.
fn kill(name: &str, child: &mut Option<Child>) -> Result<()> {
    let mut child = child.take().with_context(|| format!("{name} runs"))?;
    if let Some(status) = child.try_wait()? {
        bail!("{name} had ended by itself, with {status}");
    }
    child.kill()?;
    child.wait()?;
    Ok(())
}

/// Waits until it takes connections.
fn answers(name: &str, child: &mut Child, address: SocketAddr) -> Result<()> {
    let began = Instant::now();
    while TcpStream::connect(address).is_err() {
        if let Some(status) = child.try_wait()? {
            bail!("{name} ended with {status}; logs are in target/debezium");
        }
        ensure!(began.elapsed() < READY_LIMIT, "{name} does not answer");
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn resource(name: &str) -> PathBuf {
    crate::root().join("conformance/debezium").join(name)
}

fn append(path: &Path) -> Result<File> {
    let file = File::options().create(true).append(true).open(path);
    file.with_context(|| path.display().to_string())
}

/// A port that is free, and the next one as well: Kafka's controller takes that.
fn free_address() -> Result<SocketAddr> {
    for _ in 0..100 {
        let port = databases::port::free()?;
        if TcpListener::bind(("127.0.0.1", port + 1)).is_ok() {
            return Ok(SocketAddr::from(([127, 0, 0, 1], port)));
        }
    }
    bail!("no two ports beside each other are free")
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_guide_shows_what_is_run() {
        let guide = crate::root().join("docs/debezium.md");
        let guide = std::fs::read_to_string(guide).unwrap();
        for name in ["worker.properties", "connector.json"] {
            let file = std::fs::read_to_string(super::resource(name)).unwrap();
            assert!(guide.contains(&file), "docs/debezium.md has another {name}");
        }
    }
}
