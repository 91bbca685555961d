//! Where a partition begins and ends: ListOffsets, OffsetForLeaderEpoch, DeleteRecords, and what
//! DescribeLogDirs says of its size.

use crate::host::{Hold, Host, START_MS, start};
use crate::requests::*;
use oncelog_wire::ErrorCode;
use oncelog_wire::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use oncelog_wire::messages::describe_log_dirs_request::DescribableLogDirTopic;
use oncelog_wire::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use oncelog_wire::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use oncelog_wire::messages::{
    DeleteRecordsRequest, DeleteRecordsResponse, DescribeLogDirsRequest, DescribeLogDirsResponse,
    FetchResponse, ListOffsetsRequest, ListOffsetsResponse, OffsetForLeaderEpochRequest,
    OffsetForLeaderEpochResponse,
};
use oncelog_wire::records::BatchBuilder;

// ---- ListOffsets ----

fn list_request(name: &str, asks: &[(i32, i64)]) -> ListOffsetsRequest {
    let partition = |(index, timestamp): &(i32, i64)| ListOffsetsPartition {
        partition_index: *index,
        timestamp: *timestamp,
        current_leader_epoch: -1,
        ..Default::default()
    };
    ListOffsetsRequest {
        replica_id: -1,
        topics: vec![ListOffsetsTopic {
            name: name.to_owned(),
            partitions: asks.iter().map(partition).collect(),
            ..Default::default()
        }],
        ..Default::default()
    }
}

/// (error, offset, timestamp) for each timestamp asked of partition 0.
pub fn listed(host: &mut Host, version: i16, name: &str, at: &[i64]) -> Vec<(ErrorCode, i64, i64)> {
    let mut told = Vec::new();
    for timestamp in at {
        let request = list_request(name, &[(0, *timestamp)]);
        let answer: ListOffsetsResponse = host.ask(version, request);
        let part = &answer.topics[0].partitions[0];
        told.push((code(part.error_code), part.offset, part.timestamp));
    }
    told
}

#[test]
fn a_partition_that_is_named_twice_is_refused() {
    let mut host = start(&[]);
    Topic::new(&mut host, "t", 2);
    for version in [1, 11] {
        let answer: ListOffsetsResponse =
            host.ask(version, list_request("t", &[(0, -1), (1, -1), (0, -2)]));
        let errors = answer.topics[0]
            .partitions
            .iter()
            .map(|p| code(p.error_code));
        let twice = ErrorCode::InvalidRequest;
        assert!(errors.eq([twice, ErrorCode::None, twice]));
    }
}

fn at_times(times: &[i64]) -> bytes::Bytes {
    let mut builder = BatchBuilder::new();
    for time in times {
        builder.append(START_MS + time, None, Some(b"v"), &[]);
    }
    builder.build()
}

#[test]
fn special_timestamps_in_every_version() {
    use ErrorCode::None as Ok;
    let mut host = start(&[]);
    let topic = Topic::new(&mut host, "t", 1);
    produced(&mut host, &topic, 0, at_times(&[10, 50, 20]));
    produced(&mut host, &topic, 0, at_times(&[30]));
    for version in [1, 2, 4, 7, 9, 11] {
        let ends = listed(&mut host, version, "t", &[-1, -2]);
        assert_eq!(ends, [(Ok, 4, -1), (Ok, 0, -1)], "v{version}");
        let found = listed(&mut host, version, "t", &[START_MS + 20, START_MS + 51]);
        assert_eq!(found, [(Ok, 1, START_MS + 50), (Ok, -1, -1)], "v{version}");
    }
    let largest = listed(&mut host, 7, "t", &[-3]);
    assert_eq!(largest, [(Ok, 1, START_MS + 50)]);
    assert_eq!(listed(&mut host, 8, "t", &[-4]), [(Ok, 0, -1)]);
    assert_eq!(listed(&mut host, 9, "t", &[-5]), [(Ok, -1, -1)]);
    assert_eq!(listed(&mut host, 11, "t", &[-6]), [(Ok, -1, -1)]);
}

