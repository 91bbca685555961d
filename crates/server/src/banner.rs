//! What the broker says when it is ready.

use crate::server::RunningServer;
use oncelog_coordinator::cluster::BrokerConfig;
use std::fmt::Write;

/// What an acknowledgement promises under this configuration, in one sentence.
pub fn durability_in_words(config: &BrokerConfig) -> String {
    let number = |key: &str| -> Option<i64> { config.properties.get(key)?.trim().parse().ok() };
    let messages = number("log.flush.interval.messages").unwrap_or(1);
    let interval_ms = number("log.flush.interval.ms")
        .or_else(|| number("log.flush.scheduler.interval.ms"))
        .filter(|ms| *ms < i64::MAX);
    if messages <= 1 {
        return "records are on disk before they are acknowledged (fsync, shared by all who wait)"
            .to_owned();
    }
    let mut when = Vec::new();
    if messages < i64::MAX {
        when.push(format!("every {messages} records of a partition"));
    }
    if let Some(ms) = interval_ms {
        when.push(format!("every {ms} ms"));
    }
    match &when[..] {
        [] => "the operating system writes records to disk when it likes: what was acknowledged \
               survives a crash of the broker, not a power cut"
            .to_owned(),
        _ => format!(
            "records are brought to disk {}: what was acknowledged since survives a crash of the \
             broker, not a power cut",
            when.join(" and ")
        ),
    }
}

impl RunningServer {
    /// The start banner, several lines.
    pub fn banner(&self) -> String {
        let bootstrap = self.bootstrap_servers();
        let mut text = String::new();
        let mut line = |name: &str, value: &str| {
            writeln!(text, "  {name:<12} {value}").expect("a String takes all");
        };
        line("bootstrap", &bootstrap);
        match self.http_addr() {
            Some(at) => {
                let host = self.config.http_listener.as_ref().map_or("", |l| &l.host);
                let host = match host {
                    "" | "0.0.0.0" | "::" => "localhost".to_owned(),
                    ip if ip.contains(':') => format!("[{ip}]"),
                    name => name.to_owned(),
                };
                line(
                    "http",
                    &format!("http://{host}:{} (metrics, health)", at.port()),
                );
            }
            None => line("http", "off (http.listener is empty)"),
        }
        line(
            "data",
            &format!(
                "{} ({})",
                self.data_directory.display(),
                self.what_was_found()
            ),
        );
        line("durability", &durability_in_words(&self.config));
        line(
            "replication",
            "none: this is a single node, so every topic has replication factor 1",
        );
        let option = match self.config.advertised_listeners[0].port {
            9092 => String::new(),
            _ => format!(" -b {bootstrap}"),
        };
        let version = env!("CARGO_PKG_VERSION");
        let took_ms = self.took.as_millis();
        format!(
            "Oncelog {version} is ready ({took_ms} ms)\n{text}  {:<12} oncelog topic create \
             events{option}\n",
            "next"
        )
    }

    fn what_was_found(&self) -> String {
        let partitions = match self.report.partitions {
            0 => return "new".to_owned(),
            1 => "1 partition".to_owned(),
            n => format!("{n} partitions"),
        };
        match self.report.clean {
            true => format!("{partitions}, shut down cleanly"),
            false => format!("{partitions}, recovered after a crash"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn check(properties: &[(&str, &str)], expected: &str) {
        let given: BTreeMap<String, String> = properties
            .iter()
            .map(|(k, v)| (k.to_string(), v.to_string()))
            .collect();
        let words = durability_in_words(&BrokerConfig::from_properties(&given).unwrap());
        assert!(words.starts_with(expected), "{properties:?}: {words}");
    }

    #[test]
    fn durability_is_never_weaker_than_the_words() {
        check(&[], "records are on disk before they are acknowledged");
        check(
            &[("log.flush.interval.messages", "1")],
            "records are on disk before",
        );
        let messages = ("log.flush.interval.messages", "9223372036854775807");
        check(&[messages], "the operating system writes");
        check(
            &[messages, ("log.flush.interval.ms", "50")],
            "records are brought to disk every 50 ms",
        );
        check(
            &[
                ("log.flush.interval.messages", "10"),
                ("log.flush.interval.ms", "50"),
            ],
            "records are brought to disk every 10 records of a partition and every 50 ms",
        );
    }
}
