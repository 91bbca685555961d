//! What is durable of one transactional id, and who its producer is.
//!
//! Kafka keeps the epoch before the newest in memory alone, so that an idempotent retry of
//! InitProducerId (KIP-360) fails after a restart. Here it is durable, beside the history.
//!
//! Invariants:
//! - an epoch that a client was told of is below `i16::MAX`, so that it can always be fenced;
//! - `next` is there only while the transaction is prepared, or kept over a restart of its
//!   producer (KIP-939).

use super::history::History;
use super::partitions::Partitions;
use super::state::TransactionState;
use std::sync::Arc;

/// A producer id with its epoch: what a producer is told, and what it shows with every request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub producer_id: i64,
    pub producer_epoch: i16,
}

impl Identity {
    /// No epoch is left to give to a client: the next bump needs another producer id.
    pub(crate) fn is_exhausted(self) -> bool {
        self.producer_epoch >= i16::MAX - 1
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Transaction {
    /// Of the batches that are in the log. While prepared the epoch is that of the markers.
    pub producer_id: i64,
    pub producer_epoch: i16,
    /// The producer id before this one, -1 if there is none.
    pub previous_producer_id: i64,
    /// Who the producer is, if not the identity above.
    pub next: Option<Identity>,
    /// The epoch that the producer had before its newest, -1 if that one must not come back: a
    /// retry of the call that bumped it shows it.
    pub last_producer_epoch: i16,
    /// `i32::MAX`: never aborted by time (two phase commit).
    pub timeout_ms: i32,
    pub state: TransactionState,
    pub partitions: Partitions,
    /// Wall-clock milliseconds; -1 if there was no transaction since InitProducerId.
    pub start_ms: i64,
    pub update_ms: i64,
    /// `transaction.version` by which the client added or ended, 0 or 2.
    pub client_version: i16,
    pub history: Arc<History>,
}

impl Transaction {
    /// Who the producer is.
    pub(crate) fn identity(&self) -> Identity {
        self.next.unwrap_or(self.in_log())
    }

    /// Who wrote the transaction's batches; while prepared, the identity of its markers.
    pub(crate) fn in_log(&self) -> Identity {
        Identity {
            producer_id: self.producer_id,
            producer_epoch: self.producer_epoch,
        }
    }

    /// Who the producer was before its newest bump, if it may ask for that again.
    pub(crate) fn last_identity(&self) -> Option<Identity> {
        if self.last_producer_epoch < 0 {
            return None;
        }
        let current = self.identity();
        let producer_id = match current.producer_epoch {
            // The bump changed the id.
            0 if current.producer_id != self.producer_id => self.producer_id,
            0 => self.previous_producer_id,
            _ => current.producer_id,
        };
        Some(Identity {
            producer_id,
            producer_epoch: self.last_producer_epoch,
        })
    }

    /// One that no timeout ends.
    pub(crate) fn is_two_phase_commit(&self) -> bool {
        self.timeout_ms == i32::MAX
    }
}
