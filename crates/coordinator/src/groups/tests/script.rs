//! Runs testdata/groups/*.txt: transcripts of clients and a shard.
//!
//! A client is a name; the runner keeps its member id and generation, as a real client does, and
//! shows member ids by the names. Every command prints the records that were appended and the
//! answers that went out. `UPDATE_GOLDENFILES=1 cargo test` rewrites the expected output; the
//! difference is then the review.
//!
//! ```text
//! config [initial-delay=MS] [max-size=N] [record-max=BYTES]    a new shard
//! topics NAME=PARTITIONS... | delete-topic NAME...
//! join CLIENT [group=G] [version=V] [id=ID] [instance=I] [session=MS] [rebalance=MS]
//!      [type=T] [protocols="range:topic,topic sticky:topic"] [reason=R]
//! sync CLIENT [gen=N] [version=V] [protocol=P] [assign="CLIENT:TEXT ..."]
//! heartbeat CLIENT [gen=N] [id=ID] [instance=I] [version=V]
//! leave CLIENT... [version=V] [instance=I] [id=ID] [reason=R]
//! commit CLIENT TOPIC/PARTITION=OFFSET... [gen=N] [id=ID] [meta=TEXT] [epoch=N] [retention=MS]
//! fetch [TOPIC/PARTITION...] [group=G] [version=V] [stable=true]
//!                                                      everything without partitions
//! delete-offsets TOPIC/PARTITION... | delete GROUP... | describe GROUP... | list [state=S] [type=T]
//! beat CLIENT ... | groups GROUP...                    the consumer protocol: script/consumer.rs
//! txn-commit CLIENT ... | end-txn ...                  transactions: script/transactions.rs
//! grow NAME=PARTITIONS... | advance MS | restart | resign | log | state [GROUP]
//! ```
//! `gen=none` is -1, `id=none` the empty string.

mod consumer;
mod transactions;

use super::super::offsets::fetch;
use super::super::{GroupConfig, GroupShard};
use super::host::Host;
use crate::script_args::Args;
use crate::seed::Seed;
use crate::{Caller, Record, Topics};
use bytes::Bytes;
use goldenscript::{Command, Context};
use oncelog_wire::messages::consumer_protocol_subscription::ConsumerProtocolSubscription;
use oncelog_wire::messages::join_group_request::JoinGroupRequestProtocol;
use oncelog_wire::messages::leave_group_request::MemberIdentity;
use oncelog_wire::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use oncelog_wire::messages::offset_delete_request::{
    OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use oncelog_wire::messages::offset_fetch_request::OffsetFetchRequestTopic;
use oncelog_wire::messages::sync_group_request::SyncGroupRequestAssignment;
use oncelog_wire::messages::{
    HeartbeatRequest, JoinGroupRequest, LeaveGroupRequest, ListGroupsRequest, OffsetCommitRequest,
    OffsetDeleteRequest, OffsetFetchRequest, SyncGroupRequest,
};
use oncelog_wire::{ErrorCode, ResponseBody, Uuid, Writer};
use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write;

type Result<T = String> = std::result::Result<T, Box<dyn Error>>;

#[test]
fn scripts() {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/groups");
    let mut paths: Vec<_> = std::fs::read_dir(&dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ext| ext == "txt"))
        .collect();
    paths.sort();
    assert!(!paths.is_empty(), "no scripts in {}", dir.display());
    for path in paths {
        println!("{}", path.display());
        goldenscript::run(&mut Script::new(), path).unwrap();
    }
}

#[derive(Clone)]
struct Client {
    member_id: String,
    generation: i32,
}

impl Default for Client {
    fn default() -> Client {
        Client {
            member_id: String::new(),
            generation: -1,
        }
    }
}

struct Script {
    host: Host,
    /// By name; a name has one member id at a time, whatever its group.
    clients: BTreeMap<String, Client>,
    /// Member id -> the name it is shown by.
    names: BTreeMap<String, String>,
    /// Open requests: who asked.
    asked: BTreeMap<u64, String>,
}

impl goldenscript::Runner for Script {
    type Command = Command;

