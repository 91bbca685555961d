//! Transactions through the crate: what readers of each isolation level see, and who is let on.
//!
//! librdkafka speaks the first protocol of transactions; conformance/python covers more of it. Here
//! is what the crate binds: every call, its errors (fatal, retriable, abortable), and a loop.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rdkafka::Message;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::checks::{Checks, equal, wait_for};
use crate::cluster::{Cluster, TIMEOUT};
use crate::records::{plain, send, send_numbers};

type Transactional = ThreadedProducer<DefaultProducerContext>;

const COMMITTED: &str = "read_committed";
const ALL: &str = "read_uncommitted";
const END: &str = "the end";

pub fn run(checks: &mut Checks, cluster: &Cluster) {
    checks.run("txn-commit-and-abort", || commit_and_abort(cluster));
    checks.run("txn-all-or-nothing", || all_or_nothing(cluster));
    checks.run("txn-empty", || empty(cluster));
    checks.run("txn-large", || large(cluster));
    checks.run("txn-zombie-is-fenced", || zombie_is_fenced(cluster));
    checks.run("txn-left-by-a-dead-instance", || {
        left_by_a_dead_instance(cluster)
    });
    checks.run("txn-timeout", || timeout(cluster));
    checks.run("txn-goes-on-after-abortable-error", || {
        goes_on_after_abortable_error(cluster)
    });
    checks.run("txn-consume-transform-produce", || {
        consume_transform_produce(cluster)
    });
}

/// A producer that has initialised its transactions, so that an older one is fenced.
fn producer(cluster: &Cluster, what: &str, more: &[(&str, &str)]) -> Result<Transactional> {
    let id = cluster.name(what);
    let mut config = cluster.client(&[("transactional.id", &id)]);
    for (key, value) in more {
        config.set(*key, *value);
    }
    let producer: Transactional = config.create()?;
    producer.init_transactions(TIMEOUT)?;
    Ok(producer)
}

fn write(producer: &Transactional, topic: &str, partition: i32, value: &str) -> Result<()> {
    loop {
        let record = BaseRecord::<(), _>::to(topic).partition(partition);
        match producer.send(record.payload(value)) {
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                std::thread::sleep(Duration::from_millis(20));
            }
            sent => return Ok(sent.map_err(|(error, _)| error)?),
        }
    }
}

fn end(producer: &Transactional, commit: bool) -> KafkaResult<()> {
    if commit {
        producer.commit_transaction(TIMEOUT)
    } else {
        producer.abort_transaction(TIMEOUT)
    }
}

fn reader(cluster: &Cluster, group: &str, isolation: &str) -> Result<BaseConsumer> {
    let settings = [
        ("group.id", group),
        ("enable.auto.commit", "false"),
        ("auto.offset.reset", "earliest"),
        ("isolation.level", isolation),
    ];
    Ok(cluster.client(&settings).create()?)
}

/// The last stable offset and the high watermark.
fn ends(cluster: &Cluster, topic: &str, partition: i32) -> Result<(i64, i64)> {
    let end = |isolation| -> Result<i64> {
        let reader = reader(cluster, "unused", isolation)?;
        Ok(reader.fetch_watermarks(topic, partition, TIMEOUT)?.1)
    };
    Ok((end(COMMITTED)?, end(ALL)?))
}

/// Markers are written after a commit has been answered; waits for them.
fn stable(cluster: &Cluster, topic: &str, partitions: i32) -> Result<()> {
    for partition in 0..partitions {
        wait_for(&format!("nothing open in {topic}-{partition}"), || {
            let (stable, high) = ends(cluster, topic, partition)?;
            Ok(stable == high)
        })?;
    }
    Ok(())
}

/// The values of a partition in which nothing is open, for readers of this isolation level. A plain
/// record is sent behind everything to know the end by: a reader is told neither of markers nor of
/// aborted records.
fn values(cluster: &Cluster, topic: &str, partition: i32, isolation: &str) -> Result<Vec<String>> {
    let [offset] = send(cluster, topic, &[plain(partition, END)], &[])?[..] else {
        bail!("one record has one offset");
    };
    let reader = reader(cluster, "unused", isolation)?;
    let mut assignment = TopicPartitionList::new();
    assignment.add_partition_offset(topic, partition, Offset::Beginning)?;
    reader.assign(&assignment)?;
    let mut found = Vec::new();
    let began = Instant::now();
    loop {
        if began.elapsed() > TIMEOUT {
            bail!("{topic}-{partition}: not read to offset {offset} within 30 s");
        }
        let Some(message) = reader.poll(Duration::from_millis(200)) else {
            continue;
        };
        let message = message?;
        let value = std::str::from_utf8(message.payload().context("a value")?)?;
        if value != END {
            found.push(value.to_owned());
        }
        if message.offset() >= offset {
            return Ok(found);
        }
    }
}

