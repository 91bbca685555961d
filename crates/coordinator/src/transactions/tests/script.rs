//! Runs testdata/transactions/*.txt: transcripts of producers and a shard.
//!
//! A producer is a name; the runner keeps its producer id and epoch, as a real client does. Every
//! command prints the records that were appended, the markers that are asked for and the answers
//! that went out. `UPDATE_GOLDENFILES=1 cargo test` rewrites the expected output; the difference
//! is then the review.
//!
//! ```text
//! config [two-phase=on] [guard=off] [expiration=MS] [parked=MS] [record-max=BYTES]   a restart
//! topics NAME=PARTITIONS... | delete-topic NAME...
//! init P [timeout=MS] [self=on] [2pc=on] [keep=on]   self: names its own id and epoch
//! add P TOPIC/PARTITION...        AddPartitionsToTxn of a client
//! lead P TOPIC/PARTITION...       the same of a partition leader
//! verify P TOPIC/PARTITION...     a leader's question
//! offsets P PARTITION             AddOffsetsToTxn
//! commit P | abort P              EndTxn
//! mark [TOPIC/PARTITION...]       the markers are written, all without a place
//! refuse TOPIC/PARTITION error=CODE
//! store ID STATE pid=N epoch=N [last=N]     a record that was there before
//! advance MS | restart | resign | log | list | describe [ID] | explain [ID] | figures
//! ```
//! Every request takes `id=` (x), `version=`, `connection=` (1), `pid=`, `epoch=`, `client=`.

use super::super::{HISTORY_TAG, TransactionConfig, TransactionShard, TransactionState, records};
use super::super::{check_list_request, transaction::Transaction};
use super::host::{COORDINATOR_EPOCH, Host, Seen, TestTopics};
use crate::script_args::Args;
use crate::{Caller, Markers, Outcome, Record, ReplyTo};
use goldenscript::{Command, Context};
use oncelog_wire::clock::Now;
use oncelog_wire::messages::add_partitions_to_txn_request::{
    AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction,
};
use oncelog_wire::messages::add_partitions_to_txn_response::AddPartitionsToTxnTopicResult;
use oncelog_wire::messages::{
    AddOffsetsToTxnRequest, AddPartitionsToTxnRequest, EndTxnRequest, InitProducerIdRequest,
    ListTransactionsRequest,
};
use oncelog_wire::{ErrorCode, ResponseBody};
use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write;

type Result<T = String> = std::result::Result<T, Box<dyn Error>>;

#[test]
fn scripts() {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/transactions");
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

struct Script {
    host: Host,
    /// Producer id and epoch.
    producers: BTreeMap<String, (i64, i16)>,
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
                    let topics = &mut self.host.topics.0;
                    topics.insert(name.to_owned(), partitions.parse()?);
                }
                Ok(String::new())
            }
            "delete-topic" => {
                let (names, now) = (args.positional(), self.host.now);
                for name in &names {
                    self.host.topics.0.remove(*name);
                    self.host.forget_markers(|(topic, _)| topic == name);
                }
                let outcome = self.host.shard.topics_deleted(now, &names);
                let seen = self.host.take(outcome);
                Ok(self.shown(seen))
            }
            "init" => self.init(&args),
            "add" => self.add(&args),
            "lead" => self.lead(&args, false),
            "verify" => self.lead(&args, true),
            "offsets" => self.offsets(&args),
            "commit" => self.end(&args, true),
            "abort" => self.end(&args, false),
            "mark" => {
                let seen = self.host.mark(&args.places(0)?);
                Ok(self.shown(seen))
            }
            "refuse" => self.refuse(&args),
            "store" => self.store(&args),
            "advance" => {
                let seen = self.host.advance(args.positional()[0].parse()?);
                Ok(self.shown(seen))
            }
            "restart" => {
                self.asked.clear();
                let seen = self.host.restart();
                Ok(self.shown(seen))
            }
            "resign" => {
                let fresh = TransactionShard::new(self.host.config.clone(), COORDINATOR_EPOCH);
                let shard = std::mem::replace(&mut self.host.shard, fresh);
                let replies = shard.resign().replies.into_iter();
                let shown = replies.map(|(to, body)| self.reply(to.0, body));
                Ok(shown.collect::<Vec<_>>().concat())
            }
            "log" => {
                let lines = std::mem::take(&mut self.host.lines);
                Ok(lines.iter().map(|line| format!("{line}\n")).collect())
            }
            "list" => self.list(&args),
            "describe" => self.describe(&args),
            "explain" => self.explain(&args),
            "figures" => Ok(self.figures()),
            other => Err(format!("unknown command {other}").into()),
        }
    }
}

