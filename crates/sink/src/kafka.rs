//! [`Records`] with librdkafka: a member of a consumer group, on any Kafka cluster.
//!
//! Non-obvious:
//! - The rebalance callback answers a revocation at once, since nothing is under way then: polls and
//!   transactions take turns on one thread. An assignment is only noted; the sink answers it with
//!   [`Records::assign`], when the database has said where to begin. Until then the group waits.
//! - An offset that the topic does not have is an error (`auto.offset.reset=error`): where a sink begins
//!   for the first time, it says so itself.
//! - librdkafka numbers what it fetches, so that nothing which was fetched before a seek comes after it.
//! - A member that goes while an assignment has no answer would wait for ever: it is answered first.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaRespErr;

use crate::config::Config;
use crate::record::{Place, SinkRecord, TopicPartition};
use crate::records::{Limit, Polled, Range, Rebalance, Records, RecordsError};

/// How long one answer is awaited before the sink begins anew.
const ANSWER: Duration = Duration::from_secs(10);
/// Names of topics and headers that are kept, so that records share them.
const NAMES_MAX: usize = 64;

pub struct Kafka {
    config: ClientConfig,
    topics: Vec<String>,
    consumer: Option<BaseConsumer<Context>>,
    names: Vec<Arc<str>>,
}

impl Kafka {
    /// Errors: a property that librdkafka does not take, in words.
    pub fn new(config: &Config, bootstrap: &str) -> Result<Kafka, String> {
        let client = client_config(config, bootstrap);
        client
            .create_native_config()
            .map_err(|error| error.to_string())?;
        Ok(Kafka {
            config: client,
            topics: config.topics.clone(),
            consumer: None,
            names: Vec::new(),
        })
    }

    fn consumer(&self) -> &BaseConsumer<Context> {
        self.consumer
            .as_ref()
            .expect("a sink begins with Subscribe")
    }

    fn cooperative(&self) -> bool {
        matches!(
            self.consumer().rebalance_protocol(),
            RebalanceProtocol::Cooperative
        )
    }

    fn name(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.names.iter().find(|known| known.as_ref() == name) {
            return Arc::clone(known);
        }
        let shared: Arc<str> = name.into();
        if self.names.len() < NAMES_MAX {
            self.names.push(Arc::clone(&shared));
        }
        shared
    }
}

/// What the borrowed record is turned into before the names are shared.
fn owned(message: &BorrowedMessage<'_>, mut name: impl FnMut(&str) -> Arc<str>) -> SinkRecord {
    let headers = message.headers().map_or_else(Vec::new, |headers| {
        let headers = headers.iter();
        headers
            .map(|header| (name(header.key), header.value.map(<[u8]>::to_vec)))
            .collect()
    });
    SinkRecord {
        topic: name(message.topic()),
        partition: message.partition(),
        offset: message.offset(),
        timestamp_ms: message.timestamp().to_millis(),
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        headers,
    }
}

impl Records for Kafka {
    fn subscribe(&mut self) -> Result<String, RecordsError> {
        self.leave();
        let refused = |error: KafkaError| RecordsError::Refused(error.to_string());
        let consumer: BaseConsumer<Context> = self
            .config
            .create_with_context(Context::default())
            .map_err(refused)?;
        let cluster = match consumer.client().fetch_cluster_id(ANSWER) {
            Some(cluster) => cluster,
            None => {
                // Old clusters have none; otherwise none is there.
                let there = consumer.fetch_metadata(None, ANSWER);
                there.map_err(|error| RecordsError::Lost(error.to_string()))?;
                String::new()
            }
        };
        let topics: Vec<&str> = self.topics.iter().map(String::as_str).collect();
        consumer.subscribe(&topics).map_err(refused)?;
        self.consumer = Some(consumer);
        Ok(cluster)
    }

