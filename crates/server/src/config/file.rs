//! Configuration files: TOML with Kafka's dotted keys, or a Kafka `server.properties`.
//!
//! The extension decides (`.toml`, `.properties`); without one of these, what parses as TOML is
//! TOML. In TOML a key may be dotted, quoted, or a path of tables: all three name the same key.

use super::{ConfigProblem, Place, Property, properties};
use std::ops::Range;
use std::path::Path;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Configuration files are small; more is a mistake.
pub const FILE_BYTES_MAX: u64 = 4 << 20;

/// `others` are top-level keys of a TOML file that are somebody else's.
pub fn read(path: &Path, others: &[&str]) -> Result<Vec<Property>, ConfigProblem> {
    let failed = |error| ConfigProblem::Read {
        path: path.to_owned(),
        error,
    };
    let length = std::fs::metadata(path).map_err(failed)?.len();
    if length > FILE_BYTES_MAX {
        let message = format!("{length} bytes are more than a configuration file has");
        return Err(failed(std::io::Error::new(
            std::io::ErrorKind::InvalidData,
            message,
        )));
    }
    parse(
        path,
        &std::fs::read_to_string(path).map_err(failed)?,
        others,
    )
}

pub fn parse(path: &Path, text: &str, others: &[&str]) -> Result<Vec<Property>, ConfigProblem> {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("toml") => parse_toml(path, text, others),
        Some("properties") => properties::parse(path, text),
        _ => parse_toml(path, text, others).or_else(|_| properties::parse(path, text)),
    }
}

fn parse_toml(path: &Path, text: &str, others: &[&str]) -> Result<Vec<Property>, ConfigProblem> {
    let at = |span: Range<usize>, message: String| ConfigProblem::Syntax {
        path: path.to_owned(),
        line: line_of(text, span.start),
        message,
    };
    let table = DeTable::parse(text)
        .map_err(|error| at(error.span().unwrap_or_default(), error.message().to_owned()))?;
    let mut found = Vec::new();
    flatten("", table.get_ref(), others, &mut found)
        .map_err(|(span, message)| at(span, message))?;
    let property = |(key, value, span): (String, String, Range<usize>)| Property {
        key,
        value,
        place: Place::File {
            path: path.to_owned(),
            line: line_of(text, span.start),
        },
    };
    Ok(found.into_iter().map(property).collect())
}

type Problem = (Range<usize>, String);

fn flatten(
    prefix: &str,
    table: &DeTable<'_>,
    others: &[&str],
    found: &mut Vec<(String, String, Range<usize>)>,
) -> Result<(), Problem> {
    for (name, value) in table {
        if others.contains(&name.get_ref().as_ref()) {
            continue;
        }
        let key = match prefix {
            "" => name.get_ref().to_string(),
            _ => format!("{prefix}.{}", name.get_ref()),
        };
        match value.get_ref() {
            DeValue::Table(inner) => flatten(&key, inner, &[], found)?,
            DeValue::Array(items) => {
                let items: Result<Vec<String>, Problem> = items.iter().map(text_of).collect();
                found.push((key, items?.join(","), name.span()));
            }
            _ => found.push((key, text_of(value)?, name.span())),
        }
    }
    Ok(())
}

fn text_of(value: &Spanned<DeValue<'_>>) -> Result<String, Problem> {
    let bad = |message: &str| Err((value.span(), message.to_owned()));
    match value.get_ref() {
        DeValue::String(text) => Ok(text.to_string()),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Ok(number.to_string()),
            Err(_) => bad("the number is too large"),
        },
        DeValue::Float(number) => Ok(number.as_str().to_owned()),
        DeValue::Boolean(value) => Ok(value.to_string()),
        DeValue::Datetime(_) => bad("no configuration takes a date"),
        DeValue::Array(_) | DeValue::Table(_) => bad("a list holds plain values only"),
    }
}

fn line_of(text: &str, at: usize) -> usize {
    let before = text.as_bytes().get(..at).unwrap_or(text.as_bytes());
    1 + before.iter().filter(|byte| **byte == b'\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[(&str, &str, usize)]) {
        let properties = parse(Path::new("oncelog.toml"), text, &[]).unwrap();
        let mut found: Vec<(String, String, usize)> = Vec::new();
        for property in properties {
            let Place::File { line, .. } = property.place else {
                panic!("{property:?}");
            };
            found.push((property.key, property.value, line));
        }
        found.sort();
        let expected: Vec<(String, String, usize)> = expected
            .iter()
            .map(|(k, v, l)| (k.to_string(), v.to_string(), *l))
            .collect();
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn three_ways_to_name_a_key() {
        check(
            "num.partitions = 3\n\"log.dirs\" = \"data\"\n\n[log.retention]\nms = -1\n",
            &[
                ("log.dirs", "data", 2),
                ("log.retention.ms", "-1", 5),
                ("num.partitions", "3", 1),
            ],
        );
    }

    #[test]
    fn values_become_text() {
        check(
            "a = [\"x\", \"y\"]\nb = true\nc = 0.5\nd = 0x10\ne = 1_000\nf = { g = 'h' }\n",
            &[
                ("a", "x,y", 1),
                ("b", "true", 2),
                ("c", "0.5", 3),
                ("d", "16", 4),
                ("e", "1000", 5),
                ("f.g", "h", 6),
            ],
        );
    }

    #[test]
    fn mistakes_name_their_line() {
        for (text, expected) in [
            ("a = 1\nb = \n", "oncelog.toml:2: "),
            ("a = 1\na = 2\n", "oncelog.toml:2: "),
            (
                "\n\nd = 2020-01-01\n",
                "oncelog.toml:3: no configuration takes a date",
            ),
            (
                "l = [[1]]\n",
                "oncelog.toml:1: a list holds plain values only",
            ),
            (
                "n = 99999999999999999999\n",
                "oncelog.toml:1: the number is too large",
            ),
        ] {
            let error = parse(Path::new("oncelog.toml"), text, &[])
                .unwrap_err()
                .to_string();
            assert!(error.starts_with(expected), "{text:?}: {error}");
        }
    }

    #[test]
    fn without_an_extension_the_content_decides() {
        let toml = parse(Path::new("conf"), "[log]\ndirs = \"d\"\n", &[]).unwrap();
        assert_eq!(toml[0].key, "log.dirs");
        let properties = parse(Path::new("conf"), "listeners=PLAINTEXT://:9092\n", &[]).unwrap();
        assert_eq!(properties[0].value, "PLAINTEXT://:9092");
        // Also with the wrong idea: a .properties file is never read as TOML.
        let properties = parse(Path::new("x.properties"), "a=\"b\"\n", &[]).unwrap();
        assert_eq!(properties[0].value, "\"b\"");
    }

    #[test]
    fn what_is_somebody_elses_is_passed_over() {
        let text = "[[relay]]\nname = \"a\"\n[log]\ndirs = \"d\"\n";
        let properties = parse(Path::new("x.toml"), text, &["relay"]).unwrap();
        assert_eq!(properties.len(), 1);
        assert!(parse(Path::new("x.toml"), text, &[]).is_err());
    }
}
