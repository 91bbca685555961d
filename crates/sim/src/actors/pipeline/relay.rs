//! The relay: its pure loop, with the simulated broker on one side and the simulated database on the
//! other. Instances crash and are replaced; some go on as zombies beside their successors, at once or
//! after they were frozen, with whatever they had in their hands.

use super::super::transactions::protocol::Protocol;
use super::database::DatabaseClient;
use super::topics::{Job, Topics};
use crate::actors::{Actor, ActorEvent, Context};
use crate::database::{Answer, Ask, DatabaseConnection};
use crate::history::Violation;
use crate::plan::PipelinePlan;
use oncelog_broker::ConnectionId;
use oncelog_relay::relay::{Delivery, OnPoison, Operation, Outcome, Relay, Settings, Stop};
use oncelog_relay::router::{Options, Router};
use oncelog_relay::source::{Batch, Limit, SourceError};
use oncelog_wire::clock::Instant;
use std::time::Duration;

const READ_WAIT: Duration = Duration::from_millis(400);
const POLL_MS: u64 = 40;
/// Confirmed batches after which a zombie is gone.
const ZOMBIE_BATCHES: u32 = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waiting {
    Topics,
    Open,
    /// For rows, until then.
    Read(Instant),
    /// To ask for rows again: at the first, until the second.
    ReadAgain(Instant, Instant),
    Confirm,
    Pause(Instant),
    Stopped,
}

/// What has become of an instance.
enum Happening {
    Nothing,
    /// Only a new one goes on.
    Stopped(Stop),
}

struct Instance {
    relay: Relay,
    topics: Topics,
    database: DatabaseClient,
    waiting: Waiting,
    rows: usize,
    /// A read that has found nothing.
    is_idle: bool,
    batches: u32,
    /// Until then, what it hears waits.
    frozen: Option<(Instant, Vec<ActorEvent>)>,
}

pub struct RelayActor {
    plan: PipelinePlan,
    current: Option<Instance>,
    zombie: Option<Instance>,
    /// The next instance begins no sooner.
    not_before: Instant,
    done: bool,
    stopped: bool,
}

impl RelayActor {
    pub fn new(plan: &PipelinePlan) -> RelayActor {
        RelayActor {
            plan: plan.clone(),
            current: None,
            zombie: None,
            not_before: Instant(0),
            done: false,
            stopped: false,
        }
    }

    fn go_on(&mut self, context: &mut Context) -> Result<(), Violation> {
        if let Some(zombie) = self.zombie.take() {
            self.hear_zombie(context, zombie, ActorEvent::Wake)?;
        }
        if let Some(current) = self.current.take() {
            return self.hear_current(context, current, ActorEvent::Wake);
        }
        if context.scheduler.instant() < self.not_before {
            return Ok(());
        }
        let instance = self.start(context);
        self.current = Some(instance);
        Ok(())
    }

    fn start(&mut self, context: &mut Context) -> Instance {
        let random = &mut context.scheduler.random;
        let protocol = match self.plan.new_protocol {
            true => Protocol::V2,
            false => Protocol::V1 {
                produce: if random.one_in(2) { 9 } else { 11 },
                end: 1 + random.below(3) as i16,
            },
        };
        let settings = Settings {
            name: "orders".to_owned(),
            delivery: self.plan.delivery,
            on_poison: OnPoison::Quarantine,
            dead_letter_topic: super::DEAD_LETTERS.to_owned(),
            limit: Limit {
                rows: self.plan.relay_rows,
                bytes: 1 << 20,
            },
            read_wait: READ_WAIT,
        };
        let router = Router::new(Options::default()).expect("the defaults make sense");
        let mut instance = Instance {
            relay: Relay::new(settings, router),
            topics: Topics::new(&self.plan, protocol),
            database: DatabaseClient::new(self.plan.answer_ms, self.plan.stall_one_in),
            waiting: Waiting::Stopped,
            rows: self.plan.relay_rows,
            is_idle: false,
            batches: 0,
            frozen: None,
        };
        context.trace(|| "a relay starts".to_owned());
        let happening = instance.drive(context, Outcome::Started);
        assert!(
            matches!(happening, Happening::Nothing),
            "a relay begins with Init"
        );
        instance
    }

