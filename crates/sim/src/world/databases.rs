//! The way to the databases and back: questions and answers, connections that break, crashes.

use super::{Event, World};
use crate::database::{Answer, Ask, DatabaseConnection};
use oncelog_wire::clock::Instant;

impl World {
    /// Carried out, unless the connection is gone, or breaks just before it; or just after it.
    pub(super) fn question(&mut self, connection: DatabaseConnection, ticket: u64, ask: Ask) {
        let Some(actor) = self.databases.owner(connection) else {
            return;
        };
        let pipeline = self.plan.pipeline.as_ref();
        let one_in = pipeline.map_or(0, |pipeline| pipeline.break_one_in);
        let random = &mut self.scheduler.random;
        let breaks = one_in > 0 && self.healed_at.is_none() && random.one_in(one_in);
        let too_soon = breaks && random.one_in(2);
        let answer = (!too_soon).then(|| Box::new(self.databases.answer(connection, ask)));
        self.scheduler
            .trace(|| format!("{connection:?} is answered {answer:?}, breaks: {breaks}"));
        if breaks {
            self.databases.disconnect(connection);
        }
        self.answer_from_database(actor, connection, ticket, answer.filter(|_| !breaks));
    }

    fn answer_from_database(
        &mut self,
        actor: usize,
        connection: DatabaseConnection,
        ticket: u64,
        answer: Option<Box<Answer>>,
    ) {
        let delay_us = 50 + self.scheduler.random.below(3_000);
        let at = Instant(self.scheduler.now.0 + delay_us * 1_000);
        let answer = Event::FromDatabase {
            actor,
            connection,
            ticket,
            answer,
        };
        self.scheduler.at(at, answer);
    }

    pub(super) fn crash_databases(&mut self) {
        self.scheduler.trace(|| "the databases crash".to_owned());
        for (connection, actor) in self.databases.crash() {
            self.answer_from_database(actor, connection, 0, None);
        }
    }
}
