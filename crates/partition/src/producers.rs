//! Producers with an id: what makes a retried batch land exactly once, and which transactions are
//! open.
//!
//! Per producer id: the newest epoch, the last [`WINDOW`] batches of that epoch, and the first
//! offset of its open transaction. A client has at most five requests in flight, so whatever it can
//! still retry is in the window.
//!
//! State changes in two places, [`Producers::apply`] and [`Producers::apply_marker`], which are given
//! what *was appended*. [`Producers::check`] reads only. So a sequence cannot advance before its
//! record is in the log, and recovery, which feeds what it finds in the log to the same two, arrives
//! at the same state.
//!
//! # Where this differs from Kafka
//!
//! - **Expiry counts running time, not timestamps.** Kafka expires a producer when the wall clock
//!   minus the last batch's timestamp reaches `producer.id.expiration.ms`. The timestamp is the
//!   client's: a producer that backfills last year's events is expired while it writes, and
//!   its retries become duplicates; a jump of the wall clock expires everybody. Here a producer
//!   expires after that much time *on the monotonic clock* without an append. The idle time
//!   reached so far is kept in snapshots; time during which the broker was down does not count.
//! - **All five batches survive a restart**, see [`crate::snapshot`]. Kafka keeps the last one.
//! - **A marker that compaction has emptied still counts** when the log is replayed: it ends what is
//!   open and raises the epoch. Kafka skips it.
//!
//! # Invariants
//!
//! - A window holds batches of one epoch, in offset order, each starting where the one before it
//!   ended (sequence-wise), unless the log was compacted or the producer was evicted between.
//! - A producer id in the map has epoch >= 0.
//! - `open` has exactly the first offsets that the states name; no two transactions share one.

mod below;
mod window;

use crate::rejection::Rejection;
use crate::verification::Verification;
use oncelog_wire::ErrorCode;
use oncelog_wire::clock::Instant;
use oncelog_wire::records::BatchHeader;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

pub use window::{BatchEntry, WINDOW, Window};
use window::{next_sequence, sequence_plus};

/// The producers of one partition. Ordered, so that a snapshot's bytes depend on the state alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Producers {
    by_id: BTreeMap<i64, ProducerState>,
    /// Open transactions by their first offsets, and whose they are.
    open: BTreeMap<i64, i64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducerState {
    pub epoch: i16,
    /// -1 until a transaction marker was written.
    pub coordinator_epoch: i32,
    /// Maximum timestamp of the last batch, milliseconds since the Unix epoch, -1 if none.
    pub last_timestamp: i64,
    /// Last offset of the last batch, be it one with sequences or not, or a marker; -1 if a snapshot
    /// did not know it.
    pub last_offset: i64,
    pub current_txn_first_offset: Option<i64>,
    pub window: Window,
    /// The window is empty because a snapshot could not say what was in it: any sequence may follow.
    pub sequence_unknown: bool,
    /// When this process last saw the producer append, or read it from a snapshot.
    pub last_active: Instant,
    /// How long the producer had been idle at `last_active`: 0, or what a snapshot said.
    pub idle_before_ms: i64,
}

impl ProducerState {
    fn new(epoch: i16, now: Instant) -> ProducerState {
        ProducerState {
            epoch,
            coordinator_epoch: -1,
            last_timestamp: -1,
            last_offset: -1,
            current_txn_first_offset: None,
            window: Window::default(),
            sequence_unknown: false,
            last_active: now,
            idle_before_ms: 0,
        }
    }

    /// Running time without an append, in milliseconds.
    pub fn idle_ms(&self, now: Instant) -> i64 {
        let since = now.ms_since(self.last_active);
        self.idle_before_ms.saturating_add(since)
    }

    fn begin_epoch(&mut self, epoch: i16) {
        if self.epoch != epoch {
            self.epoch = epoch;
            self.window.clear();
            self.sequence_unknown = false;
        }
    }

    fn was_active(&mut self, now: Instant, last_offset: i64, timestamp: i64) {
        self.last_offset = last_offset;
        self.last_timestamp = timestamp;
        self.last_active = now;
        self.idle_before_ms = 0;
    }
}

/// The parts of a batch header that say who wrote it and as which part of its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerBatch {
    pub producer_id: i64,
    pub epoch: i16,
    pub base_sequence: i32,
    pub last_sequence: i32,
}

impl ProducerBatch {
    /// `None` for a batch of a producer that is not idempotent (or, on a disk that someone else
    /// wrote, one that names a producer but no epoch), and for a coordinator's, which has no
    /// sequence.
    pub fn of(header: &BatchHeader) -> Option<ProducerBatch> {
        let complete =
            header.producer_id >= 0 && header.producer_epoch >= 0 && header.base_sequence >= 0;
        complete.then(|| ProducerBatch {
            producer_id: header.producer_id,
            epoch: header.producer_epoch,
            base_sequence: header.base_sequence,
            last_sequence: sequence_plus(header.base_sequence, header.last_offset_delta),
        })
    }
}

