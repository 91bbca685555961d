//! Requests as clients send them, in few words, and what is looked at in their answers.

use crate::host::{Host, START_MS};
use bytes::Bytes;
use oncelog_wire::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use oncelog_wire::messages::fetch_request::{FetchPartition, FetchTopic};
use oncelog_wire::messages::fetch_response::PartitionData;
use oncelog_wire::messages::produce_request::{PartitionProduceData, TopicProduceData};
use oncelog_wire::messages::produce_response::PartitionProduceResponse;
use oncelog_wire::messages::{
    CreateTopicsRequest, CreateTopicsResponse, DeleteTopicsRequest, DeleteTopicsResponse,
    FetchRequest, FetchResponse, MetadataRequest, MetadataResponse, ProduceRequest,
    ProduceResponse,
};
use oncelog_wire::records::{BatchBuilder, Batches};
use oncelog_wire::{ErrorCode, Records, Uuid};

pub const PRODUCE_VERSIONS: [i16; 3] = [3, 9, 13];
pub const FETCH_VERSIONS: [i16; 5] = [4, 7, 12, 13, 18];

pub fn code(error: i16) -> ErrorCode {
    ErrorCode::from_code(error)
}

// ---- topics ----

pub fn new_topic(name: &str, partitions: i32, configs: &[(&str, &str)]) -> CreateTopicsRequest {
    let config = |(name, value): &(&str, &str)| CreatableTopicConfig {
        name: (*name).to_owned(),
        value: Some((*value).to_owned()),
        ..Default::default()
    };
    CreateTopicsRequest {
        topics: vec![CreatableTopic {
            name: name.to_owned(),
            num_partitions: partitions,
            replication_factor: 1,
            configs: configs.iter().map(config).collect(),
            ..Default::default()
        }],
        timeout_ms: 1000,
        ..Default::default()
    }
}

/// Makes a topic and returns its id.
pub fn create_topic(
    host: &mut Host,
    name: &str,
    partitions: i32,
    configs: &[(&str, &str)],
) -> Uuid {
    let made: CreateTopicsResponse = host.ask(7, new_topic(name, partitions, configs));
    let made = &made.topics[0];
    assert_eq!(code(made.error_code), ErrorCode::None, "{made:?}");
    made.topic_id
}

pub fn delete_request(name: &str) -> DeleteTopicsRequest {
    DeleteTopicsRequest {
        topic_names: vec![name.to_owned()],
        timeout_ms: 1000,
        ..Default::default()
    }
}

pub fn delete_topic(host: &mut Host, name: &str) {
    let gone: DeleteTopicsResponse = host.ask(5, delete_request(name));
    assert_eq!(code(gone.responses[0].error_code), ErrorCode::None);
}

/// The id of a topic, without making it.
pub fn topic_id(host: &mut Host, name: &str) -> Option<Uuid> {
    let ask = MetadataRequest {
        topics: None,
        ..Default::default()
    };
    let all: MetadataResponse = host.ask(12, ask);
    let mut topics = all.topics.iter();
    let found = topics.find(|topic| topic.name.as_deref() == Some(name));
    found.map(|topic| topic.topic_id)
}

// ---- produce ----

/// A batch of these values, without a producer id.
pub fn batch(values: &[&str]) -> Bytes {
    batch_of(BatchBuilder::new(), values)
}

/// A batch of an idempotent producer.
pub fn batch_from(producer: i64, epoch: i16, sequence: i32, values: &[&str]) -> Bytes {
    batch_of(
        BatchBuilder::new().producer(producer, epoch, sequence),
        values,
    )
}

pub fn batch_of(mut builder: BatchBuilder, values: &[&str]) -> Bytes {
    for value in values {
        builder.append(START_MS, None, Some(value.as_bytes()), &[]);
    }
    builder.build()
}

/// A batch of one record that is `bytes` long in all, or a little longer.
pub fn large_batch(bytes: usize) -> Bytes {
    batch(&["x".repeat(bytes.saturating_sub(70)).as_str()])
}

/// Where a request names a topic: by name up to Produce and Fetch v12, by id from v13 on.
#[derive(Clone)]
pub struct Topic {
    pub name: String,
    pub id: Uuid,
}

impl Topic {
    pub fn new(host: &mut Host, name: &str, partitions: i32) -> Topic {
        Topic::with(host, name, partitions, &[])
    }

    pub fn with(host: &mut Host, name: &str, partitions: i32, configs: &[(&str, &str)]) -> Topic {
        let id = create_topic(host, name, partitions, configs);
        Topic {
            name: name.to_owned(),
            id,
        }
    }
}

