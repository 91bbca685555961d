//! What a row is: a measurement, the brokers it is made on, and the figures that are wanted of it.

use anyhow::Result;

use super::probe::{Figures, Tools};
use super::system::{Broker, Durability, System};

pub struct Row {
    /// Its number, and that of another row which the same measurement answers.
    pub numbers: &'static [u32],
    pub part: &'static str,
    pub title: &'static str,
    pub measure: Measure,
    pub metrics: &'static [Metric],
}

impl Row {
    pub fn id(&self) -> String {
        format!("{}{}", self.numbers[0], self.part)
    }

    /// Number and title, as a plot shows them.
    pub fn label(&self) -> String {
        let suffix = match self.measure {
            Measure::On(stage, _) => stage.suffix(),
            Measure::Own(..) | Measure::Ours(..) => Stage::PageCache.suffix(),
        };
        format!("{} {}{suffix}", self.id(), self.title)
    }

    pub fn is_of(&self, stage: Stage) -> bool {
        matches!(self.measure, Measure::On(of, _) if of == stage)
    }

    /// What an acknowledgement means in it.
    pub fn mode(&self) -> &'static str {
        match self.measure {
            Measure::On(stage, _) => stage.describe(),
            Measure::Own(..) => Stage::PageCache.describe(),
            Measure::Ours(..) => "the broker without fsync",
        }
    }
}

pub enum Measure {
    /// On brokers that run for many rows.
    On(Stage, fn(&Tools, &Broker) -> Result<Figures>),
    /// Starts its own broker; no more than this many pairs, because each takes long.
    Own(fn(&Tools, System) -> Result<Figures>, usize),
    /// The same of something that Kafka has not.
    Ours(fn(&Tools) -> Result<Figures>, usize),
}

/// Which brokers run at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Nobody waits for the disk.
    PageCache,
    /// Everybody does, before each acknowledgement.
    Fsync,
    /// Oncelog does, Kafka does not.
    OursFsync,
}

pub const STAGES: [Stage; 3] = [Stage::PageCache, Stage::OursFsync, Stage::Fsync];

impl Stage {
    pub fn systems(self) -> Vec<(System, Durability)> {
        use Durability::{Fsync, PageCache};
        let all = |durability| {
            let systems = [System::Kafka, System::Oncelog, System::Floor];
            systems.map(|system| (system, durability)).to_vec()
        };
        match self {
            Stage::PageCache => all(PageCache),
            Stage::Fsync => all(Fsync),
            Stage::OursFsync => vec![(System::Kafka, PageCache), (System::Oncelog, Fsync)],
        }
    }

    /// For a label in a plot, where most rows are without fsync.
    pub fn suffix(self) -> &'static str {
        match self {
            Stage::PageCache => "",
            Stage::Fsync => ", fsync",
            Stage::OursFsync => ", fsync / page cache",
        }
    }

    pub fn describe(self) -> &'static str {
        match self {
            Stage::PageCache => "no fsync on either side",
            Stage::Fsync => "fsync before every acknowledgement on both sides",
            Stage::OursFsync => "Oncelog's fsync against Kafka's page cache",
        }
    }
}

pub struct Metric {
    /// Its name among the figures of the measurement.
    pub figure: &'static str,
    pub title: &'static str,
    pub unit: &'static str,
    pub better: Better,
    pub goals: &'static [Goal],
    /// Whether a ratio to Kafka's figure says something.
    pub compared: bool,
}

impl Metric {
    pub const fn not_compared(mut self) -> Metric {
        self.compared = false;
        self
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Better {
    Higher,
    Lower,
}

#[derive(Clone, Copy)]
pub enum Goal {
    /// Of the ratio to Kafka: at least or at most this, whichever is better.
    Ratio(f64),
    /// Of Oncelog's own figure.
    Figure(f64),
}

pub const fn metric(
    figure: &'static str,
    title: &'static str,
    unit: &'static str,
    better: Better,
    goals: &'static [Goal],
) -> Metric {
    Metric {
        figure,
        title,
        unit,
        better,
        goals,
        compared: true,
    }
}

pub const fn row(
    numbers: &'static [u32],
    part: &'static str,
    title: &'static str,
    measure: Measure,
    metrics: &'static [Metric],
) -> Row {
    Row {
        numbers,
        part,
        title,
        measure,
        metrics,
    }
}
