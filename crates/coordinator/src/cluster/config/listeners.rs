//! `listeners` and `advertised.listeners`: NAME://host:port, and what may stand there.

use super::broker_config::ConfigError;
use super::definition::split_list;
use std::collections::BTreeMap;
use std::fmt;

/// One place where clients are listened for, or one that they are told of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// In upper case, as Kafka compares them.
    pub name: String,
    /// Empty: every interface, or when advertised, this machine's name.
    pub host: String,
    /// 0: any free port, or when advertised, the one that was bound.
    pub port: u16,
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Listener { name, host, port } = self;
        match host.contains(':') {
            true => write!(f, "{name}://[{host}]:{port}"),
            false => write!(f, "{name}://{host}:{port}"),
        }
    }
}

/// The listeners of a broker, and what to say about those that were left out.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    pub listeners: Vec<Listener>,
    pub advertised: Vec<Listener>,
    pub warnings: Vec<String>,
    pub errors: Vec<ConfigError>,
}

/// The texts of the four keys that have a say.
pub(super) struct Given<'a> {
    pub listeners: &'a str,
    pub advertised: Option<&'a str>,
    pub protocol_map: &'a str,
    pub controller_names: &'a str,
}

pub(super) fn read(given: &Given) -> Listeners {
    let mut out = Listeners::default();
    let controllers: Vec<String> = split_list(given.controller_names)
        .iter()
        .map(|name| name.to_uppercase())
        .collect();
    let protocols = protocols(given.protocol_map, &mut out.errors);
    let all = parse("listeners", given.listeners, &mut out.errors);
    for listener in all {
        if controllers.contains(&listener.name) {
            out.warnings.push(format!(
                "listener {listener} is for a controller quorum, which this node does without; \
                 it is not opened"
            ));
            continue;
        }
        match protocols.get(&listener.name).map(String::as_str) {
            Some("PLAINTEXT") => out.listeners.push(listener),
            Some(protocol) => out.errors.push(ConfigError::new(
                "listeners",
                format!(
                    "{listener} would speak {protocol}; TLS and SASL are not implemented yet, \
                     only PLAINTEXT is"
                ),
            )),
            None => out.errors.push(ConfigError::new(
                "listeners",
                format!(
                    "no protocol is known for {listener}; add {}:PLAINTEXT to \
                     listener.security.protocol.map",
                    listener.name
                ),
            )),
        }
    }
    if out.listeners.is_empty() && out.errors.is_empty() {
        let message = "there is none for clients";
        out.errors
            .push(ConfigError::new("listeners", message.to_owned()));
    }
    distinct(&mut out);
    advertise(given, &controllers, &mut out);
    out
}

fn advertise(given: &Given, controllers: &[String], out: &mut Listeners) {
    let Some(text) = given.advertised.filter(|text| !text.trim().is_empty()) else {
        out.advertised = out.listeners.clone();
        for listener in &mut out.advertised {
            if is_wildcard(&listener.host) {
                listener.host.clear();
            }
        }
        return;
    };
    let mut parsed = parse("advertised.listeners", text, &mut out.errors);
    parsed.retain(|listener| !controllers.contains(&listener.name));
    for (at, listener) in parsed.iter().enumerate() {
        let problem = if is_wildcard(&listener.host) {
            "no client can connect to that address; name a host that they reach".to_owned()
        } else if !out
            .listeners
            .iter()
            .any(|known| known.name == listener.name)
        {
            format!("listeners has no {}", listener.name)
        } else if parsed[..at].iter().any(|other| other.name == listener.name) {
            "the name occurs twice".to_owned()
        } else {
            continue;
        };
        let message = format!("{listener}: {problem}");
        out.errors
            .push(ConfigError::new("advertised.listeners", message));
    }
    // A listener that is not advertised stays reachable, and tells clients its own address.
    out.advertised = out.listeners.clone();
    for listener in &mut out.advertised {
        match parsed.iter().find(|other| other.name == listener.name) {
            Some(given) => *listener = given.clone(),
            None if is_wildcard(&listener.host) => listener.host.clear(),
            None => {}
        }
    }
}

fn distinct(out: &mut Listeners) {
    for (at, listener) in out.listeners.iter().enumerate() {
        for other in &out.listeners[..at] {
            let same_place = other.port == listener.port
                && listener.port != 0
                && (other.host == listener.host
                    || other.host.is_empty()
                    || listener.host.is_empty());
            if other.name == listener.name || same_place {
                let message = format!("{other} and {listener} are in each other's way");
                out.errors.push(ConfigError::new("listeners", message));
            }
        }
    }
}

fn is_wildcard(host: &str) -> bool {
    host == "0.0.0.0" || host == "::"
}

