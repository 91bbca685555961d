//! The transaction coordinator's shards, hosted: which shard a transactional id belongs to, where
//! its records go, and when its answers and markers may leave.
//!
//! One [`TransactionShard`] per partition of `__transaction_state`, run as the groups' are (see
//! [`crate::groups`]): records are appended and replayed at once, and what follows from them is held
//! until the partition's high watermark has passed everything that the shard had appended when it
//! decided. For a marker that is what makes it safe: it is written only when the decision to end the
//! transaction cannot be lost.
//!
//! - `gate`: writes that wait for the coordinator's word.
//! - `markers`: the end of a transaction, in its partitions.
//! - `newest`: which connection a producer spoke on last.

pub(crate) mod gate;
pub(crate) mod markers;
pub(crate) mod newest;

use crate::broker::Broker;
use crate::connections::RequestId;
use crate::coordinators::append_records;
use crate::effect::Level;
use crate::timers::Timer;
use crate::topics::PartitionKey;
use gate::GateId;
use oncelog_coordinator::cluster::Cluster;
use oncelog_coordinator::groups::partition_for;
use oncelog_coordinator::transactions::TransactionShard;
use oncelog_coordinator::{Markers, Outcome, ReplyTo};
use oncelog_wire::clock::Now;
use oncelog_wire::{ResponseBody, Uuid};
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

pub use oncelog_coordinator::cluster::TRANSACTION_STATE_TOPIC;

#[derive(Default)]
pub struct TransactionHost {
    topic_id: Option<Uuid>,
    shards: Vec<Shard>,
    asked: BTreeMap<ReplyTo, Asked>,
    next_token: u64,
}

struct Shard {
    state: TransactionShard,
    /// What may leave, by the high watermark that it waits for.
    held: VecDeque<(i64, Held)>,
}

enum Held {
    Reply(ReplyTo, ResponseBody),
    Markers(Markers),
}

/// Who waits for a coordinator's answer.
pub(crate) enum Asked {
    /// It is the answer to this request.
    Request(RequestId),
    Gate(GateId),
}

/// What a shard may look at and take from while it decides.
pub(crate) struct View<'a> {
    pub now: Now,
    pub cluster: &'a Cluster,
    /// Producer ids that nobody has.
    pub producer_ids: &'a mut Range<i64>,
}

impl TransactionHost {
    /// With the shards loaded from disk, in the order of their partitions.
    pub fn loaded(topic_id: Uuid, shards: Vec<TransactionShard>) -> TransactionHost {
        let host = |state| Shard {
            state,
            held: VecDeque::new(),
        };
        TransactionHost {
            topic_id: Some(topic_id),
            shards: shards.into_iter().map(host).collect(),
            ..Default::default()
        }
    }

    /// There is somewhere to keep transactions.
    pub fn ready(&self) -> bool {
        !self.shards.is_empty()
    }

    pub fn shards(&self) -> impl Iterator<Item = &TransactionShard> {
        self.shards.iter().map(|shard| &shard.state)
    }

    pub fn shard_of(&self, transactional_id: &str) -> &TransactionShard {
        let index = partition_for(transactional_id, self.shards.len() as i32);
        &self.shards[index as usize].state
    }

    fn key(&self, shard: i32) -> PartitionKey {
        let topic_id = self.topic_id.expect("shards exist only with their topic");
        PartitionKey {
            topic_id,
            index: shard,
        }
    }
}

/// A partition of `__transaction_state` was made: an empty shard goes with it.
pub(crate) fn partition_added(broker: &mut Broker, key: PartitionKey, leader_epoch: i32) {
    broker.transactions.topic_id = Some(key.topic_id);
    let config = crate::config::of_transactions(&broker.config);
    let mut state = TransactionShard::new(config, leader_epoch);
    let outcome = state.loaded(broker.now);
    let held = VecDeque::new();
    broker.transactions.shards.push(Shard { state, held });
    settle(broker, key.index, outcome);
}

/// The shards were replayed before there was a broker: what they want done now is done.
pub(crate) fn settle_loaded(broker: &mut Broker) {
    for shard in 0..broker.transactions.shards.len() as i32 {
        let now = broker.now;
        let outcome = broker.transactions.shards[shard as usize].state.loaded(now);
        settle(broker, shard, outcome);
    }
}

