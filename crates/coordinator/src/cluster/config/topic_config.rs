//! A topic's configuration: what it comes to, and whether a set of overrides makes sense.

use super::broker_config::ConfigError;
use super::definition::Value;
use super::effective::{Layers, effective_topic};
use super::suggest::{did_you_mean, same_start};
use super::topic_keys::{TOPIC_KEYS, topic_key};
use oncelog_wire::records::Compression;
use std::collections::BTreeMap;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampType {
    CreateTime,
    LogAppendTime,
}

/// What a partition needs to know; units are in the names, `i64::MAX` is "never".
///
/// Keys without a field have no effect here, see [`TOPIC_KEYS`].
#[derive(Clone, Debug, PartialEq)]
pub struct TopicConfig {
    pub cleanup_compact: bool,
    pub cleanup_delete: bool,
    /// `None`: as the producer sent it.
    pub compression_type: Option<Compression>,
    pub delete_retention_ms: i64,
    pub file_delete_delay_ms: i64,
    pub flush_messages: i64,
    pub flush_ms: i64,
    pub index_interval_bytes: i32,
    pub max_compaction_lag_ms: i64,
    pub max_message_bytes: i32,
    pub message_timestamp_after_max_ms: i64,
    pub message_timestamp_before_max_ms: i64,
    pub message_timestamp_type: TimestampType,
    pub min_cleanable_dirty_ratio: f64,
    pub min_compaction_lag_ms: i64,
    pub min_insync_replicas: i32,
    /// Negative: no limit.
    pub retention_bytes: i64,
    /// Negative: no limit.
    pub retention_ms: i64,
    pub segment_bytes: i32,
    pub segment_index_bytes: i32,
    pub segment_ms: i64,
}

impl TopicConfig {
    /// What the layers come to. Values in them have been checked when they were set; one that
    /// does not pass any more (a key's range shrank) counts as absent.
    pub fn new(layers: &Layers) -> TopicConfig {
        let value = |name: &str| {
            let key = topic_key(name).unwrap_or_else(|| panic!("{name} is not in the table"));
            effective_topic(key, layers).value
        };
        let long = |name: &str| match value(name) {
            Value::Whole(value) => value,
            other => panic!("{name} is not a whole number: {other:?}"),
        };
        let int = |name: &str| i32::try_from(long(name)).expect("an int of the table");
        let policy = match value("cleanup.policy") {
            Value::List(policy) => policy,
            other => panic!("cleanup.policy is not a list: {other:?}"),
        };
        TopicConfig {
            cleanup_compact: policy.iter().any(|name| name == "compact"),
            cleanup_delete: policy.iter().any(|name| name == "delete"),
            compression_type: codec(&value("compression.type").to_text()),
            delete_retention_ms: long("delete.retention.ms"),
            file_delete_delay_ms: long("file.delete.delay.ms"),
            flush_messages: long("flush.messages"),
            flush_ms: long("flush.ms"),
            index_interval_bytes: int("index.interval.bytes"),
            max_compaction_lag_ms: long("max.compaction.lag.ms"),
            max_message_bytes: int("max.message.bytes"),
            message_timestamp_after_max_ms: long("message.timestamp.after.max.ms"),
            message_timestamp_before_max_ms: long("message.timestamp.before.max.ms"),
            message_timestamp_type: match value("message.timestamp.type").to_text().as_str() {
                "LogAppendTime" => TimestampType::LogAppendTime,
                _ => TimestampType::CreateTime,
            },
            min_cleanable_dirty_ratio: match value("min.cleanable.dirty.ratio") {
                Value::Double(value) => value,
                other => panic!("min.cleanable.dirty.ratio is not a double: {other:?}"),
            },
            min_compaction_lag_ms: long("min.compaction.lag.ms"),
            min_insync_replicas: int("min.insync.replicas"),
            retention_bytes: long("retention.bytes"),
            retention_ms: long("retention.ms"),
            segment_bytes: int("segment.bytes"),
            segment_index_bytes: int("segment.index.bytes"),
            segment_ms: long("segment.ms"),
        }
    }
}

/// The codec that a value of `compression.type` stands for.
fn codec(name: &str) -> Option<Compression> {
    match name {
        "uncompressed" => Some(Compression::None),
        "gzip" => Some(Compression::Gzip),
        "snappy" => Some(Compression::Snappy),
        "lz4" => Some(Compression::Lz4),
        "zstd" => Some(Compression::Zstd),
        _ => None,
    }
}

/// Checks a topic's own values: every one by itself, then all together over what they leave to
/// the broker. The error is a sentence for INVALID_CONFIG.
pub fn check_topic_configs(layers: &Layers) -> Result<(), String> {
    for (name, text) in layers.topic.into_iter().flatten() {
        let Some(key) = topic_key(name) else {
            let known = TOPIC_KEYS.iter().map(|key| key.def.name);
            let hint = match did_you_mean(name, known.filter(|key| same_start(key, name))) {
                Some(near) => format!("; did you mean {near}?"),
                None => String::new(),
            };
            return Err(format!("Unknown topic config name: {name}{hint}"));
        };
        key.def.parse(text)?;
    }
    check_together(&TopicConfig::new(layers))
}

