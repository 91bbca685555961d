//! Fetch sessions (KIP-227): what an incremental fetch leaves out, and what ends a session.

use crate::host::{Host, start};
use crate::requests::*;
use oncelog_wire::ErrorCode;
use oncelog_wire::messages::fetch_request::ForgottenTopic;
use oncelog_wire::messages::{FetchRequest, FetchResponse};

const VERSIONS: [i16; 4] = [7, 12, 13, 18];

fn in_session(request: FetchRequest, id: i32, epoch: i32) -> FetchRequest {
    FetchRequest {
        session_id: id,
        session_epoch: epoch,
        ..request
    }
}

/// Opens a session and returns its id.
fn opened(host: &mut Host, topic: &Topic, version: i16, partitions: &[(i32, i64)]) -> i32 {
    let full = in_session(fetch_request(topic, version, partitions), 0, 0);
    let answer: FetchResponse = host.ask(version, full);
    assert_eq!(code(answer.error_code), ErrorCode::None);
    assert_ne!(answer.session_id, 0);
    assert_eq!(parts(&answer).len(), partitions.len(), "a full answer");
    answer.session_id
}

fn again(
    host: &mut Host,
    topic: &Topic,
    version: i16,
    id: i32,
    epoch: i32,
    changed: &[(i32, i64)],
) -> FetchResponse {
    let request = in_session(fetch_request(topic, version, changed), id, epoch);
    host.ask(version, request)
}

fn indexes(answer: &FetchResponse) -> Vec<i32> {
    parts(answer)
        .iter()
        .map(|part| part.partition_index)
        .collect()
}

#[test]
fn an_incremental_answer_holds_what_is_new() {
    for version in VERSIONS {
        let mut host = start(&[]);
        let topic = Topic::new(&mut host, "t", 3);
        let id = opened(&mut host, &topic, version, &[(0, 0), (1, 0), (2, 0)]);
        let nothing = again(&mut host, &topic, version, id, 1, &[]);
        assert_eq!((nothing.session_id, indexes(&nothing)), (id, vec![]));
        produced(&mut host, &topic, 1, batch(&["a"]));
        let one = again(&mut host, &topic, version, id, 2, &[]);
        assert_eq!(indexes(&one), [1]);
        assert_eq!(records_of(parts(&one)[0]), [(0, "a".to_owned())]);
        let moved = again(&mut host, &topic, version, id, 3, &[(1, 1)]);
        assert_eq!(indexes(&moved), []);
    }
}

#[test]
fn a_moved_log_start_is_told() {
    let mut host = start(&[]);
    let topic = Topic::new(&mut host, "t", 1);
    produced(&mut host, &topic, 0, batch(&["a"]));
    let id = opened(&mut host, &topic, 12, &[(0, 1)]);
    crate::offsets::delete_records(&mut host, "t", 0, 1);
    let told = again(&mut host, &topic, 12, id, 1, &[]);
    assert_eq!(parts(&told)[0].log_start_offset, 1);
}

#[test]
fn partitions_come_and_go() {
    for version in VERSIONS {
        let mut host = start(&[]);
        let topic = Topic::new(&mut host, "t", 3);
        for index in 0..3 {
            produced(&mut host, &topic, index, batch(&["a"]));
        }
        let id = opened(&mut host, &topic, version, &[(0, 0)]);
        let more = again(&mut host, &topic, version, id, 1, &[(1, 0)]);
        let mut both = indexes(&more);
        both.sort_unstable();
        assert_eq!(both, [0, 1]);
        let mut request = in_session(fetch_request(&topic, version, &[(2, 0)]), id, 2);
        request.forgotten_topics_data = vec![ForgottenTopic {
            topic: request.topics[0].topic.clone(),
            topic_id: request.topics[0].topic_id,
            partitions: vec![0, 1, 77],
            ..Default::default()
        }];
        let left: FetchResponse = host.ask(version, request);
        assert_eq!(indexes(&left), [2]);
    }
}

#[test]
fn a_session_that_forgets_everything_ends() {
    // As in Kafka: the answer says so with session id 0.
    let mut host = start(&[]);
    let topic = Topic::new(&mut host, "t", 1);
    let id = opened(&mut host, &topic, 12, &[(0, 0)]);
    let mut request = in_session(fetch_request(&topic, 12, &[]), id, 1);
    request.forgotten_topics_data = vec![ForgottenTopic {
        topic: "t".to_owned(),
        partitions: vec![0],
        ..Default::default()
    }];
    let answer: FetchResponse = host.ask(12, request);
    assert_eq!((answer.session_id, indexes(&answer)), (0, vec![]));
    let gone = again(&mut host, &topic, 12, id, 2, &[]);
    assert_eq!(code(gone.error_code), ErrorCode::FetchSessionIdNotFound);
}

#[test]
fn wrong_ids_and_epochs() {
    for version in VERSIONS {
        let mut host = start(&[]);
        let topic = Topic::new(&mut host, "t", 1);
        let id = opened(&mut host, &topic, version, &[(0, 0)]);
        let wrong_epoch = again(&mut host, &topic, version, id, 2, &[]);
        let error = ErrorCode::InvalidFetchSessionEpoch;
        assert_eq!(code(wrong_epoch.error_code), error);
        assert_eq!(wrong_epoch.session_id, 0);
        let wrong_id = again(&mut host, &topic, version, id ^ 1, 1, &[]);
        let error = ErrorCode::FetchSessionIdNotFound;
        assert_eq!(code(wrong_id.error_code), error);
        // The session is still as it was.
        let right = again(&mut host, &topic, version, id, 1, &[]);
        assert_eq!(code(right.error_code), ErrorCode::None);
        // Ended by the client.
        let full = in_session(fetch_request(&topic, version, &[(0, 0)]), id, -1);
        let last: FetchResponse = host.ask(version, full);
        assert_eq!((last.session_id, parts(&last).len()), (0, 1));
        let gone = again(&mut host, &topic, version, id, 2, &[]);
        assert_eq!(code(gone.error_code), ErrorCode::FetchSessionIdNotFound);
    }
}

