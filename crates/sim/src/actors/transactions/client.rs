//! One instance of a transactional producer: gets its producer id, and carries out one transaction
//! after the other, request by request, in either protocol.
//!
//! It tries again as real clients do: on a new connection when one broke or when an answer did not
//! come in time, and then what it had sent on the old one may still arrive. It never gives a write
//! up (a client that does needs a new epoch): it is answered, or the instance dies. What it is told
//! is checked here where that needs to know what was asked: a superseded instance gets nothing done,
//! and nobody is fenced without a reason.

use super::protocol::{self, Ask, Producer, Protocol, Verdict, error_of, verdict};
use super::work::{Work, Write};
use super::{APP_GROUP, TOPICS};
use crate::actors::session::Heard;
use crate::actors::{ActorEvent, Context, Session, create_topics};
use crate::history::Violation;
use crate::plan::TransactionPlan;
use oncelog_broker::ConnectionId;
use oncelog_wire::clock::Instant;
use oncelog_wire::{ErrorCode, ResponseBody};
use std::collections::BTreeMap;
use std::ops::Range;

const COORDINATOR: usize = 0;

/// What an instance has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happening {
    /// It has a producer id.
    Ready,
    Committed,
    Aborted,
    /// Aborted, because the group has moved on.
    Rejoin,
    /// It cannot go on: a new instance has to.
    Dead,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Topics,
    Init,
    Idle,
    AddPartitions,
    Write,
    AddOffsets,
    CommitOffsets,
    End {
        commit: bool,
    },
    /// The next epoch of the old protocol, after trouble.
    Bump {
        after: Happening,
    },
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
    /// Of `Write`: which of the transaction's batches it carries.
    writes: Range<usize>,
    state: State,
    /// Earlier tries that the broker may have heard, or may yet hear.
    doubts: u32,
    /// A newer instance was there when it was sent.
    superseded: bool,
    deadline: Instant,
}

/// How an instance behaves.
#[derive(Clone, Debug)]
pub struct Settings {
    pub protocol: Protocol,
    pub plan: TransactionPlan,
    /// Of the transaction, as the coordinator is told.
    pub timeout_ms: i32,
}

pub struct Client {
    app: u32,
    instance: u32,
    settings: Settings,
    /// The coordinator's connection, and the leaders' if they have one of their own.
    sessions: [Session; 2],
    calls: Vec<Call>,
    stage: Stage,
    /// Nothing is sent before.
    not_before: Instant,
    producer: Producer,
    sequences: BTreeMap<(String, i32), i32>,
    work: Option<Work>,
    /// When the first request was sent that may have begun the transaction.
    began: Option<Instant>,
    /// Why the transaction cannot be committed.
    trouble: Option<Verdict>,
}

impl Client {
    pub fn new(app: u32, instance: u32, settings: Settings) -> Client {
        let producer = Producer {
            transactional_id: format!("app-{app}"),
            producer_id: -1,
            epoch: -1,
        };
        let mut client = Client {
            app,
            instance,
            sessions: [Session::default(), Session::default()],
            calls: Vec::new(),
            stage: Stage::Topics,
            not_before: Instant(0),
            producer,
            sequences: BTreeMap::new(),
            work: None,
            began: None,
            trouble: None,
            settings,
        };
        let topics = create_topics(&TOPICS, client.settings.plan.partitions);
        client.calls = vec![call(COORDINATOR, (5, topics))];
        client
    }

    pub fn is_idle(&self) -> bool {
        self.stage == Stage::Idle
    }

    /// In a transaction of which the coordinator may know.
    pub fn is_busy(&self) -> bool {
        self.work.is_some()
    }

    pub fn owns(&self, connection: ConnectionId) -> bool {
        self.sessions.iter().any(|s| s.owns(connection))
    }

    pub fn describe(&self) -> String {
        format!("instance {} in {:?}", self.instance, self.stage)
    }

