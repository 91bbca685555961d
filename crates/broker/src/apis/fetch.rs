//! Fetch (key 1, versions 4-18): read batches from partitions, waiting for `min_bytes`.
//!
//! Behaviour: sessions (KIP-227, v7+), topic ids (KIP-516, v13+), leader epochs and diverging
//! epochs (KIP-320/595, v9+/v12+). A request that finds less than `min_bytes` below the high
//! watermarks is parked and woken by the append that completes it or by `max_wait_ms`. The answer
//! names file slices; they are resolved to exact bytes, under `max_bytes`, outside the core
//! (see [`crate::answer`]).
//!
//! Deviations from Kafka: an answer holds whole batches only (Kafka cuts the last one off at the
//! limit, for the client to drop). A wait is never longer than five minutes. Fetches of followers
//! (`replica_id` >= 0) are refused with UNSUPPORTED_VERSION until replication exists.
//!
//! Non-obvious: an error in any partition completes the request at once, as does a partition
//! whose offset lies in a sealed segment (there is plenty to send). A partition counts towards
//! `min_bytes` with no more than its own limit. In a session, partitions whose bytes were sent move
//! to the back; which ones those are is estimated here, because the exact bytes are found later.

use super::{epoch, isolation};
use crate::answer::{AnswerBody, FetchAnswer, SliceAt};
use crate::broker::Broker;
use crate::connections::RequestId;
use crate::limits;
use crate::sessions::{SessionUse, Told, TopicRef, Wanted};
use crate::timers::Timer;
use crate::topics::PartitionKey;
use bytes::Bytes;
use oncelog_partition::{FetchParams, Isolation};
use oncelog_wire::ResponseBody;
use oncelog_wire::messages::fetch_response::{
    AbortedTransaction, EpochEndOffset, FetchableTopicResponse, PartitionData,
};
use oncelog_wire::messages::{FetchRequest, FetchResponse};
use oncelog_wire::{ErrorCode, Records};

pub struct ParkedFetch {
    parts: Vec<Part>,
    session: SessionUse,
    isolation: Isolation,
    min_bytes: u64,
    max_bytes: i32,
    /// The sum of the parts' bytes.
    available: u64,
}

struct Part {
    want: Wanted,
    /// `None`: no such topic or partition here.
    key: Option<PartitionKey>,
    /// Bytes that could be read now.
    bytes: u64,
}

pub(crate) fn handle(broker: &mut Broker, request: RequestId, version: i16, fetch: FetchRequest) {
    if is_follower(&fetch) {
        let refusal = FetchResponse {
            error_code: ErrorCode::UnsupportedVersion.code(),
            ..Default::default()
        };
        return broker.answer(request, ResponseBody::Fetch(refusal));
    }
    let now = broker.now.instant;
    let begun = broker
        .sessions
        .begin(&fetch, version, now, &mut broker.seed);
    let (wanted, session) = match begun {
        Ok(begun) => begun,
        Err(error) => {
            let refusal = FetchResponse {
                error_code: error.code(),
                ..Default::default()
            };
            return broker.answer(request, ResponseBody::Fetch(refusal));
        }
    };
    let mut parked = ParkedFetch {
        parts: Vec::with_capacity(wanted.len()),
        session,
        isolation: isolation(fetch.isolation_level),
        min_bytes: fetch.min_bytes.clamp(0, fetch.max_bytes.max(0)) as u64,
        max_bytes: fetch.max_bytes.min(broker.config.fetch_max_bytes),
        available: 0,
    };
    let mut must_answer = fetch.max_wait_ms <= 0 || wanted.is_empty();
    for want in wanted {
        let key = key_of(broker, &want);
        let look = look(broker, key, &want, parked.isolation);
        must_answer |= look.is_err();
        let bytes = look.unwrap_or(0);
        parked.available = parked.available.saturating_add(bytes);
        parked.parts.push(Part { want, key, bytes });
    }
    if must_answer || parked.available >= parked.min_bytes {
        return complete(broker, request, parked);
    }
    for part in &parked.parts {
        if let Some(hosted) = part.key.and_then(|key| broker.topics.get_mut(key)) {
            hosted.fetch_waiters.insert(request);
        }
    }
    let wait = i64::from(fetch.max_wait_ms).min(limits::FETCH_WAIT_MS_MAX);
    broker.timers.set(Timer::Fetch(request), now.plus_ms(wait));
    broker.waiters.fetch.insert(request, parked);
}

