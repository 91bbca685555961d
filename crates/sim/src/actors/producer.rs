//! A producer: numbered records to one partition, up to five requests in flight, resent in order
//! over a new connection when one breaks. Idempotent ones keep their sequences; plain ones
//! (acks=1) may duplicate but must not lose what was acknowledged.

use super::session::Heard;
use super::{Actor, ActorEvent, Context, Session, create_topics, value};
use crate::history::Violation;
use crate::plan::{MESSAGE_BYTES_MAX, Plan};
use oncelog_wire::messages::produce_request::{PartitionProduceData, TopicProduceData};
use oncelog_wire::messages::{InitProducerIdRequest, ProduceRequest, ProduceResponse};
use oncelog_wire::records::BatchBuilder;
use oncelog_wire::{ErrorCode, Records, RequestBody, ResponseBody};
use std::collections::VecDeque;

const TAG_SETUP: u64 = u64::MAX;
const TAG_PID: u64 = u64::MAX - 1;
const IN_FLIGHT: usize = 5;

struct Batch {
    first: u32,
    count: u32,
    /// Sent on the present connection.
    sent: bool,
    acked: bool,
    /// Sent with a record too many at first, which the broker refuses for its size; the refusal
    /// must not count as having been appended.
    oversized: bool,
}

pub struct Producer {
    number: u32,
    topic: &'static str,
    partition: i32,
    partitions: i32,
    idempotent: bool,
    session: Session,
    topic_ready: bool,
    /// `None` until given; a plain producer has none.
    producer_id: Option<i64>,
    next: u32,
    total: u32,
    batches: VecDeque<Batch>,
}

