//! Random sequences of requests from clients that behave, misbehave and vanish.
//!
//! After every step the host checks that a replay of the records, of all of them and of the
//! compacted ones, gives the same durable state, and that the group's own invariants hold. Here
//! is checked what clients rely on: every request is answered once, a generation never comes
//! back, all of a generation have their assignments from one leader, and a commit is taken from
//! the newest generation alone.
//!
//! A failure prints the shortest sequence that proptest finds; it is kept for replay in
//! proptest-regressions/.

use super::super::GroupConfig;
use super::super::classic::State;
use super::host::Host;
use crate::Caller;
use bytes::Bytes;
use oncelog_wire::messages::join_group_request::JoinGroupRequestProtocol;
use oncelog_wire::messages::leave_group_request::MemberIdentity;
use oncelog_wire::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use oncelog_wire::messages::sync_group_request::SyncGroupRequestAssignment;
use oncelog_wire::messages::{
    HeartbeatRequest, JoinGroupRequest, LeaveGroupRequest, OffsetCommitRequest, SyncGroupRequest,
};
use oncelog_wire::{ErrorCode, ResponseBody};
use proptest::prelude::*;
use std::collections::BTreeMap;

#[derive(Clone, Debug)]
enum Op {
    /// `forgets`: without the member id that the client has.
    Join {
        client: usize,
        version: i16,
        protocols: usize,
        forgets: bool,
    },
    Sync {
        client: usize,
        is_stale: bool,
    },
    Heartbeat {
        client: usize,
        is_stale: bool,
    },
    Leave {
        client: usize,
    },
    Commit {
        client: usize,
        is_stale: bool,
    },
    CommitSimple {
        client: usize,
    },
    DeleteGroup {
        client: usize,
    },
    DeleteTopic,
    Advance {
        ms: i64,
    },
    Restart,
}

const CLIENTS: usize = 6;

fn op() -> impl Strategy<Value = Op> {
    let client = 0..CLIENTS;
    let version = prop::sample::select(vec![1i16, 3, 4, 5, 8, 9]);
    prop_oneof![
        8 => (client.clone(), version, 0..4usize, prop::bool::weighted(0.2)).prop_map(
            |(client, version, protocols, forgets)| Op::Join { client, version, protocols, forgets }
        ),
        8 => (client.clone(), prop::bool::weighted(0.1))
            .prop_map(|(client, is_stale)| Op::Sync { client, is_stale }),
        3 => (client.clone(), prop::bool::weighted(0.1))
            .prop_map(|(client, is_stale)| Op::Heartbeat { client, is_stale }),
        1 => client.clone().prop_map(|client| Op::Leave { client }),
        4 => (client.clone(), prop::bool::weighted(0.3))
            .prop_map(|(client, is_stale)| Op::Commit { client, is_stale }),
        1 => client.clone().prop_map(|client| Op::CommitSimple { client }),
        1 => client.prop_map(|client| Op::DeleteGroup { client }),
        1 => Just(Op::DeleteTopic),
        3 => (0..25_000i64).prop_map(|ms| Op::Advance { ms }),
        1 => Just(Op::Restart),
    ]
}

#[derive(Clone, Default)]
struct Client {
    member_id: String,
    generation: i32,
    /// The members that it was told of as leader.
    members: Vec<String>,
}

/// What the clients of one group have seen.
#[derive(Default)]
struct Seen {
    generation: i32,
    /// Generation -> the assignment that its leader made up.
    assignments: BTreeMap<i32, Bytes>,
}

struct World {
    host: Host,
    clients: Vec<Client>,
    /// Token -> client.
    asked: BTreeMap<u64, usize>,
    seen: BTreeMap<String, Seen>,
    nonce: u64,
}

fn group_of(client: usize) -> String {
    if client < 4 { "g".into() } else { "h".into() }
}

fn instance_of(client: usize, version: i16) -> Option<String> {
    (client % 3 == 2 && version >= 5).then(|| format!("i{client}"))
}

impl World {
    fn new(initial_rebalance_delay_ms: i32, max_size: usize) -> World {
        let config = GroupConfig {
            initial_rebalance_delay_ms,
            max_size,
            ..GroupConfig::default()
        };
        let mut host = Host::new(config);
        host.topics.create("t", 2);
        let clients = vec![Client::default(); CLIENTS];
        World {
            host,
            clients,
            asked: BTreeMap::new(),
            seen: BTreeMap::new(),
            nonce: 0,
        }
    }

