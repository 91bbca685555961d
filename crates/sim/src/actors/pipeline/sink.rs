//! A member of the sink's group: the sink's pure loop, with the simulated broker on one side and the
//! simulated database on the other. It crashes and comes back as another member, or freezes for longer
//! than its session and goes on with what it had in its hands, when others have its partitions.

use super::super::membership::{HEARTBEAT_VERSION, JOIN_VERSION, Membership, SESSION_MS};
use super::database::DatabaseClient;
use super::records::Reader;
use super::{EVENTS, SINK_GROUP};
use crate::actors::session::{Heard, Session};
use crate::actors::{Actor, ActorEvent, Context, create_topics};
use crate::database::target::COLUMNS;
use crate::database::{Answer, Ask};
use crate::history::{Place as TopicPlace, Violation};
use crate::plan::PipelinePlan;
use oncelog_sink::config::{Config, Delivery};
use oncelog_sink::record::{Place, SinkRecord, TopicPartition};
use oncelog_sink::records::{Limit, Polled, Range, Rebalance, RecordsError};
use oncelog_sink::sink::{Operation, Outcome, Sink, Stop};
use oncelog_sink::target::{TargetError, Transaction};
use oncelog_wire::clock::Instant;
use oncelog_wire::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use oncelog_wire::messages::offset_fetch_request::OffsetFetchRequestTopic;
use oncelog_wire::messages::{OffsetCommitRequest, OffsetFetchRequest, SyncGroupResponse};
use oncelog_wire::{RequestBody, ResponseBody};
use std::collections::BTreeMap;

const HEARTBEAT_MS: i64 = 2_000;
const FREEZE_MS: u64 = 2_000 + SESSION_MS as u64;
/// Polls in a row without a record, after which a member has nothing to do.
const QUIET: u32 = 3;
const CLUSTER: &str = "simulated";

/// What the sink waits for.
#[derive(Clone, Debug, PartialEq)]
enum Waiting {
    /// The topic is there.
    Subscribe,
    Poll {
        limit: Limit,
        until: Instant,
    },
    /// The beginnings and ends, and then, if asked for, the group's offsets.
    Ranges {
        partitions: Vec<TopicPartition>,
        committed: bool,
    },
    Committed(Vec<Range>),
    Commit,
    Probe(Vec<Place>),
    Describe,
    Claim,
    Apply,
    Pause(Instant),
    /// Nothing has been asked for.
    Nothing,
}

pub struct SinkActor {
    number: u32,
    plan: PipelinePlan,
    config: Config,
    sink: Option<Sink>,
    database: DatabaseClient,
    /// The group's coordinator.
    session: Session,
    reader: Reader,
    membership: Membership,
    is_member: bool,
    /// Told to the sink as assigned.
    owned: Option<Vec<TopicPartition>>,
    heartbeat_at: Instant,
    waiting: Waiting,
    quiet: u32,
    /// Nothing is done before: what is heard waits.
    not_before: Instant,
    heard: Vec<ActorEvent>,
    /// It froze before it sent this.
    held_back: Option<Transaction>,
    done: bool,
    stopped: bool,
}

impl SinkActor {
    pub fn new(number: u32, plan: &PipelinePlan) -> SinkActor {
        SinkActor {
            number,
            plan: plan.clone(),
            config: config(plan),
            sink: None,
            database: DatabaseClient::new(plan.answer_ms, plan.stall_one_in),
            session: Session::default(),
            reader: Reader::default(),
            membership: Membership::new(SINK_GROUP, EVENTS, plan.partitions),
            is_member: false,
            owned: None,
            heartbeat_at: Instant(0),
            waiting: Waiting::Nothing,
            quiet: 0,
            not_before: Instant(0),
            heard: Vec::new(),
            held_back: None,
            done: false,
            stopped: false,
        }
    }

