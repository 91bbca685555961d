//! What the tests of this module share: clusters of one broker, and records applied.

use super::config::BrokerConfig;
use super::placement::new_partition;
use super::record::MetadataRecord;
use super::state::Cluster;
use oncelog_wire::Uuid;
use oncelog_wire::messages::TopicRecord;

/// A configuration of these settings and the defaults.
pub fn config(settings: &[(&str, &str)]) -> BrokerConfig {
    let pair = |(name, value): &(&str, &str)| (name.to_string(), value.to_string());
    let mut config = BrokerConfig::from_properties(&settings.iter().map(pair).collect())
        .expect("the test's settings are valid");
    config.fill_in_addresses("localhost", &[9092]);
    config
}

pub fn cluster() -> Cluster {
    Cluster::new(&config(&[]), "test-cluster".to_owned())
}

/// With these topics, by name and number of partitions; ids count up from 1.
pub fn cluster_with(topics: &[(&str, usize)]) -> Cluster {
    let mut cluster = cluster();
    for (at, (name, partitions)) in topics.iter().enumerate() {
        let mut id = Uuid::ZERO;
        id.0[15] = at as u8 + 1;
        let topic = TopicRecord {
            name: name.to_string(),
            topic_id: id,
            ..Default::default()
        };
        apply(&mut cluster, &[topic.into()]);
        let records: Vec<_> = (0..*partitions)
            .map(|i| new_partition(id, i, vec![1]))
            .collect();
        apply(&mut cluster, &records);
    }
    cluster
}

/// Replays the records as they come back from the log.
pub fn apply(cluster: &mut Cluster, records: &[MetadataRecord]) {
    for record in records {
        let read = MetadataRecord::decode(&record.encode()).expect("written and read");
        assert_eq!(&read, record);
        cluster.replay(&read).expect("decided from this state");
    }
}