    fn run(&mut self, command: &Command, _context: &Context) -> Result {
        let args = Args::new(command);
        match command.name.as_str() {
            "config" => self.config(&args),
            "topics" => {
                for (name, partitions) in args.pairs() {
                    self.host.topics.create(name, partitions.parse()?);
                }
                Ok(String::new())
            }
            "delete-topic" => {
                let names = args.positional();
                names.iter().for_each(|name| self.host.topics.delete(name));
                self.ask("", 0, |shard, _, _, _| shard.topics_deleted(&names), false)
            }
            "grow" => {
                for (name, partitions) in args.pairs() {
                    self.host.topics.grow(name, partitions.parse()?);
                }
                Ok(String::new())
            }
            "beat" => self.beat(&args),
            "groups" => self.groups(&args),
            "join" => self.join(&args),
            "sync" => self.sync(&args),
            "heartbeat" => self.heartbeat(&args),
            "leave" => self.leave(&args),
            "commit" => self.commit(&args),
            "txn-commit" => self.txn_commit(&args),
            "end-txn" => self.end_txn(&args),
            "fetch" => self.fetch(&args),
            "delete-offsets" => self.delete_offsets(&args),
            "delete" => self.delete(&args),
            "describe" => self.describe(&args),
            "list" => self.list(&args),
            "state" => Ok(self.state(args.positional().first().unwrap_or(&"g"))),
            "advance" => {
                let (records, replies) = self.host.advance(args.positional()[0].parse()?);
                Ok(self.shown(&records, replies))
            }
            "restart" => {
                self.host.restart();
                self.asked.clear();
                Ok(String::new())
            }
            "resign" => {
                let fresh = GroupShard::new(self.host.config.clone(), Seed::new(0));
                let shard = std::mem::replace(&mut self.host.shard, fresh);
                let outcome = shard.resign(self.host.now);
                let replies = outcome.replies.into_iter().map(|(to, body)| (to.0, body));
                let shown = replies.map(|(token, body)| self.reply(token, body));
                Ok(shown.collect::<Vec<_>>().concat())
            }
            "log" => {
                let lines = std::mem::take(&mut self.host.lines);
                Ok(lines
                    .iter()
                    .map(|line| format!("{}\n", self.named(line)))
                    .collect())
            }
            other => Err(format!("unknown command {other}").into()),
        }
    }
}

impl Script {
    fn new() -> Script {
        let mut host = Host::new(GroupConfig::default());
        host.topics.create("t", 3);
        host.topics.create("u", 3);
        let (clients, names, asked) = Default::default();
        Script {
            host,
            clients,
            names,
            asked,
        }
    }

    fn config(&mut self, args: &Args) -> Result {
        let mut config = GroupConfig::default();
        for (key, value) in args.pairs() {
            match key {
                "initial-delay" => config.initial_rebalance_delay_ms = value.parse()?,
                "max-size" => config.max_size = value.parse()?,
                "record-max" => config.group_record_bytes_max = value.parse()?,
                "retention" => config.offsets_retention_ms = value.parse()?,
                "consumer-max-size" => config.consumer_max_size = value.parse()?,
                "session" => config.consumer_session_timeout_ms = value.parse()?,
                "assignors" => {
                    config.consumer_assignors = value.split(',').map(str::to_owned).collect();
                }
                "check" => config.offsets_retention_check_interval_ms = value.parse()?,
                other => return Err(format!("unknown setting {other}").into()),
            }
        }
        // The partition stays: a broker is restarted with other settings.
        self.host.config = config;
        self.host.restart();
        self.asked.clear();
        Ok(String::new())
    }

    fn join(&mut self, args: &Args) -> Result {
        let name = args.positional()[0];
        let client = self.client(name);
        let caller = caller(args, 9, name)?;
        let protocols = args.get("protocols").unwrap_or("range:t");
        let is_consumer = args.get("type").unwrap_or("consumer") == "consumer";
        let request = JoinGroupRequest {
            group_id: args.group(),
            session_timeout_ms: args.number("session", 10_000)?,
            rebalance_timeout_ms: args.number("rebalance", 60_000)?,
            member_id: args.id().unwrap_or(client.member_id),
            group_instance_id: args.get("instance").map(str::to_owned),
            protocol_type: args.get("type").unwrap_or("consumer").to_owned(),
            protocols: protocols
                .split_whitespace()
                .map(|p| protocol(p, is_consumer))
                .collect(),
            reason: args.get("reason").map(str::to_owned),
            ..Default::default()
        };
        self.ask(
            name,
            caller.api_version,
            |shard, now, to, _| shard.join_group(now, to, &caller, request),
            true,
        )
    }

