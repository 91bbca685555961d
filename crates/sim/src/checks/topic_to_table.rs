//! From the topic to the table. Exactly once: every record that a read_committed consumer reads has
//! left one line (with an inbox: every event id has), in the order of each partition, and an instance
//! that was replaced has written nothing more. At least once: every record has left a line, and the
//! first of each come in that order. At most once: none has left two.
//!
//! Does not cover: upserts and deletes, of which the sink's own tests show that they end as if each had
//! been done in its order; the order between partitions.

use crate::history::{Pipeline, Published, Violation};
use oncelog_sink::config::Delivery;
use std::collections::{BTreeMap, BTreeSet};

pub fn check(pipeline: &Pipeline, delivery: Delivery, inbox: bool) -> Result<(), Violation> {
    if let Some(late) = &pipeline.written_late {
        return Err(format!("{late:?} is of an instance that had been replaced"));
    }
    let place = |event: &Published| (event.partition, event.offset);
    let records: BTreeMap<(i32, i64), &Published> = pipeline
        .published
        .iter()
        .map(|event| (place(event), event))
        .collect();
    let mut lines: BTreeMap<(i32, i64), u32> = BTreeMap::new();
    let mut last: BTreeMap<i32, i64> = BTreeMap::new();
    let mut ids: BTreeSet<&str> = BTreeSet::new();
    for line in &pipeline.lines {
        let at = (line.partition, line.offset);
        let record = records
            .get(&at)
            .ok_or_else(|| format!("{line:?} is of no record"))?;
        if (&record.id, record.aggregate, record.version)
            != (&line.id, line.aggregate, line.version)
        {
            return Err(format!("{line:?} is not what {record:?} says"));
        }
        let count = lines.entry(at).or_default();
        *count += 1;
        if *count == 1 {
            let last = last.entry(line.partition).or_insert(-1);
            if line.offset <= *last && delivery != Delivery::AtMostOnce {
                return Err(format!("{line:?} follows offset {last} of its partition"));
            }
            *last = line.offset;
        }
        if !ids.insert(&line.id) && inbox {
            return Err(format!("{line:?} is the second one of its event id"));
        }
    }
    for (at, record) in &records {
        let count = lines.get(at).copied().unwrap_or(0);
        let kept = match delivery {
            Delivery::ExactlyOnce if inbox => ids.contains(record.id.as_str()) && count <= 1,
            Delivery::ExactlyOnce => count == 1,
            Delivery::AtLeastOnce => count >= 1,
            Delivery::AtMostOnce => count <= 1,
        };
        if !kept {
            return Err(format!(
                "{delivery:?}: {record:?} has left {count} lines in the table"
            ));
        }
    }
    Ok(())
}
