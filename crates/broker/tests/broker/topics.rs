//! Topics: made, grown, deleted, and what Metadata and its kin say of them.

use crate::host::{Hold, Host, start};
use crate::requests::*;
use oncelog_wire::messages::create_partitions_request::CreatePartitionsTopic;
use oncelog_wire::messages::delete_topics_request::DeleteTopicState;
use oncelog_wire::messages::describe_topic_partitions_request::TopicRequest;
use oncelog_wire::messages::metadata_request::MetadataRequestTopic;
use oncelog_wire::messages::{
    CreatePartitionsRequest, CreatePartitionsResponse, CreateTopicsRequest, CreateTopicsResponse,
    DeleteTopicsRequest, DeleteTopicsResponse, DescribeClusterRequest, DescribeClusterResponse,
    DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse, FetchResponse,
    MetadataRequest, MetadataResponse, ProduceResponse,
};
use oncelog_wire::{ErrorCode, Uuid};

// ---- Metadata ----

fn by_name(names: &[&str], create: bool) -> MetadataRequest {
    let named = |name: &&str| MetadataRequestTopic {
        name: Some((*name).to_owned()),
        ..Default::default()
    };
    MetadataRequest {
        topics: Some(names.iter().map(named).collect()),
        allow_auto_topic_creation: create,
        ..Default::default()
    }
}

fn told(answer: &MetadataResponse) -> Vec<(String, ErrorCode, usize)> {
    let topic = |topic: &oncelog_wire::messages::metadata_response::MetadataResponseTopic| {
        let name = topic.name.clone().unwrap_or_default();
        (name, code(topic.error_code), topic.partitions.len())
    };
    answer.topics.iter().map(topic).collect()
}

#[test]
fn metadata_by_name_and_of_all_in_every_version() {
    let mut host = start(&[]);
    let topic = Topic::new(&mut host, "t", 2);
    for version in 0..=13 {
        let answer: MetadataResponse = host.ask(version, by_name(&["t"], true));
        assert_eq!(told(&answer), [("t".to_owned(), ErrorCode::None, 2)]);
        let broker = &answer.brokers[0];
        assert_eq!(
            (broker.node_id, &broker.host[..], broker.port),
            (1, "broker.test", 9092)
        );
        assert_eq!(answer.controller_id, if version == 0 { -1 } else { 1 });
        let partition = &answer.topics[0].partitions[1];
        assert_eq!((partition.partition_index, partition.leader_id), (1, 1));
        assert_eq!(
            (&partition.replica_nodes[..], &partition.isr_nodes[..]),
            (&[1][..], &[1][..])
        );
        assert_eq!(
            answer.topics[0].topic_id,
            if version < 10 { Uuid::ZERO } else { topic.id }
        );
        assert_eq!(answer.cluster_id.is_some(), version >= 2);
        // All: an empty list in v0, null since.
        let all = MetadataRequest {
            topics: (version == 0).then(Vec::new),
            allow_auto_topic_creation: true,
            ..Default::default()
        };
        let answer: MetadataResponse = host.ask(version, all);
        assert_eq!(told(&answer).len(), 1, "v{version}");
        if version > 0 {
            let none: MetadataResponse = host.ask(version, by_name(&[], true));
            assert_eq!(told(&none), []);
        }
    }
}

#[test]
fn metadata_by_id() {
    let mut host = start(&[]);
    let topic = Topic::new(&mut host, "t", 2);
    let by_id = |id| MetadataRequest {
        topics: Some(vec![MetadataRequestTopic {
            topic_id: id,
            name: None,
            ..Default::default()
        }]),
        ..Default::default()
    };
    for version in 12..=13 {
        let answer: MetadataResponse = host.ask(version, by_id(topic.id));
        assert_eq!(told(&answer), [("t".to_owned(), ErrorCode::None, 2)]);
        let answer: MetadataResponse = host.ask(version, by_id(Uuid([7; 16])));
        assert_eq!(code(answer.topics[0].error_code), ErrorCode::UnknownTopicId);
        assert_eq!(answer.topics[0].name, None);
    }
}

