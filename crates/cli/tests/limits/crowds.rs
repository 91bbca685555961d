//! State that clients make by the thousand: producers, groups, members, fetch sessions, topics.
//! None of it is unbounded in a way that surprises: what each costs is printed, and has a ceiling.

use std::io::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use oncelog_wire::messages::*;
use oncelog_wire::records::BatchBuilder;
use oncelog_wire::{ApiKey, Records, RequestBody, ResponseBody};

use crate::hostile::{SLACK_BYTES, judge, meanwhile, used};
use crate::raw::{self, Client};
use crate::{alone, scaled};

/// Requests that are sent before the answers are taken.
const PIPELINED: usize = 200;

/// Sends `count` requests, several at a time, and hands over each answer.
fn ask_all(
    port: u16,
    version: i16,
    count: usize,
    request: impl Fn(usize) -> RequestBody,
    mut answer: impl FnMut(ResponseBody),
) {
    let mut client = Client::connect(port).unwrap();
    for first in (0..count).step_by(PIPELINED) {
        let several = first..count.min(first + PIPELINED);
        let mut key = ApiKey::Produce;
        for number in several.clone() {
            let body = request(number);
            key = body.api_key();
            client.send(version, &body).unwrap();
        }
        for _ in several {
            answer(client.receive(key, version).unwrap());
        }
    }
}

/// `each_max`: bytes that one may cost, a generous multiple of what it does.
fn crowd(
    what: &str,
    settings: &[&str],
    (count, each_max): (usize, u64),
    make: impl FnOnce(u16) + Send,
) {
    let _alone = alone();
    // What is made is not what is synced.
    let settings = [&["log.flush.interval.messages=100000"], settings].concat();
    let (mut broker, before) = used(&settings);
    let port = broker.port();
    let ((), served) = meanwhile(port, || make(port));
    std::thread::sleep(Duration::from_millis(500));
    let each = broker.resident().saturating_sub(before) / count as u64;
    let what = format!("{count} {what} ({each} bytes each)");
    let may_grow = SLACK_BYTES + count as u64 * each_max;
    judge(&mut broker, &what, &served, before, may_grow);
}

#[test]
fn producer_ids() {
    let count = scaled("ONCELOG_HOSTILE_PRODUCERS", 5_000);
    crowd("producer ids", &[], (count, 2_000), |port| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let request = |number: usize| {
            let mut batch = BatchBuilder::new().producer(number as i64, 0, 0);
            batch.append(now.as_millis() as i64, None, Some(b"v"), &[]);
            let mut body = raw::produce("events", b"");
            let RequestBody::Produce(produce) = &mut body else {
                unreachable!("it is made above")
            };
            produce.topic_data[0].partition_data[0].records = Some(Records::Bytes(batch.build()));
            body
        };
        ask_all(port, raw::PRODUCE, count, request, |answer| {
            let ResponseBody::Produce(answer) = answer else {
                panic!("{answer:?}")
            };
            let partition = &answer.responses[0].partition_responses[0];
            assert_eq!(partition.error_code, 0);
        });
    });
}

#[test]
fn groups_with_an_offset() {
    let count = scaled("ONCELOG_HOSTILE_GROUPS", 5_000);
    crowd(
        "groups with a committed offset",
        &[],
        (count, 5_000),
        |port| {
            find_coordinator(port);
            let request = |number: usize| {
                RequestBody::OffsetCommit(OffsetCommitRequest {
                    group_id: format!("group-{number}"),
                    generation_id_or_member_epoch: -1,
                    topics: vec![offset_commit_request::OffsetCommitRequestTopic {
                        name: "events".to_owned(),
                        partitions: vec![offset_commit_request::OffsetCommitRequestPartition {
                            committed_offset: 1,
                            ..Default::default()
                        }],
                        ..Default::default()
                    }],
                    ..Default::default()
                })
            };
            ask_all(port, 5, count, request, |answer| {
                let ResponseBody::OffsetCommit(answer) = answer else {
                    panic!("{answer:?}")
                };
                assert_eq!(answer.topics[0].partitions[0].error_code, 0);
            });
        },
    );
}

