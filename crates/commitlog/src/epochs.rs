//! Which leader epoch wrote which offsets: the log's leader epoch cache (KIP-101, KIP-279).
//!
//! Kept in memory, and on disk in `leader-epoch-checkpoint`, Kafka's text format version 0: a line
//! with the version, one with the number of entries, then `epoch startOffset` per line.
//!
//! Invariant: epochs and start offsets both rise from entry to entry.

use bytes::Bytes;
use std::fmt::Write as _;

/// What Kafka answers for an epoch that the log does not know: epoch -1, offset -1.
pub const UNDEFINED_EPOCH: (i32, i64) = (-1, -1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    epoch: i32,
    start_offset: i64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LeaderEpochs {
    entries: Vec<Entry>,
}

impl LeaderEpochs {
    pub fn latest(&self) -> Option<i32> {
        self.entries.last().map(|entry| entry.epoch)
    }

    /// Where the newest epoch begins.
    pub fn latest_start(&self) -> Option<i64> {
        self.entries.last().map(|entry| entry.start_offset)
    }

    /// The epoch of the record at `offset`.
    pub fn at(&self, offset: i64) -> Option<i32> {
        let after = self.entries.partition_point(|e| e.start_offset <= offset);
        self.entries[..after].last().map(|entry| entry.epoch)
    }

    /// Notes that `epoch` wrote the batch at `start_offset`; true if that began an epoch.
    ///
    /// An epoch below the newest is not an error here (recovery reads what is on disk): the log's
    /// order decides, and the entry would break the invariant, so it is left out.
    pub fn assign(&mut self, epoch: i32, start_offset: i64) -> bool {
        let newer = |last: &Entry| epoch > last.epoch && start_offset > last.start_offset;
        if epoch < 0 || !self.entries.last().is_none_or(newer) {
            return false;
        }
        self.entries.push(Entry {
            epoch,
            start_offset,
        });
        true
    }

    /// A leader was elected for `epoch` at the log's end; true if that changed anything. Epochs
    /// that wrote nothing make way, as in Kafka.
    pub fn begin(&mut self, epoch: i32, log_end_offset: i64) -> bool {
        if self.latest().is_some_and(|latest| latest >= epoch) {
            return false;
        }
        self.truncate_from_end(log_end_offset);
        self.assign(epoch, log_end_offset)
    }

    /// Forgets what lies wholly below `start_offset`, the log's new start; true if that changed
    /// anything.
    pub fn truncate_from_start(&mut self, start_offset: i64) -> bool {
        let below = self
            .entries
            .partition_point(|e| e.start_offset <= start_offset);
        let Some(floor) = below.checked_sub(1) else {
            return false;
        };
        let before = self.entries[floor].start_offset;
        self.entries.drain(..floor);
        self.entries[0].start_offset = start_offset;
        floor > 0 || before != start_offset
    }

    /// Forgets epochs that begin at or past `end_offset`; true if there were any.
    pub fn truncate_from_end(&mut self, end_offset: i64) -> bool {
        let kept = self
            .entries
            .partition_point(|e| e.start_offset < end_offset);
        let changed = kept < self.entries.len();
        self.entries.truncate(kept);
        changed
    }

    /// The largest epoch not above `epoch`, and its end (exclusive), as Kafka's OffsetForLeaderEpoch
    /// has it; [`UNDEFINED_EPOCH`] for one newer than all that the log knows.
    pub fn end_offset_for(&self, epoch: i32, log_end_offset: i64) -> (i32, i64) {
        if epoch < 0 {
            return UNDEFINED_EPOCH;
        }
        if self.latest() == Some(epoch) {
            return (epoch, log_end_offset);
        }
        let higher = self.entries.partition_point(|e| e.epoch <= epoch);
        let Some(next) = self.entries.get(higher) else {
            return UNDEFINED_EPOCH;
        };
        match higher.checked_sub(1) {
            Some(floor) => (self.entries[floor].epoch, next.start_offset),
            None => (epoch, next.start_offset),
        }
    }

    pub fn encode(&self) -> Bytes {
        let mut text = format!("0\n{}\n", self.entries.len());
        for entry in &self.entries {
            writeln!(text, "{} {}", entry.epoch, entry.start_offset).expect("writes to a string");
        }
        text.into()
    }

    /// `None` for anything but a well-formed file whose entries rise.
    pub fn decode(bytes: &[u8]) -> Option<LeaderEpochs> {
        let mut lines = std::str::from_utf8(bytes).ok()?.lines();
        if lines.next()?.trim() != "0" {
            return None;
        }
        let count: usize = lines.next()?.trim().parse().ok()?;
        let mut epochs = LeaderEpochs::default();
        for line in lines {
            let (epoch, start_offset) = line.trim().split_once(' ')?;
            let (epoch, start_offset) = (epoch.parse().ok()?, start_offset.trim().parse().ok()?);
            if start_offset < 0 || !epochs.assign(epoch, start_offset) {
                return None;
            }
        }
        (epochs.entries.len() == count).then_some(epochs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epochs(entries: &[(i32, i64)]) -> LeaderEpochs {
        let mut epochs = LeaderEpochs::default();
        for (epoch, start) in entries {
            assert!(epochs.assign(*epoch, *start));
        }
        epochs
    }

    #[test]
    fn the_file_is_kafkas() {
        let epochs = epochs(&[(0, 0), (3, 17)]);
        assert_eq!(&epochs.encode()[..], b"0\n2\n0 0\n3 17\n");
        assert_eq!(LeaderEpochs::decode(&epochs.encode()), Some(epochs));
        let empty = LeaderEpochs::default();
        assert_eq!(&empty.encode()[..], b"0\n0\n");
        assert_eq!(LeaderEpochs::decode(b"0\n0\n"), Some(empty));
        for bad in [
            "",
            "0",
            "1\n0\n",
            "0\n1\n",
            "0\n1\n0\n",
            "0\n2\n0 0\n",
            "0\n1\n0 0\n1 1\n",
            "0\n2\n1 5\n0 9\n",
            "0\n2\n1 5\n2 5\n",
            "0\n1\n1 -5\n",
            "0\n1\nx 5\n",
            "\0\0\0",
        ] {
            assert_eq!(LeaderEpochs::decode(bad.as_bytes()), None, "{bad:?}");
        }
    }

    #[test]
    fn end_offsets_as_in_kafka() {
        let known = epochs(&[(2, 10), (5, 20), (6, 30)]);
        let check = |epoch, expected| {
            assert_eq!(known.end_offset_for(epoch, 40), expected, "epoch {epoch}");
        };
        check(-1, UNDEFINED_EPOCH);
        check(1, (1, 10));
        check(2, (2, 20));
        check(4, (2, 20));
        check(5, (5, 30));
        check(6, (6, 40));
        check(7, UNDEFINED_EPOCH);
        assert_eq!(
            LeaderEpochs::default().end_offset_for(0, 40),
            UNDEFINED_EPOCH
        );
        assert_eq!(known.at(9), None);
        assert_eq!(known.at(10), Some(2));
        assert_eq!(known.at(29), Some(5));
    }

    #[test]
    fn an_election_is_noted_before_anything_is_written() {
        let mut known = epochs(&[(2, 10), (5, 20)]);
        assert!(!known.begin(5, 30));
        assert!(known.begin(6, 30));
        assert!(known.begin(8, 30), "epoch 6 wrote nothing");
        assert_eq!(known, epochs(&[(2, 10), (5, 20), (8, 30)]));
        assert_eq!(known.end_offset_for(8, 30), (8, 30));
    }

    #[test]
    fn truncation_keeps_the_epoch_that_reaches_over_the_start() {
        let mut known = epochs(&[(2, 10), (5, 20), (6, 30)]);
        assert!(!known.truncate_from_start(5));
        assert!(known.truncate_from_start(25));
        assert_eq!(known, epochs(&[(5, 25), (6, 30)]));
        assert!(!known.truncate_from_start(25));
        assert!(known.truncate_from_end(30));
        assert!(!known.truncate_from_end(30));
        assert_eq!(known, epochs(&[(5, 25)]));
    }
}
