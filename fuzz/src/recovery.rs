//! Recovery of a partition from files that were damaged in any way.
//!
//! A story makes the files (appends by idempotent producers, restarts, retention, compaction, a
//! crash), damage is done to them, and the partition is opened. Asserted:
//!
//! - nothing panics, and where no segment was touched the partition opens;
//! - nothing is served past the recovery point that was not appended so, byte for byte; nothing at
//!   all if no checkpoint vouches for anything;
//! - what was acknowledged and lies before the first damage is served, and below the recovery point
//!   also what lies in segments that were not touched;
//! - no producer's newest sequence is forgotten where no segment was touched, and of a log that is
//!   whole, neither compacted nor deleted from, the transactions are known that its batches say;
//! - recovery is idempotent: after a power cut behind it, or in the middle of it, a second one finds
//!   the same;
//! - the partition works afterwards: appends, retention, compaction, another restart.
//!
//! Not asserted: what is served below the recovery point from a segment whose bytes rotted (it is
//! not read again at the start; the client's CRC check finds it), and what forged checksums lead
//! to, as long as nothing panics and a second recovery agrees.

mod damage;
mod look;
mod story;

use crate::partition_world::{DIR, World};
use bytes::Bytes;
use look::{Placed, Seen, batch_at, live_logs, look, placed};
use oncelog_commitlog::testing::MemoryDisk;
use oncelog_commitlog::{Disk, DiskOp, execute};
use oncelog_partition::{Identity, Partition, RecoveryError, Work};
use oncelog_wire::Uuid;
use oncelog_wire::clock::Now;
use oncelog_wire::records::{BatchBuilder, ControlRecord, EndTxn, check_produced};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use story::Story;

pub fn run(input: &[u8]) {
    let Some(story) = Story::read(input) else {
        return;
    };
    let before = Before::of(&story);
    let done = damage::apply(&before.disk, &story.damage);
    let after = After::of(&before, done);
    let interrupted = (story.interrupt > 0).then(|| before.disk.fork());
    let (opened, seen) = match before.open(&before.disk) {
        Ok(partition) => {
            let seen = look(&before.disk, &partition);
            after.check(&before, &partition, &seen);
            (Some(partition), Ok(seen))
        }
        Err(error) => {
            assert!(!after.must_open(), "refused: {error}\n{story:?}");
            (None, Err(error))
        }
    };
    if let Some(disk) = interrupted {
        disk.cut_power_after(u64::from(story.interrupt));
        let _ = before.open(&disk);
        disk.crash(u64::from(story.seed));
        let again = before.open(&disk).map(|partition| look(&disk, &partition));
        same(&seen, &again, "after an interrupted recovery");
    }
    if let Some(partition) = opened {
        let disk = before.disk.fork();
        disk.crash(u64::from(story.seed));
        let again = before.open(&disk).map(|partition| look(&disk, &partition));
        same(&seen, &again, "after a second recovery");
        go_on(
            &before,
            partition,
            !after.touched && !after.checkpoint_lost && !done.forged,
        );
    }
}

fn same(one: &Result<Seen, RecoveryError>, other: &Result<Seen, RecoveryError>, when: &str) {
    match (one, other) {
        (Ok(one), Ok(other)) => assert_eq!(one, other, "{when}"),
        (Err(_), Err(_)) => {}
        _ => panic!("{when}: {one:?}\n{other:?}"),
    }
}

/// The files as the process left them, and what they hold.
struct Before {
    disk: MemoryDisk,
    now: Now,
    clean: bool,
    leader_epoch: i32,
    config: oncelog_partition::PartitionConfig,
    seen: Seen,
    logs: BTreeMap<i64, Bytes>,
    batches: Vec<Placed>,
    /// What follows base offset, length and epoch in every batch that was ever written.
    bodies: BTreeSet<Bytes>,
    checkpoint: Option<Vec<u8>>,
    epochs: Option<Vec<u8>>,
    metadata: Option<Vec<u8>>,
    names: Vec<String>,
}

