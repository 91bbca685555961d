//! InitProducerId (key 22, versions 0-6) with a transactional id: who the producer is.
//!
//! Behaviour: an unknown id gets a fresh producer id with epoch 0, a known one the next epoch, or
//! a fresh producer id when the epochs are used up. An open transaction is aborted first, its
//! producer fenced. From version 3 (KIP-360) a producer may name itself: its newest epoch gets
//! the next one, the one before that the newest again (a retry), any other is PRODUCER_FENCED
//! (INVALID_PRODUCER_EPOCH before version 4). Version 6 (KIP-939) can keep an open transaction
//! for the caller to end, and switch its timeout off.
//!
//! Deviations from Kafka: the request waits for the transaction to complete, and CONCURRENT_TRANSACTIONS
//! is the answer only at the limits of waiting. Kafka aborts an open transaction whatever epoch the
//! producer names; here one with an old epoch is refused before anything is aborted.
//!
//! Non-obvious: a caller who named itself and found its own transaction open has a new epoch after
//! the abort, and is not asked for the old one again. Kafka refuses its retry. A kept transaction
//! keeps its timeout, unless the caller asks for two phase commit.

use super::draft::Draft;
use super::history::Why;
use super::request::{FreshIds, Request, Verdict, reserve, spelled_for};
use super::state::TransactionState;
use super::transaction::{Identity, Transaction};
use super::{TransactionShard, config::TransactionConfig};
use crate::{Caller, Outcome, ReplyTo};
use oncelog_wire::clock::Now;
use oncelog_wire::messages::{InitProducerIdRequest, InitProducerIdResponse};
use oncelog_wire::{ErrorCode, ResponseBody};

#[derive(Debug)]
pub(crate) struct Init {
    api_version: i16,
    timeout_ms: i32,
    /// Who the caller says that it is.
    expected: Option<Identity>,
    keep: bool,
    /// To wait with, see `reserve`.
    fresh: Option<i64>,
}

impl TransactionShard {
    /// `fresh`: a producer id never used before, taken only if needed; the caller made sure that
    /// one is there. A request without a transactional id does not come here.
    pub fn init_producer_id(
        &mut self,
        now: Now,
        reply: ReplyTo,
        caller: &Caller,
        request: &InitProducerIdRequest,
        fresh: &mut dyn FnMut() -> i64,
    ) -> Outcome {
        let init = Init {
            api_version: caller.api_version,
            timeout_ms: match request.enable2_pc {
                true => i32::MAX,
                false => request.transaction_timeout_ms,
            },
            expected: (request.producer_id != -1).then_some(Identity {
                producer_id: request.producer_id,
                producer_epoch: request.producer_epoch,
            }),
            keep: request.keep_prepared_txn,
            fresh: None,
        };
        let id = request.transactional_id.as_deref().unwrap_or_default();
        if let Err(error) = check(request, &self.config) {
            return Outcome::answer(reply, init.refused(error));
        }
        let mut ids = || Some(fresh());
        self.ask(now, reply, caller, id, Request::Init(init), &mut ids)
    }
}

fn check(request: &InitProducerIdRequest, config: &TransactionConfig) -> Result<(), ErrorCode> {
    let half = (request.producer_id == -1) != (request.producer_epoch == -1);
    if half
        || request
            .transactional_id
            .as_deref()
            .is_none_or(str::is_empty)
    {
        return Err(ErrorCode::InvalidRequest);
    }
    if !config.two_phase_commit_enable {
        if request.enable2_pc {
            return Err(ErrorCode::TransactionalIdAuthorizationFailed);
        }
        if request.keep_prepared_txn {
            return Err(ErrorCode::UnsupportedVersion);
        }
    }
    let timeout_ms = request.transaction_timeout_ms;
    if !request.enable2_pc && !(1..=config.max_timeout_ms).contains(&timeout_ms) {
        return Err(ErrorCode::InvalidTransactionTimeout);
    }
    Ok(())
}

impl Init {
    pub(crate) fn decide(mut self, draft: &mut Draft, caller: &Caller, ids: FreshIds) -> Verdict {
        let Some(transaction) = draft.transaction() else {
            return self.create(draft, caller, ids);
        };
        let current = transaction.identity();
        let is_retry = self.expected.is_some() && self.expected == transaction.last_identity();
        let is_current = self.expected.is_none_or(|expected| expected == current);
        if !is_current && !is_retry {
            return Verdict::Answer(self.refused(ErrorCode::ProducerFenced));
        }
        if transaction.state.is_prepare() {
            self.fresh = self.fresh.or_else(|| reserve(transaction, ids));
            return Verdict::Park(Request::Init(self));
        }
        if transaction.state == TransactionState::Ongoing {
            if self.keep {
                return self.keep(is_retry, draft, caller, ids);
            }
            if is_retry {
                // The producer has used the newer epoch, so it has the answer: this one is late.
                return Verdict::Answer(self.refused(ErrorCode::ProducerFenced));
            }
            self.fresh = self.fresh.or_else(|| reserve(transaction, ids));
            self.expected = None;
            draft.fence(Why::FencedByInstance, Some(caller));
            if draft.transaction().is_some_and(|t| t.state.is_prepare()) {
                return Verdict::Park(Request::Init(self));
            }
        }
        self.introduce(is_retry, draft, caller, ids)
    }

