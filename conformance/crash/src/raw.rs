//! Requests made by hand, over a connection of their own: a partition read batch by batch by
//! somebody who checks everything (what a consumer would be given, before its client hides the
//! details), and a batch sent a second time.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use bytes::Bytes;
use oncelog_wire::messages::{FetchRequest, ProduceRequest, fetch_request, produce_request};
use oncelog_wire::records::{Batch, Batches};
use oncelog_wire::{ErrorCode, Records, RequestBody, ResponseBody, frame};

const FETCH: i16 = 12;
const PRODUCE: i16 = 9;
const FETCH_BYTES: i32 = 1 << 20;
const RECORDS_BYTES_MAX: usize = 16 << 20;

pub struct Raw {
    port: u16,
    stream: Option<TcpStream>,
    next: i32,
}

/// What one fetch gave.
#[derive(Debug)]
pub enum Fetched {
    /// Whole batches with good CRCs: (offset, value) of each record at or past the offset asked for.
    Records(Vec<(i64, Vec<u8>)>),
    /// There is nothing at this offset yet.
    Nothing,
    /// The first batch at the offset does not check; a consumer stops here.
    Damaged(String),
    /// The broker says no.
    Refused(ErrorCode),
    /// The broker closed the connection instead of answering.
    Closed(io::Error),
}

impl Raw {
    pub fn new(port: u16) -> Raw {
        Raw {
            port,
            stream: None,
            next: 0,
        }
    }

    /// Asks for `wanted` = (topic, partition, offset) alone.
    pub fn fetch(&mut self, topic: &str, partition: i32, offset: i64) -> Fetched {
        let mut all = self.fetch_all(&[(topic, partition, offset)]);
        all.pop().expect("one partition was asked for")
    }

    /// Asks for several partitions at once; the outcomes are in the order asked.
    pub fn fetch_all(&mut self, wanted: &[(&str, i32, i64)]) -> Vec<Fetched> {
        let answer = match self.fetch_answer(wanted) {
            Ok(answer) => answer,
            Err(error) => {
                self.stream = None;
                let again = || io::Error::new(error.kind(), error.to_string());
                return wanted.iter().map(|_| Fetched::Closed(again())).collect();
            }
        };
        let outcome = |(topic, partition, offset): &(&str, i32, i64)| {
            let topics = answer.iter().filter(|(name, ..)| name == topic);
            let found = topics.filter(|(_, index, ..)| index == partition).last();
            let Some((_, _, error, records)) = found else {
                return Fetched::Refused(ErrorCode::UnknownServerError);
            };
            match error {
                0 => unpack(records.clone(), *offset),
                code => Fetched::Refused(ErrorCode::from_code(*code)),
            }
        };
        wanted.iter().map(outcome).collect()
    }

    /// Sends a whole batch as it is, with acks=all; error code and base offset.
    pub fn produce(&mut self, topic: &str, index: i32, batch: Bytes) -> io::Result<(i16, i64)> {
        let partition = produce_request::PartitionProduceData {
            index,
            records: Some(Records::Bytes(batch)),
            ..Default::default()
        };
        let request = RequestBody::Produce(ProduceRequest {
            acks: -1,
            timeout_ms: 10_000,
            topic_data: vec![produce_request::TopicProduceData {
                name: topic.to_owned(),
                partition_data: vec![partition],
                ..Default::default()
            }],
            ..Default::default()
        });
        let ResponseBody::Produce(answer) = self.ask(PRODUCE, &request)? else {
            return Err(io::Error::other("the answer to something else"));
        };
        let partition = &answer.responses[0].partition_responses[0];
        Ok((partition.error_code, partition.base_offset))
    }

    fn fetch_answer(&mut self, wanted: &[(&str, i32, i64)]) -> io::Result<Vec<Answered>> {
        let ResponseBody::Fetch(answer) = self.ask(FETCH, &request(wanted))? else {
            return Err(io::Error::other("the answer to something else"));
        };
        if answer.error_code != 0 {
            return Err(io::Error::other(format!("error {}", answer.error_code)));
        }
        let mut all = Vec::new();
        for topic in answer.responses {
            for partition in topic.partitions {
                let records = match partition.records {
                    Some(Records::Bytes(bytes)) => bytes,
                    _ => Bytes::new(),
                };
                let (index, error) = (partition.partition_index, partition.error_code);
                all.push((topic.topic.clone(), index, error, records));
            }
        }
        Ok(all)
    }

    fn ask(&mut self, version: i16, request: &RequestBody) -> io::Result<ResponseBody> {
        let strange = |error: String| io::Error::other(error);
        self.next += 1;
        let frame = frame::encode_request(self.next, Some("judge"), version, request)
            .map_err(|error| strange(error.to_string()))?
            .to_bytes()
            .ok_or_else(|| strange("a request with files in it".to_owned()))?;
        if self.stream.is_none() {
            let stream = TcpStream::connect(("127.0.0.1", self.port))?;
            stream.set_read_timeout(Some(Duration::from_secs(20)))?;
            self.stream = Some(stream);
        }
        let stream = self.stream.as_mut().expect("connected above");
        stream.write_all(&frame)?;
        let mut length = [0; 4];
        stream.read_exact(&mut length)?;
        let mut body = vec![0; u32::from_be_bytes(length) as usize];
        stream.read_exact(&mut body)?;
        let (_, body) = frame::decode_response(body.into(), request.api_key(), version)
            .map_err(|error| strange(error.to_string()))?;
        Ok(body)
    }
}

/// Topic, partition, error code, records.
type Answered = (String, i32, i16, Bytes);

fn request(wanted: &[(&str, i32, i64)]) -> RequestBody {
    let topic = |(topic, partition, offset): &(&str, i32, i64)| fetch_request::FetchTopic {
        topic: (*topic).to_owned(),
        partitions: vec![fetch_request::FetchPartition {
            partition: *partition,
            fetch_offset: *offset,
            partition_max_bytes: FETCH_BYTES,
            ..Default::default()
        }],
        ..Default::default()
    };
    RequestBody::Fetch(FetchRequest {
        max_wait_ms: 0,
        min_bytes: 0,
        max_bytes: 50 << 20,
        session_epoch: -1,
        topics: wanted.iter().map(topic).collect(),
        ..Default::default()
    })
}

fn unpack(records: Bytes, offset: i64) -> Fetched {
    let mut found = Vec::new();
    for batch in Batches::with_partial_end(records) {
        let values = batch
            .map_err(|error| error.to_string())
            .and_then(|batch| values(&batch, offset));
        match values {
            Ok(values) => found.extend(values),
            // What stood before it counts; the next fetch begins at it.
            Err(why) if found.is_empty() => return Fetched::Damaged(why),
            Err(_) => break,
        }
    }
    match found.is_empty() {
        true => Fetched::Nothing,
        false => Fetched::Records(found),
    }
}

fn values(batch: &Batch, from: i64) -> Result<Vec<(i64, Vec<u8>)>, String> {
    batch.check_crc().map_err(|error| error.to_string())?;
    let records = batch
        .records(RECORDS_BYTES_MAX)
        .map_err(|error| error.to_string())?;
    let mut values = Vec::new();
    for record in records {
        let record = record.map_err(|error| error.to_string())?;
        if record.offset >= from {
            values.push((record.offset, record.value.unwrap_or_default().to_vec()));
        }
    }
    Ok(values)
}