    fn poll(&mut self, limit: Limit, wait: Duration) -> Result<Polled, RecordsError> {
        let consumer = self.consumer.take().expect("a sink begins with Subscribe");
        let polled = self.poll_with(&consumer, limit, wait);
        self.consumer = Some(consumer);
        polled
    }

    fn ranges(
        &mut self,
        partitions: &[TopicPartition],
        committed: bool,
    ) -> Result<Vec<Range>, RecordsError> {
        let consumer = self.consumer();
        if consumer.assignment_lost() {
            return Err(RecordsError::Lost(
                "the group has gone on without this member".to_owned(),
            ));
        }
        let mut ranges = Vec::with_capacity(partitions.len());
        for partition in partitions {
            let found = consumer.fetch_watermarks(&partition.topic, partition.partition, ANSWER);
            let (beginning, end) = found.map_err(|error| meaning(&error))?;
            ranges.push(Range {
                partition: partition.clone(),
                beginning,
                end,
                committed: None,
            });
        }
        if committed {
            let mut list = TopicPartitionList::new();
            for partition in partitions {
                list.add_partition(&partition.topic, partition.partition);
            }
            let list = consumer
                .committed_offsets(list, ANSWER)
                .map_err(|error| meaning(&error))?;
            for range in &mut ranges {
                let (topic, partition) = (&range.partition.topic, range.partition.partition);
                let found = list.find_partition(topic, partition);
                range.committed = match found.map(|found| found.offset()) {
                    Some(Offset::Offset(offset)) => Some(offset),
                    _ => None,
                };
            }
        }
        Ok(ranges)
    }

    fn assign(&mut self, places: &[Place]) -> Result<(), RecordsError> {
        let consumer = self.consumer();
        let list = list(places)?;
        let assigned = match self.cooperative() {
            true => consumer.incremental_assign(&list),
            false => consumer.assign(&list),
        };
        consumer
            .context()
            .unanswered
            .store(false, Ordering::Relaxed);
        assigned.map_err(|error| meaning(&error))
    }

    fn seek(&mut self, places: &[Place]) -> Result<(), RecordsError> {
        let lost = |error: KafkaError| RecordsError::Lost(error.to_string());
        let sought = self
            .consumer()
            .seek_partitions(list(places)?, ANSWER)
            .map_err(lost)?;
        let failed = sought
            .elements()
            .iter()
            .find_map(|element| element.error().err());
        failed.map_or(Ok(()), |error| Err(lost(error)))
    }

    fn commit(&mut self, places: &[Place], advisory: bool) -> Result<(), RecordsError> {
        let mode = if advisory {
            CommitMode::Async
        } else {
            CommitMode::Sync
        };
        // Whatever it is, a new member finds it again or does without.
        let lost = |error: KafkaError| RecordsError::Lost(error.to_string());
        self.consumer().commit(&list(places)?, mode).map_err(lost)
    }

    fn leave(&mut self) {
        let Some(consumer) = self.consumer.take() else {
            return;
        };
        consumer.context().closing.store(true, Ordering::Relaxed);
        if consumer.context().unanswered.load(Ordering::Relaxed) {
            let empty = TopicPartitionList::new();
            let answered = match consumer.rebalance_protocol() {
                RebalanceProtocol::Cooperative => consumer.incremental_assign(&empty),
                _ => consumer.unassign(),
            };
            if let Err(error) = answered {
                tracing::debug!(%error, "leaving");
            }
        }
    }

    fn probe(&mut self, places: &[Place]) -> Result<Vec<Place>, RecordsError> {
        let mut behind = Vec::new();
        for place in places {
            let (topic, partition) = (&place.partition.topic, place.partition.partition);
            let found = self.consumer().fetch_watermarks(topic, partition, ANSWER);
            let (_, end) = found.map_err(|error| meaning(&error))?;
            if end > place.offset {
                behind.push((place, end));
            }
        }
        if behind.is_empty() {
            return Ok(Vec::new());
        }
        let mut config = self.config.clone();
        config.set("enable.partition.eof", "true");
        let reader: BaseConsumer<Context> = config
            .create_with_context(Context::default())
            .map_err(|error| RecordsError::Lost(error.to_string()))?;
        let mut empty = Vec::new();
        for (place, end) in behind {
            if has_no_record(&reader, place)? {
                empty.push(Place {
                    partition: place.partition.clone(),
                    offset: end,
                });
            }
        }
        Ok(empty)
    }
}

