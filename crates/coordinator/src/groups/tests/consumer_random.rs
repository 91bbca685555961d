//! Random sequences of heartbeats from clients that behave, vanish, are restarted, lose answers,
//! change their minds and report late, while topics come, grow and go and the broker is restarted.
//!
//! The clients do what a real one does: they take an assignment, give up what is not in it any
//! more, and report what they own when they are done. After every step the host checks that a
//! replay gives the same group and that no partition has two owners on record. Here is checked
//! what users rely on: a client that is in the group owns nothing that the coordinator does not
//! count as its own, so no two of them ever own the same partition; and whatever has happened,
//! the group comes to rest with every partition of every subscribed topic assigned, evenly.

use super::super::GroupConfig;
use super::super::group::Group;
use super::host::Host;
use crate::{Caller, Topics};
use oncelog_wire::messages::consumer_group_heartbeat_request::TopicPartitions;
use oncelog_wire::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use oncelog_wire::messages::{
    ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse, OffsetCommitRequest,
};
use oncelog_wire::{ErrorCode, ResponseBody, Uuid};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const CLIENTS: usize = 5;
/// Clients from here on are static.
const FIRST_STATIC: usize = 3;
const GROUP: &str = "g";
const REBALANCE_TIMEOUT_MS: i32 = 20_000;

#[derive(Clone, Debug)]
enum Op {
    /// `reports`: gives up what it has to and says what it owns. `answer_lost`: it never hears.
    Beat {
        client: usize,
        reports: bool,
        answer_lost: bool,
    },
    Subscribe {
        client: usize,
        to: usize,
    },
    Leave {
        client: usize,
        for_now: bool,
    },
    /// A new process, which knows nothing of the old one.
    RestartClient {
        client: usize,
    },
    Commit {
        client: usize,
        epochs_behind: i32,
    },
    MakeTopic {
        topic: usize,
        partitions: i32,
    },
    DeleteTopic {
        topic: usize,
    },
    GrowTopic {
        topic: usize,
    },
    Advance {
        ms: i64,
    },
    RestartBroker,
}

fn op() -> impl Strategy<Value = Op> {
    let client = 0..CLIENTS;
    let topic = 0..TOPICS.len();
    prop_oneof![
        16 => (client.clone(), prop::bool::weighted(0.7), prop::bool::weighted(0.15)).prop_map(
            |(client, reports, answer_lost)| Op::Beat { client, reports, answer_lost }
        ),
        2 => (client.clone(), 0..SUBSCRIPTIONS.len())
            .prop_map(|(client, to)| Op::Subscribe { client, to }),
        1 => (client.clone(), any::<bool>())
            .prop_map(|(client, for_now)| Op::Leave { client, for_now }),
        1 => client.clone().prop_map(|client| Op::RestartClient { client }),
        2 => (client, 0..3).prop_map(|(client, epochs_behind)| Op::Commit { client, epochs_behind }),
        1 => (topic.clone(), 1..5).prop_map(
            |(topic, partitions)| Op::MakeTopic { topic, partitions }
        ),
        1 => topic.clone().prop_map(|topic| Op::DeleteTopic { topic }),
        1 => topic.prop_map(|topic| Op::GrowTopic { topic }),
        2 => (0..25_000i64).prop_map(|ms| Op::Advance { ms }),
        1 => Just(Op::RestartBroker),
    ]
}

const TOPICS: [&str; 3] = ["ta", "tb", "u"];

/// Names and expression.
const SUBSCRIPTIONS: [(&[&str], &str); 6] = [
    (&["ta"], ""),
    (&["ta", "tb"], ""),
    (&["tb", "u"], ""),
    (&[], "t.*"),
    (&["u"], "t[ab]"),
    (&[], ".*"),
];

type Owned = BTreeMap<Uuid, BTreeSet<i32>>;

#[derive(Clone, Debug, Default)]
struct Client {
    member_id: String,
    /// 0 before it has joined.
    epoch: i32,
    subscription: usize,
    has_told_subscription: bool,
    /// It never heard the answer to its last heartbeat: the next one says everything.
    is_unsure: bool,
    /// What it was last told to have.
    assigned: Owned,
    /// What it works on.
    owned: Owned,
}