impl Producer {
    /// Idempotent or not, to one partition of a topic that has `partitions`.
    pub fn new(
        number: u32,
        (topic, partitions): (&'static str, i32),
        idempotent: bool,
        plan: &Plan,
    ) -> Producer {
        Producer {
            number,
            topic,
            partition: number as i32 % partitions,
            partitions,
            idempotent,
            session: Session::default(),
            topic_ready: false,
            producer_id: None,
            next: 0,
            total: plan.records,
            batches: VecDeque::new(),
        }
    }

    fn go_on(&mut self, context: &mut Context) {
        if self.done() {
            return;
        }
        if !self.topic_ready {
            if self.session.outstanding() == 0 {
                let ask = create_topics(&[self.topic], self.partitions);
                self.session.ask(context, 5, TAG_SETUP, ask);
            }
            return;
        }
        if self.idempotent && self.producer_id.is_none() {
            if self.session.outstanding() == 0 {
                let ask = InitProducerIdRequest {
                    transactional_id: None,
                    transaction_timeout_ms: 60_000,
                    ..Default::default()
                };
                self.session.ask(context, 4, TAG_PID, ask.into());
            }
            return;
        }
        self.fill(context);
        for at in 0..self.batches.len() {
            if !self.batches[at].sent {
                self.batches[at].sent = true;
                let request = self.request(context, &self.batches[at]);
                let tag = u64::from(self.batches[at].first);
                self.session.ask(context, 9, tag, request);
            }
        }
    }

    fn fill(&mut self, context: &mut Context) {
        let refused_soon = self.batches.iter().any(|batch| batch.oversized);
        while self.batches.len() < IN_FLIGHT && self.next < self.total && !refused_soon {
            let count = (1 + context.scheduler.random.below(6) as u32).min(self.total - self.next);
            self.batches.push_back(Batch {
                first: self.next,
                count,
                sent: false,
                acked: false,
                oversized: self.batches.is_empty() && context.scheduler.random.one_in(20),
            });
            self.next += count;
            if self.batches.back().is_some_and(|batch| batch.oversized) {
                break; // alone, so that nothing in flight builds on it
            }
            if context.scheduler.random.one_in(2) {
                break; // spread the records over time
            }
        }
    }

    fn request(&self, context: &Context, batch: &Batch) -> RequestBody {
        let now_ms = context.scheduler.now().wall_ms;
        let mut builder = BatchBuilder::new();
        if let Some(id) = self.producer_id {
            builder = builder.producer(id, 0, batch.first as i32);
        }
        for number in batch.first..batch.first + batch.count {
            let value = value(self.number, number);
            // Some batches span several sectors, so that a power cut can tear them.
            let padding = (number as usize * 97) % 500;
            let key = format!("{value}{:padding$}", "");
            builder.append(now_ms, Some(key.as_bytes()), Some(value.as_bytes()), &[]);
        }
        if batch.oversized {
            let large = [0; MESSAGE_BYTES_MAX as usize];
            builder.append(now_ms, None, Some(&large), &[]);
        }
        let partition = PartitionProduceData {
            index: self.partition,
            records: Some(Records::Bytes(builder.build())),
            ..Default::default()
        };
        let topic = TopicProduceData {
            name: self.topic.to_owned(),
            partition_data: vec![partition],
            ..Default::default()
        };
        let request = ProduceRequest {
            acks: if self.idempotent { -1 } else { 1 },
            timeout_ms: 30_000,
            topic_data: vec![topic],
            ..Default::default()
        };
        request.into()
    }

    fn acknowledged(
        &mut self,
        context: &mut Context,
        first: u32,
        response: &ProduceResponse,
    ) -> Result<(), Violation> {
        let answer = &response.responses[0].partition_responses[0];
        let error = ErrorCode::from_code(answer.error_code);
        if error == ErrorCode::MessageTooLarge
            && let Some(batch) = self.batches.iter_mut().find(|batch| batch.oversized)
        {
            batch.oversized = false;
            batch.sent = false;
            return Ok(());
        }
        if answer.error_code != 0 {
            context.trace(|| format!("batch at {first} is answered {error:?}"));
            if self.idempotent && !error.is_retriable() {
                return Err(format!("idempotent producer {} got {error:?}", self.number));
            }
            self.session.close(context);
            self.lost(context);
            return Ok(());
        }
        let Some(batch) = self.batches.iter_mut().find(|batch| batch.first == first) else {
            return Err(format!("batch at {first} was acknowledged twice"));
        };
        batch.acked = true;
        let (count, at) = (batch.count, answer.base_offset);
        let (producer, partition) = (self.number, self.partition);
        context.trace(|| {
            format!("p{producer}:{first}, {count} records, acknowledged at {partition}@{at}")
        });
        let place = (self.topic.to_owned(), self.partition);
        for number in 0..batch.count {
            let offset = answer.base_offset + i64::from(number);
            let value = value(self.number, first + number);
            context
                .history
                .acknowledged(&place, offset, &value, self.idempotent)?;
        }
        while self.batches.front().is_some_and(|batch| batch.acked) {
            self.batches.pop_front();
        }
        Ok(())
    }

    /// Everything that was not acknowledged is sent again, in order, on a new connection.
    fn lost(&mut self, context: &mut Context) {
        self.batches.retain(|batch| !batch.acked);
        for batch in &mut self.batches {
            batch.sent = false;
        }
        // Sometimes so soon that the first try is still on its way to the disk.
        let pause = context.scheduler.random.below(200);
        let pause = if context.scheduler.random.one_in(2) {
            pause / 40
        } else {
            pause
        };
        context.wake_after_ms(pause);
    }

    fn heard(
        &mut self,
        context: &mut Context,
        tag: u64,
        body: ResponseBody,
    ) -> Result<(), Violation> {
        match body {
            ResponseBody::CreateTopics(response) => {
                let code = response.topics[0].error_code;
                let exists = ErrorCode::TopicAlreadyExists.code();
                self.topic_ready = code == 0 || code == exists;
                if !self.topic_ready {
                    context.wake_after_ms(100);
                }
            }
            ResponseBody::InitProducerId(response) => {
                if response.error_code == 0 {
                    context.history.producer_id(response.producer_id)?;
                    self.producer_id = Some(response.producer_id);
                }
            }
            ResponseBody::Produce(response) => {
                self.acknowledged(context, tag as u32, &response)?;
                if !self.session.is_open() {
                    return Ok(()); // closed because of an error; woken later
                }
            }
            other => return Err(format!("an answer of {:?}", other.api_key())),
        }
        let think = context.scheduler.random.below(100);
        context.wake_after_ms(think);
        Ok(())
    }
}

impl Actor for Producer {
    fn on(&mut self, context: &mut Context, event: ActorEvent) -> Result<(), Violation> {
        let woken = matches!(event, ActorEvent::Wake);
        match self.session.hear(event)? {
            Heard::Answer(tag, body) => self.heard(context, tag, *body)?,
            Heard::Lost => self.lost(context),
            Heard::Nothing if woken => self.go_on(context),
            Heard::Nothing => {}
        }
        Ok(())
    }

    fn done(&self) -> bool {
        self.next == self.total && self.batches.is_empty()
    }

    fn describe(&self) -> String {
        format!(
            "producer {}: {} of {} taken up, {} batches unacknowledged",
            self.number,
            self.next,
            self.total,
            self.batches.len()
        )
    }
}
