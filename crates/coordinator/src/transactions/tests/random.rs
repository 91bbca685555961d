//! Random sequences of requests from producers that behave, retry, come back as zombies and vanish.
//!
//! After every step the host checks that a replay of the records, of all of them and of the
//! compacted ones, gives the same durable state, that every transition is one of Kafka's, and that
//! whatever waits is going to be decided. Here is checked what producers and consumers rely on:
//!
//! - an identity is given to one instance, and never to another one later;
//! - only the newest identity adds and ends; an older one is told no, but for a retry of its own
//!   EndTxn with the same outcome;
//! - a transaction ends with markers in exactly the partitions that its producer was told are in
//!   it, all COMMIT or all ABORT, and COMMIT only if the producer asked for it;
//! - who was fenced, by time or by a new instance, adds and ends nothing more;
//! - after a restart the same markers are asked for;
//! - in the end nothing waits.

use super::super::transaction::Transaction;
use super::super::{TransactionConfig, records};
use super::host::{Host, Seen};
use crate::Caller;
use oncelog_wire::ResponseBody;
use oncelog_wire::messages::add_partitions_to_txn_request::{
    AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction,
};
use oncelog_wire::messages::{AddPartitionsToTxnRequest, EndTxnRequest, InitProducerIdRequest};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const CLIENTS: usize = 5;
const PARTITIONS: i32 = 4;

#[derive(Clone, Debug)]
enum Op {
    /// `names_itself`: with the identity that it has. Version 6 keeps an open transaction.
    Init {
        client: usize,
        names_itself: bool,
        version: i16,
    },
    Add {
        client: usize,
        partition: i32,
        by_leader: bool,
    },
    End {
        client: usize,
        commit: bool,
        version: i16,
    },
    /// The client sends its last EndTxn again, with the identity that it had then.
    EndAgain {
        client: usize,
    },
    Mark {
        partition: i32,
    },
    MarkAll,
    Advance {
        ms: i64,
    },
    Restart,
}

fn op() -> impl Strategy<Value = Op> {
    let client = 0..CLIENTS;
    let partition = 0..PARTITIONS;
    let end_version = prop::sample::select(vec![1i16, 3, 4, 5, 5, 5]);
    prop_oneof![
        4 => (client.clone(), prop::bool::weighted(0.3), prop::sample::select(vec![0i16, 3, 5, 6]))
            .prop_map(|(client, names_itself, version)| Op::Init { client, names_itself, version }),
        10 => (client.clone(), partition.clone(), any::<bool>())
            .prop_map(|(client, partition, by_leader)| Op::Add { client, partition, by_leader }),
        6 => (client.clone(), any::<bool>(), end_version)
            .prop_map(|(client, commit, version)| Op::End { client, commit, version }),
        2 => client.prop_map(|client| Op::EndAgain { client }),
        4 => partition.prop_map(|partition| Op::Mark { partition }),
        4 => Just(Op::MarkAll),
        2 => (0..70_000i64).prop_map(|ms| Op::Advance { ms }),
        1 => (0..100i64).prop_map(|ms| Op::Advance { ms }),
        1 => Just(Op::Restart),
    ]
}

type Identity = (i64, i16);

#[derive(Clone, Default)]
struct Client {
    identity: Option<Identity>,
    last_end: Option<EndTxnRequest>,
    connection: u64,
}

/// One request in flight.
enum Asked {
    Init {
        client: usize,
    },
    Add {
        client: usize,
        identity: Identity,
        partition: i32,
    },
    End {
        client: usize,
        identity: Identity,
        commit: bool,
        version: i16,
    },
}

/// What is known of one transactional id from outside.
#[derive(Default)]
struct Model {
    /// The newest identity that somebody was told of.
    newest: Option<Identity>,
    /// Its transaction was aborted by somebody else: it must do nothing more.
    is_fenced: bool,
    given: BTreeSet<Identity>,
    /// What a producer was told is in the open transaction.
    open: BTreeSet<i32>,
    /// The decided transaction: partitions, outcome, the markers' identity.
    decided: Option<(BTreeSet<i32>, bool, Identity)>,
    /// Outcomes by the identity that ended.
    outcomes: BTreeMap<Identity, bool>,
}

struct World {
    host: Host,
    clients: Vec<Client>,
    asked: BTreeMap<u64, Asked>,
    models: BTreeMap<String, Model>,
    connections: u64,
}

fn id_of(client: usize) -> String {
    if client < 3 { "x".into() } else { "y".into() }
}

impl World {
    fn new() -> World {
        let mut host = Host::new(TransactionConfig {
            two_phase_commit_enable: true,
            ..TransactionConfig::default()
        });
        host.topics.0.insert("t".to_owned(), PARTITIONS);
        // The epochs of this one's producer are soon used up.
        let mut worn = Transaction::created(500, 60_000, host.now.wall_ms);
        worn.producer_epoch = i16::MAX - 8;
        host.append(records::record("y", &worn));
        World {
            host,
            clients: vec![Client::default(); CLIENTS],
            asked: BTreeMap::new(),
            models: BTreeMap::new(),
            connections: 0,
        }
    }

