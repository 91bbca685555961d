//! Fetches in either isolation, and what a read_committed client shows of an answer: it is told
//! which transactions in it are aborted and leaves their batches out.

use super::Place;
use crate::actors::Context;
use crate::history::{Marks, TxnId, Violation};
use oncelog_wire::messages::fetch_request::{FetchPartition, FetchTopic};
use oncelog_wire::messages::fetch_response::{AbortedTransaction, PartitionData};
use oncelog_wire::messages::{FetchRequest, FetchResponse};
use oncelog_wire::records::{Batch, Batches, ControlRecord, EndTxn};
use oncelog_wire::{ErrorCode, Records, RequestBody};
use std::collections::{BTreeMap, BTreeSet};

pub const FETCH_VERSION: i16 = 11;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    Uncommitted,
    Committed,
}

/// A record that is shown to the application.
pub struct Shown {
    pub place: Place,
    pub offset: i64,
    pub value: String,
}

/// Reads partitions one after the other from the given positions.
pub struct Reading {
    pub isolation: Isolation,
    /// Next offset to read.
    pub positions: BTreeMap<Place, i64>,
    /// What was known of each partition when the fetch was sent.
    asked_at: BTreeMap<Place, Marks>,
    /// As the last answer told them.
    pub told: BTreeMap<Place, Marks>,
}

impl Reading {
    pub fn new(isolation: Isolation, positions: BTreeMap<Place, i64>) -> Reading {
        Reading {
            isolation,
            positions,
            asked_at: BTreeMap::new(),
            told: BTreeMap::new(),
        }
    }

    /// A sessionless fetch of everything.
    pub fn fetch(&mut self, context: &Context) -> RequestBody {
        let known = &context.history.transactions;
        let places = self.positions.keys();
        let marks = places.map(|place| (place.clone(), known.marks(place)));
        self.asked_at = marks.collect();
        let mut topics: BTreeMap<&str, FetchTopic> = BTreeMap::new();
        for ((name, index), offset) in &self.positions {
            let topic = topics.entry(name).or_default();
            topic.topic = name.clone();
            topic.partitions.push(FetchPartition {
                partition: *index,
                fetch_offset: *offset,
                partition_max_bytes: 4_096,
                ..Default::default()
            });
        }
        let ask = FetchRequest {
            max_wait_ms: 100,
            min_bytes: 1,
            max_bytes: 16_384,
            isolation_level: i8::from(self.isolation == Isolation::Committed),
            topics: topics.into_values().collect(),
            ..Default::default()
        };
        ask.into()
    }

    /// Tells the history what an answer holds, moves on behind it, and returns what is shown.
    pub fn take_in(
        &mut self,
        context: &mut Context,
        answer: &FetchResponse,
    ) -> Result<Vec<Shown>, Violation> {
        let mut shown = Vec::new();
        for topic in &answer.responses {
            for data in &topic.partitions {
                let place = (topic.topic.clone(), data.partition_index);
                if data.error_code != 0 {
                    let error = ErrorCode::from_code(data.error_code);
                    context.trace(|| format!("{place:?} gives {error:?}"));
                    continue;
                }
                self.take_in_partition(context, place, data, &mut shown)?;
            }
        }
        Ok(shown)
    }

    fn take_in_partition(
        &mut self,
        context: &mut Context,
        place: Place,
        data: &PartitionData,
        shown: &mut Vec<Shown>,
    ) -> Result<(), Violation> {
        let told = Marks {
            high: data.high_watermark,
            stable: data.last_stable_offset,
        };
        let least = self.asked_at.get(&place).copied().unwrap_or_default();
        let now = context.scheduler.instant();
        let known = &mut context.history.transactions;
        known.marks_told(&place, least, told, now)?;
        self.told.insert(place.clone(), told);
        let end = match self.isolation {
            Isolation::Committed => told.stable,
            Isolation::Uncommitted => told.high,
        };
        let mut aborted = match (self.isolation, &data.aborted_transactions) {
            (Isolation::Committed, Some(aborted)) => Aborted::new(aborted),
            (Isolation::Uncommitted, None) => Aborted::new(&[]),
            _ => {
                return Err(format!(
                    "{place:?}: a list of the aborted where none is due"
                ));
            }
        };
        let Some(Records::Bytes(bytes)) = &data.records else {
            return Ok(());
        };
        for batch in Batches::with_partial_end(bytes.clone()) {
            let batch = batch.map_err(|error| format!("{place:?}: {error}"))?;
            batch
                .check_crc()
                .map_err(|error| format!("{place:?} serves: {error}"))?;
            if batch.header.last_offset() >= end {
                let isolation = self.isolation;
                return Err(format!(
                    "{place:?} serves a batch above {end} to {isolation:?}"
                ));
            }
            self.take_in_batch(context, &place, &batch, &mut aborted, shown)?;
        }
        Ok(())
    }

    fn take_in_batch(
        &mut self,
        context: &mut Context,
        place: &Place,
        batch: &Batch,
        aborted: &mut Aborted,
        shown: &mut Vec<Shown>,
    ) -> Result<(), Violation> {
        let position = self
            .positions
            .get_mut(place)
            .ok_or("an unasked partition")?;
        let records = batch.records(1 << 20).map_err(|error| error.to_string())?;
        let is_shown = aborted.shows(batch)?;
        if !batch.header.is_control() {
            for record in records {
                let record = record.map_err(|error| error.to_string())?;
                if record.offset < *position {
                    continue;
                }
                let value = record.value.unwrap_or_default();
                let value = String::from_utf8_lossy(&value).into_owned();
                let transactional = TxnId::of(&value).is_some();
                if transactional != batch.header.is_transactional() {
                    return Err(format!("{value:?} is in the wrong kind of batch"));
                }
                let history = &mut *context.history;
                history.read(place, record.offset, &value, transactional)?;
                if self.isolation == Isolation::Committed {
                    let known = &mut history.transactions;
                    known.judged(place, record.offset, &value, is_shown)?;
                }
                if is_shown {
                    shown.push(Shown {
                        place: place.clone(),
                        offset: record.offset,
                        value,
                    });
                }
            }
        }
        *position = (*position).max(batch.header.last_offset() + 1);
        Ok(())
    }
}

/// What is left of the list of aborted transactions, as batches pass.
pub struct Aborted {
    /// First offset and producer.
    ahead: BTreeSet<(i64, i64)>,
    now: BTreeSet<i64>,
}

impl Aborted {
    pub fn new(list: &[AbortedTransaction]) -> Aborted {
        let entry = |aborted: &AbortedTransaction| (aborted.first_offset, aborted.producer_id);
        Aborted {
            ahead: list.iter().map(entry).collect(),
            now: BTreeSet::new(),
        }
    }

    pub fn shows(&mut self, batch: &Batch) -> Result<bool, Violation> {
        let header = &batch.header;
        while let Some((first, producer)) = self.ahead.first().copied() {
            if first > header.last_offset() {
                break;
            }
            self.ahead.pop_first();
            self.now.insert(producer);
        }
        if header.is_control() {
            let mut records = batch.records(1 << 20).map_err(|error| error.to_string())?;
            let record = records.next().ok_or("a control batch without a record")?;
            let record = record.map_err(|error| error.to_string())?;
            if let Some(ControlRecord::EndTxn { result, .. }) = ControlRecord::parse(&record)
                && result == EndTxn::Abort
            {
                self.now.remove(&header.producer_id);
            }
            return Ok(false);
        }
        Ok(!header.is_transactional() || !self.now.contains(&header.producer_id))
    }
}
