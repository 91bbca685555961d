//! The broker as one value: inputs in, effects out, nothing else.
//!
//! This file holds the state and the main switch; what an API does lives in `apis/`, one file
//! each, and what several of them share lives beside this file: the order of answers
//! (`connections`), parked work (`waiters`), the hosted partitions (`topics`), the metadata log
//! (`quorum`), the group coordinator's shards (`groups`), deadlines (`timers`).
//!
//! Invariants:
//! - deterministic: the same configuration, disk, seed and inputs give the same effects;
//! - an answer that promises durability is emitted only after the operation that makes it
//!   durable came back;
//! - nothing here copies record bytes: they come as slices of the request frame and leave as file
//!   slices.

use crate::answer::AnswerBody;
use crate::connections::{Connections, RequestId, RequestMeta};
use crate::effect::{Effect, Level};
use crate::figures::Counters;
use crate::groups::GroupHost;
use crate::input::{ConnectionId, Input, OpId};
use crate::prepare::Prepared;
use crate::quorum::Quorum;
use crate::sessions::FetchSessions;
use crate::timers::{Timer, Timers};
use crate::topics::{PartitionKey, Topics};
use crate::transactions::TransactionHost;
use crate::transactions::gate::Gates;
use crate::transactions::newest::NewestConnections;
use crate::waiters::{DiskWork, Waiters};
use crate::{apis, shutdown};
use oncelog_commitlog::{DiskOp, DiskOutcome};
use oncelog_coordinator::cluster::{BrokerConfig, Cluster};
use oncelog_coordinator::seed::Seed;
use oncelog_partition::{Completes, Work};
use oncelog_wire::ResponseBody;
use oncelog_wire::clock::{Instant, Now};
use std::collections::VecDeque;

pub struct Broker {
    pub(crate) config: BrokerConfig,
    pub(crate) now: Now,
    pub(crate) seed: Seed,
    pub(crate) connections: Connections,
    pub(crate) topics: Topics,
    pub(crate) cluster: Cluster,
    pub(crate) quorum: Quorum,
    pub(crate) groups: GroupHost,
    pub(crate) transactions: TransactionHost,
    pub(crate) gates: Gates,
    pub(crate) newest_connections: NewestConnections,
    pub(crate) sessions: FetchSessions,
    pub(crate) waiters: Waiters,
    pub(crate) timers: Timers,
    pub(crate) counters: Counters,
    pub(crate) shutdown: shutdown::Progress,
    effects: VecDeque<Effect>,
    next_op: u64,
}

impl Broker {
    /// Called by [`crate::open`] with everything recovered from disk.
    pub(crate) fn assemble(parts: crate::open::Parts) -> Broker {
        Broker {
            sessions: FetchSessions::new(parts.config.fetch_session_slots),
            config: parts.config,
            now: parts.now,
            seed: parts.seed,
            connections: Connections::default(),
            topics: parts.topics,
            cluster: parts.cluster,
            quorum: parts.quorum,
            groups: parts.groups,
            transactions: parts.transactions,
            gates: Gates::default(),
            newest_connections: NewestConnections::default(),
            waiters: Waiters::default(),
            timers: Timers::default(),
            counters: Counters::default(),
            shutdown: shutdown::Progress::default(),
            effects: VecDeque::new(),
            next_op: 0,
        }
    }

    /// Takes one input; what follows from it is waiting in [`Broker::poll_effect`] afterwards.
    pub fn handle(&mut self, now: Now, input: Input) {
        self.now = now;
        match input {
            Input::Connected {
                connection,
                peer,
                listener,
            } => self.connections.connected(connection, peer, listener),
            Input::Request {
                connection,
                request,
            } => self.request(connection, *request),
            Input::Disconnected { connection } => self.disconnected(connection),
            Input::DiskDone { op, outcome } => self.disk_done(op, Ok(outcome)),
            Input::DiskFailed { op, error } => self.disk_done(op, Err(error)),
            Input::Tick => {}
            Input::ShutDown => shutdown::begin(self),
        }
        self.fire_timers();
        shutdown::advance(self);
    }

    /// The next thing to do, in the order described at [`Effect`].
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// When to send [`Input::Tick`] if nothing else comes first.
    pub fn next_deadline(&self) -> Option<Instant> {
        if self.shutdown != shutdown::Progress::Running {
            return None;
        }
        self.timers.next()
    }

    fn request(&mut self, connection: ConnectionId, request: Prepared) {
        if self.shutdown != shutdown::Progress::Running {
            // An append after the checkpoints were taken would make the clean marker a lie.
            return self.close(connection, "the broker is shutting down");
        }
        let Some(request) = self.connections.hold(connection, request) else {
            return;
        };
        let meta = RequestMeta {
            correlation_id: request.correlation_id,
            api_key: request.body.api_key(),
            version: request.version,
        };
        if request.wants_no_answer() {
            apis::produce::handle(self, connection, None, request);
            return;
        }
        let Some(id) = self.connections.expect_answer(connection, meta) else {
            return;
        };
        apis::dispatch(self, connection, id, request);
    }

    /// A connection whose requests had to wait goes on, until the next one that has to.
    pub(crate) fn resume(&mut self, connection: ConnectionId) {
        for request in self.connections.resume(connection) {
            self.request(connection, request);
        }
    }

    fn disconnected(&mut self, connection: ConnectionId) {
        for request in self.connections.disconnected(connection) {
            apis::fetch::abandon(self, request);
        }
    }

