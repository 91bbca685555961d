//! THE table of what is served: API, and the versions that are implemented field by field.
//!
//! What is not here is refused, and what is here is advertised in ApiVersions and no more: a peer
//! that advertises what its codec can read, and ignores the fields, breaks clients in ways that
//! nobody can debug. Adding a row means that the API does what Kafka's does.

use crate::ApiKey;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Served {
    pub key: ApiKey,
    /// The lowest version that ApiVersions names; see [`Served::accepts`].
    pub min_version: i16,
    pub max_version: i16,
}

impl Served {
    /// Whether a request in this version is handled.
    ///
    /// The range that is advertised, but for Produce: it must be advertised from version 0, or
    /// librdkafka turns compression off (KAFKA-18659), and versions 0 to 2 do not exist any more.
    pub fn accepts(&self, version: i16) -> bool {
        let (schema_min, _) = self.key.schema_versions();
        (self.min_version.max(schema_min)..=self.max_version).contains(&version)
    }
}

/// The row of an API, if it is served at all.
pub fn served(key: ApiKey) -> Option<&'static Served> {
    SERVED.iter().find(|row| row.key == key)
}

const fn row(key: ApiKey, min_version: i16, max_version: i16) -> Served {
    Served {
        key,
        min_version,
        max_version,
    }
}

pub const SERVED: &[Served] = &[
    row(ApiKey::Produce, 0, 13),
    row(ApiKey::Fetch, 4, 18),
    row(ApiKey::ListOffsets, 1, 11),
    row(ApiKey::Metadata, 0, 13),
    row(ApiKey::OffsetCommit, 2, 10),
    row(ApiKey::OffsetFetch, 1, 10),
    row(ApiKey::FindCoordinator, 0, 6),
    row(ApiKey::JoinGroup, 0, 9),
    row(ApiKey::Heartbeat, 0, 4),
    row(ApiKey::LeaveGroup, 0, 5),
    row(ApiKey::SyncGroup, 0, 5),
    row(ApiKey::DescribeGroups, 0, 6),
    row(ApiKey::ListGroups, 0, 5),
    row(ApiKey::ApiVersions, 0, 4),
    row(ApiKey::CreateTopics, 2, 7),
    row(ApiKey::DeleteTopics, 1, 6),
    row(ApiKey::DeleteRecords, 0, 2),
    // Version 6 (two-phase commit, KIP-939) is unstable in Kafka 4.3, and advertised only where
    // transaction.two.phase.commit.enable is set.
    row(ApiKey::InitProducerId, 0, 6),
    row(ApiKey::OffsetForLeaderEpoch, 2, 4),
    // Versions 4 and 5 are for brokers among themselves.
    row(ApiKey::AddPartitionsToTxn, 0, 3),
    row(ApiKey::AddOffsetsToTxn, 0, 4),
    row(ApiKey::EndTxn, 0, 5),
    row(ApiKey::WriteTxnMarkers, 1, 2),
    row(ApiKey::TxnOffsetCommit, 0, 5),
    row(ApiKey::DescribeConfigs, 1, 4),
    row(ApiKey::AlterConfigs, 0, 2),
    row(ApiKey::DescribeLogDirs, 1, 5),
    row(ApiKey::CreatePartitions, 0, 3),
    row(ApiKey::DeleteGroups, 0, 2),
    row(ApiKey::IncrementalAlterConfigs, 0, 1),
    row(ApiKey::OffsetDelete, 0, 0),
    row(ApiKey::DescribeCluster, 0, 2),
    row(ApiKey::DescribeProducers, 0, 0),
    row(ApiKey::DescribeTransactions, 0, 0),
    row(ApiKey::ListTransactions, 0, 2),
    row(ApiKey::ConsumerGroupHeartbeat, 0, 1),
    row(ApiKey::ConsumerGroupDescribe, 0, 1),
    row(ApiKey::ListConfigResources, 0, 1),
    row(ApiKey::DescribeTopicPartitions, 0, 0),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_in_order_and_within_the_schemas() {
        assert!(SERVED.windows(2).all(|pair| pair[0].key < pair[1].key));
        for row in SERVED {
            let (min, max) = row.key.schema_versions();
            assert!(row.max_version <= max, "{}", row.key.name());
            assert!(
                row.min_version >= min || row.key == ApiKey::Produce,
                "{}",
                row.key.name()
            );
            assert!(row.min_version <= row.max_version, "{}", row.key.name());
        }
    }

    #[test]
    fn produce_is_advertised_from_0_and_accepted_from_3() {
        let produce = served(ApiKey::Produce).unwrap();
        assert_eq!(produce.min_version, 0);
        let accepted: Vec<i16> = (-1..20).filter(|v| produce.accepts(*v)).collect();
        assert_eq!(accepted, (3..=13).collect::<Vec<i16>>());
        assert_eq!(served(ApiKey::UpdateFeatures), None);
    }
}
