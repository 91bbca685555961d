//! The clients: small state machines that speak real frames, retry as real clients do, and tell
//! the history what they were told.

mod churn;
mod consumer;
mod membership;
pub mod pipeline;
mod producer;
mod reader;
mod session;
mod transactions;

use crate::database::{Answer, DatabaseConnection, Databases};
use crate::history::{History, Violation};
use crate::plan::Plan;
use crate::world::{Event, Scheduler};
use bytes::Bytes;
use oncelog_broker::ConnectionId;
use oncelog_wire::RequestBody;
use oncelog_wire::messages::CreateTopicsRequest;
use oncelog_wire::messages::create_topics_request::CreatableTopic;
pub use session::Session;
pub use transactions::{INPUT, OUTPUT};

pub const TOPIC: &str = "events";
pub const GROUP: &str = "readers";

#[derive(Debug)]
pub enum ActorEvent {
    Wake,
    /// A whole answer, without its length.
    Frame(ConnectionId, Bytes),
    Closed(ConnectionId),
    /// The answer to a question; none where the connection to the database is lost.
    Answered(DatabaseConnection, u64, Option<Box<Answer>>),
}

pub trait Actor {
    fn on(&mut self, context: &mut Context, event: ActorEvent) -> Result<(), Violation>;
    /// Nothing is left to do (asked once the world has healed).
    fn done(&self) -> bool;
    /// For a run that does not end.
    fn describe(&self) -> String;
}

/// What an actor may use.
pub struct Context<'a> {
    pub id: usize,
    pub scheduler: &'a mut Scheduler,
    pub history: &'a mut History,
    pub databases: &'a mut Databases,
    pub healed: bool,
    /// Everybody was done, and everything is looked at once more: nothing new is begun.
    pub reading_back: bool,
}

impl Context<'_> {
    pub fn wake_after_ms(&mut self, ms: u64) {
        let id = self.id;
        self.scheduler.after_ms(ms, Event::Wake(id));
    }

    pub fn trace(&mut self, line: impl FnOnce() -> String) {
        let id = self.id;
        self.scheduler.trace(|| format!("actor {id}: {}", line()));
    }
}

/// Everybody who takes part from the start.
pub fn cast(plan: &Plan) -> Vec<Box<dyn Actor>> {
    let mut actors: Vec<Box<dyn Actor>> = Vec::new();
    for number in 0..plan.idempotent_producers + plan.plain_producers {
        let idempotent = number < plan.idempotent_producers;
        let topic = (TOPIC, plan.partitions);
        let producer = producer::Producer::new(number, topic, idempotent, plan);
        actors.push(Box::new(producer));
    }
    for number in 0..plan.consumers {
        actors.push(Box::new(consumer::Consumer::new(number, plan)));
    }
    if plan.churn {
        actors.push(Box::new(churn::Churn::new()));
    }
    if let Some(transactions) = &plan.transactions {
        actors.extend(transactions::cast(plan, transactions));
    }
    if let Some(pipeline) = &plan.pipeline {
        actors.extend(pipeline::cast(pipeline));
    }
    actors
}

/// Fresh clients that look at everything once more when all is done.
pub fn readers(plan: &Plan, history: &History) -> Vec<Box<dyn Actor>> {
    let mut readers: Vec<Box<dyn Actor>> = vec![Box::new(reader::Reader::new(plan, history))];
    if let Some(transactions) = &plan.transactions {
        readers.push(transactions::auditor(transactions, history));
    }
    if let Some(pipeline) = &plan.pipeline {
        readers.push(pipeline::auditor(pipeline));
    }
    readers
}

/// A request that makes topics, on one replica each.
pub fn create_topics(names: &[&str], partitions: i32) -> RequestBody {
    let topic = |name: &&str| CreatableTopic {
        name: (*name).to_owned(),
        num_partitions: partitions,
        replication_factor: 1,
        ..Default::default()
    };
    let ask = CreateTopicsRequest {
        topics: names.iter().map(topic).collect(),
        timeout_ms: 30_000,
        ..Default::default()
    };
    ask.into()
}

/// The value of one record: whose, and which.
pub fn value(producer: u32, number: u32) -> String {
    format!("p{producer}:{number}")
}

/// Whether a value is an idempotent producer's (they come first in the cast).
pub fn is_idempotent(value: &str, plan: &Plan) -> bool {
    let producer = value
        .strip_prefix('p')
        .and_then(|rest| rest.split_once(':'));
    producer.is_some_and(|(id, _)| {
        id.parse()
            .is_ok_and(|id: u32| id < plan.idempotent_producers)
    })
}
