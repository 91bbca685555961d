//! Produce (key 0, versions 3-13; 0-2 are advertised for librdkafka's sake and refused).
//!
//! Behaviour: one batch per partition, checked outside the core ([`crate::prepare`]), then against
//! the partition's state; appended as sent. acks=1 and acks=all are both answered when the append
//! came back (and, where the log is flushed per message, was synced) and the high watermark has
//! passed it; a duplicate of one of the producer's last five batches is answered with its original
//! offset, under the same condition. acks=0 is not answered; an error closes the connection.
//!
//! Clients may not write to the broker's own topics (INVALID_TOPIC_EXCEPTION).
//!
//! Transactions: a batch may begin its producer's transaction in a partition only with the
//! coordinator's word, see [`crate::transactions::gate`]. What is said if it does not give it depends
//! on the version: INVALID_TXN_STATE up to 10, TRANSACTION_ABORTABLE from 11 on.
//!
//! Deviations from Kafka: acks=1 waits for the same completion as acks=all, which is the same
//! thing on a single replica. acks=all can time out (REQUEST_TIMED_OUT) while the disk is slow,
//! where Kafka with one replica never does; the batch may be there all the same, as after any
//! timeout. Kafka lets a client that calls itself `__admin_client` write to internal topics; here
//! nobody does. Of a partition that is named twice in one request, both batches are appended
//! (Kafka: the last). A transactional batch of the old protocol (up to version 11) that comes on an
//! older connection than its producer's newest is NOT_LEADER_OR_FOLLOWER, see
//! [`crate::transactions::newest`].
//!
//! Non-obvious: partitions that failed are answered together with those that succeeded, when the
//! slowest of them is done.

use crate::apis::groups::caller;
use crate::broker::Broker;
use crate::connections::RequestId;
use crate::effect::Level;
use crate::input::ConnectionId;
use crate::prepare::{Prepared, PreparedBatch};
use crate::timers::Timer;
use crate::topics::PartitionKey;
use crate::transactions::gate::{self, Gated, Question, Verdicts};
use crate::transactions::newest::Wrote;
use crate::waiters::ParkedProduce;
use oncelog_coordinator::cluster::is_internal;
use oncelog_partition::{RecordError, Rejection, VerificationGuard};
use oncelog_wire::ErrorCode;
use oncelog_wire::messages::produce_request::TopicProduceData;
use oncelog_wire::messages::produce_response::{
    BatchIndexAndErrorMessage, PartitionProduceResponse, TopicProduceResponse,
};
use oncelog_wire::messages::{ProduceRequest, ProduceResponse};
use oncelog_wire::records::BatchHeader;
use oncelog_wire::{RequestBody, ResponseBody};
use std::collections::BTreeMap;

/// From this version on the leader adds partitions to transactions.
const ADDS_PARTITIONS: i16 = 12;

/// A request that is being dealt with.
pub(crate) struct Asked {
    connection: ConnectionId,
    /// `None`: acks=0, nobody is answered.
    request: Option<RequestId>,
    client_id: Option<String>,
    version: i16,
    produce: ProduceRequest,
    batches: Vec<PreparedBatch>,
    /// Of batches that wait for the coordinator, by topic and partition.
    guards: BTreeMap<(String, i32), VerificationGuard>,
}

pub(crate) fn handle(
    broker: &mut Broker,
    connection: ConnectionId,
    request: Option<RequestId>,
    prepared: Prepared,
) {
    let RequestBody::Produce(produce) = prepared.body else {
        unreachable!("dispatched by type");
    };
    let mut asked = Asked {
        connection,
        request,
        client_id: prepared.client_id,
        version: prepared.version,
        produce,
        batches: prepared.batches,
        guards: BTreeMap::new(),
    };
    let refusal = refuse_all(broker, &asked);
    // Nothing is asked about what is refused: a question leaves its trace in the partition.
    let question = match refusal {
        None => question(broker, &mut asked),
        Some(_) => None,
    };
    match question {
        Some(question) => ask(broker, question, asked),
        None => append_and_answer(broker, asked, refusal, &Verdicts::new()),
    }
}

fn ask(broker: &mut Broker, question: Question, asked: Asked) {
    let connection = asked.connection;
    let caller = caller(
        broker,
        connection,
        asked.client_id.as_deref(),
        asked.version,
    );
    let then = Gated::Produce(Box::new(asked));
    gate::ask(broker, connection, caller, question, then);
}

/// The coordinator has answered.
pub(crate) fn go_on(broker: &mut Broker, asked: Asked, verdicts: &Verdicts) {
    append_and_answer(broker, asked, None, verdicts);
}

