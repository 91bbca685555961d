//! Exactly once: read-process-write loops, each a process of its own, with SIGKILLs of them and of
//! the broker, and zombies, which are stopped until another instance has taken over and then go on.
//!
//! Whenever nothing is under way each output holds exactly what the group has committed as read,
//! once and in order; no transaction hangs: every last stable offset comes to the high watermark,
//! in the internal topics, too. The loops speak the first protocol of transactions (librdkafka);
//! `cargo xtask streams` kills an application of the second.

use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaResult;
use rdkafka::message::Message;
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};
use rdkafka::{Offset, TopicPartitionList};
use rustix::process::{Pid, Signal, kill_process};

use crash_campaign::check::{self, Log, Promise};
use crash_campaign::client::{self, PATIENCE, Quiet};
use crash_campaign::copying::{
    Copied, FENCED, INPUT, LOST, OUTPUTS, PARTITIONS, judge, output_partition,
};
use crash_campaign::process::{Broker, say};
use crash_campaign::producer::{Running, Settings};
use crash_campaign::random::Random;
use crash_campaign::record::Stamp;

use crate::Task;
use crate::load::SETTINGS;
use crate::report::Report;
use crate::sigkill::LAZY;
use crate::tool::Tool;

const COPIERS: usize = 2;
const GROUP: &str = "copiers";
const TIMEOUT_MS: &str = "6000";
/// From the end of the load until everything is copied, restarts and timeouts included.
const DRAIN: Duration = Duration::from_secs(180);
/// Past a transaction's timeout.
const SETTLE: Duration = Duration::from_secs(30);
const END: &[u8] = b"end";
/// Of a long run, how many rounds there are between two looks at everything.
const LOOK_EVERY: u32 = 25;

/// What a round does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    Broker,
    BrokerCleanly,
    Copier,
    Both,
    Zombie,
}

pub fn run(task: &Task) -> Report {
    let mut report = Report::default();
    let mut random = Random::new(task.seed);
    let mut settings = SETTINGS.to_vec();
    settings.push("transaction.state.log.num.partitions=4");
    let mut broker = task.broker(&settings);
    broker.start();
    let mut world = World::new(task, &broker, &mut random);
    for round in 0..task.rounds {
        // Each of them even in a short run.
        let fault = match round {
            0 => Fault::Broker,
            1 => Fault::Copier,
            2 => Fault::Zombie,
            3 => Fault::Both,
            _ => match random.range(0, 12) {
                0..4 => Fault::Broker,
                4..8 => Fault::Copier,
                8 => Fault::Zombie,
                9 | 10 => Fault::Both,
                _ => Fault::BrokerCleanly,
            },
        };
        std::thread::sleep(Duration::from_millis(random.range(100, 2_000)));
        one_round(&mut world, &mut broker, fault, &mut random, &mut report);
        world.revive(&mut random, &mut report);
        if round % LOOK_EVERY == LOOK_EVERY / 2 {
            world.look(&mut random, &mut report);
        }
    }
    world.finish(&mut random, &mut report);
    assert!(broker.terminate().success(), "{}", broker.tail());
    report
}

fn one_round(
    world: &mut World,
    broker: &mut Broker,
    fault: Fault,
    random: &mut Random,
    report: &mut Report,
) {
    match fault {
        Fault::Broker | Fault::Both => {
            if fault == Fault::Both {
                world.kill(random, report);
            }
            broker.kill();
            report.fault("SIGKILLs of the broker");
        }
        Fault::BrokerCleanly => {
            let status = broker.terminate();
            assert!(status.success(), "{status}:\n{}", broker.tail());
            report.fault("clean stops of the broker");
        }
        Fault::Copier => return world.kill(random, report),
        Fault::Zombie => return world.zombie(random, report),
    }
    // What is left to the page cache survives a killed process.
    broker.settings.retain(|setting| setting != LAZY);
    if random.one_in(5) {
        broker.settings.push(LAZY.to_owned());
        report.fault("rounds without fsync");
    }
    while random.one_in(3) {
        broker.spawn();
        std::thread::sleep(Duration::from_micros(random.range(500, 60_000)));
        broker.kill();
        report.fault("SIGKILLs of the broker while starting");
    }
    broker.start();
}

struct World {
    bootstrap: String,
    program: PathBuf,
    log_dir: PathBuf,
    protocol: &'static str,
    stop: Arc<AtomicBool>,
    feeder: Option<Running>,
    copiers: Vec<Copier>,
}

