//! `-o` against a real partition: which offset to begin with.

use std::time::{SystemTime, UNIX_EPOCH};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Offset, TopicPartitionList};

use crate::client::{self, Quiet, Trouble};
use crate::failure::Failure;
use crate::offset::Position;
use crate::options::Options;

/// The partitions of `topic` to read: `wanted`, or all of them if that is empty.
///
/// Errors: the topic does not exist, or one of `wanted` does not.
pub fn partitions(
    consumer: &BaseConsumer<Quiet>,
    topic: &str,
    wanted: &[i32],
    options: &Options,
    trouble: &Trouble,
) -> Result<Vec<i32>, Failure> {
    let metadata = client::topic_metadata(consumer, topic, options, trouble)?;
    let mut existing: Vec<i32> = metadata
        .topics()
        .iter()
        .flat_map(|topic| topic.partitions())
        .map(|partition| partition.id())
        .collect();
    existing.sort_unstable();
    if let Some(missing) = wanted
        .iter()
        .find(|partition| !existing.contains(partition))
    {
        return Err(
            Failure::refused(format!("topic {topic} has no partition {missing}")).why(format!(
                "it has {} partitions, numbered from 0",
                existing.len()
            )),
        );
    }
    Ok(if wanted.is_empty() {
        existing
    } else {
        wanted.to_vec()
    })
}

/// Errors: the cluster does not answer, or an absolute offset lies outside the partition.
pub fn resolve(
    consumer: &BaseConsumer<Quiet>,
    topic: &str,
    partition: i32,
    start: Position,
    options: &Options,
    trouble: &Trouble,
) -> Result<Offset, Failure> {
    let watermarks = || {
        consumer
            .fetch_watermarks(topic, partition, options.request_timeout())
            .map_err(|error| {
                let what = format!("cannot read the offsets of {topic} partition {partition}");
                client::unanswered(&what, &error, trouble)
            })
    };
    Ok(match start {
        Position::Start => Offset::Beginning,
        Position::End => Offset::End,
        Position::AfterStart(count) => {
            let (low, high) = watermarks()?;
            Offset::Offset(low.saturating_add(count).min(high))
        }
        Position::BeforeEnd(count) => {
            let (low, high) = watermarks()?;
            Offset::Offset(high.saturating_sub(count).max(low))
        }
        Position::Offset(offset) => {
            let (low, high) = watermarks()?;
            if !(low..=high).contains(&offset) {
                return Err(Failure::refused(format!(
                    "{topic} partition {partition} has no offset {offset}"
                ))
                .why(format!(
                    "its first offset is {low}, the next to be written is {high}"
                ))
                .next("use -o start or -o end, or name partitions with -p"));
            }
            Offset::Offset(offset)
        }
        Position::At(time) => at(
            consumer,
            topic,
            partition,
            time.resolve_ms(now_ms()),
            options,
            trouble,
        )?,
    })
}

/// The first record at or after a time, the end if there is none.
fn at(
    consumer: &BaseConsumer<Quiet>,
    topic: &str,
    partition: i32,
    timestamp_ms: i64,
    options: &Options,
    trouble: &Trouble,
) -> Result<Offset, Failure> {
    let what = format!("cannot look up the time in {topic} partition {partition}");
    let failed = |error| client::unanswered(&what, &error, trouble);
    let mut times = TopicPartitionList::new();
    times
        .add_partition_offset(topic, partition, Offset::Offset(timestamp_ms.max(0)))
        .map_err(failed)?;
    let found = consumer
        .offsets_for_times(times, options.request_timeout())
        .map_err(failed)?;
    let element = found
        .find_partition(topic, partition)
        .ok_or_else(|| Failure::refused(what.as_str()).why("the answer left the partition out"))?;
    element.error().map_err(failed)?;
    Ok(match element.offset() {
        Offset::Offset(offset) if offset >= 0 => Offset::Offset(offset),
        _ => Offset::End,
    })
}

fn now_ms() -> i64 {
    let since_epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX)
}
