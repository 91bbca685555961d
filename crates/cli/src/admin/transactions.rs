//! Transactional ids at their coordinators, open transactions at the partitions' leaders, and the
//! question whether the two agree.
//!
//! A transaction *hangs* when a partition waits for its end and no coordinator will write it: no
//! transactional id has its producer, or the one that has does not name the partition any more.

use std::collections::{BTreeMap, BTreeSet};

use oncelog_wire::ErrorCode;
use oncelog_wire::messages::describe_producers_request::TopicRequest;
use oncelog_wire::messages::describe_producers_response::ProducerState;
use oncelog_wire::messages::describe_transactions_response::TransactionState as Described;
use oncelog_wire::messages::list_transactions_response::TransactionState as Listed;
use oncelog_wire::messages::write_txn_markers_request::{
    WritableTxnMarker, WritableTxnMarkerTopic,
};
use oncelog_wire::messages::{
    DescribeProducersRequest, DescribeTransactionsRequest, ListTransactionsRequest,
    WriteTxnMarkersRequest,
};

use crate::failure::Failure;

use super::offsets::{self, TopicPartition};
use super::{Cluster, check, coordinator, refusal};

/// One transactional id, as its coordinator has it.
#[derive(Debug)]
pub struct Transaction {
    pub coordinator: i32,
    pub state: Described,
}

impl Transaction {
    /// None unless a transaction is open or ending.
    pub fn start_ms(&self) -> Option<i64> {
        Some(self.state.transaction_start_time_ms).filter(|&start| start >= 0)
    }

    /// The partitions that the coordinator will write an end to.
    pub fn partitions(&self) -> BTreeSet<TopicPartition> {
        let topics = self.state.topics.iter();
        topics
            .flat_map(|topic| {
                let partitions = topic.partitions.iter();
                partitions.map(|&partition| (topic.topic.clone(), partition))
            })
            .collect()
    }
}

/// What every coordinator has under this filter.
pub fn list(
    cluster: &mut Cluster<'_>,
    request: &ListTransactionsRequest,
) -> Result<Vec<(i32, Listed)>, Failure> {
    let nodes: Vec<i32> = cluster.nodes.keys().copied().collect();
    let mut all = Vec::new();
    for node in nodes {
        let response = cluster.while_retriable(
            |cluster| cluster.on(node, request),
            |response| response.error_code,
        )?;
        check(response.error_code, None, || {
            format!("broker {node} cannot list its transactions")
        })?;
        if let Some(unknown) = response.unknown_state_filters.first() {
            return Err(Failure::usage(format!(
                "there is no transaction state {unknown}"
            )));
        }
        let listed = response.transaction_states.into_iter();
        all.extend(listed.map(|transaction| (node, transaction)));
    }
    all.sort_by(|(_, a), (_, b)| a.transactional_id.cmp(&b.transactional_id));
    Ok(all)
}

/// Errors: there is no such id.
pub fn describe(cluster: &mut Cluster<'_>, transactional_id: &str) -> Result<Transaction, Failure> {
    let code = ErrorCode::TransactionalIdNotFound.code();
    find(cluster, transactional_id)?.ok_or_else(|| cannot_describe(transactional_id, code))
}

/// As [`describe`], but None if there is no such id.
pub fn find(
    cluster: &mut Cluster<'_>,
    transactional_id: &str,
) -> Result<Option<Transaction>, Failure> {
    let coordinator = coordinator::find(cluster, coordinator::Kind::Transaction, transactional_id)?;
    let request = DescribeTransactionsRequest {
        transactional_ids: vec![transactional_id.to_owned()],
        ..DescribeTransactionsRequest::default()
    };
    let state = cluster.while_retriable(
        |cluster| {
            let response = cluster.on(coordinator, &request)?;
            Ok(response.transaction_states.into_iter().next())
        },
        |state| state.as_ref().map_or(0, |state| state.error_code),
    )?;
    let state = state.ok_or_else(|| {
        Failure::refused(format!("cannot describe {transactional_id}")).why("the answer is empty")
    })?;
    match ErrorCode::from_code(state.error_code) {
        ErrorCode::None => Ok(Some(Transaction { coordinator, state })),
        ErrorCode::TransactionalIdNotFound => Ok(None),
        _ => Err(cannot_describe(transactional_id, state.error_code)),
    }
}