fn append_and_answer(
    broker: &mut Broker,
    asked: Asked,
    refusal: Option<Rejection>,
    verdicts: &Verdicts,
) {
    let (request, connection) = (asked.request, asked.connection);
    let (acks, timeout_ms) = (asked.produce.acks, asked.produce.timeout_ms);
    let parked = append_all(broker, asked, refusal, verdicts);
    match request {
        Some(request) => answer(broker, request, parked, (acks == -1).then_some(timeout_ms)),
        None => close_if_failed(broker, connection, &parked.response),
    }
}

/// acks=0: an error closes the connection, all that a client can notice.
fn close_if_failed(broker: &mut Broker, connection: ConnectionId, response: &ProduceResponse) {
    let mut partitions = response
        .responses
        .iter()
        .flat_map(|t| &t.partition_responses);
    if let Some(failed) = partitions.find(|partition| partition.error_code != 0) {
        let why = failed.error_message.clone().unwrap_or_default();
        let code = ErrorCode::from_code(failed.error_code);
        broker.log(
            Level::Warn,
            format!("produce with acks=0 failed: {code:?} {why}; closing the connection"),
        );
        broker.close(connection, "a produce with acks=0 failed");
    }
}

/// Answers, or waits for what was appended: for no longer than `timeout_ms`, if there is one.
fn answer(broker: &mut Broker, request: RequestId, parked: ParkedProduce, timeout_ms: Option<i32>) {
    if parked.waiting.is_empty() {
        return broker.answer(request, ResponseBody::Produce(parked.response));
    }
    for &(key, high_watermark) in parked.waiting.keys() {
        if let Some(hosted) = broker.topics.get_mut(key) {
            hosted.produce_waiters.insert((high_watermark, request));
        }
    }
    if let Some(timeout_ms) = timeout_ms {
        let deadline = broker.now.instant.plus_ms(i64::from(timeout_ms));
        broker.timers.set(Timer::Produce(request), deadline);
    }
    broker.waiters.produce.insert(request, parked);
}

/// Appends every partition's batch; the answers of those that succeeded wait in `waiting`.
fn append_all(
    broker: &mut Broker,
    asked: Asked,
    refusal: Option<Rejection>,
    verdicts: &Verdicts,
) -> ParkedProduce {
    let mut parked = ParkedProduce {
        response: ProduceResponse::default(),
        waiting: BTreeMap::new(),
    };
    let Asked {
        version, guards, ..
    } = asked;
    let mut batches = asked.batches.into_iter();
    for (at, topic) in asked.produce.topic_data.iter().enumerate() {
        let mut entry = TopicProduceResponse {
            name: topic.name.clone(),
            topic_id: topic.topic_id,
            ..Default::default()
        };
        let topic_id = topic_id(broker, topic, version);
        for (place, partition) in topic.partition_data.iter().enumerate() {
            let batch = batches
                .next()
                .expect("prepare makes one batch per partition");
            let result = match (&refusal, topic_id) {
                (Some(refusal), _) => Err(refusal.clone()),
                (None, Err(error)) => Err(rejection(error, String::new())),
                (None, Ok(topic_id)) => {
                    let index = partition.index;
                    let key = PartitionKey { topic_id, index };
                    match permission(broker, key, version, &guards, verdicts) {
                        Ok(guard) => append(broker, key, batch, guard),
                        Err(refusal) => Err(refusal),
                    }
                }
            };
            let (answer, wait) = answer_of(partition.index, result);
            entry.partition_responses.push(answer);
            if let Some(wait) = wait {
                parked.waiting.entry(wait).or_default().push((at, place));
            }
        }
        parked.response.responses.push(entry);
    }
    parked
}

fn rejection(code: ErrorCode, message: String) -> Rejection {
    Rejection {
        code,
        message,
        record_errors: Vec::new(),
    }
}

/// Why nothing of a request is appended.
fn refuse_all(broker: &mut Broker, asked: &Asked) -> Option<Rejection> {
    let produce = &asked.produce;
    if !matches!(produce.acks, -1..=1) {
        let why = format!("acks must be 0, 1 or -1 (all), not {}", produce.acks);
        return Some(rejection(ErrorCode::InvalidRequiredAcks, why));
    }
    let mut transactional = asked.batches.iter().flatten().map(|batch| &batch.header);
    let first = transactional.find(|header| header.is_transactional())?;
    if produce.transactional_id.is_none() {
        let why = "a transactional batch in a request without a transactional id".to_owned();
        let code = ErrorCode::TransactionalIdAuthorizationFailed;
        return Some(rejection(code, why));
    }
    let other =
        |header: &BatchHeader| header.is_transactional() && header.producer_id != first.producer_id;
    if transactional.any(other) {
        let why = "transactional batches of several producers in one request".to_owned();
        return Some(rejection(ErrorCode::InvalidProducerIdMapping, why));
    }
    let newest = &mut broker.newest_connections;
    let producer = (first.producer_id, first.producer_epoch);
    if asked.version < ADDS_PARTITIONS && !newest.note(Wrote::Batches, producer, asked.connection) {
        let why = format!(
            "a write of transactional id {} that was held up on an old connection is refused: its \
             producer, {}, has used a newer one since",
            produce.transactional_id.as_deref().unwrap_or_default(),
            first.producer_id
        );
        broker.log(Level::Warn, why.clone());
        return Some(rejection(ErrorCode::NotLeaderOrFollower, why));
    }
    None
}

