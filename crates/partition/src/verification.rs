//! Asking the coordinator before a transaction begins here (KIP-890), so that no batch opens one that
//! nobody will end.
//!
//! Between the question and the first append there is one guard per producer. A marker that comes
//! meanwhile takes it away, and then the answer to the question is worth nothing: the transaction
//! that was asked about is over.
//!
//! What is noted besides: the lowest sequence that was asked about. If the question for a producer's
//! first batch fails and the one for its second is answered, the second must not be appended, or the
//! first could never be. And under transactions of version 2 a producer of which nothing is known
//! starts at sequence 0.

use crate::producers::ProducerBatch;
use crate::rejection::Rejection;
use oncelog_wire::ErrorCode;
use oncelog_wire::records::BatchHeader;
use std::collections::BTreeMap;

/// Producers with a question open; with more, the oldest question's answer counts no more.
const VERIFICATIONS_MAX: usize = 10_000;

/// Stands for the question to the coordinator; to be handed in with the batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerificationGuard(u64);

impl VerificationGuard {
    /// For a producer whose transaction is open: nothing has to be asked.
    pub(crate) const NOT_NEEDED: VerificationGuard = VerificationGuard(0);
}

#[derive(Debug, Default)]
pub(crate) struct Verifications {
    by_producer: BTreeMap<i64, Verification>,
    last_guard: u64,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Verification {
    guard: VerificationGuard,
    epoch: i16,
    lowest_sequence: i32,
    supports_epoch_bump: bool,
    /// It was there at the last sweep already.
    old: bool,
}

impl Verifications {
    pub fn is_empty(&self) -> bool {
        self.by_producer.is_empty()
    }

    pub fn begin(&mut self, header: &BatchHeader, supports_epoch_bump: bool) -> VerificationGuard {
        let (epoch, sequence) = (header.producer_epoch, header.base_sequence);
        if let Some(open) = self.by_producer.get_mut(&header.producer_id) {
            let newer = epoch > open.epoch;
            if newer || epoch == open.epoch && sequence < open.lowest_sequence {
                open.epoch = epoch;
                open.lowest_sequence = sequence;
            }
            open.supports_epoch_bump |= supports_epoch_bump;
            return open.guard;
        }
        if self.by_producer.len() >= VERIFICATIONS_MAX {
            let oldest = self.by_producer.iter().min_by_key(|(_, open)| open.guard.0);
            let oldest = oldest.map(|(producer_id, _)| *producer_id);
            self.by_producer.remove(&oldest.unwrap_or_default());
        }
        self.last_guard += 1;
        let guard = VerificationGuard(self.last_guard);
        let verification = Verification {
            guard,
            epoch,
            lowest_sequence: sequence,
            supports_epoch_bump,
            old: false,
        };
        self.by_producer.insert(header.producer_id, verification);
        guard
    }

    /// INVALID_TXN_STATE(48) unless `guard` is the producer's.
    pub fn check(
        &self,
        producer_id: i64,
        guard: Option<VerificationGuard>,
    ) -> Result<Option<&Verification>, Rejection> {
        let open = self.by_producer.get(&producer_id);
        match open {
            Some(open) if guard == Some(open.guard) => Ok(Some(open)),
            _ => {
                let why = format!("producer {producer_id} has no transaction open here");
                Err(Rejection::new(ErrorCode::InvalidTxnState, why))
            }
        }
    }

    /// The transaction has begun, or is over.
    pub fn end(&mut self, producer_id: i64) {
        self.by_producer.remove(&producer_id);
    }

    /// Forgets what was there at the last sweep already: a question is answered in far less time.
    pub fn sweep(&mut self) {
        let is_new = |open: &mut Verification| !std::mem::replace(&mut open.old, true);
        self.by_producer.retain(|_, open| is_new(open));
    }
}

impl Verification {
    /// OUT_OF_ORDER_SEQUENCE_NUMBER(45) for a batch that must wait for an earlier one. `known`: the
    /// sequence of a batch before it is known.
    pub fn check_sequence(&self, batch: &ProducerBatch, known: bool) -> Result<(), Rejection> {
        let (producer_id, sequence) = (batch.producer_id, batch.base_sequence);
        let expected = match known {
            false if self.supports_epoch_bump => 0,
            _ => self.lowest_sequence,
        };
        // Sequences below the lowest were never asked about; whoever sends one has to.
        if sequence <= expected {
            return Ok(());
        }
        let message = format!(
            "sequence {sequence} of producer {producer_id} cannot be the first of its \
             transaction: expected {expected}"
        );
        Err(Rejection::new(ErrorCode::OutOfOrderSequenceNumber, message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oncelog_wire::records::BatchBuilder;

    fn header(producer_id: i64, epoch: i16, sequence: i32) -> BatchHeader {
        let mut builder = BatchBuilder::new().producer(producer_id, epoch, sequence);
        builder.append(1, None, None, &[]);
        BatchHeader::parse(&builder.transactional(true).build()).unwrap()
    }

    #[test]
    fn one_guard_per_producer_until_it_ends() {
        let mut open = Verifications::default();
        let guard = open.begin(&header(7, 0, 5), false);
        assert_eq!(open.begin(&header(7, 0, 3), false), guard);
        assert_ne!(open.begin(&header(8, 0, 0), false), guard);
        assert!(open.check(7, Some(guard)).is_ok());
        assert!(open.check(7, None).is_err());
        assert!(open.check(8, Some(guard)).is_err());
        assert_eq!(open.by_producer[&7].lowest_sequence, 3);
        open.begin(&header(7, 1, 9), false);
        assert_eq!(open.by_producer[&7].lowest_sequence, 9);
        open.end(7);
        assert!(open.check(7, Some(guard)).is_err());
        assert_ne!(open.begin(&header(7, 0, 5), false), guard);
    }

    #[test]
    fn they_are_bounded_in_number_and_time() {
        let mut open = Verifications::default();
        let first = open.begin(&header(0, 0, 0), false);
        for producer_id in 1..=VERIFICATIONS_MAX as i64 {
            open.begin(&header(producer_id, 0, 0), false);
        }
        assert!(open.check(0, Some(first)).is_err());
        assert_eq!(open.by_producer.len(), VERIFICATIONS_MAX);
        open.sweep();
        open.begin(&header(0, 0, 0), false);
        open.sweep();
        assert_eq!(open.by_producer.len(), 1);
    }
}
