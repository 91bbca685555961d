//! THE table of topic configurations: those of Kafka 4.3, with the broker keys that stand behind.
//!
//! A topic's own value wins; without one the broker's synonyms are asked in the order in which
//! they stand here, first the dynamic ones, then those of the broker's file, then the default.
//!
//! Differs from Kafka: `flush.messages` is 1 (every batch is on disk before it is acknowledged),
//! and values that would need batches to be stored elsewhere are refused.

use super::definition::{ConfigDef, ConfigType, Valid};

/// A broker key that gives topics their default.
#[derive(Clone, Copy, Debug)]
pub struct Synonym {
    pub key: &'static str,
    /// How many of the topic's units one of the broker key's units is.
    pub factor: i64,
}

#[derive(Clone, Copy, Debug)]
pub struct TopicKey {
    pub def: ConfigDef,
    pub synonyms: &'static [Synonym],
}

const fn same(key: &'static str) -> Synonym {
    Synonym { key, factor: 1 }
}

const fn minutes(key: &'static str) -> Synonym {
    let factor = 60_000;
    Synonym { key, factor }
}

const fn hours(key: &'static str) -> Synonym {
    let factor = 3_600_000;
    Synonym { key, factor }
}

const fn key(
    name: &'static str,
    kind: ConfigType,
    default: &'static str,
    valid: Valid,
    synonyms: &'static [Synonym],
    doc: &'static str,
) -> TopicKey {
    let def = ConfigDef::new(name, kind, Some(default), doc).valid(valid);
    TopicKey { def, synonyms }
}

use ConfigType::{Boolean, Double, Int, List, Long, String};
use Valid::{Any, AtLeast, Between, EachOf, OneOf, Only, Ratio, ThrottledReplicas};

pub(super) const MAX_LONG: &str = "9223372036854775807";
pub(super) const POLICIES: &[&str] = &["compact", "delete"];
pub(super) const TIMESTAMP_TYPES: &[&str] = &["CreateTime", "LogAppendTime"];
/// Segments below this would be all overhead.
pub(super) const SEGMENT_BYTES_MIN: i64 = 1_048_576;
/// `producer` keeps each batch in the codec that it came in.
pub(super) const CODECS: &[&str] = &["uncompressed", "gzip", "snappy", "lz4", "zstd", "producer"];
pub(super) const GZIP_LEVELS: Valid = Between(-1, 9);
pub(super) const LZ4_LEVELS: Valid = Between(1, 17);
pub(super) const ZSTD_LEVELS: Valid = Between(-131_072, 22);
const NO_TIERS: Valid = Only(&["false"], "tiered storage is not implemented");

