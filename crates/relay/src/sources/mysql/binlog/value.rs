//! From a value of the binlog to that of a row: the text that a SELECT would have given, in UTC.

use std::net::{Ipv4Addr, Ipv6Addr};

use mysql::Value as Plain;
use mysql::binlog::value::BinlogValue;

use super::columns::Kind;
use crate::row::Value;

/// `decimals` is the number of digits of a second's fraction. Errors: what is wrong with the value.
pub(super) fn convert(kind: &Kind, value: BinlogValue<'_>, decimals: u8) -> Result<Value, String> {
    let plain = match value {
        BinlogValue::Value(plain) => plain,
        BinlogValue::Jsonb(json) => {
            let json = serde_json::Value::try_from(json).map_err(|error| error.to_string())?;
            return Ok(Value::Text(json.to_string()));
        }
        BinlogValue::JsonDiff(_) => return Err("is only a part of a JSON document".to_owned()),
    };
    Ok(match (kind, plain) {
        (_, Plain::NULL) => Value::Null,
        (Kind::Enum(members), Plain::Int(index)) => Value::Text(member(members, index)?),
        (Kind::Set(members), Plain::Bytes(bits)) => Value::Text(chosen(members, &bits)),
        (Kind::Timestamp, Plain::Int(seconds)) => Value::Text(timestamp(seconds, 0, decimals)),
        (Kind::Timestamp, Plain::Bytes(text)) => epoch(&text, decimals)?,
        (Kind::Year, Plain::Bytes(text)) => year(&text)?,
        (Kind::FixedBytes(length), Plain::Bytes(bytes)) => Value::Bytes(padded(bytes, *length)),
        (Kind::Uuid { old }, Plain::Bytes(bytes)) => Value::Text(uuid(&sized(bytes)?, *old)),
        (Kind::Inet4, Plain::Bytes(bytes)) => {
            Value::Text(Ipv4Addr::from(sized::<4>(bytes)?).to_string())
        }
        (Kind::Inet6, Plain::Bytes(bytes)) => {
            Value::Text(Ipv6Addr::from(sized::<16>(bytes)?).to_string())
        }
        (Kind::Bytes, Plain::Bytes(bytes)) => Value::Bytes(bytes),
        (_, Plain::Bytes(bytes)) => text(bytes),
        (_, Plain::Int(number)) => Value::Int(number),
        (_, Plain::UInt(number)) => match i64::try_from(number) {
            Ok(number) => Value::Int(number),
            Err(_) => Value::Text(number.to_string()),
        },
        (_, Plain::Float(number)) => Value::Float(shortest(number)),
        (_, Plain::Double(number)) => Value::Float(number),
        (Kind::Date, Plain::Date(year, month, day, ..)) => {
            Value::Text(format!("{year:04}-{month:02}-{day:02}"))
        }
        (_, Plain::Date(year, month, day, hour, minute, second, micros)) => {
            let fraction = fraction(micros, decimals);
            let time = format_args!("{hour:02}:{minute:02}:{second:02}{fraction}");
            Value::Text(format!("{year:04}-{month:02}-{day:02} {time}"))
        }
        (_, Plain::Time(negative, days, hours, minutes, seconds, micros)) => {
            let sign = if negative { "-" } else { "" };
            let hours = u64::from(days) * 24 + u64::from(hours);
            let fraction = fraction(micros, decimals);
            Value::Text(format!(
                "{sign}{hours:02}:{minutes:02}:{seconds:02}{fraction}"
            ))
        }
    })
}

/// What is not UTF-8, whatever the server says, is handed out as it is.
fn text(bytes: Vec<u8>) -> Value {
    match String::from_utf8(bytes) {
        Ok(text) => Value::Text(text),
        Err(error) => Value::Bytes(error.into_bytes()),
    }
}

/// The shortest decimal that is this FLOAT, rather than the double that is nearest to it.
fn shortest(number: f32) -> f64 {
    number
        .to_string()
        .parse()
        .unwrap_or_else(|_| f64::from(number))
}

