//! `crash-copier`: a read-process-write loop that the crash campaign kills and starts again.
//!
//! It reads the topic `input` in a group and writes each record to two topics, to another partition
//! in the second, with its offsets in the same transaction; now and then it aborts one and does it
//! again. It ends by SIGKILL, by SIGTERM, or by itself: with [`FENCED`] when a later instance of its
//! transactional id has taken over, with [`LOST`] when it does not know where it is and has to begin
//! anew from what is committed, which is what a new process does.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rdkafka::client::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{Message, OwnedMessage};
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};
use rdkafka::{Offset, TopicPartitionList};

use crash_campaign::client::{self, Quiet};
use crash_campaign::copying::{FENCED, INPUT, LOST, OUTPUTS, PARTITIONS, output_partition};
use crash_campaign::random::Random;

/// Of one call; what is retriable is tried again.
const CALL: Duration = Duration::from_secs(10);
const BATCH_MAX: u64 = 60;

/// Notes that partitions have come or gone.
#[derive(Default)]
struct Moves(AtomicBool);

impl ClientContext for Moves {
    fn log(&self, _: RDKafkaLogLevel, _: &str, _: &str) {}
    fn error(&self, _: KafkaError, _: &str) {}
}

impl ConsumerContext for Moves {
    fn pre_rebalance(&self, _: &BaseConsumer<Self>, _: &Rebalance<'_>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

struct Copier {
    consumer: BaseConsumer<Moves>,
    producer: ThreadedProducer<Quiet>,
    random: Random,
    stop: Arc<AtomicBool>,
}

/// What became of one transaction.
enum Outcome {
    Committed,
    /// Nothing of it counts, and the producer may begin another.
    Aborted,
}

fn main() -> ExitCode {
    let stop = Arc::new(AtomicBool::new(false));
    let outcome = signal_hook::flag::register(signal_hook::consts::SIGTERM, stop.clone())
        .context("a handler for SIGTERM")
        .and_then(|_| Copier::new(stop))
        .and_then(|mut copier| copier.run());
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("{error:#}");
            let fatal = error.downcast_ref::<KafkaError>().is_some_and(is_fenced);
            ExitCode::from(if fatal { FENCED } else { LOST })
        }
    }
}

fn is_fenced(error: &KafkaError) -> bool {
    let fenced = [
        RDKafkaErrorCode::Fenced,
        RDKafkaErrorCode::ProducerFenced,
        RDKafkaErrorCode::InvalidProducerEpoch,
    ];
    match error {
        KafkaError::Transaction(error) => fenced.contains(&error.code()),
        other => (other.rdkafka_error_code()).is_some_and(|code| fenced.contains(&code)),
    }
}

