//! A consumer group under load: members that come and go, commit what they processed, and are
//! watched: a committed offset never goes back, and never below what a commit was told.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};

use crash_campaign::check::{Log, Seen};
use crash_campaign::client;
use crash_campaign::random::Random;
use crash_campaign::record::Stamp;

const MEMBERS: usize = 2;

type Offsets = BTreeMap<(String, i32), i64>;

pub struct Group {
    shared: Arc<Shared>,
    members: Vec<JoinHandle<()>>,
}

struct Shared {
    id: String,
    protocol: &'static str,
    bootstrap: String,
    topics: Vec<(&'static str, i32)>,
    stop: AtomicBool,
    /// By topic.
    seen: Mutex<BTreeMap<String, Seen>>,
    /// The furthest that a successful commit said.
    acknowledged: Mutex<Offsets>,
    /// The furthest that was read back.
    observed: Mutex<Offsets>,
    commits: AtomicUsize,
    commits_failed: AtomicUsize,
    rebalances: AtomicUsize,
    lives: AtomicUsize,
    careless: AtomicUsize,
}

/// One life of a member: what it has processed and not committed.
struct Member {
    shared: Arc<Shared>,
    positions: Mutex<Offsets>,
    /// It will go without committing what it processed last.
    careless: bool,
}

impl ClientContext for Member {
    fn log(&self, _: RDKafkaLogLevel, _: &str, _: &str) {}
    fn error(&self, _: KafkaError, _: &str) {}
}

impl ConsumerContext for Member {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        self.shared.rebalances.fetch_add(1, Ordering::Relaxed);
        if let Rebalance::Revoke(_) = rebalance {
            // What was processed is committed before somebody else goes on there; if that fails,
            // it is processed again. Positions must not outlive the assignment: a commit of them
            // in the next generation would be accepted, and go back.
            if !consumer.assignment_lost() && !self.careless {
                let _ = self.commit(consumer);
            }
            self.positions.lock().unwrap().clear();
        }
    }
}

impl Member {
    fn commit(&self, consumer: &BaseConsumer<Member>) -> KafkaResult<()> {
        let positions = std::mem::take(&mut *self.positions.lock().unwrap());
        if positions.is_empty() {
            return Ok(());
        }
        let mut list = TopicPartitionList::new();
        for ((topic, partition), offset) in &positions {
            list.add_partition_offset(topic, *partition, Offset::Offset(*offset))?;
        }
        let result = consumer.commit(&list, CommitMode::Sync);
        match &result {
            Ok(()) => {
                self.shared.commits.fetch_add(1, Ordering::Relaxed);
                let mut acknowledged = self.shared.acknowledged.lock().unwrap();
                for (partition, offset) in positions {
                    let furthest = acknowledged.entry(partition).or_default();
                    *furthest = offset.max(*furthest);
                }
            }
            Err(_) => {
                self.shared.commits_failed.fetch_add(1, Ordering::Relaxed);
            }
        }
        result
    }
}

