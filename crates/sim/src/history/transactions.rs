//! What is known of the transactions: which may be shown, what was shown, who was fenced and why.
//!
//! A transaction is named by its application (a transactional id) and a number that the application
//! counts up, and every value that it writes carries that name; so whoever reads a value knows
//! whether it may be there. The instances of an application are counted, too: a new one fences those
//! before it.

use super::{Place, Violation};
use oncelog_wire::clock::Instant;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TxnId {
    pub app: u32,
    pub number: u32,
}

impl fmt::Display for TxnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "x{}.{}", self.app, self.number)
    }
}

impl TxnId {
    /// The value of a transaction's `k`th record, made from the record at `source` if it has one.
    pub fn value(self, k: usize, source: Option<(i32, i64)>) -> String {
        match source {
            None => format!("{self}:{k}"),
            Some((partition, offset)) => format!("{self}:{k}<{partition}@{offset}"),
        }
    }

    /// Whose value it is; `None` for what no transaction wrote.
    pub fn of(value: &str) -> Option<TxnId> {
        let (app, rest) = value.strip_prefix('x')?.split_once('.')?;
        let (number, _) = rest.split_once(':')?;
        Some(TxnId {
            app: app.parse().ok()?,
            number: number.parse().ok()?,
        })
    }
}

/// What a value was made from: partition and offset in the input topic.
pub fn source_of(value: &str) -> Option<(i32, i64)> {
    let (_, source) = value.split_once('<')?;
    let (partition, offset) = source.split_once('@')?;
    Some((partition.parse().ok()?, offset.parse().ok()?))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Nobody who may has asked for its commit: it must not be shown.
    Open,
    /// Its commit was asked for, and may have come about or not.
    InDoubt,
    /// Its commit was acknowledged.
    Committed,
    /// It cannot be committed any more.
    Aborted,
}

pub struct Transaction {
    pub fate: Fate,
    /// Every value that it writes, and where to.
    pub writes: BTreeMap<String, Place>,
    /// What it commits for the group, by input partition.
    pub offsets: BTreeMap<i32, i64>,
    /// A read_committed reader was shown a record of it; one was not.
    shown: bool,
    hidden: bool,
}

/// How far a partition may be read: by everybody, and by read_committed readers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Marks {
    pub high: i64,
    pub stable: i64,
}

/// What is known of an application's instances.
#[derive(Default)]
struct Application {
    /// The newest instance that asked for a producer id, and the newest that was given one.
    asked: u32,
    answered: u32,
    /// An InitProducerId that was given up on may still arrive, and fence whoever is there.
    loose_init: bool,
}

#[derive(Default)]
pub struct Transactions {
    pub all: BTreeMap<TxnId, Transaction>,
    applications: BTreeMap<u32, Application>,
    /// Which application has a producer id, and which instance was given an epoch of it.
    producers: BTreeMap<i64, u32>,
    epochs: BTreeMap<(i64, i16), (u32, u32)>,
    /// Whether the record at an offset is for read_committed readers: one answer for all time.
    judged: BTreeMap<Place, BTreeMap<i64, bool>>,
    /// Where the output for an input record was shown.
    outputs: BTreeMap<(i32, i64), (Place, i64)>,
    /// The largest that anybody was told, and since when the last stable offset has not moved
    /// although there was something above it.
    marks: BTreeMap<Place, (Marks, Instant)>,
    pub healed_at: Option<Instant>,
    /// How long an open transaction may hold up a partition, faults apart.
    pub stuck_ms_max: i64,
    /// Offsets of the group whose commit was acknowledged, by input partition.
    pub promised: BTreeMap<i32, i64>,
    pub final_offsets: BTreeMap<i32, i64>,
    /// Acknowledged writes, of whatever fate, and everything that is there at the end.
    pub written: BTreeMap<Place, BTreeMap<i64, String>>,
    pub left: BTreeMap<Place, BTreeMap<i64, String>>,
    pub fenced: usize,
}

impl Transactions {
    pub fn begin(
        &mut self,
        id: TxnId,
        writes: BTreeMap<String, Place>,
        offsets: BTreeMap<i32, i64>,
    ) {
        let transaction = Transaction {
            fate: Fate::Open,
            writes,
            offsets,
            shown: false,
            hidden: false,
        };
        let before = self.all.insert(id, transaction);
        assert!(before.is_none(), "{id} began twice");
    }

