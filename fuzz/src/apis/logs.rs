//! Topics and their records: what is asked of the broker, and what the model says to the answer.

use super::World;
use super::model::{Known, Log, Sent, Written};
use crate::requests::*;
use oncelog_wire::ErrorCode;
use oncelog_wire::Uuid;
use oncelog_wire::messages::alter_configs_request::{AlterConfigsResource, AlterableConfig};
use oncelog_wire::messages::create_partitions_request::CreatePartitionsTopic;
use oncelog_wire::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use oncelog_wire::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use oncelog_wire::messages::{
    AlterConfigsRequest, AlterConfigsResponse, CreatePartitionsRequest, CreatePartitionsResponse,
    CreateTopicsResponse, DeleteRecordsRequest, DeleteRecordsResponse, DeleteTopicsResponse,
    FetchResponse, ListOffsetsRequest, ListOffsetsResponse, MetadataRequest, MetadataResponse,
    ProduceResponse,
};
use oncelog_wire::records::{BatchBuilder, Compression};

/// `max.message.bytes` if it is not set.
const MESSAGE_BYTES_MAX: usize = 1_048_588;
/// No id that a broker gives.
const NO_TOPIC: Uuid = Uuid([9; 16]);
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;

pub fn name_of(topic: u8) -> String {
    format!("topic-{topic}")
}

impl World {
    /// The topic as a client knows it, also if there is none.
    pub fn topic(&self, topic: u8) -> Topic {
        let known = self.model.topics.get(&topic);
        known.map_or(
            Topic {
                name: name_of(topic),
                id: NO_TOPIC,
            },
            |known| known.topic.clone(),
        )
    }

    fn log(&mut self, topic: u8, partition: i32) -> Option<&mut Log> {
        let known = self.model.topics.get_mut(&topic)?;
        known.partitions.get_mut(partition as usize)
    }

    pub fn create(&mut self, topic: u8, b: u8, c: u8) {
        let count = 1 + i32::from(b % 3);
        let max_message_bytes = [MESSAGE_BYTES_MAX, 250][usize::from(c % 4 == 3)];
        let max = max_message_bytes.to_string();
        let configs = [("max.message.bytes", &max[..])];
        let request = new_topic(&name_of(topic), count, &configs);
        let answer: CreateTopicsResponse = self.host().ask(7, request);
        let made = &answer.topics[0];
        if self.model.topics.contains_key(&topic) {
            assert_eq!(code(made.error_code), ErrorCode::TopicAlreadyExists);
            return;
        }
        assert_eq!(code(made.error_code), ErrorCode::None, "{made:?}");
        assert_eq!(made.num_partitions, count);
        let known = Known {
            topic: Topic {
                name: name_of(topic),
                id: made.topic_id,
            },
            partitions: (0..count).map(|_| Log::default()).collect(),
            max_message_bytes,
        };
        self.model.topics.insert(topic, known);
    }

    pub fn delete_topic(&mut self, topic: u8) {
        let answer: DeleteTopicsResponse = self.host().ask(5, delete_request(&name_of(topic)));
        let expected = match self.model.topics.remove(&topic) {
            Some(_) => ErrorCode::None,
            None => ErrorCode::UnknownTopicOrPartition,
        };
        assert_eq!(code(answer.responses[0].error_code), expected);
        self.model.committed.retain(|(_, of, _), _| *of != topic);
    }

    pub fn add_partitions(&mut self, topic: u8, b: u8) {
        let count = 1 + i32::from(b % 5);
        let request = CreatePartitionsRequest {
            topics: vec![CreatePartitionsTopic {
                name: name_of(topic),
                count,
                assignments: None,
                ..Default::default()
            }],
            timeout_ms: 1000,
            ..Default::default()
        };
        let answer: CreatePartitionsResponse = self.host().ask(3, request);
        let told = code(answer.results[0].error_code);
        let Some(known) = self.model.topics.get_mut(&topic) else {
            return assert_eq!(told, ErrorCode::UnknownTopicOrPartition);
        };
        if count as usize <= known.partitions.len() {
            return assert_eq!(told, ErrorCode::InvalidPartitions);
        }
        assert_eq!(told, ErrorCode::None);
        known.partitions.resize_with(count as usize, Log::default);
    }

