//! Runs a sink's loop for real: each operation against a consumer and a database, on the thread that
//! calls.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use oncelog_pipeline::failpoint;

use crate::config::Config;
use crate::kafka::Kafka;
use crate::record::SinkRecord;
use crate::records::Records;
use crate::sink::{Operation, Outcome, Sink, Stop};
use crate::target::Target;
use crate::targets;

/// Upper bounds of the buckets of [`Figures::latency`], in milliseconds.
pub const LATENCY_BUCKETS_MS: [u64; 12] =
    [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 5_000, 30_000];

/// What a sink has done and what it sees, for `/metrics` and for those who wait for it.
#[derive(Debug, Default)]
pub struct Figures {
    pub applied: AtomicU64,
    pub transactions: AtomicU64,
    pub duplicates_skipped: AtomicU64,
    pub dead_letters: AtomicU64,
    pub given_up: AtomicU64,
    pub fenced: AtomicU64,
    pub rebalances: AtomicU64,
    pub restarts: AtomicU64,
    /// That are this instance's now.
    pub partitions: AtomicU64,
    /// Whether nothing has failed since something last succeeded.
    pub running: AtomicBool,
    pub latency: Latency,
    trouble: Mutex<Option<String>>,
}

/// From a record's time to its row's commit.
#[derive(Debug, Default)]
pub struct Latency {
    /// As many as [`LATENCY_BUCKETS_MS`], and one for all that took longer; not cumulative.
    pub buckets: [AtomicU64; LATENCY_BUCKETS_MS.len() + 1],
    pub sum_ms: AtomicU64,
    pub count: AtomicU64,
}

