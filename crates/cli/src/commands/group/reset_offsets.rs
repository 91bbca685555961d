//! `oncelog group reset-offsets`, with the options of Kafka's own tool: it shows what it would do, and
//! does it only with `--execute`. The group must have no members.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use clap::Args as ClapArgs;
use oncelog_wire::ErrorCode;
use serde_json::{Value, json};

use crate::admin::offsets::{self, TopicPartition};
use crate::admin::{Cluster, groups, refusal};
use crate::commands::scope::{Scope, partitions};
use crate::failure::Failure;
use crate::offset::Time;
use crate::options::Options;
use crate::output::{self, Table};

/// Move a group's committed offsets
#[derive(ClapArgs, Debug)]
pub struct Args {
    /// The group
    group: String,

    /// TOPIC, or TOPIC:PARTITION,PARTITION; may be repeated
    #[arg(short, long, required_unless_present = "all_topics")]
    topic: Vec<Scope>,

    /// Every partition that the group has committed
    #[arg(long, conflicts_with = "topic")]
    all_topics: bool,

    #[command(flatten)]
    to: To,

    /// Show what would be done; the default
    #[arg(long)]
    dry_run: bool,

    /// Do it
    #[arg(long, conflicts_with = "dry_run")]
    execute: bool,
}

#[derive(ClapArgs, Clone, Copy, Debug)]
#[group(required = true, multiple = false)]
struct To {
    /// To the first offset that is there
    #[arg(long)]
    to_earliest: bool,

    /// To the end
    #[arg(long)]
    to_latest: bool,

    /// To where the group is: commits for partitions with nothing committed, at their end
    #[arg(long)]
    to_current: bool,

    /// To this offset
    #[arg(long, value_name = "OFFSET", value_parser = clap::value_parser!(i64).range(0..))]
    to_offset: Option<i64>,

    /// By this many from where the group is, back if negative
    #[arg(long, value_name = "COUNT", allow_hyphen_values = true)]
    shift_by: Option<i64>,

    /// To the first record at or after this time: milliseconds, 2026-01-31T12:00:00Z or -1h30m
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    to_datetime: Option<Time>,
}

/// What is known of a partition before its new offset is chosen.
struct Known {
    first: i64,
    end: i64,
    committed: Option<i64>,
    /// For `--to-datetime`; -1 if no record is that new.
    at_time: Option<i64>,
}

pub fn run(options: &Options, args: &Args) -> Result<()> {
    let group = &args.group;
    let mut cluster = Cluster::connect(options)?;
    refuse_members(&mut cluster, group)?;
    let coordinator = groups::coordinator(&mut cluster, group)?;
    let committed = groups::committed(&mut cluster, coordinator, group)?;
    let wanted: BTreeSet<TopicPartition> = if args.all_topics {
        committed.keys().cloned().collect()
    } else {
        partitions(&mut cluster, &args.topic)?
    };
    if wanted.is_empty() {
        return Err(
            Failure::refused(format!("group {group} has committed nothing"))
                .next("name topics with --topic")
                .into(),
        );
    }
    let known = look_up(&mut cluster, &wanted, &committed, args.to)?;
    let mut new = BTreeMap::new();
    for (partition, known) in &known {
        new.insert(partition.clone(), choose(partition, known, args.to)?);
    }
    if args.execute {
        let codes = groups::commit(&mut cluster, coordinator, group, &new)?;
        for ((topic, partition), code) in codes {
            if code.is_error() {
                let what =
                    format!("cannot reset the offset of group {group} in {topic}@{partition}");
                return Err(refusal(what, code.code(), None).into());
            }
        }
    } else {
        tracing::warn!("nothing is changed yet: add --execute to do this");
    }
    print(options, group, &new, &committed, args.execute)
}

/// A member would commit over what is reset here, or be sent back without knowing.
fn refuse_members(cluster: &mut Cluster<'_>, group: &str) -> Result<(), Failure> {
    match groups::find(cluster, group)? {
        Some(found) if !found.members.is_empty() => Err(Failure::refused(format!(
            "cannot reset the offsets of group {group}"
        ))
        .why(format!("it has active members ({})", found.members.len()))
        .next(format!(
            "stop them first; `oncelog group describe {group} --members` lists them"
        ))),
        // A group that does not exist yet may be given offsets to start from.
        _ => Ok(()),
    }
}

fn look_up(
    cluster: &mut Cluster<'_>,
    wanted: &BTreeSet<TopicPartition>,
    committed: &BTreeMap<TopicPartition, i64>,
    to: To,
) -> Result<BTreeMap<TopicPartition, Known>, Failure> {
    let mut ask = |timestamp: i64| -> Result<BTreeMap<TopicPartition, i64>, Failure> {
        let wanted = wanted
            .iter()
            .map(|partition| (partition.clone(), timestamp))
            .collect();
        let answers = offsets::list(cluster, &wanted)?;
        answers
            .into_iter()
            .map(|(partition, answer)| Ok((partition.clone(), known(&partition, answer)?)))
            .collect()
    };
    let first = ask(offsets::EARLIEST)?;
    let end = ask(offsets::LATEST)?;
    let at_time = match to.to_datetime {
        Some(time) => Some(ask(time.resolve_ms(now_ms()).max(0))?),
        None => None,
    };
    wanted
        .iter()
        .map(|partition| {
            let lacking = || known(partition, Err(ErrorCode::UnknownServerError));
            let known = Known {
                first: first.get(partition).copied().map_or_else(lacking, Ok)?,
                end: end.get(partition).copied().map_or_else(lacking, Ok)?,
                committed: committed.get(partition).copied(),
                at_time: at_time
                    .as_ref()
                    .and_then(|at_time| at_time.get(partition).copied()),
            };
            Ok((partition.clone(), known))
        })
        .collect()
}

