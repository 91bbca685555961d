//! Which value counts: a topic's own, the dynamic ones, the broker's file, the default.
//!
//! Differs from Kafka in one point: where `retention.ms` comes from `log.retention.hours` in the
//! broker's file, that is what is shown as its source. Kafka shows a default without synonyms,
//! because it searches for the first synonym's name alone.

use super::broker_keys::{SAME_THING, broker_key};
use super::definition::{ConfigDef, Value};
use super::topic_keys::TopicKey;
use std::collections::BTreeMap;

/// Where a value comes from, with DescribeConfigs' numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigSource {
    TopicConfig,
    DynamicBrokerConfig,
    DynamicDefaultBrokerConfig,
    StaticBrokerConfig,
    DefaultConfig,
}

impl ConfigSource {
    pub fn code(self) -> i8 {
        match self {
            ConfigSource::TopicConfig => 1,
            ConfigSource::DynamicBrokerConfig => 2,
            ConfigSource::DynamicDefaultBrokerConfig => 3,
            ConfigSource::StaticBrokerConfig => 4,
            ConfigSource::DefaultConfig => 5,
        }
    }
}

/// The values that were set, the layer that wins first.
#[derive(Clone, Copy, Debug, Default)]
pub struct Layers<'a> {
    pub topic: Option<&'a BTreeMap<String, String>>,
    pub broker: Option<&'a BTreeMap<String, String>>,
    pub default_broker: Option<&'a BTreeMap<String, String>>,
    pub file: Option<&'a BTreeMap<String, String>>,
}

