//! What a broker serves on a damaged directory, against what was acknowledged and is undamaged.

use std::fs;
use std::path::Path;
use std::time::Instant;

use crash_campaign::client::{self, PATIENCE};
use crash_campaign::process::Broker;
use crash_campaign::random::Random;
use crash_campaign::raw::{Fetched, Raw};
use crash_campaign::record::Stamp;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};

use super::harm::Harm;
use super::template::{BatchAt, GROUP, PARTITIONS, TOPIC, Template, stamp_at};
use crate::report::Report;

const METADATA: &str = "__cluster_metadata-0";
const OFFSETS: &str = "__consumer_offsets-0";

/// `index.interval.bytes`
const INDEX_INTERVAL: usize = 4096;

/// By partition and batch: whether its bytes are as they were acknowledged.
pub type Intact = Vec<Vec<bool>>;

/// To be asked before a start: recovery may cut files.
pub fn intact(template: &Template, data: &Path) -> Intact {
    let is_intact = |batch: &BatchAt| {
        let bytes = fs::read(data.join(&batch.file)).unwrap_or_default();
        bytes.get(batch.position..batch.position + batch.bytes.len()) == Some(&batch.bytes)
    };
    let batches = template.batches.iter();
    batches
        .map(|batches| batches.iter().map(is_intact).collect())
        .collect()
}

/// Judges a broker that serves. `harms`: what is still damaged.
pub fn served(
    broker: &mut Broker,
    template: &Template,
    harms: &[Harm],
    intact: &Intact,
    random: &mut Random,
    report: &mut Report,
) -> Result<(), String> {
    report.fault("starts that served");
    if !topic_is_there(broker)? {
        let cut = harms.iter().any(|harm| harm.is_log_of(METADATA));
        if !cut || !broker.said().contains(&format!("{METADATA}: cut ")) {
            return Err("the topic is gone, and nothing is said about it".to_owned());
        }
        report.fault("metadata logs cut past their checkpoint, as documented, and said so");
        return Ok(());
    }
    let mut cut = Vec::new();
    for partition in 0..PARTITIONS {
        let index = partition as usize;
        let mut reader = Reader {
            raw: Raw::new(broker.port()),
            data: broker.data(),
            partition,
            vouched_for: vouched_for(template, harms, partition),
            harms,
            said_cut: ["cut ", "nothing continues the log at "]
                .iter()
                .any(|words| {
                    broker
                        .said()
                        .contains(&format!("{}: {words}", dir(partition)))
                }),
            said_missing: broker
                .said()
                .contains(&format!("{}: batches from offset ", dir(partition))),
            report,
        };
        cut.push(reader.read(&template.batches[index], &intact[index])?);
    }
    others_are_served(broker, template, intact)?;
    offsets_are_there(broker, template, harms, report)?;
    for partition in 0..PARTITIONS {
        let index = partition as usize;
        let whole = intact[index].iter().all(|intact| *intact) && !cut[index];
        if whole {
            refuses_a_second_copy(broker, &template.batches[index], partition, report)?;
        }
    }
    if random.one_in(3) {
        goes_on(broker)?;
    }
    Ok(())
}

fn dir(partition: i32) -> String {
    format!("{TOPIC}-{partition}")
}

fn topic_is_there(broker: &Broker) -> Result<bool, String> {
    let reader = client::reader(&broker.bootstrap());
    let metadata = reader
        .fetch_metadata(None, PATIENCE)
        .map_err(|error| format!("no metadata: {error}"))?;
    let topic = metadata.topics().iter().find(|topic| topic.name() == TOPIC);
    Ok(topic.is_some_and(|topic| topic.partitions().len() == PARTITIONS as usize))
}

/// The offset below which a checkpoint that is still good says that everything was synced.
fn vouched_for(template: &Template, harms: &[Harm], partition: i32) -> i64 {
    let checkpoint = format!("{}/oncelog-checkpoint", dir(partition));
    match harms.iter().any(|harm| harm.file == checkpoint) {
        true => 0,
        false => template.recovery_points[partition as usize],
    }
}

