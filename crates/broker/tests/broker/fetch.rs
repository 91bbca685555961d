//! Fetch: what can be read, how much of it, when an answer waits and what wakes it.

use crate::host::{Hold, start};
use crate::requests::*;
use oncelog_wire::messages::fetch_response::EpochEndOffset;
use oncelog_wire::messages::{FetchRequest, FetchResponse};
use oncelog_wire::{ErrorCode, Uuid};

#[test]
fn every_version_reads_what_was_written() {
    let mut host = start(&[]);
    let topic = Topic::new(&mut host, "t", 2);
    produced(&mut host, &topic, 1, batch(&["a", "b"]));
    produced(&mut host, &topic, 1, batch(&["c"]));
    for version in FETCH_VERSIONS {
        let request = fetch_request(&topic, version, &[(1, 0), (0, 0)]);
        let answer: FetchResponse = host.ask(version, request);
        assert_eq!(code(answer.error_code), ErrorCode::None);
        let found = parts(&answer);
        assert_eq!((found[0].partition_index, found[1].partition_index), (1, 0));
        let values: Vec<_> = records_of(found[0]).into_iter().map(|(_, v)| v).collect();
        assert_eq!(values, ["a", "b", "c"]);
        assert_eq!(
            (found[0].high_watermark, found[0].last_stable_offset),
            (3, 3)
        );
        assert_eq!(found[0].log_start_offset, if version < 5 { -1 } else { 0 });
        assert_eq!(found[0].preferred_read_replica, -1);
        assert_eq!(records_of(found[1]), []);
        assert_eq!(code(found[1].error_code), ErrorCode::None);
        assert_eq!(
            answer.responses.len(),
            1,
            "parts of one topic stand together"
        );
    }
}

#[test]
fn reading_begins_with_the_batch_that_holds_the_offset() {
    let mut host = start(&[]);
    let topic = Topic::new(&mut host, "t", 1);
    for _ in 0..3 {
        produced(&mut host, &topic, 0, batch(&["a", "b", "c"]));
    }
    let offsets = |found: Vec<(i64, String)>| found.into_iter().map(|(o, _)| o).collect::<Vec<_>>();
    assert_eq!(
        offsets(fetched(&mut host, &topic, 0, 4)),
        [3, 4, 5, 6, 7, 8]
    );
    assert_eq!(offsets(fetched(&mut host, &topic, 0, 9)), []);
}

#[test]
fn offsets_outside_of_the_log() {
    let mut host = start(&[]);
    let topic = Topic::new(&mut host, "t", 1);
    produced(&mut host, &topic, 0, batch(&["a"]));
    for version in FETCH_VERSIONS {
        for offset in [2, -1, i64::MAX, i64::MIN] {
            let mut request = fetch_request(&topic, version, &[(0, offset)]);
            request.max_wait_ms = 5_000;
            let answer: FetchResponse = host.ask(version, request);
            let part = parts(&answer)[0];
            assert_eq!(
                code(part.error_code),
                ErrorCode::OffsetOutOfRange,
                "{offset}"
            );
            assert_eq!(records_of(part), []);
        }
    }
}

#[test]
fn unknown_topics_and_partitions_are_told_at_once() {
    let mut host = start(&[]);
    let topic = Topic::new(&mut host, "t", 1);
    let nowhere = Topic {
        name: "no".to_owned(),
        id: Uuid([9; 16]),
    };
    for version in FETCH_VERSIONS {
        for (topic, index, error) in [
            (&topic, 1, ErrorCode::UnknownTopicOrPartition),
            (&topic, -1, ErrorCode::UnknownTopicOrPartition),
            (
                &nowhere,
                0,
                if version < 13 {
                    ErrorCode::UnknownTopicOrPartition
                } else {
                    ErrorCode::UnknownTopicId
                },
            ),
        ] {
            let mut request = fetch_request(topic, version, &[(index, 0)]);
            request.max_wait_ms = 5_000;
            let answer: FetchResponse = host.ask(version, request);
            let part = parts(&answer)[0];
            assert_eq!(code(part.error_code), error);
            assert_eq!(part.high_watermark, -1);
        }
    }
}

