//! A member of a group that makes one output record of each input record: it reads what is committed
//! (as a member of a group in the classic protocol), writes the outputs and commits the offsets in
//! one transaction, as its generation. It crashes and comes back as a new member, or freezes for
//! longer than its session and then goes on as if nothing had happened.

use super::client::{Client, Happening};
use super::follower::{offset_fetch, offsets_of};
use super::reading::{FETCH_VERSION, Isolation, Reading, Shown};
use super::work::{Offsets, Work, Write};
use super::{APP_GROUP, INPUT, OUTPUT, settings};
use crate::actors::membership::{HEARTBEAT_VERSION, JOIN_VERSION, Membership, SESSION_MS};
use crate::actors::session::Heard;
use crate::actors::{Actor, ActorEvent, Context, Session};
use crate::history::{TxnId, Violation};
use crate::plan::TransactionPlan;
use oncelog_wire::ResponseBody;
use oncelog_wire::clock::Instant;
use oncelog_wire::messages::{FetchResponse, OffsetFetchResponse, SyncGroupResponse};
use std::collections::BTreeMap;

const HEARTBEAT_MS: i64 = 2_000;
const FREEZE_MS: u64 = 3_000 + SESSION_MS as u64;
/// Records of one partition that go into a transaction, until the world has healed.
const RECORDS_MAX: usize = 6;
/// Fetches in a row without anything new, after which a member has nothing to do.
const QUIET: u32 = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Joining,
    Positions,
    Reading,
    Transaction,
}

pub struct Transformer {
    app: u32,
    plan: TransactionPlan,
    /// The consumer's connection.
    session: Session,
    membership: Membership,
    reading: Reading,
    state: State,
    /// What was promised of the group's offsets when they were asked for.
    promised: BTreeMap<i32, i64>,
    client: Client,
    instances: u32,
    next: u32,
    quiet: u32,
    heartbeat_at: Instant,
    /// Nothing is done before.
    not_before: Instant,
    started: bool,
    /// Everybody was done, and what is there now is being looked at.
    stopped: bool,
}

impl Transformer {
    pub fn new(app: u32, plan: &TransactionPlan) -> Transformer {
        // Never asked anything: the first wake replaces it by one that has its own settings.
        let mut random = oncelog_commitlog::testing::Random::new(0);
        let client = Client::new(app, 0, settings(plan, &mut random));
        Transformer {
            app,
            plan: plan.clone(),
            session: Session::default(),
            membership: Membership::new(APP_GROUP, INPUT, plan.partitions),
            reading: Reading::new(Isolation::Committed, BTreeMap::new()),
            state: State::Joining,
            promised: BTreeMap::new(),
            client,
            instances: 0,
            next: 0,
            quiet: 0,
            heartbeat_at: Instant(0),
            not_before: Instant(0),
            started: false,
            stopped: false,
        }
    }

    fn pause(&mut self, context: &mut Context, ms: u64) {
        self.not_before = context.scheduler.instant().plus_ms(ms as i64);
        context.wake_after_ms(ms + 1);
    }

    fn new_instance(&mut self, context: &mut Context) {
        self.instances += 1;
        let settings = settings(&self.plan, &mut context.scheduler.random);
        self.client = Client::new(self.app, self.instances, settings);
    }

    fn go_on(&mut self, context: &mut Context) -> Result<(), Violation> {
        self.stopped |= context.reading_back;
        if self.stopped {
            return Ok(());
        }
        if context.scheduler.instant() < self.not_before {
            return Ok(()); // frozen, or down
        }
        if !self.started {
            self.started = true;
            self.new_instance(context);
        }
        self.client.on(context, ActorEvent::Wake)?;
        if self.state == State::Transaction && self.troubled(context) {
            return Ok(());
        }
        if self.session.outstanding() > 0 {
            return Ok(());
        }
        match self.state {
            State::Joining => {
                let ask = self.membership.join();
                self.session.ask(context, JOIN_VERSION, 0, ask);
            }
            _ if self.heartbeat_at <= context.scheduler.instant() => {
                let next = context.scheduler.instant().plus_ms(HEARTBEAT_MS);
                self.heartbeat_at = next;
                let ask = self.membership.heartbeat();
                self.session.ask(context, HEARTBEAT_VERSION, 0, ask);
                context.wake_after_ms(HEARTBEAT_MS as u64 + 1);
            }
            State::Positions => {
                self.promised = context.history.transactions.promised.clone();
                let (version, ask) = offset_fetch(self.plan.partitions, true);
                self.session.ask(context, version, 0, ask);
            }
            State::Reading if self.client.is_idle() => {
                let ask = self.reading.fetch(context);
                self.session.ask(context, FETCH_VERSION, 0, ask);
            }
            State::Reading | State::Transaction => {}
        }
        Ok(())
    }

