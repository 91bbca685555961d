//! Where the configuration comes from: flags over environment over file over defaults.
//!
//! This file merges and remembers where each value stood, so that a mistake is reported with its
//! place. What keys exist and what they mean is the table in
//! [`oncelog_coordinator::cluster`]; nothing here knows a key.

pub mod environment;
pub mod file;
pub mod properties;

use oncelog_coordinator::cluster::{BrokerConfig, ConfigError};
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

/// Where a value was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// `-X key=value`, or a flag of its own.
    Flag,
    /// The variable's name.
    Environment(String),
    /// `line` counts from 1.
    File { path: PathBuf, line: usize },
    /// Code that embeds a broker.
    Builder,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Flag => write!(f, "command line"),
            Place::Environment(name) => write!(f, "environment variable {name}"),
            Place::File { path, line } => write!(f, "{}:{line}", path.display()),
            Place::Builder => write!(f, "builder"),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Property {
    pub key: String,
    pub value: String,
    pub place: Place,
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigProblem {
    #[error("{path}: {error}")]
    Read {
        path: PathBuf,
        error: std::io::Error,
    },
    #[error("{path}:{line}: {message}")]
    Syntax {
        path: PathBuf,
        line: usize,
        message: String,
    },
    #[error("the configuration is not valid:{}", list(.0))]
    Invalid(Vec<String>),
}

fn list(problems: &[String]) -> String {
    problems
        .iter()
        .map(|problem| format!("\n  {problem}"))
        .collect()
}

/// Properties from all sources, weakest first.
#[derive(Clone, Debug, Default)]
pub struct Layers {
    properties: Vec<Property>,
}

impl Layers {
    /// Adds a source that is stronger than those before.
    pub fn add(&mut self, properties: impl IntoIterator<Item = Property>) {
        self.properties.extend(properties);
    }

    /// The values that count, checked.
    pub fn resolve(&self) -> Result<BrokerConfig, ConfigProblem> {
        let strongest = self.strongest();
        let values = strongest
            .iter()
            .map(|(key, p)| ((*key).to_owned(), p.value.clone()))
            .collect();
        BrokerConfig::from_properties(&values).map_err(|errors| {
            let mut lines: Vec<String> = errors.iter().map(|e| placed(e, &strongest)).collect();
            lines.sort();
            ConfigProblem::Invalid(lines)
        })
    }

    /// Where a key's value stood that counts.
    pub fn place_of(&self, key: &str) -> Option<&Place> {
        self.strongest().get(key).map(|property| &property.place)
    }

    fn strongest(&self) -> BTreeMap<&str, &Property> {
        let mut strongest = BTreeMap::new();
        for property in &self.properties {
            strongest.insert(property.key.as_str(), property);
        }
        strongest
    }
}

fn placed(error: &ConfigError, strongest: &BTreeMap<&str, &Property>) -> String {
    match strongest.get(error.key.as_str()) {
        Some(property) => format!("{} ({})", error, property.place),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests;