/// What is wrong with the record that should be at this offset: another is there, or its content.
enum Wrong {
    Place(i64),
    Content(i64),
}

/// One partition, read batch by batch.
struct Reader<'a> {
    raw: Raw,
    data: &'a Path,
    partition: i32,
    harms: &'a [Harm],
    vouched_for: i64,
    said_cut: bool,
    said_missing: bool,
    report: &'a mut Report,
}

impl Reader<'_> {
    /// Everything in order, an intact batch after a damaged one too; whether the log was cut.
    fn read(&mut self, batches: &[BatchAt], intact: &[bool]) -> Result<bool, String> {
        // Everything below was read and is as it was acknowledged.
        let mut read = 0;
        let mut flaw: Option<&BatchAt> = None;
        let mut last_flaw = None;
        let mut cut = false;
        for (batch, intact) in batches.iter().zip(intact) {
            if !intact {
                flaw.get_or_insert(batch);
                last_flaw = Some(batch);
            }
            if read > batch.last {
                continue;
            }
            let fetched = self.raw.fetch(TOPIC, self.partition, batch.first);
            let words = format!("{fetched:.200?}");
            match fetched {
                Fetched::Records(records) => {
                    read = match self.check(batch, &records) {
                        Err(Wrong::Place(next)) if self.is_misplaced(next, batches) => {
                            let what = "places of batches, which no CRC covers, served as they lie";
                            self.report.fault(what);
                            next
                        }
                        Err(Wrong::Place(next)) if self.is_said_to_be_missing(next, batches) => {
                            let what = "segments missing with their checkpoint, as documented, and said so";
                            self.report.fault(what);
                            next
                        }
                        checked => checked.map_err(|wrong| self.bad(wrong))?,
                    }
                }
                Fetched::Closed(_) => {
                    return Err(format!("{}: {words}", self.at(batch.first)));
                }
                _ if !intact => {
                    let what = "damaged batches that readers are told of";
                    self.report.fault(what);
                }
                Fetched::Damaged(_) | Fetched::Refused(_)
                    if self.is_hidden_behind(last_flaw, batch, batches) =>
                {
                    let what = "intact batches out of reach behind a damaged length, and said so";
                    self.report.fault(what);
                }
                Fetched::Refused(_) | Fetched::Nothing if self.may_be_cut(batch, flaw) => {
                    cut = true;
                    self.report
                        .fault("batches cut past a checkpoint, as documented, and said so");
                }
                _ => {
                    self.report.lost += (batch.last - batch.first + 1) as usize;
                    return Err(format!(
                        "{} is intact at {}+{} and gives {words}",
                        self.at(batch.first),
                        batch.file,
                        batch.position
                    ));
                }
            }
        }
        Ok(cut)
    }

    /// Whether nothing of the batch that begins there is damaged but its base offset.
    fn is_misplaced(&self, first: i64, batches: &[BatchAt]) -> bool {
        let Some(batch) = batches.iter().find(|batch| batch.first == first) else {
            return false;
        };
        let bytes = fs::read(self.data.join(&batch.file)).unwrap_or_default();
        let found = bytes.get(batch.position..batch.position + batch.bytes.len());
        found.is_some_and(|found| found[..8] != batch.bytes[..8] && found[8..] == batch.bytes[8..])
    }

    /// Whether the segment of the batch that begins there is gone, and with it the checkpoint that knew
    /// of it.
    fn is_said_to_be_missing(&self, first: i64, batches: &[BatchAt]) -> bool {
        let batch = batches.iter().find(|batch| batch.first == first);
        let removed = |harm: &&Harm| harm.leaves_nothing();
        let mut removed = self.harms.iter().filter(removed);
        self.said_missing
            && self.vouched_for == 0
            && batch.is_some_and(|batch| removed.any(|harm| harm.file == batch.file))
    }

    /// Nobody can tell a torn write from damage past the checkpoint: the log ends there.
    fn may_be_cut(&self, batch: &BatchAt, flaw: Option<&BatchAt>) -> bool {
        let removed = |harm: &Harm| harm.file == batch.file && harm.leaves_nothing();
        let said = self.said_cut || self.harms.iter().any(removed);
        said && flaw.is_some() && batch.first >= self.vouched_for
    }

    /// A batch says where the next one begins. If it lies, what comes next can only be found from
    /// an index entry in between; where the index is damaged, too, not in this segment.
    fn is_hidden_behind(
        &self,
        flaw: Option<&BatchAt>,
        batch: &BatchAt,
        batches: &[BatchAt],
    ) -> bool {
        let Some(flaw) = flaw.filter(|flaw| flaw.file == batch.file) else {
            return false;
        };
        let index = batch.file.replace(".log", ".index");
        let without_index = self.harms.iter().any(|harm| harm.file == index);
        let mut indexed = 0;
        let mut between = false;
        for other in batches.iter().filter(|other| other.file == batch.file) {
            if other.position - indexed > INDEX_INTERVAL {
                indexed = other.position;
                between |= indexed > flaw.position && indexed < batch.position;
            }
        }
        without_index || !between
    }

    /// The records of a fetch at a batch's first offset; returns where they end.
    fn check(&self, batch: &BatchAt, records: &[(i64, Vec<u8>)]) -> Result<i64, Wrong> {
        let mut next = batch.first;
        for (offset, value) in records {
            if *offset != next {
                return Err(Wrong::Place(next));
            }
            if Stamp::of(value, self.partition) != Ok(stamp_at(*offset)) {
                return Err(Wrong::Content(next));
            }
            next += 1;
        }
        Ok(next)
    }

    fn bad(&mut self, wrong: Wrong) -> String {
        self.report.bad += 1;
        match wrong {
            Wrong::Place(offset) => format!("{} is not what comes next", self.at(offset)),
            Wrong::Content(offset) => format!("{} is not what was sent", self.at(offset)),
        }
    }

    fn at(&self, offset: i64) -> String {
        format!("{TOPIC}-{}@{offset}", self.partition)
    }
}

