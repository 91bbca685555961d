//! The loop: poll, print, flush, store offsets, know when to stop.
//!
//! Invariant: an offset is stored for commit only after its record was flushed to standard output.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufWriter, Stdout, Write};
use std::time::Duration;

use anyhow::Result;
use rdkafka::Offset;
use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;

use crate::client::{Quiet, Trouble};
use crate::failure::Failure;
use crate::interrupt::Interrupt;

use super::hidden::Stop;
use super::print::{self, Style};
use super::seen::{From, Seen};

/// How long to wait for a record before looking at the interrupt flag again.
const POLL: Duration = Duration::from_millis(100);

/// How many records may wait for a flush, and with it for being stored.
const UNFLUSHED_MAX: usize = 10_000;

/// Who decides what is read.
#[derive(Clone, Copy)]
pub enum Partitions {
    Fixed { count: usize },
    OfGroup,
}

pub struct Reader {
    out: BufWriter<Stdout>,
    style: Style,
    /// Stop after this many, over all calls of `read`.
    count_max: Option<u64>,
    printed: u64,
    seen: Seen,
    interrupt: Interrupt,
}

/// What one call of `read` keeps track of.
#[derive(Default)]
struct Progress {
    /// In a group: next offset of each partition with records that are printed but not stored.
    unstored: BTreeMap<(String, i32), i64>,
    unflushed: usize,
    /// Partitions that are read to their end.
    at_end: BTreeSet<i32>,
}

impl Reader {
    pub fn new(style: Style, count_max: Option<u64>, interrupt: Interrupt) -> Self {
        let out = BufWriter::with_capacity(1 << 16, io::stdout());
        Reader {
            out,
            style,
            count_max,
            printed: 0,
            seen: Seen::default(),
            interrupt,
        }
    }

    pub fn printed(&self) -> u64 {
        self.printed
    }

    /// A partition will be read from here on.
    pub fn begin(&mut self, topic: &str, partition: i32, offset: Offset) {
        let from = match offset {
            Offset::Beginning => From::Start,
            Offset::Offset(offset) => From::Offset(offset),
            _ => From::Unknown,
        };
        self.seen.begin(topic, partition, from);
    }

    pub fn seen(&self) -> &Seen {
        &self.seen
    }

    /// Why the last `read` ended.
    pub fn stopped_by(&self) -> Stop {
        match () {
            () if self.count_max.is_some_and(|max| self.printed >= max) => Stop::Count,
            () if self.interrupt.asked() => Stop::Interrupted,
            () => Stop::AtEnd,
        }
    }

    /// Reads until the count is reached, the process is interrupted, or (`exit_at_end`) every
    /// partition is at its end. `exit_at_end` requires that all partitions are of one topic.
    pub fn read(
        &mut self,
        consumer: &BaseConsumer<Quiet>,
        trouble: &Trouble,
        partitions: Partitions,
        exit_at_end: bool,
    ) -> Result<()> {
        let mut progress = Progress::default();
        let outcome = self.read_on(consumer, trouble, partitions, exit_at_end, &mut progress);
        // Whatever ended it: what was printed is flushed, and only then committed.
        self.flush(consumer, &mut progress)?;
        if matches!(partitions, Partitions::OfGroup) {
            match consumer.commit_consumer_state(CommitMode::Sync) {
                Ok(()) | Err(KafkaError::ConsumerCommit(RDKafkaErrorCode::NoOffset)) => {}
                Err(error) => return Err(commit_failed(&error).into()),
            }
        }
        outcome
    }

