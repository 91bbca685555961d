//! A broker's own configuration: text in, one checked struct out.
//!
//! Every mistake is reported, not only the first. Nothing is looked up on the machine: where the
//! host's name or a bound port is needed, the fields say so and the host fills them in.

use super::broker_keys::{BROKER_KEYS, broker_key};
use super::definition::{Value, split_list};
use super::foreign::{self, ForeignKey, foreign_key};
use super::listeners::{self, Listener};
use super::suggest::did_you_mean;
use super::topic_config::check_broker_topic_defaults;
use crate::cluster::limits::CONFIG_VALUE_BYTES;
use crate::groups::GroupConfig;
use std::collections::BTreeMap;
use std::fmt;

/// What is wrong with one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    pub key: String,
    pub message: String,
}

impl ConfigError {
    pub(super) fn new(key: &str, message: String) -> ConfigError {
        let key = key.to_owned();
        ConfigError { key, message }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.message)
    }
}

impl std::error::Error for ConfigError {}

/// Everything that a broker, its host and its coordinators take from the configuration.
///
/// The fields bear the names of Kafka's keys; each key's meaning is in
/// [`super::broker_keys::BROKER_KEYS`]. What topics inherit is not here: see
/// [`super::TopicConfig`].
#[derive(Clone, Debug, PartialEq)]
pub struct BrokerConfig {
    pub node_id: i32,
    pub rack: Option<String>,
    /// `log.dirs`, or `log.dir`.
    pub log_dir: String,
    /// Where to listen; at least one.
    pub listeners: Vec<Listener>,
    /// What to tell clients, one for each of `listeners`, in the same order. An empty host or a
    /// port 0 is for the host to fill in, see [`BrokerConfig::fill_in_addresses`].
    pub advertised_listeners: Vec<Listener>,
    /// Host and port of `http.listener`; `None` if it is empty.
    pub http_listener: Option<Listener>,

    pub auto_create_topics_enable: bool,
    pub delete_topic_enable: bool,
    pub num_partitions: i32,
    pub default_replication_factor: i16,

    pub connections_max_idle_ms: i64,
    pub fetch_max_bytes: i32,
    /// `max.incremental.fetch.session.cache.slots`
    pub fetch_session_slots: usize,
    pub max_connections: usize,
    pub max_request_partition_size_limit: i32,
    /// `None`: no limit (-1).
    pub queued_max_request_bytes: Option<u64>,
    pub socket_request_max_bytes: i32,

    pub log_cleaner_backoff_ms: i64,
    pub log_cleaner_enable: bool,
    pub log_retention_check_interval_ms: i64,
    pub producer_id_expiration_ms: i64,

    pub group_initial_rebalance_delay_ms: i32,
    pub group_max_session_timeout_ms: i32,
    pub group_max_size: usize,
    pub group_min_session_timeout_ms: i32,
    pub offset_metadata_max_bytes: usize,
    pub offsets_retention_check_interval_ms: i64,
    /// `offsets.retention.minutes`
    pub offsets_retention_ms: i64,
    pub offsets_topic_num_partitions: i32,
    pub offsets_topic_replication_factor: i16,
    pub offsets_topic_segment_bytes: i32,
    pub transactions: TransactionSettings,
    /// Segments of this size, whatever the topics say. Not a property: only a test host sets it,
    /// because `segment.bytes` is 1 MiB at least.
    pub internal_segment_bytes: Option<u64>,

    pub group_consumer_assignors: Vec<String>,
    pub group_consumer_heartbeat_interval_ms: i32,
    pub group_consumer_max_size: usize,
    pub group_consumer_session_timeout_ms: i32,

    /// What was given, checked, as text: what topics inherit and DescribeConfigs shows.
    pub properties: BTreeMap<String, String>,
    /// Keys that were given and mean nothing here, one sentence each.
    pub warnings: Vec<String>,
}

/// The keys that begin with `transaction.`, and `transactional.id.expiration.ms`.
#[derive(Clone, Debug, PartialEq)]
pub struct TransactionSettings {
    pub max_timeout_ms: i32,
    pub state_log_num_partitions: i32,
    pub state_log_replication_factor: i16,
    pub state_log_segment_bytes: i32,
    pub two_phase_commit_enable: bool,
    pub transactional_id_expiration_ms: i64,
}

impl Default for BrokerConfig {
    fn default() -> BrokerConfig {
        BrokerConfig::from_properties(&BTreeMap::new()).expect("the defaults are valid")
    }
}