#[test]
fn missing_topics_are_made_if_both_sides_want_it() {
    let mut host = start(&[("num.partitions", "3")]);
    for (version, create) in [(0, true), (3, true), (4, true), (13, true)] {
        let name = format!("new-{version}");
        let answer: MetadataResponse = host.ask(version, by_name(&[&name], create));
        assert_eq!(
            told(&answer),
            [(name.clone(), ErrorCode::None, 3)],
            "v{version}"
        );
        assert!(topic_id(&mut host, &name).is_some());
    }
    for version in [4, 13] {
        let answer: MetadataResponse = host.ask(version, by_name(&["no"], false));
        let unknown = ErrorCode::UnknownTopicOrPartition;
        assert_eq!(told(&answer), [("no".to_owned(), unknown, 0)]);
    }
    let mut host = start(&[("auto.create.topics.enable", "false")]);
    for version in [0, 4, 13] {
        let answer: MetadataResponse = host.ask(version, by_name(&["no"], true));
        assert_eq!(told(&answer)[0].1, ErrorCode::UnknownTopicOrPartition);
    }
}

#[test]
fn names_that_no_topic_can_have() {
    let mut host = start(&[]);
    let long = "x".repeat(250);
    for name in ["", "..", "a b", "a/b", "é", &long] {
        let answer: MetadataResponse = host.ask(9, by_name(&[name, "good"], true));
        let found = told(&answer);
        let of = |name: &str| found.iter().find(|(n, ..)| n == name).expect("told").1;
        assert_eq!(of(name), ErrorCode::InvalidTopicException, "{name:?}");
        assert_eq!(of("good"), ErrorCode::None);
    }
}

#[test]
fn two_clients_make_the_same_topic() {
    let mut host = start(&[]);
    let (one, two) = (host.connect(), host.connect());
    host.hold(Hold::Everything);
    host.send(one, 9, by_name(&["t", "t"], true));
    host.send(two, 9, by_name(&["t"], true));
    host.send(two, 7, new_topic("t", 1, &[]));
    host.release();
    let first: MetadataResponse = host.take(one);
    let second: MetadataResponse = host.take(two);
    assert_eq!(told(&first), [("t".to_owned(), ErrorCode::None, 1)]);
    assert_eq!(told(&second), told(&first));
    let third: CreateTopicsResponse = host.take(two);
    assert_eq!(
        code(third.topics[0].error_code),
        ErrorCode::TopicAlreadyExists
    );
}

#[test]
fn a_topic_is_told_only_once_it_is_durable() {
    let mut host = start(&[]);
    let (maker, other) = (host.connect(), host.connect());
    host.hold(Hold::Appends);
    host.send(maker, 7, new_topic("t", 1, &[]));
    assert_eq!(host.receive(maker), None);
    let all = MetadataRequest::default();
    host.send(
        other,
        9,
        MetadataRequest {
            topics: None,
            ..all
        },
    );
    let seen: MetadataResponse = host.take(other);
    assert_eq!(told(&seen), []);
    host.release();
    assert!(host.receive(maker).is_some());
}

// ---- CreateTopics ----

#[test]
fn topics_are_made_in_every_version() {
    let mut host = start(&[]);
    for version in 2..=7 {
        let name = format!("t{version}");
        let made: CreateTopicsResponse =
            host.ask(version, new_topic(&name, 3, &[("retention.ms", "1000")]));
        let topic = &made.topics[0];
        assert_eq!(
            (&topic.name, code(topic.error_code)),
            (&name, ErrorCode::None)
        );
        if version >= 5 {
            assert_eq!((topic.num_partitions, topic.replication_factor), (3, 1));
            let configs = topic.configs.as_ref().expect("told since v5");
            let retention = configs.iter().find(|c| c.name == "retention.ms").unwrap();
            assert_eq!(retention.value.as_deref(), Some("1000"));
        }
        assert_eq!(topic.topic_id.is_zero(), version < 7);
        let again: CreateTopicsResponse = host.ask(version, new_topic(&name, 3, &[]));
        assert_eq!(
            code(again.topics[0].error_code),
            ErrorCode::TopicAlreadyExists
        );
        let id = topic_id(&mut host, &name).expect("it is there");
        let topic = Topic { name, id };
        produced(&mut host, &topic, 2, batch(&["a"]));
    }
}

