//! From a record to a row: each column of the target has a source in the record.
//!
//! | Source | is |
//! |---|---|
//! | `key`, `value` | all of it, as text, bytes or JSON, as the column has it |
//! | `value.a.b`, `key.a.b` | a field of the JSON object in it; `a.0` is the first of an array |
//! | `/a/b` | the same in the value, as a JSON pointer (RFC 6901), for names with dots |
//! | `header.NAME` | the last header of that name |
//! | `topic`, `partition`, `offset`, `timestamp` | of the record |
//!
//! What is missing is NULL. A tombstone deletes the row whose key columns it names: by their own
//! sources, where those are not in the value; else by the record's key, which is the one key column's
//! text, or a JSON object with a field for each of them.

use serde_json::value::RawValue;

use crate::config::{Config, Mode};
use crate::convert::{Input, convert};
use crate::json;
use crate::record::SinkRecord;
use crate::table::{Column, Table, Value};

#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// In the order of [`Mapping::columns`]: inserts, or, in upsert mode, replaces.
    Put(Vec<Value>),
    /// In the order of `key.columns`.
    Delete(Vec<Value>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Source {
    Key,
    /// The index into `Mapping::key_names`, and the path below that field.
    KeyField(usize, Vec<String>),
    Value,
    ValueField(usize, Vec<String>),
    Header(String),
    Topic,
    Partition,
    Offset,
    Timestamp,
}

#[derive(Clone, Debug)]
pub struct Mapping {
    columns: Vec<Column>,
    sources: Vec<Source>,
    /// Indexes into `columns`.
    key: Vec<usize>,
    mode: Mode,
    /// The fields of the first level that are needed.
    key_names: Vec<String>,
    value_names: Vec<String>,
}

type Raw<'a> = Option<&'a RawValue>;

/// The fields that a record has; read when they are first needed.
struct Read<'a> {
    record: &'a SinkRecord,
    key: Option<Vec<Raw<'a>>>,
    value: Option<Vec<Raw<'a>>>,
}

impl Mapping {
    /// Errors: columns that are not there, sources that are none, in words.
    pub fn new(config: &Config, table: &Table) -> Result<Mapping, String> {
        let mut mapping = Mapping {
            columns: Vec::new(),
            sources: Vec::new(),
            key: Vec::new(),
            mode: config.mode,
            key_names: Vec::new(),
            value_names: Vec::new(),
        };
        for (name, source) in &config.columns {
            let column = table.column(name).ok_or_else(|| {
                let there: Vec<&str> = table.columns.iter().map(|c| c.name.as_str()).collect();
                format!(
                    "table {} has no column {name} (it has: {})",
                    table.name,
                    there.join(", ")
                )
            })?;
            let source = mapping.source(source).ok_or_else(|| {
                format!(
                    "columns: {name} = {source:?} is none of key, key.FIELD, value, value.FIELD, \
                     /JSON/POINTER, header.NAME, topic, partition, offset, timestamp"
                )
            })?;
            mapping.columns.push(column.clone());
            mapping.sources.push(source);
        }
        for key in &config.key_columns {
            let index = mapping
                .columns
                .iter()
                .position(|column| column.name == *key);
            mapping
                .key
                .push(index.ok_or_else(|| format!("key.columns: {key} has no source"))?);
        }
        Ok(mapping)
    }

    /// What a row is made of, in the order of its values.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// The key columns, as indexes into [`Mapping::columns`].
    pub fn key(&self) -> &[usize] {
        &self.key
    }

