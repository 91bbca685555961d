//! One producer of the demo: sends numbered records at a steady pace and notes what it was told.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};

use crate::client::log_line;
use crate::failure::Failure;

/// A delivery level, by what a producer is configured to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    AtMostOnce,
    AtLeastOnce,
    Idempotent,
}

impl Level {
    pub fn settings(self) -> &'static str {
        match self {
            Level::AtMostOnce => "acks=0",
            Level::AtLeastOnce => "acks=1, retries",
            Level::Idempotent => "acks=all, idempotent",
        }
    }

    pub fn topic(self) -> &'static str {
        match self {
            Level::AtMostOnce => "demo-acks-0",
            Level::AtLeastOnce => "demo-acks-1",
            Level::Idempotent => "demo-acks-all",
        }
    }

    fn properties(self) -> [(&'static str, &'static str); 3] {
        match self {
            Level::AtMostOnce => [
                ("acks", "0"),
                ("enable.idempotence", "false"),
                ("retries", "0"),
            ],
            Level::AtLeastOnce => [
                ("acks", "1"),
                ("enable.idempotence", "false"),
                ("retries", "2147483647"),
            ],
            Level::Idempotent => [
                ("acks", "all"),
                ("enable.idempotence", "true"),
                ("retries", "2147483647"),
            ],
        }
    }
}

/// What a stream sent and what the client was told.
#[derive(Debug)]
pub struct Sent {
    pub level: Level,
    pub count: u32,
    /// The numbers of the records whose delivery was acknowledged (acks=0: handed to the socket).
    pub acknowledged: BTreeSet<u32>,
}

pub struct Stream {
    level: Level,
    count: u32,
    thread: JoinHandle<Result<BTreeSet<u32>, KafkaError>>,
}

#[derive(Clone, Default)]
struct Reports {
    acknowledged: Arc<Mutex<BTreeSet<u32>>>,
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log_line(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // Expected here: the broker is killed on purpose.
        tracing::info!(target: "librdkafka", %error, "{reason}");
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, _: ()) {
        if let Ok(message) = result
            && let Some(number) = number_of(message.payload())
        {
            let mut acknowledged = self
                .acknowledged
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            acknowledged.insert(number);
        }
    }
}

/// The number that a record of the demo carries.
pub fn number_of(payload: Option<&[u8]>) -> Option<u32> {
    std::str::from_utf8(payload?)
        .ok()?
        .strip_prefix("record ")?
        .parse()
        .ok()
}

impl Stream {
    pub fn start(
        level: Level,
        bootstrap: &str,
        count: u32,
        pace: Duration,
    ) -> Result<Stream, Failure> {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", bootstrap)
            .set("client.id", format!("demo {}", level.settings()))
            .set("linger.ms", "5")
            .set("message.timeout.ms", "60000")
            .set("reconnect.backoff.max.ms", "500");
        for (key, value) in level.properties() {
            config.set(key, value);
        }
        let reports = Reports::default();
        let producer: BaseProducer<Reports> =
            config
                .create_with_context(reports.clone())
                .map_err(|error| {
                    Failure::refused("the demo's producer could not be made").why(error.to_string())
                })?;
        let thread = std::thread::spawn(move || {
            send(&producer, level, count, pace).map(|()| reports.take())
        });
        Ok(Stream {
            level,
            count,
            thread,
        })
    }

    pub fn finish(self) -> Result<Sent, Failure> {
        let acknowledged = self
            .thread
            .join()
            .expect("a stream does not panic")
            .map_err(|error| {
                Failure::refused("the demo's producer failed").why(error.to_string())
            })?;
        Ok(Sent {
            level: self.level,
            count: self.count,
            acknowledged,
        })
    }
}

impl Reports {
    fn take(&self) -> BTreeSet<u32> {
        std::mem::take(
            &mut self
                .acknowledged
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }
}

fn send(
    producer: &BaseProducer<Reports>,
    level: Level,
    count: u32,
    pace: Duration,
) -> Result<(), KafkaError> {
    let began = Instant::now();
    for number in 0..count {
        let due = pace * number;
        if let Some(early) = due.checked_sub(began.elapsed()) {
            producer.poll(early.min(Duration::from_millis(5)));
        }
        let payload = format!("record {number}");
        let mut record = BaseRecord::<(), _>::to(level.topic()).payload(&payload);
        while let Err((error, back)) = producer.send(record) {
            // A full queue drains while we poll; everything else is final.
            if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
                return Err(error);
            }
            producer.poll(Duration::from_millis(20));
            record = back;
        }
    }
    producer.flush(Duration::from_secs(60))
}