fn protocols(text: &str, errors: &mut Vec<ConfigError>) -> BTreeMap<String, String> {
    let mut protocols = BTreeMap::new();
    for pair in split_list(text) {
        match pair.split_once(':') {
            Some((name, protocol)) => {
                let protocol = protocol.trim().to_uppercase();
                protocols.insert(name.trim().to_uppercase(), protocol);
            }
            None => errors.push(ConfigError::new(
                "listener.security.protocol.map",
                format!("{pair:?} is not of the form NAME:PROTOCOL"),
            )),
        }
    }
    protocols
}

fn parse(key: &'static str, text: &str, errors: &mut Vec<ConfigError>) -> Vec<Listener> {
    let mut listeners = Vec::new();
    for entry in split_list(text) {
        match parse_one(&entry) {
            Some(listener) => listeners.push(listener),
            None => errors.push(ConfigError::new(
                key,
                format!("{entry:?} is not of the form NAME://host:port"),
            )),
        }
    }
    listeners
}

pub(super) fn parse_one(entry: &str) -> Option<Listener> {
    let (name, place) = entry.split_once("://")?;
    let (host, port) = place.rsplit_once(':')?;
    let host = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']')?,
        None => host,
    };
    let letter = |c: char| c.is_ascii_alphanumeric() || "-%._:".contains(c);
    let sound =
        !name.is_empty() && host.chars().all(letter) && port.bytes().all(|b| b.is_ascii_digit());
    sound.then_some(())?;
    Some(Listener {
        name: name.to_uppercase(),
        host: host.to_owned(),
        port: port.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAP: &str = "PLAINTEXT:PLAINTEXT,SSL:SSL,INSIDE:PLAINTEXT,CONTROLLER:PLAINTEXT";

    fn check(listeners: &str, advertised: Option<&str>) -> Listeners {
        read(&Given {
            listeners,
            advertised,
            protocol_map: MAP,
            controller_names: "CONTROLLER",
        })
    }

    fn texts(listeners: &[Listener]) -> Vec<String> {
        listeners.iter().map(Listener::to_string).collect()
    }

    #[test]
    fn the_usual_ones() {
        let out = check("PLAINTEXT://:9092,CONTROLLER://:9093", None);
        assert!(out.errors.is_empty(), "{:?}", out.errors);
        assert_eq!(texts(&out.listeners), ["PLAINTEXT://:9092"]);
        assert_eq!(texts(&out.advertised), ["PLAINTEXT://:9092"]);
        assert_eq!(out.warnings.len(), 1);

        let out = check(
            "PLAINTEXT://0.0.0.0:9092, inside://[::1]:19092",
            Some("PLAINTEXT://localhost:9092,CONTROLLER://localhost:9093"),
        );
        assert!(out.errors.is_empty(), "{:?}", out.errors);
        assert_eq!(
            texts(&out.listeners),
            ["PLAINTEXT://0.0.0.0:9092", "INSIDE://[::1]:19092"]
        );
        assert_eq!(
            texts(&out.advertised),
            ["PLAINTEXT://localhost:9092", "INSIDE://[::1]:19092"]
        );

        let out = check("PLAINTEXT://0.0.0.0:9092", None);
        assert_eq!(out.advertised[0].host, "", "nobody can connect to 0.0.0.0");
    }

    #[test]
    fn refusals() {
        for (listeners, advertised, expected) in [
            ("", None, "none for clients"),
            ("CONTROLLER://:9093", None, "none for clients"),
            ("SSL://:9092", None, "would speak SSL"),
            ("OTHER://:9092", None, "add OTHER:PLAINTEXT"),
            ("localhost:9092", None, "NAME://host:port"),
            ("PLAINTEXT://:99999", None, "NAME://host:port"),
            ("PLAINTEXT://a b:1", None, "NAME://host:port"),
            (
                "PLAINTEXT://:9092,PLAINTEXT://:9094",
                None,
                "in each other's way",
            ),
            (
                "PLAINTEXT://:9092,INSIDE://h:9092",
                None,
                "in each other's way",
            ),
            (
                "PLAINTEXT://:9092",
                Some("PLAINTEXT://0.0.0.0:9092"),
                "no client can connect",
            ),
            (
                "PLAINTEXT://:9092",
                Some("INSIDE://h:9092"),
                "listeners has no INSIDE",
            ),
            (
                "PLAINTEXT://:9092",
                Some("PLAINTEXT://h:1,PLAINTEXT://h:2"),
                "occurs twice",
            ),
        ] {
            let out = check(listeners, advertised);
            let all: Vec<String> = out.errors.iter().map(|e| e.to_string()).collect();
            assert!(
                all.iter().any(|e| e.contains(expected)),
                "{listeners}: {all:?}"
            );
        }
    }
}
