//! Requests whose answers, or whose own elements, are many times their size.

use std::io::Write;
use std::time::{Duration, Instant};

use oncelog_wire::messages::*;
use oncelog_wire::{RequestBody, Uuid};

use crate::hostile::{SLACK_BYTES, judge, meanwhile, used};
use crate::raw::Client;
use crate::{alone, mib, scaled};

const TOPICS: usize = 100;
const PARTITIONS: i32 = 10;

/// Asks for everything there is, again and again, and takes nothing of it.
#[test]
fn who_asks_and_does_not_listen_holds_one_answer() {
    let _alone = alone();
    let (mut broker, _) = used(&["log.flush.interval.messages=1000"]);
    let port = broker.port();
    let mut client = Client::connect(port).unwrap();
    for number in 0..TOPICS {
        client.create_topic_of(&format!("topic-{number}"), PARTITIONS, &[]);
    }
    let everything = RequestBody::Metadata(MetadataRequest {
        topics: None,
        ..Default::default()
    });
    client.ask(9, &everything).unwrap();
    broker.forget_peak();
    let before = broker.resident();
    let (sent, served) = meanwhile(port, || {
        let mut deaf = Vec::new();
        let mut sent = 0;
        for _ in 0..20 {
            let mut client = Client::connect(port).unwrap();
            let short = Some(Duration::from_millis(200));
            client.stream.set_write_timeout(short).unwrap();
            for _ in 0..10 {
                let many = client.frame(9, &everything).repeat(1_000);
                if client.stream.write_all(&many).is_err() {
                    break;
                }
                sent += 1_000;
            }
            deaf.push(client);
        }
        std::thread::sleep(Duration::from_secs(2));
        (deaf, sent)
    });
    let (deaf, sent) = sent;
    let what = format!(
        "{} clients that asked {sent} times for {} partitions and took nothing",
        deaf.len(),
        TOPICS as i32 * PARTITIONS
    );
    judge(&mut broker, &what, &served, before, SLACK_BYTES);
}

/// Every API that takes a list, with as many elements as a client may be patient for.
#[test]
fn huge_lists_are_answered_or_refused() {
    let _alone = alone();
    let (mut broker, before) = used(&[]);
    let port = broker.port();
    let count = scaled("ONCELOG_HOSTILE_ELEMENTS", 50_000);
    let requests = huge(count);
    let apis = requests.len();
    let mut largest = 0;
    let (slow, served) = meanwhile(port, || {
        let mut slow = Vec::new();
        for (version, request) in requests {
            let api = format!("{:?}", request.api_key());
            let mut client = Client::connect(port).unwrap();
            let frame = client.frame(version, &request);
            largest = largest.max(frame.len());
            let began = Instant::now();
            // Answered or closed: both are fine, silence is not.
            client.stream.write_all(&frame).unwrap();
            let outcome = match client.receive_bytes() {
                Ok(answer) => format!("answered with {}", mib(answer.len() as u64)),
                Err(error) => {
                    let waited = error.kind() == std::io::ErrorKind::WouldBlock;
                    assert!(!waited, "{api} was not answered: {error}");
                    "closed".to_owned()
                }
            };
            slow.push((began.elapsed(), api, outcome));
        }
        slow.sort();
        slow
    });
    let slow = slow.iter().rev().take(3);
    let slow: Vec<String> = slow
        .map(|(took, api, outcome)| format!("{api} {outcome} in {took:.1?}"))
        .collect();
    let what = format!(
        "{apis} APIs with {count} elements each (largest frame {}; slowest: {})",
        mib(largest as u64),
        slow.join(", ")
    );
    // A frame may take four times its bytes decoded (`wire`'s limit), and its answer as much again.
    let may_grow = SLACK_BYTES + (256 << 20);
    judge(&mut broker, &what, &served, before, may_grow);
}

fn names(count: usize) -> impl Iterator<Item = String> {
    (0..count).map(|number| format!("n{number}"))
}

fn huge(count: usize) -> Vec<(i16, RequestBody)> {
    let mut all = records_apis(count);
    all.extend(admin_apis(count));
    all.extend(group_apis(count));
    all
}