    fn run(&mut self, op: &Op) {
        match *op {
            Op::Join {
                client,
                version,
                protocols,
                forgets,
            } => {
                self.join(client, version, protocols, forgets);
            }
            Op::Sync { client, is_stale } => self.sync(client, is_stale),
            Op::Heartbeat { client, is_stale } => {
                let request = HeartbeatRequest {
                    group_id: group_of(client),
                    generation_id: self.generation(client, is_stale),
                    member_id: self.clients[client].member_id.clone(),
                    ..Default::default()
                };
                self.ask(client, 4, |shard, now, to, _| {
                    shard.heartbeat(now, to, &caller(client, 4), &request)
                });
            }
            Op::Leave { client } => {
                let member = MemberIdentity {
                    member_id: self.clients[client].member_id.clone(),
                    ..Default::default()
                };
                let request = LeaveGroupRequest {
                    group_id: group_of(client),
                    members: vec![member],
                    ..Default::default()
                };
                self.ask(client, 5, |shard, now, to, _| {
                    shard.leave_group(now, to, &caller(client, 5), request)
                });
            }
            Op::Commit { client, is_stale } => {
                let generation = self.generation(client, is_stale);
                self.commit(client, generation, self.clients[client].member_id.clone());
            }
            Op::CommitSimple { client } => self.commit(client, -1, String::new()),
            Op::DeleteGroup { client } => {
                let group_id = group_of(client);
                let (outcome, results) = self
                    .host
                    .shard
                    .delete_groups(std::slice::from_ref(&group_id));
                let (_, replies) = self.host.take(outcome);
                assert!(replies.is_empty());
                if results[0].error_code == 0 {
                    self.seen.remove(&group_id);
                    assert!(!self.host.durable().offsets.contains_key(&group_id));
                }
            }
            Op::DeleteTopic => {
                self.host.topics.delete("t");
                let outcome = self.host.shard.topics_deleted(&["t"]);
                let (_, replies) = self.host.take(outcome);
                assert!(replies.is_empty() && self.host.durable().offsets.is_empty());
                self.host.topics.create("t", 2);
            }
            Op::Advance { ms } => {
                let (_, replies) = self.host.advance(ms);
                self.replies(replies);
                // An expired group begins anew.
                self.seen
                    .retain(|group_id, _| self.host.state(group_id) != State::Dead);
            }
            Op::Restart => self.restart(),
        }
        let lost = self.host.lost();
        assert!(
            lost.is_empty(),
            "requests {lost:?} are neither answered nor parked"
        );
    }

    fn join(&mut self, client: usize, version: i16, protocols: usize, forgets: bool) {
        let offered: &[&str] = [&["x", "y"][..], &["y", "x"], &["x"], &["z"]][protocols];
        let protocol = |name: &&str| JoinGroupRequestProtocol {
            name: name.to_string(),
            metadata: Bytes::from_static(b"\0\0\0\0\0\x01\0\x01t\xff\xff\xff\xff"),
            ..Default::default()
        };
        let request = JoinGroupRequest {
            group_id: group_of(client),
            session_timeout_ms: 6_000 + 3_000 * client as i32,
            rebalance_timeout_ms: 10_000,
            member_id: match forgets {
                true => String::new(),
                false => self.clients[client].member_id.clone(),
            },
            group_instance_id: instance_of(client, version),
            protocol_type: "consumer".into(),
            protocols: offered.iter().map(protocol).collect(),
            ..Default::default()
        };
        self.ask(client, version, |shard, now, to, _| {
            shard.join_group(now, to, &caller(client, version), request)
        });
    }

    fn sync(&mut self, client: usize, is_stale: bool) {
        self.nonce += 1;
        let nonce = Bytes::copy_from_slice(&self.nonce.to_be_bytes());
        let assigned = |member_id: &String| SyncGroupRequestAssignment {
            member_id: member_id.clone(),
            assignment: nonce.clone(),
            ..Default::default()
        };
        let request = SyncGroupRequest {
            group_id: group_of(client),
            generation_id: self.generation(client, is_stale),
            member_id: self.clients[client].member_id.clone(),
            assignments: self.clients[client].members.iter().map(assigned).collect(),
            ..Default::default()
        };
        self.ask(client, 5, |shard, now, to, _| {
            shard.sync_group(now, to, &caller(client, 5), request)
        });
    }

    fn commit(&mut self, client: usize, generation: i32, member_id: String) {
        let group_id = group_of(client);
        let was_empty = matches!(self.host.state(&group_id), State::Empty | State::Dead);
        let request = OffsetCommitRequest {
            group_id: group_id.clone(),
            generation_id_or_member_epoch: generation,
            member_id,
            topics: vec![OffsetCommitRequestTopic {
                name: "t".into(),
                partitions: vec![OffsetCommitRequestPartition {
                    committed_offset: self.nonce as i64,
                    ..Default::default()
                }],
                ..Default::default()
            }],
            ..Default::default()
        };
        let (token, _, mut replies) = self.host.ask(8, |shard, now, to, topics| {
            shard.offset_commit(now, to, &caller(client, 8), request, topics)
        });
        let Some((answered, ResponseBody::OffsetCommit(response))) = replies.pop() else {
            panic!("a commit is answered at once");
        };
        assert!(answered == token && replies.is_empty());
        if response.topics[0].partitions[0].error_code == 0 {
            // Nobody is told of a generation without members.
            let written = self
                .host
                .durable()
                .groups
                .get(&group_id)
                .map(|g| g.generation);
            let told = self.seen.entry(group_id).or_default().generation;
            let newest = told.max(written.unwrap_or(0));
            let is_allowed = if generation < 0 {
                was_empty
            } else {
                generation == newest
            };
            assert!(
                is_allowed,
                "generation {generation} committed, the newest is {newest}"
            );
        }
    }

