//! `-f`: how `consume` prints a record, with kcat's tokens.
//!
//! A template is parsed once, so that a token that does not exist is refused before anything is read.
//! Bytes go out as they came in: nothing is re-encoded, a null key or value prints as nothing.

use std::io::{self, Write};
use std::str::FromStr;

/// Shown in `consume --help`.
pub const TOKENS_HELP: &str = "\
Tokens of -f:
  %t topic     %p partition   %o offset    %T timestamp in ms, -1 if none
  %k key       %K its length  %v or %s value       %V or %S its length (-1 if null)
  %h headers as name=value,...             %% a per cent sign
  %X what became of its transaction, with --show-transactions: committed, aborted, open; - if none
  \\n \\r \\t \\0 \\\\ \\xHH  as in C";

/// What a template can show of a record. Borrowed, so that printing copies nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Record<'a> {
    pub topic: &'a str,
    pub partition: i32,
    pub offset: i64,
    /// Milliseconds since the Unix epoch, and who set it.
    pub timestamp: Option<(i64, TimestampType)>,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    pub headers: &'a [(&'a str, Option<&'a [u8]>)],
    /// What became of the record's transaction, where that is known.
    pub transaction: Option<&'static str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampType {
    CreateTime,
    LogAppendTime,
}

impl TimestampType {
    /// Kafka's own word.
    pub fn name(self) -> &'static str {
        match self {
            TimestampType::CreateTime => "CreateTime",
            TimestampType::LogAppendTime => "LogAppendTime",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Vec<Part>);

/// A piece of a template: bytes to print as they are, or a field of the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    Literal(Vec<u8>),
    Topic,
    Partition,
    Offset,
    Timestamp,
    Key,
    KeyLength,
    Value,
    ValueLength,
    Headers,
    Transaction,
}

impl Template {
    pub fn parts(&self) -> &[Part] {
        &self.0
    }

    pub fn print(&self, record: &Record<'_>, out: &mut impl Write) -> io::Result<()> {
        for part in &self.0 {
            match part {
                Part::Literal(bytes) => out.write_all(bytes)?,
                Part::Topic => out.write_all(record.topic.as_bytes())?,
                Part::Partition => write!(out, "{}", record.partition)?,
                Part::Offset => write!(out, "{}", record.offset)?,
                Part::Timestamp => write!(out, "{}", record.timestamp.map_or(-1, |(ms, _)| ms))?,
                Part::Key => out.write_all(record.key.unwrap_or_default())?,
                Part::KeyLength => write!(out, "{}", length(record.key))?,
                Part::Value => out.write_all(record.value.unwrap_or_default())?,
                Part::ValueLength => write!(out, "{}", length(record.value))?,
                Part::Headers => print_headers(record.headers, out)?,
                Part::Transaction => write!(out, "{}", record.transaction.unwrap_or("-"))?,
            }
        }
        Ok(())
    }
}

/// -1 for null, as in the protocol.
fn length(bytes: Option<&[u8]>) -> i64 {
    bytes.map_or(-1, |bytes| bytes.len() as i64)
}

/// `name=value,name=NULL`, as kcat prints them.
fn print_headers(headers: &[(&str, Option<&[u8]>)], out: &mut impl Write) -> io::Result<()> {
    for (index, (name, value)) in headers.iter().enumerate() {
        if index > 0 {
            out.write_all(b",")?;
        }
        write!(out, "{name}=")?;
        out.write_all(value.unwrap_or(b"NULL"))?;
    }
    Ok(())
}

impl FromStr for Template {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut literal = Vec::new();
        let mut chars = text.chars();
        while let Some(char) = chars.next() {
            let part = match char {
                '%' => match chars.next() {
                    Some('%') => {
                        literal.push(b'%');
                        continue;
                    }
                    Some(token) => {
                        part(token).ok_or_else(|| format!("there is no token %{token}"))?
                    }
                    None => return Err("a lone % at the end; write %% for a per cent sign".into()),
                },
                '\\' => {
                    literal.push(escape(&mut chars)?);
                    continue;
                }
                other => {
                    literal.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes());
                    continue;
                }
            };
            if !literal.is_empty() {
                parts.push(Part::Literal(std::mem::take(&mut literal)));
            }
            parts.push(part);
        }
        if !literal.is_empty() {
            parts.push(Part::Literal(literal));
        }
        Ok(Template(parts))
    }
}

