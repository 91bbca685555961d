//! A wall clock that jumps, by seconds to days, forwards and backwards, under load and between
//! starts. Nothing may be lost, doubled or expire by it: records (retention is longer than the
//! jumps), what is known of producers, group sessions. Real time goes on for everybody else.
//!
//! libfaketime stands between the broker and its clock and reads the offset from a file; monotonic
//! time is left alone, as in a kernel. That the broker really sees the jumps is shown by the
//! timestamps that it gives to records.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use crash_campaign::client;
use crash_campaign::process::say;
use crash_campaign::random::Random;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};

use crate::Task;
use crate::load::{Besides, Load, SETTINGS};
use crate::report::Report;
use crate::tool::Tool;

const HOUR: i64 = 3_600;
const DAY: i64 = 24 * HOUR;
/// Together the jumps stay below what retention (7 days) allows.
const FURTHEST: i64 = 3 * DAY;
const STAMPED: &str = "stamped";

/// The offset that the broker's wall clock has, in a file that it reads at every look.
struct FakeClock {
    file: PathBuf,
    offset: i64,
}

impl FakeClock {
    fn new(dir: &Path) -> Result<FakeClock> {
        let mut clock = FakeClock {
            file: dir.join("clock"),
            offset: 0,
        };
        clock.set(0)?;
        Ok(clock)
    }

    fn set(&mut self, offset: i64) -> Result<()> {
        let new = self.file.with_extension("new");
        std::fs::write(&new, format!("{offset:+}\n"))?;
        std::fs::rename(&new, &self.file)?;
        self.offset = offset;
        Ok(())
    }

    fn environment(&self) -> Result<Vec<(String, String)>> {
        let library = library()?.display().to_string();
        let file = self.file.display().to_string();
        let variables = [
            ("LD_PRELOAD", library.as_str()),
            ("FAKETIME_TIMESTAMP_FILE", file.as_str()),
            ("FAKETIME_NO_CACHE", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ];
        let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        Ok(variables.into_iter().map(owned).collect())
    }
}

fn library() -> Result<PathBuf> {
    let name = "faketime/libfaketimeMT.so.1";
    for lib in ["/usr/lib", "/usr/lib64", "/usr/local/lib"] {
        let direct = PathBuf::from(lib).join(name);
        let below = std::fs::read_dir(lib).into_iter().flatten().flatten();
        let mut places = std::iter::once(direct).chain(below.map(|e| e.path().join(name)));
        if let Some(found) = places.find(|path| path.exists()) {
            return Ok(found);
        }
    }
    anyhow::bail!("libfaketime is missing (apt-get install faketime)")
}

pub fn probe(dir: &Path) -> Result<()> {
    let mut clock = FakeClock::new(dir)?;
    clock.set(2 * DAY)?;
    let date = |environment: Vec<(String, String)>| -> Result<i64> {
        let output = Command::new("date").arg("+%s").envs(environment).output()?;
        let text = String::from_utf8(output.stdout)?;
        text.trim().parse().context("date +%s")
    };
    let (faked, real) = (date(clock.environment()?)?, date(Vec::new())?);
    ensure!(
        (faked - real - 2 * DAY).abs() < 60,
        "libfaketime does not move the clock here"
    );
    Ok(())
}

pub fn run(task: &Task) -> Report {
    let mut report = Report::default();
    let mut random = Random::new(task.seed);
    let mut clock = FakeClock::new(&task.dir).unwrap();
    let mut settings = SETTINGS.to_vec();
    // The producers' clocks do not jump: what they send must not be called a lie.
    settings.push("log.message.timestamp.after.max.ms=9223372036854775807");
    settings.push("log.retention.check.interval.ms=200");
    let mut broker = task.broker(&settings);
    broker.environment = clock.environment().unwrap();
    broker.start();
    let bootstrap = broker.bootstrap();
    let tool = Tool::new(&task.binary, &bootstrap);
    tool.create_topic(STAMPED, 1, &["message.timestamp.type=LogAppendTime"]);
    let besides = Besides {
        groups: true,
        churn: true,
    };
    let load = Load::start(&task.binary, &bootstrap, besides, &mut random);
    let mut idle = Idle::start(&bootstrap);
    let steady: Vec<Steady> = ["classic", "consumer"]
        .into_iter()
        .map(|protocol| Steady::join(&bootstrap, protocol))
        .collect();
    for round in 0..task.rounds {
        // No restarts at first: a member that stays must keep its partitions.
        let restart = round >= task.rounds / 2 && random.one_in(2);
        jump(&mut clock, &mut random, &mut report);
        if restart {
            report.fault("SIGKILLs between jumps");
            broker.kill();
            jump(&mut clock, &mut random, &mut report);
            broker.start();
        }
        idle.send(clock.offset);
        let until = std::time::Instant::now() + Duration::from_millis(random.range(200, 1_500));
        while std::time::Instant::now() < until {
            steady.iter().for_each(Steady::poll);
        }
        if round + 1 == task.rounds / 2 {
            steady.iter().for_each(|member| member.judge(&mut report));
        }
        load.look(&mut report);
    }
    let spread = idle.finish(&bootstrap, &mut report);
    say(&format!(
        "  the broker's timestamps spread over {spread:.0?}"
    ));
    load.finish(&mut report);
    drop(steady); // members leave while there is somebody to tell
    clock.set(0).unwrap();
    assert!(broker.terminate().success(), "{}", broker.tail());
    let said = broker.said();
    if said.contains("panicked") {
        report.broken.push("the broker panicked".to_owned());
    }
    report
}

fn jump(clock: &mut FakeClock, random: &mut Random, report: &mut Report) {
    let size = random.pick(&[1, 10, 60, HOUR, 12 * HOUR, DAY, 2 * DAY]);
    let forwards = match clock.offset {
        offset if offset + size > FURTHEST => false,
        offset if offset - size < -FURTHEST => true,
        _ => random.one_in(2),
    };
    report.fault(if forwards {
        "jumps forwards"
    } else {
        "jumps backwards"
    });
    let by = if forwards { size } else { -size };
    clock.set(clock.offset + by).unwrap();
}

/// An idempotent producer that writes only after jumps, to a topic whose timestamps are the
/// broker's.
struct Idle {
    producer: BaseProducer<client::Quiet>,
    /// Where the clock stood at each record, as an offset in seconds.
    sent: Vec<i64>,
}

impl Idle {
    fn start(bootstrap: &str) -> Idle {
        let settings = [("enable.idempotence", "true"), ("message.timeout.ms", "0")];
        let mut idle = Idle {
            producer: client::config(bootstrap, &settings)
                .create_with_context(client::Quiet)
                .unwrap(),
            sent: Vec::new(),
        };
        idle.send(0);
        idle
    }

