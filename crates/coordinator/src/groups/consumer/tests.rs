//! The consumer group's records and hashes against Kafka's own, expressions, and logs that no
//! coordinator of ours writes.

use super::group::{ConsumerGroup, ResolvedRegex, State, TargetMetadata};
use super::member::{CurrentAssignment, MemberMetadata, MemberState, Partitions};
use super::records::{self, Change, ConsumerRecord};
use super::subscription::{compile, matching, metadata_hash};
use crate::groups::records::{ReplayError, Replayed, decode};
use crate::groups::{GroupConfig, GroupShard};
use crate::seed::Seed;
use crate::{Record, TopicView, Topics};
use oncelog_wire::Uuid;
use oncelog_wire::clock::Now;
use std::collections::{BTreeMap, BTreeSet};

fn id(first: u8) -> Uuid {
    Uuid(std::array::from_fn(|at| first + at as u8))
}

fn metadata() -> MemberMetadata {
    MemberMetadata {
        instance_id: Some("i".into()),
        rack_id: Some("r".into()),
        client_id: "c".into(),
        client_host: "/127.0.0.1".into(),
        topic_names: ["t", "a"].map(str::to_owned).into(),
        topic_regex: "x.*".into(),
        rebalance_timeout_ms: 60_000,
        server_assignor: Some("range".into()),
    }
}

