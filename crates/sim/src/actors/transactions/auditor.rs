//! The last look at transactions: a fresh client reads everything in both isolations, to the high
//! watermark; the group's offsets, for which nothing may be pending; what the partitions and the
//! coordinator still hold open, which must be nothing.
//!
//! It waits for what is open at first, no longer than a transaction may take and a margin: the
//! history fails the run if a last stable offset stands still for longer, and the auditor if the
//! rest is not done by then.

use super::follower::{offset_fetch, offsets_of};
use super::reading::{FETCH_VERSION, Isolation, Reading};
use super::{TOPICS, from_the_beginning};
use crate::actors::session::Heard;
use crate::actors::{Actor, ActorEvent, Context, Session};
use crate::history::{History, Violation};
use crate::plan::TransactionPlan;
use oncelog_wire::clock::Instant;
use oncelog_wire::messages::describe_producers_request::TopicRequest;
use oncelog_wire::messages::{
    DescribeProducersRequest, DescribeProducersResponse, FetchResponse, ListTransactionsRequest,
    ListTransactionsResponse, OffsetFetchResponse,
};
use oncelog_wire::{RequestBody, ResponseBody};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    ReadCommitted,
    ReadUncommitted,
    Offsets,
    Coordinator,
    Producers,
    Done,
}

pub struct Auditor {
    plan: TransactionPlan,
    session: Session,
    reading: Reading,
    step: Step,
    has_group: bool,
    began: Option<Instant>,
}

impl Auditor {
    pub fn new(plan: &TransactionPlan, history: &History) -> Auditor {
        let positions = from_the_beginning(&TOPICS, plan.partitions);
        Auditor {
            plan: plan.clone(),
            session: Session::default(),
            reading: Reading::new(Isolation::Committed, positions),
            step: Step::ReadCommitted,
            has_group: plan.transformers > 0 && !history.transactions.promised.is_empty(),
            began: None,
        }
    }

    fn go_on(&mut self, context: &mut Context) -> Result<(), Violation> {
        let now = context.scheduler.instant();
        let began = *self.began.get_or_insert(now);
        if self.session.outstanding() > 0 || self.done() {
            return Ok(());
        }
        let took_ms = now.ms_since(began);
        if took_ms > context.history.transactions.stuck_ms_max {
            return Err(format!(
                "{took_ms} ms after everybody was done, {} still waits",
                self.describe()
            ));
        }
        let (version, ask) = match self.step {
            Step::ReadCommitted | Step::ReadUncommitted => {
                (FETCH_VERSION, self.reading.fetch(context))
            }
            Step::Offsets => offset_fetch(self.plan.partitions, true),
            Step::Coordinator => (0, list_open()),
            Step::Producers => (0, describe_producers(self.plan.partitions)),
            Step::Done => return Ok(()),
        };
        self.session.ask(context, version, 0, ask);
        Ok(())
    }

    fn heard(&mut self, context: &mut Context, body: ResponseBody) -> Result<(), Violation> {
        let is_done = match body {
            ResponseBody::Fetch(answer) => self.read(context, &answer)?,
            ResponseBody::OffsetFetch(answer) => self.offsets(context, &answer)?,
            ResponseBody::ListTransactions(answer) => nothing_listed(context, &answer),
            ResponseBody::DescribeProducers(answer) => nothing_open(&answer)?,
            other => return Err(format!("an answer of {:?}", other.api_key())),
        };
        if is_done {
            self.next_step();
        }
        context.wake_after_ms(if is_done { 1 } else { 50 });
        Ok(())
    }

    fn next_step(&mut self) {
        self.step = match self.step {
            Step::ReadCommitted => {
                let positions = from_the_beginning(&TOPICS, self.plan.partitions);
                self.reading = Reading::new(Isolation::Uncommitted, positions);
                Step::ReadUncommitted
            }
            Step::ReadUncommitted if self.has_group => Step::Offsets,
            Step::ReadUncommitted | Step::Offsets => Step::Coordinator,
            Step::Coordinator => Step::Producers,
            Step::Producers | Step::Done => Step::Done,
        };
    }