fn cannot_describe(transactional_id: &str, code: i16) -> Failure {
    let what = format!("cannot describe transactional id {transactional_id}");
    refusal(what, code, None)
}

/// Who has written to each of these partitions lately, as its leader (or `broker`) knows it.
pub fn producers(
    cluster: &mut Cluster<'_>,
    partitions: &BTreeSet<TopicPartition>,
    broker: Option<i32>,
) -> Result<BTreeMap<TopicPartition, Vec<ProducerState>>, Failure> {
    let mut by_broker: BTreeMap<i32, BTreeMap<&str, Vec<i32>>> = BTreeMap::new();
    let leaders = leaders(cluster, partitions)?;
    for (place, leader) in &leaders {
        let topics = by_broker.entry(broker.unwrap_or(*leader)).or_default();
        topics.entry(&place.0).or_default().push(place.1);
    }
    let mut found = BTreeMap::new();
    for (broker, topics) in by_broker {
        let request = DescribeProducersRequest {
            topics: topics
                .into_iter()
                .map(|(name, partition_indexes)| TopicRequest {
                    name: name.to_owned(),
                    partition_indexes,
                    ..TopicRequest::default()
                })
                .collect(),
            ..DescribeProducersRequest::default()
        };
        for topic in cluster.on(broker, &request)?.topics {
            for partition in topic.partitions {
                let index = partition.partition_index;
                let message = partition.error_message.as_deref();
                check(partition.error_code, message, || {
                    format!(
                        "cannot read the producers of {} partition {index}",
                        topic.name
                    )
                })?;
                found.insert((topic.name.clone(), index), partition.active_producers);
            }
        }
    }
    Ok(found)
}

/// Errors: a partition does not exist or has no leader.
fn leaders(
    cluster: &mut Cluster<'_>,
    partitions: &BTreeSet<TopicPartition>,
) -> Result<BTreeMap<TopicPartition, i32>, Failure> {
    let names: BTreeSet<&str> = partitions.iter().map(|(topic, _)| topic.as_str()).collect();
    let names: Vec<&str> = names.into_iter().collect();
    let all = offsets::leaders(&cluster.existing_topics(&names)?);
    let mut leaders = BTreeMap::new();
    for place in partitions {
        let (topic, partition) = place;
        let leader = all.get(place).ok_or_else(|| {
            Failure::refused(format!("topic {topic} has no partition {partition}")).next(format!(
                "`oncelog topic describe {topic}` shows what it has"
            ))
        })?;
        let leader = leader.map_err(|error| {
            let what = format!("{topic} partition {partition} has no leader");
            refusal(what, error.code(), None)
        })?;
        leaders.insert(place.clone(), leader);
    }
    Ok(leaders)
}

pub fn leader(cluster: &mut Cluster<'_>, partition: &TopicPartition) -> Result<i32, Failure> {
    let leaders = leaders(cluster, &BTreeSet::from([partition.clone()]))?;
    Ok(leaders[partition])
}

/// A partition that waits for the end of a producer's transaction.
#[derive(Clone, Debug)]
pub struct Open {
    pub partition: TopicPartition,
    pub producer: ProducerState,
}

impl Open {
    /// The producer's transaction in this partition, if it has one.
    pub fn of(partition: &TopicPartition, producer: &ProducerState) -> Option<Open> {
        (producer.current_txn_start_offset >= 0).then(|| Open {
            partition: partition.clone(),
            producer: producer.clone(),
        })
    }
}

/// Whether somebody will end an open transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Prospect {
    /// The coordinator of this transactional id will.
    Expected { transactional_id: String },
    /// No transactional id has this producer.
    NoId,
    /// The transactional id has it, but not this partition.
    NotNamed { transactional_id: String },
}

impl Prospect {
    pub fn hangs(&self) -> bool {
        !matches!(self, Prospect::Expected { .. })
    }

    pub fn reason(&self) -> String {
        match self {
            Prospect::Expected { transactional_id } => {
                format!("the coordinator of {transactional_id} will end it")
            }
            Prospect::NoId => "no transactional id has this producer".to_owned(),
            Prospect::NotNamed { transactional_id } => {
                format!("the transaction of {transactional_id} does not name this partition")
            }
        }
    }
}

