//! From the figures of each pair to what a row says: medians, ratios, goals met or not.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::probe::Figures;
use super::row::{Better, Goal, Metric, Row};
use super::system::System;

/// The measurements of a row: for each system one per pair, in their order. Of one that failed, why.
pub type Measured = BTreeMap<System, Vec<Result<Figures, String>>>;

pub struct Outcome {
    pub row: &'static Row,
    pub measured: Measured,
}

/// Median, least and greatest of what was measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Spread {
    pub fn of(mut values: Vec<f64>) -> Option<Spread> {
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let median = match values.len() {
            0 => return None,
            odd if odd % 2 == 1 => values[middle],
            _ => f64::midpoint(values[middle - 1], values[middle]),
        };
        let (min, max) = (values[0], values[values.len() - 1]);
        Some(Spread { median, min, max })
    }

    fn json(self) -> Value {
        json!({ "median": self.median, "min": self.min, "max": self.max })
    }
}

impl Outcome {
    pub fn values(&self, system: System, figure: &str) -> Vec<f64> {
        let all = self.measured.get(&system).into_iter().flatten();
        let good = all.filter_map(|one| one.as_ref().ok());
        good.filter_map(|figures| figures.get(figure).copied())
            .collect()
    }

    pub fn spread(&self, system: System, figure: &str) -> Option<Spread> {
        Spread::of(self.values(system, figure))
    }

    /// Oncelog's figure by another system's, pair by pair.
    pub fn ratio(&self, to: System, figure: &str) -> Option<Spread> {
        let ours = self.measured.get(&System::Oncelog)?;
        let theirs = self.measured.get(&to)?;
        let of = |one: &Result<Figures, String>| one.as_ref().ok()?.get(figure).copied();
        let pairs = ours.iter().zip(theirs);
        let ratios = pairs.filter_map(|(ours, theirs)| Some(of(ours)? / of(theirs)?));
        Spread::of(ratios.filter(|ratio| ratio.is_finite()).collect())
    }

    /// What failed, each reason once.
    pub fn failures(&self) -> Vec<String> {
        let mut found = Vec::new();
        for (system, all) in &self.measured {
            for why in all.iter().filter_map(|one| one.as_ref().err()) {
                let line = format!("{}: {why}", system.name());
                if !found.contains(&line) {
                    found.push(line);
                }
            }
        }
        found
    }

    /// Whether Oncelog's is the worse figure; `None` if there is no pair to tell by.
    pub fn worse(&self, metric: &Metric) -> Option<bool> {
        if !metric.compared {
            return None;
        }
        let ratio = self.ratio(System::Kafka, metric.figure)?.median;
        Some(match metric.better {
            Better::Higher => ratio < 1.0,
            Better::Lower => ratio > 1.0,
        })
    }

    /// Whether a goal is met; `None` if it cannot be told.
    pub fn met(&self, metric: &Metric, goal: Goal) -> Option<bool> {
        let (reached, wanted) = match goal {
            Goal::Ratio(wanted) => (self.ratio(System::Kafka, metric.figure)?.median, wanted),
            Goal::Figure(wanted) => (self.spread(System::Oncelog, metric.figure)?.median, wanted),
        };
        Some(match metric.better {
            Better::Higher => reached >= wanted,
            Better::Lower => reached <= wanted,
        })
    }

    pub fn json(&self) -> Value {
        let metrics: Vec<Value> = self
            .row
            .metrics
            .iter()
            .map(|m| self.metric_json(m))
            .collect();
        let mut all = serde_json::Map::new();
        for (system, measured) in &self.measured {
            let each = measured.iter().map(|one| match one {
                Ok(figures) => json!(figures),
                Err(why) => json!({ "error": why }),
            });
            all.insert(system.name().to_owned(), each.collect());
        }
        json!({
            "row": self.row.id(),
            "title": self.row.title,
            "mode": self.row.mode(),
            "also_rows": &self.row.numbers[1..],
            "metrics": metrics,
            "failures": self.failures(),
            "measurements": all,
        })
    }

    fn metric_json(&self, metric: &Metric) -> Value {
        let spread = |of: Option<Spread>| of.map(Spread::json);
        let goals = metric.goals.iter().map(|goal| {
            let (of, wanted) = match goal {
                Goal::Ratio(wanted) => ("ratio", wanted),
                Goal::Figure(wanted) => ("oncelog", wanted),
            };
            json!({ "of": of, "wanted": wanted, "met": self.met(metric, *goal) })
        });
        json!({
            "figure": metric.figure,
            "title": metric.title,
            "unit": metric.unit,
            "better": match metric.better { Better::Higher => "higher", Better::Lower => "lower" },
            "kafka": spread(self.spread(System::Kafka, metric.figure)),
            "oncelog": spread(self.spread(System::Oncelog, metric.figure)),
            "floor": spread(self.spread(System::Floor, metric.figure)),
            "ratio": spread(self.ratio(System::Kafka, metric.figure)),
            "ratio_to_floor": spread(self.ratio(System::Floor, metric.figure)),
            "worse": self.worse(metric),
            "goals": goals.collect::<Vec<_>>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::rows::ROWS;

    /// Row 1 with these throughputs; what is negative has failed.
    fn outcome(kafka: &[f64], oncelog: &[f64]) -> Outcome {
        let figures = |value: &f64| match *value {
            failed if failed < 0.0 => Err("no answer".to_owned()),
            value => Ok(Figures::from([("mb_per_s".to_owned(), value)])),
        };
        let all = |values: &[f64]| values.iter().map(figures).collect();
        let measured = [(System::Kafka, all(kafka)), (System::Oncelog, all(oncelog))];
        Outcome {
            row: &ROWS[0],
            measured: Measured::from(measured),
        }
    }

    fn check(
        kafka: &[f64],
        oncelog: &[f64],
        ratio: Option<f64>,
        worse: Option<bool>,
        met: Option<bool>,
    ) {
        let outcome = outcome(kafka, oncelog);
        let metric = &outcome.row.metrics[0];
        let found = outcome.ratio(System::Kafka, metric.figure);
        assert_eq!(found.map(|spread| spread.median), ratio);
        assert_eq!(outcome.worse(metric), worse);
        // The goal is 1.6 times.
        assert_eq!(outcome.met(metric, metric.goals[0]), met);
    }

    #[test]
    fn ratios_are_taken_pair_by_pair() {
        check(
            &[1.0, 2.0, 4.0],
            &[2.0, 2.0, 12.0],
            Some(2.0),
            Some(false),
            Some(true),
        );
        check(
            &[2.0, 2.0],
            &[3.0, 2.0],
            Some(1.25),
            Some(false),
            Some(false),
        );
        check(&[2.0], &[1.0], Some(0.5), Some(true), Some(false));
    }

    #[test]
    fn a_failed_measurement_takes_its_pair_with_it_and_is_named() {
        check(
            &[1.0, -1.0, 1.0],
            &[2.0, 9.0, 2.0],
            Some(2.0),
            Some(false),
            Some(true),
        );
        check(&[-1.0], &[2.0], None, None, None);
        assert_eq!(
            outcome(&[-1.0, -1.0], &[2.0, 2.0]).failures(),
            ["kafka: no answer"]
        );
    }
}
