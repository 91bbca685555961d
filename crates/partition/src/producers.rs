//! Idempotent producers: what makes a retried batch land exactly once.
//!
//! Per producer id: the newest epoch, and the last [`WINDOW`] batches of that epoch. A client has
//! at most five requests in flight, so whatever it can still retry is in the window.
//!
//! State changes in one place, [`Producers::apply`], which is given the header of a batch *that
//! was appended*. [`Producers::check`] reads only. So a sequence cannot advance before its record
//! is in the log, and recovery, which feeds the headers that it finds in the log to the same
//! `apply`, arrives at the same state.
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
//!
//! # Not covered
//!
//! Transactions: batches that are transactional or control never get here ([`crate::Partition`]
//! refuses them). `coordinator_epoch` and `current_txn_first_offset` are carried through snapshots
//! so that the file's format is Kafka's whole.
//!
//! # Invariants
//!
//! - A window holds batches of one epoch, in offset order, each starting where the one before it
//!   ended (sequence-wise), unless the log was compacted or the producer was evicted between.
//! - A producer id in the map has epoch >= 0.

use crate::rejection::Rejection;
use oncelog_wire::ErrorCode;
use oncelog_wire::clock::Instant;
use oncelog_wire::records::BatchHeader;
use std::collections::BTreeMap;

/// How many of a producer's last batches are recognised when they are sent again: as many as a
/// client may have in flight (`max.in.flight.requests.per.connection` with idempotence).
pub const WINDOW: usize = 5;

/// The producers of one partition. Ordered, so that a snapshot's bytes depend on the state alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Producers {
    by_id: BTreeMap<i64, ProducerState>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducerState {
    pub epoch: i16,
    /// -1 until a transaction marker was written.
    pub coordinator_epoch: i32,
    /// Maximum timestamp of the last batch, milliseconds since the Unix epoch, -1 if none.
    pub last_timestamp: i64,
    pub current_txn_first_offset: Option<i64>,
    pub window: Window,
    /// When this process last saw the producer append, or read it from a snapshot.
    pub last_active: Instant,
    /// How long the producer had been idle at `last_active`: 0, or what a snapshot said.
    pub idle_before_ms: i64,
}

impl ProducerState {
    /// Running time without an append, in milliseconds.
    pub fn idle_ms(&self, now: Instant) -> i64 {
        let since = now.ms_since(self.last_active);
        self.idle_before_ms.saturating_add(since)
    }
}

/// One appended batch, as Kafka's snapshot describes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BatchEntry {
    pub last_sequence: i32,
    pub last_offset: i64,
    /// Last offset minus base offset, and just so last sequence minus base sequence.
    pub offset_delta: i32,
    pub timestamp: i64,
}

impl BatchEntry {
    pub fn base_sequence(&self) -> i32 {
        sequence_minus(self.last_sequence, self.offset_delta)
    }

    pub fn base_offset(&self) -> i64 {
        self.last_offset - i64::from(self.offset_delta)
    }
}

/// Up to [`WINDOW`] batches, oldest first, without an allocation.
#[derive(Clone, Default)]
pub struct Window {
    entries: [BatchEntry; WINDOW],
    len: usize,
}

impl Window {
    pub fn entries(&self) -> &[BatchEntry] {
        &self.entries[..self.len]
    }

    pub fn last(&self) -> Option<&BatchEntry> {
        self.entries().last()
    }

    /// Adds the newest batch; the oldest leaves a full window.
    pub fn push(&mut self, entry: BatchEntry) {
        if self.len == WINDOW {
            self.entries.rotate_left(1);
            self.len -= 1;
        }
        self.entries[self.len] = entry;
        self.len += 1;
    }

    fn truncate_at(&mut self, offset: i64) {
        self.len = self.entries().partition_point(|e| e.last_offset < offset);
    }

    fn find(&self, base_sequence: i32, last_sequence: i32) -> Option<&BatchEntry> {
        self.entries()
            .iter()
            .find(|e| e.last_sequence == last_sequence && e.base_sequence() == base_sequence)
    }
}

impl PartialEq for Window {
    fn eq(&self, other: &Window) -> bool {
        self.entries() == other.entries()
    }
}

impl Eq for Window {}

impl std::fmt::Debug for Window {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.entries()).finish()
    }
}

