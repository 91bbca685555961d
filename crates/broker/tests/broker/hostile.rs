//! What nobody should send: random bytes, requests that are cut or bent, and requests that are
//! well-formed and absurd. Nothing may panic, every answer can be decoded, and the broker works
//! afterwards.
//!
//! Seeds are fixed; a longer search: `HOSTILE_ROUNDS=200000 cargo test -p oncelog-broker hostile`.

use crate::host::{Hold, Host, start};
use crate::requests::*;
use bytes::Bytes;
use oncelog_broker::ConnectionId;
use oncelog_commitlog::testing::Random;
use oncelog_wire::messages::*;
use oncelog_wire::{ApiKey, ErrorCode, RequestBody, Uuid, apis, frame};

fn rounds(usual: u64) -> u64 {
    let asked = std::env::var("HOSTILE_ROUNDS").ok();
    asked.and_then(|text| text.parse().ok()).unwrap_or(usual)
}

/// A broker with topics, groups and a reader that waits, and a check that it still works.
struct Victim {
    host: Host,
    topic: Topic,
    connection: ConnectionId,
    produced: i64,
}

impl Victim {
    fn new() -> Victim {
        let mut host = start(&[]);
        let topic = Topic::new(&mut host, "t", 2);
        crate::groups::commit(&mut host, "g", &topic, 0, 1);
        let connection = host.connect();
        Victim {
            host,
            topic,
            connection,
            produced: 0,
        }
    }

    fn send(&mut self, frame: Bytes) {
        self.host.send_anything(self.connection, frame);
        if self.host.closed(self.connection).is_some() {
            self.host.disconnect(self.connection);
            self.connection = self.host.connect();
        }
    }

    fn works(&mut self) {
        let still = Topic {
            id: topic_id(&mut self.host, "t")
                .unwrap_or_else(|| create_topic(&mut self.host, "t", 2, &[])),
            ..self.topic.clone()
        };
        if still.id != self.topic.id {
            self.topic = still; // a hostile client may delete topics, as any client may
        }
        let end = crate::offsets::listed(&mut self.host, 1, "t", &[-1])[0].1;
        let answer = produce(&mut self.host, &self.topic, 0, batch(&["works"]));
        if code(answer.error_code) == ErrorCode::None {
            assert_eq!(answer.base_offset, end);
            self.produced += 1;
        }
        assert_eq!(self.host.held(), 0);
    }

    fn survives_a_restart(mut self) {
        self.works();
        self.host.pass_ms(400_000);
        self.host.shut_down();
        let topic = self.topic.clone();
        let mut host = self.host.reopen();
        assert_eq!(topic_id(&mut host, "t"), Some(topic.id));
    }
}

fn header(key: ApiKey, version: i16, correlation: i32) -> Vec<u8> {
    let mut frame = Vec::new();
    frame.extend(key.code().to_be_bytes());
    frame.extend(version.to_be_bytes());
    frame.extend(correlation.to_be_bytes());
    frame.extend([0, 2, b'h', b'i']);
    if key.request_header_version(version) == 2 {
        frame.push(0);
    }
    frame
}

/// Random bytes in which small numbers are frequent, as they are in messages.
fn noise(random: &mut Random, len: usize) -> Vec<u8> {
    let byte = |random: &mut Random| match random.below(8) {
        0..=2 => 0,
        3 => 1,
        4 => 2,
        5 => 0xff,
        6 => random.below(16) as u8,
        _ => random.next_u64() as u8,
    };
    (0..len).map(|_| byte(random)).collect()
}

#[test]
fn random_frames() {
    let mut victim = Victim::new();
    let mut random = Random::new(1);
    for round in 0..rounds(20_000) {
        let len = random.below(120) as usize;
        let frame = noise(&mut random, len);
        victim.send(frame.into());
        if round % 5_000 == 0 {
            victim.works();
        }
    }
    victim.survives_a_restart();
}

