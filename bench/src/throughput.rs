//! Throughput of one producer, and of one consumer, of librdkafka on one topic.
//!
//! The clock runs from the first record to the moment that the broker has the last one (its
//! ListOffsets says so); connecting and creating the topic come before. A run ends by time or by
//! volume, whichever is first, so that slow settings end and fast ones do not fill the memory.
//! Success is not reported record by record, which would make the client the bottleneck: failures
//! are, and the broker's count must be what was sent.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rdkafka::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::account::Process;
use crate::broker::Broker;
use crate::figures::Figures;

/// For what is still on its way when the time is up, or for a broker that has stopped answering.
const DRAIN_LIMIT: Duration = Duration::from_secs(60);

const METADATA_LIMIT: Duration = Duration::from_secs(20);

/// A megabyte is 1,000,000 bytes here.
const MEGABYTE: u64 = 1_000_000;

/// How often the sending loop looks at the clock, in records.
const CLOCK_EVERY: u64 = 256;

#[derive(clap::Args)]
pub struct Produce {
    /// The broker's address.
    #[arg(long)]
    pub bootstrap: String,
    /// A topic that does not exist yet.
    #[arg(long)]
    pub topic: String,
    #[arg(long, default_value_t = 1)]
    pub partitions: i32,
    /// Bytes of a record's value.
    #[arg(long, default_value_t = 1000)]
    pub size: usize,
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,
    /// No more than this, in 1,000,000 bytes of values.
    #[arg(long, default_value_t = 2000)]
    megabytes: u64,
    /// A setting of librdkafka's, key=value; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
    /// The broker's process, to account for its processor time.
    #[arg(long)]
    pid: Option<u32>,
}

#[derive(clap::Args)]
pub struct Consume {
    #[command(flatten)]
    filling: Produce,
}

/// Counts the deliveries that failed.
#[derive(Default)]
struct Failures(AtomicU64);

impl ClientContext for Failures {}

impl ProducerContext for Failures {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if result.is_err() {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A configuration with `settings` (key=value) over it.
pub fn config(bootstrap: &str, settings: &[String]) -> Result<ClientConfig> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap);
    for setting in settings {
        let (key, value) = setting.split_once('=').context("--set wants KEY=VALUE")?;
        config.set(key, value);
    }
    Ok(config)
}

/// Bytes that do not repeat within a record; nothing here compresses them.
pub fn value(size: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..size).map(next).collect()
}

pub fn produce(args: &Produce) -> Result<Figures> {
    let mut broker = Broker::connect(&args.bootstrap)?;
    broker.create_topic(&args.topic, args.partitions)?;
    let mut config = config(&args.bootstrap, &args.settings)?;
    config.set("delivery.report.only.error", "true");
    let producer: BaseProducer<Failures> = config.create_with_context(Failures::default())?;
    producer
        .client()
        .fetch_metadata(Some(&args.topic), METADATA_LIMIT)?;
    let meter = Meter::start(args.pid)?;
    let sent = send(args, &producer)?;
    producer
        .flush(DRAIN_LIMIT)
        .context("records were not acknowledged in time")?;
    let failed = producer.context().0.load(Ordering::Relaxed);
    ensure!(failed == 0, "{failed} of {sent} records were not delivered");
    wait_for_ends(&mut broker, args, sent)?;
    meter.stop(sent, args.size)
}

/// Sends until time or volume is up; how many records.
fn send(args: &Produce, producer: &BaseProducer<Failures>) -> Result<u64> {
    let value = value(args.size);
    let records_max = args.megabytes * MEGABYTE / args.size as u64;
    let deadline = Instant::now() + Duration::from_secs_f64(args.seconds);
    let mut sent = 0;
    while sent < records_max && (sent % CLOCK_EVERY != 0 || Instant::now() < deadline) {
        let partition = (sent / 1000 % args.partitions as u64) as i32;
        let record = BaseRecord::<(), [u8]>::to(&args.topic)
            .payload(&value)
            .partition(partition);
        match producer.send(record) {
            Ok(()) => sent += 1,
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                producer.poll(Duration::from_millis(1));
            }
            Err((error, _)) => bail!("could not send: {error}"),
        }
    }
    Ok(sent)
}

/// With acks=0 the broker may still be at work when the client is done.
fn wait_for_ends(broker: &mut Broker, args: &Produce, sent: u64) -> Result<()> {
    let started = Instant::now();
    loop {
        let there: i64 = broker.ends(&args.topic, args.partitions)?.iter().sum();
        if there == sent as i64 {
            return Ok(());
        }
        ensure!(
            there < sent as i64 && started.elapsed() < DRAIN_LIMIT,
            "{sent} records were sent and the broker has {there}"
        );
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Fills a topic, then reads all of it; only the reading is measured.
pub fn consume(args: &Consume) -> Result<Figures> {
    let filling = &args.filling;
    ensure!(filling.partitions == 1, "one partition is read here");
    produce(filling)?;
    let records = Broker::connect(&filling.bootstrap)?.ends(&filling.topic, 1)?[0] as u64;
    let mut config = config(&filling.bootstrap, &[])?;
    config
        .set("group.id", "bench")
        .set("enable.auto.commit", "false");
    let consumer: BaseConsumer = config.create()?;
    consumer
        .client()
        .fetch_metadata(Some(&filling.topic), METADATA_LIMIT)?;
    let mut from = TopicPartitionList::new();
    from.add_partition_offset(&filling.topic, 0, Offset::Offset(0))?;
    let meter = Meter::start(filling.pid)?;
    consumer.assign(&from)?;
    let (mut read, mut bytes) = (0, 0);
    while read < records {
        let message = consumer.poll(DRAIN_LIMIT);
        let message =
            message.with_context(|| format!("read {read} of {records}, then no more"))??;
        ensure!(
            message.offset() == read as i64,
            "a record is missing at offset {read}"
        );
        bytes += message.payload_len() as u64;
        read += 1;
    }
    ensure!(
        bytes == records * filling.size as u64,
        "records came back with another size"
    );
    meter.stop(records, filling.size)
}

/// Measures from `start` to `stop`.
struct Meter {
    started: Instant,
    process: Option<Process>,
    cpu: Duration,
}

impl Meter {
    fn start(pid: Option<u32>) -> Result<Meter> {
        let process = pid.map(Process);
        let cpu = process.map(Process::cpu).transpose()?.unwrap_or_default();
        Ok(Meter {
            started: Instant::now(),
            process,
            cpu,
        })
    }

    fn stop(self, records: u64, size: usize) -> Result<Figures> {
        let seconds = self.started.elapsed().as_secs_f64();
        let megabytes = (records * size as u64) as f64 / MEGABYTE as f64;
        ensure!(records > 0, "no record was moved");
        let mut figures = Figures::default();
        figures.set("records", records as f64);
        figures.set("seconds", seconds);
        figures.set("records_per_s", records as f64 / seconds);
        figures.set("mb_per_s", megabytes / seconds);
        if let Some(process) = self.process {
            let cpu = process.cpu()? - self.cpu;
            figures.set("cpu_s_per_gb", cpu.as_secs_f64() / (megabytes / 1000.0));
        }
        Ok(figures)
    }
}
