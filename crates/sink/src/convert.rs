//! From JSON, or from bytes, to what a column holds. What does not fit is an error that says why: it is
//! never cut, rounded or replaced.
//!
//! Taken beside the obvious: numbers and booleans in text (`"12"`), numbers as text where the column is
//! text, whole numbers written as `1.0` or `1e3`, milliseconds since 1970 where the column is a
//! timestamp. An object or an array in a text column is its JSON.

use std::borrow::Cow;

use serde_json::value::RawValue;

use crate::json;
use crate::table::{Column, Kind, Value};

/// Where a value comes from, as far as that decides how it is read.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    Null,
    Json(&'a RawValue),
    /// The record's key or value as a whole, or a header's.
    Bytes(&'a [u8]),
    Int(i64),
    /// Milliseconds since 1970.
    Time(i64),
}

/// Errors: why the column cannot hold it, to be read after the column's name.
pub fn convert(input: Input<'_>, column: &Column) -> Result<Value, String> {
    match input {
        Input::Null => Ok(Value::Null),
        Input::Json(raw) => of_json(raw.get(), column),
        Input::Bytes(bytes) if column.kind == Kind::Bytes => Ok(Value::Bytes(bytes.to_vec())),
        Input::Bytes(bytes) => {
            let text = std::str::from_utf8(bytes)
                .map_err(|_| "is to hold bytes that are no UTF-8".to_owned())?;
            of_plain(text, column)
        }
        Input::Int(number) => match column.kind {
            Kind::Timestamp { .. } => Ok(Value::Text(timestamp(number))),
            _ => of_number(&number.to_string(), column),
        },
        Input::Time(ms) => match column.kind {
            Kind::Timestamp { .. } => Ok(Value::Text(timestamp(ms))),
            _ => of_number(&ms.to_string(), column),
        },
    }
}

fn of_json(raw: &str, column: &Column) -> Result<Value, String> {
    if column.kind == Kind::Json && raw != "null" {
        return Ok(Value::Text(raw.to_owned()));
    }
    match raw.as_bytes().first() {
        Some(b'n') => Ok(Value::Null),
        Some(b't') => of_bool(true, column),
        Some(b'f') => of_bool(false, column),
        Some(b'"') => {
            let text: Text = serde_json::from_str(raw).map_err(|error| error.to_string())?;
            of_string(&text.0, column)
        }
        Some(b'{' | b'[') => of_composite(raw, column),
        _ => of_number(raw, column),
    }
}

#[derive(serde::Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// Text that is not in JSON's quotes.
fn of_plain(text: &str, column: &Column) -> Result<Value, String> {
    match column.kind {
        Kind::Json if json::is_json(text) => Ok(Value::Text(text.to_owned())),
        Kind::Json => Err(mismatch(text, column)),
        _ => of_string(text, column),
    }
}

fn of_string(text: &str, column: &Column) -> Result<Value, String> {
    match column.kind {
        Kind::Bool => match text {
            "true" | "t" | "1" => Ok(Value::Bool(true)),
            "false" | "f" | "0" => Ok(Value::Bool(false)),
            _ => Err(mismatch(text, column)),
        },
        Kind::Int { bools: true, .. } if matches!(text, "true" | "false") => {
            Ok(Value::Int(i64::from(text == "true")))
        }
        Kind::Int { .. } | Kind::Number => of_number(text, column),
        Kind::Float => {
            let number = text.parse().map_err(|_| mismatch(text, column))?;
            Ok(Value::Float(number))
        }
        Kind::Uuid => uuid(text)
            .map(Value::Text)
            .ok_or_else(|| mismatch(text, column)),
        Kind::Bytes => Ok(Value::Bytes(text.as_bytes().to_vec())),
        Kind::Timestamp { iso: false } => Ok(Value::Text(without_zone(text))),
        Kind::Timestamp { iso: true } | Kind::Text | Kind::Json | Kind::Any | Kind::Other => {
            Ok(Value::Text(text.to_owned()))
        }
    }
}

fn of_bool(value: bool, column: &Column) -> Result<Value, String> {
    match column.kind {
        Kind::Bool => Ok(Value::Bool(value)),
        Kind::Int { bools: true, .. } | Kind::Any => Ok(Value::Int(i64::from(value))),
        Kind::Text | Kind::Other => Ok(Value::Text(value.to_string())),
        _ => Err(mismatch(&value.to_string(), column)),
    }
}

fn of_composite(raw: &str, column: &Column) -> Result<Value, String> {
    match column.kind {
        Kind::Text | Kind::Any | Kind::Other => Ok(Value::Text(raw.to_owned())),
        Kind::Bytes => Ok(Value::Bytes(raw.as_bytes().to_vec())),
        _ => Err(mismatch(raw, column)),
    }
}

fn of_number(text: &str, column: &Column) -> Result<Value, String> {
    match column.kind {
        Kind::Int { min, max, .. } => {
            let number = whole(text).ok_or_else(|| mismatch(text, column))?;
            if number < i128::from(min) || number > i128::from(max) {
                return Err(format!(
                    "is {} and {text} is out of its range",
                    column.type_name
                ));
            }
            Ok(Value::Int(number as i64))
        }
        Kind::Float => {
            let number = text.parse().map_err(|_| mismatch(text, column))?;
            Ok(Value::Float(number))
        }
        Kind::Number if text.parse::<f64>().is_ok() => Ok(Value::Text(text.to_owned())),
        Kind::Bool if text == "1" => Ok(Value::Bool(true)),
        Kind::Bool if text == "0" => Ok(Value::Bool(false)),
        Kind::Text | Kind::Json | Kind::Other => Ok(Value::Text(text.to_owned())),
        Kind::Bytes => Ok(Value::Bytes(text.as_bytes().to_vec())),
        Kind::Timestamp { .. } => {
            let ms = whole(text).and_then(|ms| i64::try_from(ms).ok());
            ms.map(|ms| Value::Text(timestamp(ms)))
                .ok_or_else(|| mismatch(text, column))
        }
        Kind::Any => match (text.parse::<i64>(), text.parse::<f64>()) {
            (Ok(number), _) => Ok(Value::Int(number)),
            (_, Ok(number)) => Ok(Value::Float(number)),
            _ => Ok(Value::Text(text.to_owned())),
        },
        Kind::Bool | Kind::Number | Kind::Uuid => Err(mismatch(text, column)),
    }
}

fn mismatch(found: &str, column: &Column) -> String {
    const SHOWN_MAX: usize = 60;
    let cut = found.char_indices().nth(SHOWN_MAX).map(|(index, _)| index);
    let (shown, dots) = cut.map_or((found, ""), |index| (&found[..index], "…"));
    format!("is {} and cannot hold {shown:?}{dots}", column.type_name)
}

/// A whole number, also as `1.0` and `1e3`. No more digits than a database's integer can have.
fn whole(text: &str) -> Option<i128> {
    if let Ok(number) = text.parse::<i64>() {
        return Some(i128::from(number));
    }
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (integer, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let fraction = fraction.trim_end_matches('0');
    let shift = exponent.checked_sub(i32::try_from(fraction.len()).ok()?)?;
    const DIGITS_MAX: usize = 20;
    if integer.len() + fraction.len() > DIGITS_MAX || !(0..=18).contains(&shift) {
        return None;
    }
    if fraction.contains(['+', '-']) {
        return None;
    }
    let digits: i128 = format!("{integer}{fraction}").parse().ok()?;
    digits.checked_mul(10_i128.pow(shift as u32))
}

/// 8-4-4-4-12 in lower case, so that equal ones are the same text.
fn uuid(text: &str) -> Option<String> {
    let digits: String = text
        .chars()
        .filter(|c| !matches!(c, '-' | '{' | '}'))
        .collect();
    if digits.len() != 32 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let digits = digits.to_ascii_lowercase();
    let part = |from: usize, until: usize| &digits[from..until];
    Some(format!(
        "{}-{}-{}-{}-{}",
        part(0, 8),
        part(8, 12),
        part(12, 16),
        part(16, 20),
        part(20, 32)
    ))
}

/// `2026-01-31 12:00:00.000`, in UTC.
pub fn timestamp(ms: i64) -> String {
    let (days, of_day) = (ms.div_euclid(86_400_000), ms.rem_euclid(86_400_000));
    let (year, month, day) = civil(days);
    let (seconds, ms) = (of_day / 1_000, of_day % 1_000);
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{ms:03}")
}

/// The date so many days after 1970-01-01 (Howard Hinnant's `civil_from_days`).
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year + era * 400 + i64::from(month <= 2), month, day)
}

