//! What a source hands to the relay: rows of an outbox in commit order, each with the position after
//! it.
//!
//! Rows keep the names of their columns, since the options of Debezium's EventRouter name columns. All
//! rows of one shape share one [`Columns`], so that the router resolves names once per shape.

use std::sync::Arc;

use crate::position::Position;

/// The names of the columns of the rows that follow, in their order.
pub type Columns = Arc<[String]>;

/// One value as a database gave it. Sources turn what has no case here (uuid, json, timestamp, numeric)
/// into the database's own text for it.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    Bytes(Vec<u8>),
    /// PostgreSQL did not send a large value that an UPDATE left as it was.
    Unchanged,
}

/// What was done to the row. An outbox is only ever inserted into; deletes are its pruning, and an
/// update is a mistake that `table.op.invalid.behavior` decides about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Insert,
    Update,
    Delete,
}

/// A committed change of an outbox.
#[derive(Clone, Debug, PartialEq)]
pub struct OutboxRow {
    /// Where a relay goes on that has published this row and all before it.
    pub position: Position,
    pub operation: Operation,
    pub columns: Columns,
    /// As many as `columns`.
    pub values: Vec<Value>,
}

impl OutboxRow {
    /// About how much memory it takes, in bytes.
    pub fn size(&self) -> usize {
        let heap: usize = self.values.iter().map(Value::heap).sum();
        size_of::<OutboxRow>() + self.values.len() * size_of::<Value>() + heap
    }

    /// `None` where there is no such column.
    pub fn value(&self, column: &str) -> Option<&Value> {
        let index = self.columns.iter().position(|name| name == column)?;
        self.values.get(index)
    }
}

impl Value {
    /// NULL, and what was not sent, are JSON's null; what is no UTF-8 is `{"hex": "…"}`.
    pub fn to_json(&self) -> serde_json::Value {
        match self {
            Value::Null | Value::Unchanged => serde_json::Value::Null,
            Value::Bool(value) => (*value).into(),
            Value::Int(value) => (*value).into(),
            Value::Float(value) => (*value).into(),
            Value::Text(text) => text.as_str().into(),
            Value::Bytes(bytes) => bytes_to_json(bytes),
        }
    }

    fn heap(&self) -> usize {
        match self {
            Value::Text(text) => text.len(),
            Value::Bytes(bytes) => bytes.len(),
            _ => 0,
        }
    }
}

/// As text; what is not UTF-8 as `{"hex": "…"}`.
pub fn bytes_to_json(bytes: &[u8]) -> serde_json::Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.into(),
        Err(_) => {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            serde_json::json!({ "hex": hex })
        }
    }
}
