//! From a row of the outbox to a record, as Debezium's Outbox Event Router does it: the same options
//! with the same defaults (outbox-facts.md, section 2), so that a configuration can be brought along.
//!
//! Deviations: the payload is published as the database gives it, whatever `table.expand.json.payload`
//! says, which is what Debezium does with `StringConverter`, and with `true` and `JsonConverter`; a
//! column `traceparent`, where there is one, becomes the header of that name without being asked.

use std::sync::Arc;

use regex::Regex;
use serde::Deserialize;
use serde_json::{Map, Value as Json};

use crate::event::Event;
use crate::row::{Columns, Operation, OutboxRow, Value};

#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    #[serde(rename = "table.field.event.id")]
    pub id: String,
    #[serde(rename = "table.field.event.key")]
    pub key: String,
    #[serde(rename = "table.field.event.payload")]
    pub payload: String,
    /// Milliseconds since 1970; without it records have the time of publishing.
    #[serde(rename = "table.field.event.timestamp")]
    pub timestamp: Option<String>,
    #[serde(rename = "table.expand.json.payload")]
    pub expand_json: bool,
    /// `column:header|envelope|partition[:alias]`, separated by commas.
    #[serde(rename = "table.fields.additional.placement")]
    pub additional: String,
    #[serde(rename = "table.fields.additional.error.on.missing")]
    pub additional_required: bool,
    #[serde(rename = "table.op.invalid.behavior")]
    pub invalid: OnInvalid,
    #[serde(rename = "route.by.field")]
    pub route_by: String,
    #[serde(rename = "route.topic.regex")]
    pub topic_regex: String,
    #[serde(rename = "route.topic.replacement")]
    pub topic_replacement: String,
    #[serde(rename = "route.tombstone.on.empty.payload")]
    pub tombstone_on_empty: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            id: "id".into(),
            key: "aggregateid".into(),
            payload: "payload".into(),
            timestamp: None,
            expand_json: false,
            additional: String::new(),
            additional_required: true,
            invalid: OnInvalid::Warn,
            route_by: "aggregatetype".into(),
            topic_regex: "(?<routedByValue>.*)".into(),
            topic_replacement: "outbox.event.${routedByValue}".into(),
            tombstone_on_empty: false,
        }
    }
}

/// What an UPDATE of an outbox row leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnInvalid {
    /// Passed over, with a line in the log.
    Warn,
    /// Passed over, with a line in the log at a higher level.
    Error,
    /// The row is poison.
    Fatal,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Placement {
    Header,
    Envelope,
    Partition,
}

#[derive(Clone, Debug)]
struct Additional {
    column: String,
    placement: Placement,
    name: Arc<str>,
}

pub struct Router {
    options: Options,
    regex: Regex,
    additional: Vec<Additional>,
    /// The column indexes of the shape of row that came last.
    known: Option<(Columns, Indexes)>,
    /// The topic that the last value of the routing column led to.
    last_topic: Option<(String, Arc<str>)>,
    id_header: Arc<str>,
    traceparent: Arc<str>,
}

#[derive(Clone, Debug)]
struct Indexes {
    id: usize,
    key: usize,
    payload: usize,
    route_by: usize,
    timestamp: Option<usize>,
    traceparent: Option<usize>,
    /// Of `Router::additional`, in its order; none where the column may be missing and is.
    additional: Vec<Option<usize>>,
}

const TRACEPARENT: &str = "traceparent";

impl Router {
    /// Errors: an option that makes no sense, in words.
    pub fn new(options: Options) -> Result<Router, String> {
        // Java's `.*` matches the whole value; so it has to here.
        let regex = Regex::new(&format!("^(?:{})$", options.topic_regex))
            .map_err(|error| format!("route.topic.regex: {error}"))?;
        let listed = options.additional.split(',').map(str::trim);
        let listed = listed.filter(|one| !one.is_empty());
        let additional = listed.map(placement).collect::<Result<Vec<_>, _>>()?;
        Ok(Router {
            options,
            regex,
            additional,
            known: None,
            last_topic: None,
            id_header: "id".into(),
            traceparent: TRACEPARENT.into(),
        })
    }