impl Figures {
    /// Why it begins anew, while it does.
    pub fn trouble(&self) -> Option<String> {
        self.trouble
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn note(&self, sink: &Sink) {
        let counts = sink.counts();
        for (figure, count) in [
            (&self.applied, counts.applied),
            (&self.transactions, counts.transactions),
            (&self.duplicates_skipped, counts.duplicates_skipped),
            (&self.dead_letters, counts.dead_letters),
            (&self.given_up, counts.given_up),
            (&self.fenced, counts.fenced),
            (&self.rebalances, counts.rebalances),
            (&self.restarts, counts.restarts),
            (&self.partitions, sink.partitions() as u64),
        ] {
            figure.store(count, Ordering::Relaxed);
        }
        let running = sink.trouble().is_none();
        if !self.running.swap(running, Ordering::Relaxed) && running {
            *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }
}

impl Latency {
    fn note(&self, records: &[SinkRecord]) {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_millis();
        let (mut sum, mut count) = (0, 0);
        let mut counted = [0; LATENCY_BUCKETS_MS.len() + 1];
        for time in records.iter().filter_map(|record| record.timestamp_ms) {
            let ms = u64::try_from(now as i64 - time).unwrap_or(0);
            let bucket = LATENCY_BUCKETS_MS.partition_point(|bound| *bound < ms);
            counted[bucket] += 1;
            sum += ms;
            count += 1;
        }
        for (bucket, count) in self.buckets.iter().zip(counted) {
            bucket.fetch_add(count, Ordering::Relaxed);
        }
        self.sum_ms.fetch_add(sum, Ordering::Relaxed);
        self.count.fetch_add(count, Ordering::Relaxed);
    }
}

/// How often old event ids are forgotten, some thousand each time.
const PRUNE_EVERY: Duration = Duration::from_secs(10);
/// How long a pause goes on before it looks whether to stop.
const SLICE: Duration = Duration::from_millis(50);

/// Runs until `stop` is set, or until the sink itself stops. `bootstrap`: where the cluster is, unless
/// the sink's own properties say otherwise.
///
/// A stop comes between two batches, and leaves the group.
pub fn run(
    config: &Config,
    bootstrap: &str,
    stop: &AtomicBool,
    figures: &Figures,
) -> Result<(), Stop> {
    let mut target = targets::of(config).map_err(Stop::Refused)?;
    let mut records = Kafka::new(config, bootstrap).map_err(Stop::Refused)?;
    let ended = drive(config, target.as_mut(), &mut records, stop, figures);
    figures.running.store(false, Ordering::Relaxed);
    ended
}

/// The same, with a consumer and a database of the caller's.
pub fn drive(
    config: &Config,
    target: &mut dyn Target,
    records: &mut dyn Records,
    stop: &AtomicBool,
    figures: &Figures,
) -> Result<(), Stop> {
    let mut sink = Sink::new(config);
    let mut outcome = Outcome::Started;
    let mut prune_at = Instant::now() + PRUNE_EVERY;
    loop {
        let operation = sink.step(outcome);
        figures.note(&sink);
        let failing = matches!(operation, Operation::Wait(_));
        if stop.load(Ordering::Relaxed) && (failing || sink.may_stop()) {
            return Ok(());
        }
        if let Operation::Poll(..) = operation
            && Instant::now() >= prune_at
        {
            prune(config, target);
            prune_at = Instant::now() + PRUNE_EVERY;
        }
        outcome = match operation {
            Operation::Stop(stop) => return Err(stop),
            Operation::Wait(pause) => {
                tell_trouble(config, &sink, pause, figures);
                sleep(pause, stop);
                Outcome::Wait
            }
            Operation::Apply(transaction) => {
                failpoint::during("sink-during-apply");
                let applied = target.apply(&transaction);
                if applied.is_ok() {
                    let applied = transaction.from..transaction.until;
                    figures
                        .latency
                        .note(sink.records().get(applied).unwrap_or_default());
                }
                Outcome::Apply(applied)
            }
            other => perform(other, target, records),
        };
    }
}

fn perform(operation: Operation, target: &mut dyn Target, records: &mut dyn Records) -> Outcome {
    match operation {
        Operation::Open => Outcome::Open(target.open()),
        Operation::Subscribe => Outcome::Subscribe(records.subscribe()),
        Operation::Poll(limit, wait) => {
            let polled = records.poll(limit, wait);
            if polled
                .as_ref()
                .is_ok_and(|polled| !polled.records.is_empty())
            {
                failpoint::reach("sink-after-poll");
            }
            Outcome::Poll(polled)
        }
        Operation::Ranges(partitions, committed) => {
            Outcome::Ranges(records.ranges(&partitions, committed))
        }
        Operation::Claim(cluster, requests) => Outcome::Claim(target.claim(&cluster, &requests)),
        Operation::Assign(places) => Outcome::Assign(records.assign(&places)),
        Operation::Seek(places) => Outcome::Seek(records.seek(&places)),
        Operation::Commit(places, advisory) => {
            failpoint::reach("sink-before-offsets");
            Outcome::Commit(records.commit(&places, advisory))
        }
        Operation::Probe(places) => Outcome::Probe(records.probe(&places)),
        Operation::Leave => {
            records.leave();
            Outcome::Leave
        }
        Operation::Apply(_) | Operation::Wait(_) | Operation::Stop(_) => {
            unreachable!("the loop itself does these")
        }
    }
}

fn tell_trouble(config: &Config, sink: &Sink, pause: Duration, figures: &Figures) {
    let Some(reason) = sink.trouble() else { return };
    tracing::warn!(
        "sink {} begins anew in {} ms: {reason}",
        config.name,
        pause.as_millis()
    );
    let trouble = Some(reason.to_owned());
    *figures
        .trouble
        .lock()
        .unwrap_or_else(PoisonError::into_inner) = trouble;
}

/// What cannot be forgotten now is forgotten later; a database that is lost fails at the next batch, too.
fn prune(config: &Config, target: &mut dyn Target) {
    let Some(older) = config.inbox_retention.filter(|_| config.inbox) else {
        return;
    };
    match target.prune(older) {
        Ok(0) => {}
        Ok(count) => tracing::debug!("sink {}: {count} event ids are forgotten", config.name),
        Err(error) => tracing::warn!("sink {}: the inbox was not pruned: {error}", config.name),
    }
}

fn sleep(pause: Duration, stop: &AtomicBool) {
    let until = Instant::now() + pause;
    while let left = until.saturating_duration_since(Instant::now())
        && !left.is_zero()
        && !stop.load(Ordering::Relaxed)
    {
        std::thread::sleep(left.min(SLICE));
    }
}