    fn get(&mut self, id: TxnId) -> &mut Transaction {
        self.all.get_mut(&id).expect("it has begun")
    }

    /// EndTxn(commit) is sent by an instance that nobody has superseded.
    pub fn commit_asked(&mut self, id: TxnId) {
        let transaction = self.get(id);
        if transaction.fate == Fate::Open {
            transaction.fate = Fate::InDoubt;
        }
    }

    /// Its commit is acknowledged.
    pub fn committed(&mut self, id: TxnId) -> Result<(), Violation> {
        let transaction = self.get(id);
        transaction.fate = Fate::Committed;
        if transaction.hidden {
            return Err(format!(
                "the commit of {id} is acknowledged, and a reader was kept from it as aborted"
            ));
        }
        let offsets = transaction.offsets.clone();
        for (partition, offset) in offsets {
            let promised = self.promised.entry(partition).or_insert(offset);
            *promised = offset.max(*promised);
        }
        Ok(())
    }

    /// It is aborted, or its commit was refused for good.
    pub fn aborted(&mut self, id: TxnId) -> Result<(), Violation> {
        let transaction = self.get(id);
        transaction.fate = Fate::Aborted;
        match transaction.shown {
            true => Err(format!("{id} was read, and is aborted now")),
            false => Ok(()),
        }
    }

    /// A write of a transaction was acknowledged.
    pub fn wrote(&mut self, place: &Place, offset: i64, value: &str) {
        let written = self.written.entry(place.clone()).or_default();
        written.insert(offset, value.to_owned());
    }

    /// A reader passed a record, which was shown to it or kept from it as aborted.
    pub fn judged(
        &mut self,
        place: &Place,
        offset: i64,
        value: &str,
        shown: bool,
    ) -> Result<(), Violation> {
        let judged = self.judged.entry(place.clone()).or_default();
        if *judged.entry(offset).or_insert(shown) != shown {
            return Err(format!(
                "{value:?} at {offset} of {place:?} was shown to one read_committed reader and \
                 kept from another"
            ));
        }
        let Some(id) = TxnId::of(value) else {
            return match shown {
                true => Ok(()),
                false => Err(format!(
                    "{value:?} at {offset} of {place:?} is part of no transaction, and is kept \
                     from readers"
                )),
            };
        };
        self.fits(id, place, offset, shown)?;
        match source_of(value).filter(|_| shown) {
            Some(source) => self.output(source, place, offset),
            None => Ok(()),
        }
    }

    fn fits(
        &mut self,
        id: TxnId,
        place: &Place,
        offset: i64,
        shown: bool,
    ) -> Result<(), Violation> {
        let transaction = self.get(id);
        match shown {
            true => transaction.shown = true,
            false => transaction.hidden = true,
        }
        let what = match (shown, transaction.fate) {
            (true, Fate::Open) => "is read before anybody asked for its commit",
            (true, Fate::Aborted) => "is aborted, and read",
            (false, Fate::Committed) => "is committed, and kept from readers as aborted",
            _ if transaction.shown && transaction.hidden => "is read in part",
            _ => return Ok(()),
        };
        Err(format!("{id} {what}, at {offset} of {place:?}"))
    }

    /// The output for an input record is shown: there is one.
    fn output(&mut self, source: (i32, i64), place: &Place, offset: i64) -> Result<(), Violation> {
        let at = (place.clone(), offset);
        let before = self.outputs.entry(source).or_insert_with(|| at.clone());
        match *before == at {
            true => Ok(()),
            false => Err(format!(
                "the input record {}@{} was transformed twice: {before:?} and {at:?}",
                source.0, source.1
            )),
        }
    }

    /// The largest that anybody was told so far; nobody who asks from now on may be told less.
    pub fn marks(&self, place: &Place) -> Marks {
        let known = self.marks.get(place);
        known.map_or_else(Marks::default, |(marks, _)| *marks)
    }

