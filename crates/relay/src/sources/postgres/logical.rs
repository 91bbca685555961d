//! What a logical message holds: a row of an outbox that has no table, as a JSON object with the names
//! of the outbox's columns, `{"id":"…","aggregatetype":"order","aggregateid":"7","payload":{…}}`.
//!
//! Objects, arrays and numbers that are no 64-bit integers are kept as they were written: no digit of
//! a payload is lost.

use std::fmt;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::{MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::row::{Columns, Value};

/// The column of a message that is no such object: no router finds in it what it needs, so that it is
/// handled as every other row that can never be published.
const CONTENT: &str = "content";

#[derive(Default)]
pub struct Contents {
    /// Messages of one kind have the same keys in the same order.
    last: Option<Columns>,
}

impl Contents {
    pub fn row(&mut self, content: &[u8]) -> (Columns, Vec<Value>) {
        let Ok(fields) = serde_json::from_slice::<Fields<'_>>(content) else {
            let value = match std::str::from_utf8(content) {
                Ok(text) => Value::Text(text.to_owned()),
                Err(_) => Value::Bytes(content.to_vec()),
            };
            return (self.columns(&[CONTENT]), vec![value]);
        };
        let names: Vec<&str> = fields.0.iter().map(|(name, _)| name.as_ref()).collect();
        let columns = self.columns(&names);
        let values = fields.0.iter().map(|(_, raw)| value(raw.get())).collect();
        (columns, values)
    }

    fn columns(&mut self, names: &[&str]) -> Columns {
        if let Some(last) = &self.last
            && last.iter().eq(names)
        {
            return Arc::clone(last);
        }
        let columns: Columns = names.iter().map(|name| (*name).to_owned()).collect();
        self.last = Some(Arc::clone(&columns));
        columns
    }
}

fn value(raw: &str) -> Value {
    let kept = || Value::Text(raw.to_owned());
    match raw.as_bytes().first() {
        Some(b'n') => Value::Null,
        Some(b't') => Value::Bool(true),
        Some(b'f') => Value::Bool(false),
        // A string may hold half of a surrogate pair, which JSON has and UTF-8 does not.
        Some(b'"') => serde_json::from_str(raw).map_or_else(|_| kept(), Value::Text),
        Some(b'{' | b'[') => kept(),
        _ => raw.parse().map_or_else(|_| kept(), Value::Int),
    }
}

/// The fields of an object, in their order.
struct Fields<'a>(Vec<(std::borrow::Cow<'a, str>, &'a RawValue)>);

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FieldsVisitor)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
        let mut fields = Vec::new();
        while let Some((name, value)) = map.next_entry::<Name<'de>, &'de RawValue>()? {
            fields.push((name.0, value));
        }
        Ok(Fields(fields))
    }
}

/// Borrowed unless it has escapes.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] std::borrow::Cow<'a, str>);

#[cfg(test)]
mod tests {
    use super::*;

    fn row(content: &str) -> Vec<(String, Value)> {
        let (columns, values) = Contents::default().row(content.as_bytes());
        columns.iter().cloned().zip(values).collect()
    }

    fn text(text: &str) -> Value {
        Value::Text(text.to_owned())
    }

    #[test]
    fn keys_are_columns() {
        let found = row(r#"{"id":"e\u0031", "n":-7, "b":true, "z":null, "aggregate\u0069d":"o"}"#);
        let expected = [
            ("id", text("e1")),
            ("n", Value::Int(-7)),
            ("b", Value::Bool(true)),
            ("z", Value::Null),
            ("aggregateid", text("o")),
        ];
        assert_eq!(
            found,
            expected.map(|(name, value)| (name.to_owned(), value))
        );
    }

    #[test]
    fn a_payload_is_kept_to_the_digit() {
        let payload = r#"{"amount": 12345678901234567890.10, "big": 1e400}"#;
        let found = row(&format!(
            r#"{{"payload":{payload},"n":18446744073709551616}}"#
        ));
        assert_eq!(found[0].1, text(payload));
        assert_eq!(found[1].1, text("18446744073709551616"));
    }

    #[test]
    fn what_is_no_object_is_handed_on() {
        for content in ["", "7", "[]", "{\"id\":", "order 7"] {
            assert_eq!(row(content), [(CONTENT.to_owned(), text(content))]);
        }
    }

    #[test]
    fn messages_of_one_kind_share_their_columns() {
        let mut contents = Contents::default();
        let (first, _) = contents.row(br#"{"id":1,"payload":{}}"#);
        let (second, _) = contents.row(br#"{"id":2,"payload":{}}"#);
        let (third, _) = contents.row(br#"{"payload":{},"id":3}"#);
        assert!(Arc::ptr_eq(&first, &second));
        assert!(!Arc::ptr_eq(&first, &third));
    }
}
