//! EndTxn (key 26, versions 0-5): commit or abort.
//!
//! Behaviour: checked in this order are the producer id (INVALID_PRODUCER_ID_MAPPING, for an
//! unknown transactional id as well), the epoch (PRODUCER_FENCED, INVALID_PRODUCER_EPOCH before
//! version 2) and the state. The answer is given as soon as the decision is durable; markers
//! follow. Version 5 (KIP-890) ends with a bump and answers with the next transaction's producer
//! id and epoch.
//!
//! Versions 0-4, by state, with the producer's epoch:
//! ```text
//!                 commit   abort
//! Ongoing         ends     ends
//! *Commit         NONE     48          48: INVALID_TXN_STATE
//! *Abort          48       NONE
//! Empty           48       48
//! ```
//! Version 5, by state, with the epoch before the newest (retry) and the newest (current):
//! ```text
//!                 commit           abort
//!                 retry  current   retry  current
//! Ongoing         90     ends      90     ends      90: PRODUCER_FENCED
//! PrepareCommit   NONE   waits     48     waits
//! PrepareAbort    48     waits     NONE   waits
//! CompleteCommit  NONE   48        48     bump
//! CompleteAbort   48     48        NONE   bump
//! Empty           90     48        90     bump
//! ```
//!
//! Deviations from Kafka: a retry of a decision whose markers are not all written is answered as
//! the first was, where Kafka answers CONCURRENT_TRANSACTIONS until they are. "waits" is
//! PRODUCER_FENCED there, although the epoch is the one that its answer gave out. A retry is known
//! by the stored epoch before the newest, so that a producer that was fenced is told so. A late
//! request is NOT_COORDINATOR, see `guard`.

use super::TransactionShard;
use super::draft::Draft;
use super::guard;
use super::history::Why;
use super::init::bumped;
use super::request::{FreshIds, Request, Verdict, reserve, spelled_for};
use super::state::TransactionState;
use super::transaction::{Identity, Transaction};
use crate::{Caller, Outcome, ReplyTo};
use oncelog_wire::clock::Now;
use oncelog_wire::messages::{EndTxnRequest, EndTxnResponse};
use oncelog_wire::{ErrorCode, ResponseBody};

/// The first version that ends with a bump.
const FIRST_WITH_BUMP: i16 = 5;

#[derive(Debug)]
pub(crate) struct End {
    identity: Identity,
    commit: bool,
    api_version: i16,
    /// To wait with, see `reserve`.
    fresh: Option<i64>,
}

/// What the table says.
enum Cell {
    End,
    Wait,
    /// It was done before.
    Done,
}

impl TransactionShard {
    /// `fresh`: as for [`TransactionShard::init_producer_id`].
    pub fn end_txn(
        &mut self,
        now: Now,
        reply: ReplyTo,
        caller: &Caller,
        request: &EndTxnRequest,
        fresh: &mut dyn FnMut() -> i64,
    ) -> Outcome {
        let end = End {
            identity: Identity {
                producer_id: request.producer_id,
                producer_epoch: request.producer_epoch,
            },
            commit: request.committed,
            api_version: caller.api_version,
            fresh: None,
        };
        let id = &request.transactional_id;
        if id.is_empty() {
            return Outcome::answer(reply, end.refused(ErrorCode::InvalidRequest));
        }
        let mut ids = || Some(fresh());
        self.ask(now, reply, caller, id, Request::End(end), &mut ids)
    }
}

