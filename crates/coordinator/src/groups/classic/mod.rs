//! The classic group protocol: members join, a leader among them assigns, everybody syncs.
//!
//! ```text
//!            first Join                 all joined, or timeout            leader's Sync
//!   Empty ------------> PreparingRebalance ------------> CompletingRebalance ------------> Stable
//!     ^                    |      ^   ^                       |                               |
//!     +--------------------+      |   +-----------------------+ Join with news, member lost   |
//!      nobody left                +-----------------------------------------------------------+
//! ```
//!
//! Durable is what the last GroupMetadata record says: written when a group comes into being, at
//! the leader's Sync, when a static member is replaced in a stable group, and when the last
//! member is gone. Everything else (who has joined so far, who waits for an answer, deadlines)
//! lives with the leader of the partition. After a change of leadership a group is Stable or
//! Empty again, members go on with their heartbeats, and a rebalance that was under way starts
//! over.
//!
//! Invariants:
//! - in Stable, the live group is what the last record says;
//! - a request that was parked is answered once: a newer one of the same member, the member's
//!   removal and every change of state answer it;
//! - the generation rises with every rebalance that completes, and never otherwise.
//!
//! One file per role: `group` (state and questions about it), `member`, `join`, `rebalance`,
//! `sync`, `membership` (heartbeat, leave, expiry), `describe`.

#[cfg(test)]
mod check;
mod describe;
mod group;
mod join;
mod member;
mod membership;
mod rebalance;
mod sync;

pub(crate) use group::{ClassicGroup, State};
pub(crate) use join::Join;
pub(crate) use member::{Parked, join_refused, sync_refused};

use crate::groups::GroupConfig;
use crate::outcome::Outcome;
use oncelog_wire::clock::Now;

/// What a step of a group's life works with.
pub(crate) struct Step<'a> {
    pub group_id: &'a str,
    pub now: Now,
    pub config: &'a GroupConfig,
    pub out: &'a mut Outcome,
}

impl Step<'_> {
    fn log(&mut self, line: impl std::fmt::Display) {
        self.out
            .log
            .push(format!("group {}: {line}", self.group_id));
    }
}