#[test]
fn special_timestamps_that_the_version_does_not_have_are_refused() {
    // Kafka 4.3: UNSUPPORTED_VERSION for what a later version brought, or nobody knows.
    let mut host = start(&[]);
    Topic::new(&mut host, "t", 1);
    for (version, timestamp) in [
        (6, -3),
        (7, -4),
        (8, -5),
        (10, -6),
        (11, -7),
        (11, i64::MIN),
    ] {
        let told = listed(&mut host, version, "t", &[timestamp]);
        assert_eq!(
            told[0].0,
            ErrorCode::UnsupportedVersion,
            "v{version} {timestamp}"
        );
    }
}

#[test]
fn an_empty_partition_has_ends_and_no_times() {
    use ErrorCode::None as Ok;
    let mut host = start(&[]);
    Topic::new(&mut host, "t", 1);
    let told = listed(&mut host, 7, "t", &[-1, -2, -3, 0, START_MS]);
    let none = (Ok, -1, -1);
    assert_eq!(told, [(Ok, 0, -1), (Ok, 0, -1), none, none, none]);
}

#[test]
fn times_over_many_segments() {
    let mut host = start(&[]);
    let configs = [("segment.bytes", "1048576")];
    let topic = Topic::with(&mut host, "t", 1, &configs);
    let filler = "x".repeat(30_000);
    for i in 0..200 {
        let mut builder = BatchBuilder::new();
        builder.append(START_MS + i * 10, None, Some(filler.as_bytes()), &[]);
        produced(&mut host, &topic, 0, builder.build());
    }
    for i in [0, 1, 37, 99, 150, 199] {
        let asks = [START_MS + i * 10, START_MS + i * 10 - 9];
        let found = listed(&mut host, 7, "t", &asks);
        assert_eq!(found, [(ErrorCode::None, i, asks[0]); 2]);
    }
    let found = listed(&mut host, 7, "t", &[-3]);
    assert_eq!(found, [(ErrorCode::None, 199, START_MS + 1_990)]);
}

#[test]
fn what_is_not_written_yet_is_never_named() {
    let mut host = start(&[]);
    let topic = Topic::new(&mut host, "t", 1);
    let writer = host.connect();
    produced(&mut host, &topic, 0, at_times(&[10]));
    host.hold(Hold::Appends);
    let one = [(0, at_times(&[99]))];
    host.send(writer, 9, produce_request(&topic, 9, 1, &one));
    let told = listed(&mut host, 7, "t", &[-1, -3, START_MS + 50]);
    let offsets: Vec<_> = told.iter().map(|(_, offset, _)| *offset).collect();
    // As in Kafka: the largest timestamp is the new record's, and that one may not be named.
    assert_eq!(offsets, [1, -1, -1]);
    host.release();
    let told = listed(&mut host, 7, "t", &[-1, -3, START_MS + 50]);
    let offsets: Vec<_> = told.iter().map(|(_, offset, _)| *offset).collect();
    assert_eq!(offsets, [2, 1, 1]);
}

#[test]
fn unknown_partitions_and_epochs() {
    let mut host = start(&[]);
    Topic::new(&mut host, "t", 1);
    for version in [1, 4, 11] {
        let unknown = ErrorCode::UnknownTopicOrPartition;
        let told = listed(&mut host, version, "no", &[-1, START_MS]);
        assert_eq!(told, [(unknown, -1, -1); 2]);
        let answer: ListOffsetsResponse = host.ask(
            version,
            list_request("t", &[(1, -1), (-1, 0), (i32::MAX, -2)]),
        );
        let errors = answer.topics[0]
            .partitions
            .iter()
            .map(|p| code(p.error_code));
        assert!(errors.eq([unknown; 3]));
    }
    let mut ask = list_request("t", &[(0, -1)]);
    ask.topics[0].partitions[0].current_leader_epoch = 3;
    let answer: ListOffsetsResponse = host.ask(4, ask);
    let part = &answer.topics[0].partitions[0];
    assert_eq!(code(part.error_code), ErrorCode::UnknownLeaderEpoch);
}

