//! Files that somebody damaged while the broker was stopped. Below what was checkpointed as synced
//! a loss is never passed over: the start is refused, or the reader's CRC check fails; a torn tail
//! is cut; everything that can be rebuilt is rebuilt.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer;
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};

use crash_campaign::check::Log;
use crash_campaign::client::{self, PATIENCE};
use crash_campaign::process::Broker;
use crash_campaign::record::Stamp;

const TOPIC: &str = "damaged";
/// Enough for a few segments of 1 MiB.
const RECORDS: u32 = 6_000;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stop {
    Clean,
    Kill,
}

/// A stopped broker with `RECORDS` records in one partition, in several segments.
struct Stopped {
    broker: Broker,
    partition: PathBuf,
}

fn stopped(stop: Stop) -> Stopped {
    let mut broker = Broker::started(
        env!("CARGO_BIN_EXE_oncelog"),
        &["log.segment.bytes=1048576"],
    );
    produce(&broker.bootstrap(), 0..RECORDS);
    match stop {
        Stop::Clean => assert!(broker.terminate().success()),
        Stop::Kill => broker.kill(),
    }
    let partition = broker.data().join(format!("{TOPIC}-0"));
    let stopped = Stopped { broker, partition };
    assert!(stopped.segments().len() >= 3, "{:?}", stopped.segments());
    stopped
}

fn produce(bootstrap: &str, numbers: std::ops::Range<u32>) {
    let settings = [("enable.idempotence", "true"), ("batch.num.messages", "50")];
    let producer: BaseProducer = client::config(bootstrap, &settings).create().unwrap();
    for number in numbers {
        let stamp = Stamp {
            producer: 0,
            number,
        };
        let value = stamp.value(0);
        let record = BaseRecord::<(), _>::to(TOPIC).partition(0).payload(&value);
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(PATIENCE).unwrap();
}

impl Stopped {
    /// The `.log` files, oldest first.
    fn segments(&self) -> Vec<PathBuf> {
        self.files(".log")
    }

    fn files(&self, suffix: &str) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.partition).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        let mut files: Vec<_> = paths
            .filter(|path| path.display().to_string().ends_with(suffix))
            .collect();
        files.sort();
        files
    }

    /// The start is refused and says all of `words`.
    fn is_refused(&mut self, words: &[&str]) {
        self.broker.spawn();
        let status = self.broker.wait_for_end(Duration::from_secs(20));
        let status = status.unwrap_or_else(|| panic!("it serves: {}", self.broker.tail()));
        assert_eq!(status.code(), Some(1), "{}", self.broker.tail());
        for word in words {
            let tail = self.broker.tail();
            assert!(tail.contains(word), "no {word:?} in {tail}");
        }
    }

    /// Starts and holds records 0 to `count`, each where it was acknowledged.
    fn holds(&mut self, count: u32) {
        self.broker.start();
        let log = read(&self.broker.bootstrap());
        assert_eq!(log, numbered(count), "{}", self.broker.tail());
    }

    /// Goes on from `count` records as if nothing had been.
    fn goes_on(&mut self, count: u32) {
        let bootstrap = self.broker.bootstrap();
        produce(&bootstrap, count..count + 100);
        assert_eq!(read(&bootstrap), numbered(count + 100));
    }
}

fn read(bootstrap: &str) -> Log {
    let read = client::read_all(bootstrap, TOPIC, 1);
    assert!(read.bad.is_empty(), "{:?}", read.bad);
    read.log
}

fn numbered(count: u32) -> Log {
    let stamp = |number| Stamp {
        producer: 0,
        number,
    };
    vec![(0..count).map(stamp).collect()]
}

fn name(path: &Path) -> &str {
    path.file_name().unwrap().to_str().unwrap()
}

fn length(path: &Path) -> u64 {
    fs::metadata(path).unwrap().len()
}

fn cut(path: &Path, length: u64) {
    File::options()
        .write(true)
        .open(path)
        .unwrap()
        .set_len(length)
        .unwrap();
}

fn flip(path: &Path, at: u64) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x20], at).unwrap();
}

#[test]
fn a_shortened_segment_is_refused_by_name_until_it_is_restored() {
    for stop in [Stop::Clean, Stop::Kill] {
        let mut stopped = stopped(stop);
        let segment = stopped.segments()[0].clone();
        let whole = fs::read(&segment).unwrap();
        cut(&segment, whole.len() as u64 / 2);
        stopped.is_refused(&[name(&segment), "were synced", "Restore it from a copy"]);
        fs::write(&segment, whole).unwrap();
        stopped.holds(RECORDS);
        stopped.goes_on(RECORDS);
    }
}

#[test]
fn a_missing_segment_is_refused_by_name_until_it_is_restored() {
    let mut stopped = stopped(Stop::Kill);
    let segment = stopped.segments()[1].clone();
    let aside = stopped.partition.with_file_name("aside");
    fs::rename(&segment, &aside).unwrap();
    stopped.is_refused(&[name(&segment), "is missing", "Restore it from a copy"]);
    fs::rename(&aside, &segment).unwrap();
    stopped.holds(RECORDS);
}

