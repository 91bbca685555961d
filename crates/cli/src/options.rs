//! The options that every command takes: which cluster, client properties, output format, verbosity.
//!
//! Client properties (`-X`) are librdkafka's names. They are checked against librdkafka itself before
//! any command runs, so that a misspelt one is refused by commands that would not have used it too.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::{Args, ValueEnum};
use rdkafka::config::ClientConfig;
use rdkafka::error::KafkaError;

use crate::failure::Failure;

const BOOTSTRAP_DEFAULT: &str = "localhost:9092";

/// How long a command waits for one answer from the cluster unless `-X socket.timeout.ms` says else.
const REQUEST_TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);

#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Options for every command")]
pub struct GlobalArgs {
    /// Addresses of one or more brokers, separated by commas [default: localhost:9092]
    #[arg(
        short,
        long,
        global = true,
        overrides_with = "bootstrap_server",
        value_name = "HOST:PORT",
        env = "ONCELOG_BOOTSTRAP"
    )]
    pub bootstrap_server: Option<String>,

    /// A client property, by librdkafka's name; may be repeated
    #[arg(short = 'X', global = true, value_name = "KEY=VALUE", value_parser = parse_property)]
    pub property: Vec<(String, String)>,

    /// How to print results
    #[arg(long, global = true, value_enum, default_value_t = Format::Text)]
    pub format: Format,

    /// Say more; twice for librdkafka's debug lines
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Text,
    Json,
}

/// The global options, checked and resolved.
#[derive(Clone, Debug)]
pub struct Options {
    /// `host:port`, at least one.
    pub bootstrap: Vec<String>,
    /// Whether somebody said so, or it is the default.
    bootstrap_given: bool,
    /// Every `-X`, the last of each key; never holds `bootstrap.servers`.
    pub properties: BTreeMap<String, String>,
    pub format: Format,
    pub verbose: u8,
}

impl Options {
    /// Errors: a property that librdkafka does not know or a value it refuses; an empty address list.
    pub fn resolve(args: &GlobalArgs) -> Result<Options, Failure> {
        let mut properties: BTreeMap<String, String> = args.property.iter().cloned().collect();
        // `metadata.broker.list` is librdkafka's older name for the same property.
        let explicit = properties.remove("metadata.broker.list");
        let explicit = properties.remove("bootstrap.servers").or(explicit);
        let given = explicit.or_else(|| args.bootstrap_server.clone());
        let bootstrap_given = given.is_some();
        let servers = given.unwrap_or_else(|| BOOTSTRAP_DEFAULT.to_owned());
        let bootstrap: Vec<String> = servers
            .split(',')
            .map(str::trim)
            .filter(|server| !server.is_empty())
            .map(with_port)
            .collect();
        if bootstrap.is_empty() {
            return Err(Failure::usage("no bootstrap server is given").next("use -b HOST:PORT"));
        }
        let options = Options {
            bootstrap,
            bootstrap_given,
            properties,
            format: args.format,
            verbose: args.verbose,
        };
        options.check_properties()?;
        Ok(options)
    }

    pub fn json(&self) -> bool {
        self.format == Format::Json
    }

    /// What was given, or else what a file says, or else the default.
    pub fn bootstrap_or(&self, file: Option<&str>) -> String {
        let given = self.bootstrap_given_or(file);
        given.unwrap_or_else(|| self.bootstrap_list())
    }

    /// What was given, or else what a file says.
    pub fn bootstrap_given_or(&self, file: Option<&str>) -> Option<String> {
        match file {
            _ if self.bootstrap_given => Some(self.bootstrap_list()),
            file => file.map(str::to_owned),
        }
    }

    pub fn bootstrap_list(&self) -> String {
        self.bootstrap.join(",")
    }

    pub fn property(&self, key: &str) -> Option<&str> {
        self.properties.get(key).map(String::as_str)
    }

