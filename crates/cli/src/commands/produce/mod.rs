//! `oncelog produce`: one record for each line of standard input.
//!
//! It ends with a truthful tally: a record counts as acknowledged only if the broker said so with the
//! acks that were asked for. A record whose answer never came is *unknown*, not failed: it may have
//! been written. With acks=0 there are no acknowledgements, and the tally says that.

mod deliver;
mod input;

use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::{Args as ClapArgs, ValueEnum};
use jiff::SignedDuration;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use crate::client;
use crate::failure::{Exit, Failure};
use crate::interrupt::Interrupt;
use crate::options::{Options, parse_property};
use crate::reach;
use crate::template::{Template, parse_delimiter};

use deliver::{Deliveries, Tally};
use input::{Line, Record, Shape};

/// How long the metadata of a topic may take to appear: a broker that creates topics on first use
/// needs a moment.
const TOPIC_APPEARS: Duration = Duration::from_secs(5);

/// How long a record is tried for, unless `--timeout` or `-X message.timeout.ms` says else.
const RECORD_TIMEOUT_DEFAULT: &str = "30000";

/// Write each line of standard input to a topic as a record
#[derive(ClapArgs, Debug)]
pub struct Args {
    /// The topic to write to
    #[arg(value_name = "TOPIC", required_unless_present = "topic_option")]
    topic: Option<String>,

    /// The topic to write to, as kcat has it
    #[arg(
        short = 't',
        long = "topic",
        id = "topic_option",
        value_name = "TOPIC",
        conflicts_with = "topic"
    )]
    topic_option: Option<String>,

    /// The key of every record
    #[arg(short, long, conflicts_with_all = ["key_delimiter", "template"])]
    key: Option<String>,

    /// Splits each line into key and value at the first DELIMITER; a line without one has no key
    #[arg(short = 'K', long, value_name = "DELIMITER", value_parser = parse_delimiter, conflicts_with = "template")]
    key_delimiter: Option<Delimiter>,

    /// A header of every record; may be repeated
    #[arg(short = 'H', long, value_name = "NAME=VALUE", value_parser = parse_property)]
    header: Vec<(String, String)>,

    /// The partition to write to [default: by the key's hash as Java clients do, or any]
    #[arg(short, long)]
    partition: Option<i32>,

    /// Compression codec
    #[arg(short = 'z', long, value_enum)]
    compression: Option<Codec>,

    /// Which acknowledgement to wait for: none, the leader's, or all in-sync replicas' [default: all]
    #[arg(long, value_enum)]
    acks: Option<Acks>,

    /// Whether a retry can be told from a new record [default: true, false unless acks=all]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    idempotent: Option<bool>,

    /// Stop after this many lines
    #[arg(short = 'n', long, value_name = "COUNT")]
    count: Option<u64>,

    /// How a line is made up of %k key, %v value, %h headers, %p partition, %T timestamp,
    /// as in '%k:%v'
    #[arg(short = 'f', long, value_name = "TEMPLATE")]
    template: Option<Template>,

    /// What a line is: text, or JSON as `oncelog consume --format json` prints it
    #[arg(long, value_enum, default_value_t = Input::Text)]
    input: Input,

    /// An empty value is a null value (a tombstone)
    #[arg(short = 'Z', long)]
    empty_as_null: bool,

    /// How long to try each record for, as 30s or 2m [default: 30s]
    #[arg(long)]
    timeout: Option<SignedDuration>,
}