#[test]
fn topics_that_cannot_be_made() {
    let mut host = start(&[]);
    let mut three_replicas = new_topic("t", 1, &[]);
    three_replicas.topics[0].replication_factor = 3;
    for (what, request, error) in [
        (
            "a bad name",
            new_topic("a b", 1, &[]),
            ErrorCode::InvalidTopicException,
        ),
        (
            "no partitions",
            new_topic("t", 0, &[]),
            ErrorCode::InvalidPartitions,
        ),
        (
            "too few",
            new_topic("t", -2, &[]),
            ErrorCode::InvalidPartitions,
        ),
        (
            "three replicas",
            three_replicas,
            ErrorCode::InvalidReplicationFactor,
        ),
        (
            "a bad key",
            new_topic("t", 1, &[("no.such", "1")]),
            ErrorCode::InvalidConfig,
        ),
        (
            "a bad value",
            new_topic("t", 1, &[("retention.ms", "x")]),
            ErrorCode::InvalidConfig,
        ),
        (
            "its own topic",
            new_topic("__cluster_metadata", 1, &[]),
            ErrorCode::InvalidTopicException,
        ),
    ] {
        let made: CreateTopicsResponse = host.ask(7, request);
        assert_eq!(code(made.topics[0].error_code), error, "{what}");
        assert!(made.topics[0].error_message.is_some(), "{what}");
    }
    let huge: CreateTopicsResponse = host.ask(7, new_topic("t", i32::MAX, &[]));
    assert_ne!(code(huge.topics[0].error_code), ErrorCode::None);
    let validated = CreateTopicsRequest {
        validate_only: true,
        ..new_topic("t", 1, &[])
    };
    let made: CreateTopicsResponse = host.ask(7, validated);
    assert_eq!(code(made.topics[0].error_code), ErrorCode::None);
    assert_eq!(topic_id(&mut host, "t"), None);
    let mut twice = new_topic("t", 1, &[]);
    let again = twice.topics[0].clone();
    twice.topics.push(again);
    let made: CreateTopicsResponse = host.ask(7, twice);
    assert!(
        made.topics
            .iter()
            .all(|t| code(t.error_code) == ErrorCode::InvalidRequest)
    );
    assert_eq!(topic_id(&mut host, "t"), None);
}

#[test]
fn defaults_of_partitions_and_replicas() {
    let mut host = start(&[("num.partitions", "4")]);
    let mut request = new_topic("t", -1, &[]);
    request.topics[0].replication_factor = -1;
    let made: CreateTopicsResponse = host.ask(7, request);
    assert_eq!(
        (
            made.topics[0].num_partitions,
            made.topics[0].replication_factor
        ),
        (4, 1)
    );
}

// ---- CreatePartitions ----

fn grow_request(name: &str, count: i32) -> CreatePartitionsRequest {
    CreatePartitionsRequest {
        topics: vec![CreatePartitionsTopic {
            name: name.to_owned(),
            count,
            assignments: None,
            ..Default::default()
        }],
        timeout_ms: 1_000,
        ..Default::default()
    }
}

pub fn grow(host: &mut Host, name: &str, count: i32) {
    let grown: CreatePartitionsResponse = host.ask(3, grow_request(name, count));
    assert_eq!(code(grown.results[0].error_code), ErrorCode::None);
}

