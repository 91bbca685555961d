//! Read, process, write: records of one topic to another, exactly once beside at least once.
//!
//! Both loops end a transaction, or commit their offsets, every 100 ms: the producer's records are
//! acknowledged, then the place in the input is written down. The processing is nothing but a copy, so
//! that what the guarantee costs is not hidden. In the end the output must have a record for each one
//! that counts, and a marker for each transaction.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rdkafka::Message;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::broker::Broker;
use crate::figures::Figures;

const LIMIT: Duration = Duration::from_secs(60);

#[derive(clap::Args)]
pub struct Args {
    /// The broker's address.
    #[arg(long)]
    bootstrap: String,
    /// What the topics' names begin with; they do not exist yet.
    #[arg(long)]
    topic: String,
    /// Records in the input.
    #[arg(long)]
    records: u64,
    /// Bytes of a record's value.
    #[arg(long, default_value_t = 1_000)]
    size: usize,
    /// How long a transaction lasts.
    #[arg(long, default_value_t = 100)]
    interval_ms: u64,
    /// How long each of the four turns is counted.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Delivery {
    AtLeastOnce,
    ExactlyOnce,
}

pub fn run(args: &Args) -> Result<Figures> {
    use Delivery::{AtLeastOnce, ExactlyOnce};
    let mut broker = Broker::connect(&args.bootstrap)?;
    let input = format!("{}-in", args.topic);
    broker.create_topic(&input, 1)?;
    fill(args, &input)?;
    let mut rates = Vec::new();
    // The first one is dropped. In this order, so that a drift of the machine is in both sums.
    let turns = [
        ExactlyOnce,
        AtLeastOnce,
        ExactlyOnce,
        ExactlyOnce,
        AtLeastOnce,
    ];
    for (number, delivery) in turns.into_iter().enumerate() {
        let output = format!("{}-out-{number}", args.topic);
        broker.create_topic(&output, 1)?;
        rates.push(turn(args, &mut broker, delivery, &input, &output)?);
        broker.delete_topic(&output)?;
    }
    broker.delete_topic(&input)?;
    let (least, exactly) = ((rates[1] + rates[4]) / 2.0, (rates[2] + rates[3]) / 2.0);
    let mut figures = Figures::default();
    figures.set("records_per_s", exactly);
    figures.set("records_per_s_at_least_once", least);
    figures.set("cost_percent", 100.0 * (1.0 - exactly / least));
    Ok(figures)
}

fn fill(args: &Args, topic: &str) -> Result<()> {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &args.bootstrap)
        .set("linger.ms", "5")
        .set("batch.size", "1000000")
        .create()?;
    let value = vec![b'x'; args.size];
    for _ in 0..args.records {
        send(&producer, topic, &value)?;
    }
    Ok(producer.flush(LIMIT)?)
}

fn send(producer: &BaseProducer, topic: &str, value: &[u8]) -> Result<()> {
    loop {
        let record = BaseRecord::<(), [u8]>::to(topic)
            .payload(value)
            .partition(0);
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                producer.poll(Duration::from_millis(1));
            }
            Err((error, _)) => bail!("could not send: {error}"),
        }
    }
}

/// One loop of its own; records per second that were written and whose place was committed.
fn turn(
    args: &Args,
    broker: &mut Broker,
    delivery: Delivery,
    input: &str,
    output: &str,
) -> Result<f64> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &args.bootstrap)
        .set("group.id", output)
        .set("enable.auto.commit", "false")
        .set("isolation.level", "read_committed")
        .create()?;
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &args.bootstrap)
        .set("enable.idempotence", "true")
        .set("linger.ms", "5")
        .set("batch.size", "1000000");
    if delivery == Delivery::ExactlyOnce {
        config.set("transactional.id", output);
    }
    let producer: BaseProducer = config.create()?;
    if delivery == Delivery::ExactlyOnce {
        producer.init_transactions(LIMIT)?;
    }
    let mut place = TopicPartitionList::new();
    place.add_partition_offset(input, 0, Offset::Beginning)?;
    consumer.assign(&place)?;
    let mut intervals = 0;
    let mut copied = interval(
        args,
        delivery,
        &consumer,
        &producer,
        input,
        output,
        args.records,
    )?;
    // The first one, with its connections, does not count.
    let (warm, began) = (copied, Instant::now());
    while began.elapsed().as_secs_f64() < args.seconds && copied < args.records {
        let left = args.records - copied;
        copied += interval(args, delivery, &consumer, &producer, input, output, left)?;
        intervals += 1;
    }
    ensure!(intervals > 0, "the input is too short");
    let rate = (copied - warm) as f64 / began.elapsed().as_secs_f64();
    let markers = match delivery {
        Delivery::AtLeastOnce => 0,
        Delivery::ExactlyOnce => intervals + 1,
    };
    let wanted = (copied + markers).cast_signed();
    let waiting = Instant::now();
    while broker.ends(output, 1)? != [wanted] {
        ensure!(
            waiting.elapsed() < LIMIT,
            "{output} does not end at {wanted}"
        );
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(rate)
}

/// What is read within an interval is copied, and its place committed. How many records that were.
fn interval(
    args: &Args,
    delivery: Delivery,
    consumer: &BaseConsumer,
    producer: &BaseProducer,
    input: &str,
    output: &str,
    left: u64,
) -> Result<u64> {
    let until = Instant::now() + Duration::from_millis(args.interval_ms);
    if delivery == Delivery::ExactlyOnce {
        producer.begin_transaction()?;
    }
    let (mut copied, mut next) = (0, 0);
    while copied < left && (copied == 0 || Instant::now() < until) {
        let Some(message) = consumer.poll(Duration::from_millis(10)) else {
            ensure!(Instant::now() < until + LIMIT, "nothing is to be read");
            continue;
        };
        let message = message?;
        send(producer, output, message.payload().context("no value")?)?;
        if copied % 64 == 0 {
            producer.poll(Duration::ZERO);
        }
        copied += 1;
        next = message.offset() + 1;
    }
    // While a commit waits for acknowledgements, the client looks for them every 100 ms.
    while producer.in_flight_count() > 0 {
        producer.poll(Duration::from_millis(1));
    }
    let mut place = TopicPartitionList::new();
    place.add_partition_offset(input, 0, Offset::Offset(next))?;
    match delivery {
        Delivery::AtLeastOnce => consumer.commit(&place, CommitMode::Sync)?,
        Delivery::ExactlyOnce => {
            let group = consumer.group_metadata().context("no group")?;
            producer.send_offsets_to_transaction(&place, &group, LIMIT)?;
            producer.commit_transaction(LIMIT)?;
        }
    }
    Ok(copied)
}
