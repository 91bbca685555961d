//! AddPartitionsToTxn (key 24, versions 0-5) and AddOffsetsToTxn (key 25, versions 0-4): what a
//! transaction touches.
//!
//! Behaviour: checked in this order are the producer id (INVALID_PRODUCER_ID_MAPPING, for an
//! unknown transactional id as well) and the epoch (PRODUCER_FENCED, INVALID_PRODUCER_EPOCH before
//! version 2). What was added before is not added again. A partition that does not exist fails
//! the whole request: UNKNOWN_TOPIC_OR_PARTITION for itself, OPERATION_NOT_ATTEMPTED for the
//! others. Versions 0-3 come from clients; later ones from partition leaders, on behalf of
//! Produce and TxnOffsetCommit (KIP-890), which add, or only ask whether a client has added
//! (TRANSACTION_ABORTABLE for a partition that is not in the transaction).
//!
//! Deviations from Kafka: while the transaction before is not complete the request waits, and is
//! answered CONCURRENT_TRANSACTIONS only at the limits of waiting; a question is answered so at
//! once, because its batch cannot be of a transaction that begins later. A late request is
//! NOT_COORDINATOR, see `guard`. Nothing can be added to a transaction that was kept over a
//! restart of its producer (KIP-939): INVALID_TXN_STATE.

use super::TransactionShard;
use super::draft::Draft;
use super::guard;
use super::request::{Request, Verdict, spelled_for};
use super::state::TransactionState;
use super::transaction::{Identity, Transaction};
use crate::cluster::OFFSETS_TOPIC;
use crate::{Caller, Outcome, ReplyTo, Topics};
use oncelog_wire::clock::Now;
use oncelog_wire::messages::add_partitions_to_txn_request::{
    AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction,
};
use oncelog_wire::messages::add_partitions_to_txn_response::{
    AddPartitionsToTxnPartitionResult, AddPartitionsToTxnResult, AddPartitionsToTxnTopicResult,
};
use oncelog_wire::messages::{
    AddOffsetsToTxnRequest, AddOffsetsToTxnResponse, AddPartitionsToTxnRequest,
    AddPartitionsToTxnResponse,
};
use oncelog_wire::{ErrorCode, ResponseBody};

/// The first version of both requests with PRODUCER_FENCED.
const FIRST_WITH_FENCED: i16 = 2;

#[derive(Debug)]
pub(crate) struct Add {
    identity: Identity,
    topics: Vec<AddPartitionsToTxnTopic>,
    from: Asker,
}

/// Who asks, and in what form it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asker {
    Client { api_version: i16 },
    ClientWithOffsets { api_version: i16 },
    Leader,
}

impl TransactionShard {
    pub fn add_partitions(
        &mut self,
        now: Now,
        reply: ReplyTo,
        caller: &Caller,
        request: &AddPartitionsToTxnRequest,
        topics: &dyn Topics,
    ) -> Outcome {
        let api_version = caller.api_version;
        let add = Add {
            identity: Identity {
                producer_id: request.v3_and_below_producer_id,
                producer_epoch: request.v3_and_below_producer_epoch,
            },
            topics: request.v3_and_below_topics.clone(),
            from: Asker::Client { api_version },
        };
        let id = &request.v3_and_below_transactional_id;
        self.add(now, reply, caller, id, add, topics)
    }

    /// One transaction of a version 4 or later request; the answer has exactly this one entry.
    pub fn add_partitions_for_leader(
        &mut self,
        now: Now,
        reply: ReplyTo,
        caller: &Caller,
        transaction: &AddPartitionsToTxnTransaction,
        topics: &dyn Topics,
    ) -> Outcome {
        let add = Add {
            identity: Identity {
                producer_id: transaction.producer_id,
                producer_epoch: transaction.producer_epoch,
            },
            topics: transaction.topics.clone(),
            from: Asker::Leader,
        };
        let id = &transaction.transactional_id;
        if transaction.verify_only {
            self.assert_loaded();
            let answer = match add.missing(topics) {
                Some(results) => add.with_results(id, results),
                None => add.verified(id, self.transaction(id)),
            };
            return Outcome::answer(reply, answer);
        }
        self.add(now, reply, caller, id, add, topics)
    }

    /// Adds the partition of `__consumer_offsets` that the group lives in.
    pub fn add_offsets(
        &mut self,
        now: Now,
        reply: ReplyTo,
        caller: &Caller,
        request: &AddOffsetsToTxnRequest,
        offsets_partition: i32,
    ) -> Outcome {
        let api_version = caller.api_version;
        let add = Add {
            identity: Identity {
                producer_id: request.producer_id,
                producer_epoch: request.producer_epoch,
            },
            topics: vec![AddPartitionsToTxnTopic {
                name: OFFSETS_TOPIC.to_owned(),
                partitions: vec![offsets_partition],
                ..Default::default()
            }],
            from: Asker::ClientWithOffsets { api_version },
        };
        self.ask_to_add(now, reply, caller, &request.transactional_id, add)
    }

    fn add(
        &mut self,
        now: Now,
        reply: ReplyTo,
        caller: &Caller,
        id: &str,
        add: Add,
        topics: &dyn Topics,
    ) -> Outcome {
        match add.missing(topics) {
            Some(results) => Outcome::answer(reply, add.with_results(id, results)),
            None => self.ask_to_add(now, reply, caller, id, add),
        }
    }

    fn ask_to_add(
        &mut self,
        now: Now,
        reply: ReplyTo,
        caller: &Caller,
        id: &str,
        add: Add,
    ) -> Outcome {
        if id.is_empty() {
            return Outcome::answer(reply, add.answer(id, ErrorCode::InvalidRequest));
        }
        self.ask(now, reply, caller, id, Request::Add(add), &mut || None)
    }
}

