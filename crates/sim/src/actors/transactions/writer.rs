//! An application that writes in transactions: a few batches to partitions of two topics, committed
//! or aborted. Its instances crash, are replaced while they live on as zombies, or leave for good.

use super::client::{Client, Happening};
use super::work::{Work, Write};
use super::{INPUT, SIDE, settings};
use crate::actors::{Actor, ActorEvent, Context};
use crate::history::{TxnId, Violation};
use crate::plan::TransactionPlan;
use oncelog_wire::clock::Instant;

/// Transactions that a zombie tries before it is gone.
const ZOMBIE_TRIES: u32 = 3;

pub struct Writer {
    app: u32,
    plan: TransactionPlan,
    /// `None`: not started yet, between two instances, or gone for good.
    current: Option<Client>,
    zombie: Option<(Client, u32)>,
    instances: u32,
    next: u32,
    gone: bool,
    /// The next transaction, or the next instance, begins no sooner.
    not_before: Instant,
}

impl Writer {
    pub fn new(app: u32, plan: &TransactionPlan) -> Writer {
        Writer {
            app,
            plan: plan.clone(),
            current: None,
            zombie: None,
            instances: 0,
            next: 0,
            gone: false,
            not_before: Instant(0),
        }
    }

    fn go_on(&mut self, context: &mut Context) {
        if let Some((zombie, tries)) = self.zombie.as_mut().filter(|(zombie, _)| zombie.is_idle()) {
            *tries -= 1;
            if *tries == 0 {
                zombie.vanish(context);
                self.zombie = None;
            } else {
                let work = work(context, self.app, &mut self.next, self.plan.partitions);
                zombie.begin(context, work);
            }
        }
        let now = context.scheduler.instant();
        if self.gone || now < self.not_before {
            return;
        }
        let Some(client) = &mut self.current else {
            self.instances += 1;
            let settings = settings(&self.plan, &mut context.scheduler.random);
            self.current = Some(Client::new(self.app, self.instances, settings));
            return context.wake_after_ms(1);
        };
        if client.is_idle() {
            if self.next < self.plan.transactions {
                let work = work(context, self.app, &mut self.next, self.plan.partitions);
                client.begin(context, work);
            }
        } else if client.is_busy() && !context.healed && self.plan.crash_one_in > 0 {
            let random = &mut context.scheduler.random;
            if random.one_in(self.plan.crash_one_in) {
                self.crash(context);
            }
        }
    }

    fn crash(&mut self, context: &mut Context) {
        let Some(mut client) = self.current.take() else {
            return;
        };
        let (app, random) = (self.app, &mut context.scheduler.random);
        let restart_ms = random.below(3_000);
        match random.below(6) {
            0 => {
                context.trace(|| format!("app-{app} leaves for good"));
                client.vanish(context);
                self.gone = true;
            }
            1..=2 => {
                context.trace(|| format!("app-{app} is replaced, and goes on as a zombie"));
                if let Some((mut before, _)) = self.zombie.replace((client, ZOMBIE_TRIES)) {
                    before.vanish(context);
                }
                self.later(context, restart_ms / 10);
            }
            _ => {
                context.trace(|| format!("app-{app} crashes"));
                client.vanish(context);
                self.later(context, restart_ms);
            }
        }
    }

    fn later(&mut self, context: &mut Context, ms: u64) {
        self.not_before = context.scheduler.instant().plus_ms(ms as i64);
        context.wake_after_ms(ms + 1);
    }

    fn happened(&mut self, context: &mut Context, happening: Happening) {
        let think = context.scheduler.random.below(600);
        if happening == Happening::Dead {
            self.current = None;
        }
        self.later(context, think);
    }

    fn zombie_happened(&mut self, context: &mut Context, happening: Happening) {
        if happening == Happening::Dead {
            self.zombie = None;
        }
        context.wake_after_ms(1);
    }
}

/// The next transaction of an application.
fn work(context: &mut Context, app: u32, next: &mut u32, partitions: i32) -> Work {
    let id = TxnId { app, number: *next };
    *next += 1;
    let random = &mut context.scheduler.random;
    let mut writes = Vec::new();
    let mut k = 0;
    for _ in 0..1 + random.below(4) {
        let topic = if random.one_in(3) { SIDE } else { INPUT };
        let partition = random.below(partitions as u64) as i32;
        let count = 1 + random.below(4) as usize;
        writes.push(Write {
            place: (topic.to_owned(), partition),
            values: (k..k + count).map(|k| id.value(k, None)).collect(),
        });
        k += count;
    }
    Work {
        id,
        writes,
        offsets: None,
        commit: !random.one_in(4),
    }
}

impl Actor for Writer {
    fn on(&mut self, context: &mut Context, event: ActorEvent) -> Result<(), Violation> {
        let owner = match &event {
            ActorEvent::Frame(id, _) | ActorEvent::Closed(id) => Some(*id),
            ActorEvent::Wake | ActorEvent::Answered(..) => None,
        };
        if let Some(id) = owner {
            if let Some((zombie, _)) = self.zombie.as_mut().filter(|(zombie, _)| zombie.owns(id)) {
                if let Some(happening) = zombie.on(context, event)? {
                    self.zombie_happened(context, happening);
                }
            } else if let Some(client) = &self.current
                && matches!(event, ActorEvent::Closed(_))
                && client.owns(id)
                && client.is_busy()
                && self.plan.falls_too(context)
            {
                self.crash(context);
            } else if let Some(client) = &mut self.current
                && let Some(happening) = client.on(context, event)?
            {
                self.happened(context, happening);
            }
            return Ok(());
        }
        if let Some((zombie, _)) = &mut self.zombie {
            zombie.on(context, ActorEvent::Wake)?;
        }
        if let Some(client) = &mut self.current {
            client.on(context, ActorEvent::Wake)?;
        }
        self.go_on(context);
        Ok(())
    }

    fn done(&self) -> bool {
        let idle = self.current.as_ref().is_some_and(Client::is_idle);
        let written = idle && self.next >= self.plan.transactions;
        (self.gone || written) && self.zombie.is_none()
    }

    fn describe(&self) -> String {
        let current = self.current.as_ref().map(Client::describe);
        let zombie = self.zombie.as_ref().map(|(zombie, _)| zombie.describe());
        format!(
            "writer {}: {} transactions begun, {current:?}, zombie {zombie:?}",
            self.app, self.next
        )
    }
}