impl Group {
    /// `protocol`: `classic` or `consumer` (KIP-848).
    pub fn start(
        id: &str,
        protocol: &'static str,
        bootstrap: &str,
        topics: &[(&'static str, i32)],
        random: &mut Random,
    ) -> Group {
        let shared = Arc::new(Shared {
            id: id.to_owned(),
            protocol,
            bootstrap: bootstrap.to_owned(),
            topics: topics.to_vec(),
            stop: AtomicBool::new(false),
            seen: Mutex::default(),
            acknowledged: Mutex::default(),
            observed: Mutex::default(),
            commits: AtomicUsize::new(0),
            commits_failed: AtomicUsize::new(0),
            rebalances: AtomicUsize::new(0),
            lives: AtomicUsize::new(0),
            careless: AtomicUsize::new(0),
        });
        let members = (0..MEMBERS)
            .map(|_| {
                let (shared, mut random) = (shared.clone(), random.fork());
                std::thread::spawn(move || {
                    while !shared.stop.load(Ordering::Relaxed) {
                        live(&shared, &mut random);
                    }
                })
            })
            .collect();
        Group { shared, members }
    }

    /// See [`Shared::look_at_commits`].
    pub fn look_at_commits(&self) {
        self.shared.look_at_commits();
    }

    /// Waits until everything in `logs` is read, stops the members and judges what they saw.
    /// Returns a line for the tally.
    pub fn finish(self, logs: &BTreeMap<&str, Log>) -> String {
        let Group { shared, members } = self;
        let unread = || -> usize {
            let seen = shared.seen.lock().unwrap();
            logs.iter()
                .map(|(topic, log)| match seen.get(*topic) {
                    Some(seen) => seen.unread(log),
                    None => log.iter().map(Vec::len).sum(),
                })
                .sum()
        };
        let began = Instant::now();
        while unread() > 0 && began.elapsed() < client::PATIENCE {
            std::thread::sleep(Duration::from_millis(50));
        }
        shared.stop.store(true, Ordering::Relaxed);
        let (left, caught_up) = (unread(), began.elapsed());
        for member in members {
            member.join().expect("a member does not panic");
        }
        shared.look_at_commits();
        let mut seen = shared.seen.lock().unwrap();
        let mut deliveries = 0;
        for (topic, log) in logs {
            let seen = seen.entry((*topic).to_owned()).or_default();
            seen.compare(log);
            assert!(
                seen.conflicts.is_empty(),
                "group {}: {topic}: {:?}",
                shared.id,
                &seen.conflicts[..seen.conflicts.len().min(10)]
            );
            deliveries += seen.deliveries;
        }
        assert_eq!(left, 0, "group {}: records never read", shared.id);
        let records: usize = logs.values().flatten().map(Vec::len).sum();
        format!(
            "group {} ({}): {records} records all read ({} again), {} lives of members ({} left \
             without a last commit), {} commits and {} failed ones, {} rebalances; 0 committed offsets went back, 0 records changed after they were read; \
             caught up after {caught_up:.1?}",
            shared.id,
            shared.protocol,
            deliveries - records,
            shared.lives.load(Ordering::Relaxed),
            shared.careless.load(Ordering::Relaxed),
            shared.commits.load(Ordering::Relaxed),
            shared.commits_failed.load(Ordering::Relaxed),
            shared.rebalances.load(Ordering::Relaxed),
        )
    }
}

impl Shared {
    /// Reads the committed offsets and compares them with what was promised before. To be called
    /// while the broker is up.
    pub fn look_at_commits(&self) {
        let promised = self.acknowledged.lock().unwrap().clone();
        let found = self.committed();
        let mut observed = self.observed.lock().unwrap();
        for (partition, promised) in promised {
            let found = found.get(&partition).copied().unwrap_or(-1);
            assert!(
                found >= promised,
                "group {}: {promised} was committed for {partition:?}, and {found} is there",
                self.id
            );
        }
        for (partition, found) in found {
            let before = observed.insert(partition.clone(), found).unwrap_or(-1);
            assert!(
                found >= before,
                "group {}: the offset of {partition:?} went back from {before} to {found}",
                self.id
            );
        }
    }

    fn committed(&self) -> Offsets {
        let settings = [("group.id", &self.id[..])];
        let watcher: BaseConsumer<client::Quiet> = client::config(&self.bootstrap, &settings)
            .create_with_context(client::Quiet)
            .unwrap();
        let mut list = TopicPartitionList::new();
        for (topic, partitions) in &self.topics {
            list.add_partition_range(topic, 0, partitions - 1);
        }
        let found = watcher
            .committed_offsets(list, client::PATIENCE)
            .unwrap_or_else(|error| panic!("group {}: {error}", self.id));
        let mut offsets = Offsets::new();
        for element in found.elements() {
            element.error().unwrap();
            if let Offset::Offset(offset) = element.offset() {
                offsets.insert((element.topic().to_owned(), element.partition()), offset);
            }
        }
        offsets
    }
}

/// A member from its joining to its leaving (or vanishing).
fn live(shared: &Arc<Shared>, random: &mut Random) {
    let mut more = vec![
        ("group.id", &shared.id[..]),
        ("group.protocol", shared.protocol),
        ("enable.auto.commit", "false"),
        ("auto.offset.reset", "earliest"),
        ("check.crcs", "true"),
        ("fetch.wait.max.ms", "50"),
        ("topic.metadata.refresh.interval.ms", "1000"),
    ];
    if shared.protocol == "classic" {
        let assignor = random.pick(&["range", "roundrobin"]);
        // All members of a group must agree, and lives overlap: each offers both.
        more.push((
            "partition.assignment.strategy",
            match assignor {
                "range" => "range,roundrobin",
                _ => "roundrobin,range",
            },
        ));
        more.push(("session.timeout.ms", "6000"));
        more.push(("heartbeat.interval.ms", "500"));
    }
    let member = Member {
        shared: shared.clone(),
        positions: Mutex::default(),
        careless: random.one_in(2),
    };
    shared.lives.fetch_add(1, Ordering::Relaxed);
    let careless = usize::from(member.careless);
    shared.careless.fetch_add(careless, Ordering::Relaxed);
    let consumer: BaseConsumer<Member> = client::config(&shared.bootstrap, &more)
        .create_with_context(member)
        .unwrap();
    let topics: Vec<&str> = shared.topics.iter().map(|(topic, _)| *topic).collect();
    consumer.subscribe(&topics).unwrap();
    let ends = Instant::now() + Duration::from_millis(random.range(3_000, 15_000));
    let mut before_commit = random.range(1, 400);
    let stopped = || shared.stop.load(Ordering::Relaxed);
    while Instant::now() < ends && !stopped() {
        // An error here is the broker's absence; librdkafka goes on by itself.
        if let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) {
            let (partition, offset) = (message.partition(), message.offset());
            let stamp = Stamp::of(message.payload().unwrap_or_default(), partition)
                .unwrap_or_else(|why| panic!("{}-{partition}@{offset}: {why}", message.topic()));
            let topic = message.topic().to_owned();
            let mut seen = shared.seen.lock().unwrap();
            seen.entry(topic.clone())
                .or_default()
                .note(partition, offset, stamp);
            drop(seen);
            let mut positions = consumer.context().positions.lock().unwrap();
            positions.insert((topic, partition), offset + 1);
            drop(positions);
            before_commit -= 1;
            if before_commit == 0 {
                let _ = consumer.context().commit(&consumer);
                before_commit = random.range(1, 400);
            }
        }
    }
    if !consumer.context().careless {
        let _ = consumer.context().commit(&consumer);
    }
}