fn known((topic, partition): &TopicPartition, answer: offsets::Answer) -> Result<i64, Failure> {
    answer.map_err(|code| {
        refusal(
            format!("cannot read the offsets of {topic}@{partition}"),
            code.code(),
            None,
        )
    })
}

/// The new offset, kept inside what the partition holds.
fn choose((topic, partition): &TopicPartition, known: &Known, to: To) -> Result<i64, Failure> {
    let chosen = if to.to_earliest {
        known.first
    } else if to.to_latest {
        known.end
    } else if to.to_current {
        known.committed.unwrap_or(known.end)
    } else if let Some(offset) = to.to_offset {
        offset
    } else if let Some(count) = to.shift_by {
        let from = known.committed.ok_or_else(|| {
            Failure::refused(format!("cannot shift in {topic}@{partition}"))
                .why("the group has committed nothing there")
                .next("use --to-earliest, --to-latest or --to-offset")
        })?;
        from.saturating_add(count)
    } else {
        known
            .at_time
            .filter(|&offset| offset >= 0)
            .unwrap_or(known.end)
    };
    let inside = chosen.clamp(known.first, known.end.max(known.first));
    if inside != chosen {
        tracing::warn!(
            "{topic}@{partition} has no offset {chosen}, only {} to {}: taking {inside}",
            known.first,
            known.end
        );
    }
    Ok(inside)
}

fn print(
    options: &Options,
    group: &str,
    new: &BTreeMap<TopicPartition, i64>,
    committed: &BTreeMap<TopicPartition, i64>,
    executed: bool,
) -> Result<()> {
    if options.json() {
        let rows: Vec<Value> = new
            .iter()
            .map(|(key, offset)| {
                json!({"group": group, "topic": key.0, "partition": key.1,
                       "old_offset": committed.get(key), "new_offset": offset, "executed": executed})
            })
            .collect();
        return Ok(output::print_json(&Value::Array(rows))?);
    }
    let mut table = Table::new(&["GROUP", "TOPIC", "PARTITION", "NEW-OFFSET"]);
    for ((topic, partition), offset) in new {
        table.row([
            group.to_owned(),
            topic.clone(),
            partition.to_string(),
            offset.to_string(),
        ]);
    }
    Ok(table.print(&mut io::stdout().lock())?)
}

fn now_ms() -> i64 {
    let since_epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: To = To {
        to_earliest: false,
        to_latest: false,
        to_current: false,
        to_offset: None,
        shift_by: None,
        to_datetime: None,
    };

    fn check(to: To, expected: i64) {
        let known = Known {
            first: 10,
            end: 20,
            committed: Some(15),
            at_time: Some(12),
        };
        assert_eq!(
            choose(&("t".into(), 0), &known, to).unwrap(),
            expected,
            "{to:?}"
        );
    }

    #[test]
    fn every_way_stays_inside_the_partition() {
        check(
            To {
                to_earliest: true,
                ..NOTHING
            },
            10,
        );
        check(
            To {
                to_latest: true,
                ..NOTHING
            },
            20,
        );
        check(
            To {
                to_current: true,
                ..NOTHING
            },
            15,
        );
        check(
            To {
                to_offset: Some(11),
                ..NOTHING
            },
            11,
        );
        check(
            To {
                to_offset: Some(0),
                ..NOTHING
            },
            10,
        );
        check(
            To {
                to_offset: Some(99),
                ..NOTHING
            },
            20,
        );
        check(
            To {
                shift_by: Some(-2),
                ..NOTHING
            },
            13,
        );
        check(
            To {
                shift_by: Some(i64::MIN),
                ..NOTHING
            },
            10,
        );
        check(
            To {
                to_datetime: Some(Time::UnixMs(5)),
                ..NOTHING
            },
            12,
        );
    }

    #[test]
    fn no_record_that_new_means_the_end_and_no_commit_cannot_be_shifted() {
        let known = Known {
            first: 0,
            end: 3,
            committed: None,
            at_time: Some(-1),
        };
        let partition = ("t".into(), 0);
        let to = To {
            to_datetime: Some(Time::UnixMs(5)),
            ..NOTHING
        };
        assert_eq!(choose(&partition, &known, to).unwrap(), 3);
        assert!(
            choose(
                &partition,
                &known,
                To {
                    shift_by: Some(1),
                    ..NOTHING
                }
            )
            .is_err()
        );
    }
}