impl Kafka {
    fn poll_with(
        &mut self,
        consumer: &BaseConsumer<Context>,
        limit: Limit,
        wait: Duration,
    ) -> Result<Polled, RecordsError> {
        let mut records: Vec<SinkRecord> = Vec::new();
        let mut bytes = 0;
        let mut until = Instant::now() + wait;
        let rebalances = loop {
            let left = until.saturating_duration_since(Instant::now());
            match consumer.poll(left) {
                Some(Ok(message)) => {
                    if records.is_empty() {
                        until = Instant::now() + limit.wait;
                    }
                    let record = owned(&message, |name| self.name(name));
                    bytes += record.size();
                    records.push(record);
                }
                Some(Err(error)) => noted(&error)?,
                None => {
                    let rebalances = consumer.context().rebalances();
                    if !rebalances.is_empty() || left.is_zero() {
                        break rebalances;
                    }
                }
            }
            if records.len() >= limit.rows || bytes >= limit.bytes {
                break consumer.context().rebalances();
            }
        };
        let revoked = rebalances.iter().filter_map(|rebalance| match rebalance {
            Rebalance::Revoked(partitions) => Some(partitions),
            Rebalance::Assigned(_) => None,
        });
        let revoked: BTreeSet<&TopicPartition> = revoked.flatten().collect();
        if !revoked.is_empty() {
            records.retain(|record| !revoked.contains(&record.topic_partition()));
        }
        Ok(Polled {
            records,
            rebalances,
        })
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        self.leave();
    }
}

/// Whether a reader from this place on comes to the end without a record.
fn has_no_record(reader: &BaseConsumer<Context>, place: &Place) -> Result<bool, RecordsError> {
    let lost = |error: KafkaError| RecordsError::Lost(error.to_string());
    reader
        .assign(&list(std::slice::from_ref(place))?)
        .map_err(lost)?;
    let deadline = Instant::now() + ANSWER;
    while Instant::now() < deadline {
        match reader.poll(Duration::from_millis(100)) {
            Some(Ok(_)) => return Ok(false),
            Some(Err(KafkaError::PartitionEOF(_))) => return Ok(true),
            Some(Err(error)) => noted(&error)?,
            None => {}
        }
    }
    Ok(false)
}

fn client_config(config: &Config, bootstrap: &str) -> ClientConfig {
    let mut client = ClientConfig::new();
    client.set_log_level(RDKafkaLogLevel::Info);
    let mut set = |name: &str, value: &str| {
        client.set(name, value);
    };
    set("client.id", &format!("oncelog-sink-{}", config.name));
    set("bootstrap.servers", bootstrap);
    // A broker that comes back is found soon.
    set("reconnect.backoff.ms", "10");
    set("reconnect.backoff.max.ms", "500");
    // What is fetched ahead of the database, for all partitions.
    set("queued.max.messages.kbytes", "32768");
    set("fetch.queue.backoff.ms", "10");
    set("session.timeout.ms", "10000");
    for (name, value) in &config.properties {
        set(name, value);
    }
    // These the guarantees rest on.
    set("group.id", &config.group_id);
    set("isolation.level", "read_committed");
    set("enable.auto.commit", "false");
    set("enable.auto.offset.store", "false");
    set("auto.offset.reset", "error");
    client
}

fn list(places: &[Place]) -> Result<TopicPartitionList, RecordsError> {
    let mut list = TopicPartitionList::with_capacity(places.len());
    for Place { partition, offset } in places {
        let at = Offset::Offset(*offset);
        let added = list.add_partition_offset(&partition.topic, partition.partition, at);
        added.map_err(|error| RecordsError::Lost(error.to_string()))?;
    }
    Ok(list)
}

