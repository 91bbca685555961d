//! The metadata log and its one voter: changes to topics, configurations and producer-id blocks.
//!
//! A change is decided against the committed state, appended to `__cluster_metadata-0` in Kafka's
//! own record framing, synced, and only then replayed and answered. Changes queue: the next one is
//! decided when the one before it is committed, so no two decisions can contradict each other.
//! A cluster of several brokers will put a real quorum behind the same three steps (propose,
//! commit, replay); nothing else in this crate knows that there is one voter.
//!
//! Invariants: at most one append is in flight; only [`replay`] changes the cluster state.

use crate::apis;
use crate::broker::Broker;
use crate::connections::RequestId;
use crate::deletion;
use crate::effect::Level;
use crate::input::ConnectionId;
use crate::prepare::Prepared;
use crate::topics::PartitionKey;
use crate::transactions::TRANSACTION_STATE_TOPIC;
use crate::waiters::DiskWork;
use bytes::Bytes;
use oncelog_commitlog::Log;
use oncelog_coordinator::cluster::{MetadataRecord, PRODUCER_ID_BLOCK};
use oncelog_partition::{Identity, Partition};
use oncelog_wire::records::{BatchBuilder, BatchHeader, HEADER_LEN};
use oncelog_wire::{RequestBody, ResponseBody};
use std::collections::VecDeque;

pub struct Quorum {
    log: Log,
    queue: VecDeque<Job>,
    in_flight: Option<Proposal>,
    /// Producer ids reserved in the metadata log and not yet given out.
    pub producer_ids: std::ops::Range<i64>,
}

/// A change that waits for its turn.
pub enum Job {
    /// An admin request that changes metadata.
    Change {
        request: RequestId,
        version: i16,
        body: RequestBody,
    },
    /// Topics to be made if they are missing (auto-creation, internal topics); then the request
    /// is dispatched once more.
    EnsureTopics { names: Vec<String>, then: Again },
    /// A new block of producer ids; then the request is dispatched once more.
    ProducerIds { then: Again },
}

/// A request that is taken up again after a change.
pub struct Again {
    pub connection: ConnectionId,
    pub request: RequestId,
    pub prepared: Box<Prepared>,
}

struct Proposal {
    records: Vec<MetadataRecord>,
    then: Then,
}

enum Then {
    Answer(RequestId, Box<ResponseBody>),
    Again(Again),
}

impl Quorum {
    pub fn new(log: Log) -> Quorum {
        Quorum {
            log,
            queue: VecDeque::new(),
            in_flight: None,
            producer_ids: 0..0,
        }
    }

    pub fn log_mut(&mut self) -> &mut Log {
        &mut self.log
    }
}

/// Queues a change; it is decided when those before it are committed.
pub(crate) fn submit(broker: &mut Broker, job: Job) {
    broker.quorum.queue.push_back(job);
    advance(broker);
}

/// Decides queued changes until one needs the disk.
pub(crate) fn advance(broker: &mut Broker) {
    while broker.quorum.in_flight.is_none() {
        let Some(job) = broker.quorum.queue.pop_front() else {
            return;
        };
        let (records, then) = decide(broker, job);
        if records.is_empty() {
            finish(broker, then);
            continue;
        }
        broker.quorum.in_flight = Some(Proposal { records, then });
        append(broker);
    }
}

fn decide(broker: &mut Broker, job: Job) -> (Vec<MetadataRecord>, Then) {
    match job {
        Job::Change {
            request,
            version,
            body,
        } => {
            let (records, response) = apis::admin::decide(broker, version, body);
            (records, Then::Answer(request, Box::new(response)))
        }
        Job::EnsureTopics { names, then } => {
            let seed = &mut broker.seed;
            let made = broker
                .cluster
                .auto_create_topics(&broker.config, &names, seed);
            for (name, error, why) in made.refused {
                let message =
                    format!("topic {name:?} is not created automatically: {error:?}: {why}");
                broker.log(Level::Warn, message);
            }
            (made.records, Then::Again(then))
        }
        Job::ProducerIds { then } => {
            let records = match broker.quorum.producer_ids.is_empty() {
                true => broker.cluster.allocate_producer_ids(),
                false => Vec::new(), // a change before this one brought a block
            };
            (records, Then::Again(then))
        }
    }
}