    /// `max.message.bytes`, set anew or taken back.
    pub fn limit_messages(&mut self, topic: u8, b: u8) {
        let max = [None, Some(100), Some(250), Some(MESSAGE_BYTES_MAX)][usize::from(b % 4)];
        let config = max.map(|max| AlterableConfig {
            name: "max.message.bytes".to_owned(),
            value: Some(max.to_string()),
            ..Default::default()
        });
        let request = AlterConfigsRequest {
            resources: vec![AlterConfigsResource {
                resource_type: 2,
                resource_name: name_of(topic),
                configs: config.into_iter().collect(),
                ..Default::default()
            }],
            ..Default::default()
        };
        let answer: AlterConfigsResponse = self.host().ask(1, request);
        let told = code(answer.responses[0].error_code);
        match self.model.topics.get_mut(&topic) {
            None => assert_eq!(told, ErrorCode::UnknownTopicOrPartition),
            Some(known) => {
                assert_eq!(told, ErrorCode::None);
                known.max_message_bytes = max.unwrap_or(MESSAGE_BYTES_MAX);
            }
        }
    }

    pub fn check_topics(&mut self) {
        let all = MetadataRequest {
            topics: None,
            ..Default::default()
        };
        let answer: MetadataResponse = self.host().ask(12, all);
        let topics = answer.topics.iter().filter(|topic| !topic.is_internal);
        let found: Vec<(String, Uuid, usize)> = topics
            .map(|topic| {
                let name = topic.name.clone().expect("its name is told");
                (name, topic.topic_id, topic.partitions.len())
            })
            .collect();
        let expected = self.model.topics.values().map(|known| {
            let Topic { name, id } = known.topic.clone();
            (name, id, known.partitions.len())
        });
        assert_eq!(found, expected.collect::<Vec<_>>());
    }

    // ---- writing ----

    pub fn produce(&mut self, topic: u8, partition: i32, b: u8, c: u8) {
        let records = self.records(b, c);
        self.send(topic, partition, c, None, records);
    }

    /// A batch of a producer that goes on, comes again, leaves something out, goes back, or has a
    /// new epoch.
    pub fn produce_in_sequence(&mut self, topic: u8, partition: i32, b: u8, c: u8) {
        let id = 1000 + i64::from(b % 3);
        let mut records = self.records(b / 3, c);
        let log = self.log(topic, partition);
        let (window, epoch) = log.map_or((Vec::new(), 0), |log| {
            (log.window(id), log.newest_epoch(id))
        });
        let next = window.last().map_or(0, |last| last.sequence + last.count);
        let mut sent = Sent {
            epoch,
            sequence: next,
            count: records.len() as i32,
            base_offset: 0,
        };
        match c >> 4 {
            0..=7 => {}
            8..=11 => {
                if let Some(old) = window.get(usize::from(c % 5) % window.len().max(1)) {
                    sent = *old;
                    records.resize(old.count as usize, records[0].clone());
                }
            }
            12 => sent.sequence += 1,
            13 => sent.sequence = (next - 1).max(0),
            14 => {
                sent = Sent {
                    epoch: epoch + 1,
                    sequence: 0,
                    ..sent
                }
            }
            _ => sent.epoch = (epoch - 1).max(0),
        }
        self.send(topic, partition, c, Some((id, sent)), records);
    }

    fn records(&mut self, b: u8, c: u8) -> Vec<Written> {
        let now = self.host().now.wall_ms;
        let mut one = |i: u8| {
            self.written += 1;
            Written {
                timestamp: now + i64::from(c.wrapping_mul(i + 1) % 16),
                value: format!("{:-<width$}", self.written, width = usize::from(b / 4)),
            }
        };
        (0..1 + b % 4).map(&mut one).collect()
    }

