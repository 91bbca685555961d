//! Produce: what is acknowledged, when, in which order, and what is refused.

use crate::host::{Hold, START_MS, start};
use crate::requests::*;
use oncelog_wire::messages::{ProduceRequest, ProduceResponse};
use oncelog_wire::records::{BatchBuilder, BatchHeader, Compression, TimestampType};
use oncelog_wire::{ErrorCode, Uuid};

#[test]
fn every_version_appends_and_tells_the_offset() {
    let mut host = start(&[]);
    let topic = Topic::new(&mut host, "t", 2);
    let mut next = 0;
    for version in PRODUCE_VERSIONS {
        for acks in [1, -1] {
            let request = produce_request(&topic, version, acks, &[(1, batch(&["a", "b"]))]);
            let answer: ProduceResponse = host.ask(version, request);
            assert_eq!(outcome(&answer), [(1, ErrorCode::None, next)]);
            let part = &answer.responses[0].partition_responses[0];
            assert_eq!(part.log_append_time_ms, -1);
            assert_eq!(part.log_start_offset, if version < 5 { -1 } else { 0 });
            next += 2;
        }
    }
    assert_eq!(fetched(&mut host, &topic, 1, 0).len(), 12);
    assert_eq!(fetched(&mut host, &topic, 0, 0), []);
}

#[test]
fn an_answer_waits_until_its_append_came_back() {
    for acks in [1, -1] {
        let mut host = start(&[]);
        let topic = Topic::new(&mut host, "t", 1);
        let connection = host.connect();
        host.hold(Hold::Appends);
        host.send(
            connection,
            9,
            produce_request(&topic, 9, acks, &[(0, batch(&["a"]))]),
        );
        assert_eq!(host.receive(connection), None);
        assert_eq!(host.held_kinds(), ["append"]);
        host.release();
        let answer: ProduceResponse = host.take(connection);
        assert_eq!(outcome(&answer), [(0, ErrorCode::None, 0)]);
    }
}

#[test]
fn what_is_not_written_yet_is_not_readable() {
    let mut host = start(&[]);
    let topic = Topic::new(&mut host, "t", 1);
    let connection = host.connect();
    produced(&mut host, &topic, 0, batch(&["a"]));
    host.hold(Hold::Appends);
    host.send(
        connection,
        9,
        produce_request(&topic, 9, 1, &[(0, batch(&["b"]))]),
    );
    assert_eq!(fetched(&mut host, &topic, 0, 0).len(), 1);
    assert_eq!(fetched(&mut host, &topic, 0, 1), []);
    host.release();
    assert_eq!(fetched(&mut host, &topic, 0, 1), [(1, "b".to_owned())]);
}

#[test]
fn pipelined_answers_keep_the_order_of_their_requests() {
    let mut host = start(&[]);
    let topic = Topic::new(&mut host, "t", 3);
    let connection = host.connect();
    host.hold(Hold::Appends);
    for index in 0..3 {
        let one = [(index, batch(&["a"]))];
        host.send(connection, 9, produce_request(&topic, 9, -1, &one));
    }
    // A request that needs no disk waits behind them too.
    host.send(connection, 12, fetch_request(&topic, 12, &[(0, 0)]));
    host.release_one(2);
    host.release_one(1);
    assert_eq!(host.receive(connection), None);
    host.release();
    for index in 0..3 {
        let answer: ProduceResponse = host.take(connection);
        assert_eq!(outcome(&answer), [(index, ErrorCode::None, 0)]);
    }
    assert!(host.receive(connection).is_some(), "the fetch");
}

#[test]
fn appends_to_one_partition_may_come_back_in_any_order() {
    let mut host = start(&[]);
    let topic = Topic::new(&mut host, "t", 1);
    let (first, second) = (host.connect(), host.connect());
    host.hold(Hold::Appends);
    host.send(
        first,
        9,
        produce_request(&topic, 9, -1, &[(0, batch(&["a", "b"]))]),
    );
    host.send(
        second,
        9,
        produce_request(&topic, 9, -1, &[(0, batch(&["c"]))]),
    );
    host.release_one(1);
    assert_eq!(host.receive(second), None, "there is a hole before it");
    assert_eq!(fetched(&mut host, &topic, 0, 0), []);
    host.release();
    assert_eq!(outcome(&host.take(first)), [(0, ErrorCode::None, 0)]);
    assert_eq!(outcome(&host.take(second)), [(0, ErrorCode::None, 2)]);
    assert_eq!(fetched(&mut host, &topic, 0, 0).len(), 3);
}

