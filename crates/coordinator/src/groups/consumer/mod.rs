//! The consumer group protocol (KIP-848): members say what they want and what they have, the
//! coordinator says what they are to have.
//!
//! ```text
//!   heartbeat -> subscription changed, or the topics did?  -> group epoch + 1
//!             -> group epoch above the assignment's?       -> target assignment for everybody
//!             -> the member's next step to its target      -> member epoch, assignment
//! ```
//!
//! Everything durable is Kafka's own records (`records`), so that groups survive a restart with
//! their assignments, and a log that Kafka wrote can be read. Deciding reads the group and writes
//! records; [`ConsumerGroup::apply`] replays them. Soft are only the deadlines (`expiry`) and
//! when the topics were last looked at.
//!
//! Deliberately not here: the online migration between this and the classic protocol. A group
//! changes its protocol only while it is empty, as in Kafka with
//! `group.consumer.migration.policy=disabled`: the first heartbeat that joins turns an empty
//! classic group into a consumer group, the first JoinGroup an empty consumer group into a
//! classic one; otherwise GROUP_ID_NOT_FOUND and INCONSISTENT_GROUP_PROTOCOL. Nor are racks
//! looked at when partitions are assigned; Kafka's assignors do not either.
//!
//! Invariants:
//! - a partition belongs to one member at most, assigned or pending revocation: at any time, in
//!   any sequence of heartbeats, expiries, restarts and changes of topics;
//! - the group epoch never goes back, nor does a member's while it stays;
//! - replay of all records, or of what compaction leaves of them, gives the same group.
//!
//! One file per role: `group` (state and questions about it), `replay`, `member`, `heartbeat` and the
//! `draft` that it works on, `subscription` (names and expressions to topics), `target` and
//! `assignors/` (who is to have what), `reconcile` (how a member gets there), `membership`
//! (leaving), `expiry`, `describe`, `shard` (how the shard calls all this).

mod assignors;
#[cfg(test)]
mod check;
mod describe;
mod draft;
mod expiry;
mod group;
mod heartbeat;
mod member;
mod membership;
mod reconcile;
pub(crate) mod records;
mod replay;
mod shard;
mod subscription;
mod target;
#[cfg(test)]
mod tests;

pub(crate) use assignors::{RANGE, UNIFORM};
pub(crate) use group::ConsumerGroup;

use crate::Record;
use crate::Topics;
use crate::groups::GroupConfig;
use oncelog_wire::ErrorCode;
use oncelog_wire::clock::Now;
use oncelog_wire::messages::ConsumerGroupHeartbeatResponse;

/// Where and when a heartbeat is decided.
pub(crate) struct At<'a> {
    pub group_id: &'a str,
    pub now: Now,
    pub config: &'a GroupConfig,
    pub topics: &'a dyn Topics,
}

/// What comes of a heartbeat.
#[derive(Debug)]
pub(crate) struct Decision {
    /// The member whose session goes on.
    pub alive: Option<String>,
    pub records: Vec<Record>,
    pub response: ConsumerGroupHeartbeatResponse,
    pub log: Vec<String>,
}

/// Why nothing comes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub error: ErrorCode,
    pub message: String,
}

impl Refusal {
    fn new(error: ErrorCode, message: impl Into<String>) -> Refusal {
        let message = message.into();
        Refusal { error, message }
    }

    fn response(self) -> ConsumerGroupHeartbeatResponse {
        ConsumerGroupHeartbeatResponse {
            error_code: self.error.code(),
            error_message: Some(self.message),
            ..Default::default()
        }
    }
}