impl Script {
    fn new() -> Script {
        let mut host = Host::new(TransactionConfig::default());
        let topics = [("t", 4), ("u", 2), ("__consumer_offsets", 50)];
        for (name, partitions) in topics {
            host.topics.0.insert(name.to_owned(), partitions);
        }
        let (producers, asked) = Default::default();
        Script {
            host,
            producers,
            asked,
        }
    }

    fn config(&mut self, args: &Args) -> Result {
        let mut config = TransactionConfig::default();
        for (key, value) in args.pairs() {
            match key {
                "two-phase" => config.two_phase_commit_enable = value == "on",
                "guard" => config.legacy_guard = value == "on",
                "expiration" => config.transactional_id_expiration_ms = value.parse()?,
                "parked" => config.parked_max_ms = value.parse()?,
                "record-max" => config.record_bytes_max = value.parse()?,
                other => return Err(format!("unknown setting {other}").into()),
            }
        }
        // The partition stays: a broker is restarted with other settings.
        self.host.config = config;
        self.asked.clear();
        let seen = self.host.restart();
        Ok(self.shown(seen))
    }

    fn init(&mut self, args: &Args) -> Result {
        let name = args.positional()[0];
        let caller = caller(args, 5, name)?;
        let names_itself = args.has("self") || args.has("pid") || args.has("epoch");
        let (producer_id, producer_epoch) = match names_itself {
            true => self.identity(args)?,
            false => (-1, -1),
        };
        let request = InitProducerIdRequest {
            transactional_id: args.transactional_id(),
            transaction_timeout_ms: args.number("timeout", 60_000)?,
            producer_id,
            producer_epoch,
            enable2_pc: args.has("2pc"),
            keep_prepared_txn: args.has("keep"),
            ..Default::default()
        };
        self.ask(name, caller.api_version, |shard, now, to, _, fresh| {
            shard.init_producer_id(now, to, &caller, &request, fresh)
        })
    }

    fn add(&mut self, args: &Args) -> Result {
        let name = args.positional()[0];
        let caller = caller(args, 3, name)?;
        let (producer_id, producer_epoch) = self.identity(args)?;
        let request = AddPartitionsToTxnRequest {
            v3_and_below_transactional_id: args.transactional_id().unwrap_or_default(),
            v3_and_below_producer_id: producer_id,
            v3_and_below_producer_epoch: producer_epoch,
            v3_and_below_topics: topics(&args.places(1)?),
            ..Default::default()
        };
        self.ask(name, caller.api_version, |shard, now, to, topics, _| {
            shard.add_partitions(now, to, &caller, &request, topics)
        })
    }

    fn lead(&mut self, args: &Args, verify_only: bool) -> Result {
        let name = args.positional()[0];
        let caller = caller(args, 5, name)?;
        let (producer_id, producer_epoch) = self.identity(args)?;
        let transaction = AddPartitionsToTxnTransaction {
            transactional_id: args.transactional_id().unwrap_or_default(),
            producer_id,
            producer_epoch,
            verify_only,
            topics: topics(&args.places(1)?),
            ..Default::default()
        };
        self.ask(name, caller.api_version, |shard, now, to, topics, _| {
            shard.add_partitions_for_leader(now, to, &caller, &transaction, topics)
        })
    }

