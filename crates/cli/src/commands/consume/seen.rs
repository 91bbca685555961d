//! Which offsets were read, and which were left out between them.
//!
//! A record is hidden only in a gap, so that nothing has to be asked where there is none.

use std::ops::Range;

use crate::admin::offsets::TopicPartition;

/// Gaps that are remembered; of more, the last ones are not looked into.
const GAPS_MAX: usize = 10_000;

/// Where reading a partition begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// At its first record.
    Start,
    Offset(i64),
    /// Wherever the group or the end of the log was.
    Unknown,
}

/// What was read of one partition.
#[derive(Debug)]
pub struct Read {
    pub partition: TopicPartition,
    pub from: From,
    /// The offset after the last record.
    pub next: Option<i64>,
    /// Offsets without a record that was shown, before `next`.
    pub gaps: Vec<Range<i64>>,
}

#[derive(Debug, Default)]
pub struct Seen {
    reads: Vec<Read>,
    /// Records come in runs of one partition.
    latest: usize,
    gaps: usize,
    /// There were more gaps than are remembered.
    pub has_forgotten: bool,
}

impl Seen {
    pub fn begin(&mut self, topic: &str, partition: i32, from: From) {
        self.reads.push(Read {
            partition: (topic.to_owned(), partition),
            from,
            next: None,
            gaps: Vec::new(),
        });
    }

    /// A record was shown.
    pub fn record(&mut self, topic: &str, partition: i32, offset: i64) {
        let at = self.find(topic, partition);
        let read = &mut self.reads[at];
        let expected = match (read.next, read.from) {
            (Some(next), _) => next,
            (None, From::Start) => 0,
            (None, From::Offset(from)) => from,
            (None, From::Unknown) => offset,
        };
        read.next = Some(offset + 1);
        if offset <= expected {
            return;
        }
        if self.gaps < GAPS_MAX {
            read.gaps.push(expected..offset);
            self.gaps += 1;
        } else {
            self.has_forgotten = true;
        }
    }

    fn find(&mut self, topic: &str, partition: i32) -> usize {
        let is_it = |read: &Read| read.partition.1 == partition && read.partition.0 == topic;
        if self.reads.get(self.latest).is_some_and(is_it) {
            return self.latest;
        }
        let found = self.reads.iter().position(is_it);
        self.latest = found.unwrap_or_else(|| {
            self.begin(topic, partition, From::Unknown);
            self.reads.len() - 1
        });
        self.latest
    }

    pub fn reads(&self) -> &[Read] {
        &self.reads
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gaps(read: &Read) -> Vec<(i64, i64)> {
        read.gaps.iter().map(|gap| (gap.start, gap.end)).collect()
    }

    #[test]
    fn gaps_are_what_lies_between() {
        let mut seen = Seen::default();
        seen.begin("t", 0, From::Start);
        seen.begin("t", 1, From::Offset(10));
        for (partition, offsets) in [(0, vec![0, 1, 5]), (1, vec![10, 12]), (2, vec![7, 9])] {
            offsets
                .into_iter()
                .for_each(|offset| seen.record("t", partition, offset));
        }
        seen.record("t", 0, 6);
        let gaps: Vec<_> = seen.reads().iter().map(gaps).collect();
        assert_eq!(gaps, [[(2, 5)], [(11, 12)], [(8, 9)]]);
        let next: Vec<_> = seen.reads().iter().map(|read| read.next).collect();
        assert_eq!(next, [Some(7), Some(13), Some(10)]);
    }

    #[test]
    fn the_first_records_may_be_the_hidden_ones() {
        let mut seen = Seen::default();
        seen.begin("t", 0, From::Start);
        seen.record("t", 0, 3);
        assert_eq!(gaps(&seen.reads()[0]), [(0, 3)]);
    }

    #[test]
    fn the_memory_for_gaps_is_bounded() {
        let mut seen = Seen::default();
        (0..=GAPS_MAX as i64 + 1).for_each(|at| seen.record("t", 0, 2 * at));
        assert_eq!(seen.reads()[0].gaps.len(), GAPS_MAX);
        assert!(seen.has_forgotten);
    }
}
