//! A blocking client that speaks in frames, and can therefore also misspeak.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use oncelog_wire::messages::*;
use oncelog_wire::records::BatchBuilder;
use oncelog_wire::{ApiKey, Records, RequestBody, ResponseBody, frame};

use crate::spread;

pub const PRODUCE: i16 = 9;
pub const FETCH: i16 = 12;

pub struct Client {
    pub stream: TcpStream,
    next: i32,
}

impl Client {
    pub fn connect(port: u16) -> io::Result<Client> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        stream.set_write_timeout(Some(Duration::from_secs(60)))?;
        stream.set_nodelay(true)?;
        Ok(Client { stream, next: 0 })
    }

    pub fn frame(&mut self, version: i16, body: &RequestBody) -> Bytes {
        self.next += 1;
        let encoded = frame::encode_request(self.next, Some("limits"), version, body);
        encoded.unwrap().to_bytes().unwrap()
    }

    pub fn send(&mut self, version: i16, body: &RequestBody) -> io::Result<()> {
        let frame = self.frame(version, body);
        self.stream.write_all(&frame)
    }

    /// An answer's bytes, without their length.
    pub fn receive_bytes(&mut self) -> io::Result<Vec<u8>> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length)?;
        let mut body = vec![0; u32::from_be_bytes(length) as usize];
        self.stream.read_exact(&mut body)?;
        Ok(body)
    }

    pub fn receive(&mut self, api_key: ApiKey, version: i16) -> io::Result<ResponseBody> {
        let body = self.receive_bytes()?;
        let (_, body) = frame::decode_response(body.into(), api_key, version)
            .map_err(|error| io::Error::other(error.to_string()))?;
        Ok(body)
    }

    pub fn ask(&mut self, version: i16, body: &RequestBody) -> io::Result<ResponseBody> {
        self.send(version, body)?;
        self.receive(body.api_key(), version)
    }

    pub fn create_topic(&mut self, name: &str, configs: &[(&str, &str)]) {
        self.create_topic_of(name, 1, configs);
    }

    pub fn create_topic_of(&mut self, name: &str, num_partitions: i32, configs: &[(&str, &str)]) {
        use create_topics_request::{CreatableTopic, CreatableTopicConfig};
        let configs = configs.iter().map(|(name, value)| CreatableTopicConfig {
            name: (*name).to_owned(),
            value: Some((*value).to_owned()),
            ..Default::default()
        });
        let request = RequestBody::CreateTopics(CreateTopicsRequest {
            topics: vec![CreatableTopic {
                name: name.to_owned(),
                num_partitions,
                replication_factor: 1,
                configs: configs.collect(),
                ..Default::default()
            }],
            timeout_ms: 10_000,
            ..Default::default()
        });
        match self.ask(5, &request).unwrap() {
            ResponseBody::CreateTopics(answer) => assert_eq!(answer.topics[0].error_code, 0),
            other => panic!("{other:?}"),
        }
    }

    /// One batch of one record; the error code, or its offset.
    pub fn produce(&mut self, topic: &str, value: &[u8]) -> io::Result<Result<i64, i16>> {
        let answer = self.ask(PRODUCE, &produce(topic, value))?;
        let ResponseBody::Produce(answer) = answer else {
            panic!("{answer:?}")
        };
        let partition = &answer.responses[0].partition_responses[0];
        Ok(match partition.error_code {
            0 => Ok(partition.base_offset),
            code => Err(code),
        })
    }

    /// How many bytes of records one fetch brings.
    pub fn fetch(&mut self, topic: &str, offset: i64) -> io::Result<usize> {
        let answer = self.ask(FETCH, &fetch(topic, offset))?;
        let ResponseBody::Fetch(answer) = answer else {
            panic!("{answer:?}")
        };
        let partition = &answer.responses[0].partitions[0];
        assert_eq!(partition.error_code, 0);
        Ok(match &partition.records {
            Some(Records::Bytes(bytes)) => bytes.len(),
            _ => 0,
        })
    }

    /// Whether the broker ends this connection within `patience`, whatever it still answers.
    pub fn is_closed_within(&mut self, patience: Duration) -> bool {
        let began = Instant::now();
        let mut buffer = vec![0; 1 << 16];
        while began.elapsed() < patience {
            let rest = patience.saturating_sub(began.elapsed());
            let rest = rest.max(Duration::from_millis(1));
            self.stream.set_read_timeout(Some(rest)).unwrap();
            match self.stream.read(&mut buffer) {
                Ok(0) => return true,
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return true,
                _ => {}
            }
        }
        false
    }
}

