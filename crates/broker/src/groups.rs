//! The group coordinator's shards, hosted: which shard a group belongs to, where its records go,
//! and when its answers may leave.
//!
//! One [`GroupShard`] per partition of `__consumer_offsets`. A shard decides and hands back
//! records and replies; the records are appended to the shard's own partition like any batch and
//! replayed into the shard at once. Replies are held until the partition's high watermark has
//! passed everything that the shard had appended when it decided, reads included: nobody is told
//! of a state that a crash could take back.
//!
//! Requests that name several groups are split by shard and their answers merged.

use crate::broker::Broker;
use crate::connections::RequestId;
use crate::coordinators::{InTransaction, append_records};
use crate::effect::Level;
use crate::timers::Timer;
use crate::topics::PartitionKey;
use oncelog_coordinator::groups::GroupShard;
use oncelog_coordinator::{Outcome, Record, ReplyTo};
use oncelog_partition::{EndTransactionMarker, Rejection, VerificationGuard};
use oncelog_wire::ResponseBody;
use oncelog_wire::Uuid;
use std::collections::{BTreeMap, VecDeque};

pub use oncelog_coordinator::cluster::OFFSETS_TOPIC;

#[derive(Default)]
pub struct GroupHost {
    topic_id: Option<Uuid>,
    shards: Vec<Shard>,
    /// Requests whose answers are put together from several shards.
    merges: BTreeMap<RequestId, Merge>,
    tokens: BTreeMap<ReplyTo, RequestId>,
    next_token: u64,
}

struct Shard {
    state: GroupShard,
    /// Replies by the high watermark that they wait for.
    held: VecDeque<(i64, ReplyTo, ResponseBody)>,
}

struct Merge {
    outstanding: usize,
    answer: Option<ResponseBody>,
}

impl GroupHost {
    /// With the shards loaded from disk, in the order of their partitions.
    pub fn loaded(topic_id: Uuid, shards: Vec<GroupShard>) -> GroupHost {
        let host = |state| Shard {
            state,
            held: VecDeque::new(),
        };
        GroupHost {
            topic_id: Some(topic_id),
            shards: shards.into_iter().map(host).collect(),
            ..Default::default()
        }
    }

    pub fn is_offsets_topic(&self, name: &str) -> bool {
        name == OFFSETS_TOPIC
    }

    /// There is somewhere to keep groups.
    pub fn ready(&self) -> bool {
        !self.shards.is_empty()
    }

    pub fn shard_count(&self) -> i32 {
        self.shards.len() as i32
    }

    /// Kafka's placement: `abs(hashCode(group)) % partitions`.
    pub fn shard_of(&self, group: &str) -> i32 {
        oncelog_coordinator::groups::partition_for(group, self.shard_count())
    }

    pub fn shards(&self) -> impl Iterator<Item = &GroupShard> {
        self.shards.iter().map(|shard| &shard.state)
    }

    /// The partition that a shard's records are in.
    pub fn key(&self, shard: i32) -> PartitionKey {
        let topic_id = self.topic_id.expect("shards exist only with their topic");
        PartitionKey {
            topic_id,
            index: shard,
        }
    }

    fn token(&mut self, request: RequestId) -> ReplyTo {
        let token = ReplyTo(self.next_token);
        self.next_token += 1;
        self.tokens.insert(token, request);
        token
    }
}

/// A partition of `__consumer_offsets` was made: an empty shard goes with it.
pub(crate) fn partition_added(broker: &mut Broker, key: PartitionKey) {
    broker.groups.topic_id = Some(key.topic_id);
    let mut state = GroupShard::new(broker.config.group_config(), broker.seed.fork());
    let outcome = state.loaded(broker.now);
    let held = VecDeque::new();
    broker.groups.shards.push(Shard { state, held });
    settle(broker, key.index, outcome);
}

