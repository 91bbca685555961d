//! A stopped broker's data directory, and what was acknowledged in it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use crash_campaign::client::{self, PATIENCE};
use crash_campaign::process::Broker;
use crash_campaign::record::Stamp;
use oncelog_wire::records::Batches;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};

use super::harm;
use crate::Task;
use crate::tool::Tool;

pub const TOPIC: &str = "ledger";
pub const PARTITIONS: i32 = 3;
pub const GROUP: &str = "readers";

/// Segments end after a second of their records' time, which is made up.
pub const SETTINGS: [&str; 3] = [
    "log.roll.ms=1000",
    "auto.create.topics.enable=false",
    "offsets.topic.num.partitions=1",
];

const BATCHES: u32 = 45;
/// Records in a batch, by partition: a batch is more, about as much, and less than what lies
/// between two index entries.
const BATCH_RECORDS: [u32; PARTITIONS as usize] = [20, 6, 2];
const CODECS: [&str; PARTITIONS as usize] = ["none", "lz4", "none"];

/// A batch as it was acknowledged.
pub struct BatchAt {
    /// Below the data directory.
    pub file: String,
    pub position: usize,
    pub bytes: Bytes,
    pub first: i64,
    pub last: i64,
}

pub struct Template {
    dir: PathBuf,
    /// By partition of [`TOPIC`], in order.
    pub batches: Vec<Vec<BatchAt>>,
    /// The offset up to which each partition was vouched for by its checkpoint.
    pub recovery_points: Vec<i64>,
    /// By partition: everything that was committed for [`GROUP`], in order.
    pub commits: Vec<Vec<i64>>,
}

impl Template {
    /// Two runs of a broker, the first of which is killed.
    pub fn make(task: &Task, clean: bool) -> Template {
        let name = if clean { "clean" } else { "killed" };
        let home = task.dir.join(name);
        fs::create_dir_all(&home).unwrap();
        let dir = home.join("data");
        let mut broker = Broker::on(&task.binary, &dir, &home, &SETTINGS);
        broker.start();
        let bootstrap = broker.bootstrap();
        Tool::new(&task.binary, &bootstrap).create_topic(TOPIC, PARTITIONS, &[]);
        let producers: Vec<BaseProducer> = (0..PARTITIONS)
            .map(|partition| producer(&bootstrap, partition as usize))
            .collect();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let began = now.as_millis() as i64 - 60_000;
        let mut commits = vec![Vec::new(); PARTITIONS as usize];
        for batch in 0..BATCHES {
            if batch == BATCHES / 2 {
                broker.kill();
                broker.start();
            }
            for (producer, partition) in producers.iter().zip(0..) {
                send(producer, partition, batch, began + i64::from(batch) * 100);
            }
            if batch % 3 == 0 {
                commit(&bootstrap, batch, &mut commits);
            }
        }
        match clean {
            true => assert!(broker.terminate().success()),
            false => broker.kill(),
        }
        let mut template = Template {
            batches: Vec::new(),
            recovery_points: Vec::new(),
            commits,
            dir,
        };
        for partition in 0..PARTITIONS {
            template.batches.push(template.read_batches(partition));
            template
                .recovery_points
                .push(template.recovery_point(&format!("{TOPIC}-{partition}")));
        }
        template.check();
        template
    }

    /// That it is what the cases take for granted: batches as they were sent, in several segments.
    fn check(&self) {
        for (batches, records) in self.batches.iter().zip(BATCH_RECORDS) {
            assert_eq!(batches.len(), BATCHES as usize, "each flush makes a batch");
            for (batch, number) in batches.iter().zip(0..) {
                let first = i64::from(records) * number;
                assert_eq!(
                    (batch.first, batch.last),
                    (first, first + i64::from(records) - 1)
                );
            }
            let segments: std::collections::BTreeSet<&str> =
                batches.iter().map(|batch| &batch.file[..]).collect();
            assert!(segments.len() >= 3, "{segments:?}");
        }
    }

    pub fn records(&self) -> usize {
        BATCH_RECORDS.iter().sum::<u32>() as usize * BATCHES as usize
    }

    pub fn copy_to(&self, data: &Path) {
        for file in harm::files(&self.dir) {
            self.restore(&file, data);
        }
    }

    /// Puts the file back as it was.
    pub fn restore(&self, file: &str, data: &Path) {
        let to = data.join(file);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(self.dir.join(file), to).unwrap();
    }

    fn read_batches(&self, partition: i32) -> Vec<BatchAt> {
        let dir = format!("{TOPIC}-{partition}/");
        let mut found = Vec::new();
        let files = harm::files(&self.dir);
        for file in files
            .iter()
            .filter(|f| f.starts_with(&dir) && f.ends_with(".log"))
        {
            let mut position = 0;
            for batch in Batches::new(fs::read(self.dir.join(file)).unwrap().into()) {
                let batch = batch.unwrap();
                batch.check_crc().unwrap();
                found.push(BatchAt {
                    file: file.clone(),
                    position,
                    first: batch.header.base_offset,
                    last: batch.header.last_offset(),
                    bytes: batch.bytes.clone(),
                });
                position += batch.bytes.len();
            }
        }
        found
    }

    /// The offset up to which a log's checkpoint vouches for it.
    pub fn recovery_point(&self, log: &str) -> i64 {
        let file = self.dir.join(format!("{log}/oncelog-checkpoint"));
        let text = fs::read_to_string(file).unwrap_or_default();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("recovery-point "));
        let offset = line.and_then(|line| line.split(' ').next()?.parse().ok());
        offset.unwrap_or(0)
    }
}

/// The record at an offset of a partition.
pub fn stamp_at(offset: i64) -> Stamp {
    Stamp {
        producer: 0,
        number: offset as u32,
    }
}

/// It sends a batch when that is full, and only then.
fn producer(bootstrap: &str, partition: usize) -> BaseProducer {
    let records = BATCH_RECORDS[partition].to_string();
    let settings = [
        ("enable.idempotence", "true"),
        ("linger.ms", "60000"),
        ("batch.num.messages", &records),
        ("compression.type", CODECS[partition]),
    ];
    client::config(bootstrap, &settings).create().unwrap()
}

/// One batch, sent and acknowledged.
fn send(producer: &BaseProducer, partition: i32, batch: u32, timestamp: i64) {
    let records = BATCH_RECORDS[partition as usize];
    for number in batch * records..(batch + 1) * records {
        let value = stamp_at(number.into()).value(partition);
        let record = BaseRecord::<(), _>::to(TOPIC)
            .partition(partition)
            .timestamp(timestamp)
            .payload(&value);
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(PATIENCE).unwrap();
}

fn commit(bootstrap: &str, batch: u32, commits: &mut [Vec<i64>]) {
    let consumer: BaseConsumer = client::config(bootstrap, &[("group.id", GROUP)])
        .create()
        .unwrap();
    let mut list = TopicPartitionList::new();
    for (partition, commits) in commits.iter_mut().enumerate() {
        let offset = i64::from((batch + 1) * BATCH_RECORDS[partition]);
        commits.push(offset);
        list.add_partition_offset(TOPIC, partition as i32, Offset::Offset(offset))
            .unwrap();
    }
    let began = std::time::Instant::now();
    // The coordinator's topic is made for the first commit, which may come too early for it.
    while let Err(error) = consumer.commit(&list, CommitMode::Sync) {
        assert!(began.elapsed() < PATIENCE, "committing: {error}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
