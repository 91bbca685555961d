//! [`Topics`] with librdkafka: the producer of a relay and its progress topic, on any Kafka cluster.
//!
//! The progress topic `<prefix><relay>` has one partition for each shard, so that nothing but the
//! shard's own transactions can hold back its last stable offset: what is read to that is all there is.
//!
//! Non-obvious:
//! - A producer is thrown away after every failure whose outcome is unknown. `commit_transaction` may be
//!   called again after its own time is up, and only then.
//! - Deliveries are awaited on a condition variable, not with `flush`, which looks again only every
//!   100 ms.
//! - A dropped producer is purged, not flushed: what it had not sent yet was of a transaction that the
//!   next one aborts.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::{ClientContext, DefaultClientContext};
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, Message, OwnedHeaders};
use rdkafka::producer::{
    BaseRecord, NoCustomPartitioner, Producer, ProducerContext, ThreadedProducer,
};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::event::Event;
use crate::position::Progress;
use crate::relay::Delivery;
use crate::topics::{Topics, TopicsError};

/// What a relay needs of a Kafka cluster.
#[derive(Clone, Debug)]
pub struct Settings {
    pub bootstrap: String,
    pub delivery: Delivery,
    /// Stable over restarts, and of this shard of this relay alone.
    pub transactional_id: String,
    pub progress_topic: String,
    /// Partitions that the progress topic is made with, if it is not there yet.
    pub shards: i32,
    /// The partition of the progress topic that is this relay's.
    pub shard: i32,
    /// librdkafka's properties, which win over ours.
    pub properties: Vec<(String, String)>,
}

/// How long one answer is awaited before the relay begins anew. Longer than a broker's restart.
const ANSWER: Duration = Duration::from_secs(60);
/// How often a wait looks whether the relay is to stop.
const SLICE: Duration = Duration::from_millis(500);
/// How often a start looks for the producer's first connection.
const CONNECTED: Duration = Duration::from_millis(1);
/// How long a commit waits for the client to have seen the last acknowledgement, at the most.
const SETTLE: Duration = Duration::from_millis(50);
/// How often it looks.
const SETTLED: Duration = Duration::from_micros(20);
/// A record beside its key, value and headers: more than any version of the format needs.
const RECORD_OVERHEAD_BYTES: usize = 512;

pub struct Kafka {
    settings: Settings,
    stop: Arc<AtomicBool>,
    producer: Option<ThreadedProducer<Context, NoCustomPartitioner>>,
    message_bytes_max: usize,
    transaction_timeout: Duration,
    /// When the transaction that is open was begun.
    began: Option<Instant>,
}

impl Kafka {
    /// Errors: a property that librdkafka does not take, in words.
    pub fn new(settings: Settings, stop: Arc<AtomicBool>) -> Result<Kafka, String> {
        let config = producer_config(&settings);
        config
            .create_native_config()
            .map_err(|error| error.to_string())?;
        let number = |key: &str| config.get(key).and_then(|value| value.parse::<u64>().ok());
        let message_bytes_max = number("message.max.bytes").unwrap_or(1_000_000) as usize;
        let timeout_ms = number("transaction.timeout.ms").unwrap_or(60_000);
        Ok(Kafka {
            settings,
            stop,
            producer: None,
            message_bytes_max,
            transaction_timeout: Duration::from_millis(timeout_ms),
            began: None,
        })
    }

    fn exactly_once(&self) -> bool {
        self.settings.delivery == Delivery::ExactlyOnce
    }

    fn producer(&self) -> &ThreadedProducer<Context, NoCustomPartitioner> {
        self.producer.as_ref().expect("a relay begins with Init")
    }

    /// Until the producer knows its cluster, or after a while. Without a connection it looks for its
    /// coordinator again only after 500 ms. It is asked again and again, since it wakes nobody up.
    fn connect(&self) {
        let deadline = Instant::now() + SLICE;
        while self
            .producer()
            .client()
            .fetch_cluster_id(CONNECTED)
            .is_none()
            && Instant::now() < deadline
            && !self.stop.load(Ordering::Relaxed)
        {
            std::thread::sleep(CONNECTED);
        }
    }