struct World {
    host: Host,
    clients: Vec<Client>,
    processes: usize,
}

impl World {
    fn new(assignor: &str) -> World {
        let config = GroupConfig {
            consumer_assignors: vec![assignor.to_owned()],
            ..GroupConfig::default()
        };
        let mut world = World {
            host: Host::new(config),
            clients: vec![Client::default(); CLIENTS],
            processes: 0,
        };
        world.host.topics.create("ta", 4);
        world.host.topics.create("tb", 3);
        (0..CLIENTS).for_each(|client| world.restart_client(client));
        world
    }

    fn restart_client(&mut self, client: usize) {
        self.processes += 1;
        let member_id = format!("c{client}-{}", self.processes);
        let subscription = self.clients[client].subscription;
        self.clients[client] = Client {
            member_id,
            subscription,
            ..Client::default()
        };
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Beat {
                client,
                reports,
                answer_lost,
            } => self.beat(client, reports, answer_lost),
            Op::Subscribe { client, to } => {
                self.clients[client].subscription = to;
                self.clients[client].has_told_subscription = false;
            }
            Op::Leave { client, for_now } => self.leave(client, for_now),
            Op::RestartClient { client } => self.restart_client(client),
            Op::Commit {
                client,
                epochs_behind,
            } => self.commit(client, epochs_behind),
            Op::MakeTopic { topic, partitions } => {
                if self.host.topics.topic(TOPICS[topic]).is_none() {
                    self.host.topics.create(TOPICS[topic], partitions);
                }
            }
            Op::DeleteTopic { topic } => self.host.topics.delete(TOPICS[topic]),
            Op::GrowTopic { topic } => {
                if let Some(view) = self.host.topics.topic(TOPICS[topic]) {
                    self.host.topics.grow(TOPICS[topic], view.partitions + 1);
                }
            }
            Op::Advance { ms } => {
                self.host.advance(ms);
            }
            Op::RestartBroker => self.host.restart(),
        }
        self.check_owned();
    }

    fn beat(&mut self, index: usize, reports: bool, answer_lost: bool) {
        let joins = self.clients[index].epoch == 0;
        let client = &mut self.clients[index];
        if reports && !joins {
            // What is not assigned any more is given up, what is new is taken.
            client.owned = client.assigned.clone();
        }
        let says_all = joins || client.is_unsure;
        let tells = says_all || !client.has_told_subscription;
        let (names, regex) = SUBSCRIPTIONS[client.subscription];
        let names: Vec<String> = names.iter().map(|name| name.to_string()).collect();
        let request = ConsumerGroupHeartbeatRequest {
            group_id: GROUP.into(),
            member_id: client.member_id.clone(),
            member_epoch: client.epoch,
            instance_id: instance_of(index),
            rebalance_timeout_ms: if says_all { REBALANCE_TIMEOUT_MS } else { -1 },
            subscribed_topic_names: tells.then_some(names),
            subscribed_topic_regex: tells.then(|| regex.to_owned()),
            topic_partitions: (reports || says_all).then(|| to_topics(&client.owned)),
            ..Default::default()
        };
        let answer = self.send(request);
        self.clients[index].is_unsure = answer_lost;
        if !answer_lost {
            self.hear(index, answer);
        }
    }

    fn send(&mut self, request: ConsumerGroupHeartbeatRequest) -> ConsumerGroupHeartbeatResponse {
        let caller = Caller {
            connection: 0,
            client_id: "client".into(),
            client_host: "/127.0.0.1".into(),
            api_version: 1,
        };
        let (_, _, replies) = self.host.ask(1, |shard, now, to, topics| {
            shard.consumer_group_heartbeat(now, to, &caller, request, topics)
        });
        match replies.into_iter().next() {
            Some((_, ResponseBody::ConsumerGroupHeartbeat(answer))) => answer,
            other => panic!("a heartbeat is answered at once: {other:?}"),
        }
    }

    fn hear(&mut self, index: usize, answer: ConsumerGroupHeartbeatResponse) {
        let client = &mut self.clients[index];
        match ErrorCode::from_code(answer.error_code) {
            ErrorCode::None => {
                client.epoch = answer.member_epoch;
                client.has_told_subscription = true;
                if let Some(assignment) = answer.assignment {
                    let topics = assignment.topic_partitions.into_iter();
                    client.assigned = topics
                        .map(|topic| (topic.topic_id, topic.partitions.into_iter().collect()))
                        .collect();
                }
            }
            ErrorCode::FencedMemberEpoch
            | ErrorCode::UnknownMemberId
            | ErrorCode::GroupIdNotFound => {
                // It gives up everything and joins again.
                client.epoch = 0;
                client.assigned.clear();
                client.owned.clear();
            }
            // Its earlier process is still there.
            ErrorCode::UnreleasedInstanceId => assert!(index >= FIRST_STATIC),
            ErrorCode::FencedInstanceId => panic!("one process at a time per instance"),
            other => panic!("{other} is no answer to a client that behaves: {answer:?}"),
        }
    }

    fn leave(&mut self, index: usize, for_now: bool) {
        let instance_id = instance_of(index);
        let for_now = for_now && instance_id.is_some();
        let request = ConsumerGroupHeartbeatRequest {
            group_id: GROUP.into(),
            member_id: self.clients[index].member_id.clone(),
            member_epoch: if for_now { -2 } else { -1 },
            instance_id,
            rebalance_timeout_ms: -1,
            ..Default::default()
        };
        let is_in_group = self.is_member(index);
        let answer = self.send(request);
        assert_eq!(answer.error_code == 0, is_in_group, "{answer:?}");
        self.restart_client(index);
    }

    /// A commit of everything that the client owns, perhaps under an epoch of the past.
    fn commit(&mut self, index: usize, epochs_behind: i32) {
        let client = &self.clients[index];
        let epoch = client.epoch - epochs_behind;
        let Some((topic, partitions)) = client.owned.first_key_value() else {
            return;
        };
        let (topic, partition) = (*topic, *partitions.first().expect("not empty"));
        if self.host.topics.topic_by_id(topic).is_none() {
            return;
        }
        let may = self.may_commit(index, epoch, topic, partition);
        let request = OffsetCommitRequest {
            group_id: GROUP.into(),
            member_id: client.member_id.clone(),
            generation_id_or_member_epoch: epoch,
            retention_time_ms: -1,
            topics: vec![OffsetCommitRequestTopic {
                topic_id: topic,
                partitions: vec![OffsetCommitRequestPartition {
                    partition_index: partition,
                    committed_offset: 1,
                    ..Default::default()
                }],
                ..Default::default()
            }],
            ..Default::default()
        };
        let caller = Caller {
            api_version: 10,
            ..Default::default()
        };
        let (_, records, _) = self.host.ask(10, |shard, now, to, topics| {
            shard.offset_commit(now, to, &caller, request, topics)
        });
        assert_eq!(
            records.len(),
            usize::from(may),
            "client {index} at epoch {epoch}"
        );
    }

    /// By the records alone: the partition has been the client's since the epoch that it names.
    fn may_commit(&self, index: usize, epoch: i32, topic: Uuid, partition: i32) -> bool {
        let Some(Group::Consumer(group)) = self.host.shard.groups.get(GROUP) else {
            return false;
        };
        let Some(member) = group.members.get(&self.clients[index].member_id) else {
            return group.is_empty() && epoch < 0;
        };
        let current = &member.current;
        let mut held = [&current.assigned, &current.revoking].into_iter();
        let since = held.find_map(|held| held.get(&topic)?.get(&partition));
        epoch == current.epoch
            || (epoch < current.epoch && since.is_some_and(|since| *since <= epoch))
    }

    fn is_member(&self, index: usize) -> bool {
        match self.host.shard.groups.get(GROUP) {
            Some(Group::Consumer(group)) => {
                group.members.contains_key(&self.clients[index].member_id)
            }
            _ => false,
        }
    }

    /// What a client works on is its own on record, if it still is a member. (A client that was
    /// put out does not know it yet; its commits are refused.)
    fn check_owned(&self) {
        let Some(Group::Consumer(group)) = self.host.shard.groups.get(GROUP) else {
            return;
        };
        for (index, client) in self.clients.iter().enumerate() {
            let Some(member) = group.members.get(&client.member_id) else {
                continue;
            };
            let claims: BTreeSet<(Uuid, i32)> = member.current.claims().collect();
            for (topic, partition) in each(&client.owned) {
                assert!(
                    claims.contains(&(topic, partition)),
                    "client {index} works on {topic}-{partition}, which is not its own: {claims:?}"
                );
            }
        }
    }

    /// Everybody behaves from now on, until nothing changes any more.
    fn come_to_rest(&mut self) {
        // Static members whose place is still taken by a process that is gone wait for its end.
        let session_ms = i64::from(self.host.config.consumer_session_timeout_ms);
        for _ in 0..40 {
            let records_before = self.host.log.len();
            for client in 0..CLIENTS {
                self.beat(client, true, false);
                self.check_owned();
            }
            let has_what_it_is_to = |client: &Client| client.owned == client.assigned;
            if self.host.log.len() == records_before
                && self.are_members_the_clients()
                && self.clients.iter().all(has_what_it_is_to)
            {
                return;
            }
            self.host.advance(session_ms / 9);
        }
        panic!("the group does not come to rest");
    }

    /// No more and no less: processes that are gone have been put out.
    fn are_members_the_clients(&self) -> bool {
        let Some(Group::Consumer(group)) = self.host.shard.groups.get(GROUP) else {
            return false;
        };
        group.members.len() == CLIENTS && (0..CLIENTS).all(|client| self.is_member(client))
    }

    fn check_rest(&self, assignor: &str) {
        assert_eq!(self.host.state_name(GROUP), "Stable");
        let topics = &self.host.topics;
        let mut expected = BTreeSet::new();
        for name in topics.names() {
            let view = topics.topic(name).expect("just named");
            let is_wanted = |client: &Client| wants(client, name);
            if self.clients.iter().any(is_wanted) {
                expected.extend((0..view.partitions).map(|partition| (view.id, partition)));
            }
        }
        let mut found = BTreeSet::new();
        for client in &self.clients {
            assert_eq!(client.owned, client.assigned);
            for (topic, partition) in each(&client.owned) {
                let name = topics.topic_by_id(topic).expect("no deleted topic is left");
                assert!(
                    wants(client, name),
                    "{client:?} does not subscribe to {name}"
                );
                assert!(
                    found.insert((topic, partition)),
                    "{topic}-{partition} is owned twice"
                );
            }
        }
        assert_eq!(found, expected, "everything is assigned");
        let sizes = self
            .clients
            .iter()
            .map(|client| each(&client.owned).count());
        let (fewest, most) = (sizes.clone().min().unwrap(), sizes.max().unwrap());
        let alike = self
            .clients
            .iter()
            .all(|c| c.subscription == self.clients[0].subscription);
        if alike && assignor == "uniform" {
            assert!(most <= fewest + 1, "uneven: {fewest} to {most}");
        }
    }
}

