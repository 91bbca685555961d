//! `oncelog txn list`

use std::io;

use anyhow::Result;
use clap::Args as ClapArgs;
use oncelog_wire::messages::ListTransactionsRequest;
use serde_json::{Value, json};

use crate::admin::{Cluster, transactions};
use crate::options::Options;
use crate::output::{self, Table};

use super::age::Age;

/// List transactional ids and the state of their transactions
#[derive(ClapArgs, Debug)]
pub struct Args {
    /// Only in this state (Empty, Ongoing, PrepareCommit, PrepareAbort, CompleteCommit,
    /// CompleteAbort, PrepareEpochFence); may be repeated
    #[arg(long, value_name = "STATE")]
    state: Vec<String>,

    /// Only of this producer; may be repeated
    #[arg(long, value_name = "ID")]
    producer_id: Vec<i64>,

    /// Only transactions that are open for longer, as 15m
    #[arg(long, value_name = "DURATION")]
    longer_than: Option<Age>,

    /// Only ids that match this regular expression as a whole
    #[arg(long, value_name = "REGEX")]
    pattern: Option<String>,
}

impl Args {
    fn request(&self) -> ListTransactionsRequest {
        ListTransactionsRequest {
            state_filters: self.state.clone(),
            producer_id_filters: self.producer_id.clone(),
            duration_filter: self.longer_than.map_or(-1, |age| age.ms),
            transactional_id_pattern: self.pattern.clone(),
            ..ListTransactionsRequest::default()
        }
    }
}

pub fn run(options: &Options, args: &Args) -> Result<()> {
    let mut cluster = Cluster::connect(options)?;
    let all = transactions::list(&mut cluster, &args.request())?;
    if options.json() {
        let rows: Vec<Value> = all
            .iter()
            .map(|(coordinator, listed)| {
                json!({"transactional_id": listed.transactional_id, "coordinator": coordinator,
                       "producer_id": listed.producer_id, "state": listed.transaction_state})
            })
            .collect();
        return Ok(output::print_json(&Value::Array(rows))?);
    }
    let mut table = Table::new(&["TRANSACTIONAL-ID", "COORDINATOR", "PRODUCER-ID", "STATE"]);
    for (coordinator, listed) in all {
        table.row([
            listed.transactional_id,
            coordinator.to_string(),
            listed.producer_id.to_string(),
            listed.transaction_state,
        ]);
    }
    Ok(table.print(&mut io::stdout().lock())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn filters() {
        let request = |words: &[&str]| {
            let line = [&["list"], words].concat();
            Line::try_parse_from(line).unwrap().args.request()
        };
        assert_eq!(request(&[]), ListTransactionsRequest::default());
        let words = "--state Ongoing --state Empty --producer-id 7 --longer-than 1m --pattern a.*";
        let words: Vec<&str> = words.split(' ').collect();
        let expected = ListTransactionsRequest {
            state_filters: vec!["Ongoing".into(), "Empty".into()],
            producer_id_filters: vec![7],
            duration_filter: 60_000,
            transactional_id_pattern: Some("a.*".into()),
            ..ListTransactionsRequest::default()
        };
        assert_eq!(request(&words), expected);
        assert!(Line::try_parse_from(["list", "--longer-than", "1"]).is_err());
    }
}
