//! From PostgreSQL's text for a value to ours, the same whether the log or a query gave it.

use crate::row::Value;

use super::pgoutput::Oid;

/// The settings that the text of values depends on. `TimeZone` among them, so that a timestamp looks
/// the same to everybody.
pub const SETTINGS: &[(&str, &str)] = &[
    ("bytea_output", "hex"),
    ("datestyle", "ISO"),
    ("intervalstyle", "postgres"),
    ("timezone", "UTC"),
    ("extra_float_digits", "1"),
];

const BOOL: Oid = 16;
const BYTEA: Oid = 17;
const INT8: Oid = 20;
const INT2: Oid = 21;
const INT4: Oid = 23;
const OID: Oid = 26;
const FLOAT4: Oid = 700;
const FLOAT8: Oid = 701;

/// What is not as its type says it has to be stays text.
pub fn value(type_oid: Oid, bytes: &[u8]) -> Value {
    // A database whose encoding is SQL_ASCII holds anything.
    let Ok(text) = std::str::from_utf8(bytes) else {
        return Value::Bytes(bytes.to_vec());
    };
    let typed = match type_oid {
        BOOL => match text {
            "t" | "true" => Some(Value::Bool(true)),
            "f" | "false" => Some(Value::Bool(false)),
            _ => None,
        },
        INT2 | INT4 | INT8 | OID => text.parse().ok().map(Value::Int),
        FLOAT4 | FLOAT8 => text.parse().ok().map(Value::Float),
        BYTEA => text.strip_prefix("\\x").and_then(unhex).map(Value::Bytes),
        _ => None,
    };
    typed.unwrap_or_else(|| Value::Text(text.to_owned()))
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| {
        char::from(byte)
            .to_digit(16)
            .and_then(|digit| u8::try_from(digit).ok())
    };
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let bytes = pairs
        .iter()
        .map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?));
    bytes
        .collect::<Option<Vec<u8>>>()
        .filter(|_| rest.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_their_types() {
        assert_eq!(value(BOOL, b"t"), Value::Bool(true));
        assert_eq!(value(BOOL, b"false"), Value::Bool(false));
        assert_eq!(value(INT8, b"-9223372036854775808"), Value::Int(i64::MIN));
        assert_eq!(value(FLOAT8, b"-Infinity"), Value::Float(f64::NEG_INFINITY));
        assert_eq!(value(BYTEA, b"\\x00fF"), Value::Bytes(vec![0, 255]));
        let uuid = "0b0e3f6e-9f54-4a4c-8a53-0f5d2a3d7f10";
        assert_eq!(value(2950, uuid.as_bytes()), Value::Text(uuid.to_owned()));
    }

    #[test]
    fn what_does_not_fit_its_type_stays_as_it_is() {
        assert_eq!(value(INT4, b"x"), Value::Text("x".to_owned()));
        assert_eq!(value(BYTEA, b"\\x0"), Value::Text("\\x0".to_owned()));
        assert_eq!(value(25, b"\xFF"), Value::Bytes(vec![255]));
    }
}