pub fn produce_request(
    topic: &Topic,
    version: i16,
    acks: i16,
    partitions: &[(i32, Bytes)],
) -> ProduceRequest {
    let data = |(index, records): &(i32, Bytes)| PartitionProduceData {
        index: *index,
        records: Some(Records::Bytes(records.clone())),
        ..Default::default()
    };
    ProduceRequest {
        acks,
        timeout_ms: 30_000,
        topic_data: vec![TopicProduceData {
            name: if version < 13 {
                topic.name.clone()
            } else {
                String::new()
            },
            topic_id: if version < 13 { Uuid::ZERO } else { topic.id },
            partition_data: partitions.iter().map(data).collect(),
            ..Default::default()
        }],
        ..Default::default()
    }
}

/// Produces one batch to one partition; the answer must come at once.
pub fn produce(
    host: &mut Host,
    topic: &Topic,
    index: i32,
    records: Bytes,
) -> PartitionProduceResponse {
    let request = produce_request(topic, 9, -1, &[(index, records)]);
    let answer: ProduceResponse = host.ask(9, request);
    answer.responses[0].partition_responses[0].clone()
}

/// Produces and returns the base offset.
pub fn produced(host: &mut Host, topic: &Topic, index: i32, records: Bytes) -> i64 {
    let answer = produce(host, topic, index, records);
    assert_eq!(code(answer.error_code), ErrorCode::None, "{answer:?}");
    answer.base_offset
}

/// The parts of a produce answer that a test looks at: (partition, error, base offset).
pub fn outcome(answer: &ProduceResponse) -> Vec<(i32, ErrorCode, i64)> {
    let parts = answer.responses.iter().flat_map(|t| &t.partition_responses);
    parts
        .map(|part| (part.index, code(part.error_code), part.base_offset))
        .collect()
}

// ---- fetch ----

/// A full fetch without a session that waits for nothing.
pub fn fetch_request(topic: &Topic, version: i16, partitions: &[(i32, i64)]) -> FetchRequest {
    let partition = |(index, offset): &(i32, i64)| FetchPartition {
        partition: *index,
        fetch_offset: *offset,
        partition_max_bytes: 1 << 20,
        current_leader_epoch: -1,
        last_fetched_epoch: -1,
        log_start_offset: -1,
        ..Default::default()
    };
    FetchRequest {
        replica_id: -1,
        max_wait_ms: 0,
        min_bytes: 1,
        max_bytes: 10 << 20,
        session_id: 0,
        session_epoch: -1,
        topics: match partitions.is_empty() {
            true => Vec::new(),
            false => vec![FetchTopic {
                topic: if version < 13 {
                    topic.name.clone()
                } else {
                    String::new()
                },
                topic_id: if version < 13 { Uuid::ZERO } else { topic.id },
                partitions: partitions.iter().map(partition).collect(),
                ..Default::default()
            }],
        },
        ..Default::default()
    }
}

/// Every partition of a fetch answer, in its order.
pub fn parts(answer: &FetchResponse) -> Vec<&PartitionData> {
    answer
        .responses
        .iter()
        .flat_map(|t| &t.partitions)
        .collect()
}

pub fn record_bytes(part: &PartitionData) -> Bytes {
    match &part.records {
        Some(Records::Bytes(bytes)) => bytes.clone(),
        None => Bytes::new(),
        Some(other) => panic!("an answer that was decoded has bytes, not {other:?}"),
    }
}

/// Offset and value of every record of a partition's answer; every batch is whole and sound.
pub fn records_of(part: &PartitionData) -> Vec<(i64, String)> {
    let mut found = Vec::new();
    for batch in Batches::new(record_bytes(part)) {
        let batch = batch.expect("whole batches");
        assert!(
            oncelog_wire::records::crc_is_valid(&batch.bytes),
            "the CRC holds"
        );
        for record in batch.records(1 << 30).expect("a codec that is known") {
            let record = record.expect("a sound record");
            let value = record.value.as_deref().unwrap_or_default();
            found.push((record.offset, String::from_utf8_lossy(value).into_owned()));
        }
    }
    found
}

/// Reads one partition from an offset on, to the end of what one answer holds.
pub fn fetched(host: &mut Host, topic: &Topic, index: i32, offset: i64) -> Vec<(i64, String)> {
    let request = fetch_request(topic, 12, &[(index, offset)]);
    let answer: FetchResponse = host.ask(12, request);
    let part = parts(&answer)[0].clone();
    assert_eq!(code(part.error_code), ErrorCode::None, "{part:?}");
    records_of(&part)
}
