//! Counting what is there: a fresh consumer reads a whole topic.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};
use serde_json::{Value, json};

use super::stream::{Level, Sent, number_of};
use crate::client::Quiet;
use crate::failure::Failure;

const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub struct Tally {
    pub level: Level,
    pub sent: u32,
    pub acknowledged: usize,
    /// Records in the topic, duplicates included.
    pub read: usize,
    pub lost: usize,
    pub duplicated: usize,
    /// First occurrences that stand after a larger number.
    pub reordered: usize,
}

impl Tally {
    pub fn count(sent: &Sent, bootstrap: &str) -> Result<Tally, Failure> {
        let numbers = read_all(sent.level.topic(), bootstrap).map_err(|error| {
            let what = format!("{} could not be read back", sent.level.topic());
            Failure::refused(what).why(error.to_string())
        })?;
        let mut times = BTreeMap::<u32, usize>::new();
        let (mut reordered, mut largest) = (0, None);
        for number in &numbers {
            let seen = times.entry(*number).or_default();
            *seen += 1;
            if *seen == 1 && largest > Some(*number) {
                reordered += 1;
            }
            largest = largest.max(Some(*number));
        }
        let lost = match sent.level {
            Level::AtMostOnce => (0..sent.count).filter(|n| !times.contains_key(n)).count(),
            _ => sent
                .acknowledged
                .iter()
                .filter(|n| !times.contains_key(n))
                .count(),
        };
        Ok(Tally {
            level: sent.level,
            sent: sent.count,
            acknowledged: sent.acknowledged.len(),
            read: numbers.len(),
            lost,
            duplicated: times.values().map(|seen| seen - 1).sum(),
            reordered,
        })
    }

    /// What this level promises and the figures contradict, if anything.
    pub fn broken_promise(&self) -> Option<String> {
        let (lost, duplicated, reordered) = (self.lost, self.duplicated, self.reordered);
        let settings = self.level.settings();
        match self.level {
            Level::AtMostOnce if duplicated > 0 => {
                Some(format!("{settings}: {duplicated} records are there twice"))
            }
            Level::AtLeastOnce if lost > 0 => {
                Some(format!("{settings}: {lost} acknowledged records are gone"))
            }
            Level::Idempotent if lost + duplicated + reordered > 0 => Some(format!(
                "{settings}: {lost} acknowledged records lost, {duplicated} duplicated, \
                 {reordered} reordered"
            )),
            _ => None,
        }
    }

    pub fn to_json(&self) -> Value {
        json!({
            "producer": self.level.settings(),
            "sent": self.sent,
            "acknowledged": self.acknowledged,
            "read": self.read,
            "lost": self.lost,
            "duplicated": self.duplicated,
            "reordered": self.reordered,
        })
    }
}

fn read_all(topic: &str, bootstrap: &str) -> Result<Vec<u32>, KafkaError> {
    let consumer: BaseConsumer<Quiet> = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", "demo-tally")
        .set("enable.auto.commit", "false")
        .set("check.crcs", "true")
        .create_with_context(Quiet::default())?;
    let (start, end) = consumer.fetch_watermarks(topic, 0, PATIENCE)?;
    let mut assignment = TopicPartitionList::new();
    assignment.add_partition_offset(topic, 0, Offset::Offset(start))?;
    consumer.assign(&assignment)?;
    let mut numbers = Vec::new();
    let (mut next, mut progress) = (start, Instant::now());
    while next < end && progress.elapsed() < PATIENCE {
        match consumer.poll(Duration::from_millis(200)) {
            Some(Ok(message)) => {
                next = message.offset() + 1;
                numbers.extend(number_of(message.payload()));
                progress = Instant::now();
            }
            Some(Err(error)) => return Err(error),
            None => {}
        }
    }
    Ok(numbers)
}
