//! The relay's side of the broker, in real frames: what [`oncelog_relay::topics::Topics`] means,
//! request by request.
//!
//! It tries again as real clients do, on a new connection when one broke or an answer did not come in
//! time, and then what it had sent on the old one may still arrive. After a longer time it gives the
//! whole operation up: nothing is known of how it ended.

use super::super::transactions::protocol::{self, Ask, Producer, Protocol, Verdict};
use super::super::transactions::work::Write;
use super::records::Reader;
use super::{DEAD_LETTERS, EVENTS, PROGRESS};
use crate::actors::session::Heard;
use crate::actors::{ActorEvent, Context, Session, create_topics};
use crate::history::{Place, Violation};
use crate::plan::PipelinePlan;
use oncelog_broker::ConnectionId;
use oncelog_relay::event::Event;
use oncelog_relay::position::Progress;
use oncelog_relay::relay::{Delivery, Outcome, Publication};
use oncelog_relay::topics::TopicsError;
use oncelog_wire::clock::Instant;
use oncelog_wire::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use oncelog_wire::messages::produce_request::{PartitionProduceData, TopicProduceData};
use oncelog_wire::messages::{CreateTopicsRequest, InitProducerIdRequest, ProduceRequest};
use oncelog_wire::records::BatchBuilder;
use oncelog_wire::{Records, RequestBody, ResponseBody};
use std::collections::BTreeMap;

const TRANSACTIONAL_ID: &str = "oncelog-orders-0";
const COORDINATOR: usize = 0;

/// What the relay wants done.
#[derive(Debug)]
pub enum Job {
    Init,
    Progress,
    Publish(Publication),
    Commit,
    Abort,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Idle,
    Topics,
    Init,
    ProgressTopic,
    Progress,
    AddPartitions,
    Write,
    End { commit: bool },
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Unsent,
    Sent,
    Done,
}

/// A request, until it is answered for good.
struct Call {
    lane: usize,
    ask: Ask,
    state: State,
    deadline: Instant,
}

pub struct Topics {
    plan: PipelinePlan,
    protocol: Protocol,
    /// The coordinator's connection, and the leaders' if they have one of their own.
    sessions: [Session; 2],
    reader: Reader,
    stage: Stage,
    calls: Vec<Call>,
    /// Nothing is sent before.
    not_before: Instant,
    /// Then the operation is given up.
    deadline: Instant,
    producer: Producer,
    sequences: BTreeMap<Place, i32>,
    batches: BTreeMap<Place, Vec<Event>>,
    /// How far the progress topic has to be read, and what was read last.
    end: Option<i64>,
    progress: Option<Progress>,
}

impl Topics {
    pub fn new(plan: &PipelinePlan, protocol: Protocol) -> Topics {
        Topics {
            plan: plan.clone(),
            protocol,
            sessions: [Session::default(), Session::default()],
            reader: Reader::default(),
            stage: Stage::Idle,
            calls: Vec::new(),
            not_before: Instant(0),
            deadline: Instant::NEVER,
            producer: Producer {
                transactional_id: TRANSACTIONAL_ID.to_owned(),
                producer_id: -1,
                epoch: -1,
            },
            sequences: BTreeMap::new(),
            batches: BTreeMap::new(),
            end: None,
            progress: None,
        }
    }

    pub fn owns(&self, connection: ConnectionId) -> bool {
        self.reader.owns(connection) || self.sessions.iter().any(|s| s.owns(connection))
    }

    pub fn describe(&self) -> String {
        format!("{:?}", self.stage)
    }

    /// The instance is gone in the middle of whatever it did; what it sent may still arrive.
    pub fn vanish(&mut self, context: &mut Context) {
        for session in &mut self.sessions {
            session.abandon(context);
        }
        self.reader.abandon(context);
        self.calls.clear();
        self.stage = Stage::Idle;
    }

    fn delivery(&self) -> Delivery {
        self.plan.delivery
    }