    fn hear_current(
        &mut self,
        context: &mut Context,
        mut current: Instance,
        event: ActorEvent,
    ) -> Result<(), Violation> {
        match current.hear(context, event)? {
            Happening::Nothing => {}
            Happening::Stopped(stop) => {
                self.judge(&stop)?;
                context.history.pipeline.note_stop(&stop);
                current.vanish(context);
                return self.later(context, 3_000);
            }
        }
        let pipeline = &context.history.pipeline;
        let drained = pipeline.shop_done && context.databases.outbox.is_drained();
        self.done = drained && current.is_idle && self.zombie.is_none();
        context.history.pipeline.relay_done = self.done;
        self.current = Some(current);
        self.may_crash(context)
    }

    fn hear_zombie(
        &mut self,
        context: &mut Context,
        mut zombie: Instance,
        event: ActorEvent,
    ) -> Result<(), Violation> {
        let happening = zombie.hear(context, event)?;
        if let Happening::Stopped(stop) = &happening {
            self.judge(stop)?;
            context.history.pipeline.note_stop(stop);
        }
        let is_over = zombie.batches >= ZOMBIE_BATCHES || context.healed;
        if is_over || matches!(happening, Happening::Stopped(_)) {
            context.trace(|| "the zombie is gone".to_owned());
            zombie.vanish(context);
            context.wake_after_ms(1);
            return Ok(());
        }
        self.zombie = Some(zombie);
        Ok(())
    }

    /// Whether there was a reason to stop.
    fn judge(&self, stop: &Stop) -> Result<(), Violation> {
        match stop {
            // A transaction that took too long fences its producer, too.
            Stop::Fenced(_) if self.plan.delivery == Delivery::ExactlyOnce => Ok(()),
            stop => Err(format!("a relay stops for no reason: {stop:?}")),
        }
    }

    fn may_crash(&mut self, context: &mut Context) -> Result<(), Violation> {
        let one_in = self.plan.crash_one_in;
        let busy = self
            .current
            .as_ref()
            .is_some_and(|current| !current.is_idle);
        if one_in == 0 || context.healed || !busy || !context.scheduler.random.one_in(one_in) {
            return Ok(());
        }
        let Some(mut instance) = self.current.take() else {
            return Ok(());
        };
        let at_most_once = self.plan.delivery == Delivery::AtMostOnce;
        let random = &mut context.scheduler.random;
        // Two at once that each confirm before they send would send the same rows.
        if at_most_once || random.one_in(2) {
            context.trace(|| format!("the relay crashes, in {}", instance.describe()));
            instance.vanish(context);
            return self.later(context, 3_000);
        }
        let freeze_ms = match random.one_in(2) {
            true => random.below(4_000),
            false => 0,
        };
        context.trace(|| {
            let what = instance.describe();
            format!("the relay is replaced, and goes on as a zombie after {freeze_ms} ms: {what}")
        });
        if freeze_ms > 0 {
            let until = context.scheduler.instant().plus_ms(freeze_ms as i64);
            instance.frozen = Some((until, Vec::new()));
            context.wake_after_ms(freeze_ms + 1);
        }
        if let Some(mut before) = self.zombie.replace(instance) {
            before.vanish(context);
        }
        self.later(context, 300)
    }

    /// The next instance begins after a while.
    fn later(&mut self, context: &mut Context, ms_max: u64) -> Result<(), Violation> {
        self.done = false;
        context.history.pipeline.relay_done = false;
        let ms = context.scheduler.random.below(ms_max);
        self.not_before = context.scheduler.instant().plus_ms(ms as i64);
        context.wake_after_ms(ms + 1);
        Ok(())
    }
}

impl Instance {
    fn owns(&self, connection: ConnectionId) -> bool {
        self.topics.owns(connection)
    }

