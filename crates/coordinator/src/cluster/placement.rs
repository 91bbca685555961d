//! Which brokers get a new partition's replicas.
//!
//! Brokers take turns, the first replica leads. Racks and load do not count yet: with one broker
//! there is nothing to choose.

use super::record::MetadataRecord;
use super::refusal::Refusal;
use super::state::Cluster;
use oncelog_wire::messages::PartitionRecord;
use oncelog_wire::{ErrorCode, Uuid};

/// Kafka's mark for "the broker has not said in which directory".
pub const UNASSIGNED_DIRECTORY: Uuid = Uuid([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);

impl Cluster {
    /// Replicas for the partitions `from..to` of a topic.
    pub(super) fn place(
        &self,
        from: usize,
        to: usize,
        replication_factor: i16,
    ) -> Result<Vec<Vec<i32>>, Refusal> {
        let usable = self.brokers.values().filter(|broker| !broker.record.fenced);
        let brokers: Vec<i32> = usable.map(|broker| broker.record.broker_id).collect();
        let wanted = usize::try_from(replication_factor).unwrap_or(0);
        if wanted == 0 || wanted > brokers.len() {
            let message = format!(
                "Unable to replicate the partition {replication_factor} time(s): the cluster has \
                 {} broker(s) to put replicas on",
                brokers.len()
            );
            return Err(Refusal::new(ErrorCode::InvalidReplicationFactor, message));
        }
        let replicas = |partition: usize| {
            (0..wanted)
                .map(|i| brokers[(partition + i) % brokers.len()])
                .collect()
        };
        Ok((from..to).map(replicas).collect())
    }

    /// Checks replicas that a client chose; `size` is how many there must be, if that is known.
    pub(super) fn check_assignment(
        &self,
        replicas: &[i32],
        size: Option<usize>,
    ) -> Result<(), Refusal> {
        let refuse =
            |message: String| Err(Refusal::new(ErrorCode::InvalidReplicaAssignment, message));
        if replicas.is_empty() {
            return refuse(
                "The manual partition assignment includes an empty replica list.".to_owned(),
            );
        }
        if let Some(size) = size.filter(|size| *size != replicas.len()) {
            let given = replicas.len();
            return refuse(format!(
                "The manual partition assignment includes a partition with {given} replica(s), \
                 and this is not consistent with others that have {size} replica(s)."
            ));
        }
        for (at, broker) in replicas.iter().enumerate() {
            if replicas[..at].contains(broker) {
                return refuse(format!(
                    "The manual partition assignment names broker {broker} twice."
                ));
            }
            match self.brokers.get(broker) {
                Some(known) if !known.record.fenced => {}
                _ => {
                    return refuse(format!(
                        "The manual partition assignment includes broker {broker}, but no such \
                         broker is registered."
                    ));
                }
            }
        }
        Ok(())
    }
}

/// The record of a partition's birth.
pub(super) fn new_partition(topic_id: Uuid, index: usize, replicas: Vec<i32>) -> MetadataRecord {
    let record = PartitionRecord {
        partition_id: index as i32,
        topic_id,
        isr: replicas.clone(),
        leader: replicas[0],
        leader_epoch: 0,
        partition_epoch: 0,
        directories: vec![UNASSIGNED_DIRECTORY; replicas.len()],
        replicas,
        ..Default::default()
    };
    record.into()
}
