//! What a broker does for a shard: append, replay at once, send answers, write markers; and after
//! every step the checks that must always hold.

use super::super::state::TransactionState;
use super::super::transaction::Transaction;
use super::super::{TransactionConfig, TransactionShard, records};
use crate::{Markers, Outcome, Record, ReplyTo, TopicView, Topics};
use oncelog_wire::clock::{Instant, Now};
use oncelog_wire::{ResponseBody, Uuid, Writer};
use std::collections::{BTreeMap, BTreeSet};

pub const COORDINATOR_EPOCH: i32 = 7;

/// Topic name -> partitions.
#[derive(Clone, Debug, Default)]
pub struct TestTopics(pub BTreeMap<String, i32>);

impl Topics for TestTopics {
    fn topic(&self, name: &str) -> Option<TopicView> {
        let partitions = *self.0.get(name)?;
        Some(TopicView {
            id: Uuid([1; 16]),
            partitions,
        })
    }

    fn topic_by_id(&self, _: Uuid) -> Option<&str> {
        None
    }

    fn names(&self) -> Box<dyn Iterator<Item = &str> + '_> {
        Box::new(self.0.keys().map(String::as_str))
    }

    fn epoch(&self) -> u64 {
        0
    }
}

/// Everything about a shard that must survive a restart.
pub type Durable = BTreeMap<String, Transaction>;

/// What came out of a step.
#[derive(Debug, Default)]
pub struct Seen {
    pub records: Vec<Record>,
    pub markers: Vec<Markers>,
    pub replies: Vec<(u64, ResponseBody)>,
}

impl Seen {
    pub fn extend(&mut self, later: Seen) {
        self.records.extend(later.records);
        self.markers.extend(later.markers);
        self.replies.extend(later.replies);
    }
}

pub struct Host {
    pub shard: TransactionShard,
    pub config: TransactionConfig,
    pub now: Now,
    pub topics: TestTopics,
    /// The partition.
    pub records: Vec<Record>,
    /// Markers that nobody has written so far.
    pub markers: Vec<Markers>,
    /// Lines for the operator since somebody took them.
    pub lines: Vec<String>,
    /// Requests without an answer so far, and their versions.
    pub open: BTreeMap<u64, i16>,
    pub next_producer_id: i64,
    next_token: u64,
}

impl Host {
    pub fn new(config: TransactionConfig) -> Host {
        let now = Now {
            instant: Instant(1_000_000_000),
            wall_ms: 1_700_000_000_000,
        };
        let mut host = Host {
            shard: TransactionShard::new(config.clone(), COORDINATOR_EPOCH),
            config,
            now,
            topics: TestTopics::default(),
            records: Vec::new(),
            markers: Vec::new(),
            lines: Vec::new(),
            open: BTreeMap::new(),
            next_producer_id: 1_000,
            next_token: 0,
        };
        let outcome = host.shard.loaded(now);
        assert!(host.take(outcome).replies.is_empty());
        host
    }

    /// Makes a request; gives its token and what came out, of this request or of others.
    pub fn ask(
        &mut self,
        api_version: i16,
        request: impl FnOnce(
            &mut TransactionShard,
            Now,
            ReplyTo,
            &TestTopics,
            &mut dyn FnMut() -> i64,
        ) -> Outcome,
    ) -> (u64, Seen) {
        let token = self.next_token;
        self.next_token += 1;
        self.open.insert(token, api_version);
        let next_producer_id = &mut self.next_producer_id;
        let mut fresh = || {
            *next_producer_id += 1;
            *next_producer_id - 1
        };
        let (now, topics) = (self.now, &self.topics);
        let outcome = request(&mut self.shard, now, ReplyTo(token), topics, &mut fresh);
        (token, self.take(outcome))
    }

    /// Carries an outcome out as the broker does.
    pub fn take(&mut self, outcome: Outcome) -> Seen {
        assert!(outcome.transactional.is_none());
        for record in &outcome.records {
            self.check_transition(record);
            self.append(record.clone());
        }
        self.lines.extend(outcome.log);
        self.markers.extend(outcome.markers.iter().cloned());
        let mut replies = Vec::new();
        for (ReplyTo(token), body) in outcome.replies {
            let Some(api_version) = self.open.remove(&token) else {
                panic!("request {token} was answered twice: {body:?}");
            };
            let encoded = body.encode(&mut Writer::new(), api_version);
            assert_eq!(
                encoded,
                Ok(()),
                "{body:?} has no place in version {api_version}"
            );
            replies.push((token, body));
        }
        self.check();
        Seen {
            records: outcome.records,
            markers: outcome.markers,
            replies,
        }
    }

    /// A record that somebody wrote.
    pub fn append(&mut self, record: Record) {
        self.shard
            .replay(&record.key, record.value.as_deref(), self.now)
            .expect("a shard replays what it decides");
        self.records.push(record);
    }

    /// Writes the markers of these partitions, of all without any.
    pub fn mark(&mut self, only: &[(String, i32)]) -> Seen {
        let mut seen = Seen::default();
        for mut markers in std::mem::take(&mut self.markers) {
            let (now, later): (Vec<_>, Vec<_>) = std::mem::take(&mut markers.partitions)
                .into_iter()
                .partition(|place| only.is_empty() || only.contains(place));
            for (topic, partition) in now {
                let outcome = self.shard.marker_written(
                    self.now,
                    &markers.transactional_id,
                    markers.producer_id,
                    markers.producer_epoch,
                    (&topic, partition),
                );
                seen.extend(self.take(outcome));
            }
            if !later.is_empty() {
                markers.partitions = later;
                self.markers.push(markers);
            }
        }
        seen
    }

