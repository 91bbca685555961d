//! A client's connection to a database: one question at a time, whose answer may not come.

use crate::actors::Context;
use crate::database::{Answer, Ask, DatabaseConnection};
use crate::world::Event;
use oncelog_wire::clock::Instant;

pub struct DatabaseClient {
    connection: Option<DatabaseConnection>,
    /// Counts the questions.
    ticket: u64,
    /// The one that is not answered, until then.
    deadline: Option<Instant>,
    /// When the last question arrives.
    arrives: Instant,
    wait_ms: u64,
    /// A question is held up once in so many; 0 for never.
    stall_one_in: u64,
}

impl DatabaseClient {
    pub fn new(wait_ms: u64, stall_one_in: u64) -> DatabaseClient {
        DatabaseClient {
            connection: None,
            ticket: 0,
            deadline: None,
            arrives: Instant(0),
            wait_ms,
            stall_one_in,
        }
    }

    pub fn owns(&self, connection: DatabaseConnection) -> bool {
        self.connection == Some(connection)
    }

    /// Asks on the connection, on a new one if there is none.
    pub fn ask(&mut self, context: &mut Context, ask: Ask) {
        assert!(self.deadline.is_none(), "one question at a time");
        let id = context.id;
        let connection = *self
            .connection
            .get_or_insert_with(|| context.databases.connect(id));
        self.ticket += 1;
        let random = &mut context.scheduler.random;
        let mut delay_us = 50 + random.below(3_000);
        let stalls = self.stall_one_in > 0 && !context.healed;
        if stalls && random.one_in(self.stall_one_in) {
            delay_us += 1_000 * (200 + random.below(6_000));
        }
        let now = context.scheduler.instant();
        self.arrives = self.arrives.max(Instant(now.0 + delay_us * 1_000));
        self.deadline = Some(now.plus_ms(self.wait_ms as i64));
        context.trace(|| format!("{connection:?} asks {ask:?}"));
        let ticket = self.ticket;
        let ask = Box::new(ask);
        let question = Event::ToDatabase {
            connection,
            ticket,
            ask,
        };
        context.scheduler.at(self.arrives, question);
        context.wake_after_ms(self.wait_ms + 1);
    }

    /// What has become of the question; `Some(None)` where that is not known.
    pub fn hear(&mut self, ticket: u64, answer: Option<Answer>) -> Option<Option<Answer>> {
        if answer.is_none() {
            self.connection = None;
            return self.deadline.take().map(|_| None);
        }
        if ticket != self.ticket {
            return None;
        }
        self.deadline.take()?;
        Some(answer)
    }

    /// True where no answer has come in time: then the connection is given up.
    pub fn is_late(&mut self, context: &mut Context) -> bool {
        let now = context.scheduler.instant();
        let late = self.deadline.is_some_and(|deadline| deadline <= now);
        if late {
            self.abandon(context);
        }
        late
    }

    /// The client is gone from it; what it has sent may still arrive.
    pub fn abandon(&mut self, context: &mut Context) {
        self.deadline = None;
        let Some(connection) = self.connection.take() else {
            return;
        };
        let now = context.scheduler.instant();
        let delay_us = 50 + context.scheduler.random.below(3_000);
        let at = Instant(self.arrives.max(now).0 + delay_us * 1_000);
        context
            .scheduler
            .at(at, Event::DatabaseSeesClose(connection));
    }
}
