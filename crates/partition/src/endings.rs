//! Markers that are in the log and may still be lost with it: at or past the high watermark, or not
//! synced yet.
//!
//! A transaction whose marker is one of those is over for its producer, and not for anybody else: the
//! last stable offset stays in front of it, a snapshot calls it open, compaction does not act on its
//! outcome.

use crate::producers::ProducerState;
use std::collections::{BTreeMap, VecDeque};

/// Transactions with unsynced markers that are told apart; more are taken together.
const UNSYNCED_MAX: usize = 64;

#[derive(Debug, Default)]
pub(crate) struct Endings {
    /// By the markers' offsets, which rise.
    in_flight: VecDeque<Ending>,
    /// The earliest first offset among them.
    first_offset: Option<i64>,
    /// As far as is known, these are not synced: first offsets and markers, which rise.
    unsynced: VecDeque<(i64, i64)>,
}

/// A marker at or past the high watermark.
#[derive(Debug)]
pub(crate) struct Ending {
    pub producer_id: i64,
    /// Of the transaction that it ends; `None` if there was nothing here to end.
    pub first_offset: Option<i64>,
    pub marker_offset: i64,
    /// The producer before its marker.
    pub before: Option<ProducerState>,
}

impl Endings {
    /// A marker was appended.
    pub fn begin(&mut self, ending: Ending) {
        if let Some(first_offset) = ending.first_offset {
            self.first_offset = Some(self.first_offset.unwrap_or(i64::MAX).min(first_offset));
            self.note_unsynced(first_offset, ending.marker_offset);
        }
        self.in_flight.push_back(ending);
    }

    /// What lies below the high watermark is there to stay.
    pub fn high_watermark_is(&mut self, high_watermark: i64) {
        let mut changed = false;
        while let Some(ending) = self.in_flight.front()
            && ending.marker_offset < high_watermark
        {
            self.in_flight.pop_front();
            changed = true;
        }
        if changed {
            let first_offsets = self.in_flight.iter().filter_map(|e| e.first_offset);
            self.first_offset = first_offsets.min();
        }
    }

    /// The earliest first offset of a transaction whose marker is at or past the high watermark.
    pub fn first_offset(&self) -> Option<i64> {
        self.first_offset
    }

    /// The earliest first offset of a transaction whose marker a power cut may take, given that
    /// everything below `synced` survives one. May name an earlier one than there is.
    pub fn first_unsynced_offset(&mut self, synced: i64) -> Option<i64> {
        while let Some((_, marker)) = self.unsynced.front()
            && *marker < synced
        {
            self.unsynced.pop_front();
        }
        self.unsynced.iter().map(|(first, _)| *first).min()
    }

    /// The states of the producers that have markers at or past `offset`, before the first of those.
    pub fn states_before(&self, offset: i64) -> BTreeMap<i64, Option<&ProducerState>> {
        let later = self.in_flight.iter().rev();
        let later = later.take_while(|ending| ending.marker_offset >= offset);
        later
            .map(|ending| (ending.producer_id, ending.before.as_ref()))
            .collect()
    }

    fn note_unsynced(&mut self, first_offset: i64, marker_offset: i64) {
        let full = self.unsynced.len() == UNSYNCED_MAX;
        match self.unsynced.back_mut() {
            Some((first, marker)) if full => {
                *first = (*first).min(first_offset);
                *marker = marker_offset;
            }
            _ => self.unsynced.push_back((first_offset, marker_offset)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ending(producer_id: i64, first_offset: Option<i64>, marker_offset: i64) -> Ending {
        Ending {
            producer_id,
            first_offset,
            marker_offset,
            before: None,
        }
    }

    #[test]
    fn the_earliest_transaction_counts_until_its_marker_is_replicated() {
        let mut endings = Endings::default();
        endings.begin(ending(7, Some(4), 10));
        endings.begin(ending(8, Some(2), 11));
        endings.begin(ending(9, None, 12));
        assert_eq!(endings.first_offset(), Some(2));
        endings.high_watermark_is(11);
        assert_eq!(endings.first_offset(), Some(2));
        assert_eq!(endings.states_before(11).len(), 2);
        endings.high_watermark_is(12);
        assert_eq!(endings.first_offset(), None);
        assert_eq!(endings.first_unsynced_offset(11), Some(2));
        assert_eq!(endings.first_unsynced_offset(12), None);
    }

    #[test]
    fn unsynced_markers_are_bounded_and_none_is_forgotten() {
        let mut endings = Endings::default();
        for i in 0..1_000 {
            endings.begin(ending(7, Some(10_000 - i), 20_000 + i));
        }
        assert_eq!(endings.unsynced.len(), UNSYNCED_MAX);
        assert_eq!(endings.first_unsynced_offset(20_999), Some(10_000 - 999));
        assert_eq!(endings.first_unsynced_offset(21_000), None);
    }
}