    fn owns_database(&self, connection: DatabaseConnection) -> bool {
        self.database.owns(connection)
    }

    fn describe(&self) -> String {
        format!("{:?}, topics {}", self.waiting, self.topics.describe())
    }

    fn vanish(&mut self, context: &mut Context) {
        self.topics.vanish(context);
        self.database.abandon(context);
    }

    fn hear(&mut self, context: &mut Context, event: ActorEvent) -> Result<Happening, Violation> {
        if let Some((until, heard)) = &mut self.frozen {
            if *until > context.scheduler.instant() {
                if !matches!(event, ActorEvent::Wake) {
                    heard.push(event);
                }
                return Ok(Happening::Nothing);
            }
            context.trace(|| "the frozen relay thaws".to_owned());
            let (_, heard) = self.frozen.take().expect("it was frozen");
            for event in heard {
                if let Happening::Stopped(stop) = self.hear_now(context, event)? {
                    return Ok(Happening::Stopped(stop));
                }
            }
        }
        self.hear_now(context, event)
    }

    fn hear_now(
        &mut self,
        context: &mut Context,
        event: ActorEvent,
    ) -> Result<Happening, Violation> {
        let outcome = match event {
            ActorEvent::Wake => self.woken(context)?,
            ActorEvent::Answered(connection, ticket, answer) => {
                match self.database.owns(connection) {
                    true => self.answered(context, ticket, answer),
                    false => None,
                }
            }
            event => self.topics.on(context, event)?,
        };
        Ok(match outcome {
            Some(outcome) => self.drive(context, outcome),
            None => Happening::Nothing,
        })
    }

    fn woken(&mut self, context: &mut Context) -> Result<Option<Outcome>, Violation> {
        let now = context.scheduler.instant();
        if self.database.is_late(context) {
            return Ok(self.lost("the database does not answer"));
        }
        match self.waiting {
            Waiting::Topics => self.topics.on(context, ActorEvent::Wake),
            Waiting::Pause(until) if until <= now => Ok(Some(Outcome::Wait)),
            Waiting::ReadAgain(at, until) if at <= now => {
                self.waiting = Waiting::Read(until);
                self.database.ask(context, Ask::Read(self.rows));
                Ok(None)
            }
            _ => Ok(None),
        }
    }

    /// The question to the database was not answered.
    fn lost(&self, why: &str) -> Option<Outcome> {
        let error = SourceError::Lost(why.to_owned());
        match self.waiting {
            Waiting::Open => Some(Outcome::Open(Err(error))),
            Waiting::Read(_) => Some(Outcome::Read(Err(error))),
            Waiting::Confirm => Some(Outcome::Confirm(Err(error))),
            _ => None,
        }
    }

    fn answered(
        &mut self,
        context: &mut Context,
        ticket: u64,
        answer: Option<Box<Answer>>,
    ) -> Option<Outcome> {
        let heard = self.database.hear(ticket, answer.map(|answer| *answer))?;
        let Some(answer) = heard else {
            return self.lost("the connection to the database is lost");
        };
        match (answer, self.waiting) {
            (Answer::Opened(opened), Waiting::Open) => Some(Outcome::Open(opened)),
            (Answer::Read(read), Waiting::Read(until)) => self.read(context, read, until),
            (Answer::Confirmed(confirmed), Waiting::Confirm) => {
                self.batches += 1;
                Some(Outcome::Confirm(confirmed))
            }
            (other, waiting) => unreachable!("{other:?} does not answer {waiting:?}"),
        }
    }

    fn read(
        &mut self,
        context: &mut Context,
        read: Result<Batch, SourceError>,
        until: Instant,
    ) -> Option<Outcome> {
        let now = context.scheduler.instant();
        let mut read = read;
        let is_empty = read.as_ref().is_ok_and(|batch| batch.rows.is_empty());
        self.is_idle = is_empty;
        if is_empty && now < until {
            self.waiting = Waiting::ReadAgain(now.plus_ms(POLL_MS as i64), until);
            context.wake_after_ms(POLL_MS + 1);
            return None;
        }
        // A heartbeat is worth remembering now and then; and the world has to come to rest.
        if let Ok(batch) = &mut read {
            batch
                .heartbeat
                .take_if(|_| context.healed || !context.scheduler.random.one_in(4));
        }
        Some(Outcome::Read(read))
    }

