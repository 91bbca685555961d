//! A whole pipeline: two databases, a broker, a relay, a sink, and the application's writers.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::broker::{Broker, Foreign};
use crate::combination::{Combination, Engine, Level, Source, Target};
use crate::process::{Process, Program};
use crate::server::Server;
use crate::sql::Connection;
use crate::tables;
use crate::writers::Outlet;

/// Of the topic, so that there is more than one place to be in.
pub const PARTITIONS: i32 = 3;
const NAME: &str = "campaign";
const MESSAGE_PREFIX: &str = "outbox";
/// Of a relay that reads a log.
const LOG: &str = "capture = \"cdc\"\nheartbeat.interval.ms = 500";
/// A start of relay and sink, their first connections included.
const START: Duration = Duration::from_secs(60);

/// A kind of process of which there may be two for a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Of a shard.
    Relay(usize),
    Sink,
}

pub struct World {
    pub combination: Combination,
    pub level: Level,
    pub home: PathBuf,
    pub topic: String,
    pub source: Server,
    pub target: Server,
    pub broker: Broker,
    /// One for each shard.
    pub relays: Vec<Running>,
    pub sink: Running,
    binary: PathBuf,
    pipeline: PathBuf,
}

/// The program, and the process while there is one.
pub struct Running {
    pub program: Program,
    pub process: Option<Process>,
}

impl World {
    /// Everything is started, and the relay is where it will not miss an event.
    pub fn start(
        combination: Combination,
        level: Level,
        binary: &Path,
        home: &Path,
        foreign: Option<&Foreign>,
    ) -> Result<World> {
        let source = Server::start(combination.source.engine(), &home.join("source.db"))?;
        let target = Server::start(combination.target.engine, &home.join("target.db"))?;
        let broker = match foreign {
            Some(foreign) => Broker::foreign(foreign, home)?,
            None => Broker::oncelog(binary, home)?,
        };
        let pipeline = home.join("pipeline.toml");
        let file = pipeline.display().to_string();
        let program = |name: &str, verb: &str, more: &[&str]| {
            let args = [&[verb, "--config", &file, NAME], more].concat();
            Running {
                program: Program::new(name, binary, &args, home),
                process: None,
            }
        };
        let relay = |shard: u32| {
            let shard = shard.to_string();
            program(&format!("relay-{shard}"), "relay", &["--shard", &shard])
        };
        // A broker that several combinations share has a topic and a progress topic for each.
        let topic = format!("{combination}-{level}-{}", std::process::id()).replace(':', "-");
        let mut world = World {
            combination,
            level,
            home: home.to_owned(),
            topic,
            source,
            target,
            broker,
            relays: (0..combination.source.shards()).map(relay).collect(),
            sink: program("sink", "sink", &[]),
            binary: binary.to_owned(),
            pipeline,
        };
        world.prepare()?;
        Ok(world)
    }

    fn prepare(&mut self) -> Result<()> {
        self.broker.start()?;
        std::fs::write(&self.pipeline, self.file())?;
        let mut source = self.source.connect()?;
        tables::make_application(&mut source, self.combination.source.engine())?;
        tables::make_target(&mut self.target.connect()?, self.combination.target)?;
        let file = self.pipeline.display().to_string();
        for verb in ["outbox", "sink"] {
            Program::run(
                &self.binary,
                &[verb, "init", "--apply", "--config", &file, NAME],
            )?;
        }
        let partitions = PARTITIONS.to_string();
        let bootstrap = self.broker.bootstrap();
        let create = [
            "topic",
            "create",
            &self.topic,
            "-p",
            &partitions,
            "-b",
            bootstrap,
        ];
        Program::run(&self.binary, &create)?;
        for relay in &mut self.relays {
            relay.process = Some(relay.program.start()?);
        }
        self.sink.process = Some(self.sink.program.start()?);
        self.await_beginning(&mut source)
    }

