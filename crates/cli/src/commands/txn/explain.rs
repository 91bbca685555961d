//! `oncelog txn explain`: what happened to a transactional id, one line for each change of its
//! producer's epoch, with the reason.
//!
//! Oncelog's coordinator keeps this history and sends it along with DescribeTransactions, in a
//! tagged field of its own: lines of JSON, oldest first. `time_ms`, `producer_id`,
//! `producer_epoch` and `text`, what happened in words, are shown; of a line without words the
//! rest as it is. `--format json` gives the lines whole. Other brokers send nothing of the kind.

use std::io::{self, Write};

use anyhow::Result;
use clap::Args as ClapArgs;
use oncelog_wire::messages::describe_transactions_response::TransactionState;
use serde_json::{Map, Value};

use crate::admin::{Cluster, transactions};
use crate::failure::Failure;
use crate::options::Options;
use crate::output::{self, Table, or_dash};

use super::{age, describe};

/// Oncelog's own tag in DescribeTransactions' TransactionState.
const HISTORY_TAG: u32 = 10_000;

/// Show who took a transactional id over, and why its producers were fenced
#[derive(ClapArgs, Debug)]
pub struct Args {
    /// The transactional id
    transactional_id: String,
}

pub fn run(options: &Options, args: &Args) -> Result<()> {
    let mut cluster = Cluster::connect(options)?;
    let transaction = transactions::describe(&mut cluster, &args.transactional_id)?;
    let history = history(&transaction.state)?;
    let state = &transaction.state;
    if options.json() {
        let mut shown = describe::to_json(&transaction, age::now_ms());
        shown["history"] = history.map_or(Value::Null, Value::Array);
        return Ok(output::print_json(&shown)?);
    }
    let history = history.ok_or_else(|| {
        Failure::refused(format!(
            "the history of {} is not to be had",
            args.transactional_id
        ))
        .why("its coordinator is no Oncelog broker, or one that keeps no history")
        .next(format!(
            "`oncelog txn describe {}` shows the state",
            args.transactional_id
        ))
    })?;
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "{}: {}, producer {} epoch {}",
        state.transactional_id, state.transaction_state, state.producer_id, state.producer_epoch
    )?;
    Ok(table(&history).print(&mut out)?)
}

/// None if the broker sends none.
fn history(state: &TransactionState) -> Result<Option<Vec<Value>>, Failure> {
    let mut fields = state.unknown_tagged_fields.iter();
    let Some(field) = fields.find(|field| field.tag == HISTORY_TAG) else {
        return Ok(None);
    };
    let text = String::from_utf8_lossy(&field.data);
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    let parsed = lines.map(|line| {
        serde_json::from_str(line).map_err(|error| {
            Failure::refused("the history that the broker sent is unreadable")
                .why(format!("{error}: {line}"))
        })
    });
    parsed.collect::<Result<_, _>>().map(Some)
}

fn table(history: &[Value]) -> Table {
    let mut table = Table::new(&["TIME", "PRODUCER-ID", "PRODUCER-EPOCH", "WHAT-HAPPENED"]);
    for entry in history {
        let number = |key: &str| entry.get(key).and_then(Value::as_i64);
        table.row([
            or_dash(number("time_ms").map(age::time)),
            or_dash(number("producer_id")),
            or_dash(number("producer_epoch")),
            words(entry),
        ]);
    }
    table
}

/// What happened; without words of the broker's, everything that has no column.
fn words(entry: &Value) -> String {
    if let Some(text) = entry.get("text").and_then(Value::as_str) {
        return text.to_owned();
    }
    let none = Map::new();
    let fields = entry.as_object().unwrap_or(&none).iter();
    let others = fields
        .filter(|(key, _)| !matches!(key.as_str(), "time_ms" | "producer_id" | "producer_epoch"));
    let shown = others.map(|(key, value)| match value {
        Value::String(text) => format!("{key}={text}"),
        other => format!("{key}={other}"),
    });
    shown.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use oncelog_wire::RawTaggedField;

    fn state(history: Option<&str>) -> TransactionState {
        let field = |text: &str| RawTaggedField {
            tag: HISTORY_TAG,
            data: text.as_bytes().to_vec().into(),
        };
        TransactionState {
            unknown_tagged_fields: history.map(field).into_iter().collect(),
            ..TransactionState::default()
        }
    }

    #[test]
    fn a_history_in_columns() {
        let lines = concat!(
            r#"{"time_ms":1700000000000,"event":"instance","producer_id":7,"producer_epoch":4,"#,
            r#""text":"new instance from /10.0.0.7"}"#,
            "\n",
            r#"{"time_ms":1700000009000,"producer_id":7,"after_ms":60000}"#,
            "\n"
        );
        let history = history(&state(Some(lines))).unwrap().unwrap();
        let mut out = Vec::new();
        table(&history).print(&mut out).unwrap();
        let out = String::from_utf8(out).unwrap();
        let rows: Vec<Vec<&str>> = out
            .lines()
            .skip(1)
            .map(|line| {
                line.split("  ")
                    .map(str::trim)
                    .filter(|c| !c.is_empty())
                    .collect()
            })
            .collect();
        let first = [
            "2023-11-14T22:13:20.000Z",
            "7",
            "4",
            "new instance from /10.0.0.7",
        ];
        assert_eq!(rows[0], first);
        let second = ["2023-11-14T22:13:29.000Z", "7", "-", "after_ms=60000"];
        assert_eq!(rows[1], second);
    }

    #[test]
    fn no_history_an_empty_one_and_nonsense() {
        assert!(history(&state(None)).unwrap().is_none());
        assert!(history(&state(Some(""))).unwrap().unwrap().is_empty());
        assert!(history(&state(Some("not json"))).is_err());
    }
}
