//! One record to standard output, as a template or as one line of JSON.

use std::io::{self, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rdkafka::Timestamp;
use rdkafka::message::{BorrowedMessage, Headers, Message};
use serde_json::{Map, Value, json};

use crate::template::{Record, Template, TimestampType};

pub enum Style {
    Template(Template),
    Json,
}

pub fn message(
    message: &BorrowedMessage<'_>,
    style: &Style,
    out: &mut impl Write,
) -> io::Result<()> {
    let headers: Vec<(&str, Option<&[u8]>)> = message
        .headers()
        .map(|headers| {
            headers
                .iter()
                .map(|header| (header.key, header.value))
                .collect()
        })
        .unwrap_or_default();
    let record = Record {
        topic: message.topic(),
        partition: message.partition(),
        offset: message.offset(),
        timestamp: match message.timestamp() {
            Timestamp::NotAvailable => None,
            Timestamp::CreateTime(ms) => Some((ms, TimestampType::CreateTime)),
            Timestamp::LogAppendTime(ms) => Some((ms, TimestampType::LogAppendTime)),
        },
        key: message.key(),
        value: message.payload(),
        headers: &headers,
        transaction: None,
    };
    self::record(&record, style, out)
}

pub fn record(record: &Record<'_>, style: &Style, out: &mut impl Write) -> io::Result<()> {
    match style {
        Style::Template(template) => template.print(record, out),
        Style::Json => writeln!(out, "{}", to_json(record)),
    }
}

/// What `oncelog produce --input json` reads back. Bytes that are not UTF-8 appear in base64, and
/// then `key_encoding`, `value_encoding` or a header's `encoding` says so.
fn to_json(record: &Record<'_>) -> Value {
    let mut object = Map::new();
    object.insert("topic".into(), json!(record.topic));
    object.insert("partition".into(), json!(record.partition));
    object.insert("offset".into(), json!(record.offset));
    if let Some((ms, kind)) = record.timestamp {
        object.insert("timestamp".into(), json!(ms));
        object.insert("timestamp_type".into(), json!(kind.name()));
    }
    insert_bytes(&mut object, "key", "key_encoding", record.key);
    insert_bytes(&mut object, "value", "value_encoding", record.value);
    let headers: Vec<Value> = record
        .headers
        .iter()
        .map(|(name, value)| {
            let mut header = Map::new();
            header.insert("name".into(), json!(name));
            insert_bytes(&mut header, "value", "encoding", *value);
            Value::Object(header)
        })
        .collect();
    object.insert("headers".into(), Value::Array(headers));
    if let Some(transaction) = record.transaction {
        object.insert("transaction".into(), json!(transaction));
    }
    Value::Object(object)
}

fn insert_bytes(object: &mut Map<String, Value>, name: &str, encoding: &str, bytes: Option<&[u8]>) {
    match bytes.map(|bytes| (bytes, std::str::from_utf8(bytes))) {
        None => {
            object.insert(name.into(), Value::Null);
        }
        Some((_, Ok(text))) => {
            object.insert(name.into(), json!(text));
        }
        Some((bytes, Err(_))) => {
            object.insert(name.into(), json!(STANDARD.encode(bytes)));
            object.insert(encoding.into(), json!("base64"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_shows_text_as_text_and_other_bytes_as_base64() {
        let headers = [
            ("h", Some(&b"1"[..])),
            ("raw", Some(b"\xff")),
            ("none", None),
        ];
        let record = Record {
            topic: "t",
            partition: 1,
            offset: 7,
            timestamp: Some((5, TimestampType::LogAppendTime)),
            key: None,
            value: Some(b"\x00\xfe"),
            headers: &headers,
            transaction: None,
        };
        assert_eq!(
            to_json(&record),
            json!({"topic": "t", "partition": 1, "offset": 7,
                   "timestamp": 5, "timestamp_type": "LogAppendTime",
                   "key": null, "value": "AP4=", "value_encoding": "base64",
                   "headers": [{"name": "h", "value": "1"},
                               {"name": "raw", "value": "/w==", "encoding": "base64"},
                               {"name": "none", "value": null}]})
        );
    }
}