    fn run(&mut self, op: &Op) {
        match *op {
            Op::Init {
                client,
                names_itself,
                version,
            } => {
                // A new instance speaks on a new connection.
                self.connections += 1;
                self.clients[client].connection = self.connections;
                self.init(client, names_itself, version);
            }
            Op::Add {
                client,
                partition,
                by_leader,
            } => self.add(client, partition, by_leader),
            Op::End {
                client,
                commit,
                version,
            } => {
                let Some((producer_id, producer_epoch)) = self.clients[client].identity else {
                    return;
                };
                let request = EndTxnRequest {
                    transactional_id: id_of(client),
                    producer_id,
                    producer_epoch,
                    committed: commit,
                    ..Default::default()
                };
                self.clients[client].last_end = Some(request.clone());
                self.end(client, request, version);
            }
            Op::EndAgain { client } => {
                if let Some(request) = self.clients[client].last_end.clone() {
                    self.end(client, request, 5);
                }
            }
            Op::Mark { partition } => {
                let seen = self.host.mark(&[("t".to_owned(), partition)]);
                self.seen(seen);
            }
            Op::MarkAll => self.mark_all(),
            Op::Advance { ms } => {
                let seen = self.host.advance(ms);
                self.seen(seen);
            }
            Op::Restart => {
                self.asked.clear();
                let seen = self.host.restart();
                for markers in &seen.markers {
                    let model = &self.models[&markers.transactional_id];
                    let (partitions, commit, identity) = model.decided.as_ref().unwrap();
                    let marked = markers.partitions.iter().map(|(_, partition)| *partition);
                    assert_eq!(&marked.collect::<BTreeSet<_>>(), partitions);
                    assert_eq!(
                        (
                            markers.commit,
                            (markers.producer_id, markers.producer_epoch)
                        ),
                        (*commit, *identity)
                    );
                }
                let decided = self.models.values().filter(|model| model.decided.is_some());
                assert_eq!(decided.count(), seen.markers.len());
            }
        }
        let lost = self.host.lost();
        assert!(lost.is_empty(), "neither answered nor parked: {lost:?}");
    }

    fn mark_all(&mut self) {
        let seen = self.host.mark(&[]);
        self.seen(seen);
    }

    fn init(&mut self, client: usize, names_itself: bool, version: i16) {
        let named = self.clients[client].identity;
        let named = named.filter(|_| names_itself && version >= 3);
        let (producer_id, producer_epoch) = named.unwrap_or((-1, -1));
        let request = InitProducerIdRequest {
            transactional_id: Some(id_of(client)),
            transaction_timeout_ms: 60_000,
            producer_id,
            producer_epoch,
            keep_prepared_txn: version == 6,
            ..Default::default()
        };
        let caller = self.caller(client, version);
        let (token, seen) = self.host.ask(version, |shard, now, to, _, fresh| {
            shard.init_producer_id(now, to, &caller, &request, fresh)
        });
        self.asked.insert(token, Asked::Init { client });
        self.seen(seen);
    }

    fn add(&mut self, client: usize, partition: i32, by_leader: bool) {
        let Some(identity) = self.clients[client].identity else {
            return;
        };
        let topic = AddPartitionsToTxnTopic {
            name: "t".to_owned(),
            partitions: vec![partition],
            ..Default::default()
        };
        let version = if by_leader { 5 } else { 3 };
        let caller = self.caller(client, version);
        let id = id_of(client);
        let (token, seen) = self.host.ask(version, |shard, now, to, topics, _| {
            if by_leader {
                let transaction = AddPartitionsToTxnTransaction {
                    transactional_id: id,
                    producer_id: identity.0,
                    producer_epoch: identity.1,
                    topics: vec![topic],
                    ..Default::default()
                };
                shard.add_partitions_for_leader(now, to, &caller, &transaction, topics)
            } else {
                let request = AddPartitionsToTxnRequest {
                    v3_and_below_transactional_id: id,
                    v3_and_below_producer_id: identity.0,
                    v3_and_below_producer_epoch: identity.1,
                    v3_and_below_topics: vec![topic],
                    ..Default::default()
                };
                shard.add_partitions(now, to, &caller, &request, topics)
            }
        });
        let asked = Asked::Add {
            client,
            identity,
            partition,
        };
        self.asked.insert(token, asked);
        self.seen(seen);
    }

    fn end(&mut self, client: usize, request: EndTxnRequest, version: i16) {
        let caller = self.caller(client, version);
        let (token, seen) = self.host.ask(version, |shard, now, to, _, fresh| {
            shard.end_txn(now, to, &caller, &request, fresh)
        });
        let asked = Asked::End {
            client,
            identity: (request.producer_id, request.producer_epoch),
            commit: request.committed,
            version,
        };
        self.asked.insert(token, asked);
        self.seen(seen);
    }

    fn caller(&self, client: usize, api_version: i16) -> Caller {
        Caller {
            connection: self.clients[client].connection,
            client_id: format!("c{client}"),
            client_host: "/127.0.0.1".into(),
            api_version,
        }
    }