impl BrokerConfig {
    /// Checks a broker's properties, as they stand in a `server.properties`.
    ///
    /// Errors: all of them, in no particular order; every one names its key.
    pub fn from_properties(
        given: &BTreeMap<String, String>,
    ) -> Result<BrokerConfig, Vec<ConfigError>> {
        let mut reading = Reading {
            given,
            errors: Vec::new(),
            warnings: Vec::new(),
        };
        reading.check_each();
        let listeners = reading.listeners();
        let http_listener = reading.http_listener();
        let log_dir = reading.log_dir();
        let node_id = reading.node_id();
        reading.check_roles();
        reading.check_bounds();
        reading.errors.extend(check_broker_topic_defaults(given));
        if !reading.errors.is_empty() {
            return Err(reading.errors);
        }
        let warnings = std::mem::take(&mut reading.warnings);
        let own = given.iter().filter(|(name, _)| broker_key(name).is_some());
        Ok(BrokerConfig {
            node_id,
            rack: reading.text("broker.rack").filter(|rack| !rack.is_empty()),
            log_dir,
            listeners: listeners.listeners,
            advertised_listeners: listeners.advertised,
            http_listener,
            auto_create_topics_enable: reading.boolean("auto.create.topics.enable"),
            delete_topic_enable: reading.boolean("delete.topic.enable"),
            num_partitions: reading.whole("num.partitions"),
            default_replication_factor: reading.whole("default.replication.factor"),
            connections_max_idle_ms: reading.whole("connections.max.idle.ms"),
            fetch_max_bytes: reading.whole("fetch.max.bytes"),
            fetch_session_slots: reading.whole("max.incremental.fetch.session.cache.slots"),
            max_connections: reading.whole("max.connections"),
            max_request_partition_size_limit: reading.whole("max.request.partition.size.limit"),
            queued_max_request_bytes: reading
                .whole::<i64>("queued.max.request.bytes")
                .try_into()
                .ok(),
            socket_request_max_bytes: reading.whole("socket.request.max.bytes"),
            log_cleaner_backoff_ms: reading.whole("log.cleaner.backoff.ms"),
            log_cleaner_enable: reading.boolean("log.cleaner.enable"),
            log_retention_check_interval_ms: reading.whole("log.retention.check.interval.ms"),
            producer_id_expiration_ms: reading.whole("producer.id.expiration.ms"),
            group_initial_rebalance_delay_ms: reading.whole("group.initial.rebalance.delay.ms"),
            group_max_session_timeout_ms: reading.whole("group.max.session.timeout.ms"),
            group_max_size: reading.whole("group.max.size"),
            group_min_session_timeout_ms: reading.whole("group.min.session.timeout.ms"),
            offset_metadata_max_bytes: reading.whole("offset.metadata.max.bytes"),
            offsets_retention_check_interval_ms: reading
                .whole("offsets.retention.check.interval.ms"),
            offsets_retention_ms: reading.whole::<i64>("offsets.retention.minutes") * 60_000,
            offsets_topic_num_partitions: reading.whole("offsets.topic.num.partitions"),
            offsets_topic_replication_factor: reading.whole("offsets.topic.replication.factor"),
            offsets_topic_segment_bytes: reading.whole("offsets.topic.segment.bytes"),
            transactions: reading.transactions(),
            internal_segment_bytes: None,
            group_consumer_assignors: reading.list("group.consumer.assignors"),
            group_consumer_heartbeat_interval_ms: reading
                .whole("group.consumer.heartbeat.interval.ms"),
            group_consumer_max_size: reading.whole("group.consumer.max.size"),
            group_consumer_session_timeout_ms: reading.whole("group.consumer.session.timeout.ms"),
            properties: own
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect(),
            warnings,
        })
    }

    /// Completes the advertised addresses: `host_name` where no host was given, and the port that
    /// was bound (`ports`, in the order of `listeners`) where the port was left open.
    pub fn fill_in_addresses(&mut self, host_name: &str, ports: &[u16]) {
        assert_eq!(
            ports.len(),
            self.listeners.len(),
            "one bound port for each listener"
        );
        for (listener, port) in self.advertised_listeners.iter_mut().zip(ports) {
            if listener.host.is_empty() {
                listener.host = host_name.to_owned();
            }
            if listener.port == 0 {
                listener.port = *port;
            }
        }
    }

