//! Reading a partition's batches as they are, with what the leader says of transactions.
//!
//! For looking at transactions, not for moving records: one partition and one request at a time.

use std::collections::BTreeMap;

use bytes::Bytes;
use oncelog_wire::messages::FetchRequest;
use oncelog_wire::messages::fetch_request::{FetchPartition, FetchTopic};
use oncelog_wire::records::{Batch, Batches};
use oncelog_wire::{ErrorCode, Records};

use crate::failure::Failure;

use super::offsets::{self, TopicPartition};
use super::{Cluster, check, refusal};

/// Bytes of batches to ask for at once; one batch comes whole whatever its size.
const ANSWER_BYTES: i32 = 4 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    ReadUncommitted = 0,
    ReadCommitted = 1,
}

/// What lies at an offset.
#[derive(Debug)]
pub struct Fetched {
    /// Whole batches; the first may begin before the offset.
    pub batches: Vec<Batch>,
    /// Producer id and first offset of transactions that were aborted and reach into the batches;
    /// only with read_committed.
    pub aborted: Vec<(i64, i64)>,
    pub high_watermark: i64,
    /// Up to here every transaction has ended.
    pub last_stable_offset: i64,
}

/// Partitions, each at its leader.
pub struct Source<'a, 'b> {
    cluster: &'a mut Cluster<'b>,
    leaders: BTreeMap<TopicPartition, Result<i32, ErrorCode>>,
}

impl<'a, 'b> Source<'a, 'b> {
    pub fn new(cluster: &'a mut Cluster<'b>) -> Self {
        Source {
            cluster,
            leaders: BTreeMap::new(),
        }
    }

    /// Does not wait for records.
    ///
    /// Errors: no such partition, no such offset, unreadable batches.
    pub fn fetch(
        &mut self,
        partition: &TopicPartition,
        offset: i64,
        isolation: Isolation,
    ) -> Result<Fetched, Failure> {
        let leader = self.leader(partition)?;
        let response = self
            .cluster
            .on(leader, &request(partition, offset, isolation))?;
        let what = || format!("cannot read {} partition {}", partition.0, partition.1);
        check(response.error_code, None, what)?;
        let topics = response.responses.into_iter();
        let data = topics.flat_map(|topic| topic.partitions).next();
        let data = data.ok_or_else(|| Failure::refused(what()).why("the answer is empty"))?;
        check(data.error_code, None, what)?;
        let batches = batches(data.records).map_err(|why| Failure::refused(what()).why(why))?;
        let aborted = data.aborted_transactions.unwrap_or_default();
        Ok(Fetched {
            batches,
            aborted: aborted
                .into_iter()
                .map(|it| (it.producer_id, it.first_offset))
                .collect(),
            high_watermark: data.high_watermark,
            last_stable_offset: data.last_stable_offset,
        })
    }

    fn leader(&mut self, partition: &TopicPartition) -> Result<i32, Failure> {
        if !self.leaders.contains_key(partition) {
            let topics = self.cluster.existing_topics(&[&partition.0])?;
            self.leaders.extend(offsets::leaders(&topics));
        }
        let what = || format!("cannot read {} partition {}", partition.0, partition.1);
        match self.leaders.get(partition) {
            Some(Ok(leader)) => Ok(*leader),
            Some(Err(error)) => Err(refusal(what(), error.code(), None)),
            None => Err(Failure::refused(what()).why("the topic has no such partition")),
        }
    }
}

fn request((topic, partition): &TopicPartition, offset: i64, isolation: Isolation) -> FetchRequest {
    FetchRequest {
        max_wait_ms: 0,
        max_bytes: ANSWER_BYTES,
        isolation_level: isolation as i8,
        topics: vec![FetchTopic {
            topic: topic.clone(),
            partitions: vec![FetchPartition {
                partition: *partition,
                fetch_offset: offset,
                partition_max_bytes: ANSWER_BYTES,
                ..FetchPartition::default()
            }],
            ..FetchTopic::default()
        }],
        ..FetchRequest::default()
    }
}

fn batches(records: Option<Records>) -> Result<Vec<Batch>, String> {
    let bytes = match records {
        Some(Records::Bytes(bytes)) => bytes,
        Some(Records::External { .. }) | None => Bytes::new(),
    };
    let batches = Batches::with_partial_end(bytes).map(|batch| {
        let batch = batch.map_err(|error| error.to_string())?;
        batch.check_crc().map_err(|error| error.to_string())?;
        Ok(batch)
    });
    batches.collect()
}