#[test]
fn a_partition_that_is_wrong_does_not_hide_the_others() {
    let mut host = start(&[]);
    let topic = Topic::new(&mut host, "t", 1);
    produced(&mut host, &topic, 0, batch(&["a"]));
    let answer: FetchResponse = host.ask(12, fetch_request(&topic, 12, &[(5, 0), (0, 0)]));
    let errors: Vec<_> = parts(&answer).iter().map(|p| code(p.error_code)).collect();
    assert_eq!(
        errors,
        [ErrorCode::UnknownTopicOrPartition, ErrorCode::None]
    );
    assert_eq!(records_of(parts(&answer)[1]).len(), 1);
}

/// The magic byte of a batch in a sealed segment: whoever walks there finds no batch.
#[test]
fn a_partition_that_is_damaged_does_not_hide_the_others() {
    let mut host = start(&[]);
    let topic = Topic::with(&mut host, "t", 2, &[("segment.bytes", "1048576")]);
    for _ in 0..5 {
        produced(&mut host, &topic, 0, large_batch(300_000));
        produced(&mut host, &topic, 1, batch(&["b"]));
    }
    let sealed = "t-0/00000000000000000000.log";
    let second = host.disk.content(sealed).unwrap().len() / 3;
    host.disk.flip_bit(sealed, second as u64 + 16, 2);
    for version in FETCH_VERSIONS {
        let request = fetch_request(&topic, version, &[(0, 1), (1, 0)]);
        let answer: FetchResponse = host.ask(version, request);
        let errors: Vec<_> = parts(&answer).iter().map(|p| code(p.error_code)).collect();
        assert_eq!(errors, [ErrorCode::CorruptMessage, ErrorCode::None]);
        assert_eq!(records_of(parts(&answer)[1]).len(), 5);
    }
    assert_eq!(fetched(&mut host, &topic, 0, 3)[0].0, 3, "behind it");
}

// ---- waiting ----

fn waiting(topic: &Topic, version: i16, partitions: &[(i32, i64)]) -> FetchRequest {
    FetchRequest {
        max_wait_ms: 500,
        ..fetch_request(topic, version, partitions)
    }
}

#[test]
fn a_fetch_at_the_end_waits_for_the_next_append() {
    for version in FETCH_VERSIONS {
        let mut host = start(&[]);
        let topic = Topic::new(&mut host, "t", 2);
        let reader = host.connect();
        host.send(reader, version, waiting(&topic, version, &[(0, 0), (1, 0)]));
        assert_eq!(host.receive(reader), None);
        host.pass_ms(100);
        produced(&mut host, &topic, 1, batch(&["a"]));
        let answer: FetchResponse = host.take(reader);
        let found = parts(&answer);
        assert_eq!(
            (records_of(found[0]).len(), records_of(found[1]).len()),
            (0, 1)
        );
        host.pass_ms(1_000);
        assert_eq!(host.receive(reader), None, "it is answered once");
    }
}

#[test]
fn a_fetch_that_waited_long_enough_is_answered_empty() {
    let mut host = start(&[]);
    let topic = Topic::new(&mut host, "t", 1);
    let reader = host.connect();
    host.send(reader, 12, waiting(&topic, 12, &[(0, 0)]));
    host.pass_ms(499);
    assert_eq!(host.receive(reader), None);
    host.pass_ms(1);
    let answer: FetchResponse = host.take(reader);
    assert_eq!(records_of(parts(&answer)[0]), []);
    assert_eq!(parts(&answer)[0].high_watermark, 0);
    produced(&mut host, &topic, 0, batch(&["a"]));
    assert_eq!(host.receive(reader), None);
}

#[test]
fn a_fetch_is_woken_by_the_completion_not_by_the_append() {
    let mut host = start(&[]);
    let topic = Topic::new(&mut host, "t", 1);
    let (reader, writer) = (host.connect(), host.connect());
    host.send(reader, 12, waiting(&topic, 12, &[(0, 0)]));
    host.hold(Hold::Appends);
    host.send(
        writer,
        9,
        produce_request(&topic, 9, 1, &[(0, batch(&["a"]))]),
    );
    assert_eq!(host.receive(reader), None);
    host.release();
    let answer: FetchResponse = host.take(reader);
    assert_eq!(records_of(parts(&answer)[0]).len(), 1);
}