#[test]
fn topics_grow_and_never_shrink() {
    let mut host = start(&[]);
    let topic = Topic::with(&mut host, "t", 1, &[("max.message.bytes", "1000")]);
    for (version, count) in [(0, 2), (1, 3), (2, 4), (3, 5)] {
        let grown: CreatePartitionsResponse = host.ask(version, grow_request("t", count));
        assert_eq!(code(grown.results[0].error_code), ErrorCode::None);
        produced(&mut host, &topic, count - 1, batch(&["a"]));
        let large = produce(&mut host, &topic, count - 1, large_batch(1_200));
        assert_eq!(code(large.error_code), ErrorCode::MessageTooLarge);
    }
    for (name, count, error) in [
        ("t", 5, ErrorCode::InvalidPartitions),
        ("t", 4, ErrorCode::InvalidPartitions),
        ("t", -1, ErrorCode::InvalidPartitions),
        ("no", 4, ErrorCode::UnknownTopicOrPartition),
    ] {
        let grown: CreatePartitionsResponse = host.ask(3, grow_request(name, count));
        assert_eq!(code(grown.results[0].error_code), error, "{name} {count}");
    }
    let huge: CreatePartitionsResponse = host.ask(3, grow_request("t", i32::MAX));
    assert_ne!(code(huge.results[0].error_code), ErrorCode::None);
    let mut host = host.reopen();
    assert_eq!(fetched(&mut host, &topic, 4, 0).len(), 1);
}

// ---- DeleteTopics ----

#[test]
fn topics_are_deleted_by_name_and_by_id() {
    let mut host = start(&[]);
    for version in 1..=6 {
        let topic = Topic::new(&mut host, "t", 2);
        produced(&mut host, &topic, 0, batch(&["a"]));
        let request = match version {
            6 => DeleteTopicsRequest {
                topics: vec![DeleteTopicState {
                    topic_id: topic.id,
                    name: None,
                    ..Default::default()
                }],
                timeout_ms: 1_000,
                ..Default::default()
            },
            _ => delete_request("t"),
        };
        let gone: DeleteTopicsResponse = host.ask(version, request);
        assert_eq!(code(gone.responses[0].error_code), ErrorCode::None);
        assert_eq!(gone.responses[0].name.as_deref(), Some("t"));
        assert_eq!(topic_id(&mut host, "t"), None);
        let answer: FetchResponse = host.ask(13, fetch_request(&topic, 13, &[(0, 0)]));
        assert_eq!(
            code(parts(&answer)[0].error_code),
            ErrorCode::UnknownTopicId
        );
    }
    let gone: DeleteTopicsResponse = host.ask(5, delete_request("t"));
    let unknown = ErrorCode::UnknownTopicOrPartition;
    assert_eq!(code(gone.responses[0].error_code), unknown);
}

#[test]
fn a_topic_of_the_same_name_begins_anew() {
    let mut host = start(&[]);
    let old = Topic::with(&mut host, "t", 2, &[("max.message.bytes", "1000")]);
    produced(&mut host, &old, 0, batch_from(7, 3, 0, &["old"]));
    delete_topic(&mut host, "t");
    let new = Topic::new(&mut host, "t", 1);
    assert_ne!(old.id, new.id);
    assert_eq!(fetched(&mut host, &new, 0, 0), []);
    // Neither the producers nor the configuration of the old one live on.
    assert_eq!(
        produced(&mut host, &new, 0, batch_from(7, 0, 0, &["new"])),
        0
    );
    produced(&mut host, &new, 0, large_batch(2_000));
    host.pass_ms(120_000); // the old files are removed
    let mut host = host.crash(3);
    let found = fetched(&mut host, &new, 0, 0);
    assert_eq!((found.len(), &found[0].1[..]), (2, "new"));
}

