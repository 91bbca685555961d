//! What the floor answers: just enough for librdkafka and for the measuring programs.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use oncelog_wire::messages::*;
use oncelog_wire::{ApiKey, Chunk, Records, RequestBody, ResponseBody, frame};

use super::connection::Piece;
use super::files::Files;
use super::requests::{Cursor, Header, each_produced};

/// API and versions. Produce stays below 8 because it is read in place.
const SERVED: [(ApiKey, i16, i16); 9] = [
    (ApiKey::Produce, 0, 7),
    (ApiKey::Fetch, 4, 11),
    (ApiKey::ListOffsets, 1, 5),
    (ApiKey::Metadata, 0, 7),
    (ApiKey::FindCoordinator, 0, 2),
    (ApiKey::ApiVersions, 0, 3),
    (ApiKey::CreateTopics, 2, 5),
    (ApiKey::DeleteTopics, 1, 4),
    (ApiKey::InitProducerId, 0, 1),
];

const NODE: i32 = 1;

pub struct Answerer {
    pub files: Files,
    port: i32,
    producer_ids: i64,
}

/// A fetch that found nothing yet.
pub struct Parked {
    correlation_id: i32,
    version: i16,
    request: FetchRequest,
    pub deadline: Instant,
}

type Answers = VecDeque<Piece>;

impl Answerer {
    pub fn new(dir: PathBuf, port: u16) -> Answerer {
        Answerer {
            files: Files::new(dir),
            port: port.into(),
            producer_ids: 0,
        }
    }

    /// Answers a request, or returns the fetch that it is.
    pub fn handle(&mut self, request: &[u8], answers: &mut Answers) -> Result<Option<Parked>> {
        let mut cursor = Cursor(request);
        let header = Header::read(&mut cursor)?;
        if header.api_key == ApiKey::Produce.code() {
            self.produce(&header, cursor, answers)?;
            return Ok(None);
        }
        let (header, body) = frame::decode_request(Bytes::copy_from_slice(request))?;
        let (correlation_id, version) = (header.correlation_id, header.request_api_version);
        let body = match body {
            RequestBody::Fetch(request) => {
                let wait = Duration::from_millis(request.max_wait_ms.max(0) as u64);
                let deadline = Instant::now() + wait;
                return Ok(Some(Parked {
                    correlation_id,
                    version,
                    request,
                    deadline,
                }));
            }
            RequestBody::ApiVersions(_) => api_versions(),
            RequestBody::Metadata(request) => self.metadata(request),
            RequestBody::ListOffsets(request) => self.list_offsets(request)?,
            RequestBody::CreateTopics(request) => self.create_topics(request)?,
            RequestBody::DeleteTopics(request) => self.delete_topics(request)?,
            RequestBody::FindCoordinator(_) => self.find_coordinator(),
            RequestBody::InitProducerId(_) => self.init_producer_id(),
            other => bail!("the floor does not know {}", other.api_key().name()),
        };
        push(answers, correlation_id, version, &body, &[])?;
        Ok(None)
    }

    fn produce(
        &mut self,
        header: &Header,
        mut cursor: Cursor,
        answers: &mut Answers,
    ) -> Result<()> {
        let mut response = ProduceResponse::default();
        let acks = each_produced(&mut cursor, |topic, index, records| {
            let partition = produce_response::PartitionProduceResponse {
                index,
                base_offset: self.files.append(topic, index, records)?,
                log_append_time_ms: -1,
                ..Default::default()
            };
            response
                .responses
                .push(produce_response::TopicProduceResponse {
                    name: topic.to_owned(),
                    partition_responses: vec![partition],
                    ..Default::default()
                });
            Ok(())
        })?;
        if acks != 0 {
            push(
                answers,
                header.correlation_id,
                header.version,
                &response.into(),
                &[],
            )?;
        }
        Ok(())
    }

    /// Answers a fetch if there is something to send, or if it is `due`; whether it did.
    pub fn fetch(&mut self, parked: &Parked, due: bool, answers: &mut Answers) -> Result<bool> {
        let mut response = FetchResponse::default();
        let mut ranges = Vec::new();
        for topic in &parked.request.topics {
            let mut partitions = Vec::new();
            for asked in &topic.partitions {
                let partition = self.files.partition(&topic.topic, asked.partition)?;
                let bytes_max = asked.partition_max_bytes.max(0) as u64;
                let (at, len) = partition.range(asked.fetch_offset, bytes_max);
                let records = (len > 0).then(|| {
                    ranges.push((partition.file.clone(), at, len as usize));
                    Records::External {
                        token: ranges.len() as u32 - 1,
                        len: len as u32,
                    }
                });
                partitions.push(fetch_response::PartitionData {
                    partition_index: asked.partition,
                    high_watermark: partition.end_offset,
                    last_stable_offset: partition.end_offset,
                    records: Some(records.unwrap_or_default()),
                    ..Default::default()
                });
            }
            response
                .responses
                .push(fetch_response::FetchableTopicResponse {
                    topic: topic.topic.clone(),
                    partitions,
                    ..Default::default()
                });
        }
        if ranges.is_empty() && !due {
            return Ok(false);
        }
        push(
            answers,
            parked.correlation_id,
            parked.version,
            &response.into(),
            &ranges,
        )?;
        Ok(true)
    }