    /// How long to wait for one answer: `-X socket.timeout.ms`, or 10 s.
    pub fn request_timeout(&self) -> Duration {
        self.property("socket.timeout.ms")
            .and_then(|value| value.parse().ok())
            .map_or(REQUEST_TIMEOUT_DEFAULT, Duration::from_millis)
    }

    fn check_properties(&self) -> Result<(), Failure> {
        let mut config = ClientConfig::new();
        for (key, value) in &self.properties {
            config.set(key, value);
        }
        config
            .create_native_config()
            .map(drop)
            .map_err(|error| bad_property(&error))
    }
}

/// What librdkafka has against a property, as a command-line error.
pub fn bad_property(error: &KafkaError) -> Failure {
    match error {
        KafkaError::ClientConfig(_, _, key, value)
            if key == "security.protocol" && value.to_lowercase().contains("ssl") =>
        {
            Failure::usage(format!("-X {key}={value} is not accepted"))
                .why("TLS is not built in yet")
                .next("use a PLAINTEXT listener of the cluster")
        }
        KafkaError::ClientConfig(_, reason, key, value) => {
            Failure::usage(format!("-X {key}={value} is not accepted"))
                .why(reason.clone())
                .next(
                    "properties are librdkafka's: \
                 https://github.com/confluentinc/librdkafka/blob/master/CONFIGURATION.md",
                )
        }
        other => Failure::usage("the client properties are not accepted").why(other.to_string()),
    }
}

/// Kafka's port when none is named. `[::1]` and bare names get it, `host:1` and `[::1]:1` do not.
fn with_port(server: &str) -> String {
    let after_host = server.rsplit_once(']').map_or(server, |(_, rest)| rest);
    if after_host.contains(':') {
        server.to_owned()
    } else {
        format!("{server}:9092")
    }
}

/// `key=value`; the value may hold further `=` and may be empty.
pub fn parse_property(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => {
            Ok((key.trim().to_owned(), value.to_owned()))
        }
        _ => Err("expected KEY=VALUE".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(servers: &str, properties: &[&str]) -> Result<Options, Failure> {
        Options::resolve(&GlobalArgs {
            bootstrap_server: Some(servers.into()),
            property: properties
                .iter()
                .map(|text| parse_property(text).unwrap())
                .collect(),
            format: Format::Text,
            verbose: 0,
        })
    }

    #[test]
    fn properties_are_key_and_value() {
        assert_eq!(parse_property("a=b").unwrap(), ("a".into(), "b".into()));
        assert_eq!(parse_property("a=b=c").unwrap(), ("a".into(), "b=c".into()));
        assert_eq!(parse_property("a=").unwrap(), ("a".into(), String::new()));
        assert!(parse_property("a").is_err());
        assert!(parse_property("=b").is_err());
    }

    #[test]
    fn the_last_of_a_property_wins_and_bootstrap_servers_is_taken_out() {
        let options = resolve(
            "one",
            &[
                "client.id=a",
                "client.id=b",
                "bootstrap.servers=two:1, three",
            ],
        )
        .unwrap();
        assert_eq!(options.property("client.id"), Some("b"));
        assert_eq!(options.bootstrap, ["two:1", "three:9092"]);
        assert_eq!(options.properties.len(), 1);
    }

    #[test]
    fn the_port_is_kafkas_unless_given() {
        let options = resolve("a, b:1,[::1],[::1]:2", &[]).unwrap();
        assert_eq!(
            options.bootstrap,
            ["a:9092", "b:1", "[::1]:9092", "[::1]:2"]
        );
        assert!(resolve(" , ", &[]).is_err());
    }

    #[test]
    fn unknown_properties_and_bad_values_are_refused() {
        let failure = resolve("a", &["linger.mss=5"]).unwrap_err();
        assert!(failure.what.contains("linger.mss"), "{failure}");
        assert!(resolve("a", &["linger.ms=soon"]).is_err());
        assert!(resolve("a", &["linger.ms=5"]).is_ok());
    }
}