    fn send(&mut self, offset: i64) {
        let number = self.sent.len().to_string();
        self.sent.push(offset);
        let record = BaseRecord::<(), _>::to(STAMPED)
            .partition(0)
            .payload(&number);
        self.producer
            .send(record)
            .map_err(|(error, _)| error)
            .unwrap();
        self.producer.flush(client::PATIENCE).unwrap();
        if let Some((code, why)) = self.producer.client().fatal_error() {
            panic!("a producer that paused over a jump: {code}: {why}");
        }
    }

    /// Reads everything back; returns how far the broker's timestamps lie apart.
    fn finish(self, bootstrap: &str, report: &mut Report) -> Duration {
        let sent = self.sent.len();
        let reader = client::reader(bootstrap);
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(STAMPED, 0, Offset::Offset(0))
            .unwrap();
        reader.assign(&list).unwrap();
        let mut times = Vec::new();
        let mut values = Vec::new();
        while values.len() < sent {
            let message = reader
                .poll(client::PATIENCE)
                .expect("there is more")
                .unwrap();
            times.push(message.timestamp().to_millis().unwrap());
            values.push(message.payload().unwrap_or_default().to_vec());
        }
        let want: Vec<Vec<u8>> = (0..sent).map(|n| n.to_string().into_bytes()).collect();
        report.acknowledged += sent;
        if values != want {
            report.reordered += 1;
            report
                .broken
                .push(format!("{STAMPED} holds something else than was sent"));
        }
        let spread = times.iter().max().unwrap() - times.iter().min().unwrap();
        let jumped = self.sent.iter().max().unwrap() - self.sent.iter().min().unwrap();
        // Real time passed, too.
        if spread < 1_000 * jumped - 1_000 * 60 * 10 || (jumped > 0 && spread == 0) {
            report
                .broken
                .push("the broker's clock did not jump".to_owned());
        }
        Duration::from_millis(spread as u64)
    }
}

/// A member that stays: jumps of the clock must not cost it its partitions.
struct Steady {
    consumer: BaseConsumer<Watch>,
    protocol: &'static str,
}

#[derive(Default)]
struct Watch {
    assigned: Arc<AtomicUsize>,
    revoked: Arc<AtomicUsize>,
}

impl ClientContext for Watch {
    fn log(&self, _: RDKafkaLogLevel, _: &str, _: &str) {}
    fn error(&self, _: KafkaError, _: &str) {}
}

impl ConsumerContext for Watch {
    fn pre_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Assign(_) => &self.assigned,
            _ => &self.revoked,
        }
        .fetch_add(1, Ordering::Relaxed);
    }
}

impl Steady {
    fn join(bootstrap: &str, protocol: &'static str) -> Steady {
        let id = format!("steady-{protocol}");
        let mut settings = vec![("group.id", &id[..]), ("group.protocol", protocol)];
        if protocol == "classic" {
            settings.push(("session.timeout.ms", "6000"));
            settings.push(("heartbeat.interval.ms", "500"));
        }
        let consumer: BaseConsumer<Watch> = client::config(bootstrap, &settings)
            .create_with_context(Watch::default())
            .unwrap();
        consumer.subscribe(&[STAMPED]).unwrap();
        let steady = Steady { consumer, protocol };
        let began = std::time::Instant::now();
        while steady.assigned() == 0 {
            assert!(
                began.elapsed() < client::PATIENCE,
                "{protocol}: no partition"
            );
            steady.poll();
        }
        steady
    }

    fn assigned(&self) -> usize {
        self.consumer.context().assigned.load(Ordering::Relaxed)
    }

    fn poll(&self) {
        let _ = self.consumer.poll(Duration::from_millis(20));
    }

    fn judge(&self, report: &mut Report) {
        let revoked = self.consumer.context().revoked.load(Ordering::Relaxed);
        if (self.assigned(), revoked) != (1, 0) {
            report.broken.push(format!(
                "{}: a member that stayed was given partitions {} times and lost them {revoked} times",
                self.protocol,
                self.assigned()
            ));
        }
    }
}