    fn disk_done(&mut self, op: OpId, outcome: Result<DiskOutcome, String>) {
        let Some(work) = self.waiters.disk.remove(&op) else {
            panic!("the host completed {op:?}, which is not in flight");
        };
        match work {
            DiskWork::Partition {
                key,
                completes,
                then,
            } => {
                self.partition_work_done(key, completes, outcome);
                if let Some((request, response)) = then {
                    self.answer(request, *response);
                }
            }
            DiskWork::Metadata { last_offset } => {
                expect_done(outcome, "metadata append");
                crate::quorum::committed(self, last_offset);
            }
            DiskWork::TopicFilesRenamed => {
                expect_done(outcome, "rename");
                crate::deletion::files_renamed(self);
            }
            DiskWork::Background => {
                expect_done(outcome, "background steps");
            }
            DiskWork::TimestampLookup { request, at, key } => {
                apis::list_offsets::found(self, request, at, key, outcome);
            }
        }
    }

    fn fire_timers(&mut self) {
        if self.shutdown != shutdown::Progress::Running {
            return;
        }
        while let Some(timer) = self.timers.pop_due(self.now.instant) {
            match timer {
                Timer::Fetch(request) => apis::fetch::deadline(self, request),
                Timer::Produce(request) => apis::produce::deadline(self, request),
                Timer::Shard(index) => crate::groups::tick(self, index),
                Timer::TransactionShard(index) => crate::transactions::tick(self, index),
                Timer::Partition(key) => crate::housekeeping::partition(self, key),
                Timer::Retention => crate::housekeeping::retention(self),
                Timer::Upkeep => crate::housekeeping::upkeep(self),
                Timer::RemoveDeleted(batch) => crate::deletion::remove_files(self, batch),
            }
        }
    }

    // ---- what the APIs and the rooms beside this file call ----

    /// The listener of a request's connection, empty if the client has gone.
    pub(crate) fn listener_of(&self, connection: ConnectionId) -> String {
        let connection = self.connections.get(connection);
        connection
            .map(|connection| connection.listener.clone())
            .unwrap_or_default()
    }

    pub(crate) fn answer(&mut self, request: RequestId, body: ResponseBody) {
        self.answer_with(request, AnswerBody::Message(body));
    }

    pub(crate) fn answer_with(&mut self, request: RequestId, body: AnswerBody) {
        let effects = &mut self.effects;
        self.connections.answer(request, body, &mut |answer| {
            effects.push_back(Effect::Answer(Box::new(answer)));
        });
    }

    pub(crate) fn close(&mut self, connection: ConnectionId, reason: &'static str) {
        self.effects.push_back(Effect::Close { connection, reason });
    }

    pub(crate) fn log(&mut self, level: Level, message: String) {
        self.effects.push_back(Effect::Log { level, message });
    }

    pub(crate) fn stopped(&mut self) {
        self.effects.push_back(Effect::Stopped);
    }

    /// Emits one disk operation; `then` says who hears of its completion.
    pub(crate) fn disk(&mut self, work: DiskOp, then: DiskWork) {
        let op = OpId(self.next_op);
        self.next_op += 1;
        self.waiters.disk.insert(op, then);
        self.effects.push_back(Effect::Disk { op, work });
    }

    pub(crate) fn background(&mut self, work: Vec<DiskOp>) {
        for op in work {
            self.disk(op, DiskWork::Background);
        }
    }

    /// Emits a partition's work; its completions go back to the partition.
    pub(crate) fn run(&mut self, key: PartitionKey, work: Vec<Work>) {
        self.run_then(key, work, None);
    }

    /// Like [`Broker::run`]; the last piece's completion also answers a request.
    pub(crate) fn run_then(
        &mut self,
        key: PartitionKey,
        work: Vec<Work>,
        mut then: Option<(RequestId, Box<ResponseBody>)>,
    ) {
        let hosted = self
            .topics
            .get_mut(key)
            .expect("work comes from a hosted partition");
        hosted.in_flight += work.len() as u32;
        let last = work.len().saturating_sub(1);
        for (at, Work { op, completes }) in work.into_iter().enumerate() {
            let then = if at == last { then.take() } else { None };
            let work = DiskWork::Partition {
                key,
                completes,
                then,
            };
            self.disk(op, work);
        }
    }

    fn partition_work_done(
        &mut self,
        key: PartitionKey,
        completes: Completes,
        outcome: Result<DiskOutcome, String>,
    ) {
        let now = self.now;
        let Some(hosted) = self.topics.get_mut(key) else {
            return crate::deletion::work_came_back(self, key, completes);
        };
        hosted.in_flight -= 1;
        let outcome = match outcome {
            Ok(outcome) => outcome,
            Err(error) => {
                assert_eq!(
                    completes,
                    Completes::Compaction,
                    "only reads may fail: {error}"
                );
                hosted.partition.compaction_failed(now);
                let (topic, index) = (hosted.partition.topic(), hosted.partition.index());
                let message = format!(
                    "compaction of {topic}-{index} was given up: {error}; the log is untouched"
                );
                return self.log(Level::Error, message);
            }
        };
        let done = hosted.partition.work_done(now, completes, outcome);
        let deadline = hosted.partition.next_deadline();
        self.timers.set(Timer::Partition(key), deadline);
        self.run(key, done.work);
        let Some(high_watermark) = done.high_watermark else {
            return; // an earlier append is still on its way
        };
        apis::produce::high_watermark_rose(self, key, high_watermark);
        apis::fetch::high_watermark_rose(self, key);
        crate::groups::high_watermark_rose(self, key, high_watermark);
        crate::transactions::high_watermark_rose(self, key, high_watermark);
        crate::transactions::markers::high_watermark_rose(self, key, high_watermark);
    }
}

/// A write or sync that failed never comes back as an input (the host stops first).
fn expect_done(outcome: Result<DiskOutcome, String>, what: &str) {
    match outcome {
        Ok(DiskOutcome::Done) => {}
        other => panic!("the host completed an {what} with {other:?}"),
    }
}