#[test]
fn min_bytes_are_counted_over_all_partitions() {
    let mut host = start(&[]);
    let topic = Topic::new(&mut host, "t", 2);
    let reader = host.connect();
    let size = batch(&["a"]).len() as i32;
    let request = FetchRequest {
        min_bytes: 3 * size,
        ..waiting(&topic, 12, &[(0, 0), (1, 0)])
    };
    host.send(reader, 12, request);
    produced(&mut host, &topic, 0, batch(&["a"]));
    produced(&mut host, &topic, 1, batch(&["a"]));
    assert_eq!(host.receive(reader), None);
    produced(&mut host, &topic, 0, batch(&["a"]));
    let answer: FetchResponse = host.take(reader);
    let counts: Vec<_> = parts(&answer).iter().map(|p| records_of(p).len()).collect();
    assert_eq!(counts, [2, 1]);
}

#[test]
fn min_bytes_that_the_limits_can_never_reach_wait_their_time() {
    // As in Kafka: a partition counts with what the answer may hold of it.
    let mut host = start(&[]);
    let topic = Topic::new(&mut host, "t", 1);
    produced(&mut host, &topic, 0, large_batch(5_000));
    let reader = host.connect();
    let mut request = waiting(&topic, 12, &[(0, 0)]);
    request.min_bytes = 4_000;
    request.topics[0].partitions[0].partition_max_bytes = 1_000;
    host.send(reader, 12, request);
    assert_eq!(host.receive(reader), None);
    host.pass_ms(500);
    let answer: FetchResponse = host.take(reader);
    assert_eq!(
        records_of(parts(&answer)[0]).len(),
        1,
        "the first is always sent"
    );
}

#[test]
fn min_bytes_0_and_max_wait_0_do_not_wait() {
    let mut host = start(&[]);
    let topic = Topic::new(&mut host, "t", 1);
    for (min_bytes, max_wait_ms) in [(0, 1_000), (-5, 1_000), (i32::MAX, 0), (1, -1)] {
        let request = FetchRequest {
            min_bytes,
            max_wait_ms,
            ..fetch_request(&topic, 12, &[(0, 0)])
        };
        let answer: FetchResponse = host.ask(12, request);
        assert_eq!(parts(&answer).len(), 1);
    }
}

#[test]
fn a_topic_that_is_deleted_wakes_its_readers() {
    for version in FETCH_VERSIONS {
        let mut host = start(&[]);
        let topic = Topic::new(&mut host, "t", 1);
        let other = Topic::new(&mut host, "other", 1);
        let reader = host.connect();
        let mut request = waiting(&topic, version, &[(0, 0)]);
        request
            .topics
            .extend(waiting(&other, version, &[(0, 0)]).topics);
        host.send(reader, version, request);
        delete_topic(&mut host, "t");
        let answer: FetchResponse = host.take(reader);
        let errors: Vec<_> = parts(&answer).iter().map(|p| code(p.error_code)).collect();
        let gone = match version {
            13.. => ErrorCode::UnknownTopicId,
            _ => ErrorCode::UnknownTopicOrPartition,
        };
        assert_eq!(errors, [gone, ErrorCode::None]);
        produced(&mut host, &other, 0, batch(&["a"]));
        host.pass_ms(1_000);
        assert_eq!(host.receive(reader), None);
    }
}

#[test]
fn a_reader_that_went_away_is_forgotten() {
    let mut host = start(&[]);
    let topic = Topic::new(&mut host, "t", 1);
    let reader = host.connect();
    for _ in 0..3 {
        host.send(reader, 12, waiting(&topic, 12, &[(0, 0)]));
    }
    host.disconnect(reader);
    produced(&mut host, &topic, 0, batch(&["a"]));
    host.pass_ms(1_000);
}

