//! The admin calls that the rdkafka crate binds: topics, configs, partitions, records, metadata.

use anyhow::{Context, Result, anyhow};
use rdkafka::admin::{AlterConfig, NewPartitions, ResourceSpecifier};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::checks::{Checks, equal, wait_for};
use crate::cluster::{Cluster, TIMEOUT, one, options, refused};
use crate::records::{plain, read_all, send, send_numbers};

pub fn run(checks: &mut Checks, cluster: &Cluster) {
    checks.run("topic-admin", || topic_admin(cluster));
    checks.run("create-partitions", || create_partitions(cluster));
    checks.run("alter-configs-legacy", || alter_configs(cluster));
    checks.run("delete-records", || delete_records(cluster));
    checks.run("delete-topic", || delete_topic(cluster));
    checks.skip(
        "alter-configs-incremental, list-offsets, describe-groups, describe-cluster, delete-offsets",
        "the rdkafka crate does not bind them",
    );
}

/// Leader, replicas, in-sync replicas.
type Partition = (i32, Vec<i32>, Vec<i32>);

fn partitions(cluster: &Cluster, topic: &str) -> Result<Vec<Partition>> {
    let metadata = cluster.admin.inner().fetch_metadata(Some(topic), TIMEOUT)?;
    let found = metadata
        .topics()
        .first()
        .context("the topic in the metadata")?;
    let each = found.partitions().iter();
    Ok(each
        .map(|p| (p.leader(), p.replicas().to_vec(), p.isr().to_vec()))
        .collect())
}

fn config_of(cluster: &Cluster, topic: &str, key: &str) -> Result<Option<String>> {
    let asked = [ResourceSpecifier::Topic(topic)];
    let answers = cluster.wait(cluster.admin.describe_configs(&asked, &options()))?;
    let answer = answers.into_iter().next().context("an answer")?;
    let resource = answer.map_err(|code| anyhow!("DescribeConfigs: {code}"))?;
    Ok(resource
        .get(key)
        .with_context(|| format!("{key} described"))?
        .value
        .clone())
}

fn topic_admin(cluster: &Cluster) -> Result<()> {
    let topic = cluster.topic("admin", 3, &[("retention.ms", "3600000")])?;
    let metadata = cluster.admin.inner().fetch_metadata(None, TIMEOUT)?;
    equal(
        metadata.topics().iter().any(|t| t.name() == topic),
        true,
        "topic listed",
    )?;
    equal(metadata.brokers().is_empty(), false, "brokers listed")?;
    let found = partitions(cluster, &topic)?;
    equal(found.len(), 3, "partitions")?;
    for (leader, replicas, isr) in found {
        equal(
            (replicas, isr),
            (vec![leader], vec![leader]),
            "replicas, in-sync replicas",
        )?;
    }
    equal(
        config_of(cluster, &topic, "retention.ms")?,
        Some("3600000".into()),
        "retention.ms",
    )?;
    let again = cluster.topic("admin", 1, &[]);
    refused(
        again,
        RDKafkaErrorCode::TopicAlreadyExists,
        "creating a topic twice",
    )?;
    let bad = cluster.topic("bad", 1, &[("no.such.key", "1")]);
    refused(bad, RDKafkaErrorCode::InvalidConfig, "an unknown config")
}

fn create_partitions(cluster: &Cluster) -> Result<()> {
    let topic = cluster.topic("grow", 1, &[])?;
    let grow = NewPartitions::new(&topic, 4);
    one(cluster.wait(cluster.admin.create_partitions([&grow], &options())))?;
    wait_for("4 partitions", || {
        let found = partitions(cluster, &topic)?;
        Ok(found.len() == 4 && found.iter().all(|(leader, ..)| *leader >= 0))
    })?;
    send_numbers(cluster, &topic, 0..8)
}

fn alter_configs(cluster: &Cluster) -> Result<()> {
    let topic = cluster.topic("alter", 1, &[("segment.ms", "700000")])?;
    // The crate drops the error of each resource here, so a refusal cannot be seen through it.
    let change = AlterConfig::new(ResourceSpecifier::Topic(&topic)).set("retention.ms", "2000000");
    cluster.wait(cluster.admin.alter_configs([&change], &options()))?;
    wait_for("the new value is described", || {
        Ok(config_of(cluster, &topic, "retention.ms")?.as_deref() == Some("2000000"))
    })?;
    let left_out = config_of(cluster, &topic, "segment.ms")?;
    equal(
        left_out,
        Some("604800000".into()),
        "a key left out is the default again",
    )
}

fn delete_records(cluster: &Cluster) -> Result<()> {
    let topic = cluster.topic("delete-records", 1, &[])?;
    let records: Vec<_> = (0..20).map(|i| plain(0, &i.to_string())).collect();
    send(cluster, &topic, &records, &[])?;
    let mut before = TopicPartitionList::new();
    before.add_partition_offset(&topic, 0, Offset::Offset(7))?;
    let answer = cluster.wait(cluster.admin.delete_records(&before, &options()))?;
    equal(
        answer.elements()[0].offset(),
        Offset::Offset(7),
        "low watermark",
    )?;
    let left: Vec<i64> = read_all(cluster, &topic, "read_uncommitted")?
        .into_iter()
        .map(|(o, _)| o)
        .collect();
    equal(left, (7..20).collect(), "offsets left")
}

fn delete_topic(cluster: &Cluster) -> Result<()> {
    let topic = cluster.topic("doomed", 2, &[])?;
    cluster.delete_topic(&topic)?;
    wait_for("topic gone", || {
        let metadata = cluster.admin.inner().fetch_metadata(None, TIMEOUT)?;
        Ok(metadata.topics().iter().all(|t| t.name() != topic))
    })?;
    let again = cluster.delete_topic(&topic);
    refused(
        again,
        RDKafkaErrorCode::UnknownTopicOrPartition,
        "deleting a topic twice",
    )
}
