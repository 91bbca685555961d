//! Load that goes on while the broker comes and goes: producers of each promise, groups of both
//! protocols, topics that are made and deleted; and its judgement in the end.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use oncelog_wire::{ApiKey, apis};
use rdkafka::consumer::Consumer;

use crash_campaign::check::{self, Log, Promise};
use crash_campaign::client;
use crash_campaign::process::say;
use crash_campaign::producer::{FULL_LOAD, Running, Settings};
use crash_campaign::random::Random;

use crate::churn::Churn;
use crate::group::Group;
use crate::report::Report;
use crate::tool::Tool;

const ONCE: &str = "idempotent";
const LEAST: &str = "acks-1";
const PARTITIONS: i32 = 3;
const TOPICS: [(&str, i32); 2] = [(ONCE, PARTITIONS), (LEAST, PARTITIONS)];

/// What a broker under this load is configured with: small segments, so that faults also fall on
/// rolls and checkpoints; short sessions, so that a member whose goodbye fell into a crash is not
/// waited for.
pub const SETTINGS: [&str; 9] = [
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

/// What there is besides producers.
#[derive(Clone, Copy)]
pub struct Besides {
    pub groups: bool,
    pub churn: bool,
}

pub struct Load {
    bootstrap: String,
    stop: Arc<AtomicBool>,
    producers: Vec<Running>,
    groups: Vec<Group>,
    churn: Option<Churn>,
}

impl Load {
    /// The broker must be up, and new.
    pub fn start(binary: &Path, bootstrap: &str, besides: Besides, random: &mut Random) -> Load {
        let tool = Tool::new(binary, bootstrap);
        for (topic, partitions) in TOPICS {
            tool.create_topic(topic, partitions, &[]);
        }
        let stop = Arc::new(AtomicBool::new(false));
        let producers = start_producers(bootstrap, &stop, random);
        let groups = match besides.groups {
            true => start_groups(bootstrap, random),
            false => Vec::new(),
        };
        let churn = besides.churn.then(|| Churn::start(tool, random.fork()));
        Load {
            bootstrap: bootstrap.to_owned(),
            stop,
            producers,
            groups,
            churn,
        }
    }

    /// After each start: nothing that was acknowledged may lie beyond the end of its log, and no
    /// committed offset may have gone back.
    pub fn look(&self, report: &mut Report) {
        let acknowledged: Vec<_> = self
            .producers
            .iter()
            .map(|producer| (producer.settings.topic, producer.acknowledged()))
            .collect();
        let reader = client::reader(&self.bootstrap);
        for (topic, offsets) in acknowledged {
            for (offset, partition) in offsets.into_iter().zip(0..) {
                let (_, end) = reader
                    .fetch_watermarks(topic, partition, client::PATIENCE)
                    .unwrap_or_else(|error| panic!("{topic}-{partition}: {error}"));
                if offset >= end {
                    let what =
                        format!("{topic}-{partition} ends at {end}, {offset} was acknowledged");
                    report.broken.push(what);
                }
            }
        }
        self.groups.iter().for_each(Group::look_at_commits);
    }

    /// Ends it and judges what there is. The broker must be up.
    pub fn finish(self, report: &mut Report) {
        self.stop.store(true, Ordering::Relaxed);
        let sent: Vec<_> = self.producers.into_iter().map(Running::finish).collect();
        let mut logs: BTreeMap<&str, Log> = BTreeMap::new();
        for (topic, partitions) in TOPICS {
            let read = client::read_all(&self.bootstrap, topic, partitions);
            report.bad += read.bad.len();
            read.bad
                .iter()
                .take(5)
                .for_each(|bad| say(&format!("  {bad}")));
            logs.insert(topic, read.log);
        }
        for (settings, sent) in &sent {
            let tally = check::tally(&logs[settings.topic], sent);
            let words = settings.in_words();
            say(&format!("  producer {} ({words}): {tally}", sent.producer));
            report.add(sent, &tally);
        }
        for group in self.groups {
            let summary = group.finish(&logs);
            say(&format!("  {summary}"));
        }
        if let Some(churn) = self.churn {
            let summary = churn.finish(&self.bootstrap);
            say(&format!("  {summary}"));
        }
    }
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
            pause_ms_max: FULL_LOAD,
        });
    let settings: Vec<Settings> = settings.collect();
    settings
        .into_iter()
        .map(|settings| Running::start(settings, bootstrap, stop, random.fork()))
        .collect()
}

/// One group for each group protocol that the broker speaks.
fn start_groups(bootstrap: &str, random: &mut Random) -> Vec<Group> {
    let mut protocols = vec!["classic"];
    match apis::served(ApiKey::ConsumerGroupHeartbeat) {
        Some(_) => protocols.push("consumer"),
        None => say("SKIPPED group protocol `consumer` (KIP-848): it is not served"),
    }
    let start = |protocol| {
        let id = format!("{protocol}-readers");
        Group::start(&id, protocol, bootstrap, &TOPICS, random)
    };
    protocols.into_iter().map(start).collect()
}
