//! Every acknowledged record is there at the end, where its acknowledgement said.
//!
//! Does not cover: records that retention or compaction may remove (the plans have neither on the
//! topic that is checked), and acks=0, which promises nothing.

use crate::history::{History, Violation};

pub fn check(history: &History) -> Result<(), Violation> {
    for (place, acked) in &history.acked {
        let last = history
            .seen
            .get(place)
            .and_then(|seen| seen.keys().last().copied());
        let end = history.read_to.get(place).copied().unwrap_or(0);
        for (offset, value) in acked {
            if *offset >= end {
                return Err(format!(
                    "{value:?} was acknowledged at offset {offset} of {place:?}, which ends at \
                     {end} (last seen: {last:?})"
                ));
            }
        }
        let read = history.read_back.get(place);
        let missing = acked
            .iter()
            .find(|(offset, value)| read.is_none_or(|read| read.get(offset) != Some(value)));
        if let Some((offset, value)) = missing {
            return Err(format!(
                "{value:?} was acknowledged at offset {offset} of {place:?} and is not there"
            ));
        }
    }
    Ok(())
}
