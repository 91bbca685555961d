//! Transactions, as far as they concern one partition: where they begin and end in its log, and what
//! of it is therefore stable.
//!
//! A transaction begins with its producer's first transactional batch here, and only if the
//! coordinator knows of it (see [`crate::verification`]). It ends with a marker, which the
//! coordinator has written for every partition that it knows of.
//!
//! # Non-obvious
//!
//! - The last stable offset is in front of a transaction until its marker is *below the high
//!   watermark*: a marker that a crash can take back has decided nothing.
//! - A marker of transactions version 2 that is sent again finds its epoch in place and no transaction
//!   open. Kafka then appends it a second time; here nothing is appended, and the answer names an
//!   offset that is not below the marker that is there.
//! - An epoch that is fenced is said to be (47) before a missing guard is (48).

use crate::append::Appended;
use crate::endings::Ending;
use crate::partition::Partition;
use crate::producers::{AppendedMarker, OpenTransaction, ProducerBatch};
use crate::rejection::Rejection;
use crate::rewrite::Rewritten;
use crate::verification::{Verification, VerificationGuard};
use oncelog_commitlog::AbortedTxn;
use oncelog_wire::ErrorCode;
use oncelog_wire::clock::Now;
use oncelog_wire::records::{Batch, BatchBuilder, BatchHeader, EndTxn, NO_TIMESTAMP};

/// How a coordinator ends a producer's transaction (WriteTxnMarkers, KIP-98).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndTransactionMarker {
    pub producer_id: i64,
    /// With version 2 the transaction's epoch plus one, before that the transaction's own, or a newer
    /// one that fences its producer.
    pub producer_epoch: i16,
    pub coordinator_epoch: i32,
    /// `transaction.version` of the transaction; 0 if the coordinator did not say.
    pub transaction_version: i8,
    pub commit: bool,
}

impl Partition {
    /// Everything below is readable for read_committed: the high watermark, or the first offset of
    /// the earliest transaction that is open, or whose marker is not below the high watermark.
    pub fn last_stable_offset(&self) -> i64 {
        let high_watermark = self.high_watermark();
        let open = self.producers.first_open_offset();
        let first_unstable = match (open, self.endings.first_offset()) {
            (Some(open), Some(ending)) => open.min(ending),
            (Some(first), None) | (None, Some(first)) => first,
            (None, None) => return high_watermark,
        };
        // Records of an open transaction can be deleted.
        first_unstable.clamp(self.log.start_offset(), high_watermark)
    }

    /// By first offset, ascending.
    pub fn open_transactions(&self) -> impl Iterator<Item = OpenTransaction> {
        self.producers.open_transactions()
    }

    /// The coordinator must be asked before this batch may be appended: it is transactional, would not
    /// be refused or answered as a duplicate anyway, and its producer has no transaction open here in
    /// this epoch.
    pub fn needs_verification(&self, header: &BatchHeader) -> bool {
        let (producer_id, epoch) = (header.producer_id, header.producer_epoch);
        let is_duplicate = |batch: ProducerBatch| self.producers.find_duplicate(&batch).is_some();
        header.is_transactional()
            && !self.producers.has_open(producer_id, epoch)
            && self.producers.check_epoch(producer_id, epoch).is_ok()
            && !ProducerBatch::of(header).is_some_and(is_duplicate)
    }

    /// Begins asking the coordinator; the same guard again while one is open for the producer.
    ///
    /// `supports_epoch_bump`: the client keeps transactions of version 2, so that a producer without
    /// a stored batch must begin at sequence 0.
    pub fn begin_verification(
        &mut self,
        header: &BatchHeader,
        supports_epoch_bump: bool,
    ) -> VerificationGuard {
        if self
            .producers
            .has_open(header.producer_id, header.producer_epoch)
        {
            return VerificationGuard::NOT_NEEDED;
        }
        self.verifications.begin(header, supports_epoch_bump)
    }