/// The committed offset of a partition, as a stable one or not.
fn committed(cluster: &Cluster, group: &str, topic: &str, isolation: &str) -> Result<Offset> {
    let reader = reader(cluster, group, isolation)?;
    let mut list = TopicPartitionList::new();
    list.add_partition(topic, 0);
    let found = reader.committed_offsets(list, TIMEOUT)?;
    Ok(found.elements()[0].offset())
}

fn send_offset(
    producer: &Transactional,
    reader: &BaseConsumer,
    topic: &str,
    offset: i64,
) -> Result<()> {
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset(topic, 0, Offset::Offset(offset))?;
    let group = reader.group_metadata().context("a group has metadata")?;
    Ok(producer.send_offsets_to_transaction(&offsets, &group, TIMEOUT)?)
}

fn commit_and_abort(cluster: &Cluster) -> Result<()> {
    let topic = cluster.topic("txn-commit", 1, &[])?;
    let producer = producer(cluster, "txn-commit", &[])?;
    let mut place = 0;
    let mut want = Vec::new();
    for commit in [true, false, true, false, false, true] {
        producer.begin_transaction()?;
        let written: Vec<String> = (0..5).map(|i| format!("{place}-{i}")).collect();
        for value in &written {
            write(&producer, &topic, 0, value)?;
        }
        producer.flush(TIMEOUT)?;
        equal(ends(cluster, &topic, 0)?, (place, place + 5), "while open")?;
        end(&producer, commit)?;
        stable(cluster, &topic, 1)?;
        place += 6; // and the marker
        equal(ends(cluster, &topic, 0)?, (place, place), "once it is over")?;
        if commit {
            want.extend(written);
        }
        equal(
            values(cluster, &topic, 0, COMMITTED)?,
            want.clone(),
            COMMITTED,
        )?;
        place += 1; // what marked the end for this reader
    }
    equal(values(cluster, &topic, 0, ALL)?.len(), 30, ALL)
}

fn all_or_nothing(cluster: &Cluster) -> Result<()> {
    let one = cluster.topic("txn-one", 3, &[])?;
    let two = cluster.topic("txn-two", 2, &[])?;
    let group = cluster.name("txn-whole");
    let member = reader(cluster, &group, COMMITTED)?;
    let producer = producer(cluster, "txn-whole", &[])?;
    let mut before = Offset::Invalid;
    for (turn, commit) in [false, true, false, true].into_iter().enumerate() {
        producer.begin_transaction()?;
        for i in 0..12 {
            write(&producer, &one, i % 3, &format!("{turn}-{i}"))?;
            write(&producer, &two, i % 2, &format!("{turn}-{i}"))?;
        }
        let at = 10 + turn as i64;
        send_offset(&producer, &member, &one, at)?;
        equal(committed(cluster, &group, &one, ALL)?, before, "while open")?;
        end(&producer, commit)?;
        if commit {
            before = Offset::Offset(at);
        }
        equal(
            committed(cluster, &group, &one, COMMITTED)?,
            before,
            "offset",
        )?;
    }
    for (topic, partitions) in [(&one, 3), (&two, 2)] {
        stable(cluster, topic, partitions)?;
        for partition in 0..partitions {
            let of = |turn: i32| {
                (partition..12)
                    .step_by(partitions as usize)
                    .map(move |i| (turn, i))
            };
            let want: Vec<String> =
                (of(1).chain(of(3)).map(|(turn, i)| format!("{turn}-{i}"))).collect();
            equal(values(cluster, topic, partition, COMMITTED)?, want, topic)?;
        }
    }
    Ok(())
}

fn empty(cluster: &Cluster) -> Result<()> {
    let topic = cluster.topic("txn-empty", 1, &[])?;
    let producer = producer(cluster, "txn-empty", &[])?;
    for commit in [true, false, true, false] {
        producer.begin_transaction()?;
        end(&producer, commit)?;
    }
    producer.begin_transaction()?;
    write(&producer, &topic, 0, "0")?;
    producer.commit_transaction(TIMEOUT)?;
    stable(cluster, &topic, 1)?;
    equal(
        ends(cluster, &topic, 0)?,
        (2, 2),
        "one record and its marker",
    )?;
    equal(
        values(cluster, &topic, 0, COMMITTED)?,
        vec!["0".to_owned()],
        "records",
    )
}