/// A control batch that ends a producer's transaction, as it stands in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppendedMarker {
    pub producer_id: i64,
    pub epoch: i16,
    /// `None` if the record is gone (see the module's header).
    pub coordinator_epoch: Option<i32>,
    pub offset: i64,
    pub timestamp: i64,
}

/// A transaction that has begun in this partition and has no marker yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenTransaction {
    pub producer_id: i64,
    pub producer_epoch: i16,
    /// Of the newest marker that this producer ever got here, -1 if none.
    pub coordinator_epoch: i32,
    pub first_offset: i64,
    /// Maximum timestamp of its last batch, milliseconds since the Unix epoch.
    pub last_timestamp: i64,
}

impl Producers {
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    pub fn get(&self, producer_id: i64) -> Option<&ProducerState> {
        self.by_id.get(&producer_id)
    }

    /// By producer id, ascending.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (i64, &ProducerState)> {
        self.by_id.iter().map(|(id, state)| (*id, state))
    }

    /// By first offset, ascending.
    pub fn open_transactions(&self) -> impl Iterator<Item = OpenTransaction> {
        self.open.iter().filter_map(|(first_offset, producer_id)| {
            let state = self.by_id.get(producer_id)?;
            Some(OpenTransaction {
                producer_id: *producer_id,
                producer_epoch: state.epoch,
                coordinator_epoch: state.coordinator_epoch,
                first_offset: *first_offset,
                last_timestamp: state.last_timestamp,
            })
        })
    }

    /// The first offset of the earliest open transaction.
    pub fn first_open_offset(&self) -> Option<i64> {
        self.open.first_key_value().map(|(offset, _)| *offset)
    }

    /// Whether a producer has a transaction open in this epoch.
    pub fn has_open(&self, producer_id: i64, epoch: i16) -> bool {
        let state = self.by_id.get(&producer_id);
        state.is_some_and(|s| s.epoch == epoch && s.current_txn_first_offset.is_some())
    }

    /// The batch with exactly this epoch and these sequences, if it is in the window.
    pub fn find_duplicate(&self, batch: &ProducerBatch) -> Option<BatchEntry> {
        let state = self.by_id.get(&batch.producer_id)?;
        if state.epoch != batch.epoch {
            return None;
        }
        let found = state.window.find(batch.base_sequence, batch.last_sequence);
        found.copied()
    }

    /// Judges a client's batch, which is no duplicate, against what was appended before, in Kafka's
    /// order of checks. `verification`: what is noted about asking the coordinator, for a
    /// transactional batch.
    ///
    /// Refusals: INVALID_PRODUCER_EPOCH(47) for an epoch that a newer one has fenced,
    /// OUT_OF_ORDER_SEQUENCE_NUMBER(45) for a gap, for an old batch that left the window, and for
    /// a new epoch that does not start at 0, INVALID_TXN_STATE(48) for a batch outside of the
    /// transaction that its producer has open. A producer without state (new, expired, or its state
    /// was lost with the log) may start anywhere: the broker cannot tell which it is. (With
    /// transactions of version 2 it can: such a producer starts every epoch at 0.)
    pub(crate) fn check(
        &self,
        batch: &ProducerBatch,
        transactional: bool,
        verification: Option<&Verification>,
    ) -> Result<(), Rejection> {
        let state = self.by_id.get(&batch.producer_id);
        if let Some(state) = state {
            check_epoch(batch.producer_id, batch.epoch, state.epoch)?;
        }
        if let Some(verification) = verification {
            let known = state.is_some_and(|state| state.window.last().is_some());
            verification.check_sequence(batch, known)?;
        }
        let Some(state) = state else {
            return Ok(());
        };
        check_sequence(batch, state)?;
        if state.current_txn_first_offset.is_some() && !transactional {
            let why = "a batch outside of the transaction that the producer has open here";
            return Err(Rejection::new(ErrorCode::InvalidTxnState, why));
        }
        Ok(())
    }

    /// Refuses what was written under an epoch that a newer one has fenced:
    /// INVALID_PRODUCER_EPOCH(47).
    pub(crate) fn check_epoch(&self, producer_id: i64, epoch: i16) -> Result<(), Rejection> {
        let state = self.by_id.get(&producer_id);
        state.map_or(Ok(()), |state| check_epoch(producer_id, epoch, state.epoch))
    }

    /// Takes in a data batch that *was appended* at `base_offset`; does nothing for one without a
    /// producer id. The same for the leader's append, for replay after a restart, and (later) for
    /// a follower: no checks here, the log is the truth.
    pub fn apply(&mut self, header: &BatchHeader, base_offset: i64, now: Instant) {
        assert!(!header.is_control());
        let batch = ProducerBatch::of(header);
        let (producer_id, epoch) = (header.producer_id, header.producer_epoch);
        let transactional = header.is_transactional() && producer_id >= 0 && epoch >= 0;
        if batch.is_none() && !transactional {
            return;
        }
        let state = self.by_id.entry(producer_id);
        let state = state.or_insert_with(|| ProducerState::new(epoch, now));
        state.begin_epoch(epoch);
        let last_offset = base_offset + i64::from(header.last_offset_delta);
        if let Some(batch) = batch {
            state.window.push(BatchEntry {
                last_sequence: batch.last_sequence,
                last_offset,
                offset_delta: header.last_offset_delta,
                timestamp: header.max_timestamp,
            });
            state.sequence_unknown = false;
        }
        // On a damaged disk two batches may claim the same offset.
        if transactional
            && state.current_txn_first_offset.is_none()
            && let Entry::Vacant(open) = self.open.entry(base_offset)
        {
            open.insert(producer_id);
            state.current_txn_first_offset = Some(base_offset);
        }
        state.was_active(now, last_offset, header.max_timestamp);
    }

    /// Takes in a marker that *was appended*; the first offset of the transaction that it has ended,
    /// if one was open.
    ///
    /// A newer epoch begins with an empty window: its first sequence is 0.
    pub fn apply_marker(&mut self, marker: &AppendedMarker, now: Instant) -> Option<i64> {
        if marker.producer_id < 0 || marker.epoch < 0 {
            return None; // on a disk that someone else wrote
        }
        let state = self.by_id.entry(marker.producer_id);
        let state = state.or_insert_with(|| ProducerState::new(marker.epoch, now));
        state.begin_epoch(marker.epoch);
        if let Some(coordinator_epoch) = marker.coordinator_epoch {
            state.coordinator_epoch = coordinator_epoch;
        }
        state.was_active(now, marker.offset, marker.timestamp);
        let first_offset = state.current_txn_first_offset.take()?;
        self.open.remove(&first_offset);
        Some(first_offset)
    }

    /// Closes transactions that begin in this range: they are known to be over.
    pub(crate) fn close(&mut self, first_offsets: std::ops::Range<i64>) {
        if first_offsets.is_empty() {
            return;
        }
        let over: Vec<i64> = self.open.range(first_offsets).map(|(at, _)| *at).collect();
        for first_offset in over {
            let producer_id = self.open.remove(&first_offset);
            let state = producer_id.and_then(|id| self.by_id.get_mut(&id));
            state
                .expect("an open transaction is somebody's")
                .current_txn_first_offset = None;
        }
    }

    /// Puts back what a snapshot held; false, and nothing is done, if that cannot be: the producer is
    /// there already, or another transaction begins at the same offset.
    #[must_use]
    pub(crate) fn restore(&mut self, producer_id: i64, state: ProducerState) -> bool {
        assert!(producer_id >= 0 && state.epoch >= 0);
        let first_offset = state.current_txn_first_offset;
        let taken = first_offset.is_some_and(|offset| self.open.contains_key(&offset));
        if taken || self.by_id.contains_key(&producer_id) {
            return false;
        }
        if let Some(first_offset) = first_offset {
            self.open.insert(first_offset, producer_id);
        }
        self.by_id.insert(producer_id, state);
        true
    }

    /// To complete a state that was just restored. Its transaction must stay as it is.
    pub(crate) fn get_mut(&mut self, producer_id: i64) -> Option<&mut ProducerState> {
        self.by_id.get_mut(&producer_id)
    }

    /// Forgets producers that appended nothing for `expiration_ms`; returns how many. Never one
    /// with an open transaction.
    pub fn expire(&mut self, now: Instant, expiration_ms: i64) -> usize {
        let before = self.by_id.len();
        self.by_id.retain(|_, state| {
            state.current_txn_first_offset.is_some() || state.idle_ms(now) < expiration_ms
        });
        before - self.by_id.len()
    }
}

fn check_epoch(producer_id: i64, epoch: i16, newest: i16) -> Result<(), Rejection> {
    if epoch >= newest {
        return Ok(());
    }
    let message =
        format!("epoch {epoch} of producer {producer_id} is older than its newest, {newest}");
    Err(Rejection::new(ErrorCode::InvalidProducerEpoch, message))
}

fn check_sequence(batch: &ProducerBatch, state: &ProducerState) -> Result<(), Rejection> {
    let ProducerBatch {
        producer_id,
        epoch,
        base_sequence,
        ..
    } = *batch;
    let (expected, after) = match state.window.last() {
        Some(last) if epoch == state.epoch => {
            (next_sequence(last.last_sequence), "follow the newest")
        }
        None if epoch == state.epoch && state.sequence_unknown => return Ok(()),
        // A new epoch starts again, and so does one whose window a marker emptied.
        _ => (0, "begin the epoch"),
    };
    if base_sequence == expected {
        return Ok(());
    }
    let message = format!(
        "sequence {base_sequence} of producer {producer_id}, epoch {epoch}, does not {after}: \
         expected {expected}"
    );
    Err(Rejection::new(ErrorCode::OutOfOrderSequenceNumber, message))
}