    fn send(
        &mut self,
        topic: u8,
        partition: i32,
        c: u8,
        from: Option<(i64, Sent)>,
        records: Vec<Written>,
    ) {
        let codec = Compression::ALL[usize::from(c % 5)];
        let mut builder = BatchBuilder::new().compression(codec);
        if let Some((id, sent)) = from {
            builder = builder.producer(id, sent.epoch, sent.sequence);
        }
        for record in &records {
            builder.append(record.timestamp, None, Some(record.value.as_bytes()), &[]);
        }
        let batch = builder.build();
        let version = [7, 9, 13][usize::from(c % 3)];
        let acks = [-1, 1, 0][usize::from(c / 3 % 3)];
        let request = produce_request(
            &self.topic(topic),
            version,
            acks,
            &[(partition, batch.clone())],
        );
        let expected = match self.model.topics.get_mut(&topic) {
            None if version < 13 => Err(ErrorCode::UnknownTopicOrPartition),
            None => Err(ErrorCode::UnknownTopicId),
            Some(known) => match known.partitions.get_mut(partition as usize) {
                None => Err(ErrorCode::UnknownTopicOrPartition),
                Some(log) => log.append(from, records, batch.len() <= known.max_message_bytes),
            },
        };
        let host = self.host();
        let connection = host.connect();
        host.send(connection, version, request);
        if acks != 0 {
            let answer: ProduceResponse = host.take(connection);
            let told = &outcome(&answer)[0];
            let found = match told.1 {
                ErrorCode::None => Ok(told.2),
                error => Err(error),
            };
            assert_eq!(found, expected, "{answer:?}");
        }
        host.disconnect(connection);
    }

    pub fn delete_records(&mut self, topic: u8, partition: i32, b: u8) {
        let end = self.log(topic, partition).map_or(0, |log| log.end());
        // From "the high watermark" (-1) to one past the end.
        let before = i64::from(b) % (end + 3) - 1;
        let request = DeleteRecordsRequest {
            topics: vec![DeleteRecordsTopic {
                name: name_of(topic),
                partitions: vec![DeleteRecordsPartition {
                    partition_index: partition,
                    offset: before,
                    ..Default::default()
                }],
                ..Default::default()
            }],
            timeout_ms: 1000,
            ..Default::default()
        };
        let answer: DeleteRecordsResponse = self.host().ask(2, request);
        let told = &answer.topics[0].partitions[0];
        let found = match code(told.error_code) {
            ErrorCode::None => Ok(told.low_watermark),
            error => Err(error),
        };
        let expected = match self.log(topic, partition) {
            None => Err(ErrorCode::UnknownTopicOrPartition),
            Some(_) if before > end => Err(ErrorCode::OffsetOutOfRange),
            Some(log) => {
                log.start = log.start.max(if before == -1 { end } else { before });
                Ok(log.start)
            }
        };
        assert_eq!(found, expected);
    }

    // ---- reading ----

    pub fn fetch(&mut self, topic: u8, partition: i32, b: u8, c: u8) {
        let end = self.log(topic, partition).map_or(0, |log| log.end());
        let offset = i64::from(b) % (end + 3) - 1;
        let version = FETCH_VERSIONS[usize::from(c) % FETCH_VERSIONS.len()];
        let max_bytes = [1, 100, 1 << 20][usize::from(c / 5 % 3)];
        self.read(topic, partition, offset, version, max_bytes);
    }

