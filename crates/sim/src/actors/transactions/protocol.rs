//! The requests of a transaction, in either protocol.
//!
//! The old one (kafkajs, librdkafka, Java before 4) tells the coordinator of each partition before
//! it writes there and keeps its epoch; the new one (KIP-890) leaves the telling to the leaders and
//! gets a new epoch with every transaction.

use super::APP_GROUP;
use super::work::{Offsets, Write};
use crate::actors::transactions::INPUT;
use oncelog_wire::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use oncelog_wire::messages::produce_request::{PartitionProduceData, TopicProduceData};
use oncelog_wire::messages::txn_offset_commit_request::{
    TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use oncelog_wire::messages::{
    AddOffsetsToTxnRequest, AddPartitionsToTxnRequest, EndTxnRequest, InitProducerIdRequest,
    ProduceRequest, TxnOffsetCommitRequest,
};
use oncelog_wire::records::BatchBuilder;
use oncelog_wire::{ErrorCode, Records, RequestBody, ResponseBody};
use std::collections::BTreeMap;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    V1 {
        /// 9: a batch outside of its transaction is INVALID_TXN_STATE; 11: TRANSACTION_ABORTABLE.
        produce: i16,
        /// 1 to 3.
        end: i16,
    },
    V2,
}

/// Who speaks.
#[derive(Clone, Debug)]
pub struct Producer {
    pub transactional_id: String,
    pub producer_id: i64,
    pub epoch: i16,
}

/// A request and the version that it goes out in.
pub type Ask = (i16, RequestBody);

impl Protocol {
    /// For a new instance, or (with `of`) for the next epoch of a living one (KIP-360).
    pub fn init(self, id: &str, timeout_ms: i32, of: Option<&Producer>) -> Ask {
        let ask = InitProducerIdRequest {
            transactional_id: Some(id.to_owned()),
            transaction_timeout_ms: timeout_ms,
            producer_id: of.map_or(-1, |producer| producer.producer_id),
            producer_epoch: of.map_or(-1, |producer| producer.epoch),
            ..Default::default()
        };
        match self {
            Protocol::V1 { .. } => (4, ask.into()),
            Protocol::V2 => (5, ask.into()),
        }
    }

    /// A part of the transaction's writes, each with its first sequence.
    pub fn produce(self, who: &Producer, writes: &[(&Write, i32)], now_ms: i64) -> Ask {
        let mut topics: BTreeMap<&str, TopicProduceData> = BTreeMap::new();
        for (write, sequence) in writes {
            let mut builder = BatchBuilder::new()
                .producer(who.producer_id, who.epoch, *sequence)
                .transactional(true);
            for value in &write.values {
                // Some batches span several sectors, so that a power cut can tear them.
                let padding = value.len() * 41 % 400;
                let key = format!("{value}{:padding$}", "");
                builder.append(now_ms, Some(key.as_bytes()), Some(value.as_bytes()), &[]);
            }
            let partition = PartitionProduceData {
                index: write.place.1,
                records: Some(Records::Bytes(builder.build())),
                ..Default::default()
            };
            let topic = topics.entry(&write.place.0).or_default();
            topic.name = write.place.0.clone();
            topic.partition_data.push(partition);
        }
        let ask = ProduceRequest {
            transactional_id: Some(who.transactional_id.clone()),
            acks: -1,
            timeout_ms: 30_000,
            topic_data: topics.into_values().collect(),
            ..Default::default()
        };
        match self {
            Protocol::V1 { produce, .. } => (produce, ask.into()),
            Protocol::V2 => (12, ask.into()),
        }
    }

    pub fn commit_offsets(self, who: &Producer, offsets: &Offsets) -> Ask {
        let partition = |(index, offset): (&i32, &i64)| TxnOffsetCommitRequestPartition {
            partition_index: *index,
            committed_offset: *offset,
            committed_leader_epoch: -1,
            committed_metadata: Some(String::new()),
            ..Default::default()
        };
        let ask = TxnOffsetCommitRequest {
            transactional_id: who.transactional_id.clone(),
            group_id: APP_GROUP.to_owned(),
            producer_id: who.producer_id,
            producer_epoch: who.epoch,
            generation_id: offsets.generation,
            member_id: offsets.member.clone(),
            topics: vec![TxnOffsetCommitRequestTopic {
                name: INPUT.to_owned(),
                partitions: offsets.positions.iter().map(partition).collect(),
                ..Default::default()
            }],
            ..Default::default()
        };
        match self {
            Protocol::V1 { .. } => (3, ask.into()),
            Protocol::V2 => (5, ask.into()),
        }
    }

