//! Configuration from the environment, named as the `apache/kafka` container image names it:
//! `KAFKA_` and the key in capitals, with `.` as `_`, `_` as `__` and `-` as `___`.

use super::{Place, Property};

const PREFIX: &str = "KAFKA_";

/// Names that the image and Kafka's own scripts use for other things than keys of the server.
const NOT_KEYS: &[&str] = &[
    "KAFKA_CLASSPATH",
    "KAFKA_CLUSTER_ID",
    "KAFKA_DEBUG",
    "KAFKA_GC_LOG_OPTS",
    "KAFKA_HEAP_OPTS",
    "KAFKA_HOME",
    "KAFKA_JMX_HOSTNAME",
    "KAFKA_JMX_OPTS",
    "KAFKA_JMX_PORT",
    "KAFKA_JVM_PERFORMANCE_OPTS",
    "KAFKA_LOG4J_LOGGERS",
    "KAFKA_LOG4J_OPTS",
    "KAFKA_LOG4J_ROOT_LOGLEVEL",
    "KAFKA_MODE",
    "KAFKA_OPTS",
    "KAFKA_TOOLS_LOG4J_LOGLEVEL",
    "KAFKA_VERSION",
];

/// What Kubernetes sets in every pod when there is a service named `kafka`.
const OF_SERVICES: &[&str] = &["KAFKA_SERVICE_", "KAFKA_PORT"];

/// Properties from variables; those that are not UTF-8 are not ours.
pub fn read(variables: impl IntoIterator<Item = (String, String)>) -> Vec<Property> {
    let mut properties = Vec::new();
    for (name, value) in variables {
        let Some(rest) = name.strip_prefix(PREFIX) else {
            continue;
        };
        let other = NOT_KEYS.contains(&&name[..])
            || OF_SERVICES.iter().any(|prefix| name.starts_with(prefix));
        if rest.is_empty() || other {
            continue;
        }
        properties.push(Property {
            key: key_of(rest),
            value,
            place: Place::Environment(name),
        });
    }
    properties.sort_by(|a, b| a.key.cmp(&b.key));
    properties
}

/// The image replaces every `_` by `.`, then three dots by `-`, then two by `_`.
fn key_of(name: &str) -> String {
    name.to_lowercase()
        .replace('_', ".")
        .replace("...", "-")
        .replace("..", "_")
}

/// The variable that sets a key.
pub fn variable_of(key: &str) -> String {
    let mut name = PREFIX.to_owned();
    for c in key.to_uppercase().chars() {
        match c {
            '.' => name.push('_'),
            '_' => name.push_str("__"),
            '-' => name.push_str("___"),
            other => name.push(other),
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, expected: Option<&str>) {
        let properties = read([(name.to_owned(), "v".to_owned())]);
        assert_eq!(properties.first().map(|p| &p.key[..]), expected, "{name}");
    }

    #[test]
    fn names() {
        check("KAFKA_NUM_PARTITIONS", Some("num.partitions"));
        check("KAFKA_LISTENERS", Some("listeners"));
        check("KAFKA_A_B__C___D", Some("a.b_c-d"));
        check("KAFKA_HEAP_OPTS", None);
        check("KAFKA_SERVICE_PORT_KAFKA", None);
        check("KAFKA_PORT_9092_TCP_ADDR", None);
        check("KAFKA_PORT", None);
        check("KAFKA_", None);
        check("CLUSTER_ID", None);
        check("MY_KAFKA_LISTENERS", None);
    }

    #[test]
    fn the_name_of_a_key_leads_back_to_it() {
        for key in ["advertised.listeners", "a-b.c", "a_b.c", "log.retention.ms"] {
            check(&variable_of(key), Some(key));
        }
    }
}