    /// What reads a log begins where it is when it is started: what was written before is not in it.
    fn await_beginning(&mut self, source: &mut Connection) -> Result<()> {
        let query = match self.combination.source {
            Source::PostgresCdc | Source::PostgresMessages => {
                "SELECT count(*) FROM pg_replication_slots WHERE active"
            }
            Source::MariaDbBinlog | Source::MariaDbShards => {
                "SELECT count(*) FROM oncelog_outbox_position"
            }
            _ => return Ok(()),
        };
        let began = Instant::now();
        while source.value(query)?.parse::<usize>()? < self.relays.len() {
            for role in self.roles() {
                self.running(role).check()?;
            }
            if began.elapsed() > START {
                let said = self.relays[0].process.as_ref().map(Process::last_words);
                bail!("the relay does not begin:\n{}", said.unwrap_or_default());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    pub fn outlet(&self) -> Outlet {
        Outlet {
            url: self.source.url(),
            combination: self.combination,
            prefix: MESSAGE_PREFIX.to_owned(),
        }
    }

    pub fn roles(&self) -> Vec<Role> {
        let relays = (0..self.relays.len()).map(Role::Relay);
        relays.chain([Role::Sink]).collect()
    }

    pub fn running(&mut self, role: Role) -> &mut Running {
        match role {
            Role::Relay(shard) => &mut self.relays[shard],
            Role::Sink => &mut self.sink,
        }
    }

    /// Small batches, so that transactions are cut in two; heartbeats, so that those are in between.
    fn file(&self) -> String {
        let World { level, topic, .. } = self;
        let capture = match self.combination.source {
            Source::Sqlite => String::new(),
            Source::PostgresCdc | Source::MariaDbBinlog | Source::MariaDbShards => LOG.to_owned(),
            Source::PostgresMessages => {
                format!("{LOG}\ntable = \"\"\nmessage.prefix = \"{MESSAGE_PREFIX}\"")
            }
            Source::PostgresPolling | Source::PostgresShards | Source::MariaDbPolling => {
                "capture = \"polling\"".to_owned()
            }
        };
        let Target { upsert, .. } = self.combination.target;
        let columns = match upsert {
            true => "version = \"value.version\"",
            false => {
                "payload = \"value\"\nfrom_partition = \"partition\"\nfrom_offset = \"offset\""
            }
        };
        let mode = match upsert {
            true => "mode = \"upsert\"\nkey.columns = [\"account\"]",
            false => "mode = \"insert\"",
        };
        format!(
            r#"bootstrap.servers = "{bootstrap}"

[[relay]]
name = "{NAME}"
database = "{source}"
{capture}
delivery = "{level}"
shards = {shards}
transactional.id = "{topic}"
progress.topic = "{topic}.progress"
batch.max.rows = 50
router.route.topic.replacement = "{topic}"

[[sink]]
name = "{NAME}"
topics = ["{topic}"]
group.id = "{topic}"
database = "{target}"
table = "received"
{mode}
delivery = "{level}"
batch.max.rows = 40
properties.session.timeout.ms = 2000
properties.heartbeat.interval.ms = 400
[sink.columns]
event_id = "header.id"
account = "key"
{columns}
"#,
            bootstrap = self.broker.bootstrap(),
            shards = self.relays.len(),
            source = self.source.url(),
            target = self.target.url(),
        )
    }

    /// What is needed to look into a run that failed: what the servers said.
    pub fn keep_logs(&self) {
        for (server, name) in [(&self.source, "source.log"), (&self.target, "target.log")] {
            if let Err(error) = server.keep_log(&self.home.join(name)) {
                eprintln!("{name}: {error:#}");
            }
        }
    }

    /// Whether this kind of server can be there at all. Errors: what is missing.
    pub fn probe(engine: Engine, home: &Path) -> Result<()> {
        Server::start(engine, &home.join("probe.db"))
            .map(drop)
            .context("a server to test with")
    }
}

impl Running {
    /// Errors: it has ended by itself, and its last words; it is started again.
    pub fn check(&mut self) -> Result<()> {
        let Some(process) = &mut self.process else {
            return Ok(());
        };
        let Some(status) = process.ended() else {
            return Ok(());
        };
        let (name, log) = (self.program.name.clone(), process.log.clone());
        let words = process.last_words();
        let file = log.file_name().unwrap_or_default().display().to_string();
        self.process = Some(self.program.start()?);
        bail!("{name} ended by itself with {status} ({file}):\n{words}");
    }
}
