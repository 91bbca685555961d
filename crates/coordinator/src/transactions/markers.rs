//! What follows a decision: markers in every partition, then the transaction is complete.
//!
//! The step that completes a transaction decides the requests that waited for it.
//!
//! A marker that its partition refuses (INVALID_PRODUCER_EPOCH, TRANSACTION_COORDINATOR_FENCED)
//! is given up, as in Kafka: the partition has seen something newer of this producer, or of the
//! coordinator, and the transaction is over there.

use super::TransactionShard;
use crate::Outcome;
use oncelog_wire::ErrorCode;
use oncelog_wire::clock::Now;

impl TransactionShard {
    /// The marker of this producer id and epoch is durable in the partition, or the partition
    /// does not exist any more. Anything that is not waited for is ignored.
    pub fn marker_written(
        &mut self,
        now: Now,
        transactional_id: &str,
        producer_id: i64,
        producer_epoch: i16,
        (topic, partition): (&str, i32),
    ) -> Outcome {
        self.assert_loaded();
        let Some(entry) = self.entries.get_mut(transactional_id) else {
            return Outcome::default();
        };
        let is_awaited = entry.transaction.as_ref().is_some_and(|transaction| {
            transaction.state.is_prepare()
                && transaction.producer_id == producer_id
                && transaction.producer_epoch == producer_epoch
        });
        if !is_awaited || !entry.unmarked.remove(topic, partition) || !entry.unmarked.is_empty() {
            return Outcome::default();
        }
        self.complete(now, transactional_id)
    }

    /// The partition refused the marker for good.
    pub fn marker_refused(
        &mut self,
        now: Now,
        transactional_id: &str,
        producer_id: i64,
        producer_epoch: i16,
        partition: (&str, i32),
        error: ErrorCode,
    ) -> Outcome {
        let mut out = self.marker_written(
            now,
            transactional_id,
            producer_id,
            producer_epoch,
            partition,
        );
        let (topic, index) = partition;
        out.log.push(format!(
            "transactional id {transactional_id}: {topic}-{index} refused the marker of producer id {producer_id}, epoch {producer_epoch}: {error}; the transaction is over there without it"
        ));
        out
    }

    /// No partition of these topics gets a marker any more.
    pub fn topics_deleted(&mut self, now: Now, names: &[&str]) -> Outcome {
        self.assert_loaded();
        let mut done = Vec::new();
        for (id, entry) in &mut self.entries {
            let mut was_removed = false;
            for name in names {
                was_removed |= entry.unmarked.remove_topic(name);
            }
            if was_removed && entry.unmarked.is_empty() {
                done.push(id.clone());
            }
        }
        let mut out = Outcome::default();
        for id in done {
            out.extend(self.complete(now, &id));
        }
        out
    }

    pub(super) fn complete(&mut self, now: Now, id: &str) -> Outcome {
        let parked = self.take_parked(id);
        self.step(now, id, |draft| draft.complete(), parked, &mut || None)
    }
}
