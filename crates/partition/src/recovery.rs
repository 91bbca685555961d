//! A partition's beginning: made anew, or found on disk.
//!
//! Opening recovers the log first (which truncates it at the first bad batch past its recovery
//! point), then loads the newest snapshot at or below the log's end, and applies the headers and
//! markers of the batches above it: the same [`crate::Producers::apply`] as when they were appended.
//! So the duplicate window is whole after a clean shutdown (the snapshot is at the log's end), after
//! kill -9 and after a power cut (an older snapshot and a longer replay).
//!
//! Snapshots that cannot be used are removed durably before the log can grow again: a corrupt one,
//! because an older one or the whole log serves; one past the log's end, because it describes
//! batches that are lost, and would be believed once other batches had taken their offsets.
//!
//! Transactions come back the same way: those that are open from the snapshot and the log above it,
//! those that were aborted from the segments' files as far as the checkpoint has their checksums, and
//! from the log above.
//!
//! This is the one place of the crate that touches a disk itself: nothing else runs before a
//! partition is open.

use crate::config::PartitionConfig;
use crate::endings::Endings;
use crate::housekeeping;
use crate::partition::{Identity, Partition};
use crate::producers::{AppendedMarker, Producers};
use crate::snapshot;
use crate::snapshot_files::{SUFFIX, SnapshotFiles, TEMPORARY_SUFFIX, offset_of};
use crate::verification::Verifications;
use oncelog_commitlog::{AbortedTxn, Disk, DiskOp, Log, replay_batches, restore_aborted};
use oncelog_wire::Uuid;
use oncelog_wire::clock::{Instant, Now};
use oncelog_wire::records::{Batch, ControlRecord, EndTxn};
use std::io;
use thiserror::Error;

/// A partition larger than this many bytes of producers is no snapshot of ours.
const SNAPSHOT_BYTES_MAX: u64 = 1 << 30;

#[derive(Debug)]
pub struct Created {
    pub partition: Partition,
    /// Makes the directory durable; nobody needs to wait for it before appending.
    pub ops: Vec<DiskOp>,
}

#[derive(Debug)]
pub struct Opened {
    pub partition: Partition,
    /// What was found amiss and how it was dealt with, for the operator's log.
    pub notes: Vec<String>,
}

#[derive(Debug, Error)]
pub enum RecoveryError {
    /// A topic of the same name that was deleted, most likely.
    #[error(
        "{dir}/partition.metadata says that the directory belongs to the topic with id {found}, and \
         the topic of this name has id {expected}. If it is another topic's, move the directory \
         away; if only this file is damaged, remove the file"
    )]
    AnotherTopic {
        dir: String,
        expected: Uuid,
        found: Uuid,
    },
    #[error(transparent)]
    Log(#[from] oncelog_commitlog::RecoveryError),
    #[error("{dir}: {source}")]
    Io { dir: String, source: io::Error },
}

impl Partition {
    /// A new, empty partition.
    pub fn create(identity: Identity, config: PartitionConfig, now: Now) -> Created {
        let dir = identity.dir();
        let (log, ops) = Log::create(&dir, identity.topic_id, config.log.clone(), now);
        let snapshots = SnapshotFiles::new(dir.into());
        let producers = Producers::default();
        let partition = Partition::assemble(identity, config, log, producers, snapshots, now);
        Created { partition, ops }
    }

