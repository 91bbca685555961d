//! What becomes of a record that can never be a row, where the configuration says so: a row of the table
//! `oncelog_dead_letter`, in the same transaction as the offset past it. The table is an outbox with
//! Debezium's columns, so that our own relay can publish it: `table = "oncelog_dead_letter"` there leads
//! to the topic `outbox.event.dead-letter.<sink>`, keyed as the record was.

use crate::record::{SinkRecord, text_of};

/// The most of an error's words that are kept.
const ERROR_LENGTH_MAX: usize = 2_000;
/// Of columns that are `varchar(255)`.
const NAME_LENGTH_MAX: usize = 255;

#[derive(Clone, Debug, PartialEq)]
pub struct Letter {
    pub id: String,
    pub aggregate_type: String,
    pub aggregate_id: String,
    /// `mapping`: no row could be made of it; `database`: the database refused the row.
    pub kind: &'static str,
    /// The record's value.
    pub payload: Option<String>,
    pub error: String,
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
}

impl Letter {
    /// `id`: the event's, where it has one; else it is made of where the record is, so that it is the
    /// same each time.
    pub fn new(
        sink: &str,
        record: &SinkRecord,
        id: Option<&str>,
        kind: &'static str,
        error: &str,
    ) -> Letter {
        let place = || record.to_string();
        let key = record.key.as_deref().map(text_of);
        let fits = |text: &String| text.chars().count() <= NAME_LENGTH_MAX;
        Letter {
            id: id.map(str::to_owned).filter(fits).unwrap_or_else(place),
            aggregate_type: format!("dead-letter.{sink}"),
            aggregate_id: key
                .filter(fits)
                .unwrap_or_else(|| record.topic_partition().to_string()),
            kind,
            payload: record.value.as_deref().map(text_of),
            error: error.chars().take(ERROR_LENGTH_MAX).collect(),
            topic: record.topic.to_string(),
            partition: record.partition,
            offset: record.offset,
        }
    }
}