#[test]
fn a_true_header_and_a_random_body_for_every_api_and_version() {
    let mut victim = Victim::new();
    let mut random = Random::new(2);
    let each = rounds(20_000) / 100;
    for row in apis::SERVED {
        for version in (row.min_version..=row.max_version).filter(|v| row.accepts(*v)) {
            for correlation in 0..each {
                let mut frame = header(row.key, version, correlation as i32);
                let len = random.below(200) as usize;
                frame.extend(noise(&mut random, len));
                victim.send(frame.into());
            }
            victim.host.pass_ms(random.below(20_000) as i64);
        }
        victim.works();
    }
    victim.survives_a_restart();
}

#[test]
fn true_requests_that_were_bent() {
    let mut victim = Victim::new();
    let mut random = Random::new(3);
    let corpus = corpus(&victim.topic);
    let served: std::collections::BTreeSet<ApiKey> = apis::SERVED.iter().map(|r| r.key).collect();
    let covered = corpus.iter().map(RequestBody::api_key).collect();
    let missing: Vec<_> = served.difference(&covered).collect();
    assert_eq!(
        missing,
        Vec::<&ApiKey>::new(),
        "APIs without a request in the corpus"
    );
    let each = rounds(20_000) / 200;
    for body in &corpus {
        let row = apis::served(body.api_key()).expect("served");
        for version in (row.min_version..=row.max_version).filter(|v| row.accepts(*v)) {
            // What this version does not have is left out of the corpus by encoding it or not.
            let Ok(whole) = frame::encode_request(7, Some("h"), version, body) else {
                continue;
            };
            let whole = whole
                .to_bytes()
                .expect("bytes")
                .slice(frame::LENGTH_PREFIX..);
            victim.send(whole.clone());
            for _ in 0..each {
                victim.send(bend(&mut random, &whole));
            }
        }
        victim.host.pass_ms(random.below(20_000) as i64);
        victim.works();
    }
    victim.survives_a_restart();
}

/// Flips, cuts, doubles or overwrites a few bytes after the header.
fn bend(random: &mut Random, whole: &Bytes) -> Bytes {
    let mut frame = whole.to_vec();
    for _ in 0..=random.below(3) {
        let from = 8.min(frame.len());
        let at = from + random.below((frame.len() - from) as u64) as usize;
        if at >= frame.len() {
            continue;
        }
        match random.below(6) {
            0 => frame[at] ^= 1 << random.below(8),
            1 => frame.truncate(at),
            2 => frame[at] = random.next_u64() as u8,
            3 => {
                let extreme = [0x00, 0xff, 0x7f, 0x80][random.below(4) as usize];
                let end = (at + 4).min(frame.len());
                frame[at..end].fill(extreme);
            }
            4 => {
                let end = (at + 1 + random.below(30) as usize).min(frame.len());
                let copy = frame[at..end].to_vec();
                frame.splice(at..at, copy);
            }
            _ => {
                frame.remove(at);
            }
        }
    }
    frame.into()
}

/// One sensible request of every API, with something in every list.
fn corpus(topic: &Topic) -> Vec<RequestBody> {
    let mut all = Vec::new();
    for version in [9, 13] {
        let batches = [(0, batch_from(3, 0, 0, &["a"])), (1, batch(&["b"]))];
        all.push(produce_request(topic, version, -1, &batches).into());
        all.push(produce_request(topic, version, 0, &batches).into());
        all.push(fetch_request(topic, version, &[(0, 0), (1, 0)]).into());
        let in_session = FetchRequest {
            session_epoch: 0,
            max_wait_ms: 100,
            ..fetch_request(topic, version, &[(0, 0), (1, 99)])
        };
        all.push(in_session.into());
    }
    let name = || "t".to_owned();
    let group = || "g".to_owned();
    all.extend(topics_corpus(topic));
    all.extend(groups_corpus(topic));
    all.extend(crate::transactions::corpus("t"));
    all.push(
        ListOffsetsRequest {
            replica_id: -1,
            topics: vec![list_offsets_request::ListOffsetsTopic {
                name: name(),
                partitions: vec![list_offsets_request::ListOffsetsPartition {
                    timestamp: 1,
                    ..Default::default()
                }],
                ..Default::default()
            }],
            ..Default::default()
        }
        .into(),
    );
    all.push(
        OffsetForLeaderEpochRequest {
            topics: vec![offset_for_leader_epoch_request::OffsetForLeaderTopic {
                topic: name(),
                partitions: vec![Default::default()],
                ..Default::default()
            }],
            ..Default::default()
        }
        .into(),
    );
    all.push(
        DeleteRecordsRequest {
            topics: vec![delete_records_request::DeleteRecordsTopic {
                name: name(),
                partitions: vec![Default::default()],
                ..Default::default()
            }],
            ..Default::default()
        }
        .into(),
    );
    all.push(
        DescribeLogDirsRequest {
            topics: Some(vec![describe_log_dirs_request::DescribableLogDirTopic {
                topic: name(),
                partitions: vec![0, 1],
                ..Default::default()
            }]),
            ..Default::default()
        }
        .into(),
    );
    for id in [None, Some("tx".to_owned())] {
        all.push(
            InitProducerIdRequest {
                transactional_id: id,
                transaction_timeout_ms: 1,
                ..Default::default()
            }
            .into(),
        );
    }
    for (key, coordinator_keys) in [(group(), vec![]), (String::new(), vec![group(), name()])] {
        all.push(
            FindCoordinatorRequest {
                key,
                coordinator_keys,
                ..Default::default()
            }
            .into(),
        );
    }
    all.push(ApiVersionsRequest::default().into());
    all
}

