//! The crash loop: a broker is killed again and again under load, now and then in the middle of
//! its recovery, and what is left is judged.
//!
//! `ONCELOG_CRASH_ROUNDS` (default 5) says how often, `ONCELOG_CRASH_SEED` repeats the choices of
//! a run (not its timing, which is the machine's).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use oncelog_wire::{ApiKey, apis};

use crate::check::{self, Log, Promise};
use crate::churn::Churn;
use crate::client;
use crate::group::Group;
use crate::process::{Broker, say};
use crate::producer::{Running, Settings};
use crate::random::Random;

const ONCE: &str = "idempotent";
const LEAST: &str = "acks-1";
const PARTITIONS: i32 = 3;

/// Small segments, so that kills also fall on rolls and checkpoints; short sessions, so that a
/// member whose goodbye fell into a crash is not waited for.
const SETTINGS: [&str; 9] = [
    "log.segment.bytes=1048576",
    "log.roll.ms=3000",
    "log.segment.delete.delay.ms=200",
    "auto.create.topics.enable=false",
    "offsets.topic.num.partitions=4",
    "group.consumer.min.session.timeout.ms=6000",
    "group.consumer.session.timeout.ms=6000",
    "group.consumer.min.heartbeat.interval.ms=500",
    "group.consumer.heartbeat.interval.ms=500",
];

/// Left to the page cache, which a killed process does not take along.
const LAZY: &str = "log.flush.interval.messages=1000000000";

/// How a round ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Kill,
    /// A clean stop.
    Terminate,
    /// A clean stop that is cut short.
    TerminateAndKill,
}

#[derive(Default)]
struct Counts {
    kills: u32,
    kills_in_start: u32,
    kills_in_stop: u32,
    clean_stops: u32,
    lazy_rounds: u32,
    ready: Vec<Duration>,
}

#[test]
fn sigkill_under_load_loses_and_doubles_nothing() {
    let rounds = variable("ONCELOG_CRASH_ROUNDS").unwrap_or(5);
    let seed = variable("ONCELOG_CRASH_SEED").unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        now.as_nanos() as u64 % 1_000_000_000
    });
    say(&format!(
        "crash loop: {rounds} rounds, seed {seed} (ONCELOG_CRASH_ROUNDS={rounds} \
         ONCELOG_CRASH_SEED={seed})"
    ));
    let mut random = Random::new(seed);
    let mut broker = Broker::started(&SETTINGS);
    let bootstrap = broker.bootstrap();
    for topic in [ONCE, LEAST] {
        create(&bootstrap, topic);
    }
    let stop = Arc::new(AtomicBool::new(false));
    let producers = start_producers(&bootstrap, &stop, &mut random);
    let topics = [(ONCE, PARTITIONS), (LEAST, PARTITIONS)];
    let groups = start_groups(&bootstrap, &topics, &mut random);
    let churn = Churn::start(&bootstrap, random.fork());

    let mut counts = Counts::default();
    for round in 0..rounds {
        let end = match random.range(0, 12) {
            _ if round == rounds / 2 => End::Terminate,
            0 => End::Terminate,
            1 | 2 => End::TerminateAndKill,
            _ => End::Kill,
        };
        let lazy = round == rounds * 3 / 4 || random.one_in(5);
        one_round(&mut broker, end, lazy, &mut random, &mut counts);
        groups.iter().for_each(Group::look_at_commits);
    }

    stop.store(true, Ordering::Relaxed);
    let sent: Vec<_> = producers.into_iter().map(Running::finish).collect();
    let logs: BTreeMap<&str, Log> = topics
        .iter()
        .map(|(topic, partitions)| (*topic, client::read_all(&bootstrap, topic, *partitions)))
        .collect();
    report(&counts);
    let mut broken = Vec::new();
    for (settings, sent) in &sent {
        let tally = check::tally(&logs[settings.topic], sent);
        let words = settings.in_words();
        say(&format!("  producer {} ({words}): {tally}", sent.producer));
        if tally.broken(settings.promise) {
            broken.push(words);
        }
    }
    for group in groups {
        let summary = group.finish(&logs);
        say(&format!("  {summary}"));
    }
    let summary = churn.finish(&bootstrap);
    say(&format!("  {summary}"));
    assert!(
        broken.is_empty(),
        "seed {seed}: broken promises: {broken:?}"
    );
    assert!(broker.terminate().success(), "{}", broker.tail());
}