    fn sync(&mut self, args: &Args) -> Result {
        let name = args.positional()[0];
        let caller = caller(args, 5, name)?;
        let client = self.client(name);
        let mut assignments = Vec::new();
        for pair in args.get("assign").unwrap_or_default().split_whitespace() {
            let (to, text) = pair.split_once(':').ok_or("assign is CLIENT:TEXT")?;
            assignments.push(SyncGroupRequestAssignment {
                member_id: self.client(to).member_id,
                assignment: Bytes::copy_from_slice(text.as_bytes()),
                ..Default::default()
            });
        }
        let request = SyncGroupRequest {
            group_id: args.group(),
            generation_id: args.generation(client.generation)?,
            member_id: args.id().unwrap_or(client.member_id),
            group_instance_id: args.get("instance").map(str::to_owned),
            protocol_type: Some("consumer".to_owned()).filter(|_| caller.api_version >= 5),
            protocol_name: args.get("protocol").map(str::to_owned),
            assignments,
            ..Default::default()
        };
        self.ask(
            name,
            caller.api_version,
            |shard, now, to, _| shard.sync_group(now, to, &caller, request),
            true,
        )
    }

    fn heartbeat(&mut self, args: &Args) -> Result {
        let name = args.positional()[0];
        let caller = caller(args, 4, name)?;
        let client = self.client(name);
        let request = HeartbeatRequest {
            group_id: args.group(),
            generation_id: args.generation(client.generation)?,
            member_id: args.id().unwrap_or(client.member_id),
            group_instance_id: args.get("instance").map(str::to_owned),
            ..Default::default()
        };
        self.ask(
            name,
            caller.api_version,
            |shard, now, to, _| shard.heartbeat(now, to, &caller, &request),
            true,
        )
    }

    fn leave(&mut self, args: &Args) -> Result {
        let names = args.positional();
        let caller = caller(args, 5, names[0])?;
        let leaving = |name: &&str| MemberIdentity {
            member_id: args.id().unwrap_or_else(|| self.client(name).member_id),
            group_instance_id: args.get("instance").map(str::to_owned),
            reason: args.get("reason").map(str::to_owned),
            ..Default::default()
        };
        let mut request = LeaveGroupRequest {
            group_id: args.group(),
            members: names.iter().map(leaving).collect(),
            ..Default::default()
        };
        if caller.api_version < 3 {
            request.member_id = request.members.remove(0).member_id;
        }
        self.ask(
            names[0],
            caller.api_version,
            |shard, now, to, _| shard.leave_group(now, to, &caller, request),
            true,
        )
    }

    fn commit(&mut self, args: &Args) -> Result {
        let name = args.positional()[0];
        let caller = caller(args, 9, name)?;
        let client = self.client(name);
        let mut topics: Vec<OffsetCommitRequestTopic> = Vec::new();
        for (place, offset) in args.pairs().filter(|(key, _)| key.contains('/')) {
            let (topic, partition) = place.split_once('/').expect("filtered");
            let topic_id = match topic.parse::<Uuid>() {
                Ok(id) => id,
                Err(_) => self
                    .host
                    .topics
                    .topic(topic)
                    .map_or(Uuid::ZERO, |view| view.id),
            };
            topics.push(OffsetCommitRequestTopic {
                name: topic.to_owned(),
                topic_id,
                partitions: vec![OffsetCommitRequestPartition {
                    partition_index: partition.parse()?,
                    committed_offset: offset.parse()?,
                    committed_leader_epoch: args.number("epoch", -1)?,
                    committed_metadata: args.get("meta").map(|text| match text {
                        "long" => "x".repeat(4_097),
                        "limit" => "\u{fc}".repeat(4_096),
                        text => text.to_owned(),
                    }),
                    ..Default::default()
                }],
                ..Default::default()
            });
        }
        let request = OffsetCommitRequest {
            group_id: args.group(),
            generation_id_or_member_epoch: args.generation(client.generation)?,
            member_id: args.id().unwrap_or(client.member_id),
            group_instance_id: args.get("instance").map(str::to_owned),
            retention_time_ms: args.number("retention", -1)?,
            topics,
            ..Default::default()
        };
        self.ask(
            name,
            caller.api_version,
            |shard, now, to, topics| shard.offset_commit(now, to, &caller, request, topics),
            true,
        )
    }