    fn offsets(&mut self, args: &Args) -> Result {
        let name = args.positional()[0];
        let caller = caller(args, 3, name)?;
        let (producer_id, producer_epoch) = self.identity(args)?;
        let request = AddOffsetsToTxnRequest {
            transactional_id: args.transactional_id().unwrap_or_default(),
            producer_id,
            producer_epoch,
            group_id: "g".to_owned(),
            ..Default::default()
        };
        let partition = args.positional()[1].parse()?;
        self.ask(name, caller.api_version, |shard, now, to, _, _| {
            shard.add_offsets(now, to, &caller, &request, partition)
        })
    }

    fn end(&mut self, args: &Args, committed: bool) -> Result {
        let name = args.positional()[0];
        let caller = caller(args, 5, name)?;
        let (producer_id, producer_epoch) = self.identity(args)?;
        let request = EndTxnRequest {
            transactional_id: args.transactional_id().unwrap_or_default(),
            producer_id,
            producer_epoch,
            committed,
            ..Default::default()
        };
        self.ask(name, caller.api_version, |shard, now, to, _, fresh| {
            shard.end_txn(now, to, &caller, &request, fresh)
        })
    }

    fn refuse(&mut self, args: &Args) -> Result {
        let error = ErrorCode::from_code(args.number("error", 47)?);
        let mut shown = String::new();
        for (topic, partition) in args.places(0)? {
            let Some(markers) = self.host.markers.last().cloned() else {
                return Err("no markers are asked for".into());
            };
            let outcome = self.host.shard.marker_refused(
                self.host.now,
                &markers.transactional_id,
                markers.producer_id,
                markers.producer_epoch,
                (&topic, partition),
                error,
            );
            self.host
                .forget_markers(|place| *place == (topic.clone(), partition));
            let seen = self.host.take(outcome);
            shown += &self.shown(seen);
        }
        Ok(shown)
    }

    fn store(&mut self, args: &Args) -> Result {
        let [id, state] = args.positional()[..] else {
            return Err("store ID STATE".into());
        };
        let state = TransactionState::ALL
            .into_iter()
            .find(|known| known.name() == state)
            .ok_or("unknown state")?;
        let mut transaction = Transaction::created(args.number("pid", 0)?, 60_000, 0);
        transaction.producer_epoch = args.number("epoch", 0)?;
        transaction.last_producer_epoch = args.number("last", -1)?;
        transaction.client_version = args.number("version", 2)?;
        transaction.update_ms = self.host.now.wall_ms;
        transaction.state = state;
        if !state.is_idle() {
            transaction.start_ms = self.host.now.wall_ms;
            transaction.partitions.add("t", 0);
        }
        self.host.append(records::record(id, &transaction));
        let known = (transaction.producer_id, transaction.producer_epoch);
        let name = args.get("as").unwrap_or("a");
        self.producers.insert(name.to_owned(), known);
        Ok(String::new())
    }

    fn list(&mut self, args: &Args) -> Result {
        let filter = |key| args.get(key).map(str::to_owned);
        let request = ListTransactionsRequest {
            state_filters: filter("state").into_iter().collect(),
            producer_id_filters: match args.get("pid") {
                Some(pid) => vec![pid.parse()?],
                None => Vec::new(),
            },
            duration_filter: args.number("duration", -1)?,
            transactional_id_pattern: filter("pattern"),
            ..Default::default()
        };
        let mut out = String::new();
        let (error, unknown) = check_list_request(&request);
        if error.is_error() || !unknown.is_empty() {
            writeln!(out, "{error} unknown={unknown:?}")?;
        }
        for listed in self.host.shard.list(self.host.now, &request) {
            let (id, state) = (listed.transactional_id, listed.transaction_state);
            writeln!(out, "{id} {state} {}", listed.producer_id)?;
        }
        Ok(out)
    }

