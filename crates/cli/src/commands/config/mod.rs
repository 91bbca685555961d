//! `oncelog config`: describe and change the configuration of topics, brokers and groups.

mod alter;
mod describe;

use anyhow::Result;
use clap::{Args as ClapArgs, Subcommand, ValueEnum};

use crate::admin::configs::{Change, Operation, Resource};
use crate::failure::Failure;
use crate::options::{Options, parse_property};

/// Show and change configuration
#[derive(ClapArgs, Debug)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    Describe(describe::Args),
    Alter(alter::Args),
}

pub fn run(options: &Options, args: &Args) -> Result<()> {
    match &args.verb {
        Verb::Describe(args) => describe::run(options, args),
        Verb::Alter(args) => alter::run(options, args),
    }
}

/// What to describe or change.
#[derive(ClapArgs, Debug)]
struct Entity {
    /// What the name is of
    #[arg(value_enum)]
    kind: Kind,

    /// A topic, a group, a broker's id, or `default` for what all brokers have in common
    name: String,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    Topic,
    Broker,
    Group,
}

impl Entity {
    fn resource(&self) -> Result<Resource, Failure> {
        Ok(match self.kind {
            Kind::Topic => Resource::Topic(self.name.clone()),
            Kind::Group => Resource::Group(self.name.clone()),
            Kind::Broker if self.name == "default" => Resource::Broker(None),
            Kind::Broker => {
                let id = self.name.parse().map_err(|_| {
                    Failure::usage(format!("{:?} is not a broker's id", self.name))
                        .next("`oncelog cluster info` lists the brokers; `default` is all of them")
                })?;
                Resource::Broker(Some(id))
            }
        })
    }
}

/// Changes to single keys; every other key stays as it is.
#[derive(ClapArgs, Debug)]
pub struct Changes {
    /// Set a key; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_property)]
    set: Vec<(String, String)>,

    /// Return a key to its default; may be repeated
    #[arg(long, value_name = "KEY")]
    delete: Vec<String>,

    /// Add to a key that is a list; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_property)]
    append: Vec<(String, String)>,

    /// Take from a key that is a list; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_property)]
    subtract: Vec<(String, String)>,
}

impl Changes {
    pub fn to_vec(&self) -> Vec<Change> {
        let with_value = |operation, pairs: &[(String, String)]| -> Vec<Change> {
            pairs
                .iter()
                .map(|(key, value)| Change {
                    key: key.clone(),
                    operation,
                    value: Some(value.clone()),
                })
                .collect()
        };
        let mut changes = with_value(Operation::Set, &self.set);
        changes.extend(self.delete.iter().map(|key| Change {
            key: key.clone(),
            operation: Operation::Delete,
            value: None,
        }));
        changes.extend(with_value(Operation::Append, &self.append));
        changes.extend(with_value(Operation::Subtract, &self.subtract));
        changes
    }
}
