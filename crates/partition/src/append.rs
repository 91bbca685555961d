//! Appending: what a leader checks before a batch gets offsets, and the append itself.
//!
//! A client's batch comes as a [`ProducedBatch`]: decoded, its CRC verified and its records looked
//! through, all outside the broker's lock. Here are the checks that need the partition's state or
//! configuration, in this order:
//!
//! 1. a **duplicate** of one of the producer's last five batches is answered with its original
//!    offsets. Kafka checks this after 2; here a batch that was accepted once stays accepted,
//!    even if the configuration or the clock would refuse it today;
//! 2. content: size, keys on a compacted topic, timestamps;
//! 3. of a transactional batch: that its transaction is open, or that the coordinator was asked (see
//!    [`crate::transactions`]);
//! 4. producer epoch and sequence, and that no batch is outside of the producer's open transaction.
//!
//! Then the header is stamped (see [`crate::rewrite`]), the log assigns offsets, and only then do
//! the producers take the batch in.

use crate::partition::{Completes, Partition, Work};
use crate::producers::{BatchEntry, ProducerBatch};
use crate::rejection::{RECORD_ERRORS_MAX, RecordError, Rejection};
use crate::rewrite::Rewritten;
use crate::verification::VerificationGuard;
use bytes::Bytes;
use oncelog_wire::ErrorCode;
use oncelog_wire::clock::Now;
use oncelog_wire::records::{Batch, NO_SEQUENCE, NO_TIMESTAMP, ProducedBatch, TimestampType};

/// A client's batch that is in the log, or on its way there.
#[derive(Debug)]
pub struct Appended {
    pub base_offset: i64,
    /// acks=all is answered once the high watermark is past this, for a duplicate too.
    pub last_offset: i64,
    /// The broker's time for LogAppendTime topics, else -1 (`log_append_time_ms`).
    pub append_time_ms: i64,
    /// It was in the log already, nothing was appended.
    pub duplicate: bool,
    pub work: Vec<Work>,
}

impl Partition {
    /// Appends a client's batch, or finds that it is in the log already.
    ///
    /// `guard`: what [`Partition::begin_verification`] gave before the coordinator was asked, for a
    /// batch that needs it. `acks` plays no part here. Errors are Kafka's: MESSAGE_TOO_LARGE(10),
    /// RECORD_LIST_TOO_LARGE(18), INVALID_RECORD(87), INVALID_TIMESTAMP(32),
    /// OUT_OF_ORDER_SEQUENCE_NUMBER(45), INVALID_PRODUCER_EPOCH(47), INVALID_TXN_STATE(48),
    /// CORRUPT_MESSAGE(2).
    pub fn append_from_client(
        &mut self,
        now: Now,
        batch: &ProducedBatch,
        guard: Option<VerificationGuard>,
    ) -> Result<Appended, Rejection> {
        let producer = ProducerBatch::of(&batch.header);
        if let Some(original) = producer.and_then(|p| self.producers.find_duplicate(&p)) {
            return Ok(self.duplicate_of(original));
        }
        self.check_content(now, batch)?;
        if let Some(producer) = producer {
            let transactional = batch.header.is_transactional();
            let verification = self.check_transaction(&batch.header, guard)?;
            self.producers
                .check(&producer, transactional, verification)?;
        }
        let rewritten = Rewritten::for_topic(&self.config, now, batch)?;
        self.check_size(rewritten.size_bytes())?;
        Ok(self.append(now, rewritten))
    }

    /// Appends a batch of a coordinator's records that are part of a client's transaction: it names
    /// the client's producer id and epoch, and has no sequence.
    ///
    /// Errors: INVALID_PRODUCER_EPOCH(47), INVALID_TXN_STATE(48), MESSAGE_TOO_LARGE(10),
    /// RECORD_LIST_TOO_LARGE(18).
    ///
    /// # Panics
    /// If `batch` is not one whole, well-formed batch of that kind: the broker built it.
    pub fn append_transactional(
        &mut self,
        now: Now,
        batch: Bytes,
        guard: Option<VerificationGuard>,
    ) -> Result<Appended, Rejection> {
        let parsed = whole(&batch);
        assert_coordinators(&parsed);
        self.check_size(batch.len())?;
        self.check_transaction(&parsed.header, guard)?;
        Ok(self.append(now, Rewritten::as_is(parsed)))
    }

    /// Appends a batch of the broker's own (a coordinator's records), which has no producer id.
    ///
    /// Errors: MESSAGE_TOO_LARGE(10), RECORD_LIST_TOO_LARGE(18).
    ///
    /// # Panics
    /// If `batch` is not one whole, well-formed batch of plain records: the broker built it.
    pub fn append_internal(&mut self, now: Now, batch: Bytes) -> Result<Appended, Rejection> {
        let parsed = whole(&batch);
        assert_plain(&parsed);
        self.check_size(batch.len())?;
        Ok(self.append(now, Rewritten::as_is(parsed)))
    }

