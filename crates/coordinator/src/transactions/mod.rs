//! The transaction coordinator: transactional ids, their producers and their transactions, one
//! [`TransactionShard`] per partition of `__transaction_state`.
//!
//! An id lives in the partition that it hashes to ([`crate::groups::partition_for`], Kafka's rule
//! is the same for both topics), so shards share nothing. Requests are methods that take the
//! request and give an [`Outcome`]. What an outcome asks to be marked is written by the caller
//! when the outcome's records are committed, and reported back partition by partition.
//!
//! Rooms: `init`, `add`, `end` the APIs of producers; `markers` what follows a decision; `expiry`
//! timeouts; `admin` list and describe. `transaction` what is durable of an id, `transition` how
//! it changes, `draft` one id while something is decided, `request` what may have to wait;
//! `guard` late requests; `history` why an epoch is what it is; `records` the format.
//!
//! Waiting: a request that has to wait for the transaction before to complete is parked, and
//! decided in the step that completes it. Per id in the order in which they came, at most
//! [`PARKED_PER_ID_MAX`] for an id and [`PARKED_MAX`] altogether, none longer than the
//! configuration says; beyond that the answer is Kafka's, CONCURRENT_TRANSACTIONS.
//!
//! Deviations from Kafka: timeouts and expiry are met when they are due, not at the next round of
//! a poll. What each API does otherwise is said in its file.
//!
//! Deliberately not here: producer ids (the caller hands in fresh ones), InitProducerId without a
//! transactional id, writing markers, transactional offsets (they are the groups').
//!
//! Invariants:
//! - what is durable changes by [`TransactionShard::replay`] alone;
//! - replaying all records into a fresh shard gives the same durable state;
//! - every request is answered exactly once;
//! - only an id whose transaction is decided and not complete has parked requests;
//! - nothing here knows whether a record is committed. The caller holds answers and markers back.

mod add;
mod admin;
mod config;
mod draft;
mod end;
mod expiry;
mod figures;
mod guard;
mod history;
mod init;
mod markers;
mod partitions;
mod records;
mod request;
mod state;
#[cfg(test)]
mod tests;
mod transaction;
mod transition;

pub use admin::{HISTORY_TAG, check_list_request};
pub use config::TransactionConfig;
pub use figures::{FencedCounts, TransactionFigures};
pub use records::ReplayError;
pub use state::TransactionState;

use crate::groups::deadlines::Deadlines;
use crate::{Caller, Outcome, ReplyTo};
use draft::Draft;
use oncelog_wire::ErrorCode;
use oncelog_wire::clock::{Instant, Now};
use partitions::Partitions;
use request::{FreshIds, Request, Verdict, Waiting};
use std::borrow::Cow;
use std::collections::BTreeMap;
use transaction::Transaction;

/// Requests of one transactional id that wait at a time. A client has a few in flight; more is a
/// retry storm.
pub const PARKED_PER_ID_MAX: usize = 32;

/// Requests of one shard that wait at a time.
pub const PARKED_MAX: usize = 10_000;

/// The transactional ids of one partition of `__transaction_state`.
#[derive(Debug)]
pub struct TransactionShard {
    config: TransactionConfig,
    coordinator_epoch: i32,
    entries: BTreeMap<String, Entry>,
    deadlines: Deadlines,
    /// Requests that wait, of all ids.
    parked: usize,
    fenced: FencedCounts,
    /// False while the partition is being read back.
    loaded: bool,
}

/// A transactional id. Only `transaction` is durable.
#[derive(Debug)]
struct Entry {
    /// `None` between the decision that creates it and the replay of its record.
    transaction: Option<Transaction>,
    /// When the open transaction is aborted, or the id forgotten.
    due: Instant,
    /// The decided transaction's partitions without a marker so far.
    unmarked: Partitions,
    /// See `guard`.
    newest_connection: u64,
    parked: Vec<Waiting>,
}

impl TransactionShard {
    /// An empty shard that is still loading: replay the partition, then call
    /// [`TransactionShard::loaded`]. `coordinator_epoch`: the partition's leader epoch, which
    /// every marker carries.
    pub fn new(config: TransactionConfig, coordinator_epoch: i32) -> TransactionShard {
        TransactionShard {
            config,
            coordinator_epoch,
            entries: BTreeMap::new(),
            deadlines: Deadlines::default(),
            parked: 0,
            fenced: FencedCounts::default(),
            loaded: false,
        }
    }

    /// Of every transactional id.
    pub fn producer_ids(&self) -> impl Iterator<Item = i64> {
        let transactions = self.entries.values().flat_map(|entry| &entry.transaction);
        transactions.map(|transaction| transaction.producer_id)
    }

    /// Takes one record of the partition, in the order of the partition.
    ///
    /// While the shard is loading these are all records from the start of the log; afterwards the
    /// shard's own, at once when they are appended. An error means that the partition's bytes are
    /// not a coordinator's records; nothing has changed then.
    pub fn replay(
        &mut self,
        key: &[u8],
        value: Option<&[u8]>,
        now: Now,
    ) -> Result<(), ReplayError> {
        let Some((id, transaction)) = records::decode(key, value)? else {
            return Ok(());
        };
        let Some(transaction) = transaction else {
            self.entries.remove(&id);
            self.deadlines.disarm(&id);
            return Ok(());
        };
        let entry = self.entries.entry(id.clone()).or_insert_with(Entry::new);
        entry.due = expiry::due(&transaction, entry, now, &self.config);
        entry.unmarked = match transaction.state.is_prepare() {
            true => transaction.partitions.clone(),
            false => Partitions::default(),
        };
        entry.transaction = Some(transaction);
        self.deadlines.arm(&id, entry.next_deadline());
        Ok(())
    }

