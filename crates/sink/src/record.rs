//! What the consumer hands to the sink.

use std::fmt;
use std::sync::Arc;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TopicPartition {
    pub topic: Arc<str>,
    pub partition: i32,
}

impl TopicPartition {
    pub fn new(topic: &str, partition: i32) -> TopicPartition {
        TopicPartition {
            topic: topic.into(),
            partition,
        }
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

/// A place in a partition: the offset of the record that is next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub partition: TopicPartition,
    pub offset: i64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct SinkRecord {
    pub topic: Arc<str>,
    pub partition: i32,
    pub offset: i64,
    /// Milliseconds since 1970.
    pub timestamp_ms: Option<i64>,
    pub key: Option<Vec<u8>>,
    /// `None` is a tombstone.
    pub value: Option<Vec<u8>>,
    /// In order; names may repeat.
    pub headers: Vec<(Arc<str>, Option<Vec<u8>>)>,
}

impl SinkRecord {
    /// The value of the last header of that name, as Kafka's `Headers.lastHeader`.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        let mut headers = self.headers.iter().rev();
        let (_, value) = headers.find(|(known, _)| known.as_ref() == name)?;
        value.as_deref()
    }

    pub fn topic_partition(&self) -> TopicPartition {
        TopicPartition {
            topic: Arc::clone(&self.topic),
            partition: self.partition,
        }
    }

    /// About how much memory it takes, in bytes.
    pub fn size(&self) -> usize {
        let length = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, Vec::len);
        let headers = self.headers.iter().map(|(_, value)| 32 + length(value));
        size_of::<SinkRecord>() + length(&self.key) + length(&self.value) + headers.sum::<usize>()
    }
}

impl fmt::Display for SinkRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}@{}", self.topic, self.partition, self.offset)
    }
}

/// As text; what is no UTF-8, or has a NUL (which PostgreSQL's text cannot hold), as `{"hex":"…"}`.
pub fn text_of(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.contains('\0') => text.to_owned(),
        _ => {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("{{\"hex\":\"{hex}\"}}")
        }
    }
}
