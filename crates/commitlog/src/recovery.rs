//! From files to a [`Log`], after a clean shutdown or a crash.
//!
//! What the partition's checkpoint vouches for ([`crate::checkpoint`]) is taken as it is, at the
//! price of a few small reads per segment; what lies past its recovery point is read and checked
//! batch by batch, and the log ends before the first one that does not check. So the time that it
//! takes depends on what was not checkpointed, not on the log. In order:
//!
//! 0. Sync the directory: the last process may have been killed between renaming a checkpoint and
//!    syncing its name, and nothing may be done on the strength of one that can still vanish.
//! 1. Finish or undo what a crash interrupted: swaps of a compaction, deletions, temporary files.
//! 2. Compare the segments with the checkpoint. Something missing or short below the recovery
//!    point is data that was acknowledged and is gone: refused, in words, and nothing is changed.
//! 3. Sealed segments below the recovery point: check that the index files fit, else rebuild them.
//! 4. Past it: scan. At a flaw (length, magic, CRC, offsets that do not follow on), remove the
//!    segments after it, the last first, and cut the file. Rebuild indexes.
//! 5. Sync what was scanned: readers may see it from now on, so it must not vanish any more.
//!
//! Without a checkpoint (a young log, or damage to that file) the whole log is scanned; after a
//! clean shutdown only headers are read. If the file is damaged, gaps in the offsets are taken for
//! compaction's work; if there is none, the log was never compacted and ends at the first gap, unless
//! its first segments are gone and it has an epoch file: then it once had one, or is another's.
//!
//! Idempotent: a crash anywhere in here leaves files that recover to the same log. Producers are
//! not known here: [`replay_batches`] gives them the batches that they have to see, and
//! [`restore_aborted`] takes from them the aborted transactions that no file told of.

mod aborted;
mod directory;
mod replay;
mod segments;

use crate::checkpoint::{Checkpoint, Point};
use crate::config::LogConfig;
use crate::disk::{Disk, read_file};
use crate::epochs::LeaderEpochs;
use crate::execute::execute_step;
use crate::file_names::{CHECKPOINT, LEADER_EPOCH_CHECKPOINT, PARTITION_METADATA, in_dir};
use crate::limits;
use crate::log::Log;
use crate::partition_metadata;
use crate::segment::{RecentBatches, Segment};
use oncelog_wire::Uuid;
use oncelog_wire::clock::Now;
use std::io;

pub use aborted::restore_aborted;
pub use replay::replay_batches;

#[derive(Debug)]
pub struct Recovered {
    pub log: Log,
    /// What `partition.metadata` says; `None` if it is missing or says nothing.
    pub topic_id: Option<Uuid>,
    /// The aborted transactions that end below are known. Those from here on have to be found again in
    /// the log (see [`restore_aborted`]): `.txnindex` files have no checksums of their own, and the
    /// checkpoint has those of what lies below its recovery point.
    pub aborted_known_to: i64,
    /// Where offsets are missing for the first time and no checkpoint says that they were compacted
    /// away: appends that a crash took may have been there, in front of ones that were quicker.
    pub first_gap: Option<i64>,
    pub report: RecoveryReport,
}

/// What recovery found and did, for the operator.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// Bytes that were read and checked because no checkpoint covers them.
    pub scanned_bytes: u64,
    /// Bytes that were cut away, whole segments included.
    pub truncated_bytes: u64,
    pub rebuilt_indexes: usize,
    notes: Vec<String>,
}

impl RecoveryReport {
    /// Lines for the operator, each beginning with the log's name. Empty if all was as it should
    /// be.
    pub fn notes(&self, dir: &str) -> Vec<String> {
        self.notes
            .iter()
            .map(|note| format!("{dir}: {note}"))
            .collect()
    }

    fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }
}

/// Why a log cannot be opened. Except for `Io`, all say that data which was synced once is not
/// what it was; nothing has been changed then that was part of the log.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    #[error("{file}: {source}")]
    Io { file: String, source: io::Error },
    #[error(
        "{file} is missing: the checkpoint says that it holds {bytes} bytes of synced records. \
         Restore it from a copy, or delete the partition's directory to give its records up"
    )]
    Missing { file: String, bytes: u64 },
    #[error(
        "{file} has {found} bytes, and the checkpoint says that {expected} were synced. Restore it \
         from a copy, or delete the partition's directory to give its records up"
    )]
    WrongSize {
        file: String,
        expected: u64,
        found: u64,
    },
    #[error(
        "{file} is not one of the segments that the checkpoint counts, and overlaps them. If it was \
         put there by hand, take it away"
    )]
    Unexpected { file: String },
    #[error(
        "{file} is damaged at byte {position}, where synced records were: {what}. Restore it from a \
         copy, or delete the partition's directory to give its records up"
    )]
    Damaged {
        file: String,
        position: u64,
        what: String,
    },
}

