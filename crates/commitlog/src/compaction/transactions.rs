//! What a pass knows about transactions.

use crate::aborted::AbortedTxn;
use oncelog_wire::records::BatchHeader;
use std::collections::{BTreeMap, BTreeSet};

/// Which batches were aborted. Everything that a pass covers is decided, so the rest was committed.
pub(super) struct Aborted<'a> {
    by_marker: &'a [AbortedTxn],
    /// First offset and marker of each producer's aborted transactions, in order.
    by_producer: BTreeMap<i64, Vec<(i64, i64)>>,
}

impl<'a> Aborted<'a> {
    /// `by_marker`: ordered by the markers' offsets.
    pub fn new(by_marker: &'a [AbortedTxn]) -> Aborted<'a> {
        let mut by_producer = BTreeMap::<i64, Vec<(i64, i64)>>::new();
        for aborted in by_marker {
            let transactions = by_producer.entry(aborted.producer_id).or_default();
            transactions.push((aborted.first_offset, aborted.last_offset));
        }
        Aborted {
            by_marker,
            by_producer,
        }
    }

    /// Whether a batch is part of an aborted transaction.
    pub fn contains(&self, header: &BatchHeader) -> bool {
        let Some(transactions) = self.by_producer.get(&header.producer_id) else {
            return false;
        };
        let offset = header.base_offset;
        let begun = transactions.partition_point(|(first, _)| *first <= offset);
        let last_begun = begun.checked_sub(1).map(|i| transactions[i]);
        header.is_transactional() && last_begun.is_some_and(|(_, marker)| offset < marker)
    }

    /// The transaction that the marker at this offset aborted.
    pub fn by_marker(&self, offset: i64) -> Option<AbortedTxn> {
        let at = self
            .by_marker
            .binary_search_by_key(&offset, |a| a.last_offset);
        at.ok().map(|i| self.by_marker[i])
    }
}

/// The state of a walk through the log, batch by batch.
#[derive(Clone, Debug, Default)]
pub(super) struct Walk {
    /// Producers of whose transaction a batch was met, and not yet its marker.
    pub in_transaction: BTreeSet<i64>,
}

impl Walk {
    /// To be told of every batch. For a marker: whether a batch of its transaction was met.
    pub fn meet(&mut self, header: &BatchHeader) -> bool {
        if header.is_control() {
            return self.in_transaction.remove(&header.producer_id);
        }
        if header.is_transactional() {
            self.in_transaction.insert(header.producer_id);
        }
        false
    }
}