    /// In the middle of a transaction: freezes or crashes, now and then.
    fn troubled(&mut self, context: &mut Context) -> bool {
        let (app, one_in) = (self.app, self.plan.crash_one_in);
        if context.healed || one_in == 0 || !context.scheduler.random.one_in(one_in) {
            return false;
        }
        if context.scheduler.random.one_in(2) {
            context.trace(|| format!("app-{app} freezes"));
            self.pause(context, FREEZE_MS);
            return true;
        }
        self.crash(context);
        true
    }

    fn crash(&mut self, context: &mut Context) {
        let app = self.app;
        context.trace(|| format!("app-{app} crashes"));
        self.client.vanish(context);
        self.session.abandon(context);
        self.membership = Membership::new(APP_GROUP, INPUT, self.plan.partitions);
        self.new_instance(context);
        self.state = State::Joining;
        let down_ms = context.scheduler.random.below(3_000);
        self.pause(context, down_ms);
    }

    fn rejoin(&mut self, context: &mut Context) {
        // A transaction that is under way goes on; the group decides whether it may be committed.
        if self.state != State::Transaction {
            self.state = State::Joining;
        }
        self.quiet = 0;
        context.wake_after_ms(20);
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
        let owned = owned
            .into_iter()
            .map(|index| ((INPUT.to_owned(), index), 0));
        self.reading = Reading::new(Isolation::Committed, owned.collect());
        self.state = State::Positions;
        context.wake_after_ms(1);
        Ok(())
    }

    fn positioned(
        &mut self,
        context: &mut Context,
        answer: &OffsetFetchResponse,
    ) -> Result<(), Violation> {
        let offsets = offsets_of(answer);
        let decided = offsets.iter().filter(|(_, _, code)| *code == 0).count();
        // Some are not decided yet (UNSTABLE_OFFSET_COMMIT), or the group is not to be had now.
        if decided < self.plan.partitions as usize {
            context.trace(|| format!("offsets: {offsets:?}"));
            context.wake_after_ms(50);
            return Ok(());
        }
        for (partition, offset, _) in offsets {
            let promised = self.promised.get(&partition).copied();
            let known = &context.history.transactions;
            known.offset_told(partition, offset, promised)?;
            if let Some(at) = self
                .reading
                .positions
                .get_mut(&(INPUT.to_owned(), partition))
            {
                *at = offset.max(0);
            }
        }
        self.state = State::Reading;
        context.wake_after_ms(1);
        Ok(())
    }

    fn read(&mut self, context: &mut Context, answer: &FetchResponse) -> Result<(), Violation> {
        let before = self.reading.positions.clone();
        let shown = self.reading.take_in(context, answer)?;
        self.quiet = match self.reading.positions == before {
            true => self.quiet + 1,
            false => 0,
        };
        if shown.is_empty() {
            let think = 10 + context.scheduler.random.below(300);
            context.wake_after_ms(think);
            return Ok(());
        }
        if context.reading_back {
            self.stopped = true;
            return Ok(());
        }
        let work = self.work(context, shown);
        self.state = State::Transaction;
        self.client.begin(context, work);
        Ok(())
    }

