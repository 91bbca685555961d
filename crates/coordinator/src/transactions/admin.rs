//! What operators ask: ListTransactions (66, versions 0-2) and DescribeTransactions (65).
//!
//! Each method gives this shard's part; the broker puts the parts of all shards together.
//!
//! - ListTransactions: filters by state (exactly as Kafka spells it), producer id, time since the
//!   start (version 1) and a regular expression for the whole id (version 2, KIP-1152). Deviation:
//!   an id that never had a transaction since InitProducerId is older than no duration; Kafka
//!   takes it for one that began before the epoch.
//! - DescribeTransactions: of a decided transaction the partitions that have no marker yet, as in
//!   Kafka. [`HISTORY_TAG`] holds what became of the id's producers, one JSON object a line; a
//!   client that does not know the tag skips it.

use super::TransactionShard;
use super::state::KAFKA_NAMES;
use super::transaction::Transaction;
use bytes::Bytes;
use oncelog_wire::clock::Now;
use oncelog_wire::messages::ListTransactionsRequest;
use oncelog_wire::messages::describe_transactions_response as described;
use oncelog_wire::messages::list_transactions_response as listed;
use oncelog_wire::{ErrorCode, RawTaggedField};
use regex::Regex;

/// The tagged field of `DescribeTransactionsResponse.TransactionState` with the history.
pub const HISTORY_TAG: u32 = 10_000;

/// The bytes that a pattern's program may take.
const PATTERN_BYTES_MAX: usize = 1 << 20;

/// Once for all shards: the error of the response, and the state filters that name no state.
pub fn check_list_request(request: &ListTransactionsRequest) -> (ErrorCode, Vec<String>) {
    let unknown = request
        .state_filters
        .iter()
        .filter(|name| !KAFKA_NAMES.contains(&name.as_str()));
    let error = match pattern(request) {
        Ok(_) => ErrorCode::None,
        Err(error) => error,
    };
    (error, unknown.cloned().collect())
}

/// None: every id.
fn pattern(request: &ListTransactionsRequest) -> Result<Option<Regex>, ErrorCode> {
    let Some(pattern) = request.transactional_id_pattern.as_deref() else {
        return Ok(None);
    };
    if pattern.is_empty() {
        return Ok(None);
    }
    regex::RegexBuilder::new(&format!("^(?:{pattern})$"))
        .size_limit(PATTERN_BYTES_MAX)
        .build()
        .map(Some)
        .map_err(|_| ErrorCode::InvalidRegularExpression)
}

impl TransactionShard {
    /// Nothing if the request is not acceptable: see [`check_list_request`].
    pub fn list(
        &self,
        now: Now,
        request: &ListTransactionsRequest,
    ) -> Vec<listed::TransactionState> {
        self.assert_loaded();
        let Ok(pattern) = pattern(request) else {
            return Vec::new();
        };
        let (states, ids) = (&request.state_filters, &request.producer_id_filters);
        let is_wanted = |id: &str, transaction: &Transaction| {
            let name = transaction.state.name();
            let age_ms = now.wall_ms.saturating_sub(transaction.start_ms);
            (ids.is_empty() || ids.contains(&transaction.producer_id))
                && (states.is_empty() || states.iter().any(|wanted| wanted == name))
                && (request.duration_filter < 0
                    || transaction.start_ms >= 0 && age_ms > request.duration_filter)
                && pattern.as_ref().is_none_or(|pattern| pattern.is_match(id))
        };
        let mut wanted = Vec::new();
        for (id, entry) in &self.entries {
            if let Some(transaction) = &entry.transaction
                && is_wanted(id, transaction)
            {
                wanted.push(listed::TransactionState {
                    transactional_id: id.clone(),
                    producer_id: transaction.producer_id,
                    transaction_state: transaction.state.name().to_owned(),
                    ..Default::default()
                });
            }
        }
        wanted
    }

    pub fn describe(&self, transactional_id: &str) -> described::TransactionState {
        self.assert_loaded();
        let failed = |error: ErrorCode| described::TransactionState {
            error_code: error.code(),
            transactional_id: transactional_id.to_owned(),
            ..Default::default()
        };
        if transactional_id.is_empty() {
            return failed(ErrorCode::InvalidRequest);
        }
        let Some(entry) = self.entries.get(transactional_id) else {
            return failed(ErrorCode::TransactionalIdNotFound);
        };
        let Some(transaction) = &entry.transaction else {
            return failed(ErrorCode::TransactionalIdNotFound);
        };
        let partitions = match transaction.state.is_prepare() {
            true => &entry.unmarked,
            false => &transaction.partitions,
        };
        let topic =
            |(topic, partitions): (&str, &std::collections::BTreeSet<i32>)| described::TopicData {
                topic: topic.to_owned(),
                partitions: partitions.iter().copied().collect(),
                ..Default::default()
            };
        described::TransactionState {
            error_code: ErrorCode::None.code(),
            transactional_id: transactional_id.to_owned(),
            transaction_state: transaction.state.name().to_owned(),
            transaction_timeout_ms: transaction.timeout_ms,
            transaction_start_time_ms: transaction.start_ms,
            producer_id: transaction.producer_id,
            producer_epoch: transaction.producer_epoch,
            topics: partitions.topics().map(topic).collect(),
            unknown_tagged_fields: vec![RawTaggedField {
                tag: HISTORY_TAG,
                data: Bytes::from(transaction.history.to_json_lines()),
            }],
        }
    }
}
