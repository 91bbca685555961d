//! What a configuration key is: its type, default, range, and who may change it when.
//!
//! Values arrive as text (a file, the environment, a request) and are checked as Kafka's
//! `ConfigDef` checks them: surrounding blanks do not count, booleans are `true` and `false` in
//! any case, lists are separated by commas.

/// The types of values, as DescribeConfigs names them (version 3 and later).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigType {
    Boolean,
    String,
    Int,
    Short,
    Long,
    Double,
    List,
}

impl ConfigType {
    /// The number on the wire (KIP-569).
    pub fn code(self) -> i8 {
        match self {
            ConfigType::Boolean => 1,
            ConfigType::String => 2,
            ConfigType::Int => 3,
            ConfigType::Short => 4,
            ConfigType::Long => 5,
            ConfigType::Double => 6,
            ConfigType::List => 7,
        }
    }
}

/// When a broker's value may change (KIP-226).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Update {
    /// Only by a restart with another configuration.
    ReadOnly,
    /// While running, for one broker or for all of them.
    ClusterWide,
}

/// Which values a key takes, beyond what its type says.
#[derive(Clone, Copy, Debug)]
pub enum Valid {
    Any,
    AtLeast(i64),
    Between(i64, i64),
    /// A double from 0 to 1.
    Ratio,
    OneOf(&'static [&'static str]),
    /// Every element of a list is one of these.
    EachOf(&'static [&'static str]),
    /// Kafka knows more values; these are the ones that Oncelog can keep its word on, and why.
    Only(&'static [&'static str], &'static str),
    /// `*`, or `partition:broker` pairs.
    ThrottledReplicas,
}

/// One row of a table of keys. Values are written as they would stand in a file.
#[derive(Clone, Copy, Debug)]
pub struct ConfigDef {
    pub name: &'static str,
    pub kind: ConfigType,
    /// `None`: no value unless one is given (Kafka's null).
    pub default: Option<&'static str>,
    pub valid: Valid,
    pub update: Update,
    /// For people: what the key does, and where it differs from Kafka.
    pub doc: &'static str,
}

/// A value that passed its checks.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Boolean(bool),
    /// Int, short and long, each within its own range.
    Whole(i64),
    Double(f64),
    Text(String),
    List(Vec<String>),
}

impl Value {
    /// The text that DescribeConfigs shows.
    pub fn to_text(&self) -> String {
        match self {
            Value::Boolean(value) => value.to_string(),
            Value::Whole(value) => value.to_string(),
            Value::Double(value) => java_double(*value),
            Value::Text(value) => value.clone(),
            Value::List(values) => values.join(","),
        }
    }
}

/// Java prints a whole double with its `.0`.
fn java_double(value: f64) -> String {
    format!("{value:?}")
}

impl ConfigDef {
    pub const fn new(
        name: &'static str,
        kind: ConfigType,
        default: Option<&'static str>,
        doc: &'static str,
    ) -> ConfigDef {
        ConfigDef {
            name,
            kind,
            default,
            valid: Valid::Any,
            update: Update::ReadOnly,
            doc,
        }
    }

    pub const fn valid(mut self, valid: Valid) -> ConfigDef {
        self.valid = valid;
        self
    }

    pub const fn cluster_wide(mut self) -> ConfigDef {
        self.update = Update::ClusterWide;
        self
    }

    /// Checks a value; the error is a sentence for whoever wrote it.
    pub fn parse(&self, text: &str) -> Result<Value, String> {
        let text = text.trim();
        let value = self.parse_type(text).ok_or_else(|| {
            self.invalid(
                text,
                &format!("it is not a value of type {}", self.type_name()),
            )
        })?;
        match self.refusal(&value, text) {
            None => Ok(value),
            Some(reason) => Err(self.invalid(text, &reason)),
        }
    }

    /// The default's value; `None` where there is no default.
    pub fn default_value(&self) -> Option<Value> {
        let text = self.default?;
        Some(self.parse(text).expect("the tables' defaults are valid"))
    }

    fn parse_type(&self, text: &str) -> Option<Value> {
        let whole = |min: i64, max: i64| {
            let value = text.parse::<i64>().ok()?;
            (min..=max).contains(&value).then_some(Value::Whole(value))
        };
        match self.kind {
            ConfigType::Boolean if text.eq_ignore_ascii_case("true") => Some(Value::Boolean(true)),
            ConfigType::Boolean if text.eq_ignore_ascii_case("false") => {
                Some(Value::Boolean(false))
            }
            ConfigType::Boolean => None,
            ConfigType::Short => whole(i16::MIN.into(), i16::MAX.into()),
            ConfigType::Int => whole(i32::MIN.into(), i32::MAX.into()),
            ConfigType::Long => whole(i64::MIN, i64::MAX),
            ConfigType::Double => {
                let value = text.parse::<f64>().ok()?;
                value.is_finite().then_some(Value::Double(value))
            }
            ConfigType::String => Some(Value::Text(text.to_owned())),
            ConfigType::List => Some(Value::List(split_list(text))),
        }
    }