    /// Somebody was told a high watermark and a last stable offset. `least`: what was known when
    /// it asked.
    pub fn marks_told(
        &mut self,
        place: &Place,
        least: Marks,
        told: Marks,
        now: Instant,
    ) -> Result<(), Violation> {
        if told.stable > told.high {
            return Err(format!("{place:?}: {told:?}"));
        }
        if told.stable < least.stable || told.high < least.high {
            return Err(format!("{place:?} went from {least:?} to {told:?}"));
        }
        let (known, since) = self.marks.entry(place.clone()).or_insert((told, now));
        if told.stable > known.stable || told.stable == told.high {
            *since = now;
        }
        let is_news = told.stable >= known.stable;
        known.stable = known.stable.max(told.stable);
        known.high = known.high.max(told.high);
        let held_up = self.healed_at.filter(|_| is_news);
        let stuck_ms = held_up.map_or(0, |healed| now.ms_since(healed.max(*since)));
        match stuck_ms > self.stuck_ms_max {
            true => Err(format!("{place:?} has been at {told:?} for {stuck_ms} ms")),
            false => Ok(()),
        }
    }

    /// An instance asks for a producer id.
    pub fn init_asked(&mut self, app: u32, instance: u32) {
        let known = self.applications.entry(app).or_default();
        known.asked = known.asked.max(instance);
    }

    /// Nobody listens to the answer of an InitProducerId any more.
    pub fn init_given_up(&mut self, app: u32) {
        self.applications.entry(app).or_default().loose_init = true;
    }

    /// An instance was told the epoch that it has from now on.
    pub fn epoch_given(
        &mut self,
        (app, instance): (u32, u32),
        producer_id: i64,
        epoch: i16,
    ) -> Result<(), Violation> {
        let known = self.applications.entry(app).or_default();
        known.answered = known.answered.max(instance);
        let whose = *self.producers.entry(producer_id).or_insert(app);
        if whose != app {
            return Err(format!(
                "producer id {producer_id} belongs to application {whose} and to {app}"
            ));
        }
        let key = (producer_id, epoch);
        let before = *self.epochs.entry(key).or_insert((app, instance));
        match before.1 == instance {
            true => Ok(()),
            false => Err(format!(
                "epoch {epoch} of producer id {producer_id} (application {app}) was given to \
                 instance {} and to instance {instance}",
                before.1
            )),
        }
    }

    /// A newer instance was given its producer id: this one must not get anything done any more.
    pub fn is_superseded(&self, app: u32, instance: u32) -> bool {
        let known = self.applications.get(&app);
        known.is_some_and(|known| known.answered > instance)
    }

    /// Whether there was any reason to fence an instance, but for the time that it took.
    pub fn may_be_fenced(&self, app: u32, instance: u32) -> bool {
        let known = self.applications.get(&app);
        known.is_some_and(|known| known.loose_init || known.asked > instance)
    }

    /// The group's offset of an input partition, as it was told. `promised`: what it must have
    /// reached, from when it was asked for.
    pub fn offset_told(
        &self,
        partition: i32,
        offset: i64,
        promised: Option<i64>,
    ) -> Result<(), Violation> {
        if promised.is_some_and(|promised| offset < promised) {
            return Err(format!(
                "offset {promised:?} of input partition {partition} was committed, and it is at \
                 {offset}"
            ));
        }
        let may_be = |transaction: &Transaction| {
            matches!(transaction.fate, Fate::InDoubt | Fate::Committed)
                && transaction.offsets.get(&partition) == Some(&offset)
        };
        match offset == -1 || self.all.values().any(may_be) {
            true => Ok(()),
            false => Err(format!(
                "the offset of input partition {partition} is {offset}, which nobody has asked to \
                 commit"
            )),
        }
    }

    /// How many there are of a fate.
    pub fn count(&self, fate: Fate) -> usize {
        let of = |transaction: &&Transaction| transaction.fate == fate;
        self.all.values().filter(of).count()
    }

    /// Producer ids of transactional producers.
    pub fn producer_ids(&self) -> BTreeSet<i64> {
        self.producers.keys().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_tell_whose_they_are() {
        let id = TxnId { app: 3, number: 14 };
        assert_eq!(TxnId::of(&id.value(0, None)), Some(id));
        let made = id.value(2, Some((1, 77)));
        assert_eq!(TxnId::of(&made), Some(id));
        assert_eq!(source_of(&made), Some((1, 77)));
        assert_eq!(TxnId::of("p1:4"), None);
    }
}
