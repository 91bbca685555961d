//! The service: several transactions side by side, each of which changes some orders and inserts their
//! events; they commit in any order, some are rolled back, and a crash of the database ends all.

use crate::actors::{Actor, ActorEvent, Context};
use crate::database::outbox::{TransactionNumber, ids};
use crate::history::Violation;
use crate::plan::PipelinePlan;

/// A transaction of the service does so many steps, or fewer.
const STEPS_MAX: u64 = 12;

pub struct Shop {
    plan: PipelinePlan,
    open: Vec<(TransactionNumber, u64)>,
    begun: u32,
    done: bool,
}

impl Shop {
    pub fn new(plan: &PipelinePlan) -> Shop {
        Shop {
            plan: plan.clone(),
            open: Vec::new(),
            begun: 0,
            done: false,
        }
    }

    fn go_on(&mut self, context: &mut Context) {
        let more = self.begun < self.plan.transactions;
        let room = self.open.len() < self.plan.writers as usize;
        let outbox = &mut context.databases.outbox;
        if more && room && (self.open.is_empty() || context.scheduler.random.one_in(2)) {
            if let Some(number) = outbox.begin() {
                let rows = context.scheduler.random.below(self.plan.rows_max + 1);
                self.open.push((number, rows));
                self.begun += 1;
            }
        } else if !self.open.is_empty() {
            let at = context.scheduler.random.below(self.open.len() as u64) as usize;
            self.step(context, at);
        }
        self.done = self.open.is_empty() && self.begun >= self.plan.transactions;
        if self.done {
            context.history.pipeline.shop_done = true;
            return;
        }
        let think = context.scheduler.random.below(2 * self.plan.think_ms + 1);
        context.wake_after_ms(think);
    }

    fn step(&mut self, context: &mut Context, at: usize) {
        let outbox = &mut context.databases.outbox;
        let random = &mut context.scheduler.random;
        let (number, left) = self.open[at];
        if left > 0 && !random.one_in(STEPS_MAX) {
            let aggregate = random.below(self.plan.aggregates) as u32;
            let one_in = self.plan.unroutable_one_in;
            let unroutable = one_in > 0 && random.one_in(one_in);
            // Where somebody else has locked the order, another one may do.
            if outbox.insert(number, aggregate, unroutable) {
                self.open[at].1 -= 1;
            }
            return;
        }
        self.open.swap_remove(at);
        if random.one_in(6) {
            let rows = outbox.roll_back(number);
            context.history.pipeline.rolled_back.extend(ids(&rows));
            return;
        }
        let rows = outbox.commit(number);
        context.trace(|| format!("committed {:?}", ids(&rows)));
        context.history.pipeline.committed.extend(rows);
    }
}

impl Actor for Shop {
    fn on(&mut self, context: &mut Context, event: ActorEvent) -> Result<(), Violation> {
        match event {
            ActorEvent::Wake => self.go_on(context),
            ActorEvent::Frame(..) | ActorEvent::Closed(_) | ActorEvent::Answered(..) => {}
        }
        Ok(())
    }

    fn done(&self) -> bool {
        self.done
    }

    fn describe(&self) -> String {
        format!("the shop: {} begun, {} open", self.begun, self.open.len())
    }
}