impl Before {
    fn of(story: &Story) -> Before {
        let mut world = story.play();
        if story.ends_clean() {
            world.complete_all();
        }
        let partition = world.partition.as_ref().expect("it runs");
        let mut seen = look(&world.disk, partition);
        // Of a batch that is not acknowledged nothing is promised.
        seen.producers.retain(|(.., offset)| *offset < seen.end);
        match story.ends_clean() {
            true => world.shut_down(),
            false if story.settings >> 4 & 3 == 1 => world.power_cut(u64::from(story.seed)),
            false => world.kill(),
        }
        world.disk.sync_everything();
        let World {
            disk,
            now,
            config,
            leader_epoch,
            ..
        } = world;
        let logs = live_logs(&disk);
        let batches = placed(&logs);
        for batch in &seen.batches {
            let on_disk = batches.iter().any(|placed| placed.batch == *batch);
            assert!(on_disk, "acknowledged and not on disk: {:?}", batch.header);
        }
        Before {
            clean: story.ends_clean(),
            bodies: batches
                .iter()
                .map(|placed| body(&placed.batch.bytes))
                .collect(),
            checkpoint: disk.content(&format!("{DIR}/oncelog-checkpoint")),
            epochs: disk.content(&format!("{DIR}/leader-epoch-checkpoint")),
            metadata: disk.content(&format!("{DIR}/partition.metadata")),
            names: log_names(&disk),
            disk,
            now,
            leader_epoch,
            config,
            seen,
            logs,
            batches,
        }
    }

    /// As the process that comes next opens it.
    fn open(&self, disk: &MemoryDisk) -> Result<Partition, RecoveryError> {
        self.open_after(disk, self.clean)
    }

    fn open_after(&self, disk: &MemoryDisk, clean: bool) -> Result<Partition, RecoveryError> {
        let identity = Identity {
            topic: "orders".into(),
            index: 0,
            topic_id: Uuid([7; 16]),
            leader_epoch: self.leader_epoch,
        };
        let config = self.config.clone();
        let opened = Partition::open(disk, identity, config, clean, self.now)?;
        Ok(opened.partition)
    }

    /// Up to where the checkpoint says that everything was synced.
    fn recovery_point(&self) -> i64 {
        let text = String::from_utf8_lossy(self.checkpoint.as_deref().unwrap_or_default());
        let mut lines = text.lines();
        let point = lines.find_map(|line| line.strip_prefix("recovery-point "));
        let offset = point.and_then(|point| point.split(' ').next()?.parse().ok());
        offset.unwrap_or(0)
    }
}

/// What the damage did, as far as recovery's promises depend on it.
struct After {
    done: damage::Done,
    /// A segment's bytes or name changed, or there is a new file that means something.
    touched: bool,
    names_changed: bool,
    checkpoint_changed: bool,
    checkpoint_lost: bool,
    metadata_changed: bool,
    /// Everything below is taken as it is.
    trusted: i64,
    /// The first batch that is not where it was, or has something else before it.
    first_damage: i64,
    intact: BTreeSet<i64>,
}

impl After {
    fn of(before: &Before, done: damage::Done) -> After {
        let disk = &before.disk;
        let logs = live_logs(disk);
        let checkpoint = disk.content(&format!("{DIR}/oncelog-checkpoint"));
        let checkpoint_changed = checkpoint != before.checkpoint;
        let trusted = match (&before.checkpoint, checkpoint_changed) {
            (Some(_), false) => before.recovery_point(),
            _ if before.clean => i64::MAX,
            _ => 0,
        };
        let names_changed = log_names(disk) != before.names;
        let metadata = disk.content(&format!("{DIR}/partition.metadata"));
        let epochs = disk.content(&format!("{DIR}/leader-epoch-checkpoint"));
        // With all records deleted, these two files alone know where the log ends.
        let end_forgotten = logs.is_empty() && checkpoint_changed && epochs != before.epochs;
        let same = |segment: &i64| logs.get(segment) == before.logs.get(segment);
        let intact = before.logs.keys().filter(|segment| same(segment));
        After {
            done,
            touched: logs != before.logs || names_changed,
            names_changed,
            checkpoint_changed,
            checkpoint_lost: before.checkpoint.is_some()
                && (end_forgotten
                    || checkpoint.is_none()
                        && (before.config.log.cleanup_compact || epochs.is_none())),
            metadata_changed: metadata != before.metadata,
            trusted,
            first_damage: first_damage(before, &logs),
            intact: intact.copied().collect(),
        }
    }

