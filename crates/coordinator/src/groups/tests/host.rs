//! What a broker does for a shard: append, replay at once, send answers; and after every step the
//! checks that must always hold.

use super::super::classic::State;
use super::super::group::Group;
use super::super::offsets::{CommittedOffset, Place};
use super::super::records::{Replayed, decode};
use super::super::{GroupConfig, GroupShard};
use crate::seed::Seed;
use crate::{Outcome, Record, ReplyTo, TopicView, Topics};
use oncelog_wire::clock::{Instant, Now};
use oncelog_wire::messages::GroupMetadataValue;
use oncelog_wire::{ResponseBody, Uuid, Writer};
use std::collections::{BTreeMap, BTreeSet};

/// Topic name -> partitions; the id is made of the name and the incarnation.
#[derive(Clone, Debug, Default)]
pub struct TestTopics {
    topics: BTreeMap<String, TopicView>,
    incarnation: u8,
    changes: u64,
}

impl TestTopics {
    pub fn create(&mut self, name: &str, partitions: i32) {
        self.incarnation += 1;
        self.changes += 1;
        let mut id = [self.incarnation; 16];
        id[0] = name.len() as u8;
        self.topics.insert(
            name.to_owned(),
            TopicView {
                id: Uuid(id),
                partitions,
            },
        );
    }

    /// Changes how many partitions the topic has; it stays the same topic.
    pub fn grow(&mut self, name: &str, partitions: i32) {
        self.changes += 1;
        let view = self.topics.get_mut(name).expect("the topic is there");
        view.partitions = partitions;
    }

    pub fn delete(&mut self, name: &str) {
        self.changes += 1;
        self.topics.remove(name);
    }
}

impl Topics for TestTopics {
    fn topic(&self, name: &str) -> Option<TopicView> {
        self.topics.get(name).copied()
    }

    fn topic_by_id(&self, id: Uuid) -> Option<&str> {
        let found = self.topics.iter().find(|(_, view)| view.id == id);
        found.map(|(name, _)| name.as_str())
    }

    fn names(&self) -> Box<dyn Iterator<Item = &str> + '_> {
        Box::new(self.topics.keys().map(String::as_str))
    }

    fn epoch(&self) -> u64 {
        self.changes
    }
}

/// What lies in the partition; an entry's place in the list is its offset.
#[derive(Clone, Debug)]
pub enum Entry {
    /// Of this producer's transaction, if one is named.
    Record(Option<i64>, Record),
    Marker {
        producer_id: i64,
        commit: bool,
    },
}

/// Everything about a shard that must survive a restart.
#[derive(Debug, PartialEq)]
pub struct Durable {
    pub groups: BTreeMap<String, GroupMetadataValue>,
    /// As text: what matters is whether it is the same.
    pub consumer_groups: BTreeMap<String, String>,
    pub offsets: BTreeMap<String, BTreeMap<String, BTreeMap<i32, CommittedOffset>>>,
    pub pending: BTreeMap<(i64, Place), CommittedOffset>,
}

pub struct Host {
    pub shard: GroupShard,
    pub config: GroupConfig,
    pub now: Now,
    pub topics: TestTopics,
    /// The partition.
    pub log: Vec<Entry>,
    /// Lines for the operator since somebody took them.
    pub lines: Vec<String>,
    /// Requests without an answer so far, and their versions.
    pub open: BTreeMap<u64, i16>,
    next_token: u64,
    restarts: u64,
}

impl Host {
    pub fn new(config: GroupConfig) -> Host {
        let now = Now {
            instant: Instant(1_000_000_000),
            wall_ms: 1_700_000_000_000,
        };
        let mut host = Host {
            shard: GroupShard::new(config.clone(), Seed::new(0)),
            config,
            now,
            topics: TestTopics::default(),
            log: Vec::new(),
            lines: Vec::new(),
            open: BTreeMap::new(),
            next_token: 0,
            restarts: 0,
        };
        let outcome = host.shard.loaded(now);
        assert!(host.take(outcome).1.is_empty());
        host
    }

    /// Makes a request; gives its token, the records and the answers that came out, this
    /// request's or others'.
    pub fn ask(
        &mut self,
        api_version: i16,
        request: impl FnOnce(&mut GroupShard, Now, ReplyTo, &TestTopics) -> Outcome,
    ) -> (u64, Vec<Record>, Vec<(u64, ResponseBody)>) {
        let token = self.next_token;
        self.next_token += 1;
        self.open.insert(token, api_version);
        let outcome = request(&mut self.shard, self.now, ReplyTo(token), &self.topics);
        let (records, replies) = self.take(outcome);
        (token, records, replies)
    }