#[test]
fn several_fetches_wait_on_one_connection_and_are_answered_in_order() {
    let mut host = start(&[]);
    let topic = Topic::new(&mut host, "t", 2);
    let reader = host.connect();
    host.send(reader, 12, waiting(&topic, 12, &[(0, 0)]));
    host.send(reader, 12, waiting(&topic, 12, &[(1, 0)]));
    produced(&mut host, &topic, 1, batch(&["b"]));
    assert_eq!(host.receive(reader), None, "the first one still waits");
    produced(&mut host, &topic, 0, batch(&["a"]));
    let (first, second): (FetchResponse, FetchResponse) = (host.take(reader), host.take(reader));
    assert_eq!(records_of(parts(&first)[0]), [(0, "a".to_owned())]);
    assert_eq!(records_of(parts(&second)[0]), [(0, "b".to_owned())]);
}

#[test]
fn an_absurd_wait_is_cut_short() {
    let mut host = start(&[]);
    let topic = Topic::new(&mut host, "t", 1);
    let reader = host.connect();
    let request = FetchRequest {
        max_wait_ms: i32::MAX,
        ..fetch_request(&topic, 12, &[(0, 0)])
    };
    host.send(reader, 12, request);
    host.pass_ms(300_000);
    assert!(host.receive(reader).is_some());
}

// ---- limits ----

#[test]
fn the_first_batch_is_sent_even_if_it_is_larger_than_the_limits() {
    let mut host = start(&[]);
    let topic = Topic::new(&mut host, "t", 2);
    for index in 0..2 {
        produced(&mut host, &topic, index, large_batch(1_000));
        produced(&mut host, &topic, index, large_batch(1_000));
    }
    for (max_bytes, partition_max_bytes) in [(10 << 20, 10), (10, 10 << 20), (0, 0), (-1, -1)] {
        let mut request = fetch_request(&topic, 12, &[(0, 0), (1, 0)]);
        request.max_bytes = max_bytes;
        for partition in &mut request.topics[0].partitions {
            partition.partition_max_bytes = partition_max_bytes;
        }
        let answer: FetchResponse = host.ask(12, request);
        let counts: Vec<_> = parts(&answer).iter().map(|p| records_of(p).len()).collect();
        assert_eq!(
            counts,
            [1, 0],
            "max {max_bytes}, of a partition {partition_max_bytes}"
        );
    }
}

#[test]
fn max_bytes_holds_for_the_answer_and_for_each_partition() {
    let mut host = start(&[]);
    let topic = Topic::new(&mut host, "t", 3);
    for index in 0..3 {
        for _ in 0..10 {
            produced(&mut host, &topic, index, large_batch(1_000));
        }
    }
    let mut request = fetch_request(&topic, 12, &[(0, 0), (1, 0), (2, 0)]);
    request.max_bytes = 7_500;
    for partition in &mut request.topics[0].partitions {
        partition.partition_max_bytes = 5_200;
    }
    let answer: FetchResponse = host.ask(12, request);
    let counts: Vec<_> = parts(&answer).iter().map(|p| records_of(p).len()).collect();
    assert_eq!(counts, [5, 2, 0]);
    let sizes: usize = parts(&answer).iter().map(|p| record_bytes(p).len()).sum();
    assert!(sizes <= 7_500);
}

#[test]
fn an_answer_never_ends_inside_a_batch_over_many_segments() {
    let mut host = start(&[]);
    let configs = [
        ("segment.bytes", "1048576"),
        ("index.interval.bytes", "4096"),
    ];
    let topic = Topic::with(&mut host, "t", 1, &configs);
    for i in 0..3_000 {
        let value = format!("{i:0>700}");
        produced(&mut host, &topic, 0, batch(&[&value]));
    }
    for limit in [1, 900, 5_000, 100_000] {
        let mut offset = 0;
        while offset < 3_000 {
            let mut request = fetch_request(&topic, 12, &[(0, offset)]);
            request.topics[0].partitions[0].partition_max_bytes = limit;
            let answer: FetchResponse = host.ask(12, request);
            let found = records_of(parts(&answer)[0]);
            assert_eq!(found[0].0, offset, "limit {limit}");
            let whole = found.iter().map(|(o, _)| *o);
            assert!(whole.eq(offset..offset + found.len() as i64), "no holes");
            for (offset, value) in &found {
                assert_eq!(value.trim_start_matches('0').parse().unwrap_or(0), *offset);
            }
            offset += found.len() as i64 * if limit < 5_000 { 97 } else { 1 };
        }
    }
}

