//! librdkafka clients as the crash tests set them up.

use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::producer::{DeliveryResult, ProducerContext};
use rdkafka::{Offset, TopicPartitionList};

use crate::check::Log;
use crate::record::Stamp;

/// How long a client waits for a broker that ought to be there.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Says nothing: that the broker goes away is the point.
pub struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, _: RDKafkaLogLevel, _: &str, _: &str) {}
    fn error(&self, _: KafkaError, _: &str) {}
}

impl ConsumerContext for Quiet {}

impl ProducerContext for Quiet {
    type DeliveryOpaque = ();

    fn delivery(&self, _: &DeliveryResult<'_>, _: ()) {}
}

pub fn config(bootstrap: &str, more: &[(&str, &str)]) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", bootstrap)
        .set("reconnect.backoff.ms", "10")
        .set("reconnect.backoff.max.ms", "200")
        .set("retry.backoff.ms", "20")
        .set("retry.backoff.max.ms", "200")
        .set("socket.timeout.ms", "10000");
    for (key, value) in more {
        config.set(*key, *value);
    }
    config
}

/// What a topic holds.
pub struct ReadBack {
    pub log: Log,
    /// Records with other bytes than were sent, in words; [`Stamp::NOBODY`] stands in their place.
    pub bad: Vec<String>,
}

/// A topic from its first offset to its end, with a client of its own that checks every CRC.
/// Panics if an offset is missing: nothing here compacts or deletes.
pub fn read_all(bootstrap: &str, topic: &str, partitions: i32) -> ReadBack {
    let mut bad = Vec::new();
    let log = read_values(bootstrap, topic, partitions)
        .into_iter()
        .zip(0..)
        .map(|(values, partition)| {
            let stamps = values.iter().zip(0..).map(|(value, offset)| {
                Stamp::of(value, partition).unwrap_or_else(|why| {
                    bad.push(format!("{topic}-{partition}@{offset}: {why}"));
                    Stamp::NOBODY
                })
            });
            stamps.collect()
        })
        .collect();
    ReadBack { log, bad }
}

/// The values of every record, by partition and offset.
pub fn read_values(bootstrap: &str, topic: &str, partitions: i32) -> Vec<Vec<Vec<u8>>> {
    let consumer = reader(bootstrap);
    let mut ends = Vec::new();
    let mut assignment = TopicPartitionList::new();
    for partition in 0..partitions {
        let (start, end) = consumer
            .fetch_watermarks(topic, partition, PATIENCE)
            .unwrap_or_else(|error| panic!("{topic}-{partition}: {error}"));
        assert_eq!(start, 0, "{topic}-{partition} begins at its beginning");
        ends.push(end as usize);
        assignment
            .add_partition_offset(topic, partition, Offset::Offset(0))
            .unwrap();
    }
    consumer.assign(&assignment).unwrap();
    let mut values: Vec<Vec<Vec<u8>>> = ends.iter().map(|_| Vec::new()).collect();
    let mut progress = Instant::now();
    while values
        .iter()
        .zip(&ends)
        .any(|(have, end)| have.len() < *end)
    {
        assert!(progress.elapsed() < PATIENCE, "{topic} stopped to come");
        match consumer.poll(Duration::from_millis(200)) {
            None => {}
            Some(Err(error)) => panic!("reading {topic}: {error}"),
            Some(Ok(message)) => {
                progress = Instant::now();
                let partition = message.partition();
                let have = &mut values[partition as usize];
                assert_eq!(
                    message.offset(),
                    have.len() as i64,
                    "{topic}-{partition} has a gap"
                );
                have.push(message.payload().unwrap_or_default().to_vec());
            }
        }
    }
    values
}

/// A consumer without a group.
pub fn reader(bootstrap: &str) -> BaseConsumer<Quiet> {
    let settings = [
        ("group.id", "reader"),
        ("enable.auto.commit", "false"),
        ("check.crcs", "true"),
    ];
    config(bootstrap, &settings)
        .create_with_context(Quiet)
        .unwrap()
}