    /// `None`: a row that makes no record. Errors: a row that can never be published, and why, to be
    /// read after [`Router::name`].
    pub fn route(&mut self, row: &OutboxRow) -> Result<Option<Event>, String> {
        match row.operation {
            Operation::Insert => self.event(row).map(Some),
            Operation::Delete => Ok(None),
            Operation::Update => match self.options.invalid {
                OnInvalid::Warn => {
                    tracing::warn!(
                        "an UPDATE of the outbox row {} is passed over",
                        self.name(row)
                    );
                    Ok(None)
                }
                OnInvalid::Error => {
                    tracing::error!(
                        "an UPDATE of the outbox row {} is passed over",
                        self.name(row)
                    );
                    Ok(None)
                }
                OnInvalid::Fatal => {
                    Err("was updated, and table.op.invalid.behavior is fatal".to_owned())
                }
            },
        }
    }

    /// How a person finds the row.
    pub fn name(&self, row: &OutboxRow) -> String {
        match row.value(&self.options.id).and_then(text) {
            Some(id) => format!("{}={id}", self.options.id),
            None => format!("at {}", row.position),
        }
    }

    fn event(&mut self, row: &OutboxRow) -> Result<Event, String> {
        let indexes = self.indexes(&row.columns)?;
        let value = |index: usize| &row.values[index];
        let routed = text(value(indexes.route_by))
            .ok_or_else(|| format!("has no {} to route it by", self.options.route_by))?;
        let topic = self.topic(routed)?;
        let id = text(value(indexes.id)).ok_or_else(|| format!("has no {}", self.options.id))?;
        let mut headers = vec![(Arc::clone(&self.id_header), Some(id.into_bytes()))];
        if let Some(traceparent) = indexes.traceparent.and_then(|index| text(value(index))) {
            headers.push((
                Arc::clone(&self.traceparent),
                Some(traceparent.into_bytes()),
            ));
        }
        let mut envelope = Map::new();
        let mut partition = None;
        for (additional, index) in self.additional.iter().zip(&indexes.additional) {
            let Some(index) = index else { continue };
            let found = value(*index);
            match additional.placement {
                Placement::Header => headers.push((Arc::clone(&additional.name), bytes(found))),
                Placement::Envelope => {
                    envelope.insert(additional.name.to_string(), found.to_json());
                }
                Placement::Partition => partition = Some(partition_of(found, &additional.column)?),
            }
        }
        let payload = value(indexes.payload);
        if *payload == Value::Unchanged {
            return Err(format!("came without its {}", self.options.payload));
        }
        let payload = self.payload(payload, envelope);
        let timestamp_ms = match indexes.timestamp.map(value) {
            Some(Value::Int(ms)) => Some(*ms),
            Some(Value::Null) | None => None,
            Some(_) => {
                let column = self.options.timestamp.as_deref().unwrap_or_default();
                return Err(format!(
                    "has no milliseconds since 1970 (an integer) in {column}"
                ));
            }
        };
        Ok(Event {
            topic,
            partition,
            key: bytes(value(indexes.key)),
            value: payload,
            headers,
            timestamp_ms,
            position: row.position.clone(),
        })
    }

    fn payload(&self, payload: &Value, mut envelope: Map<String, Json>) -> Option<Vec<u8>> {
        let plain = bytes(payload);
        let empty = plain.as_ref().is_none_or(Vec::is_empty);
        if empty && self.options.tombstone_on_empty {
            return None;
        }
        if self
            .additional
            .iter()
            .all(|one| one.placement != Placement::Envelope)
        {
            return plain;
        }
        let as_json = match payload {
            Value::Text(text) => serde_json::from_str(text).unwrap_or_else(|_| payload.to_json()),
            other => other.to_json(),
        };
        envelope.insert("payload".to_owned(), as_json);
        Some(Json::Object(envelope).to_string().into_bytes())
    }

    fn topic(&mut self, routed: String) -> Result<Arc<str>, String> {
        if let Some((last, topic)) = &self.last_topic
            && *last == routed
        {
            return Ok(Arc::clone(topic));
        }
        let replacement = self.options.topic_replacement.as_str();
        let name = self.regex.replace(&routed, replacement);
        check_topic(&name).map_err(|why| format!("leads to topic {name:?}, which {why}"))?;
        let topic: Arc<str> = name.as_ref().into();
        self.last_topic = Some((routed, Arc::clone(&topic)));
        Ok(topic)
    }

