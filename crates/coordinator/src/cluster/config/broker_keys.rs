//! THE table of broker configurations that Oncelog honours.
//!
//! A key is in this table only if something acts on it. What Kafka has besides is in
//! [`super::foreign`]: accepted without effect, or refused, each with the reason.

use super::definition::{ConfigDef, ConfigType, Valid};
use super::topic_keys::{
    CODECS, GZIP_LEVELS, LZ4_LEVELS, MAX_LONG, POLICIES, SEGMENT_BYTES_MIN, TIMESTAMP_TYPES,
    ZSTD_LEVELS,
};

const fn key(
    name: &'static str,
    kind: ConfigType,
    default: &'static str,
    valid: Valid,
    doc: &'static str,
) -> ConfigDef {
    ConfigDef::new(name, kind, Some(default), doc).valid(valid)
}

/// A key without a default.
const fn unset(name: &'static str, kind: ConfigType, valid: Valid, doc: &'static str) -> ConfigDef {
    ConfigDef::new(name, kind, None, doc).valid(valid)
}

use ConfigType::{Boolean, Double, Int, List, Long, Short, String};
use Valid::{Any, AtLeast, Between, EachOf, OneOf, Ratio};

/// In order of name.
#[rustfmt::skip] // a row reads better as a row
pub const BROKER_KEYS: &[ConfigDef] = &[
    unset("advertised.listeners", List, Any,
        "The addresses that clients are told to connect to, as NAME://host:port. Without it, those of `listeners`, with this machine's name where they name no host."),
    key("auto.create.topics.enable", Boolean, "true", Any,
        "Whether a topic comes into being when a client first asks for it."),
    key("broker.id", Int, "-1", AtLeast(-1),
        "The old name of `node.id`, for configuration files that still use it."),
    unset("broker.rack", String, Any,
        "Where this broker stands, told to clients that prefer what is near."),
    key("compression.gzip.level", Int, "-1", GZIP_LEVELS,
        "The default of the topic configuration of the same name. Has no effect here: the codec's usual level is taken.").cluster_wide(),
    key("compression.lz4.level", Int, "9", LZ4_LEVELS,
        "The default of the topic configuration of the same name. Has no effect here: the codec's usual level is taken.").cluster_wide(),
    key("compression.type", String, "producer", OneOf(CODECS),
        "The default of the topic configuration of the same name: the codec of stored batches.").cluster_wide(),
    key("compression.zstd.level", Int, "3", ZSTD_LEVELS,
        "The default of the topic configuration of the same name. Has no effect here: the codec's usual level is taken.").cluster_wide(),
    key("connections.max.idle.ms", Long, "600000", Any,
        "A connection on which nothing happens for so long is closed."),
    key("default.replication.factor", Int, "1", Between(1, 32_767),
        "How many replicas a topic gets when its creator does not say."),
    key("delete.topic.enable", Boolean, "true", Any,
        "Whether topics may be deleted."),
    key("fetch.max.bytes", Int, "57671680", AtLeast(1_024),
        "The most bytes that one answer to a fetch carries, whatever the client asks for."),
    key("group.consumer.assignors", List, "uniform,range", EachOf(&["uniform", "range"]),
        "The assignors of the new group protocol (KIP-848), the default first."),
    key("group.consumer.heartbeat.interval.ms", Int, "5000", AtLeast(1),
        "How often members of groups of the new protocol are told to send a heartbeat."),
    key("group.consumer.max.heartbeat.interval.ms", Int, "15000", AtLeast(1),
        "The upper bound of a group's own heartbeat interval."),
    key("group.consumer.max.session.timeout.ms", Int, "60000", AtLeast(1),
        "The upper bound of a group's own session timeout."),
    key("group.consumer.max.size", Int, "2147483647", AtLeast(1),
        "How many members a group of the new protocol may have."),
    key("group.consumer.min.heartbeat.interval.ms", Int, "5000", AtLeast(1),
        "The lower bound of a group's own heartbeat interval."),
    key("group.consumer.min.session.timeout.ms", Int, "45000", AtLeast(1),
        "The lower bound of a group's own session timeout."),
    key("group.consumer.session.timeout.ms", Int, "45000", AtLeast(1),
        "A member of a group of the new protocol that is silent for so long is removed."),
    key("group.initial.rebalance.delay.ms", Int, "0", AtLeast(0),
        "How long the first rebalance of an empty classic group waits for more members. Kafka waits 3000; on a single node that would only make every first consumer slow."),
    key("group.max.session.timeout.ms", Int, "1800000", AtLeast(1),
        "The longest session timeout that a member of a classic group may ask for."),
    key("group.max.size", Int, "2147483647", AtLeast(1),
        "How many members a classic group may have."),
    key("group.min.session.timeout.ms", Int, "6000", AtLeast(1),
        "The shortest session timeout that a member of a classic group may ask for."),
    key("http.listener", String, "http://:9644", Any,
        "Where metrics and health are served, as http://host:port; empty for nowhere. Kafka has no such key."),
    key("listener.security.protocol.map", String, "PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT,SASL_SSL:SASL_SSL", Any,
        "Which protocol the listener of a name speaks. Only listeners that map to PLAINTEXT can be opened so far."),
    key("listeners", List, "PLAINTEXT://:9092", Any,
        "Where clients are listened for, as NAME://host:port; without a host on every interface, with port 0 on a free one."),
    key("log.cleaner.backoff.ms", Long, "15000", AtLeast(0),
        "How often compaction looks for work."),
    key("log.cleaner.delete.retention.ms", Long, "86400000", AtLeast(0),
        "The default of the topic configuration `delete.retention.ms`.").cluster_wide(),
    key("log.cleaner.enable", Boolean, "true", Any,
        "Whether compaction runs at all. Without it, compacted topics, the offsets of groups among them, grow without end."),
    key("log.cleaner.max.compaction.lag.ms", Long, MAX_LONG, AtLeast(1),
        "The default of the topic configuration `max.compaction.lag.ms`.").cluster_wide(),
    key("log.cleaner.min.cleanable.ratio", Double, "0.5", Ratio,
        "The default of the topic configuration `min.cleanable.dirty.ratio`.").cluster_wide(),
    key("log.cleaner.min.compaction.lag.ms", Long, "0", AtLeast(0),
        "The default of the topic configuration `min.compaction.lag.ms`.").cluster_wide(),
    key("log.cleanup.policy", List, "delete", EachOf(POLICIES),
        "The default of the topic configuration `cleanup.policy`.").cluster_wide(),
    key("log.dir", String, "oncelog-data", Any,
        "The data directory, unless `log.dirs` names it. Kafka's default is a directory under /tmp, where data does not survive."),
    unset("log.dirs", List, Any,
        "The data directory. Kafka takes several; here it is one."),
    key("log.flush.interval.messages", Long, "1", AtLeast(1),
        "The default of the topic configuration `flush.messages`. 1: on disk before the acknowledgement. Kafka's own default is 9223372036854775807, which leaves it to the operating system and relies on replicas.").cluster_wide(),
    unset("log.flush.interval.ms", Long, AtLeast(0),
        "The default of the topic configuration `flush.ms`.").cluster_wide(),
    key("log.flush.scheduler.interval.ms", Long, MAX_LONG, AtLeast(0),
        "The default of the topic configuration `flush.ms` where `log.flush.interval.ms` is not set."),
    key("log.index.interval.bytes", Int, "4096", AtLeast(0),
        "The default of the topic configuration `index.interval.bytes`.").cluster_wide(),
    key("log.index.size.max.bytes", Int, "10485760", AtLeast(4),
        "The default of the topic configuration `segment.index.bytes`.").cluster_wide(),
    key("log.local.retention.bytes", Long, "-2", AtLeast(-2),
        "The default of the topic configuration `local.retention.bytes`. Has no effect here.").cluster_wide(),
    key("log.local.retention.ms", Long, "-2", AtLeast(-2),
        "The default of the topic configuration `local.retention.ms`. Has no effect here.").cluster_wide(),
    key("log.message.timestamp.after.max.ms", Long, "3600000", AtLeast(0),
        "The default of the topic configuration `message.timestamp.after.max.ms`.").cluster_wide(),
    key("log.message.timestamp.before.max.ms", Long, MAX_LONG, AtLeast(0),
        "The default of the topic configuration `message.timestamp.before.max.ms`.").cluster_wide(),
    key("log.message.timestamp.type", String, "CreateTime", OneOf(TIMESTAMP_TYPES),
        "The default of the topic configuration `message.timestamp.type`.").cluster_wide(),
    key("log.preallocate", Boolean, "false", Any,
        "The default of the topic configuration `preallocate`. Has no effect here.").cluster_wide(),
    key("log.retention.bytes", Long, "-1", Any,
        "The default of the topic configuration `retention.bytes`.").cluster_wide(),
    key("log.retention.check.interval.ms", Long, "300000", AtLeast(1),
        "How often retention looks for segments to drop."),
    key("log.retention.hours", Int, "168", AtLeast(-1),
        "The default of the topic configuration `retention.ms`, in hours, where neither minutes nor milliseconds are set."),
    unset("log.retention.minutes", Int, AtLeast(-1),
        "The default of the topic configuration `retention.ms`, in minutes, where milliseconds are not set."),
    unset("log.retention.ms", Long, AtLeast(-1),
        "The default of the topic configuration `retention.ms`.").cluster_wide(),
    key("log.roll.hours", Int, "168", AtLeast(1),
        "The default of the topic configuration `segment.ms`, in hours, where milliseconds are not set."),
    key("log.roll.jitter.hours", Int, "0", AtLeast(0),
        "The default of the topic configuration `segment.jitter.ms`, in hours. Has no effect here."),
    unset("log.roll.jitter.ms", Long, AtLeast(0),
        "The default of the topic configuration `segment.jitter.ms`. Has no effect here.").cluster_wide(),
    unset("log.roll.ms", Long, AtLeast(1),
        "The default of the topic configuration `segment.ms`.").cluster_wide(),
    key("log.segment.bytes", Int, "1073741824", AtLeast(SEGMENT_BYTES_MIN),
        "The default of the topic configuration `segment.bytes`.").cluster_wide(),
    key("log.segment.delete.delay.ms", Long, "60000", AtLeast(0),
        "The default of the topic configuration `file.delete.delay.ms`, and the delay for the directories of deleted topics.").cluster_wide(),
    key("max.connections", Int, "2147483647", AtLeast(0),
        "How many connections may be open at once. Read at the start; in Kafka it can be changed while running."),
    key("max.incremental.fetch.session.cache.slots", Int, "1000", AtLeast(0),
        "How many fetch sessions (KIP-227) are remembered."),
    key("max.request.partition.size.limit", Int, "2000", AtLeast(1),
        "The most partitions that one answer to DescribeTopicPartitions carries."),
    key("message.max.bytes", Int, "1048588", AtLeast(0),
        "The default of the topic configuration `max.message.bytes`.").cluster_wide(),
    key("min.insync.replicas", Int, "1", AtLeast(1),
        "The default of the topic configuration of the same name.").cluster_wide(),
    key("node.id", Int, "1", AtLeast(0),
        "This node's number in its cluster. Kafka insists on one being given; here a node alone is number 1."),
    key("num.partitions", Int, "1", AtLeast(1),
        "How many partitions a topic gets when its creator does not say."),
    key("offset.metadata.max.bytes", Int, "4096", AtLeast(0),
        "The longest note that may accompany a committed offset."),
    key("offsets.retention.check.interval.ms", Long, "600000", AtLeast(1),
        "How often groups are searched for offsets that have expired."),
    key("offsets.retention.minutes", Int, "10080", AtLeast(1),
        "How long the offsets of an empty group are kept."),
    key("offsets.topic.num.partitions", Int, "50", Between(1, 10_000),
        "How many partitions the topic of groups and offsets gets when it is created; later changes have no effect."),
    key("offsets.topic.replication.factor", Short, "3", AtLeast(1),
        "How many replicas the topic of groups and offsets gets; never more than there are brokers."),
    key("offsets.topic.segment.bytes", Int, "104857600", AtLeast(SEGMENT_BYTES_MIN),
        "The segment size of the topic of groups and offsets."),
    key("producer.id.expiration.ms", Int, "86400000", AtLeast(1),
        "How long a partition remembers an idempotent producer that has stopped writing."),
    key("queued.max.request.bytes", Long, "268435456", Any,
        "How many bytes of requests may be in memory at once, over all connections; -1 sets no limit. Kafka's default is -1."),
    key("socket.request.max.bytes", Int, "104857600", AtLeast(1),
        "The largest request that is read; a connection that announces more is closed."),
    key("transaction.max.timeout.ms", Int, "900000", AtLeast(1),
        "The longest timeout that a transactional producer may ask for."),
    key("transaction.state.log.num.partitions", Int, "50", Between(1, 10_000),
        "How many partitions the topic of transactions gets when it is created; later changes have no effect."),
    key("transaction.state.log.replication.factor", Short, "3", AtLeast(1),
        "How many replicas the topic of transactions gets; never more than there are brokers."),
    key("transaction.state.log.segment.bytes", Int, "104857600", AtLeast(SEGMENT_BYTES_MIN),
        "The segment size of the topic of transactions."),
    key("transaction.two.phase.commit.enable", Boolean, "false", Any,
        "Whether a producer may take part in a two-phase commit (KIP-939): its transactions are then never aborted for their age."),
    key("transactional.id.expiration.ms", Int, "604800000", AtLeast(1),
        "How long a transactional id without a transaction is remembered."),
    key("unclean.leader.election.enable", Boolean, "false", Any,
        "The default of the topic configuration of the same name. Has no effect here yet: a partition has one replica.").cluster_wide(),
];

