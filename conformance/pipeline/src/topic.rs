//! What a reader of committed records finds in a topic in which nobody writes any more.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use crash_campaign::client::{self, PATIENCE, Quiet};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers, Message};
use rdkafka::{Offset, TopicPartitionList};

use crate::event::Body;
use crate::judge::Arrived;

/// Partition after partition, each in the order of its offsets. Errors: a transaction that nobody has
/// ended, an account in two partitions, a record without an id.
pub fn read(bootstrap: &str, topic: &str, partitions: i32) -> Result<Vec<Arrived>> {
    let mut all = Vec::new();
    for partition in 0..partitions {
        all.push(read_partition(bootstrap, topic, partition)?);
    }
    let mut homes = std::collections::HashMap::new();
    for (partition, records) in all.iter().enumerate() {
        for record in records {
            let home = homes.entry(record.account.as_str()).or_insert(partition);
            ensure!(
                *home == partition,
                "{} is in two partitions of {topic}",
                record.account
            );
        }
    }
    Ok(all.into_iter().flatten().collect())
}

fn read_partition(bootstrap: &str, topic: &str, partition: i32) -> Result<Vec<Arrived>> {
    let reader = reader(bootstrap)?;
    await_stable(bootstrap, &reader, topic, partition)?;
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, partition, Offset::Beginning)?;
    reader.assign(&list)?;
    let mut records = Vec::new();
    let mut progress = Instant::now();
    loop {
        match reader.poll(Duration::from_millis(200)) {
            Some(Ok(message)) => {
                progress = Instant::now();
                records.push(arrived(&message)?);
            }
            Some(Err(KafkaError::PartitionEOF(_))) => return Ok(records),
            Some(Err(error)) => bail!("reading {topic}-{partition}: {error}"),
            None => ensure!(
                progress.elapsed() < PATIENCE,
                "{topic}-{partition} stopped to come"
            ),
        }
    }
}

/// Until nothing is open: what is behind an open transaction would not be read.
fn await_stable(
    bootstrap: &str,
    committed: &BaseConsumer<Quiet>,
    topic: &str,
    partition: i32,
) -> Result<()> {
    let settings = [
        ("group.id", "judge"),
        ("isolation.level", "read_uncommitted"),
    ];
    let all: BaseConsumer<Quiet> =
        client::config(bootstrap, &settings).create_with_context(Quiet)?;
    let (_, end) = all.fetch_watermarks(topic, partition, PATIENCE)?;
    let began = Instant::now();
    while committed.fetch_watermarks(topic, partition, PATIENCE)?.1 < end {
        ensure!(
            began.elapsed() < PATIENCE,
            "a transaction in {topic}-{partition} hangs"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn reader(bootstrap: &str) -> Result<BaseConsumer<Quiet>> {
    let settings = [
        ("group.id", "judge"),
        ("enable.auto.commit", "false"),
        ("enable.partition.eof", "true"),
        ("isolation.level", "read_committed"),
        ("check.crcs", "true"),
    ];
    Ok(client::config(bootstrap, &settings).create_with_context(Quiet)?)
}

fn arrived(message: &impl Message) -> Result<Arrived> {
    let place = || format!("the record at {}@{}", message.partition(), message.offset());
    let ids = message
        .headers()
        .into_iter()
        .flat_map(|headers| headers.iter());
    let mut ids = ids.filter(|header| header.key == "id");
    let (Some(id), None) = (ids.next(), ids.next()) else {
        bail!("{} has not one header `id`", place());
    };
    let text =
        |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned();
    Ok(Arrived {
        id: text(id.value),
        account: text(message.key()),
        body: Body::of(message.payload()),
    })
}