    /// What the group coordinator takes from all this.
    pub fn group_config(&self) -> GroupConfig {
        GroupConfig {
            min_session_timeout_ms: self.group_min_session_timeout_ms,
            max_session_timeout_ms: self.group_max_session_timeout_ms,
            initial_rebalance_delay_ms: self.group_initial_rebalance_delay_ms,
            max_size: self.group_max_size,
            consumer_session_timeout_ms: self.group_consumer_session_timeout_ms,
            consumer_heartbeat_interval_ms: self.group_consumer_heartbeat_interval_ms,
            consumer_max_size: self.group_consumer_max_size,
            consumer_assignors: self.group_consumer_assignors.clone(),
            offsets_retention_ms: self.offsets_retention_ms,
            offsets_retention_check_interval_ms: self.offsets_retention_check_interval_ms,
            offset_metadata_max: self.offset_metadata_max_bytes,
            ..GroupConfig::default()
        }
    }
}

struct Reading<'a> {
    given: &'a BTreeMap<String, String>,
    errors: Vec<ConfigError>,
    warnings: Vec<String>,
}

impl Reading<'_> {
    fn error(&mut self, key: &str, message: String) {
        self.errors.push(ConfigError::new(key, message));
    }

    /// Whether there are such keys, and each one's value by itself.
    fn check_each(&mut self) {
        self.check_names();
        self.check_values();
    }

    fn check_names(&mut self) {
        for (name, value) in self.given {
            if broker_key(name).is_some() {
                continue;
            }
            match foreign_key(name) {
                Some(ForeignKey::NoEffect(why)) => {
                    self.warnings
                        .push(format!("{name} is accepted and has no effect: {why}"));
                }
                Some(ForeignKey::Refused { harmless, .. }) if harmless.contains(&value.trim()) => {}
                Some(ForeignKey::Refused { why, .. }) => {
                    self.error(name, format!("this cannot be honoured: {why}"));
                }
                None => {
                    let known = BROKER_KEYS
                        .iter()
                        .map(|def| def.name)
                        .chain(foreign::names());
                    let hint = match did_you_mean(name, known) {
                        Some(near) => format!("; did you mean {near}?"),
                        None => String::new(),
                    };
                    self.error(name, format!("no such configuration{hint}"));
                }
            }
        }
    }

    fn check_values(&mut self) {
        for (name, value) in self.given {
            if let Some(Err(message)) = broker_key(name).map(|def| def.parse(value)) {
                self.error(name, message);
            }
            if value.len() > CONFIG_VALUE_BYTES {
                self.error(
                    name,
                    format!("the value is longer than {CONFIG_VALUE_BYTES} bytes"),
                );
            }
        }
    }

    fn listeners(&mut self) -> listeners::Listeners {
        let controller_names = self.given.get("controller.listener.names");
        let protocol_map = self
            .text("listener.security.protocol.map")
            .unwrap_or_default();
        let out = listeners::read(&listeners::Given {
            listeners: &self.text("listeners").unwrap_or_default(),
            advertised: self.text("advertised.listeners").as_deref(),
            protocol_map: &protocol_map,
            controller_names: controller_names.map_or("", String::as_str),
        });
        self.errors.extend(out.errors.iter().cloned());
        self.warnings.extend(out.warnings.iter().cloned());
        out
    }

    fn http_listener(&mut self) -> Option<Listener> {
        let text = self.text("http.listener").filter(|text| !text.is_empty())?;
        let place = text.strip_prefix("http://").unwrap_or(&text);
        let listener = listeners::parse_one(&format!("HTTP://{place}"));
        if listener.is_none() {
            self.error(
                "http.listener",
                format!("{text:?} is not of the form http://host:port"),
            );
        }
        listener
    }

    fn transactions(&self) -> TransactionSettings {
        TransactionSettings {
            max_timeout_ms: self.whole("transaction.max.timeout.ms"),
            state_log_num_partitions: self.whole("transaction.state.log.num.partitions"),
            state_log_replication_factor: self.whole("transaction.state.log.replication.factor"),
            state_log_segment_bytes: self.whole("transaction.state.log.segment.bytes"),
            two_phase_commit_enable: self.boolean("transaction.two.phase.commit.enable"),
            transactional_id_expiration_ms: self.whole("transactional.id.expiration.ms"),
        }
    }

    fn log_dir(&mut self) -> String {
        let dirs = self
            .given
            .get("log.dirs")
            .map(|text| split_list(text))
            .unwrap_or_default();
        match &dirs[..] {
            [] => self.text("log.dir").unwrap_or_default(),
            [one] => one.clone(),
            [first, ..] => {
                let message = "several directories are not supported yet; name one".to_owned();
                self.error("log.dirs", message);
                first.clone()
            }
        }
    }

    /// `broker.id` is the old name; -1 is Kafka's way of saying "not given".
    fn node_id(&mut self) -> i32 {
        let node_id: i32 = self.whole("node.id");
        let broker_id: i32 = self.whole("broker.id");
        if broker_id == -1 {
            return node_id;
        }
        if self.given.contains_key("node.id") && node_id != broker_id {
            let message = format!("it is {broker_id}, and node.id is {node_id}");
            self.error("broker.id", message);
        }
        broker_id
    }

    /// A configuration that is meant for one node of several would start a cluster of its own,
    /// next to the one that it was meant for; that must not happen unnoticed.
    fn check_roles(&mut self) {
        let list = |name: &str| {
            self.given
                .get(name)
                .map(|text| split_list(text))
                .unwrap_or_default()
        };
        let mut found = Vec::new();
        for name in [
            "controller.quorum.voters",
            "controller.quorum.bootstrap.servers",
        ] {
            if list(name).len() > 1 {
                let message = "it names several nodes, and clusters of several brokers are not implemented yet";
                found.push((name, message));
            }
        }
        let roles = list("process.roles");
        let lacks = |role: &str| !roles.iter().any(|name| name == role);
        if !roles.is_empty() && (lacks("broker") || lacks("controller")) {
            let message = "a node that is only a broker, or only a controller, needs others, and \
                           clusters of several nodes are not implemented yet; use broker,controller";
            found.push(("process.roles", message));
        }
        for (name, message) in found {
            self.error(name, message.to_owned());
        }
    }

    /// Pairs of keys that Kafka checks against each other.
    fn check_bounds(&mut self) {
        let order = [
            (
                "group.min.session.timeout.ms",
                "group.max.session.timeout.ms",
            ),
            (
                "group.consumer.min.session.timeout.ms",
                "group.consumer.session.timeout.ms",
            ),
            (
                "group.consumer.session.timeout.ms",
                "group.consumer.max.session.timeout.ms",
            ),
            (
                "group.consumer.min.heartbeat.interval.ms",
                "group.consumer.heartbeat.interval.ms",
            ),
            (
                "group.consumer.heartbeat.interval.ms",
                "group.consumer.max.heartbeat.interval.ms",
            ),
            (
                "group.consumer.heartbeat.interval.ms",
                "group.consumer.session.timeout.ms",
            ),
        ];
        for (low, high) in order {
            let (low_value, high_value): (i64, i64) = (self.whole(low), self.whole(high));
            if low_value > high_value {
                let message = format!("{low_value} is more than {high} ({high_value})");
                self.error(low, message);
            }
        }
        if self.list("group.consumer.assignors").is_empty() {
            let message = "at least one assignor is needed".to_owned();
            self.error("group.consumer.assignors", message);
        }
    }

    /// The key's value; the default in place of a bad one, which has been reported.
    fn value(&self, name: &str) -> Option<Value> {
        let def = broker_key(name).unwrap_or_else(|| panic!("{name} is not in the table"));
        match self.given.get(name) {
            Some(text) => def.parse(text).ok().or_else(|| def.default_value()),
            None => def.default_value(),
        }
    }

    fn text(&self, name: &str) -> Option<String> {
        self.value(name).map(|value| value.to_text())
    }

    fn boolean(&self, name: &str) -> bool {
        match self.value(name) {
            Some(Value::Boolean(value)) => value,
            other => panic!("{name} is not a boolean with a default: {other:?}"),
        }
    }

    fn whole<T: TryFrom<i64>>(&self, name: &str) -> T {
        match self.value(name) {
            Some(Value::Whole(value)) => match T::try_from(value) {
                Ok(value) => value,
                Err(_) => panic!("the table lets {name} be {value}, which its field cannot hold"),
            },
            other => panic!("{name} is not a number with a default: {other:?}"),
        }
    }

    fn list(&self, name: &str) -> Vec<String> {
        match self.value(name) {
            Some(Value::List(value)) => value,
            other => panic!("{name} is not a list with a default: {other:?}"),
        }
    }
}

#[cfg(test)]
#[path = "broker_config_tests.rs"]
mod tests;