impl End {
    pub(crate) fn decide(mut self, draft: &mut Draft, caller: &Caller, ids: FreshIds) -> Verdict {
        let cell = match self.look_up(draft.transaction()) {
            Ok(cell) => cell,
            Err(error) => return Verdict::Answer(self.refused(error)),
        };
        let is_guarded = self.api_version < FIRST_WITH_BUMP;
        if is_guarded && let Err(error) = guard::admit(draft, caller, "EndTxn") {
            return Verdict::Answer(self.refused(error));
        }
        let transaction = draft.transaction().expect("the table knows no unknown ids");
        let next = match cell {
            Cell::End if is_guarded => transaction.identity(),
            Cell::End => match bumped(self.identity, || self.fresh.take().or_else(ids)) {
                Some(next) => next,
                None => return Verdict::Answer(self.refused(ErrorCode::ConcurrentTransactions)),
            },
            Cell::Done => transaction.identity(),
            Cell::Wait => {
                self.fresh = self.fresh.or_else(|| reserve(transaction, ids));
                return Verdict::Park(Request::End(self));
            }
        };
        if let Cell::End = cell {
            let ended = self.ended(transaction, next, draft.now.wall_ms);
            draft.prepare(ended);
        }
        Verdict::Answer(self.accepted(next))
    }

    fn ended(&self, transaction: &Transaction, next: Identity, wall_ms: i64) -> Transaction {
        if self.api_version < FIRST_WITH_BUMP {
            let last = transaction.last_producer_epoch;
            return transaction.ended(self.commit, 0, next, last, wall_ms);
        }
        let (commits, aborts) = (u32::from(self.commit), u32::from(!self.commit));
        let ended = transaction
            .ended(self.commit, 2, next, self.identity.producer_epoch, wall_ms)
            .because(Why::Ended { commits, aborts }, None, wall_ms);
        match next.producer_id == self.identity.producer_id {
            true => ended,
            false => ended.because(Why::Exhausted, None, wall_ms),
        }
    }

    fn look_up(&self, transaction: Option<&Transaction>) -> Result<Cell, ErrorCode> {
        let transaction = transaction.ok_or(ErrorCode::InvalidProducerIdMapping)?;
        let current = transaction.identity();
        let is_retry = self.is_retry(transaction);
        if self.identity.producer_id != current.producer_id && !is_retry {
            return Err(ErrorCode::InvalidProducerIdMapping);
        }
        if self.identity != current && !is_retry {
            return Err(ErrorCode::ProducerFenced);
        }
        if is_retry || self.api_version < FIRST_WITH_BUMP {
            return self.by_outcome(transaction);
        }
        match transaction.state {
            TransactionState::Ongoing => Ok(Cell::End),
            state if state.is_prepare() => Ok(Cell::Wait),
            _ if self.commit => Err(ErrorCode::InvalidTxnState),
            _ => Ok(Cell::End),
        }
    }

    /// A retry under version 2, or any request under version 1.
    fn by_outcome(&self, transaction: &Transaction) -> Result<Cell, ErrorCode> {
        let is_next = self.identity == transaction.identity();
        match transaction.state {
            TransactionState::Ongoing => Ok(Cell::End),
            TransactionState::Empty => Err(ErrorCode::InvalidTxnState),
            // The epoch is the next transaction's: its producer spoke version 2 before.
            state if state.is_prepare() && transaction.client_version >= 2 && is_next => {
                Ok(Cell::Wait)
            }
            state if state.is_commit() == self.commit => Ok(Cell::Done),
            _ => Err(ErrorCode::InvalidTxnState),
        }
    }

    /// The same producer ended its last transaction by the same call.
    fn is_retry(&self, transaction: &Transaction) -> bool {
        let has_ended = !matches!(
            transaction.state,
            TransactionState::Empty | TransactionState::Ongoing
        );
        self.api_version >= FIRST_WITH_BUMP
            && has_ended
            && transaction.client_version >= 2
            && transaction.last_identity() == Some(self.identity)
    }

    pub(crate) fn refused(&self, error: ErrorCode) -> ResponseBody {
        EndTxnResponse {
            error_code: spelled_for(self.api_version, 2, error),
            producer_id: -1,
            producer_epoch: -1,
            ..Default::default()
        }
        .into()
    }

    fn accepted(&self, next: Identity) -> ResponseBody {
        let has_bump = self.api_version >= FIRST_WITH_BUMP;
        EndTxnResponse {
            producer_id: if has_bump { next.producer_id } else { -1 },
            producer_epoch: if has_bump { next.producer_epoch } else { -1 },
            ..Default::default()
        }
        .into()
    }
}
