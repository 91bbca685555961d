//! What partitions need without being asked: retention, producer expiry, flushes by time,
//! compaction, and configurations that changed.
//!
//! The rules are the partition's own ([`oncelog_partition`]); here it is only asked, at its own
//! deadlines and at the broker's intervals.

use crate::broker::Broker;
use crate::timers::Timer;
use crate::topics::PartitionKey;
use oncelog_partition::{Partition, Work};
use oncelog_wire::clock::Now;

/// Sets the timers that run from the start.
pub(crate) fn begin(broker: &mut Broker) {
    let now = broker.now.instant;
    let every = broker.config.log_retention_check_interval_ms;
    broker.timers.set(Timer::Retention, now.plus_ms(every));
    let every = broker.config.log_cleaner_backoff_ms;
    broker.timers.set(Timer::Upkeep, now.plus_ms(every));
    for key in broker.topics.keys() {
        let hosted = broker.topics.get(key).expect("just listed");
        let deadline = hosted.partition.next_deadline();
        broker.timers.set(Timer::Partition(key), deadline);
    }
}

/// `log.retention.check.interval.ms` is over.
pub(crate) fn retention(broker: &mut Broker) {
    let every = broker.config.log_retention_check_interval_ms;
    let next = broker.now.instant.plus_ms(every);
    broker.timers.set(Timer::Retention, next);
    for key in broker.topics.keys() {
        ask(broker, key, Partition::apply_retention);
    }
}

/// `log.cleaner.backoff.ms` is over: compaction, and checkpoints that are due by size.
pub(crate) fn upkeep(broker: &mut Broker) {
    let every = broker.config.log_cleaner_backoff_ms;
    let next = broker.now.instant.plus_ms(every);
    broker.timers.set(Timer::Upkeep, next);
    let oldest = broker.connections.oldest();
    broker.newest_connections.forget(oldest);
    let now = broker.now;
    let work = broker.quorum.log_mut().work_due(now);
    broker.background(work);
    for key in broker.topics.keys() {
        ask(broker, key, Partition::housekeeping);
        ask(broker, key, |partition, now| {
            partition.compact(now).into_iter().collect()
        });
    }
}

/// A partition's own deadline has come.
pub(crate) fn partition(broker: &mut Broker, key: PartitionKey) {
    ask(broker, key, Partition::housekeeping);
}

fn ask(broker: &mut Broker, key: PartitionKey, what: fn(&mut Partition, Now) -> Vec<Work>) {
    let now = broker.now;
    let Some(hosted) = broker.topics.get_mut(key) else {
        return;
    };
    let work = what(&mut hosted.partition, now);
    let deadline = hosted.partition.next_deadline();
    broker.run(key, work);
    broker.timers.set(Timer::Partition(key), deadline);
}

/// A topic's or the broker's configuration changed: every partition takes its effective one.
pub(crate) fn configs_changed(broker: &mut Broker) {
    let names: Vec<_> = broker
        .topics
        .iter()
        .map(|t| (t.id, t.name.clone(), t.partitions.len()))
        .collect();
    for (topic_id, name, partitions) in names {
        let config = crate::config::of_topic(&broker.cluster, &broker.config, &name);
        for index in 0..partitions as i32 {
            let key = PartitionKey { topic_id, index };
            let hosted = broker.topics.get_mut(key).expect("just listed");
            hosted.partition.set_config(config.clone());
        }
    }
}