/// Asks several shards; their answers are merged. `empty` is the answer if there is nobody to ask.
pub(crate) fn ask_many<F>(
    broker: &mut Broker,
    request: RequestId,
    parts: Vec<(i32, F)>,
    empty: Option<ResponseBody>,
) where
    F: FnOnce(&mut GroupShard, ReplyTo, &View) -> Outcome,
{
    let merge = Merge {
        outstanding: parts.len(),
        // Not something to merge into: what one shard says alone is the answer as it is.
        answer: if parts.is_empty() { empty } else { None },
    };
    broker.groups.merges.insert(request, merge);
    if parts.is_empty() {
        return finish(broker, request);
    }
    for (shard, decide) in parts {
        let token = broker.groups.token(request);
        let view = View {
            now: broker.now,
            cluster: &broker.cluster,
        };
        let outcome = decide(
            &mut broker.groups.shards[shard as usize].state,
            token,
            &view,
        );
        settle(broker, shard, outcome);
    }
}

/// What a shard may look at while it decides.
pub(crate) struct View<'a> {
    pub now: oncelog_wire::clock::Now,
    pub cluster: &'a oncelog_coordinator::cluster::Cluster,
}

/// The shards were replayed before there was a broker: what they want done now is done.
pub(crate) fn settle_loaded(broker: &mut Broker) {
    for shard in 0..broker.groups.shard_count() {
        let now = broker.now;
        let outcome = broker.groups.shards[shard as usize].state.loaded(now);
        settle(broker, shard, outcome);
    }
}

/// A shard's deadline has come.
pub(crate) fn tick(broker: &mut Broker, shard: i32) {
    let now = broker.now;
    let outcome = broker.groups.shards[shard as usize].state.tick(now);
    settle(broker, shard, outcome);
}

/// Topics are gone: their offsets go with them.
pub(crate) fn topic_deleted(broker: &mut Broker, name: &str) {
    if broker.groups.is_offsets_topic(name) {
        broker.groups = GroupHost {
            next_token: broker.groups.next_token,
            ..Default::default()
        };
        return;
    }
    for shard in 0..broker.groups.shard_count() {
        let state = &mut broker.groups.shards[shard as usize].state;
        let outcome = state.topics_deleted(&[name]);
        settle(broker, shard, outcome);
    }
}

/// Asks a shard for what is part of a producer's transaction. `refused` makes the answer if the
/// partition does not take the records.
pub(crate) fn ask_in_transaction(
    broker: &mut Broker,
    request: RequestId,
    shard: i32,
    guard: Option<VerificationGuard>,
    decide: impl FnOnce(&mut GroupShard, ReplyTo, &View) -> Outcome,
    refused: impl FnOnce(Rejection) -> ResponseBody,
) {
    let merge = Merge {
        outstanding: 1,
        answer: None,
    };
    broker.groups.merges.insert(request, merge);
    let token = broker.groups.token(request);
    let view = View {
        now: broker.now,
        cluster: &broker.cluster,
    };
    let state = &mut broker.groups.shards[shard as usize].state;
    let mut outcome = decide(state, token, &view);
    let key = broker.groups.key(shard);
    let records = std::mem::take(&mut outcome.records);
    if let Some((producer_id, producer_epoch)) = outcome.transactional
        && !records.is_empty()
    {
        let transaction = InTransaction {
            producer_id,
            producer_epoch,
            guard,
        };
        match append_records(broker, key, &records, Some(transaction)) {
            Ok(()) => replay_in_transaction(broker, shard, producer_id, &records),
            Err(rejection) => outcome.replies = vec![(token, refused(rejection))],
        }
    }
    settle(broker, shard, outcome);
}

fn replay_in_transaction(broker: &mut Broker, shard: i32, producer_id: i64, records: &[Record]) {
    let key = broker.groups.key(shard);
    let hosted = broker.topics.get(key).expect("a shard has its partition");
    let first = hosted.partition.log_end_offset() - records.len() as i64;
    let (now, state) = (broker.now, &mut broker.groups.shards[shard as usize].state);
    for (offset, record) in (first..).zip(records) {
        let value = record.value.as_deref();
        state
            .replay_transactional(producer_id, &record.key, value, offset, now)
            .expect("a shard understands the records that it made");
    }
}

/// A transaction ended in a shard's partition: its offsets count now, or never.
pub(crate) fn marker_appended(broker: &mut Broker, shard: i32, marker: &EndTransactionMarker) {
    let now = broker.now;
    if let Some(shard) = broker.groups.shards.get_mut(shard as usize) {
        shard
            .state
            .replay_marker(marker.producer_id, marker.commit, now);
    }
}