/// Load for a while, an end, and the next start; returns when the broker serves again.
fn one_round(broker: &mut Broker, end: End, lazy: bool, random: &mut Random, counts: &mut Counts) {
    std::thread::sleep(Duration::from_millis(random.range(30, 2_000)));
    match end {
        End::Kill => {
            broker.kill();
            counts.kills += 1;
        }
        End::Terminate => {
            let status = broker.terminate();
            assert!(status.success(), "{status}:\n{}", broker.tail());
            counts.clean_stops += 1;
        }
        End::TerminateAndKill => {
            broker.terminate_and_kill(Duration::from_micros(random.range(0, 30_000)));
            counts.kills_in_stop += 1;
        }
    }
    counts.lazy_rounds += u32::from(lazy);
    broker.settings = SETTINGS.iter().map(|s| (*s).to_owned()).collect();
    broker.settings.extend(lazy.then(|| LAZY.to_owned()));
    // Again, a few times, while it recovers or has only just begun to serve.
    while random.one_in(2) {
        broker.spawn();
        std::thread::sleep(Duration::from_micros(random.range(500, 60_000)));
        broker.kill();
        counts.kills_in_start += 1;
    }
    counts.ready.push(broker.start());
}

fn start_producers(bootstrap: &str, stop: &Arc<AtomicBool>, random: &mut Random) -> Vec<Running> {
    let codecs = ["none", "gzip", "snappy", "lz4", "zstd"];
    let promises = [
        (Promise::ExactlyOnce, ONCE),
        (Promise::ExactlyOnce, ONCE),
        (Promise::InOrder, LEAST),
        (Promise::AtLeastOnce, LEAST),
    ];
    let settings = promises
        .iter()
        .zip(0..)
        .map(|(promise, producer)| Settings {
            producer,
            promise: promise.0,
            topic: promise.1,
            partitions: PARTITIONS,
            codec: random.pick(&codecs),
        });
    let settings: Vec<Settings> = settings.collect();
    settings
        .into_iter()
        .map(|settings| Running::start(settings, bootstrap, stop, random.fork()))
        .collect()
}

/// One group for each group protocol that the broker speaks.
fn start_groups(
    bootstrap: &str,
    topics: &[(&'static str, i32)],
    random: &mut Random,
) -> Vec<Group> {
    let mut protocols = vec!["classic"];
    match apis::served(ApiKey::ConsumerGroupHeartbeat) {
        Some(_) => protocols.push("consumer"),
        None => say("SKIPPED crash loop, group protocol `consumer` (KIP-848): it is not served"),
    }
    let start = |protocol| {
        let id = format!("{protocol}-readers");
        Group::start(&id, protocol, bootstrap, topics, random)
    };
    protocols.into_iter().map(start).collect()
}

fn create(bootstrap: &str, topic: &str) {
    let status = std::process::Command::new(env!("CARGO_BIN_EXE_oncelog"))
        .args(["-b", bootstrap, "topic", "create", topic, "-p"])
        .arg(PARTITIONS.to_string())
        .stdout(std::process::Stdio::null())
        .status();
    assert!(status.unwrap().success());
}

fn report(counts: &Counts) {
    let mut ready = counts.ready.clone();
    ready.sort();
    let median = ready.get(ready.len() / 2).copied().unwrap_or_default();
    let longest = ready.last().copied().unwrap_or_default();
    say(&format!(
        "crash loop: {} SIGKILLs under load, {} during a start, {} during a clean stop, {} clean \
         stops, {} rounds without fsync; ready again after {median:.0?} (median), {longest:.0?} (longest)",
        counts.kills,
        counts.kills_in_start,
        counts.kills_in_stop,
        counts.clean_stops,
        counts.lazy_rounds
    ));
}

fn variable(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    let number = text.parse();
    Some(number.unwrap_or_else(|_| panic!("{name}={text} is no number")))
}
