//! The sink's loop, as a value: it says which operation comes next, its host carries that out against
//! [`crate::records::Records`] and a [`crate::target::Target`] and tells how it ended.
//!
//! One operation at a time. No clock, no threads, no sockets: `host` runs it for real, `sim` in a
//! simulated world.
//!
//! Exactly once (outbox-facts.md, section 5):
//! 1. Assigned: `Ranges`, then `Claim`: the database counts the epoch up and says the next offset. That
//!    is the truth; what the group has committed is for tools that show a lag.
//! 2. `Assign` at that offset; refused where the partition does not have it.
//! 3. `Poll`, then `Apply`: the moved offset under its fence, the inbox and the rows in one transaction;
//!    then an advisory `Commit`.
//! 4. Whenever a transaction's outcome is unknown: `Open`, then from 1 for all partitions. Nothing is
//!    sent again on a guess.
//! 5. Fenced: `Leave`, and come anew.
//!
//! At least once has no fence: rows, then `Commit`. At most once: `Commit`, then rows.
//!
//! Invariants:
//! - In `Apply` the entries are `batch[done..until]`, and all before `done` are applied (at most once: or
//!   given up).
//! - `held` has the place of the next record of each partition that is not yet in a batch; `reached` in
//!   the database is never past it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::config::{Config, Delivery, OnPoison, Reset};
use crate::dead_letter::Letter;
use crate::mapping::Mapping;
use crate::record::{Place, SinkRecord, TopicPartition, text_of};
use crate::records::{Limit, Polled, Range, Rebalance, RecordsError};
use crate::table::Table;
use crate::target::{Applied, Claim, Effect, Entry, Move, Request, TargetError, Transaction};

/// The pause after a failure; doubled with each that follows without a success in between.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// The longest that one poll waits for a record.
const POLL_WAIT: Duration = Duration::from_millis(200);
/// How often a partition that ends before its stored offset is looked at again before it is refused: a
/// new leader may not know yet how far the followers are.
const RECHECKS_MAX: u32 = 5;
/// Empty polls in a row before partitions that end in markers are looked for.
const IDLE_POLLS: u32 = 10;

/// What the host does next.
#[derive(Clone, Debug, PartialEq)]
pub enum Operation {
    Open,
    Subscribe,
    Poll(Limit, Duration),
    /// Of these partitions; with the group's offsets if `true`.
    Ranges(Vec<TopicPartition>, bool),
    /// With the cluster's id.
    Claim(String, Vec<Request>),
    Assign(Vec<Place>),
    Seek(Vec<Place>),
    Apply(Transaction),
    /// Advisory if `true`.
    Commit(Vec<Place>, bool),
    Probe(Vec<Place>),
    Leave,
    Wait(Duration),
    /// The end; only a new sink goes on.
    Stop(Stop),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Other instances have taken over again and again.
    Fenced(String),
    /// Going on would break the guarantee, or needs somebody.
    Refused(String),
    /// A record that can never be a row, and the configuration says to halt there.
    Poison(String),
}

/// How the operation ended that the sink asked for. Each is the answer to the operation of its name.
#[derive(Debug)]
pub enum Outcome {
    /// The first one: nothing has been asked for yet.
    Started,
    Open(Result<Table, TargetError>),
    /// With the cluster's id.
    Subscribe(Result<String, RecordsError>),
    Poll(Result<Polled, RecordsError>),
    Ranges(Result<Vec<Range>, RecordsError>),
    Claim(Result<Vec<Claim>, TargetError>),
    Assign(Result<(), RecordsError>),
    Seek(Result<(), RecordsError>),
    Apply(Result<Applied, TargetError>),
    Commit(Result<(), RecordsError>),
    Probe(Result<Vec<Place>, RecordsError>),
    Leave,
    Wait,
}

/// What has been done so far; only ever grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Records whose effect is committed; skipped duplicates and dead letters among them.
    pub applied: u64,
    pub transactions: u64,
    pub duplicates_skipped: u64,
    pub dead_letters: u64,
    /// At most once: records whose rows are lost.
    pub given_up: u64,
    /// Times that another instance had taken over a partition.
    pub fenced: u64,
    pub rebalances: u64,
    /// Times that it began anew after a failure.
    pub restarts: u64,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    epoch: i64,
    /// Of the next record that is not applied.
    reached: i64,
}

