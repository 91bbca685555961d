//! Every bound of the cluster's metadata, in one place.

/// Partitions that one request may make, Kafka's own bound.
pub const PARTITIONS_PER_REQUEST: usize = 10_000;

/// Topics or resources that one request may name. Every one is answered with a line of its own,
/// which is larger than the request's, so that this bounds the answer.
pub const ITEMS_PER_REQUEST: usize = 100_000;

/// A topic's name fits a directory's name, with room for `-` and the partition's number.
pub const TOPIC_NAME_LEN: usize = 249;

/// Characters of a sentence in an answer; what a client sent is not sent back in full.
pub const MESSAGE_CHARS: usize = 1_000;

/// Bytes of one configuration value: what a record's string can hold.
pub const CONFIG_VALUE_BYTES: usize = oncelog_wire::limits::STRING_BYTES_MAX;

/// Partitions that one answer to DescribeTopicPartitions lists at least, whatever the client says:
/// with none there would be no end to the pages.
pub const PARTITIONS_PER_ANSWER_MIN: i32 = 1;

const _: () = assert!(TOPIC_NAME_LEN + "-2147483647".len() <= 260);