fn topics_corpus(topic: &Topic) -> Vec<RequestBody> {
    let name = || "t".to_owned();
    vec![
        MetadataRequest {
            topics: Some(vec![metadata_request::MetadataRequestTopic {
                name: Some("made".to_owned()),
                ..Default::default()
            }]),
            ..Default::default()
        }
        .into(),
        MetadataRequest {
            topics: Some(vec![metadata_request::MetadataRequestTopic {
                name: None,
                topic_id: topic.id,
                ..Default::default()
            }]),
            ..Default::default()
        }
        .into(),
        new_topic(
            "made too",
            3,
            &[("retention.ms", "1"), ("segment.bytes", "1048576")],
        )
        .into(),
        new_topic("made-three", 3, &[("cleanup.policy", "compact")]).into(),
        CreateTopicsRequest {
            topics: vec![create_topics_request::CreatableTopic {
                name: "assigned".to_owned(),
                num_partitions: -1,
                replication_factor: -1,
                assignments: vec![create_topics_request::CreatableReplicaAssignment {
                    partition_index: 0,
                    broker_ids: vec![1],
                    ..Default::default()
                }],
                ..Default::default()
            }],
            ..Default::default()
        }
        .into(),
        delete_request("made-three").into(),
        DeleteTopicsRequest {
            topics: vec![delete_topics_request::DeleteTopicState {
                name: None,
                topic_id: Uuid([5; 16]),
                ..Default::default()
            }],
            ..Default::default()
        }
        .into(),
        CreatePartitionsRequest {
            topics: vec![create_partitions_request::CreatePartitionsTopic {
                name: name(),
                count: 3,
                assignments: Some(vec![
                    create_partitions_request::CreatePartitionsAssignment {
                        broker_ids: vec![1],
                        ..Default::default()
                    },
                ]),
                ..Default::default()
            }],
            ..Default::default()
        }
        .into(),
        DescribeConfigsRequest {
            resources: vec![describe_configs_request::DescribeConfigsResource {
                resource_type: 2,
                resource_name: name(),
                configuration_keys: Some(vec!["retention.ms".to_owned()]),
                ..Default::default()
            }],
            ..Default::default()
        }
        .into(),
        AlterConfigsRequest {
            resources: vec![alter_configs_request::AlterConfigsResource {
                resource_type: 2,
                resource_name: name(),
                configs: vec![alter_configs_request::AlterableConfig {
                    name: "flush.ms".to_owned(),
                    value: Some("1000".to_owned()),
                    ..Default::default()
                }],
                ..Default::default()
            }],
            ..Default::default()
        }
        .into(),
        IncrementalAlterConfigsRequest {
            resources: vec![incremental_alter_configs_request::AlterConfigsResource {
                resource_type: 2,
                resource_name: name(),
                configs: vec![incremental_alter_configs_request::AlterableConfig {
                    name: "cleanup.policy".to_owned(),
                    config_operation: 2,
                    value: Some("compact".to_owned()),
                    ..Default::default()
                }],
                ..Default::default()
            }],
            ..Default::default()
        }
        .into(),
        DescribeClusterRequest::default().into(),
        ListConfigResourcesRequest::default().into(),
        ListConfigResourcesRequest {
            resource_types: vec![2, 4],
            ..Default::default()
        }
        .into(),
        DescribeTopicPartitionsRequest {
            topics: vec![describe_topic_partitions_request::TopicRequest {
                name: name(),
                ..Default::default()
            }],
            response_partition_limit: 1,
            cursor: Some(describe_topic_partitions_request::Cursor {
                topic_name: name(),
                partition_index: 1,
                ..Default::default()
            }),
            ..Default::default()
        }
        .into(),
    ]
}