/// Partitions on their way from assigned to read.
#[derive(Debug)]
struct Starting {
    partitions: Vec<TopicPartition>,
    /// Already assigned, before the database was lost: to be sought in.
    again: bool,
    claims: Option<Vec<Claim>>,
    ranges: Vec<Range>,
    checks: u32,
}

pub struct Sink {
    config: Config,
    limit: Limit,
    mapping: Option<Mapping>,
    cluster: Option<String>,
    held: BTreeMap<TopicPartition, Held>,
    starting: Vec<Starting>,
    records: Vec<SinkRecord>,
    batch: Arc<Vec<Entry>>,
    done: usize,
    until: usize,
    /// At most once: the group's offsets past the batch are committed.
    committed: bool,
    /// Of a batch that is applied: to be committed to the group.
    to_commit: Vec<Place>,
    /// Stop after what is before it has been applied.
    poison: Option<String>,
    leave: bool,
    idle_polls: u32,
    /// A transaction without entries that moves offsets past markers.
    skip: Option<Vec<Move>>,
    fenced_in_a_row: u32,
    backoff: Duration,
    /// Why it last began anew.
    trouble: Option<String>,
    counts: Counts,
}

/// Fenced so often without a transaction in between, somebody has to look.
const FENCED_MAX: u32 = 10;

impl Sink {
    pub fn new(config: &Config) -> Sink {
        Sink {
            limit: Limit {
                rows: config.batch_max_rows,
                bytes: config.batch_max_bytes,
                wait: config.batch_max_wait,
            },
            config: config.clone(),
            mapping: None,
            cluster: None,
            held: BTreeMap::new(),
            starting: Vec::new(),
            records: Vec::new(),
            batch: Arc::default(),
            done: 0,
            until: 0,
            committed: false,
            to_commit: Vec::new(),
            poison: None,
            leave: false,
            idle_polls: 0,
            skip: None,
            fenced_in_a_row: 0,
            backoff: BACKOFF_MIN,
            trouble: None,
            counts: Counts::default(),
        }
    }

    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Why it began anew, until something has succeeded since.
    pub fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// Whether an end now is one without loss (at most once) and without repetition (at least once).
    pub fn may_stop(&self) -> bool {
        let given_up = self.at_most_once() && self.committed && self.done < self.batch.len();
        self.to_commit.is_empty() && !given_up
    }

    /// How many partitions are this instance's.
    pub fn partitions(&self) -> usize {
        self.held.len()
    }

    /// The records of the batch at hand.
    pub fn records(&self) -> &[SinkRecord] {
        &self.records
    }

    /// Takes how the last operation ended; says the next one.
    pub fn step(&mut self, outcome: Outcome) -> Operation {
        let failed = match outcome {
            Outcome::Started | Outcome::Wait => None,
            Outcome::Open(Ok(table)) => self.opened(&table),
            Outcome::Subscribe(Ok(cluster)) => {
                self.cluster = Some(cluster);
                None
            }
            Outcome::Poll(Ok(polled)) => self.polled(polled),
            Outcome::Ranges(Ok(ranges)) => self.ranged(ranges),
            Outcome::Claim(Ok(claims)) => self.claimed(claims),
            Outcome::Assign(Ok(())) | Outcome::Seek(Ok(())) => {
                self.started();
                None
            }
            Outcome::Apply(Ok(applied)) => {
                self.applied(applied);
                None
            }
            Outcome::Commit(Ok(())) => {
                self.committed = true;
                self.to_commit.clear();
                None
            }
            Outcome::Probe(Ok(places)) => {
                self.probed(&places);
                None
            }
            Outcome::Leave => {
                self.leave = false;
                Some(self.pause())
            }
            Outcome::Apply(Err(error)) => self.apply_failed(error),
            Outcome::Open(Err(error)) | Outcome::Claim(Err(error)) => self.target_failed(error),
            // Nothing depends on it.
            Outcome::Commit(Err(_)) if self.exactly_once() => {
                self.to_commit.clear();
                None
            }
            Outcome::Probe(Err(_)) => None,
            Outcome::Subscribe(Err(error))
            | Outcome::Poll(Err(error))
            | Outcome::Ranges(Err(error))
            | Outcome::Assign(Err(error))
            | Outcome::Seek(Err(error))
            | Outcome::Commit(Err(error)) => Some(self.records_failed(error)),
        };
        failed.unwrap_or_else(|| self.next())
    }