    fn append(&mut self, now: Now, batch: Rewritten) -> Appended {
        let header = batch.header;
        let appended = self.write(now, batch);
        self.producers
            .apply(&header, appended.base_offset, now.instant);
        if header.is_transactional() {
            self.verifications.end(header.producer_id);
        }
        self.assert_invariants();
        appended
    }

    /// Puts a batch at the log's end. The caller then tells the producers.
    pub(crate) fn write(&mut self, now: Now, batch: Rewritten) -> Appended {
        let expected_offset = self.log.end_offset();
        let appended = self.log.append(
            &batch.header,
            batch.header_bytes,
            batch.body,
            self.identity.leader_epoch,
            now,
        );
        let (base_offset, last_offset) = (appended.base_offset, appended.last_offset);
        assert_eq!(base_offset, expected_offset, "offsets are gapless");
        let mut work = vec![Work {
            op: appended.append,
            completes: Completes::Append { last_offset },
        }];
        work.extend(appended.after.into_iter().map(Work::unwatched));
        if appended.rolled {
            // The producers do not know the batch yet: the snapshot describes what lies below the new segment.
            let snapshot = self.take_snapshot(now.instant, base_offset, true);
            work.push(Work::unwatched(snapshot));
        }
        Appended {
            base_offset,
            last_offset,
            append_time_ms: batch.append_time_ms,
            duplicate: false,
            work,
        }
    }

    fn duplicate_of(&self, original: BatchEntry) -> Appended {
        let append_time_ms = match self.config.timestamp_type {
            TimestampType::CreateTime => NO_TIMESTAMP,
            TimestampType::LogAppendTime => original.timestamp,
        };
        Appended {
            base_offset: original.base_offset(),
            last_offset: original.last_offset,
            append_time_ms,
            duplicate: true,
            work: Vec::new(),
        }
    }

    /// What Kafka's `LogValidator` checks of a client's batch, as far as it depends on the topic.
    fn check_content(&self, now: Now, batch: &ProducedBatch) -> Result<(), Rejection> {
        self.check_size(batch.size_bytes())?;
        if self.config.log.cleanup_compact
            && let Some(rejection) = keyless(batch)
        {
            return Err(rejection);
        }
        let has_timestamps = batch.min_timestamp != NO_TIMESTAMP;
        if has_timestamps && self.config.timestamp_type == TimestampType::CreateTime {
            self.check_timestamps(now, batch)?;
        }
        Ok(())
    }

    fn check_timestamps(&self, now: Now, batch: &ProducedBatch) -> Result<(), Rejection> {
        let earliest = now
            .wall_ms
            .saturating_sub(self.config.timestamp_before_max_ms);
        let latest = now
            .wall_ms
            .saturating_add(self.config.timestamp_after_max_ms);
        if batch.min_timestamp >= earliest && batch.max_timestamp <= latest {
            return Ok(());
        }
        let message = format!(
            "timestamps from {} to {} are not within {earliest} to {latest}",
            batch.min_timestamp, batch.max_timestamp
        );
        Err(Rejection::new(ErrorCode::InvalidTimestamp, message))
    }

    fn check_size(&self, size_bytes: usize) -> Result<(), Rejection> {
        let config = &self.config.log;
        if size_bytes > config.max_message_bytes {
            let max = config.max_message_bytes;
            let message = format!("the batch has {size_bytes} bytes, max.message.bytes is {max}");
            return Err(Rejection::new(ErrorCode::MessageTooLarge, message));
        }
        if size_bytes as u64 > config.segment_bytes {
            let max = config.segment_bytes;
            let message = format!("the batch has {size_bytes} bytes, segment.bytes is {max}");
            return Err(Rejection::new(ErrorCode::RecordListTooLarge, message));
        }
        Ok(())
    }
}

/// How a compacted topic refuses a batch: naming each record without a key, because a client fails
/// those for what they are and the others for having been sent with them.
fn keyless(batch: &ProducedBatch) -> Option<Rejection> {
    let first = batch.without_key.first()?.start;
    let message = "a compacted topic takes no record without a key";
    let indexes = batch.without_key.iter().cloned().flatten();
    Some(Rejection {
        code: ErrorCode::InvalidRecord,
        message: format!("record {first}: {message}"),
        record_errors: indexes
            .take(RECORD_ERRORS_MAX)
            .map(|batch_index| RecordError {
                batch_index,
                message: message.to_owned(),
            })
            .collect(),
    })
}

fn whole(batch: &Bytes) -> Batch {
    let parsed = Batch::parse(batch).expect("the broker builds well-formed batches");
    assert_eq!(parsed.bytes.len(), batch.len(), "one whole batch");
    parsed
}

fn assert_coordinators(batch: &Batch) {
    let header = &batch.header;
    let of_a_producer = header.has_producer_id() && header.producer_epoch >= 0;
    let kind = header.is_transactional() && !header.is_control();
    assert!(of_a_producer && kind && header.base_sequence == NO_SEQUENCE);
}

fn assert_plain(batch: &Batch) {
    let header = &batch.header;
    let plain = !header.is_transactional() && !header.is_control() && !header.has_producer_id();
    assert!(plain, "internal batches are not of a producer");
}