    /// The partition that is on `disk`, in the directory that its identity names.
    ///
    /// `clean`: the broker's last shutdown was one, so that the log need not be scanned.
    pub fn open(
        disk: &dyn Disk,
        identity: Identity,
        config: PartitionConfig,
        clean: bool,
        now: Now,
    ) -> Result<Opened, RecoveryError> {
        let dir = identity.dir();
        let log_config = config.log.clone();
        let recovered = oncelog_commitlog::recover(disk, &dir, log_config, clean, now)?;
        let mut notes = recovered.report.notes(&dir);
        let mut log = match recovered.topic_id {
            Some(id) if id == identity.topic_id => recovered.log,
            Some(found) => {
                let expected = identity.topic_id;
                return Err(RecoveryError::AnotherTopic {
                    dir,
                    expected,
                    found,
                });
            }
            None => with_metadata(disk, &identity, recovered.log, &config, now, &mut notes)?,
        };
        let in_dir = |source| RecoveryError::Io {
            dir: dir.clone(),
            source,
        };
        let mut snapshots = find_snapshots(disk, &log, &mut notes).map_err(in_dir)?;
        let whole_to = recovered.first_gap.unwrap_or(i64::MAX);
        let (mut producers, from) = load_newest(
            disk,
            &log,
            whole_to,
            &mut snapshots,
            now.instant,
            &mut notes,
        )
        .map_err(in_dir)?;
        let aborted = replay(disk, &log, from, &mut producers, now.instant).map_err(in_dir)?;
        producers.close(log.start_offset()..log.first_dirty_offset());
        let known_to = recovered.aborted_known_to;
        let (from, aborted) = match from <= known_to {
            true => (from, aborted),
            false => {
                aborted_since(disk, &log, &snapshots, known_to, now.instant).map_err(in_dir)?
            }
        };
        restore_aborted(disk, &mut log, from, &aborted).map_err(in_dir)?;
        let partition = Partition::assemble(identity, config, log, producers, snapshots, now);
        Ok(Opened { partition, notes })
    }

    fn assemble(
        identity: Identity,
        config: PartitionConfig,
        mut log: Log,
        producers: Producers,
        snapshots: SnapshotFiles,
        now: Now,
    ) -> Partition {
        log.begin_epoch(identity.leader_epoch);
        let next_expiry = housekeeping::next_expiry(now.instant, config.producer_id_expiration_ms);
        let partition = Partition {
            identity,
            config,
            log,
            producers,
            endings: Endings::default(),
            verifications: Verifications::default(),
            snapshots,
            snapshot_taken: now.instant,
            next_expiry,
        };
        assert!(partition.is_idle());
        partition.assert_invariants();
        partition
    }
}

/// The log, with its `partition.metadata` written anew: the crash came before it was durable, or
/// the file is damaged.
fn with_metadata(
    disk: &dyn Disk,
    identity: &Identity,
    log: Log,
    config: &PartitionConfig,
    now: Now,
    notes: &mut Vec<String>,
) -> Result<Log, RecoveryError> {
    let dir = identity.dir();
    let (_, ops) = Log::create(&dir, identity.topic_id, config.log.clone(), now);
    for op in &ops {
        oncelog_commitlog::execute(disk, op).map_err(|source| RecoveryError::Io {
            dir: dir.clone(),
            source,
        })?;
    }
    if log.end_offset() > 0 {
        notes.push(format!(
            "{dir}: partition.metadata was missing; written anew"
        ));
    }
    Ok(log)
}

/// Snapshot files up to the log's end; removes those past it and unfinished ones.
fn find_snapshots(
    disk: &dyn Disk,
    log: &Log,
    notes: &mut Vec<String>,
) -> io::Result<SnapshotFiles> {
    let (dir, log_end) = (log.dir(), log.end_offset());
    let mut snapshots = SnapshotFiles::new(dir.into());
    let mut removed = false;
    let names = disk.list(dir)?;
    for name in &names {
        if let Some(offset) = offset_of(name, SUFFIX) {
            if offset <= log_end {
                let segment = format!("{offset:020}.log");
                snapshots.add(offset, names.binary_search(&segment).is_ok());
                continue;
            }
            notes.push(format!(
                "{dir}/{name}: past the log's end {log_end}; removed"
            ));
        } else if !name.ends_with(TEMPORARY_SUFFIX) {
            continue;
        }
        disk.remove(&format!("{dir}/{name}"))?;
        removed = true;
    }
    if removed {
        disk.sync_dir(dir)?;
    }
    Ok(snapshots)
}

