//! What read_committed left out, and why: a line at the end.
//!
//! Only the gaps between the records that were shown are looked into, and what lies behind the
//! last of them; where nothing is missing, nothing is read again. What compaction or deletion
//! took is not hidden and not counted.

use std::collections::BTreeMap;
use std::io::{self, Write};

use anyhow::Result;

use crate::admin::Cluster;
use crate::admin::fetch::Source;
use crate::admin::offsets::{self, TopicPartition};
use crate::options::Options;

use super::fates::{self, Ends, Fate};
use super::seen::{From, Read, Seen};

/// Bytes to read again for the count, over all partitions.
const BYTES_MAX: usize = 64 << 20;

/// Why reading ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// As many records as were asked for: what is behind them was not wanted.
    Count,
    /// Every partition was read to its end.
    AtEnd,
    Interrupted,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Hidden {
    aborted: u64,
    open: u64,
    /// Committed, or of no transaction, but behind an open one.
    behind: u64,
    /// Producers of the open ones, with the partition and the first offset found.
    producers: BTreeMap<i64, (TopicPartition, i64)>,
    bytes: usize,
    is_partial: bool,
}

/// Says on standard error how many records were hidden, if any were. What cannot be found out is
/// left unsaid: the records that were shown are right all the same.
pub fn report(options: &Options, seen: &Seen, stop: Stop) -> Result<()> {
    let has_gaps = seen.reads().iter().any(|read| !read.gaps.is_empty());
    if stop == Stop::Count && !has_gaps {
        return Ok(());
    }
    match count(options, seen, stop) {
        Ok(hidden) => {
            if let Some(line) = hidden.line() {
                writeln!(io::stderr(), "{line}")?;
            }
        }
        Err(error) => tracing::info!("records that were hidden cannot be counted: {error}"),
    }
    Ok(())
}

fn count(options: &Options, seen: &Seen, stop: Stop) -> Result<Hidden> {
    let mut cluster = Cluster::connect(options)?;
    let firsts = firsts(&mut cluster, seen)?;
    let mut source = Source::new(&mut cluster);
    let mut hidden = Hidden {
        is_partial: seen.has_forgotten,
        ..Hidden::default()
    };
    for read in seen.reads() {
        let first = firsts.get(&read.partition).copied().unwrap_or(0);
        hidden.look_into(&mut source, read, first, stop)?;
    }
    Ok(hidden)
}

/// The first offset of each partition: what was before it is gone.
fn firsts(cluster: &mut Cluster<'_>, seen: &Seen) -> Result<BTreeMap<TopicPartition, i64>> {
    let reads = seen.reads().iter();
    let wanted = reads.map(|read| (read.partition.clone(), offsets::EARLIEST));
    let answers = offsets::list(cluster, &wanted.collect())?;
    let known = answers
        .into_iter()
        .filter_map(|(at, answer)| Some((at, answer.ok()?)));
    Ok(known.collect())
}

impl Hidden {
    fn look_into(
        &mut self,
        source: &mut Source<'_, '_>,
        read: &Read,
        first: i64,
        stop: Stop,
    ) -> Result<()> {
        let partition = &read.partition;
        let next = match (read.next, read.from) {
            (Some(next), _) => Some(next),
            (None, From::Offset(from)) => Some(from),
            (None, From::Start) => Some(first),
            (None, From::Unknown) => None,
        };
        let ends = fates::ends(source, partition, next.unwrap_or(first).max(first))?;
        let mut ranges = read.gaps.clone();
        match stop {
            Stop::Count => {}
            Stop::AtEnd => {
                ranges.push(next.unwrap_or(ends.last_stable_offset)..ends.high_watermark)
            }
            Stop::Interrupted => {
                let from = next.unwrap_or(first).max(ends.last_stable_offset);
                ranges.push(from..ends.high_watermark);
            }
        }
        for range in ranges {
            let range = range.start.max(first)..range.end;
            if self.bytes >= BYTES_MAX {
                self.is_partial = true;
                return Ok(());
            }
            fates::scan(
                source,
                partition,
                range.clone(),
                ends,
                &mut |batch, fate| {
                    self.bytes += batch.bytes.len();
                    let header = &batch.header;
                    let from = header.base_offset.max(range.start);
                    let offsets = header.next_offset().min(range.end).saturating_sub(from);
                    let records = offsets
                        .min(header.records_count.into())
                        .max(0)
                        .unsigned_abs();
                    self.add(partition, from, header.producer_id, records, fate, ends);
                    Ok(self.bytes < BYTES_MAX)
                },
            )?;
        }
        Ok(())
    }