    fn fetch(&mut self, args: &Args) -> Result {
        let version = args.number("version", 7)?;
        let places = args.positional();
        let topics: Vec<_> = places
            .iter()
            .map(|place| {
                let (topic, partition) = place.split_once('/').expect("TOPIC/PARTITION");
                OffsetFetchRequestTopic {
                    name: topic.to_owned(),
                    partition_indexes: vec![partition.parse().expect("a partition")],
                    ..Default::default()
                }
            })
            .collect();
        let topics = Some(topics).filter(|topics| !topics.is_empty());
        let request = OffsetFetchRequest {
            group_id: args.group(),
            topics,
            ..Default::default()
        };
        let mut group = fetch::groups(7, request).remove(0);
        if let Some(name) = args.get("member") {
            let client = self.client(name);
            group.member_id = Some(client.member_id);
            group.member_epoch = args.number("epoch", client.generation)?;
        }
        for topic in group.topics.iter_mut().flatten() {
            let found = self.host.topics.topic(&topic.name);
            topic.topic_id = found.map_or(Uuid([0xff; 16]), |view| view.id);
        }
        let is_stable = args.number("stable", false)?;
        let group = self
            .host
            .shard
            .offset_fetch(version, &group, is_stable, &self.host.topics);
        let mut out = String::new();
        if group.error_code != 0 {
            writeln!(out, "{}", ErrorCode::from_code(group.error_code))?;
        }
        for topic in &group.topics {
            for p in &topic.partitions {
                write!(
                    out,
                    "{}/{}: {}",
                    topic.name, p.partition_index, p.committed_offset
                )?;
                if p.committed_leader_epoch != -1 {
                    write!(out, " epoch {}", p.committed_leader_epoch)?;
                }
                match p.metadata.as_deref() {
                    None | Some("") => {}
                    Some(text) if text.len() > 40 => write!(out, " ({} bytes)", text.len())?,
                    Some(text) => write!(out, " ({text})")?,
                }
                if p.error_code != 0 {
                    write!(out, " {}", ErrorCode::from_code(p.error_code))?;
                }
                writeln!(out)?;
            }
        }
        // The whole response must have a place for all of this in its version.
        let response = fetch::response(version, vec![group]);
        response.encode(&mut Writer::new(), version)?;
        Ok(out)
    }

    fn delete_offsets(&mut self, args: &Args) -> Result {
        let places = args.positional();
        let topic = |place: &&str| {
            let (topic, partition) = place.split_once('/').expect("TOPIC/PARTITION");
            OffsetDeleteRequestTopic {
                name: topic.to_owned(),
                partitions: vec![OffsetDeleteRequestPartition {
                    partition_index: partition.parse().expect("a partition"),
                }],
            }
        };
        let topics = places.iter().map(topic).collect();
        let request = OffsetDeleteRequest {
            group_id: args.group(),
            topics,
        };
        self.ask(
            "",
            0,
            |shard, _, to, topics| shard.offset_delete(to, &request, topics),
            true,
        )
    }

    fn delete(&mut self, args: &Args) -> Result {
        let names: Vec<String> = args.positional().iter().map(|n| n.to_string()).collect();
        let (outcome, results) = self.host.shard.delete_groups(&names);
        let (records, replies) = self.host.take(outcome);
        let mut out = self.shown(&records, replies);
        for result in results {
            writeln!(
                out,
                "{}: {}",
                result.group_id,
                ErrorCode::from_code(result.error_code)
            )?;
        }
        Ok(out)
    }

    fn describe(&mut self, args: &Args) -> Result {
        let names: Vec<String> = args.positional().iter().map(|n| n.to_string()).collect();
        let version = args.number("version", 6)?;
        let mut out = String::new();
        for group in self.host.shard.describe_groups(version, &names, false) {
            write!(out, "{}: {}", group.group_id, group.group_state)?;
            if group.error_code != 0 {
                let error = ErrorCode::from_code(group.error_code);
                write!(
                    out,
                    " {error} ({})",
                    group.error_message.unwrap_or_default()
                )?;
            }
            writeln!(
                out,
                " type={} protocol={}",
                group.protocol_type, group.protocol_data
            )?;
            for member in group.members {
                writeln!(
                    out,
                    "  {} client={} host={} instance={} metadata={}B assignment={}",
                    self.named(&member.member_id),
                    member.client_id,
                    member.client_host,
                    member.group_instance_id.as_deref().unwrap_or("-"),
                    member.member_metadata.len(),
                    String::from_utf8_lossy(&member.member_assignment),
                )?;
            }
        }
        Ok(out)
    }