    /// Does what the relay asks for, until there is something to wait for.
    fn drive(&mut self, context: &mut Context, outcome: Outcome) -> Happening {
        let mut outcome = outcome;
        loop {
            let operation = self.relay.step(outcome);
            let next = match operation {
                Operation::Init => {
                    self.database.abandon(context);
                    self.begin(context, Job::Init)
                }
                Operation::ReadProgress => self.begin(context, Job::Progress),
                Operation::Publish(publication) => self.begin(context, Job::Publish(publication)),
                Operation::Commit => self.begin(context, Job::Commit),
                Operation::Abort => self.begin(context, Job::Abort),
                Operation::Open(progress) => {
                    let exactly_once = self.relay.is_exactly_once();
                    // It connects anew.
                    self.database.abandon(context);
                    let ask = Ask::Open {
                        progress,
                        exactly_once,
                    };
                    self.ask(context, Waiting::Open, ask)
                }
                Operation::Read(limit, wait) => {
                    let until = context.scheduler.instant().plus_ms(wait.as_millis() as i64);
                    self.ask(context, Waiting::Read(until), Ask::Read(limit.rows))
                }
                Operation::Confirm(position) => {
                    self.ask(context, Waiting::Confirm, Ask::Confirm(position))
                }
                Operation::Wait(pause) => {
                    let trouble = self.relay.trouble().unwrap_or_default().to_owned();
                    context.trace(|| format!("the relay begins anew: {trouble}"));
                    let ms = pause.as_millis() as u64;
                    self.waiting = Waiting::Pause(context.scheduler.instant().plus_ms(ms as i64));
                    context.wake_after_ms(ms + 1);
                    None
                }
                Operation::Stop(stop) => {
                    context.trace(|| format!("the relay stops: {stop:?}"));
                    self.waiting = Waiting::Stopped;
                    return Happening::Stopped(stop);
                }
            };
            match next {
                Some(next) => outcome = next,
                None => return Happening::Nothing,
            }
        }
    }

    fn begin(&mut self, context: &mut Context, job: Job) -> Option<Outcome> {
        self.is_idle = false;
        self.waiting = Waiting::Topics;
        self.topics.begin(context, job)
    }

    fn ask(&mut self, context: &mut Context, waiting: Waiting, ask: Ask) -> Option<Outcome> {
        self.waiting = waiting;
        self.database.ask(context, ask);
        None
    }
}

impl Actor for RelayActor {
    fn on(&mut self, context: &mut Context, event: ActorEvent) -> Result<(), Violation> {
        self.stopped |= context.reading_back;
        if self.stopped {
            return Ok(());
        }
        let is_zombies = self.zombie.as_ref().is_some_and(|zombie| match &event {
            ActorEvent::Wake => false,
            ActorEvent::Frame(id, _) | ActorEvent::Closed(id) => zombie.owns(*id),
            ActorEvent::Answered(connection, ..) => zombie.owns_database(*connection),
        });
        if matches!(event, ActorEvent::Wake) {
            return self.go_on(context);
        }
        if is_zombies && let Some(zombie) = self.zombie.take() {
            return self.hear_zombie(context, zombie, event);
        }
        match self.current.take() {
            Some(current) => self.hear_current(context, current, event),
            None => Ok(()),
        }
    }

    fn done(&self) -> bool {
        self.done
    }

    fn describe(&self) -> String {
        let current = self.current.as_ref().map(Instance::describe);
        let zombie = self.zombie.as_ref().map(Instance::describe);
        format!("the relay: {current:?}, zombie {zombie:?}")
    }
}