#[test]
fn the_same_partition_twice_in_one_request() {
    let mut host = start(&[]);
    let topic = Topic::new(&mut host, "t", 1);
    produced(&mut host, &topic, 0, batch(&["a", "b"]));
    let reader = host.connect();
    let answer: FetchResponse = host.ask(12, fetch_request(&topic, 12, &[(0, 0), (0, 0)]));
    assert_eq!(parts(&answer).len(), 2);
    // Parked, woken and answered once.
    host.send(reader, 12, waiting(&topic, 12, &[(0, 2), (0, 2)]));
    produced(&mut host, &topic, 0, batch(&["c"]));
    let answer: FetchResponse = host.take(reader);
    assert_eq!(records_of(parts(&answer)[0]), [(2, "c".to_owned())]);
    host.pass_ms(1_000);
    assert_eq!(host.receive(reader), None);
}

// ---- leader epochs ----

#[test]
fn epochs_that_the_client_believes_in() {
    let mut host = start(&[]);
    let topic = Topic::new(&mut host, "t", 1);
    produced(&mut host, &topic, 0, batch(&["a"]));
    for (epoch, error) in [
        (-1, ErrorCode::None),
        (0, ErrorCode::None),
        (1, ErrorCode::UnknownLeaderEpoch),
        (i32::MAX, ErrorCode::UnknownLeaderEpoch),
    ] {
        let mut request = fetch_request(&topic, 12, &[(0, 0)]);
        request.topics[0].partitions[0].current_leader_epoch = epoch;
        let answer: FetchResponse = host.ask(12, request);
        assert_eq!(code(parts(&answer)[0].error_code), error, "epoch {epoch}");
    }
}

#[test]
fn a_log_that_departs_is_told_where() {
    let mut host = start(&[]);
    let topic = Topic::new(&mut host, "t", 1);
    produced(&mut host, &topic, 0, batch(&["a"]));
    for version in [12, 18] {
        let mut request = fetch_request(&topic, version, &[(0, 5)]);
        request.max_wait_ms = 5_000;
        request.topics[0].partitions[0].last_fetched_epoch = 0;
        let answer: FetchResponse = host.ask(version, request);
        let part = parts(&answer)[0];
        assert_eq!(code(part.error_code), ErrorCode::None);
        let end = EpochEndOffset {
            epoch: 0,
            end_offset: 1,
            ..Default::default()
        };
        assert_eq!(part.diverging_epoch, end);
        assert_eq!(records_of(part), []);
    }
}

#[test]
fn read_committed_reads_the_same_and_has_its_list() {
    let mut host = start(&[]);
    let topic = Topic::new(&mut host, "t", 1);
    produced(&mut host, &topic, 0, batch(&["a"]));
    for version in FETCH_VERSIONS {
        let request = FetchRequest {
            isolation_level: 1,
            ..fetch_request(&topic, version, &[(0, 0)])
        };
        let answer: FetchResponse = host.ask(version, request);
        assert_eq!(records_of(parts(&answer)[0]).len(), 1);
        assert_eq!(parts(&answer)[0].aborted_transactions, Some(Vec::new()));
        let answer: FetchResponse = host.ask(version, fetch_request(&topic, version, &[(0, 0)]));
        assert_eq!(parts(&answer)[0].aborted_transactions, None);
    }
}

#[test]
fn followers_are_refused() {
    let mut host = start(&[]);
    let topic = Topic::new(&mut host, "t", 1);
    produced(&mut host, &topic, 0, batch(&["a"]));
    for version in [7, 12, 18] {
        let mut request = fetch_request(&topic, version, &[(0, 0)]);
        match version {
            15.. => request.replica_state.replica_id = 2,
            _ => request.replica_id = 2,
        }
        let answer: FetchResponse = host.ask(version, request);
        assert_eq!(code(answer.error_code), ErrorCode::UnsupportedVersion);
        assert_eq!(answer.responses, []);
    }
}
