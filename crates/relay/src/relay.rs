//! The relay's loop, as a value: it says which operation comes next, its host carries that out against
//! a [`crate::source::Source`] and [`crate::topics::Topics`] and tells how it ended.
//!
//! One operation at a time. No clock, no threads, no sockets: [`crate::host`] runs it for real, `sim`
//! in a simulated world.
//!
//! Exactly once (outbox-facts.md, section 3):
//! 1. `Init`: a stable transactional id fences the producers before and resolves their transaction.
//! 2. `ReadProgress`, only then: what it says can no longer change but by this producer.
//! 3. `Open`: the source goes on after it.
//! 4. `Read`, then `Publish`: events and progress in one transaction; `Commit`.
//! 5. `Confirm`, only then: the source may forget.
//! 6. Whenever an outcome is unknown: from 1. A transaction is never sent again on a guess.
//! 7. Where the source is lost, the progress as it is known is committed once more before that: who was
//!    overtaken meanwhile is told that it is fenced, and does not take the source back.
//! 8. Where the source refuses to open, the progress is read once more: it has moved on if another
//!    instance took over since 2, and then it was that and nothing worse.
//!
//! At least once has no transaction: what is acknowledged is confirmed, and what a crash leaves in
//! between is sent again. At most once confirms before it sends.
//!
//! Invariants:
//! - In `Publish`, `Commit` and `Abort` the events are `batch[done..until]`, and all before `done` are
//!   published.
//! - `Confirm` names a position whose events are all committed (at most once: will be sent once).

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use crate::dead_letter;
use crate::event::Event;
use crate::position::{Position, Progress};
use crate::router::Router;
use crate::row::OutboxRow;
use crate::source::{Batch, Limit, SourceError};
use crate::topics::TopicsError;

/// What the user of a relay picks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Delivery {
    /// Nothing twice; what is under way in a crash is lost.
    AtMostOnce,
    /// Nothing lost; what is under way in a crash may come twice.
    AtLeastOnce,
    #[default]
    ExactlyOnce,
}

/// What happens with a row that can never be published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnPoison {
    /// The relay stops before it, so that nothing overtakes it.
    #[default]
    Halt,
    /// It goes to the dead-letter topic, in the same transaction as the progress past it.
    Quarantine,
}

#[derive(Clone, Debug)]
pub struct Settings {
    pub name: String,
    pub delivery: Delivery,
    pub on_poison: OnPoison,
    pub dead_letter_topic: String,
    pub limit: Limit,
    /// The longest that one read waits for a row.
    pub read_wait: Duration,
}

