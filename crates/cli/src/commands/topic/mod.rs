//! `oncelog topic`: list, describe, create, alter, delete, delete-records.

mod alter;
mod create;
mod delete;
mod delete_records;
mod describe;
mod list;

use anyhow::Result;
use clap::{Args as ClapArgs, Subcommand};
use regex::Regex;

use crate::admin::Cluster;
use crate::failure::Failure;
use crate::options::Options;

/// List, describe, create, change and delete topics
#[derive(ClapArgs, Debug)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    List(list::Args),
    Describe(describe::Args),
    Create(create::Args),
    Alter(alter::Args),
    Delete(delete::Args),
    DeleteRecords(delete_records::Args),
}

pub fn run(options: &Options, args: &Args) -> Result<()> {
    match &args.verb {
        Verb::List(args) => list::run(options, args),
        Verb::Describe(args) => describe::run(options, args),
        Verb::Create(args) => create::run(options, args),
        Verb::Alter(args) => alter::run(options, args),
        Verb::Delete(args) => delete::run(options, args),
        Verb::DeleteRecords(args) => delete_records::run(options, args),
    }
}

/// Names on the command line: themselves, or (`-r`) every existing topic that one of them matches from
/// its first letter to its last. Internal topics are only ever matched by their exact name.
///
/// Errors: a pattern is malformed, or none matches anything.
fn names(cluster: &mut Cluster<'_>, given: &[String], regex: bool) -> Result<Vec<String>, Failure> {
    if !regex {
        return Ok(given.to_vec());
    }
    let patterns = given
        .iter()
        .map(|text| whole(text))
        .collect::<Result<Vec<Regex>, _>>()?;
    let mut names: Vec<String> = cluster
        .topics(None)?
        .into_iter()
        .filter(|topic| !topic.is_internal)
        .filter_map(|topic| topic.name)
        .filter(|name| patterns.iter().any(|pattern| pattern.is_match(name)))
        .collect();
    names.sort();
    if names.is_empty() {
        return Err(
            Failure::refused(format!("no topic matches {}", given.join(" or ")))
                .next("`oncelog topic list` shows what exists"),
        );
    }
    Ok(names)
}

/// A pattern that must match all of a name, so that `-r orders` does not take `orders-archive` along.
fn whole(pattern: &str) -> Result<Regex, Failure> {
    Regex::new(&format!("^(?:{pattern})$")).map_err(|error| {
        Failure::usage(format!("{pattern:?} is not a regular expression")).why(error.to_string())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_names() {
        assert!(whole("orders").unwrap().is_match("orders"));
        assert!(!whole("orders").unwrap().is_match("orders-archive"));
        assert!(!whole("a|b").unwrap().is_match("ab"));
        assert!(whole("orders.*").unwrap().is_match("orders-archive"));
        assert!(whole("(").is_err());
    }
}
