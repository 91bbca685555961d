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
    /// The connection that the request came on; a later one has a larger number.
    pub connection: u64,
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
    /// The records are part of this producer's transaction: they are appended as a transactional
    /// batch of its own (producer id, epoch) and count when the transaction is committed.
    pub transactional: Option<(i64, i16)>,
    /// Markers to write, as soon as the replies may be sent.
    pub markers: Vec<Markers>,
    /// Lines for the operator's log.
    pub log: Vec<String>,
}

/// The end of a transaction, to be written to each of its partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Markers {
    pub transactional_id: String,
    pub producer_id: i64,
    /// The marker's own epoch: with transaction version 2 one more than that of the transaction's
    /// batches.
    pub producer_epoch: i16,
    pub coordinator_epoch: i32,
    /// Of the transaction (`transaction.version`), 0 to 2.
    pub transaction_version: i8,
    pub commit: bool,
    /// Topic and partition.
    pub partitions: Vec<(String, i32)>,
}

impl Outcome {
    pub fn reply(&mut self, to: ReplyTo, body: impl Into<ResponseBody>) {
        self.replies.push((to, body.into()));
    }

    /// Everything of `later`, after what is here. Both are parts of no transaction.
    pub(crate) fn extend(&mut self, later: Outcome) {
        assert!(
            self.transactional.is_none() && later.transactional.is_none(),
            "transactional records are a batch of their own"
        );
        self.records.extend(later.records);
        self.replies.extend(later.replies);
        self.markers.extend(later.markers);
        self.log.extend(later.log);
    }

    /// Only an answer.
    pub fn answer(to: ReplyTo, body: impl Into<ResponseBody>) -> Outcome {
        let mut outcome = Outcome::default();
        outcome.reply(to, body);
        outcome
    }
}