/// What a partition says of an offset in a sealed segment: more than anybody waits for.
const PLENTY: u64 = u64::MAX;

fn is_follower(fetch: &FetchRequest) -> bool {
    fetch.replica_id >= 0 || fetch.replica_state.replica_id >= 0
}

fn key_of(broker: &Broker, want: &Wanted) -> Option<PartitionKey> {
    let topic_id = match &want.topic {
        TopicRef::Name(name) => broker.topics.id_of(name)?,
        TopicRef::Id(id) => *id,
    };
    let key = PartitionKey {
        topic_id,
        index: want.index,
    };
    broker.topics.get(key).map(|_| key)
}

fn max_bytes(want: &Wanted) -> u64 {
    want.max_bytes.max(0) as u64
}

fn ask(want: &Wanted, isolation: Isolation) -> FetchParams {
    FetchParams {
        fetch_offset: want.fetch_offset,
        current_leader_epoch: epoch(want.current_leader_epoch),
        last_fetched_epoch: epoch(want.last_fetched_epoch),
        isolation,
        max_bytes: max_bytes(want),
        // Which partition is the first with data is known when the slices are resolved.
        at_least_one: true,
    }
}

/// How many bytes a part could give now; an error (or a diverging epoch) must be told at once.
fn look(
    broker: &Broker,
    key: Option<PartitionKey>,
    want: &Wanted,
    isolation: Isolation,
) -> Result<u64, ()> {
    let hosted = key.and_then(|key| broker.topics.get(key)).ok_or(())?;
    let view = hosted
        .partition
        .fetch(&ask(want, isolation))
        .map_err(|_| ())?;
    match (view.diverging_epoch, view.available_bytes) {
        (Some(_), _) => Err(()),
        (None, PLENTY) => Ok(PLENTY),
        (None, bytes) => Ok(bytes.min(max_bytes(want))),
    }
}

/// More can be read from this partition: completes the parked fetches that now have enough.
pub(crate) fn high_watermark_rose(broker: &mut Broker, key: PartitionKey) {
    let Some(hosted) = broker.topics.get(key) else {
        return;
    };
    if hosted.fetch_waiters.is_empty() {
        return;
    }
    let waiters: Vec<RequestId> = hosted.fetch_waiters.iter().copied().collect();
    for request in waiters {
        let Some(mut parked) = broker.waiters.fetch.remove(&request) else {
            continue;
        };
        let mut must_answer = false;
        for part in parked.parts.iter_mut().filter(|part| part.key == Some(key)) {
            let look = look(broker, part.key, &part.want, parked.isolation);
            must_answer |= look.is_err();
            let bytes = look.unwrap_or(0);
            parked.available = parked
                .available
                .saturating_sub(part.bytes)
                .saturating_add(bytes);
            part.bytes = bytes;
        }
        if must_answer || parked.available >= parked.min_bytes {
            unpark(broker, request, &parked);
            complete(broker, request, parked);
        } else {
            broker.waiters.fetch.insert(request, parked);
        }
    }
}

/// The topic is gone: those who wait for it are told.
pub(crate) fn partition_removed(broker: &mut Broker, waiters: Vec<RequestId>) {
    for request in waiters {
        deadline(broker, request);
    }
}

/// `max_wait_ms` is over: answers with what there is.
pub(crate) fn deadline(broker: &mut Broker, request: RequestId) {
    if let Some(parked) = broker.waiters.fetch.remove(&request) {
        unpark(broker, request, &parked);
        complete(broker, request, parked);
    }
}

/// The client has gone.
pub(crate) fn abandon(broker: &mut Broker, request: RequestId) {
    if let Some(parked) = broker.waiters.fetch.remove(&request) {
        unpark(broker, request, &parked);
    }
}

fn unpark(broker: &mut Broker, request: RequestId, parked: &ParkedFetch) {
    broker.timers.clear(&Timer::Fetch(request));
    for part in &parked.parts {
        if let Some(hosted) = part.key.and_then(|key| broker.topics.get_mut(key)) {
            hosted.fetch_waiters.remove(&request);
        }
    }
}