    /// Begins what the relay wants; the outcome comes at once where there is nothing to wait for.
    pub fn begin(&mut self, context: &mut Context, job: Job) -> Option<Outcome> {
        assert_eq!(self.stage, Stage::Idle, "one operation at a time");
        let now = context.scheduler.instant();
        self.deadline = now.plus_ms(self.plan.answer_ms as i64);
        context.wake_after_ms(self.plan.answer_ms + 1);
        match job {
            Job::Init => {
                self.vanish(context);
                self.sequences.clear();
                self.enter(context, Stage::Topics);
            }
            Job::Progress => {
                let positions = [((PROGRESS.to_owned(), 0), 0)];
                self.reader = Reader::new(positions.into());
                (self.end, self.progress) = (None, None);
                self.enter(context, Stage::ProgressTopic);
            }
            Job::Publish(publication) => return self.publish(context, &publication),
            Job::Commit => self.enter(context, Stage::End { commit: true }),
            Job::Abort => self.enter(context, Stage::End { commit: false }),
        }
        None
    }

    fn publish(&mut self, context: &mut Context, publication: &Publication) -> Option<Outcome> {
        self.batches.clear();
        for event in publication.events() {
            let key = event.key.as_deref().unwrap_or_default();
            let by_key = || (hash(key) % self.plan.partitions as u32) as i32;
            let partition = event.partition.unwrap_or_else(by_key);
            let place = (event.topic.to_string(), partition);
            self.batches.entry(place).or_default().push(event.clone());
        }
        if let Some(progress) = &publication.progress {
            let event = Event {
                topic: PROGRESS.into(),
                partition: Some(0),
                key: Some(TRANSACTIONAL_ID.as_bytes().to_vec()),
                value: Some(progress.encode()),
                headers: Vec::new(),
                timestamp_ms: None,
                position: progress.position.clone(),
            };
            self.batches.insert((PROGRESS.to_owned(), 0), vec![event]);
        }
        match (self.delivery(), self.protocol) {
            (Delivery::ExactlyOnce, Protocol::V1 { .. }) => {
                self.enter(context, Stage::AddPartitions);
            }
            (Delivery::ExactlyOnce | Delivery::AtLeastOnce, _) => self.enter(context, Stage::Write),
            (Delivery::AtMostOnce, _) => {
                // Nobody answers.
                for (version, ask) in self.produce(context) {
                    self.sessions[0].tell(context, version, ask);
                }
                return Some(Outcome::Publish(Ok(())));
            }
        }
        None
    }

    fn enter(&mut self, context: &mut Context, stage: Stage) {
        self.stage = stage;
        let (who, protocol) = (&self.producer, self.protocol);
        let data = usize::from(self.plan.split_connections);
        self.calls = match stage {
            Stage::Topics => {
                let topics = create_topics(&[EVENTS, DEAD_LETTERS], self.plan.partitions);
                vec![call(COORDINATOR, (5, topics))]
            }
            Stage::ProgressTopic => vec![call(COORDINATOR, (5, progress_topic()))],
            Stage::Init => vec![call(COORDINATOR, self.init())],
            Stage::AddPartitions => {
                let write = |place: &Place| Write {
                    place: place.clone(),
                    values: Vec::new(),
                };
                let writes: Vec<Write> = self.batches.keys().map(write).collect();
                vec![call(COORDINATOR, protocol::add_partitions(who, &writes))]
            }
            Stage::Write => {
                let asks = self.produce(context);
                asks.into_iter().map(|ask| call(data, ask)).collect()
            }
            Stage::End { commit } => vec![call(COORDINATOR, protocol.end(who, commit))],
            Stage::Idle | Stage::Progress => Vec::new(),
        };
        let random = &mut context.scheduler.random;
        let mut think = if random.one_in(4) {
            random.below(300)
        } else {
            0
        };
        if !context.healed && self.plan.stall_one_in > 0 && random.one_in(100) {
            think += self.plan.timeout_ms as u64;
        }
        self.pause(context, think);
    }

