//! What a relay has made readable, seen from the other end of the topic.
//!
//! While it is measured, only the ends of the partitions are asked for (those of read_committed): a
//! consumer that reads along would take a core of two. It reads afterwards, and counts.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rdkafka::Message;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Headers;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::part::Part;
use super::{PARTITIONS, Setting};
use crate::broker::Broker;

/// A relay that has not brought anything for so long brings nothing more.
const LIMIT: Duration = Duration::from_secs(120);
/// After the last event that is looked for: whether there is one more.
const QUIET: Duration = Duration::from_millis(500);
const GLANCE: Duration = Duration::from_millis(1);

pub struct Arrivals {
    broker: Broker,
    bootstrap: String,
    topic: String,
}

/// A moment: when, and where the partitions ended.
pub struct Moment {
    pub at: Instant,
    pub ends: Vec<i64>,
    /// Of the relay, so far.
    pub cpu: Duration,
}

/// The first events that were seen, and the last ones.
pub struct Span {
    pub first: Moment,
    pub last: Moment,
}

/// Events that were read, and how many of them are before some ends.
pub struct Counted {
    pub events: u64,
    pub before: u64,
}

impl Arrivals {
    /// Makes the topic.
    pub fn prepare(setting: &Setting) -> Result<Arrivals> {
        let mut broker = Broker::connect(&setting.bootstrap)?;
        broker.create_topic(&setting.topic, PARTITIONS)?;
        Ok(Arrivals {
            broker,
            bootstrap: setting.bootstrap.clone(),
            topic: setting.topic.clone(),
        })
    }

    pub fn stable_ends(&mut self) -> Result<Vec<i64>> {
        self.broker.stable_ends(&self.topic, PARTITIONS)
    }

    pub fn await_change(&mut self, before: &[i64], relay: &mut Part) -> Result<Moment> {
        let began = Instant::now();
        loop {
            let ends = self.stable_ends()?;
            let at = Instant::now();
            if ends != before {
                let cpu = relay.process.cpu()?;
                return Ok(Moment { at, ends, cpu });
            }
            relay.check()?;
            ensure!(began.elapsed() < LIMIT, "no event arrives");
            std::thread::sleep(GLANCE);
        }
    }

    /// Watches until `events` have come after `before`, and no more do.
    pub fn watch(&mut self, before: &[i64], events: u64, relay: &mut Part) -> Result<Span> {
        let first = self.await_change(before, relay)?;
        let mut last = Moment {
            at: first.at,
            ends: first.ends.clone(),
            cpu: first.cpu,
        };
        let sum = |ends: &[i64]| ends.iter().sum::<i64>();
        let wanted = sum(before) + events.cast_signed();
        loop {
            let ends = self.stable_ends()?;
            let at = Instant::now();
            let since = at - last.at;
            if ends != last.ends {
                let cpu = relay.process.cpu()?;
                last = Moment { at, ends, cpu };
            } else if sum(&last.ends) >= wanted && since > QUIET {
                return Ok(Span { first, last });
            }
            relay.check()?;
            ensure!(since < LIMIT, "not all events arrive");
            std::thread::sleep(GLANCE);
        }
    }

    /// Reads from `from` to `until`, read_committed. Errors: an event is there twice.
    pub fn count(&self, from: &[i64], before: &[i64], until: &[i64]) -> Result<Counted> {
        let consumer = self.consumer(from)?;
        let mut seen: HashSet<Vec<u8>> = HashSet::new();
        let mut counted = Counted {
            events: 0,
            before: 0,
        };
        let mut open: HashSet<i32> = (0..PARTITIONS).collect();
        while !open.is_empty() {
            let message = match consumer.poll(LIMIT).context("no more can be read")? {
                Ok(message) => message,
                Err(KafkaError::PartitionEOF(partition)) => {
                    open.remove(&partition);
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            let partition = message.partition() as usize;
            ensure!(
                message.offset() < until[partition],
                "an event after the last one"
            );
            let headers = message.headers().context("an event without headers")?;
            let id = headers.iter().find(|header| header.key == "id");
            let id = id.and_then(|header| header.value);
            let id = id.context("an event without its id")?;
            ensure!(seen.insert(id.to_vec()), "an event is there twice");
            counted.events += 1;
            counted.before += u64::from(message.offset() < before[partition]);
        }
        Ok(counted)
    }

    /// With read_committed, from these offsets on; it meets the ends.
    pub fn consumer(&self, from: &[i64]) -> Result<BaseConsumer> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", &self.bootstrap)
            .set("group.id", "bench")
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .set("isolation.level", "read_committed")
            .set("socket.nagle.disable", "true")
            .create()?;
        let mut places = TopicPartitionList::new();
        for (partition, offset) in (0..).zip(from) {
            places.add_partition_offset(&self.topic, partition, Offset::Offset(*offset))?;
        }
        consumer.assign(&places)?;
        Ok(consumer)
    }
}