/// What a broker's properties would make of a topic without values of its own.
pub(super) fn check_broker_topic_defaults(given: &BTreeMap<String, String>) -> Vec<ConfigError> {
    let config = TopicConfig::new(&Layers::of_broker(given));
    let error = |message| ConfigError::new("log.cleaner.min.compaction.lag.ms", message);
    check_together(&config)
        .map_err(error)
        .err()
        .into_iter()
        .collect()
}

fn check_together(config: &TopicConfig) -> Result<(), String> {
    let (min, max) = (config.min_compaction_lag_ms, config.max_compaction_lag_ms);
    if min > max {
        return Err(format!(
            "min.compaction.lag.ms ({min}) is more than max.compaction.lag.ms ({max})"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(overrides: &[(&str, &str)], expected: Result<(), &str>) {
        let pair = |(name, value): &(&str, &str)| (name.to_string(), value.to_string());
        let topic: BTreeMap<String, String> = overrides.iter().map(pair).collect();
        let given = BTreeMap::new();
        let layers = Layers {
            topic: Some(&topic),
            ..Layers::of_broker(&given)
        };
        match (check_topic_configs(&layers), expected) {
            (Ok(()), Ok(())) => {}
            (Err(message), Err(part)) => assert!(message.contains(part), "{message}"),
            (got, _) => panic!("{overrides:?}: {got:?}"),
        }
    }

    /// Each of these was put to Kafka 4.3's own `LogConfig.validate`; it agrees but for the one
    /// value that it would take (tiered storage) and Oncelog refuses.
    #[test]
    fn verdicts() {
        for (name, value, problem) in [
            ("cleanup.policy", "", None),
            ("cleanup.policy", "delete,delete", None),
            ("cleanup.policy", " compact , delete ", None),
            ("cleanup.policy", "Compact", Some("compact, delete")),
            ("retention.ms", "-1", None),
            ("retention.ms", " 5 ", None),
            ("retention.ms", "-2", Some("at least -1")),
            ("retention.ms", "5L", Some("LONG")),
            ("retention.ms", "99999999999999999999", Some("LONG")),
            ("retention.bytes", "-5", None),
            ("segment.bytes", "1048576", None),
            ("segment.bytes", "1024", Some("at least 1048576")),
            ("segment.bytes", "2147483648", Some("INT")),
            ("segment.bytes", "", Some("INT")),
            ("min.cleanable.dirty.ratio", "1.5", Some("0 to 1")),
            ("min.cleanable.dirty.ratio", "x", Some("DOUBLE")),
            ("preallocate", "TRUE", None),
            ("preallocate", "yes", Some("BOOLEAN")),
            ("compression.type", "GZIP", Some("producer")),
            ("compression.type", "gzip", None),
            ("compression.type", "uncompressed", None),
            ("compression.type", "none", Some("uncompressed")),
            ("message.timestamp.type", "createtime", Some("CreateTime")),
            ("max.message.bytes", "-1", Some("at least 0")),
            ("flush.messages", "0", Some("at least 1")),
            ("flush.ms", "-1", Some("at least 0")),
            ("min.insync.replicas", "0", Some("at least 1")),
            ("max.compaction.lag.ms", "0", Some("at least 1")),
            (
                "follower.replication.throttled.replicas",
                "x",
                Some("partition:broker"),
            ),
            ("follower.replication.throttled.replicas", "*", None),
            ("local.retention.ms", "5", None),
            ("nope", "1", Some("Unknown topic config name: nope")),
            ("retention.m", "1", Some("did you mean retention.ms?")),
            // Ours alone.
            ("remote.storage.enable", "true", Some("tiered storage")),
        ] {
            check(&[(name, value)], problem.map_or(Ok(()), Err));
        }
        check(
            &[
                ("min.compaction.lag.ms", "10"),
                ("max.compaction.lag.ms", "5"),
            ],
            Err("is more than"),
        );
    }

    #[test]
    fn every_codec_has_a_meaning() {
        for name in super::super::topic_keys::CODECS {
            assert_eq!(codec(name).is_none(), *name == "producer", "{name}");
        }
    }

    #[test]
    fn a_broker_default_takes_part_in_the_check() {
        let given = BTreeMap::from([(
            "log.cleaner.min.compaction.lag.ms".to_owned(),
            "10".to_owned(),
        )]);
        let topic = BTreeMap::from([("max.compaction.lag.ms".to_owned(), "5".to_owned())]);
        let layers = Layers {
            topic: Some(&topic),
            ..Layers::of_broker(&given)
        };
        assert!(check_topic_configs(&layers).is_err());
        assert_eq!(check_broker_topic_defaults(&given), []);
    }
}
