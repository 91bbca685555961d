//! The last look at the pipeline: a fresh consumer reads the events and the dead letters to their ends,
//! and the table is copied, for the checks at the end.

use super::records::Reader;
use super::{DEAD_LETTERS, EVENTS, from_the_beginning};
use crate::actors::{Actor, ActorEvent, Context};
use crate::history::{Published, Violation};
use crate::plan::PipelinePlan;
use oncelog_sink::record::SinkRecord;

pub struct Auditor {
    reader: Reader,
    done: bool,
}

impl Auditor {
    pub fn new(plan: &PipelinePlan) -> Auditor {
        let mut positions = from_the_beginning(EVENTS, plan.partitions);
        positions.extend(from_the_beginning(DEAD_LETTERS, plan.partitions));
        Auditor {
            reader: Reader::new(positions),
            done: false,
        }
    }

    fn heard(&mut self, context: &mut Context, records: &[SinkRecord]) -> Result<(), Violation> {
        let known = &mut context.history.pipeline;
        for record in records {
            match record.topic.as_ref() == EVENTS {
                true => known.published.push(published(record)?),
                false => known.dead_letters.push(dead_letter(record)?),
            }
        }
        if self.reader.is_at_end() {
            self.done = true;
            let target = &context.databases.target;
            known.lines = target.lines.clone();
            known.written_late = target.written_late.clone();
        }
        Ok(())
    }
}

fn json(record: &SinkRecord) -> Result<serde_json::Value, Violation> {
    let value = record.value.as_deref().unwrap_or_default();
    serde_json::from_slice(value).map_err(|error| format!("{record} is no JSON: {error}"))
}

fn published(record: &SinkRecord) -> Result<Published, Violation> {
    let value = json(record)?;
    let number = |name: &str| {
        let number = value[name]
            .as_u64()
            .and_then(|number| u32::try_from(number).ok());
        number.ok_or_else(|| format!("{record} has no {name}"))
    };
    let id = record
        .header("id")
        .ok_or_else(|| format!("{record} has no id"))?;
    let (aggregate, version) = (number("aggregate")?, number("version")?);
    if record.key.as_deref() != Some(aggregate.to_string().as_bytes()) {
        return Err(format!(
            "{record} of aggregate {aggregate} has the key {:?}",
            record.key
        ));
    }
    Ok(Published {
        partition: record.partition,
        offset: record.offset,
        id: String::from_utf8_lossy(id).into_owned(),
        aggregate,
        version,
    })
}

fn dead_letter(record: &SinkRecord) -> Result<String, Violation> {
    let id = json(record)?["id"].as_str().map(str::to_owned);
    id.ok_or_else(|| format!("the dead letter {record} has no id"))
}

impl Actor for Auditor {
    fn on(&mut self, context: &mut Context, event: ActorEvent) -> Result<(), Violation> {
        if matches!(event, ActorEvent::Wake) {
            if !self.done && !self.reader.is_waiting() {
                self.reader.ask(context, 100);
            }
            return Ok(());
        }
        if let Some(records) = self.reader.hear(event)? {
            self.heard(context, &records)?;
            context.wake_after_ms(if records.is_empty() { 50 } else { 1 });
        }
        Ok(())
    }

    fn done(&self) -> bool {
        self.done
    }

    fn describe(&self) -> String {
        let (positions, told) = (&self.reader.positions, &self.reader.told);
        format!("the pipeline's auditor, at {positions:?} of {told:?}")
    }
}
