//! The coordinator's APIs: InitProducerId with a transactional id, AddPartitionsToTxn,
//! AddOffsetsToTxn, EndTxn, ListTransactions, DescribeTransactions.
//!
//! Nothing is decided here: each request goes to the shard of its transactional id
//! (`oncelog_coordinator::transactions` has one method per API). The first one makes
//! `__transaction_state`, and where one may need a producer id, there is one before the shard is
//! asked.
//!
//! Deviation from Kafka: ListTransactions and DescribeTransactions show a transition as soon as it is
//! decided, Kafka when it is committed.

use crate::apis::groups::caller;
use crate::broker::Broker;
use crate::connections::RequestId;
use crate::groups::OFFSETS_TOPIC;
use crate::input::ConnectionId;
use crate::prepare::Prepared;
use crate::quorum::{self, Again, Job};
use crate::transactions::{self, Asked, TRANSACTION_STATE_TOPIC, View};
use oncelog_coordinator::transactions::{TransactionShard, check_list_request};
use oncelog_coordinator::{Caller, Outcome, ReplyTo};
use oncelog_wire::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use oncelog_wire::messages::add_partitions_to_txn_response::{
    AddPartitionsToTxnPartitionResult, AddPartitionsToTxnTopicResult,
};
use oncelog_wire::messages::describe_transactions_response::TransactionState;
use oncelog_wire::messages::{
    AddOffsetsToTxnResponse, AddPartitionsToTxnResponse, DescribeTransactionsRequest,
    DescribeTransactionsResponse, EndTxnResponse, InitProducerIdResponse, ListTransactionsRequest,
    ListTransactionsResponse,
};
use oncelog_wire::{ErrorCode, RequestBody as B, ResponseBody};

pub(crate) fn handle(
    broker: &mut Broker,
    connection: ConnectionId,
    request: RequestId,
    prepared: Prepared,
) {
    let needs_groups = matches!(prepared.body, B::AddOffsetsToTxn(_));
    let ready = broker.transactions.ready() && (broker.groups.ready() || !needs_groups);
    if !ready && !prepared.topics_ensured {
        let mut names = vec![TRANSACTION_STATE_TOPIC.to_owned()];
        names.extend(needs_groups.then(|| OFFSETS_TOPIC.to_owned()));
        return super::ensure_topics(broker, connection, request, prepared, names);
    }
    if !ready {
        // The log says why the topics could not be made.
        let answer = refused(&prepared.body, ErrorCode::CoordinatorNotAvailable);
        return broker.answer(request, answer);
    }
    let may_need_id = matches!(prepared.body, B::InitProducerId(_) | B::EndTxn(_));
    if may_need_id && broker.quorum.producer_ids.is_empty() {
        let then = Again {
            connection,
            request,
            prepared: Box::new(prepared),
        };
        return quorum::submit(broker, Job::ProducerIds { then });
    }
    let client_id = prepared.client_id.as_deref();
    let caller = caller(broker, connection, client_id, prepared.version);
    ask(broker, request, caller, prepared.body);
}

fn ask(broker: &mut Broker, request: RequestId, caller: Caller, body: B) {
    match body {
        B::InitProducerId(ask) => {
            let id = ask.transactional_id.clone().unwrap_or_default();
            one(broker, request, &id, |shard, to, view| {
                let ids = &mut *view.producer_ids;
                shard.init_producer_id(view.now, to, &caller, &ask, &mut || fresh(ids))
            });
        }
        B::AddPartitionsToTxn(ask) => {
            let id = ask.v3_and_below_transactional_id.clone();
            one(broker, request, &id, |shard, to, view| {
                shard.add_partitions(view.now, to, &caller, &ask, view.cluster)
            });
        }
        B::AddOffsetsToTxn(ask) => {
            let partition = broker.groups.shard_of(&ask.group_id);
            one(broker, request, &ask.transactional_id, |shard, to, view| {
                shard.add_offsets(view.now, to, &caller, &ask, partition)
            });
        }
        B::EndTxn(ask) => one(broker, request, &ask.transactional_id, |shard, to, view| {
            let ids = &mut *view.producer_ids;
            shard.end_txn(view.now, to, &caller, &ask, &mut || fresh(ids))
        }),
        other => panic!("{:?} is served but has no handler", other.api_key()),
    }
}

fn one(
    broker: &mut Broker,
    request: RequestId,
    transactional_id: &str,
    decide: impl FnOnce(&mut TransactionShard, ReplyTo, &mut View<'_>) -> Outcome,
) {
    transactions::ask(broker, transactional_id, Asked::Request(request), decide);
}

fn fresh(ids: &mut std::ops::Range<i64>) -> i64 {
    ids.next()
        .expect("there was one before the shard was asked")
}

pub(crate) fn list(broker: &mut Broker, request: RequestId, ask: &ListTransactionsRequest) {
    let now = broker.now;
    let (error, unknown_state_filters) = check_list_request(ask);
    let shards = broker.transactions.shards();
    let response = ListTransactionsResponse {
        error_code: error.code(),
        unknown_state_filters,
        transaction_states: shards.flat_map(|shard| shard.list(now, ask)).collect(),
        ..Default::default()
    };
    broker.answer(request, ResponseBody::ListTransactions(response));
}

pub(crate) fn describe(broker: &mut Broker, request: RequestId, ask: &DescribeTransactionsRequest) {
    let describe = |id: &String| match broker.transactions.ready() {
        true => broker.transactions.shard_of(id).describe(id),
        false => TransactionState {
            error_code: ErrorCode::TransactionalIdNotFound.code(),
            transactional_id: id.clone(),
            ..Default::default()
        },
    };
    let response = DescribeTransactionsResponse {
        transaction_states: ask.transactional_ids.iter().map(describe).collect(),
        ..Default::default()
    };
    broker.answer(request, ResponseBody::DescribeTransactions(response));
}

fn refused(body: &B, error: ErrorCode) -> ResponseBody {
    let error_code = error.code();
    match body {
        B::InitProducerId(_) => ResponseBody::InitProducerId(InitProducerIdResponse {
            error_code,
            producer_id: -1,
            producer_epoch: -1,
            ..Default::default()
        }),
        B::AddOffsetsToTxn(_) => ResponseBody::AddOffsetsToTxn(AddOffsetsToTxnResponse {
            error_code,
            ..Default::default()
        }),
        B::EndTxn(_) => ResponseBody::EndTxn(EndTxnResponse {
            error_code,
            ..Default::default()
        }),
        B::AddPartitionsToTxn(ask) => {
            let topic = |topic: &AddPartitionsToTxnTopic| AddPartitionsToTxnTopicResult {
                name: topic.name.clone(),
                results_by_partition: topic
                    .partitions
                    .iter()
                    .map(|index| AddPartitionsToTxnPartitionResult {
                        partition_index: *index,
                        partition_error_code: error_code,
                        ..Default::default()
                    })
                    .collect(),
                ..Default::default()
            };
            let topics = ask.v3_and_below_topics.iter().map(topic);
            ResponseBody::AddPartitionsToTxn(AddPartitionsToTxnResponse {
                results_by_topic_v3_and_below: topics.collect(),
                ..Default::default()
            })
        }
        other => panic!("{:?} is served but has no handler", other.api_key()),
    }
}