fn wants(client: &Client, topic: &str) -> bool {
    let (names, regex) = SUBSCRIPTIONS[client.subscription];
    let matches = match regex {
        "" => false,
        ".*" => true,
        _ => topic.starts_with('t'),
    };
    matches || names.contains(&topic)
}

fn instance_of(client: usize) -> Option<String> {
    (client >= FIRST_STATIC).then(|| format!("i{client}"))
}

fn each(owned: &Owned) -> impl Iterator<Item = (Uuid, i32)> {
    owned
        .iter()
        .flat_map(|(topic, partitions)| partitions.iter().map(|partition| (*topic, *partition)))
}

fn to_topics(owned: &Owned) -> Vec<TopicPartitions> {
    let topic = |(topic_id, partitions): (&Uuid, &BTreeSet<i32>)| TopicPartitions {
        topic_id: *topic_id,
        partitions: partitions.iter().copied().collect(),
        ..Default::default()
    };
    owned.iter().map(topic).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn no_partition_has_two_owners_and_every_group_comes_to_rest(
        ops in prop::collection::vec(op(), 1..80),
        is_range in prop::bool::weighted(0.25),
    ) {
        let assignor = if is_range { "range" } else { "uniform" };
        let mut world = World::new(assignor);
        for op in &ops {
            world.apply(op);
        }
        world.come_to_rest();
        world.check_rest(assignor);
    }
}
