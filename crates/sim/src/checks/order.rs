//! What is there at the end is gapless, and each idempotent producer's records stand in the order
//! in which it sent them.
//!
//! Does not cover: plain producers, whose retries may reorder.

use crate::actors::TOPIC;
use crate::history::{History, Violation};
use std::collections::BTreeMap;

pub fn check(history: &History) -> Result<(), Violation> {
    for (place, read) in &history.read_back {
        // Between transactions are markers, and what was aborted.
        let gapless = place.0 == TOPIC;
        for (expected, offset) in (0i64..).zip(read.keys()) {
            if gapless && expected != *offset {
                return Err(format!("{place:?} has no record at offset {expected}"));
            }
        }
        let mut last = BTreeMap::<&str, u32>::new();
        for (offset, value) in read {
            let is_unique = history.unique.contains_key(&(place.clone(), value.clone()));
            let is_theirs = is_unique && value.starts_with('p');
            let (Some((producer, number)), true) = (value.split_once(':'), is_theirs) else {
                continue;
            };
            let number: u32 = number
                .parse()
                .map_err(|_| format!("{value:?} is no record"))?;
            let before = last.insert(producer, number);
            if before.is_some_and(|before| before + 1 != number) {
                return Err(format!(
                    "{place:?}: {value:?} at {offset} follows {before:?}"
                ));
            }
        }
    }
    Ok(())
}