fn complete(broker: &mut Broker, request: RequestId, parked: ParkedFetch) {
    let mut response = FetchResponse::default();
    let mut slices = Vec::new();
    // About what is left of the answer's limit; the first batch is sent whatever it is.
    let mut room = parked.max_bytes.max(1) as u64;
    for part in &parked.parts {
        let (data, slice) = read(broker, part, parked.isolation);
        let its_turn = slice.is_some() && room > 0;
        if !tell(broker, &parked, part, &data, (slice.is_some(), its_turn)) {
            continue;
        }
        if its_turn {
            room = room.saturating_sub(part.bytes.min(max_bytes(&part.want)).max(1));
        }
        let topic = topic_entry(&mut response, &part.want.topic);
        let partitions = &mut response.responses[topic].partitions;
        if let Some(slice) = slice {
            slices.push(SliceAt {
                topic,
                partition: partitions.len(),
                slice,
            });
        }
        partitions.push(data);
    }
    response.session_id = match parked.session {
        SessionUse::None => 0,
        SessionUse::Opened(id) | SessionUse::Incremental(id) => id,
    };
    let answer = FetchAnswer {
        response,
        slices,
        max_bytes: parked.max_bytes,
    };
    broker.answer_with(request, AnswerBody::Fetch(Box::new(answer)));
}

fn tell(
    broker: &mut Broker,
    parked: &ParkedFetch,
    part: &Part,
    data: &PartitionData,
    (has_bytes, its_turn): (bool, bool),
) -> bool {
    let want = &part.want;
    let told = Told {
        high_watermark: data.high_watermark,
        log_start_offset: data.log_start_offset,
        error: data.error_code,
    };
    let sessions = &mut broker.sessions;
    match parked.session {
        SessionUse::None => true,
        SessionUse::Opened(id) => {
            sessions.tell(id, want, told, has_bytes, its_turn);
            true
        }
        SessionUse::Incremental(id) => {
            let diverging = data.diverging_epoch != EpochEndOffset::default();
            sessions.tell(id, want, told, has_bytes, its_turn) || diverging
        }
    }
}

/// The index of the topic's entry in the answer; parts of one topic stand together.
fn topic_entry(response: &mut FetchResponse, topic: &TopicRef) -> usize {
    let matches = |entry: &FetchableTopicResponse| match topic {
        TopicRef::Name(name) => entry.topic == **name,
        TopicRef::Id(id) => entry.topic_id == *id,
    };
    if !response.responses.last().is_some_and(matches) {
        let mut entry = FetchableTopicResponse::default();
        match topic {
            TopicRef::Name(name) => entry.topic = name.to_string(),
            TopicRef::Id(id) => entry.topic_id = *id,
        }
        response.responses.push(entry);
    }
    response.responses.len() - 1
}

fn read(
    broker: &mut Broker,
    part: &Part,
    isolation: Isolation,
) -> (PartitionData, Option<oncelog_commitlog::LogSlice>) {
    let mut data = PartitionData {
        partition_index: part.want.index,
        high_watermark: -1,
        last_stable_offset: -1,
        log_start_offset: -1,
        preferred_read_replica: -1,
        records: Some(Records::Bytes(Bytes::new())),
        aborted_transactions: None,
        ..Default::default()
    };
    // Asked again: the topic may have gone while the request was parked.
    let Some(hosted) = part.key.and_then(|key| broker.topics.get(key)) else {
        let error = match part.want.topic {
            TopicRef::Name(_) => ErrorCode::UnknownTopicOrPartition,
            TopicRef::Id(id) if broker.topics.topic(id).is_some() => {
                ErrorCode::UnknownTopicOrPartition
            }
            TopicRef::Id(_) => ErrorCode::UnknownTopicId,
        };
        data.error_code = error.code();
        return (data, None);
    };
    let view = match hosted.partition.fetch(&ask(&part.want, isolation)) {
        Ok(view) => view,
        Err(error) => {
            data.error_code = error.code();
            if error == ErrorCode::OffsetOutOfRange {
                data.high_watermark = hosted.partition.high_watermark();
                data.log_start_offset = hosted.partition.log_start_offset();
            }
            return (data, None);
        }
    };
    data.high_watermark = view.high_watermark;
    data.last_stable_offset = view.last_stable_offset;
    data.log_start_offset = view.log_start_offset;
    let aborted = |aborted: &oncelog_partition::AbortedTransaction| AbortedTransaction {
        producer_id: aborted.producer_id,
        first_offset: aborted.first_offset,
        ..Default::default()
    };
    let listed = view.aborted_transactions.as_ref();
    data.aborted_transactions = listed.map(|listed| listed.iter().map(aborted).collect());
    if let Some(end) = view.diverging_epoch {
        data.diverging_epoch.epoch = end.leader_epoch;
        data.diverging_epoch.end_offset = end.end_offset;
        return (data, None);
    }
    (data, view.slice)
}