#[test]
fn acks_0_is_not_answered_and_an_error_closes_the_connection() {
    let mut host = start(&[]);
    let topic = Topic::new(&mut host, "t", 1);
    let connection = host.connect();
    for version in PRODUCE_VERSIONS {
        let request = produce_request(&topic, version, 0, &[(0, batch(&["a"]))]);
        host.send(connection, version, request);
        assert_eq!(host.receive(connection), None);
    }
    assert_eq!(host.closed(connection), None);
    assert_eq!(fetched(&mut host, &topic, 0, 0).len(), 3);
    // Another request on the same connection is answered.
    let one = [(0, batch(&["b"]))];
    host.send(connection, 9, produce_request(&topic, 9, 1, &one));
    assert_eq!(outcome(&host.take(connection)), [(0, ErrorCode::None, 3)]);
    host.send(
        connection,
        9,
        produce_request(&topic, 9, 0, &[(7, batch(&["a"]))]),
    );
    assert!(host.closed(connection).is_some());
}

#[test]
fn acks_that_mean_nothing_are_refused() {
    let mut host = start(&[]);
    let topic = Topic::new(&mut host, "t", 1);
    for acks in [2, -2, i16::MAX, i16::MIN] {
        let request = produce_request(&topic, 9, acks, &[(0, batch(&["a"]))]);
        let answer: ProduceResponse = host.ask(9, request);
        assert_eq!(outcome(&answer), [(0, ErrorCode::InvalidRequiredAcks, -1)]);
    }
    assert_eq!(fetched(&mut host, &topic, 0, 0), []);
}

#[test]
fn unknown_topics_and_partitions() {
    let mut host = start(&[]);
    let topic = Topic::new(&mut host, "t", 1);
    let nowhere = Topic {
        name: "no".to_owned(),
        id: Uuid([9; 16]),
    };
    for version in PRODUCE_VERSIONS {
        let unknown = match version {
            13.. => ErrorCode::UnknownTopicId,
            _ => ErrorCode::UnknownTopicOrPartition,
        };
        let request = produce_request(&nowhere, version, 1, &[(0, batch(&["a"]))]);
        assert_eq!(outcome(&host.ask(version, request)), [(0, unknown, -1)]);
        for index in [1, -1, i32::MIN, i32::MAX] {
            let request = produce_request(&topic, version, 1, &[(index, batch(&["a"]))]);
            let no_partition = ErrorCode::UnknownTopicOrPartition;
            assert_eq!(
                outcome(&host.ask(version, request)),
                [(index, no_partition, -1)]
            );
        }
    }
    assert_eq!(topic_id(&mut host, "no"), None, "Produce makes no topics");
}

#[test]
fn a_failed_partition_is_told_with_those_that_succeeded() {
    let mut host = start(&[]);
    let topic = Topic::new(&mut host, "t", 2);
    let connection = host.connect();
    let mut broken = batch(&["a"]).to_vec();
    let last = broken.len() - 1;
    broken[last] ^= 1;
    host.hold(Hold::Appends);
    let three = [(0, broken.into()), (1, batch(&["a"])), (2, batch(&["a"]))];
    host.send(connection, 9, produce_request(&topic, 9, -1, &three));
    assert_eq!(host.receive(connection), None, "one of them is on its way");
    host.release();
    assert_eq!(
        outcome(&host.take(connection)),
        [
            (0, ErrorCode::CorruptMessage, -1),
            (1, ErrorCode::None, 0),
            (2, ErrorCode::UnknownTopicOrPartition, -1),
        ]
    );
}