/// Defaults that are not Kafka 4.3's, with Kafka's. The reasons are in the rows above.
pub const NOT_KAFKAS_DEFAULT: &[(&str, Option<&str>)] = &[
    ("group.initial.rebalance.delay.ms", Some("3000")),
    ("log.dir", Some("/tmp/kafka-logs")),
    ("log.flush.interval.messages", Some("9223372036854775807")),
    ("node.id", None),
    ("queued.max.request.bytes", Some("-1")),
];

/// Keys that say the same thing, the one that wins first.
pub const SAME_THING: &[&[&str]] = &[
    &["log.dirs", "log.dir"],
    &["log.flush.interval.ms", "log.flush.scheduler.interval.ms"],
    &[
        "log.retention.ms",
        "log.retention.minutes",
        "log.retention.hours",
    ],
    &["log.roll.jitter.ms", "log.roll.jitter.hours"],
    &["log.roll.ms", "log.roll.hours"],
    &["node.id", "broker.id"],
];

pub fn broker_key(name: &str) -> Option<&'static ConfigDef> {
    let at = BROKER_KEYS
        .binary_search_by(|def| def.name.cmp(name))
        .ok()?;
    Some(&BROKER_KEYS[at])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_order_and_every_row_is_sound() {
        assert!(BROKER_KEYS.is_sorted_by(|a, b| a.name < b.name));
        for def in BROKER_KEYS {
            assert_eq!(
                def.default_value().is_some(),
                def.default.is_some(),
                "{}",
                def.name
            );
            assert!(def.doc.ends_with('.'), "{}", def.name);
            assert!(broker_key(def.name).is_some());
        }
    }

    /// What the brokers of Kafka 4.3 say of themselves: name, type, default, separated by tabs.
    const KAFKA: &str = include_str!("kafka_4_3_broker_keys.tsv");

    #[test]
    fn types_and_defaults_are_kafkas_unless_listed() {
        let mut ours_alone: Vec<&str> = BROKER_KEYS.iter().map(|def| def.name).collect();
        for line in KAFKA.lines() {
            let mut columns = line.split('\t');
            let (name, kind) = (columns.next().unwrap(), columns.next().unwrap());
            let default = columns.next().unwrap();
            let Some(def) = broker_key(name) else {
                assert!(
                    super::super::foreign::foreign_key(name).is_some(),
                    "{name} is a key of Kafka's, and nothing is said of it"
                );
                continue;
            };
            ours_alone.retain(|ours| *ours != name);
            if !matches!(name, "log.dir") {
                assert_eq!(format!("{:?}", def.kind).to_uppercase(), kind, "{name}");
            }
            let kafkas = (default != "null" && default != "<none>").then(|| {
                def.parse(default.trim_matches(['[', ']']))
                    .expect(name)
                    .to_text()
            });
            let ours = def.default_value().map(|value| value.to_text());
            let listed = NOT_KAFKAS_DEFAULT.iter().find(|(key, _)| *key == name);
            match listed {
                Some((_, theirs)) => {
                    assert_eq!(kafkas.as_deref(), *theirs, "{name}");
                    assert_ne!(ours, kafkas, "{name} no longer differs");
                }
                None if name == "listener.security.protocol.map" => {} // the same in another order
                None => assert_eq!(ours, kafkas, "{name}"),
            }
        }
        assert_eq!(ours_alone, ["http.listener"]);
    }
}
