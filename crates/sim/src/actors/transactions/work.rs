//! What an application wants done in one transaction.

use crate::history::{History, Place, TxnId};
use std::collections::BTreeMap;

/// One batch.
#[derive(Clone, Debug)]
pub struct Write {
    pub place: Place,
    pub values: Vec<String>,
}

/// How far the group has read, and as whom it says so.
#[derive(Clone, Debug)]
pub struct Offsets {
    pub generation: i32,
    pub member: String,
    pub positions: BTreeMap<i32, i64>,
    /// The newest generation that anybody knew when the offsets were sent.
    pub newest: i32,
}

#[derive(Clone, Debug)]
pub struct Work {
    pub id: TxnId,
    /// At least one.
    pub writes: Vec<Write>,
    pub offsets: Option<Offsets>,
    pub commit: bool,
}

impl Work {
    pub fn begins(&self, history: &mut History) {
        let mut writes = BTreeMap::new();
        for write in &self.writes {
            for value in &write.values {
                writes.insert(value.clone(), write.place.clone());
            }
        }
        let offsets = self.offsets.as_ref();
        let positions = offsets.map_or_else(BTreeMap::new, |offsets| offsets.positions.clone());
        history.transactions.begin(self.id, writes, positions);
    }
}
