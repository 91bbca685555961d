//! The broker under measurement, asked with plain frames: topics, offsets, single records.
//!
//! Blocking, one connection, answers in the order of the requests. Not for throughput, where the
//! client has to be one that people use.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use oncelog_wire::messages::{
    CreateTopicsRequest, DeleteTopicsRequest, ListOffsetsRequest, ProduceRequest,
    create_topics_request, list_offsets_request, produce_request,
};
use oncelog_wire::records::BatchBuilder;
use oncelog_wire::{ApiKey, ErrorCode, Records, RequestBody, ResponseBody, frame};

use crate::figures::Figures;

/// Apache Kafka needs 17 s for 5,000 partitions; nothing may hang for good.
const ANSWER_LIMIT: Duration = Duration::from_secs(120);

const LATEST: i64 = -1;

/// Levels of isolation.
const READ_UNCOMMITTED: i8 = 0;
const READ_COMMITTED: i8 = 1;

#[derive(clap::Args)]
pub struct Delete {
    /// The broker's address.
    #[arg(long)]
    bootstrap: String,
    #[arg(long)]
    topic: String,
}

pub fn delete(args: &Delete) -> Result<Figures> {
    Broker::connect(&args.bootstrap)?.delete_topic(&args.topic)?;
    Ok(Figures::default())
}

pub struct Broker {
    stream: TcpStream,
    asked: i32,
}

impl Broker {
    pub fn connect(address: &str) -> Result<Broker> {
        let stream = TcpStream::connect(address)
            .with_context(|| format!("no broker answers at {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        Ok(Broker { stream, asked: 0 })
    }

    /// Sends a request and waits for its answer.
    pub fn ask(&mut self, version: i16, body: impl Into<RequestBody>) -> Result<ResponseBody> {
        let body = body.into();
        self.send(version, &body)?;
        self.receive(body.api_key(), version)
    }

    pub fn send(&mut self, version: i16, body: &RequestBody) -> Result<()> {
        self.asked += 1;
        let request = frame::encode_request(self.asked, Some("bench"), version, body)?;
        let bytes = request
            .to_bytes()
            .context("a request has no external bytes")?;
        Ok(self.stream.write_all(&bytes)?)
    }

    /// The answer to the last request, which was of this API and version.
    pub fn receive(&mut self, api_key: ApiKey, version: i16) -> Result<ResponseBody> {
        let mut prefix = [0; frame::LENGTH_PREFIX];
        self.stream
            .read_exact(&mut prefix)
            .with_context(|| format!("no answer to {}", api_key.name()))?;
        let mut answer = vec![0; u32::from_be_bytes(prefix) as usize];
        self.stream.read_exact(&mut answer)?;
        let (header, body) = frame::decode_response(Bytes::from(answer), api_key, version)?;
        ensure!(
            header.correlation_id == self.asked,
            "an answer to another request than the last"
        );
        Ok(body)
    }

    /// Creates a topic and returns when each of its partitions answers for its end. Metadata that names
    /// a leader may come before that leader has its log.
    pub fn create_topic(&mut self, name: &str, partitions: i32) -> Result<()> {
        let topic = create_topics_request::CreatableTopic {
            name: name.to_owned(),
            num_partitions: partitions,
            replication_factor: 1,
            ..Default::default()
        };
        let request = CreateTopicsRequest {
            topics: vec![topic],
            ..Default::default()
        };
        let ResponseBody::CreateTopics(answer) = self.ask(5, request)? else {
            bail!("not an answer to CreateTopics");
        };
        let result = answer.topics.first().context("no topic in the answer")?;
        no_error(result.error_code).with_context(|| {
            format!(
                "creating topic {name}: {}",
                result.error_message.as_deref().unwrap_or("-")
            )
        })?;
        let created = Instant::now();
        while let Err(error) = self.ends(name, partitions) {
            ensure!(
                created.elapsed() < ANSWER_LIMIT,
                "topic {name} is not there: {error:#}"
            );
            // An answer about thousands of partitions is itself work for the broker.
            std::thread::sleep(Duration::from_millis(2 + partitions as u64 / 200));
        }
        Ok(())
    }

    pub fn delete_topic(&mut self, name: &str) -> Result<()> {
        let request = DeleteTopicsRequest {
            topic_names: vec![name.to_owned()],
            timeout_ms: 30_000,
            ..Default::default()
        };
        let ResponseBody::DeleteTopics(answer) = self.ask(4, request)? else {
            bail!("not an answer to DeleteTopics");
        };
        let result = answer.responses.first().context("no topic in the answer")?;
        no_error(result.error_code).with_context(|| format!("deleting topic {name}"))
    }

    /// The end of every partition of a topic, in their order.
    pub fn ends(&mut self, name: &str, partitions: i32) -> Result<Vec<i64>> {
        self.ends_at(name, partitions, READ_UNCOMMITTED)
    }

    /// The same for those who read what is committed.
    pub fn stable_ends(&mut self, name: &str, partitions: i32) -> Result<Vec<i64>> {
        self.ends_at(name, partitions, READ_COMMITTED)
    }

    fn ends_at(&mut self, name: &str, partitions: i32, isolation: i8) -> Result<Vec<i64>> {
        let asked = (0..partitions).map(|index| list_offsets_request::ListOffsetsPartition {
            partition_index: index,
            timestamp: LATEST,
            ..Default::default()
        });
        let request = ListOffsetsRequest {
            replica_id: -1,
            isolation_level: isolation,
            topics: vec![list_offsets_request::ListOffsetsTopic {
                name: name.to_owned(),
                partitions: asked.collect(),
                ..Default::default()
            }],
            ..Default::default()
        };
        let ResponseBody::ListOffsets(answer) = self.ask(5, request)? else {
            bail!("not an answer to ListOffsets");
        };
        let mut found = Vec::new();
        for partition in answer.topics.iter().flat_map(|topic| &topic.partitions) {
            no_error(partition.error_code).context("ListOffsets")?;
            found.push((partition.partition_index, partition.offset));
        }
        found.sort_unstable();
        ensure!(
            found.len() == partitions as usize,
            "not every partition was answered for"
        );
        Ok(found.into_iter().map(|(_, end)| end).collect())
    }

    /// One record to each of these partitions, in one request with acks=all.
    pub fn produce(&mut self, topic: &str, partitions: &[i32], value: &[u8]) -> Result<()> {
        let mut batch = BatchBuilder::new();
        batch.append(0, None, Some(value), &[]);
        let batch = batch.build();
        let data = partitions
            .iter()
            .map(|index| produce_request::PartitionProduceData {
                index: *index,
                records: Some(Records::Bytes(batch.clone())),
                ..Default::default()
            });
        let request = ProduceRequest {
            acks: -1,
            timeout_ms: 30_000,
            topic_data: vec![produce_request::TopicProduceData {
                name: topic.to_owned(),
                partition_data: data.collect(),
                ..Default::default()
            }],
            ..Default::default()
        };
        let ResponseBody::Produce(answer) = self.ask(7, request)? else {
            bail!("not an answer to Produce");
        };
        let each = answer
            .responses
            .iter()
            .flat_map(|topic| &topic.partition_responses);
        let mut count = 0;
        for partition in each {
            no_error(partition.error_code).context("Produce")?;
            count += 1;
        }
        ensure!(
            count == partitions.len(),
            "not every partition was answered for"
        );
        Ok(())
    }
}

pub fn no_error(code: i16) -> Result<()> {
    ensure!(code == 0, "{:?} ({code})", ErrorCode::from_code(code));
    Ok(())
}