/// What the coordinator has to be asked before the batches may be appended, if anything.
fn question(broker: &mut Broker, asked: &mut Asked) -> Option<Question> {
    let transactional_id = asked.produce.transactional_id.clone()?;
    let mut question = None;
    let adds = asked.version >= ADDS_PARTITIONS;
    let mut batches = asked.batches.iter();
    for topic in &asked.produce.topic_data {
        let topic_id = topic_id(broker, topic, asked.version);
        for partition in &topic.partition_data {
            let (Some(Ok(batch)), Ok(topic_id)) = (batches.next(), topic_id) else {
                continue;
            };
            let index = partition.index;
            let Some(hosted) = broker.topics.get_mut(PartitionKey { topic_id, index }) else {
                continue;
            };
            if !hosted.partition.needs_verification(&batch.header) {
                continue;
            }
            let guard = hosted.partition.begin_verification(&batch.header, adds);
            let name = hosted.partition.topic().to_string();
            let question = question.get_or_insert_with(|| Question {
                transactional_id: transactional_id.clone(),
                producer_id: batch.header.producer_id,
                producer_epoch: batch.header.producer_epoch,
                verify_only: !adds,
                partitions: BTreeMap::new(),
            });
            let indexes = question.partitions.entry(name.clone()).or_default();
            indexes.push(index);
            asked.guards.insert((name, index), guard);
        }
    }
    question
}

/// The guard that lets a batch in, if one is needed and the coordinator agreed.
fn permission(
    broker: &Broker,
    key: PartitionKey,
    version: i16,
    guards: &BTreeMap<(String, i32), VerificationGuard>,
    verdicts: &Verdicts,
) -> Result<Option<VerificationGuard>, Rejection> {
    if verdicts.is_empty() {
        return Ok(None);
    }
    let Some(topic) = broker.topics.topic(key.topic_id) else {
        return Ok(None);
    };
    let place = (topic.name.to_string(), key.index);
    match verdicts.get(&place) {
        None | Some(ErrorCode::None) => Ok(guards.get(&place).copied()),
        Some(error) => Err(unverified(*error, version)),
    }
}

/// What a producer is told of a partition that the coordinator did not agree to.
fn unverified(error: ErrorCode, version: i16) -> Rejection {
    let code = match error {
        ErrorCode::TransactionAbortable if version < 11 => ErrorCode::InvalidTxnState,
        ErrorCode::ProducerFenced => ErrorCode::InvalidProducerEpoch,
        // What passes by itself; a producer knows how to try again after this.
        ErrorCode::ConcurrentTransactions
        | ErrorCode::NotCoordinator
        | ErrorCode::CoordinatorNotAvailable
        | ErrorCode::CoordinatorLoadInProgress => ErrorCode::NotEnoughReplicas,
        error => error,
    };
    let why = format!("the transaction coordinator does not let the batch in: {error:?}");
    rejection(code, why)
}

fn topic_id(
    broker: &Broker,
    topic: &TopicProduceData,
    version: i16,
) -> Result<oncelog_wire::Uuid, ErrorCode> {
    let id = match version {
        13.. => Some(topic.topic_id),
        _ => broker.topics.id_of(&topic.name),
    };
    let Some(found) = id.and_then(|id| broker.topics.topic(id)) else {
        return Err(match version {
            13.. => ErrorCode::UnknownTopicId,
            _ => ErrorCode::UnknownTopicOrPartition,
        });
    };
    match is_internal(&found.name) {
        true => Err(ErrorCode::InvalidTopicException),
        false => Ok(found.id),
    }
}

