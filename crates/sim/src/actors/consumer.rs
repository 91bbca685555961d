//! A member of a consumer group (classic protocol): joins, syncs, reads from where the group
//! stands, commits, heartbeats. As a zombie it freezes for longer than its session and then
//! commits what it thinks it owns.

use super::membership::{HEARTBEAT_VERSION, JOIN_VERSION, Membership};
use super::session::Heard;
use super::{Actor, ActorEvent, Context, GROUP, Session, TOPIC, is_idempotent};
use crate::history::{Place, Violation};
use crate::plan::Plan;
use oncelog_wire::messages::fetch_request::{FetchPartition, FetchTopic};
use oncelog_wire::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use oncelog_wire::messages::offset_fetch_request::OffsetFetchRequestTopic;
use oncelog_wire::messages::{
    FetchRequest, FetchResponse, JoinGroupResponse, OffsetCommitRequest, OffsetCommitResponse,
    OffsetFetchRequest, OffsetFetchResponse, SyncGroupResponse,
};
use oncelog_wire::records::Batches;
use oncelog_wire::{ErrorCode, Records, ResponseBody};
use std::collections::BTreeMap;

const FREEZE_MS: u64 = 9_000;
/// The highest tag bits of a commit hold the newest generation known when it was sent.
const TAG_PLAIN: u64 = 0;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Joining,
    Positions,
    Reading,
}

pub struct Consumer {
    number: u32,
    plan: Plan,
    session: Session,
    state: State,
    membership: Membership,
    /// Next offset to read of each partition that is owned.
    positions: BTreeMap<i32, i64>,
    frozen: bool,
    reads: u32,
}

impl Consumer {
    pub fn new(number: u32, plan: &Plan) -> Consumer {
        Consumer {
            number,
            plan: plan.clone(),
            session: Session::default(),
            state: State::Joining,
            membership: Membership::new(GROUP, TOPIC, plan.partitions),
            positions: BTreeMap::new(),
            frozen: false,
            reads: 0,
        }
    }

    fn go_on(&mut self, context: &mut Context) {
        if self.frozen {
            self.frozen = false;
            context.trace(|| format!("consumer {} thaws", self.number));
            self.commit(context); // what a zombie does first
            return;
        }
        if self.session.outstanding() > 0 || context.healed {
            return;
        }
        match self.state {
            State::Joining => {
                let ask = self.membership.join();
                self.session.ask(context, JOIN_VERSION, TAG_PLAIN, ask);
            }
            State::Positions => self.ask_positions(context),
            State::Reading => self.read(context),
        }
    }

    /// Has to join again.
    fn rejoin(&mut self, context: &mut Context) {
        self.state = State::Joining;
        context.wake_after_ms(20);
    }

    fn joined(&mut self, context: &mut Context, answer: &JoinGroupResponse) {
        match self.membership.joined(answer) {
            Some((version, ask)) => self.session.ask(context, version, TAG_PLAIN, ask),
            None => context.wake_after_ms(50),
        }
    }

    fn synced(
        &mut self,
        context: &mut Context,
        answer: &SyncGroupResponse,
    ) -> Result<(), Violation> {
        let Some(owned) = self.membership.synced(context, answer)? else {
            self.rejoin(context);
            return Ok(());
        };
        self.positions = owned.into_iter().map(|partition| (partition, 0)).collect();
        self.state = State::Positions;
        context.wake_after_ms(1);
        Ok(())
    }

    fn ask_positions(&mut self, context: &mut Context) {
        let topic = OffsetFetchRequestTopic {
            name: TOPIC.to_owned(),
            partition_indexes: self.positions.keys().copied().collect(),
            ..Default::default()
        };
        let ask = OffsetFetchRequest {
            group_id: GROUP.to_owned(),
            topics: Some(vec![topic]),
            ..Default::default()
        };
        self.session.ask(context, 5, TAG_PLAIN, ask.into());
    }

    fn positioned(&mut self, context: &mut Context, answer: &OffsetFetchResponse) {
        for topic in &answer.topics {
            for partition in &topic.partitions {
                let at = partition.committed_offset.max(0);
                self.positions.insert(partition.partition_index, at);
            }
        }
        self.state = State::Reading;
        context.wake_after_ms(1);
    }

    fn read(&mut self, context: &mut Context) {
        self.reads += 1;
        if self.plan.zombies && context.scheduler.random.one_in(40) {
            context.trace(|| format!("consumer {} freezes", self.number));
            self.frozen = true;
            return context.wake_after_ms(FREEZE_MS);
        }
        if self.reads % 4 == 1 {
            let ask = self.membership.heartbeat();
            return self.session.ask(context, HEARTBEAT_VERSION, TAG_PLAIN, ask);
        }
        if self.reads % 4 == 3 && !self.positions.is_empty() {
            return self.commit(context);
        }
        self.session
            .ask(context, 11, TAG_PLAIN, fetch(&self.positions).into());
    }

    fn commit(&mut self, context: &mut Context) {
        let partition = |(partition, offset): (&i32, &i64)| OffsetCommitRequestPartition {
            partition_index: *partition,
            committed_offset: *offset,
            committed_metadata: Some(String::new()),
            ..Default::default()
        };
        let topic = OffsetCommitRequestTopic {
            name: TOPIC.to_owned(),
            partitions: self.positions.iter().map(partition).collect(),
            ..Default::default()
        };
        let ask = OffsetCommitRequest {
            group_id: GROUP.to_owned(),
            generation_id_or_member_epoch: self.membership.generation,
            member_id: self.membership.member.clone(),
            topics: vec![topic],
            ..Default::default()
        };
        let newest = self.membership.newest(context);
        let generation = self.membership.generation;
        let tag = (newest as u32 as u64) << 32 | u64::from(generation as u32);
        self.session.ask(context, 7, tag, ask.into());
    }