fn current() -> CurrentAssignment {
    CurrentAssignment {
        epoch: 5,
        previous_epoch: 4,
        state: MemberState::UnrevokedPartitions,
        assigned: [(id(1), [(0, 2), (1, 3)].into())].into(),
        revoking: [(id(17), [(7, 1)].into())].into(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What Kafka 4.3.1 gives for the same values: `GroupCoordinatorRecordHelpers` through
/// `GroupCoordinatorRecordSerde`, of kafka-group-coordinator-4.3.1.jar.
#[test]
fn the_bytes_are_those_that_kafka_writes() {
    let check = |record: Record, key: &str, value: &str, change: Change| {
        assert_eq!(hex(&record.key), key);
        assert_eq!(record.value.as_deref().map(hex).unwrap_or_default(), value);
        let group_id = "g".to_owned();
        let expected = Replayed::Consumer(ConsumerRecord { group_id, change });
        assert_eq!(decode(&record.key, record.value.as_deref()), Ok(expected));
    };
    check(
        records::member("g", "m", Some(&metadata())),
        "000500016700016d",
        "00000269027202630b2f3132372e302e302e31030261027404782e2a0000ea600672616e676501000100",
        Change::Member("m".into(), Some(metadata())),
    );
    let plain = MemberMetadata {
        topic_names: ["t".to_owned()].into(),
        rebalance_timeout_ms: 1,
        ..Default::default()
    };
    check(
        records::member("g", "m", Some(&plain)),
        "000500016700016d",
        "00000000010102027401000000010001000100",
        Change::Member("m".into(), Some(plain.clone())),
    );
    check(
        records::current("g", "m", Some(&current())),
        "000800016700016d",
        "0000000000050000000401020102030405060708090a0b0c0d0e0f10030000000000000001010009030000\
         000200000003021112131415161718191a1b1c1d1e1f200200000007010005020000000100",
        Change::Current("m".into(), Some(current())),
    );
    let partitions: Partitions = [(id(1), [0, 1].into())].into();
    check(
        records::target("g", "m", Some(&partitions)),
        "000700016700016d",
        "0000020102030405060708090a0b0c0d0e0f100300000000000000010000",
        Change::Target("m".into(), Some(partitions.clone())),
    );
    let target = TargetMetadata {
        epoch: 5,
        timestamp_ms: 1_700_000_000_000,
    };
    check(
        records::target_metadata("g", Some(target)),
        "0006000167",
        "0000000000050100080000018bcfe56800",
        Change::TargetMetadata(Some(target)),
    );
    let resolved = ResolvedRegex {
        topics: ["xb", "xa"].map(str::to_owned).into(),
        topics_epoch: 9,
        timestamp_ms: 10,
    };
    check(
        records::regex("g", "x.*", Some(&resolved)),
        "00100001670003782e2a",
        "0000030378610378620000000000000009000000000000000a00",
        Change::Regex("x.*".into(), Some(resolved.clone())),
    );
    check(
        records::partition_metadata_tombstone("g"),
        "0004000167",
        "",
        Change::PartitionMetadata,
    );
    let epoch = records::epoch("g", 5, 0x0102_0304_0506_0708);
    assert_eq!(
        hex(&epoch.value.unwrap()),
        "0000000000050100080102030405060708"
    );
    let epoch = records::epoch("g", 5, 0);
    assert_eq!(hex(&epoch.key), "0003000167");
    assert_eq!(hex(&epoch.value.unwrap()), "00000000000500");
}

#[test]
fn malformed_records_are_refused() {
    let good = records::current("g", "m", Some(&current()));
    let value = good.value.unwrap();
    for end in 0..value.len() {
        let refused = decode(&good.key, Some(&value[..end]));
        assert!(
            matches!(refused, Err(ReplayError::Value { kind: 8, .. })),
            "{refused:?}"
        );
    }
    for end in 2..good.key.len() {
        let refused = decode(&good.key[..end], None);
        assert!(matches!(refused, Err(ReplayError::Key(_))), "{refused:?}");
    }
}

/// Kafka before 4.3 wrote no assignment epochs, and before 4.1 what topics looked like.
#[test]
fn records_of_older_releases_are_read() {
    let key = records::current("g", "m", None).key;
    let mut value = vec![0, 0];
    value.extend(5i32.to_be_bytes());
    value.extend(4i32.to_be_bytes());
    // Stable; one topic with partition 3; nothing pending revocation.
    value.extend([0, 2]);
    value.extend(id(1).0);
    value.extend([2, 0, 0, 0, 3, 0, 1, 0]);
    let Replayed::Consumer(record) = decode(&key, Some(&value)).unwrap() else {
        panic!("a consumer group's record");
    };
    let Change::Current(_, Some(read)) = record.change else {
        panic!("a current assignment");
    };
    assert_eq!(read.assigned, [(id(1), [(3, 5)].into())].into());
    let key = records::partition_metadata_tombstone("g").key;
    let read = decode(&key, Some(&[0, 0, 1, 0])).unwrap();
    let group_id = "g".to_owned();
    let change = Change::PartitionMetadata;
    assert_eq!(
        read,
        Replayed::Consumer(ConsumerRecord { group_id, change })
    );
}

struct SomeTopics(BTreeMap<&'static str, TopicView>);

impl Topics for SomeTopics {
    fn topic(&self, name: &str) -> Option<TopicView> {
        self.0.get(name).copied()
    }

    fn topic_by_id(&self, id: Uuid) -> Option<&str> {
        let mut topics = self.0.iter();
        topics
            .find(|(_, view)| view.id == id)
            .map(|(name, _)| *name)
    }

    fn names(&self) -> Box<dyn Iterator<Item = &str> + '_> {
        Box::new(self.0.keys().copied())
    }

    fn epoch(&self) -> u64 {
        1
    }
}

fn topics(topics: &[(&'static str, Uuid, i32)]) -> SomeTopics {
    let topics = topics.iter().copied();
    SomeTopics(
        topics
            .map(|(name, id, partitions)| (name, TopicView { id, partitions }))
            .collect(),
    )
}

/// What Kafka 4.3.1 gives: `Utils.computeGroupHash` of `computeTopicHash`es, without racks.
#[test]
fn the_hash_is_the_one_that_kafka_writes() {
    let topics = topics(&[("t", id(1), 3), ("ab-1", id(17), 1)]);
    let hash = |names: &[&'static str]| metadata_hash(names.iter().copied(), &topics);
    assert_eq!(hash(&["t", "ab-1"]), -4_921_469_884_225_665_423);
    assert_eq!(hash(&["t"]), 8_179_300_238_714_719_308);
    assert_eq!(hash(&["t", "t", "not-there"]), 8_179_300_238_714_719_308);
    assert_eq!(hash(&["not-there"]), 0);
}

#[test]
fn expressions_match_whole_names() {
    let topics = topics(&[
        ("a", id(1), 1),
        ("a.b", id(2), 1),
        ("axb", id(3), 1),
        ("b", id(4), 1),
        ("B", id(5), 1),
    ]);
    let matches = |expression: &str| -> Vec<String> {
        let regex = compile(expression).expect(expression);
        matching(&regex, &topics).into_iter().collect()
    };
    assert_eq!(matches("a"), ["a"]);
    assert_eq!(matches("a|b"), ["a", "b"]);
    assert_eq!(matches("a.b"), ["a.b", "axb"]);
    assert_eq!(matches(r"a\.b"), ["a.b"]);
    assert_eq!(matches(r"\Qa.b\E"), ["a.b"]);
    assert_eq!(matches(r"\Qa.\Eb?"), ["a.b"]);
    assert_eq!(matches(r"\Qa.b"), ["a.b"]);
    assert_eq!(matches(r"\\Qa"), Vec::<String>::new());
    assert_eq!(matches("(?i)b"), ["B", "b"]);
    assert_eq!(matches("^a$"), ["a"]);
    assert_eq!(matches(""), Vec::<String>::new());
    for wrong in [
        "(", "a)|(b", "a{2,1}", "[z-a]", "*", r"(?=a)", r"(a)\1", "\\",
    ] {
        assert!(compile(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn two_members_with_one_partition_cannot_both_stay() {
    let mut shard = GroupShard::new(GroupConfig::default(), Seed::new(0));
    let now = Now::default();
    let claim = |epoch| CurrentAssignment {
        epoch,
        assigned: [(id(1), [(0, epoch)].into())].into(),
        ..Default::default()
    };
    let log = [
        records::member("g", "a", Some(&metadata())),
        records::current("g", "a", Some(&claim(3))),
        records::member("g", "b", Some(&MemberMetadata::default())),
        records::current("g", "b", Some(&claim(4))),
        records::epoch("g", 4, 0),
    ];
    for record in &log {
        shard
            .replay(&record.key, record.value.as_deref(), 0, now)
            .unwrap();
    }
    let outcome = shard.loaded(now);
    assert_eq!(outcome.log.len(), 1, "{:?}", outcome.log);
    for record in &outcome.records {
        shard
            .replay(&record.key, record.value.as_deref(), 0, now)
            .unwrap();
    }
    let topics = topics(&[("t", id(1), 1)]);
    let described = shard.consumer_group_describe(&["g".into()], false, &topics);
    let members: Vec<&str> = described[0].members.iter().map(|m| &*m.member_id).collect();
    assert_eq!(members, ["b"], "the later record has it");
    assert_eq!(described[0].group_epoch, 5);
}

/// Tombstones without what they remove, in any order, as a compacted log has them.
#[test]
fn tombstones_of_what_is_not_there_change_nothing() {
    let config = GroupConfig::default();
    let mut group = ConsumerGroup::new();
    let before = group.durable();
    for change in [
        Change::Current("m".into(), None),
        Change::Target("m".into(), None),
        Change::Member("m".into(), None),
        Change::Regex("x".into(), None),
        Change::PartitionMetadata,
    ] {
        group.apply(change, Now::default(), &config);
    }
    assert_eq!(group.durable(), before);
    assert_eq!(group.state(), State::Empty);

    let mut shard = GroupShard::new(config, Seed::new(0));
    for record in records::without_member("g", "m")
        .into_iter()
        .chain([records::epoch_tombstone("g")])
    {
        shard.replay(&record.key, None, 0, Now::default()).unwrap();
    }
    assert!(shard.groups.is_empty());
}

/// A member whose current assignment is gone but who is still there, as between the records of
/// its removal, has nothing and is no obstacle.
#[test]
fn a_removal_that_was_cut_short_frees_the_partitions() {
    let config = GroupConfig::default();
    let mut group = ConsumerGroup::new();
    let now = Now::default();
    group.apply(Change::Member("m".into(), Some(metadata())), now, &config);
    group.apply(Change::Current("m".into(), Some(current())), now, &config);
    assert_eq!(group.owner(id(1), 0), Some("m"));
    group.apply(Change::Current("m".into(), None), now, &config);
    assert_eq!(group.owner(id(1), 0), None);
    assert_eq!(group.owner(id(17), 7), None);
    assert_eq!(group.contested(), BTreeSet::new());
    assert_eq!(group.late(now), BTreeMap::new());
}