#[test]
fn a_lookup_whose_topic_is_deleted_meanwhile() {
    let mut host = start(&[]);
    let topic = Topic::new(&mut host, "t", 2);
    produced(&mut host, &topic, 0, at_times(&[10]));
    let asker = host.connect();
    host.hold(Hold::Everything);
    host.send(asker, 7, list_request("t", &[(0, START_MS), (1, -1)]));
    assert_eq!(host.held_kinds(), ["lookup"]);
    host.send(asker, 5, delete_request("t"));
    while host.held() > 1 {
        host.release_one(1); // the deletion, to its end
    }
    host.release();
    let again = Topic::new(&mut host, "t", 1);
    produced(&mut host, &again, 0, at_times(&[10]));
    let answer: ListOffsetsResponse = host.take(asker);
    let errors: Vec<_> = answer.topics[0]
        .partitions
        .iter()
        .map(|p| code(p.error_code))
        .collect();
    assert_eq!(
        errors,
        [ErrorCode::UnknownTopicOrPartition, ErrorCode::None]
    );
}

#[test]
fn a_lookup_that_fails_is_a_storage_error() {
    let mut host = start(&[]);
    let topic = Topic::new(&mut host, "t", 1);
    produced(&mut host, &topic, 0, at_times(&[10]));
    let asker = host.connect();
    host.hold(Hold::Everything);
    host.send(asker, 7, list_request("t", &[(0, START_MS)]));
    host.disconnect(asker);
    host.fail_one(0);
    let asker = host.connect();
    host.send(asker, 7, list_request("t", &[(0, START_MS)]));
    host.fail_one(0);
    let answer: ListOffsetsResponse = host.take(asker);
    let part = &answer.topics[0].partitions[0];
    assert_eq!(code(part.error_code), ErrorCode::KafkaStorageError);
}

// ---- OffsetForLeaderEpoch ----

#[test]
fn where_epochs_end() {
    let mut host = start(&[]);
    let topic = Topic::new(&mut host, "t", 1);
    produced(&mut host, &topic, 0, batch(&["a", "b"]));
    for version in 2..=4 {
        for (partition, current, asked, expected) in [
            (0, -1, 0, (ErrorCode::None, 0, 2)),
            (0, 0, 0, (ErrorCode::None, 0, 2)),
            (0, -1, 5, (ErrorCode::None, -1, -1)),
            (0, -1, -1, (ErrorCode::None, -1, -1)),
            (0, 4, 0, (ErrorCode::UnknownLeaderEpoch, -1, -1)),
            (1, -1, 0, (ErrorCode::UnknownTopicOrPartition, -1, -1)),
        ] {
            let ask = OffsetForLeaderEpochRequest {
                replica_id: -1,
                topics: vec![OffsetForLeaderTopic {
                    topic: "t".to_owned(),
                    partitions: vec![OffsetForLeaderPartition {
                        partition,
                        current_leader_epoch: current,
                        leader_epoch: asked,
                        ..Default::default()
                    }],
                    ..Default::default()
                }],
                ..Default::default()
            };
            let ask = match version {
                2 => OffsetForLeaderEpochRequest {
                    replica_id: -2,
                    ..ask
                },
                _ => ask,
            };
            let answer: OffsetForLeaderEpochResponse = host.ask(version, ask);
            let part = &answer.topics[0].partitions[0];
            let told = (code(part.error_code), part.leader_epoch, part.end_offset);
            assert_eq!(told, expected);
        }
    }
}

// ---- DeleteRecords ----

fn delete_records_request(name: &str, index: i32, offset: i64) -> DeleteRecordsRequest {
    DeleteRecordsRequest {
        topics: vec![DeleteRecordsTopic {
            name: name.to_owned(),
            partitions: vec![DeleteRecordsPartition {
                partition_index: index,
                offset,
                ..Default::default()
            }],
            ..Default::default()
        }],
        timeout_ms: 1_000,
        ..Default::default()
    }
}

/// Returns the error and the new start.
pub fn delete_records(host: &mut Host, name: &str, index: i32, offset: i64) -> (ErrorCode, i64) {
    let answer: DeleteRecordsResponse = host.ask(1, delete_records_request(name, index, offset));
    let part = &answer.topics[0].partitions[0];
    (code(part.error_code), part.low_watermark)
}