    fn describe(&mut self, args: &Args) -> Result {
        let id = *args.positional().first().unwrap_or(&"x");
        let described = self.host.shard.describe(if id == "none" { "" } else { id });
        if described.error_code != 0 {
            let error = ErrorCode::from_code(described.error_code);
            return Ok(format!("{}: {error}\n", described.transactional_id));
        }
        let topics: Vec<_> = described
            .topics
            .iter()
            .map(|topic| format!("{}{:?}", topic.topic, topic.partitions))
            .collect();
        let age = match described.transaction_start_time_ms {
            -1 => "none".to_owned(),
            start => format!("{} ms ago", self.host.now.wall_ms - start),
        };
        Ok(format!(
            "{}: {} {}/{} timeout={} start={age} [{}]\n",
            described.transactional_id,
            described.transaction_state,
            described.producer_id,
            described.producer_epoch,
            described.transaction_timeout_ms,
            topics.join(" ")
        ))
    }

    fn explain(&mut self, args: &Args) -> Result {
        let id = args.positional().first().unwrap_or(&"x").to_string();
        let described = self.host.shard.describe(&id);
        let field = described
            .unknown_tagged_fields
            .first()
            .ok_or("no history")?;
        assert_eq!(field.tag, HISTORY_TAG);
        Ok(String::from_utf8(field.data.to_vec())?)
    }

    fn figures(&self) -> String {
        let figures = self.host.shard.figures();
        let states = figures.states.iter().filter(|(_, count)| *count > 0);
        let states: Vec<_> = states
            .map(|(state, count)| format!("{}={count}", state.name()))
            .collect();
        let oldest = figures.oldest_open_start_ms;
        let age = oldest.map(|start| self.host.now.wall_ms - start);
        let fenced: Vec<_> = figures
            .fenced
            .by_reason()
            .iter()
            .map(|(reason, count)| format!("{reason}={count}"))
            .collect();
        format!(
            "{} oldest={age:?} parked={}\nfenced {}\n",
            states.join(" "),
            figures.parked,
            fenced.join(" ")
        )
    }

    // ---- asking and showing ----

    fn identity(&self, args: &Args) -> Result<(i64, i16)> {
        let name = args.positional()[0];
        let (producer_id, producer_epoch) = self.producers.get(name).copied().unwrap_or((-1, -1));
        Ok((
            args.number("pid", producer_id)?,
            args.number("epoch", producer_epoch)?,
        ))
    }

