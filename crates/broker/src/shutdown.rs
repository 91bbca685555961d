//! A controlled shutdown: let what is in flight come back, write what recovery would otherwise
//! rebuild, and leave the marker that says so.
//!
//! The marker (`.kafka_cleanshutdown`, Kafka's name) is written only when everything before it is
//! on disk, and removed by the next start before it appends anything, so it never vouches for a
//! log that was written to since.

use crate::broker::Broker;
use oncelog_commitlog::{DiskOp, DiskStep};

/// Kafka's name of the clean-shutdown marker.
pub const CLEAN_SHUTDOWN_FILE: &str = ".kafka_cleanshutdown";

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Progress {
    #[default]
    Running,
    /// Waiting for disk work that was in flight.
    Draining,
    /// Waiting for indexes, snapshots and checkpoints.
    Flushing,
    /// Waiting for the marker.
    Marking,
    Stopped,
}

pub(crate) fn begin(broker: &mut Broker) {
    if broker.shutdown == Progress::Running {
        broker.shutdown = Progress::Draining;
    }
}

/// Goes on with the shutdown when the disk work of a step has come back.
pub(crate) fn advance(broker: &mut Broker) {
    let idle = matches!(broker.shutdown, Progress::Running | Progress::Stopped);
    if idle || !broker.waiters.disk.is_empty() {
        return;
    }
    match broker.shutdown {
        Progress::Running | Progress::Stopped => {}
        Progress::Draining => {
            broker.shutdown = Progress::Flushing;
            flush(broker);
        }
        Progress::Flushing => {
            broker.shutdown = Progress::Marking;
            mark(broker);
        }
        Progress::Marking => {
            broker.shutdown = Progress::Stopped;
            broker.stopped();
        }
    }
    advance(broker);
}

fn flush(broker: &mut Broker) {
    for key in broker.topics.keys() {
        let hosted = broker.topics.get_mut(key).expect("just listed");
        let work = hosted.partition.shut_down(broker.now);
        broker.run(key, work);
    }
    let work = broker.quorum.log_mut().shut_down();
    broker.background(work);
}

fn mark(broker: &mut Broker) {
    let file: oncelog_commitlog::FileName = CLEAN_SHUTDOWN_FILE.into();
    let content = bytes::Bytes::from_static(b"{\"version\":0}\n");
    let steps = vec![
        DiskStep::Write {
            file: file.clone(),
            content,
        },
        DiskStep::Sync { file },
        DiskStep::SyncDir { dir: "".into() },
    ];
    broker.background(vec![DiskOp::Steps(steps)]);
}
