//! `oncelog group describe`: offsets and lag of each partition, members, or state, in the columns of
//! Kafka's own tool.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};

use anyhow::Result;
use clap::Args as ClapArgs;
use serde_json::{Value, json};

use crate::admin::groups::{self, Group, Member};
use crate::admin::offsets::{self, Answer, TopicPartition};
use crate::admin::{Cluster, Node};
use crate::failure::Failure;
use crate::options::Options;
use crate::output::{self, Table, or_dash};

/// Show a group's offsets, lag and members
#[derive(ClapArgs, Debug)]
pub struct Args {
    /// Groups to describe
    #[arg(required = true)]
    group: Vec<String>,

    /// Show the members and what they are assigned
    #[arg(long, conflicts_with = "state")]
    members: bool,

    /// Show the state and the coordinator
    #[arg(long)]
    state: bool,
}

/// One partition that the group has committed or reads.
struct Row<'a> {
    partition: &'a TopicPartition,
    current: Option<i64>,
    end: Option<i64>,
    member: Option<&'a Member>,
}

impl Row<'_> {
    /// None if nothing is committed or the end is unknown.
    fn lag(&self) -> Option<i64> {
        // Between reading the two, the group may have committed past the end that was read.
        Some(self.end?.saturating_sub(self.current?).max(0))
    }
}

/// A group with all that is shown of it.
struct Described {
    group: Group,
    committed: BTreeMap<TopicPartition, i64>,
    ends: BTreeMap<TopicPartition, Answer>,
}

pub fn run(options: &Options, args: &Args) -> Result<()> {
    let mut cluster = Cluster::connect(options)?;
    let all = args
        .group
        .iter()
        .map(|group| describe(&mut cluster, group))
        .collect::<Result<Vec<Described>, Failure>>()?;
    if options.json() {
        let all: Vec<Value> = all.iter().map(|described| described.to_json()).collect();
        return Ok(output::print_json(&Value::Array(all))?);
    }
    let table = match (args.members, args.state) {
        (true, _) => members(&all),
        (_, true) => states(&all, &cluster.nodes),
        _ => partitions(&all),
    };
    for Described { group, .. } in all
        .iter()
        .filter(|described| described.group.members.is_empty())
    {
        writeln!(
            io::stderr(),
            "Consumer group '{}' has no active members.",
            group.id
        )?;
    }
    Ok(table.print(&mut io::stdout().lock())?)
}

fn describe(cluster: &mut Cluster<'_>, group: &str) -> Result<Described, Failure> {
    let group = groups::describe(cluster, group)?;
    let committed = groups::committed(cluster, group.coordinator, &group.id)?;
    let assigned = group.members.iter().flat_map(|member| &member.assigned);
    let wanted = committed
        .keys()
        .chain(assigned)
        .map(|partition| (partition.clone(), offsets::LATEST));
    let ends = offsets::list(cluster, &wanted.collect())?;
    Ok(Described {
        group,
        committed,
        ends,
    })
}

impl Described {
    fn rows(&self) -> Vec<Row<'_>> {
        let owners: BTreeMap<&TopicPartition, &Member> = self
            .group
            .members
            .iter()
            .flat_map(|member| {
                member
                    .assigned
                    .iter()
                    .map(move |partition| (partition, member))
            })
            .collect();
        let partitions: BTreeSet<&TopicPartition> = self
            .committed
            .keys()
            .chain(owners.keys().copied())
            .collect();
        partitions
            .into_iter()
            .map(|partition| Row {
                partition,
                current: self.committed.get(partition).copied(),
                end: self.ends.get(partition).and_then(|end| end.ok()),
                member: owners.get(partition).copied(),
            })
            .collect()
    }

    fn to_json(&self) -> Value {
        let group = &self.group;
        let partitions: Vec<Value> = self
            .rows()
            .iter()
            .map(|row| {
                json!({"topic": row.partition.0, "partition": row.partition.1,
                       "current_offset": row.current, "log_end_offset": row.end, "lag": row.lag(),
                       "consumer_id": row.member.map(|member| &member.id)})
            })
            .collect();
        let members: Vec<Value> = group
            .members
            .iter()
            .map(|member| {
                json!({"consumer_id": member.id, "group_instance_id": member.instance,
                       "client_id": member.client, "host": member.host,
                       "partitions": member.assigned.len()})
            })
            .collect();
        json!({"group": group.id, "type": group.kind, "state": group.state,
               "coordinator": group.coordinator, "assignor": group.assignor,
               "members": members, "partitions": partitions})
    }
}

fn partitions(all: &[Described]) -> Table {
    let mut table = Table::new(&[
        "GROUP",
        "TOPIC",
        "PARTITION",
        "CURRENT-OFFSET",
        "LOG-END-OFFSET",
        "LAG",
        "CONSUMER-ID",
        "HOST",
        "CLIENT-ID",
    ]);
    for described in all {
        for row in described.rows() {
            table.row([
                described.group.id.clone(),
                row.partition.0.clone(),
                row.partition.1.to_string(),
                or_dash(row.current),
                or_dash(row.end),
                or_dash(row.lag()),
                or_dash(row.member.map(|member| &member.id)),
                or_dash(row.member.map(|member| &member.host)),
                or_dash(row.member.map(|member| &member.client)),
            ]);
        }
    }
    table
}

fn members(all: &[Described]) -> Table {
    let mut table = Table::new(&[
        "GROUP",
        "CONSUMER-ID",
        "GROUP-INSTANCE-ID",
        "HOST",
        "CLIENT-ID",
        "#PARTITIONS",
        "ASSIGNMENT",
    ]);
    for Described { group, .. } in all {
        for member in &group.members {
            table.row([
                group.id.clone(),
                member.id.clone(),
                or_dash(member.instance.as_ref()),
                member.host.clone(),
                member.client.clone(),
                member.assigned.len().to_string(),
                or_dash(Some(assignment(member)).filter(|text| !text.is_empty())),
            ]);
        }
    }
    table
}

/// `topic(0,1), other(2)`
fn assignment(member: &Member) -> String {
    let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    for (topic, partition) in &member.assigned {
        topics.entry(topic).or_default().push(*partition);
    }
    let topics = topics.into_iter().map(|(topic, mut partitions)| {
        partitions.sort_unstable();
        format!("{topic}({})", output::comma_list(&partitions))
    });
    topics.collect::<Vec<_>>().join(", ")
}

fn states(all: &[Described], nodes: &BTreeMap<i32, Node>) -> Table {
    let mut table = Table::new(&[
        "GROUP",
        "COORDINATOR (ID)",
        "ASSIGNMENT-STRATEGY",
        "TYPE",
        "STATE",
        "#MEMBERS",
    ]);
    for Described { group, .. } in all {
        let address = nodes.get(&group.coordinator).map(Node::address);
        table.row([
            group.id.clone(),
            format!("{} ({})", or_dash(address), group.coordinator),
            or_dash(Some(&group.assignor).filter(|name| !name.is_empty())),
            group.kind.into(),
            group.state.clone(),
            group.members.len().to_string(),
        ]);
    }
    table
}