    fn exactly_once(&self) -> bool {
        self.config.delivery == Delivery::ExactlyOnce
    }

    fn at_most_once(&self) -> bool {
        self.config.delivery == Delivery::AtMostOnce
    }

    /// What the state asks for.
    fn next(&mut self) -> Operation {
        if self.leave {
            return Operation::Leave;
        }
        if self.mapping.is_none() {
            return Operation::Open;
        }
        let Some(cluster) = &self.cluster else {
            return Operation::Subscribe;
        };
        if let Some(starting) = self.starting.first() {
            return starting.next(cluster, &self.config);
        }
        if let Some(moves) = &self.skip {
            return Operation::Apply(Transaction::new(Vec::new(), moves.clone()));
        }
        if self.done < self.batch.len() {
            return self.next_of_batch();
        }
        if !self.to_commit.is_empty() {
            return Operation::Commit(self.to_commit.clone(), self.exactly_once());
        }
        if let Some(reason) = self.poison.take() {
            return Operation::Stop(Stop::Poison(reason));
        }
        if self.exactly_once() && self.idle_polls == IDLE_POLLS && !self.held.is_empty() {
            self.idle_polls += 1;
            let held = self.held.iter();
            let places = held.map(|(partition, held)| place(partition, held.reached));
            return Operation::Probe(places.collect());
        }
        Operation::Poll(self.limit, POLL_WAIT)
    }

    fn next_of_batch(&mut self) -> Operation {
        if self.at_most_once() && !self.committed {
            return Operation::Commit(self.places_after(self.batch.len()), false);
        }
        Operation::Apply(Transaction {
            batch: Arc::clone(&self.batch),
            from: self.done,
            until: self.until,
            moves: if self.exactly_once() {
                self.moves()
            } else {
                Vec::new()
            },
        })
    }

    fn opened(&mut self, table: &Table) -> Option<Operation> {
        match Mapping::new(&self.config, table) {
            Ok(mapping) => self.mapping = Some(mapping),
            Err(reason) => return Some(Operation::Stop(Stop::Refused(reason))),
        }
        None
    }

    fn polled(&mut self, polled: Polled) -> Option<Operation> {
        for rebalance in polled.rebalances {
            self.counts.rebalances += 1;
            match rebalance {
                Rebalance::Revoked(partitions) => self.revoked(&partitions),
                Rebalance::Assigned(partitions) => self.starting.push(Starting {
                    partitions,
                    again: false,
                    claims: None,
                    ranges: Vec::new(),
                    checks: 0,
                }),
            }
        }
        self.idle_polls = match polled.records.is_empty() {
            true => self.idle_polls.saturating_add(1),
            false => 0,
        };
        self.take(polled.records);
        None
    }

    fn revoked(&mut self, partitions: &[TopicPartition]) {
        for partition in partitions {
            self.held.remove(partition);
        }
        self.starting.retain_mut(|starting| {
            let before = starting.partitions.len();
            starting.partitions.retain(|one| !partitions.contains(one));
            before == 0 || !starting.partitions.is_empty()
        });
    }

    /// A new batch: of records that are next in their partitions.
    fn take(&mut self, mut records: Vec<SinkRecord>) {
        let mut next: BTreeMap<TopicPartition, i64> = BTreeMap::new();
        records.retain(|record| {
            let partition = record.topic_partition();
            let Some(held) = self.held.get(&partition) else {
                return false;
            };
            let next = next.entry(partition).or_insert(held.reached);
            let is_next = record.offset >= *next;
            *next = (*next).max(record.offset + 1);
            is_next
        });
        let mut entries = Vec::with_capacity(records.len());
        for record in &records {
            match self.entry(record) {
                Ok(entry) => entries.push(entry),
                Err(poison) => {
                    self.poison = Some(poison);
                    break;
                }
            }
        }
        records.truncate(entries.len());
        self.until = entries.len();
        self.records = records;
        self.batch = Arc::new(entries);
        self.done = 0;
        self.committed = false;
    }