/// Members of one group that join and are never heard of again, each on a connection of its own.
#[test]
fn members_of_one_group() {
    let count = scaled("ONCELOG_HOSTILE_MEMBERS", 500);
    crowd(
        "members that join one group",
        &[],
        (count, 40_000),
        |port| {
            find_coordinator(port);
            let mut open = Vec::new();
            for number in 0..count {
                let mut client = Client::connect(port).unwrap();
                let join = RequestBody::JoinGroup(JoinGroupRequest {
                    group_id: "crowd".to_owned(),
                    session_timeout_ms: 60_000,
                    rebalance_timeout_ms: 60_000,
                    protocol_type: "consumer".to_owned(),
                    protocols: vec![join_group_request::JoinGroupRequestProtocol {
                        name: "range".to_owned(),
                        metadata: bytes::Bytes::from(format!("member {number} of a crowd")),
                        ..Default::default()
                    }],
                    ..Default::default()
                });
                client.send(2, &join).unwrap();
                open.push(client);
            }
            std::thread::sleep(Duration::from_secs(1));
        },
    );
}

fn find_coordinator(port: u16) {
    let request = RequestBody::FindCoordinator(FindCoordinatorRequest {
        key: "any".to_owned(),
        ..Default::default()
    });
    let mut client = Client::connect(port).unwrap();
    client.ask(1, &request).unwrap();
}

/// Of many partitions each, and more than there are slots for: the last get none.
#[test]
fn fetch_sessions() {
    let count = scaled("ONCELOG_HOSTILE_SESSIONS", 300);
    // A million partitions are remembered at most; the rest is answered without a session.
    crowd(
        "fetch sessions of 10000 partitions each",
        &[],
        (count, 4 << 20),
        |port| {
            let mut opened = 0;
            for _ in 0..count {
                let mut body = raw::fetch("events", 0);
                let RequestBody::Fetch(fetch) = &mut body else {
                    unreachable!("it is made above")
                };
                fetch.session_epoch = 0;
                fetch.max_wait_ms = 0;
                fetch.max_bytes = 1;
                let partition = fetch.topics[0].partitions[0].clone();
                fetch.topics[0].partitions = (0..10_000)
                    .map(|index| fetch_request::FetchPartition {
                        partition: index,
                        ..partition.clone()
                    })
                    .collect();
                // Each from a connection that is gone right after.
                let mut client = Client::connect(port).unwrap();
                match client.ask(raw::FETCH, &body).unwrap() {
                    ResponseBody::Fetch(answer) => opened += usize::from(answer.session_id != 0),
                    other => panic!("{other:?}"),
                }
            }
            assert_eq!(opened, count.min(100), "sessions that fit");
        },
    );
}

#[test]
fn topics_made_by_asking_for_them() {
    let count = scaled("ONCELOG_HOSTILE_TOPICS", 300);
    crowd(
        "topics made by asking for them",
        &[],
        (count, 50_000),
        |port| {
            let mut client = Client::connect(port).unwrap();
            for number in 0..count {
                let topic = metadata_request::MetadataRequestTopic {
                    name: Some(format!("asked-for-{number}")),
                    ..Default::default()
                };
                let request = RequestBody::Metadata(MetadataRequest {
                    topics: Some(vec![topic]),
                    allow_auto_topic_creation: true,
                    ..Default::default()
                });
                client.ask(9, &request).unwrap();
            }
        },
    );
}

/// Whole frames of the largest size, several at once, from clients that take their time.
#[test]
fn the_largest_frames_share_the_memory() {
    let _alone = alone();
    let (mut broker, before) = used(&[]);
    let port = broker.port();
    let ((), served) = meanwhile(port, || {
        std::thread::scope(|scope| {
            for _ in 0..5 {
                scope.spawn(|| {
                    let mut client = Client::connect(port).unwrap();
                    // To a topic that does not take it: judged only when it is here whole.
                    let value = vec![9; (100 << 20) - 200];
                    let frame = client.frame(raw::PRODUCE, &raw::produce("events", &value));
                    for piece in frame.chunks(4 << 20) {
                        client.stream.write_all(piece).unwrap();
                    }
                    let answer = client.receive(ApiKey::Produce, raw::PRODUCE).unwrap();
                    let ResponseBody::Produce(answer) = answer else {
                        panic!("{answer:?}")
                    };
                    let partition = &answer.responses[0].partition_responses[0];
                    assert_eq!(partition.error_code, 10, "MESSAGE_TOO_LARGE");
                });
            }
        });
    });
    // The default budget, and the one frame that is let past it.
    let may_grow = (256 << 20) + (100 << 20) + SLACK_BYTES;
    judge(
        &mut broker,
        "5 frames of 100 MiB at once",
        &served,
        before,
        may_grow,
    );
}
