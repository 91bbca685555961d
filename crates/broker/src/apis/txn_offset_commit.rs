//! TxnOffsetCommit (key 28, versions 0-5): offsets that count when a transaction is committed.
//!
//! Behaviour: the group's shard checks the member and its generation (v3+) and makes the records;
//! they are appended to its partition of `__consumer_offsets` as a part of the producer's
//! transaction, for which the coordinator of transactions is asked first (see
//! [`crate::transactions::gate`]). Up to version 4 the client has told it with AddOffsetsToTxn; from
//! version 5 on the partition is added here.
//!
//! Deviation from Kafka: offsets of the old protocol that come on an older connection than their
//! producer's newest are NOT_COORDINATOR, see [`crate::transactions::newest`]; they could be of an
//! earlier transaction, and be committed with a later one.

use crate::apis::groups::caller;
use crate::broker::Broker;
use crate::connections::RequestId;
use crate::effect::Level;
use crate::groups::{self, OFFSETS_TOPIC};
use crate::input::ConnectionId;
use crate::prepare::Prepared;
use crate::transactions::TRANSACTION_STATE_TOPIC;
use crate::transactions::gate::{self, Gated, Question, Verdicts};
use crate::transactions::newest::Wrote;
use oncelog_coordinator::Caller;
use oncelog_coordinator::groups::offsets::txn_commit;
use oncelog_partition::VerificationGuard;
use oncelog_wire::messages::TxnOffsetCommitRequest;
use oncelog_wire::records::{BatchBuilder, BatchHeader, NO_SEQUENCE};
use oncelog_wire::{ErrorCode, RequestBody, ResponseBody};
use std::collections::BTreeMap;

/// From this version on the group's partition is added to the transaction here.
const ADDS_PARTITIONS: i16 = 5;

pub(crate) struct Asked {
    request: RequestId,
    caller: Caller,
    commit: TxnOffsetCommitRequest,
    shard: i32,
    guard: Option<VerificationGuard>,
}

pub(crate) fn handle(
    broker: &mut Broker,
    connection: ConnectionId,
    request: RequestId,
    prepared: Prepared,
) {
    if !prepared.topics_ensured && (!broker.groups.ready() || !broker.transactions.ready()) {
        let names = vec![OFFSETS_TOPIC.to_owned(), TRANSACTION_STATE_TOPIC.to_owned()];
        return super::ensure_topics(broker, connection, request, prepared, names);
    }
    let client_id = prepared.client_id.as_deref();
    let caller = caller(broker, connection, client_id, prepared.version);
    let RequestBody::TxnOffsetCommit(commit) = prepared.body else {
        unreachable!("dispatched by type");
    };
    if !broker.groups.ready() {
        let answer = refused(&commit, ErrorCode::CoordinatorNotAvailable);
        return broker.answer(request, answer);
    }
    if is_late(broker, connection, prepared.version, &commit) {
        let answer = refused(&commit, ErrorCode::NotCoordinator);
        return broker.answer(request, answer);
    }
    let shard = broker.groups.shard_of(&commit.group_id);
    let mut asked = Asked {
        request,
        caller,
        commit,
        shard,
        guard: None,
    };
    match question(broker, &mut asked) {
        Some(question) => {
            let caller = asked.caller.clone();
            let then = Gated::OffsetCommit(Box::new(asked));
            gate::ask(broker, connection, caller, question, then);
        }
        None => commit_offsets(broker, asked),
    }
}

/// Of the old protocol, on an older connection than its producer has committed offsets on since.
fn is_late(
    broker: &mut Broker,
    connection: ConnectionId,
    version: i16,
    commit: &TxnOffsetCommitRequest,
) -> bool {
    let producer = (commit.producer_id, commit.producer_epoch);
    let newest = &mut broker.newest_connections;
    if version >= ADDS_PARTITIONS || newest.note(Wrote::Offsets, producer, connection) {
        return false;
    }
    let why = format!(
        "offsets of group {} from transactional id {} that were held up on an old connection are \
         refused: its producer, {}, has used a newer one since",
        commit.group_id, commit.transactional_id, commit.producer_id
    );
    broker.log(Level::Warn, why);
    true
}

fn question(broker: &mut Broker, asked: &mut Asked) -> Option<Question> {
    let commit = &asked.commit;
    let key = broker.groups.key(asked.shard);
    let hosted = broker.topics.get_mut(key)?;
    let header = header(commit);
    if !hosted.partition.needs_verification(&header) {
        return None;
    }
    let adds = asked.caller.api_version >= ADDS_PARTITIONS;
    asked.guard = Some(hosted.partition.begin_verification(&header, adds));
    Some(Question {
        transactional_id: commit.transactional_id.clone(),
        producer_id: commit.producer_id,
        producer_epoch: commit.producer_epoch,
        verify_only: !adds,
        partitions: BTreeMap::from([(OFFSETS_TOPIC.to_owned(), vec![asked.shard])]),
    })
}

/// Of the batch that the offsets will be in, as far as the transaction goes.
fn header(commit: &TxnOffsetCommitRequest) -> BatchHeader {
    let mut batch = BatchBuilder::new()
        .producer(commit.producer_id, commit.producer_epoch, NO_SEQUENCE)
        .transactional(true);
    batch.append(0, None, None, &[]);
    BatchHeader::parse(&batch.build()).expect("a batch that was just built")
}

/// The coordinator of transactions has answered.
pub(crate) fn go_on(broker: &mut Broker, asked: Asked, verdicts: &Verdicts) {
    let verdict = verdicts.get(&(OFFSETS_TOPIC.to_owned(), asked.shard));
    match verdict.copied().unwrap_or(ErrorCode::None) {
        ErrorCode::None => commit_offsets(broker, asked),
        error => {
            let error = unverified(error, asked.caller.api_version);
            let answer = refused(&asked.commit, error);
            broker.answer(asked.request, answer);
        }
    }
}

fn commit_offsets(broker: &mut Broker, asked: Asked) {
    let Asked {
        request,
        caller,
        commit,
        shard,
        guard,
    } = asked;
    if shard >= broker.groups.shard_count() {
        let answer = refused(&commit, ErrorCode::NotCoordinator);
        return broker.answer(request, answer);
    }
    let again = commit.clone();
    groups::ask_in_transaction(
        broker,
        request,
        shard,
        guard,
        |state, to, view| state.txn_offset_commit(view.now, to, &caller, &commit, view.cluster),
        |rejection| refused(&again, rejection.code),
    );
}

/// What a producer is told if the coordinator of transactions did not agree.
fn unverified(error: ErrorCode, version: i16) -> ErrorCode {
    match error {
        ErrorCode::TransactionAbortable if version < 4 => ErrorCode::InvalidTxnState,
        ErrorCode::ProducerFenced => ErrorCode::InvalidProducerEpoch,
        // What passes by itself; a producer tries again after this.
        ErrorCode::NotCoordinator | ErrorCode::CoordinatorNotAvailable => {
            ErrorCode::CoordinatorLoadInProgress
        }
        error => error,
    }
}

fn refused(commit: &TxnOffsetCommitRequest, error: ErrorCode) -> ResponseBody {
    txn_commit::refused(commit, error).into()
}