    /// Carries an outcome out as the broker does.
    pub fn take(&mut self, outcome: Outcome) -> (Vec<Record>, Vec<(u64, ResponseBody)>) {
        assert!(
            outcome.transactional.is_none() || !outcome.records.is_empty(),
            "nothing in a transaction"
        );
        let producer_id = outcome.transactional.map(|(producer_id, _)| producer_id);
        for record in &outcome.records {
            self.append(Entry::Record(producer_id, record.clone()));
        }
        self.lines.extend(outcome.log);
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
        (outcome.records, replies)
    }

    fn append(&mut self, entry: Entry) {
        let offset = self.log.len() as i64;
        replay(&mut self.shard, &entry, offset, self.now);
        self.log.push(entry);
    }

    /// A marker is written.
    pub fn end_transaction(&mut self, producer_id: i64, commit: bool) {
        self.append(Entry::Marker {
            producer_id,
            commit,
        });
        self.check();
    }

    /// Records of plain batches and of transactions.
    pub fn records(&self) -> impl Iterator<Item = &Record> {
        self.log.iter().filter_map(|entry| match entry {
            Entry::Record(_, record) => Some(record),
            Entry::Marker { .. } => None,
        })
    }

    /// Lets time pass, with a tick at each deadline on the way.
    pub fn advance(&mut self, ms: i64) -> (Vec<Record>, Vec<(u64, ResponseBody)>) {
        let target = self.now.instant.plus_ms(ms);
        let (mut records, mut replies) = (Vec::new(), Vec::new());
        let mut ticks = 0;
        while self.shard.next_deadline() <= target {
            self.set_time(self.shard.next_deadline().max(self.now.instant));
            let outcome = self.shard.tick(self.now);
            let (more_records, more_replies) = self.take(outcome);
            records.extend(more_records);
            replies.extend(more_replies);
            ticks += 1;
            assert!(ticks < 10_000, "ticks without end");
        }
        self.set_time(target);
        (records, replies)
    }

    fn set_time(&mut self, instant: Instant) {
        let start_ms = 1_700_000_000_000 - 1_000;
        self.now = Now {
            instant,
            wall_ms: start_ms + (instant.0 / 1_000_000) as i64,
        };
    }

    /// A new process: everything that is not in the partition is lost, the connections too.
    pub fn restart(&mut self) {
        self.restarts += 1;
        self.open.clear();
        self.shard = self.replayed(self.whole());
        let outcome = self.shard.loaded(self.now);
        assert!(outcome.records.is_empty() && outcome.replies.is_empty());
        self.lines.extend(outcome.log);
        self.check();
    }

    /// The log with its offsets.
    fn whole(&self) -> impl Iterator<Item = (i64, &Entry)> {
        (0..).zip(&self.log)
    }