/// A place for a copier: its transactional id, and the process that has it now.
struct Copier {
    id: String,
    child: Option<Child>,
}

impl World {
    fn new(task: &Task, broker: &Broker, random: &mut Random) -> World {
        let bootstrap = broker.bootstrap();
        let tool = Tool::new(&task.binary, &bootstrap);
        for topic in [INPUT].iter().chain(&OUTPUTS) {
            tool.create_topic(topic, PARTITIONS, &[]);
        }
        let settings = Settings {
            producer: 0,
            promise: Promise::ExactlyOnce,
            topic: INPUT,
            partitions: PARTITIONS,
            codec: random.pick(&["none", "lz4", "zstd"]),
            // Slow enough for the copiers to keep up with.
            pause_ms_max: 300,
        };
        let stop = Arc::new(AtomicBool::new(false));
        let here = std::env::current_exe().expect("a process knows its program");
        let mut world = World {
            feeder: Some(Running::start(settings, &bootstrap, &stop, random.fork())),
            bootstrap,
            program: here.with_file_name("crash-copier"),
            log_dir: task.dir.clone(),
            protocol: random.pick(&["classic", "consumer"]),
            stop,
            copiers: Vec::new(),
        };
        say(&format!(
            "  {COPIERS} copiers, group protocol {}",
            world.protocol
        ));
        for number in 0..COPIERS {
            let id = format!("copier-{number}");
            let child = Some(world.start(&id, random));
            world.copiers.push(Copier { id, child });
        }
        world
    }

    fn start(&self, id: &str, random: &mut Random) -> Child {
        let log = self.log_dir.join("copiers.log");
        let log = std::fs::File::options().create(true).append(true).open(log);
        let seed = random.draw().to_string();
        Command::new(&self.program)
            .args([
                &self.bootstrap[..],
                id,
                GROUP,
                self.protocol,
                TIMEOUT_MS,
                &seed,
            ])
            .stdin(Stdio::null())
            .stdout(log.expect("a file in the part's directory"))
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", self.program.display()))
    }

    /// SIGKILL, of one of them or of all.
    fn kill(&mut self, random: &mut Random, report: &mut Report) {
        let all = random.one_in(3);
        let one = random.range(0, COPIERS as u64) as usize;
        for (number, copier) in self.copiers.iter_mut().enumerate() {
            if (all || number == one)
                && let Some(mut child) = copier.child.take()
            {
                let _ = child.kill();
                let _ = child.wait();
                report.fault("SIGKILLs of a client");
            }
        }
        std::thread::sleep(Duration::from_millis(random.range(0, 500)));
    }

    /// One of them is stopped, another process takes its transactional id over, and then it goes
    /// on: as what it is told, it has to end.
    fn zombie(&mut self, random: &mut Random, report: &mut Report) {
        let number = random.range(0, COPIERS as u64) as usize;
        let Some(mut zombie) = self.copiers[number].child.take() else {
            return;
        };
        signal(&zombie, Signal::STOP);
        let id = self.copiers[number].id.clone();
        self.copiers[number].child = Some(self.start(&id, random));
        // Past the session timeout of its group, or not.
        std::thread::sleep(Duration::from_millis(random.range(1_000, 9_000)));
        signal(&zombie, Signal::CONT);
        report.fault("zombies");
        match wait(&mut zombie, PATIENCE) {
            Some(status) if status.code() == Some(i32::from(FENCED)) => {
                report.fault("zombies that were told so");
            }
            // It may have lost its way before it was told.
            Some(status) if status.code() == Some(i32::from(LOST)) => {}
            Some(status) => report.broken.push(format!("a zombie ended with {status}")),
            None => {
                let why = "a zombie went on for a minute beside its heir";
                report.broken.push(why.to_owned());
                let _ = zombie.kill();
                let _ = zombie.wait();
            }
        }
    }

    /// Starts what is not running, whoever ended it.
    fn revive(&mut self, random: &mut Random, report: &mut Report) {
        for number in 0..COPIERS {
            let child = &mut self.copiers[number].child;
            let ended = match child {
                Some(child) => child.try_wait().expect("a child can be waited for"),
                None => None,
            };
            match ended.map(|status| status.code()) {
                None if child.is_some() => continue,
                None => {}
                Some(Some(code)) if code == i32::from(LOST) => {
                    report.fault("clients that began anew");
                }
                Some(code) => report.broken.push(format!(
                    "{} ended by itself with {code:?}",
                    self.copiers[number].id
                )),
            }
            let id = self.copiers[number].id.clone();
            self.copiers[number].child = Some(self.start(&id, random));
        }
    }