    /// Writes a marker and ends the producer's transaction here, if one is open.
    ///
    /// Errors: INVALID_PRODUCER_EPOCH(47) for a marker of an earlier transaction,
    /// TRANSACTION_COORDINATOR_FENCED(52) for one of a coordinator that has been replaced,
    /// INVALID_RECORD(87) for a producer that cannot be.
    pub fn append_marker(
        &mut self,
        now: Now,
        marker: &EndTransactionMarker,
    ) -> Result<Appended, Rejection> {
        if let Some(last_offset) = self.check_marker(marker)? {
            return Ok(Appended {
                base_offset: last_offset,
                last_offset,
                append_time_ms: NO_TIMESTAMP,
                duplicate: true,
                work: Vec::new(),
            });
        }
        let batch = marker.batch(now);
        let before = self.producers.get(marker.producer_id).cloned();
        let appended = self.write(now, Rewritten::as_is(batch));
        self.end_transaction(now, marker, before, appended.base_offset);
        self.assert_invariants();
        Ok(appended)
    }

    fn end_transaction(
        &mut self,
        now: Now,
        marker: &EndTransactionMarker,
        before: Option<crate::ProducerState>,
        marker_offset: i64,
    ) {
        let producer_id = marker.producer_id;
        self.verifications.end(producer_id);
        let written = AppendedMarker {
            producer_id,
            epoch: marker.producer_epoch,
            coordinator_epoch: Some(marker.coordinator_epoch),
            offset: marker_offset,
            timestamp: now.wall_ms,
        };
        let first_offset = self.producers.apply_marker(&written, now.instant);
        if let Some(first_offset) = first_offset
            && !marker.commit
        {
            let open = self.producers.first_open_offset();
            self.log.note_aborted(AbortedTxn {
                producer_id,
                first_offset,
                last_offset: marker_offset,
                last_stable_offset: open.unwrap_or(marker_offset + 1),
            });
        }
        self.endings.begin(Ending {
            producer_id,
            first_offset,
            marker_offset,
            before,
        });
    }

    /// Whether a transactional batch may be appended: it belongs to what is open, or the coordinator
    /// was asked, which is then returned.
    pub(crate) fn check_transaction(
        &self,
        header: &BatchHeader,
        guard: Option<VerificationGuard>,
    ) -> Result<Option<&Verification>, Rejection> {
        let (producer_id, epoch) = (header.producer_id, header.producer_epoch);
        if !header.is_transactional() || self.producers.has_open(producer_id, epoch) {
            return Ok(None);
        }
        self.producers.check_epoch(producer_id, epoch)?;
        self.verifications.check(producer_id, guard)
    }

    /// `Some` if the marker was written before: an offset that is not below it.
    fn check_marker(&self, marker: &EndTransactionMarker) -> Result<Option<i64>, Rejection> {
        let EndTransactionMarker {
            producer_id,
            producer_epoch,
            coordinator_epoch,
            ..
        } = *marker;
        if producer_id < 0 || producer_epoch < 0 {
            let why = format!("no producer has id {producer_id} and epoch {producer_epoch}");
            return Err(Rejection::new(ErrorCode::InvalidRecord, why));
        }
        let Some(state) = self.producers.get(producer_id) else {
            return Ok(None);
        };
        self.producers.check_epoch(producer_id, producer_epoch)?;
        let strict = marker.transaction_version >= 2;
        if strict && producer_epoch == state.epoch {
            if state.current_txn_first_offset.is_none() {
                return Ok(Some(state.last_offset));
            }
            let why = format!(
                "a marker with epoch {producer_epoch} ends an earlier transaction of producer \
                 {producer_id} than the open one, which has this epoch"
            );
            return Err(Rejection::new(ErrorCode::InvalidProducerEpoch, why));
        }
        if coordinator_epoch < state.coordinator_epoch {
            let why = format!(
                "coordinator epoch {coordinator_epoch} for producer {producer_id} is older than \
                 the newest, {}",
                state.coordinator_epoch
            );
            return Err(Rejection::new(ErrorCode::TransactionCoordinatorFenced, why));
        }
        Ok(None)
    }
}

impl EndTransactionMarker {
    fn batch(&self, now: Now) -> Batch {
        let result = match self.commit {
            true => EndTxn::Commit,
            false => EndTxn::Abort,
        };
        let bytes = BatchBuilder::end_txn_marker(
            now.wall_ms,
            self.producer_id,
            self.producer_epoch,
            result,
            self.coordinator_epoch,
        );
        Batch::parse(&bytes).expect("the builder makes whole batches")
    }
}