    fn metadata(&self, request: MetadataRequest) -> ResponseBody {
        let asked: Vec<String> = match request.topics {
            Some(topics) => topics.into_iter().filter_map(|topic| topic.name).collect(),
            None => self.files.topics.keys().cloned().collect(),
        };
        let partition = |index| metadata_response::MetadataResponsePartition {
            partition_index: index,
            leader_id: NODE,
            leader_epoch: 0,
            replica_nodes: vec![NODE],
            isr_nodes: vec![NODE],
            ..Default::default()
        };
        let topic = |name: String| {
            let partitions = self.files.topics.get(&name).map(Vec::len);
            metadata_response::MetadataResponseTopic {
                // UNKNOWN_TOPIC_OR_PARTITION
                error_code: if partitions.is_some() { 0 } else { 3 },
                partitions: (0..partitions.unwrap_or(0) as i32).map(partition).collect(),
                name: Some(name),
                ..Default::default()
            }
        };
        MetadataResponse {
            brokers: vec![metadata_response::MetadataResponseBroker {
                node_id: NODE,
                host: "127.0.0.1".to_owned(),
                port: self.port,
                ..Default::default()
            }],
            controller_id: NODE,
            topics: asked.into_iter().map(topic).collect(),
            ..Default::default()
        }
        .into()
    }

    /// The end, whatever was asked for but the beginning.
    fn list_offsets(&mut self, request: ListOffsetsRequest) -> Result<ResponseBody> {
        let mut response = ListOffsetsResponse::default();
        for topic in request.topics {
            let mut partitions = Vec::new();
            for asked in topic.partitions {
                let end = self
                    .files
                    .partition(&topic.name, asked.partition_index)?
                    .end_offset;
                partitions.push(list_offsets_response::ListOffsetsPartitionResponse {
                    partition_index: asked.partition_index,
                    offset: if asked.timestamp == -2 { 0 } else { end },
                    ..Default::default()
                });
            }
            response
                .topics
                .push(list_offsets_response::ListOffsetsTopicResponse {
                    name: topic.name,
                    partitions,
                    ..Default::default()
                });
        }
        Ok(response.into())
    }

    fn create_topics(&mut self, request: CreateTopicsRequest) -> Result<ResponseBody> {
        let mut response = CreateTopicsResponse::default();
        for topic in request.topics {
            self.files.create(&topic.name, topic.num_partitions)?;
            response
                .topics
                .push(create_topics_response::CreatableTopicResult {
                    name: topic.name,
                    num_partitions: topic.num_partitions,
                    ..Default::default()
                });
        }
        Ok(response.into())
    }

    fn delete_topics(&mut self, request: DeleteTopicsRequest) -> Result<ResponseBody> {
        let mut response = DeleteTopicsResponse::default();
        for name in request.topic_names {
            self.files.delete(&name)?;
            response
                .responses
                .push(delete_topics_response::DeletableTopicResult {
                    name: Some(name),
                    ..Default::default()
                });
        }
        Ok(response.into())
    }

    fn find_coordinator(&self) -> ResponseBody {
        FindCoordinatorResponse {
            node_id: NODE,
            host: "127.0.0.1".to_owned(),
            port: self.port,
            ..Default::default()
        }
        .into()
    }

    fn init_producer_id(&mut self) -> ResponseBody {
        self.producer_ids += 1;
        InitProducerIdResponse {
            producer_id: self.producer_ids,
            ..Default::default()
        }
        .into()
    }
}

fn api_versions() -> ResponseBody {
    let row =
        |(key, min_version, max_version): (ApiKey, i16, i16)| api_versions_response::ApiVersion {
            api_key: key.code(),
            min_version,
            max_version,
            ..Default::default()
        };
    ApiVersionsResponse {
        api_keys: SERVED.map(row).to_vec(),
        ..Default::default()
    }
    .into()
}

fn push(
    answers: &mut Answers,
    correlation_id: i32,
    version: i16,
    body: &ResponseBody,
    ranges: &[(std::sync::Arc<std::fs::File>, u64, usize)],
) -> Result<()> {
    let encoded = frame::encode_response(correlation_id, body.api_key(), version, body)?;
    for chunk in encoded.chunks {
        answers.push_back(match chunk {
            Chunk::Bytes(bytes) => Piece::Bytes(bytes),
            Chunk::External { token, .. } => {
                let range = ranges
                    .get(token as usize)
                    .context("a range for each token")?;
                Piece::File {
                    file: range.0.clone(),
                    at: range.1,
                    len: range.2,
                }
            }
        });
    }
    Ok(())
}