    fn init(&self) -> Ask {
        if self.delivery() == Delivery::ExactlyOnce {
            return self
                .protocol
                .init(TRANSACTIONAL_ID, self.plan.timeout_ms, None);
        }
        let ask = InitProducerIdRequest {
            transactional_id: None,
            transaction_timeout_ms: 60_000,
            ..Default::default()
        };
        (4, ask.into())
    }

    /// A request for each partition.
    fn produce(&mut self, context: &Context) -> Vec<Ask> {
        let now_ms = context.scheduler.now().wall_ms;
        let exactly_once = self.delivery() == Delivery::ExactlyOnce;
        let at_most_once = self.delivery() == Delivery::AtMostOnce;
        let mut asks = Vec::new();
        for (place, events) in &self.batches {
            let mut builder = BatchBuilder::new().transactional(exactly_once);
            if !at_most_once {
                let next = self.sequences.entry(place.clone()).or_default();
                let who = &self.producer;
                builder = builder.producer(who.producer_id, who.epoch, *next);
                *next += events.len() as i32;
            }
            for event in events {
                let headers = event.headers.iter();
                let headers: Vec<(&[u8], Option<&[u8]>)> = headers
                    .map(|(name, value)| (name.as_bytes(), value.as_deref()))
                    .collect();
                builder.append(
                    now_ms,
                    event.key.as_deref(),
                    event.value.as_deref(),
                    &headers,
                );
            }
            let data = PartitionProduceData {
                index: place.1,
                records: Some(Records::Bytes(builder.build())),
                ..Default::default()
            };
            let topic = TopicProduceData {
                name: place.0.clone(),
                partition_data: vec![data],
                ..Default::default()
            };
            let ask = ProduceRequest {
                transactional_id: exactly_once.then(|| TRANSACTIONAL_ID.to_owned()),
                acks: if at_most_once { 0 } else { -1 },
                timeout_ms: 30_000,
                topic_data: vec![topic],
                ..Default::default()
            };
            let version = match self.protocol {
                Protocol::V1 { produce, .. } => produce,
                Protocol::V2 => 12,
            };
            asks.push((version, ask.into()));
        }
        asks
    }

    pub fn on(
        &mut self,
        context: &mut Context,
        event: ActorEvent,
    ) -> Result<Option<Outcome>, Violation> {
        let lane = match &event {
            ActorEvent::Frame(id, _) | ActorEvent::Closed(id) => {
                self.sessions.iter().position(|s| s.owns(*id))
            }
            ActorEvent::Wake => return Ok(self.go_on(context)),
            ActorEvent::Answered(..) => return Ok(None),
        };
        let Some(lane) = lane else {
            return self.progress_heard(context, event);
        };
        match self.sessions[lane].hear(event)? {
            Heard::Answer(at, body) if self.stage != Stage::Idle => {
                self.heard(context, at as usize, &body)
            }
            Heard::Lost => {
                self.lost(context, lane);
                Ok(None)
            }
            Heard::Answer(..) | Heard::Nothing => Ok(None),
        }
    }

    fn go_on(&mut self, context: &mut Context) -> Option<Outcome> {
        let now = context.scheduler.instant();
        if self.stage == Stage::Idle {
            return None;
        }
        if self.deadline <= now {
            let error = TopicsError::Lost(format!("{:?} was not answered in time", self.stage));
            return Some(self.failed(context, error));
        }
        for lane in [0, 1] {
            let late = |call: &Call| {
                call.lane == lane && call.state == State::Sent && call.deadline <= now
            };
            if self.calls.iter().any(late) {
                self.sessions[lane].abandon(context);
                self.lost(context, lane);
            }
        }
        if now < self.not_before {
            return None;
        }
        if self.stage == Stage::Progress && !self.reader.is_waiting() {
            self.reader.ask(context, 100);
        }
        for at in 0..self.calls.len() {
            if self.calls[at].state == State::Unsent {
                self.send(context, at);
            }
        }
        None
    }