fn listed(list: &TopicPartitionList) -> Vec<TopicPartition> {
    let elements = list.elements();
    let elements = elements.iter();
    elements
        .map(|element| TopicPartition::new(element.topic(), element.partition()))
        .collect()
}

/// What the consumer tells while it goes on by itself; an error where it cannot.
fn noted(error: &KafkaError) -> Result<(), RecordsError> {
    use RDKafkaErrorCode as Code;
    if let KafkaError::MessageConsumptionFatal(code) = error {
        return Err(RecordsError::Refused(format!(
            "the consumer cannot go on: {code}. Another one has its group.instance.id, or a property \
             is wrong"
        )));
    }
    match error.rdkafka_error_code() {
        Some(Code::AutoOffsetReset | Code::OffsetOutOfRange) => {
            Err(RecordsError::Refused(format!(
                "the topic does not have the record that is next any more: {error}. It was deleted before \
             it was read, or the topic was deleted and created again"
            )))
        }
        Some(
            Code::TopicAuthorizationFailed
            | Code::GroupAuthorizationFailed
            | Code::SaslAuthenticationFailed
            | Code::Authentication
            | Code::InconsistentGroupProtocol,
        ) => Err(RecordsError::Refused(error.to_string())),
        Some(Code::UnknownTopicOrPartition | Code::UnknownTopic) => {
            tracing::warn!("a topic is not there (yet): {error}");
            Ok(())
        }
        _ => {
            tracing::info!("{error}");
            Ok(())
        }
    }
}

fn meaning(error: &KafkaError) -> RecordsError {
    match noted(error) {
        Err(refused) => refused,
        Ok(()) => RecordsError::Lost(error.to_string()),
    }
}

/// What the callbacks tell the sink.
#[derive(Default)]
struct Context {
    noted: Mutex<Vec<Rebalance>>,
    any: AtomicBool,
    /// An assignment has not been answered.
    unanswered: AtomicBool,
    closing: AtomicBool,
}

impl Context {
    fn rebalances(&self) -> Vec<Rebalance> {
        if !self.any.swap(false, Ordering::Relaxed) {
            return Vec::new();
        }
        std::mem::take(&mut *self.noted.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn note(&self, rebalance: Rebalance) {
        self.noted
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(rebalance);
        self.any.store(true, Ordering::Relaxed);
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Debug => tracing::debug!(target: "librdkafka", "{facility} {message}"),
            _ => tracing::info!(target: "librdkafka", "{facility} {message}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if !matches!(error, KafkaError::Global(RDKafkaErrorCode::PartitionEOF)) {
            tracing::info!(target: "librdkafka", %error, "{reason}");
        }
    }
}

impl ConsumerContext for Context {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        code: RDKafkaRespErr,
        partitions: &mut TopicPartitionList,
    ) {
        let cooperative = matches!(
            consumer.rebalance_protocol(),
            RebalanceProtocol::Cooperative
        );
        let assigned = code == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        if assigned && !self.closing.load(Ordering::Relaxed) {
            self.unanswered.store(true, Ordering::Relaxed);
            self.note(Rebalance::Assigned(listed(partitions)));
            return;
        }
        let answered = match (assigned, cooperative) {
            (true, true) => consumer.incremental_assign(partitions),
            (true, false) => consumer.assign(partitions),
            (false, true) => consumer.incremental_unassign(partitions),
            (false, false) => consumer.unassign(),
        };
        self.unanswered.store(false, Ordering::Relaxed);
        if let Err(error) = answered {
            tracing::warn!("a rebalance was not answered: {error}");
        }
        if !assigned {
            self.note(Rebalance::Revoked(listed(partitions)));
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, _offsets: &TopicPartitionList) {
        if let Err(error) = result {
            tracing::debug!("the group's offsets, which nothing depends on: {error}");
        }
    }
}
