//! What the coordinators' hosts share: how a shard's records become batches of its partition.

use crate::broker::Broker;
use crate::limits;
use crate::topics::PartitionKey;
use oncelog_coordinator::Record;
use oncelog_partition::{Rejection, VerificationGuard};
use oncelog_wire::records::{BatchBuilder, NO_SEQUENCE};

/// A producer's transaction that records are a part of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InTransaction {
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub guard: Option<VerificationGuard>,
}

/// Appends a shard's records, in as many batches as their size asks for.
///
/// An error is of the first batch, and nothing was appended then: a shard's own records are never
/// refused, and a transaction that the first batch belongs to is open for the others.
pub(crate) fn append_records(
    broker: &mut Broker,
    key: PartitionKey,
    records: &[Record],
    transaction: Option<InTransaction>,
) -> Result<(), Rejection> {
    let mut rest = records.iter().peekable();
    while rest.peek().is_some() {
        let mut batch = BatchBuilder::new();
        if let Some(of) = transaction {
            batch = batch
                .producer(of.producer_id, of.producer_epoch, NO_SEQUENCE)
                .transactional(true);
        }
        while let Some(record) = rest.next_if(|record| {
            let size = record.key.len() + record.value.as_ref().map_or(0, |value| value.len());
            batch.is_empty() || batch.size_in_bytes() + size < limits::COORDINATOR_BATCH_BYTES
        }) {
            let value = record.value.as_deref();
            batch.append(broker.now.wall_ms, Some(&record.key), value, &[]);
        }
        let now = broker.now;
        let hosted = broker
            .topics
            .get_mut(key)
            .expect("a shard has its partition");
        let appended = match transaction {
            None => hosted.partition.append_internal(now, batch.build()),
            Some(of) => hosted
                .partition
                .append_transactional(now, batch.build(), of.guard),
        }?;
        broker.run(key, appended.work);
    }
    Ok(())
}