#[test]
fn records_are_deleted_up_to_an_offset() {
    use ErrorCode::{None as Ok, OffsetOutOfRange, UnknownTopicOrPartition};
    let mut host = start(&[]);
    let topic = Topic::new(&mut host, "t", 1);
    for _ in 0..3 {
        produced(&mut host, &topic, 0, batch(&["a", "b"]));
    }
    assert_eq!(delete_records(&mut host, "t", 0, 3), (Ok, 3));
    assert_eq!(
        delete_records(&mut host, "t", 0, 1),
        (Ok, 3),
        "it goes never back"
    );
    assert_eq!(delete_records(&mut host, "t", 0, 7), (OffsetOutOfRange, -1));
    assert_eq!(
        delete_records(&mut host, "t", 0, -2),
        (OffsetOutOfRange, -1)
    );
    assert_eq!(
        delete_records(&mut host, "t", 1, 0),
        (UnknownTopicOrPartition, -1)
    );
    assert_eq!(
        delete_records(&mut host, "no", 0, 0),
        (UnknownTopicOrPartition, -1)
    );
    assert_eq!(listed(&mut host, 1, "t", &[-2]), [(Ok, 3, -1)]);
    let answer: FetchResponse = host.ask(12, fetch_request(&topic, 12, &[(0, 2)]));
    assert_eq!(code(parts(&answer)[0].error_code), OffsetOutOfRange);
    assert_eq!(delete_records(&mut host, "t", 0, -1), (Ok, 6));
    produced(&mut host, &topic, 0, batch(&["c"]));
    assert_eq!(fetched(&mut host, &topic, 0, 6), [(6, "c".to_owned())]);
    let mut host = host.crash(1);
    assert_eq!(
        listed(&mut host, 1, "t", &[-2, -1]),
        [(Ok, 6, -1), (Ok, 7, -1)]
    );
}

#[test]
fn the_new_start_is_on_disk_before_the_answer() {
    let mut host = start(&[]);
    let topic = Topic::new(&mut host, "t", 1);
    produced(&mut host, &topic, 0, batch(&["a", "b"]));
    let asker = host.connect();
    host.hold(Hold::Everything);
    let mut ask = delete_records_request("t", 0, 1);
    let again = ask.topics[0].partitions[0].clone();
    ask.topics[0].partitions.push(again); // one partition twice
    host.send(asker, 2, ask);
    assert_eq!(host.receive(asker), None);
    host.release();
    let answer: DeleteRecordsResponse = host.take(asker);
    let told = answer.topics[0]
        .partitions
        .iter()
        .map(|p| (code(p.error_code), p.low_watermark));
    assert!(told.eq([(ErrorCode::None, 1); 2]));
}

#[test]
fn a_compacted_topic_does_not_delete_records() {
    let mut host = start(&[]);
    Topic::with(&mut host, "t", 1, &[("cleanup.policy", "compact")]);
    let (error, _) = delete_records(&mut host, "t", 0, 0);
    assert_eq!(error, ErrorCode::PolicyViolation);
}

// ---- DescribeLogDirs ----

#[test]
fn sizes_by_directory() {
    let mut host = start(&[]);
    let topic = Topic::new(&mut host, "t", 2);
    Topic::new(&mut host, "other", 1);
    let size = batch(&["a"]).len() as i64;
    produced(&mut host, &topic, 1, batch(&["a"]));
    for version in 1..=5 {
        let all = DescribeLogDirsRequest {
            topics: None,
            ..Default::default()
        };
        let answer: DescribeLogDirsResponse = host.ask(version, all);
        assert_eq!(code(answer.error_code), ErrorCode::None);
        assert_eq!(answer.results.len(), 1);
        let names: Vec<_> = answer.results[0]
            .topics
            .iter()
            .map(|t| t.name.clone())
            .collect();
        assert_eq!(names.len(), 2);
        let some = DescribeLogDirsRequest {
            topics: Some(vec![DescribableLogDirTopic {
                topic: "t".to_owned(),
                partitions: vec![1, 9],
                ..Default::default()
            }]),
            ..Default::default()
        };
        let answer: DescribeLogDirsResponse = host.ask(version, some);
        let found = &answer.results[0].topics;
        assert_eq!((found.len(), &found[0].name[..]), (1, "t"));
        let sizes = found[0]
            .partitions
            .iter()
            .map(|p| (p.partition_index, p.partition_size));
        assert!(sizes.eq([(1, size)]));
        let nothing = DescribeLogDirsRequest {
            topics: Some(Vec::new()),
            ..Default::default()
        };
        let answer: DescribeLogDirsResponse = host.ask(version, nothing);
        assert_eq!(answer.results[0].topics, []);
    }
}
