//! What the clients were told, put together: the god's view that the checks look at.
//!
//! Every method that takes something in also checks it against what is known, so that a violation
//! is found at the event that makes it.

mod pipeline;
mod transactions;

pub use pipeline::{Pipeline, Published};
use std::collections::{BTreeMap, BTreeSet};
pub use transactions::{Fate, Marks, Transactions, TxnId, source_of};

/// A promise that was broken, in words.
pub type Violation = String;

/// `topic-partition`.
pub type Place = (String, i32);

#[derive(Default)]
pub struct History {
    /// Acknowledged records by where the acknowledgement said they are.
    pub acked: BTreeMap<Place, BTreeMap<i64, String>>,
    /// Everything that was ever read, by place and offset.
    pub seen: BTreeMap<Place, BTreeMap<i64, String>>,
    /// What the last reader saw, and the end that it reached.
    pub read_back: BTreeMap<Place, BTreeMap<i64, String>>,
    pub read_to: BTreeMap<Place, i64>,
    /// Where each value of an idempotent producer was seen or acknowledged.
    pub unique: BTreeMap<(Place, String), i64>,
    /// The largest high watermark that anybody was told.
    pub high_watermark: BTreeMap<Place, i64>,
    /// The newest generation in which a member of the group was given its assignment.
    pub generation: BTreeMap<String, i32>,
    pub owners: BTreeMap<(String, i32, Place), String>,
    /// The largest offset whose commit was acknowledged.
    pub committed: BTreeMap<(String, Place), i64>,
    /// Topics whose creation (true) or deletion (false) was acknowledged last.
    pub topics: BTreeMap<String, bool>,
    pub producer_ids: BTreeSet<i64>,
    pub transactions: Transactions,
    pub pipeline: Pipeline,
}

impl History {
    /// An acknowledgement named an offset for a value.
    pub fn acknowledged(
        &mut self,
        place: &Place,
        offset: i64,
        value: &str,
        idempotent: bool,
    ) -> Result<(), Violation> {
        self.at_one_place(place, offset, value, idempotent)?;
        let acked = self.acked.entry(place.clone()).or_default();
        acked.insert(offset, value.to_owned());
        Ok(())
    }

    /// A reader saw a value at an offset.
    pub fn read(
        &mut self,
        place: &Place,
        offset: i64,
        value: &str,
        idempotent: bool,
    ) -> Result<(), Violation> {
        self.at_one_place(place, offset, value, idempotent)
    }

    fn at_one_place(
        &mut self,
        place: &Place,
        offset: i64,
        value: &str,
        idempotent: bool,
    ) -> Result<(), Violation> {
        let seen = self.seen.entry(place.clone()).or_default();
        let before = seen.entry(offset).or_insert_with(|| value.to_owned());
        if before != value {
            return Err(format!(
                "{place:?} has {before:?} and {value:?} at offset {offset}"
            ));
        }
        if idempotent {
            let key = (place.clone(), value.to_owned());
            let before = *self.unique.entry(key).or_insert(offset);
            if before != offset {
                return Err(format!(
                    "{place:?} has {value:?} at offsets {before} and {offset}"
                ));
            }
        }
        Ok(())
    }

    /// Somebody was told a high watermark.
    pub fn watermark(&mut self, place: &Place, told: i64) -> Result<(), Violation> {
        let before = self.high_watermark.entry(place.clone()).or_insert(told);
        if told < *before {
            return Err(format!(
                "the high watermark of {place:?} went from {before} to {told}"
            ));
        }
        *before = told;
        Ok(())
    }

    /// A member was told that it owns partitions in a generation.
    pub fn owns(
        &mut self,
        group: &str,
        generation: i32,
        place: &Place,
        member: &str,
    ) -> Result<(), Violation> {
        let key = (group.to_owned(), generation, place.clone());
        let owner = self.owners.entry(key).or_insert_with(|| member.to_owned());
        match owner == member {
            true => Ok(()),
            false => Err(format!(
                "{place:?} belongs to {owner} and to {member} in generation {generation}"
            )),
        }
    }

    /// A member was given its assignment in a generation.
    pub fn synced(&mut self, group: &str, generation: i32) {
        let newest = self
            .generation
            .entry(group.to_owned())
            .or_insert(generation);
        *newest = (*newest).max(generation);
    }

    /// An offset commit was accepted. `newer_at_send`: the group's newest generation that anybody
    /// had been told when the commit was sent.
    pub fn committed(
        &mut self,
        group: &str,
        place: &Place,
        offset: i64,
        generation: i32,
        newer_at_send: i32,
    ) -> Result<(), Violation> {
        self.accepted_from(group, generation, newer_at_send)?;
        let key = (group.to_owned(), place.clone());
        let largest = self.committed.entry(key).or_insert(offset);
        *largest = (*largest).max(offset);
        Ok(())
    }

    /// Offsets were taken from a member of a generation; `newer_at_send` as in `committed`.
    pub fn accepted_from(
        &self,
        group: &str,
        generation: i32,
        newer_at_send: i32,
    ) -> Result<(), Violation> {
        match newer_at_send > generation {
            false => Ok(()),
            true => Err(format!(
                "group {group} accepted a commit of generation {generation} when generation \
                 {newer_at_send} was known"
            )),
        }
    }

    /// A producer was given an id; none is ever given twice.
    pub fn producer_id(&mut self, id: i64) -> Result<(), Violation> {
        match self.producer_ids.insert(id) {
            true => Ok(()),
            false => Err(format!("producer id {id} was given out twice")),
        }
    }
}