    fn list(&mut self, args: &Args) -> Result {
        let filter = |key| {
            args.get(key)
                .map(|f| vec![f.to_owned()])
                .unwrap_or_default()
        };
        let request = ListGroupsRequest {
            states_filter: filter("state"),
            types_filter: filter("type"),
            ..Default::default()
        };
        let line = |group: oncelog_wire::messages::list_groups_response::ListedGroup| {
            let protocol = group.protocol_type;
            format!(
                "{} {} {} [{protocol}]\n",
                group.group_id, group.group_state, group.group_type
            )
        };
        Ok(self
            .host
            .shard
            .list_groups(&request)
            .into_iter()
            .map(line)
            .collect())
    }

    fn state(&self, group_id: &str) -> String {
        format!("{}\n", self.host.state_name(group_id))
    }

    // ---- asking and showing ----

    fn client(&self, name: &str) -> Client {
        self.clients.get(name).cloned().unwrap_or_default()
    }

    fn ask(
        &mut self,
        name: &str,
        api_version: i16,
        request: impl FnOnce(
            &mut GroupShard,
            oncelog_wire::clock::Now,
            crate::ReplyTo,
            &super::host::TestTopics,
        ) -> crate::Outcome,
        is_answered: bool,
    ) -> Result {
        let (token, records, replies) = self.host.ask(api_version, request);
        self.asked.insert(token, name.to_owned());
        if !is_answered {
            self.host.open.remove(&token);
        }
        let mut out = self.shown(&records, replies);
        if self.host.open.contains_key(&token) {
            writeln!(out, "{name}: parked")?;
        }
        let lost = self.host.lost();
        assert!(
            lost.is_empty(),
            "requests {lost:?} are neither answered nor parked"
        );
        Ok(out)
    }

    fn shown(&mut self, records: &[Record], replies: Vec<(u64, ResponseBody)>) -> String {
        // Answers first: they name the members that the records and other answers speak of.
        for (token, body) in &replies {
            if let (ResponseBody::JoinGroup(join), Some(who)) = (body, self.asked.get(token)) {
                self.names.insert(join.member_id.clone(), who.clone());
                self.names.remove("");
            }
        }
        let replies: String = replies
            .into_iter()
            .map(|(token, body)| self.reply(token, body))
            .collect();
        let records = records.iter().map(|record| self.record(record));
        records.collect::<String>() + &replies
    }

    fn reply(&mut self, token: u64, body: ResponseBody) -> String {
        let who = self.asked.remove(&token).unwrap_or_default();
        let error = |code: i16| ErrorCode::from_code(code);
        match body {
            ResponseBody::JoinGroup(join) => {
                let client = self.clients.entry(who.clone()).or_default();
                if !join.member_id.is_empty() {
                    client.member_id = join.member_id.clone();
                }
                if join.error_code != 0 {
                    return format!("{who}: {}\n", error(join.error_code));
                }
                client.generation = join.generation_id;
                let members: Vec<_> = join.members.iter().map(|m| &*m.member_id).collect();
                let skip = if join.skip_assignment {
                    " skip-assignment"
                } else {
                    ""
                };
                format!(
                    "{who}: joined gen={} protocol={} leader={} members=[{}]{skip}\n",
                    join.generation_id,
                    join.protocol_name.as_deref().unwrap_or("null"),
                    self.named(&join.leader),
                    self.named(&members.join(" "))
                )
            }
            ResponseBody::SyncGroup(sync) if sync.error_code == 0 => {
                let assignment = String::from_utf8_lossy(&sync.assignment).into_owned();
                let protocol = sync.protocol_name.unwrap_or_default();
                format!("{who}: synced protocol={protocol} assignment={assignment:?}\n")
            }
            ResponseBody::SyncGroup(sync) => format!("{who}: {}\n", error(sync.error_code)),
            ResponseBody::Heartbeat(beat) => format!("{who}: {}\n", error(beat.error_code)),
            ResponseBody::LeaveGroup(left) => {
                let mut out = format!("{who}: {}\n", error(left.error_code));
                for member in left.members {
                    let name = self.named(&member.member_id);
                    let instance = member.group_instance_id.unwrap_or_default();
                    out += &format!("  {name:?} {instance} {}\n", error(member.error_code));
                }
                out
            }
            ResponseBody::OffsetCommit(commit) => {
                let mut out = String::new();
                for topic in commit.topics {
                    for p in topic.partitions {
                        let place = format!("{}/{}", topic.name, p.partition_index);
                        out += &format!("{who}: {place} {}\n", error(p.error_code));
                    }
                }
                out
            }
            ResponseBody::TxnOffsetCommit(commit) => {
                let mut out = String::new();
                for topic in commit.topics {
                    for p in topic.partitions {
                        let place = format!("{}/{}", topic.name, p.partition_index);
                        out += &format!("{who}: {place} {}\n", error(p.error_code));
                    }
                }
                out
            }
            ResponseBody::OffsetDelete(deleted) => {
                let mut out = String::new();
                if deleted.error_code != 0 {
                    out += &format!("{}\n", error(deleted.error_code));
                }
                for topic in deleted.topics {
                    for p in topic.partitions {
                        let place = format!("{}/{}", topic.name, p.partition_index);
                        out += &format!("{place} {}\n", error(p.error_code));
                    }
                }
                out
            }
            ResponseBody::ConsumerGroupHeartbeat(beat) => self.beaten(&who, beat),
            other => format!("{who}: {other:?}\n"),
        }
    }