    /// Reads once; the offset after the last record that was given.
    fn read(&mut self, topic: u8, partition: i32, offset: i64, version: i16, max: i32) -> i64 {
        let mut request = fetch_request(&self.topic(topic), version, &[(partition, offset)]);
        request.topics[0].partitions[0].partition_max_bytes = max;
        let answer: FetchResponse = self.host().ask(version, request);
        let part = parts(&answer)[0].clone();
        let told = code(part.error_code);
        let there = self.model.topics.contains_key(&topic);
        let Some(log) = self.log(topic, partition) else {
            let expected = match !there && version >= 13 {
                true => ErrorCode::UnknownTopicId,
                false => ErrorCode::UnknownTopicOrPartition,
            };
            assert_eq!(told, expected);
            return offset;
        };
        if offset < log.start || offset > log.end() {
            assert_eq!(
                told,
                ErrorCode::OffsetOutOfRange,
                "{offset} of {}",
                log.end()
            );
            return offset;
        }
        assert_eq!(told, ErrorCode::None);
        assert_eq!(part.high_watermark, log.end());
        if version >= 5 {
            assert_eq!(part.log_start_offset, log.start);
        }
        let mut next = offset;
        // The first batch may begin before the offset.
        for (at, value) in records_of(&part) {
            assert_eq!(log.records[at as usize].value, value, "at {at}");
            if at >= offset {
                assert_eq!(at, next, "none is left out");
                next += 1;
            }
        }
        assert!(
            next > offset || offset == log.end(),
            "nothing at {offset} of {}",
            log.end()
        );
        next
    }

    pub fn list_offsets(&mut self, topic: u8, partition: i32, b: u8) {
        let log = self.log(topic, partition);
        let times = log.map_or(Vec::new(), |log| {
            log.records.iter().map(|r| r.timestamp).collect()
        });
        let timestamp = match b % 4 {
            0 => LATEST,
            1 => EARLIEST,
            2 => MAX_TIMESTAMP,
            _ => match times.get(usize::from(b / 4) % times.len().max(1)) {
                Some(time) => time + i64::from(b / 4 % 3) - 1,
                None => 5,
            },
        };
        let found = self.listed(topic, partition, timestamp);
        let Some(log) = self.log(topic, partition) else {
            return assert_eq!(found, Err(ErrorCode::UnknownTopicOrPartition));
        };
        let expected = match timestamp {
            LATEST => (log.end(), -1),
            EARLIEST => (log.start, -1),
            // Deleted records may be counted as long as their segment is there.
            MAX_TIMESTAMP if log.start > 0 => return,
            MAX_TIMESTAMP => match times.iter().max() {
                Some(max) => {
                    let (offset, told) = found.expect("the partition is there");
                    assert_eq!(told, *max);
                    assert_eq!(times[offset as usize], *max);
                    return;
                }
                None => (-1, -1),
            },
            _ => match log.at_time(timestamp) {
                Some(offset) => (offset, times[offset as usize]),
                None => (-1, -1),
            },
        };
        assert_eq!(
            found,
            Ok(expected),
            "for {timestamp} from {} in {times:?}",
            log.start
        );
    }

    fn listed(&mut self, topic: u8, partition: i32, at: i64) -> Result<(i64, i64), ErrorCode> {
        let request = ListOffsetsRequest {
            replica_id: -1,
            topics: vec![ListOffsetsTopic {
                name: name_of(topic),
                partitions: vec![ListOffsetsPartition {
                    partition_index: partition,
                    timestamp: at,
                    current_leader_epoch: -1,
                    ..Default::default()
                }],
                ..Default::default()
            }],
            ..Default::default()
        };
        let answer: ListOffsetsResponse = self.host().ask(7, request);
        let told = &answer.topics[0].partitions[0];
        match code(told.error_code) {
            ErrorCode::None => Ok((told.offset, told.timestamp)),
            error => Err(error),
        }
    }

    /// All of it, read in small pieces from the start.
    pub fn check_log(&mut self, topic: u8, partition: i32) {
        let log = self.log(topic, partition).expect("one of the model's");
        let (start, end) = (log.start, log.end());
        let mut offset = start;
        while offset < end {
            offset = self.read(topic, partition, offset, 12, 200);
        }
        assert_eq!(self.listed(topic, partition, EARLIEST), Ok((start, -1)));
        assert_eq!(self.listed(topic, partition, LATEST), Ok((end, -1)));
    }
}
