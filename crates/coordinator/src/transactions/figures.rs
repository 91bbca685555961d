//! What a shard can tell of its transactions for metrics: a snapshot, taken on demand.

use super::{TransactionShard, TransactionState};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TransactionFigures {
    /// Transactional ids by state, every state once.
    pub states: Vec<(TransactionState, usize)>,
    /// When the oldest open or undecided transaction began, in wall-clock milliseconds.
    pub oldest_open_start_ms: Option<i64>,
    /// Since the shard was loaded.
    pub fenced: FencedCounts,
    /// Requests that wait for a transaction to complete.
    pub parked: usize,
}

/// Producers shut out and requests refused, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FencedCounts {
    /// A new instance came, whether a transaction was open or not.
    pub new_instance: u64,
    pub timeout: u64,
    /// A request came late on an older connection.
    pub late_request: u64,
}

impl FencedCounts {
    /// Reason and count, for a label and its value.
    pub fn by_reason(&self) -> [(&'static str, u64); 3] {
        [
            ("new_instance", self.new_instance),
            ("timeout", self.timeout),
            ("late_request", self.late_request),
        ]
    }
}

impl TransactionShard {
    pub fn figures(&self) -> TransactionFigures {
        let transactions = || {
            let entries = self.entries.values();
            entries.filter_map(|entry| entry.transaction.as_ref())
        };
        let count = |state| {
            let of_state = transactions().filter(|transaction| transaction.state == state);
            (state, of_state.count())
        };
        TransactionFigures {
            states: TransactionState::ALL.into_iter().map(count).collect(),
            oldest_open_start_ms: transactions()
                .filter(|transaction| !transaction.state.is_idle())
                .map(|transaction| transaction.start_ms)
                .min(),
            fenced: self.fenced,
            parked: self.parked,
        }
    }
}
