//! What became of each record: librdkafka's delivery reports, counted.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::ProducerContext;
use serde_json::{Value, json};

use crate::client::{Trouble, log_line};
use crate::failure::{Exit, Failure};
use crate::options::Options;
use crate::output;

/// The callbacks of the producer. They run on the thread that polls it, which is the command's.
pub struct Deliveries {
    tally: Arc<Mutex<Tally>>,
    trouble: Trouble,
    /// Print partition and offset of every acknowledged record.
    list: Option<List>,
}

#[derive(Clone, Copy)]
enum List {
    Text,
    Json,
}

impl Deliveries {
    /// `acknowledged`: whether the broker acknowledges at all (acks is not 0).
    pub fn new(acknowledged: bool, options: &Options) -> Self {
        let list = match (options.verbose, options.json()) {
            (0, _) => None,
            (_, true) => Some(List::Json),
            (_, false) => Some(List::Text),
        };
        let tally = Tally {
            acknowledges: acknowledged,
            ..Tally::default()
        };
        Deliveries {
            tally: Arc::new(Mutex::new(tally)),
            trouble: Trouble::default(),
            list,
        }
    }

    pub fn tally(&self) -> Arc<Mutex<Tally>> {
        Arc::clone(&self.tally)
    }

    pub fn trouble(&self) -> &Trouble {
        &self.trouble
    }

    pub fn with(&self, change: impl FnOnce(&mut Tally)) {
        change(&mut self.tally.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log_line(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.trouble.note(&error, reason);
        if let Some(why) = self.trouble.take_all_brokers_down() {
            tracing::warn!("no broker can be reached, still trying: {why}");
        }
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        match result {
            Ok(message) => {
                self.with(|tally| tally.delivered += 1);
                // A closed standard output must not stop the count: the tally still goes out.
                if let Some(list) = self.list {
                    drop(print(list, message));
                }
            }
            Err((error, _)) => self.with(|tally| tally.count_error(error)),
        }
    }
}

fn print(list: List, message: &impl Message) -> io::Result<()> {
    let (topic, partition, offset) = (message.topic(), message.partition(), message.offset());
    let mut out = io::stdout().lock();
    match list {
        // With acks=0 nobody tells the offset: librdkafka reports it as a negative number.
        List::Text if offset < 0 => writeln!(out, "{topic} partition {partition} offset unknown"),
        List::Text => writeln!(out, "{topic} partition {partition} offset {offset}"),
        List::Json => {
            let offset = (offset >= 0).then_some(offset);
            let line = json!({"topic": topic, "partition": partition, "offset": offset});
            writeln!(out, "{line}")
        }
    }
}

/// Every record that was sent ends up in exactly one of `delivered`, `refused` and `unknown`.
#[derive(Debug, Default)]
pub struct Tally {
    /// Whether a delivery is an acknowledgement (acks is not 0).
    pub acknowledges: bool,
    pub sent: u64,
    pub delivered: u64,
    /// Reason -> count: certainly not written.
    pub refused: BTreeMap<String, u64>,
    /// Reason -> count: no answer came, it may or may not have been written.
    pub unknown: BTreeMap<String, u64>,
}

impl Tally {
    pub fn count_error(&mut self, error: &KafkaError) {
        use RDKafkaErrorCode as Code;
        let code = error.rdkafka_error_code();
        let may_be_written = matches!(
            code,
            Some(
                Code::MessageTimedOut
                    | Code::PurgeInflight
                    | Code::BrokerTransportFailure
                    | Code::OperationTimedOut
                    | Code::RequestTimedOut
                    | Code::NotEnoughReplicasAfterAppend
                    | Code::Fatal
            )
        );
        let reason = code.map_or_else(|| error.to_string(), |code| code.to_string());
        let counts = if may_be_written {
            &mut self.unknown
        } else {
            &mut self.refused
        };
        *counts.entry(reason).or_default() += 1;
    }

    fn acknowledged(&self) -> u64 {
        if self.acknowledges { self.delivered } else { 0 }
    }

    fn refused_count(&self) -> u64 {
        self.refused.values().sum()
    }

    fn unknown_count(&self) -> u64 {
        self.unknown.values().sum()
    }

    /// Text goes to standard error, so that `-v`'s list can be piped; JSON is the command's output.
    pub fn print(&self, json: bool) -> io::Result<()> {
        if json {
            return output::print_json(&self.to_json());
        }
        let mut err = io::stderr().lock();
        if !self.acknowledges {
            write!(
                err,
                "{} sent, none acknowledged: acks=0 asks for no answer",
                self.sent
            )?;
        } else {
            write!(
                err,
                "{} sent, {} acknowledged",
                self.sent,
                self.acknowledged()
            )?;
        }
        for (name, count) in [
            ("refused", self.refused_count()),
            ("unknown", self.unknown_count()),
        ] {
            if count > 0 {
                write!(err, ", {count} {name}")?;
            }
        }
        writeln!(err)
    }

    fn to_json(&self) -> Value {
        json!({
            "sent": self.sent,
            "acknowledged": self.acknowledged(),
            "refused": self.refused_count(),
            "unknown": self.unknown_count(),
            "acks_asked_for": self.acknowledges,
            "errors": self.refused.iter().chain(&self.unknown).collect::<BTreeMap<_, _>>(),
        })
    }

    /// What to end with, if not every record was delivered.
    pub fn failure(&self) -> Option<Failure> {
        let (refused, unknown) = (self.refused_count(), self.unknown_count());
        if refused + unknown == 0 {
            return None;
        }
        let reasons: Vec<String> = self
            .refused
            .iter()
            .chain(&self.unknown)
            .map(|(reason, count)| format!("{reason}: {count}"))
            .collect();
        let what = format!(
            "{} of {} records were not acknowledged",
            refused + unknown,
            self.sent
        );
        let failure = Failure::new(Exit::Failed, what).why(reasons.join("; "));
        Some(if unknown > 0 {
            failure.next(format!(
                "{unknown} may have been written all the same: look before you repeat them"
            ))
        } else {
            failure
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(code: RDKafkaErrorCode) -> KafkaError {
        KafkaError::MessageProduction(code)
    }

    #[test]
    fn nothing_is_called_acknowledged_that_was_not() {
        let mut tally = Tally {
            acknowledges: true,
            sent: 4,
            delivered: 1,
            ..Tally::default()
        };
        tally.count_error(&error(RDKafkaErrorCode::MessageSizeTooLarge));
        tally.count_error(&error(RDKafkaErrorCode::MessageTimedOut));
        tally.count_error(&error(RDKafkaErrorCode::MessageTimedOut));
        assert_eq!(tally.to_json()["acknowledged"], 1);
        assert_eq!(tally.to_json()["refused"], 1);
        assert_eq!(tally.to_json()["unknown"], 2);
        let failure = tally.failure().unwrap();
        assert_eq!(failure.what, "3 of 4 records were not acknowledged");
        assert!(failure.next.unwrap().starts_with("2 may have been written"));
    }

    #[test]
    fn without_acks_nothing_is_acknowledged_and_nothing_failed() {
        let tally = Tally {
            acknowledges: false,
            sent: 3,
            delivered: 3,
            ..Tally::default()
        };
        assert_eq!(tally.to_json()["acknowledged"], 0);
        assert!(tally.failure().is_none());
    }
}