/// A damaged batch in one partition is no reason to keep the others from a consumer who asks for
/// all of them in one request.
fn others_are_served(broker: &Broker, template: &Template, intact: &Intact) -> Result<(), String> {
    let mut raw = Raw::new(broker.port());
    for (damaged, batches) in template.batches.iter().enumerate() {
        let flaw = intact[damaged].iter().position(|intact| !intact);
        let Some(flaw) = flaw.map(|batch| batches[batch].first) else {
            continue;
        };
        let offset = |partition: usize| if partition == damaged { flaw } else { 0 };
        let wanted: Vec<_> = (0..PARTITIONS as usize)
            .map(|partition| (TOPIC, partition as i32, offset(partition)))
            .collect();
        for (partition, fetched) in raw.fetch_all(&wanted).into_iter().enumerate() {
            let served = matches!(fetched, Fetched::Records(_));
            if partition != damaged && intact[partition][0] && !served {
                return Err(format!(
                    "asked for together with {TOPIC}-{damaged}@{flaw}, which is damaged, \
                     {TOPIC}-{partition}@0 gives {fetched:.200?}"
                ));
            }
        }
    }
    Ok(())
}

/// The last commit is there; if the offsets' log was cut past its checkpoint, an earlier one.
fn offsets_are_there(
    broker: &Broker,
    template: &Template,
    harms: &[Harm],
    report: &mut Report,
) -> Result<(), String> {
    let harmed = harms.iter().any(|harm| harm.is_log_of(OFFSETS));
    let said = broker.said();
    let metadata = harms.iter().any(|harm| harm.is_log_of(METADATA));
    // Without its checkpoint nothing says how much of a log there was, nor with one what there was past it.
    let checkpoint = format!("{OFFSETS}/oncelog-checkpoint");
    let past = |harm: &Harm| {
        let from = harm.begins_at().filter(|_| harm.is_log_of(OFFSETS));
        harm.leaves_nothing() && from >= Some(template.recovery_point(OFFSETS))
    };
    let unknown = harmed
        && harms
            .iter()
            .any(|harm| harm.file == checkpoint || past(harm));
    let cut = unknown
        || harmed && said.contains(&format!("{OFFSETS}: cut "))
        || metadata && said.contains(&format!("{METADATA}: cut "));
    let consumer: BaseConsumer<client::Quiet> =
        client::config(&broker.bootstrap(), &[("group.id", GROUP)])
            .create_with_context(client::Quiet)
            .unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_range(TOPIC, 0, PARTITIONS - 1);
    let found = consumer
        .committed_offsets(list, PATIENCE)
        .map_err(|error| format!("committed offsets: {error}"))?;
    for element in found.elements() {
        let commits = &template.commits[element.partition() as usize];
        let last = commits[commits.len() - 1];
        match element.offset() {
            Offset::Offset(offset) if offset == last => {}
            Offset::Offset(offset) if cut && commits.contains(&offset) => {
                report.fault("commits cut past a checkpoint, as documented, and said so");
            }
            Offset::Invalid if cut => {
                report.fault("commits cut past a checkpoint, as documented, and said so");
            }
            other => {
                report.lost += 1;
                return Err(format!("{last} was committed, and {other:?} is there"));
            }
        }
    }
    Ok(())
}