    fn add(
        &mut self,
        partition: &TopicPartition,
        offset: i64,
        producer_id: i64,
        records: u64,
        fate: Fate,
        ends: Ends,
    ) {
        match fate {
            Fate::Aborted => self.aborted += records,
            Fate::Open => {
                self.open += records;
                let place = (partition.clone(), offset);
                self.producers.entry(producer_id).or_insert(place);
            }
            Fate::Plain | Fate::Committed if offset >= ends.last_stable_offset => {
                self.behind += records;
            }
            // It came while the rest was read.
            Fate::Plain | Fate::Committed => {}
        }
    }

    /// None if nothing was hidden.
    fn line(&self) -> Option<String> {
        let mut parts = Vec::new();
        if self.aborted > 0 {
            parts.push(format!("{} of aborted transactions", self.aborted));
        }
        if self.open > 0 {
            let of = self.producers.iter().next();
            let of = of.map_or(
                String::new(),
                |(producer_id, ((topic, partition), offset))| {
                    let others = match self.producers.len() {
                        1 => String::new(),
                        producers => format!(" and {} more", producers - 1),
                    };
                    format!(
                        " (producer {producer_id} in {topic}-{partition} since {offset}{others})"
                    )
                },
            );
            parts.push(format!("{} of transactions still open{of}", self.open));
        }
        if self.behind > 0 {
            parts.push(format!("{} behind an open transaction", self.behind));
        }
        if parts.is_empty() {
            return None;
        }
        let all = self.aborted + self.open + self.behind;
        let at_least = if self.is_partial { "at least " } else { "" };
        let records = if all == 1 { "record" } else { "records" };
        Some(format!(
            "hidden: {at_least}{all} {records}: {}; --show-transactions shows all, and tells them \
             apart",
            parts.join(", ")
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hidden(added: &[(i64, i64, u64, Fate)]) -> Hidden {
        let ends = Ends {
            last_stable_offset: 10,
            high_watermark: 20,
        };
        let mut hidden = Hidden::default();
        for &(offset, producer_id, records, fate) in added {
            hidden.add(&("t".into(), 0), offset, producer_id, records, fate, ends);
        }
        hidden
    }

    #[test]
    fn why_records_were_hidden() {
        let line = |added: &[_]| hidden(added).line();
        assert_eq!(line(&[]), None);
        assert_eq!(
            line(&[(3, 7, 5, Fate::Committed), (4, -1, 5, Fate::Plain)]),
            None
        );
        let more = "; --show-transactions shows all, and tells them apart";
        assert_eq!(
            line(&[(3, 7, 1, Fate::Aborted)]).unwrap(),
            format!("hidden: 1 record: 1 of aborted transactions{more}")
        );
        let added = [
            (3, 7, 2, Fate::Aborted),
            (10, 8, 3, Fate::Open),
            (13, -1, 4, Fate::Plain),
            (17, 9, 1, Fate::Committed),
        ];
        assert_eq!(
            line(&added).unwrap(),
            format!(
                "hidden: 10 records: 2 of aborted transactions, 3 of transactions still open \
                 (producer 8 in t-0 since 10), 5 behind an open transaction{more}"
            )
        );
        let mut partial = hidden(&[(10, 8, 3, Fate::Open), (13, 9, 3, Fate::Open)]);
        partial.is_partial = true;
        assert_eq!(
            partial.line().unwrap(),
            format!(
                "hidden: at least 6 records: 6 of transactions still open (producer 8 in t-0 \
                 since 10 and 1 more){more}"
            )
        );
    }
}
