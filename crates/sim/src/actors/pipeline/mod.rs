//! From a database to a topic to a database: the pure loops of relay and sink, between simulated
//! databases and the simulated broker.
//!
//! - [`shop`]: the service, which commits orders with their events, and rolls some back.
//! - [`relay`]: instances of the relay, one after the other, and zombies beside them; [`topics`] is
//!   their side of the broker.
//! - [`sink`]: a member of the sink's group; it crashes, and freezes for longer than its session.
//! - [`database`]: a connection to a database; [`records`]: what a read_committed consumer reads.
//! - [`auditor`]: reads everything at the end.

mod auditor;
mod database;
mod records;
mod relay;
mod shop;
mod sink;
mod topics;

use crate::actors::Actor;
use crate::history::Place;
use crate::plan::PipelinePlan;
use std::collections::BTreeMap;

/// Where the router sends the events to.
pub const EVENTS: &str = "outbox.event.order";
pub const DEAD_LETTERS: &str = "orders.dead-letter";
pub const PROGRESS: &str = "oncelog-relay-orders";

/// The group of the sinks.
pub const SINK_GROUP: &str = "orders-to-table";

/// Everybody who takes part from the start.
pub fn cast(plan: &PipelinePlan) -> Vec<Box<dyn Actor>> {
    let mut actors: Vec<Box<dyn Actor>> = vec![
        Box::new(shop::Shop::new(plan)),
        Box::new(relay::RelayActor::new(plan)),
    ];
    for number in 0..plan.sinks {
        actors.push(Box::new(sink::SinkActor::new(number, plan)));
    }
    actors
}

pub fn auditor(plan: &PipelinePlan) -> Box<dyn Actor> {
    Box::new(auditor::Auditor::new(plan))
}

/// Every partition of a topic, from its beginning.
fn from_the_beginning(topic: &str, partitions: i32) -> BTreeMap<Place, i64> {
    (0..partitions)
        .map(|index| ((topic.to_owned(), index), 0))
        .collect()
}