/// The pause after a failure; doubled with each that follows without a success in between.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// What the host does next.
#[derive(Clone, Debug, PartialEq)]
pub enum Operation {
    Init,
    ReadProgress,
    Open(Option<Progress>),
    Read(Limit, Duration),
    Publish(Publication),
    Commit,
    Abort,
    Confirm(Position),
    Wait(Duration),
    /// The end; only a new relay goes on.
    Stop(Stop),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Publication {
    batch: Arc<Vec<Event>>,
    from: usize,
    until: usize,
    /// In the same transaction; none without a transaction.
    pub progress: Option<Progress>,
}

impl Publication {
    pub fn events(&self) -> &[Event] {
        &self.batch[self.from..self.until]
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Another instance has the transactional id.
    Fenced(String),
    /// Going on would break the guarantee, or needs somebody.
    Refused(String),
    /// A row that can never be published, and the configuration says to halt there.
    Poison(String),
}

/// How the operation ended that the relay asked for. Each is the answer to the operation of its name.
#[derive(Debug)]
pub enum Outcome {
    /// The first one: nothing has been asked for yet.
    Started,
    Init(Result<(), TopicsError>),
    ReadProgress(Result<Option<Progress>, TopicsError>),
    /// With the source's identity.
    Open(Result<String, SourceError>),
    Read(Result<Batch, SourceError>),
    Publish(Result<(), TopicsError>),
    Commit(Result<(), TopicsError>),
    Abort(Result<(), TopicsError>),
    Confirm(Result<(), SourceError>),
    Wait,
}

/// What has been done so far; only ever grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Events committed or, without a transaction, acknowledged (at most once: sent).
    pub published: u64,
    pub transactions: u64,
    pub quarantined: u64,
    /// Rows that make no event: a DELETE or an UPDATE that is passed over, an empty payload.
    pub passed_over: u64,
    /// At most once: events whose sending failed.
    pub given_up: u64,
    /// Times that it began anew after a failure.
    pub restarts: u64,
}

pub struct Relay {
    settings: Settings,
    router: Router,
    identity: String,
    /// The last one that is known to be committed, and the one under way.
    progress: Option<Progress>,
    publishing: Option<Progress>,
    /// Why the source could not be opened with it.
    refusal: Option<String>,
    /// Why the source was lost, while it is looked whether somebody else has it.
    lost: Option<String>,
    batch: Arc<Vec<Event>>,
    done: usize,
    until: usize,
    /// The position past all of the batch, where that is not its last event's.
    end: Option<Position>,
    /// Stop after what is before it has been published.
    poison: Option<String>,
    backoff: Duration,
    /// Why it last began anew.
    trouble: Option<String>,
    counts: Counts,
}

impl Relay {
    pub fn new(settings: Settings, router: Router) -> Relay {
        assert!(settings.limit.rows > 0, "a batch has at least one row");
        Relay {
            settings,
            router,
            identity: String::new(),
            progress: None,
            publishing: None,
            refusal: None,
            lost: None,
            batch: Arc::default(),
            done: 0,
            until: 0,
            end: None,
            poison: None,
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

    /// Takes how the last operation ended; says the next one. Panics where `outcome` does not answer
    /// what was asked for: a mistake of the host.
    pub fn step(&mut self, outcome: Outcome) -> Operation {
        match outcome {
            Outcome::Started | Outcome::Wait => Operation::Init,
            Outcome::Init(Ok(())) if self.is_exactly_once() => Operation::ReadProgress,
            Outcome::Init(Ok(())) => Operation::Open(None),
            Outcome::ReadProgress(progress) if self.refusal.is_some() => self.refused(progress),
            Outcome::ReadProgress(Ok(progress)) => {
                self.progress.clone_from(&progress);
                Operation::Open(progress)
            }
            Outcome::Open(Ok(identity)) => {
                self.identity = identity;
                self.forget_batch();
                self.read()
            }
            Outcome::Read(Ok(batch)) => self.take(batch),
            Outcome::Publish(Ok(())) if self.is_exactly_once() => Operation::Commit,
            Outcome::Commit(Ok(())) if self.lost.is_some() => self.still_ours(),
            Outcome::Publish(Ok(())) | Outcome::Commit(Ok(())) => self.published(),
            Outcome::Publish(Err(TopicsError::Rejected { index, reason })) => {
                self.rejected(index, reason)
            }
            Outcome::Abort(Ok(())) => self.aborted(),
            Outcome::Confirm(Ok(())) => self.confirmed(),
            Outcome::Publish(Err(TopicsError::Lost(reason))) if self.at_most_once() => {
                self.give_up(reason)
            }
            Outcome::Init(Err(error))
            | Outcome::ReadProgress(Err(error))
            | Outcome::Publish(Err(error))
            | Outcome::Commit(Err(error))
            | Outcome::Abort(Err(error)) => self.topics_failed(error),
            Outcome::Open(Err(SourceError::Refused(reason))) if self.is_exactly_once() => {
                self.refusal = Some(reason);
                Operation::ReadProgress
            }
            Outcome::Read(Err(SourceError::Lost(reason)))
            | Outcome::Confirm(Err(SourceError::Lost(reason)))
                if self.is_exactly_once() && self.progress.is_some() =>
            {
                self.ask_whose(reason)
            }
            Outcome::Open(Err(error))
            | Outcome::Read(Err(error))
            | Outcome::Confirm(Err(error)) => self.source_failed(error),
        }
    }

    pub fn is_exactly_once(&self) -> bool {
        self.settings.delivery == Delivery::ExactlyOnce
    }

    fn at_most_once(&self) -> bool {
        self.settings.delivery == Delivery::AtMostOnce
    }

    fn read(&self) -> Operation {
        Operation::Read(self.settings.limit, self.settings.read_wait)
    }

    fn forget_batch(&mut self) {
        self.batch = Arc::default();
        self.done = 0;
        self.until = 0;
        self.end = None;
        self.poison = None;
    }

    fn take(&mut self, batch: Batch) -> Operation {
        self.forget_batch();
        self.end = batch.heartbeat;
        let mut events = Vec::with_capacity(batch.rows.len());
        for row in batch.rows {
            let position = row.position.clone();
            if let Err(poison) = self.route(row, &mut events) {
                self.poison = Some(poison);
                break;
            }
            self.end = Some(position);
        }
        self.batch = Arc::new(events);
        if self.at_most_once() && self.end.is_some() {
            return self.confirm_end();
        }
        self.publish_rest()
    }

    /// Errors: the relay has to stop before this row, and why.
    fn route(&mut self, row: OutboxRow, events: &mut Vec<Event>) -> Result<(), String> {
        match self.router.route(&row) {
            Ok(Some(event)) => events.push(event),
            Ok(None) => self.counts.passed_over += 1,
            Err(reason) if self.settings.on_poison == OnPoison::Quarantine => {
                self.counts.quarantined += 1;
                events.extend(dead_letter::of_row(&self.settings, &row, &reason));
            }
            Err(reason) => return Err(format!("the row {} {reason}", self.router.name(&row))),
        }
        Ok(())
    }

    /// All that is left of the batch; with nothing left, the next one.
    fn publish_rest(&mut self) -> Operation {
        self.until = self.batch.len();
        if self.done < self.until || (self.is_exactly_once() && self.unrecorded()) {
            self.publish()
        } else if self.end.is_some() && !self.at_most_once() {
            self.confirm_end()
        } else {
            self.batch_ended()
        }
    }

    /// Whether rows without an event, or a heartbeat, have moved the position and nothing has told the
    /// progress topic yet.
    fn unrecorded(&self) -> bool {
        let recorded = self.batch.get(self.done.wrapping_sub(1));
        self.end.is_some() && self.end.as_ref() != recorded.map(|event| &event.position)
    }

    /// The position after `batch[..until]`; `None` where it is that before the batch.
    fn position_after(&self, until: usize) -> Option<Position> {
        let Some(next) = self.batch.get(until) else {
            return self.end.clone();
        };
        // The parts of one dead letter share a position: it is reached with the last of them.
        let before = self.batch[..until].iter().rev();
        let mut before = before.map(|event| &event.position);
        before.find(|one| **one != next.position).cloned()
    }

    fn publish(&mut self) -> Operation {
        let position = self.position_after(self.until);
        let progress = position.map(|position| Progress::new(&self.identity, position));
        self.publishing = progress.filter(|_| self.is_exactly_once());
        self.publication()
    }

    fn publication(&self) -> Operation {
        Operation::Publish(Publication {
            batch: Arc::clone(&self.batch),
            from: self.done,
            until: self.until,
            progress: self.publishing.clone(),
        })
    }

    fn published(&mut self) -> Operation {
        self.counts.published += (self.until - self.done) as u64;
        self.counts.transactions += u64::from(self.is_exactly_once());
        if self.publishing.is_some() {
            self.progress = self.publishing.take();
        }
        self.backoff = BACKOFF_MIN;
        self.trouble = None;
        self.done = self.until;
        if self.done < self.batch.len() {
            self.until = self.batch.len();
            return self.publish();
        }
        if self.at_most_once() || self.end.is_none() {
            return self.batch_ended();
        }
        self.confirm_end()
    }

    fn confirm_end(&mut self) -> Operation {
        let end = self.end.clone().expect("whoever confirms has a position");
        Operation::Confirm(end)
    }

    fn confirmed(&mut self) -> Operation {
        self.end = None;
        if self.at_most_once() {
            return self.publish_rest();
        }
        self.batch_ended()
    }

    fn batch_ended(&mut self) -> Operation {
        match self.poison.take() {
            Some(reason) => Operation::Stop(Stop::Poison(reason)),
            None => self.read(),
        }
    }

    /// Something in `batch[done..until]` can never be published: find it by halves.
    fn rejected(&mut self, index: Option<usize>, reason: String) -> Operation {
        let count = self.until - self.done;
        if count <= 1 {
            return self.poisoned(&reason);
        }
        let fewer = index.map_or(count / 2, |index| index.clamp(1, count - 1));
        self.until = self.done + fewer;
        self.again()
    }

    /// `batch[done]` alone was rejected.
    fn poisoned(&mut self, reason: &str) -> Operation {
        let Some(event) = self.batch.get(self.done) else {
            return self.stop(format!("the progress itself was rejected: {reason}"));
        };
        // What is rejected in the dead-letter topic has nowhere to go.
        let nowhere = event.topic.as_ref() == self.settings.dead_letter_topic;
        if nowhere || self.settings.on_poison == OnPoison::Halt {
            let (at, topic) = (&event.position, &event.topic);
            self.poison = Some(format!("the event at {at} for topic {topic}: {reason}"));
            self.end = self.position_after(self.done);
            Arc::make_mut(&mut self.batch).truncate(self.done);
            self.until = self.done;
            return self.again();
        }
        self.counts.quarantined += 1;
        let letters = dead_letter::of_event(&self.settings, event, reason);
        let batch = Arc::make_mut(&mut self.batch);
        batch.splice(self.done..=self.done, letters);
        self.until = self.batch.len();
        self.again()
    }

    fn again(&mut self) -> Operation {
        if self.is_exactly_once() {
            return Operation::Abort;
        }
        self.aborted()
    }

    fn aborted(&mut self) -> Operation {
        if self.done < self.until {
            return self.publish();
        }
        self.publish_rest()
    }

    /// At most once: these are lost, and the next ones follow.
    fn give_up(&mut self, reason: String) -> Operation {
        self.counts.given_up += (self.until - self.done) as u64;
        self.begin_anew(reason)
    }

    fn topics_failed(&mut self, error: TopicsError) -> Operation {
        match error {
            TopicsError::Fenced(reason) => Operation::Stop(Stop::Fenced(reason)),
            TopicsError::Refused(reason) | TopicsError::Rejected { reason, .. } => {
                self.stop(reason)
            }
            TopicsError::Lost(reason) => self.begin_anew(reason),
        }
    }

    fn source_failed(&mut self, error: SourceError) -> Operation {
        match error {
            SourceError::Refused(reason) => self.stop(reason),
            SourceError::Lost(reason) => self.begin_anew(reason),
        }
    }

    /// The source is lost, perhaps to another instance: if that is so, this says it.
    fn ask_whose(&mut self, reason: String) -> Operation {
        self.forget_batch();
        self.publishing.clone_from(&self.progress);
        self.lost = Some(reason);
        self.publication()
    }

    fn still_ours(&mut self) -> Operation {
        let reason = self.lost.take().unwrap_or_default();
        self.begin_anew(reason)
    }

    /// Source and progress disagree: that is so for as long as an instance that was overtaken between
    /// the two does not know it.
    fn refused(&mut self, progress: Result<Option<Progress>, TopicsError>) -> Operation {
        let reason = self.refusal.take().unwrap_or_default();
        match progress {
            Ok(progress) if progress != self.progress => Operation::Stop(Stop::Fenced(format!(
                "another instance of this relay has taken over and has published since this one read \
                 the progress. What this one saw: {reason}"
            ))),
            Ok(_) => self.stop(reason),
            // Not known which of the two it is: whatever refuses will do so again.
            Err(error) => self.topics_failed(error),
        }
    }

    fn stop(&mut self, reason: String) -> Operation {
        Operation::Stop(Stop::Refused(reason))
    }

    fn begin_anew(&mut self, reason: String) -> Operation {
        self.lost = None;
        self.counts.restarts += 1;
        self.trouble = Some(reason);
        let pause = self.backoff;
        self.backoff = (self.backoff * 2).min(BACKOFF_MAX);
        Operation::Wait(pause)
    }
}

#[cfg(test)]
#[path = "relay_tests.rs"]
mod tests;