    /// In the order of the decisions: what was added, then what ended, then who is next.
    fn seen(&mut self, seen: Seen) {
        let (mut ends, mut identities) = (Vec::new(), Vec::new());
        for (token, body) in seen.replies {
            let asked = self.asked.remove(&token).expect("somebody asked");
            match (asked, body) {
                (Asked::Init { client }, ResponseBody::InitProducerId(init)) => {
                    if init.error_code == 0 {
                        identities.push((client, (init.producer_id, init.producer_epoch)));
                    }
                }
                (
                    Asked::Add {
                        client,
                        identity,
                        partition,
                    },
                    ResponseBody::AddPartitionsToTxn(added),
                ) => {
                    let topics = added.results_by_topic_v3_and_below.iter();
                    let by_leader = added.results_by_transaction.iter();
                    let mut topics = topics.chain(by_leader.flat_map(|t| &t.topic_results));
                    let result = &topics.next().unwrap().results_by_partition[0];
                    if result.partition_error_code == 0 {
                        self.added(client, identity, partition, &identities);
                    }
                }
                (
                    Asked::End {
                        client,
                        identity,
                        commit,
                        version,
                    },
                    ResponseBody::EndTxn(end),
                ) => {
                    if end.error_code == 0 {
                        ends.push((id_of(client), identity, commit, version));
                        if version >= 5 {
                            identities.push((client, (end.producer_id, end.producer_epoch)));
                        }
                    }
                }
                (_, other) => panic!("not the answer to what was asked: {other:?}"),
            }
        }
        for markers in &seen.markers {
            self.decided(markers, &ends);
        }
        for (id, identity, commit, _) in ends {
            let model = self.models.get_mut(&id).unwrap();
            let is_newest = model.newest == Some(identity) && !model.is_fenced;
            let before = model.outcomes.insert(identity, commit);
            assert!(
                is_newest || before == Some(commit),
                "{identity:?} ended a transaction that is not its own"
            );
        }
        for (client, identity) in identities {
            self.introduced(client, identity);
        }
        // Complete is what has no markers asked for any more.
        for (id, model) in &mut self.models {
            let is_marking = self.host.markers.iter().any(|m| m.transactional_id == *id);
            if !is_marking {
                model.decided = None;
            }
        }
    }

    fn added(
        &mut self,
        client: usize,
        identity: Identity,
        partition: i32,
        in_this_step: &[(usize, Identity)],
    ) {
        let id = id_of(client);
        let model = self.models.get_mut(&id).unwrap();
        let newest = in_this_step
            .iter()
            .rev()
            .find(|(other, _)| id_of(*other) == id)
            .map(|(_, identity)| *identity)
            .or(model.newest);
        assert_eq!(Some(identity), newest, "an old producer added");
        assert!(!model.is_fenced, "a fenced producer added");
        model.open.insert(partition);
    }

    fn decided(&mut self, markers: &crate::Markers, ends: &[(String, Identity, bool, i16)]) {
        let id = &markers.transactional_id;
        let model = self.models.get_mut(id).unwrap();
        let marked: BTreeSet<_> = markers.partitions.iter().map(|(_, at)| *at).collect();
        assert_eq!(marked, std::mem::take(&mut model.open), "all or nothing");
        if markers.commit {
            let asked = ends
                .iter()
                .any(|(other, _, commit, _)| other == id && *commit);
            assert!(asked, "nobody asked for a commit");
        }
        model.is_fenced = !ends.iter().any(|(other, ..)| other == id);
        let identity = (markers.producer_id, markers.producer_epoch);
        model.decided = Some((marked, markers.commit, identity));
    }

    fn introduced(&mut self, client: usize, identity: Identity) {
        let model = self.models.entry(id_of(client)).or_default();
        let is_new = model.given.insert(identity);
        match model.newest {
            // A retry is told the same again.
            Some(newest) if !is_new => assert_eq!(newest, identity, "an old identity came back"),
            Some(newest) => assert!(
                newest.0 != identity.0 && identity.1 == 0 || newest.1 < identity.1,
                "{identity:?} after {newest:?}"
            ),
            None => {}
        }
        model.newest = Some(identity);
        model.is_fenced = false;
        self.clients[client].identity = Some(identity);
    }

    /// With nobody left to speak everything that is open ends, and everything that waits is
    /// answered.
    fn fade_out(&mut self) {
        for _ in 0..4 {
            self.mark_all();
            let seen = self.host.advance(61_000);
            self.seen(seen);
        }
        assert!(
            self.host.open.is_empty(),
            "still waiting: {:?}",
            self.host.open
        );
        for (id, transaction) in self.host.durable() {
            assert!(transaction.state.is_idle(), "{id}: {:?}", transaction.state);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_of_requests_keeps_the_promises(
        ops in prop::collection::vec(op(), 1..120),
    ) {
        let mut world = World::new();
        for op in &ops {
            world.run(op);
        }
        world.fade_out();
    }
}
