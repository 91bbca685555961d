//! A line of standard input -> a record.

use std::io::{BufRead, Read};
use std::sync::mpsc::SyncSender;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use crate::failure::Failure;
use crate::template::{Part, Template};

/// A longer line is refused: no broker takes a request of this size, and memory is bounded by it.
const LINE_BYTES_MAX: u64 = 100 * 1024 * 1024;

/// A line without its newline, or why it could not be read.
pub type Line = Result<Vec<u8>, String>;

/// Names and values in order; a name may come twice, a value may be null.
pub type Headers = Vec<(String, Option<Vec<u8>>)>;

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Record {
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Headers,
    pub partition: Option<i32>,
    /// Milliseconds since the Unix epoch.
    pub timestamp: Option<i64>,
}

/// Sends up to `count` lines; ends early at end of file, at an error, or when nobody listens.
pub fn read(mut input: impl BufRead, count: Option<u64>, lines: &SyncSender<Line>) {
    let mut sent = 0;
    while count.is_none_or(|count| sent < count) {
        let mut line = Vec::new();
        let read = input
            .by_ref()
            .take(LINE_BYTES_MAX + 1)
            .read_until(b'\n', &mut line);
        let line = match read {
            Ok(0) => return,
            Ok(_) if line.len() as u64 > LINE_BYTES_MAX => {
                Err(format!("it is longer than {LINE_BYTES_MAX} bytes"))
            }
            Ok(_) => {
                if line.last() == Some(&b'\n') {
                    line.pop();
                }
                Ok(line)
            }
            Err(error) => Err(error.to_string()),
        };
        let failed = line.is_err();
        if lines.send(line).is_err() || failed {
            return;
        }
        sent += 1;
    }
}

/// How a line is made up.
#[derive(Debug)]
pub enum Shape {
    /// The line is the value.
    Value,
    /// Key, delimiter, value; a line without the delimiter is a value without a key.
    KeyDelimiter(Vec<u8>),
    Fields(Fields),
    /// An object as `consume --format json` prints it.
    Json,
}

impl Shape {
    pub fn parse(&self, line: Vec<u8>) -> Result<Record, String> {
        match self {
            Shape::Value => Ok(Record {
                value: Some(line),
                ..Record::default()
            }),
            Shape::KeyDelimiter(delimiter) => Ok(match find(&line, delimiter) {
                Some(at) => Record {
                    key: Some(line[..at].to_vec()),
                    value: Some(line[at + delimiter.len()..].to_vec()),
                    ..Record::default()
                },
                None => Record {
                    value: Some(line),
                    ..Record::default()
                },
            }),
            Shape::Fields(fields) => fields.parse(&line),
            Shape::Json => from_json(&line),
        }
    }
}

/// A template read backwards: each field runs up to the literal that follows it.
///
/// Invariant: no two fields without a literal between them, no newline inside.
#[derive(Debug)]
pub struct Fields(Vec<Part>);

impl Fields {
    pub fn new(template: &Template) -> Result<Fields, Failure> {
        let mut parts = template.parts().to_vec();
        // A line comes without its newline, so the template's last one is left out too.
        if let Some(Part::Literal(last)) = parts.last_mut()
            && last.last() == Some(&b'\n')
        {
            last.pop();
            if last.is_empty() {
                parts.pop();
            }
        }
        let mut field_before = false;
        for part in &parts {
            let is_field = match part {
                Part::Literal(literal) if literal.contains(&b'\n') => {
                    return Err(Failure::usage("-f has a newline before its end")
                        .why("a record is one line"));
                }
                Part::Literal(_) => false,
                Part::Key | Part::Value | Part::Headers | Part::Partition | Part::Timestamp => true,
                _ => {
                    return Err(
                        Failure::usage("-f has a token that cannot be read from input")
                            .next("use %k, %v, %h, %p and %T"),
                    );
                }
            };
            if is_field && field_before {
                return Err(
                    Failure::usage("-f has two tokens with nothing between them")
                        .next("put a delimiter between them, as in '%k:%v'"),
                );
            }
            field_before = is_field;
        }
        Ok(Fields(parts))
    }

