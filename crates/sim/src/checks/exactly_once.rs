//! Offsets and outputs go together: below the group's offset, every input record that read_committed
//! readers see has exactly one committed output; at or above it none has.
//!
//! Does not cover: how far the group got; that it gets on is a matter of the run coming to an end.

use crate::actors::{INPUT, OUTPUT};
use crate::history::{History, Violation, source_of};
use std::collections::BTreeMap;

pub fn check(history: &History) -> Result<(), Violation> {
    let mut outputs: BTreeMap<(i32, i64), u32> = BTreeMap::new();
    for ((topic, _), read) in &history.read_back {
        for source in read.values().filter_map(|value| source_of(value)) {
            if topic != OUTPUT {
                return Err(format!("an output of {source:?} is in {topic}"));
            }
            *outputs.entry(source).or_default() += 1;
        }
    }
    for ((topic, index), read) in &history.read_back {
        if topic != INPUT {
            continue;
        }
        let offsets = &history.transactions.final_offsets;
        let end = offsets.get(index).copied().unwrap_or(-1);
        for (offset, value) in read {
            let count = outputs.remove(&(*index, *offset)).unwrap_or(0);
            if count != u32::from(*offset < end) {
                return Err(format!(
                    "{value:?}, input {index}@{offset}, has {count} outputs, and the group is at \
                     {end}"
                ));
            }
        }
    }
    match outputs.first_key_value() {
        None => Ok(()),
        Some((source, _)) => Err(format!("an output of {source:?}, which nobody sees")),
    }
}