fn groups_corpus(topic: &Topic) -> Vec<RequestBody> {
    let name = || "t".to_owned();
    let group_id = || "g".to_owned();
    let mut all: Vec<RequestBody> = vec![
        JoinGroupRequest {
            group_id: group_id(),
            session_timeout_ms: 10_000,
            protocol_type: "consumer".to_owned(),
            protocols: vec![join_group_request::JoinGroupRequestProtocol {
                name: "range".to_owned(),
                metadata: Bytes::from_static(&[0, 1, 0, 0, 0, 0]),
                ..Default::default()
            }],
            ..Default::default()
        }
        .into(),
        SyncGroupRequest {
            group_id: group_id(),
            generation_id: 1,
            member_id: "m".to_owned(),
            assignments: vec![sync_group_request::SyncGroupRequestAssignment {
                member_id: "m".to_owned(),
                ..Default::default()
            }],
            ..Default::default()
        }
        .into(),
        HeartbeatRequest {
            group_id: group_id(),
            generation_id: 1,
            member_id: "m".to_owned(),
            ..Default::default()
        }
        .into(),
        LeaveGroupRequest {
            group_id: group_id(),
            member_id: "m".to_owned(),
            ..Default::default()
        }
        .into(),
        LeaveGroupRequest {
            group_id: group_id(),
            members: vec![leave_group_request::MemberIdentity {
                member_id: "m".to_owned(),
                group_instance_id: Some("i".to_owned()),
                ..Default::default()
            }],
            ..Default::default()
        }
        .into(),
        OffsetDeleteRequest {
            group_id: group_id(),
            topics: vec![offset_delete_request::OffsetDeleteRequestTopic {
                name: name(),
                partitions: vec![Default::default()],
            }],
        }
        .into(),
        DescribeGroupsRequest {
            groups: vec![group_id(), name()],
            ..Default::default()
        }
        .into(),
        ListGroupsRequest::default().into(),
        ListGroupsRequest {
            states_filter: vec!["Empty".to_owned()],
            ..Default::default()
        }
        .into(),
        DeleteGroupsRequest {
            groups_names: vec![group_id(), name()],
            ..Default::default()
        }
        .into(),
        ConsumerGroupHeartbeatRequest {
            group_id: "new".to_owned(),
            member_id: "member".to_owned(),
            rebalance_timeout_ms: 1_000,
            subscribed_topic_names: Some(vec![name()]),
            topic_partitions: Some(vec![]),
            ..Default::default()
        }
        .into(),
        ConsumerGroupDescribeRequest {
            group_ids: vec![group_id(), "new".to_owned()],
            ..Default::default()
        }
        .into(),
    ];
    for by_id in [false, true] {
        let (name, topic_id) = match by_id {
            true => (String::new(), topic.id),
            false => (name(), Uuid::ZERO),
        };
        all.push(
            OffsetCommitRequest {
                group_id: group_id(),
                topics: vec![offset_commit_request::OffsetCommitRequestTopic {
                    name: name.clone(),
                    topic_id,
                    partitions: vec![Default::default()],
                    ..Default::default()
                }],
                ..Default::default()
            }
            .into(),
        );
        all.push(
            OffsetFetchRequest {
                topics: Some(Vec::new()),
                groups: vec![offset_fetch_request::OffsetFetchRequestGroup {
                    group_id: group_id(),
                    topics: Some(vec![offset_fetch_request::OffsetFetchRequestTopics {
                        name,
                        topic_id,
                        partition_indexes: vec![0, 1],
                        ..Default::default()
                    }]),
                    ..Default::default()
                }],
                ..Default::default()
            }
            .into(),
        );
    }
    all.push(
        OffsetFetchRequest {
            group_id: group_id(),
            topics: None,
            ..Default::default()
        }
        .into(),
    );
    let served = |body: &RequestBody| apis::served(body.api_key()).is_some();
    all.retain(served);
    all
}