fn large(cluster: &Cluster) -> Result<()> {
    const COUNT: i32 = 30_000;
    let topic = cluster.topic("txn-large", 3, &[])?;
    let settings = [("linger.ms", "20"), ("compression.codec", "lz4")];
    let producer = producer(cluster, "txn-large", &settings)?;
    let value = |commit: bool, i: i32| format!("{commit}-{i}-{}", "x".repeat(150));
    for commit in [false, true] {
        producer.begin_transaction()?;
        for i in 0..COUNT {
            write(&producer, &topic, i % 3, &value(commit, i))?;
        }
        producer.flush(TIMEOUT)?;
        let (open, all) = ends(cluster, &topic, 2)?;
        equal(all - open, i64::from(COUNT / 3), "records that are open")?;
        end(&producer, commit)?;
        stable(cluster, &topic, 3)?;
    }
    for partition in 0..3 {
        let want = (partition..COUNT).step_by(3).map(|i| value(true, i));
        let got = values(cluster, &topic, partition, COMMITTED)?;
        equal(got.len(), want.len(), "committed records")?;
        equal(want.eq(got), true, "they are the ones, in order")?;
    }
    Ok(())
}

/// The call has to fail because another instance has taken over.
fn fenced(call: KafkaResult<()>, what: &str) -> Result<()> {
    match call {
        Err(KafkaError::Transaction(error)) => {
            equal(
                error.is_fatal(),
                true,
                &format!("{what} fails for good ({error})"),
            )?;
            equal(error.code(), RDKafkaErrorCode::Fenced, what)
        }
        other => bail!("{what}: {other:?}"),
    }
}

fn zombie_is_fenced(cluster: &Cluster) -> Result<()> {
    let topic = cluster.topic("txn-zombie", 1, &[])?;
    let group = cluster.name("txn-zombie");
    let member = reader(cluster, &group, COMMITTED)?;
    let zombie = producer(cluster, "txn-zombie", &[])?;
    zombie.begin_transaction()?;
    write(&zombie, &topic, 0, "zombie")?;
    zombie.flush(TIMEOUT)?;
    send_offset(&zombie, &member, &topic, 5)?;
    let heir = producer(cluster, "txn-zombie", &[])?;
    heir.begin_transaction()?;
    write(&heir, &topic, 0, "heir")?;
    fenced(zombie.commit_transaction(TIMEOUT), "a zombie's commit")?;
    heir.commit_transaction(TIMEOUT)?;
    stable(cluster, &topic, 1)?;
    let want = vec!["heir".to_owned()];
    equal(values(cluster, &topic, 0, COMMITTED)?, want, COMMITTED)?;
    equal(
        committed(cluster, &group, &topic, COMMITTED)?,
        Offset::Invalid,
        "its offset",
    )
}

fn left_by_a_dead_instance(cluster: &Cluster) -> Result<()> {
    let topic = cluster.topic("txn-dead", 1, &[])?;
    let dead = producer(cluster, "txn-dead", &[])?;
    dead.begin_transaction()?;
    write(&dead, &topic, 0, "dead")?;
    dead.flush(TIMEOUT)?;
    equal(ends(cluster, &topic, 0)?, (0, 1), "while open")?;
    // Its timeout is a minute: it is the new instance that aborts.
    let _heir = producer(cluster, "txn-dead", &[])?;
    stable(cluster, &topic, 1)?;
    equal(
        values(cluster, &topic, 0, COMMITTED)?,
        Vec::new(),
        COMMITTED,
    )
}

fn timeout(cluster: &Cluster) -> Result<()> {
    let topic = cluster.topic("txn-timeout", 1, &[])?;
    let late = producer(
        cluster,
        "txn-timeout",
        &[("transaction.timeout.ms", "2000")],
    )?;
    late.begin_transaction()?;
    write(&late, &topic, 0, "late")?;
    late.flush(TIMEOUT)?;
    stable(cluster, &topic, 1)?;
    match late.commit_transaction(TIMEOUT) {
        Err(KafkaError::Transaction(error)) => {
            equal(
                error.is_retriable(),
                false,
                "a late commit is no use trying again",
            )?;
        }
        other => bail!("a commit after the timeout: {other:?}"),
    }
    let producer = producer(cluster, "txn-timeout", &[])?;
    producer.begin_transaction()?;
    write(&producer, &topic, 0, "in time")?;
    producer.commit_transaction(TIMEOUT)?;
    stable(cluster, &topic, 1)?;
    let want = vec!["in time".to_owned()];
    equal(values(cluster, &topic, 0, COMMITTED)?, want, COMMITTED)
}

