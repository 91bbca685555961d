use super::super::config::BrokerConfig;
use super::super::testing::{apply, cluster, cluster_with};
use super::*;
use oncelog_wire::messages::RegisterBrokerRecord;
use proptest::prelude::*;

fn id(n: u8) -> Uuid {
    Uuid([n; 16])
}

fn topic(name: &str, n: u8) -> MetadataRecord {
    let name = name.to_owned();
    TopicRecord {
        name,
        topic_id: id(n),
        ..Default::default()
    }
    .into()
}

fn partition(n: u8, partition_id: i32, leader: i32) -> MetadataRecord {
    let topic_id = id(n);
    PartitionRecord {
        partition_id,
        topic_id,
        leader,
        ..Default::default()
    }
    .into()
}

/// A record that does not fit is an error and leaves everything as it was.
fn refused(cluster: &mut Cluster, record: impl Into<MetadataRecord>, part: &str) {
    let before = cluster.clone();
    let (record, offset) = (record.into(), cluster.metadata_offset());
    let error = cluster
        .replay(&record)
        .expect_err("does not fit")
        .to_string();
    assert!(error.contains(part), "{error}");
    assert_eq!((&before, offset), (&*cluster, cluster.metadata_offset()));
}

#[test]
fn records_that_do_not_fit() {
    let mut cluster = cluster_with(&[("a", 1)]);
    refused(&mut cluster, topic("a", 9), "taken");
    refused(&mut cluster, topic("../etc", 9), "only ASCII letters");
    refused(&mut cluster, topic("b", 0), "zero");
    refused(&mut cluster, partition(9, 0, 1), "no topic with id");
    apply(&mut cluster, &[topic("b.c", 8)]);
    refused(&mut cluster, topic("b_c", 9), "collides with b.c");
    let mut gap = PartitionRecord {
        partition_id: 5,
        topic_id: cluster.topic("a").unwrap().id,
        ..Default::default()
    };
    refused(&mut cluster, gap.clone(), "has 1 partitions");
    gap.partition_id = -1;
    refused(&mut cluster, gap, "has 1 partitions");
    let change = PartitionChangeRecord {
        partition_id: 1,
        topic_id: cluster.topic("a").unwrap().id,
        ..Default::default()
    };
    refused(&mut cluster, change, "has 1 partitions");
    refused(
        &mut cluster,
        RemoveTopicRecord {
            topic_id: id(9),
            ..Default::default()
        },
        "no topic with id",
    );
    refused(
        &mut cluster,
        ConfigRecord {
            resource_type: 99,
            ..Default::default()
        },
        "type 99",
    );
    apply(
        &mut cluster,
        &[ProducerIdsRecord {
            next_producer_id: 10,
            ..Default::default()
        }
        .into()],
    );
    refused(
        &mut cluster,
        ProducerIdsRecord {
            next_producer_id: 9,
            ..Default::default()
        },
        "go back from 10 to 9",
    );
}

#[test]
fn a_partition_change_changes_what_it_names() {
    let mut cluster = cluster_with(&[("a", 1)]);
    let topic_id = cluster.topic("a").unwrap().id;
    let change = PartitionChangeRecord {
        partition_id: 0,
        topic_id,
        isr: Some(vec![1, 2]),
        ..Default::default()
    };
    apply(&mut cluster, &[change.into()]);
    let state = &cluster.topic("a").unwrap().partitions[0];
    assert_eq!(
        (state.leader, state.leader_epoch, state.partition_epoch),
        (1, 0, 1)
    );
    assert_eq!(
        (&state.isr[..], &state.replicas[..]),
        (&[1, 2][..], &[1][..])
    );

    let change = PartitionChangeRecord {
        partition_id: 0,
        topic_id,
        leader: -1,
        ..Default::default()
    };
    apply(&mut cluster, &[change.into()]);
    let state = &cluster.topic("a").unwrap().partitions[0];
    assert_eq!(
        (state.leader, state.leader_epoch, state.partition_epoch),
        (-1, 1, 2)
    );
}