    fn must_open(&self) -> bool {
        !self.touched && !self.metadata_changed && !self.done.forged
    }

    fn check(&self, before: &Before, partition: &Partition, seen: &Seen) {
        if self.done.forged {
            return;
        }
        self.check_served(before, seen);
        // Without its checkpoint a compacted log ends at its first gap, and one without epochs is
        // taken for a young one; what looks like a compaction's result is put in place.
        if self.names_changed || self.checkpoint_lost {
            return;
        }
        for placed in &before.batches {
            let offset = placed.batch.header.base_offset;
            let promised =
                placed.batch.header.last_offset() < before.seen.end && offset >= before.seen.start;
            let untouched = self.intact.contains(&placed.segment);
            let kept = offset < self.first_damage || (offset < self.trusted && untouched);
            if promised && kept {
                assert!(
                    seen.start <= offset && offset < seen.end,
                    "{offset} of {seen:?}"
                );
                let found = batch_at(&before.disk, partition, offset);
                assert_eq!(found.as_ref(), Some(&placed.batch), "at {offset}");
            }
        }
        if !self.touched {
            assert!(
                seen.end >= before.seen.end,
                "{} of {}",
                seen.end,
                before.seen.end
            );
            if !self.checkpoint_changed {
                assert_eq!(seen.start, before.seen.start);
            }
            if !self.done.copied {
                self.check_producers(before, seen);
                check_transactions(before, seen);
            }
        }
    }

    /// Nothing but what was appended, unless it is taken on trust.
    fn check_served(&self, before: &Before, seen: &Seen) {
        for batch in &seen.batches {
            let offset = batch.header.base_offset;
            if offset < self.trusted {
                continue;
            }
            assert!(batch.check_crc().is_ok(), "a bad CRC is served at {offset}");
            assert!(
                before.bodies.contains(&body(&batch.bytes)),
                "made up at {offset}"
            );
        }
        if self.trusted == 0 {
            assert_eq!(seen.unreadable, Vec::<i64>::new());
        }
    }

    fn check_producers(&self, before: &Before, seen: &Seen) {
        for newest in &before.seen.producers {
            let (id, epoch, sequence, offset) = newest;
            // Of one whose records are all deleted, a snapshot alone knows.
            let in_log = before.batches.iter().any(|placed| {
                placed.batch.header.producer_id == *id
                    && placed.batch.header.last_offset() == *offset
                    && *offset >= seen.start
            });
            if !in_log {
                continue;
            }
            let found = seen.producers.iter().find(|(found, ..)| found == id);
            let known = found.is_some_and(|(_, e, s, o)| {
                (e, o) == (epoch, offset) && s == sequence || o > offset
            });
            assert!(known, "{newest:?} was forgotten: {found:?}");
        }
    }
}

/// Open and aborted transactions are those that the batches make.
fn check_transactions(before: &Before, seen: &Seen) {
    if before.config.log.cleanup_compact || seen.start > 0 || !seen.unreadable.is_empty() {
        return;
    }
    let (mut open, mut aborted) = (BTreeMap::new(), Vec::new());
    for batch in &seen.batches {
        let header = &batch.header;
        if !header.is_transactional() {
            continue;
        }
        if !header.is_control() {
            open.entry(header.producer_id).or_insert(header.base_offset);
            continue;
        }
        let first = open.remove(&header.producer_id);
        if let Some(ControlRecord::EndTxn { result, .. }) =
            ControlRecord::of_batch(batch).expect("is sound")
        {
            let first = first.filter(|_| result == EndTxn::Abort);
            aborted.extend(first.map(|first: i64| (header.producer_id, first)));
        }
    }
    let mut known: Vec<(i64, i64)> = seen.open.clone();
    known.sort_unstable();
    let open: Vec<(i64, i64)> = open.into_iter().collect();
    assert_eq!(known, open, "open transactions");
    let first_open = open.iter().map(|(_, first)| *first).min();
    assert_eq!(seen.last_stable_offset, first_open.unwrap_or(seen.end));
    aborted.retain(|(_, first)| *first < seen.last_stable_offset);
    aborted.sort_unstable();
    assert_eq!(seen.aborted, aborted);
}