#[test]
fn batches_that_no_client_should_send() {
    let mut host = start(&[]);
    let topic = Topic::new(&mut host, "t", 1);
    let two = [batch(&["a"]), batch(&["b"])].concat();
    let control = batch_of(BatchBuilder::new().control(true), &["a"]);
    let zstd = batch_of(BatchBuilder::new().compression(Compression::Zstd), &["a"]);
    let future = {
        let mut builder = BatchBuilder::new();
        builder.append(START_MS + 7_200_000, None, Some(b"a"), &[]);
        builder.build()
    };
    for (what, version, records, error) in [
        ("two batches", 9, two.into(), ErrorCode::InvalidRecord),
        ("control", 9, control, ErrorCode::InvalidRecord),
        (
            "zstd before v7",
            6,
            zstd.clone(),
            ErrorCode::UnsupportedCompressionType,
        ),
        ("zstd", 7, zstd, ErrorCode::None),
        ("nothing", 9, bytes::Bytes::new(), ErrorCode::InvalidRecord),
        (
            "half a header",
            9,
            batch(&["a"]).slice(..30),
            ErrorCode::CorruptMessage,
        ),
        ("too late", 9, future, ErrorCode::InvalidTimestamp),
        (
            "too large",
            9,
            large_batch(1_100_000),
            ErrorCode::MessageTooLarge,
        ),
    ] {
        let request = produce_request(&topic, version, 1, &[(0, records)]);
        let answer: ProduceResponse = host.ask(version, request);
        assert_eq!(outcome(&answer)[0].1, error, "{what}");
    }
    let mut without = produce_request(&topic, 9, 1, &[(0, batch(&["a"]))]);
    without.topic_data[0].partition_data[0].records = None;
    let answer: ProduceResponse = host.ask(9, without);
    assert_eq!(outcome(&answer)[0].1, ErrorCode::InvalidRecord);
}

#[test]
fn a_compacted_topic_takes_no_record_without_a_key_and_says_which() {
    let mut host = start(&[]);
    let topic = Topic::with(&mut host, "t", 1, &[("cleanup.policy", "compact")]);
    let mut builder = BatchBuilder::new();
    builder.append(START_MS, Some(b"k"), Some(b"v"), &[]);
    builder.append(START_MS, None, Some(b"v"), &[]);
    builder.append(START_MS, Some(b"k"), Some(b"v"), &[]);
    builder.append(START_MS, None, Some(b"v"), &[]);
    let answer = produce(&mut host, &topic, 0, builder.build());
    assert_eq!(code(answer.error_code), ErrorCode::InvalidRecord);
    let at_fault: Vec<i32> = answer.record_errors.iter().map(|r| r.batch_index).collect();
    assert_eq!(at_fault, [1, 3]);
    assert!(answer.error_message.is_some());
}

#[test]
fn a_topic_with_a_codec_stores_everything_in_it() {
    let mut host = start(&[]);
    let topic = Topic::with(&mut host, "t", 1, &[("compression.type", "lz4")]);
    let mut builder = BatchBuilder::new().compression(Compression::Gzip);
    builder.append(START_MS, Some(b"k"), Some(b"v"), &[]);
    let answer = produce(&mut host, &topic, 0, builder.build());
    assert_eq!(code(answer.error_code), ErrorCode::None);
    let fetched = host.ask(12, fetch_request(&topic, 12, &[(0, 0)]));
    let header = BatchHeader::parse(&record_bytes(parts(&fetched)[0])).unwrap();
    assert_eq!(header.compression(), Ok(Compression::Lz4));
}