#[test]
fn this_brokers_registration_is_its_configurations() {
    let mut cluster = cluster();
    let before = cluster.clone();
    let stale = RegisterBrokerRecord {
        broker_id: 1,
        ..Default::default()
    };
    apply(&mut cluster, &[stale.into()]);
    assert_eq!(cluster, before);
    let other = RegisterBrokerRecord {
        broker_id: 2,
        ..Default::default()
    };
    apply(&mut cluster, &[other.into()]);
    assert_eq!(cluster.brokers().count(), 2);
}

#[test]
fn epochs_tell_changes_of_topics_from_others() {
    let mut cluster = cluster_with(&[("a", 1)]);
    let before = Topics::epoch(&cluster);
    apply(
        &mut cluster,
        &[ProducerIdsRecord {
            next_producer_id: 1,
            ..Default::default()
        }
        .into()],
    );
    assert_eq!(Topics::epoch(&cluster), before);
    apply(&mut cluster, &[topic("b", 9)]);
    assert!(Topics::epoch(&cluster) > before);
}

use crate::topics::Topics;

/// Records over few names and ids, so that they meet each other. Many do not fit the state that
/// they come to; those must leave it alone.
fn record() -> impl Strategy<Value = MetadataRecord> {
    let name = prop_oneof![Just("a"), Just("b.c"), Just("b_c"), Just("d"), Just("..")];
    let key = prop_oneof![
        Just("retention.ms"),
        Just("cleanup.policy"),
        Just("log.roll.ms")
    ];
    let ids = || prop::collection::vec(0..4, 0..3);
    prop_oneof![
        (name.clone(), 0..4u8).prop_map(|(name, n)| topic(name, n)),
        (1..4u8, -1..4, ids(), ids(), prop::option::of(ids())).prop_map(
            |(n, p, replicas, isr, elr)| {
                PartitionRecord {
                    partition_id: p,
                    topic_id: id(n),
                    directories: vec![id(7); replicas.len()],
                    replicas,
                    isr,
                    leader: p,
                    leader_epoch: 3,
                    partition_epoch: 4,
                    eligible_leader_replicas: elr,
                    ..Default::default()
                }
                .into()
            }
        ),
        (1..4u8, -1..4, -2..3, prop::option::of(ids()), -1..2i8).prop_map(
            |(n, p, leader, isr, state)| {
                PartitionChangeRecord {
                    partition_id: p,
                    topic_id: id(n),
                    leader,
                    isr,
                    leader_recovery_state: state,
                    ..Default::default()
                }
                .into()
            }
        ),
        (1..4u8).prop_map(|n| RemoveTopicRecord {
            topic_id: id(n),
            ..Default::default()
        }
        .into()),
        (0..40i8, name, key, prop::option::of("[a-z]{0,3}")).prop_map(
            |(kind, resource, key, value)| {
                ConfigRecord {
                    resource_type: kind,
                    resource_name: resource.to_owned(),
                    name: key.to_owned(),
                    value,
                    ..Default::default()
                }
                .into()
            }
        ),
        (0..3i16).prop_map(|feature_level| {
            FeatureLevelRecord {
                name: "f".to_owned(),
                feature_level,
                ..Default::default()
            }
            .into()
        }),
        (0..5_000i64).prop_map(|next_producer_id| {
            ProducerIdsRecord {
                next_producer_id,
                ..Default::default()
            }
            .into()
        }),
        (1..4i32, any::<bool>()).prop_map(|(broker_id, fenced)| {
            RegisterBrokerRecord {
                broker_id,
                fenced,
                rack: None,
                ..Default::default()
            }
            .into()
        }),
    ]
}

proptest! {
    #[test]
    fn a_snapshot_brings_the_same_state_about(records in prop::collection::vec(record(), 0..60)) {
        let mut cluster = cluster();
        for record in &records {
            let before = cluster.clone();
            if cluster.replay(record).is_err() {
                prop_assert_eq!(&before, &cluster, "an error changed the state: {:?}", record);
            }
        }
        let mut again = Cluster::new(&BrokerConfig::default(), "test-cluster".to_owned());
        again.brokers.clone_from(&cluster.brokers);
        again.brokers.retain(|id, _| *id == 1);
        for record in cluster.to_records() {
            let read = MetadataRecord::decode(&record.encode()).expect("written and read");
            again.replay(&read).expect("a snapshot replays");
        }
        prop_assert_eq!(again, cluster);
    }
}