    fn send(&mut self, context: &mut Context, at: usize) {
        let wait_ms = self.plan.request_timeout_ms;
        let call = &mut self.calls[at];
        call.state = State::Sent;
        call.deadline = context.scheduler.instant().plus_ms(wait_ms as i64);
        let (version, body) = call.ask.clone();
        let session = &mut self.sessions[call.lane];
        session.ask(context, version, at as u64, body);
        let one_in = match self.stage {
            Stage::Init | Stage::End { .. } => self.plan.stall_one_in / 3,
            _ => self.plan.stall_one_in,
        };
        if one_in > 0 && !context.healed && context.scheduler.random.one_in(one_in) {
            let ms = 300 + context.scheduler.random.below(6_000);
            session.stall(context, ms);
        }
        context.wake_after_ms(wait_ms);
    }

    /// Whatever was not answered on a connection has to be sent again.
    fn lost(&mut self, context: &mut Context, lane: usize) {
        for call in self.calls.iter_mut().filter(|call| call.lane == lane) {
            if call.state == State::Sent {
                call.state = State::Unsent;
            }
        }
        let pause = context.scheduler.random.below(200);
        let soon = context.scheduler.random.one_in(2);
        self.pause(context, if soon { pause / 40 } else { pause });
    }

    fn pause(&mut self, context: &mut Context, ms: u64) {
        let until = context.scheduler.instant().plus_ms(ms as i64);
        self.not_before = self.not_before.max(until);
        context.wake_after_ms(ms + 1);
    }

    fn heard(
        &mut self,
        context: &mut Context,
        at: usize,
        body: &ResponseBody,
    ) -> Result<Option<Outcome>, Violation> {
        let error = protocol::error_of(body);
        let stage = self.stage;
        if error.is_error() {
            context.trace(|| format!("the relay's {stage:?} is answered {error:?}"));
        }
        let lane = self.calls[at].lane;
        let found = match stage {
            Stage::Topics | Stage::ProgressTopic if error.is_error() => Verdict::Again,
            _ => protocol::verdict(error),
        };
        match found {
            Verdict::Fine => Ok(self.accepted(context, at, body)),
            Verdict::Again => {
                self.calls[at].state = State::Unsent;
                let pause = 10 + context.scheduler.random.below(90);
                self.pause(context, pause);
                Ok(None)
            }
            Verdict::AgainOnNewConnection => {
                self.sessions[lane].abandon(context);
                self.lost(context, lane);
                self.calls[at].state = State::Unsent;
                Ok(None)
            }
            Verdict::Fenced => {
                let error = TopicsError::Fenced(format!("{stage:?}: {error:?}"));
                Ok(Some(self.failed(context, error)))
            }
            // What it knows of its transaction is not so.
            Verdict::Abort => {
                let error = TopicsError::Lost(format!("{stage:?}: {error:?}"));
                Ok(Some(self.failed(context, error)))
            }
            Verdict::Rejoin | Verdict::Unexpected => {
                Err(format!("the relay's {stage:?} is answered {error:?}"))
            }
        }
    }

