//! How a transactional id goes from one state to the next: values in, values out.
//!
//! ```text
//! Empty, Complete*   -> Empty          InitProducerId
//!                    -> Ongoing        partitions or offsets added
//!                    -> PrepareAbort   aborted without a partition (version 2)
//! Ongoing            -> Ongoing        more added, or kept over a restart (KIP-939)
//!                    -> Prepare*       EndTxn; a fence always aborts
//! Prepare*           -> Complete*      every partition has its marker
//! ```
//!
//! Deviation: a fence bumps the epoch once. Kafka 4 bumps it for the fence and again for the end
//! of the transaction, so that a fenced producer's retry of EndTxn is not taken for that of a
//! transaction that it ended itself; here `last_producer_epoch` tells the two apart.

use super::history::{Event, Why};
use super::partitions::Partitions;
use super::state::TransactionState;
use super::transaction::{Identity, Transaction};
use crate::Caller;
use std::sync::Arc;

impl Transaction {
    /// An id that nobody knew so far.
    pub(crate) fn created(producer_id: i64, timeout_ms: i32, wall_ms: i64) -> Transaction {
        Transaction {
            producer_id,
            producer_epoch: 0,
            previous_producer_id: -1,
            next: None,
            last_producer_epoch: -1,
            timeout_ms,
            state: TransactionState::Empty,
            partitions: Partitions::default(),
            start_ms: -1,
            update_ms: wall_ms,
            client_version: 0,
            history: Arc::default(),
        }
    }

    /// Nothing is open, and the producer is `identity`. `last_producer_epoch`: see there.
    pub(crate) fn introduced(
        &self,
        identity: Identity,
        last_producer_epoch: i16,
        timeout_ms: i32,
        wall_ms: i64,
    ) -> Transaction {
        assert!(self.state.is_idle(), "a transaction is still pending");
        Transaction {
            producer_id: identity.producer_id,
            producer_epoch: identity.producer_epoch,
            previous_producer_id: self.previous(identity),
            next: None,
            last_producer_epoch,
            timeout_ms,
            state: TransactionState::Empty,
            partitions: Partitions::default(),
            start_ms: -1,
            update_ms: wall_ms,
            client_version: self.client_version,
            history: self.history.clone(),
        }
    }

    /// The open transaction stays and gets another producer to end it.
    pub(crate) fn kept(
        &self,
        identity: Identity,
        last_producer_epoch: i16,
        timeout_ms: i32,
        wall_ms: i64,
    ) -> Transaction {
        assert!(
            self.state == TransactionState::Ongoing,
            "only an open transaction is kept"
        );
        Transaction {
            next: Some(identity),
            last_producer_epoch,
            timeout_ms,
            update_ms: wall_ms,
            ..self.clone()
        }
    }

    /// Open, with these partitions more.
    pub(crate) fn extended<'a>(
        &self,
        partitions: impl Iterator<Item = (&'a str, i32)>,
        client_version: i16,
        wall_ms: i64,
    ) -> Transaction {
        assert!(!self.state.is_prepare(), "a decided transaction is closed");
        let mut extended = self.clone();
        if self.state.is_idle() {
            extended.start_ms = wall_ms;
        }
        for (topic, partition) in partitions {
            extended.partitions.add(topic, partition);
        }
        extended.state = TransactionState::Ongoing;
        extended.update_ms = wall_ms;
        extended.client_version = client_version;
        extended
    }

    /// Decided. `next` is who the producer is from now on, and `last_producer_epoch` the epoch
    /// whose EndTxn would be a retry of this one.
    pub(crate) fn ended(
        &self,
        commit: bool,
        client_version: i16,
        next: Identity,
        last_producer_epoch: i16,
        wall_ms: i64,
    ) -> Transaction {
        assert!(!self.state.is_prepare(), "a transaction is decided once");
        let mut ended = self.clone();
        if self.state.is_idle() {
            // Nothing was added: it began and ended now.
            ended.start_ms = wall_ms;
        }
        ended.state = TransactionState::prepare(commit);
        if client_version >= 2 {
            // Above the largest epoch there is only an id whose epochs were used up elsewhere.
            ended.producer_epoch = self.producer_epoch.saturating_add(1);
        }
        ended.last_producer_epoch = last_producer_epoch;
        ended.client_version = client_version;
        ended.update_ms = wall_ms;
        ended.next = Some(next).filter(|next| *next != ended.in_log());
        ended
    }

    /// Every partition has its marker.
    pub(crate) fn completed(&self, wall_ms: i64) -> Transaction {
        let identity = self.identity();
        Transaction {
            producer_id: identity.producer_id,
            producer_epoch: identity.producer_epoch,
            previous_producer_id: self.previous(identity),
            next: None,
            state: match self.state {
                TransactionState::PrepareCommit => TransactionState::CompleteCommit,
                TransactionState::PrepareAbort => TransactionState::CompleteAbort,
                other => panic!("{} cannot be completed", other.name()),
            },
            partitions: Partitions::default(),
            update_ms: wall_ms,
            ..self.clone()
        }
    }

    /// Writes down why the producer is who it is since `wall_ms`.
    pub(crate) fn because(mut self, why: Why, caller: Option<&Caller>, wall_ms: i64) -> Self {
        let event = Event {
            why,
            wall_ms,
            identity: self.identity(),
            client_id: caller.map(|c| c.client_id.clone()).unwrap_or_default(),
            client_host: caller.map(|c| c.client_host.clone()).unwrap_or_default(),
        };
        Arc::make_mut(&mut self.history).add(event);
        self
    }

    /// The producer id before the one of `identity`.
    fn previous(&self, identity: Identity) -> i64 {
        match identity.producer_id == self.producer_id {
            true => self.previous_producer_id,
            false => self.producer_id,
        }
    }
}
