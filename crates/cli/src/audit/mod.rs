//! What came of the rows that a source committed: which reached a target, how often, and in which order.
//!
//! Computed from the two databases alone, never from a program's own counters. An event is known by its
//! id; within a key (an aggregate), events have an order in the source, which their first arrivals in the
//! target must not contradict.

mod read;

use std::collections::HashMap;

use serde_json::{Value, json};

pub use read::{Place, rows};

/// A row of either side, in the side's own order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub id: String,
    /// Empty where the order is that of all rows together.
    pub key: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Events that the source holds.
    pub committed: u64,
    /// Of these, those that the target holds, however often.
    pub delivered: u64,
    pub lost: u64,
    /// Rows of the target beyond an event's first.
    pub duplicated: u64,
    /// First arrivals that stand behind a later event of their key.
    pub reordered: u64,
    /// Rows of the target whose event the source does not hold: rolled back, or somebody else's.
    pub phantom: u64,
    /// A few ids of each kind, to begin to look.
    pub examples: Vec<String>,
}

const EXAMPLES_MAX: usize = 10;

struct Expected {
    place: u64,
    seen: bool,
}

/// Takes the source's rows first, then the target's.
#[derive(Default)]
pub struct Audit {
    expected: HashMap<String, Expected>,
    /// Of each key, the place in the source of the latest event that has arrived.
    latest: HashMap<String, u64>,
    report: Report,
}

impl Audit {
    /// Errors: the source holds an id twice, so that nothing could be said about it.
    pub fn committed(&mut self, row: Row) -> Result<(), String> {
        let place = self.report.committed;
        self.report.committed += 1;
        let expected = Expected { place, seen: false };
        match self.expected.insert(row.id.clone(), expected) {
            None => Ok(()),
            Some(_) => Err(format!(
                "the source holds the id {:?} more than once",
                row.id
            )),
        }
    }

    pub fn arrived(&mut self, row: Row) {
        let Some(expected) = self.expected.get_mut(&row.id) else {
            self.report.phantom += 1;
            self.example("phantom", &row.id);
            return;
        };
        if std::mem::replace(&mut expected.seen, true) {
            self.report.duplicated += 1;
            self.example("duplicated", &row.id);
            return;
        }
        self.report.delivered += 1;
        let place = expected.place;
        let latest = self.latest.entry(row.key).or_insert(place);
        if place < *latest {
            self.report.reordered += 1;
            self.example("reordered", &row.id);
        } else {
            *latest = place;
        }
    }

    pub fn report(mut self) -> Report {
        let mut lost: Vec<(u64, String)> = std::mem::take(&mut self.expected)
            .into_iter()
            .filter(|(_, expected)| !expected.seen)
            .map(|(id, expected)| (expected.place, id))
            .collect();
        lost.sort_unstable();
        self.report.lost = lost.len() as u64;
        for (_, id) in lost {
            self.example("lost", &id);
        }
        self.report
    }

    fn example(&mut self, kind: &str, id: &str) {
        let kinds = self
            .report
            .examples
            .iter()
            .filter(|one| one.starts_with(kind));
        if kinds.count() < EXAMPLES_MAX {
            self.report.examples.push(format!("{kind}: {id}"));
        }
    }
}

impl Report {
    pub fn is_exact(&self) -> bool {
        self.lost + self.duplicated + self.reordered + self.phantom == 0
    }

    pub fn to_json(&self) -> Value {
        json!({
            "committed": self.committed,
            "delivered": self.delivered,
            "lost": self.lost,
            "duplicated": self.duplicated,
            "reordered": self.reordered,
            "phantom": self.phantom,
            "examples": self.examples,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(text: &str) -> Row {
        let (key, id) = text.split_once('/').unwrap();
        Row {
            id: id.to_owned(),
            key: key.to_owned(),
        }
    }

    /// committed, delivered, lost, duplicated, reordered, phantom
    fn check(source: &str, target: &str, expected: [u64; 6]) {
        let mut audit = Audit::default();
        for text in source.split_whitespace() {
            audit.committed(row(text)).unwrap();
        }
        for text in target.split_whitespace() {
            audit.arrived(row(text));
        }
        let report = audit.report();
        let found = [
            report.committed,
            report.delivered,
            report.lost,
            report.duplicated,
            report.reordered,
            report.phantom,
        ];
        assert_eq!(found, expected, "{source} -> {target}");
    }

    #[test]
    fn each_kind_is_counted_and_no_other() {
        check("a/1 a/2 b/3", "a/1 b/3 a/2", [3, 3, 0, 0, 0, 0]);
        check("a/1 a/2 a/3", "a/1 a/3", [3, 2, 1, 0, 0, 0]);
        check("a/1 a/2", "a/1 a/1 a/2 a/1", [2, 2, 0, 2, 0, 0]);
        check("a/1 a/2 a/3", "a/2 a/3 a/1", [3, 3, 0, 0, 1, 0]);
        check("a/1", "a/1 a/9", [1, 1, 0, 0, 0, 1]);
        check("", "", [0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn an_id_that_is_not_unique_is_refused() {
        let mut audit = Audit::default();
        audit.committed(row("a/1")).unwrap();
        assert!(audit.committed(row("b/1")).is_err());
    }

    #[test]
    fn examples_are_few() {
        let mut audit = Audit::default();
        for id in 0..100 {
            audit.committed(row(&format!("a/{id}"))).unwrap();
        }
        let report = audit.report();
        assert_eq!((report.lost, report.examples.len()), (100, EXAMPLES_MAX));
        assert_eq!(report.examples[0], "lost: 0");
    }
}