    fn indexes(&mut self, columns: &Columns) -> Result<Indexes, String> {
        if let Some((known, indexes)) = &self.known
            && Arc::ptr_eq(known, columns)
        {
            return Ok(indexes.clone());
        }
        let find = |name: &str| columns.iter().position(|column| column == name);
        let need = |name: &str| {
            let all = || columns.join(", ");
            find(name).ok_or_else(|| format!("has no column {name} (it has: {})", all()))
        };
        let options = &self.options;
        let timestamp = options.timestamp.as_deref().map(need).transpose()?;
        let additional = self.additional.iter().map(|one| {
            if options.additional_required {
                need(&one.column).map(Some)
            } else {
                Ok(find(&one.column))
            }
        });
        let indexes = Indexes {
            id: need(&options.id)?,
            key: need(&options.key)?,
            payload: need(&options.payload)?,
            route_by: need(&options.route_by)?,
            timestamp,
            traceparent: find(TRACEPARENT),
            additional: additional.collect::<Result<_, _>>()?,
        };
        self.known = Some((Arc::clone(columns), indexes.clone()));
        Ok(indexes)
    }
}

fn placement(text: &str) -> Result<Additional, String> {
    let wrong = || {
        format!(
            "table.fields.additional.placement: {text:?} is not column:header|envelope|partition[:alias]"
        )
    };
    let mut parts = text.split(':');
    let column = parts
        .next()
        .filter(|column| !column.is_empty())
        .ok_or_else(wrong)?;
    let placement = match parts.next() {
        Some("header") => Placement::Header,
        Some("envelope") => Placement::Envelope,
        Some("partition") => Placement::Partition,
        _ => return Err(wrong()),
    };
    let name = parts.next().unwrap_or(column);
    if parts.next().is_some() {
        return Err(wrong());
    }
    Ok(Additional {
        column: column.to_owned(),
        placement,
        name: name.into(),
    })
}

/// Kafka's rules for names of topics (`org.apache.kafka.common.internals.Topic`).
fn check_topic(name: &str) -> Result<(), &'static str> {
    const LENGTH_MAX: usize = 249;
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    match name {
        "" | "." | ".." => Err("is no name of a topic"),
        _ if name.len() > LENGTH_MAX => Err("is longer than 249 characters"),
        _ if !name.bytes().all(legal) => {
            Err("has other characters than a-z, A-Z, 0-9, '.', '_', '-'")
        }
        _ => Ok(()),
    }
}

fn partition_of(value: &Value, column: &str) -> Result<i32, String> {
    let number = match value {
        Value::Int(number) => i32::try_from(*number).ok(),
        Value::Text(text) => text.parse().ok(),
        _ => None,
    };
    number
        .filter(|number| *number >= 0)
        .ok_or_else(|| format!("has no partition's number in {column}"))
}

/// `None` for NULL.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::Null | Value::Unchanged => None,
        Value::Bool(value) => Some(value.to_string()),
        Value::Int(value) => Some(value.to_string()),
        Value::Float(value) => Some(value.to_string()),
        Value::Text(text) => Some(text.clone()),
        Value::Bytes(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
    }
}

