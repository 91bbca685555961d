//! Clients of transactions.
//!
//! - [`client`]: one instance of a transactional producer, in either protocol ([`protocol`]), which
//!   carries out what it is given ([`work`]).
//! - [`writer`]: an application that writes to several partitions of two topics, crashes, comes
//!   back, and leaves zombies behind.
//! - [`transformer`]: a member of a group that makes an output record from each input record, with
//!   the offsets in the same transaction.
//! - [`reading`]: what a read_committed client shows of a fetch answer.
//! - [`follower`]: reads along all the time; [`auditor`]: looks at everything at the end.

mod auditor;
mod client;
mod follower;
pub(super) mod protocol;
pub(super) mod reading;
mod transformer;
pub(super) mod work;
mod writer;

use crate::actors::{Actor, Context};
use crate::history::{History, Place};
use crate::plan::{Plan, TransactionPlan};
use client::Settings;
use oncelog_commitlog::testing::Random;
use protocol::Protocol;
use std::collections::BTreeMap;

/// What the writers write, and what the group makes from it.
pub const INPUT: &str = "input";
pub const SIDE: &str = "side";
pub const OUTPUT: &str = "output";
pub const TOPICS: [&str; 3] = [INPUT, SIDE, OUTPUT];

/// The group of the transformers.
pub const APP_GROUP: &str = "transformers";

/// Everybody who takes part from the start.
pub fn cast(plan: &Plan, transactions: &TransactionPlan) -> Vec<Box<dyn Actor>> {
    let mut actors: Vec<Box<dyn Actor>> = Vec::new();
    for app in 0..transactions.writers {
        actors.push(Box::new(writer::Writer::new(app, transactions)));
    }
    for number in 0..transactions.transformers {
        let app = transactions.writers + number;
        actors.push(Box::new(transformer::Transformer::new(app, transactions)));
    }
    let (first, partitions) = (
        plan.idempotent_producers + plan.plain_producers,
        transactions,
    );
    for number in first..first + transactions.bystanders {
        let topic = (INPUT, partitions.partitions);
        let producer = crate::actors::producer::Producer::new(number, topic, false, plan);
        actors.push(Box::new(producer));
    }
    for isolation in [
        reading::Isolation::Committed,
        reading::Isolation::Uncommitted,
    ] {
        actors.push(Box::new(follower::Follower::new(isolation, transactions)));
    }
    actors
}

pub fn auditor(transactions: &TransactionPlan, history: &History) -> Box<dyn Actor> {
    Box::new(auditor::Auditor::new(transactions, history))
}

/// How the next instance of an application behaves: an application may come back as another
/// version of itself.
fn settings(plan: &TransactionPlan, random: &mut Random) -> Settings {
    let is_new = match plan.new_protocol_in_10 {
        0 => false,
        share => random.below(10) < share,
    };
    let protocol = match is_new {
        true => Protocol::V2,
        false => Protocol::V1 {
            produce: if random.one_in(2) { 9 } else { 11 },
            end: 1 + random.below(3) as i16,
        },
    };
    Settings {
        protocol,
        plan: plan.clone(),
        timeout_ms: plan.timeout_ms,
    }
}

impl TransactionPlan {
    /// Whether an instance in a transaction dies with its connection: what ends the one (a power
    /// cut, a host that is gone) often ends the other.
    fn falls_too(&self, context: &mut Context) -> bool {
        !context.healed && self.crash_one_in > 0 && context.scheduler.random.one_in(2)
    }
}

/// Every partition of these topics, from its beginning.
fn from_the_beginning(topics: &[&str], partitions: i32) -> BTreeMap<Place, i64> {
    let of = |topic: &&str| {
        let topic = (*topic).to_owned();
        (0..partitions).map(move |index| ((topic.clone(), index), 0))
    };
    topics.iter().flat_map(of).collect()
}