/// In order of name.
#[rustfmt::skip] // a row reads better as a row
pub const TOPIC_KEYS: &[TopicKey] = &[
    key("cleanup.policy", List, "delete", EachOf(POLICIES), &[same("log.cleanup.policy")],
        "What happens to old segments: `delete` drops them by time and size, `compact` keeps the newest record of each key; both may be named, and an empty list keeps everything."),
    key("compression.gzip.level", Int, "-1", GZIP_LEVELS, &[same("compression.gzip.level")],
        "The gzip level for batches that the broker compresses. Has no effect here: the codec's usual level is taken."),
    key("compression.lz4.level", Int, "9", LZ4_LEVELS, &[same("compression.lz4.level")],
        "The lz4 level for batches that the broker compresses. Has no effect here: the codec's usual level is taken."),
    key("compression.type", String, "producer", OneOf(CODECS), &[same("compression.type")],
        "The codec of stored batches. `producer` keeps each batch in the codec that it came in; otherwise a batch in another codec is compressed anew, which costs the broker time."),
    key("compression.zstd.level", Int, "3", ZSTD_LEVELS, &[same("compression.zstd.level")],
        "The zstd level for batches that the broker compresses. Has no effect here: the codec's usual level is taken."),
    key("delete.retention.ms", Long, "86400000", AtLeast(0), &[same("log.cleaner.delete.retention.ms")],
        "How long compaction keeps a tombstone (a record without a value), so that a reader from the start still learns of the deletion."),
    key("file.delete.delay.ms", Long, "60000", AtLeast(0), &[same("log.segment.delete.delay.ms")],
        "How long a deleted segment or directory stays on disk under another name, for readers that have it open."),
    key("flush.messages", Long, "1", AtLeast(1), &[same("log.flush.interval.messages")],
        "After how many records the log is forced to disk. 1 means before the acknowledgement; Kafka's own default leaves it to the operating system and relies on replicas."),
    key("flush.ms", Long, MAX_LONG, AtLeast(0), &[same("log.flush.interval.ms"), same("log.flush.scheduler.interval.ms")],
        "The longest that an appended record may wait for being forced to disk, whatever `flush.messages` says."),
    key("follower.replication.throttled.replicas", List, "", ThrottledReplicas, &[],
        "Replicas whose catching-up is throttled. Has no effect here: there is no replication between brokers yet."),
    key("index.interval.bytes", Int, "4096", AtLeast(0), &[same("log.index.interval.bytes")],
        "About how many bytes of log lie between two entries of the offset index."),
    key("leader.replication.throttled.replicas", List, "", ThrottledReplicas, &[],
        "Replicas whose serving of followers is throttled. Has no effect here: there is no replication between brokers yet."),
    key("local.retention.bytes", Long, "-2", AtLeast(-2), &[same("log.local.retention.bytes")],
        "Bytes kept on local disk once tiered storage has a copy. Has no effect here, as in Kafka without tiered storage."),
    key("local.retention.ms", Long, "-2", AtLeast(-2), &[same("log.local.retention.ms")],
        "Time kept on local disk once tiered storage has a copy. Has no effect here, as in Kafka without tiered storage."),
    key("max.compaction.lag.ms", Long, MAX_LONG, AtLeast(1), &[same("log.cleaner.max.compaction.lag.ms")],
        "The longest that a record may stay uncompacted, whatever the dirty ratio is."),
    key("max.message.bytes", Int, "1048588", AtLeast(0), &[same("message.max.bytes")],
        "The largest batch that is accepted, as it stands on the wire, compressed if it is."),
    key("message.timestamp.after.max.ms", Long, "3600000", AtLeast(0), &[same("log.message.timestamp.after.max.ms")],
        "How far ahead of the broker's clock a record's timestamp may be; only for CreateTime."),
    key("message.timestamp.before.max.ms", Long, MAX_LONG, AtLeast(0), &[same("log.message.timestamp.before.max.ms")],
        "How far behind the broker's clock a record's timestamp may be; only for CreateTime."),
    key("message.timestamp.type", String, "CreateTime", OneOf(TIMESTAMP_TYPES), &[same("log.message.timestamp.type")],
        "Whose time a record carries: the producer's (CreateTime) or the broker's at the append (LogAppendTime)."),
    key("min.cleanable.dirty.ratio", Double, "0.5", Ratio, &[same("log.cleaner.min.cleanable.ratio")],
        "How much of a log must be uncompacted before compaction takes it up."),
    key("min.compaction.lag.ms", Long, "0", AtLeast(0), &[same("log.cleaner.min.compaction.lag.ms")],
        "How long a record stays uncompacted at least."),
    key("min.insync.replicas", Int, "1", AtLeast(1), &[same("min.insync.replicas")],
        "How many replicas must be in sync for a write with acks=all to be taken."),
    key("preallocate", Boolean, "false", Any, &[same("log.preallocate")],
        "Whether Kafka reserves a segment's file in full at its creation. Has no effect here."),
    key("remote.log.copy.disable", Boolean, "false", NO_TIERS, &[],
        "Stops the copying to tiered storage. Only `false`: tiered storage is not implemented."),
    key("remote.log.delete.on.disable", Boolean, "false", NO_TIERS, &[],
        "Deletes what tiered storage holds when it is switched off. Only `false`: tiered storage is not implemented."),
    key("remote.storage.enable", Boolean, "false", NO_TIERS, &[],
        "Moves old segments to tiered storage. Only `false`: tiered storage is not implemented."),
    key("retention.bytes", Long, "-1", Any, &[same("log.retention.bytes")],
        "How large a partition may grow before its oldest segments are dropped (with `delete`); -1 sets no limit."),
    key("retention.ms", Long, "604800000", AtLeast(-1), &[same("log.retention.ms"), minutes("log.retention.minutes"), hours("log.retention.hours")],
        "How old a segment may grow before it is dropped (with `delete`); -1 sets no limit."),
    key("segment.bytes", Int, "1073741824", AtLeast(SEGMENT_BYTES_MIN), &[same("log.segment.bytes")],
        "The size at which a new segment is begun."),
    key("segment.index.bytes", Int, "10485760", AtLeast(4), &[same("log.index.size.max.bytes")],
        "The size of an offset index at which a new segment is begun."),
    key("segment.jitter.ms", Long, "0", AtLeast(0), &[same("log.roll.jitter.ms"), hours("log.roll.jitter.hours")],
        "Kafka's random delay of segment rolls. Has no effect here: segments roll when `segment.ms` says so."),
    key("segment.ms", Long, "604800000", AtLeast(1), &[same("log.roll.ms"), hours("log.roll.hours")],
        "The age at which a new segment is begun even if it is not full."),
    key("unclean.leader.election.enable", Boolean, "false", Any, &[same("unclean.leader.election.enable")],
        "Whether a replica that may lack acknowledged records may lead. Has no effect here yet: a partition has one replica."),
];

pub fn topic_key(name: &str) -> Option<&'static TopicKey> {
    let at = TOPIC_KEYS
        .binary_search_by(|key| key.def.name.cmp(name))
        .ok()?;
    Some(&TOPIC_KEYS[at])
}

#[cfg(test)]
mod tests {
    use super::super::broker_keys::broker_key;
    use super::*;

    #[test]
    fn in_order_and_every_row_is_sound() {
        assert!(TOPIC_KEYS.is_sorted_by(|a, b| a.def.name < b.def.name));
        for key in TOPIC_KEYS {
            assert!(key.def.default_value().is_some(), "{}", key.def.name);
            assert!(key.def.doc.ends_with('.'), "{}", key.def.name);
            assert!(topic_key(key.def.name).is_some());
        }
        assert!(topic_key("retention").is_none());
    }

    /// The default of a topic key is the broker's: two tables, one truth.
    #[test]
    fn defaults_are_those_of_the_synonyms() {
        for key in TOPIC_KEYS.iter().filter(|key| !key.synonyms.is_empty()) {
            let given = key.synonyms.iter().find_map(|synonym| {
                let def = broker_key(synonym.key).expect(synonym.key);
                Some((def.default_value()?, synonym.factor))
            });
            let (value, factor) = given.expect("one of the synonyms has a default");
            let value = match value {
                super::super::Value::Whole(value) => super::super::Value::Whole(value * factor),
                other => other,
            };
            assert_eq!(Some(value), key.def.default_value(), "{}", key.def.name);
        }
    }
}
