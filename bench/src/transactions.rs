//! Transactions of one producer of librdkafka, one after the other: begin, some records, commit.
//!
//! What is timed is what its program waits for, from `begin_transaction` to the return of
//! `commit_transaction`. A part at the beginning warms up and is not counted. In the end the broker
//! must have every record and a marker for every transaction.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use hdrhistogram::Histogram;
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use crate::account::Process;
use crate::broker::Broker;
use crate::figures::Figures;

/// For one call into the client.
const LIMIT: Duration = Duration::from_secs(60);

const HIGHEST: Duration = Duration::from_secs(60);

#[derive(clap::Args)]
pub struct Args {
    /// The broker's address.
    #[arg(long)]
    bootstrap: String,
    /// A topic that does not exist yet.
    #[arg(long)]
    topic: String,
    /// Records in each transaction.
    #[arg(long)]
    records: u64,
    /// Bytes of a record's value.
    #[arg(long, default_value_t = 100)]
    size: usize,
    /// How long is counted.
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,
    /// How long transactions run before that.
    #[arg(long, default_value_t = 2.0)]
    warm_seconds: f64,
    /// The broker's process, to account for its processor time.
    #[arg(long)]
    pid: Option<u32>,
}

pub fn run(args: &Args) -> Result<Figures> {
    let mut broker = Broker::connect(&args.bootstrap)?;
    broker.create_topic(&args.topic, 1)?;
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &args.bootstrap)
        .set("transactional.id", &args.topic)
        .set("linger.ms", "0")
        .set("socket.nagle.disable", "true")
        .create()?;
    producer.init_transactions(LIMIT)?;
    let warmed = transactions(args, &producer, args.warm_seconds, &mut |_| {})?;
    let process = args.pid.map(Process);
    let cpu_before = process.map(Process::cpu).transpose()?;
    let mut histogram = Histogram::<u64>::new_with_bounds(1_000, HIGHEST.as_nanos() as u64, 3)?;
    let started = Instant::now();
    let counted = transactions(args, &producer, args.seconds, &mut |took| {
        histogram.saturating_record(took.as_nanos() as u64);
    })?;
    let seconds = started.elapsed().as_secs_f64();
    let mut figures = Figures::default();
    figures.set("txn_per_s", counted as f64 / seconds);
    for (name, percentile) in [("p50_ms", 50.0), ("p99_ms", 99.0)] {
        figures.set(name, histogram.value_at_percentile(percentile) as f64 / 1e6);
    }
    if let (Some(process), Some(before)) = (process, cpu_before) {
        let used = (process.cpu()? - before).as_secs_f64();
        figures.set("cpu_ms_per_txn", used * 1000.0 / counted as f64);
    }
    wait_for_markers(args, &mut broker, warmed + counted)?;
    Ok(figures)
}

/// Transactions for so long; how many.
fn transactions(
    args: &Args,
    producer: &BaseProducer,
    seconds: f64,
    took: &mut dyn FnMut(Duration),
) -> Result<u64> {
    let value = vec![b'x'; args.size];
    let started = Instant::now();
    let mut count = 0;
    while started.elapsed().as_secs_f64() < seconds {
        let begun = Instant::now();
        producer.begin_transaction()?;
        for _ in 0..args.records {
            send(args, producer, &value)?;
        }
        // While a commit waits for acknowledgements, the client looks for them every 100 ms.
        while producer.in_flight_count() > 0 {
            producer.poll(Duration::from_millis(1));
        }
        producer.commit_transaction(LIMIT).context("committing")?;
        took(begun.elapsed());
        count += 1;
    }
    Ok(count)
}

fn send(args: &Args, producer: &BaseProducer, value: &[u8]) -> Result<()> {
    loop {
        let record = BaseRecord::<(), [u8]>::to(&args.topic);
        match producer.send(record.payload(value).partition(0)) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                producer.poll(Duration::from_millis(1));
            }
            Err((error, _)) => bail!("could not send: {error}"),
        }
    }
}

/// A commit is answered before its markers are written.
fn wait_for_markers(args: &Args, broker: &mut Broker, transactions: u64) -> Result<()> {
    let wanted = (transactions * (args.records + 1)) as i64;
    let started = Instant::now();
    loop {
        let ends = broker.ends(&args.topic, 1)?;
        if ends == [wanted] {
            return Ok(());
        }
        ensure!(
            ends[0] < wanted && started.elapsed() < LIMIT,
            "{transactions} transactions should end at {wanted}, the end is {ends:?}"
        );
        std::thread::sleep(Duration::from_millis(1));
    }
}