/// A clean stop vouches for the last byte.
#[test]
fn a_shortened_last_segment_is_refused_after_a_clean_stop() {
    let mut stopped = stopped(Stop::Clean);
    let segment = stopped.segments().pop().unwrap();
    cut(&segment, length(&segment) - 1);
    stopped.is_refused(&[name(&segment)]);
}

#[test]
fn a_torn_tail_is_cut() {
    let mut stopped = stopped(Stop::Kill);
    let segment = stopped.segments().pop().unwrap();
    let whole = fs::read(&segment).unwrap();
    let batch = &whole[..61 + 12];
    let tails: [&[u8]; 4] = [
        b"\0",
        &[0; 5_000],
        b"garbage that is no batch at all",
        batch,
    ];
    for tail in tails {
        fs::write(&segment, [&whole, tail].concat()).unwrap();
        stopped.holds(RECORDS);
        stopped.broker.kill();
        assert_eq!(length(&segment), whole.len() as u64, "{tail:?}");
    }
    stopped.broker.start();
    stopped.goes_on(RECORDS);
}

/// Past what the checkpoint vouches for nobody can tell a torn write from later damage: the log
/// ends there, and the operator is told.
#[test]
fn damage_past_the_checkpoint_ends_the_log_and_is_reported() {
    let mut stopped = stopped(Stop::Kill);
    let segment = stopped.segments().pop().unwrap();
    flip(&segment, length(&segment) / 2);
    stopped.broker.start();
    let log = read(&stopped.broker.bootstrap());
    let left = log[0].len() as u32;
    assert!((1..RECORDS).contains(&left), "{left}");
    assert_eq!(log, numbered(left));
    let said = stopped.broker.tail();
    for words in ["damaged-0: cut ", "CRC-32C is"] {
        assert!(said.contains(words), "no {words:?} in {said}");
    }
}

/// Recovery does not read what was synced long ago; its readers do.
#[test]
fn a_flipped_bit_in_a_synced_segment_never_passes_for_a_record() {
    let mut stopped = stopped(Stop::Clean);
    let segment = stopped.segments()[1].clone();
    flip(&segment, length(&segment) / 2);
    stopped.broker.start();
    let consumer = client::reader(&stopped.broker.bootstrap());
    let mut assignment = TopicPartitionList::new();
    assignment
        .add_partition_offset(TOPIC, 0, Offset::Offset(0))
        .unwrap();
    consumer.assign(&assignment).unwrap();
    let began = Instant::now();
    let mut next = 0;
    let error = loop {
        assert!(began.elapsed() < PATIENCE && next < RECORDS, "no error");
        match consumer.poll(Duration::from_millis(200)) {
            Some(Ok(message)) => {
                let stamp = Stamp::of(message.payload().unwrap(), 0).unwrap();
                assert_eq!((message.offset(), stamp.number), (i64::from(next), next));
                next += 1;
            }
            Some(Err(error)) => break error,
            None => {}
        }
    };
    let base: u32 = name(&segment)[..20].parse().unwrap();
    assert!(next >= base, "{next}, {error}");
}

#[test]
fn what_can_be_rebuilt_is_rebuilt() {
    for stop in [Stop::Clean, Stop::Kill] {
        let mut stopped = stopped(stop);
        let mut damaged = 0;
        for suffix in [
            ".index",
            ".timeindex",
            ".snapshot",
            "leader-epoch-checkpoint",
            "oncelog-checkpoint",
        ] {
            for file in stopped.files(suffix) {
                damaged += 1;
                match damaged % 3 {
                    0 => fs::remove_file(&file).unwrap(),
                    1 => fs::write(&file, b"not what it was").unwrap(),
                    _ if length(&file) > 0 => flip(&file, length(&file) / 2),
                    _ => {}
                }
            }
        }
        assert!(damaged > 5, "{damaged}");
        stopped.holds(RECORDS);
        let consumer = client::reader(&stopped.broker.bootstrap());
        for offset in (0..i64::from(RECORDS)).step_by(997) {
            reads_at(&consumer, offset);
        }
        stopped.goes_on(RECORDS);
    }
}

fn reads_at(consumer: &rdkafka::consumer::BaseConsumer<client::Quiet>, offset: i64) {
    let mut assignment = TopicPartitionList::new();
    assignment
        .add_partition_offset(TOPIC, 0, Offset::Offset(offset))
        .unwrap();
    consumer.assign(&assignment).unwrap();
    let message = consumer
        .poll(PATIENCE)
        .expect("something is there")
        .unwrap();
    let stamp = Stamp::of(message.payload().unwrap(), 0).unwrap();
    assert_eq!(
        (message.offset(), i64::from(stamp.number)),
        (offset, offset)
    );
}

#[test]
fn a_directory_of_somebody_else_is_refused() {
    let mut stopped = stopped(Stop::Clean);
    let meta = stopped.broker.data().join("meta.properties");
    let ours = fs::read_to_string(&meta).unwrap();
    fs::write(&meta, ours.replace("node.id=", "node.id=7")).unwrap();
    stopped.is_refused(&["meta.properties", "belongs to another broker"]);
    fs::write(&meta, "garbage").unwrap();
    stopped.is_refused(&["meta.properties"]);
    fs::write(&meta, ours).unwrap();
    stopped.holds(RECORDS);
}