    /// Errors: the sink has to stop before this record, and why.
    fn entry(&mut self, record: &SinkRecord) -> Result<Entry, String> {
        let mapping = self
            .mapping
            .as_ref()
            .expect("whoever polls has opened the database");
        let header = self
            .config
            .inbox
            .then(|| record.header(&self.config.event_id_header));
        let event_id: Option<Arc<str>> = header.flatten().map(|id| text_of(id).into());
        let effect = match mapping.change(record) {
            Ok(change) => Effect::Change(change),
            Err(reason) if self.config.dead_letter == OnPoison::Table => {
                let id = event_id.as_deref();
                let letter = Letter::new(&self.config.name, record, id, "mapping", &reason);
                Effect::Letter(letter)
            }
            Err(reason) => return Err(format!("the record {record} {reason}")),
        };
        Ok(Entry { event_id, effect })
    }

    /// Where each partition of `batch[done..until]` is after it.
    fn places_after(&self, until: usize) -> Vec<Place> {
        let mut after: BTreeMap<TopicPartition, i64> = BTreeMap::new();
        for record in &self.records[self.done..until] {
            after.insert(record.topic_partition(), record.offset + 1);
        }
        let place = |(partition, offset)| Place { partition, offset };
        after.into_iter().map(place).collect()
    }

    fn moves(&self) -> Vec<Move> {
        let places = self.places_after(self.until).into_iter();
        let moves = places.map(|place| {
            let held = self.held[&place.partition];
            Move {
                partition: place.partition,
                epoch: held.epoch,
                from: held.reached,
                to: place.offset,
            }
        });
        moves.collect()
    }

    fn applied(&mut self, applied: Applied) {
        self.backoff = BACKOFF_MIN;
        self.trouble = None;
        self.fenced_in_a_row = 0;
        self.counts.transactions += 1;
        self.counts.duplicates_skipped += applied.duplicates;
        if let Some(moves) = self.skip.take() {
            for moved in &moves {
                self.advance(&moved.partition, moved.to);
            }
            let places = moves
                .into_iter()
                .map(|moved| place(&moved.partition, moved.to));
            self.to_commit = places.collect();
            return;
        }
        let entries = &self.batch[self.done..self.until];
        let letters = entries
            .iter()
            .filter(|entry| matches!(entry.effect, Effect::Letter(_)));
        self.counts.dead_letters += letters.count() as u64;
        self.counts.applied += entries.len() as u64;
        let places = self.places_after(self.until);
        for place in &places {
            self.advance(&place.partition, place.offset);
        }
        self.done = self.until;
        self.until = self.batch.len();
        if !self.at_most_once() {
            self.to_commit
                .retain(|known| places.iter().all(|p| p.partition != known.partition));
            self.to_commit.extend(places);
        }
    }

    fn advance(&mut self, partition: &TopicPartition, offset: i64) {
        if let Some(held) = self.held.get_mut(partition) {
            held.reached = offset;
        }
    }

    fn probed(&mut self, places: &[Place]) {
        let moves = places.iter().filter_map(|place| {
            let held = self.held.get(&place.partition)?;
            (place.offset > held.reached).then(|| Move {
                partition: place.partition.clone(),
                epoch: held.epoch,
                from: held.reached,
                to: place.offset,
            })
        });
        let moves: Vec<Move> = moves.collect();
        self.skip = (!moves.is_empty()).then_some(moves);
    }

    fn forget_batch(&mut self) {
        self.records = Vec::new();
        self.batch = Arc::default();
        self.done = 0;
        self.until = 0;
        self.skip = None;
        self.poison = None;
        self.to_commit.clear();
    }

