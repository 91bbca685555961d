//! The broker that the suites run against: a new `oncelog` for each, one that runs already, or Apache
//! Kafka.

use std::path::PathBuf;

use anyhow::Result;

use crate::oncelog::Oncelog;
use crate::{cargo, kafka, toolbox};

pub enum Target {
    Oncelog,
    Address(String),
    Kafka,
}

impl Target {
    /// A broker with these settings of its own; one that runs already has the settings that it has.
    pub fn start(&self, settings: &[&str]) -> Result<Broker> {
        match self {
            Target::Oncelog => {
                let binary = cargo::release_binary("oncelog")?;
                let home = toolbox::conformance_dir().join("oncelog-suites");
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

    /// Stops what was started. Oncelog has to shut down cleanly, and leaves its data directory.
    pub fn stop(self) -> Result<Option<PathBuf>> {
        match self {
            Broker::Oncelog(oncelog) => oncelog.stop().map(Some),
            Broker::Address(_) => Ok(None),
            Broker::Kafka(_) => kafka::stop().map(|()| None),
        }
    }
}
