//! Producers under load: each sends numbered records to random partitions, in bursts, until it is
//! told to stop, and keeps every delivery report.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};

use crate::check::{Ack, Promise, Sent};
use crate::client;
use crate::random::Random;
use crate::record::Stamp;

/// After the last record, how long all of them may take to be acknowledged.
const FLUSH: Duration = Duration::from_secs(120);

pub struct Settings {
    pub producer: u16,
    pub promise: Promise,
    pub topic: &'static str,
    pub partitions: i32,
    pub codec: &'static str,
    /// Between two bursts of records: see [`FULL_LOAD`].
    pub pause_ms_max: u64,
}

/// About a thousand records a second.
pub const FULL_LOAD: u64 = 60;

impl Settings {
    pub fn in_words(&self) -> String {
        let how = match self.promise {
            Promise::ExactlyOnce => "acks=all, idempotent",
            Promise::InOrder => "acks=1, retries, 1 in flight",
            Promise::AtLeastOnce => "acks=1, retries, 5 in flight",
        };
        format!("{how}, {}", self.codec)
    }
}

#[derive(Clone, Default)]
struct Reports(Arc<Mutex<(Vec<Ack>, Vec<String>)>>);

impl ClientContext for Reports {
    fn log(&self, _: RDKafkaLogLevel, _: &str, _: &str) {}
    fn error(&self, _: KafkaError, _: &str) {}
}

impl ProducerContext for Reports {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, _: ()) {
        let mut reports = self.0.lock().unwrap();
        match result {
            Ok(message) => reports.0.push(Ack {
                partition: message.partition(),
                offset: message.offset(),
                number: number_of(message.payload()),
            }),
            Err((error, message)) => {
                let number = number_of(message.payload());
                let text = format!("number {number} to {}: {error}", message.partition());
                reports.1.push(text);
            }
        }
    }
}

fn number_of(payload: Option<&[u8]>) -> u32 {
    let payload = payload.expect("what was sent has a value");
    u32::from_be_bytes(payload[2..6].try_into().unwrap())
}

pub struct Running {
    pub settings: Arc<Settings>,
    reports: Reports,
    thread: JoinHandle<Sent>,
}

impl Running {
    pub fn start(
        settings: Settings,
        bootstrap: &str,
        stop: &Arc<AtomicBool>,
        random: Random,
    ) -> Running {
        let reports = Reports::default();
        let (acks, idempotence, in_flight) = match settings.promise {
            Promise::ExactlyOnce => ("all", "true", "5"),
            Promise::InOrder => ("1", "false", "1"),
            Promise::AtLeastOnce => ("1", "false", "5"),
        };
        let more = [
            ("acks", acks),
            ("enable.idempotence", idempotence),
            ("max.in.flight.requests.per.connection", in_flight),
            ("retries", "2147483647"),
            ("compression.type", settings.codec),
            ("linger.ms", "2"),
            // Small requests, so that five of them are often under way.
            ("batch.num.messages", "40"),
            // On a slow machine the load adapts itself instead of piling up.
            ("queue.buffering.max.messages", "3000"),
            // Never given up: what is not acknowledged at the end is an error.
            ("message.timeout.ms", "0"),
        ];
        let producer: BaseProducer<Reports> = client::config(bootstrap, &more)
            .create_with_context(reports.clone())
            .unwrap();
        let settings = Arc::new(settings);
        let (stop, on_thread, watched) = (stop.clone(), settings.clone(), reports.clone());
        let thread = std::thread::spawn(move || {
            let counts = send(&producer, &on_thread, &stop, random);
            let flushed = producer.flush(FLUSH);
            let mut reports = std::mem::take(&mut *reports.0.lock().unwrap());
            if let Err(error) = flushed {
                reports
                    .1
                    .push(format!("not acknowledged in the end: {error}"));
            }
            if let Some((code, why)) = producer.client().fatal_error() {
                reports.1.push(format!("fatal: {code}: {why}"));
            }
            Sent {
                producer: on_thread.producer,
                promise: on_thread.promise,
                counts,
                acks: reports.0,
                refused: reports.1,
            }
        });
        Running {
            settings,
            reports: watched,
            thread,
        }
    }

    /// The largest offset that was acknowledged so far, by partition; -1: none.
    pub fn acknowledged(&self) -> Vec<i64> {
        let mut largest = vec![-1; self.settings.partitions as usize];
        for ack in &self.reports.0.lock().unwrap().0 {
            let offset = &mut largest[ack.partition as usize];
            *offset = ack.offset.max(*offset);
        }
        largest
    }

    pub fn finish(self) -> (Arc<Settings>, Sent) {
        let sent = self.thread.join().expect("a producer does not panic");
        (self.settings, sent)
    }
}

/// Returns how many records were handed over, by partition.
fn send(
    producer: &BaseProducer<Reports>,
    settings: &Settings,
    stop: &AtomicBool,
    mut random: Random,
) -> Vec<u32> {
    let mut counts = vec![0; settings.partitions as usize];
    while !stop.load(Ordering::Relaxed) {
        for _ in 0..random.range(1, 60) {
            let partition = random.range(0, settings.partitions as u64) as i32;
            let count = &mut counts[partition as usize];
            let stamp = Stamp {
                producer: settings.producer,
                number: *count,
            };
            let value = stamp.value(partition);
            let record = BaseRecord::<(), _>::to(settings.topic)
                .partition(partition)
                .payload(&value);
            match producer.send(record) {
                Ok(()) => *count += 1,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => break,
                // The reason is asked for at the end.
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::Fatal), _)) => return counts,
                Err((error, _)) => panic!("sending to {}: {error}", settings.topic),
            }
        }
        producer.poll(Duration::from_millis(
            random.range(0, settings.pause_ms_max),
        ));
    }
    counts
}