fn member(members: &[String], index: i64) -> Result<String, String> {
    if index == 0 {
        // What MySQL stores for an invalid member.
        return Ok(String::new());
    }
    let place = usize::try_from(index - 1).ok();
    let found = place.and_then(|place| members.get(place)).cloned();
    found.ok_or_else(|| format!("is member {index} of an ENUM with {}", members.len()))
}

fn chosen(members: &[String], bits: &[u8]) -> String {
    let is_set = |i: usize| {
        bits.get(i / 8)
            .is_some_and(|byte| byte & (1 << (i % 8)) != 0)
    };
    let chosen = members.iter().enumerate().filter(|(i, _)| is_set(*i));
    let chosen: Vec<&str> = chosen.map(|(_, member)| member.as_str()).collect();
    chosen.join(",")
}

/// Zeros at the end of a fixed number of bytes are not stored.
fn padded(mut bytes: Vec<u8>, length: usize) -> Vec<u8> {
    if bytes.len() < length {
        bytes.resize(length, 0);
    }
    bytes
}

fn sized<const N: usize>(bytes: Vec<u8>) -> Result<[u8; N], String> {
    let found = bytes.len();
    let bytes = padded(bytes, N);
    bytes
        .try_into()
        .map_err(|_| format!("has {found} bytes, where there are at most {N}"))
}

/// MariaDB stores the parts of versions 1 to 5 in the reverse order, so that those made one after another
/// are near each other. A stored value tells: bit 7 of the variant is where the swap puts it.
fn uuid(stored: &[u8; 16], old: bool) -> String {
    let swapped = old || stored[6] & stored[8].wrapping_neg() & 0x80 != 0;
    let order: [&[u8]; 5] = if swapped {
        [
            &stored[12..16],
            &stored[10..12],
            &stored[8..10],
            &stored[6..8],
            &stored[..6],
        ]
    } else {
        [
            &stored[..4],
            &stored[4..6],
            &stored[6..8],
            &stored[8..10],
            &stored[10..],
        ]
    };
    let hex = |part: &&[u8]| {
        part.iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    let parts: Vec<String> = order.iter().map(hex).collect();
    parts.join("-")
}

/// `seconds[.micros]` since 1970. The library has the seconds with a sign, which the server does not.
fn epoch(text: &[u8], decimals: u8) -> Result<Value, String> {
    let wrong = || format!("is no time: {:?}", String::from_utf8_lossy(text));
    let text = std::str::from_utf8(text).map_err(|_| wrong())?;
    let (seconds, micros) = text.split_once('.').unwrap_or((text, "0"));
    let seconds: i64 = seconds.parse().map_err(|_| wrong())?;
    let micros: u32 = micros.parse().map_err(|_| wrong())?;
    let seconds = if seconds < 0 {
        seconds + (1 << 32)
    } else {
        seconds
    };
    Ok(Value::Text(timestamp(seconds, micros, decimals)))
}

fn timestamp(seconds: i64, micros: u32, decimals: u8) -> String {
    let fraction = fraction(micros, decimals);
    if seconds == 0 && micros == 0 {
        // What a TIMESTAMP of nothing is.
        return format!("0000-00-00 00:00:00{fraction}");
    }
    let (year, month, day) = civil(seconds.div_euclid(86_400));
    let second = seconds.rem_euclid(86_400);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}{fraction}")
}

/// Year, month and day of a day since 1970-01-01, in the Gregorian calendar. Counted from 0000-03-01, so
/// that the leap day is a year's last: eras of 400 years are 146,097 days.
fn civil(day: i64) -> (i64, i64, i64) {
    let day = day + 719_468;
    let era = day.div_euclid(146_097);
    let of_era = day.rem_euclid(146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + i64::from(month <= 2), month, day)
}

fn fraction(micros: u32, decimals: u8) -> String {
    let decimals = usize::from(decimals.min(6));
    if decimals == 0 {
        return String::new();
    }
    let digits = format!("{micros:06}");
    format!(".{}", &digits[..decimals])
}

