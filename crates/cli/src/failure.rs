//! How a command says that it could not do what was asked: what happened, why, what to do next, and
//! the exit code that goes with it.
//!
//! Every error that reaches `main` is a [`Failure`] or is turned into one there. Exit codes are part
//! of the interface: scripts rely on them, `--help` lists them ([`EXIT_CODES_HELP`]).

use std::fmt;

use serde_json::{Map, Value, json};

/// The codes that the process ends with. Clap itself uses 2 for arguments it cannot parse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// The cluster refused, or only part of what was asked was done.
    Failed = 1,
    /// The arguments make no sense together, or cannot be parsed.
    Usage = 2,
    /// No broker could be reached.
    Unreachable = 3,
    /// `cluster health` alone: reachable or not, the cluster is not healthy.
    NotHealthy = 10,
}

/// Shown at the foot of `oncelog --help`.
pub const EXIT_CODES_HELP: &str = "\
Exit codes:
   0  done, all of it
   1  refused by the cluster, or only partly done (some records not acknowledged, some names failed)
   2  the command line is wrong
   3  no broker could be reached
  10  `cluster health`: the cluster is not healthy";

/// An error in the three parts that a reader needs.
#[derive(Debug)]
pub struct Failure {
    pub exit: Exit,
    /// What could not be done, without a full stop.
    pub what: String,
    /// The reason, as far as it is known.
    pub why: Option<String>,
    /// What to type or check next.
    pub next: Option<String>,
}

impl Failure {
    pub fn new(exit: Exit, what: impl Into<String>) -> Self {
        Failure {
            exit,
            what: what.into(),
            why: None,
            next: None,
        }
    }

    /// The cluster refused something.
    pub fn refused(what: impl Into<String>) -> Self {
        Self::new(Exit::Failed, what)
    }

    /// The command line asks for something that cannot be.
    pub fn usage(what: impl Into<String>) -> Self {
        Self::new(Exit::Usage, what)
    }

    pub fn why(mut self, why: impl Into<String>) -> Self {
        self.why = Some(why.into());
        self
    }

    pub fn next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }

    pub fn to_json(&self) -> Value {
        let mut fields = Map::new();
        fields.insert("error".into(), json!(self.what));
        if let Some(why) = &self.why {
            fields.insert("why".into(), json!(why));
        }
        if let Some(next) = &self.next {
            fields.insert("next".into(), json!(next));
        }
        fields.insert("exit_code".into(), json!(self.exit as u8));
        Value::Object(fields)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.what)?;
        if let Some(why) = &self.why {
            write!(f, "\n  why:  {why}")?;
        }
        if let Some(next) = &self.next {
            write!(f, "\n  next: {next}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_why_and_next() {
        let failure = Failure::refused("cannot delete topic a")
            .why("no such topic")
            .next("list them");
        assert_eq!(
            failure.to_string(),
            "error: cannot delete topic a\n  why:  no such topic\n  next: list them"
        );
        assert_eq!(
            failure.to_json(),
            json!({"error": "cannot delete topic a", "why": "no such topic",
                   "next": "list them", "exit_code": 1})
        );
    }
}
