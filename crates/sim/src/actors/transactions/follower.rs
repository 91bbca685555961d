//! Reads along with everything that is written, in one isolation, and now and then goes back to
//! some place that it has been: whatever it was shown there must still be so. It also looks at the
//! group's offsets, without waiting for those that are not decided.

use super::protocol::Ask;
use super::reading::{FETCH_VERSION, Isolation, Reading};
use super::{APP_GROUP, INPUT, TOPICS, from_the_beginning};
use crate::actors::session::Heard;
use crate::actors::{Actor, ActorEvent, Context, Session};
use crate::history::Violation;
use crate::plan::TransactionPlan;
use oncelog_wire::ResponseBody;
use oncelog_wire::messages::offset_fetch_request::OffsetFetchRequestTopic;
use oncelog_wire::messages::{OffsetFetchRequest, OffsetFetchResponse};

pub struct Follower {
    session: Session,
    reading: Reading,
    partitions: i32,
    has_group: bool,
}

impl Follower {
    pub fn new(isolation: Isolation, plan: &TransactionPlan) -> Follower {
        let positions = from_the_beginning(&TOPICS, plan.partitions);
        Follower {
            session: Session::default(),
            reading: Reading::new(isolation, positions),
            partitions: plan.partitions,
            has_group: plan.transformers > 0,
        }
    }

    fn go_on(&mut self, context: &mut Context) {
        if self.session.outstanding() > 0 {
            return;
        }
        if self.has_group && context.scheduler.random.one_in(6) {
            let (version, ask) = offset_fetch(self.partitions, false);
            return self.session.ask(context, version, 0, ask);
        }
        if context.scheduler.random.one_in(10) {
            let random = &mut context.scheduler.random;
            let at = random.below(self.reading.positions.len() as u64) as usize;
            if let Some(position) = self.reading.positions.values_mut().nth(at) {
                *position = random.below(*position as u64 + 1) as i64;
            }
        }
        let ask = self.reading.fetch(context);
        self.session.ask(context, FETCH_VERSION, 0, ask);
    }

    fn heard(&mut self, context: &mut Context, body: ResponseBody) -> Result<(), Violation> {
        match body {
            ResponseBody::Fetch(answer) => {
                self.reading.take_in(context, &answer)?;
            }
            ResponseBody::OffsetFetch(answer) => {
                for (partition, offset, _) in offsets_of(&answer) {
                    let known = &context.history.transactions;
                    known.offset_told(partition, offset, None)?;
                }
            }
            other => return Err(format!("an answer of {:?}", other.api_key())),
        }
        let think = 20 + context.scheduler.random.below(280);
        context.wake_after_ms(think);
        Ok(())
    }
}

/// The group's offsets of all input partitions.
pub fn offset_fetch(partitions: i32, require_stable: bool) -> Ask {
    let topic = OffsetFetchRequestTopic {
        name: INPUT.to_owned(),
        partition_indexes: (0..partitions).collect(),
        ..Default::default()
    };
    let ask = OffsetFetchRequest {
        group_id: APP_GROUP.to_owned(),
        topics: Some(vec![topic]),
        require_stable,
        ..Default::default()
    };
    (7, ask.into())
}

/// Partition, offset and error code.
pub fn offsets_of(answer: &OffsetFetchResponse) -> Vec<(i32, i64, i16)> {
    let partitions = answer.topics.iter().flat_map(|topic| &topic.partitions);
    partitions
        .map(|p| (p.partition_index, p.committed_offset, p.error_code))
        .collect()
}

impl Actor for Follower {
    fn on(&mut self, context: &mut Context, event: ActorEvent) -> Result<(), Violation> {
        let woken = matches!(event, ActorEvent::Wake);
        match self.session.hear(event)? {
            Heard::Answer(_, body) => self.heard(context, *body)?,
            Heard::Lost => context.wake_after_ms(50),
            Heard::Nothing if woken => self.go_on(context),
            Heard::Nothing => {}
        }
        Ok(())
    }

    /// It follows for as long as there is anything to follow.
    fn done(&self) -> bool {
        true
    }

    fn describe(&self) -> String {
        format!("follower at {:?}", self.reading.positions)
    }
}