/// Asks the shard of a transactional id.
pub(crate) fn ask(
    broker: &mut Broker,
    transactional_id: &str,
    asked: Asked,
    decide: impl FnOnce(&mut TransactionShard, ReplyTo, &mut View<'_>) -> Outcome,
) {
    let host = &mut broker.transactions;
    let shard = partition_for(transactional_id, host.shards.len() as i32);
    let token = ReplyTo(host.next_token);
    host.next_token += 1;
    host.asked.insert(token, asked);
    let mut view = View {
        now: broker.now,
        cluster: &broker.cluster,
        producer_ids: &mut broker.quorum.producer_ids,
    };
    let outcome = decide(&mut host.shards[shard as usize].state, token, &mut view);
    settle(broker, shard, outcome);
}

/// Tells a shard something that nobody waits for an answer to.
fn tell(broker: &mut Broker, shard: i32, what: impl FnOnce(&mut TransactionShard, Now) -> Outcome) {
    let now = broker.now;
    // The topic of transactions may have gone meanwhile.
    let Some(hosted) = broker.transactions.shards.get_mut(shard as usize) else {
        return;
    };
    let outcome = what(&mut hosted.state, now);
    settle(broker, shard, outcome);
}

/// A shard's deadline has come.
pub(crate) fn tick(broker: &mut Broker, shard: i32) {
    tell(broker, shard, |state, now| state.tick(now));
}

/// Topics are gone: nothing is to be written to them any more.
pub(crate) fn topic_deleted(broker: &mut Broker, name: &str) {
    for shard in 0..broker.transactions.shards.len() as i32 {
        tell(broker, shard, |state, now| {
            state.topics_deleted(now, &[name])
        });
    }
}

/// Appends and replays what a shard decided, and sends or holds what follows.
fn settle(broker: &mut Broker, shard: i32, outcome: Outcome) {
    for line in outcome.log {
        broker.log(Level::Info, line);
    }
    let key = broker.transactions.key(shard);
    append_records(broker, key, &outcome.records, None)
        .expect("the coordinator keeps its records below the limit");
    let (now, hosted) = (broker.now, &mut broker.transactions.shards[shard as usize]);
    for record in &outcome.records {
        hosted
            .state
            .replay(&record.key, record.value.as_deref(), now)
            .expect("a shard understands the records that it made");
    }
    let next = hosted.state.next_deadline();
    broker.timers.set(Timer::TransactionShard(shard), next);
    let replies = outcome.replies.into_iter();
    let held = replies
        .map(|(to, body)| Held::Reply(to, body))
        .chain(outcome.markers.into_iter().map(Held::Markers));
    let partition = &broker
        .topics
        .get(key)
        .expect("a shard has its partition")
        .partition;
    let (barrier, high_watermark) = (partition.log_end_offset(), partition.high_watermark());
    let held = held.map(|held| (barrier, held));
    broker.transactions.shards[shard as usize].held.extend(held);
    release(broker, shard, high_watermark);
}

/// Lets out what waited for this shard's records.
pub(crate) fn high_watermark_rose(broker: &mut Broker, key: PartitionKey, high_watermark: i64) {
    if broker.transactions.topic_id == Some(key.topic_id) {
        release(broker, key.index, high_watermark);
    }
}

fn release(broker: &mut Broker, shard: i32, high_watermark: i64) {
    loop {
        let held = &mut broker.transactions.shards[shard as usize].held;
        if held
            .front()
            .is_none_or(|(barrier, _)| *barrier > high_watermark)
        {
            return;
        }
        match held.pop_front().expect("just looked at").1 {
            Held::Reply(to, body) => reply(broker, to, body),
            Held::Markers(markers) => markers::write(broker, shard, markers),
        }
    }
}

fn reply(broker: &mut Broker, to: ReplyTo, body: ResponseBody) {
    let asked = broker.transactions.asked.remove(&to);
    match asked.expect("a token is answered once") {
        Asked::Request(request) => broker.answer(request, body),
        Asked::Gate(id) => gate::answered(broker, id, body),
    }
}
