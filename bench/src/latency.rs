//! Latency at a fixed rate: one producer and one consumer of librdkafka in one process, one clock.
//!
//! Open loop: record i is due at start + i / rate, whatever became of those before it, and its
//! latency counts from when it was *due*. A broker (or a client) that stalls is charged for every
//! record that it held up, which a loop that waits for its answers would hide.
//!
//! The first part of the schedule warms up and is not counted. Everything sent must have been
//! acknowledged and read when the run ends.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use hdrhistogram::Histogram;
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

/// A broker that cannot hold the rate answers long after the schedule has ended.
const DRAIN_LIMIT: Duration = Duration::from_secs(60);

/// Both threads look this often whether the run is over.
const GLANCE: Duration = Duration::from_millis(20);

const HIGHEST: Duration = Duration::from_secs(300);

const PERCENTILES: [(&str, f64); 5] = [
    ("p50", 50.0),
    ("p90", 90.0),
    ("p99", 99.0),
    ("p99_9", 99.9),
    ("p99_99", 99.99),
];

#[derive(clap::Args)]
pub struct Args {
    /// The broker's address.
    #[arg(long)]
    bootstrap: String,
    /// A topic that does not exist yet.
    #[arg(long)]
    topic: String,
    /// Records per second.
    #[arg(long)]
    rate: u64,
    /// Bytes of a record's value.
    #[arg(long, default_value_t = 1000)]
    size: usize,
    /// How long is counted.
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,
    /// How long is sent at the same rate before that.
    #[arg(long, default_value_t = 1.0)]
    warm_seconds: f64,
    /// A setting of the producer's, key=value; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
    /// The broker's process, to account for its processor time.
    #[arg(long)]
    pid: Option<u32>,
}

/// When each record is due, and how late it was.
struct Probe {
    start: Instant,
    rate: u64,
    /// Records before this one are not counted.
    counted_from: u64,
    acked: Times,
    read: Times,
    failed: AtomicU64,
    over: AtomicBool,
}

/// Latencies in nanoseconds, and how many records there were in all.
struct Times {
    histogram: Mutex<Histogram<u64>>,
    count: AtomicU64,
}

impl Times {
    fn new() -> Result<Times> {
        let histogram = Histogram::new_with_bounds(1_000, HIGHEST.as_nanos() as u64, 3)?;
        Ok(Times {
            histogram: Mutex::new(histogram),
            count: AtomicU64::new(0),
        })
    }

    fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }
}

impl Probe {
    fn due(&self, record: u64) -> Instant {
        let nanos = u128::from(record) * 1_000_000_000 / u128::from(self.rate);
        self.start + Duration::from_nanos(nanos as u64)
    }

    fn note(&self, record: u64, times: &Times) {
        let late = self.due(record).elapsed().as_nanos() as u64;
        if record >= self.counted_from {
            let mut histogram = times.histogram.lock().expect("no thread panics with it");
            histogram.saturating_record(late);
        }
        times.count.fetch_add(1, Ordering::Release);
    }
}

/// Acknowledgements come here, with the number of the record.
struct Acks<'a>(&'a Probe);

impl ClientContext for Acks<'_> {}

impl ProducerContext for Acks<'_> {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, record: usize) {
        if result.is_err() {
            self.0.failed.fetch_add(1, Ordering::Relaxed);
        }
        self.0.note(record as u64, &self.0.acked);
    }
}

/// A configuration with `settings` (key=value).
fn config(bootstrap: &str, settings: &[String]) -> Result<ClientConfig> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap);
    for setting in settings {
        let (key, value) = setting.split_once('=').context("--set wants KEY=VALUE")?;
        config.set(key, value);
    }
    Ok(config)
}