impl Add {
    pub(crate) fn decide(self, draft: &mut Draft, caller: &Caller) -> Verdict {
        let transaction = match self.admitted(draft.transaction()) {
            Ok(transaction) => transaction,
            Err(error) => return Verdict::Answer(self.answer(draft.id, error)),
        };
        if transaction.state.is_prepare() {
            return Verdict::Park(Request::Add(self));
        }
        let result = self.apply(draft, caller);
        let error = result.err().unwrap_or(ErrorCode::None);
        Verdict::Answer(self.answer(draft.id, error))
    }

    fn apply(&self, draft: &mut Draft, caller: &Caller) -> Result<(), ErrorCode> {
        if self.from != Asker::Leader {
            guard::admit(draft, caller, "a request to add partitions")?;
        }
        let transaction = draft.transaction().expect("an id that was just looked at");
        if transaction.state == TransactionState::Ongoing && transaction.next.is_some() {
            return Err(ErrorCode::InvalidTxnState);
        }
        let is_open = transaction.state == TransactionState::Ongoing;
        let has = |(topic, partition)| transaction.partitions.contains(topic, partition);
        let nothing_to_add = self.partitions().next().is_none();
        if nothing_to_add || is_open && self.partitions().all(has) {
            return Ok(());
        }
        let version = match self.from {
            Asker::Leader => 2,
            Asker::Client { .. } | Asker::ClientWithOffsets { .. } => 0,
        };
        let extended = transaction.extended(self.partitions(), version, draft.now.wall_ms);
        draft.put_if_it_fits(extended)
    }

    fn admitted<'a>(
        &self,
        transaction: Option<&'a Transaction>,
    ) -> Result<&'a Transaction, ErrorCode> {
        let transaction = transaction.ok_or(ErrorCode::InvalidProducerIdMapping)?;
        let current = transaction.identity();
        if self.identity.producer_id != current.producer_id {
            return Err(ErrorCode::InvalidProducerIdMapping);
        }
        if self.identity.producer_epoch != current.producer_epoch {
            return Err(ErrorCode::ProducerFenced);
        }
        Ok(transaction)
    }

    fn partitions(&self) -> impl Iterator<Item = (&str, i32)> {
        self.topics.iter().flat_map(|topic| {
            let partitions = topic.partitions.iter();
            partitions.map(|partition| (topic.name.as_str(), *partition))
        })
    }

    /// The results, if a partition does not exist.
    fn missing(&self, topics: &dyn Topics) -> Option<Vec<AddPartitionsToTxnTopicResult>> {
        let exists = |topic: &str, partition: i32| {
            let view = topics.topic(topic);
            view.is_some_and(|view| (0..view.partitions).contains(&partition))
        };
        if self.partitions().all(|(topic, at)| exists(topic, at)) {
            return None;
        }
        Some(
            self.results(|topic, partition| match exists(topic, partition) {
                true => ErrorCode::OperationNotAttempted,
                false => ErrorCode::UnknownTopicOrPartition,
            }),
        )
    }

    /// Whether the partitions are in the transaction.
    fn verified(&self, id: &str, transaction: Option<&Transaction>) -> ResponseBody {
        if id.is_empty() {
            return self.answer(id, ErrorCode::InvalidRequest);
        }
        let transaction = match self.admitted(transaction) {
            Ok(transaction) => transaction,
            Err(error) => return self.answer(id, error),
        };
        if transaction.state.is_prepare() {
            return self.answer(id, ErrorCode::ConcurrentTransactions);
        }
        let result =
            |topic: &str, partition: i32| match transaction.partitions.contains(topic, partition) {
                true => ErrorCode::None,
                false => ErrorCode::TransactionAbortable,
            };
        self.with_results(id, self.results(result))
    }

    /// The same for every partition.
    pub(crate) fn answer(&self, id: &str, error: ErrorCode) -> ResponseBody {
        if let Asker::ClientWithOffsets { api_version } = self.from {
            return AddOffsetsToTxnResponse {
                error_code: spelled_for(api_version, FIRST_WITH_FENCED, error),
                ..Default::default()
            }
            .into();
        }
        self.with_results(id, self.results(|_, _| error))
    }

    fn results(
        &self,
        error: impl Fn(&str, i32) -> ErrorCode,
    ) -> Vec<AddPartitionsToTxnTopicResult> {
        let api_version = match self.from {
            Asker::Client { api_version } | Asker::ClientWithOffsets { api_version } => api_version,
            Asker::Leader => i16::MAX,
        };
        let of_topic = |topic: &AddPartitionsToTxnTopic| {
            let of_partition = |partition: &i32| AddPartitionsToTxnPartitionResult {
                partition_index: *partition,
                partition_error_code: spelled_for(
                    api_version,
                    FIRST_WITH_FENCED,
                    error(&topic.name, *partition),
                ),
                ..Default::default()
            };
            AddPartitionsToTxnTopicResult {
                name: topic.name.clone(),
                results_by_partition: topic.partitions.iter().map(of_partition).collect(),
                ..Default::default()
            }
        };
        self.topics.iter().map(of_topic).collect()
    }

    fn with_results(&self, id: &str, results: Vec<AddPartitionsToTxnTopicResult>) -> ResponseBody {
        let mut response = AddPartitionsToTxnResponse::default();
        match self.from {
            Asker::Leader => {
                response.results_by_transaction = vec![AddPartitionsToTxnResult {
                    transactional_id: id.to_owned(),
                    topic_results: results,
                    ..Default::default()
                }]
            }
            Asker::Client { .. } | Asker::ClientWithOffsets { .. } => {
                response.results_by_topic_v3_and_below = results;
            }
        }
        response.into()
    }
}
