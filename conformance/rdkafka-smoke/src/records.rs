//! Producing and reading by assign: acks, codecs, shapes of records, time.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{
    BorrowedMessage, DeliveryResult, Header, Headers, Message, OwnedHeaders, Timestamp,
};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::{ClientContext, config::FromClientConfigAndContext};

use crate::checks::{Checks, equal, wait_for};
use crate::cluster::{Cluster, TIMEOUT, refused};

type Pair = (String, Option<Vec<u8>>);

#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    pub partition: i32,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<Pair>,
    pub timestamp_ms: i64,
}

pub fn run(checks: &mut Checks, cluster: &Cluster) {
    for acks in ["0", "1", "all"] {
        checks.run(&format!("produce-acks-{acks}"), || {
            produce_and_read(cluster, &format!("acks-{acks}"), &[("acks", acks)])
        });
    }
    checks.run("produce-idempotent", || {
        produce_and_read(cluster, "idempotent", &[("enable.idempotence", "true")])
    });
    for codec in ["gzip", "snappy", "lz4", "zstd"] {
        let settings = [("compression.codec", codec), ("linger.ms", "50")];
        checks.run(&format!("codec-{codec}"), || {
            produce_and_read(cluster, &format!("codec-{codec}"), &settings)
        });
    }
    checks.run("order-idempotent", || order(cluster));
    checks.run("record-too-large", || too_large(cluster));
    checks.run("large-record", || large_record(cluster));
    checks.run("log-append-time", || log_append_time(cluster));
    checks.run("offsets-by-time", || offsets_by_time(cluster));
    checks.run("seek-pause-resume", || seek_and_pause(cluster));
}

/// Delivery reports in the order that they came: (which record, its offset).
#[derive(Clone, Default)]
struct Reports(Arc<Mutex<Vec<Report>>>);

type Report = (usize, Result<i64, KafkaError>);

impl ClientContext for Reports {}

impl ProducerContext for Reports {
    type DeliveryOpaque = Box<usize>;

    fn delivery(&self, result: &DeliveryResult<'_>, place: Box<usize>) {
        let offset = match result {
            Ok(message) => Ok(message.offset()),
            Err((error, _)) => Err(error.clone()),
        };
        self.0.lock().unwrap().push((*place, offset));
    }
}

/// Sends the records and returns the acknowledged offsets, as sent.
pub fn send(
    cluster: &Cluster,
    topic: &str,
    records: &[Record],
    settings: &[(&str, &str)],
) -> Result<Vec<i64>> {
    let mut config = cluster.client(&[("message.max.bytes", "2000000")]);
    for (key, value) in settings {
        config.set(*key, *value);
    }
    let reports = Reports::default();
    let producer = ThreadedProducer::from_config_and_context(&config, reports.clone())?;
    for (place, record) in records.iter().enumerate() {
        let mut headers = OwnedHeaders::new();
        for (key, value) in &record.headers {
            headers = headers.insert(Header {
                key,
                value: value.as_ref(),
            });
        }
        let mut message = BaseRecord::with_opaque_to(topic, Box::new(place))
            .partition(record.partition)
            .timestamp(record.timestamp_ms)
            .headers(headers);
        message.key = record.key.as_ref();
        message.payload = record.value.as_ref();
        producer.send(message).map_err(|(error, _)| error)?;
    }
    producer.flush(TIMEOUT)?;
    let mut found = std::mem::take(&mut *reports.0.lock().unwrap());
    found.sort_by_key(|(place, _)| *place);
    equal(found.len(), records.len(), "delivery reports")?;
    Ok(found
        .into_iter()
        .map(|(_, offset)| offset)
        .collect::<Result<_, _>>()?)
}

pub fn send_numbers(cluster: &Cluster, topic: &str, numbers: std::ops::Range<i32>) -> Result<()> {
    let records: Vec<Record> = numbers.map(|i| plain(i % 4, &i.to_string())).collect();
    send(cluster, topic, &records, &[])?;
    Ok(())
}

pub fn plain(partition: i32, value: &str) -> Record {
    Record {
        partition,
        key: None,
        value: Some(value.into()),
        headers: Vec::new(),
        timestamp_ms: 1_700_000_000_000,
    }
}

fn owned(message: &BorrowedMessage<'_>) -> Record {
    let headers = message
        .headers()
        .into_iter()
        .flat_map(|headers| headers.iter());
    Record {
        partition: message.partition(),
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        headers: headers
            .map(|h| (h.key.to_owned(), h.value.map(<[u8]>::to_vec)))
            .collect(),
        timestamp_ms: match message.timestamp() {
            Timestamp::CreateTime(ms) => ms,
            _ => -1,
        },
    }
}