    /// Nothing is open.
    fn introduce(
        mut self,
        is_retry: bool,
        draft: &mut Draft,
        caller: &Caller,
        ids: FreshIds,
    ) -> Verdict {
        let transaction = draft.transaction().expect("a known id");
        let (current, wall_ms) = (transaction.identity(), draft.now.wall_ms);
        let last_producer_epoch = self.expected.map_or(-1, |expected| expected.producer_epoch);
        let introduced = |identity| {
            transaction.introduced(identity, last_producer_epoch, self.timeout_ms, wall_ms)
        };
        if is_retry {
            let again = introduced(current);
            draft.put(again);
            draft.newest_connection = draft.newest_connection.max(caller.connection);
            return Verdict::Answer(self.accepted(current, None));
        }
        let why = match self.expected {
            _ if current.is_exhausted() => Why::Exhausted,
            None => Why::Instance {
                timeout_ms: self.timeout_ms,
            },
            Some(_) => Why::Recovered,
        };
        let Some(identity) = bumped(current, || self.fresh.take().or_else(ids)) else {
            return Verdict::Answer(self.refused(ErrorCode::ConcurrentTransactions));
        };
        let introduced = introduced(identity).because(why, Some(caller), wall_ms);
        draft.log_event(&introduced);
        draft.put(introduced);
        draft.fenced.new_instance += u64::from(self.expected.is_none());
        draft.newest_connection = caller.connection;
        Verdict::Answer(self.accepted(identity, None))
    }

    fn create(self, draft: &mut Draft, caller: &Caller, ids: FreshIds) -> Verdict {
        let Some(producer_id) = ids() else {
            return Verdict::Answer(self.refused(ErrorCode::ConcurrentTransactions));
        };
        let (timeout_ms, wall_ms) = (self.timeout_ms, draft.now.wall_ms);
        let why = Why::Instance { timeout_ms };
        let created = Transaction::created(producer_id, timeout_ms, wall_ms).because(
            why,
            Some(caller),
            wall_ms,
        );
        draft.log_event(&created);
        let identity = created.identity();
        draft.put(created);
        draft.newest_connection = caller.connection;
        Verdict::Answer(self.accepted(identity, None))
    }

    /// The open transaction is left for the caller to end.
    fn keep(self, is_retry: bool, draft: &mut Draft, caller: &Caller, ids: FreshIds) -> Verdict {
        let transaction = draft.transaction().expect("an open transaction");
        let (current, ongoing) = (transaction.identity(), transaction.in_log());
        if is_retry {
            return Verdict::Answer(match transaction.next {
                Some(_) => self.accepted(current, Some(ongoing)),
                None => self.refused(ErrorCode::ProducerFenced),
            });
        }
        let timeout_ms = match self.timeout_ms {
            i32::MAX => i32::MAX,
            _ => transaction.timeout_ms,
        };
        let last_producer_epoch = self.expected.map_or(-1, |expected| expected.producer_epoch);
        let Some(identity) = bumped(current, ids) else {
            return Verdict::Answer(self.refused(ErrorCode::ConcurrentTransactions));
        };
        let wall_ms = draft.now.wall_ms;
        let kept = transaction
            .kept(identity, last_producer_epoch, timeout_ms, wall_ms)
            .because(Why::Kept, Some(caller), wall_ms);
        draft.log_event(&kept);
        draft.put(kept);
        draft.fenced.new_instance += u64::from(self.expected.is_none());
        draft.newest_connection = caller.connection;
        Verdict::Answer(self.accepted(identity, Some(ongoing)))
    }

    pub(crate) fn refused(&self, error: ErrorCode) -> ResponseBody {
        InitProducerIdResponse {
            error_code: spelled_for(self.api_version, 4, error),
            producer_id: -1,
            producer_epoch: -1,
            ..Default::default()
        }
        .into()
    }

    fn accepted(&self, identity: Identity, ongoing: Option<Identity>) -> ResponseBody {
        InitProducerIdResponse {
            producer_id: identity.producer_id,
            producer_epoch: identity.producer_epoch,
            ongoing_txn_producer_id: ongoing.map_or(-1, |ongoing| ongoing.producer_id),
            ongoing_txn_producer_epoch: ongoing.map_or(-1, |ongoing| ongoing.producer_epoch),
            ..Default::default()
        }
        .into()
    }
}

/// The next epoch, or a fresh producer id when there is none.
pub(crate) fn bumped(current: Identity, fresh: impl FnOnce() -> Option<i64>) -> Option<Identity> {
    if !current.is_exhausted() {
        return Some(Identity {
            producer_epoch: current.producer_epoch + 1,
            ..current
        });
    }
    fresh().map(|producer_id| Identity {
        producer_id,
        producer_epoch: 0,
    })
}