    fn generation(&self, client: usize, is_stale: bool) -> i32 {
        self.clients[client].generation - i32::from(is_stale)
    }

    fn ask(
        &mut self,
        client: usize,
        api_version: i16,
        request: impl FnOnce(
            &mut super::super::GroupShard,
            oncelog_wire::clock::Now,
            crate::ReplyTo,
            &super::host::TestTopics,
        ) -> crate::Outcome,
    ) {
        let (token, _, replies) = self.host.ask(api_version, request);
        self.asked.insert(token, client);
        self.replies(replies);
    }

    fn replies(&mut self, replies: Vec<(u64, ResponseBody)>) {
        for (token, body) in replies {
            let at = self.asked.remove(&token).expect("somebody asked");
            let group_id = group_of(at);
            match body {
                ResponseBody::JoinGroup(join) => {
                    if !join.member_id.is_empty() {
                        self.clients[at].member_id = join.member_id;
                    }
                    if join.error_code != 0 {
                        continue;
                    }
                    let seen = self.seen.entry(group_id).or_default();
                    assert!(
                        join.generation_id >= seen.generation,
                        "a generation came back"
                    );
                    seen.generation = join.generation_id;
                    self.clients[at].generation = join.generation_id;
                    let members = join.members.into_iter().map(|member| member.member_id);
                    self.clients[at].members = members.collect();
                }
                ResponseBody::SyncGroup(sync)
                    if sync.error_code == 0 && !sync.assignment.is_empty() =>
                {
                    let seen = self.seen.entry(group_id).or_default();
                    let first = seen.assignments.entry(seen.generation);
                    let first = first.or_insert_with(|| sync.assignment.clone());
                    assert_eq!(*first, sync.assignment, "two leaders in one generation");
                }
                ResponseBody::Heartbeat(beat)
                    if beat.error_code == ErrorCode::UnknownMemberId.code() =>
                {
                    self.clients[at].member_id.clear();
                }
                _ => {}
            }
        }
    }

    /// A generation that was not stable is lost, and its number is given again.
    fn restart(&mut self) {
        self.host.restart();
        self.asked.clear();
        let groups = self.host.durable().groups;
        self.seen.retain(|group_id, seen| {
            let Some(group) = groups.get(group_id) else {
                return false;
            };
            seen.generation = group.generation;
            seen.assignments
                .retain(|generation, _| *generation <= group.generation);
            true
        });
    }

    /// With nobody left to speak, everything that waits is answered and every group empties.
    fn fade_out(&mut self) {
        let (_, replies) = self.host.advance(20 * 60 * 1_000);
        self.replies(replies);
        assert!(
            self.host.open.is_empty(),
            "still waiting: {:?}",
            self.host.open
        );
        for group_id in ["g", "h"] {
            let state = self.host.state(group_id);
            assert!(
                matches!(state, State::Empty | State::Dead),
                "{group_id} is {state:?}"
            );
        }
    }
}

fn caller(client: usize, api_version: i16) -> Caller {
    Caller {
        connection: 0,
        client_id: format!("c{client}"),
        client_host: "/127.0.0.1".into(),
        api_version,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_of_requests_keeps_the_promises(
        ops in prop::collection::vec(op(), 1..120),
        delay_ms in prop::sample::select(vec![0, 3_000]),
        max_size in prop::sample::select(vec![2, 100]),
    ) {
        let mut world = World::new(delay_ms, max_size);
        for op in &ops {
            world.run(op);
        }
        world.fade_out();
    }
}

/// The generator reaches what it is meant to reach; otherwise the test above says nothing.
#[test]
fn random_sequences_reach_every_state() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let mut reached: BTreeMap<&str, usize> = BTreeMap::new();
    for _ in 0..50 {
        let ops = prop::collection::vec(op(), 100)
            .new_tree(&mut runner)
            .unwrap()
            .current();
        let mut world = World::new(0, 100);
        for op in &ops {
            world.run(op);
            *reached.entry(world.host.state("g").name()).or_default() += 1;
        }
        let committed = world
            .host
            .records()
            .filter(|record| record.key[1] == 1)
            .count();
        *reached.entry("offset records").or_default() += committed;
    }
    for state in [
        "Empty",
        "PreparingRebalance",
        "CompletingRebalance",
        "Stable",
        "offset records",
    ] {
        assert!(
            reached.get(state).is_some_and(|times| *times > 50),
            "{state}: {reached:?}"
        );
    }
}