/// What [`Producers::check`] found, if not a reason to refuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Append it.
    Next,
    /// It is in the log already: answer with this batch's offsets and append nothing.
    Duplicate(BatchEntry),
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
    /// wrote, one that names a producer but no epoch or sequence).
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

    /// The batch with exactly this epoch and these sequences, if it is in the window.
    pub fn find_duplicate(&self, batch: &ProducerBatch) -> Option<BatchEntry> {
        let state = self.by_id.get(&batch.producer_id)?;
        if state.epoch != batch.epoch {
            return None;
        }
        let found = state.window.find(batch.base_sequence, batch.last_sequence);
        found.copied()
    }

    /// Judges a client's batch against what was appended before, in Kafka's order of checks.
    ///
    /// Refusals: INVALID_PRODUCER_EPOCH(47) for an epoch that a newer one has fenced,
    /// OUT_OF_ORDER_SEQUENCE_NUMBER(45) for a gap, for an old batch that left the window, and for
    /// a new epoch that does not start at 0. A producer without state (new, expired, or its state
    /// was lost with the log) may start anywhere: the broker cannot tell which it is.
    pub fn check(&self, batch: &ProducerBatch) -> Result<Verdict, Rejection> {
        if let Some(original) = self.find_duplicate(batch) {
            return Ok(Verdict::Duplicate(original));
        }
        let Some(state) = self.by_id.get(&batch.producer_id) else {
            return Ok(Verdict::Next);
        };
        let ProducerBatch {
            producer_id,
            epoch,
            base_sequence,
            ..
        } = *batch;
        if epoch < state.epoch {
            return Err(Rejection::new(
                ErrorCode::InvalidProducerEpoch,
                format!(
                    "epoch {epoch} of producer {producer_id} is older than its newest, {}",
                    state.epoch
                ),
            ));
        }
        let (expected, after) = match state.window.last() {
            Some(last) if epoch == state.epoch => {
                (next_sequence(last.last_sequence), "follow the newest")
            }
            // A new epoch starts again, and so does one whose window a marker emptied.
            _ => (0, "begin the epoch"),
        };
        if base_sequence != expected {
            return Err(Rejection::new(
                ErrorCode::OutOfOrderSequenceNumber,
                format!(
                    "sequence {base_sequence} of producer {producer_id}, epoch {epoch}, does not \
                     {after}: expected {expected}"
                ),
            ));
        }
        Ok(Verdict::Next)
    }

    /// Takes in a batch that *was appended* at `base_offset`; does nothing for one without a
    /// producer id. The same for the leader's append, for replay after a restart, and (later) for
    /// a follower: no checks here, the log is the truth.
    pub fn apply(&mut self, header: &BatchHeader, base_offset: i64, now: Instant) {
        let Some(batch) = ProducerBatch::of(header) else {
            return;
        };
        let state = self
            .by_id
            .entry(batch.producer_id)
            .or_insert_with(|| ProducerState {
                epoch: batch.epoch,
                coordinator_epoch: -1,
                last_timestamp: -1,
                current_txn_first_offset: None,
                window: Window::default(),
                last_active: now,
                idle_before_ms: 0,
            });
        if state.epoch != batch.epoch {
            state.epoch = batch.epoch;
            state.window = Window::default();
        }
        state.window.push(BatchEntry {
            last_sequence: batch.last_sequence,
            last_offset: base_offset + i64::from(header.last_offset_delta),
            offset_delta: header.last_offset_delta,
            timestamp: header.max_timestamp,
        });
        state.last_timestamp = header.max_timestamp;
        state.last_active = now;
        state.idle_before_ms = 0;
    }

    /// What a snapshot at `offset` may say: without batches at or past it, which a power cut may
    /// still take.
    ///
    /// A producer whose whole window lies there is left out. That is safe: it has five batches
    /// under way, so it was told about all earlier ones and will not send those again. If the
    /// five are lost, their retries are accepted as from an unknown producer; if not, replay
    /// finds them.
    pub(crate) fn below(&self, offset: i64) -> Producers {
        let mut below = Producers::default();
        for (producer_id, state) in self.iter() {
            let mut state = state.clone();
            if state
                .window
                .last()
                .is_some_and(|last| last.last_offset >= offset)
            {
                state.window.truncate_at(offset);
                match state.window.last() {
                    Some(last) => state.last_timestamp = last.timestamp,
                    None => continue,
                }
            }
            below.by_id.insert(producer_id, state);
        }
        below
    }

    /// Puts back what a snapshot held; the state that it replaced, if any.
    pub(crate) fn restore(
        &mut self,
        producer_id: i64,
        state: ProducerState,
    ) -> Option<ProducerState> {
        assert!(producer_id >= 0 && state.epoch >= 0);
        self.by_id.insert(producer_id, state)
    }

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

/// Sequences run from 0 to `i32::MAX` and then start again at 0.
fn next_sequence(last: i32) -> i32 {
    if last == i32::MAX { 0 } else { last + 1 }
}

/// `base` plus `delta` on the circle of sequences 0..=`i32::MAX`.
fn sequence_plus(base: i32, delta: i32) -> i32 {
    (i64::from(base) + i64::from(delta)).rem_euclid(1 << 31) as i32
}

fn sequence_minus(last: i32, delta: i32) -> i32 {
    (i64::from(last) - i64::from(delta)).rem_euclid(1 << 31) as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_wrap_around_at_the_largest() {
        assert_eq!(sequence_plus(i32::MAX - 1, 1), i32::MAX);
        assert_eq!(sequence_plus(i32::MAX - 1, 2), 0);
        assert_eq!(sequence_plus(i32::MAX, 3), 2);
        assert_eq!(sequence_minus(2, 3), i32::MAX);
        assert_eq!(sequence_minus(7, 0), 7);
        assert_eq!(next_sequence(i32::MAX), 0);
        assert_eq!(next_sequence(-1), 0);
    }

    #[test]
    fn the_window_keeps_the_newest_five() {
        let mut window = Window::default();
        for n in 0..7 {
            window.push(BatchEntry {
                last_sequence: n,
                last_offset: i64::from(n) * 10,
                offset_delta: 0,
                timestamp: 0,
            });
        }
        let sequences: Vec<i32> = window.entries().iter().map(|e| e.last_sequence).collect();
        assert_eq!(sequences, [2, 3, 4, 5, 6]);
        assert_eq!(window.find(2, 2).map(|e| e.last_offset), Some(20));
        assert_eq!(window.find(1, 1), None);
        assert_eq!(window.find(2, 3), None, "the range must match exactly");
    }
}