    /// Errors: why there can never be a row of it, to be read after the record's name.
    pub fn change(&self, record: &SinkRecord) -> Result<Change, String> {
        let mut read = Read {
            record,
            key: None,
            value: None,
        };
        if record.value.is_none() {
            return match self.mode {
                Mode::Upsert => self.tombstone(&mut read).map(Change::Delete),
                Mode::Insert => {
                    Err("is a tombstone, and mode = \"insert\" deletes nothing".to_owned())
                }
            };
        }
        let mut values = Vec::with_capacity(self.columns.len());
        for (column, source) in self.columns.iter().zip(&self.sources) {
            let input = self.input(source, &mut read)?;
            let value = convert(input, column);
            let value = value.map_err(|why| format!("column {} {why}", column.name))?;
            if value == Value::Null && !column.nullable {
                return Err(format!(
                    "column {} is NOT NULL and gets nothing",
                    column.name
                ));
            }
            values.push(value);
        }
        let null = self.key.iter().find(|index| values[**index] == Value::Null);
        match null {
            // No unique index knows two NULLs as the same.
            Some(index) if self.mode == Mode::Upsert => Err(format!(
                "key column {} gets nothing",
                self.columns[*index].name
            )),
            _ => Ok(Change::Put(values)),
        }
    }

    fn source(&mut self, text: &str) -> Option<Source> {
        let split = |path: &str| path.split('.').map(str::to_owned).collect::<Vec<_>>();
        Some(match text {
            "key" => Source::Key,
            "value" => Source::Value,
            "topic" => Source::Topic,
            "partition" => Source::Partition,
            "offset" => Source::Offset,
            "timestamp" => Source::Timestamp,
            _ => {
                if let Some(name) = text.strip_prefix("header.") {
                    Source::Header(name.to_owned())
                } else if let Some(path) = text.strip_prefix("value.") {
                    let (index, rest) = slot(&mut self.value_names, split(path))?;
                    Source::ValueField(index, rest)
                } else if let Some(path) = text.strip_prefix("key.") {
                    let (index, rest) = slot(&mut self.key_names, split(path))?;
                    Source::KeyField(index, rest)
                } else {
                    let steps = text.strip_prefix('/')?.split('/');
                    let steps = steps.map(|step| step.replace("~1", "/").replace("~0", "~"));
                    let (index, rest) = slot(&mut self.value_names, steps.collect())?;
                    Source::ValueField(index, rest)
                }
            }
        })
    }

    fn input<'a>(&self, source: &Source, read: &mut Read<'a>) -> Result<Input<'a>, String> {
        let record = read.record;
        let bytes = |bytes: Option<&'a [u8]>| bytes.map_or(Input::Null, Input::Bytes);
        Ok(match source {
            Source::Key => bytes(record.key.as_deref()),
            Source::Value => bytes(record.value.as_deref()),
            Source::Header(name) => bytes(record.header(name)),
            Source::Topic => Input::Bytes(record.topic.as_bytes()),
            Source::Partition => Input::Int(record.partition.into()),
            Source::Offset => Input::Int(record.offset),
            Source::Timestamp => record.timestamp_ms.map_or(Input::Null, Input::Time),
            Source::KeyField(index, path) => {
                if read.key.is_none() {
                    read.key = Some(fields("key", record.key.as_deref(), &self.key_names)?);
                }
                below(read.key.as_deref(), *index, path)
            }
            Source::ValueField(index, path) => {
                if read.value.is_none() {
                    read.value = Some(fields("value", record.value.as_deref(), &self.value_names)?);
                }
                below(read.value.as_deref(), *index, path)
            }
        })
    }

    fn tombstone(&self, read: &mut Read<'_>) -> Result<Vec<Value>, String> {
        let key = read.record.key.as_deref();
        let mut values = Vec::with_capacity(self.key.len());
        for index in &self.key {
            let (column, source) = (&self.columns[*index], &self.sources[*index]);
            let value = match source {
                Source::Value | Source::ValueField(..) => self.key_value(source, column, key)?,
                other => convert(self.input(other, read)?, column)
                    .map_err(|why| format!("column {} {why}", column.name))?,
            };
            if value == Value::Null {
                return Err(format!(
                    "is a tombstone that does not say which row: key column {} gets nothing from its \
                     key",
                    column.name
                ));
            }
            values.push(value);
        }
        Ok(values)
    }

    /// The value of a key column whose source is in the value, of a record that has none.
    fn key_value(
        &self,
        source: &Source,
        column: &Column,
        key: Option<&[u8]>,
    ) -> Result<Value, String> {
        let Some(key) = key else {
            return Err("is a tombstone without a key".to_owned());
        };
        let field = match source {
            Source::ValueField(index, path) => path.last().unwrap_or(&self.value_names[*index]),
            _ => &column.name,
        };
        let names = [column.name.clone(), field.clone()];
        let input = match json::fields(key, &names) {
            Ok(Some(found)) => {
                let found = found.into_iter().flatten().next();
                found.map_or(Input::Null, Input::Json)
            }
            _ if self.key.len() > 1 => {
                return Err(format!(
                    "is a tombstone whose key is no JSON object with {}",
                    names[0]
                ));
            }
            // As JSON converters write text; a number is the same with and without.
            Ok(None) if key.starts_with(b"\"") => match serde_json::from_slice::<&RawValue>(key) {
                Ok(raw) => Input::Json(raw),
                Err(_) => Input::Bytes(key),
            },
            _ => Input::Bytes(key),
        };
        convert(input, column).map_err(|why| format!("column {} {why}", column.name))
    }
}

