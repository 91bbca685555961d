//! Producer ids: handed out in blocks, so that a broker asks the metadata log once per thousand.

use super::record::MetadataRecord;
use super::state::Cluster;
use oncelog_wire::messages::ProducerIdsRecord;

/// Ids in one block, as in Kafka.
pub const PRODUCER_ID_BLOCK: i64 = 1_000;

/// Ids from here on are not ours: anybody can write a batch with any id, and must not use them up.
const FOREIGN_FROM: i64 = 1 << 62;

impl Cluster {
    /// No id that is in use is given out again, even if the record that reserved it was lost with the end
    /// of the metadata log: its owner's batches would pass for duplicates of another's. True if that was
    /// so. What it skips becomes durable with the next block.
    pub fn skip_producer_ids(&mut self, in_use: impl Iterator<Item = i64>) -> bool {
        let ours = in_use.filter(|id| *id < FOREIGN_FROM);
        let unused = ours.max().map_or(0, |greatest| greatest + 1);
        let behind = self.next_producer_id < unused;
        self.next_producer_id = self.next_producer_id.max(unused);
        behind
    }

    /// Reserves the next block for this broker: the ids before the record's `next_producer_id`,
    /// [`PRODUCER_ID_BLOCK`] of them. Empty when there are no ids left, after 2^63 of them.
    pub fn allocate_producer_ids(&self) -> Vec<MetadataRecord> {
        let Some(next_producer_id) = self.next_producer_id.checked_add(PRODUCER_ID_BLOCK) else {
            return Vec::new();
        };
        let own = self.brokers.get(&self.node_id);
        let record = ProducerIdsRecord {
            broker_id: self.node_id,
            broker_epoch: own.map_or(-1, |broker| broker.record.broker_epoch),
            next_producer_id,
            ..Default::default()
        };
        vec![record.into()]
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{apply, cluster};
    use super::*;

    #[test]
    fn ids_in_use_are_skipped_but_for_absurd_ones() {
        let mut cluster = cluster();
        assert!(!cluster.skip_producer_ids([-1].into_iter()));
        assert!(cluster.skip_producer_ids([3, 1_004, i64::MAX, 7].into_iter()));
        assert_eq!(cluster.next_producer_id(), 1_005);
        assert!(!cluster.skip_producer_ids([1_004].into_iter()));
        let records = cluster.allocate_producer_ids();
        apply(&mut cluster, &records);
        assert_eq!(cluster.next_producer_id(), 2_005);
    }

    #[test]
    fn blocks_follow_one_another_and_end() {
        let mut cluster = cluster();
        for block in 1..=3 {
            let records = cluster.allocate_producer_ids();
            assert_eq!(records.len(), 1);
            apply(&mut cluster, &records);
            assert_eq!(cluster.next_producer_id(), block * PRODUCER_ID_BLOCK);
        }
        let last = ProducerIdsRecord {
            next_producer_id: i64::MAX,
            ..Default::default()
        };
        apply(&mut cluster, &[last.into()]);
        assert_eq!(cluster.allocate_producer_ids(), []);
    }
}