    fn apply_failed(&mut self, error: TargetError) -> Option<Operation> {
        match error {
            TargetError::Rejected { index, reason } if self.skip.is_none() => {
                self.rejected(index, reason)
            }
            TargetError::Lost(_) if self.at_most_once() => {
                self.counts.given_up += (self.until - self.done) as u64;
                self.done = self.until;
                self.until = self.batch.len();
                self.target_failed(error)
            }
            other => self.target_failed(other),
        }
    }

    fn target_failed(&mut self, error: TargetError) -> Option<Operation> {
        match error {
            TargetError::Lost(reason) => {
                self.mapping = None;
                if self.exactly_once() {
                    self.forget_batch();
                    self.start_again();
                }
                Some(self.begin_anew(reason))
            }
            TargetError::Again(reason) => Some(self.begin_anew(reason)),
            TargetError::Fenced(reason) => {
                self.counts.fenced += 1;
                self.fenced_in_a_row += 1;
                if self.fenced_in_a_row >= FENCED_MAX {
                    return Some(Operation::Stop(Stop::Fenced(reason)));
                }
                self.trouble = Some(reason);
                self.lose_membership();
                None
            }
            TargetError::Refused(reason) | TargetError::Rejected { reason, .. } => {
                Some(Operation::Stop(Stop::Refused(reason)))
            }
        }
    }

    /// All that is held is claimed again: the database was lost, and with it what is known of it.
    fn start_again(&mut self) {
        let partitions: Vec<_> = std::mem::take(&mut self.held).into_keys().collect();
        for starting in &mut self.starting {
            starting.claims = None;
            starting.ranges.clear();
        }
        if !partitions.is_empty() {
            let again = Starting {
                partitions,
                again: true,
                claims: None,
                ranges: Vec::new(),
                checks: 0,
            };
            self.starting.insert(0, again);
        }
    }

    /// Something in `batch[done..until]` can never be a row: find it by halves.
    fn rejected(&mut self, index: Option<usize>, reason: String) -> Option<Operation> {
        let count = self.until - self.done;
        if count > 1 {
            let fewer = index.map_or(count / 2, |index| index.clamp(1, count - 1));
            self.until = self.done + fewer;
            return None;
        }
        let record = &self.records[self.done];
        let entry = &self.batch[self.done];
        // What the dead-letter table refuses has nowhere to go.
        let nowhere = matches!(entry.effect, Effect::Letter(_));
        if nowhere || self.config.dead_letter == OnPoison::Halt {
            self.poison = Some(format!(
                "the record {record} is refused by the database: {reason}"
            ));
            self.records.truncate(self.done);
            Arc::make_mut(&mut self.batch).truncate(self.done);
            self.until = self.done;
            return None;
        }
        let id = entry.event_id.as_deref();
        let letter = Letter::new(&self.config.name, record, id, "database", &reason);
        Arc::make_mut(&mut self.batch)[self.done].effect = Effect::Letter(letter);
        self.until = self.batch.len();
        None
    }

    fn records_failed(&mut self, error: RecordsError) -> Operation {
        match error {
            RecordsError::Refused(reason) => Operation::Stop(Stop::Refused(reason)),
            RecordsError::Lost(reason) => {
                self.counts.restarts += 1;
                self.trouble = Some(reason);
                self.lose_membership();
                self.next()
            }
        }
    }

    /// Leaves the group, to come anew after a pause.
    fn lose_membership(&mut self) {
        self.forget_batch();
        self.held.clear();
        self.starting.clear();
        self.cluster = None;
        self.leave = true;
    }

    fn begin_anew(&mut self, reason: String) -> Operation {
        self.counts.restarts += 1;
        self.trouble = Some(reason);
        self.pause()
    }

    fn pause(&mut self) -> Operation {
        let pause = self.backoff;
        self.backoff = (self.backoff * 2).min(BACKOFF_MAX);
        Operation::Wait(pause)
    }

    fn ranged(&mut self, ranges: Vec<Range>) -> Option<Operation> {
        let reset = self.config.auto_offset_reset;
        let exactly_once = self.exactly_once();
        let starting = self
            .starting
            .first_mut()
            .expect("ranges are asked for by a start");
        starting.ranges = ranges;
        if !exactly_once {
            let claims = starting.ranges.iter().map(|range| Claim {
                partition: range.partition.clone(),
                epoch: 0,
                next_offset: range.committed.unwrap_or_else(|| first(reset, range)),
            });
            starting.claims = Some(claims.collect());
        }
        if starting.claims.is_some() {
            self.check_start()
        } else {
            None
        }
    }