    /// Starts a transaction; the instance must be idle.
    pub fn begin(&mut self, context: &mut Context, work: Work) {
        assert!(self.is_idle(), "one transaction at a time");
        work.begins(context.history);
        self.trace(context, || {
            let offsets = work.offsets.as_ref().map(|offsets| &offsets.positions);
            format!("begins {}, offsets {offsets:?}", work.id)
        });
        self.work = Some(work);
        match self.settings.protocol {
            Protocol::V1 { .. } => self.enter(context, Stage::AddPartitions),
            Protocol::V2 => self.enter(context, Stage::Write),
        }
    }

    /// The instance is gone in the middle of whatever it did; what it sent may still arrive.
    pub fn vanish(&mut self, context: &mut Context) {
        for lane in [0, 1] {
            self.give_up(context, lane);
        }
    }

    pub fn on(
        &mut self,
        context: &mut Context,
        event: ActorEvent,
    ) -> Result<Option<Happening>, Violation> {
        let lane = match &event {
            ActorEvent::Wake => {
                self.go_on(context);
                return Ok(None);
            }
            ActorEvent::Frame(id, _) | ActorEvent::Closed(id) => {
                self.sessions.iter().position(|s| s.owns(*id))
            }
            ActorEvent::Answered(..) => None,
        };
        let Some(lane) = lane else {
            return Ok(None);
        };
        match self.sessions[lane].hear(event)? {
            Heard::Answer(at, body) => self.heard(context, at as usize, &body),
            Heard::Lost => {
                self.lost(context, lane);
                Ok(None)
            }
            Heard::Nothing => Ok(None),
        }
    }

    fn go_on(&mut self, context: &mut Context) {
        let now = context.scheduler.instant();
        for lane in [0, 1] {
            let late = |call: &Call| {
                call.lane == lane && call.state == State::Sent && call.deadline <= now
            };
            if self.calls.iter().any(late) {
                self.trace(context, || "waits for an answer no longer".to_owned());
                self.give_up(context, lane);
            }
        }
        if now < self.not_before {
            return;
        }
        for at in 0..self.calls.len() {
            if self.calls[at].state == State::Unsent {
                self.send(context, at);
            }
        }
    }

    fn send(&mut self, context: &mut Context, at: usize) {
        let now = context.scheduler.instant();
        let superseded = self.is_superseded(context);
        match self.stage {
            Stage::Init => context
                .history
                .transactions
                .init_asked(self.app, self.instance),
            Stage::AddPartitions | Stage::Write => {
                self.began.get_or_insert(now);
            }
            Stage::CommitOffsets => self.note_generation(context),
            Stage::End { commit: true } if !superseded => {
                let work = self.work.as_ref().expect("there is one to end");
                context.history.transactions.commit_asked(work.id);
            }
            _ => {}
        }
        let wait_ms = self.settings.plan.request_timeout_ms;
        let call = &mut self.calls[at];
        call.superseded = superseded;
        call.state = State::Sent;
        call.deadline = now.plus_ms(wait_ms as i64);
        let (version, body) = call.ask.clone();
        let session = &mut self.sessions[call.lane];
        session.ask(context, version, at as u64, body);
        // What ends a transaction, or counts with its end, does the most harm in the next one.
        let one_in = match self.stage {
            Stage::CommitOffsets | Stage::End { .. } => self.settings.plan.stall_one_in / 3,
            _ => self.settings.plan.stall_one_in,
        };
        if one_in > 0 && !context.healed && context.scheduler.random.one_in(one_in) {
            let ms = 500 + context.scheduler.random.below(6_000);
            session.stall(context, ms);
        }
        context.wake_after_ms(wait_ms);
    }

    fn note_generation(&mut self, context: &Context) {
        let newest = context.history.generation.get(APP_GROUP).copied();
        let work = self.work.as_mut().expect("offsets belong to one");
        let offsets = work.offsets.as_mut().expect("there are offsets to commit");
        offsets.newest = newest.unwrap_or(-1);
    }

    fn is_superseded(&self, context: &Context) -> bool {
        let known = &context.history.transactions;
        known.is_superseded(self.app, self.instance)
    }

    /// Waits no longer on a connection; it stays as it is for what is on its way.
    fn give_up(&mut self, context: &mut Context, lane: usize) {
        self.sessions[lane].abandon(context);
        self.lost(context, lane);
    }