fn goes_on_after_abortable_error(cluster: &Cluster) -> Result<()> {
    let topic = cluster.topic("txn-small", 1, &[("max.message.bytes", "10000")])?;
    let producer = producer(cluster, "txn-small", &[])?;
    let mut want = Vec::new();
    for turn in 0..3 {
        producer.begin_transaction()?;
        write(&producer, &topic, 0, &"x".repeat(20_000))?;
        match producer.commit_transaction(TIMEOUT) {
            Err(KafkaError::Transaction(error)) if error.txn_requires_abort() => {}
            other => bail!("a commit with a refused record: {other:?}"),
        }
        producer.abort_transaction(TIMEOUT)?;
        let well = format!("well {turn}");
        let mut attempts = 0;
        while !committed_well(&producer, &topic, &well)? {
            attempts += 1;
            equal(attempts < 10, true, "the producer goes on")?;
        }
        want.push(well);
    }
    stable(cluster, &topic, 1)?;
    equal(values(cluster, &topic, 0, COMMITTED)?, want, COMMITTED)
}

/// The refused record leaves a gap in the sequence, which librdkafka may only find in the next
/// transaction; that one then wants an abort as well.
fn committed_well(producer: &Transactional, topic: &str, value: &str) -> Result<bool> {
    producer.begin_transaction()?;
    write(producer, topic, 0, value)?;
    match producer.commit_transaction(TIMEOUT) {
        Err(KafkaError::Transaction(error)) if error.txn_requires_abort() => {
            producer.abort_transaction(TIMEOUT)?;
            Ok(false)
        }
        committed => Ok(committed.map(|()| true)?),
    }
}

/// Doubles numbers from a topic to another; every third transaction is aborted and done again.
fn consume_transform_produce(cluster: &Cluster) -> Result<()> {
    const TOTAL: i32 = 400;
    let source = cluster.topic("txn-source", 4, &[])?;
    let sink = cluster.topic("txn-sink", 4, &[])?;
    let group = cluster.name("txn-loop");
    send_numbers(cluster, &source, 0..TOTAL)?;
    let consumer = reader(cluster, &group, COMMITTED)?;
    consumer.subscribe(&[&source])?;
    let producer = producer(cluster, "txn-loop", &[])?;
    let mut done = [0i64; 4];
    let mut turn = 0;
    let began = Instant::now();
    while done.iter().sum::<i64>() < i64::from(TOTAL) {
        if began.elapsed() > TIMEOUT {
            bail!("processed {done:?} of {TOTAL} within 30 s");
        }
        let mut batch = Vec::new();
        while batch.len() < 25
            && let Some(message) = consumer.poll(Duration::from_millis(200))
        {
            batch.push(message?.detach());
        }
        if batch.is_empty() {
            continue; // it is still joining
        }
        let mut ends = done;
        producer.begin_transaction()?;
        for message in batch {
            let text = std::str::from_utf8(message.payload().context("a value")?)?;
            let doubled = 2 * text.parse::<i32>()?;
            write(&producer, &sink, message.partition(), &doubled.to_string())?;
            ends[message.partition() as usize] = message.offset() + 1;
        }
        let mut offsets = TopicPartitionList::new();
        for (partition, offset) in (0..).zip(ends) {
            offsets.add_partition_offset(&source, partition, Offset::Offset(offset))?;
        }
        let metadata = consumer.group_metadata().context("it is in a group")?;
        producer.send_offsets_to_transaction(&offsets, &metadata, TIMEOUT)?;
        turn += 1;
        if turn % 3 == 0 {
            producer.abort_transaction(TIMEOUT)?;
            for (partition, offset) in (0..).zip(done) {
                consumer.seek(&source, partition, Offset::Offset(offset), TIMEOUT)?;
            }
        } else {
            producer.commit_transaction(TIMEOUT)?;
            done = ends;
        }
    }
    equal(
        committed(cluster, &group, &source, COMMITTED)?,
        Offset::Offset(i64::from(TOTAL / 4)),
        "committed offset",
    )?;
    stable(cluster, &sink, 4)?;
    for partition in 0..4 {
        let want: Vec<String> = (partition..TOTAL)
            .step_by(4)
            .map(|i| (2 * i).to_string())
            .collect();
        equal(
            values(cluster, &sink, partition, COMMITTED)?,
            want,
            "output",
        )?;
    }
    Ok(())
}