/// Everything in partition 0, by assign from the beginning, with offsets.
pub fn read_all(cluster: &Cluster, topic: &str, isolation: &str) -> Result<Vec<(i64, Record)>> {
    let unused = cluster.name("unused");
    let consumer: BaseConsumer = cluster
        .client(&[
            ("group.id", &unused),
            ("enable.auto.commit", "false"),
            ("isolation.level", isolation),
            ("check.crcs", "true"),
        ])
        .create()?;
    let mut assignment = TopicPartitionList::new();
    assignment.add_partition_offset(topic, 0, Offset::Beginning)?;
    consumer.assign(&assignment)?;
    let (low, end) = consumer.fetch_watermarks(topic, 0, TIMEOUT)?;
    let mut found = Vec::new();
    let started = Instant::now();
    let mut next = low;
    while next < end {
        if started.elapsed() > TIMEOUT {
            bail!("{topic}: read to {next} of {end} within 30 s");
        }
        if let Some(message) = consumer.poll(Duration::from_millis(200)) {
            let message = message?;
            next = message.offset() + 1;
            found.push((message.offset(), owned(&message)));
        }
    }
    Ok(found)
}

/// Each shape of record that codecs get wrong.
fn awkward() -> Vec<Record> {
    let bytes = |text: &str| Some(text.as_bytes().to_vec());
    let mut state = 7u64;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 56) as u8
    })
    .take(900_000)
    .collect();
    let header = |key: &str, value: Option<&[u8]>| (key.to_owned(), value.map(<[u8]>::to_vec));
    let twice = vec![
        header("h", Some(b"1")),
        header("other", Some(&[0, 255])),
        header("h", Some(b"2")),
        header("h", Some(b"1")),
    ];
    let hollow = vec![header("null", None), header("empty", Some(b""))];
    let shapes = [
        (bytes("key"), bytes("value"), vec![]),
        (None, bytes("no key"), vec![]),
        (bytes("tombstone"), None, vec![]),
        (bytes(""), bytes(""), vec![]),
        (None, None, vec![]),
        (bytes("headers"), bytes("v"), twice),
        (bytes("hollow headers"), bytes("v"), hollow),
        (bytes("schlüssel ✓"), Some((0..=255).collect()), vec![]),
        (bytes("large"), Some(noise), vec![]),
        (bytes("zeros"), Some(vec![0; 300_000]), vec![]),
        (bytes("last"), bytes("end"), vec![]),
    ];
    let mut records = Vec::new();
    for (i, (key, value, headers)) in shapes.into_iter().enumerate() {
        let timestamp_ms = 1_700_000_000_000 + 1000 * i as i64;
        records.push(Record {
            partition: 0,
            key,
            value,
            headers,
            timestamp_ms,
        });
    }
    records
}

fn produce_and_read(cluster: &Cluster, what: &str, settings: &[(&str, &str)]) -> Result<()> {
    let topic = cluster.topic(what, 1, &[])?;
    let sent = awkward();
    let offsets = send(cluster, &topic, &sent, settings)?;
    let want: Vec<i64> = (0..sent.len() as i64).collect();
    if settings != [("acks", "0")] {
        equal(offsets, want.clone(), "acknowledged offsets")?;
    }
    wait_for("everything in the log", || {
        Ok(read_all(cluster, &topic, "read_uncommitted")?.len() == sent.len())
    })?;
    let (got_offsets, got): (Vec<i64>, Vec<Record>) = read_all(cluster, &topic, "read_committed")?
        .into_iter()
        .unzip();
    equal(got_offsets, want, "offsets")?;
    for (i, (got, sent)) in got.iter().zip(&sent).enumerate() {
        equal(got, sent, &format!("record {i}"))?;
    }
    Ok(())
}

/// Thousands of small batches, five in flight: the log has them all, once, in order.
fn order(cluster: &Cluster) -> Result<()> {
    let topic = cluster.topic("order", 1, &[])?;
    let sent: Vec<Record> = (0..5000).map(|i| plain(0, &i.to_string())).collect();
    let settings = [
        ("enable.idempotence", "true"),
        ("batch.num.messages", "7"),
        ("linger.ms", "1"),
    ];
    send(cluster, &topic, &sent, &settings)?;
    let got: Vec<Record> = read_all(cluster, &topic, "read_uncommitted")?
        .into_iter()
        .map(|(_, r)| r)
        .collect();
    equal(got.len(), sent.len(), "records")?;
    equal(got == sent, true, "the order in the log is the order sent")
}

fn too_large(cluster: &Cluster) -> Result<()> {
    let topic = cluster.topic("small", 1, &[("max.message.bytes", "10000")])?;
    let mut big = plain(0, "");
    big.value = Some(vec![b'x'; 20_000]);
    refused(
        send(cluster, &topic, &[big], &[]),
        RDKafkaErrorCode::MessageSizeTooLarge,
        "a record above max.message.bytes",
    )
}