impl RecoveryError {
    fn io(file: &str) -> impl Fn(io::Error) -> RecoveryError {
        move |source| RecoveryError::Io {
            file: file.to_owned(),
            source,
        }
    }
}

type Result<T> = std::result::Result<T, RecoveryError>;

/// Recovers the log in `dir`; an empty or missing directory gives an empty log.
///
/// `clean_shutdown`: the last process to write here said that it had synced everything.
pub fn recover(
    disk: &dyn Disk,
    dir: &str,
    config: LogConfig,
    clean_shutdown: bool,
    now: Now,
) -> Result<Recovered> {
    let mut report = RecoveryReport::default();
    let never_checkpointed = !exists(disk, dir, CHECKPOINT)?;
    let checkpoint = read_checkpoint(disk, dir, &mut report)?;
    if checkpoint.is_some() {
        disk.sync_dir(dir).map_err(RecoveryError::io(dir))?;
    }
    directory::finish_interrupted(disk, dir, checkpoint.as_ref(), &mut report)?;
    let found = directory::find_segments(disk, dir, checkpoint.as_ref(), &mut report)?;
    // Segments at the front are deleted after a checkpoint, and that comes after the epochs: without
    // one, this directory is another program's, or the checkpoint is lost.
    let at_zero = found.first().is_none_or(|segment| segment.base_offset == 0);
    let young = never_checkpointed && (at_zero || !exists(disk, dir, LEADER_EPOCH_CHECKPOINT)?);
    let on_file = read_epochs(disk, dir, &mut report)?;
    let mut epochs = on_file.clone().unwrap_or_default();
    let (loaded, first_gap, has_control) = {
        let mut loader = segments::Loader {
            disk,
            dir,
            config: &config,
            now,
            report: &mut report,
            epochs: &mut epochs,
            first_gap: None,
            has_control: false,
        };
        let load = match &checkpoint {
            Some(checkpoint) => loader.load_checkpointed(&found, checkpoint),
            None => loader.load_all(&found, clean_shutdown, young),
        };
        (load?, loader.first_gap, loader.has_control)
    };
    if checkpoint.is_none() {
        note_gap(first_gap, &loaded, &mut report);
    }
    let mut log = assemble(dir, config, loaded, checkpoint.as_ref(), now);
    let end = log.end_offset();
    epochs.truncate_from_end(end);
    log.epochs = epochs;
    let all_scanned = checkpoint.is_none() && !clean_shutdown;
    if on_file.is_none() && !all_scanned && end > log.start_offset {
        rebuild_epochs(disk, &mut log)?;
    }
    log.epochs.truncate_from_start(log.start_offset);
    log.epochs_changed = log.epochs != on_file.unwrap_or_default();
    let sound = aborted::load(disk, &mut log, &found, checkpoint.as_ref(), &mut report)?;
    let aborted_known_to = match &checkpoint {
        Some(checkpoint) if sound && has_control => checkpoint.recovery_point.offset,
        Some(_) if sound => end,
        _ => log.start_offset,
    };
    if log.start_offset > end {
        log = restart_at(disk, log, now, &mut report)?;
    }
    let topic_id = read_small(disk, dir, PARTITION_METADATA)?;
    Ok(Recovered {
        topic_id: topic_id.as_deref().and_then(partition_metadata::decode),
        aborted_known_to,
        first_gap,
        log,
        report,
    })
}

/// Says where offsets are missing for the first time, in what was scanned or between segments.
fn note_gap(first_gap: Option<i64>, segments: &[Segment], report: &mut RecoveryReport) {
    let mut pairs = segments.windows(2);
    let between = pairs.find(|pair| pair[0].next_offset < pair[1].base_offset);
    if let Some(gap) = first_gap.or(between.map(|pair| pair[0].next_offset)) {
        report.note(format!(
            "batches from offset {gap} on are missing, and no checkpoint says that they were compacted \
             away"
        ));
    }
}