/// Asks the coordinators about each of these, in order.
pub fn prospects(cluster: &mut Cluster<'_>, open: &[Open]) -> Result<Vec<Prospect>, Failure> {
    let producers: BTreeSet<i64> = open.iter().map(|open| open.producer.producer_id).collect();
    if producers.is_empty() {
        return Ok(Vec::new());
    }
    let request = ListTransactionsRequest {
        producer_id_filters: producers.into_iter().collect(),
        ..ListTransactionsRequest::default()
    };
    let mut by_producer: BTreeMap<i64, Transaction> = BTreeMap::new();
    for (_, listed) in list(cluster, &request)? {
        // Between the two answers it may have gone.
        if let Some(transaction) = find(cluster, &listed.transactional_id)? {
            by_producer.insert(listed.producer_id, transaction);
        }
    }
    let prospects = open
        .iter()
        .map(|open| prospect(&open.partition, by_producer.get(&open.producer.producer_id)));
    Ok(prospects.collect())
}

fn prospect(partition: &TopicPartition, transaction: Option<&Transaction>) -> Prospect {
    let Some(transaction) = transaction else {
        return Prospect::NoId;
    };
    let transactional_id = transaction.state.transactional_id.clone();
    match transaction.partitions().contains(partition) {
        true => Prospect::Expected { transactional_id },
        false => Prospect::NotNamed { transactional_id },
    }
}

/// Writes the marker of an aborted transaction to one partition, past any coordinator.
pub fn abort(
    cluster: &mut Cluster<'_>,
    partition: &TopicPartition,
    marker: &Marker,
) -> Result<(), Failure> {
    let (topic, index) = partition;
    let leader = leader(cluster, partition)?;
    let request = WriteTxnMarkersRequest {
        markers: vec![WritableTxnMarker {
            producer_id: marker.producer_id,
            producer_epoch: marker.producer_epoch,
            transaction_result: false,
            topics: vec![WritableTxnMarkerTopic {
                name: topic.clone(),
                partition_indexes: vec![*index],
                ..WritableTxnMarkerTopic::default()
            }],
            // A partition that never saw a coordinator has -1; 0 is as old as any.
            coordinator_epoch: marker.coordinator_epoch.max(0),
            ..WritableTxnMarker::default()
        }],
        ..WriteTxnMarkersRequest::default()
    };
    let response = cluster.on(leader, &request)?;
    let topics = response.markers.iter().flat_map(|marker| &marker.topics);
    let mut results = topics.flat_map(|topic| &topic.partitions);
    let code = results
        .next()
        .map_or(ErrorCode::UnknownServerError.code(), |result| {
            result.error_code
        });
    check(code, None, || {
        format!(
            "cannot abort the transaction of producer {} in {topic} partition {index}",
            marker.producer_id
        )
    })
}

/// Who is to have its transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marker {
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub coordinator_epoch: i32,
}

#[cfg(test)]
mod tests {
    use super::*;
    use oncelog_wire::messages::describe_transactions_response::TopicData;

    fn transaction(topics: &[(&str, &[i32])]) -> Transaction {
        let topics = topics.iter().map(|(topic, partitions)| TopicData {
            topic: (*topic).into(),
            partitions: partitions.to_vec(),
            ..TopicData::default()
        });
        Transaction {
            coordinator: 1,
            state: Described {
                transactional_id: "x".into(),
                topics: topics.collect(),
                ..Described::default()
            },
        }
    }

    #[test]
    fn a_transaction_hangs_unless_its_coordinator_names_the_partition() {
        let transactional_id = "x".to_owned();
        let of = |partition: i32, transaction| prospect(&("t".into(), partition), transaction);
        let known = transaction(&[("t", &[0, 2]), ("u", &[1])]);
        let expected = Prospect::Expected {
            transactional_id: transactional_id.clone(),
        };
        assert_eq!(of(2, Some(&known)), expected);
        assert_eq!(of(1, Some(&known)), Prospect::NotNamed { transactional_id });
        assert_eq!(of(2, None), Prospect::NoId);
        assert!(of(1, Some(&known)).hangs() && of(2, None).hangs() && !expected.hangs());
    }
}
