//! Random sequences of commits, plain and in transactions, markers, and everything that removes
//! offsets.
//!
//! After every step the host checks, from the log alone, which offsets there must be and which
//! are pending, that a replay gives the same, of the whole log and of the compacted one, and that
//! no group with offsets is gone. Here is checked what readers rely on: a stable fetch gives the
//! committed offset, or says that something is pending; an offset that is pending outlives every
//! expiry.

use super::super::GroupConfig;
use super::super::offsets::Place;
use super::host::Host;
use crate::Caller;
use oncelog_wire::ErrorCode;
use oncelog_wire::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use oncelog_wire::messages::offset_delete_request::{
    OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use oncelog_wire::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use oncelog_wire::messages::txn_offset_commit_request::{
    TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use oncelog_wire::messages::{OffsetCommitRequest, OffsetDeleteRequest, TxnOffsetCommitRequest};
use proptest::prelude::*;
use std::collections::BTreeMap;

const GROUPS: [&str; 2] = ["g", "h"];
const TOPICS: [&str; 2] = ["t", "u"];
const PARTITIONS: i32 = 2;

#[derive(Clone, Debug)]
struct Somewhere {
    group: usize,
    topic: usize,
    partition: i32,
}

#[derive(Clone, Debug)]
enum Op {
    Commit(Somewhere),
    TxnCommit { producer_id: i64, place: Somewhere },
    EndTxn { producer_id: i64, commit: bool },
    DeleteOffset(Somewhere),
    DeleteGroup { group: usize },
    DeleteTopic { topic: usize },
    Advance { ms: i64 },
    Restart,
}

fn somewhere() -> impl Strategy<Value = Somewhere> {
    (0..GROUPS.len(), 0..TOPICS.len(), 0..PARTITIONS).prop_map(|(group, topic, partition)| {
        Somewhere {
            group,
            topic,
            partition,
        }
    })
}

fn op() -> impl Strategy<Value = Op> {
    let producer_id = 1..4i64;
    prop_oneof![
        6 => somewhere().prop_map(Op::Commit),
        12 => (producer_id.clone(), somewhere())
            .prop_map(|(producer_id, place)| Op::TxnCommit { producer_id, place }),
        6 => (producer_id, prop::bool::weighted(0.7))
            .prop_map(|(producer_id, commit)| Op::EndTxn { producer_id, commit }),
        2 => somewhere().prop_map(Op::DeleteOffset),
        1 => (0..GROUPS.len()).prop_map(|group| Op::DeleteGroup { group }),
        1 => (0..TOPICS.len()).prop_map(|topic| Op::DeleteTopic { topic }),
        3 => (0..8_000i64).prop_map(|ms| Op::Advance { ms }),
        1 => Just(Op::Restart),
    ]
}

struct World {
    host: Host,
    next_offset: i64,
}

impl World {
    fn new() -> World {
        let mut host = Host::new(GroupConfig {
            offsets_retention_ms: 10_000,
            offsets_retention_check_interval_ms: 1_000,
            ..GroupConfig::default()
        });
        for topic in TOPICS {
            host.topics.create(topic, PARTITIONS);
        }
        World {
            host,
            next_offset: 0,
        }
    }

    fn run(&mut self, op: &Op) {
        match op {
            Op::Commit(place) => self.commit(place),
            Op::TxnCommit { producer_id, place } => self.txn_commit(*producer_id, place),
            Op::EndTxn {
                producer_id,
                commit,
            } => {
                self.host.end_transaction(*producer_id, *commit);
                let durable = self.host.durable();
                let mut left = durable.pending.keys();
                assert!(left.all(|(of, _)| of != producer_id), "pending for ever");
            }
            Op::DeleteOffset(place) => self.delete_offset(place),
            Op::DeleteGroup { group } => {
                let group_id = GROUPS[*group].to_owned();
                let names = std::slice::from_ref(&group_id);
                let (outcome, _) = self.host.shard.delete_groups(names);
                let _ = self.host.take(outcome);
                let durable = self.host.durable();
                assert!(!durable.offsets.contains_key(&group_id));
                assert!(
                    durable
                        .pending
                        .keys()
                        .all(|(_, at)| at.group_id != group_id)
                );
            }
            Op::DeleteTopic { topic } => {
                let name = TOPICS[*topic];
                self.host.topics.delete(name);
                let outcome = self.host.shard.topics_deleted(&[name]);
                let _ = self.host.take(outcome);
                let durable = self.host.durable();
                assert!(durable.pending.keys().all(|(_, at)| at.topic != name));
                self.host.topics.create(name, PARTITIONS);
            }
            Op::Advance { ms } => {
                let pending = self.host.durable().pending;
                let (_, replies) = self.host.advance(*ms);
                assert!(replies.is_empty());
                assert_eq!(
                    pending,
                    self.host.durable().pending,
                    "expired while pending"
                );
            }
            Op::Restart => self.host.restart(),
        }
        self.fetch_all();
    }

    fn commit(&mut self, place: &Somewhere) {
        self.next_offset += 1;
        let request = OffsetCommitRequest {
            group_id: GROUPS[place.group].to_owned(),
            generation_id_or_member_epoch: -1,
            topics: vec![OffsetCommitRequestTopic {
                name: TOPICS[place.topic].to_owned(),
                partitions: vec![OffsetCommitRequestPartition {
                    partition_index: place.partition,
                    committed_offset: self.next_offset,
                    ..Default::default()
                }],
                ..Default::default()
            }],
            ..Default::default()
        };
        let (_, records, _) = self.host.ask(8, |shard, now, to, topics| {
            shard.offset_commit(now, to, &caller(8), request, topics)
        });
        assert_eq!(records.len(), 1);
    }

    fn txn_commit(&mut self, producer_id: i64, place: &Somewhere) {
        self.next_offset += 1;
        let request = TxnOffsetCommitRequest {
            group_id: GROUPS[place.group].to_owned(),
            producer_id,
            topics: vec![TxnOffsetCommitRequestTopic {
                name: TOPICS[place.topic].to_owned(),
                partitions: vec![TxnOffsetCommitRequestPartition {
                    partition_index: place.partition,
                    committed_offset: self.next_offset,
                    ..Default::default()
                }],
                ..Default::default()
            }],
            ..Default::default()
        };
        let (_, records, _) = self.host.ask(5, |shard, now, to, topics| {
            shard.txn_offset_commit(now, to, &caller(5), &request, topics)
        });
        assert_eq!(records.len(), 1);
    }

    fn delete_offset(&mut self, place: &Somewhere) {
        let request = OffsetDeleteRequest {
            group_id: GROUPS[place.group].to_owned(),
            topics: vec![OffsetDeleteRequestTopic {
                name: TOPICS[place.topic].to_owned(),
                partitions: vec![OffsetDeleteRequestPartition {
                    partition_index: place.partition,
                }],
            }],
        };
        self.host.ask(0, |shard, _, to, topics| {
            shard.offset_delete(to, &request, topics)
        });
    }

    fn fetch_all(&self) {
        let durable = self.host.durable();
        for group_id in GROUPS {
            let topics = TOPICS.map(|name| OffsetFetchRequestTopics {
                name: name.to_owned(),
                partition_indexes: (0..PARTITIONS).collect(),
                ..Default::default()
            });
            let request = OffsetFetchRequestGroup {
                group_id: group_id.to_owned(),
                topics: Some(topics.to_vec()),
                ..Default::default()
            };
            for is_stable in [false, true] {
                let shard = &self.host.shard;
                let group = shard.offset_fetch(8, &request, is_stable, &self.host.topics);
                for topic in group.topics {
                    for partition in topic.partitions {
                        let place = Place {
                            group_id: group_id.to_owned(),
                            topic: topic.name.clone(),
                            partition: partition.partition_index,
                        };
                        let committed = durable
                            .offsets
                            .get(group_id)
                            .and_then(|topics| topics.get(&topic.name)?.get(&place.partition))
                            .map_or(-1, |offset| offset.offset);
                        let is_pending = durable.pending.keys().any(|(_, at)| *at == place);
                        let expected = match is_stable && is_pending {
                            true => (-1, ErrorCode::UnstableOffsetCommit.code()),
                            false => (committed, 0),
                        };
                        let found = (partition.committed_offset, partition.error_code);
                        assert_eq!(found, expected, "{place:?}");
                    }
                }
            }
        }
    }

    /// When every transaction has ended, everything expires, and the groups with it.
    fn fade_out(&mut self) {
        for producer_id in 1..4 {
            self.host.end_transaction(producer_id, true);
        }
        assert!(self.host.durable().pending.is_empty());
        self.host.advance(60_000);
        assert!(self.host.durable().offsets.is_empty());
        assert!(self.host.shard.groups.is_empty());
    }
}

fn caller(api_version: i16) -> Caller {
    Caller {
        api_version,
        ..Caller::default()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 120, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_of_commits_gives_what_the_log_says(
        ops in prop::collection::vec(op(), 1..100),
    ) {
        let mut world = World::new();
        for op in &ops {
            world.run(op);
        }
        world.fade_out();
    }
}

/// The generator reaches what it is meant to reach.
#[test]
fn random_sequences_reach_what_matters() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let mut reached: BTreeMap<&str, usize> = BTreeMap::new();
    for _ in 0..50 {
        let ops = prop::collection::vec(op(), 80)
            .new_tree(&mut runner)
            .unwrap()
            .current();
        let mut world = World::new();
        for op in &ops {
            let before = world.host.durable();
            world.run(op);
            let after = world.host.durable();
            let mut count = |what, is_so| *reached.entry(what).or_default() += usize::from(is_so);
            let producers =
                |place: &Place| before.pending.keys().filter(|(_, p)| p == place).count();
            let is_shared = before.pending.keys().any(|(_, place)| producers(place) > 1);
            count("two producers with one partition", is_shared);
            if let Op::EndTxn {
                producer_id,
                commit: true,
            } = op
            {
                let has = before.pending.keys().any(|(of, _)| of == producer_id);
                count("committed", has && after.offsets != before.offsets);
                count("too late", has && after.offsets == before.offsets);
            }
            if matches!(op, Op::Advance { .. }) && !before.pending.is_empty() {
                count("expired beside", after.offsets != before.offsets);
            }
        }
    }
    for what in [
        "two producers with one partition",
        "committed",
        "too late",
        "expired beside",
    ] {
        assert!(
            reached.get(what).is_some_and(|times| *times > 20),
            "{what}: {reached:?}"
        );
    }
}