    fn ask(
        &mut self,
        name: &str,
        api_version: i16,
        request: impl FnOnce(
            &mut TransactionShard,
            Now,
            ReplyTo,
            &TestTopics,
            &mut dyn FnMut() -> i64,
        ) -> Outcome,
    ) -> Result {
        let (token, seen) = self.host.ask(api_version, request);
        self.asked.insert(token, name.to_owned());
        let mut out = self.shown(seen);
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

    fn shown(&mut self, seen: Seen) -> String {
        let mut out: String = seen.records.iter().map(record).collect();
        out.extend(seen.markers.iter().map(markers));
        for (token, body) in seen.replies {
            out += &self.reply(token, body);
        }
        out
    }

    fn reply(&mut self, token: u64, body: ResponseBody) -> String {
        let who = self.asked.remove(&token).unwrap_or_default();
        let error = |code: i16| ErrorCode::from_code(code);
        match body {
            ResponseBody::InitProducerId(init) => {
                if init.error_code == 0 {
                    let identity = (init.producer_id, init.producer_epoch);
                    self.producers.insert(who.clone(), identity);
                }
                let mut out = format!(
                    "{who} {} {}/{}",
                    error(init.error_code),
                    init.producer_id,
                    init.producer_epoch
                );
                if init.ongoing_txn_producer_id != -1 {
                    let (id, epoch) = (
                        init.ongoing_txn_producer_id,
                        init.ongoing_txn_producer_epoch,
                    );
                    out += &format!(" ongoing {id}/{epoch}");
                }
                out + "\n"
            }
            ResponseBody::EndTxn(end) => {
                let error = error(end.error_code);
                if end.producer_id != -1 {
                    let identity = (end.producer_id, end.producer_epoch);
                    self.producers.insert(who.clone(), identity);
                }
                match end.producer_id {
                    -1 => format!("{who} {error}\n"),
                    id => format!("{who} {error} {id}/{}\n", end.producer_epoch),
                }
            }
            ResponseBody::AddOffsetsToTxn(added) => format!("{who} {}\n", error(added.error_code)),
            ResponseBody::AddPartitionsToTxn(added) => {
                let mut out = results(&who, &added.results_by_topic_v3_and_below);
                assert!(added.results_by_transaction.len() <= 1);
                for transaction in &added.results_by_transaction {
                    let who = format!("{who} {}", transaction.transactional_id);
                    out += &results(&who, &transaction.topic_results);
                }
                out
            }
            other => format!("{who} {other:?}\n"),
        }
    }
}

fn results(who: &str, topics: &[AddPartitionsToTxnTopicResult]) -> String {
    let mut out = String::new();
    for topic in topics {
        for partition in &topic.results_by_partition {
            let error = ErrorCode::from_code(partition.partition_error_code);
            let place = format!("{}/{}", topic.name, partition.partition_index);
            out += &format!("{who} {place} {error}\n");
        }
    }
    out
}

fn record(record: &Record) -> String {
    let (id, transaction) = records::decode(&record.key, record.value.as_deref())
        .expect("our own record")
        .expect("a transaction's record");
    let Some(transaction) = transaction else {
        return format!("+ {id} gone\n");
    };
    let places: Vec<_> = transaction
        .partitions
        .iter()
        .map(|(topic, partition)| format!("{topic}/{partition}"))
        .collect();
    let mut out = format!(
        "+ {id} {} {}/{}",
        transaction.state.name(),
        transaction.producer_id,
        transaction.producer_epoch
    );
    if let Some(next) = transaction.next {
        out += &format!(" next={}/{}", next.producer_id, next.producer_epoch);
    }
    if transaction.last_producer_epoch != -1 {
        out += &format!(" last={}", transaction.last_producer_epoch);
    }
    if transaction.client_version != 0 {
        out += &format!(" tv={}", transaction.client_version);
    }
    if !places.is_empty() {
        out += &format!(" [{}]", places.join(" "));
    }
    out + "\n"
}

fn markers(markers: &Markers) -> String {
    assert_eq!(markers.coordinator_epoch, COORDINATOR_EPOCH);
    let places: Vec<_> = markers
        .partitions
        .iter()
        .map(|(topic, partition)| format!("{topic}/{partition}"))
        .collect();
    format!(
        "> {} {} {}/{} tv={} [{}]\n",
        markers.transactional_id,
        if markers.commit { "COMMIT" } else { "ABORT" },
        markers.producer_id,
        markers.producer_epoch,
        markers.transaction_version,
        places.join(" ")
    )
}

fn topics(places: &[(String, i32)]) -> Vec<AddPartitionsToTxnTopic> {
    let topic = |(topic, partition): &(String, i32)| AddPartitionsToTxnTopic {
        name: topic.clone(),
        partitions: vec![*partition],
        ..Default::default()
    };
    places.iter().map(topic).collect()
}

impl Args<'_> {
    fn transactional_id(&self) -> Option<String> {
        match self.get("id") {
            Some("none") => Some(String::new()),
            id => Some(id.unwrap_or("x").to_owned()),
        }
    }

    /// TOPIC/PARTITION from the positional argument `from` on.
    fn places(&self, from: usize) -> Result<Vec<(String, i32)>> {
        let place = |text: &&str| -> Result<(String, i32)> {
            let (topic, partition) = text.split_once('/').ok_or("TOPIC/PARTITION")?;
            Ok((topic.to_owned(), partition.parse()?))
        };
        self.positional()[from..].iter().map(place).collect()
    }
}

fn caller(args: &Args, default_version: i16, name: &str) -> Result<Caller> {
    Ok(Caller {
        connection: args.number("connection", 1)?,
        client_id: args.get("client").unwrap_or(name).to_owned(),
        client_host: args.get("host").unwrap_or("/127.0.0.1").to_owned(),
        api_version: args.number("version", default_version)?,
    })
}
