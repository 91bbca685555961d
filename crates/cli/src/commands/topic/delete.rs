//! `oncelog topic delete`. It asks nothing back, so names are exact unless `-r` says otherwise.

use anyhow::Result;
use clap::Args as ClapArgs;
use oncelog_wire::messages::DeleteTopicsRequest;

use crate::admin::{Cluster, refusal};
use crate::options::Options;
use crate::results::Results;

/// Delete topics with all their records, without asking
#[derive(ClapArgs, Debug)]
pub struct Args {
    /// Topics to delete
    #[arg(required = true)]
    topic: Vec<String>,

    /// The names are regular expressions, each matching whole names
    #[arg(short, long)]
    regex: bool,

    /// Only say which topics would be deleted
    #[arg(long)]
    dry_run: bool,
}

pub fn run(options: &Options, args: &Args) -> Result<()> {
    let mut cluster = Cluster::connect(options)?;
    let names = super::names(&mut cluster, &args.topic, args.regex)?;
    let mut results = Results::default();
    if args.dry_run {
        for topic in cluster.topics(Some(&names.iter().map(String::as_str).collect::<Vec<_>>()))? {
            let name = topic.name.unwrap_or_default();
            let outcome = match topic.error_code {
                0 => Ok(format!("would delete topic {name}")),
                code => Err(refusal(format!("cannot delete topic {name}"), code, None)),
            };
            results.push(name, outcome);
        }
        return results.finish(options);
    }
    let request = DeleteTopicsRequest {
        topic_names: names,
        timeout_ms: i32::try_from(options.request_timeout().as_millis()).unwrap_or(i32::MAX),
        ..DeleteTopicsRequest::default()
    };
    for topic in cluster.controller(&request)?.responses {
        let name = topic.name.unwrap_or_default();
        let outcome = match topic.error_code {
            0 => Ok(format!("deleted topic {name}")),
            code => {
                let what = format!("cannot delete topic {name}");
                Err(refusal(what, code, topic.error_message.as_deref()))
            }
        };
        results.push(name, outcome);
    }
    results.finish(options)
}