fn year(text: &[u8]) -> Result<Value, String> {
    let text = String::from_utf8_lossy(text);
    let year: i64 = text.parse().map_err(|_| format!("is no year: {text}"))?;
    // 1900 is how the library shows the year that is stored as 0.
    Ok(Value::Int(if year == 1900 { 0 } else { year }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(kind: &Kind, plain: Plain, decimals: u8) -> Value {
        convert(kind, BinlogValue::Value(plain), decimals).unwrap()
    }

    fn bytes(bytes: &[u8]) -> Plain {
        Plain::Bytes(bytes.to_vec())
    }

    fn text(text: &str) -> Value {
        Value::Text(text.to_owned())
    }

    #[test]
    fn times_are_texts_in_utc() {
        let stamp = bytes(b"1700000000.120000");
        assert_eq!(
            check(&Kind::Timestamp, stamp, 3),
            text("2023-11-14 22:13:20.120")
        );
        assert_eq!(
            check(&Kind::Timestamp, bytes(b"0"), 0),
            text("0000-00-00 00:00:00")
        );
        // After 2038, which MariaDB has from 11.5 on.
        assert_eq!(
            check(&Kind::Timestamp, bytes(b"-2147483648"), 0),
            text("2038-01-19 03:14:08")
        );
        assert_eq!(
            check(&Kind::Timestamp, bytes(b"951782400"), 0),
            text("2000-02-29 00:00:00")
        );
        let date = Plain::Date(2024, 2, 29, 1, 2, 3, 45_000);
        assert_eq!(
            check(&Kind::DateTime, date.clone(), 6),
            text("2024-02-29 01:02:03.045000")
        );
        assert_eq!(check(&Kind::Date, date, 0), text("2024-02-29"));
        assert_eq!(
            check(&Kind::Time, Plain::Time(true, 2, 3, 4, 5, 0), 0),
            text("-51:04:05")
        );
        assert_eq!(check(&Kind::Year, bytes(b"1900"), 0), Value::Int(0));
    }

    #[test]
    fn bytes_that_are_something_else() {
        assert_eq!(check(&Kind::Text, bytes(b"a"), 0), text("a"));
        assert_eq!(
            check(&Kind::Text, bytes(&[0xff]), 0),
            Value::Bytes(vec![0xff])
        );
        assert_eq!(
            check(&Kind::FixedBytes(3), bytes(&[1]), 0),
            Value::Bytes(vec![1, 0, 0])
        );
        assert_eq!(check(&Kind::Inet4, bytes(&[10, 0, 0]), 0), text("10.0.0.0"));
        assert!(convert(&Kind::Inet4, BinlogValue::Value(bytes(&[1; 5])), 0).is_err());
        let stored = [
            0xa, 0xb, 0xc, 0xd, 0xe, 0xf, 0x88, 9, 0x46, 7, 4, 5, 0, 1, 2, 3,
        ];
        let swapped = "00010203-0405-4607-8809-0a0b0c0d0e0f";
        assert_eq!(
            check(&Kind::Uuid { old: false }, bytes(&stored), 0),
            text(swapped)
        );
        let plain = [
            0, 1, 2, 3, 4, 5, 0x76, 7, 0x88, 9, 0xa, 0xb, 0xc, 0xd, 0xe, 0xf,
        ];
        let seven = "00010203-0405-7607-8809-0a0b0c0d0e0f";
        assert_eq!(
            check(&Kind::Uuid { old: false }, bytes(&plain), 0),
            text(seven)
        );
    }

    #[test]
    fn members_and_numbers() {
        let members = ["a", "b", "c"].map(str::to_owned).to_vec();
        assert_eq!(
            check(&Kind::Enum(members.clone()), Plain::Int(2), 0),
            text("b")
        );
        let beyond = BinlogValue::Value(Plain::Int(4));
        assert!(convert(&Kind::Enum(members.clone()), beyond, 0).is_err());
        assert_eq!(check(&Kind::Set(members), bytes(&[0b101]), 0), text("a,c"));
        let unsigned = Kind::Integer { unsigned: true };
        assert_eq!(check(&unsigned, Plain::UInt(7), 0), Value::Int(7));
        assert_eq!(
            check(&unsigned, Plain::UInt(u64::MAX), 0),
            text("18446744073709551615")
        );
        assert_eq!(check(&Kind::Float, Plain::Float(0.1), 0), Value::Float(0.1));
    }
}