fn part(token: char) -> Option<Part> {
    Some(match token {
        't' => Part::Topic,
        'p' => Part::Partition,
        'o' => Part::Offset,
        'T' => Part::Timestamp,
        'k' => Part::Key,
        'K' => Part::KeyLength,
        'v' | 's' => Part::Value,
        'V' | 'S' => Part::ValueLength,
        'h' => Part::Headers,
        'X' => Part::Transaction,
        _ => return None,
    })
}

/// What follows a backslash.
fn escape(chars: &mut std::str::Chars<'_>) -> Result<u8, String> {
    match chars.next() {
        Some('n') => Ok(b'\n'),
        Some('r') => Ok(b'\r'),
        Some('t') => Ok(b'\t'),
        Some('0') => Ok(0),
        Some('\\') => Ok(b'\\'),
        Some('x') => {
            let digits: String = chars.by_ref().take(2).collect();
            let all_hex =
                digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
            if !all_hex {
                return Err("\\x needs two hexadecimal digits".into());
            }
            u8::from_str_radix(&digits, 16).map_err(|error| error.to_string())
        }
        Some(other) => Err(format!("there is no escape \\{other}")),
        None => Err("a lone \\ at the end; write \\\\ for a backslash".into()),
    }
}

/// A delimiter on the command line, with the escapes of a template (`-K '\t'`).
pub fn parse_delimiter(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        match char {
            '\\' => bytes.push(escape(&mut chars)?),
            other => bytes.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    if bytes.is_empty() {
        Err("the delimiter is empty".into())
    } else {
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(template: &str, record: &Record<'_>, expected: &[u8]) {
        let mut out = Vec::new();
        template
            .parse::<Template>()
            .unwrap()
            .print(record, &mut out)
            .unwrap();
        assert_eq!(
            out,
            expected,
            "{template}: {}",
            String::from_utf8_lossy(&out)
        );
    }

    #[test]
    fn every_token() {
        let headers = [("a", Some(&b"1"[..])), ("b", None), ("a", Some(b"\xff"))];
        let record = Record {
            topic: "orders",
            partition: 3,
            offset: 42,
            timestamp: Some((1_700_000_000_000, TimestampType::CreateTime)),
            key: Some(b"key"),
            value: Some(b"some \xfe bytes"),
            headers: &headers,
            transaction: None,
        };
        check(
            r"%t %p %o %k %v\n",
            &record,
            b"orders 3 42 key some \xfe bytes\n",
        );
        check(
            "%T|%K|%V|%s|%S",
            &record,
            b"1700000000000|3|12|some \xfe bytes|12",
        );
        check("%h", &record, b"a=1,b=NULL,a=\xff");
        check(
            r"100%%\t\r\n\\\x41\xff\0é",
            &record,
            b"100%\t\r\n\\A\xff\0\xc3\xa9",
        );
    }

    #[test]
    fn what_is_null_prints_as_nothing_and_has_length_minus_one() {
        check("[%k|%v|%K|%V|%T|%h]", &Record::default(), b"[||-1|-1|-1|]");
        let empty = Record {
            value: Some(b""),
            ..Record::default()
        };
        check("%V", &empty, b"0");
    }

    #[test]
    fn mistakes_are_refused() {
        for template in [
            "%", "%q", "a%", r"\", r"\q", r"\x", r"\x1", r"\xzz", r"\x+1",
        ] {
            assert!(template.parse::<Template>().is_err(), "{template}");
        }
    }

    #[test]
    fn delimiters() {
        assert_eq!(parse_delimiter(":"), Ok(b":".to_vec()));
        assert_eq!(parse_delimiter(r"\t"), Ok(b"\t".to_vec()));
        assert_eq!(parse_delimiter("=>"), Ok(b"=>".to_vec()));
        assert!(parse_delimiter("").is_err());
        assert!(parse_delimiter(r"\").is_err());
    }
}