    /// The transaction that transforms what was read, or the first of it.
    fn work(&mut self, context: &mut Context, shown: Vec<Shown>) -> Work {
        let id = TxnId {
            app: self.app,
            number: self.next,
        };
        self.next += 1;
        let mut outputs: BTreeMap<i32, Vec<String>> = BTreeMap::new();
        let mut positions = BTreeMap::new();
        let mut taken: BTreeMap<i32, usize> = BTreeMap::new();
        let limit = match context.healed {
            true => usize::MAX,
            false => 1 + context.scheduler.random.below(RECORDS_MAX as u64) as usize,
        };
        for (k, record) in shown.iter().enumerate() {
            let partition = record.place.1;
            let count = taken.entry(partition).or_default();
            *count += 1;
            if *count > limit {
                continue;
            }
            let value = id.value(k, Some((partition, record.offset)));
            let to = context.scheduler.random.below(self.plan.partitions as u64) as i32;
            outputs.entry(to).or_default().push(value);
            positions.insert(partition, record.offset + 1);
        }
        for (partition, count) in taken {
            let place = (INPUT.to_owned(), partition);
            // All of it: also what was passed and not shown.
            if count <= limit {
                positions.insert(partition, self.reading.positions[&place]);
            }
        }
        let write = |(to, values): (i32, Vec<String>)| Write {
            place: (OUTPUT.to_owned(), to),
            values,
        };
        Work {
            id,
            writes: outputs.into_iter().map(write).collect(),
            offsets: Some(Offsets {
                generation: self.membership.generation,
                member: self.membership.member.clone(),
                positions,
                newest: -1,
            }),
            commit: !context.scheduler.random.one_in(6),
        }
    }

    fn happened(&mut self, context: &mut Context, happening: Happening) {
        match happening {
            Happening::Ready => {}
            // From where the group stands now, whatever became of the transaction.
            Happening::Committed | Happening::Aborted => self.state = State::Positions,
            Happening::Rejoin => self.state = State::Joining,
            Happening::Dead => {
                self.new_instance(context);
                if self.state == State::Transaction {
                    self.state = State::Positions;
                }
            }
        }
        let think = context.scheduler.random.below(300);
        context.wake_after_ms(think);
    }

    fn heard(&mut self, context: &mut Context, body: ResponseBody) -> Result<(), Violation> {
        match body {
            ResponseBody::JoinGroup(answer) => match self.membership.joined(&answer) {
                Some((version, ask)) => self.session.ask(context, version, 0, ask),
                None => context.wake_after_ms(50),
            },
            ResponseBody::SyncGroup(answer) => self.synced(context, &answer)?,
            ResponseBody::Heartbeat(answer) => {
                match self.membership.still_member(answer.error_code) {
                    true => context.wake_after_ms(50),
                    false => self.rejoin(context),
                }
            }
            ResponseBody::OffsetFetch(answer) => self.positioned(context, &answer)?,
            ResponseBody::Fetch(answer) => self.read(context, &answer)?,
            other => return Err(format!("an answer of {:?}", other.api_key())),
        }
        Ok(())
    }
}

impl Actor for Transformer {
    fn on(&mut self, context: &mut Context, event: ActorEvent) -> Result<(), Violation> {
        let id = match &event {
            ActorEvent::Wake => return self.go_on(context),
            ActorEvent::Frame(id, _) | ActorEvent::Closed(id) => *id,
            ActorEvent::Answered(..) => return Ok(()),
        };
        if self.client.owns(id) {
            let is_cut = matches!(event, ActorEvent::Closed(_));
            if is_cut && self.client.is_busy() && self.plan.falls_too(context) {
                self.crash(context);
                return Ok(());
            }
            if let Some(happening) = self.client.on(context, event)? {
                self.happened(context, happening);
            }
            return Ok(());
        }
        match self.session.hear(event)? {
            Heard::Answer(_, body) => self.heard(context, *body)?,
            Heard::Lost => context.wake_after_ms(50),
            Heard::Nothing => {}
        }
        Ok(())
    }

    fn done(&self) -> bool {
        self.stopped || self.state == State::Reading && self.quiet >= QUIET
    }

    fn describe(&self) -> String {
        format!(
            "transformer {}: {:?}, generation {}, {}, at {:?}",
            self.app,
            self.state,
            self.membership.generation,
            self.client.describe(),
            self.reading.positions
        )
    }
}