    /// True when every partition is read to its high watermark.
    fn read(&mut self, context: &mut Context, answer: &FetchResponse) -> Result<bool, Violation> {
        let shown = self.reading.take_in(context, answer)?;
        let history = &mut *context.history;
        let to = match self.reading.isolation {
            Isolation::Committed => &mut history.read_back,
            Isolation::Uncommitted => &mut history.transactions.left,
        };
        for record in shown {
            let there = to.entry(record.place).or_default();
            there.insert(record.offset, record.value);
        }
        if self.reading.isolation == Isolation::Committed {
            for (place, position) in &self.reading.positions {
                history.read_to.insert(place.clone(), *position);
            }
        }
        let at_end = |(place, position): (_, &i64)| {
            self.reading
                .told
                .get(place)
                .is_some_and(|told| told.high == *position)
        };
        Ok(self.reading.positions.iter().all(at_end))
    }

    fn offsets(
        &mut self,
        context: &mut Context,
        answer: &OffsetFetchResponse,
    ) -> Result<bool, Violation> {
        let offsets = offsets_of(answer);
        let decided = offsets.iter().filter(|(_, _, code)| *code == 0).count();
        if decided < self.plan.partitions as usize {
            context.trace(|| format!("offsets: {offsets:?}"));
            return Ok(false);
        }
        let known = &mut context.history.transactions;
        for (partition, offset, _) in offsets {
            let promised = known.promised.get(&partition).copied();
            known.offset_told(partition, offset, promised)?;
            known.final_offsets.insert(partition, offset);
        }
        Ok(true)
    }
}

fn list_open() -> RequestBody {
    let open = [
        "Ongoing",
        "PrepareCommit",
        "PrepareAbort",
        "PrepareEpochFence",
    ];
    let ask = ListTransactionsRequest {
        state_filters: open.iter().map(|state| (*state).to_owned()).collect(),
        ..Default::default()
    };
    ask.into()
}

fn nothing_listed(context: &mut Context, answer: &ListTransactionsResponse) -> bool {
    for open in &answer.transaction_states {
        let (id, state) = (&open.transactional_id, &open.transaction_state);
        context.trace(|| format!("{id} is {state}"));
    }
    answer.transaction_states.is_empty()
}

fn describe_producers(partitions: i32) -> RequestBody {
    let topic = |name: &&str| TopicRequest {
        name: (*name).to_owned(),
        partition_indexes: (0..partitions).collect(),
        ..Default::default()
    };
    let ask = DescribeProducersRequest {
        topics: TOPICS.iter().map(topic).collect(),
        ..Default::default()
    };
    ask.into()
}

/// Everything was read to the high watermark, so nothing can be open.
fn nothing_open(answer: &DescribeProducersResponse) -> Result<bool, Violation> {
    for topic in &answer.topics {
        for partition in &topic.partitions {
            let is_open = partition
                .active_producers
                .iter()
                .find(|producer| producer.current_txn_start_offset >= 0);
            if partition.error_code != 0 || is_open.is_some() {
                return Err(format!(
                    "{}-{} holds a transaction open: {partition:?}",
                    topic.name, partition.partition_index
                ));
            }
        }
    }
    Ok(true)
}

impl Actor for Auditor {
    fn on(&mut self, context: &mut Context, event: ActorEvent) -> Result<(), Violation> {
        let woken = matches!(event, ActorEvent::Wake);
        match self.session.hear(event)? {
            Heard::Answer(_, body) => self.heard(context, *body)?,
            Heard::Lost => context.wake_after_ms(50),
            Heard::Nothing if woken => self.go_on(context)?,
            Heard::Nothing => {}
        }
        Ok(())
    }

    fn done(&self) -> bool {
        self.step == Step::Done
    }

    fn describe(&self) -> String {
        let (step, positions) = (self.step, &self.reading.positions);
        format!(
            "the auditor, in {step:?} at {positions:?} of {:?}",
            self.reading.told
        )
    }
}
