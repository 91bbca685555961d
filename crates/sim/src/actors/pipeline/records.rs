//! What a read_committed consumer reads: whole records with their keys and headers, without those of
//! aborted transactions, and where each partition begins and ends.

use super::super::transactions::reading::{Aborted, FETCH_VERSION};
use crate::actors::session::{Heard, Session};
use crate::actors::{ActorEvent, Context};
use crate::history::{Place, Violation};
use bytes::Bytes;
use oncelog_broker::ConnectionId;
use oncelog_sink::record::SinkRecord;
use oncelog_wire::messages::fetch_request::{FetchPartition, FetchTopic};
use oncelog_wire::messages::fetch_response::PartitionData;
use oncelog_wire::messages::{FetchRequest, FetchResponse};
use oncelog_wire::records::{Batch, Batches, Record};
use oncelog_wire::{ErrorCode, Records, RequestBody, ResponseBody};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Where a partition begins, up to where it may be read, and how far it is replicated.
#[derive(Clone, Copy, Debug)]
pub struct Told {
    pub start: i64,
    pub stable: i64,
    pub high: i64,
}

#[derive(Default)]
pub struct Reader {
    session: Session,
    /// Next offset to read.
    pub positions: BTreeMap<Place, i64>,
    /// As the last answer told them.
    pub told: BTreeMap<Place, Told>,
}

impl Reader {
    pub fn new(positions: BTreeMap<Place, i64>) -> Reader {
        Reader {
            positions,
            ..Reader::default()
        }
    }

    pub fn owns(&self, connection: ConnectionId) -> bool {
        self.session.owns(connection)
    }

    pub fn is_waiting(&self) -> bool {
        self.session.outstanding() > 0
    }

    pub fn abandon(&mut self, context: &mut Context) {
        self.session.abandon(context);
    }

    /// Asks for everything from the positions on.
    pub fn ask(&mut self, context: &mut Context, max_wait_ms: i32) {
        let ask = fetch(&self.positions, max_wait_ms);
        self.session.ask(context, FETCH_VERSION, 0, ask);
    }

    /// Whether every position is at the end of its partition, which holds no open transaction.
    pub fn is_at_end(&self) -> bool {
        let mut positions = self.positions.iter();
        positions.all(|(place, position)| {
            self.told
                .get(place)
                .is_some_and(|told| told.high == *position)
        })
    }

    /// `Some`: the answer has come, with so many records, and the positions are behind them; or the
    /// connection is lost.
    pub fn hear(&mut self, event: ActorEvent) -> Result<Option<Vec<SinkRecord>>, Violation> {
        match self.session.hear(event)? {
            Heard::Answer(_, body) => match *body {
                ResponseBody::Fetch(answer) => self.take_in(&answer).map(Some),
                other => Err(format!("an answer of {:?}", other.api_key())),
            },
            Heard::Lost => Ok(Some(Vec::new())),
            Heard::Nothing => Ok(None),
        }
    }

    fn take_in(&mut self, answer: &FetchResponse) -> Result<Vec<SinkRecord>, Violation> {
        let mut records = Vec::new();
        for topic in &answer.responses {
            for data in &topic.partitions {
                let place = (topic.topic.clone(), data.partition_index);
                match ErrorCode::from_code(data.error_code) {
                    ErrorCode::None => self.take_in_partition(place, data, &mut records)?,
                    ErrorCode::OffsetOutOfRange => {
                        let position = self.positions.get(&place);
                        return Err(format!("{place:?} does not have offset {position:?}"));
                    }
                    // Not there yet, or not to be had now.
                    _ => {}
                }
            }
        }
        Ok(records)
    }

    fn take_in_partition(
        &mut self,
        place: Place,
        data: &PartitionData,
        records: &mut Vec<SinkRecord>,
    ) -> Result<(), Violation> {
        let told = Told {
            start: data.log_start_offset,
            stable: data.last_stable_offset,
            high: data.high_watermark,
        };
        self.told.insert(place.clone(), told);
        let Some(position) = self.positions.get_mut(&place) else {
            return Ok(()); // not asked for any more
        };
        let aborted = data.aborted_transactions.as_deref().unwrap_or_default();
        let mut aborted = Aborted::new(aborted);
        let Some(Records::Bytes(bytes)) = &data.records else {
            return Ok(());
        };
        let topic: Arc<str> = place.0.as_str().into();
        for batch in Batches::with_partial_end(bytes.clone()) {
            let batch = batch.map_err(|error| format!("{place:?}: {error}"))?;
            batch
                .check_crc()
                .map_err(|error| format!("{place:?} serves: {error}"))?;
            let is_shown = aborted.shows(&batch)?;
            if is_shown {
                take_in_batch(&topic, place.1, *position, &batch, records)?;
            }
            *position = (*position).max(batch.header.last_offset() + 1);
        }
        Ok(())
    }
}

fn take_in_batch(
    topic: &Arc<str>,
    partition: i32,
    from: i64,
    batch: &Batch,
    records: &mut Vec<SinkRecord>,
) -> Result<(), Violation> {
    for record in batch.records(1 << 20).map_err(|error| error.to_string())? {
        let record = record.map_err(|error| error.to_string())?;
        if record.offset >= from {
            records.push(sink_record(topic, partition, &record));
        }
    }
    Ok(())
}

fn sink_record(topic: &Arc<str>, partition: i32, record: &Record) -> SinkRecord {
    let owned = |bytes: &Option<Bytes>| bytes.as_ref().map(|bytes| bytes.to_vec());
    let headers = record.headers.iter().map(|header| {
        let name: Arc<str> = String::from_utf8_lossy(&header.key).into();
        (name, owned(&header.value))
    });
    SinkRecord {
        topic: Arc::clone(topic),
        partition,
        offset: record.offset,
        timestamp_ms: Some(record.timestamp),
        key: owned(&record.key),
        value: owned(&record.value),
        headers: headers.collect(),
    }
}

fn fetch(positions: &BTreeMap<Place, i64>, max_wait_ms: i32) -> RequestBody {
    let mut topics: BTreeMap<&str, FetchTopic> = BTreeMap::new();
    for ((name, index), offset) in positions {
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
        max_wait_ms,
        min_bytes: 1,
        max_bytes: 16_384,
        isolation_level: 1,
        topics: topics.into_values().collect(),
        ..Default::default()
    };
    ask.into()
}