    fn parse(&self, line: &[u8]) -> Result<Record, String> {
        let mut record = Record::default();
        let mut rest = line;
        for (index, part) in self.0.iter().enumerate() {
            if let Part::Literal(literal) = part {
                rest = rest.strip_prefix(literal.as_slice()).ok_or_else(|| {
                    format!(
                        "it lacks {:?} where -f has it",
                        String::from_utf8_lossy(literal)
                    )
                })?;
                continue;
            }
            let end = match self.0.get(index + 1) {
                Some(Part::Literal(next)) => find(rest, next).ok_or_else(|| {
                    format!(
                        "it lacks {:?} where -f has it",
                        String::from_utf8_lossy(next)
                    )
                })?,
                _ => rest.len(),
            };
            let (field, after) = rest.split_at(end);
            set(&mut record, part, field)?;
            rest = after;
        }
        if rest.is_empty() {
            Ok(record)
        } else {
            Err("it goes on where -f ends".into())
        }
    }
}

fn set(record: &mut Record, part: &Part, field: &[u8]) -> Result<(), String> {
    match part {
        Part::Key => record.key = Some(field.to_vec()),
        Part::Value => record.value = Some(field.to_vec()),
        Part::Partition => record.partition = Some(number(field, "partition")?),
        Part::Timestamp => record.timestamp = Some(number(field, "timestamp")?),
        Part::Headers => record.headers = headers(field)?,
        _ => unreachable!("Fields::new lets no other token in"),
    }
    Ok(())
}

fn number<N: std::str::FromStr>(field: &[u8], name: &str) -> Result<N, String> {
    std::str::from_utf8(field)
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .ok_or_else(|| format!("its {name} is not a number"))
}

/// `name=value,name=value`
fn headers(field: &[u8]) -> Result<Headers, String> {
    let pairs = field
        .split(|&byte| byte == b',')
        .filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let at = find(pair, b"=").ok_or("a header is not NAME=VALUE")?;
            let name = String::from_utf8(pair[..at].to_vec())
                .map_err(|_| "a header's name is not UTF-8")?;
            Ok((name, Some(pair[at + 1..].to_vec())))
        })
        .collect()
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}

/// Takes key, value, headers and timestamp. Topic, partition and offset are where the record came
/// from, not where it goes, and are left out; unknown fields are refused.
fn from_json(line: &[u8]) -> Result<Record, String> {
    let value: Value = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    let Value::Object(object) = value else {
        return Err("it is not a JSON object".into());
    };
    const KNOWN: [&str; 10] = [
        "topic",
        "partition",
        "offset",
        "timestamp",
        "timestamp_type",
        "key",
        "key_encoding",
        "value",
        "value_encoding",
        "headers",
    ];
    if let Some(name) = object.keys().find(|name| !KNOWN.contains(&name.as_str())) {
        return Err(format!("there is no field {name:?}"));
    }
    let timestamp = match object.get("timestamp") {
        None | Some(Value::Null) => None,
        Some(value) => Some(
            value
                .as_i64()
                .ok_or("its timestamp is not a whole number")?,
        ),
    };
    let headers = match object.get("headers") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(headers)) => headers
            .iter()
            .map(header_from_json)
            .collect::<Result<_, String>>()?,
        Some(_) => return Err("its headers are not an array".into()),
    };
    Ok(Record {
        key: bytes(&object, "key", "key_encoding")?,
        value: bytes(&object, "value", "value_encoding")?,
        headers,
        partition: None,
        timestamp,
    })
}

fn header_from_json(header: &Value) -> Result<(String, Option<Vec<u8>>), String> {
    let object = header.as_object().ok_or("a header is not an object")?;
    let name = object
        .get("name")
        .and_then(Value::as_str)
        .ok_or("a header has no name")?;
    Ok((name.to_owned(), bytes(object, "value", "encoding")?))
}