    /// Whatever was not answered on a connection has to be sent again.
    fn lost(&mut self, context: &mut Context, lane: usize) {
        for call in self.calls.iter_mut().filter(|call| call.lane == lane) {
            if call.state == State::Sent {
                call.state = State::Unsent;
                call.doubts += u32::from(!call.superseded);
            }
        }
        if matches!(self.stage, Stage::Init | Stage::Bump { .. }) {
            context.history.transactions.init_given_up(self.app);
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
    ) -> Result<Option<Happening>, Violation> {
        let error = error_of(body);
        if error.is_error() {
            let stage = self.stage;
            self.trace(context, || format!("{stage:?} is answered {error:?}"));
        }
        match verdict(error) {
            Verdict::Fine => self.accepted(context, at, body),
            found if found == Verdict::Again || self.stage == Stage::Topics => {
                self.calls[at].state = State::Unsent;
                // Batches of one partition must stay in their order.
                if self.stage == Stage::Write {
                    self.give_up(context, self.calls[at].lane);
                }
                let pause = 10 + context.scheduler.random.below(90);
                self.pause(context, pause);
                Ok(None)
            }
            Verdict::AgainOnNewConnection => {
                self.calls[at].state = State::Unsent;
                self.give_up(context, self.calls[at].lane);
                Ok(None)
            }
            found => self.refused(context, at, error, found),
        }
    }

    fn accepted(
        &mut self,
        context: &mut Context,
        at: usize,
        body: &ResponseBody,
    ) -> Result<Option<Happening>, Violation> {
        let harmless = matches!(
            self.stage,
            Stage::Topics | Stage::Init | Stage::End { commit: false }
        );
        if self.calls[at].superseded && !harmless {
            return Err(format!(
                "instance {} of application {} is superseded, and {:?} is accepted from it",
                self.instance, self.app, self.stage
            ));
        }
        self.calls[at].state = State::Done;
        match body {
            ResponseBody::InitProducerId(answer) => {
                self.take_epoch(context, answer.producer_id, answer.producer_epoch)?;
            }
            ResponseBody::Produce(answer) => {
                for topic in &answer.responses {
                    for partition in &topic.partition_responses {
                        let place = (topic.name.clone(), partition.index);
                        self.wrote(context, at, &place, partition.base_offset)?;
                    }
                }
            }
            ResponseBody::TxnOffsetCommit(_) => {
                let work = self.work.as_ref().expect("offsets belong to one");
                let offsets = work.offsets.as_ref().expect("there were offsets");
                let (generation, newest) = (offsets.generation, offsets.newest);
                context
                    .history
                    .accepted_from(APP_GROUP, generation, newest)?;
            }
            ResponseBody::EndTxn(answer) if self.settings.protocol == Protocol::V2 => {
                self.take_epoch(context, answer.producer_id, answer.producer_epoch)?;
            }
            _ => {}
        }
        match self.calls.iter().all(|call| call.state == State::Done) {
            true => self.stage_done(context),
            false => Ok(None),
        }
    }

    fn take_epoch(
        &mut self,
        context: &mut Context,
        producer_id: i64,
        epoch: i16,
    ) -> Result<(), Violation> {
        let who = (self.app, self.instance);
        self.trace(context, || {
            format!("has producer id {producer_id}, epoch {epoch}")
        });
        (self.producer.producer_id, self.producer.epoch) = (producer_id, epoch);
        self.sequences.clear();
        context
            .history
            .transactions
            .epoch_given(who, producer_id, epoch)
    }

    /// A batch was acknowledged.
    fn wrote(
        &mut self,
        context: &mut Context,
        at: usize,
        place: &(String, i32),
        base_offset: i64,
    ) -> Result<(), Violation> {
        let work = self.work.as_ref().expect("writes belong to one");
        let writes = &work.writes[self.calls[at].writes.clone()];
        let write = writes.iter().find(|write| write.place == *place);
        let write = write.ok_or_else(|| format!("nothing was written to {place:?}"))?;
        for (offset, value) in (base_offset..).zip(&write.values) {
            context.history.read(place, offset, value, true)?;
            context.history.transactions.wrote(place, offset, value);
        }
        Ok(())
    }

    /// All that the stage asked for is answered.
    fn stage_done(&mut self, context: &mut Context) -> Result<Option<Happening>, Violation> {
        let has_offsets = self
            .work
            .as_ref()
            .is_some_and(|work| work.offsets.is_some());
        let next = match self.stage {
            Stage::Topics => Stage::Init,
            Stage::Init => return Ok(Some(self.rest(Happening::Ready))),
            Stage::Bump { after } => return Ok(Some(self.rest(after))),
            Stage::End { commit } => return self.ended(context, commit),
            _ if self.trouble.is_some() => return self.abort(context),
            Stage::AddPartitions => Stage::Write,
            Stage::Write if !has_offsets => return self.end(context),
            Stage::Write => match self.settings.protocol {
                Protocol::V1 { .. } => Stage::AddOffsets,
                Protocol::V2 => Stage::CommitOffsets,
            },
            Stage::AddOffsets => Stage::CommitOffsets,
            Stage::CommitOffsets => return self.end(context),
            Stage::Idle => return Err("an answer that nobody waits for".to_owned()),
        };
        self.enter(context, next);
        Ok(None)
    }

    fn rest(&mut self, happening: Happening) -> Happening {
        self.calls.clear();
        self.stage = Stage::Idle;
        happening
    }

    fn end(&mut self, context: &mut Context) -> Result<Option<Happening>, Violation> {
        let work = self.work.as_ref().expect("there is one to end");
        if !work.commit {
            return self.abort(context);
        }
        self.enter(context, Stage::End { commit: true });
        Ok(None)
    }

    fn abort(&mut self, context: &mut Context) -> Result<Option<Happening>, Violation> {
        let work = self.work.as_ref().expect("there is one to abort");
        context.history.transactions.aborted(work.id)?;
        self.enter(context, Stage::End { commit: false });
        Ok(None)
    }

    /// The transaction has ended, and in which way is certain.
    fn ended(
        &mut self,
        context: &mut Context,
        commit: bool,
    ) -> Result<Option<Happening>, Violation> {
        let work = self.work.take().expect("there was one to end");
        self.began = None;
        let trouble = self.trouble.take();
        self.trace(context, || {
            format!("has ended {}, commit: {commit}", work.id)
        });
        if commit {
            context.history.transactions.committed(work.id)?;
            return Ok(Some(self.rest(Happening::Committed)));
        }
        let after = match trouble {
            Some(Verdict::Rejoin) => Happening::Rejoin,
            _ => Happening::Aborted,
        };
        let is_old = self.settings.protocol != Protocol::V2;
        let refused = trouble == Some(Verdict::Abort);
        if is_old && (refused || context.scheduler.random.one_in(6)) {
            self.enter(context, Stage::Bump { after });
            return Ok(None);
        }
        Ok(Some(self.rest(after)))
    }

    /// Something was refused for good.
    fn refused(
        &mut self,
        context: &mut Context,
        at: usize,
        error: ErrorCode,
        found: Verdict,
    ) -> Result<Option<Happening>, Violation> {
        self.calls[at].state = State::Done;
        let now = context.scheduler.instant();
        let timeout_ms = i64::from(self.settings.timeout_ms);
        let took_too_long = self
            .began
            .is_some_and(|began| now.ms_since(began) >= timeout_ms);
        let fenced = context
            .history
            .transactions
            .may_be_fenced(self.app, self.instance);
        let fits = match found {
            Verdict::Fenced => self.stage != Stage::Init && (took_too_long || fenced),
            Verdict::Abort => self.work.is_some() && (took_too_long || fenced),
            Verdict::Rejoin => self.stage == Stage::CommitOffsets,
            _ => false,
        };
        if !fits {
            return Err(format!(
                "instance {} of application {}: {:?} is answered {error:?} for no reason",
                self.instance, self.app, self.stage
            ));
        }
        if let Stage::End { commit } = self.stage {
            let work = self.work.as_ref().expect("there is one to end");
            if commit && self.calls[at].doubts == 0 {
                context.history.transactions.aborted(work.id)?;
            }
            return Ok(Some(self.dies(context)));
        }
        let is_fatal = found == Verdict::Fenced || self.stage == Stage::AddPartitions;
        if is_fatal {
            return Ok(Some(self.dies(context)));
        }
        self.trouble.get_or_insert(found);
        match self.calls.iter().all(|call| call.state == State::Done) {
            true => self.abort(context),
            false => Ok(None),
        }
    }

    fn dies(&mut self, context: &mut Context) -> Happening {
        self.trace(context, || "is fenced".to_owned());
        context.history.transactions.fenced += 1;
        self.vanish(context);
        self.calls.clear();
        Happening::Dead
    }

    fn enter(&mut self, context: &mut Context, stage: Stage) {
        self.stage = stage;
        let (who, protocol) = (&self.producer, self.settings.protocol);
        let timeout_ms = self.settings.timeout_ms;
        let id = &who.transactional_id;
        let work = || self.work.as_ref().expect("the stage belongs to one");
        let offsets = || work().offsets.as_ref().expect("there are offsets");
        let data = usize::from(self.settings.plan.split_connections);
        self.calls = match stage {
            Stage::Init => vec![call(COORDINATOR, protocol.init(id, timeout_ms, None))],
            Stage::Bump { .. } => {
                vec![call(COORDINATOR, protocol.init(id, timeout_ms, Some(who)))]
            }
            Stage::AddPartitions => {
                let ask = protocol::add_partitions(who, &work().writes);
                vec![call(COORDINATOR, ask)]
            }
            Stage::AddOffsets => vec![call(COORDINATOR, protocol::add_offsets(who))],
            Stage::CommitOffsets => vec![call(data, protocol.commit_offsets(who, offsets()))],
            Stage::End { commit } => vec![call(COORDINATOR, protocol.end(who, commit))],
            Stage::Write => self.writes(context, data),
            Stage::Topics | Stage::Idle => Vec::new(),
        };
        let random = &mut context.scheduler.random;
        let mut think = if random.one_in(4) {
            random.below(400)
        } else {
            0
        };
        if !context.healed && self.work.is_some() && random.one_in(60) {
            think += self.settings.timeout_ms as u64;
        }
        self.pause(context, think);
    }

    /// The transaction's batches, alone or several partitions in a request.
    fn writes(&mut self, context: &mut Context, lane: usize) -> Vec<Call> {
        let work = self.work.as_ref().expect("writes belong to one");
        let now_ms = context.scheduler.now().wall_ms;
        let mut calls = Vec::new();
        let mut from = 0;
        while from < work.writes.len() {
            let mut to = from + 1;
            while to < work.writes.len()
                && context.scheduler.random.one_in(2)
                && work.writes[from..to]
                    .iter()
                    .all(|before| before.place != work.writes[to].place)
            {
                to += 1;
            }
            let mut batches = Vec::new();
            for write in &work.writes[from..to] {
                let next = self.sequences.entry(write.place.clone()).or_default();
                batches.push((write, *next));
                *next += write.values.len() as i32;
            }
            self.trace(context, || {
                let batch = |(write, sequence): &(&Write, i32)| {
                    let ((topic, index), count) = (&write.place, write.values.len());
                    format!(" {count} at {sequence} to {topic}-{index}")
                };
                let batches: String = batches.iter().map(batch).collect();
                format!("writes{batches}")
            });
            let ask = self
                .settings
                .protocol
                .produce(&self.producer, &batches, now_ms);
            calls.push(Call {
                writes: from..to,
                ..call(lane, ask)
            });
            from = to;
        }
        calls
    }

    fn trace(&self, context: &mut Context, line: impl FnOnce() -> String) {
        let (app, instance) = (self.app, self.instance);
        context.trace(|| format!("app-{app} #{instance} {}", line()));
    }
}

fn call(lane: usize, ask: Ask) -> Call {
    Call {
        lane,
        ask,
        writes: 0..0,
        state: State::Unsent,
        doubts: 0,
        superseded: false,
        deadline: Instant::NEVER,
    }
}