    fn record(&self, record: &Record) -> String {
        use super::super::records::{Replayed, decode};
        match decode(&record.key, record.value.as_deref()).expect("our own record") {
            Replayed::Offset { key, value } => {
                let place = format!("{} {}/{}", key.group, key.topic, key.partition);
                match value {
                    Some(value) => format!("+ offset {place} = {}\n", value.offset),
                    None => format!("+ offset {place} gone\n"),
                }
            }
            Replayed::Group {
                group_id,
                value: None,
            } => format!("+ group {group_id} gone\n"),
            Replayed::Group {
                group_id,
                value: Some(value),
            } => {
                let members: Vec<_> = value
                    .members
                    .iter()
                    .map(|m| {
                        let assignment = String::from_utf8_lossy(&m.assignment).into_owned();
                        format!("{}:{assignment}", self.named(&m.member_id))
                    })
                    .collect();
                format!(
                    "+ group {group_id} gen={} protocol={} leader={} members=[{}]\n",
                    value.generation,
                    value.protocol.as_deref().unwrap_or("null"),
                    self.named(value.leader.as_deref().unwrap_or("null")),
                    members.join(" ")
                )
            }
            Replayed::Consumer(record) => self.consumer_record(record),
            Replayed::Unknown { kind } => format!("+ kind {kind}\n"),
        }
    }

    /// The text with clients' names for member ids.
    fn named(&self, text: &str) -> String {
        self.names
            .iter()
            .fold(text.to_owned(), |text, (id, name)| text.replace(id, name))
    }
}

impl Args<'_> {
    fn group(&self) -> String {
        match self.get("group") {
            Some("none") => String::new(),
            group => group.unwrap_or("g").to_owned(),
        }
    }

    fn generation(&self, own: i32) -> Result<i32> {
        match self.get("gen") {
            Some("none") => Ok(-1),
            _ => self.number("gen", own),
        }
    }

    fn id(&self) -> Option<String> {
        self.get("id").map(|id| {
            if id == "none" {
                String::new()
            } else {
                id.to_owned()
            }
        })
    }
}

fn caller(args: &Args, default_version: i16, name: &str) -> Result<Caller> {
    Ok(Caller {
        connection: 0,
        client_id: args.get("client").unwrap_or(name).to_owned(),
        client_host: args.get("host").unwrap_or("/127.0.0.1").to_owned(),
        api_version: args.number("version", default_version)?,
    })
}

/// `range:t,u`: a consumer's subscription to t and u; `x:!abc` is the metadata `abc` as it is.
fn protocol(text: &str, is_consumer: bool) -> JoinGroupRequestProtocol {
    let (name, rest) = text.split_once(':').unwrap_or((text, ""));
    let metadata = match rest.strip_prefix('!') {
        Some(raw) => Bytes::copy_from_slice(raw.as_bytes()),
        None if !is_consumer => Bytes::copy_from_slice(rest.as_bytes()),
        None => subscription(rest),
    };
    JoinGroupRequestProtocol {
        name: name.to_owned(),
        metadata,
        ..Default::default()
    }
}

fn subscription(topics: &str) -> Bytes {
    let subscription = ConsumerProtocolSubscription {
        topics: topics
            .split(',')
            .filter(|t| !t.is_empty())
            .map(str::to_owned)
            .collect(),
        ..Default::default()
    };
    let mut writer = Writer::new();
    writer.i16(1);
    subscription.encode(&mut writer, 1).unwrap();
    writer.into_bytes().unwrap()
}
