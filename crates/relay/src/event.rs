//! A record on its way to a topic.

use std::sync::Arc;

use crate::position::Position;

#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub topic: Arc<str>,
    /// Where the router was told to choose it; else the key decides, by Java's murmur2.
    pub partition: Option<i32>,
    pub key: Option<Vec<u8>>,
    /// `None` is a tombstone.
    pub value: Option<Vec<u8>>,
    /// In order; names may repeat.
    pub headers: Vec<(Arc<str>, Option<Vec<u8>>)>,
    /// Milliseconds since 1970; the time of publishing where it is `None`.
    pub timestamp_ms: Option<i64>,
    /// That of the row it was made of.
    pub position: Position,
}