/// What the producer's memory is for: the last batch, sent again, is answered with its offset.
fn refuses_a_second_copy(
    broker: &Broker,
    batches: &[BatchAt],
    partition: i32,
    report: &mut Report,
) -> Result<(), String> {
    let mut raw = Raw::new(broker.port());
    let last = &batches[batches.len() - 1];
    // As it was sent: base offset and leader epoch are the log's.
    let mut sent = last.bytes.to_vec();
    sent[..8].fill(0);
    sent[12..16].fill(0xff);
    let again = raw.produce(TOPIC, partition, sent.into());
    match again {
        Ok((0, offset)) if offset == last.first => Ok(()),
        Ok((0, offset)) => {
            report.duplicated += 1;
            Err(format!(
                "a batch of {TOPIC}-{partition} that stands at {} was stored again at {offset}",
                last.first
            ))
        }
        other => Err(format!(
            "{TOPIC}-{partition}: a retry was answered with {other:?}"
        )),
    }
}

/// New records are taken and are there after another kill.
fn goes_on(broker: &mut Broker) -> Result<(), String> {
    const RECORDS: u32 = 5;
    let settings = [
        ("enable.idempotence", "true"),
        ("message.timeout.ms", "20000"),
    ];
    let producer: BaseProducer = client::config(&broker.bootstrap(), &settings)
        .create()
        .unwrap();
    let mut raw = Raw::new(broker.port());
    let value = |number, partition| {
        let producer = 1;
        Stamp { producer, number }.value(partition)
    };
    let mut ends = Vec::new();
    let reader = client::reader(&broker.bootstrap());
    for partition in 0..PARTITIONS {
        let marks = reader.fetch_watermarks(TOPIC, partition, PATIENCE);
        ends.push(
            marks
                .map_err(|error| format!("{TOPIC}-{partition}: {error}"))?
                .1,
        );
        for number in 0..RECORDS {
            let value = value(number, partition);
            let record = BaseRecord::<(), _>::to(TOPIC)
                .partition(partition)
                .payload(&value);
            producer
                .send(record)
                .map_err(|(error, _)| error.to_string())?;
        }
    }
    let flushed = producer.flush(PATIENCE);
    flushed.map_err(|error| format!("it does not go on: {error}"))?;
    broker.kill();
    broker.spawn();
    broker.wait_until_ready(Instant::now())?;
    for (end, partition) in ends.into_iter().zip(0..) {
        let want: Vec<_> = (0..RECORDS)
            .map(|number| (end + i64::from(number), value(number, partition)))
            .collect();
        let mut found = Vec::new();
        while let Fetched::Records(more) = raw.fetch(TOPIC, partition, end + found.len() as i64) {
            found.extend(more);
        }
        if found != want {
            return Err(format!(
                "{TOPIC}-{partition}: what was sent after the start is not there"
            ));
        }
    }
    Ok(())
}