/// The index of the path's first step in `names`, added to them where it is new, and the other steps.
fn slot(names: &mut Vec<String>, path: Vec<String>) -> Option<(usize, Vec<String>)> {
    let mut steps = path.into_iter();
    let first = steps.next()?;
    let known = names.iter().position(|name| *name == first);
    let index = known.unwrap_or_else(|| {
        names.push(first);
        names.len() - 1
    });
    Some((index, steps.collect()))
}

fn fields<'a>(
    what: &str,
    text: Option<&'a [u8]>,
    names: &[String],
) -> Result<Vec<Raw<'a>>, String> {
    let Some(text) = text else {
        return Ok(vec![None; names.len()]);
    };
    match json::fields(text, names) {
        Ok(Some(fields)) => Ok(fields),
        Ok(None) => {
            of_array(text, names).ok_or_else(|| format!("has a {what} that is no JSON object"))
        }
        Err(why) => Err(format!("has a {what} that is no JSON: {why}")),
    }
}

fn of_array<'a>(text: &'a [u8], names: &[String]) -> Option<Vec<Raw<'a>>> {
    let items: Vec<&RawValue> = serde_json::from_slice(text).ok()?;
    let item = |name: &String| items.get(name.parse::<usize>().ok()?).copied();
    Some(names.iter().map(item).collect())
}