    fn claimed(&mut self, claims: Vec<Claim>) -> Option<Operation> {
        let starting = self
            .starting
            .first_mut()
            .expect("a claim is made by a start");
        starting.claims = Some(claims);
        self.check_start()
    }

    /// Whether the partitions have what is next of them.
    fn check_start(&mut self) -> Option<Operation> {
        let starting = self.starting.first_mut()?;
        match starting.fault(&self.config) {
            None => None,
            Some(Fault::Gap(reason)) => Some(Operation::Stop(Stop::Refused(reason))),
            Some(Fault::PastTheEnd(reason)) => {
                // The one before may have gone on between ranges and claim; or a leader is new.
                starting.checks += 1;
                starting.ranges.clear();
                match starting.checks {
                    1 => None,
                    2..=RECHECKS_MAX => Some(Operation::Wait(BACKOFF_MIN)),
                    _ => Some(Operation::Stop(Stop::Refused(reason))),
                }
            }
        }
    }

    fn started(&mut self) {
        let starting = self.starting.remove(0);
        for claim in starting.claims.unwrap_or_default() {
            if starting.partitions.contains(&claim.partition) {
                let held = Held {
                    epoch: claim.epoch,
                    reached: claim.next_offset,
                };
                self.held.insert(claim.partition, held);
            }
        }
        self.idle_polls = 0;
    }
}

impl Starting {
    fn next(&self, cluster: &str, config: &Config) -> Operation {
        let exactly_once = config.delivery == Delivery::ExactlyOnce;
        if self.ranges.is_empty() && !self.partitions.is_empty() {
            return Operation::Ranges(self.partitions.clone(), !exactly_once);
        }
        let Some(claims) = &self.claims else {
            if self.partitions.is_empty() {
                return Operation::Assign(Vec::new());
            }
            let reset = config.auto_offset_reset;
            let requests = self.ranges.iter().map(|range| Request {
                partition: range.partition.clone(),
                first: first(reset, range),
            });
            return Operation::Claim(cluster.to_owned(), requests.collect());
        };
        let places = claims
            .iter()
            .map(|claim| place(&claim.partition, claim.next_offset));
        match self.again {
            true => Operation::Seek(places.collect()),
            false => Operation::Assign(places.collect()),
        }
    }
}

/// Why a partition cannot be read on from where it is to be.
enum Fault {
    Gap(String),
    PastTheEnd(String),
}

impl Starting {
    fn fault(&self, config: &Config) -> Option<Fault> {
        let how_on = || match config.delivery {
            Delivery::ExactlyOnce => format!(
                "To go on without them, set next_offset in oncelog_sink_offset where sink = '{}'",
                config.name
            ),
            _ => format!(
                "To go on without them, reset the offsets of group {}",
                config.group_id
            ),
        };
        self.claims.as_ref()?.iter().find_map(|claim| {
            let (partition, next) = (&claim.partition, claim.next_offset);
            let range = self.ranges.iter().find(|range| range.partition == *partition)?;
            let (beginning, end) = (range.beginning, range.end);
            if next < beginning {
                return Some(Fault::Gap(format!(
                    "the next record of {partition} is at offset {next}, and the topic begins at \
                     {beginning}: records were deleted before they were read. {}",
                    how_on()
                )));
            }
            (next > end).then(|| {
                Fault::PastTheEnd(format!(
                    "the next record of {partition} is at offset {next}, and the topic ends at {end}: \
                     it was deleted and created again, or has lost records. {}",
                    how_on()
                ))
            })
        })
    }
}

fn first(reset: Reset, range: &Range) -> i64 {
    match reset {
        Reset::Earliest => range.beginning,
        Reset::Latest => range.end,
    }
}

fn place(partition: &TopicPartition, offset: i64) -> Place {
    Place {
        partition: partition.clone(),
        offset,
    }
}

#[cfg(test)]
#[path = "sink_tests.rs"]
mod tests;
