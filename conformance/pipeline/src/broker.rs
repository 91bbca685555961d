//! The broker between the two: Oncelog's, or any Kafka that a command starts, on an address and files
//! that it keeps.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use crash_campaign::process::answers;

use crate::process::{Process, Program};

/// A start, recovery included. Apache Kafka waits for the session of its predecessor to end.
const START: Duration = Duration::from_secs(90);

/// A sink that was killed is missed soon, so that most kills find one at work.
const SESSION: &str = "group.min.session.timeout.ms=1000";

pub struct Broker {
    program: Program,
    process: Option<Process>,
    address: String,
    foreign: bool,
}

/// Another broker than ours: its address, and the command that starts it.
#[derive(Clone)]
pub struct Foreign {
    pub address: String,
    pub command: Vec<String>,
}

impl Broker {
    pub fn oncelog(binary: &Path, home: &Path) -> Result<Broker> {
        let address = format!("127.0.0.1:{}", databases::port::free()?);
        let args = [
            "start",
            "--data-dir",
            &home.join("broker").display().to_string(),
            "--set",
            &format!("listeners=PLAINTEXT://{address}"),
            "--set",
            "http.listener=",
            "--set",
            SESSION,
        ];
        Ok(Broker {
            program: Program::new("broker", binary, &args, home),
            process: None,
            address,
            foreign: false,
        })
    }

    pub fn foreign(foreign: &Foreign, home: &Path) -> Result<Broker> {
        let (program, args) = foreign.command.split_first().context("a command")?;
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        Ok(Broker {
            program: Program::new("broker", &PathBuf::from(program), &args, home),
            process: None,
            address: foreign.address.clone(),
            foreign: true,
        })
    }

    /// Apache Kafka 4.3 may lose a committed transaction when its only node is killed: a coordinator that
    /// is started before it knows the topics takes their partitions for deleted, skips their markers
    /// ("likely deleted already", KAFKA-5202) and calls the transaction complete. Nobody can read behind
    /// it any more. That is not what is judged here.
    pub fn may_be_killed(&self) -> bool {
        !self.foreign
    }

    pub fn bootstrap(&self) -> &str {
        &self.address
    }

    /// Returns when it answers.
    pub fn start(&mut self) -> Result<()> {
        let mut process = self.program.start()?;
        let port = self
            .address
            .rsplit(':')
            .next()
            .and_then(|port| port.parse().ok());
        let port = port.context("a port")?;
        let began = Instant::now();
        while answers(port).is_err() {
            if let Some(status) = process.ended() {
                bail!("the broker ended with {status}:\n{}", process.last_words());
            }
            if began.elapsed() > START {
                bail!("the broker does not answer:\n{}", process.last_words());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        self.process = Some(process);
        Ok(())
    }

    pub fn kill(&mut self) {
        if let Some(process) = self.process.take() {
            process.kill();
        }
    }

    /// Errors: it has ended by itself, and its last words.
    pub fn check(&mut self) -> Result<()> {
        let Some(process) = &mut self.process else {
            return Ok(());
        };
        match process.ended() {
            None => Ok(()),
            Some(status) => bail!("the broker ended with {status}:\n{}", process.last_words()),
        }
    }
}