fn large_record(cluster: &Cluster) -> Result<()> {
    let topic = cluster.topic("huge", 1, &[("max.message.bytes", "8000000")])?;
    let mut huge = plain(0, "");
    huge.value = Some(
        (0..6_000_000u32)
            .map(|i| (i.wrapping_mul(i) >> 7) as u8)
            .collect(),
    );
    let settings = [("message.max.bytes", "8000000")];
    let offsets = send(cluster, &topic, std::slice::from_ref(&huge), &settings)?;
    equal(offsets, vec![0], "offset of 6 MB")?;
    let read = read_all(cluster, &topic, "read_uncommitted")?;
    equal(
        read == [(0, huge)],
        true,
        "the record is read as it was sent",
    )
}

fn log_append_time(cluster: &Cluster) -> Result<()> {
    let configs = [("message.timestamp.type", "LogAppendTime")];
    let topic = cluster.topic("append-time", 1, &configs)?;
    send(
        cluster,
        &topic,
        &[plain(0, "v")],
        &[("compression.codec", "zstd")],
    )?;
    let consumer = assigned(cluster, &topic, Offset::Beginning)?;
    let message = next(&consumer)?;
    let Timestamp::LogAppendTime(at) = message.timestamp() else {
        bail!("the timestamp is {:?}", message.timestamp());
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() as i64;
    equal(
        (now - 60_000..=now + 1_000).contains(&at),
        true,
        "it is the broker's time",
    )?;
    let mut times = TopicPartitionList::new();
    times.add_partition_offset(&topic, 0, Offset::Offset(at))?;
    let found = consumer.offsets_for_times(times, TIMEOUT)?;
    equal(
        found.elements()[0].offset(),
        Offset::Offset(0),
        "found by the broker's time",
    )
}

fn assigned(cluster: &Cluster, topic: &str, from: Offset) -> Result<BaseConsumer> {
    let unused = cluster.name("unused");
    let settings = [
        ("group.id", unused.as_str()),
        ("enable.auto.commit", "false"),
    ];
    let consumer: BaseConsumer = cluster.client(&settings).create()?;
    let mut assignment = TopicPartitionList::new();
    assignment.add_partition_offset(topic, 0, from)?;
    consumer.assign(&assignment)?;
    Ok(consumer)
}

fn next(consumer: &BaseConsumer) -> Result<BorrowedMessage<'_>> {
    let message = consumer.poll(TIMEOUT).context("no record within 30 s")?;
    Ok(message?)
}

fn seek_and_pause(cluster: &Cluster) -> Result<()> {
    let topic = cluster.topic("seek", 1, &[])?;
    let records: Vec<Record> = (0..50).map(|i| plain(0, &i.to_string())).collect();
    send(cluster, &topic, &records, &[])?;
    let consumer = assigned(cluster, &topic, Offset::Beginning)?;
    equal(next(&consumer)?.offset(), 0, "the first record")?;
    for at in [40, 3, 49, 0] {
        consumer.seek(&topic, 0, Offset::Offset(at), TIMEOUT)?;
        equal(next(&consumer)?.offset(), at, "the record sought")?;
    }
    let assignment = consumer.assignment()?;
    consumer.pause(&assignment)?;
    let paused = consumer.poll(Duration::from_secs(1));
    equal(paused.is_none(), true, "nothing is read while paused")?;
    consumer.resume(&assignment)?;
    for at in 1..50 {
        equal(next(&consumer)?.offset(), at, "once resumed")?;
    }
    Ok(())
}

fn offsets_by_time(cluster: &Cluster) -> Result<()> {
    let topic = cluster.topic("times", 1, &[])?;
    let base = 1_700_000_000_000;
    for i in 0..10 {
        let record = Record {
            timestamp_ms: base + i * 100,
            ..plain(0, &i.to_string())
        };
        send(cluster, &topic, &[record], &[])?;
    }
    let consumer: BaseConsumer = cluster.client(&[("group.id", "unused")]).create()?;
    for (at_ms, want) in [(base + 250, Offset::Offset(3)), (base + 5000, Offset::End)] {
        let mut times = TopicPartitionList::new();
        times.add_partition_offset(&topic, 0, Offset::Offset(at_ms))?;
        let found = consumer.offsets_for_times(times, TIMEOUT)?;
        equal(found.elements()[0].offset(), want, "offset for a time")?;
    }
    equal(
        consumer.fetch_watermarks(&topic, 0, TIMEOUT)?,
        (0, 10),
        "watermarks",
    )
}