pub fn run(args: &Args) -> Result<Figures> {
    let mut broker = Broker::connect(&args.bootstrap)?;
    broker.create_topic(&args.topic, 1)?;
    // Sleeps end when they should, not up to 50 us later.
    rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1))?;
    let consumer = ready_consumer(args, &mut broker)?;
    let counted_from = (args.rate as f64 * args.warm_seconds) as u64;
    let records = counted_from + (args.rate as f64 * args.seconds) as u64;
    ensure!(records > counted_from, "no record is to be sent");
    let probe = Probe {
        // Time enough for the threads to start.
        start: Instant::now() + Duration::from_millis(100),
        rate: args.rate,
        counted_from,
        acked: Times::new()?,
        read: Times::new()?,
        failed: AtomicU64::new(0),
        over: AtomicBool::new(false),
    };
    let config = config(&args.bootstrap, &args.settings)?;
    let producer: BaseProducer<Acks> = config.create_with_context(Acks(&probe))?;
    producer
        .client()
        .fetch_metadata(Some(&args.topic), DRAIN_LIMIT)?;
    let process = args.pid.map(Process);
    let cpu_before = process.map(Process::cpu).transpose()?;
    std::thread::scope(|threads| {
        threads.spawn(|| {
            while !probe.over.load(Ordering::Acquire) {
                producer.poll(GLANCE);
            }
        });
        let reading = threads.spawn(|| read(&probe, &consumer));
        let sent = send(args, &probe, &producer, records);
        let drained = sent.and_then(|()| drain(&probe, records));
        probe.over.store(true, Ordering::Release);
        let read = reading
            .join()
            .unwrap_or_else(|_| bail!("the reading thread panicked"));
        drained.and(read)
    })?;
    let ends = broker.ends(&args.topic, 1)?;
    ensure!(
        ends == [records as i64 + 1],
        "{records} records and one were sent, the end is {ends:?}"
    );
    let mut figures = figures(&probe);
    if let (Some(process), Some(before)) = (process, cpu_before) {
        let per_record = (process.cpu()? - before).as_secs_f64() / records as f64;
        figures.set("cpu_us_per_record", per_record * 1e6);
    }
    Ok(figures)
}

/// A consumer that has read a first record, so that it is connected and its fetch waits.
fn ready_consumer(args: &Args, broker: &mut Broker) -> Result<BaseConsumer> {
    let mut config = config(&args.bootstrap, &[])?;
    config
        .set("group.id", "bench")
        .set("enable.auto.commit", "false");
    config.set("socket.nagle.disable", "true");
    let consumer: BaseConsumer = config.create()?;
    let mut from = TopicPartitionList::new();
    from.add_partition_offset(&args.topic, 0, Offset::Offset(0))?;
    consumer.assign(&from)?;
    broker.produce(&args.topic, &[0], b"first")?;
    consumer
        .poll(DRAIN_LIMIT)
        .context("the first record was not read")??;
    Ok(consumer)
}

fn send(args: &Args, probe: &Probe, producer: &BaseProducer<Acks>, records: u64) -> Result<()> {
    let mut value = vec![b'x'; args.size.max(size_of::<u64>())];
    for record in 0..records {
        let wait = probe.due(record).saturating_duration_since(Instant::now());
        if !wait.is_zero() {
            std::thread::sleep(wait);
        }
        value[..size_of::<u64>()].copy_from_slice(&record.to_be_bytes());
        loop {
            let message =
                BaseRecord::<(), [u8], usize>::with_opaque_to(&args.topic, record as usize);
            match producer.send(message.payload(&value).partition(0)) {
                Ok(()) => break,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err((error, _)) => bail!("could not send: {error}"),
            }
        }
    }
    Ok(())
}

fn read(probe: &Probe, consumer: &BaseConsumer) -> Result<()> {
    while !probe.over.load(Ordering::Acquire) {
        let Some(message) = consumer.poll(GLANCE) else {
            continue;
        };
        let message = message?;
        let number = message.payload().and_then(|value| value.first_chunk());
        probe.note(
            u64::from_be_bytes(*number.context("a record without its number")?),
            &probe.read,
        );
    }
    Ok(())
}

/// Waits until everything sent was acknowledged and read.
fn drain(probe: &Probe, records: u64) -> Result<()> {
    let started = Instant::now();
    loop {
        let (acked, read) = (probe.acked.count(), probe.read.count());
        if acked == records && read == records {
            break;
        }
        ensure!(
            started.elapsed() < DRAIN_LIMIT && acked <= records && read <= records,
            "of {records} records {acked} were answered and {read} read"
        );
        std::thread::sleep(Duration::from_millis(1));
    }
    let failed = probe.failed.load(Ordering::Relaxed);
    ensure!(
        failed == 0,
        "{failed} of {records} records were not delivered"
    );
    Ok(())
}

fn figures(probe: &Probe) -> Figures {
    let mut figures = Figures::default();
    for (what, times) in [("ack", &probe.acked), ("e2e", &probe.read)] {
        let histogram = times.histogram.lock().expect("no thread panics with it");
        figures.set("records", histogram.len() as f64);
        let ms = |nanos: u64| nanos as f64 / 1e6;
        for (name, percentile) in PERCENTILES {
            let at = histogram.value_at_percentile(percentile);
            figures.set(&format!("{what}_{name}_ms"), ms(at));
        }
        figures.set(&format!("{what}_max_ms"), ms(histogram.max()));
    }
    figures
}