fn append(broker: &mut Broker) {
    let proposal = broker.quorum.in_flight.as_ref().expect("set by the caller");
    let mut batch = BatchBuilder::new();
    for record in &proposal.records {
        batch.append(broker.now.wall_ms, None, Some(&record.encode()), &[]);
    }
    let bytes: Bytes = batch.build();
    let header = BatchHeader::parse(&bytes).expect("a batch that was just built");
    let header_bytes = header.to_bytes();
    let body = bytes.slice(HEADER_LEN..);
    let appended = broker
        .quorum
        .log
        .append(&header, header_bytes, body, 0, broker.now);
    let last_offset = appended.last_offset;
    broker.disk(appended.append, DiskWork::Metadata { last_offset });
    broker.background(appended.after);
}

/// The outstanding append is durable: the change takes effect and is answered.
pub(crate) fn committed(broker: &mut Broker, last_offset: i64) {
    broker.quorum.log.append_done(last_offset);
    let proposal = broker
        .quorum
        .in_flight
        .take()
        .expect("one append is in flight");
    let mut deleted = Vec::new();
    for record in &proposal.records {
        broker
            .cluster
            .replay(record)
            .expect("a record that was just decided applies");
        apply(broker, record, &mut deleted);
    }
    if deleted.is_empty() {
        finish(broker, proposal.then);
        return advance(broker);
    }
    // A topic of the same name may be made only when the old directories are out of the way.
    broker.quorum.in_flight = Some(Proposal {
        records: Vec::new(),
        then: proposal.then,
    });
    deletion::begin(broker, deleted);
}

/// Called when the directories of the deleted topics have been renamed.
pub(crate) fn deletion_finished(broker: &mut Broker) {
    let proposal = broker
        .quorum
        .in_flight
        .take()
        .expect("the deletion holds its place");
    finish(broker, proposal.then);
    advance(broker);
}

fn finish(broker: &mut Broker, then: Then) {
    match then {
        Then::Answer(request, response) => broker.answer(request, *response),
        Then::Again(again) => {
            apis::dispatch(broker, again.connection, again.request, *again.prepared);
        }
    }
}

/// What a committed record means for the partitions that this broker hosts.
fn apply(broker: &mut Broker, record: &MetadataRecord, deleted: &mut Vec<oncelog_wire::Uuid>) {
    match record {
        MetadataRecord::Topic(topic) => broker.topics.add_topic(&topic.name, topic.topic_id),
        MetadataRecord::Partition(partition) => {
            let key = PartitionKey {
                topic_id: partition.topic_id,
                index: partition.partition_id,
            };
            host_new(broker, key, partition.leader_epoch);
        }
        MetadataRecord::RemoveTopic(topic) => deleted.push(topic.topic_id),
        MetadataRecord::ProducerIds(block) => {
            let end = block.next_producer_id;
            broker.quorum.producer_ids = end - PRODUCER_ID_BLOCK..end;
        }
        MetadataRecord::Config(_) => crate::housekeeping::configs_changed(broker),
        _ => {}
    }
}

fn host_new(broker: &mut Broker, key: PartitionKey, leader_epoch: i32) {
    let name = match broker.topics.topic(key.topic_id) {
        Some(topic) => topic.name.clone(),
        None => return, // the decision put the topic's record first
    };
    let config = crate::config::of_topic(&broker.cluster, &broker.config, &name);
    let identity = Identity {
        topic: name.clone(),
        index: key.index,
        topic_id: key.topic_id,
        leader_epoch,
    };
    let created = Partition::create(identity, config, broker.now);
    broker.topics.add_partition(key.topic_id, created.partition);
    broker.background(created.ops);
    if broker.groups.is_offsets_topic(&name) {
        crate::groups::partition_added(broker, key);
    } else if *name == *TRANSACTION_STATE_TOPIC {
        crate::transactions::partition_added(broker, key, leader_epoch);
    }
}
