//! All or nothing: at the end, a read_committed reader finds every record of a transaction whose
//! commit was acknowledged, all or none of one whose commit was asked for, and none of any other;
//! each once, and each application's in the order in which it wrote them. And whatever was
//! acknowledged to a transactional producer is there, aborted or not.
//!
//! Does not cover: what is shown on the way, which is checked as it is shown.

use crate::history::{Fate, History, Place, TxnId, Violation};
use std::collections::BTreeMap;

pub fn check(history: &History) -> Result<(), Violation> {
    all_or_nothing(history)?;
    in_order(history)?;
    written_survives(history)
}

fn all_or_nothing(history: &History) -> Result<(), Violation> {
    let mut found: BTreeMap<TxnId, BTreeMap<&String, &Place>> = BTreeMap::new();
    for (place, read) in &history.read_back {
        for value in read.values() {
            let Some(id) = TxnId::of(value) else {
                continue;
            };
            if found.entry(id).or_default().insert(value, place).is_some() {
                return Err(format!("{value:?} is there twice"));
            }
        }
    }
    for (id, transaction) in &history.transactions.all {
        let found = found.remove(id).unwrap_or_default();
        let all = found.len() == transaction.writes.len();
        let in_place =
            |(value, place): (&&String, &&Place)| transaction.writes.get(*value) == Some(*place);
        let fits = match transaction.fate {
            Fate::Committed => all,
            Fate::InDoubt => all || found.is_empty(),
            Fate::Open | Fate::Aborted => found.is_empty(),
        };
        if !fits || !found.iter().all(in_place) {
            let (fate, wrote) = (transaction.fate, &transaction.writes);
            return Err(format!(
                "{id} is {fate:?} and wrote {wrote:?}; found is {found:?}"
            ));
        }
    }
    Ok(())
}

fn in_order(history: &History) -> Result<(), Violation> {
    for (place, read) in &history.read_back {
        let mut last: BTreeMap<u32, (u32, usize)> = BTreeMap::new();
        for (offset, value) in read {
            let Some(id) = TxnId::of(value) else {
                continue;
            };
            let (_, rest) = value.split_once(':').unwrap_or_default();
            let digits = rest.split('<').next().unwrap_or_default();
            let k: usize = digits
                .parse()
                .map_err(|_| format!("{value:?} is no record"))?;
            let now = (id.number, k);
            let before = last.insert(id.app, now);
            if before.is_some_and(|before| before >= now) {
                return Err(format!(
                    "{place:?}: {value:?} at {offset} follows {before:?}"
                ));
            }
        }
    }
    Ok(())
}

fn written_survives(history: &History) -> Result<(), Violation> {
    for (place, written) in &history.transactions.written {
        let left = history.transactions.left.get(place);
        let missing = written
            .iter()
            .find(|(offset, value)| left.is_none_or(|left| left.get(offset) != Some(value)));
        if let Some((offset, value)) = missing {
            return Err(format!(
                "{value:?} was acknowledged at offset {offset} of {place:?} and is not there"
            ));
        }
    }
    Ok(())
}
