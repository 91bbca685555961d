//! Running the measuring programs of bench/ against a broker, and reading what they print.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::system::{Binaries, Broker};
use crate::process;

/// The longest is Kafka taking in 10,000 connections.
const LIMIT: Duration = Duration::from_secs(300);

/// What one measurement found: figures by name, which ends with the unit.
pub type Figures = BTreeMap<String, f64>;

/// What a measurement may use.
pub struct Tools<'a> {
    pub binaries: &'a Binaries,
    /// How long a measurement of throughput or latency lasts.
    pub seconds: f64,
    /// Sizes and counts are divided by this.
    pub divisor: usize,
    /// Records per second that a kind of measurement has come to.
    pub rates: &'a Mutex<BTreeMap<String, f64>>,
}

impl Tools<'_> {
    /// The same for `seconds`.
    pub fn lasting(&self, seconds: f64) -> Tools<'_> {
        Tools { seconds, ..*self }
    }

    /// A size or a count, as large as this run has it.
    pub fn scaled(&self, full: usize) -> usize {
        full / self.divisor
    }

    pub fn rate(&self, kind: &str) -> Option<f64> {
        self.rates
            .lock()
            .expect("no thread panics with it")
            .get(kind)
            .copied()
    }

    pub fn note_rate(&self, kind: &str, records_per_s: f64) {
        let mut rates = self.rates.lock().expect("no thread panics with it");
        rates.insert(kind.to_owned(), records_per_s);
    }

    /// Runs a program against a broker on a new topic, which is deleted afterwards.
    pub fn measure(&self, broker: &Broker, name: &str, args: &[&str]) -> Result<Figures> {
        let topic = new_topic();
        let mut probe = self.against(broker, name, args);
        let pid = broker.pid()?.to_string();
        probe.args(["--topic", &topic, "--pid", &pid]);
        let found = figures(&mut probe);
        // Also after a failure, or its data would stay in memory under the measurements to come.
        let deleted = figures(&mut self.against(broker, "delete", &["--topic", &topic]));
        let found = found?;
        deleted.context("deleting the topic")?;
        Ok(found)
    }

    /// A program with the broker's address and these arguments.
    pub fn against(&self, broker: &Broker, name: &str, args: &[&str]) -> Command {
        let mut probe = self.binaries.probe(name);
        probe.args(["--bootstrap", &broker.address.to_string()]);
        probe.args(args);
        probe
    }
}

/// A name that no topic has had.
pub fn new_topic() -> String {
    static TOPICS: AtomicU64 = AtomicU64::new(0);
    format!("bench-{}", TOPICS.fetch_add(1, Ordering::Relaxed))
}

/// Runs a program to its end; the JSON of its last line.
pub fn figures(probe: &mut Command) -> Result<Figures> {
    let mut last = String::new();
    let well = process::run_lines(probe, LIMIT, |line| last = line.to_owned())?;
    parse(well, &last)
}

/// Figures from what a program printed, or the error that it printed instead.
pub fn parse(well: bool, printed: &str) -> Result<Figures> {
    if !well {
        let said: BTreeMap<String, String> = serde_json::from_str(printed).unwrap_or_default();
        bail!("{}", said.get("error").map_or(printed, String::as_str));
    }
    serde_json::from_str(printed).with_context(|| format!("not figures: {printed}"))
}
