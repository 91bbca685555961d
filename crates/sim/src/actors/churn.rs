//! Creates topics, writes to them and deletes them, one after the other: what was acknowledged of
//! that must be so after every crash.

use super::session::Heard;
use super::{Actor, ActorEvent, Context, Session, create_topics};
use crate::history::Violation;
use oncelog_wire::messages::produce_request::{PartitionProduceData, TopicProduceData};
use oncelog_wire::messages::{DeleteTopicsRequest, ProduceRequest};
use oncelog_wire::records::BatchBuilder;
use oncelog_wire::{ErrorCode, Records, RequestBody, ResponseBody};

const ROUNDS: u32 = 12;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Create,
    Write,
    Delete,
}

pub struct Churn {
    session: Session,
    round: u32,
    step: Step,
}

impl Churn {
    pub fn new() -> Churn {
        Churn {
            session: Session::default(),
            round: 0,
            step: Step::Create,
        }
    }

    /// Three names take turns, so that names are used again soon after their deletion.
    fn name(&self) -> String {
        format!("churn-{}", self.round % 3)
    }

    fn go_on(&mut self, context: &mut Context) {
        if self.done() || self.session.outstanding() > 0 {
            return;
        }
        let name = self.name();
        match self.step {
            Step::Create => self.session.ask(context, 5, 0, create_topics(&[&name], 2)),
            Step::Write => {
                let now_ms = context.scheduler.now().wall_ms;
                self.session.ask(context, 9, 0, write(&name, now_ms));
            }
            Step::Delete => self.session.ask(context, 5, 0, delete(&name)),
        }
    }

    fn heard(&mut self, context: &mut Context, body: ResponseBody) -> Result<(), Violation> {
        let unexpected = |error: ErrorCode| Err(format!("churn: {error:?}"));
        match body {
            ResponseBody::CreateTopics(response) => {
                let error = ErrorCode::from_code(response.topics[0].error_code);
                // Exists: an earlier try whose answer was lost.
                if !matches!(error, ErrorCode::None | ErrorCode::TopicAlreadyExists) {
                    return unexpected(error);
                }
                context.history.topics.insert(self.name(), true);
                self.step = Step::Write;
            }
            ResponseBody::Produce(response) => {
                let answer = &response.responses[0].partition_responses[0];
                if answer.error_code != 0 {
                    return unexpected(ErrorCode::from_code(answer.error_code));
                }
                self.step = Step::Delete;
            }
            ResponseBody::DeleteTopics(response) => {
                let error = ErrorCode::from_code(response.responses[0].error_code);
                if !matches!(error, ErrorCode::None | ErrorCode::UnknownTopicOrPartition) {
                    return unexpected(error);
                }
                context.history.topics.insert(self.name(), false);
                self.round += 1;
                self.step = Step::Create;
            }
            other => return Err(format!("an answer of {:?}", other.api_key())),
        }
        let think = context.scheduler.random.below(1_000);
        context.wake_after_ms(think);
        Ok(())
    }
}

fn write(name: &str, now_ms: i64) -> RequestBody {
    let mut builder = BatchBuilder::new();
    builder.append(now_ms, None, Some(b"churn"), &[]);
    let partition = PartitionProduceData {
        index: 0,
        records: Some(Records::Bytes(builder.build())),
        ..Default::default()
    };
    let topic = TopicProduceData {
        name: name.to_owned(),
        partition_data: vec![partition],
        ..Default::default()
    };
    let request = ProduceRequest {
        acks: 1,
        timeout_ms: 30_000,
        topic_data: vec![topic],
        ..Default::default()
    };
    request.into()
}

fn delete(name: &str) -> RequestBody {
    let request = DeleteTopicsRequest {
        topic_names: vec![name.to_owned()],
        timeout_ms: 30_000,
        ..Default::default()
    };
    request.into()
}

impl Actor for Churn {
    fn on(&mut self, context: &mut Context, event: ActorEvent) -> Result<(), Violation> {
        let woken = matches!(event, ActorEvent::Wake);
        match self.session.hear(event)? {
            Heard::Answer(_, body) => self.heard(context, *body)?,
            Heard::Lost => context.wake_after_ms(100),
            Heard::Nothing if woken => self.go_on(context),
            Heard::Nothing => {}
        }
        Ok(())
    }

    fn done(&self) -> bool {
        self.round >= ROUNDS
    }

    fn describe(&self) -> String {
        format!("churn: round {} of {ROUNDS}", self.round)
    }
}
