//! What is judged: the records that a fresh reader finds at the end, against what producers were
//! told and what consumers saw on the way. Pure, so that the judge itself can be tested.
//!
//! Deliberately not judged here: committed offsets (`group.rs`, as they are seen) and topics that
//! come and go (`churn.rs`).

use std::collections::HashMap;
use std::fmt;

use crate::record::Stamp;

/// One topic as it was read from its beginning: by partition, then by offset.
pub type Log = Vec<Vec<Stamp>>;

/// What a producer's settings promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promise {
    /// acks=all, idempotent: once and in order.
    ExactlyOnce,
    /// acks=1 with retries, one request in flight: at least once, first copies in order.
    InOrder,
    /// acks=1 with retries, five requests in flight: at least once.
    AtLeastOnce,
}

/// A delivery report that said yes.
#[derive(Clone, Copy, Debug)]
pub struct Ack {
    pub partition: i32,
    pub offset: i64,
    pub number: u32,
}

/// One producer's side of the story.
#[derive(Clone, Debug)]
pub struct Sent {
    pub producer: u16,
    pub promise: Promise,
    /// Records handed to the client, by partition.
    pub counts: Vec<u32>,
    pub acks: Vec<Ack>,
    /// Delivery reports that said no.
    pub refused: Vec<String>,
}

#[derive(Clone, Debug, Default)]
pub struct Tally {
    pub sent: usize,
    pub acknowledged: usize,
    pub found: usize,
    pub lost: usize,
    /// Acknowledged at an offset where something else is.
    pub misplaced: usize,
    pub duplicated: usize,
    pub reordered: usize,
    /// In the log, and never sent.
    pub phantom: usize,
    pub refused: usize,
    /// Up to a few of the above, in words.
    pub examples: Vec<String>,
}

impl Tally {
    fn note(&mut self, example: impl FnOnce() -> String) {
        if self.examples.len() < 10 {
            self.examples.push(example());
        }
    }

    /// What was promised and is not so.
    pub fn broken(&self, promise: Promise) -> bool {
        let always = self.lost + self.misplaced + self.phantom + self.refused;
        always > 0
            || match promise {
                Promise::ExactlyOnce => self.duplicated + self.reordered > 0,
                Promise::InOrder => self.reordered > 0,
                Promise::AtLeastOnce => false,
            }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "sent {}, acknowledged {}, found {}, lost {}, misplaced {}, duplicated {}, \
             reordered {}, phantom {}, refused {}",
            self.sent,
            self.acknowledged,
            self.found,
            self.lost,
            self.misplaced,
            self.duplicated,
            self.reordered,
            self.phantom,
            self.refused
        )?;
        for example in &self.examples {
            write!(f, "\n      {example}")?;
        }
        Ok(())
    }
}

pub fn tally(log: &Log, sent: &Sent) -> Tally {
    let mut tally = Tally {
        sent: sent.counts.iter().map(|count| *count as usize).sum(),
        acknowledged: sent.acks.len(),
        refused: sent.refused.len(),
        ..Tally::default()
    };
    for why in &sent.refused {
        tally.note(|| format!("refused: {why}"));
    }
    let copies: Vec<HashMap<u32, u32>> = (0..log.len())
        .map(|partition| scan(&mut tally, log, sent, partition))
        .collect();
    for ack in &sent.acks {
        let stamp = Stamp {
            producer: sent.producer,
            number: ack.number,
        };
        let partition = ack.partition as usize;
        if !copies[partition].contains_key(&ack.number) {
            tally.lost += 1;
            tally.note(|| format!("lost: {ack:?} of producer {}", sent.producer));
        } else {
            let at = usize::try_from(ack.offset).ok();
            let there = at.and_then(|at| log[partition].get(at));
            if there != Some(&stamp) {
                tally.misplaced += 1;
                tally.note(|| format!("misplaced: {ack:?}, and there is {there:?}"));
            }
        }
    }
    tally
}

/// Counts the copies of each number in one partition, and notes what is wrong with their order.
fn scan(tally: &mut Tally, log: &Log, sent: &Sent, partition: usize) -> HashMap<u32, u32> {
    let mut copies = HashMap::new();
    let mut largest = None;
    let ours = log[partition].iter().enumerate();
    for (offset, stamp) in ours.filter(|(_, stamp)| stamp.producer == sent.producer) {
        let number = stamp.number;
        tally.found += 1;
        if number >= sent.counts[partition] {
            tally.phantom += 1;
            tally.note(|| format!("phantom: {stamp:?} at {partition}/{offset}"));
        }
        let times = copies.entry(number).or_insert(0u32);
        *times += 1;
        if *times > 1 {
            tally.duplicated += 1;
            if sent.promise == Promise::ExactlyOnce {
                tally.note(|| format!("duplicated: {stamp:?} again at {partition}/{offset}"));
            }
        } else if largest > Some(number) {
            tally.reordered += 1;
            if sent.promise != Promise::AtLeastOnce {
                tally.note(|| format!("reordered: {stamp:?} at {partition}/{offset}"));
            }
        }
        largest = largest.max(Some(number));
    }
    copies
}

