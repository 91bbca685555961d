//! One transactional id while something is decided about it.
//!
//! Several requests may be decided in one step (those that waited for a transaction to complete),
//! each on what the ones before it made of the id. So a decision changes the draft, and the draft
//! becomes true when its records are replayed.

use super::TransactionConfig;
use super::figures::FencedCounts;
use super::history::Why;
use super::records;
use super::state::TransactionState;
use super::transaction::{Identity, Transaction};
use crate::{Caller, Markers, Outcome};
use oncelog_wire::ErrorCode;
use oncelog_wire::clock::Now;
use std::borrow::Cow;

pub(crate) struct Draft<'a> {
    pub id: &'a str,
    pub now: Now,
    pub config: &'a TransactionConfig,
    pub coordinator_epoch: i32,
    pub fenced: &'a mut FencedCounts,
    /// See `guard`.
    pub newest_connection: u64,
    pub transaction: Option<Cow<'a, Transaction>>,
    pub out: Outcome,
}

impl Draft<'_> {
    /// What came out, and the newest connection.
    pub(crate) fn finish(self) -> (Outcome, u64) {
        (self.out, self.newest_connection)
    }

    pub(crate) fn transaction(&self) -> Option<&Transaction> {
        self.transaction.as_deref()
    }

    pub(crate) fn put(&mut self, transaction: Transaction) {
        let record = records::record(self.id, &transaction);
        self.out.records.push(record);
        self.transaction = Some(Cow::Owned(transaction));
    }

    /// The same, unless its record would be too large for the partition.
    pub(crate) fn put_if_it_fits(&mut self, transaction: Transaction) -> Result<(), ErrorCode> {
        let record = records::record(self.id, &transaction);
        let size = record.key.len() + record.value.as_ref().map_or(0, |value| value.len());
        if size > self.config.record_bytes_max {
            let limit = self.config.record_bytes_max;
            self.log(format!(
                "no more partitions for the transaction: its record would have {size} bytes, the limit is {limit}"
            ));
            // What Kafka answers when its own append fails with RECORD_TOO_LARGE.
            return Err(ErrorCode::UnknownServerError);
        }
        self.out.records.push(record);
        self.transaction = Some(Cow::Owned(transaction));
        Ok(())
    }

    /// Takes a transaction that was just decided, and asks for its markers; without partitions it
    /// is complete at once.
    pub(crate) fn prepare(&mut self, transaction: Transaction) {
        let is_empty = transaction.partitions.is_empty();
        if !is_empty {
            let markers = markers(self.id, &transaction, self.coordinator_epoch);
            self.out.markers.push(markers);
        }
        self.put(transaction);
        if is_empty {
            self.complete();
        }
    }

    pub(crate) fn complete(&mut self) {
        let transaction = self.transaction().expect("a decided transaction");
        let completed = transaction.completed(self.now.wall_ms);
        self.put(completed);
    }

    /// Aborts the open transaction, whose producer can do nothing more.
    pub(crate) fn fence(&mut self, why: Why, caller: Option<&Caller>) {
        let transaction = self.transaction().expect("an open transaction");
        let current = transaction.identity();
        let next = Identity {
            producer_epoch: current.producer_epoch.saturating_add(1),
            ..current
        };
        let wall_ms = self.now.wall_ms;
        let fenced = transaction
            .ended(false, 2, next, -1, wall_ms)
            .because(why, caller, wall_ms);
        if let Why::TimedOut { .. } = why {
            self.fenced.timeout += 1;
        }
        self.log_event(&fenced);
        self.prepare(fenced);
    }

    pub(crate) fn log(&mut self, line: String) {
        self.out
            .log
            .push(format!("transactional id {}: {line}", self.id));
    }

    /// The newest event of the history, for the operator.
    pub(crate) fn log_event(&mut self, transaction: &Transaction) {
        let Identity {
            producer_id,
            producer_epoch,
        } = transaction.identity();
        if let Some(event) = transaction.history.newest() {
            let text = event.text();
            self.log(format!(
                "{text}; producer id {producer_id}, epoch {producer_epoch}"
            ));
        }
    }
}

pub(crate) fn markers(id: &str, transaction: &Transaction, coordinator_epoch: i32) -> Markers {
    Markers {
        transactional_id: id.to_owned(),
        producer_id: transaction.producer_id,
        producer_epoch: transaction.producer_epoch,
        coordinator_epoch,
        transaction_version: transaction.client_version as i8,
        commit: transaction.state == TransactionState::PrepareCommit,
        partitions: transaction.partitions.to_vec(),
    }
}