    /// Everything has been replayed: from now on the shard decides. Decided transactions that are
    /// not complete give their markers again.
    pub fn loaded(&mut self, now: Now) -> Outcome {
        assert!(!self.loaded, "a shard is loaded once");
        self.loaded = true;
        let mut out = Outcome::default();
        let mut complete = Vec::new();
        for (id, entry) in &self.entries {
            let Some(transaction) = &entry.transaction else {
                continue;
            };
            if !transaction.state.is_prepare() {
                continue;
            }
            match transaction.partitions.is_empty() {
                true => complete.push(id.clone()),
                false => {
                    let markers = draft::markers(id, transaction, self.coordinator_epoch);
                    out.markers.push(markers);
                }
            }
        }
        for id in complete {
            out.extend(self.complete(now, &id));
        }
        out
    }

    /// Another broker coordinates these ids from now on: every parked request is answered with
    /// NOT_COORDINATOR, which need not wait for anything to be committed.
    pub fn resign(mut self) -> Outcome {
        let mut out = Outcome::default();
        for (id, entry) in &mut self.entries {
            for waiting in entry.parked.drain(..) {
                let body = waiting.request.refused(id, ErrorCode::NotCoordinator);
                out.reply(waiting.reply, body);
            }
        }
        out
    }

    /// When to call [`TransactionShard::tick`] next, at the latest.
    pub fn next_deadline(&self) -> Instant {
        self.deadlines.next()
    }

    /// Decides a request, or parks it.
    fn ask(
        &mut self,
        now: Now,
        reply: ReplyTo,
        caller: &Caller,
        id: &str,
        request: Request,
        ids: FreshIds,
    ) -> Outcome {
        let waiting = Waiting {
            reply,
            caller: caller.clone(),
            request,
            until: now.instant.plus_ms(self.config.parked_max_ms),
        };
        self.step(now, id, |_| {}, vec![waiting], ids)
    }

    /// One step of one id: something happens to it, then requests are decided in their order.
    fn step(
        &mut self,
        now: Now,
        id: &str,
        first: impl FnOnce(&mut Draft),
        requests: Vec<Waiting>,
        ids: FreshIds,
    ) -> Outcome {
        self.assert_loaded();
        let entry = self.entries.get(id);
        let mut draft = Draft {
            id,
            now,
            config: &self.config,
            coordinator_epoch: self.coordinator_epoch,
            fenced: &mut self.fenced,
            newest_connection: entry.map_or(0, |entry| entry.newest_connection),
            transaction: entry.and_then(|entry| entry.transaction.as_ref().map(Cow::Borrowed)),
            out: Outcome::default(),
        };
        first(&mut draft);
        let mut still = Vec::new();
        for waiting in requests {
            match waiting.request.decide(&mut draft, &waiting.caller, ids) {
                Verdict::Answer(body) => draft.out.reply(waiting.reply, body),
                Verdict::Park(request) => still.push(Waiting { request, ..waiting }),
            }
        }
        let (mut out, newest_connection) = draft.finish();
        if let Some(entry) = self.entries.get_mut(id) {
            entry.newest_connection = newest_connection;
        } else if !out.records.is_empty() {
            let mut entry = Entry::new();
            entry.newest_connection = newest_connection;
            self.entries.insert(id.to_owned(), entry);
        }
        for waiting in still {
            self.park(id, waiting, &mut out);
        }
        out
    }

    fn park(&mut self, id: &str, waiting: Waiting, out: &mut Outcome) {
        let entry = self.entries.get_mut(id).expect("only known ids wait");
        if entry.parked.len() >= PARKED_PER_ID_MAX || self.parked >= PARKED_MAX {
            let body = waiting
                .request
                .refused(id, ErrorCode::ConcurrentTransactions);
            return out.reply(waiting.reply, body);
        }
        self.deadlines.arm(id, waiting.until);
        entry.parked.push(waiting);
        self.parked += 1;
    }

    fn take_parked(&mut self, id: &str) -> Vec<Waiting> {
        let Some(entry) = self.entries.get_mut(id) else {
            return Vec::new();
        };
        self.parked -= entry.parked.len();
        std::mem::take(&mut entry.parked)
    }

    fn transaction(&self, id: &str) -> Option<&Transaction> {
        self.entries.get(id)?.transaction.as_ref()
    }

    fn assert_loaded(&self) {
        assert!(
            self.loaded,
            "a shard that is loading answers nothing: the broker does"
        );
    }
}

impl Entry {
    fn new() -> Entry {
        Entry {
            transaction: None,
            due: Instant::NEVER,
            unmarked: Partitions::default(),
            newest_connection: 0,
            parked: Vec::new(),
        }
    }

    /// When it has to be looked at.
    fn next_deadline(&self) -> Instant {
        let parked = self.parked.iter().map(|waiting| waiting.until).min();
        self.due.min(parked.unwrap_or(Instant::NEVER))
    }
}