/// Appends and replays what a shard decided, and sends or holds its replies.
fn settle(broker: &mut Broker, shard: i32, outcome: Outcome) {
    for line in outcome.log {
        broker.log(Level::Info, line);
    }
    let key = broker.groups.key(shard);
    let first = log_end(broker, key);
    append_records(broker, key, &outcome.records, None)
        .expect("the coordinator keeps its records below the limit");
    let (now, state) = (broker.now, &mut broker.groups.shards[shard as usize].state);
    for (offset, record) in (first..).zip(&outcome.records) {
        state
            .replay(&record.key, record.value.as_deref(), offset, now)
            .expect("a shard understands the records that it made");
    }
    let barrier = log_end(broker, key);
    let hosted = broker.topics.get(key).expect("a shard has its partition");
    let high_watermark = hosted.partition.high_watermark();
    let shard_state = &mut broker.groups.shards[shard as usize];
    let next = shard_state.state.next_deadline();
    let replies = outcome.replies;
    if barrier > high_watermark {
        let held = replies.into_iter().map(|(to, body)| (barrier, to, body));
        shard_state.held.extend(held);
    } else {
        for (to, body) in replies {
            reply(broker, to, body);
        }
    }
    broker.timers.set(Timer::Shard(shard), next);
}

fn log_end(broker: &Broker, key: PartitionKey) -> i64 {
    let hosted = broker.topics.get(key).expect("a shard has its partition");
    hosted.partition.log_end_offset()
}

/// Sends the replies that waited for this shard's records.
pub(crate) fn high_watermark_rose(broker: &mut Broker, key: PartitionKey, high_watermark: i64) {
    if broker.groups.topic_id != Some(key.topic_id) {
        return;
    }
    loop {
        let held = &mut broker.groups.shards[key.index as usize].held;
        match held.front() {
            Some((barrier, ..)) if *barrier <= high_watermark => {
                let (_, to, body) = held.pop_front().expect("just looked at");
                reply(broker, to, body);
            }
            _ => return,
        }
    }
}

fn reply(broker: &mut Broker, to: ReplyTo, body: ResponseBody) {
    let request = broker
        .groups
        .tokens
        .remove(&to)
        .expect("a token is answered once");
    let merge = broker
        .groups
        .merges
        .get_mut(&request)
        .expect("asked through ask_many");
    merge.outstanding -= 1;
    merge.answer = Some(match merge.answer.take() {
        None => body,
        Some(answer) => merged(answer, body),
    });
    if merge.outstanding == 0 {
        finish(broker, request);
    }
}

fn finish(broker: &mut Broker, request: RequestId) {
    let merge = broker
        .groups
        .merges
        .remove(&request)
        .expect("asked through ask_many");
    let answer = merge
        .answer
        .expect("somebody answered, or there is an empty answer");
    broker.answer(request, answer);
}

/// Puts the answers of two shards together.
fn merged(left: ResponseBody, right: ResponseBody) -> ResponseBody {
    use ResponseBody as R;
    match (left, right) {
        (R::DescribeGroups(mut left), R::DescribeGroups(right)) => {
            left.groups.extend(right.groups);
            R::DescribeGroups(left)
        }
        (R::ConsumerGroupDescribe(mut left), R::ConsumerGroupDescribe(right)) => {
            left.groups.extend(right.groups);
            R::ConsumerGroupDescribe(left)
        }
        (R::DeleteGroups(mut left), R::DeleteGroups(right)) => {
            left.results.extend(right.results);
            R::DeleteGroups(left)
        }
        (R::ListGroups(mut left), R::ListGroups(right)) => {
            left.groups.extend(right.groups);
            R::ListGroups(left)
        }
        (R::OffsetFetch(mut left), R::OffsetFetch(right)) => {
            left.groups.extend(right.groups);
            R::OffsetFetch(left)
        }
        (left, right) => panic!(
            "{:?} and {:?} cannot be merged",
            left.api_key(),
            right.api_key()
        ),
    }
}
