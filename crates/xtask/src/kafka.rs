//! `cargo xtask kafka start|stop`: Apache Kafka from its published jars, as a peer to compare with.
//!
//! One broker and controller in one process, with its data in target/kafka. Settings are Kafka's
//! own defaults but for what a single node needs. `start` returns when it answers.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal};

use crate::{process, toolbox};

const READY_LIMIT: Duration = Duration::from_secs(60);
const STOP_LIMIT: Duration = Duration::from_secs(60);

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// Start it in the background, on a new data directory unless --keep is given.
    Start {
        /// Its port on 127.0.0.1; the controller takes the next one.
        #[arg(long, default_value_t = PORT)]
        port: u16,
        /// Keep the data of the last start.
        #[arg(long)]
        keep: bool,
        /// A broker setting, key=value; may be repeated.
        #[arg(long = "set", value_name = "KEY=VALUE")]
        settings: Vec<String>,
    },
    /// Stop it, with SIGTERM first.
    Stop,
}

pub const PORT: u16 = 19092;

pub fn run(args: &Args) -> Result<()> {
    match &args.what {
        What::Start {
            port,
            keep,
            settings,
        } => {
            let bootstrap = start(*port, *keep, settings)?;
            println!("Apache Kafka answers at {bootstrap}; data and log are in target/kafka");
            Ok(())
        }
        What::Stop => stop(),
    }
}

fn home() -> PathBuf {
    crate::root().join("target/kafka")
}

/// Starts the peer and returns its bootstrap address.
pub fn start(port: u16, keep: bool, settings: &[String]) -> Result<String> {
    ensure!(
        running()?.is_none(),
        "it is running already; `cargo xtask kafka stop` stops it"
    );
    // Otherwise somebody else's answer on the port would pass for Kafka's below.
    for port in [port, port + 1] {
        TcpListener::bind(("127.0.0.1", port))
            .with_context(|| format!("port {port} is taken; --port chooses another"))?;
    }
    if !keep && home().exists() {
        std::fs::remove_dir_all(home())?;
    }
    let mut java = prepare(&home(), port, settings, &["-Xmx512M"])?;
    let mut child = process::spawn_apart(&mut java)?;
    std::fs::write(home().join("pid"), child.id().to_string())?;
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let started = Instant::now();
    while TcpStream::connect(address).is_err() {
        if let Some(status) = child.try_wait()? {
            bail!("Kafka ended with {status}; see target/kafka/kafka.log");
        }
        ensure!(
            started.elapsed() < READY_LIMIT,
            "Kafka does not answer within {} s; see target/kafka/kafka.log",
            READY_LIMIT.as_secs()
        );
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(address.to_string())
}

/// The command that starts a broker in `home`, which is made ready for it: configuration, and a
/// formatted data directory if it has none. Its output goes to kafka.log there. A setting given
/// twice has its last value.
pub fn prepare(home: &Path, port: u16, settings: &[String], jvm: &[&str]) -> Result<Command> {
    std::fs::create_dir_all(home)?;
    let properties = home.join("server.properties");
    let data = home.join("data");
    std::fs::write(&properties, server_properties(&data, port, settings))?;
    if !data.join("meta.properties").exists() {
        format(&properties)?;
    }
    let log = std::fs::File::create(home.join("kafka.log"))?;
    let mut java = toolbox::java(&[], "INFO", "512M")?;
    // The last -Xmx counts.
    java.args(jvm).arg("kafka.Kafka").arg(&properties);
    java.stdin(Stdio::null());
    java.stdout(log.try_clone()?).stderr(log);
    Ok(java)
}

fn server_properties(data: &Path, port: u16, settings: &[String]) -> String {
    let mut text = format!(
        "process.roles=broker,controller\n\
         node.id=1\n\
         listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n\
         advertised.listeners=PLAINTEXT://127.0.0.1:{port}\n\
         controller.listener.names=CONTROLLER\n\
         controller.quorum.bootstrap.servers=127.0.0.1:{controller}\n\
         listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT\n\
         log.dirs={data}\n\
         offsets.topic.replication.factor=1\n\
         offsets.topic.num.partitions=4\n\
         transaction.state.log.replication.factor=1\n\
         transaction.state.log.min.isr=1\n\
         transaction.state.log.num.partitions=4\n\
         share.coordinator.state.topic.replication.factor=1\n\
         share.coordinator.state.topic.min.isr=1\n\
         group.initial.rebalance.delay.ms=0\n",
        controller = port + 1,
        data = data.display(),
    );
    for setting in settings {
        text.push_str(setting);
        text.push('\n');
    }
    text
}

fn format(properties: &Path) -> Result<()> {
    let id = process::output(
        toolbox::java(&[], "ERROR", "256M")?.args(["kafka.tools.StorageTool", "random-uuid"]),
    )?;
    let mut java = toolbox::java(&[], "ERROR", "256M")?;
    java.args([
        "kafka.tools.StorageTool",
        "format",
        "--standalone",
        "--cluster-id",
    ]);
    java.arg(id.trim()).arg("--config").arg(properties);
    process::output(&mut java).map(|_| ())
}

/// Its process id, if the process that `start` noted still is a Kafka.
fn running() -> Result<Option<Pid>> {
    let Ok(noted) = std::fs::read_to_string(home().join("pid")) else {
        return Ok(None);
    };
    let pid =
        Pid::from_raw(noted.trim().parse()?).context("target/kafka/pid holds no process id")?;
    // The number may have gone to another process since.
    let command = std::fs::read_to_string(format!("/proc/{noted}/cmdline")).unwrap_or_default();
    Ok(command.contains("kafka.Kafka").then_some(pid))
}

pub fn stop() -> Result<()> {
    let Some(pid) = running()? else {
        println!("Kafka is not running");
        return Ok(());
    };
    rustix::process::kill_process(pid, Signal::TERM)?;
    let asked = Instant::now();
    while running()?.is_some() {
        if asked.elapsed() > STOP_LIMIT {
            rustix::process::kill_process(pid, Signal::KILL)?;
            bail!(
                "Kafka did not stop within {} s and was killed",
                STOP_LIMIT.as_secs()
            );
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(std::fs::remove_file(home().join("pid"))?)
}