#[test]
fn a_topic_is_deleted_while_appends_are_in_flight() {
    let mut host = start(&[]);
    let topic = Topic::new(&mut host, "t", 2);
    let (writer, admin) = (host.connect(), host.connect());
    host.hold(Hold::Appends);
    let both = [(0, batch(&["a"])), (1, batch(&["b"]))];
    host.send(writer, 9, produce_request(&topic, 9, -1, &both));
    host.send(writer, 9, produce_request(&topic, 9, -1, &both));
    host.send(admin, 5, delete_request("t"));
    assert_eq!(host.held(), 5);
    host.release_one(4); // the removal is committed
    let gone = ErrorCode::UnknownTopicOrPartition;
    for _ in 0..2 {
        let answer: ProduceResponse = host.take(writer);
        assert_eq!(outcome(&answer), [(0, gone, -1), (1, gone, -1)]);
    }
    assert_eq!(host.receive(admin), None, "its files are still written to");
    host.send(admin, 7, new_topic("t", 1, &[]));
    host.release_one(3);
    host.release_one(0);
    assert_eq!(host.receive(admin), None);
    host.release();
    let deleted: DeleteTopicsResponse = host.take(admin);
    assert_eq!(code(deleted.responses[0].error_code), ErrorCode::None);
    let made: CreateTopicsResponse = host.take(admin);
    assert_eq!(code(made.topics[0].error_code), ErrorCode::None);
    let new = Topic {
        name: "t".to_owned(),
        id: made.topics[0].topic_id,
    };
    assert_eq!(fetched(&mut host, &new, 0, 0), []);
    produced(&mut host, &new, 0, batch(&["new"]));
    host.pass_ms(120_000);
    let mut host = host.crash(5);
    assert_eq!(fetched(&mut host, &new, 0, 0), [(0, "new".to_owned())]);
}

#[test]
fn acks_0_of_a_topic_that_is_being_deleted() {
    let mut host = start(&[]);
    let topic = Topic::new(&mut host, "t", 1);
    let writer = host.connect();
    host.hold(Hold::Appends);
    host.send(
        writer,
        9,
        produce_request(&topic, 9, 0, &[(0, batch(&["a"]))]),
    );
    host.send(writer, 5, delete_request("t"));
    host.release();
    let deleted: DeleteTopicsResponse = host.take(writer);
    assert_eq!(code(deleted.responses[0].error_code), ErrorCode::None);
}

// ---- DescribeCluster, DescribeTopicPartitions ----

#[test]
fn the_cluster_is_described() {
    let mut host = start(&[]);
    for version in 0..=2 {
        let ask = DescribeClusterRequest {
            endpoint_type: 1,
            ..Default::default()
        };
        let answer: DescribeClusterResponse = host.ask(version, ask);
        assert_eq!(code(answer.error_code), ErrorCode::None);
        assert_eq!(answer.cluster_id, host.report.cluster_id);
        assert_eq!((answer.controller_id, answer.brokers.len()), (1, 1));
        assert_eq!(
            (&answer.brokers[0].host[..], answer.brokers[0].port),
            ("broker.test", 9092)
        );
    }
}

#[test]
fn topic_partitions_are_described_in_pages() {
    let mut host = start(&[]);
    for name in ["a", "b"] {
        Topic::new(&mut host, name, 3);
    }
    let mut seen = Vec::new();
    let mut cursor = None;
    loop {
        let named = |name: &str| TopicRequest {
            name: name.to_owned(),
            ..Default::default()
        };
        let ask = DescribeTopicPartitionsRequest {
            topics: vec![named("b"), named("a"), named("no")],
            response_partition_limit: 2,
            cursor,
            ..Default::default()
        };
        let answer: DescribeTopicPartitionsResponse = host.ask(0, ask);
        for topic in &answer.topics {
            let name = topic.name.clone().unwrap_or_default();
            match code(topic.error_code) {
                ErrorCode::None => {}
                error => {
                    assert_eq!(
                        (&name[..], error),
                        ("no", ErrorCode::UnknownTopicOrPartition)
                    );
                }
            }
            seen.extend(
                topic
                    .partitions
                    .iter()
                    .map(|p| (name.clone(), p.partition_index)),
            );
        }
        assert!(seen.len() < 20, "pages end");
        let Some(next) = answer.next_cursor else {
            break;
        };
        cursor = Some(
            oncelog_wire::messages::describe_topic_partitions_request::Cursor {
                topic_name: next.topic_name,
                partition_index: next.partition_index,
                ..Default::default()
            },
        );
    }
    let expected: Vec<_> = ["a", "b"]
        .iter()
        .flat_map(|name| (0..3).map(move |index| ((*name).to_owned(), index)))
        .collect();
    assert_eq!(seen, expected);
}