fn records_apis(count: usize) -> Vec<(i16, RequestBody)> {
    let indexes = 0..count as i32;
    let name = "n".repeat(30_000); // copied for each partition, it would be gigabytes
    vec![
        (
            9,
            RequestBody::Produce(ProduceRequest {
                acks: -1,
                topic_data: vec![produce_request::TopicProduceData {
                    name: "nothing".to_owned(),
                    partition_data: indexes
                        .clone()
                        .map(|index| produce_request::PartitionProduceData {
                            index,
                            ..Default::default()
                        })
                        .collect(),
                    ..Default::default()
                }],
                ..Default::default()
            }),
        ),
        (
            12,
            RequestBody::Fetch(FetchRequest {
                max_bytes: i32::MAX,
                topics: vec![fetch_request::FetchTopic {
                    topic: name.clone(),
                    partitions: indexes
                        .clone()
                        .map(|partition| fetch_request::FetchPartition {
                            partition,
                            ..Default::default()
                        })
                        .collect(),
                    ..Default::default()
                }],
                ..Default::default()
            }),
        ),
        (
            5,
            RequestBody::ListOffsets(ListOffsetsRequest {
                replica_id: -1,
                topics: vec![list_offsets_request::ListOffsetsTopic {
                    name: name.clone(),
                    partitions: indexes
                        .clone()
                        .map(
                            |partition_index| list_offsets_request::ListOffsetsPartition {
                                partition_index,
                                ..Default::default()
                            },
                        )
                        .collect(),
                    ..Default::default()
                }],
                ..Default::default()
            }),
        ),
        (
            3,
            RequestBody::OffsetForLeaderEpoch(OffsetForLeaderEpochRequest {
                replica_id: -2,
                topics: vec![offset_for_leader_epoch_request::OffsetForLeaderTopic {
                    topic: name.clone(),
                    partitions: indexes
                        .clone()
                        .map(|partition| {
                            offset_for_leader_epoch_request::OffsetForLeaderPartition {
                                partition,
                                ..Default::default()
                            }
                        })
                        .collect(),
                    ..Default::default()
                }],
                ..Default::default()
            }),
        ),
        (
            1,
            RequestBody::DeleteRecords(DeleteRecordsRequest {
                topics: vec![delete_records_request::DeleteRecordsTopic {
                    name,
                    partitions: indexes
                        .map(
                            |partition_index| delete_records_request::DeleteRecordsPartition {
                                partition_index,
                                ..Default::default()
                            },
                        )
                        .collect(),
                    ..Default::default()
                }],
                timeout_ms: 1_000,
                ..Default::default()
            }),
        ),
    ]
}

fn admin_apis(count: usize) -> Vec<(i16, RequestBody)> {
    let topic = |name: String| metadata_request::MetadataRequestTopic {
        name: Some(name),
        topic_id: Uuid::ZERO,
        ..Default::default()
    };
    vec![
        (
            9,
            RequestBody::Metadata(MetadataRequest {
                topics: Some(names(count).map(topic).collect()),
                allow_auto_topic_creation: false,
                ..Default::default()
            }),
        ),
        (
            5,
            RequestBody::CreateTopics(CreateTopicsRequest {
                topics: names(count)
                    .map(|name| create_topics_request::CreatableTopic {
                        name,
                        num_partitions: 1,
                        replication_factor: 1,
                        ..Default::default()
                    })
                    .collect(),
                timeout_ms: 1_000,
                validate_only: true,
                ..Default::default()
            }),
        ),
        (
            5,
            RequestBody::DeleteTopics(DeleteTopicsRequest {
                topic_names: names(count).collect(),
                timeout_ms: 1_000,
                ..Default::default()
            }),
        ),
        (
            1,
            RequestBody::DescribeConfigs(DescribeConfigsRequest {
                resources: names(count)
                    .map(
                        |resource_name| describe_configs_request::DescribeConfigsResource {
                            resource_type: 2,
                            resource_name,
                            ..Default::default()
                        },
                    )
                    .collect(),
                ..Default::default()
            }),
        ),
        (
            0,
            RequestBody::DescribeTopicPartitions(DescribeTopicPartitionsRequest {
                topics: names(count)
                    .map(|name| describe_topic_partitions_request::TopicRequest {
                        name,
                        ..Default::default()
                    })
                    .collect(),
                response_partition_limit: i32::MAX,
                cursor: None,
                ..Default::default()
            }),
        ),
    ]
}

fn group_apis(count: usize) -> Vec<(i16, RequestBody)> {
    let indexes: Vec<i32> = (0..count as i32).collect();
    vec![
        (
            4,
            RequestBody::FindCoordinator(FindCoordinatorRequest {
                coordinator_keys: names(count).collect(),
                ..Default::default()
            }),
        ),
        (
            5,
            RequestBody::DescribeGroups(DescribeGroupsRequest {
                groups: names(count).collect(),
                ..Default::default()
            }),
        ),
        (
            2,
            RequestBody::DeleteGroups(DeleteGroupsRequest {
                groups_names: names(count).collect(),
                ..Default::default()
            }),
        ),
        (
            0,
            RequestBody::ConsumerGroupDescribe(ConsumerGroupDescribeRequest {
                group_ids: names(count).collect(),
                ..Default::default()
            }),
        ),
        (
            5,
            RequestBody::OffsetFetch(OffsetFetchRequest {
                group_id: "nobody".to_owned(),
                topics: Some(vec![offset_fetch_request::OffsetFetchRequestTopic {
                    name: "n".repeat(30_000),
                    partition_indexes: indexes,
                    ..Default::default()
                }]),
                ..Default::default()
            }),
        ),
        (
            5,
            RequestBody::OffsetCommit(OffsetCommitRequest {
                group_id: "somebody".to_owned(),
                generation_id_or_member_epoch: -1,
                topics: vec![offset_commit_request::OffsetCommitRequestTopic {
                    name: "events".to_owned(),
                    partitions: (0..count as i32)
                        .map(|partition_index| {
                            offset_commit_request::OffsetCommitRequestPartition {
                                partition_index,
                                ..Default::default()
                            }
                        })
                        .collect(),
                    ..Default::default()
                }],
                ..Default::default()
            }),
        ),
    ]
}