    pub fn end(self, who: &Producer, committed: bool) -> Ask {
        let ask = EndTxnRequest {
            transactional_id: who.transactional_id.clone(),
            producer_id: who.producer_id,
            producer_epoch: who.epoch,
            committed,
            ..Default::default()
        };
        match self {
            Protocol::V1 { end, .. } => (end, ask.into()),
            Protocol::V2 => (5, ask.into()),
        }
    }
}

/// Only of the old protocol.
pub fn add_partitions(who: &Producer, writes: &[Write]) -> Ask {
    let mut topics: BTreeMap<&str, AddPartitionsToTxnTopic> = BTreeMap::new();
    for write in writes {
        let topic = topics.entry(&write.place.0).or_default();
        topic.name = write.place.0.clone();
        if !topic.partitions.contains(&write.place.1) {
            topic.partitions.push(write.place.1);
        }
    }
    let ask = AddPartitionsToTxnRequest {
        v3_and_below_transactional_id: who.transactional_id.clone(),
        v3_and_below_producer_id: who.producer_id,
        v3_and_below_producer_epoch: who.epoch,
        v3_and_below_topics: topics.into_values().collect(),
        ..Default::default()
    };
    (3, ask.into())
}

/// Only of the old protocol.
pub fn add_offsets(who: &Producer) -> Ask {
    let ask = AddOffsetsToTxnRequest {
        transactional_id: who.transactional_id.clone(),
        producer_id: who.producer_id,
        producer_epoch: who.epoch,
        group_id: APP_GROUP.to_owned(),
        ..Default::default()
    };
    (3, ask.into())
}

/// The first error in an answer, OPERATION_NOT_ATTEMPTED apart if there is another.
pub fn error_of(body: &ResponseBody) -> ErrorCode {
    use ResponseBody as R;
    let codes: Vec<i16> = match body {
        R::InitProducerId(answer) => vec![answer.error_code],
        R::AddOffsetsToTxn(answer) => vec![answer.error_code],
        R::EndTxn(answer) => vec![answer.error_code],
        R::AddPartitionsToTxn(answer) => {
            let topics = &answer.results_by_topic_v3_and_below;
            let partitions = topics.iter().flat_map(|topic| &topic.results_by_partition);
            partitions.map(|p| p.partition_error_code).collect()
        }
        R::TxnOffsetCommit(answer) => {
            let partitions = answer.topics.iter().flat_map(|topic| &topic.partitions);
            partitions.map(|p| p.error_code).collect()
        }
        R::Produce(answer) => {
            let topics = answer.responses.iter();
            let partitions = topics.flat_map(|topic| &topic.partition_responses);
            partitions.map(|p| p.error_code).collect()
        }
        R::CreateTopics(answer) => {
            let exists = ErrorCode::TopicAlreadyExists.code();
            let codes = answer.topics.iter().map(|topic| topic.error_code);
            codes.filter(|code| *code != exists).collect()
        }
        _ => vec![ErrorCode::UnknownServerError.code()],
    };
    let errors = codes.into_iter().map(ErrorCode::from_code);
    let mut errors = errors.filter(|error| error.is_error());
    let first = errors.next().unwrap_or(ErrorCode::None);
    match first {
        ErrorCode::OperationNotAttempted => errors
            .find(|error| *error != ErrorCode::OperationNotAttempted)
            .unwrap_or(first),
        first => first,
    }
}

/// What a client does about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Fine,
    /// The same again; on a new connection if this one may be the trouble.
    Again,
    AgainOnNewConnection,
    /// The transaction cannot be committed; the producer can go on.
    Abort,
    /// The group has moved on: abort, and join again.
    Rejoin,
    /// Somebody else has the transactional id now.
    Fenced,
    Unexpected,
}

pub fn verdict(error: ErrorCode) -> Verdict {
    match error {
        ErrorCode::None => Verdict::Fine,
        ErrorCode::ConcurrentTransactions
        | ErrorCode::CoordinatorLoadInProgress
        | ErrorCode::CoordinatorNotAvailable
        | ErrorCode::NotEnoughReplicas
        | ErrorCode::RequestTimedOut
        | ErrorCode::UnknownTopicOrPartition => Verdict::Again,
        ErrorCode::NotCoordinator | ErrorCode::NotLeaderOrFollower => Verdict::AgainOnNewConnection,
        ErrorCode::InvalidTxnState | ErrorCode::TransactionAbortable => Verdict::Abort,
        ErrorCode::IllegalGeneration
        | ErrorCode::UnknownMemberId
        | ErrorCode::RebalanceInProgress => Verdict::Rejoin,
        ErrorCode::InvalidProducerEpoch
        | ErrorCode::ProducerFenced
        | ErrorCode::InvalidProducerIdMapping => Verdict::Fenced,
        _ => Verdict::Unexpected,
    }
}
