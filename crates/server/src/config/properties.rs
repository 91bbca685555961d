//! Java's `.properties` format, so that a Kafka `server.properties` is accepted unchanged.
//!
//! As `java.util.Properties.load` reads it: `#` and `!` begin comments; a key ends at the first
//! unescaped `=`, `:` or white space; a line that ends with an odd number of backslashes goes on
//! in the next one, whose leading white space does not count; `\t \n \r \f \uXXXX` and a backslash
//! before any other character. The last of two equal keys counts.

use super::{ConfigProblem, Place, Property};
use std::path::Path;

pub fn parse(path: &Path, text: &str) -> Result<Vec<Property>, ConfigProblem> {
    let mut properties = Vec::new();
    for (line, logical) in logical_lines(text) {
        let problem = |message: &str| ConfigProblem::Syntax {
            path: path.to_owned(),
            line,
            message: message.to_owned(),
        };
        let (key, value) = split(&logical);
        let key = unescape(key).map_err(problem)?;
        let value = unescape(value).map_err(problem)?;
        properties.push(Property {
            key,
            // Java keeps trailing blanks; no key of Kafka's can mean them.
            value: value.trim_end().to_owned(),
            place: Place::File {
                path: path.to_owned(),
                line,
            },
        });
    }
    Ok(properties)
}

/// Lines without comments and blank ones, continued lines joined; each with its first line's
/// number.
fn logical_lines(text: &str) -> Vec<(usize, String)> {
    let mut lines = Vec::new();
    let mut open: Option<(usize, String)> = None;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for (index, line) in text.split('\n').enumerate() {
        let line = line.strip_suffix('\r').unwrap_or(line);
        let start = line.trim_start_matches([' ', '\t', '\u{c}']);
        if open.is_none() && (start.is_empty() || start.starts_with(['#', '!'])) {
            continue;
        }
        let (part, goes_on) = match backslashes_at_end(start) % 2 {
            1 => (&start[..start.len() - 1], true),
            _ => (start, false),
        };
        let (_, joined) = open.get_or_insert((index + 1, String::new()));
        joined.push_str(part);
        if !goes_on {
            lines.extend(open.take());
        }
    }
    lines.extend(open);
    lines
}

fn backslashes_at_end(line: &str) -> usize {
    line.bytes().rev().take_while(|byte| *byte == b'\\').count()
}

/// Key and value, both still escaped.
fn split(line: &str) -> (&str, &str) {
    let blank = |c: char| matches!(c, ' ' | '\t' | '\u{c}');
    let mut escaped = false;
    let mut end = line.len();
    for (at, c) in line.char_indices() {
        if !escaped && (c == '=' || c == ':' || blank(c)) {
            end = at;
            break;
        }
        escaped = c == '\\' && !escaped;
    }
    let rest = line[end..].trim_start_matches(blank);
    let rest = rest.strip_prefix(['=', ':']).unwrap_or(rest);
    (&line[..end], rest.trim_start_matches(blank))
}

fn unescape(text: &str) -> Result<String, &'static str> {
    const BAD: &str = "\\u is not followed by four hexadecimal digits";
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    // Java's strings are UTF-16: two escapes may make one character.
    let mut high = None;
    while let Some(c) = chars.next() {
        let c = if c == '\\' {
            chars.next().unwrap_or('\\')
        } else {
            out.push(c);
            continue;
        };
        match c {
            't' => out.push('\t'),
            'n' => out.push('\n'),
            'r' => out.push('\r'),
            'f' => out.push('\u{c}'),
            'u' => {
                let digits = chars.as_str().get(..4).ok_or(BAD)?;
                let sound = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
                let unit = sound.then(|| u16::from_str_radix(digits, 16)).ok_or(BAD)?;
                let unit = unit.map_err(|_| BAD)?;
                chars = chars.as_str()[4..].chars();
                let units = [high.take(), Some(unit)];
                match char::decode_utf16(units.into_iter().flatten()).next() {
                    Some(Ok(c)) => out.push(c),
                    _ if (0xd800..0xdc00).contains(&unit) => high = Some(unit),
                    _ => out.push(char::REPLACEMENT_CHARACTER),
                }
            }
            other => out.push(other),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[(&str, &str, usize)]) {
        let properties = parse(Path::new("server.properties"), text).unwrap();
        let line = |p: &Property| match &p.place {
            Place::File { line, .. } => *line,
            other => panic!("{other:?}"),
        };
        let found: Vec<(&str, &str, usize)> = properties
            .iter()
            .map(|p| (&p.key[..], &p.value[..], line(p)))
            .collect();
        assert_eq!(found, expected, "{text:?}");
    }

    #[test]
    fn as_java_reads_it() {
        check("a=b", &[("a", "b", 1)]);
        check(
            "# comment\n! too\n\n  a = b  \r\nc:d\ne f\ng",
            &[("a", "b", 4), ("c", "d", 5), ("e", "f", 6), ("g", "", 7)],
        );
        check(
            "listeners=PLAINTEXT://:9092,\\\n   CONTROLLER://:9093\nx=1",
            &[
                ("listeners", "PLAINTEXT://:9092,CONTROLLER://:9093", 1),
                ("x", "1", 3),
            ],
        );
        check("a\\ b\\=c = d", &[("a b=c", "d", 1)]);
        check("a = = b", &[("a", "= b", 1)]);
        check(
            "path=c:\\\\temp\\\\\nb=2",
            &[("path", "c:\\temp\\", 1), ("b", "2", 2)],
        );
        check("u=\\u00e9\\u20AC\\ud83d\\ude00", &[("u", "é€😀", 1)]);
        check("t=a\\tb\\qc", &[("t", "a\tbqc", 1)]);
        check("a=1\\", &[("a", "1", 1)]);
        check("a=1 # no comment", &[("a", "1 # no comment", 1)]);
        check("a=x\\\n# part of it", &[("a", "x# part of it", 1)]);
        check("\u{feff}a=1", &[("a", "1", 1)]);
        check("", &[]);
    }

    #[test]
    fn a_bad_escape_names_its_line() {
        let error = parse(Path::new("f.properties"), "a=1\nb=\\u12g4").unwrap_err();
        assert!(
            error.to_string().starts_with("f.properties:2: \\u"),
            "{error}"
        );
        assert!(parse(Path::new("f"), "b=\\u00").is_err());
        assert!(parse(Path::new("f"), "b=\\ué000").is_err());
    }
}
