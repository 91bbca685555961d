//! What may have to wait for a transaction to complete, and how it is decided.

use super::add::Add;
use super::draft::Draft;
use super::end::End;
use super::init::Init;
use super::transaction::Transaction;
use crate::{Caller, ReplyTo};
use oncelog_wire::clock::Instant;
use oncelog_wire::{ErrorCode, ResponseBody};

/// Fresh producer ids; none for a request that waited, which has one with it if it may need it.
pub(crate) type FreshIds<'a> = &'a mut dyn FnMut() -> Option<i64>;

#[derive(Debug)]
pub(crate) enum Request {
    Init(Init),
    Add(Add),
    End(End),
}

#[derive(Debug)]
pub(crate) enum Verdict {
    Answer(ResponseBody),
    /// Ask again when the transaction is complete.
    Park(Request),
}

/// A parked request.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub reply: ReplyTo,
    pub caller: Caller,
    pub request: Request,
    pub until: Instant,
}

impl Request {
    pub(crate) fn decide(self, draft: &mut Draft, caller: &Caller, ids: FreshIds) -> Verdict {
        match self {
            Request::Init(init) => init.decide(draft, caller, ids),
            Request::Add(add) => add.decide(draft, caller),
            Request::End(end) => end.decide(draft, caller, ids),
        }
    }

    pub(crate) fn refused(&self, id: &str, error: ErrorCode) -> ResponseBody {
        match self {
            Request::Init(init) => init.refused(error),
            Request::Add(add) => add.answer(id, error),
            Request::End(end) => end.refused(error),
        }
    }
}

/// A producer id to wait with, if the request may find the epochs used up: those before it in the
/// queue use some too.
pub(crate) fn reserve(transaction: &Transaction, ids: FreshIds) -> Option<i64> {
    let spare = i16::MAX - 4 * super::PARKED_PER_ID_MAX as i16;
    match transaction.identity().producer_epoch >= spare {
        true => ids(),
        false => None,
    }
}

/// Clients older than PRODUCER_FENCED are told INVALID_PRODUCER_EPOCH.
pub(crate) fn spelled_for(api_version: i16, first_with_fenced: i16, error: ErrorCode) -> i16 {
    match error {
        ErrorCode::ProducerFenced if api_version < first_with_fenced => {
            ErrorCode::InvalidProducerEpoch.code()
        }
        error => error.code(),
    }
}