#[test]
fn log_append_time_is_told_and_stored() {
    let mut host = start(&[]);
    let configs = [("message.timestamp.type", "LogAppendTime")];
    let topic = Topic::with(&mut host, "t", 1, &configs);
    host.pass_ms(5_000);
    let now_ms = host.now.wall_ms;
    let answer = produce(&mut host, &topic, 0, batch_from(1, 0, 0, &["a"]));
    assert_eq!(answer.log_append_time_ms, now_ms);
    let request = fetch_request(&topic, 12, &[(0, 0)]);
    let fetched = host.ask(12, request);
    let bytes = record_bytes(parts(&fetched)[0]);
    let header = BatchHeader::parse(&bytes).unwrap();
    assert_eq!(header.timestamp_type(), TimestampType::LogAppendTime);
    assert_eq!(header.max_timestamp, now_ms);
    assert!(oncelog_wire::records::crc_is_valid(&bytes));
    // A duplicate is told the time of the original.
    host.pass_ms(5_000);
    let again = produce(&mut host, &topic, 0, batch_from(1, 0, 0, &["a"]));
    assert_eq!((again.base_offset, again.log_append_time_ms), (0, now_ms));
}

// ---- idempotent producers ----

#[test]
fn a_duplicate_is_answered_with_its_original_offset() {
    let mut host = start(&[]);
    let topic = Topic::new(&mut host, "t", 1);
    for sequence in 0..6 {
        produced(&mut host, &topic, 0, batch_from(7, 0, sequence, &["a"]));
    }
    for sequence in 1..6 {
        let again = batch_from(7, 0, sequence, &["a"]);
        assert_eq!(produced(&mut host, &topic, 0, again), i64::from(sequence));
    }
    let forgotten = produce(&mut host, &topic, 0, batch_from(7, 0, 0, &["a"]));
    assert_eq!(
        code(forgotten.error_code),
        ErrorCode::OutOfOrderSequenceNumber
    );
    let gap = produce(&mut host, &topic, 0, batch_from(7, 0, 8, &["a"]));
    assert_eq!(code(gap.error_code), ErrorCode::OutOfOrderSequenceNumber);
    produced(&mut host, &topic, 0, batch_from(7, 1, 0, &["a"]));
    let fenced = produce(&mut host, &topic, 0, batch_from(7, 0, 6, &["a"]));
    assert_eq!(code(fenced.error_code), ErrorCode::InvalidProducerEpoch);
    assert_eq!(fetched(&mut host, &topic, 0, 0).len(), 7);
}

#[test]
fn a_duplicate_waits_for_its_original() {
    for acks in [1, -1] {
        let mut host = start(&[]);
        let topic = Topic::new(&mut host, "t", 1);
        let (first, second) = (host.connect(), host.connect());
        let one = [(0, batch_from(7, 0, 0, &["a"]))];
        host.hold(Hold::Appends);
        host.send(first, 9, produce_request(&topic, 9, acks, &one));
        host.disconnect(first);
        host.send(second, 9, produce_request(&topic, 9, acks, &one));
        assert_eq!(host.receive(second), None, "nothing of it is durable yet");
        assert_eq!(host.held(), 1, "a duplicate is not written again");
        host.release();
        assert_eq!(outcome(&host.take(second)), [(0, ErrorCode::None, 0)]);
        assert_eq!(fetched(&mut host, &topic, 0, 0).len(), 1);
    }
}

#[test]
fn one_request_may_name_a_partition_twice() {
    for acks in [1, -1] {
        let mut host = start(&[]);
        let topic = Topic::new(&mut host, "t", 1);
        let connection = host.connect();
        host.hold(Hold::Appends);
        let both = [(0, batch(&["a", "b"])), (0, batch(&["c"]))];
        host.send(connection, 9, produce_request(&topic, 9, acks, &both));
        host.release_one(0);
        assert_eq!(host.receive(connection), None);
        host.release();
        let told = [(0, ErrorCode::None, 0), (0, ErrorCode::None, 2)];
        assert_eq!(outcome(&host.take(connection)), told);
    }
}

#[test]
fn one_request_may_hold_a_batch_and_its_duplicate() {
    let mut host = start(&[]);
    let topic = Topic::new(&mut host, "t", 1);
    let (connection, other) = (host.connect(), host.connect());
    let one = batch_from(7, 0, 0, &["a"]);
    let both = [(0, one.clone()), (0, one.clone())];
    host.hold(Hold::Appends);
    host.send(connection, 9, produce_request(&topic, 9, -1, &both));
    host.send(other, 9, produce_request(&topic, 9, -1, &both));
    assert_eq!(host.held(), 1);
    host.release();
    let told = [(0, ErrorCode::None, 0), (0, ErrorCode::None, 0)];
    assert_eq!(outcome(&host.take(connection)), told);
    assert_eq!(outcome(&host.take(other)), told);
}