    /// Calls `attempt`, which may be called again where its time was up, until [`ANSWER`] is over.
    fn patiently(
        &self,
        attempt: impl Fn(&ThreadedProducer<Context, NoCustomPartitioner>) -> Result<(), KafkaError>,
    ) -> Result<(), TopicsError> {
        let deadline = Instant::now() + ANSWER;
        loop {
            let error = match attempt(self.producer()) {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            let again = matches!(&error, KafkaError::Transaction(error) if error.is_retriable());
            if !again || Instant::now() > deadline || self.stop.load(Ordering::Relaxed) {
                return Err(self.failed(&error));
            }
        }
    }

    /// What an error of the producer means to the relay.
    fn failed(&self, error: &KafkaError) -> TopicsError {
        let (code, mut text) = match error {
            KafkaError::Transaction(error) => (Some(error.code()), error.string()),
            other => (other.rdkafka_error_code(), other.to_string()),
        };
        // A fatal error says only that there was one.
        let fatal = self
            .producer
            .as_ref()
            .and_then(|producer| producer.client().fatal_error());
        let (code, fatal) = match fatal {
            Some((code, reason)) => {
                text = reason;
                (Some(code), true)
            }
            None => (code, false),
        };
        // Beyond its timeout the coordinator ends a transaction, and fences with that.
        let too_long = |began: Instant| began.elapsed() >= self.transaction_timeout;
        match code.map(meaning) {
            Some(Meaning::Fenced) if self.began.is_some_and(too_long) => {
                TopicsError::Lost(format!(
                    "the transaction was open for longer than transaction.timeout.ms, and was aborted: {text}"
                ))
            }
            Some(Meaning::Fenced) => TopicsError::Fenced(format!(
                "another producer has taken over the transactional id {}: {text}. Two instances of \
                 this relay run, or one was started again while the old one still ran",
                self.settings.transactional_id
            )),
            Some(Meaning::Refused) if !fatal => TopicsError::Refused(text),
            _ => TopicsError::Lost(text),
        }
    }

    fn send(&self, tag: usize, event: &Event) -> Result<(), TopicsError> {
        let mut headers = OwnedHeaders::new_with_capacity(event.headers.len());
        for (key, value) in &event.headers {
            headers = headers.insert(Header {
                key,
                value: value.as_ref(),
            });
        }
        let mut record: BaseRecord<'_, [u8], [u8], usize> =
            BaseRecord::with_opaque_to(&event.topic, tag).headers(headers);
        record.partition = event.partition;
        record.key = event.key.as_deref();
        record.payload = event.value.as_deref();
        record.timestamp = event.timestamp_ms;
        self.enqueue(record)
    }

    fn send_progress(&self, tag: usize, progress: &Progress) -> Result<(), TopicsError> {
        let value = progress.encode();
        let key = self.settings.transactional_id.as_bytes();
        let record = BaseRecord::with_opaque_to(&self.settings.progress_topic, tag)
            .partition(self.settings.shard)
            .key(key)
            .payload(value.as_slice());
        self.enqueue(record)
    }

    fn enqueue(&self, mut record: BaseRecord<'_, [u8], [u8], usize>) -> Result<(), TopicsError> {
        let producer = self.producer();
        let deadline = Instant::now() + ANSWER;
        loop {
            let index = record.delivery_opaque & INDEX_MAX;
            let (error, back) = match producer.send(record) {
                Ok(()) => return Ok(()),
                Err(refused) => refused,
            };
            match error.rdkafka_error_code() {
                Some(RDKafkaErrorCode::QueueFull) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(1));
                    record = back;
                }
                Some(code) if meaning(code) == Meaning::Rejected => {
                    return Err(TopicsError::Rejected {
                        index: Some(index),
                        reason: error.to_string(),
                    });
                }
                _ => return Err(self.failed(&error)),
            }
        }
    }

    fn send_all(&self, events: &[Event], progress: Option<&Progress>) -> Result<(), TopicsError> {
        let deliveries = &self.producer().context().deliveries;
        let batch = deliveries.expect(events.len() + usize::from(progress.is_some()));
        for (index, event) in events.iter().enumerate() {
            self.send(tag(batch, index), event)?;
        }
        if let Some(progress) = progress {
            self.send_progress(tag(batch, events.len()), progress)?;
        }
        self.delivered(deliveries)
    }

    fn delivered(&self, deliveries: &Deliveries) -> Result<(), TopicsError> {
        let failure = deliveries.wait(&self.stop)?;
        let Some((code, index)) = failure else {
            return Ok(());
        };
        let reason = code.to_string();
        match meaning(code) {
            Meaning::Rejected => Err(TopicsError::Rejected { index, reason }),
            _ => Err(self.failed(&KafkaError::MessageProduction(code))),
        }
    }

    fn consumer(&self, isolation: &str) -> Result<BaseConsumer, TopicsError> {
        let mut config = base_config(&self.settings);
        config
            .set("group.id", &self.settings.transactional_id)
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            // The end is only told with an answer that has nothing.
            .set("fetch.wait.max.ms", "1")
            .set("auto.offset.reset", "earliest")
            .set("allow.auto.create.topics", "false")
            .set("isolation.level", isolation);
        config
            .create()
            .map_err(|error: KafkaError| TopicsError::Refused(error.to_string()))
    }

    fn make_progress_topic(&self) -> Result<(), TopicsError> {
        let admin: AdminClient<DefaultClientContext> = base_config(&self.settings)
            .create()
            .map_err(|error: KafkaError| TopicsError::Refused(error.to_string()))?;
        let topic = NewTopic::new(
            &self.settings.progress_topic,
            self.settings.shards,
            TopicReplication::Fixed(-1),
        )
        .set("cleanup.policy", "compact")
        // What is read at a start is short, and what is compacted soon is, too.
        .set("segment.bytes", "16777216")
        .set("min.cleanable.dirty.ratio", "0.1");
        let options = AdminOptions::new().request_timeout(Some(ANSWER));
        let results = pollster::block_on(admin.create_topics([&topic], &options));
        let results = results.map_err(|error| TopicsError::Lost(error.to_string()))?;
        for result in results {
            match result {
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((topic, code)) => {
                    let why = format!("the progress topic {topic} cannot be created: {code}");
                    return Err(match meaning(code) {
                        Meaning::Lost => TopicsError::Lost(why),
                        _ => TopicsError::Refused(why),
                    });
                }
            }
        }
        Ok(())
    }

    /// The partitions that the topic has; 0 where there is no such topic.
    fn progress_partitions(&self, consumer: &BaseConsumer) -> Result<usize, TopicsError> {
        let lost = |error: KafkaError| TopicsError::Lost(error.to_string());
        let topic = &self.settings.progress_topic;
        let metadata = consumer.fetch_metadata(Some(topic), ANSWER).map_err(lost)?;
        let topic = metadata
            .topics()
            .iter()
            .find(|found| found.name() == topic.as_str());
        Ok(topic.map_or(0, |topic| topic.partitions().len()))
    }

    fn check_progress_topic(&self, consumer: &BaseConsumer) -> Result<(), TopicsError> {
        let deadline = Instant::now() + ANSWER;
        let needed = self.settings.shards as usize;
        let mut made = false;
        loop {
            let there = self.progress_partitions(consumer)?;
            if there == needed {
                return Ok(());
            }
            if there > 0 {
                return Err(TopicsError::Refused(format!(
                    "the progress topic {} has {there} partitions and this relay {needed} shards. \
                     Rows would change their shard and could be lost or doubled. To change the \
                     number of shards: stop all instances when nothing is pending, and give the \
                     relay a new name",
                    self.settings.progress_topic
                )));
            }
            if !made {
                self.make_progress_topic()?;
                made = true;
            } else if Instant::now() > deadline || self.stop.load(Ordering::Relaxed) {
                let topic = &self.settings.progress_topic;
                return Err(TopicsError::Lost(format!(
                    "topic {topic} was created and is not seen"
                )));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What the last committed transaction of this relay has left.
    fn last_progress(
        &self,
        uncommitted: &BaseConsumer,
        committed: &BaseConsumer,
    ) -> Result<Option<Progress>, TopicsError> {
        let lost = |error: KafkaError| TopicsError::Lost(error.to_string());
        self.check_progress_topic(uncommitted)?;
        let (topic, shard) = (&self.settings.progress_topic, self.settings.shard);
        let (start, end) = uncommitted
            .fetch_watermarks(topic, shard, ANSWER)
            .map_err(lost)?;
        let deadline = Instant::now() + ANSWER;
        while committed
            .fetch_watermarks(topic, shard, ANSWER)
            .map_err(lost)?
            .1
            < end
        {
            if Instant::now() > deadline || self.stop.load(Ordering::Relaxed) {
                return Err(TopicsError::Lost(format!(
                    "an open transaction in {topic}-{shard} is not this relay's; `oncelog txn \
                     find-hanging` names it"
                )));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        // It is among the last ones, but for aborted transactions and markers.
        for recent in [16, 4096] {
            if end - recent > start
                && let Some(progress) = self.last_from(committed, end - recent, end)?
            {
                return Ok(Some(progress));
            }
        }
        if start == end {
            return Ok(None);
        }
        self.last_from(committed, start, end)
    }

    /// The last committed record from `from` to `end`; it has no record where all that is there are
    /// markers and aborted ones. Not to wherever the topic ends by then: behind an instance that has
    /// taken over and writes all the time, it never would.
    fn last_from(
        &self,
        consumer: &BaseConsumer,
        from: i64,
        end: i64,
    ) -> Result<Option<Progress>, TopicsError> {
        let lost = |error: KafkaError| TopicsError::Lost(error.to_string());
        let mut assignment = TopicPartitionList::new();
        let (topic, shard) = (&self.settings.progress_topic, self.settings.shard);
        let added = assignment.add_partition_offset(topic, shard, Offset::Offset(from));
        added
            .and_then(|()| consumer.assign(&assignment))
            .map_err(lost)?;
        let deadline = Instant::now() + ANSWER;
        let mut last = None;
        loop {
            match consumer.poll(SLICE) {
                Some(Ok(record)) if record.offset() >= end => return Ok(last),
                Some(Ok(record)) => {
                    let decoded = Progress::decode(record.payload().unwrap_or_default());
                    last = Some(decoded.map_err(|why| {
                        TopicsError::Refused(format!(
                            "the record at {topic}-{shard}@{} is no progress of a relay: {why}",
                            record.offset()
                        ))
                    })?);
                }
                Some(Err(KafkaError::PartitionEOF(_))) => return Ok(last),
                Some(Err(error)) => return Err(lost(error)),
                None if Instant::now() > deadline => {
                    return Err(TopicsError::Lost(format!(
                        "{topic} was not read to its end in time"
                    )));
                }
                None if self.stop.load(Ordering::Relaxed) => {
                    return Err(TopicsError::Lost("stopped".to_owned()));
                }
                None => {}
            }
        }
    }
}

impl Topics for Kafka {
    fn init(&mut self) -> Result<(), TopicsError> {
        self.producer = None;
        self.began = None;
        let config = producer_config(&self.settings);
        let created = config.create_with_context(Context::default());
        self.producer = Some(created.map_err(|error| TopicsError::Refused(error.to_string()))?);
        if !self.exactly_once() {
            return Ok(());
        }
        self.connect();
        self.patiently(|producer| producer.init_transactions(SLICE))
    }

    fn progress(&mut self) -> Result<Option<Progress>, TopicsError> {
        let uncommitted = self.consumer("read_uncommitted")?;
        let committed = self.consumer("read_committed")?;
        let progress = self.last_progress(&uncommitted, &committed);
        // A consumer takes 100 ms to end, for which nobody has to wait.
        let ending = std::thread::Builder::new();
        let _ = ending.spawn(move || drop((uncommitted, committed)));
        progress
    }

    fn publish(
        &mut self,
        events: &[Event],
        progress: Option<&Progress>,
    ) -> Result<(), TopicsError> {
        // Before anything is sent: none of the events may overtake one that is left out.
        let too_large = |event: &Event| size(event) > self.message_bytes_max;
        if let Some(index) = events.iter().position(too_large) {
            let (bytes, max) = (size(&events[index]), self.message_bytes_max);
            return Err(TopicsError::Rejected {
                index: Some(index),
                reason: format!("{bytes} bytes are more than message.max.bytes={max} allows"),
            });
        }
        if self.exactly_once() {
            self.began = Some(Instant::now());
            let producer = self.producer();
            producer
                .begin_transaction()
                .map_err(|error| self.failed(&error))?;
        }
        match self.send_all(events, progress) {
            // Others of the batch may have been sent, and at most once nothing is sent again.
            Err(TopicsError::Rejected { reason, .. })
                if self.settings.delivery == Delivery::AtMostOnce =>
            {
                Err(TopicsError::Lost(reason))
            }
            outcome => outcome,
        }
    }

    fn commit(&mut self) -> Result<(), TopicsError> {
        // The last callback is told a moment before the client itself takes the record as done; a commit
        // in that moment would look again only after 100 ms.
        let deadline = Instant::now() + SETTLE;
        while self.producer().in_flight_count() > 0 && Instant::now() < deadline {
            std::thread::sleep(SETTLED);
        }
        self.patiently(|producer| producer.commit_transaction(SLICE))?;
        self.began = None;
        Ok(())
    }

    fn abort(&mut self) -> Result<(), TopicsError> {
        // What was rejected before it was sent has begun none.
        if self.began.is_some() {
            self.patiently(|producer| producer.abort_transaction(SLICE))?;
            self.began = None;
        }
        Ok(())
    }
}

/// At least as many bytes as the record takes, by the client's own count.
fn size(event: &Event) -> usize {
    let length = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, Vec::len);
    let headers = event
        .headers
        .iter()
        .map(|(name, value)| name.len() + length(value) + 10);
    length(&event.key) + length(&event.value) + headers.sum::<usize>() + RECORD_OVERHEAD_BYTES
}

fn base_config(settings: &Settings) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("client.id", "oncelog-relay");
    config.set_log_level(RDKafkaLogLevel::Info);
    config.set("bootstrap.servers", &settings.bootstrap);
    // A broker that comes back is found soon.
    config
        .set("reconnect.backoff.ms", "10")
        .set("reconnect.backoff.max.ms", "500");
    for (key, value) in &settings.properties {
        config.set(key, value);
    }
    config
}

fn producer_config(settings: &Settings) -> ClientConfig {
    let mut config = base_config(settings);
    let mut default = |key: &str, value: &str| {
        if !settings.properties.iter().any(|(given, _)| given == key) {
            config.set(key, value);
        }
    };
    // Keys go where Java's producer puts them.
    default("partitioner", "murmur2_random");
    default("linger.ms", "0");
    default("queue.buffering.max.messages", "100000");
    match settings.delivery {
        Delivery::ExactlyOnce => {
            config.set("transactional.id", &settings.transactional_id);
        }
        Delivery::AtLeastOnce => {
            config.set("enable.idempotence", "true");
        }
        Delivery::AtMostOnce => {
            config.set("acks", "0").set("message.send.max.retries", "0");
            // What waits for a broker that is away is sent when it is back, or never.
            config.set("max.in.flight", "1");
        }
    }
    config
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    Fenced,
    /// This record, ever.
    Rejected,
    /// Somebody has to do something.
    Refused,
    /// Try again, from the beginning.
    Lost,
}

fn meaning(code: RDKafkaErrorCode) -> Meaning {
    use RDKafkaErrorCode as Code;
    match code {
        Code::Fenced | Code::ProducerFenced | Code::InvalidProducerEpoch => Meaning::Fenced,
        Code::MessageSizeTooLarge
        | Code::MessageBatchTooLarge
        | Code::InvalidMessage
        | Code::InvalidMessageSize
        | Code::InvalidRecord
        | Code::InvalidTimestamp
        | Code::InvalidTopic
        | Code::UnknownPartition
        | Code::PolicyViolation => Meaning::Rejected,
        Code::TopicAuthorizationFailed
        | Code::ClusterAuthorizationFailed
        | Code::TransactionalIdAuthorizationFailed
        | Code::SaslAuthenticationFailed
        | Code::Authentication
        | Code::UnknownTopic
        | Code::UnsupportedVersion
        | Code::UnsupportedFeature
        | Code::InvalidReplicationFactor
        | Code::InvalidTransactionTimeout => Meaning::Refused,
        _ => Meaning::Lost,
    }
}

/// What the producer's callbacks tell the thread of the relay.
#[derive(Default)]
struct Context {
    deliveries: Deliveries,
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Debug => tracing::debug!(target: "librdkafka", "{facility} {message}"),
            _ => tracing::info!(target: "librdkafka", "{facility} {message}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::info!(target: "librdkafka", %error, "{reason}");
    }
}

impl ProducerContext for Context {
    /// Which batch, and the event's index in it: [`tag`].
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, tag: usize) {
        let failure = result.as_ref().err();
        let code = failure.map(|(error, _)| {
            error
                .rdkafka_error_code()
                .unwrap_or(RDKafkaErrorCode::Unknown)
        });
        self.deliveries.note(code, tag);
    }
}

/// Of an event's index in its tag; what is left is the batch's number.
const INDEX_BITS: u32 = 24;
const INDEX_MAX: usize = (1 << INDEX_BITS) - 1;

fn tag(batch: usize, index: usize) -> usize {
    assert!(index <= INDEX_MAX, "a batch has fewer events");
    (batch << INDEX_BITS) | index
}

/// The outcome of the batch under way.
#[derive(Default)]
struct Deliveries {
    state: Mutex<Awaited>,
    done: Condvar,
}

#[derive(Default)]
struct Awaited {
    /// Its number; late news of the one before, which was given up, has another.
    batch: usize,
    outstanding: usize,
    failure: Option<(RDKafkaErrorCode, Option<usize>)>,
}

impl Deliveries {
    /// Returns the batch's number.
    fn expect(&self, count: usize) -> usize {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        *state = Awaited {
            batch: state.batch + 1,
            outstanding: count,
            failure: None,
        };
        state.batch
    }

    fn note(&self, code: Option<RDKafkaErrorCode>, tag: usize) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let index = tag & INDEX_MAX;
        if state.outstanding == 0 || tag >> INDEX_BITS != state.batch {
            return;
        }
        state.outstanding -= 1;
        if let Some(code) = code {
            let rejected = meaning(code) == Meaning::Rejected;
            state.failure = match state.failure.take() {
                None => Some((code, Some(index))),
                // Of several that were rejected it is not known which one is to blame.
                Some((first, _)) if rejected && meaning(first) == Meaning::Rejected => {
                    Some((first, None))
                }
                // What was purged because of another tells nothing.
                Some((first, _)) if rejected && meaning(first) == Meaning::Lost => {
                    Some((code, Some(index)))
                }
                Some(first) => Some(first),
            };
        }
        if state.outstanding == 0 {
            self.done.notify_all();
        }
    }

    /// Errors: it is time to stop, or nothing was heard for [`ANSWER`].
    fn wait(
        &self,
        stop: &AtomicBool,
    ) -> Result<Option<(RDKafkaErrorCode, Option<usize>)>, TopicsError> {
        let deadline = Instant::now() + ANSWER;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        while state.outstanding > 0 {
            if stop.load(Ordering::Relaxed) || Instant::now() > deadline {
                let count = state.outstanding;
                state.outstanding = 0;
                return Err(TopicsError::Lost(format!(
                    "{count} records were not acknowledged"
                )));
            }
            let waited = self.done.wait_timeout(state, SLICE);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(state.failure.take())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_news_of_a_batch_that_was_given_up_counts_for_nothing() {
        let deliveries = Deliveries::default();
        let stop = AtomicBool::new(false);
        let first = deliveries.expect(2);
        deliveries.note(None, tag(first, 0));
        let second = deliveries.expect(2);
        deliveries.note(Some(RDKafkaErrorCode::PurgeQueue), tag(first, 1));
        deliveries.note(None, tag(second, 0));
        assert_eq!(deliveries.state.lock().unwrap().outstanding, 1);
        deliveries.note(None, tag(second, 1));
        assert_eq!(deliveries.wait(&stop), Ok(None));
    }

    #[test]
    fn the_event_to_blame_is_named_only_where_it_is_known() {
        use RDKafkaErrorCode::{MessageSizeTooLarge, PurgeQueue};
        let outcome = |codes: &[Option<RDKafkaErrorCode>]| {
            let deliveries = Deliveries::default();
            let batch = deliveries.expect(codes.len());
            for (index, code) in codes.iter().enumerate() {
                deliveries.note(*code, tag(batch, index));
            }
            deliveries.wait(&AtomicBool::new(false)).unwrap()
        };
        let large = Some(MessageSizeTooLarge);
        assert_eq!(outcome(&[None, None]), None);
        assert_eq!(
            outcome(&[None, large, Some(PurgeQueue)]),
            Some((MessageSizeTooLarge, Some(1)))
        );
        assert_eq!(
            outcome(&[Some(PurgeQueue), large]),
            Some((MessageSizeTooLarge, Some(1)))
        );
        assert_eq!(outcome(&[large, large]), Some((MessageSizeTooLarge, None)));
    }
}