    fn accepted(
        &mut self,
        context: &mut Context,
        at: usize,
        body: &ResponseBody,
    ) -> Option<Outcome> {
        self.calls[at].state = State::Done;
        match body {
            ResponseBody::InitProducerId(answer) => {
                self.take_epoch(context, answer.producer_id, answer.producer_epoch);
            }
            ResponseBody::EndTxn(answer) if self.protocol == Protocol::V2 => {
                self.take_epoch(context, answer.producer_id, answer.producer_epoch);
            }
            _ => {}
        }
        if self.calls.iter().any(|call| call.state != State::Done) {
            return None;
        }
        match self.stage {
            Stage::Topics if self.delivery() == Delivery::AtMostOnce => {
                self.done(Outcome::Init(Ok(())))
            }
            Stage::Topics => {
                self.enter(context, Stage::Init);
                None
            }
            Stage::ProgressTopic => {
                self.stage = Stage::Progress;
                self.calls.clear();
                self.reader.ask(context, 100);
                None
            }
            Stage::AddPartitions => {
                self.enter(context, Stage::Write);
                None
            }
            Stage::Init => self.done(Outcome::Init(Ok(()))),
            Stage::Write => self.done(Outcome::Publish(Ok(()))),
            Stage::End { commit: true } => self.done(Outcome::Commit(Ok(()))),
            Stage::End { commit: false } => self.done(Outcome::Abort(Ok(()))),
            Stage::Idle | Stage::Progress => None,
        }
    }

    fn take_epoch(&mut self, context: &mut Context, producer_id: i64, epoch: i16) {
        context.trace(|| format!("the relay has producer id {producer_id}, epoch {epoch}"));
        (self.producer.producer_id, self.producer.epoch) = (producer_id, epoch);
        self.sequences.clear();
    }

    fn done(&mut self, outcome: Outcome) -> Option<Outcome> {
        self.calls.clear();
        self.stage = Stage::Idle;
        Some(outcome)
    }

    fn failed(&mut self, context: &mut Context, error: TopicsError) -> Outcome {
        context.trace(|| format!("the relay gives up: {error:?}"));
        let stage = self.stage;
        self.vanish(context);
        match stage {
            Stage::Topics | Stage::Init => Outcome::Init(Err(error)),
            Stage::ProgressTopic | Stage::Progress => Outcome::ReadProgress(Err(error)),
            Stage::AddPartitions | Stage::Write => Outcome::Publish(Err(error)),
            Stage::End { commit: true } => Outcome::Commit(Err(error)),
            Stage::End { commit: false } | Stage::Idle => Outcome::Abort(Err(error)),
        }
    }

    fn progress_heard(
        &mut self,
        context: &mut Context,
        event: ActorEvent,
    ) -> Result<Option<Outcome>, Violation> {
        let Some(records) = self.reader.hear(event)? else {
            return Ok(None);
        };
        if self.stage != Stage::Progress {
            return Ok(None);
        }
        for record in records {
            let value = record.value.as_deref().unwrap_or_default();
            let progress = Progress::decode(value);
            self.progress = Some(progress.map_err(|why| format!("{record}: {why}"))?);
        }
        let place = (PROGRESS.to_owned(), 0);
        // As far as it went when it was first asked for: nobody else may write there any more.
        self.end = self
            .end
            .or(self.reader.told.get(&place).map(|told| told.high));
        if self
            .end
            .is_some_and(|end| self.reader.positions[&place] >= end)
        {
            let progress = self.progress.take();
            context.trace(|| format!("the progress is {progress:?}"));
            return Ok(self.done(Outcome::ReadProgress(Ok(progress))));
        }
        context.wake_after_ms(20);
        Ok(None)
    }
}

fn progress_topic() -> RequestBody {
    let config = CreatableTopicConfig {
        name: "cleanup.policy".to_owned(),
        value: Some("compact".to_owned()),
        ..Default::default()
    };
    let topic = CreatableTopic {
        name: PROGRESS.to_owned(),
        num_partitions: 1,
        replication_factor: 1,
        configs: vec![config],
        ..Default::default()
    };
    let ask = CreateTopicsRequest {
        topics: vec![topic],
        timeout_ms: 30_000,
        ..Default::default()
    };
    ask.into()
}

/// Any function of the key that spreads well.
fn hash(key: &[u8]) -> u32 {
    key.iter().fold(2_166_136_261, |hash: u32, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(16_777_619)
    })
}

fn call(lane: usize, ask: Ask) -> Call {
    Call {
        lane,
        ask,
        state: State::Unsent,
        deadline: Instant::NEVER,
    }
}