/// The producers of the newest good snapshot, and the offset up to which it reaches: the log's
/// start if there is none. Removes the bad ones that it meets.
///
/// Below the log's start a snapshot is of no use: batches between the two are missing, so its
/// sequences are too low, and a producer without state is better off than one whose next batch is
/// refused for ever. It takes damage to get there, see [`Partition::start_moved`].
///
/// Above `whole_to` batches may be missing that a snapshot knows of: their retries would be taken for
/// duplicates, and a transaction for open that nothing is left of.
fn load_newest(
    disk: &dyn Disk,
    log: &Log,
    whole_to: i64,
    snapshots: &mut SnapshotFiles,
    now: Instant,
    notes: &mut Vec<String>,
) -> io::Result<(Producers, i64)> {
    while let Some(offset) = snapshots.newest() {
        let path = snapshots.path(offset);
        let why = if offset < log.start_offset() {
            "older than the log's start".to_owned()
        } else if offset > whole_to {
            format!("batches from {whole_to} on are missing, and it may know of them")
        } else {
            match snapshot::decode(&read_whole(disk, &path)?, offset, now) {
                Ok(producers) => return Ok((producers, offset)),
                Err(error) => error.to_string(),
            }
        };
        notes.push(format!(
            "{path}: {why}; removed, producers are rebuilt without it"
        ));
        snapshots.remove(offset);
        disk.remove(&path)?;
        disk.sync_dir(log.dir())?;
    }
    Ok((Producers::default(), log.start_offset()))
}

fn read_whole(disk: &dyn Disk, path: &str) -> io::Result<Vec<u8>> {
    let length = disk.len(path)?.unwrap_or(0);
    if length > SNAPSHOT_BYTES_MAX {
        return Ok(Vec::new()); // no snapshot of ours: decoding says so
    }
    let mut content = vec![0; length as usize];
    let mut read = 0;
    while read < content.len() {
        match disk.read_at(path, read as u64, &mut content[read..])? {
            0 => break,
            more => read += more,
        }
    }
    content.truncate(read);
    Ok(content)
}

/// The transactions that were aborted from `offset` on, or from a place before it that is given, too:
/// where a snapshot says what was open, or the log begins.
fn aborted_since(
    disk: &dyn Disk,
    log: &Log,
    snapshots: &SnapshotFiles,
    offset: i64,
    now: Instant,
) -> io::Result<(i64, Vec<AbortedTxn>)> {
    let start = log.start_offset();
    let (mut producers, mut from) = (Producers::default(), start);
    for snapshot in snapshots.up_to(offset).take_while(|at| *at >= start) {
        let content = read_whole(disk, &snapshots.path(snapshot))?;
        if let Ok(found) = snapshot::decode(&content, snapshot, now) {
            (producers, from) = (found, snapshot);
            break;
        }
    }
    let aborted = replay(disk, log, from, &mut producers, now)?;
    Ok((from, aborted))
}

/// Applies the batches from `from` on; the transactions that were aborted there.
fn replay(
    disk: &dyn Disk,
    log: &Log,
    from: i64,
    producers: &mut Producers,
    now: Instant,
) -> io::Result<Vec<AbortedTxn>> {
    let mut aborted = Vec::new();
    replay_batches(disk, log, from, &mut |header, control| {
        let Some(control) = control else {
            // Also of a batch that the log's start lies within: it is still read, and may be retried.
            producers.apply(header, header.base_offset, now);
            return Ok(());
        };
        aborted.extend(replay_control(producers, control, now)?);
        Ok(())
    })?;
    Ok(aborted)
}

/// What a marker has ended, if it has aborted anything.
fn replay_control(
    producers: &mut Producers,
    batch: &Batch,
    now: Instant,
) -> io::Result<Option<AbortedTxn>> {
    let control = ControlRecord::of_batch(batch);
    let control = control.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    let (coordinator_epoch, abort) = match control {
        Some(ControlRecord::EndTxn {
            result,
            coordinator_epoch,
        }) => (Some(coordinator_epoch), result == EndTxn::Abort),
        Some(ControlRecord::Other(_)) => return Ok(None),
        // Kafka's cleaner has emptied it: nothing is left of its transaction.
        None => (None, false),
    };
    let header = &batch.header;
    let marker = AppendedMarker {
        producer_id: header.producer_id,
        epoch: header.producer_epoch,
        coordinator_epoch,
        offset: header.base_offset,
        timestamp: header.max_timestamp,
    };
    let first_offset = producers.apply_marker(&marker, now);
    let aborted = first_offset.filter(|_| abort).map(|first_offset| {
        let open = producers.first_open_offset();
        AbortedTxn {
            producer_id: marker.producer_id,
            first_offset,
            last_offset: marker.offset,
            last_stable_offset: open.unwrap_or(marker.offset + 1),
        }
    });
    Ok(aborted)
}