/// The days from 1970-01-01 to a date (`days_from_civil`).
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let shifted = if month > 2 { month - 3 } else { month + 9 };
    let of_year = (153 * shifted + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// RFC 3339 with a zone, in UTC and without it: MySQL's DATETIME knows no zones. Anything else as it is.
fn without_zone(text: &str) -> String {
    zoned(text).unwrap_or_else(|| text.to_owned())
}

fn zoned(text: &str) -> Option<String> {
    if !text.is_ascii() || text.len() < 20 || !matches!(text.as_bytes()[10], b'T' | b't' | b' ') {
        return None;
    }
    let number = |from: usize, until: usize| text.get(from..until)?.parse::<i64>().ok();
    let (rest, offset) = match text.strip_suffix(['Z', 'z']) {
        Some(rest) => (rest, 0),
        None => {
            let (rest, zone) = text.split_at(text.len().checked_sub(6)?);
            let sign = match zone.as_bytes()[0] {
                b'+' => 1,
                b'-' if rest.len() >= 19 => -1,
                _ => return None,
            };
            let (hours, minutes) = zone[1..].split_once(':')?;
            (
                rest,
                sign * (hours.parse::<i64>().ok()? * 60 + minutes.parse::<i64>().ok()?),
            )
        }
    };
    let fraction = rest.get(19..)?;
    let minutes = number(11, 13)? * 60 + number(14, 16)? - offset;
    let day = days(number(0, 4)?, number(5, 7)?, number(8, 10)?) + minutes.div_euclid(1_440);
    let (year, month, day) = civil(day);
    let (hour, minute) = (minutes.rem_euclid(1_440) / 60, minutes.rem_euclid(60));
    let second = number(17, 19)?;
    Some(format!(
        "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}{fraction}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::int;

    fn check(kind: Kind, json: &str) -> Result<Value, String> {
        let column = Column {
            name: "c".to_owned(),
            kind,
            type_name: "that type".to_owned(),
            nullable: true,
            optional: false,
            exact: true,
        };
        let raw: &RawValue = serde_json::from_str(json).unwrap();
        convert(Input::Json(raw), &column)
    }

    fn text(text: &str) -> Result<Value, String> {
        Ok(Value::Text(text.to_owned()))
    }

    #[test]
    fn numbers_keep_what_they_are() {
        let smallint = int(16, false);
        assert_eq!(check(smallint, "-32768"), Ok(Value::Int(-32_768)));
        assert_eq!(check(smallint, "1e3"), Ok(Value::Int(1_000)));
        assert_eq!(check(smallint, "\"12\""), Ok(Value::Int(12)));
        assert_eq!(check(smallint, "12.50e1"), Ok(Value::Int(125)));
        for wrong in [
            "32768", "1.5", "\"x\"", "\"\"", "true", "{}", "1e99", "\"1.-5\"",
        ] {
            assert!(check(smallint, wrong).is_err(), "{wrong}");
        }
        assert_eq!(
            check(int(64, false), "9223372036854775807"),
            Ok(Value::Int(i64::MAX))
        );
        assert!(check(int(64, false), "9223372036854775808").is_err());
        let long = "12345678901234567890.123456789";
        assert_eq!(check(Kind::Number, long), text(long));
        assert_eq!(check(Kind::Float, "1.5"), Ok(Value::Float(1.5)));
        assert!(check(Kind::Number, "\"1,5\"").is_err());
    }

    #[test]
    fn booleans_are_numbers_only_where_the_database_has_none() {
        assert_eq!(check(Kind::Bool, "true"), Ok(Value::Bool(true)));
        assert_eq!(check(Kind::Bool, "\"f\""), Ok(Value::Bool(false)));
        assert_eq!(check(int(8, true), "true"), Ok(Value::Int(1)));
        assert!(check(int(8, false), "true").is_err());
    }

    #[test]
    fn text_and_json_differ_in_their_quotes() {
        assert_eq!(check(Kind::Text, r#""a\"b""#), text("a\"b"));
        assert_eq!(check(Kind::Json, r#""a\"b""#), text(r#""a\"b""#));
        assert_eq!(check(Kind::Text, r#"{"a":1}"#), text(r#"{"a":1}"#));
        assert_eq!(check(Kind::Text, "1.10"), text("1.10"));
        assert_eq!(check(Kind::Json, "null"), Ok(Value::Null));
        assert_eq!(
            check(Kind::Bytes, "\"ab\""),
            Ok(Value::Bytes(b"ab".to_vec()))
        );
        let uuid = "\"{0A1B2C3D-0000-0000-0000-00000000000F}\"";
        assert_eq!(
            check(Kind::Uuid, uuid),
            text("0a1b2c3d-0000-0000-0000-00000000000f")
        );
        assert!(check(Kind::Uuid, "\"0a1b\"").is_err());
    }

    #[test]
    fn times_are_in_utc() {
        let timestamp = Kind::Timestamp { iso: false };
        assert_eq!(check(timestamp, "0"), text("1970-01-01 00:00:00.000"));
        assert_eq!(
            check(timestamp, "1709208000123"),
            text("2024-02-29 12:00:00.123")
        );
        assert_eq!(check(timestamp, "-1"), text("1969-12-31 23:59:59.999"));
        for (written, utc) in [
            ("2024-02-29T23:30:00.5-01:00", "2024-03-01 00:30:00.5"),
            ("2024-03-01T00:10:59+00:30", "2024-02-29 23:40:59"),
            ("2024-03-01T00:00:00Z", "2024-03-01 00:00:00"),
            ("2024-03-01 00:00:00", "2024-03-01 00:00:00"),
            ("yesterday", "yesterday"),
        ] {
            assert_eq!(
                check(timestamp, &format!("\"{written}\"")),
                text(utc),
                "{written}"
            );
        }
    }

    #[test]
    fn what_does_not_fit_is_shown_in_part() {
        let refused = check(int(32, false), &format!("\"{}\"", "é".repeat(100))).unwrap_err();
        assert!(refused.contains("that type") && refused.contains('…') && refused.len() < 200);
    }
}