#[test]
fn names_and_ids_do_not_mix_in_a_session() {
    let mut host = start(&[]);
    let topic = Topic::new(&mut host, "t", 1);
    let id = opened(&mut host, &topic, 12, &[(0, 0)]);
    let by_id = again(&mut host, &topic, 13, id, 1, &[(0, 0)]);
    assert_eq!(code(by_id.error_code), ErrorCode::FetchSessionTopicIdError);
}

#[test]
fn errors_are_told_every_time_and_their_end_too() {
    let mut host = start(&[]);
    let topic = Topic::new(&mut host, "t", 1);
    let id = opened(&mut host, &topic, 12, &[(0, 0), (1, 0)]);
    for epoch in 1..3 {
        let told = again(&mut host, &topic, 12, id, epoch, &[]);
        assert_eq!(indexes(&told), [1]);
        let unknown = ErrorCode::UnknownTopicOrPartition;
        assert_eq!(code(parts(&told)[0].error_code), unknown);
    }
    crate::topics::grow(&mut host, "t", 2);
    let healed = again(&mut host, &topic, 12, id, 3, &[]);
    assert_eq!(indexes(&healed), [1]);
    assert_eq!(code(parts(&healed)[0].error_code), ErrorCode::None);
    assert_eq!(indexes(&again(&mut host, &topic, 12, id, 4, &[])), []);
}

#[test]
fn no_partition_starves_the_others() {
    let mut host = start(&[]);
    let topic = Topic::new(&mut host, "t", 3);
    for index in 0..3 {
        for _ in 0..20 {
            produced(&mut host, &topic, index, large_batch(1_000));
        }
    }
    let id = opened(&mut host, &topic, 12, &[(0, 0), (1, 0), (2, 0)]);
    let mut next = [0; 3];
    let mut changed = Vec::new();
    for epoch in 1..=30 {
        let mut request = in_session(fetch_request(&topic, 12, &changed), id, epoch);
        request.max_bytes = 1_500; // one batch in each answer
        let answer: FetchResponse = host.ask(12, request);
        changed.clear();
        for part in parts(&answer) {
            let found = records_of(part);
            if let Some((last, _)) = found.last() {
                next[part.partition_index as usize] = last + 1;
                changed.push((part.partition_index, last + 1));
            }
        }
    }
    assert_eq!(next, [10, 10, 10]);
}

#[test]
fn sessions_are_bounded_and_the_idle_make_room() {
    let mut host = start(&[("max.incremental.fetch.session.cache.slots", "2")]);
    let topic = Topic::new(&mut host, "t", 1);
    let first = opened(&mut host, &topic, 12, &[(0, 0)]);
    let second = opened(&mut host, &topic, 12, &[(0, 0)]);
    let full = || in_session(fetch_request(&topic, 12, &[(0, 0)]), 0, 0);
    let sessionless: FetchResponse = host.ask(12, full());
    assert_eq!((sessionless.session_id, parts(&sessionless).len()), (0, 1));
    host.pass_ms(60_000);
    again(&mut host, &topic, 12, first, 1, &[]);
    host.pass_ms(70_000);
    let third: FetchResponse = host.ask(12, full());
    assert_ne!(third.session_id, 0, "the second was idle for too long");
    let gone = again(&mut host, &topic, 12, second, 1, &[]);
    assert_eq!(code(gone.error_code), ErrorCode::FetchSessionIdNotFound);
    let alive = again(&mut host, &topic, 12, first, 2, &[]);
    assert_eq!(code(alive.error_code), ErrorCode::None);
}

#[test]
fn a_session_outlives_its_connection_and_its_parked_fetch() {
    let mut host = start(&[]);
    let topic = Topic::new(&mut host, "t", 1);
    let id = opened(&mut host, &topic, 12, &[(0, 0)]);
    let reader = host.connect();
    let parked = FetchRequest {
        max_wait_ms: 500,
        ..in_session(fetch_request(&topic, 12, &[]), id, 1)
    };
    host.send(reader, 12, parked);
    host.disconnect(reader);
    produced(&mut host, &topic, 0, batch(&["a"]));
    let next = again(&mut host, &topic, 12, id, 2, &[]);
    assert_eq!(records_of(parts(&next)[0]).len(), 1);
}

#[test]
fn a_parked_fetch_whose_session_was_ended_is_answered() {
    let mut host = start(&[]);
    let topic = Topic::new(&mut host, "t", 1);
    let id = opened(&mut host, &topic, 12, &[(0, 0)]);
    let reader = host.connect();
    let parked = FetchRequest {
        max_wait_ms: 500,
        ..in_session(fetch_request(&topic, 12, &[]), id, 1)
    };
    host.send(reader, 12, parked);
    let _: FetchResponse = host.ask(12, in_session(fetch_request(&topic, 12, &[]), id, -1));
    produced(&mut host, &topic, 0, batch(&["a"]));
    let answer: FetchResponse = host.take(reader);
    assert_eq!(records_of(parts(&answer)[0]).len(), 1);
}