impl Copier {
    fn new(stop: Arc<AtomicBool>) -> Result<Copier> {
        let args: Vec<String> = std::env::args().skip(1).collect();
        let [bootstrap, id, group, protocol, timeout_ms, seed] = args.as_slice() else {
            anyhow::bail!("usage: crash-copier BOOTSTRAP ID GROUP PROTOCOL TIMEOUT_MS SEED");
        };
        let mut reading = vec![
            ("group.id", group.as_str()),
            ("group.protocol", protocol.as_str()),
            ("enable.auto.commit", "false"),
            ("auto.offset.reset", "earliest"),
            ("isolation.level", "read_committed"),
            ("check.crcs", "true"),
            ("fetch.wait.max.ms", "50"),
        ];
        if protocol == "classic" {
            reading.push(("session.timeout.ms", "6000"));
            reading.push(("heartbeat.interval.ms", "500"));
        }
        let consumer = client::config(bootstrap, &reading).create_with_context(Moves::default())?;
        let writing = [
            ("transactional.id", id.as_str()),
            ("transaction.timeout.ms", timeout_ms.as_str()),
            // librdkafka wants it to be no longer.
            ("socket.timeout.ms", timeout_ms.as_str()),
            ("linger.ms", "2"),
            ("batch.num.messages", "20"),
        ];
        let writing = client::config(bootstrap, &writing);
        let copier = Copier {
            consumer,
            producer: ThreadedProducer::from_config_and_context(&writing, Quiet)?,
            random: Random::new(seed.parse()?),
            stop,
        };
        copier.again(|| copier.producer.init_transactions(CALL))?;
        copier.consumer.subscribe(&[INPUT])?;
        Ok(copier)
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    /// Until it is done or fails for another reason than that it takes time.
    fn again(&self, call: impl Fn() -> KafkaResult<()>) -> KafkaResult<()> {
        let began = Instant::now();
        loop {
            match call() {
                Err(KafkaError::Transaction(error))
                    if error.is_retriable() && began.elapsed() < client::PATIENCE =>
                {
                    std::thread::sleep(Duration::from_millis(20));
                }
                done => return done,
            }
        }
    }

    fn run(&mut self) -> Result<()> {
        while !self.stopped() {
            let batch = self.read()?;
            // What was read may be somebody else's by now, or be read again.
            if self.consumer.context().0.swap(false, Ordering::SeqCst) {
                self.rewind()?;
            } else if !batch.is_empty()
                && let Outcome::Aborted = self.copy(&batch)?
            {
                self.rewind()?;
            }
        }
        Ok(())
    }

    fn read(&mut self) -> Result<Vec<OwnedMessage>> {
        let mut batch = Vec::new();
        for _ in 0..self.random.range(1, BATCH_MAX) {
            match self.consumer.poll(Duration::from_millis(50)) {
                // The broker is away: librdkafka goes on by itself.
                Some(Err(_)) => {}
                Some(Ok(message)) => batch.push(message.detach()),
                None => break,
            }
        }
        Ok(batch)
    }

    fn copy(&mut self, batch: &[OwnedMessage]) -> Result<Outcome> {
        self.producer.begin_transaction()?;
        match self.transaction(batch) {
            Ok(outcome) => Ok(outcome),
            Err(KafkaError::Transaction(error)) if error.txn_requires_abort() => {
                self.again(|| self.producer.abort_transaction(CALL))?;
                Ok(Outcome::Aborted)
            }
            // A record that was not taken because the transaction has failed: the abort says how.
            Err(KafkaError::MessageProduction(_)) => {
                self.again(|| self.producer.abort_transaction(CALL))?;
                Ok(Outcome::Aborted)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn transaction(&mut self, batch: &[OwnedMessage]) -> KafkaResult<Outcome> {
        let mut ends = [None; PARTITIONS as usize];
        for message in batch {
            for (which, topic) in OUTPUTS.iter().enumerate() {
                let partition = output_partition(which, message.partition());
                let record = BaseRecord::<(), _>::to(topic).partition(partition);
                let value = message.payload().unwrap_or_default();
                let sent = self.producer.send(record.payload(value));
                sent.map_err(|(error, _)| error)?;
            }
            ends[message.partition() as usize] = Some(message.offset() + 1);
            if self.random.one_in(40) {
                // So that a kill finds some of it written and some not.
                self.producer.flush(CALL)?;
            }
        }
        let mut offsets = TopicPartitionList::new();
        for (partition, end) in (0..).zip(ends) {
            if let Some(end) = end {
                offsets.add_partition_offset(INPUT, partition, Offset::Offset(end))?;
            }
        }
        let group = self.consumer.group_metadata();
        let group = group.ok_or(KafkaError::Canceled)?;
        self.again(|| {
            self.producer
                .send_offsets_to_transaction(&offsets, &group, CALL)
        })?;
        if self.random.one_in(8) {
            self.again(|| self.producer.abort_transaction(CALL))?;
            return Ok(Outcome::Aborted);
        }
        self.again(|| self.producer.commit_transaction(CALL))?;
        Ok(Outcome::Committed)
    }

    /// Back to what is committed, in each partition that it has now.
    fn rewind(&self) -> Result<()> {
        let assignment = self.consumer.assignment()?;
        if assignment.count() == 0 {
            return Ok(());
        }
        let committed = self
            .consumer
            .committed_offsets(assignment, client::PATIENCE)?;
        for element in committed.elements() {
            element.error()?;
            let offset = match element.offset() {
                Offset::Offset(offset) => offset,
                Offset::Invalid => 0,
                other => anyhow::bail!("committed: {other:?}"),
            };
            let (topic, partition) = (element.topic(), element.partition());
            ensure!(topic == INPUT, "it reads {topic}");
            self.consumer
                .seek(topic, partition, Offset::Offset(offset), CALL)?;
        }
        Ok(())
    }
}
