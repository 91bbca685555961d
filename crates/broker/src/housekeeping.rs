//! What partitions need without being asked: retention, producer expiry, flushes by time,
//! compaction, and configurations that changed.
//!
//! Compaction runs one partition at a time, the dirtiest first, outside the core; its result is
//! applied when it comes back.

use crate::broker::Broker;
use crate::deletion;
use crate::effect::Level;
use crate::limits;
use crate::timers::Timer;
use crate::topics::PartitionKey;
use crate::waiters::DiskWork;
use oncelog_commitlog::{DiskOp, DiskOutcome};

/// Sets the timers that run from the start.
pub(crate) fn begin(broker: &mut Broker) {
    let now = broker.now.instant;
    let every = broker.config.log_retention_check_interval_ms;
    broker.timers.set(Timer::Housekeeping, now.plus_ms(every));
    let every = limits::COMPACTION_CHECK_MS;
    broker.timers.set(Timer::Compaction, now.plus_ms(every));
    for key in broker.topics.keys() {
        let hosted = broker.topics.get(key).expect("just listed");
        let deadline = hosted.partition.next_deadline();
        broker.timers.set(Timer::Partition(key), deadline);
    }
}

pub(crate) fn all(broker: &mut Broker) {
    let every = broker.config.log_retention_check_interval_ms;
    let next = broker.now.instant.plus_ms(every);
    broker.timers.set(Timer::Housekeeping, next);
    for key in broker.topics.keys() {
        partition(broker, key);
    }
}

/// One partition's own deadline: a flush by time, a delayed file removal.
pub(crate) fn partition_deadline(broker: &mut Broker, key: PartitionKey) {
    partition(broker, key);
}

fn partition(broker: &mut Broker, key: PartitionKey) {
    let now = broker.now;
    let Some(hosted) = broker.topics.get_mut(key) else {
        return;
    };
    let work = hosted.partition.housekeeping(now);
    let deadline = hosted.partition.next_deadline();
    broker.background(work);
    broker.timers.set(Timer::Partition(key), deadline);
}

pub(crate) fn compact(broker: &mut Broker) {
    let next = broker.now.instant.plus_ms(limits::COMPACTION_CHECK_MS);
    broker.timers.set(Timer::Compaction, next);
    start_compaction(broker);
}

fn start_compaction(broker: &mut Broker) {
    let now = broker.now;
    let mut dirtiest = None;
    for topic in broker.topics.iter() {
        for (index, hosted) in topic.partitions.iter().enumerate() {
            if hosted.compacting {
                return; // one at a time
            }
            let ratio = hosted.partition.dirty_ratio(now);
            if ratio.is_some_and(|ratio| dirtiest.is_none_or(|(most, _)| ratio > most)) {
                let topic_id = topic.id;
                let index = index as i32;
                dirtiest = ratio.map(|ratio| (ratio, PartitionKey { topic_id, index }));
            }
        }
    }
    let Some((_, key)) = dirtiest else { return };
    let hosted = broker.topics.get_mut(key).expect("just found");
    let Some(plan) = hosted.partition.compaction_plan(now) else {
        return;
    };
    hosted.compacting = true;
    broker.disk(DiskOp::Compact(Box::new(plan)), DiskWork::Compaction { key });
}

pub(crate) fn compacted(
    broker: &mut Broker,
    key: PartitionKey,
    outcome: Result<DiskOutcome, String>,
) {
    let Some(hosted) = broker.topics.get_mut(key) else {
        return deletion::compaction_completed(broker, key);
    };
    hosted.compacting = false;
    match outcome {
        Ok(DiskOutcome::Compacted(outcome)) => {
            let work = hosted.partition.apply_compaction(*outcome, broker.now);
            let deadline = hosted.partition.next_deadline();
            broker.background(work);
            broker.timers.set(Timer::Partition(key), deadline);
            start_compaction(broker);
        }
        Ok(other) => panic!("the host completed a compaction with {other:?}"),
        Err(error) => {
            let name = hosted.partition.log().dir().to_owned();
            let message = format!("compaction of {name} was given up: {error}; the log is untouched");
            broker.log(Level::Error, message);
        }
    }
}

/// A topic's or the broker's configuration changed: every partition takes its effective one.
pub(crate) fn configs_changed(broker: &mut Broker) {
    let names: Vec<_> = broker.topics.iter().map(|t| (t.id, t.name.clone(), t.partitions.len())).collect();
    for (topic_id, name, partitions) in names {
        let config = broker.cluster.topic_config(&broker.config, &name);
        for index in 0..partitions as i32 {
            let key = PartitionKey { topic_id, index };
            let hosted = broker.topics.get_mut(key).expect("just listed");
            hosted.partition.set_config(config.clone());
        }
    }
}
