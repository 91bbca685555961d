//! `--show-transactions`: every record up to the end, with what became of its transaction.
//!
//! What is open when it is read may be committed a moment later, so this is a picture of the
//! partition, not a stream: it stops at the end that it found when it began. It reads through
//! `admin::fetch`, because librdkafka shows neither markers nor lists of aborted transactions.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Stdout, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use oncelog_wire::limits::DECOMPRESSED_BYTES_MAX;
use oncelog_wire::records::{Batch, Header, Record, TimestampType};

use crate::admin::Cluster;
use crate::admin::fetch::Source;
use crate::admin::offsets::{self, TopicPartition};
use crate::admin::refusal;
use crate::commands::scope::{self, Scope};
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::offset::Position;
use crate::options::Options;
use crate::template;

use super::fates::{self, Fate};
use super::print::{self, Style};

/// What to show.
pub struct Wanted<'a> {
    pub topics: &'a [&'a str],
    /// Empty for all.
    pub partitions: &'a [i32],
    pub offset: Position,
    pub count_max: Option<u64>,
}

pub fn show(
    options: &Options,
    wanted: &Wanted<'_>,
    style: &Style,
    interrupt: &Interrupt,
) -> Result<()> {
    let mut cluster = Cluster::connect(options)?;
    let scopes: Vec<Scope> = wanted
        .topics
        .iter()
        .map(|topic| Scope {
            topic: (*topic).to_owned(),
            partitions: wanted.partitions.to_vec(),
        })
        .collect();
    let partitions = scope::partitions(&mut cluster, &scopes)?;
    let bounds = |cluster: &mut Cluster<'_>, timestamp| {
        let at = partitions.iter().map(|at| (at.clone(), timestamp));
        offsets::list(cluster, &at.collect())
    };
    let firsts = bounds(&mut cluster, offsets::EARLIEST)?;
    let ends = bounds(&mut cluster, offsets::LATEST)?;
    let timed = match wanted.offset {
        Position::At(time) => bounds(&mut cluster, time.resolve_ms(now_ms()).max(0))?,
        _ => BTreeMap::new(),
    };
    let mut source = Source::new(&mut cluster);
    let mut shown = Shown {
        out: BufWriter::with_capacity(1 << 16, io::stdout()),
        style,
        left: wanted.count_max.unwrap_or(u64::MAX),
    };
    for partition in &partitions {
        let (first, end) = (answer(&firsts, partition)?, answer(&ends, partition)?);
        let timed = match timed.contains_key(partition) {
            true => Some(answer(&timed, partition)?),
            false => None,
        };
        let from = from(wanted.offset, partition, first, end, timed)?;
        let ends = fates::ends(&mut source, partition, from)?;
        fates::scan(
            &mut source,
            partition,
            from..end,
            ends,
            &mut |batch, fate| {
                shown.batch(partition, batch, fate, from)?;
                Ok(shown.left > 0 && !interrupt.asked())
            },
        )?;
        if shown.left == 0 || interrupt.asked() {
            break;
        }
    }
    Ok(shown.out.flush()?)
}

fn answer(
    answers: &BTreeMap<TopicPartition, offsets::Answer>,
    partition: &TopicPartition,
) -> Result<i64, Failure> {
    let what = || {
        let (topic, index) = partition;
        format!("cannot read the offsets of {topic} partition {index}")
    };
    match answers.get(partition) {
        Some(Ok(offset)) => Ok(*offset),
        Some(Err(error)) => Err(refusal(what(), error.code(), None)),
        None => Err(Failure::refused(what()).why("the answer left the partition out")),
    }
}

/// `timed`: the first offset at or after the time that is asked for, -1 if there is none.
fn from(
    offset: Position,
    (topic, partition): &TopicPartition,
    first: i64,
    end: i64,
    timed: Option<i64>,
) -> Result<i64, Failure> {
    Ok(match offset {
        Position::Start => first,
        Position::End => end,
        Position::AfterStart(count) => first.saturating_add(count).min(end),
        Position::BeforeEnd(count) => end.saturating_sub(count).max(first),
        Position::At(_) => timed.filter(|&offset| offset >= 0).unwrap_or(end),
        Position::Offset(offset) if (first..=end).contains(&offset) => offset,
        Position::Offset(offset) => {
            return Err(Failure::refused(format!(
                "{topic} partition {partition} has no offset {offset}"
            ))
            .why(format!(
                "its first offset is {first}, the next to be written is {end}"
            )));
        }
    })
}

struct Shown<'a> {
    out: BufWriter<Stdout>,
    style: &'a Style,
    /// Records that are still wanted.
    left: u64,
}

impl Shown<'_> {
    fn batch(
        &mut self,
        partition: &TopicPartition,
        batch: &Batch,
        fate: Fate,
        from: i64,
    ) -> Result<()> {
        let unreadable = |error: oncelog_wire::records::BatchError| {
            let (topic, index) = partition;
            let offset = batch.header.base_offset;
            Failure::refused(format!(
                "the batch at offset {offset} of {topic} partition {index} is unreadable"
            ))
            .why(error.to_string())
        };
        let kind = match batch.header.timestamp_type() {
            TimestampType::CreateTime => template::TimestampType::CreateTime,
            TimestampType::LogAppendTime => template::TimestampType::LogAppendTime,
        };
        for record in batch.records(DECOMPRESSED_BYTES_MAX).map_err(unreadable)? {
            let record = record.map_err(unreadable)?;
            if record.offset < from {
                continue;
            }
            if self.left == 0 {
                return Ok(());
            }
            self.left -= 1;
            self.record(partition, &record, kind, fate)?;
        }
        Ok(())
    }

    fn record(
        &mut self,
        (topic, partition): &TopicPartition,
        record: &Record,
        kind: template::TimestampType,
        fate: Fate,
    ) -> io::Result<()> {
        let names: Vec<_> = record.headers.iter().map(name).collect();
        let values = record.headers.iter().map(|header| header.value.as_deref());
        let headers: Vec<_> = names.iter().map(|name| name.as_ref()).zip(values).collect();
        let record = template::Record {
            topic,
            partition: *partition,
            offset: record.offset,
            timestamp: Some((record.timestamp, kind)).filter(|(ms, _)| *ms >= 0),
            key: record.key.as_deref(),
            value: record.value.as_deref(),
            headers: &headers,
            transaction: fate.name(),
        };
        print::record(&record, self.style, &mut self.out)
    }
}

fn name(header: &Header) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(&header.key)
}

fn now_ms() -> i64 {
    let since_epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_to_start() {
        let at = |text: &str, timed| {
            let position = text.parse().unwrap();
            from(position, &("t".into(), 0), 5, 20, timed)
        };
        for (text, offset) in [
            ("start", 5),
            ("end", 20),
            ("+3", 8),
            ("+99", 20),
            ("-3", 17),
            ("-99", 5),
            ("5", 5),
            ("20", 20),
        ] {
            assert_eq!(at(text, None).unwrap(), offset, "{text}");
        }
        assert_eq!(at("@7", Some(9)).unwrap(), 9);
        assert_eq!(at("@7", Some(-1)).unwrap(), 20);
        assert!(at("4", None).is_err() && at("21", None).is_err());
    }
}
