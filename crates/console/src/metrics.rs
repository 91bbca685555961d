//! A snapshot as OpenMetrics text, under the names that existing dashboards know.
//!
//! - kafka_exporter's: `kafka_brokers`, `kafka_topic_*`, `kafka_consumergroup_*`;
//! - the JMX exporter's: `kafka_server_*`, `kafka_controller_*`;
//! - ours alone: `oncelog_*`.
//!
//! Everything is computed from one snapshot at the moment of asking, so the figures of one answer
//! fit together, and a topic that is gone leaves nothing behind. Producer and client ids never
//! become labels: their number has no bound.

use crate::pipeline;
use crate::snapshot::{GroupSnapshot, PipelineSnapshot, Snapshot, TopicSnapshot};
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::collections::BTreeMap;
use std::fmt;
use std::hash::Hash;

pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfTopic {
    topic: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfPartition {
    topic: String,
    partition: i64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfGroup {
    consumergroup: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfGroupTopic {
    consumergroup: String,
    topic: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfGroupPartition {
    consumergroup: String,
    topic: String,
    partition: i64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct InState {
    state: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ForReason {
    reason: String,
}

/// The whole answer to `/metrics`; of a process without a broker there is no snapshot.
pub fn render(
    snapshot: Option<&Snapshot>,
    pipeline: &PipelineSnapshot,
) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    if let Some(snapshot) = snapshot {
        broker(&mut registry, snapshot);
        topics(&mut registry, snapshot);
        groups(&mut registry, snapshot);
        transactions(&mut registry, snapshot);
        ours(&mut registry, snapshot);
    }
    pipeline::register(&mut registry, pipeline);
    let mut out = String::new();
    text::encode(&mut out, &registry)?;
    Ok(out)
}

fn broker(registry: &mut Registry, snapshot: &Snapshot) {
    gauge(registry, "kafka_brokers", "Brokers in the cluster", 1);
    let messages = "Records taken from producers";
    counter(
        registry,
        "kafka_server_brokertopicmetrics_messagesin",
        messages,
        snapshot.messages_in,
    );
    let bytes = "Bytes of record batches taken from producers";
    counter(
        registry,
        "kafka_server_brokertopicmetrics_bytesin",
        bytes,
        snapshot.bytes_in,
    );
    let bytes = "Bytes of record batches sent to consumers";
    counter(
        registry,
        "kafka_server_brokertopicmetrics_bytesout",
        bytes,
        snapshot.bytes_out,
    );
    // A single node leads all it has, so these are what they are; dashboards ask for them.
    for (name, help, value) in [
        (
            "kafka_server_replicamanager_underreplicatedpartitions",
            "Partitions with fewer in-sync replicas than replicas",
            0,
        ),
        (
            "kafka_server_replicamanager_underminisrpartitioncount",
            "Partitions with fewer in-sync replicas than min.insync.replicas",
            0,
        ),
        (
            "kafka_controller_kafkacontroller_activecontrollercount",
            "Whether this node is the active controller",
            1,
        ),
        (
            "kafka_controller_kafkacontroller_offlinepartitionscount",
            "Partitions without a leader",
            0,
        ),
    ] {
        gauge(registry, name, help, value);
    }
}

fn topics(registry: &mut Registry, snapshot: &Snapshot) {
    let topics = &snapshot.topics;
    let partitions = family(
        registry,
        "kafka_topic_partitions",
        "Partitions of the topic",
    );
    for topic in topics {
        let labels = OfTopic {
            topic: topic.name.clone(),
        };
        set(&partitions, labels, topic.partitions.len() as i64);
    }
    type Value = fn(&Snapshot, &TopicSnapshot, usize) -> i64;
    let of_partition: [(&str, &str, Value); 8] = [
        (
            "kafka_topic_partition_current_offset",
            "The high watermark",
            |_, t, i| t.partitions[i].high_watermark,
        ),
        (
            "kafka_topic_partition_oldest_offset",
            "The first offset that is there",
            |_, t, i| t.partitions[i].start_offset,
        ),
        (
            "kafka_topic_partition_in_sync_replica",
            "In-sync replicas",
            |_, _, _| 1,
        ),
        ("kafka_topic_partition_replicas", "Replicas", |_, _, _| 1),
        (
            "kafka_topic_partition_leader",
            "The leader's node id",
            |s, _, _| i64::from(s.node_id),
        ),
        (
            "kafka_topic_partition_leader_is_preferred",
            "Whether the leader is the preferred one",
            |_, _, _| 1,
        ),
        (
            "kafka_topic_partition_under_replicated_partition",
            "Whether a replica lags",
            |_, _, _| 0,
        ),
        (
            "kafka_log_log_size",
            "Bytes of its log segments",
            |_, t, i| t.partitions[i].size_bytes as i64,
        ),
    ];
    for (name, help, value) in of_partition {
        let metric = family(registry, name, help);
        for topic in topics {
            for index in 0..topic.partitions.len() {
                let labels = OfPartition {
                    topic: topic.name.clone(),
                    partition: index as i64,
                };
                set(&metric, labels, value(snapshot, topic, index));
            }
        }
    }
}

fn groups(registry: &mut Registry, snapshot: &Snapshot) {
    let ends = high_watermarks(snapshot);
    let members = family(
        registry,
        "kafka_consumergroup_members",
        "Members of the group",
    );
    let current = family(
        registry,
        "kafka_consumergroup_current_offset",
        "The group's committed offset",
    );
    let lag = family(
        registry,
        "kafka_consumergroup_lag",
        "Records between the committed offset and the high watermark",
    );
    let current_sum = family(
        registry,
        "kafka_consumergroup_current_offset_sum",
        "The group's committed offsets, added up over a topic",
    );
    let lag_sum = family(
        registry,
        "kafka_consumergroup_lag_sum",
        "The lag, added up over a topic",
    );
    for group in &snapshot.groups {
        let labels = OfGroup {
            consumergroup: group.group.clone(),
        };
        set(&members, labels, group.members as i64);
        for (topic, sum) in sums(group, &ends) {
            let labels = OfGroupTopic {
                consumergroup: group.group.clone(),
                topic: topic.to_owned(),
            };
            set(&current_sum, labels.clone(), sum.offset);
            set(&lag_sum, labels, sum.lag);
        }
        for committed in &group.offsets {
            let labels = OfGroupPartition {
                consumergroup: group.group.clone(),
                topic: committed.topic.clone(),
                partition: i64::from(committed.partition),
            };
            set(&current, labels.clone(), committed.offset);
            // A partition that is gone has no end to lag behind.
            if let Some(end) = ends.get(&(&committed.topic[..], committed.partition)) {
                set(&lag, labels, (end - committed.offset).max(0));
            }
        }
    }
}

fn transactions(registry: &mut Registry, snapshot: &Snapshot) {
    let transactions = &snapshot.transactions;
    let ids = family(
        registry,
        "oncelog_transactions",
        "Transactional ids by the state that they are in",
    );
    for (state, count) in &transactions.by_state {
        let state = (*state).to_owned();
        set(&ids, InState { state }, *count as i64);
    }
    gauge(
        registry,
        "oncelog_oldest_open_transaction_age_seconds",
        "How long the oldest transaction that is open has been so",
        transactions.oldest_open_seconds as i64,
    );
    let fenced = Family::<ForReason, Counter>::default();
    registry.register(
        "oncelog_producer_fenced",
        "Producers that were fenced",
        fenced.clone(),
    );
    for (reason, count) in &transactions.fenced {
        let reason = (*reason).to_owned();
        fenced.get_or_create(&ForReason { reason }).inc_by(*count);
    }
}

fn ours(registry: &mut Registry, snapshot: &Snapshot) {
    counter(
        registry,
        "oncelog_duplicate_batches",
        "Batches that an idempotent producer sent again, and that were not appended again",
        snapshot.duplicate_batches,
    );
    let waits = "Times that a connection waited for memory for a request";
    counter(
        registry,
        "oncelog_request_memory_waits",
        waits,
        snapshot.request_memory_waits,
    );
    for (name, help, value) in [
        (
            "oncelog_connections",
            "Open client connections",
            snapshot.connections,
        ),
        (
            "oncelog_request_memory_bytes",
            "Memory held by requests that are arriving or being written",
            snapshot.request_memory_bytes,
        ),
        (
            "oncelog_request_memory_limit_bytes",
            "queued.max.request.bytes",
            snapshot.request_memory_limit_bytes,
        ),
    ] {
        gauge(registry, name, help, value as i64);
    }
}

#[derive(Default)]
struct Sum {
    offset: i64,
    lag: i64,
}

fn sums<'a>(group: &'a GroupSnapshot, ends: &BTreeMap<(&str, i32), i64>) -> BTreeMap<&'a str, Sum> {
    let mut sums: BTreeMap<&str, Sum> = BTreeMap::new();
    for committed in &group.offsets {
        let sum = sums.entry(&committed.topic).or_default();
        sum.offset += committed.offset;
        if let Some(end) = ends.get(&(&committed.topic[..], committed.partition)) {
            sum.lag += (end - committed.offset).max(0);
        }
    }
    sums
}

fn high_watermarks(snapshot: &Snapshot) -> BTreeMap<(&str, i32), i64> {
    let mut ends = BTreeMap::new();
    for topic in &snapshot.topics {
        for (index, partition) in topic.partitions.iter().enumerate() {
            ends.insert((&topic.name[..], index as i32), partition.high_watermark);
        }
    }
    ends
}

fn gauge(registry: &mut Registry, name: &str, help: &str, value: i64) {
    let gauge: Gauge = Gauge::default();
    gauge.set(value);
    registry.register(name, help, gauge);
}

/// `name` without `_total`, which the format adds.
fn counter(registry: &mut Registry, name: &str, help: &str, value: u64) {
    let counter: Counter = Counter::default();
    counter.inc_by(value);
    registry.register(name, help, counter);
}

fn family<L>(registry: &mut Registry, name: &str, help: &str) -> Family<L, Gauge>
where
    L: EncodeLabelSet + Clone + fmt::Debug + Hash + Eq + Send + Sync + 'static,
{
    let family = Family::<L, Gauge>::default();
    registry.register(name, help, family.clone());
    family
}

fn set<L: Clone + Hash + Eq>(family: &Family<L, Gauge>, labels: L, value: i64) {
    family.get_or_create(&labels).set(value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::{CommittedOffset, PartitionSnapshot, TransactionsSnapshot};

    fn example() -> Snapshot {
        let partition = |start_offset, high_watermark| PartitionSnapshot {
            start_offset,
            high_watermark,
            size_bytes: 77,
        };
        let committed = |topic: &str, partition, offset| CommittedOffset {
            topic: topic.to_owned(),
            partition,
            offset,
        };
        Snapshot {
            node_id: 1,
            topics: vec![TopicSnapshot {
                name: "orders".to_owned(),
                partitions: vec![partition(2, 10), partition(0, 5)],
            }],
            groups: vec![GroupSnapshot {
                group: "bill\"ing".to_owned(),
                members: 3,
                offsets: vec![
                    committed("orders", 0, 7),
                    committed("orders", 1, 9),
                    committed("gone", 0, 4),
                ],
            }],
            transactions: TransactionsSnapshot {
                by_state: vec![("Ongoing", 2), ("Empty", 0)],
                oldest_open_seconds: 12,
                fenced: vec![("timeout", 3)],
            },
            messages_in: 15,
            duplicate_batches: 2,
            ..Snapshot::default()
        }
    }

    #[test]
    fn names_and_labels_are_those_that_dashboards_know() {
        let text = render(Some(&example()), &PipelineSnapshot::default()).unwrap();
        for line in [
            "kafka_brokers 1",
            r#"kafka_topic_partitions{topic="orders"} 2"#,
            r#"kafka_topic_partition_current_offset{topic="orders",partition="0"} 10"#,
            r#"kafka_topic_partition_oldest_offset{topic="orders",partition="0"} 2"#,
            r#"kafka_topic_partition_leader{topic="orders",partition="1"} 1"#,
            r#"kafka_consumergroup_members{consumergroup="bill\"ing"} 3"#,
            r#"kafka_consumergroup_lag{consumergroup="bill\"ing",topic="orders",partition="0"} 3"#,
            r#"kafka_consumergroup_lag_sum{consumergroup="bill\"ing",topic="orders"} 3"#,
            "kafka_server_brokertopicmetrics_messagesin_total 15",
            "oncelog_duplicate_batches_total 2",
            r#"oncelog_transactions{state="Ongoing"} 2"#,
            r#"oncelog_transactions{state="Empty"} 0"#,
            "oncelog_oldest_open_transaction_age_seconds 12",
            r#"oncelog_producer_fenced_total{reason="timeout"} 3"#,
            "# EOF",
        ] {
            assert!(
                text.lines().any(|l| l == line),
                "{line} is missing in\n{text}"
            );
        }
        // A committed offset past the end (the topic was made again) is no negative lag, and an
        // offset in a topic that is gone has none.
        let lag = |topic, partition| {
            let labels = format!(r#"topic="{topic}",partition="{partition}"}}"#);
            let is_lag =
                |l: &&str| l.starts_with("kafka_consumergroup_lag{") && l.contains(&labels);
            text.lines()
                .find(is_lag)
                .map(|l| l.rsplit_once(' ').unwrap().1.to_owned())
        };
        assert_eq!(lag("orders", 1).as_deref(), Some("0"));
        assert_eq!(lag("gone", 0), None);
    }

    #[test]
    fn nothing_there_is_still_a_whole_answer() {
        let text = render(Some(&Snapshot::default()), &PipelineSnapshot::default()).unwrap();
        assert!(text.ends_with("# EOF\n"));
    }
}