    fn replayed<'a>(&self, log: impl IntoIterator<Item = (i64, &'a Entry)>) -> GroupShard {
        let mut shard = GroupShard::new(self.config.clone(), Seed::new(self.restarts));
        for (offset, entry) in log {
            replay(&mut shard, entry, offset, self.now);
        }
        shard
    }

    pub fn durable(&self) -> Durable {
        durable(&self.shard)
    }

    /// What must hold between any two steps.
    fn check(&self) {
        assert_eq!(
            durable(&self.shard),
            durable(&self.replayed(self.whole())),
            "replay"
        );
        assert_eq!(
            durable(&self.shard),
            durable(&self.replayed(self.compacted())),
            "compaction"
        );
        self.check_offsets();
        let mut parked = BTreeSet::new();
        for (group_id, group) in &self.shard.groups {
            match group {
                Group::Classic(group) => {
                    group.check(group_id);
                    for ReplyTo(token) in group.parked() {
                        assert!(parked.insert(token), "request {token} is parked twice");
                    }
                }
                Group::Consumer(group) => group.check(group_id),
            }
        }
        let unknown: Vec<_> = parked
            .iter()
            .filter(|t| !self.open.contains_key(t))
            .collect();
        assert!(unknown.is_empty(), "parked after their answer: {unknown:?}");
        for (group_id, group) in &self.shard.groups {
            let at = match group {
                Group::Classic(group) => group.next_deadline(),
                Group::Consumer(group) => group.next_deadline(),
            };
            assert!(
                self.shard.deadlines.next() <= at,
                "{group_id} is not looked at in time"
            );
        }
    }

    /// Which offsets there are, by what the log says as a whole: for each partition the newest
    /// commit after its last tombstone, plain or of a transaction that was committed; and what of
    /// open transactions comes after that tombstone is pending.
    fn check_offsets(&self) {
        let mut committed = BTreeMap::new();
        let mut pending = BTreeMap::new();
        for (at, entry) in self.whole() {
            let Entry::Record(producer_id, record) = entry else {
                continue;
            };
            let replayed = decode(&record.key, record.value.as_deref()).unwrap();
            let Replayed::Offset { key, value } = replayed else {
                continue;
            };
            let place = Place::from(key);
            let Some(value) = value else {
                committed.remove(&place);
                pending.retain(|(_, pending), _| *pending != place);
                continue;
            };
            let end = producer_id.map(|producer_id| self.end_of(producer_id, at));
            match (producer_id, end) {
                (Some(producer_id), Some(None)) => {
                    pending.insert((*producer_id, place), (at, value.offset));
                }
                (_, Some(Some(false))) => {}
                _ => {
                    committed.insert(place, (at, value.offset));
                }
            }
        }
        let durable = durable(&self.shard);
        let found = durable.pending.iter();
        let found: BTreeMap<_, _> = found
            .map(|(key, offset)| (key.clone(), (offset.record_offset, offset.offset)))
            .collect();
        assert_eq!(found, pending, "pending offsets");
        let mut found = BTreeMap::new();
        for (group_id, topics) in &durable.offsets {
            for (topic, partitions) in topics {
                for (partition, offset) in partitions {
                    let place = Place {
                        group_id: group_id.clone(),
                        topic: topic.clone(),
                        partition: *partition,
                    };
                    found.insert(place, (offset.record_offset, offset.offset));
                }
            }
        }
        assert_eq!(found, committed, "committed offsets");
        let known = &self.shard.groups;
        let mut groups = durable.offsets.keys();
        assert!(
            groups.all(|id| known.contains_key(id)),
            "offsets of no group"
        );
    }

    /// How the transaction of the producer's record at `at` ended.
    fn end_of(&self, producer_id: i64, at: i64) -> Option<bool> {
        let later = self.log.iter().skip(at as usize);
        let mut ends = later.filter_map(|entry| match entry {
            Entry::Marker {
                producer_id: of,
                commit,
            } if *of == producer_id => Some(*commit),
            _ => None,
        });
        ends.next()
    }

    /// What the log cleaner leaves: up to the first record of an open transaction the last record
    /// of each key, without those of aborted transactions; everything from there on.
    fn compacted(&self) -> Vec<(i64, &Entry)> {
        let end_of = |at: i64, entry: &Entry| match entry {
            Entry::Record(Some(producer_id), _) => self.end_of(*producer_id, at),
            _ => Some(true),
        };
        let mut open = self
            .whole()
            .filter(|(at, entry)| end_of(*at, entry).is_none());
        let dirty = open.next().map_or(self.log.len() as i64, |(at, _)| at);
        let mut last = BTreeMap::new();
        for (at, entry) in self.whole().take_while(|(at, _)| *at < dirty) {
            if let (Entry::Record(_, record), Some(true)) = (entry, end_of(at, entry)) {
                last.insert(&record.key, at);
            }
        }
        let is_kept = |(at, entry): &(i64, &Entry)| match entry {
            Entry::Record(_, record) if *at < dirty => {
                last.get(&record.key) == Some(at) && record.value.is_some()
            }
            _ => true,
        };
        self.whole().filter(is_kept).collect()
    }

    /// Requests that nobody has answered and that no group knows of: there must be none after
    /// [`Host::ask`] and [`Host::advance`].
    pub fn lost(&self) -> Vec<u64> {
        let mut parked = BTreeSet::new();
        for group in self.shard.groups.values() {
            if let Group::Classic(group) = group {
                parked.extend(group.parked().map(|ReplyTo(token)| token));
            }
        }
        self.open
            .keys()
            .filter(|token| !parked.contains(token))
            .copied()
            .collect()
    }

    pub fn state(&self, group_id: &str) -> State {
        match self.shard.groups.get(group_id) {
            Some(Group::Classic(group)) => group.state(),
            Some(Group::Consumer(_)) => panic!("{group_id} is no classic group"),
            None => State::Dead,
        }
    }

    pub fn state_name(&self, group_id: &str) -> &'static str {
        let group = self.shard.groups.get(group_id);
        group.map_or(State::Dead.name(), Group::state_name)
    }
}

fn replay(shard: &mut GroupShard, entry: &Entry, offset: i64, now: Now) {
    let result = match entry {
        Entry::Record(None, record) => {
            shard.replay(&record.key, record.value.as_deref(), offset, now)
        }
        Entry::Record(Some(producer_id), record) => {
            let value = record.value.as_deref();
            shard.replay_transactional(*producer_id, &record.key, value, offset, now)
        }
        Entry::Marker {
            producer_id,
            commit,
        } => {
            shard.replay_marker(*producer_id, *commit, now);
            Ok(())
        }
    };
    result.expect("a shard replays what it decides");
}

fn durable(shard: &GroupShard) -> Durable {
    let (mut groups, mut consumer_groups) = (BTreeMap::new(), BTreeMap::new());
    for (group_id, group) in &shard.groups {
        match group {
            Group::Classic(group) => {
                if let Some(committed) = group.committed() {
                    groups.insert(group_id.clone(), committed.clone());
                }
            }
            Group::Consumer(group) => {
                consumer_groups.insert(group_id.clone(), group.durable());
            }
        }
    }
    Durable {
        groups,
        consumer_groups,
        offsets: shard.offsets.all().clone(),
        pending: shard.offsets.all_pending(),
    }
}