// ---- well-formed and absurd ----

#[test]
fn extreme_numbers_everywhere() {
    let mut victim = Victim::new();
    let topic = victim.topic.clone();
    let (host, connection) = (&mut victim.host, victim.connection);
    produced(host, &topic, 0, batch(&["a"]));
    let numbers = [i32::MIN, -2, -1, 0, 1, i32::MAX];
    let large = [i64::MIN, -7, -1, 0, i64::MAX - 1, i64::MAX];
    for version in FETCH_VERSIONS {
        for number in numbers {
            for offset in large {
                let mut request = fetch_request(&topic, version, &[(number, offset), (0, offset)]);
                request.max_wait_ms = number;
                request.min_bytes = number;
                request.max_bytes = number;
                for partition in &mut request.topics[0].partitions {
                    partition.partition_max_bytes = number;
                    if version >= 9 {
                        partition.current_leader_epoch = number;
                    }
                    if version >= 12 {
                        partition.last_fetched_epoch = number;
                    }
                }
                if version >= 7 {
                    request.session_id = number;
                    request.session_epoch = number;
                }
                host.send(connection, version, request);
            }
        }
    }
    for number in numbers {
        for version in PRODUCE_VERSIONS {
            let request = ProduceRequest {
                timeout_ms: number,
                ..produce_request(
                    &topic,
                    version,
                    -1,
                    &[(number, batch(&["a"])), (0, batch(&["b"]))],
                )
            };
            host.send(connection, version, request);
        }
        for offset in large {
            let (_, _) = crate::offsets::delete_records(host, "t", number, offset.min(0));
            crate::offsets::listed(host, 11, "t", &[offset]);
        }
    }
    host.pass_ms(700_000);
    while host.receive(connection).is_some() {}
    victim.survives_a_restart();
}

#[test]
fn ten_thousand_times_the_same_partition() {
    let mut victim = Victim::new();
    let topic = victim.topic.clone();
    let host = &mut victim.host;
    let many: Vec<(i32, i64)> = (0..10_000).map(|_| (0, 0)).collect();
    let connection = host.connect();
    let waiting = FetchRequest {
        max_wait_ms: 1_000,
        session_epoch: 0,
        ..fetch_request(&topic, 12, &many)
    };
    host.send(connection, 12, waiting);
    let one = batch_from(9, 0, 0, &["a"]);
    let many: Vec<(i32, Bytes)> = (0..10_000).map(|_| (0, one.clone())).collect();
    let writer = host.connect();
    host.hold(Hold::Appends);
    host.send(writer, 9, produce_request(&topic, 9, -1, &many));
    assert_eq!(host.held(), 1);
    host.release();
    let answer: ProduceResponse = host.take(writer);
    let all = outcome(&answer);
    assert_eq!(all.len(), 10_000);
    assert!(all.iter().all(|told| *told == (0, ErrorCode::None, 0)));
    assert!(host.receive(connection).is_some());
    victim.survives_a_restart();
}

#[test]
fn decompression_bombs_are_refused_without_being_unpacked_whole() {
    use oncelog_wire::records::{BatchBuilder, Compression};
    let mut victim = Victim::new();
    let topic = victim.topic.clone();
    for codec in [
        Compression::Gzip,
        Compression::Zstd,
        Compression::Lz4,
        Compression::Snappy,
    ] {
        let zeros = "0".repeat(8 << 20);
        let bomb = batch_of(BatchBuilder::new().compression(codec), &[&zeros]);
        let answer = produce(&mut victim.host, &topic, 0, bomb);
        // Either it is small enough to be stored as it is, or the answer says why not.
        let error = code(answer.error_code);
        assert!(
            matches!(error, ErrorCode::None | ErrorCode::MessageTooLarge),
            "{codec:?}: {error:?}"
        );
    }
    victim.survives_a_restart();
}
