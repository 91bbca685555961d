//! Topics that come into being because somebody asked for them: with the broker's defaults, or
//! for its own topics, with what they need.

use super::config::BrokerConfig;
use super::create_topics::{NewTopic, Taken};
use super::record::MetadataRecord;
use super::refusal::Refusal;
use super::state::Cluster;
use super::topic_name::{OFFSETS_TOPIC, TRANSACTION_STATE_TOPIC};
use crate::seed::Seed;
use oncelog_wire::ErrorCode;
use std::collections::{BTreeMap, BTreeSet};

/// What came of the attempt to make topics.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AutoCreated {
    pub records: Vec<MetadataRecord>,
    /// Name, code and sentence of those that cannot be made.
    pub refused: Vec<(String, ErrorCode, String)>,
}

impl Cluster {
    /// Makes those of the topics that do not exist yet; names may repeat.
    pub fn auto_create_topics(
        &self,
        config: &BrokerConfig,
        names: &[String],
        seed: &mut Seed,
    ) -> AutoCreated {
        let mut out = AutoCreated::default();
        let mut taken = Taken::default();
        let names: BTreeSet<&String> = names.iter().collect();
        for name in names
            .into_iter()
            .filter(|name| !self.topics.contains_key(*name))
        {
            match self.plan_auto_created(config, name, &taken) {
                Ok(new) => {
                    taken.take(&new);
                    out.records.extend(new.to_records(self.new_topic_id(seed)));
                }
                Err(refusal) => out
                    .refused
                    .push((name.clone(), refusal.code, refusal.message)),
            }
        }
        out
    }

    fn plan_auto_created(
        &self,
        config: &BrokerConfig,
        name: &str,
        taken: &Taken,
    ) -> Result<NewTopic, Refusal> {
        let internal = self.coordinator_topic(config, name);
        let is_internal = internal.is_some();
        let (partitions, replicas, configs) = match internal {
            Some(internal) => internal,
            None => {
                self.check_new_name(name, taken)?;
                let factor = config.default_replication_factor;
                (config.num_partitions, factor, BTreeMap::new())
            }
        };
        let count = usize::try_from(partitions).expect("the configuration is checked");
        if !is_internal {
            taken.check_partitions(count)?;
        }
        Ok(NewTopic {
            name: name.to_owned(),
            partitions: self.place(0, count, replicas)?,
            configs,
        })
    }

    /// Partitions, replicas and configuration of a coordinator's topic, as Kafka makes it; `None`
    /// for any other name. There are never more replicas than brokers: the default of 3 would keep a
    /// node alone from starting.
    fn coordinator_topic(
        &self,
        config: &BrokerConfig,
        name: &str,
    ) -> Option<(i32, i16, BTreeMap<String, String>)> {
        let (partitions, replicas, segment_bytes) = match name {
            OFFSETS_TOPIC => (
                config.offsets_topic_num_partitions,
                config.offsets_topic_replication_factor,
                config.offsets_topic_segment_bytes,
            ),
            TRANSACTION_STATE_TOPIC => (
                config.transactions.state_log_num_partitions,
                config.transactions.state_log_replication_factor,
                config.transactions.state_log_segment_bytes,
            ),
            _ => return None,
        };
        let brokers = i16::try_from(self.brokers.len()).unwrap_or(i16::MAX);
        let compression = match name {
            OFFSETS_TOPIC => "producer",
            _ => "uncompressed",
        };
        let configs = [
            ("cleanup.policy", "compact".to_owned()),
            ("compression.type", compression.to_owned()),
            ("segment.bytes", segment_bytes.to_string()),
        ];
        Some((
            partitions,
            replicas.min(brokers),
            configs.map(|(name, value)| (name.to_owned(), value)).into(),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::super::config::TopicConfig;
    use super::super::testing::{apply, cluster, config};
    use super::super::topic_name::METADATA_TOPIC;
    use super::*;
    use oncelog_wire::records::Compression;

    fn create(cluster: &mut Cluster, config: &BrokerConfig, names: &[&str]) -> AutoCreated {
        let names: Vec<String> = names.iter().map(|name| name.to_string()).collect();
        let made = cluster.auto_create_topics(config, &names, &mut Seed::new(1));
        apply(cluster, &made.records);
        made
    }

    #[test]
    fn ordinary_topics_get_the_brokers_defaults() {
        let (mut cluster, config) = (cluster(), config(&[("num.partitions", "3")]));
        let made = create(
            &mut cluster,
            &config,
            &["b", "a", "b", "bad name", "a.x", "a_x"],
        );
        let names: Vec<&str> = cluster.topics().map(|topic| topic.name.as_str()).collect();
        assert_eq!(names, ["a", "a.x", "b"]);
        assert!(cluster.topics().all(|topic| topic.partitions.len() == 3));
        let refused: Vec<_> = made
            .refused
            .iter()
            .map(|(name, code, _)| (name.as_str(), *code))
            .collect();
        let invalid = ErrorCode::InvalidTopicException;
        assert_eq!(refused, [("a_x", invalid), ("bad name", invalid)]);

        let again = create(&mut cluster, &config, &["a", "b"]);
        assert_eq!(again, AutoCreated::default(), "they exist");
    }

    #[test]
    fn coordinators_topics_are_compacted_and_fit_one_broker() {
        for (name, key, compression) in [
            (OFFSETS_TOPIC, "offsets.topic.num.partitions", None),
            (
                TRANSACTION_STATE_TOPIC,
                "transaction.state.log.num.partitions",
                Some(Compression::None),
            ),
        ] {
            let (mut cluster, config) = (cluster(), config(&[(key, "7")]));
            let made = create(&mut cluster, &config, &[name]);
            assert_eq!(made.refused, []);
            let topic = cluster.topic(name).expect("made");
            assert_eq!(topic.partitions.len(), 7);
            assert_eq!(topic.partitions[0].replicas, [1]);
            let made = cluster.topic_config(&config, name);
            let ordinary = cluster.topic_config(&config, "other");
            assert_eq!(
                made,
                TopicConfig {
                    cleanup_compact: true,
                    cleanup_delete: false,
                    segment_bytes: 104_857_600,
                    compression_type: compression,
                    ..ordinary
                }
            );
        }
    }

    #[test]
    fn the_metadata_topic_is_not_made_by_asking() {
        let (mut cluster, config) = (cluster(), config(&[]));
        let made = create(&mut cluster, &config, &[METADATA_TOPIC]);
        assert_eq!(made.records, []);
        assert_eq!(made.refused.len(), 1);
    }
}
