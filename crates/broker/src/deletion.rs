//! Deleting a topic: tell those who wait, let its disk work come back, move its files away, and
//! remove them when readers that hold slices of them are done.
//!
//! The order matters because a path is a file's only name: a rename while an append is in flight
//! would let the append make the directory anew, and a topic of the same name could be made over
//! the old files. So the metadata queue stands still from the committed removal until the rename
//! is done (see [`crate::quorum`]); the removal itself (`file.delete.delay.ms` later) only touches
//! names that nobody else has.

use crate::apis;
use crate::broker::Broker;
use crate::quorum;
use crate::timers::Timer;
use crate::topics::{Hosted, PartitionKey};
use crate::transactions::markers;
use crate::waiters::DiskWork;
use oncelog_commitlog::{DiskOp, DiskOutcome, DiskStep, FileName};
use oncelog_partition::Completes;
use oncelog_wire::Uuid;
use std::collections::BTreeMap;

#[derive(Default)]
pub struct Deletion {
    /// Removed partitions with disk work in flight.
    busy: BTreeMap<PartitionKey, Hosted>,
    /// Rename steps of partitions that are idle, and the directories' new names.
    renames: Vec<DiskStep>,
    renamed: Vec<FileName>,
    /// The largest `file.delete.delay.ms` of the topics.
    delay_ms: i64,
    /// Directories to remove, by timer.
    to_remove: BTreeMap<u64, Vec<FileName>>,
    next_batch: u64,
}

/// Takes the topics out of service; [`quorum::deletion_finished`] follows when their files have
/// been renamed.
pub(crate) fn begin(broker: &mut Broker, topics: Vec<Uuid>) {
    for id in topics {
        let Some(topic) = broker.topics.remove(id) else {
            continue;
        };
        crate::groups::topic_deleted(broker, &topic.name);
        crate::transactions::topic_deleted(broker, &topic.name);
        for (index, mut hosted) in topic.partitions.into_iter().enumerate() {
            let key = PartitionKey {
                topic_id: id,
                index: index as i32,
            };
            broker.timers.clear(&Timer::Partition(key));
            let fetches = std::mem::take(&mut hosted.fetch_waiters);
            let produces = std::mem::take(&mut hosted.produce_waiters);
            apis::fetch::partition_removed(broker, fetches.into_iter().collect());
            let markers = std::mem::take(&mut hosted.marker_waiters);
            apis::produce::partition_removed(broker, key, produces);
            markers::partition_removed(broker, markers.into_values().flatten());
            retire(broker, key, hosted);
        }
    }
    rename_if_idle(broker);
}

fn retire(broker: &mut Broker, key: PartitionKey, hosted: Hosted) {
    if hosted.in_flight > 0 {
        broker.waiters.deletion.busy.insert(key, hosted);
        return;
    }
    let deletion = &mut broker.waiters.deletion;
    let delay_ms = hosted.partition.config().log.file_delete_delay_ms;
    deletion.delay_ms = deletion.delay_ms.max(delay_ms);
    let (renames, renamed) = hosted.partition.delete();
    deletion.renames.extend(renames);
    deletion.renamed.push(renamed);
}

fn rename_if_idle(broker: &mut Broker) {
    let deletion = &mut broker.waiters.deletion;
    if !deletion.busy.is_empty() {
        return;
    }
    let steps = std::mem::take(&mut deletion.renames);
    broker.disk(DiskOp::Steps(steps), DiskWork::TopicFilesRenamed);
}

/// Disk work of a partition that is being deleted came back. Nobody waits for what it brings any
/// more, but the log must know that no append of its own is on its way.
pub(crate) fn work_came_back(broker: &mut Broker, key: PartitionKey, completes: Completes) {
    let now = broker.now;
    let mut hosted = broker
        .waiters
        .deletion
        .busy
        .remove(&key)
        .expect("disk work belongs to a hosted partition or to one that is being deleted");
    hosted.in_flight -= 1;
    if let Completes::Append { .. } = completes {
        hosted
            .partition
            .work_done(now, completes, DiskOutcome::Done);
    }
    retire(broker, key, hosted);
    rename_if_idle(broker);
}

pub(crate) fn files_renamed(broker: &mut Broker) {
    let deletion = &mut broker.waiters.deletion;
    let batch = deletion.next_batch;
    deletion.next_batch += 1;
    let renamed = std::mem::take(&mut deletion.renamed);
    deletion.to_remove.insert(batch, renamed);
    let delay_ms = std::mem::take(&mut deletion.delay_ms);
    let at = broker.now.instant.plus_ms(delay_ms);
    broker.timers.set(Timer::RemoveDeleted(batch), at);
    quorum::deletion_finished(broker);
}

pub(crate) fn remove_files(broker: &mut Broker, batch: u64) {
    let dirs = broker.waiters.deletion.to_remove.remove(&batch);
    let steps = dirs
        .into_iter()
        .flatten()
        .map(|dir| DiskStep::RemoveDir { dir });
    let steps: Vec<DiskStep> = steps.collect();
    if !steps.is_empty() {
        broker.background(vec![DiskOp::Steps(steps)]);
    }
}
