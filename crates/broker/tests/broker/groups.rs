//! Groups through frames: a whole round in old and new versions, over several shards, and what is
//! held until it is durable. The rules themselves are tested in `oncelog_coordinator`.

use crate::host::{Hold, Host, start};
use crate::requests::*;
use bytes::Bytes;
use oncelog_broker::ConnectionId;
use oncelog_wire::ErrorCode;
use oncelog_wire::messages::join_group_request::JoinGroupRequestProtocol;
use oncelog_wire::messages::leave_group_request::MemberIdentity;
use oncelog_wire::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use oncelog_wire::messages::offset_delete_request::{
    OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use oncelog_wire::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use oncelog_wire::messages::sync_group_request::SyncGroupRequestAssignment;
use oncelog_wire::messages::{
    DeleteGroupsRequest, DeleteGroupsResponse, DescribeGroupsRequest, DescribeGroupsResponse,
    FindCoordinatorRequest, FindCoordinatorResponse, HeartbeatRequest, HeartbeatResponse,
    JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, LeaveGroupResponse, ListGroupsRequest,
    ListGroupsResponse, OffsetCommitRequest, OffsetCommitResponse, OffsetDeleteRequest,
    OffsetDeleteResponse, OffsetFetchRequest, OffsetFetchResponse, SyncGroupRequest,
    SyncGroupResponse,
};

// ---- FindCoordinator ----

fn find(version: i16, key_type: i8, keys: &[&str]) -> FindCoordinatorRequest {
    let keys: Vec<String> = keys.iter().map(|key| (*key).to_owned()).collect();
    match version {
        0..=3 => FindCoordinatorRequest {
            key: keys[0].clone(),
            key_type,
            ..Default::default()
        },
        _ => FindCoordinatorRequest {
            key_type,
            coordinator_keys: keys,
            ..Default::default()
        },
    }
}

#[test]
fn the_coordinator_is_this_broker_in_every_version() {
    for version in 0..=6 {
        let mut host = start(&[]);
        let answer: FindCoordinatorResponse = host.ask(version, find(version, 0, &["g", "h"]));
        if version < 4 {
            assert_eq!(code(answer.error_code), ErrorCode::None);
            let told = (answer.node_id, &answer.host[..], answer.port);
            assert_eq!(told, (1, "broker.test", 9092));
        } else {
            let keys: Vec<_> = answer.coordinators.iter().map(|c| c.key.clone()).collect();
            assert_eq!(keys, ["g", "h"]);
            for found in &answer.coordinators {
                assert_eq!(code(found.error_code), ErrorCode::None);
                assert_eq!((found.node_id, &found.host[..]), (1, "broker.test"));
            }
        }
        assert!(topic_id(&mut host, "__consumer_offsets").is_some());
    }
}

#[test]
fn the_offsets_topic_is_made_once_whoever_asks() {
    let mut host = start(&[]);
    let askers = [host.connect(), host.connect(), host.connect()];
    host.hold(Hold::Everything);
    for asker in askers {
        host.send(asker, 4, find(4, 0, &["g"]));
        host.send(asker, 0, ListGroupsRequest::default());
    }
    assert_eq!(host.held(), 1, "one append to the metadata log");
    host.release();
    for asker in askers {
        let found: FindCoordinatorResponse = host.take(asker);
        assert_eq!(code(found.coordinators[0].error_code), ErrorCode::None);
        let listed: ListGroupsResponse = host.take(asker);
        assert_eq!(listed.groups, []);
    }
}

#[test]
fn share_groups_have_no_coordinator() {
    let mut host = start(&[]);
    for version in 1..=6 {
        for key_type in [2, 9, -1] {
            let answer: FindCoordinatorResponse =
                host.ask(version, find(version, key_type, &["x"]));
            let error = match version {
                1..=3 => answer.error_code,
                _ => answer.coordinators[0].error_code,
            };
            assert_eq!(code(error), ErrorCode::InvalidRequest, "v{version}");
        }
    }
    assert_eq!(topic_id(&mut host, "__consumer_offsets"), None);
}

// ---- a round ----

fn join(group: &str, version: i16, member: &str) -> JoinGroupRequest {
    JoinGroupRequest {
        group_id: group.to_owned(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: if version == 0 { -1 } else { 10_000 },
        member_id: member.to_owned(),
        protocol_type: "consumer".to_owned(),
        protocols: vec![JoinGroupRequestProtocol {
            name: "range".to_owned(),
            metadata: Bytes::from_static(b"m"),
            ..Default::default()
        }],
        ..Default::default()
    }
}

/// Joins, with the second step that v4 brought; the answer may still be on its way.
fn send_join(host: &mut Host, connection: ConnectionId, group: &str, version: i16) {
    host.send(connection, version, join(group, version, ""));
    if version >= 4 {
        let told: JoinGroupResponse = host.take(connection);
        assert_eq!(code(told.error_code), ErrorCode::MemberIdRequired);
        host.send(connection, version, join(group, version, &told.member_id));
    }
}

fn sync(group: &str, joined: &JoinGroupResponse, version: i16) -> SyncGroupRequest {
    let lead = joined.leader == joined.member_id;
    let assignment = |member_id: &String| SyncGroupRequestAssignment {
        member_id: member_id.clone(),
        assignment: Bytes::from(format!("for {member_id}")),
        ..Default::default()
    };
    let members = joined.members.iter().map(|member| &member.member_id);
    SyncGroupRequest {
        group_id: group.to_owned(),
        generation_id: joined.generation_id,
        member_id: joined.member_id.clone(),
        protocol_type: (version >= 5).then(|| "consumer".to_owned()),
        protocol_name: (version >= 5).then(|| "range".to_owned()),
        assignments: if lead {
            members.map(assignment).collect()
        } else {
            Vec::new()
        },
        ..Default::default()
    }
}

/// One member joins and is assigned.
fn joined(host: &mut Host, group: &str) -> JoinGroupResponse {
    let connection = host.connect();
    send_join(host, connection, group, 4);
    let joined: JoinGroupResponse = host.take(connection);
    assert_eq!(code(joined.error_code), ErrorCode::None);
    let synced: SyncGroupResponse = host.ask_on(connection, 3, sync(group, &joined, 3));
    assert_eq!(code(synced.error_code), ErrorCode::None);
    joined
}

fn heartbeat(group: &str, joined: &JoinGroupResponse) -> HeartbeatRequest {
    HeartbeatRequest {
        group_id: group.to_owned(),
        generation_id: joined.generation_id,
        member_id: joined.member_id.clone(),
        ..Default::default()
    }
}

fn commit_request(
    version: i16,
    group: &str,
    member: Option<&JoinGroupResponse>,
    topic: &Topic,
    offsets: &[(i32, i64)],
) -> OffsetCommitRequest {
    let partition = |(index, offset): &(i32, i64)| OffsetCommitRequestPartition {
        partition_index: *index,
        committed_offset: *offset,
        committed_leader_epoch: -1,
        committed_metadata: Some("note".to_owned()),
        ..Default::default()
    };
    OffsetCommitRequest {
        group_id: group.to_owned(),
        generation_id_or_member_epoch: member.map_or(-1, |joined| joined.generation_id),
        member_id: member.map_or(String::new(), |joined| joined.member_id.clone()),
        retention_time_ms: -1,
        topics: vec![OffsetCommitRequestTopic {
            name: if version < 10 {
                topic.name.clone()
            } else {
                String::new()
            },
            topic_id: if version < 10 {
                oncelog_wire::Uuid::ZERO
            } else {
                topic.id
            },
            partitions: offsets.iter().map(partition).collect(),
            ..Default::default()
        }],
        ..Default::default()
    }
}

fn errors_of_commit(answer: &OffsetCommitResponse) -> Vec<ErrorCode> {
    let parts = answer.topics.iter().flat_map(|t| &t.partitions);
    parts.map(|part| code(part.error_code)).collect()
}

pub fn commit(host: &mut Host, group: &str, topic: &Topic, index: i32, offset: i64) {
    let request = commit_request(8, group, None, topic, &[(index, offset)]);
    let answer: OffsetCommitResponse = host.ask(8, request);
    assert_eq!(errors_of_commit(&answer), [ErrorCode::None]);
}

fn fetch_offsets_request(
    version: i16,
    groups: &[&str],
    topic: Option<(&Topic, &[i32])>,
) -> OffsetFetchRequest {
    if version < 8 {
        let topics = topic.map(|(topic, indexes)| {
            vec![OffsetFetchRequestTopic {
                name: topic.name.clone(),
                partition_indexes: indexes.to_vec(),
                ..Default::default()
            }]
        });
        return OffsetFetchRequest {
            group_id: groups[0].to_owned(),
            topics,
            ..Default::default()
        };
    }
    let group = |group: &&str| OffsetFetchRequestGroup {
        group_id: (*group).to_owned(),
        member_epoch: -1,
        topics: topic.map(|(topic, indexes)| {
            vec![OffsetFetchRequestTopics {
                name: if version < 10 {
                    topic.name.clone()
                } else {
                    String::new()
                },
                topic_id: if version < 10 {
                    oncelog_wire::Uuid::ZERO
                } else {
                    topic.id
                },
                partition_indexes: indexes.to_vec(),
                ..Default::default()
            }]
        }),
        ..Default::default()
    };
    OffsetFetchRequest {
        groups: groups.iter().map(group).collect(),
        ..Default::default()
    }
}

/// (partition, offset) of the one topic of the first group of an answer.
fn fetched_offsets(version: i16, answer: &OffsetFetchResponse) -> Vec<(i32, i64)> {
    if version < 8 {
        assert_eq!(code(answer.error_code), ErrorCode::None);
        let parts = answer.topics.iter().flat_map(|topic| &topic.partitions);
        return parts
            .map(|p| (p.partition_index, p.committed_offset))
            .collect();
    }
    assert_eq!(code(answer.groups[0].error_code), ErrorCode::None);
    let parts = answer.groups[0]
        .topics
        .iter()
        .flat_map(|topic| &topic.partitions);
    parts
        .map(|p| (p.partition_index, p.committed_offset))
        .collect()
}

pub fn committed(host: &mut Host, group: &str, topic: &Topic, index: i32) -> i64 {
    let request = fetch_offsets_request(7, &[group], Some((topic, &[index])));
    let answer: OffsetFetchResponse = host.ask(7, request);
    fetched_offsets(7, &answer)[0].1
}

#[test]
fn a_whole_round_with_two_members() {
    // Join, Sync, Heartbeat, Commit, Fetch, Leave: the oldest versions and the newest.
    let old = (0, 0, 0, 2, 1, 0);
    let middle = (3, 2, 2, 5, 5, 2);
    let new = (9, 5, 4, 10, 10, 5);
    for (joins, syncs, beats, commits, fetches, leaves) in [old, middle, new] {
        let mut host = start(&[]);
        let topic = Topic::new(&mut host, "t", 2);
        let (one, two) = (host.connect(), host.connect());
        send_join(&mut host, one, "g", joins);
        let first: JoinGroupResponse = host.take(one);
        assert_eq!(code(first.error_code), ErrorCode::None);
        let _: SyncGroupResponse = host.ask_on(one, syncs, sync("g", &first, syncs));
        // The second one makes the first come again.
        send_join(&mut host, two, "g", joins);
        assert_eq!(host.receive(two), None);
        let told: HeartbeatResponse = host.ask_on(one, beats, heartbeat("g", &first));
        assert_eq!(code(told.error_code), ErrorCode::RebalanceInProgress);
        host.send(one, joins, join("g", joins, &first.member_id));
        let (first, second): (JoinGroupResponse, JoinGroupResponse) =
            (host.take(one), host.take(two));
        assert_eq!(first.generation_id, second.generation_id);
        assert_eq!(first.leader, second.leader);
        let (leader, follower, leader_at, follower_at) = match first.leader == first.member_id {
            true => (&first, &second, one, two),
            false => (&second, &first, two, one),
        };
        assert_eq!((leader.members.len(), follower.members.len()), (2, 0));
        host.send(follower_at, syncs, sync("g", follower, syncs));
        assert_eq!(host.receive(follower_at), None, "it waits for the leader");
        let own: SyncGroupResponse = host.ask_on(leader_at, syncs, sync("g", leader, syncs));
        let theirs: SyncGroupResponse = host.take(follower_at);
        assert_eq!(own.assignment, format!("for {}", leader.member_id));
        assert_eq!(theirs.assignment, format!("for {}", follower.member_id));
        let told: HeartbeatResponse = host.ask_on(one, beats, heartbeat("g", &first));
        assert_eq!(code(told.error_code), ErrorCode::None);

        let request = commit_request(commits, "g", Some(&first), &topic, &[(0, 5), (1, 7)]);
        let answer: OffsetCommitResponse = host.ask_on(one, commits, request);
        assert_eq!(errors_of_commit(&answer), [ErrorCode::None; 2]);
        let request = fetch_offsets_request(fetches, &["g"], Some((&topic, &[0, 1])));
        let answer: OffsetFetchResponse = host.ask(fetches, request);
        assert_eq!(fetched_offsets(fetches, &answer), [(0, 5), (1, 7)]);

        let member = |joined: &JoinGroupResponse| match leaves {
            0..=2 => LeaveGroupRequest {
                group_id: "g".to_owned(),
                member_id: joined.member_id.clone(),
                ..Default::default()
            },
            _ => LeaveGroupRequest {
                group_id: "g".to_owned(),
                members: vec![MemberIdentity {
                    member_id: joined.member_id.clone(),
                    ..Default::default()
                }],
                ..Default::default()
            },
        };
        for joined in [&first, &second] {
            let left: LeaveGroupResponse = host.ask(leaves, member(joined));
            assert_eq!(code(left.error_code), ErrorCode::None);
        }
        let gone: HeartbeatResponse = host.ask_on(one, beats, heartbeat("g", &first));
        assert_eq!(code(gone.error_code), ErrorCode::UnknownMemberId);
    }
}

#[test]
fn a_silent_member_is_removed_when_its_session_ends() {
    let mut host = start(&[]);
    let member = joined(&mut host, "g");
    host.pass_ms(9_000);
    let beat: HeartbeatResponse = host.ask(4, heartbeat("g", &member));
    assert_eq!(code(beat.error_code), ErrorCode::None);
    host.pass_ms(9_999);
    let state = |host: &mut Host| {
        let ask = DescribeGroupsRequest {
            groups: vec!["g".to_owned()],
            ..Default::default()
        };
        let told: DescribeGroupsResponse = host.ask(5, ask);
        told.groups[0].group_state.clone()
    };
    assert_eq!(state(&mut host), "Stable");
    host.pass_ms(2);
    assert_eq!(state(&mut host), "Empty");
}

// ---- durability ----

#[test]
fn answers_wait_for_the_records_of_their_group() {
    let mut host = start(&[]);
    let topic = Topic::new(&mut host, "t", 1);
    commit(&mut host, "g", &topic, 0, 1);
    let (writer, reader) = (host.connect(), host.connect());
    host.hold(Hold::Appends);
    host.send(writer, 8, commit_request(8, "g", None, &topic, &[(0, 2)]));
    assert_eq!(host.receive(writer), None);
    // A reader is told only of what a crash cannot take back: it waits too.
    let ask = fetch_offsets_request(7, &["g"], Some((&topic, &[0])));
    host.send(reader, 7, ask);
    assert_eq!(host.receive(reader), None);
    host.release();
    let answer: OffsetCommitResponse = host.take(writer);
    assert_eq!(errors_of_commit(&answer), [ErrorCode::None]);
    let answer: OffsetFetchResponse = host.take(reader);
    assert_eq!(fetched_offsets(7, &answer), [(0, 2)]);
}

#[test]
fn commits_survive_a_crash_once_they_are_answered() {
    for seed in 0..10 {
        let mut host = start(&[]);
        let topic = Topic::new(&mut host, "t", 1);
        commit(&mut host, "g", &topic, 0, 41);
        commit(&mut host, "g", &topic, 0, 42);
        commit(&mut host, "h", &topic, 0, 7);
        let member = joined(&mut host, "live");
        let mut host = host.crash(seed);
        assert_eq!(committed(&mut host, "g", &topic, 0), 42);
        assert_eq!(committed(&mut host, "h", &topic, 0), 7);
        let beat: HeartbeatResponse = host.ask(4, heartbeat("live", &member));
        assert_eq!(code(beat.error_code), ErrorCode::None, "members live on");
    }
}

// ---- several groups at once ----

const MANY: [&str; 12] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"];

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn requests_that_name_many_groups_are_answered_for_all() {
    let mut host = start(&[]);
    let topic = Topic::new(&mut host, "t", 1);
    for (at, group) in MANY.iter().enumerate() {
        commit(&mut host, group, &topic, 0, at as i64);
    }
    for version in [8, 9, 10] {
        let ask = fetch_offsets_request(version, &MANY, Some((&topic, &[0])));
        let answer: OffsetFetchResponse = host.ask(version, ask);
        let mut told: Vec<_> = answer
            .groups
            .iter()
            .map(|g| {
                (
                    g.group_id.clone(),
                    g.topics[0].partitions[0].committed_offset,
                )
            })
            .collect();
        told.sort();
        let all = MANY
            .iter()
            .enumerate()
            .map(|(at, name)| ((*name).to_owned(), at as i64));
        assert_eq!(told, all.collect::<Vec<_>>());
        // All topics of the group.
        let ask = fetch_offsets_request(version, &["c"], None);
        let answer: OffsetFetchResponse = host.ask(version, ask);
        assert_eq!(fetched_offsets(version, &answer), [(0, 2)]);
    }
    for version in 0..=5 {
        let listed: ListGroupsResponse = host.ask(version, ListGroupsRequest::default());
        let mut told: Vec<_> = listed.groups.iter().map(|g| g.group_id.clone()).collect();
        told.sort();
        assert_eq!(told, names(&MANY));
    }
    for version in 0..=6 {
        let ask = DescribeGroupsRequest {
            groups: names(&["a", "l", "no"]),
            ..Default::default()
        };
        let told: DescribeGroupsResponse = host.ask(version, ask);
        let state = |name: &str| {
            let found = told
                .groups
                .iter()
                .find(|g| g.group_id == name)
                .expect("told");
            (code(found.error_code), found.group_state.clone())
        };
        assert_eq!(state("a"), (ErrorCode::None, "Empty".to_owned()));
        let missing = match version {
            6.. => ErrorCode::GroupIdNotFound,
            _ => ErrorCode::None,
        };
        assert_eq!(state("no"), (missing, "Dead".to_owned()));
    }
    for version in 0..=2 {
        let at = usize::from(version as u16);
        let ask = DeleteGroupsRequest {
            groups_names: names(&[MANY[2 * at], MANY[2 * at + 1], "no"]),
            ..Default::default()
        };
        let gone: DeleteGroupsResponse = host.ask(version, ask);
        let mut errors: Vec<_> = gone.results.iter().map(|r| code(r.error_code)).collect();
        errors.sort_by_key(|error| error.code());
        let none = ErrorCode::None;
        assert_eq!(errors, [none, none, ErrorCode::GroupIdNotFound]);
    }
    let mut host = host.crash(1);
    let listed: ListGroupsResponse = host.ask(5, ListGroupsRequest::default());
    assert_eq!(listed.groups.len(), MANY.len() - 6);
}

#[test]
fn a_merged_answer_waits_for_the_slowest_shard_and_leaves_once() {
    let mut host = start(&[]);
    let topic = Topic::new(&mut host, "t", 1);
    for group in MANY {
        commit(&mut host, group, &topic, 0, 1);
    }
    let (asker, gone) = (host.connect(), host.connect());
    host.hold(Hold::Appends);
    let ask = || DeleteGroupsRequest {
        groups_names: names(&MANY),
        ..Default::default()
    };
    host.send(gone, 2, ask());
    host.send(asker, 2, ask());
    host.disconnect(gone);
    let shards = host.held();
    assert!(shards > 1, "several shards are asked");
    for at in (0..shards).rev() {
        assert_eq!(host.receive(asker), None);
        host.release_one(at);
    }
    let answer: DeleteGroupsResponse = host.take(asker);
    assert_eq!(answer.results.len(), MANY.len());
    assert_eq!(host.receive(asker), None);
}

#[test]
fn lists_without_names() {
    let mut host = start(&[]);
    let told: DescribeGroupsResponse = host.ask(5, DescribeGroupsRequest::default());
    assert_eq!(told.groups, []);
    let gone: DeleteGroupsResponse = host.ask(2, DeleteGroupsRequest::default());
    assert_eq!(gone.results, []);
    let fetched: OffsetFetchResponse = host.ask(8, OffsetFetchRequest::default());
    assert_eq!(fetched.groups, []);
}

// ---- offsets and topics ----

#[test]
fn offsets_are_deleted_by_request_and_with_their_topic() {
    let mut host = start(&[]);
    let topic = Topic::new(&mut host, "t", 2);
    let other = Topic::new(&mut host, "other", 1);
    for index in 0..2 {
        commit(&mut host, "g", &topic, index, 5);
    }
    commit(&mut host, "g", &other, 0, 6);
    let ask = OffsetDeleteRequest {
        group_id: "g".to_owned(),
        topics: vec![OffsetDeleteRequestTopic {
            name: "t".to_owned(),
            partitions: vec![OffsetDeleteRequestPartition { partition_index: 0 }],
        }],
    };
    let answer: OffsetDeleteResponse = host.ask(0, ask);
    assert_eq!(code(answer.error_code), ErrorCode::None);
    assert_eq!(committed(&mut host, "g", &topic, 0), -1);
    assert_eq!(committed(&mut host, "g", &topic, 1), 5);
    delete_topic(&mut host, "t");
    let topic = Topic::new(&mut host, "t", 2);
    assert_eq!(committed(&mut host, "g", &topic, 1), -1);
    assert_eq!(committed(&mut host, "g", &other, 0), 6);
    let mut host = host.crash(2);
    assert_eq!(committed(&mut host, "g", &topic, 1), -1);
    assert_eq!(committed(&mut host, "g", &other, 0), 6);
}

#[test]
fn commits_for_topics_that_are_not_there() {
    let mut host = start(&[]);
    let nowhere = Topic {
        name: "no".to_owned(),
        id: oncelog_wire::Uuid([9; 16]),
    };
    for version in [2, 9, 10] {
        let request = commit_request(version, "g", None, &nowhere, &[(0, 1)]);
        let answer: OffsetCommitResponse = host.ask(version, request);
        let unknown = match version {
            10 => ErrorCode::UnknownTopicId,
            _ => ErrorCode::UnknownTopicOrPartition,
        };
        assert_eq!(errors_of_commit(&answer), [unknown], "v{version}");
    }
}

// ---- the topic of groups itself ----

#[test]
fn the_offsets_topic_can_be_read_and_not_be_deleted() {
    let mut host = start(&[]);
    let topic = Topic::new(&mut host, "t", 1);
    commit(&mut host, "g", &topic, 0, 5);
    let id = topic_id(&mut host, "__consumer_offsets").unwrap();
    let offsets = Topic {
        name: "__consumer_offsets".to_owned(),
        id,
    };
    let count: usize = (0..8)
        .map(|index| fetched(&mut host, &offsets, index, 0).len())
        .sum();
    assert_eq!(count, 1);
    let gone: oncelog_wire::messages::DeleteTopicsResponse =
        host.ask(5, delete_request("__consumer_offsets"));
    assert_ne!(code(gone.responses[0].error_code), ErrorCode::None);
    assert_eq!(committed(&mut host, "g", &topic, 0), 5);
}

#[test]
fn the_offsets_topic_does_not_grow_under_its_groups() {
    // Groups live where their names hash to: with another count they would be lost.
    let mut host = start(&[]);
    let topic = Topic::new(&mut host, "t", 1);
    for group in MANY {
        commit(&mut host, group, &topic, 0, 5);
    }
    let request = oncelog_wire::messages::CreatePartitionsRequest {
        topics: vec![
            oncelog_wire::messages::create_partitions_request::CreatePartitionsTopic {
                name: "__consumer_offsets".to_owned(),
                count: 9,
                assignments: None,
                ..Default::default()
            },
        ],
        ..Default::default()
    };
    let _: oncelog_wire::messages::CreatePartitionsResponse = host.ask(3, request);
    for group in MANY {
        assert_eq!(committed(&mut host, group, &topic, 0), 5);
    }
    let mut host = host.reopen();
    for group in MANY {
        assert_eq!(committed(&mut host, group, &topic, 0), 5);
    }
}

#[test]
fn clients_do_not_write_into_the_offsets_topic() {
    let mut host = start(&[]);
    let topic = Topic::new(&mut host, "t", 1);
    commit(&mut host, "g", &topic, 0, 5);
    let id = topic_id(&mut host, "__consumer_offsets").unwrap();
    let offsets = Topic {
        name: "__consumer_offsets".to_owned(),
        id,
    };
    let mut builder = oncelog_wire::records::BatchBuilder::new();
    builder.append(1_700_000_000_000, Some(b"\x00"), Some(b"garbage"), &[]);
    let garbage = builder.build();
    for version in PRODUCE_VERSIONS {
        let request = produce_request(&offsets, version, 1, &[(3, garbage.clone())]);
        let answer: oncelog_wire::messages::ProduceResponse = host.ask(version, request);
        assert_eq!(outcome(&answer)[0].1, ErrorCode::InvalidTopicException);
    }
    let (refused, _) = crate::offsets::delete_records(&mut host, "__consumer_offsets", 3, 0);
    assert_eq!(refused, ErrorCode::InvalidTopicException);
    let mut host = host.reopen();
    assert_eq!(committed(&mut host, "g", &topic, 0), 5);
}

// ---- the consumer protocol ----

#[test]
fn a_round_of_the_consumer_protocol() {
    use oncelog_wire::messages::{
        ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse, ConsumerGroupHeartbeatRequest,
        ConsumerGroupHeartbeatResponse,
    };
    for version in 0..=1 {
        let mut host = start(&[]);
        let topic = Topic::new(&mut host, "t", 2);
        let beat = |member: &str, epoch| ConsumerGroupHeartbeatRequest {
            group_id: "g".to_owned(),
            member_id: member.to_owned(),
            member_epoch: epoch,
            rebalance_timeout_ms: if epoch == 0 { 10_000 } else { -1 },
            subscribed_topic_names: (epoch == 0).then(|| vec!["t".to_owned()]),
            topic_partitions: (epoch == 0).then(Vec::new),
            ..Default::default()
        };
        let own_id = if version == 0 { "" } else { "member-one" };
        let (member, writer) = (host.connect(), host.connect());
        host.hold(Hold::Nothing);
        host.send(member, version, beat(own_id, 0));
        let joined: ConsumerGroupHeartbeatResponse = host.take(member);
        assert_eq!(code(joined.error_code), ErrorCode::None);
        let id = joined.member_id.clone().expect("told at the join");
        let assigned = joined.assignment.clone().expect("told at the join");
        let parts = &assigned.topic_partitions[0];
        assert_eq!((parts.topic_id, parts.partitions.len()), (topic.id, 2));
        // A commit of its epoch is taken, one of another is not, and both are held until durable.
        let as_member = |epoch| OffsetCommitRequest {
            generation_id_or_member_epoch: epoch,
            member_id: id.clone(),
            ..commit_request(9, "g", None, &topic, &[(0, 7)])
        };
        host.hold(Hold::Appends);
        host.send(writer, 9, as_member(joined.member_epoch));
        assert_eq!(host.receive(writer), None);
        host.release();
        assert_eq!(errors_of_commit(&host.take(writer)), [ErrorCode::None]);
        let answer: OffsetCommitResponse = host.ask(9, as_member(joined.member_epoch + 5));
        assert_eq!(errors_of_commit(&answer), [ErrorCode::StaleMemberEpoch]);
        let mut host = host.crash(version as u64);
        let beaten: ConsumerGroupHeartbeatResponse =
            host.ask(version, beat(&id, joined.member_epoch));
        assert_eq!(code(beaten.error_code), ErrorCode::None, "it lives on");
        assert_eq!(committed(&mut host, "g", &topic, 0), 7);
        let ask = ConsumerGroupDescribeRequest {
            group_ids: names(&["g", "no"]),
            ..Default::default()
        };
        let told: ConsumerGroupDescribeResponse = host.ask(version, ask);
        let found = told
            .groups
            .iter()
            .find(|group| group.group_id == "g")
            .unwrap();
        assert_eq!((&found.group_state[..], found.members.len()), ("Stable", 1));
        let missing = told
            .groups
            .iter()
            .find(|group| group.group_id == "no")
            .unwrap();
        assert_eq!(code(missing.error_code), ErrorCode::GroupIdNotFound);
        // Silent for the length of a session: it is put out.
        host.pass_ms(45_001);
        let gone: ConsumerGroupHeartbeatResponse =
            host.ask(version, beat(&id, joined.member_epoch));
        assert_eq!(code(gone.error_code), ErrorCode::UnknownMemberId);
    }
}
