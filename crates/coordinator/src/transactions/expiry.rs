//! Time: transactions that take too long, ids that nobody uses, requests that wait too long.
//!
//! Wall-clock times from the records become deadlines of the monotonic clock when a record is
//! replayed, so that a jump of the wall clock afterwards expires nothing.

use super::history::Why;
use super::state::TransactionState;
use super::transaction::Transaction;
use super::{Entry, TransactionConfig, TransactionShard, records};
use crate::Outcome;
use oncelog_wire::ErrorCode;
use oncelog_wire::clock::{Instant, Now};

impl TransactionShard {
    /// Looks at everything whose time has come.
    pub fn tick(&mut self, now: Now) -> Outcome {
        self.assert_loaded();
        let mut out = Outcome::default();
        while let Some(id) = self.deadlines.pop_due(now.instant) {
            out.extend(self.tick_id(now, &id));
        }
        out
    }

    fn tick_id(&mut self, now: Now, id: &str) -> Outcome {
        let mut out = Outcome::default();
        let Some(entry) = self.entries.get_mut(id) else {
            return out;
        };
        let waiting = entry.parked.len();
        for late in entry
            .parked
            .extract_if(.., |waiting| waiting.until <= now.instant)
        {
            let body = late.request.refused(id, ErrorCode::ConcurrentTransactions);
            out.reply(late.reply, body);
        }
        self.parked -= waiting - entry.parked.len();
        if entry.due > now.instant {
            self.deadlines.arm(id, entry.next_deadline());
            return out;
        }
        // The records' replay arms the next deadline.
        let transaction = entry.transaction.as_ref().expect("due by its record");
        if transaction.state == TransactionState::Ongoing {
            let after_ms = now.wall_ms.saturating_sub(transaction.start_ms);
            let why = Why::TimedOut { after_ms };
            out.extend(self.step(
                now,
                id,
                |draft| draft.fence(why, None),
                Vec::new(),
                &mut || None,
            ));
        } else {
            out.records.push(records::tombstone(id));
            out.log.push(format!(
                "transactional id {id}: forgotten, it was not used for {} ms",
                self.config.transactional_id_expiration_ms
            ));
        }
        out
    }
}

/// When the open transaction has to be aborted, or the id forgotten.
pub(super) fn due(
    transaction: &Transaction,
    entry: &Entry,
    now: Now,
    config: &TransactionConfig,
) -> Instant {
    let from_now = |wall_ms: i64| {
        let ms = wall_ms.saturating_sub(now.wall_ms);
        now.instant.plus_ms(ms)
    };
    match transaction.state {
        TransactionState::Ongoing if transaction.is_two_phase_commit() => Instant::NEVER,
        TransactionState::Ongoing => {
            let timeout_ms = i64::from(transaction.timeout_ms);
            match &entry.transaction {
                // More was added: it began when it began.
                Some(before)
                    if before.state == TransactionState::Ongoing
                        && before.start_ms == transaction.start_ms
                        && before.timeout_ms == transaction.timeout_ms =>
                {
                    entry.due
                }
                _ => from_now(transaction.start_ms.saturating_add(timeout_ms)),
            }
        }
        state if state.is_idle() => from_now(
            transaction
                .update_ms
                .saturating_add(config.transactional_id_expiration_ms),
        ),
        _ => Instant::NEVER,
    }
}