    /// Kills the copiers, lets what they left open run out, and compares outputs with offsets.
    fn look(&mut self, random: &mut Random, report: &mut Report) {
        for copier in &mut self.copiers {
            if let Some(mut child) = copier.child.take() {
                let _ = child.kill();
                let _ = child.wait();
                report.fault("SIGKILLs of a client");
            }
        }
        self.settle(report);
        let input = client::read_all(&self.bootstrap, INPUT, PARTITIONS);
        self.compare(&input.log, report);
        self.revive(random, report);
    }

    fn finish(mut self, random: &mut Random, report: &mut Report) {
        self.stop.store(true, Ordering::Relaxed);
        let feeder = self.feeder.take().expect("it is taken once");
        let (settings, sent) = feeder.finish();
        let ends = self.ends(INPUT, PARTITIONS, "read_uncommitted");
        say(&format!("  draining; the input ends at {ends:?}"));
        let began = Instant::now();
        while self.committed("read_uncommitted") != ends {
            if began.elapsed() > DRAIN {
                let committed = self.committed("read_uncommitted");
                report.broken.push(format!(
                    "not copied within {DRAIN:?}: committed {committed:?} of {ends:?}"
                ));
                break;
            }
            std::thread::sleep(Duration::from_millis(200));
            self.revive(random, report);
        }
        for copier in &mut self.copiers {
            if let Some(mut child) = copier.child.take() {
                signal(&child, Signal::TERM);
                if wait(&mut child, PATIENCE).is_none() {
                    let _ = child.kill();
                    let _ = child.wait();
                }
            }
        }
        self.settle(report);
        let input = client::read_all(&self.bootstrap, INPUT, PARTITIONS);
        report.bad += input.bad.len();
        self.compare(&input.log, report);
        let tally = check::tally(&input.log, &sent);
        say(&format!("  input ({}): {tally}", settings.in_words()));
        report.add(&sent, &tally);
    }

    /// Waits until nothing is open anywhere.
    fn settle(&self, report: &mut Report) {
        let mut topics: Vec<(String, i32)> = Vec::new();
        let metadata = client::reader(&self.bootstrap)
            .fetch_metadata(None, PATIENCE)
            .unwrap_or_else(|error| panic!("metadata: {error}"));
        for topic in metadata.topics() {
            topics.push((topic.name().to_owned(), topic.partitions().len() as i32));
        }
        let began = Instant::now();
        for (topic, partitions) in topics {
            loop {
                let stable = self.ends(&topic, partitions, "read_committed");
                let high = self.ends(&topic, partitions, "read_uncommitted");
                // Of the input, and of the offsets, more may have come between the two.
                if stable
                    .iter()
                    .zip(&high)
                    .all(|(stable, high)| stable >= high)
                    || topic == INPUT
                {
                    break;
                }
                if began.elapsed() > SETTLE {
                    report.broken.push(format!(
                        "{topic}: last stable offsets {stable:?}, high watermarks {high:?}: \
                         a transaction hangs"
                    ));
                    break;
                }
                std::thread::sleep(Duration::from_millis(100));
            }
        }
    }

    /// With nothing under way: what each output holds is what is committed as read.
    fn compare(&self, input: &Log, report: &mut Report) {
        let committed = self.committed("read_committed");
        let mut counts = [0, 0];
        for (which, topic) in OUTPUTS.iter().enumerate() {
            let found = read_committed(&self.bootstrap, topic);
            for (input, partition) in input.iter().zip(0..) {
                let at = output_partition(which, partition) as usize;
                let stamps = found[at].iter().map(|value| {
                    Stamp::of(value, partition).unwrap_or_else(|why| {
                        report.bad += 1;
                        say(&format!("  {topic}-{at}: {why}"));
                        Stamp::NOBODY
                    })
                });
                let output: Vec<Stamp> = stamps.collect();
                let verdict = judge(&Copied {
                    input,
                    output: &output,
                    committed: committed[partition as usize] as usize,
                });
                counts[which] += output.len();
                report.lost += verdict.lost;
                report.duplicated += verdict.duplicated;
                report.reordered += verdict.reordered;
                if !verdict.is_well() {
                    report.broken.push(format!(
                        "{topic}-{at}, of {INPUT}-{partition} with {} committed: {verdict:?}",
                        committed[partition as usize]
                    ));
                }
            }
        }
        say(&format!(
            "  copied {counts:?} of {} records; committed {committed:?}",
            input.iter().map(Vec::len).sum::<usize>()
        ));
    }

