//! The states of a transactional id, under Kafka's numbers and names.
//!
//! Kafka's Dead and PrepareEpochFence are never written. Here nothing lies between a decision and
//! its replay, so nothing is ever in them.

/// Every name that Kafka knows, those that nothing is ever in included: a filter by one of them
/// is not unknown.
pub(crate) const KAFKA_NAMES: [&str; 8] = [
    "Empty",
    "Ongoing",
    "PrepareCommit",
    "PrepareAbort",
    "CompleteCommit",
    "CompleteAbort",
    "Dead",
    "PrepareEpochFence",
];

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TransactionState {
    Empty = 0,
    Ongoing = 1,
    PrepareCommit = 2,
    PrepareAbort = 3,
    CompleteCommit = 4,
    CompleteAbort = 5,
}

impl TransactionState {
    pub const ALL: [TransactionState; 6] = [
        TransactionState::Empty,
        TransactionState::Ongoing,
        TransactionState::PrepareCommit,
        TransactionState::PrepareAbort,
        TransactionState::CompleteCommit,
        TransactionState::CompleteAbort,
    ];

    pub(crate) fn from_code(code: i8) -> Option<TransactionState> {
        TransactionState::ALL
            .into_iter()
            .find(|state| *state as i8 == code)
    }

    pub fn name(self) -> &'static str {
        KAFKA_NAMES[self as usize]
    }

    pub(crate) fn prepare(commit: bool) -> TransactionState {
        match commit {
            true => TransactionState::PrepareCommit,
            false => TransactionState::PrepareAbort,
        }
    }

    /// Decided, but not every partition has its marker.
    pub(crate) fn is_prepare(self) -> bool {
        matches!(
            self,
            TransactionState::PrepareCommit | TransactionState::PrepareAbort
        )
    }

    /// The last transaction was committed, or is about to be.
    pub(crate) fn is_commit(self) -> bool {
        matches!(
            self,
            TransactionState::PrepareCommit | TransactionState::CompleteCommit
        )
    }

    /// Nothing is open: the id may begin a transaction, or expire.
    pub(crate) fn is_idle(self) -> bool {
        matches!(
            self,
            TransactionState::Empty
                | TransactionState::CompleteCommit
                | TransactionState::CompleteAbort
        )
    }
}
