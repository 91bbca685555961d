//! What relays and sinks have done, as the console shows it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use oncelog_console::{PipelineSnapshot, Readiness, RelaySnapshot, SinkSnapshot, Snapshot};
use oncelog_sink::host::LATENCY_BUCKETS_MS;

#[derive(Clone)]
pub enum Figures {
    Relay(Arc<oncelog_relay::host::Figures>),
    Sink(Arc<oncelog_sink::host::Figures>),
}

#[derive(Clone)]
pub struct Shown {
    pub name: String,
    pub figures: Figures,
}

/// Of a process that has no broker.
pub struct Alone(pub Shown);

impl oncelog_console::Figures for Alone {
    fn readiness(&self) -> Readiness {
        let trouble = match &self.0.figures {
            Figures::Relay(figures) if !figures.running.load(Ordering::Relaxed) => figures
                .seen()
                .trouble
                .unwrap_or_else(|| "it is starting".to_owned()),
            Figures::Sink(figures) if !figures.running.load(Ordering::Relaxed) => figures
                .trouble()
                .unwrap_or_else(|| "it is starting".to_owned()),
            _ => return Readiness::Ready,
        };
        Readiness::NotReady(trouble)
    }

    fn snapshot(&self) -> Option<Snapshot> {
        None
    }

    fn pipeline(&self) -> PipelineSnapshot {
        snapshot(std::slice::from_ref(&self.0))
    }
}

pub fn snapshot(shown: &[Shown]) -> PipelineSnapshot {
    let mut snapshot = PipelineSnapshot::default();
    for one in shown {
        match &one.figures {
            Figures::Relay(figures) => snapshot.relays.push(relay(&one.name, figures)),
            Figures::Sink(figures) => snapshot.sinks.push(sink(&one.name, figures)),
        }
    }
    snapshot
}

fn now(figure: &AtomicU64) -> u64 {
    figure.load(Ordering::Relaxed)
}

fn relay(name: &str, figures: &oncelog_relay::host::Figures) -> RelaySnapshot {
    let lag = figures.seen().lag;
    RelaySnapshot {
        name: name.to_owned(),
        running: figures.running.load(Ordering::Relaxed),
        published: now(&figures.published),
        transactions: now(&figures.transactions),
        quarantined: now(&figures.quarantined),
        restarts: now(&figures.restarts),
        pending_rows: lag.pending_rows,
        oldest_row_age_seconds: lag.oldest_row_age.as_ref().map(Duration::as_secs_f64),
        retained_wal_bytes: lag.retained_wal_bytes,
    }
}

fn sink(name: &str, figures: &oncelog_sink::host::Figures) -> SinkSnapshot {
    let latency = &figures.latency;
    let bounds = LATENCY_BUCKETS_MS.iter().map(|ms| *ms as f64 / 1_000.0);
    let bounds = bounds.chain([f64::INFINITY]);
    SinkSnapshot {
        name: name.to_owned(),
        running: figures.running.load(Ordering::Relaxed),
        applied: now(&figures.applied),
        transactions: now(&figures.transactions),
        duplicates_skipped: now(&figures.duplicates_skipped),
        dead_letters: now(&figures.dead_letters),
        fenced: now(&figures.fenced),
        restarts: now(&figures.restarts),
        partitions: now(&figures.partitions),
        latency_buckets: bounds.zip(latency.buckets.iter().map(now)).collect(),
        latency_sum_seconds: now(&latency.sum_ms) as f64 / 1_000.0,
    }
}
