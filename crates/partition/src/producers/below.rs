//! What a snapshot at an offset may say: nothing that lies at or past it, which a power cut may
//! still take.

use super::{ProducerState, Producers};
use crate::endings::Endings;

impl Producers {
    /// The producers as of `offset`, as far as they can be told.
    ///
    /// A producer whose whole window lies past it is left out, or has no known sequence if its
    /// transaction began before. That is safe: it has five batches under way, so it was told about
    /// all earlier ones and will not send those again. If the five are lost, their retries are
    /// accepted as from an unknown producer; if not, replay finds them.
    ///
    /// A marker past `offset` has changed what cannot be told from the state after it (the epoch, a
    /// window that it emptied, the transaction that is still open without it), so `endings` has kept
    /// the state before.
    pub(crate) fn below(&self, offset: i64, endings: &Endings) -> Producers {
        let before_markers = endings.states_before(offset);
        let mut below = Producers::default();
        for (producer_id, state) in self.iter() {
            let state = match before_markers.get(&producer_id) {
                Some(before) => *before,
                None => Some(state),
            };
            if let Some(state) = state.and_then(|state| state.below(offset)) {
                let restored = below.restore(producer_id, state);
                assert!(restored, "as unique as they were");
            }
        }
        below
    }
}

impl ProducerState {
    fn below(&self, offset: i64) -> Option<ProducerState> {
        let mut state = self.clone();
        if state.last_offset < offset {
            return Some(state);
        }
        state.current_txn_first_offset = state.current_txn_first_offset.filter(|at| *at < offset);
        state.last_offset = -1;
        if state.window.last().is_some() {
            state.window.truncate_at(offset);
            match state.window.last() {
                Some(last) => {
                    state.last_timestamp = last.timestamp;
                    state.last_offset = last.last_offset;
                }
                None if state.current_txn_first_offset.is_none() => return None,
                None => state.sequence_unknown = true,
            }
        }
        Some(state)
    }
}
