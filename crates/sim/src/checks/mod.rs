//! What must hold. The checks that can be made at the event itself are methods of
//! [`crate::history::History`] (one value per offset, one offset per value of an idempotent
//! producer, watermarks that only rise, one owner per partition and generation, no commit of an
//! old generation, no producer id twice) and of its `Transactions` (nothing is read before its commit
//! was asked for, nothing aborted, nothing in part; last stable offsets rise and do not stand still;
//! one output per input; an epoch for one instance only); here are those that need the end of the
//! run.

mod acked_survives;
mod exactly_once;
mod order;
mod outbox_to_topic;
mod topic_to_table;
mod transactions;

use crate::history::{History, Violation};
use crate::plan::Plan;

/// Looks at the whole history once everybody is done and everything was read back.
pub fn at_the_end(plan: &Plan, history: &History) -> Result<(), Violation> {
    acked_survives::check(history)?;
    order::check(history)?;
    transactions::check(history)?;
    exactly_once::check(history)?;
    let Some(plan) = &plan.pipeline else {
        return Ok(());
    };
    outbox_to_topic::check(&history.pipeline, plan.delivery)?;
    topic_to_table::check(&history.pipeline, plan.sink_delivery, plan.inbox)
}