    /// The ends of a topic for readers of this isolation level.
    fn ends(&self, topic: &str, partitions: i32, isolation: &str) -> Vec<i64> {
        let reader = reader(&self.bootstrap, isolation);
        let end = |partition| {
            let watermarks = reader.fetch_watermarks(topic, partition, PATIENCE);
            watermarks
                .unwrap_or_else(|error| panic!("{topic}-{partition}: {error}"))
                .1
        };
        (0..partitions).map(end).collect()
    }

    /// By partition of the input; 0 where nothing is committed.
    fn committed(&self, isolation: &str) -> Vec<i64> {
        let found = committed(&reader(&self.bootstrap, isolation));
        let found = found.unwrap_or_else(|error| panic!("the committed offsets: {error}"));
        let offset = |element: rdkafka::topic_partition_list::TopicPartitionListElem<'_>| {
            element.error().expect("each has its answer");
            match element.offset() {
                Offset::Offset(offset) => offset,
                _ => 0,
            }
        };
        found.elements().into_iter().map(offset).collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for copier in &mut self.copiers {
            if let Some(mut child) = copier.child.take() {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }
}

fn signal(child: &Child, signal: Signal) {
    let pid = Pid::from_raw(child.id() as i32).expect("a child has an id");
    // It may have ended by itself meanwhile.
    let _ = kill_process(pid, signal);
}

fn wait(child: &mut Child, patience: Duration) -> Option<ExitStatus> {
    let began = Instant::now();
    while began.elapsed() < patience {
        if let Some(status) = child.try_wait().expect("a child can be waited for") {
            return Some(status);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    None
}

fn reader(bootstrap: &str, isolation: &str) -> BaseConsumer<Quiet> {
    let settings = [
        ("group.id", GROUP),
        ("enable.auto.commit", "false"),
        ("isolation.level", isolation),
        ("check.crcs", "true"),
    ];
    client::config(bootstrap, &settings)
        .create_with_context(Quiet)
        .unwrap()
}

fn committed(reader: &BaseConsumer<Quiet>) -> KafkaResult<TopicPartitionList> {
    let mut list = TopicPartitionList::new();
    list.add_partition_range(INPUT, 0, PARTITIONS - 1);
    reader.committed_offsets(list, PATIENCE)
}

/// What a reader of committed records finds in a topic in which nothing is open. Its end is known
/// by a plain record that is sent behind everything: markers and aborted records are not delivered.
fn read_committed(bootstrap: &str, topic: &str) -> Vec<Vec<Vec<u8>>> {
    let plain: ThreadedProducer<Quiet> = client::config(bootstrap, &[])
        .create_with_context(Quiet)
        .unwrap();
    for partition in 0..PARTITIONS {
        let record = BaseRecord::<(), _>::to(topic).partition(partition);
        let sent = plain.send(record.payload(END));
        sent.map_err(|(error, _)| error).expect("an empty queue");
    }
    plain.flush(PATIENCE).expect("the broker is up");
    let reader = reader(bootstrap, "read_committed");
    let mut list = TopicPartitionList::new();
    let mut last = Vec::new();
    for partition in 0..PARTITIONS {
        let (_, end) = reader.fetch_watermarks(topic, partition, PATIENCE).unwrap();
        last.push(end - 1);
        list.add_partition_offset(topic, partition, Offset::Offset(0))
            .unwrap();
    }
    reader.assign(&list).unwrap();
    let mut values: Vec<Vec<Vec<u8>>> = last.iter().map(|_| Vec::new()).collect();
    let mut left = last.len();
    let mut progress = Instant::now();
    while left > 0 {
        assert!(progress.elapsed() < PATIENCE, "{topic} stopped to come");
        match reader.poll(Duration::from_millis(200)) {
            None => {}
            Some(Err(error)) => panic!("reading {topic}: {error}"),
            Some(Ok(message)) => {
                progress = Instant::now();
                let partition = message.partition() as usize;
                left -= usize::from(message.offset() == last[partition]);
                let value = message.payload().unwrap_or_default();
                if value != END {
                    values[partition].push(value.to_vec());
                }
            }
        }
    }
    values
}
