//! What people write: TOML, Kafka's `server.properties`, `KAFKA_*` variables, and topic configs.
//!
//! Asserted: nothing panics; a mistake in a file names its line, which the file has, and a value
//! that is no good names its key and where it stood; a properties file says what it says whatever
//! stands at the ends of its lines; the variable of a key leads back to it; what is accepted once is
//! accepted again, and means the same.

use crate::server_config::environment::{self, variable_of};
use crate::server_config::{ConfigProblem, Layers, Place, Property, file};
use std::path::Path;

/// The first byte says what the rest is.
#[derive(Clone, Copy)]
#[repr(u8)]
enum Kind {
    Toml,
    Properties,
    /// A file whose name says nothing.
    Either,
    /// Lines of `NAME=value`.
    Environment,
    /// A properties file, and the environment (after a NUL) over it.
    Layers,
}

const PATHS: [&str; 3] = ["oncelog.toml", "server.properties", "config"];

pub fn run(input: &[u8]) {
    let Some((kind, rest)) = input.split_first() else {
        return;
    };
    let Ok(text) = std::str::from_utf8(rest) else {
        return;
    };
    match kind % 5 {
        kind @ 0..=2 => drop(parsed(Path::new(PATHS[usize::from(kind)]), text)),
        3 => resolve(&variables(text)),
        _ => {
            let (file, over) = text.split_once('\0').unwrap_or((text, ""));
            let mut all = parsed(Path::new("server.properties"), file).unwrap_or_default();
            all.extend(variables(over));
            resolve(&all);
        }
    }
}

fn parsed(path: &Path, text: &str) -> Option<Vec<Property>> {
    let lines = text.split('\n').count();
    let parsed = file::parse(path, text, &[]);
    match &parsed {
        Ok(properties) => {
            for property in properties {
                let Place::File { line, .. } = &property.place else {
                    panic!("not of a file: {property:?}");
                };
                assert!((1..=lines).contains(line), "{property:?} of {lines} lines");
            }
            resolve(properties);
        }
        Err(ConfigProblem::Syntax { line, message, .. }) => {
            assert!((1..=lines).contains(line), "line {line} of {lines}");
            assert!(!message.is_empty());
        }
        Err(other) => panic!("nothing was read, and no value was looked at: {other}"),
    }
    if path.ends_with("server.properties") && !text.contains('\r') {
        let dos = file::parse(path, &text.replace('\n', "\r\n"), &[]);
        match (&parsed, &dos) {
            (Ok(unix), Ok(dos)) => assert_eq!(unix, dos, "the ends of lines matter"),
            (Err(_), Err(_)) => {}
            _ => panic!("the ends of lines matter: {parsed:?} {dos:?}"),
        }
    }
    parsed.ok()
}

fn variables(text: &str) -> Vec<Property> {
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    let variables = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let properties = environment::read(variables);
    for Property { key, value, .. } in &properties {
        let again = environment::read([(variable_of(key), value.clone())]);
        // Not of every key: some names mean something else, and letters have two cases.
        if let [again] = &again[..]
            && key.bytes().all(|c| c.is_ascii_lowercase() || c == b'.')
            && !key.contains("..")
        {
            assert_eq!((&again.key, &again.value), (key, value));
        }
    }
    properties
}

fn resolve(properties: &[Property]) {
    let mut layers = Layers::default();
    layers.add(properties.iter().cloned());
    match layers.resolve() {
        Ok(config) => {
            let again = layers.resolve().expect("accepted before");
            assert_eq!(format!("{again:?}"), format!("{config:?}"));
            for property in properties {
                assert!(layers.place_of(&property.key).is_some());
            }
        }
        Err(ConfigProblem::Invalid(lines)) => {
            assert!(!lines.is_empty());
            for line in &lines {
                let about = properties
                    .iter()
                    .filter(|p| line.starts_with(&format!("{}: ", p.key)));
                let places: Vec<_> = about.filter_map(|p| layers.place_of(&p.key)).collect();
                let named = places
                    .iter()
                    .any(|place| line.ends_with(&format!("({place})")));
                // Or it is about a key that was not given.
                assert!(named || places.is_empty(), "{line:?} does not say where");
            }
        }
        Err(other) => panic!("no file is read here: {other}"),
    }
}

pub fn seeds() -> Vec<Vec<u8>> {
    let toml = "num.partitions = 3\n\"log.dirs\" = \"data\"\n[log.retention]\nms = -1\n\
                listeners = [\"PLAINTEXT://:9092\", 'X://[::1]:0']\nf = { g = 0x10, h = 1_0.5 }\n";
    let properties = "# comment\nnum.partitions=3\nlisteners=PLAINTEXT://:9092,\\\n  \
                      CONTROLLER://:9093\nlog.dirs=c:\\\\temp\nu=\\u00e9\\ud83d\\ude00\nnode.id : x\n";
    let environment = "KAFKA_NUM_PARTITIONS=3\nKAFKA_LOG_RETENTION_MS=-1\nKAFKA_A_B__C___D=x\n";
    let layers = format!("{properties}\0{environment}");
    let seed = |kind: Kind, text: &str| [&[kind as u8], text.as_bytes()].concat();
    vec![
        seed(Kind::Toml, toml),
        seed(Kind::Properties, properties),
        seed(Kind::Either, toml),
        seed(Kind::Either, properties),
        seed(Kind::Environment, environment),
        seed(Kind::Layers, &layers),
    ]
}