fn bytes(value: &Value) -> Option<Vec<u8>> {
    match value {
        Value::Bytes(bytes) => Some(bytes.clone()),
        other => text(other).map(String::into_bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::position::Position;

    fn row(fields: &[(&str, Value)]) -> OutboxRow {
        OutboxRow {
            position: Position::Cursor { sequence: 7 },
            operation: Operation::Insert,
            columns: fields.iter().map(|(name, _)| (*name).to_owned()).collect(),
            values: fields.iter().map(|(_, value)| value.clone()).collect(),
        }
    }

    fn text_value(text: &str) -> Value {
        Value::Text(text.to_owned())
    }

    fn order(more: &[(&str, Value)]) -> OutboxRow {
        let mut fields = vec![
            ("id", text_value("e1")),
            ("aggregatetype", text_value("order")),
            ("aggregateid", text_value("o1")),
            ("type", text_value("created")),
            ("payload", text_value("{\"a\":1}")),
        ];
        for (name, value) in more {
            fields.retain(|(known, _)| known != name);
            fields.push((name, value.clone()));
        }
        row(&fields)
    }

    fn route(options: &str, row: &OutboxRow) -> Result<Option<Event>, String> {
        let options: Options = serde_json::from_str(options).unwrap();
        Router::new(options).unwrap().route(row)
    }

    fn header<'a>(event: &'a Event, name: &str) -> Option<&'a str> {
        let found = event
            .headers
            .iter()
            .find(|(known, _)| known.as_ref() == name);
        found.map(|(_, value)| std::str::from_utf8(value.as_ref().unwrap()).unwrap())
    }

    #[test]
    fn the_defaults_are_debeziums() {
        let event = route("{}", &order(&[])).unwrap().unwrap();
        assert_eq!(event.topic.as_ref(), "outbox.event.order");
        assert_eq!(event.key.as_deref(), Some(&b"o1"[..]));
        assert_eq!(event.value.as_deref(), Some(&b"{\"a\":1}"[..]));
        assert_eq!(header(&event, "id"), Some("e1"));
        assert_eq!(event.headers.len(), 1);
        assert_eq!((event.partition, event.timestamp_ms), (None, None));
    }

    #[test]
    fn additional_columns_go_where_they_are_placed() {
        let placed = r#"{"table.fields.additional.placement":
            "type:header:eventType, tenant:envelope, lane:partition"}"#;
        let more = [("tenant", text_value("t")), ("lane", Value::Int(3))];
        let event = route(placed, &order(&more)).unwrap().unwrap();
        assert_eq!(header(&event, "eventType"), Some("created"));
        assert_eq!(event.partition, Some(3));
        let value = event.value.unwrap();
        let value: Json = serde_json::from_slice(&value).unwrap();
        assert_eq!(
            value,
            serde_json::json!({"payload": {"a": 1}, "tenant": "t"})
        );
    }

    #[test]
    fn a_trace_is_carried_on() {
        let event = route("{}", &order(&[("traceparent", text_value("00-a-b-01"))]));
        assert_eq!(
            header(&event.unwrap().unwrap(), "traceparent"),
            Some("00-a-b-01")
        );
    }

    #[test]
    fn topics_are_made_by_the_regex() {
        let options = r#"{"route.topic.regex": "(?<kind>[a-z]+)-.*",
            "route.topic.replacement": "events.${kind}"}"#;
        let routed = |value: &str| route(options, &order(&[("aggregatetype", text_value(value))]));
        assert_eq!(
            routed("order-eu").unwrap().unwrap().topic.as_ref(),
            "events.order"
        );
        // As in Java, what does not match is left as it is.
        assert_eq!(routed("order").unwrap().unwrap().topic.as_ref(), "order");
    }

    #[test]
    fn tombstones_are_for_null_and_if_asked_for_empty_payloads() {
        let value = |options: &str, payload: Value| {
            let routed = route(options, &order(&[("payload", payload)]));
            routed.unwrap().unwrap().value
        };
        assert_eq!(value("{}", Value::Null), None);
        assert_eq!(value("{}", text_value("")), Some(vec![]));
        let asked = r#"{"route.tombstone.on.empty.payload": true}"#;
        assert_eq!(value(asked, text_value("")), None);
    }

    #[test]
    fn what_cannot_be_published_is_told_apart() {
        let poison = |more: &[(&str, Value)]| route("{}", &order(more)).unwrap_err();
        assert!(poison(&[("aggregatetype", Value::Null)]).contains("aggregatetype"));
        assert!(poison(&[("aggregatetype", text_value("a b"))]).contains("outbox.event.a b"));
        assert!(poison(&[("id", Value::Null)]).contains("id"));
        let unnamed = row(&[("id", text_value("e1"))]);
        assert!(route("{}", &unnamed).unwrap_err().contains("aggregateid"));
    }

    #[test]
    fn updates_and_deletes_make_no_record() {
        for operation in [Operation::Update, Operation::Delete] {
            let changed = OutboxRow {
                operation,
                ..order(&[])
            };
            assert_eq!(route("{}", &changed), Ok(None));
        }
        let fatal = r#"{"table.op.invalid.behavior": "fatal"}"#;
        let updated = OutboxRow {
            operation: Operation::Update,
            ..order(&[])
        };
        assert!(route(fatal, &updated).is_err());
    }

    #[test]
    fn options_that_make_no_sense_are_refused() {
        let refused = |options: &str| {
            Router::new(serde_json::from_str(options).unwrap())
                .err()
                .unwrap()
        };
        assert!(refused(r#"{"route.topic.regex": "("}"#).contains("route.topic.regex"));
        let placed = r#"{"table.fields.additional.placement": "a:b"}"#;
        assert!(refused(placed).contains("a:b"));
        assert!(serde_json::from_str::<Options>(r#"{"route.by.feild": "x"}"#).is_err());
    }
}
