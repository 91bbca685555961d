//! What a broker does for a shard: append, replay at once, send answers; and after every step the
//! checks that must always hold.

use super::super::classic::State;
use super::super::group::Group;
use super::super::offsets::CommittedOffset;
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

/// Everything about a shard that must survive a restart.
#[derive(Debug, PartialEq)]
pub struct Durable {
    pub groups: BTreeMap<String, GroupMetadataValue>,
    /// As text: what matters is whether it is the same.
    pub consumer_groups: BTreeMap<String, String>,
    pub offsets: BTreeMap<String, BTreeMap<String, BTreeMap<i32, CommittedOffset>>>,
}

pub struct Host {
    pub shard: GroupShard,
    pub config: GroupConfig,
    pub now: Now,
    pub topics: TestTopics,
    /// The partition.
    pub records: Vec<Record>,
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
            records: Vec::new(),
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
        for record in &outcome.records {
            self.shard
                .replay(&record.key, record.value.as_deref(), self.now)
                .expect("a shard replays what it decides");
            self.records.push(record.clone());
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
        self.shard = self.replayed(&self.records);
        let outcome = self.shard.loaded(self.now);
        assert!(outcome.records.is_empty() && outcome.replies.is_empty());
        self.lines.extend(outcome.log);
        self.check();
    }

    fn replayed(&self, records: &[Record]) -> GroupShard {
        let mut shard = GroupShard::new(self.config.clone(), Seed::new(self.restarts));
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

    /// What must hold between any two steps.
    fn check(&self) {
        assert_eq!(
            durable(&self.shard),
            durable(&self.replayed(&self.records)),
            "replay"
        );
        assert_eq!(
            durable(&self.shard),
            durable(&self.replayed(&self.compacted())),
            "compaction"
        );
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
    }
}
