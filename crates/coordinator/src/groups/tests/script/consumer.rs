//! The script's commands of the consumer protocol.
//!
//! ```text
//! beat CLIENT [join | leave | away] [epoch=N] [topics=t,u] [regex=R] [owns="t:0,1 u:2"]
//!      [id=ID] [instance=I] [rack=R] [assignor=A] [rebalance=MS] [version=V] [group=G]
//! groups GROUP...                              ConsumerGroupDescribe
//! ```
//! `beat` alone sends what has not changed as null. `join` adds what a join has to have, unless it
//! is given: topic t, a rebalance timeout of 60 seconds, and no owned partitions. A client's
//! member id is its name in version 1. `owns=none` is an empty list, `X=null` leaves a field out
//! that `join` would add.

use super::super::super::consumer::records::{Change, ConsumerRecord};
use super::{Args, Result, Script, caller};
use crate::Topics;
use oncelog_wire::messages::consumer_group_describe_response::Assignment as Described;
use oncelog_wire::messages::consumer_group_heartbeat_request::TopicPartitions;
use oncelog_wire::messages::{ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse};
use oncelog_wire::{ErrorCode, Uuid};
use std::fmt::Write;

impl Script {
    pub(super) fn beat(&mut self, args: &Args) -> Result {
        let name = args.positional()[0];
        let caller = caller(args, 1, name)?;
        let client = self.client(name);
        let positional = args.positional();
        let says = |word| positional.contains(&word);
        let (joins, leaves) = (says("join"), says("leave") || says("away"));
        let epoch = match () {
            () if joins => 0,
            () if says("leave") => -1,
            () if says("away") => -2,
            () => client.generation,
        };
        let member_id = match caller.api_version {
            0 => client.member_id,
            _ if client.member_id.is_empty() => name.to_owned(),
            _ => client.member_id,
        };
        let or_default = |key, default: Option<&'static str>| match args.get(key) {
            Some("null") => None,
            None => default,
            Some(text) => Some(text.to_owned().leak() as &str),
        };
        let only_join = |text| Some(text).filter(|_| joins && !leaves);
        let topics = or_default(
            "topics",
            only_join("t").filter(|_| args.get("regex").is_none()),
        );
        let owned = or_default("owns", only_join("none"));
        let rebalance = or_default("rebalance", only_join("60000"));
        let request = ConsumerGroupHeartbeatRequest {
            group_id: args.group(),
            member_id: args.id().unwrap_or(member_id),
            member_epoch: args.number("epoch", epoch)?,
            instance_id: args.get("instance").map(str::to_owned),
            rack_id: args.get("rack").map(str::to_owned),
            rebalance_timeout_ms: rebalance.map_or(Ok(-1), str::parse)?,
            subscribed_topic_names: topics.map(|topics| {
                let names = topics.split(',').filter(|name| *name != "none");
                names.map(str::to_owned).collect()
            }),
            subscribed_topic_regex: args.get("regex").map(|regex| match regex {
                "none" => String::new(),
                regex => regex.to_owned(),
            }),
            server_assignor: args.get("assignor").map(str::to_owned),
            topic_partitions: owned.map(|owned| self.owned(owned)),
            ..Default::default()
        };
        self.ask(
            name,
            caller.api_version,
            |shard, now, to, topics| {
                shard.consumer_group_heartbeat(now, to, &caller, request, topics)
            },
            true,
        )
    }

    fn owned(&self, text: &str) -> Vec<TopicPartitions> {
        let topics = text.split_whitespace().filter(|topic| *topic != "none");
        let topic = |text: &str| {
            let (name, partitions) = text.split_once(':').expect("TOPIC:PARTITION,...");
            let view = self.host.topics.topic(name);
            TopicPartitions {
                topic_id: view.map_or(Uuid([0xff; 16]), |view| view.id),
                partitions: partitions
                    .split(',')
                    .map(|p| p.parse().expect("a partition"))
                    .collect(),
                ..Default::default()
            }
        };
        topics.map(topic).collect()
    }

    pub(super) fn beaten(&mut self, who: &str, beat: ConsumerGroupHeartbeatResponse) -> String {
        if beat.error_code != 0 {
            let message = beat.error_message.unwrap_or_default();
            let error = ErrorCode::from_code(beat.error_code);
            return format!("{who}: {error} ({})\n", self.named(&message));
        }
        let member_id = beat.member_id.unwrap_or_default();
        self.names.insert(member_id.clone(), who.to_owned());
        let client = self.clients.entry(who.to_owned()).or_default();
        client.member_id = member_id;
        client.generation = beat.member_epoch;
        let mut out = format!("{who}: epoch={}", beat.member_epoch);
        if let Some(assignment) = beat.assignment {
            let topics = assignment.topic_partitions.iter();
            let topics = topics.map(|topic| (topic.topic_id, topic.partitions.clone()));
            out += &format!(" assignment=[{}]", self.partitions(topics));
        }
        out + "\n"
    }

    fn partitions(&self, topics: impl Iterator<Item = (Uuid, Vec<i32>)>) -> String {
        let topic = |(id, partitions): (Uuid, Vec<i32>)| {
            let name = self.host.topics.topic_by_id(id).unwrap_or("(gone)");
            let partitions: Vec<String> = partitions.iter().map(i32::to_string).collect();
            format!("{name}:{}", partitions.join(","))
        };
        topics.map(topic).collect::<Vec<_>>().join(" ")
    }

    pub(super) fn consumer_record(&self, record: ConsumerRecord) -> String {
        let ConsumerRecord { group_id, change } = record;
        let held =
            |held: &std::collections::BTreeMap<Uuid, std::collections::BTreeMap<i32, i32>>| {
                let topic = |(id, partitions): (&Uuid, &std::collections::BTreeMap<i32, i32>)| {
                    let name = self.host.topics.topic_by_id(*id).unwrap_or("(gone)");
                    let each = partitions.iter().map(|(p, epoch)| format!("{p}@{epoch}"));
                    format!("{name}:{}", each.collect::<Vec<_>>().join(","))
                };
                held.iter().map(topic).collect::<Vec<_>>().join(" ")
            };
        let text = match change {
            Change::Group(None) => "gone".to_owned(),
            Change::Group(Some(value)) => format!("epoch={}", value.epoch),
            Change::PartitionMetadata => "partition metadata gone".to_owned(),
            Change::Member(id, None) => format!("member {} gone", self.named(&id)),
            Change::Member(id, Some(member)) => {
                let mut text = format!("member {}", self.named(&id));
                let names: Vec<_> = member.topic_names.iter().map(String::as_str).collect();
                text += &format!(" topics=[{}]", names.join(" "));
                if !member.topic_regex.is_empty() {
                    text += &format!(" regex={}", member.topic_regex);
                }
                if let Some(instance) = &member.instance_id {
                    text += &format!(" instance={instance}");
                }
                if let Some(assignor) = &member.server_assignor {
                    text += &format!(" assignor={assignor}");
                }
                text
            }
            Change::TargetMetadata(None) => "target gone".to_owned(),
            Change::TargetMetadata(Some(target)) => format!("target epoch={}", target.epoch),
            Change::Target(id, None) => format!("target {} gone", self.named(&id)),
            Change::Target(id, Some(partitions)) => {
                let topics = partitions
                    .into_iter()
                    .map(|(id, p)| (id, p.into_iter().collect()));
                format!("target {} [{}]", self.named(&id), self.partitions(topics))
            }
            Change::Current(id, None) => format!("current {} gone", self.named(&id)),
            Change::Current(id, Some(current)) => format!(
                "current {} {:?} epoch={}<-{} [{}] revoking [{}]",
                self.named(&id),
                current.state,
                current.epoch,
                current.previous_epoch,
                held(&current.assigned),
                held(&current.revoking)
            ),
            Change::Regex(regex, None) => format!("regex {regex} gone"),
            Change::Regex(regex, Some(resolved)) => {
                let topics: Vec<_> = resolved.topics.iter().map(String::as_str).collect();
                format!("regex {regex} [{}]", topics.join(" "))
            }
        };
        format!("+ {group_id}: {text}\n")
    }

    pub(super) fn groups(&self, args: &Args) -> Result {
        let names: Vec<String> = args.positional().iter().map(|n| n.to_string()).collect();
        let topics = &self.host.topics;
        let described = self
            .host
            .shard
            .consumer_group_describe(&names, false, topics);
        let assigned = |assignment: &Described| {
            let topic = |topic: &oncelog_wire::messages::consumer_group_describe_response::TopicPartitions| {
                let partitions: Vec<String> = topic.partitions.iter().map(i32::to_string).collect();
                format!("{}:{}", topic.topic_name, partitions.join(","))
            };
            let topics = assignment.topic_partitions.iter().map(topic);
            topics.collect::<Vec<_>>().join(" ")
        };
        let mut out = String::new();
        for group in described {
            if group.error_code != 0 {
                let error = ErrorCode::from_code(group.error_code);
                let message = group.error_message.unwrap_or_default();
                writeln!(out, "{}: {error} ({message})", group.group_id)?;
                continue;
            }
            let (epoch, target) = (group.group_epoch, group.assignment_epoch);
            let (id, state, assignor) = (group.group_id, group.group_state, group.assignor_name);
            writeln!(
                out,
                "{id}: {state} epoch={epoch} target epoch={target} assignor={assignor}"
            )?;
            for member in group.members {
                write!(
                    out,
                    "  {} epoch={}",
                    self.named(&member.member_id),
                    member.member_epoch
                )?;
                for (key, value) in [("instance", &member.instance_id), ("rack", &member.rack_id)] {
                    if let Some(value) = value {
                        write!(out, " {key}={value}")?;
                    }
                }
                write!(out, " client={}{}", member.client_id, member.client_host)?;
                write!(out, " topics=[{}]", member.subscribed_topic_names.join(" "))?;
                match member.subscribed_topic_regex.as_deref() {
                    None | Some("") => {}
                    Some(regex) => write!(out, " regex={regex}")?,
                }
                let has = assigned(&member.assignment);
                writeln!(
                    out,
                    " has [{has}] target [{}]",
                    assigned(&member.target_assignment)
                )?;
            }
        }
        Ok(out)
    }
}