/// Clap takes a bare `Vec` for a repeatable option.
type Delimiter = std::vec::Vec<u8>;

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Codec {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

impl Codec {
    /// librdkafka's word.
    fn setting(self) -> &'static str {
        match self {
            Codec::None => "none",
            Codec::Gzip => "gzip",
            Codec::Snappy => "snappy",
            Codec::Lz4 => "lz4",
            Codec::Zstd => "zstd",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Acks {
    #[value(name = "0")]
    None,
    #[value(name = "1")]
    Leader,
    All,
}

impl Acks {
    /// librdkafka's word.
    fn setting(self) -> &'static str {
        match self {
            Acks::None => "0",
            Acks::Leader => "1",
            Acks::All => "all",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Input {
    Text,
    Json,
}

pub fn run(options: &Options, args: &Args) -> Result<()> {
    let topic = args
        .topic
        .as_deref()
        .or(args.topic_option.as_deref())
        .ok_or_else(|| Failure::usage("no topic is given"))?;
    let shape = shape(args)?;
    let acks = acks(options, args)?;
    let interrupt = Interrupt::install()?;
    reach::first_reachable(options)?;
    let deliveries = Deliveries::new(acks != Acks::None, options);
    let tally = deliveries.tally();
    let settings = settings(options, args, acks)?;
    let forced: Vec<(&str, &str)> = settings
        .iter()
        .map(|(key, value)| (*key, value.as_str()))
        .collect();
    let config = client::config(options, &defaults(), &forced);
    let producer: BaseProducer<Deliveries> = client::create(&config, deliveries)?;
    await_topic(&producer, topic, options)?;

    let lines = read_lines(args.count);
    let outcome = send_all(&producer, topic, args, &shape, &lines, &interrupt);
    // Whatever stopped the reading: what was sent is waited for, and reported.
    while producer.in_flight_count() > 0 {
        producer.poll(Duration::from_millis(100));
    }
    let tally = tally
        .lock()
        .map_err(|_| Failure::refused("the tally is lost"))?;
    tally.print(options.json())?;
    outcome?;
    match tally.failure() {
        Some(failure) => Err(failure.into()),
        None => Ok(()),
    }
}

fn shape(args: &Args) -> Result<Shape, Failure> {
    let has_text_shape = args.key_delimiter.is_some() || args.template.is_some();
    if args.input == Input::Json && has_text_shape {
        return Err(Failure::usage("--input json excludes -K and -f"));
    }
    Ok(match (&args.key_delimiter, &args.template, args.input) {
        (_, _, Input::Json) => Shape::Json,
        (Some(delimiter), _, _) => Shape::KeyDelimiter(delimiter.clone()),
        (None, Some(template), _) => Shape::Fields(input::Fields::new(template)?),
        (None, None, _) => Shape::Value,
    })
}

/// The acks in force, wherever they were set.
fn acks(options: &Options, args: &Args) -> Result<Acks, Failure> {
    if let Some(acks) = args.acks {
        return Ok(acks);
    }
    match options
        .property("acks")
        .or(options.property("request.required.acks"))
    {
        None | Some("all" | "-1") => Ok(Acks::All),
        Some("1") => Ok(Acks::Leader),
        Some("0") => Ok(Acks::None),
        Some(other) => Err(Failure::usage(format!(
            "-X acks={other} is not 0, 1 or all"
        ))),
    }
}

fn defaults() -> [(&'static str, &'static str); 2] {
    // Java clients' choice of partition, so that a key stays where other producers put it.
    [
        ("partitioner", "murmur2_random"),
        ("message.timeout.ms", RECORD_TIMEOUT_DEFAULT),
    ]
}

/// What the flags set, over `-X`.
fn settings(
    options: &Options,
    args: &Args,
    acks: Acks,
) -> Result<Vec<(&'static str, String)>, Failure> {
    let by_property = options
        .property("enable.idempotence")
        .map(|value| value == "true");
    let asked = args.idempotent.or(by_property);
    if asked == Some(true) && acks != Acks::All {
        return Err(Failure::usage("an idempotent producer needs --acks all")
            .why("with fewer acks a retry could not be told from a record that was lost"));
    }
    let idempotent = asked.unwrap_or(acks == Acks::All);
    let mut settings = vec![
        ("enable.idempotence", idempotent.to_string()),
        ("acks", acks.setting().to_owned()),
    ];
    if let Some(codec) = args.compression {
        settings.push(("compression.codec", codec.setting().to_owned()));
    }
    if let Some(timeout) = args.timeout {
        let ms = timeout.as_millis();
        if !(1..=i128::from(i32::MAX)).contains(&ms) {
            return Err(Failure::usage("--timeout must be from 1ms to 24 days"));
        }
        settings.push(("message.timeout.ms", ms.to_string()));
    }
    Ok(settings)
}

/// Waits until the topic has metadata: it exists, or the broker creates it because it was asked for.
fn await_topic(
    producer: &BaseProducer<Deliveries>,
    topic: &str,
    options: &Options,
) -> Result<(), Failure> {
    let started = Instant::now();
    let trouble = producer.context().trouble();
    loop {
        producer.poll(Duration::ZERO);
        let metadata = producer
            .client()
            .fetch_metadata(Some(topic), options.request_timeout())
            .map_err(|error| {
                producer.poll(Duration::ZERO);
                client::unanswered(&format!("cannot write to topic {topic}"), &error, trouble)
            })?;
        let error = metadata.topics().first().and_then(|topic| topic.error());
        match error.map(RDKafkaErrorCode::from) {
            None => return Ok(()),
            Some(
                RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::UnknownTopic
                | RDKafkaErrorCode::LeaderNotAvailable,
            ) if started.elapsed() < TOPIC_APPEARS => {
                std::thread::sleep(Duration::from_millis(200))
            }
            Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
                return Err(client::no_such_topic(topic));
            }
            Some(code) => {
                return Err(Failure::refused(format!("cannot write to topic {topic}"))
                    .why(code.to_string()));
            }
        }
    }
}

/// Reads standard input on a thread of its own, so that acknowledgements are seen while it is quiet.
/// The channel's bound keeps a fast input from filling memory.
fn read_lines(count: Option<u64>) -> Receiver<Line> {
    let (sender, receiver) = mpsc::sync_channel(1024);
    std::thread::spawn(move || input::read(std::io::stdin().lock(), count, &sender));
    receiver
}

fn send_all(
    producer: &BaseProducer<Deliveries>,
    topic: &str,
    args: &Args,
    shape: &Shape,
    lines: &Receiver<Line>,
    interrupt: &Interrupt,
) -> Result<(), Failure> {
    let mut number: u64 = 0;
    while !interrupt.asked() {
        let line = match lines.recv_timeout(Duration::from_millis(50)) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) => {
                producer.poll(Duration::ZERO);
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        };
        number += 1;
        let at_line =
            |why: String| Failure::refused(format!("line {number} cannot be sent")).why(why);
        let mut record = line.and_then(|line| shape.parse(line)).map_err(at_line)?;
        complete(&mut record, args);
        send(producer, topic, &record)?;
        producer.poll(Duration::ZERO);
    }
    Ok(())
}

/// Adds what the flags say about every record.
fn complete(record: &mut Record, args: &Args) {
    if let Some(key) = &args.key {
        record.key = Some(key.clone().into_bytes());
    }
    if args.empty_as_null && record.value.as_ref().is_some_and(Vec::is_empty) {
        record.value = None;
    }
    for (name, value) in &args.header {
        record
            .headers
            .push((name.clone(), Some(value.clone().into_bytes())));
    }
    record.partition = args.partition.or(record.partition);
}

/// Hands one record to librdkafka, waiting while its queue is full. What it refuses at once counts in
/// the tally as any other refusal; only an error that ends the producer is returned.
fn send(producer: &BaseProducer<Deliveries>, topic: &str, record: &Record) -> Result<(), Failure> {
    let mut base: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(topic);
    base.key = record.key.as_deref();
    base.payload = record.value.as_deref();
    base.partition = record.partition;
    base.timestamp = record.timestamp;
    if !record.headers.is_empty() {
        let mut headers = OwnedHeaders::new_with_capacity(record.headers.len());
        for (name, value) in &record.headers {
            headers = headers.insert(Header {
                key: name,
                value: value.as_deref(),
            });
        }
        base.headers = Some(headers);
    }
    loop {
        match producer.send(base) {
            Ok(()) => {
                producer.context().with(|tally: &mut Tally| tally.sent += 1);
                return Ok(());
            }
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                base = back;
                producer.poll(Duration::from_millis(100));
            }
            Err((error, _)) => {
                if let Some((code, reason)) = producer.client().fatal_error() {
                    return Err(Failure::new(Exit::Failed, "the producer had to stop")
                        .why(format!("{reason} ({code})")));
                }
                producer.context().with(|tally: &mut Tally| {
                    tally.sent += 1;
                    tally.count_error(&error);
                });
                return Ok(());
            }
        }
    }
}