    fn go_on(&mut self, context: &mut Context) -> Result<(), Violation> {
        if self.sink.is_none() {
            let number = self.number;
            context.trace(|| format!("sink {number} starts"));
            self.sink = Some(Sink::new(&self.config));
            return self.drive(context, Outcome::Started);
        }
        if let Some(transaction) = self.held_back.take() {
            self.ask(context, Waiting::Apply, Ask::Apply(transaction));
            return Ok(());
        }
        if self.database.is_late(context)
            && let Some(outcome) = self.lost("the database does not answer")
        {
            return self.drive(context, outcome);
        }
        let now = context.scheduler.instant();
        match self.waiting.clone() {
            Waiting::Pause(until) if until <= now => self.drive(context, Outcome::Wait),
            Waiting::Poll { until, .. } => self.poll_on(context, until),
            Waiting::Ranges { .. } | Waiting::Probe(_) if !self.reader.is_waiting() => {
                self.reader.ask(context, 0);
                Ok(())
            }
            Waiting::Subscribe if self.session.outstanding() == 0 => {
                let topics = create_topics(&[EVENTS], self.plan.partitions);
                self.session.ask(context, 5, 0, topics);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// The member's part of a poll: to be one, and to read.
    fn poll_on(&mut self, context: &mut Context, until: Instant) -> Result<(), Violation> {
        let now = context.scheduler.instant();
        if self.session.outstanding() > 0 {
            return Ok(());
        }
        if !self.is_member {
            let ask = self.membership.join();
            self.session.ask(context, JOIN_VERSION, 0, ask);
            return Ok(());
        }
        if self.heartbeat_at <= now {
            self.heartbeat_at = now.plus_ms(HEARTBEAT_MS);
            let ask = self.membership.heartbeat();
            self.session.ask(context, HEARTBEAT_VERSION, 0, ask);
            return Ok(());
        }
        if self.reader.is_waiting() {
            return Ok(());
        }
        if until <= now {
            return self.polled(context, Vec::new(), Vec::new());
        }
        match self.reader.positions.is_empty() {
            true => context.wake_after_ms(100),
            false => self.reader.ask(context, 100),
        }
        Ok(())
    }

    fn polled(
        &mut self,
        context: &mut Context,
        records: Vec<SinkRecord>,
        rebalances: Vec<Rebalance>,
    ) -> Result<(), Violation> {
        self.quiet = match records.is_empty() && rebalances.is_empty() {
            true => self.quiet + 1,
            false => 0,
        };
        if self.quiet > 0 && context.history.pipeline.relay_done {
            for (place, position) in &self.reader.positions {
                if self
                    .reader
                    .told
                    .get(place)
                    .is_some_and(|told| told.high == *position)
                {
                    context.history.pipeline.covered.insert(place.1);
                }
            }
        }
        let polled = Polled {
            records,
            rebalances,
        };
        self.drive(context, Outcome::Poll(Ok(polled)))
    }

    fn drive(&mut self, context: &mut Context, outcome: Outcome) -> Result<(), Violation> {
        let mut outcome = outcome;
        loop {
            let sink = self.sink.as_mut().expect("it has started");
            let operation = sink.step(outcome);
            let number = self.number;
            if !matches!(operation, Operation::Poll(..)) {
                context.trace(|| format!("sink {number}: {operation:?}"));
            }
            match self.perform(context, operation)? {
                Some(next) => outcome = next,
                None => break,
            }
        }
        self.may_fall(context);
        Ok(())
    }

    /// Begins an operation; gives the outcome where there is nothing to wait for.
    fn perform(
        &mut self,
        context: &mut Context,
        operation: Operation,
    ) -> Result<Option<Outcome>, Violation> {
        let now = context.scheduler.instant();
        self.waiting = Waiting::Nothing;
        match operation {
            Operation::Open => {
                self.database.abandon(context);
                self.ask(context, Waiting::Describe, Ask::Describe);
            }
            Operation::Subscribe => {
                self.leave(context);
                self.waiting = Waiting::Subscribe;
                context.wake_after_ms(1);
            }
            Operation::Poll(limit, wait) => return Ok(self.poll(context, limit, wait)),
            Operation::Ranges(partitions, committed) => {
                let place = |one: &TopicPartition| (topic_place(one), 0);
                self.reader.abandon(context);
                self.reader = Reader::new(partitions.iter().map(place).collect());
                self.waiting = Waiting::Ranges {
                    partitions,
                    committed,
                };
                self.reader.ask(context, 0);
            }
            Operation::Claim(cluster, requests) => {
                self.ask(context, Waiting::Claim, Ask::Claim(cluster, requests));
            }
            Operation::Assign(places) => {
                self.read_from(context, &places);
                return Ok(Some(Outcome::Assign(Ok(()))));
            }
            Operation::Seek(places) => {
                self.read_from(context, &places);
                return Ok(Some(Outcome::Seek(Ok(()))));
            }
            Operation::Apply(transaction) => self.apply(context, transaction),
            // Nothing depends on it.
            Operation::Commit(_, true) => return Ok(Some(Outcome::Commit(Ok(())))),
            Operation::Commit(places, false) => {
                self.waiting = Waiting::Commit;
                let ask = self.commit(&places);
                self.session.ask(context, 7, 0, ask);
            }
            Operation::Probe(places) => {
                let from = places
                    .iter()
                    .map(|place| (topic_place(&place.partition), place.offset));
                self.reader.abandon(context);
                self.reader = Reader::new(from.collect());
                self.waiting = Waiting::Probe(places);
                self.reader.ask(context, 0);
            }
            Operation::Leave => {
                self.leave(context);
                return Ok(Some(Outcome::Leave));
            }
            Operation::Wait(pause) => {
                let ms = pause.as_millis() as u64;
                self.waiting = Waiting::Pause(now.plus_ms(ms as i64));
                context.wake_after_ms(ms + 1);
            }
            Operation::Stop(Stop::Fenced(_)) if self.plan.sinks > 1 => self.restart(context),
            Operation::Stop(stop) => return Err(format!("a sink stops for no reason: {stop:?}")),
        }
        Ok(None)
    }

    /// Now and then it freezes with the batch in its hands.
    fn apply(&mut self, context: &mut Context, transaction: Transaction) {
        let one_in = self.plan.crash_one_in / 2;
        if one_in > 0 && !context.healed && context.scheduler.random.one_in(one_in) {
            let number = self.number;
            context.trace(|| format!("sink {number} freezes with a batch"));
            self.waiting = Waiting::Apply;
            self.held_back = Some(transaction);
            return self.pause(context, FREEZE_MS);
        }
        self.ask(context, Waiting::Apply, Ask::Apply(transaction));
    }

    fn ask(&mut self, context: &mut Context, waiting: Waiting, ask: Ask) {
        self.waiting = waiting;
        self.database.ask(context, ask);
    }

    fn poll(
        &mut self,
        context: &mut Context,
        limit: Limit,
        wait: std::time::Duration,
    ) -> Option<Outcome> {
        let pipeline = &context.history.pipeline;
        let all_covered = pipeline.covered.len() == self.plan.partitions as usize;
        self.done = pipeline.relay_done && all_covered && self.quiet >= QUIET;
        let until = context.scheduler.instant().plus_ms(wait.as_millis() as i64);
        self.waiting = Waiting::Poll { limit, until };
        context.wake_after_ms(1);
        None
    }

    fn read_from(&mut self, context: &mut Context, places: &[Place]) {
        self.reader.abandon(context);
        let mut positions = std::mem::take(&mut self.reader.positions);
        let owned = self.owned.clone().unwrap_or_default();
        positions.retain(|place, _| owned.iter().any(|one| topic_place(one) == *place));
        let new = places
            .iter()
            .map(|place| (topic_place(&place.partition), place.offset));
        positions.extend(new);
        self.reader = Reader::new(positions);
    }

    fn leave(&mut self, context: &mut Context) {
        // As a new member: the old one goes when its session ends.
        self.session.abandon(context);
        self.reader.abandon(context);
        self.reader = Reader::default();
        self.membership = Membership::new(SINK_GROUP, EVENTS, self.plan.partitions);
        self.is_member = false;
        self.owned = None;
    }

    /// In the middle of something: crashes or freezes, now and then.
    fn may_fall(&mut self, context: &mut Context) {
        let one_in = self.plan.crash_one_in;
        let busy = match self.waiting {
            Waiting::Apply | Waiting::Claim | Waiting::Commit => true,
            _ => context.scheduler.random.one_in(10),
        };
        let frozen = self.held_back.is_some();
        if one_in == 0
            || context.healed
            || frozen
            || !busy
            || !context.scheduler.random.one_in(one_in)
        {
            return;
        }
        let number = self.number;
        if context.scheduler.random.one_in(2) {
            context.trace(|| format!("sink {number} freezes"));
            self.pause(context, FREEZE_MS);
            return;
        }
        context.trace(|| format!("sink {number} crashes"));
        self.restart(context);
    }

    fn restart(&mut self, context: &mut Context) {
        self.leave(context);
        self.database.abandon(context);
        self.sink = None;
        self.held_back = None;
        self.waiting = Waiting::Nothing;
        self.quiet = 0;
        let down_ms = context.scheduler.random.below(2_000);
        self.pause(context, down_ms);
    }

    fn pause(&mut self, context: &mut Context, ms: u64) {
        self.not_before = context.scheduler.instant().plus_ms(ms as i64);
        context.wake_after_ms(ms + 1);
    }

    fn commit(&self, places: &[Place]) -> RequestBody {
        let partition = |place: &Place| OffsetCommitRequestPartition {
            partition_index: place.partition.partition,
            committed_offset: place.offset,
            committed_metadata: Some(String::new()),
            ..Default::default()
        };
        let topic = OffsetCommitRequestTopic {
            name: EVENTS.to_owned(),
            partitions: places.iter().map(partition).collect(),
            ..Default::default()
        };
        let ask = OffsetCommitRequest {
            group_id: SINK_GROUP.to_owned(),
            generation_id_or_member_epoch: self.membership.generation,
            member_id: self.membership.member.clone(),
            topics: vec![topic],
            ..Default::default()
        };
        ask.into()
    }

    /// The question to the database was not answered.
    fn lost(&self, why: &str) -> Option<Outcome> {
        let error = TargetError::Lost(why.to_owned());
        match self.waiting {
            Waiting::Describe => Some(Outcome::Open(Err(error))),
            Waiting::Claim => Some(Outcome::Claim(Err(error))),
            Waiting::Apply => Some(Outcome::Apply(Err(error))),
            _ => None,
        }
    }

    fn answered(&mut self, ticket: u64, answer: Option<Box<Answer>>) -> Option<Outcome> {
        let heard = self.database.hear(ticket, answer.map(|answer| *answer))?;
        let Some(answer) = heard else {
            return self.lost("the connection to the database is lost");
        };
        match (answer, &self.waiting) {
            (Answer::Described(table), Waiting::Describe) => Some(Outcome::Open(Ok(table))),
            (Answer::Claimed(claimed), Waiting::Claim) => Some(Outcome::Claim(claimed)),
            (Answer::Applied(applied), Waiting::Apply) => Some(Outcome::Apply(applied)),
            (other, waiting) => unreachable!("{other:?} does not answer {waiting:?}"),
        }
    }

    /// Something was read, or the connection of the reader is lost.
    fn read(&mut self, context: &mut Context, records: Vec<SinkRecord>) -> Result<(), Violation> {
        match self.waiting.clone() {
            Waiting::Poll { .. } if records.is_empty() => {
                context.wake_after_ms(20);
                Ok(())
            }
            Waiting::Poll { limit, .. } => {
                let records = self.cut(records, limit.rows);
                self.polled(context, records, Vec::new())
            }
            Waiting::Ranges {
                partitions,
                committed,
            } => self.ranged(context, &partitions, committed),
            Waiting::Probe(places) => self.probed(context, &places, &records),
            _ => Ok(()),
        }
    }

    /// What is over the limit is read again.
    fn cut(&mut self, mut records: Vec<SinkRecord>, rows: usize) -> Vec<SinkRecord> {
        for record in records.iter().skip(rows).rev() {
            let place = topic_place(&record.topic_partition());
            self.reader.positions.insert(place, record.offset);
        }
        records.truncate(rows);
        records
    }

    fn ranged(
        &mut self,
        context: &mut Context,
        partitions: &[TopicPartition],
        committed: bool,
    ) -> Result<(), Violation> {
        let range = |partition: &TopicPartition| {
            let told = self.reader.told.get(&topic_place(partition))?;
            Some(Range {
                partition: partition.clone(),
                beginning: told.start,
                end: told.stable,
                committed: None,
            })
        };
        let ranges: Option<Vec<Range>> = partitions.iter().map(range).collect();
        let Some(ranges) = ranges else {
            context.wake_after_ms(50);
            return Ok(());
        };
        self.reader.positions.clear();
        if !committed {
            return self.drive(context, Outcome::Ranges(Ok(ranges)));
        }
        self.waiting = Waiting::Committed(ranges);
        self.ask_committed(context);
        Ok(())
    }

    fn ask_committed(&mut self, context: &mut Context) {
        let topic = OffsetFetchRequestTopic {
            name: EVENTS.to_owned(),
            partition_indexes: (0..self.plan.partitions).collect(),
            ..Default::default()
        };
        let ask = OffsetFetchRequest {
            group_id: SINK_GROUP.to_owned(),
            topics: Some(vec![topic]),
            ..Default::default()
        };
        self.session.ask(context, 7, 0, ask.into());
    }

    fn probed(
        &mut self,
        context: &mut Context,
        places: &[Place],
        records: &[SinkRecord],
    ) -> Result<(), Violation> {
        let empty = places.iter().filter_map(|place| {
            let at = topic_place(&place.partition);
            let told = self.reader.told.get(&at)?;
            let has_record = records
                .iter()
                .any(|one| one.topic_partition() == place.partition);
            let read = self.reader.positions[&at] >= told.stable;
            (!has_record && read && told.stable > place.offset).then(|| Place {
                partition: place.partition.clone(),
                offset: told.stable,
            })
        });
        let empty: Vec<Place> = empty.collect();
        let held: BTreeMap<TopicPlace, i64> = places
            .iter()
            .map(|place| (topic_place(&place.partition), place.offset))
            .collect();
        self.reader = Reader::new(held);
        self.drive(context, Outcome::Probe(Ok(empty)))
    }

    /// The coordinator has answered; or the connection to it is lost.
    fn group_heard(
        &mut self,
        context: &mut Context,
        body: Option<ResponseBody>,
    ) -> Result<(), Violation> {
        let waiting = self.waiting.clone();
        let error = || RecordsError::Lost("the group's coordinator is gone".to_owned());
        match (body, waiting) {
            (None, Waiting::Commit) => self.drive(context, Outcome::Commit(Err(error()))),
            (None, Waiting::Committed(_)) => self.drive(context, Outcome::Ranges(Err(error()))),
            (None, _) => {
                context.wake_after_ms(50);
                Ok(())
            }
            (Some(ResponseBody::CreateTopics(answer)), Waiting::Subscribe) => {
                let codes: Vec<i16> = answer.topics.iter().map(|topic| topic.error_code).collect();
                match codes.as_slice() {
                    [0 | 36] => self.drive(context, Outcome::Subscribe(Ok(CLUSTER.to_owned()))),
                    _ => {
                        context.wake_after_ms(50);
                        Ok(())
                    }
                }
            }
            (Some(ResponseBody::OffsetCommit(answer)), Waiting::Commit) => {
                let partitions = answer.topics.iter().flat_map(|topic| &topic.partitions);
                let code = partitions
                    .map(|partition| partition.error_code)
                    .max()
                    .unwrap_or(0);
                let lost = || RecordsError::Lost(format!("the commit is answered {code}"));
                let outcome = if code == 0 { Ok(()) } else { Err(lost()) };
                self.drive(context, Outcome::Commit(outcome))
            }
            (Some(ResponseBody::OffsetFetch(answer)), Waiting::Committed(mut ranges)) => {
                let partitions: Vec<_> = answer
                    .topics
                    .iter()
                    .flat_map(|topic| &topic.partitions)
                    .collect();
                let undecided = partitions.iter().any(|partition| partition.error_code != 0);
                if undecided || answer.error_code != 0 || partitions.is_empty() {
                    return self.drive(context, Outcome::Ranges(Err(error())));
                }
                for range in &mut ranges {
                    let index = range.partition.partition;
                    let found = partitions.iter().find(|one| one.partition_index == index);
                    let offset = found.map(|found| found.committed_offset);
                    range.committed = offset.filter(|offset| *offset >= 0);
                }
                self.drive(context, Outcome::Ranges(Ok(ranges)))
            }
            (Some(body), Waiting::Poll { .. }) => self.member_heard(context, body),
            _ => Ok(()),
        }
    }

    fn member_heard(&mut self, context: &mut Context, body: ResponseBody) -> Result<(), Violation> {
        match body {
            ResponseBody::JoinGroup(answer) => match self.membership.joined(&answer) {
                Some((version, ask)) => self.session.ask(context, version, 0, ask),
                None => context.wake_after_ms(50),
            },
            ResponseBody::SyncGroup(answer) => return self.synced(context, &answer),
            ResponseBody::Heartbeat(answer) => {
                if self.membership.still_member(answer.error_code) {
                    context.wake_after_ms(1);
                    return Ok(());
                }
                self.is_member = false;
                self.reader.abandon(context);
                self.reader = Reader::default();
                let revoked = self.owned.take().unwrap_or_default();
                return self.polled(context, Vec::new(), vec![Rebalance::Revoked(revoked)]);
            }
            other => return Err(format!("an answer of {:?}", other.api_key())),
        }
        Ok(())
    }

    fn synced(
        &mut self,
        context: &mut Context,
        answer: &SyncGroupResponse,
    ) -> Result<(), Violation> {
        let Some(owned) = self.membership.synced(context, answer)? else {
            context.wake_after_ms(20);
            return Ok(());
        };
        self.is_member = true;
        self.heartbeat_at = context.scheduler.instant().plus_ms(HEARTBEAT_MS);
        let owned = owned
            .into_iter()
            .map(|partition| TopicPartition::new(EVENTS, partition));
        let owned: Vec<TopicPartition> = owned.collect();
        self.owned = Some(owned.clone());
        self.polled(context, Vec::new(), vec![Rebalance::Assigned(owned)])
    }

    fn hear(&mut self, context: &mut Context, event: ActorEvent) -> Result<(), Violation> {
        let id = match event {
            ActorEvent::Wake => return self.go_on(context),
            ActorEvent::Answered(connection, ticket, answer) => {
                if self.database.owns(connection)
                    && let Some(outcome) = self.answered(ticket, answer)
                {
                    return self.drive(context, outcome);
                }
                return Ok(());
            }
            ActorEvent::Frame(id, _) | ActorEvent::Closed(id) => id,
        };
        if self.reader.owns(id) {
            return match self.reader.hear(event)? {
                Some(records) => self.read(context, records),
                None => Ok(()),
            };
        }
        match self.session.hear(event)? {
            Heard::Answer(_, body) => self.group_heard(context, Some(*body)),
            Heard::Lost => self.group_heard(context, None),
            Heard::Nothing => Ok(()),
        }
    }
}

fn topic_place(partition: &TopicPartition) -> TopicPlace {
    (partition.topic.to_string(), partition.partition)
}

fn config(plan: &PipelinePlan) -> Config {
    let columns: BTreeMap<&str, &str> = COLUMNS.into_iter().collect();
    let delivery = match plan.sink_delivery {
        Delivery::AtMostOnce => "at-most-once",
        Delivery::AtLeastOnce => "at-least-once",
        Delivery::ExactlyOnce => "exactly-once",
    };
    let config = serde_json::json!({
        "name": SINK_GROUP,
        "topics": [EVENTS],
        "database": "sqlite:simulated",
        "table": "orders",
        "mode": "insert",
        "delivery": delivery,
        "batch.max.rows": plan.sink_rows,
        "inbox": plan.inbox,
        "columns": columns,
    });
    serde_json::from_value(config).expect("the sink takes this configuration")
}

impl Actor for SinkActor {
    fn on(&mut self, context: &mut Context, event: ActorEvent) -> Result<(), Violation> {
        self.stopped |= context.reading_back;
        if self.stopped {
            return Ok(());
        }
        if context.scheduler.instant() < self.not_before {
            // Frozen, or down.
            if !matches!(event, ActorEvent::Wake) {
                self.heard.push(event);
            }
            return Ok(());
        }
        for event in std::mem::take(&mut self.heard) {
            self.hear(context, event)?;
        }
        self.hear(context, event)
    }

    fn done(&self) -> bool {
        self.done
    }

    fn describe(&self) -> String {
        format!(
            "sink {}: {:?}, member: {}, at {:?} of {:?}",
            self.number, self.waiting, self.is_member, self.reader.positions, self.reader.told
        )
    }
}