    fn read_on(
        &mut self,
        consumer: &BaseConsumer<Quiet>,
        trouble: &Trouble,
        partitions: Partitions,
        exit_at_end: bool,
        progress: &mut Progress,
    ) -> Result<()> {
        while !self.interrupt.asked() && self.count_max.is_none_or(|max| self.printed < max) {
            // While records come, they are batched; the moment none is there, they go out.
            let mut polled = consumer.poll(Duration::ZERO);
            if polled.is_none() {
                self.flush(consumer, progress)?;
                polled = consumer.poll(POLL);
            }
            match polled {
                None => warn_if_lost(trouble),
                Some(Ok(message)) => {
                    print::message(&message, &self.style, &mut self.out)?;
                    self.printed += 1;
                    self.seen
                        .record(message.topic(), message.partition(), message.offset());
                    progress.at_end.remove(&message.partition());
                    if matches!(partitions, Partitions::OfGroup) {
                        let partition = (message.topic().to_owned(), message.partition());
                        progress.unstored.insert(partition, message.offset() + 1);
                    }
                    progress.unflushed += 1;
                    if progress.unflushed >= UNFLUSHED_MAX {
                        self.flush(consumer, progress)?;
                    }
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    progress.at_end.insert(partition);
                }
                Some(Err(error)) => end_on(error)?,
            }
            if exit_at_end && at_end(consumer, partitions, progress)? {
                return Ok(());
            }
        }
        Ok(())
    }

    fn flush(&mut self, consumer: &BaseConsumer<Quiet>, progress: &mut Progress) -> Result<()> {
        self.out.flush()?;
        progress.unflushed = 0;
        let unstored = std::mem::take(&mut progress.unstored);
        if unstored.is_empty() {
            return Ok(());
        }
        let mut offsets = TopicPartitionList::new();
        for ((topic, partition), offset) in unstored {
            offsets.add_partition_offset(&topic, partition, Offset::Offset(offset))?;
        }
        match consumer.store_offsets(&offsets) {
            // A partition was taken away since: its new owner will print these records again.
            Err(KafkaError::StoreOffset(RDKafkaErrorCode::State)) | Ok(()) => Ok(()),
            Err(error) => Err(commit_failed(&error).into()),
        }
    }
}

fn at_end(
    consumer: &BaseConsumer<Quiet>,
    partitions: Partitions,
    progress: &Progress,
) -> Result<bool> {
    match partitions {
        Partitions::Fixed { count } => Ok(progress.at_end.len() >= count),
        Partitions::OfGroup if progress.at_end.is_empty() => Ok(false),
        Partitions::OfGroup => {
            let assigned = consumer.assignment()?;
            let elements = assigned.elements();
            Ok(!elements.is_empty()
                && elements
                    .iter()
                    .all(|element| progress.at_end.contains(&element.partition())))
        }
    }
}

/// Errors that librdkafka recovers from by itself pass; the others end the command.
fn end_on(error: KafkaError) -> Result<(), Failure> {
    use RDKafkaErrorCode as Code;
    let fatal = matches!(error, KafkaError::MessageConsumptionFatal(_));
    match error.rdkafka_error_code() {
        Some(
            Code::AllBrokersDown
            | Code::BrokerTransportFailure
            | Code::Resolve
            | Code::OperationTimedOut
            | Code::LeaderNotAvailable
            | Code::NotLeaderForPartition
            | Code::NotCoordinator
            | Code::CoordinatorNotAvailable
            | Code::CoordinatorLoadInProgress,
        ) if !fatal => Ok(()),
        Some(Code::AutoOffsetReset | Code::OffsetOutOfRange) => Err(Failure::refused(
            "the offset to read next does not exist any more",
        )
        .why("records before the first offset of a partition have been deleted")
        .next("start again with -o start")),
        Some(Code::UnknownTopicOrPartition | Code::UnknownTopic) => Err(Failure::refused(
            "a topic or partition that was being read does not exist any more",
        )
        .why(error.to_string())),
        _ => Err(Failure::refused("reading failed").why(error.to_string())),
    }
}

/// While nothing comes, say what is wrong with the cluster each time that it is lost as a whole.
fn warn_if_lost(trouble: &Trouble) {
    if let Some(reason) = trouble.take_all_brokers_down() {
        tracing::warn!("no broker can be reached, still trying: {reason}");
    }
}

fn commit_failed(error: &KafkaError) -> Failure {
    Failure::refused("the group's offsets could not be committed")
        .why(error.to_string())
        .next("records printed by this run will be read again by the group")
}
