//! Writes that wait for the coordinator's word that they are part of a transaction.
//!
//! The first transactional batch of a producer in a partition may be appended only if the partition
//! belongs to the producer's ongoing transaction: otherwise nobody would ever end what it begins
//! there (KIP-890). Old clients have told the coordinator beforehand, and it is asked (verify);
//! newer ones leave it to the leader (Produce 12+, TxnOffsetCommit 5+), and it is told (add), which
//! takes a record of its own.
//!
//! While a write waits, what came after it on its connection waits, too, in its order, as everything
//! does in Kafka, where a connection is read again only when its last request is answered.

use crate::apis;
use crate::broker::Broker;
use crate::input::ConnectionId;
use crate::transactions::{self, Asked};
use oncelog_coordinator::Caller;
use oncelog_wire::messages::add_partitions_to_txn_request::{
    AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction,
};
use oncelog_wire::{ErrorCode, ResponseBody};
use std::collections::BTreeMap;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct GateId(u64);

#[derive(Default)]
pub(crate) struct Gates {
    waiting: BTreeMap<GateId, (ConnectionId, Gated)>,
    next: u64,
}

/// What goes on when the coordinator has answered.
pub(crate) enum Gated {
    Produce(Box<apis::produce::Asked>),
    OffsetCommit(Box<apis::txn_offset_commit::Asked>),
}

/// What the coordinator said of each partition.
pub(crate) type Verdicts = BTreeMap<(String, i32), ErrorCode>;

/// The producer and the partitions that the coordinator is asked about.
pub(crate) struct Question {
    pub transactional_id: String,
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub verify_only: bool,
    /// By topic.
    pub partitions: BTreeMap<String, Vec<i32>>,
}

pub(crate) fn ask(
    broker: &mut Broker,
    connection: ConnectionId,
    caller: Caller,
    question: Question,
    then: Gated,
) {
    if !broker.transactions.ready() {
        // Nobody has ever begun a transaction here.
        let verdict = |(topic, indexes): (&String, &Vec<i32>)| {
            let of = |index: &i32| ((topic.clone(), *index), ErrorCode::InvalidProducerIdMapping);
            indexes.iter().map(of).collect::<Vec<_>>()
        };
        let verdicts = question.partitions.iter().flat_map(verdict).collect();
        return go_on(broker, then, verdicts);
    }
    let id = GateId(broker.gates.next);
    broker.gates.next += 1;
    broker.gates.waiting.insert(id, (connection, then));
    broker.connections.pause(connection);
    let topic = |(name, partitions)| AddPartitionsToTxnTopic {
        name,
        partitions,
        ..Default::default()
    };
    let transaction = AddPartitionsToTxnTransaction {
        transactional_id: question.transactional_id,
        producer_id: question.producer_id,
        producer_epoch: question.producer_epoch,
        verify_only: question.verify_only,
        topics: question.partitions.into_iter().map(topic).collect(),
        ..Default::default()
    };
    let name = transaction.transactional_id.clone();
    transactions::ask(broker, &name, Asked::Gate(id), |shard, to, view| {
        shard.add_partitions_for_leader(view.now, to, &caller, &transaction, view.cluster)
    });
}

/// The coordinator has answered.
pub(crate) fn answered(broker: &mut Broker, id: GateId, body: ResponseBody) {
    let ResponseBody::AddPartitionsToTxn(answer) = body else {
        panic!("a coordinator answers what it was asked");
    };
    let waiting = broker.gates.waiting.remove(&id);
    let (connection, then) = waiting.expect("a gate opens once");
    let mut verdicts = Verdicts::new();
    for topic in answer
        .results_by_transaction
        .iter()
        .flat_map(|t| &t.topic_results)
    {
        for partition in &topic.results_by_partition {
            let code = ErrorCode::from_code(partition.partition_error_code);
            verdicts.insert((topic.name.clone(), partition.partition_index), code);
        }
    }
    go_on(broker, then, verdicts);
    broker.resume(connection);
}

fn go_on(broker: &mut Broker, then: Gated, verdicts: Verdicts) {
    match then {
        Gated::Produce(asked) => apis::produce::go_on(broker, *asked, &verdicts),
        Gated::OffsetCommit(asked) => apis::txn_offset_commit::go_on(broker, *asked, &verdicts),
    }
}