fn read_checkpoint(
    disk: &dyn Disk,
    dir: &str,
    report: &mut RecoveryReport,
) -> Result<Option<Checkpoint>> {
    let Some(content) = read_small(disk, dir, CHECKPOINT)? else {
        return Ok(None);
    };
    let checkpoint = Checkpoint::decode(&content);
    if checkpoint.is_none() {
        report.note(format!("{CHECKPOINT} is damaged; the whole log is scanned"));
    }
    Ok(checkpoint)
}

/// The epochs on file; `None` if there is no such file or it is damaged.
fn read_epochs(
    disk: &dyn Disk,
    dir: &str,
    report: &mut RecoveryReport,
) -> Result<Option<LeaderEpochs>> {
    let Some(content) = read_small(disk, dir, LEADER_EPOCH_CHECKPOINT)? else {
        return Ok(None);
    };
    let epochs = LeaderEpochs::decode(&content);
    if epochs.is_none() {
        report.note(format!(
            "{LEADER_EPOCH_CHECKPOINT} is damaged; rebuilt from the log"
        ));
    }
    Ok(epochs)
}

fn rebuild_epochs(disk: &dyn Disk, log: &mut Log) -> Result<()> {
    let mut epochs = LeaderEpochs::default();
    replay_batches(disk, log, log.start_offset, &mut |header, _| {
        epochs.assign(header.partition_leader_epoch, header.base_offset);
        Ok(())
    })
    .map_err(RecoveryError::io(&log.dir))?;
    log.epochs = epochs;
    Ok(())
}

fn exists(disk: &dyn Disk, dir: &str, name: &str) -> Result<bool> {
    let file = in_dir(dir, name);
    let length = disk.len(&file).map_err(RecoveryError::io(&file))?;
    Ok(length.is_some())
}

fn read_small(disk: &dyn Disk, dir: &str, name: &str) -> Result<Option<Vec<u8>>> {
    let file = in_dir(dir, name);
    let content = read_file(disk, &file, limits::CHECKPOINT_FILE_BYTES_MAX);
    content.map_err(RecoveryError::io(&file))
}

fn assemble(
    dir: &str,
    config: LogConfig,
    segments: Vec<Segment>,
    checkpoint: Option<&Checkpoint>,
    now: Now,
) -> Log {
    let mut log = Log::new(dir, config, 0, now);
    log.segments = segments.into();
    let active = log.active();
    assert!(
        active.index.is_some(),
        "the loader leaves the last segment's index in memory"
    );
    let (end, active_bytes) = (active.end(), active.size);
    log.active_file = active.log_file(dir);
    log.recent = RecentBatches::default();
    log.sealed_bytes = log.segments.iter().map(|s| s.size).sum::<u64>() - active_bytes;
    log.completions = crate::completions::Completions::new(end);
    let first = log
        .segments
        .front()
        .expect("there is an active segment")
        .base_offset;
    let unknown = Point {
        offset: first,
        segment: first,
        position: 0,
    };
    log.start_offset = checkpoint.map_or(first, |c| c.log_start_offset);
    log.checkpointed = checkpoint.map_or(unknown, |c| c.recovery_point);
    log.has_checkpoint = checkpoint.is_some();
    let dirty = checkpoint.map_or(first, |c| c.first_dirty_offset);
    log.cleaner = crate::compaction::Cleaner::new(dirty.clamp(first, end.offset.max(first)));
    log
}

/// The log lost records that were not synced, and its start lies past what is left: it begins
/// anew, empty, at that start.
fn restart_at(disk: &dyn Disk, lost: Log, now: Now, report: &mut RecoveryReport) -> Result<Log> {
    report.note(format!(
        "the log ends at offset {}, before its start {}, where it now begins anew",
        lost.end_offset(),
        lost.start_offset
    ));
    report.truncated_bytes += lost.size_bytes();
    let mut log = Log::new(&lost.dir, lost.config.clone(), lost.start_offset, now);
    log.epochs_changed = true;
    // The checkpoint first: once it counts no segments, those that are there lie below the start.
    for step in log.checkpoint_steps(None) {
        execute_step(disk, &step).map_err(RecoveryError::io(&log.dir))?;
    }
    let bases: Vec<i64> = lost.segments.iter().map(|s| s.base_offset).collect();
    directory::remove_segments(disk, &log.dir, &bases)?;
    Ok(log)
}