/// What consumers saw of one topic while the broker was killed: by partition and offset.
#[derive(Default)]
pub struct Seen {
    partitions: Vec<Vec<Option<Stamp>>>,
    pub deliveries: usize,
    /// An offset that held one record and then another.
    pub conflicts: Vec<String>,
}

impl Seen {
    pub fn note(&mut self, partition: i32, offset: i64, stamp: Stamp) {
        let (partition, offset) = (partition as usize, offset as usize);
        if self.partitions.len() <= partition {
            self.partitions.resize_with(partition + 1, Vec::new);
        }
        let records = &mut self.partitions[partition];
        if records.len() <= offset {
            records.resize(offset + 1, None);
        }
        self.deliveries += 1;
        match records[offset].replace(stamp) {
            Some(before) if before != stamp => self.conflicts.push(format!(
                "{partition}/{offset} was {before:?} and then {stamp:?}"
            )),
            _ => {}
        }
    }

    /// Offsets of the log that no consumer saw.
    pub fn unread(&self, log: &Log) -> usize {
        let offsets = log.iter().enumerate().flat_map(|(partition, records)| {
            (0..records.len()).filter(move |offset| self.at(partition, *offset).is_none())
        });
        offsets.count()
    }

    /// Adds to `conflicts` what was seen and is not, or no longer, what the log holds.
    pub fn compare(&mut self, log: &Log) {
        for (partition, records) in self.partitions.iter().enumerate() {
            for (offset, seen) in records.iter().enumerate() {
                let there = log.get(partition).and_then(|log| log.get(offset));
                if seen.is_some() && seen.as_ref() != there {
                    self.conflicts.push(format!(
                        "{partition}/{offset} was read as {seen:?} and is {there:?}"
                    ));
                }
            }
        }
    }

    fn at(&self, partition: usize, offset: usize) -> Option<Stamp> {
        *self.partitions.get(partition)?.get(offset)?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One partition; producer 1 was told `acks` as (number, offset).
    fn check(log: &[u32], acks: &[(u32, i64)], promise: Promise) -> Tally {
        let stamp = |number: &u32| Stamp {
            producer: 1,
            number: *number,
        };
        let sent = Sent {
            producer: 1,
            promise,
            counts: vec![4],
            acks: acks
                .iter()
                .map(|(number, offset)| Ack {
                    partition: 0,
                    offset: *offset,
                    number: *number,
                })
                .collect(),
            refused: Vec::new(),
        };
        tally(&vec![log.iter().map(stamp).collect()], &sent)
    }

    #[test]
    fn each_kind_of_damage_is_found() {
        use Promise::*;
        let all = [(0, 0), (1, 1), (2, 2), (3, 3)];
        assert!(!check(&[0, 1, 2, 3], &all, ExactlyOnce).broken(ExactlyOnce));
        // Not acknowledged and there, or not there: both are allowed.
        assert!(!check(&[0, 1, 2, 3], &all[..2], ExactlyOnce).broken(ExactlyOnce));
        assert!(!check(&[0, 1], &all[..2], ExactlyOnce).broken(ExactlyOnce));
        let lost = check(&[0, 1, 2], &all, AtLeastOnce);
        assert!(lost.lost == 1 && lost.broken(AtLeastOnce), "{lost}");
        let moved = check(&[0, 0, 1, 2, 3], &all, AtLeastOnce);
        assert!(moved.misplaced == 3 && moved.broken(AtLeastOnce), "{moved}");
        let twice = check(&[0, 1, 2, 3, 3], &all, ExactlyOnce);
        assert!(
            twice.duplicated == 1 && twice.broken(ExactlyOnce),
            "{twice}"
        );
        assert!(!twice.broken(InOrder) && !twice.broken(AtLeastOnce));
        let order = check(&[0, 2, 1, 3], &[(0, 0), (3, 3)], InOrder);
        assert!(order.reordered == 1 && order.broken(InOrder), "{order}");
        assert!(!order.broken(AtLeastOnce));
        let phantom = check(&[0, 1, 2, 3, 4], &all, AtLeastOnce);
        assert!(phantom.phantom == 1 && phantom.broken(AtLeastOnce));
    }

    #[test]
    fn what_was_read_must_be_what_is_there() {
        let stamp = |number| Stamp {
            producer: 1,
            number,
        };
        let log = vec![vec![stamp(0), stamp(1)]];
        let mut seen = Seen::default();
        seen.note(0, 0, stamp(0));
        seen.note(0, 0, stamp(0));
        assert_eq!((seen.unread(&log), seen.deliveries), (1, 2));
        seen.note(0, 1, stamp(1));
        seen.compare(&log);
        assert_eq!((seen.unread(&log), seen.conflicts.len()), (0, 0));
        seen.note(0, 1, stamp(9));
        assert_eq!(seen.conflicts.len(), 1, "it was another record before");
        seen.note(0, 2, stamp(2));
        seen.compare(&log);
        assert_eq!(seen.conflicts.len(), 3, "it vanished: {:?}", seen.conflicts);
    }
}