/// What no log changes in a batch: the part behind base offset, length and epoch.
fn body(batch: &Bytes) -> Bytes {
    batch.slice(16..)
}

/// Names that mean a segment, or that one is about to be.
fn log_names(disk: &MemoryDisk) -> Vec<String> {
    let mut names = disk.list(DIR).expect("the directory is there");
    names.retain(|name| name.ends_with(".log") || name.ends_with(".swap"));
    names
}

fn first_damage(before: &Before, logs: &BTreeMap<i64, Bytes>) -> i64 {
    let mut longer = BTreeSet::new();
    for placed in &before.batches {
        let offset = placed.batch.header.base_offset;
        // Something follows what an earlier segment held: it ends there.
        if longer.range(..placed.segment).next().is_some() {
            return offset;
        }
        let content = logs.get(&placed.segment).cloned().unwrap_or_default();
        let end = placed.at + placed.batch.bytes.len();
        if content.get(placed.at..end) != Some(&placed.batch.bytes[..]) {
            return offset;
        }
        if content.len() > before.logs[&placed.segment].len() {
            longer.insert(placed.segment);
        }
    }
    i64::MAX
}

/// The broker runs again: appends, and all that is done between requests, a day on. Where nothing
/// was damaged all of that succeeds.
fn go_on(before: &Before, mut partition: Partition, sound: bool) {
    let disk = &before.disk;
    let mut now = before.now;
    let mut builder = BatchBuilder::new();
    builder.append(now.wall_ms, Some(b"after"), Some(b"the damage"), &[]);
    let batch = check_produced(&builder.build(), 9).expect("a sound batch");
    let appended = partition
        .append_from_client(now, &batch, None)
        .expect("a sound batch");
    let mut well = carry_out(disk, &mut partition, now, appended.work);
    for _ in 0..3 {
        now.instant = now.instant.plus_ms(8 * 3_600_000);
        now.wall_ms += 8 * 3_600_000;
        let mut work = partition.apply_retention(now);
        work.extend(partition.housekeeping(now));
        work.extend(partition.compact(now));
        well = well && carry_out(disk, &mut partition, now, work);
        if !well {
            break; // the host stops at a write that fails
        }
    }
    assert!(well || !sound, "disk work failed, and nothing was damaged");
    let end = partition.high_watermark();
    drop(partition);
    match before.open_after(disk, false) {
        Ok(partition) => assert!(!sound || partition.log_end_offset() >= end),
        Err(error) => assert!(!sound, "refused after it had run: {error}"),
    }
}

/// False if the disk refused a write: then the broker stops.
fn carry_out(disk: &MemoryDisk, partition: &mut Partition, now: Now, work: Vec<Work>) -> bool {
    let mut queue = VecDeque::from(work);
    while let Some(Work { op, completes }) = queue.pop_front() {
        match execute(disk, &op) {
            Ok(outcome) => queue.extend(partition.work_done(now, completes, outcome).work),
            Err(_) if matches!(op, DiskOp::Compact(_)) => partition.compaction_failed(now),
            Err(_) => return false,
        }
    }
    true
}

/// For each kind of end and each kind of settings, a story without damage; and one for each kind of
/// damage to each of the first files.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut events = Vec::new();
    for round in 0..3u8 {
        for i in 0..5 {
            events.push([0, i | round << 2, i * 40]);
        }
        events.push([4, 6, 0]);
        events.push([[5, 0, 0], [7, 0, 0], [6, 3, 0]][usize::from(round)]);
    }
    let story = |settings: u8, damage: &[[u8; 6]]| {
        let head = [settings, 5, 3, events.len() as u8];
        [&head[..], &events.concat(), &damage.concat()].concat()
    };
    let mut seeds: Vec<Vec<u8>> = (0..64).map(|settings| story(settings, &[])).collect();
    for file in 0..8 {
        for kind in 0..10 {
            seeds.push(story(0, &[[file, kind, 0, 30, 3, 7]]));
            seeds.push(story(0x15, &[[file, kind, 0, 90, 1, 9]]));
        }
    }
    seeds
}