#[test]
fn both_places_of_a_duplicate_time_out() {
    let mut host = start(&[]);
    let topic = Topic::new(&mut host, "t", 1);
    let connection = host.connect();
    let one = batch_from(7, 0, 0, &["a"]);
    let both = [(0, one.clone()), (0, one)];
    host.hold(Hold::Appends);
    host.send(connection, 9, produce_request(&topic, 9, -1, &both));
    host.pass_ms(30_001);
    let told: ProduceResponse = host.take(connection);
    let errors: Vec<_> = outcome(&told).iter().map(|part| part.1).collect();
    assert_eq!(errors, [ErrorCode::RequestTimedOut; 2]);
}

#[test]
fn acks_all_times_out_and_the_late_completion_disturbs_nobody() {
    let mut host = start(&[]);
    let topic = Topic::new(&mut host, "t", 1);
    let connection = host.connect();
    host.hold(Hold::Appends);
    let request = ProduceRequest {
        timeout_ms: 500,
        ..produce_request(&topic, 9, -1, &[(0, batch(&["a"]))])
    };
    host.send(connection, 9, request);
    host.pass_ms(499);
    assert_eq!(host.receive(connection), None);
    host.pass_ms(2);
    let told: ProduceResponse = host.take(connection);
    assert_eq!(outcome(&told)[0].1, ErrorCode::RequestTimedOut);
    host.release();
    assert_eq!(host.receive(connection), None, "it is answered once");
    assert_eq!(fetched(&mut host, &topic, 0, 0).len(), 1);
}

#[test]
fn a_client_that_went_away_leaves_nothing_behind() {
    let mut host = start(&[]);
    let topic = Topic::new(&mut host, "t", 1);
    let gone = host.connect();
    host.hold(Hold::Appends);
    host.send(
        gone,
        9,
        produce_request(&topic, 9, -1, &[(0, batch(&["a"]))]),
    );
    host.disconnect(gone);
    host.release();
    host.pass_ms(60_000);
    assert_eq!(fetched(&mut host, &topic, 0, 0).len(), 1);
}

#[test]
fn the_same_topic_twice_in_one_request() {
    let mut host = start(&[]);
    let topic = Topic::new(&mut host, "t", 2);
    let mut request = produce_request(&topic, 9, -1, &[(0, batch(&["a"]))]);
    let again = request.topic_data[0].clone();
    request.topic_data.push(again);
    let answer: ProduceResponse = host.ask(9, request);
    assert_eq!(answer.responses.len(), 2);
    let told = [(0, ErrorCode::None, 0), (0, ErrorCode::None, 1)];
    assert_eq!(outcome(&answer), told);
}

#[test]
fn a_request_without_anything_is_answered() {
    let mut host = start(&[]);
    for version in PRODUCE_VERSIONS {
        let nothing = ProduceRequest {
            acks: -1,
            ..Default::default()
        };
        let answer: ProduceResponse = host.ask(version, nothing);
        assert_eq!(answer.responses, []);
    }
}

#[test]
fn batches_are_stored_as_they_were_sent() {
    let mut host = start(&[]);
    let topic = Topic::new(&mut host, "t", 1);
    for codec in [
        Compression::None,
        Compression::Gzip,
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd,
    ] {
        let sent = batch_of(BatchBuilder::new().compression(codec), &["a", "b"]);
        let offset = produced(&mut host, &topic, 0, sent.clone());
        let request = fetch_request(&topic, 12, &[(0, offset)]);
        let answer = host.ask(12, request);
        let back = record_bytes(parts(&answer)[0]);
        assert_eq!(back[16..], sent[16..], "{codec:?}");
        let header = BatchHeader::parse(&back).unwrap();
        assert_eq!(header.base_offset, offset);
        assert_eq!(header.partition_leader_epoch, 0);
    }
}