    fn go_on_or_rejoin(&mut self, context: &mut Context, code: i16) {
        match self.membership.still_member(code) {
            true => context.wake_after_ms(50),
            false => self.rejoin(context),
        }
    }

    fn committed(
        &mut self,
        context: &mut Context,
        tag: u64,
        answer: &OffsetCommitResponse,
    ) -> Result<(), Violation> {
        let (newest, generation) = ((tag >> 32) as i32, tag as u32 as i32);
        let mut code = 0;
        for partition in answer.topics.iter().flat_map(|topic| &topic.partitions) {
            code = partition.error_code;
            if code == 0 {
                let place = (TOPIC.to_owned(), partition.partition_index);
                let offset = self.positions[&partition.partition_index];
                context
                    .history
                    .committed(GROUP, &place, offset, generation, newest)?;
            }
        }
        self.go_on_or_rejoin(context, code);
        Ok(())
    }

    fn heard(
        &mut self,
        context: &mut Context,
        tag: u64,
        body: ResponseBody,
    ) -> Result<(), Violation> {
        match body {
            ResponseBody::JoinGroup(answer) => self.joined(context, &answer),
            ResponseBody::SyncGroup(answer) => self.synced(context, &answer)?,
            ResponseBody::OffsetFetch(answer) => self.positioned(context, &answer),
            ResponseBody::OffsetCommit(answer) => self.committed(context, tag, &answer)?,
            ResponseBody::Heartbeat(answer) => {
                self.go_on_or_rejoin(context, answer.error_code);
            }
            ResponseBody::Fetch(answer) => {
                take_in(context, &answer, &mut self.positions, &self.plan)?;
                let think = 10 + context.scheduler.random.below(300);
                context.wake_after_ms(think);
            }
            other => return Err(format!("an answer of {:?}", other.api_key())),
        }
        Ok(())
    }
}

/// A sessionless fetch of everything from the given positions.
pub fn fetch(positions: &BTreeMap<i32, i64>) -> FetchRequest {
    let partition = |(partition, offset): (&i32, &i64)| FetchPartition {
        partition: *partition,
        fetch_offset: *offset,
        partition_max_bytes: 4_096,
        ..Default::default()
    };
    let topic = FetchTopic {
        topic: TOPIC.to_owned(),
        partitions: positions.iter().map(partition).collect(),
        ..Default::default()
    };
    FetchRequest {
        max_wait_ms: 100,
        min_bytes: 1,
        max_bytes: 16_384,
        topics: vec![topic],
        ..Default::default()
    }
}

/// Tells the history what a fetch answer holds and moves the positions behind it; returns what
/// was new.
pub fn take_in(
    context: &mut Context,
    answer: &FetchResponse,
    positions: &mut BTreeMap<i32, i64>,
    plan: &Plan,
) -> Result<Vec<(Place, i64, String)>, Violation> {
    let mut new = Vec::new();
    for data in answer.responses.iter().flat_map(|topic| &topic.partitions) {
        if data.error_code != 0 {
            let error = ErrorCode::from_code(data.error_code);
            context.trace(|| format!("partition {} gives {error:?}", data.partition_index));
            continue;
        }
        let place = (TOPIC.to_owned(), data.partition_index);
        context.history.watermark(&place, data.high_watermark)?;
        let Some(Records::Bytes(bytes)) = &data.records else {
            continue;
        };
        let position = positions
            .get_mut(&data.partition_index)
            .ok_or("an unasked partition")?;
        for batch in Batches::with_partial_end(bytes.clone()) {
            let batch = batch.map_err(|error| format!("{place:?}: {error}"))?;
            batch
                .check_crc()
                .map_err(|error| format!("{place:?} serves: {error}"))?;
            if batch.header.last_offset() >= data.high_watermark {
                return Err(format!("{place:?} serves a batch above its high watermark"));
            }
            for record in batch.records(1 << 20).map_err(|error| error.to_string())? {
                let record = record.map_err(|error| error.to_string())?;
                if record.offset < *position {
                    continue;
                }
                let value = String::from_utf8_lossy(record.value.as_deref().unwrap_or_default());
                let idempotent = is_idempotent(&value, plan);
                context
                    .history
                    .read(&place, record.offset, &value, idempotent)?;
                new.push((place.clone(), record.offset, value.into_owned()));
                *position = record.offset + 1;
            }
        }
    }
    Ok(new)
}

impl Actor for Consumer {
    fn on(&mut self, context: &mut Context, event: ActorEvent) -> Result<(), Violation> {
        let woken = matches!(event, ActorEvent::Wake);
        match self.session.hear(event)? {
            Heard::Answer(tag, body) => self.heard(context, tag, *body)?,
            Heard::Lost => context.wake_after_ms(50),
            Heard::Nothing if woken => self.go_on(context),
            Heard::Nothing => {}
        }
        Ok(())
    }

    /// Consumers stop when the world has healed; the reader looks at what is left.
    fn done(&self) -> bool {
        self.session.outstanding() == 0
    }

    fn describe(&self) -> String {
        format!(
            "consumer {}: {:?}, generation {}",
            self.number, self.state, self.membership.generation
        )
    }
}
