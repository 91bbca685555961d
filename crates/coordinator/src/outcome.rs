//! What a coordinator is asked by, and what it gives back.

use bytes::Bytes;
use oncelog_wire::ResponseBody;

/// A request that waits for its answer, named by whoever parked it. Opaque to the coordinator,
/// which gives each one back exactly once, in the [`Outcome`] of this or a later call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplyTo(pub u64);

/// Who asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// From the request header; empty if the client gave none.
    pub client_id: String,
    /// As it is to be stored and shown for a member; Kafka's tools show `/127.0.0.1`.
    pub client_host: String,
    pub api_version: i16,
}

/// One record for the coordinator's own partition; no value is a tombstone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub key: Bytes,
    pub value: Option<Bytes>,
}

/// What follows from one decision.
///
/// The order is fixed: append `records`, replay them, and send `replies` only when everything
/// that was appended so far is committed. An outcome without records waits as well, because what
/// it says may rest on records of an earlier one.
#[derive(Debug, Default)]
#[must_use]
pub struct Outcome {
    pub records: Vec<Record>,
    pub replies: Vec<(ReplyTo, ResponseBody)>,
    /// Lines for the operator's log.
    pub log: Vec<String>,
}

impl Outcome {
    pub fn reply(&mut self, to: ReplyTo, body: impl Into<ResponseBody>) {
        self.replies.push((to, body.into()));
    }

    /// Only an answer.
    pub fn answer(to: ReplyTo, body: impl Into<ResponseBody>) -> Outcome {
        let mut outcome = Outcome::default();
        outcome.reply(to, body);
        outcome
    }
}
