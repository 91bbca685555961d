//! `oncelog topic delete-records`: move the start of partitions forward.

use std::collections::BTreeMap;
use std::str::FromStr;

use anyhow::Result;
use clap::Args as ClapArgs;
use oncelog_wire::ErrorCode;
use oncelog_wire::messages::DeleteRecordsRequest;
use oncelog_wire::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};

use crate::admin::offsets::leaders;
use crate::admin::{Cluster, refusal};
use crate::options::Options;
use crate::results::Results;

/// Delete the records of a partition before an offset
#[derive(ClapArgs, Debug)]
pub struct Args {
    /// TOPIC@PARTITION:OFFSET, as orders@0:1000; `end` for OFFSET deletes all that is there
    #[arg(required = true, value_name = "TOPIC@PARTITION:OFFSET")]
    before: Vec<Before>,
}

/// Everything before `offset` goes; None means up to the high watermark.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Before {
    topic: String,
    partition: i32,
    offset: Option<i64>,
}

impl FromStr for Before {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = || {
            let (topic, rest) = text.rsplit_once('@')?;
            let (partition, offset) = rest.split_once(':')?;
            let partition = partition
                .parse()
                .ok()
                .filter(|&partition: &i32| partition >= 0)?;
            let offset = match offset {
                "end" => None,
                number => Some(number.parse().ok().filter(|&offset: &i64| offset >= 0)?),
            };
            (!topic.is_empty()).then(|| Before {
                topic: topic.into(),
                partition,
                offset,
            })
        };
        parse().ok_or_else(|| "expected TOPIC@PARTITION:OFFSET, as orders@0:1000".into())
    }
}

pub fn run(options: &Options, args: &Args) -> Result<()> {
    let mut cluster = Cluster::connect(options)?;
    let mut names: Vec<&str> = args
        .before
        .iter()
        .map(|before| before.topic.as_str())
        .collect();
    names.sort_unstable();
    names.dedup();
    let leaders = leaders(&cluster.existing_topics(&names)?);
    let mut results = Results::default();
    let mut by_leader: BTreeMap<i32, BTreeMap<&str, Vec<DeleteRecordsPartition>>> = BTreeMap::new();
    for before in &args.before {
        let leader = leaders.get(&(before.topic.clone(), before.partition));
        match leader
            .copied()
            .unwrap_or(Err(ErrorCode::UnknownTopicOrPartition))
        {
            Ok(leader) => by_leader
                .entry(leader)
                .or_default()
                .entry(&before.topic)
                .or_default()
                .push(DeleteRecordsPartition {
                    partition_index: before.partition,
                    // -1 is the protocol's word for the high watermark.
                    offset: before.offset.unwrap_or(-1),
                    ..DeleteRecordsPartition::default()
                }),
            Err(code) => {
                let (name, what) = describe(&before.topic, before.partition);
                results.push(name, Err(refusal(what, code.code(), None)));
            }
        }
    }
    for (leader, topics) in by_leader {
        let request = DeleteRecordsRequest {
            topics: topics
                .into_iter()
                .map(|(topic, partitions)| DeleteRecordsTopic {
                    name: topic.to_owned(),
                    partitions,
                    ..DeleteRecordsTopic::default()
                })
                .collect(),
            timeout_ms: i32::try_from(options.request_timeout().as_millis()).unwrap_or(i32::MAX),
            ..DeleteRecordsRequest::default()
        };
        for topic in cluster.on(leader, &request)?.topics {
            for partition in topic.partitions {
                let (name, what) = describe(&topic.name, partition.partition_index);
                let outcome = match partition.error_code {
                    0 => Ok(format!(
                        "{name} now starts at offset {}",
                        partition.low_watermark
                    )),
                    code => Err(refusal(what, code, None)),
                };
                results.push(name, outcome);
            }
        }
    }
    results.finish(options)
}

fn describe(topic: &str, partition: i32) -> (String, String) {
    let name = format!("{topic}@{partition}");
    let what = format!("cannot delete records of {name}");
    (name, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments() {
        let before = |topic: &str, partition, offset| {
            Ok(Before {
                topic: topic.into(),
                partition,
                offset,
            })
        };
        assert_eq!("a@0:5".parse(), before("a", 0, Some(5)));
        assert_eq!("a.b-c@12:end".parse(), before("a.b-c", 12, None));
        for text in [
            "", "a", "a@0", "a@0:", "a@:5", "@0:5", "a@-1:5", "a@0:-1", "a@x:5", "a:0@5",
        ] {
            assert!(text.parse::<Before>().is_err(), "{text}");
        }
    }
}