impl<'a> Layers<'a> {
    /// Only what the broker was started with.
    pub fn of_broker(file: &'a BTreeMap<String, String>) -> Layers<'a> {
        Layers {
            file: Some(file),
            ..Layers::default()
        }
    }

    fn broker_layers(&self) -> [(Option<&'a BTreeMap<String, String>>, ConfigSource); 3] {
        [
            (self.broker, ConfigSource::DynamicBrokerConfig),
            (
                self.default_broker,
                ConfigSource::DynamicDefaultBrokerConfig,
            ),
            (self.file, ConfigSource::StaticBrokerConfig),
        ]
    }
}

/// A value that would count if those before it were not there.
#[derive(Clone, Debug, PartialEq)]
pub struct ConfigSynonym {
    pub name: &'static str,
    /// In the synonym's own unit.
    pub text: String,
    pub source: ConfigSource,
}

/// The value that counts, and everything that it was chosen from.
#[derive(Clone, Debug, PartialEq)]
pub struct Effective<V> {
    pub value: V,
    pub source: ConfigSource,
    pub synonyms: Vec<ConfigSynonym>,
}

pub(crate) fn effective_topic(key: &TopicKey, layers: &Layers) -> Effective<Value> {
    let mut found: Vec<(Value, ConfigSynonym)> = Vec::new();
    if let Some(text) = layers.topic.and_then(|values| values.get(key.def.name))
        && let Ok(value) = key.def.parse(text)
    {
        let text = value.to_text();
        let (name, source) = (key.def.name, ConfigSource::TopicConfig);
        found.push((value, ConfigSynonym { name, text, source }));
    }
    for (values, source) in layers.broker_layers() {
        for synonym in key.synonyms {
            let def = broker_key(synonym.key).expect("a test holds the tables together");
            let text = values.and_then(|values| values.get(def.name));
            let Some(Ok(value)) = text.map(|text| def.parse(text)) else {
                continue;
            };
            let text = value.to_text();
            let name = def.name;
            let value = scaled(value, synonym.factor);
            found.push((value, ConfigSynonym { name, text, source }));
        }
    }
    for synonym in key.synonyms {
        let def = broker_key(synonym.key).expect("a test holds the tables together");
        if let Some(value) = def.default_value() {
            let (name, text) = (def.name, value.to_text());
            let source = ConfigSource::DefaultConfig;
            let value = scaled(value, synonym.factor);
            found.push((value, ConfigSynonym { name, text, source }));
        }
    }
    let first = found
        .first()
        .map(|(value, synonym)| (value.clone(), synonym.source));
    let (value, source) = first.unwrap_or_else(|| {
        let value = key
            .def
            .default_value()
            .expect("every topic key has a default");
        (value, ConfigSource::DefaultConfig)
    });
    let synonyms = found.into_iter().map(|(_, synonym)| synonym).collect();
    Effective {
        value,
        source,
        synonyms,
    }
}

/// Hours and minutes as milliseconds; -1 ("no limit") stays -1, and nothing overflows.
fn scaled(value: Value, factor: i64) -> Value {
    match value {
        Value::Whole(value) if value >= 0 => Value::Whole(value.saturating_mul(factor)),
        other => other,
    }
}

/// A broker key's value; `None` where none is given and there is no default.
pub(crate) fn effective_broker(
    def: &'static ConfigDef,
    layers: &Layers,
) -> Effective<Option<Value>> {
    let group = SAME_THING.iter().find_map(|group| {
        let at = group.iter().position(|name| *name == def.name)?;
        Some(&group[at..])
    });
    let own = [def.name];
    let names: &[&'static str] = group.unwrap_or(&own);
    let mut synonyms = Vec::new();
    let mut chosen = None;
    for (values, source) in layers.broker_layers() {
        for name in names {
            let def_of_name = broker_key(name).expect("a test holds the tables together");
            let text = values.and_then(|values| values.get(*name));
            let Some(Ok(value)) = text.map(|text| def_of_name.parse(text)) else {
                continue;
            };
            let text = value.to_text();
            synonyms.push(ConfigSynonym {
                name: def_of_name.name,
                text,
                source,
            });
            if *name == def.name && chosen.is_none() {
                chosen = Some((value, source));
            }
        }
    }
    for name in names {
        let def_of_name = broker_key(name).expect("a test holds the tables together");
        if let Some(value) = def_of_name.default_value() {
            let (name, text) = (def_of_name.name, value.to_text());
            let source = ConfigSource::DefaultConfig;
            synonyms.push(ConfigSynonym { name, text, source });
        }
    }
    let (value, source) = match chosen {
        Some((value, source)) => (Some(value), source),
        None => (def.default_value(), ConfigSource::DefaultConfig),
    };
    Effective {
        value,
        source,
        synonyms,
    }
}

#[cfg(test)]
mod tests {
    use super::super::topic_keys::topic_key;
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        let pair = |(name, value): &(&str, &str)| (name.to_string(), value.to_string());
        pairs.iter().map(pair).collect()
    }

    fn show<V>(effective: &Effective<V>) -> Vec<String> {
        let line = |s: &ConfigSynonym| format!("{}={} {}", s.name, s.text, s.source.code());
        effective.synonyms.iter().map(line).collect()
    }

    #[test]
    fn every_layer_in_its_order() {
        let topic = map(&[("retention.ms", "1")]);
        let broker = map(&[("log.retention.ms", "2")]);
        let default_broker = map(&[("log.retention.ms", "3")]);
        let file = map(&[("log.retention.hours", "4"), ("log.retention.minutes", "5")]);
        let mut layers = Layers {
            topic: Some(&topic),
            broker: Some(&broker),
            default_broker: Some(&default_broker),
            file: Some(&file),
        };
        let key = topic_key("retention.ms").unwrap();
        let all = effective_topic(key, &layers);
        assert_eq!(
            show(&all),
            [
                "retention.ms=1 1",
                "log.retention.ms=2 2",
                "log.retention.ms=3 3",
                "log.retention.minutes=5 4",
                "log.retention.hours=4 4",
                "log.retention.hours=168 5",
            ]
        );
        for (expected, source) in [(1, 1), (2, 2), (3, 3), (300_000, 4), (604_800_000, 5)] {
            let effective = effective_topic(key, &layers);
            assert_eq!(effective.value, Value::Whole(expected));
            assert_eq!(effective.source.code(), source);
            match source {
                1 => layers.topic = None,
                2 => layers.broker = None,
                3 => layers.default_broker = None,
                _ => layers.file = None,
            }
        }
    }

    #[test]
    fn no_limit_is_not_multiplied() {
        let key = topic_key("retention.ms").unwrap();
        for (hours, expected) in [
            ("-1", -1),
            ("0", 0),
            ("2147483647", 2_147_483_647 * 3_600_000),
        ] {
            let file = map(&[("log.retention.hours", hours)]);
            let effective = effective_topic(key, &Layers::of_broker(&file));
            assert_eq!(effective.value, Value::Whole(expected));
        }
    }

    #[test]
    fn broker_keys_show_what_says_the_same() {
        let file = map(&[("log.retention.hours", "24")]);
        let layers = Layers::of_broker(&file);
        let ms = effective_broker(broker_key("log.retention.ms").unwrap(), &layers);
        assert_eq!(
            (ms.value.clone(), ms.source),
            (None, ConfigSource::DefaultConfig)
        );
        assert_eq!(
            show(&ms),
            ["log.retention.hours=24 4", "log.retention.hours=168 5"]
        );
        let hours = effective_broker(broker_key("log.retention.hours").unwrap(), &layers);
        assert_eq!(hours.value, Some(Value::Whole(24)));
        assert_eq!(hours.source, ConfigSource::StaticBrokerConfig);
    }
}
