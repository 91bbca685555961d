//! What the scenario scripts of all coordinators read from a command: its arguments.

use goldenscript::{Argument, Command};
use std::error::Error;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

pub(crate) struct Args<'a> {
    command: &'a Command,
}

impl<'a> Args<'a> {
    pub fn new(command: &'a Command) -> Args<'a> {
        Args { command }
    }

    pub fn positional(&self) -> Vec<&'a str> {
        let args = self.command.args.iter();
        let plain = args.filter_map(|arg| match arg {
            Argument::Positional(value) => Some(value.as_str()),
            _ => None,
        });
        plain.collect()
    }

    pub fn pairs(&self) -> impl Iterator<Item = (&'a str, &'a str)> {
        let args = self.command.args.iter();
        args.filter_map(|arg| match arg {
            Argument::KeyValue(key, value) => Some((key.as_str(), value.as_str())),
            _ => None,
        })
    }

    pub fn get(&self, key: &str) -> Option<&'a str> {
        self.pairs()
            .find(|(name, _)| *name == key)
            .map(|(_, value)| value)
    }

    pub fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    pub fn number<T: std::str::FromStr>(&self, key: &str, default: T) -> Result<T>
    where
        T::Err: Error + 'static,
    {
        Ok(self
            .get(key)
            .map(str::parse)
            .transpose()?
            .unwrap_or(default))
    }
}
