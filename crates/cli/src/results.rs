//! The outcome of one verb on several names: each name's own result, and the failure of the whole if
//! any of them failed. What succeeded is never hidden by what did not.

use std::io::{self, Write};

use anyhow::Result;
use serde_json::{Map, Value, json};

use crate::failure::Failure;
use crate::options::Options;
use crate::output;

#[derive(Default)]
pub struct Results(Vec<(String, Result<String, Failure>)>);

impl Results {
    /// `outcome`: what was done, as a line of text ("created topic a").
    pub fn push(&mut self, name: impl Into<String>, outcome: Result<String, Failure>) {
        self.0.push((name.into(), outcome));
    }

    /// Prints every success, and returns the failures: one as itself, several as one that counts them
    /// after printing each.
    pub fn finish(mut self, options: &Options) -> Result<()> {
        if options.json() {
            output::print_json(&Value::Array(self.0.iter().map(to_json).collect()))?;
        } else {
            let mut out = io::stdout().lock();
            for text in self
                .0
                .iter()
                .filter_map(|(_, outcome)| outcome.as_ref().ok())
            {
                writeln!(out, "{text}")?;
            }
        }
        let all = self.0.len();
        let failed = self
            .0
            .iter()
            .filter(|(_, outcome)| outcome.is_err())
            .count();
        if failed == 1
            && let Some(at) = self.0.iter().position(|(_, outcome)| outcome.is_err())
            && let (_, Err(failure)) = self.0.swap_remove(at)
        {
            return Err(failure.into());
        }
        if failed == 0 {
            return Ok(());
        }
        if !options.json() {
            let mut err = io::stderr().lock();
            for failure in self
                .0
                .iter()
                .filter_map(|(_, outcome)| outcome.as_ref().err())
            {
                writeln!(err, "{failure}")?;
            }
        }
        Err(Failure::refused(format!("{failed} of {all} failed")).into())
    }
}

fn to_json((name, outcome): &(String, Result<String, Failure>)) -> Value {
    let mut object = Map::new();
    object.insert("name".into(), json!(name));
    match outcome {
        Ok(text) => {
            object.insert("ok".into(), json!(true));
            object.insert("result".into(), json!(text));
        }
        Err(failure) => {
            object.insert("ok".into(), json!(false));
            if let Value::Object(fields) = failure.to_json() {
                object.extend(fields.into_iter().filter(|(key, _)| key != "exit_code"));
            }
        }
    }
    Value::Object(object)
}
