//! What a broker must know: a list of records for each partition, and who wrote them.

use crate::requests::Topic;
use oncelog_wire::ErrorCode;
use std::collections::{BTreeMap, VecDeque};

/// Batches of a producer that a partition recognises when they come again.
const WINDOW: usize = 5;

#[derive(Default)]
pub struct Model {
    /// By the number that operations have for a topic.
    pub topics: BTreeMap<u8, Known>,
    /// Offsets by group, topic and partition.
    pub committed: BTreeMap<(String, u8, i32), i64>,
}

pub struct Known {
    pub topic: Topic,
    pub partitions: Vec<Log>,
    pub max_message_bytes: usize,
}

#[derive(Default)]
pub struct Log {
    pub start: i64,
    /// Offset 0 first; those below `start` are deleted.
    pub records: Vec<Written>,
    producers: BTreeMap<i64, Producer>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Written {
    pub timestamp: i64,
    pub value: String,
}

#[derive(Default)]
struct Producer {
    epoch: i16,
    window: VecDeque<Sent>,
}

/// A batch of an idempotent producer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sent {
    pub epoch: i16,
    pub sequence: i32,
    pub count: i32,
    pub base_offset: i64,
}

impl Log {
    pub fn end(&self) -> i64 {
        self.records.len() as i64
    }

    /// The batches of a producer that may come again, oldest first.
    pub fn window(&self, id: i64) -> Vec<Sent> {
        let producer = self.producers.get(&id);
        producer.map_or(Vec::new(), |producer| {
            producer.window.iter().copied().collect()
        })
    }

    pub fn newest_epoch(&self, id: i64) -> i16 {
        self.producers.get(&id).map_or(0, |producer| producer.epoch)
    }

    /// What the answer must be: an error, or a base offset. Takes in what is appended.
    ///
    /// `from`: producer id and batch. `fits`: the batch is not too large.
    pub fn append(
        &mut self,
        from: Option<(i64, Sent)>,
        records: Vec<Written>,
        fits: bool,
    ) -> Result<i64, ErrorCode> {
        if let Some((id, sent)) = from {
            let same = |old: &&Sent| {
                (old.epoch, old.sequence, old.count) == (sent.epoch, sent.sequence, sent.count)
            };
            if let Some(original) = self.window(id).iter().find(same) {
                return Ok(original.base_offset);
            }
        }
        if !fits {
            return Err(ErrorCode::MessageTooLarge);
        }
        if let Some((id, sent)) = from {
            self.check_sequence(id, &sent)?;
        }
        let base_offset = self.end();
        if let Some((id, sent)) = from {
            let producer = self.producers.entry(id).or_default();
            if producer.epoch != sent.epoch {
                *producer = Producer::default();
            }
            producer.epoch = sent.epoch;
            producer.window.push_back(Sent {
                base_offset,
                ..sent
            });
            if producer.window.len() > WINDOW {
                producer.window.pop_front();
            }
        }
        self.records.extend(records);
        Ok(base_offset)
    }

    fn check_sequence(&self, id: i64, sent: &Sent) -> Result<(), ErrorCode> {
        let Some(producer) = self.producers.get(&id) else {
            return Ok(()); // nothing is known of it
        };
        if sent.epoch < producer.epoch {
            return Err(ErrorCode::InvalidProducerEpoch);
        }
        let last = producer.window.back().expect("it has written");
        let expected = match sent.epoch == producer.epoch {
            true => last.sequence + last.count,
            false => 0,
        };
        match sent.sequence == expected {
            true => Ok(()),
            false => Err(ErrorCode::OutOfOrderSequenceNumber),
        }
    }

    /// The first record from the start on that is not older.
    pub fn at_time(&self, timestamp: i64) -> Option<i64> {
        let mut offsets = self.start..self.end();
        offsets.find(|offset| self.records[*offset as usize].timestamp >= timestamp)
    }
}