fn below<'a>(fields: Option<&[Raw<'a>]>, index: usize, path: &[String]) -> Input<'a> {
    let field = fields.and_then(|fields| fields[index]);
    let found = field.and_then(|raw| json::descend(raw, path));
    found.map_or(Input::Null, Input::Json)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::{Kind, int};

    fn column(name: &str, kind: Kind, nullable: bool) -> Column {
        Column {
            name: name.to_owned(),
            kind,
            type_name: format!("{kind:?}"),
            nullable,
            optional: false,
            exact: true,
        }
    }

    fn table() -> Table {
        Table {
            name: "orders".to_owned(),
            columns: vec![
                column("id", Kind::Text, false),
                column("lane", int(32, false), true),
                column("note", Kind::Text, true),
            ],
            unique: vec![],
        }
    }

    fn mapping(columns: &str, more: &str) -> Result<Mapping, String> {
        let config = format!(
            r#"{{"name": "s", "topics": ["t"], "database": "sqlite:x", "table": "orders",
            "columns": {columns}, {more}}}"#
        );
        Mapping::new(&serde_json::from_str(&config).unwrap(), &table())
    }

    fn record(key: Option<&str>, value: Option<&str>) -> SinkRecord {
        SinkRecord {
            topic: "t".into(),
            partition: 2,
            offset: 7,
            timestamp_ms: Some(5),
            key: key.map(|key| key.as_bytes().to_vec()),
            value: value.map(|value| value.as_bytes().to_vec()),
            headers: vec![("trace".into(), Some(b"x".to_vec()))],
        }
    }

    fn text(text: &str) -> Value {
        Value::Text(text.to_owned())
    }

    const BY_ID: &str = r#""key.columns": ["id"]"#;

    #[test]
    fn each_source_is_read_from_its_place() {
        let check = |source: &str, expected: Value| {
            let columns = format!(r#"{{"id": "key", "note": "{source}"}}"#);
            let record = record(Some("k"), Some(r#"{"a": {"b": [10, "x"], "c.d": 2}}"#));
            let change = mapping(&columns, BY_ID).unwrap().change(&record);
            assert_eq!(
                change,
                Ok(Change::Put(vec![text("k"), expected])),
                "{source}"
            );
        };
        check("key", text("k"));
        check("value", text(r#"{"a": {"b": [10, "x"], "c.d": 2}}"#));
        check("value.a.b", text(r#"[10, "x"]"#));
        check("value.a.b.1", text("x"));
        check("/a/c.d", text("2"));
        check("value.z", Value::Null);
        check("value.a.z.y", Value::Null);
        check("header.trace", text("x"));
        check("header.none", Value::Null);
        check("topic", text("t"));
        check("partition", text("2"));
        check("offset", text("7"));
        check("timestamp", text("5"));
    }

    #[test]
    fn a_tombstone_says_which_row_by_its_key() {
        let check = |columns: &str, keys: &str, key: Option<&str>| {
            mapping(columns, keys).unwrap().change(&record(key, None))
        };
        let one = Ok(Change::Delete(vec![text("o1")]));
        let by_value = r#"{"id": "value.order.number"}"#;
        for key in ["o1", "\"o1\"", r#"{"id": "o1"}"#, r#"{"number": "o1"}"#] {
            assert_eq!(check(by_value, BY_ID, Some(key)), one, "{key}");
        }
        assert_eq!(check(r#"{"id": "key"}"#, BY_ID, Some("o1")), one);
        assert_eq!(
            check(r#"{"id": "key.n"}"#, BY_ID, Some(r#"{"n": "o1"}"#)),
            one
        );
        for key in [None, Some("{}")] {
            assert!(check(by_value, BY_ID, key).is_err(), "{key:?}");
        }
        let (both, keys) = (
            r#"{"id": "value.id", "lane": "value.lane"}"#,
            r#""key.columns": ["lane", "id"]"#,
        );
        let two = Change::Delete(vec![Value::Int(3), text("o1")]);
        assert_eq!(
            check(both, keys, Some(r#"{"id": "o1", "lane": 3}"#)),
            Ok(two)
        );
        assert!(check(both, keys, Some("o1")).unwrap_err().contains("lane"));
    }

    #[test]
    fn what_can_never_be_a_row_says_why() {
        let all = r#"{"id": "value.id", "lane": "value.lane"}"#;
        let poison = |value: &str| {
            mapping(all, BY_ID)
                .unwrap()
                .change(&record(None, Some(value)))
                .unwrap_err()
        };
        assert!(poison("{}").contains("id is NOT NULL"));
        assert!(poison(r#"{"id": "a", "lane": "x"}"#).contains("column lane"));
        assert!(poison("no json").contains("no JSON"));
        assert!(poison("1").contains("no JSON object"));
        let insert = r#""mode": "insert""#;
        let tombstone = mapping(all, insert).unwrap().change(&record(None, None));
        assert!(tombstone.unwrap_err().contains("tombstone"));
        let null_key = mapping(all, r#""key.columns": ["lane"]"#).unwrap();
        let refused = null_key
            .change(&record(None, Some(r#"{"id": "a"}"#)))
            .unwrap_err();
        assert!(refused.contains("key column lane"), "{refused}");
    }

    #[test]
    fn a_mapping_that_cannot_be_is_refused() {
        assert!(
            mapping(r#"{"ident": "key"}"#, r#""mode": "insert""#)
                .unwrap_err()
                .contains("it has")
        );
        assert!(
            mapping(r#"{"id": "kee"}"#, BY_ID)
                .unwrap_err()
                .contains("kee")
        );
    }
}
