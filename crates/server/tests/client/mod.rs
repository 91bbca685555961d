//! A blocking client that speaks raw frames, for tests.

#![allow(dead_code)] // each test file uses a part

use bytes::Bytes;
use oncelog_wire::messages::*;
use oncelog_wire::records::{BatchBuilder, Batches};
use oncelog_wire::{ApiKey, ErrorCode, Records, RequestBody, ResponseBody, frame};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

pub struct Client {
    pub stream: TcpStream,
    next: i32,
    /// API, version and correlation id of what was sent and not answered.
    sent: std::collections::VecDeque<(ApiKey, i16, i32)>,
}

pub const PRODUCE: i16 = 9;
pub const FETCH: i16 = 12;

impl Client {
    pub fn connect(bootstrap: &str) -> Client {
        let stream = TcpStream::connect(bootstrap).expect("the broker listens");
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        stream.set_nodelay(true).unwrap();
        Client {
            stream,
            next: 0,
            sent: Default::default(),
        }
    }

    pub fn frame(&mut self, version: i16, body: &RequestBody) -> Bytes {
        self.next += 1;
        self.sent.push_back((body.api_key(), version, self.next));
        let encoded = frame::encode_request(self.next, Some("test"), version, body).unwrap();
        encoded.to_bytes().unwrap()
    }

    pub fn send(&mut self, version: i16, body: &RequestBody) -> io::Result<()> {
        let frame = self.frame(version, body);
        self.stream.write_all(&frame)
    }

    /// The answer to the oldest request that has none; checks that it is in order.
    pub fn receive(&mut self) -> io::Result<ResponseBody> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length)?;
        let mut body = vec![0; u32::from_be_bytes(length) as usize];
        self.stream.read_exact(&mut body)?;
        let (key, version, id) = self.sent.pop_front().expect("something was asked");
        let (header, body) = frame::decode_response(body.into(), key, version).unwrap();
        assert_eq!(
            header.correlation_id, id,
            "answers are in the order of the requests"
        );
        Ok(body)
    }

    pub fn ask(&mut self, version: i16, body: RequestBody) -> io::Result<ResponseBody> {
        self.send(version, &body)?;
        self.receive()
    }

    pub fn create_topic(&mut self, name: &str, partitions: i32) {
        let request = CreateTopicsRequest {
            topics: vec![create_topics_request::CreatableTopic {
                name: name.to_owned(),
                num_partitions: partitions,
                replication_factor: 1,
                ..Default::default()
            }],
            timeout_ms: 10_000,
            ..Default::default()
        };
        let answer = self.ask(5, RequestBody::CreateTopics(request)).unwrap();
        let ResponseBody::CreateTopics(answer) = answer else {
            panic!("{answer:?}")
        };
        assert_eq!(answer.topics[0].error_code, 0, "{answer:?}");
    }

    /// Produces one batch and returns its base offset.
    pub fn produce(&mut self, topic: &str, values: &[&[u8]]) -> Result<i64, String> {
        self.send(PRODUCE, &produce(topic, 0, -1, values))
            .map_err(|e| e.to_string())?;
        let answer = self.receive().map_err(|e| e.to_string())?;
        base_offset(&answer)
    }

    /// The values of what one fetch brings, and the high watermark.
    pub fn fetch(&mut self, topic: &str, offset: i64, wait_ms: i32) -> (Vec<Bytes>, i64) {
        let answer = self
            .ask(FETCH, fetch(topic, offset, wait_ms, 50 << 20))
            .unwrap();
        fetched(&answer)
    }

    pub fn fetch_all(&mut self, topic: &str) -> Vec<Bytes> {
        let mut all = Vec::new();
        loop {
            let (values, end) = self.fetch(topic, all.len() as i64, 0);
            all.extend(values);
            if all.len() as i64 >= end {
                return all;
            }
        }
    }
}

pub fn batch(values: &[&[u8]]) -> Bytes {
    let mut builder = BatchBuilder::new();
    for value in values {
        builder.append(1_700_000_000_000, None, Some(value), &[]);
    }
    builder.build()
}

pub fn produce(topic: &str, partition: i32, acks: i16, values: &[&[u8]]) -> RequestBody {
    RequestBody::Produce(ProduceRequest {
        acks,
        timeout_ms: 30_000,
        topic_data: vec![produce_request::TopicProduceData {
            name: topic.to_owned(),
            partition_data: vec![produce_request::PartitionProduceData {
                index: partition,
                records: Some(Records::Bytes(batch(values))),
                ..Default::default()
            }],
            ..Default::default()
        }],
        ..Default::default()
    })
}

pub fn base_offset(answer: &ResponseBody) -> Result<i64, String> {
    let ResponseBody::Produce(answer) = answer else {
        panic!("{answer:?}")
    };
    let partition = &answer.responses[0].partition_responses[0];
    match partition.error_code {
        0 => Ok(partition.base_offset),
        code => Err(format!(
            "{:?} {:?}",
            ErrorCode::from_code(code),
            partition.error_message
        )),
    }
}

pub fn fetch(topic: &str, offset: i64, wait_ms: i32, max_bytes: i32) -> RequestBody {
    RequestBody::Fetch(FetchRequest {
        max_wait_ms: wait_ms,
        min_bytes: 1,
        max_bytes,
        session_id: 0,
        session_epoch: -1,
        topics: vec![fetch_request::FetchTopic {
            topic: topic.to_owned(),
            partitions: vec![fetch_request::FetchPartition {
                partition: 0,
                fetch_offset: offset,
                partition_max_bytes: max_bytes,
                ..Default::default()
            }],
            ..Default::default()
        }],
        ..Default::default()
    })
}

pub fn fetched(answer: &ResponseBody) -> (Vec<Bytes>, i64) {
    let ResponseBody::Fetch(answer) = answer else {
        panic!("{answer:?}")
    };
    assert_eq!(answer.error_code, 0);
    let partition = &answer.responses[0].partitions[0];
    assert_eq!(partition.error_code, 0, "{partition:?}");
    let mut values = Vec::new();
    if let Some(Records::Bytes(bytes)) = &partition.records {
        for batch in Batches::new(bytes.clone()) {
            for record in batch.unwrap().records(1 << 30).unwrap() {
                values.push(record.unwrap().value.unwrap());
            }
        }
    }
    (values, partition.high_watermark)
}

pub fn api_versions() -> RequestBody {
    RequestBody::ApiVersions(ApiVersionsRequest::default())
}