fn bytes(
    object: &Map<String, Value>,
    name: &str,
    encoding: &str,
) -> Result<Option<Vec<u8>>, String> {
    let text = match object.get(name) {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) => text,
        Some(_) => return Err(format!("its {name} is not a string")),
    };
    match object.get(encoding).map(|encoding| encoding.as_str()) {
        None => Ok(Some(text.clone().into_bytes())),
        Some(Some("base64")) => STANDARD
            .decode(text)
            .map(Some)
            .map_err(|error| format!("its {name}: {error}")),
        Some(_) => Err(format!("its {encoding} is not \"base64\"")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(shape: &Shape, line: &[u8], key: Option<&[u8]>, value: Option<&[u8]>) {
        let record = shape.parse(line.to_vec()).unwrap();
        assert_eq!(
            (record.key.as_deref(), record.value.as_deref()),
            (key, value)
        );
    }

    fn fields(template: &str) -> Shape {
        Shape::Fields(Fields::new(&template.parse().unwrap()).unwrap())
    }

    #[test]
    fn plain_lines_and_delimiters() {
        check(&Shape::Value, b"a:b", None, Some(b"a:b"));
        check(&Shape::Value, b"", None, Some(b""));
        let shape = Shape::KeyDelimiter(b"=>".to_vec());
        check(&shape, b"k=>v=>w", Some(b"k"), Some(b"v=>w"));
        check(&shape, b"=>v", Some(b""), Some(b"v"));
        check(&shape, b"v", None, Some(b"v"));
    }

    #[test]
    fn templates_are_read_backwards() {
        check(&fields("%k:%v\\n"), b"a:b:c", Some(b"a"), Some(b"b:c"));
        check(&fields("[%k] %v"), b"[a] b", Some(b"a"), Some(b"b"));
        let record = fields(r"%p\t%T\t%h\t%v")
            .parse(b"2\t99\ta=1,b=2\tx".to_vec())
            .unwrap();
        assert_eq!((record.partition, record.timestamp), (Some(2), Some(99)));
        assert_eq!(
            record.headers,
            [
                ("a".into(), Some(b"1".to_vec())),
                ("b".into(), Some(b"2".to_vec()))
            ]
        );
        assert!(fields("%k:%v").parse(b"none".to_vec()).is_err());
        assert!(fields("%p:%v").parse(b"x:v".to_vec()).is_err());
        assert!(fields("%v!").parse(b"a!b".to_vec()).is_err());
        for template in ["%k%v", "%o:%v", "%k\\n%v"] {
            assert!(
                Fields::new(&template.parse().unwrap()).is_err(),
                "{template}"
            );
        }
    }

    #[test]
    fn json_lines() {
        let line = br#"{"topic":"t","partition":1,"offset":7,"timestamp":5,
            "timestamp_type":"CreateTime","key":null,"value":"AP4=","value_encoding":"base64",
            "headers":[{"name":"h","value":"1"},{"name":"n","value":null}]}"#;
        let record = Shape::Json.parse(line.to_vec()).unwrap();
        let headers = vec![("h".into(), Some(b"1".to_vec())), ("n".into(), None)];
        let value = Some(vec![0, 0xfe]);
        let timestamp = Some(5);
        assert_eq!(
            record,
            Record {
                value,
                headers,
                timestamp,
                ..Record::default()
            }
        );
        for line in [
            "",
            "[]",
            r#"{"vlaue":"a"}"#,
            r#"{"value":1}"#,
            r#"{"value":"?","value_encoding":"base64"}"#,
        ] {
            assert!(
                Shape::Json.parse(line.as_bytes().to_vec()).is_err(),
                "{line}"
            );
        }
    }

    #[test]
    fn lines_are_counted_and_the_last_needs_no_newline() {
        let lines = |input: &str, count| {
            let (sender, receiver) = std::sync::mpsc::sync_channel(10);
            read(input.as_bytes(), count, &sender);
            drop(sender);
            receiver
                .into_iter()
                .map(|line| String::from_utf8(line.unwrap()).unwrap())
                .collect::<Vec<_>>()
        };
        assert_eq!(lines("a\n\nb", None), ["a", "", "b"]);
        assert_eq!(lines("a\nb\n", Some(1)), ["a"]);
        assert_eq!(lines("a\n", Some(0)), Vec::<String>::new());
    }
}
