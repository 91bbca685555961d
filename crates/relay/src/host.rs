//! Runs a relay's loop for real: each operation against a source and a Kafka cluster, on the thread that
//! calls.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use oncelog_pipeline::failpoint;

use crate::relay::{Operation, Outcome, Relay, Stop};
use crate::source::{Lag, Source};
use crate::topics::Topics;

/// What a relay has done and what it sees, for `/metrics` and for those who wait for it.
#[derive(Debug, Default)]
pub struct Figures {
    pub published: AtomicU64,
    pub transactions: AtomicU64,
    pub quarantined: AtomicU64,
    pub restarts: AtomicU64,
    /// Whether the source is open and nothing has failed since.
    pub running: AtomicBool,
    state: Mutex<Seen>,
}

#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub lag: Lag,
    /// Why it begins anew, while it does.
    pub trouble: Option<String>,
}

impl Figures {
    pub fn seen(&self) -> Seen {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn note(&self, relay: &Relay) {
        let counts = relay.counts();
        self.published.store(counts.published, Ordering::Relaxed);
        self.transactions
            .store(counts.transactions, Ordering::Relaxed);
        self.quarantined
            .store(counts.quarantined, Ordering::Relaxed);
        self.restarts.store(counts.restarts, Ordering::Relaxed);
        self.running
            .store(relay.trouble().is_none(), Ordering::Relaxed);
    }
}

/// How often the source is asked what it holds.
const LAG_EVERY: Duration = Duration::from_secs(5);
/// How long a pause goes on before it looks whether to stop.
const SLICE: Duration = Duration::from_millis(50);

/// Runs until `stop` is set, and then returns `None`, or until the relay itself stops.
///
/// A stop leaves things as a crash would, only sooner: there is nothing to be lost.
pub fn run(
    relay: &mut Relay,
    source: &mut dyn Source,
    topics: &mut dyn Topics,
    stop: &AtomicBool,
    figures: &Figures,
) -> Option<Stop> {
    let mut outcome = Outcome::Started;
    let mut lag_at = Instant::now();
    loop {
        let operation = relay.step(outcome);
        figures.note(relay);
        if stop.load(Ordering::Relaxed) {
            return None;
        }
        if let Operation::Read(..) = operation
            && Instant::now() >= lag_at
        {
            look(source, figures);
            lag_at = Instant::now() + LAG_EVERY;
        }
        outcome = match operation {
            Operation::Stop(stop) => return Some(stop),
            Operation::Wait(pause) => {
                tell_trouble(relay, pause, figures);
                sleep(pause, stop);
                Outcome::Wait
            }
            other => perform(other, relay, source, topics),
        };
    }
}

fn perform(
    operation: Operation,
    relay: &Relay,
    source: &mut dyn Source,
    topics: &mut dyn Topics,
) -> Outcome {
    match operation {
        Operation::Init => Outcome::Init(topics.init()),
        Operation::ReadProgress => Outcome::ReadProgress(topics.progress()),
        Operation::Open(progress) => {
            let opened = source.open(progress.as_ref(), relay.is_exactly_once());
            Outcome::Open(opened.map(|()| source.identity()))
        }
        Operation::Read(limit, wait) => {
            let read = source.read(limit, wait);
            if read.as_ref().is_ok_and(|batch| !batch.rows.is_empty()) {
                failpoint::reach("relay-after-read");
            }
            Outcome::Read(read)
        }
        Operation::Publish(publication) => {
            failpoint::during("relay-during-publish");
            let published = topics.publish(publication.events(), publication.progress.as_ref());
            failpoint::reach("relay-after-publish");
            Outcome::Publish(published)
        }
        Operation::Commit => {
            failpoint::during("relay-during-commit");
            let committed = topics.commit();
            failpoint::reach("relay-after-commit");
            Outcome::Commit(committed)
        }
        Operation::Abort => Outcome::Abort(topics.abort()),
        Operation::Confirm(position) => {
            failpoint::during("relay-during-confirm");
            let confirmed = source.confirm(&position);
            failpoint::reach("relay-after-confirm");
            Outcome::Confirm(confirmed)
        }
        Operation::Wait(_) | Operation::Stop(_) => unreachable!("the loop itself does these"),
    }
}

fn tell_trouble(relay: &Relay, pause: Duration, figures: &Figures) {
    let trouble = relay.trouble().map(str::to_owned);
    let reason = trouble.as_deref().unwrap_or("no reason given");
    tracing::warn!(
        "the relay begins anew in {} ms: {reason}",
        pause.as_millis()
    );
    figures
        .state
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .trouble = trouble;
}

/// A source that cannot say what it holds will fail at the next read, too.
fn look(source: &mut dyn Source, figures: &Figures) {
    let Ok(lag) = source.lag() else { return };
    if let Some(warning) = &lag.warning {
        tracing::warn!("{warning}");
    }
    let seen = Seen { lag, trouble: None };
    *figures.state.lock().unwrap_or_else(PoisonError::into_inner) = seen;
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
