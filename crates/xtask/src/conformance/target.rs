//! The broker that the suites run against: a new `oncelog` for each, one that runs already, or Apache
//! Kafka.

use anyhow::Result;

use super::table::{Outcome, Row};
use crate::oncelog::Oncelog;
use crate::{cargo, dump_log, kafka, toolbox};

/// The rows of what Kafka's tool says of our files.
pub const DUMP: &str = "DumpLogSegments";

pub enum Target {
    Oncelog,
    Address(String),
    Kafka,
}

impl Target {
    /// A broker for `suite` with these settings; one that runs already has the settings that it has.
    pub fn start(&self, suite: &str, settings: &[&str]) -> Result<Broker> {
        match self {
            Target::Oncelog => {
                let binary = cargo::release_binary("oncelog")?;
                // A home for each suite, so that several can run at once.
                let home = toolbox::conformance_dir().join(format!("oncelog-{}", slug(suite)));
                Oncelog::start_with(&binary, &home, settings).map(Broker::Oncelog)
            }
            Target::Address(address) => Ok(Broker::Address(address.clone())),
            Target::Kafka => {
                let settings: Vec<String> = settings.iter().map(|&s| s.to_owned()).collect();
                kafka::start(kafka::PORT, false, &settings).map(Broker::Kafka)
            }
        }
    }

    /// Whether a broker can be had that makes no topics on demand.
    pub fn takes_settings(&self) -> bool {
        !matches!(self, Target::Address(_))
    }
}

/// A name of a suite as a name of a file.
pub fn slug(name: &str) -> String {
    name.replace([' ', ',', '.', '='], "-")
}

pub enum Broker {
    Oncelog(Oncelog),
    Address(String),
    Kafka(String),
}

impl Broker {
    pub fn bootstrap(&self) -> String {
        match self {
            Broker::Oncelog(oncelog) => oncelog.bootstrap(),
            Broker::Address(address) | Broker::Kafka(address) => address.clone(),
        }
    }

    /// Stops what was started. Oncelog has to shut down cleanly, and Kafka's DumpLogSegments reads
    /// what `suite` has left of it on disk: the row for that.
    pub fn stop(self, suite: &str) -> Result<Option<Row>> {
        let oncelog = match self {
            Broker::Address(_) => return Ok(None),
            Broker::Kafka(_) => return kafka::stop().map(|()| None),
            Broker::Oncelog(oncelog) => oncelog,
        };
        let test = format!("after {suite}");
        let found = match oncelog.stop() {
            Ok(data) => dump_log::dump(&data)?,
            Err(error) => {
                let why = format!("{error:#}");
                println!("{why}");
                return Ok(Some(Row::new(DUMP, &test, Outcome::Fail, &why)));
            }
        };
        println!("DumpLogSegments after {suite}: {}", found.line());
        let outcome = match found.complaints.as_slice() {
            [] if found.records > 0 => Outcome::Pass,
            [] => Outcome::Vacuous,
            _ => Outcome::Fail,
        };
        let complaint = found.complaints.first().map_or("", String::as_str);
        Ok(Some(Row::new(
            DUMP,
            &format!("after {suite}"),
            outcome,
            complaint,
        )))
    }
}