    fn refusal(&self, value: &Value, text: &str) -> Option<String> {
        match (self.valid, value) {
            (Valid::AtLeast(min), Value::Whole(value)) if *value < min => {
                Some(format!("it must be at least {min}"))
            }
            (Valid::Between(min, max), Value::Whole(value)) if !(min..=max).contains(value) => {
                Some(format!("it must be from {min} to {max}"))
            }
            (Valid::Ratio, Value::Double(value)) if !(0.0..=1.0).contains(value) => {
                Some("it must be from 0 to 1".to_owned())
            }
            (Valid::OneOf(allowed), _) if !allowed.contains(&text) => {
                Some(format!("it must be one of {}", allowed.join(", ")))
            }
            (Valid::EachOf(allowed), Value::List(values)) => {
                let stranger = values.iter().find(|v| !allowed.contains(&v.as_str()))?;
                Some(format!("{stranger:?} is none of {}", allowed.join(", ")))
            }
            (Valid::Only(allowed, why), value) if !allowed.contains(&value.to_text().as_str()) => {
                Some(format!(
                    "only {} is supported here: {why}",
                    allowed.join(", ")
                ))
            }
            (Valid::ThrottledReplicas, Value::List(values)) if !throttled_replicas(values) => {
                Some("it must be '*' or partition:broker,partition:broker,...".to_owned())
            }
            _ => None,
        }
    }

    fn invalid(&self, text: &str, reason: &str) -> String {
        format!(
            "Invalid value {text} for configuration {}: {reason}",
            self.name
        )
    }

    fn type_name(&self) -> &'static str {
        match self.kind {
            ConfigType::Boolean => "BOOLEAN (true or false)",
            ConfigType::String => "STRING",
            ConfigType::Int => "INT",
            ConfigType::Short => "SHORT",
            ConfigType::Long => "LONG",
            ConfigType::Double => "DOUBLE",
            ConfigType::List => "LIST",
        }
    }
}

/// The elements of a comma-separated list, without blanks around them; none if the text is empty.
pub fn split_list(text: &str) -> Vec<String> {
    let parts = text.split(',').map(str::trim);
    parts
        .filter(|part| !part.is_empty())
        .map(str::to_owned)
        .collect()
}

fn throttled_replicas(values: &[String]) -> bool {
    let pair = |value: &String| {
        let number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        value
            .split_once(':')
            .is_some_and(|(partition, broker)| number(partition) && number(broker))
    };
    values == ["*"] || values.iter().all(pair)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(def: ConfigDef, accepted: &[(&str, &str)], refused: &[&str]) {
        for (text, canonical) in accepted {
            let value = def
                .parse(text)
                .unwrap_or_else(|error| panic!("{text:?}: {error}"));
            assert_eq!(value.to_text(), *canonical, "{text:?}");
        }
        for text in refused {
            let error = def.parse(text).expect_err(text);
            assert!(error.contains(def.name), "{error}");
        }
    }

    #[test]
    fn types() {
        let def = |kind| ConfigDef::new("a.key", kind, None, "");
        check(
            def(ConfigType::Boolean),
            &[("true", "true"), (" FALSE ", "false")],
            &["yes", "", "1"],
        );
        check(
            def(ConfigType::Short),
            &[("-1", "-1"), ("32767", "32767")],
            &["32768", "1.0"],
        );
        check(
            def(ConfigType::Int),
            &[(" 5 ", "5"), ("-2147483648", "-2147483648")],
            &["2147483648", "5L", "", "0x10"],
        );
        check(
            def(ConfigType::Long),
            &[("9223372036854775807", "9223372036854775807")],
            &["9223372036854775808", "ten"],
        );
        check(
            def(ConfigType::Double),
            &[("0.5", "0.5"), ("1", "1.0")],
            &["x", "NaN", "inf"],
        );
        check(
            def(ConfigType::List),
            &[(" a , b", "a,b"), ("", ""), ("a,,b", "a,b")],
            &[],
        );
    }

    #[test]
    fn ranges() {
        let int = |valid| ConfigDef::new("a.key", ConfigType::Int, None, "").valid(valid);
        check(int(Valid::AtLeast(1)), &[("1", "1")], &["0", "-1"]);
        check(
            int(Valid::Between(1, 3)),
            &[("1", "1"), ("3", "3")],
            &["0", "4"],
        );
        let double = ConfigDef::new("a.key", ConfigType::Double, None, "").valid(Valid::Ratio);
        check(double, &[("0", "0.0"), ("1", "1.0")], &["1.5", "-0.1"]);
        let text = |valid| ConfigDef::new("a.key", ConfigType::String, None, "").valid(valid);
        check(
            text(Valid::OneOf(&["CreateTime"])),
            &[("CreateTime", "CreateTime")],
            &["createtime"],
        );
        check(
            text(Valid::Only(&["producer"], "why")),
            &[("producer", "producer")],
            &["gzip"],
        );
        let list = |valid| ConfigDef::new("a.key", ConfigType::List, None, "").valid(valid);
        check(
            list(Valid::EachOf(&["compact", "delete"])),
            &[("compact, delete", "compact,delete"), ("", "")],
            &["Compact", "delete,keep"],
        );
        check(
            list(Valid::ThrottledReplicas),
            &[("*", "*"), ("", ""), ("0:1,1:1", "0:1,1:1")],
            &["x", "0", "0:a", "*,0:1"],
        );
    }

    #[test]
    fn a_refusal_says_why() {
        let def = ConfigDef::new("compression.type", ConfigType::String, None, "")
            .valid(Valid::Only(&["producer"], "batches are stored as sent"));
        let error = def.parse("gzip").unwrap_err();
        assert_eq!(
            error,
            "Invalid value gzip for configuration compression.type: only producer is supported \
             here: batches are stored as sent"
        );
    }
}