    /// Nobody will write the markers of these partitions.
    pub fn forget_markers(&mut self, is_gone: impl Fn(&(String, i32)) -> bool) {
        for markers in &mut self.markers {
            markers.partitions.retain(|place| !is_gone(place));
        }
        self.markers
            .retain(|markers| !markers.partitions.is_empty());
    }

    /// Lets time pass, with a tick at each deadline on the way.
    pub fn advance(&mut self, ms: i64) -> Seen {
        let target = self.now.instant.plus_ms(ms);
        let mut seen = Seen::default();
        let mut ticks = 0;
        while self.shard.next_deadline() <= target {
            self.set_time(self.shard.next_deadline().max(self.now.instant));
            let outcome = self.shard.tick(self.now);
            seen.extend(self.take(outcome));
            ticks += 1;
            assert!(ticks < 10_000, "ticks without end");
        }
        self.set_time(target);
        seen
    }

    fn set_time(&mut self, instant: Instant) {
        let start_ms = 1_700_000_000_000 - 1_000;
        self.now = Now {
            instant,
            wall_ms: start_ms + (instant.0 / 1_000_000) as i64,
        };
    }

    /// A new process: everything that is not in the partition is lost, the connections too.
    pub fn restart(&mut self) -> Seen {
        self.open.clear();
        self.markers.clear();
        self.shard = self.replayed(&self.records);
        let outcome = self.shard.loaded(self.now);
        assert!(outcome.replies.is_empty());
        self.take(outcome)
    }

    fn replayed(&self, records: &[Record]) -> TransactionShard {
        let mut shard = TransactionShard::new(self.config.clone(), COORDINATOR_EPOCH);
        for record in records {
            shard
                .replay(&record.key, record.value.as_deref(), self.now)
                .unwrap();
        }
        shard
    }

    pub fn durable(&self) -> Durable {
        durable(&self.shard)
    }

    /// What Kafka's state machine allows, and that no epoch comes back.
    fn check_transition(&self, record: &Record) {
        use TransactionState as S;
        let (id, after) = records::decode(&record.key, record.value.as_deref())
            .unwrap()
            .expect("a transaction's record");
        let before = self.durable().remove(&id);
        let from = before.as_ref().map_or(S::Empty, |before| before.state);
        let Some(after) = after else {
            assert!(from.is_idle(), "{id} is forgotten while {}", from.name());
            return;
        };
        let is_allowed = match after.state {
            S::Empty | S::Ongoing => from.is_idle() || after.state == from,
            S::PrepareCommit => from == S::Ongoing,
            S::PrepareAbort => !from.is_prepare(),
            S::CompleteCommit => from == S::PrepareCommit,
            S::CompleteAbort => from == S::PrepareAbort,
        };
        assert!(
            is_allowed,
            "{id}: {} -> {}",
            from.name(),
            after.state.name()
        );
        if let Some(before) = before {
            let (old, new) = (before.identity(), after.identity());
            assert!(
                old.producer_id != new.producer_id || old.producer_epoch <= new.producer_epoch,
                "{id}: {old:?} -> {new:?}"
            );
        }
    }

    /// What must hold between any two steps.
    fn check(&self) {
        let all = durable(&self.shard);
        assert_eq!(all, durable(&self.replayed(&self.records)), "replay");
        let compacted = self.compacted();
        assert_eq!(all, durable(&self.replayed(&compacted)), "compaction");
        let mut parked = BTreeSet::new();
        for (id, entry) in &self.shard.entries {
            let transaction = entry.transaction.as_ref().expect("it was replayed");
            assert!(
                entry.parked.is_empty() || transaction.state.is_prepare(),
                "{id}: nobody decides what is parked"
            );
            assert_eq!(
                entry.unmarked.is_empty(),
                !transaction.state.is_prepare(),
                "{id}"
            );
            assert!(
                self.shard.next_deadline() <= entry.next_deadline(),
                "{id} is not looked at in time"
            );
            for waiting in &entry.parked {
                assert!(parked.insert(waiting.reply.0), "parked twice");
                assert!(self.open.contains_key(&waiting.reply.0), "parked, answered");
            }
        }
        assert_eq!(self.shard.parked, parked.len());
    }

    /// The last record of each key, as the log cleaner leaves them.
    fn compacted(&self) -> Vec<Record> {
        let mut last = BTreeMap::new();
        for (at, record) in self.records.iter().enumerate() {
            last.insert(record.key.clone(), at);
        }
        let kept = self
            .records
            .iter()
            .enumerate()
            .filter(|(at, record)| last[&record.key] == *at && record.value.is_some());
        kept.map(|(_, record)| record.clone()).collect()
    }

    /// Requests that are neither answered nor parked: there must be none.
    pub fn lost(&self) -> Vec<u64> {
        let entries = self.shard.entries.values();
        let parked: BTreeSet<_> = entries
            .flat_map(|entry| entry.parked.iter().map(|waiting| waiting.reply.0))
            .collect();
        let open = self.open.keys().filter(|token| !parked.contains(token));
        open.copied().collect()
    }
}

fn durable(shard: &TransactionShard) -> Durable {
    let entries = shard.entries.iter();
    entries
        .filter_map(|(id, entry)| Some((id.clone(), entry.transaction.clone()?)))
        .collect()
}
