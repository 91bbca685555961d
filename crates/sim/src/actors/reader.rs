//! The last look: a fresh client reads every partition to its end, the committed offsets and the
//! list of topics, for the checks at the end.

use super::consumer::{fetch, take_in};
use super::session::Heard;
use super::{Actor, ActorEvent, Context, GROUP, Session, TOPIC};
use crate::history::{History, Violation};
use crate::plan::Plan;
use oncelog_wire::ResponseBody;
use oncelog_wire::messages::offset_fetch_request::OffsetFetchRequestTopic;
use oncelog_wire::messages::{MetadataRequest, OffsetFetchRequest};
use std::collections::BTreeMap;

pub struct Reader {
    plan: Plan,
    session: Session,
    positions: BTreeMap<i32, i64>,
    /// Answers in a row that moved nothing.
    quiet: u32,
    committed_seen: bool,
    topics_seen: bool,
    has_group: bool,
}

impl Reader {
    pub fn new(plan: &Plan, history: &History) -> Reader {
        Reader {
            plan: plan.clone(),
            session: Session::default(),
            positions: (0..plan.partitions)
                .map(|partition| (partition, 0))
                .collect(),
            quiet: 0,
            committed_seen: false,
            topics_seen: false,
            has_group: !history.committed.is_empty(),
        }
    }

    fn go_on(&mut self, context: &mut Context) {
        if self.session.outstanding() > 0 {
            return;
        }
        if !self.topics_seen {
            let ask = MetadataRequest {
                topics: None,
                ..Default::default()
            };
            self.session.ask(context, 5, 0, ask.into());
        } else if self.has_group && !self.committed_seen {
            let topic = OffsetFetchRequestTopic {
                name: TOPIC.to_owned(),
                partition_indexes: self.positions.keys().copied().collect(),
                ..Default::default()
            };
            let ask = OffsetFetchRequest {
                group_id: GROUP.to_owned(),
                topics: Some(vec![topic]),
                ..Default::default()
            };
            self.session.ask(context, 5, 0, ask.into());
        } else if self.quiet < 2 {
            self.session
                .ask(context, 11, 0, fetch(&self.positions).into());
        }
    }

    fn heard(&mut self, context: &mut Context, body: ResponseBody) -> Result<(), Violation> {
        match body {
            ResponseBody::Metadata(answer) => {
                let there = |name: &str| {
                    answer
                        .topics
                        .iter()
                        .any(|topic| topic.name.as_deref() == Some(name))
                };
                for (name, exists) in &context.history.topics {
                    if there(name) != *exists {
                        return Err(format!("topic {name} should exist: {exists}"));
                    }
                }
                self.topics_seen = true;
            }
            ResponseBody::OffsetFetch(answer) => {
                let partitions = answer.topics.iter().flat_map(|topic| &topic.partitions);
                let there: BTreeMap<i32, i64> = partitions
                    .map(|partition| (partition.partition_index, partition.committed_offset))
                    .collect();
                // From the promises, not from the answer: an empty answer must not pass.
                for ((_, place), promised) in &context.history.committed {
                    let found = there.get(&place.1).copied();
                    if found.is_none_or(|found| found < *promised) {
                        return Err(format!(
                            "{place:?}: offset {promised} was committed, {found:?} is there"
                        ));
                    }
                }
                self.committed_seen = true;
            }
            ResponseBody::Fetch(answer) => {
                let before = self.positions.clone();
                for (place, offset, value) in
                    take_in(context, &answer, &mut self.positions, &self.plan)?
                {
                    context
                        .history
                        .read_back
                        .entry(place)
                        .or_default()
                        .insert(offset, value);
                }
                for (partition, position) in &self.positions {
                    let place = (TOPIC.to_owned(), *partition);
                    context.history.read_to.insert(place, *position);
                }
                self.quiet = if before == self.positions {
                    self.quiet + 1
                } else {
                    0
                };
            }
            other => return Err(format!("an answer of {:?}", other.api_key())),
        }
        context.wake_after_ms(1);
        Ok(())
    }
}

impl Actor for Reader {
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

    fn done(&self) -> bool {
        self.quiet >= 2
    }

    fn describe(&self) -> String {
        format!("reader at {:?}", self.positions)
    }
}