fn append(
    broker: &mut Broker,
    key: PartitionKey,
    batch: PreparedBatch,
    guard: Option<VerificationGuard>,
) -> Result<Acknowledged, Rejection> {
    let now = broker.now;
    let Some(hosted) = broker.topics.get_mut(key) else {
        return Err(rejection(ErrorCode::UnknownTopicOrPartition, String::new()));
    };
    let batch = batch.map_err(|(code, why)| rejection(code, why))?;
    let (records, bytes) = (batch.record_count(), batch.size_bytes());
    let mut appended = hosted.partition.append_from_client(now, &batch, guard)?;
    let log_start = hosted.partition.log_start_offset();
    let high_watermark = hosted.partition.high_watermark();
    if appended.duplicate {
        broker.counters.duplicate_batches += 1;
    } else {
        broker.counters.messages_in += u64::from(records);
        broker.counters.bytes_in += bytes as u64;
    }
    let answer = Acknowledged {
        base_offset: appended.base_offset,
        log_append_time_ms: appended.append_time_ms,
        log_start_offset: log_start,
        // A duplicate whose original is committed has nothing to wait for.
        wait: (appended.last_offset >= high_watermark).then_some((key, appended.last_offset + 1)),
    };
    broker.run(key, std::mem::take(&mut appended.work));
    Ok(answer)
}

type Wait = (PartitionKey, i64);

/// What a partition will answer once its watermark is reached.
struct Acknowledged {
    base_offset: i64,
    log_append_time_ms: i64,
    log_start_offset: i64,
    wait: Option<Wait>,
}

fn answer_of(
    index: i32,
    result: Result<Acknowledged, Rejection>,
) -> (PartitionProduceResponse, Option<Wait>) {
    let mut answer = PartitionProduceResponse {
        index,
        base_offset: -1,
        log_append_time_ms: -1,
        log_start_offset: -1,
        ..Default::default()
    };
    match result {
        Err(rejection) => {
            answer.error_code = rejection.code.code();
            let why = rejection.message;
            answer.error_message = (!why.is_empty()).then_some(why);
            let record = |error: RecordError| BatchIndexAndErrorMessage {
                batch_index: error.batch_index,
                batch_index_error_message: Some(error.message),
                ..Default::default()
            };
            answer.record_errors = rejection.record_errors.into_iter().map(record).collect();
            (answer, None)
        }
        Ok(acknowledged) => {
            answer.base_offset = acknowledged.base_offset;
            answer.log_append_time_ms = acknowledged.log_append_time_ms;
            answer.log_start_offset = acknowledged.log_start_offset;
            (answer, acknowledged.wait)
        }
    }
}

/// Everything below `high_watermark` is as durable as promised: releases those who waited for it.
pub(crate) fn high_watermark_rose(broker: &mut Broker, key: PartitionKey, high_watermark: i64) {
    loop {
        let Some(hosted) = broker.topics.get_mut(key) else {
            return;
        };
        match hosted.produce_waiters.first() {
            Some(&(wanted, request)) if wanted <= high_watermark => {
                hosted.produce_waiters.remove(&(wanted, request));
                reached(broker, request, (key, wanted));
            }
            _ => return,
        }
    }
}

fn reached(broker: &mut Broker, request: RequestId, wait: Wait) {
    let Some(parked) = broker.waiters.produce.get_mut(&request) else {
        return;
    };
    parked.waiting.remove(&wait);
    if parked.waiting.is_empty() {
        finish(broker, request);
    }
}

fn finish(broker: &mut Broker, request: RequestId) {
    broker.timers.clear(&Timer::Produce(request));
    if let Some(parked) = broker.waiters.produce.remove(&request) {
        broker.answer(request, ResponseBody::Produce(parked.response));
    }
}

/// `timeout_ms` is over: what has not reached its watermark is answered REQUEST_TIMED_OUT.
pub(crate) fn deadline(broker: &mut Broker, request: RequestId) {
    fail_waiting(broker, request, ErrorCode::RequestTimedOut, |_| true);
}

/// The topic is gone before the append came back; whether it was durable does not matter now.
pub(crate) fn partition_removed(
    broker: &mut Broker,
    key: PartitionKey,
    waiters: impl IntoIterator<Item = (i64, RequestId)>,
) {
    for (_, request) in waiters {
        let error = ErrorCode::UnknownTopicOrPartition;
        fail_waiting(broker, request, error, |waiting| waiting == key);
    }
}

fn fail_waiting(
    broker: &mut Broker,
    request: RequestId,
    error: ErrorCode,
    which: impl Fn(PartitionKey) -> bool,
) {
    let Some(parked) = broker.waiters.produce.get_mut(&request) else {
        return;
    };
    let failed: Vec<Wait> = parked
        .waiting
        .keys()
        .copied()
        .filter(|(key, _)| which(*key))
        .collect();
    for wait in failed {
        for (topic, place) in parked.waiting.remove(&wait).expect("just listed") {
            let answer = &mut parked.response.responses[topic].partition_responses[place];
            answer.error_code = error.code();
            answer.base_offset = -1;
        }
        if let Some(hosted) = broker.topics.get_mut(wait.0) {
            hosted.produce_waiters.remove(&(wait.1, request));
        }
    }
    if parked.waiting.is_empty() {
        finish(broker, request);
    }
}
