//! From the outbox to the topic. Exactly once: every committed event is there once, none that was
//! rolled back, and each aggregate's in the order of their commits. At least once: none is missing, and
//! the first of each come in that order. At most once: none is there twice.
//! What no topic can take is in the dead-letter topic, by the same promises.
//!
//! Does not cover: what a reader sees on the way; the order between aggregates, which nobody promises,
//! and any order at at-most-once, where what one instance has sent may come after what its successor
//! sends; two instances at once at at-most-once, of which each confirms and sends.

use crate::history::{Pipeline, Violation};
use oncelog_relay::relay::Delivery;
use std::collections::{BTreeMap, BTreeSet};

pub fn check(pipeline: &Pipeline, delivery: Delivery) -> Result<(), Violation> {
    let mut expected: BTreeMap<String, (u32, u32)> = BTreeMap::new();
    let mut unroutable: BTreeSet<String> = BTreeSet::new();
    for row in &pipeline.committed {
        match row.unroutable {
            true => drop(unroutable.insert(row.id())),
            false => drop(expected.insert(row.id(), (row.aggregate, row.version))),
        }
    }
    let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
    let mut newest: BTreeMap<u32, u32> = BTreeMap::new();
    for event in &pipeline.published {
        let id = event.id.as_str();
        if pipeline.rolled_back.contains(id) {
            return Err(format!("{event:?} was rolled back, and is published"));
        }
        if expected.get(id) != Some(&(event.aggregate, event.version)) {
            return Err(format!("{event:?} was never committed"));
        }
        let count = counts.entry(id).or_default();
        *count += 1;
        if *count == 1 {
            let newest = newest.entry(event.aggregate).or_default();
            if event.version <= *newest && delivery != Delivery::AtMostOnce {
                return Err(format!(
                    "{event:?} follows version {newest} of its aggregate"
                ));
            }
            *newest = event.version;
        }
    }
    let expected: BTreeSet<&str> = expected.keys().map(String::as_str).collect();
    as_promised("the topic", &expected, &counts, delivery)?;
    let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
    for id in &pipeline.dead_letters {
        if !unroutable.contains(id) {
            return Err(format!("{id} is a dead letter for no reason"));
        }
        *counts.entry(id).or_default() += 1;
    }
    let unroutable: BTreeSet<&str> = unroutable.iter().map(String::as_str).collect();
    as_promised("the dead-letter topic", &unroutable, &counts, delivery)
}

fn as_promised(
    place: &str,
    expected: &BTreeSet<&str>,
    counts: &BTreeMap<&str, u32>,
    delivery: Delivery,
) -> Result<(), Violation> {
    for id in expected {
        let count = counts.get(id).copied().unwrap_or(0);
        let kept = match delivery {
            Delivery::ExactlyOnce => count == 1,
            Delivery::AtLeastOnce => count >= 1,
            Delivery::AtMostOnce => count <= 1,
        };
        if !kept {
            return Err(format!("{delivery:?}: {id} is {count} times in {place}"));
        }
    }
    Ok(())
}