pub fn produce(topic: &str, value: &[u8]) -> RequestBody {
    // Of now: retention takes what is old.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let mut batch = BatchBuilder::new();
    batch.append(now.as_millis() as i64, None, Some(value), &[]);
    RequestBody::Produce(ProduceRequest {
        acks: -1,
        timeout_ms: 30_000,
        topic_data: vec![produce_request::TopicProduceData {
            name: topic.to_owned(),
            partition_data: vec![produce_request::PartitionProduceData {
                index: 0,
                records: Some(Records::Bytes(batch.build())),
                ..Default::default()
            }],
            ..Default::default()
        }],
        ..Default::default()
    })
}

pub fn fetch(topic: &str, offset: i64) -> RequestBody {
    RequestBody::Fetch(FetchRequest {
        max_wait_ms: 1_000,
        min_bytes: 1,
        max_bytes: 50 << 20,
        session_id: 0,
        session_epoch: -1,
        topics: vec![fetch_request::FetchTopic {
            topic: topic.to_owned(),
            partitions: vec![fetch_request::FetchPartition {
                partition: 0,
                fetch_offset: offset,
                partition_max_bytes: 50 << 20,
                ..Default::default()
            }],
            ..Default::default()
        }],
        ..Default::default()
    })
}

pub fn api_versions() -> RequestBody {
    RequestBody::ApiVersions(ApiVersionsRequest::default())
}

/// How long somebody who means no harm was kept waiting.
pub struct Served {
    /// With a sync of the disk in it, which is as fast as the machine has time for it.
    pub produce: Vec<Duration>,
    /// A fetch of what was produced, and a request for versions: no disk is waited for.
    pub read: Vec<Duration>,
}

impl Served {
    pub fn longest(&self) -> Duration {
        let all = self.produce.iter().chain(&self.read);
        all.max().copied().unwrap_or_default()
    }
}

impl fmt::Display for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ((produce, produce_max), (read, read_max)) =
            (spread(self.produce.clone()), spread(self.read.clone()));
        write!(
            f,
            "produce {produce:.1?} (longest {produce_max:.1?}), read {read:.1?} (longest \
             {read_max:.1?})"
        )
    }
}

/// Produces, reads it back and asks for versions, `rounds` times; panics if one is not served.
pub fn bystander(port: u16, topic: &str, rounds: usize) -> Served {
    let mut left = rounds;
    bystander_while(port, topic, || {
        left = left.saturating_sub(1);
        left > 0
    })
}

/// The same at least once, and as long as `more` says.
pub fn bystander_while(port: u16, topic: &str, mut more: impl FnMut() -> bool) -> Served {
    let mut client = Client::connect(port).unwrap();
    let mut served = Served {
        produce: Vec::new(),
        read: Vec::new(),
    };
    loop {
        let began = Instant::now();
        let offset = client.produce(topic, b"a small record").unwrap().unwrap();
        served.produce.push(began.elapsed());
        let began = Instant::now();
        assert!(client.fetch(topic, offset).unwrap() > 0);
        client.ask(0, &api_versions()).unwrap();
        served.read.push(began.elapsed());
        if !more() {
            return served;
        }
    }
}
