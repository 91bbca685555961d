//! Aborted transactions: their files, what compaction makes of them, and that neither is lost.

use super::world::{DIR, START_MS, World, rec, small_config};
use crate::testing::Random;
use crate::{AbortedTxn, Disk, DiskOp, DiskOutcome, LogConfig, execute, restore_aborted};
use oncelog_wire::records::{Batch, BatchBuilder, EndTxn};
use std::collections::{BTreeMap, BTreeSet};

fn compacted() -> LogConfig {
    LogConfig {
        cleanup_delete: false,
        cleanup_compact: true,
        min_cleanable_dirty_ratio: 0.0,
        delete_retention_ms: 5000,
        file_delete_delay_ms: 0,
        segment_bytes: 300,
        ..small_config()
    }
}

/// A log, and what its partition knows of transactions.
struct Producing {
    world: World,
    open: BTreeMap<i64, i64>,
    /// Every transaction that was ever aborted.
    aborted: Vec<AbortedTxn>,
}

impl Producing {
    fn new(config: LogConfig) -> Producing {
        Producing {
            world: World::new(config),
            open: BTreeMap::new(),
            aborted: Vec::new(),
        }
    }

    fn data(&mut self, producer_id: i64, key: &str) -> i64 {
        let mut batch = BatchBuilder::new()
            .producer(producer_id, 0, 0)
            .transactional(true);
        let timestamp = self.world.now.wall_ms;
        batch.append(timestamp, Some(key.as_bytes()), Some(&[b'v'; 20]), &[]);
        let (offset, _) = self.world.append(&batch.build());
        self.world.run();
        self.open.entry(producer_id).or_insert(offset);
        offset
    }

    fn end(&mut self, producer_id: i64, result: EndTxn) {
        let timestamp = self.world.now.wall_ms;
        let marker = BatchBuilder::end_txn_marker(timestamp, producer_id, 0, result, 0);
        let (offset, _) = self.world.append(&marker);
        self.world.records.remove(&offset);
        let first_offset = self.open.remove(&producer_id).unwrap();
        if result == EndTxn::Abort {
            let first_open = self.open.values().min();
            let aborted = AbortedTxn {
                producer_id,
                first_offset,
                last_offset: offset,
                last_stable_offset: first_open.copied().unwrap_or(offset + 1),
            };
            self.world.log.note_aborted(aborted);
            self.aborted.push(aborted);
        }
        self.world.run();
    }

    /// Fills the active segment until all before it is sealed.
    fn seal(&mut self) {
        let sealed = self.world.log.end_offset();
        while self.world.log.active_base_offset() < sealed {
            let filler = super::world::rec(self.world.now.wall_ms, "filler", Some("x"));
            self.world.write(&[filler]);
        }
    }

    fn recover(&mut self) {
        let world = &mut self.world;
        world.kill();
        let config = world.log.config().clone();
        let recovery_point = world.log.checkpointed.offset;
        let recovered = crate::recover(&world.disk, DIR, config, false, world.now).unwrap();
        let notes = recovered.report.notes(DIR);
        world.log = recovered.log;
        let known_to = recovered.aborted_known_to;
        assert!(known_to >= recovery_point, "{known_to}: {notes:?}");
        let since = self.aborted.iter().filter(|a| a.last_offset >= known_to);
        let since: Vec<AbortedTxn> = since.copied().collect();
        restore_aborted(&world.disk, &mut world.log, known_to, &since).unwrap();
    }

    fn batches(&self) -> Vec<Batch> {
        let log = &self.world.log;
        self.world
            .read_batches(log.start_offset(), log.end_offset(), 1 << 20)
    }

    /// What is in the log and not the filler: `offset` of data, `offset!` of markers.
    fn shown(&self) -> String {
        let batches = self.batches();
        let ours = batches.iter().filter(|b| b.header.is_transactional());
        let shown = ours.map(|batch| match batch.header.is_control() {
            true => format!("{}!", batch.header.base_offset),
            false => batch.header.base_offset.to_string(),
        });
        shown.collect::<Vec<_>>().join(" ")
    }

    fn listed(&self) -> Vec<i64> {
        let all = self.world.log.aborted_transactions(0, i64::MAX);
        all.iter().map(|aborted| aborted.last_offset).collect()
    }

    /// Aborted data that is still there is listed, and whatever is listed ends with a marker; the
    /// files of sealed segments say what memory says.
    fn check(&self) {
        let batches = self.batches();
        let listed = self.world.log.aborted_transactions(0, i64::MAX);
        for aborted in &self.aborted {
            let there = batches.iter().any(|batch| {
                let header = &batch.header;
                let within = aborted.first_offset..aborted.last_offset;
                header.producer_id == aborted.producer_id && within.contains(&header.base_offset)
            });
            assert!(!there || listed.contains(aborted), "{aborted:?} not listed");
        }
        let start = self.world.log.start_offset();
        for aborted in listed.iter().filter(|a| a.last_offset >= start) {
            let offset = aborted.last_offset;
            let marker = batches.iter().find(|b| b.header.base_offset == offset);
            assert!(marker.is_some_and(|b| b.header.is_control()), "{aborted:?}");
        }
        let active = self.world.log.active_base_offset();
        for segment in self.world.log.segments.iter() {
            let file = segment.txn_index_file(DIR);
            let content = self.world.disk.content(&file).unwrap_or_default();
            let expected = crate::aborted::encode(&segment.aborted);
            assert!(
                segment.base_offset == active || content == expected,
                "{file} differs"
            );
        }
    }
}

#[test]
fn markers_outlive_their_data_and_lists_do_not() {
    let mut producing = Producing::new(compacted());
    producing.data(7, "a");
    producing.data(8, "b");
    producing.end(7, EndTxn::Abort);
    producing.data(7, "a");
    producing.data(7, "a");
    producing.end(8, EndTxn::Commit);
    producing.end(7, EndTxn::Commit);
    producing.seal();
    assert_eq!(producing.shown(), "0 1 2! 3 4 5! 6!");
    producing.world.compact(&[]);
    assert_eq!(producing.shown(), "1 2! 4 5! 6!");
    assert_eq!(producing.listed(), [2], "as this pass met the data");
    producing.check();

    producing.data(9, "b");
    producing.end(9, EndTxn::Commit);
    producing.seal();
    producing.world.compact(&[]);
    let horizon = |producing: &Producing, offset| {
        let batches = producing.batches();
        let marker = batches.iter().find(|b| b.header.base_offset == offset);
        marker.unwrap().header.delete_horizon_ms()
    };
    assert_eq!(producing.listed(), [0i64; 0]);
    assert!(horizon(&producing, 2).is_some());
    assert_eq!(horizon(&producing, 5), None, "its data was there until now");
    let marker = producing.batches();
    let marker = marker.iter().find(|b| b.header.base_offset == 2).unwrap();
    marker.check_crc().unwrap();
    producing.check();

    producing.world.pass_ms(5000);
    producing.data(9, "c");
    producing.end(9, EndTxn::Commit);
    producing.seal();
    producing.world.compact(&[]);
    assert!(producing.shown().starts_with("4 5! 6!"));
    producing.check();
    producing.recover();
    producing.check();
}

#[test]
fn a_marker_that_is_a_producers_last_batch_stays_whole() {
    let mut producing = Producing::new(compacted());
    producing.data(7, "a");
    producing.end(7, EndTxn::Abort);
    for round in 0..4 {
        producing.world.pass_ms(5000);
        producing.data(8, "b");
        producing.end(8, EndTxn::Commit);
        producing.seal();
        let keep: &[i64] = if round < 3 { &[1] } else { &[] };
        producing.world.compact(keep);
        let stays = producing.shown().starts_with("1! ");
        assert_eq!(stays, round < 3, "round {round}");
    }
}

/// One pass takes the groups one by one: a transaction may span them.
#[test]
fn a_transaction_across_groups_is_one() {
    let mut producing = Producing::new(compacted());
    for i in 0..12 {
        producing.data(7, &format!("k{i}"));
        producing.data(8, &format!("k{i}"));
    }
    producing.end(7, EndTxn::Abort);
    producing.end(8, EndTxn::Commit);
    producing.seal();
    assert!(producing.world.compact(&[]) > 3);
    let committed = (0..12).map(|i| (2 * i + 1).to_string());
    let committed = committed.collect::<Vec<_>>().join(" ");
    assert_eq!(producing.shown(), format!("{committed} 24! 25!"));
    assert_eq!(producing.listed(), [24]);
    producing.check();
}

#[test]
fn deletion_takes_lists_and_files_along() {
    let mut producing = Producing::new(LogConfig {
        segment_bytes: 300,
        file_delete_delay_ms: 0,
        ..small_config()
    });
    for _ in 0..10 {
        producing.data(7, "a");
        producing.end(7, EndTxn::Abort);
    }
    producing.seal();
    let now = producing.world.now;
    let ops = producing.world.log.delete_records_before(11, now);
    producing.world.emit(ops);
    producing.world.run();
    producing.world.pass_ms(1);
    producing.world.run();
    let start = producing.world.log.segments[0].base_offset;
    assert!(start > 0);
    let names = producing.world.file_names();
    let files = names.iter().filter(|name| name.contains(".txnindex"));
    let counts = producing.world.log.segments.iter();
    let counts = counts.filter(|s| !s.aborted.is_empty());
    assert_eq!(files.count(), counts.count(), "{names:?}");
    assert!(producing.listed().iter().all(|marker| *marker >= start));
    producing.check();
    producing.recover();
    producing.check();
}

#[test]
fn a_lost_or_damaged_file_is_noticed() {
    let sealed = |damage: &dyn Fn(&World, &str)| {
        let mut producing = Producing::new(small_config());
        for _ in 0..40 {
            producing.data(7, "a");
            producing.end(7, EndTxn::Abort);
        }
        producing.seal();
        let world = &mut producing.world;
        let ops = world.log.shut_down();
        world.emit(ops);
        world.run_steps();
        let files = world.file_names();
        let file = files.iter().find(|name| name.ends_with(".txnindex"));
        damage(world, &format!("{DIR}/{}", file.unwrap()));
        let config = world.log.config().clone();
        let recovered = crate::recover(&world.disk, DIR, config, true, world.now).unwrap();
        assert_eq!(recovered.aborted_known_to, recovered.log.start_offset());
        world.log = recovered.log;
        restore_aborted(&world.disk, &mut world.log, 0, &producing.aborted).unwrap();
        assert_eq!(producing.listed().len(), 40);
        producing.check();
        producing.recover();
        assert_eq!(producing.listed().len(), 40);
    };
    sealed(&|world, file| world.disk.remove(file).unwrap());
    sealed(&|world, file| world.disk.flip_bit(file, 9, 0));
    sealed(&|world, file| world.disk.flip_bit(file, 1, 0));
    sealed(&|world, file| world.disk.truncate(file, 34).unwrap());
    sealed(&|world, file| world.disk.truncate(file, 33).unwrap());
}

#[test]
fn without_a_checkpoint_nothing_vouches_for_the_files() {
    let mut world = World::new(small_config());
    world.write(&[rec(START_MS, "key", None)]);
    world.kill();
    let config = world.log.config().clone();
    let recovered = crate::recover(&world.disk, DIR, config, false, world.now).unwrap();
    assert_eq!(
        (recovered.aborted_known_to, recovered.log.end_offset()),
        (0, 1)
    );
}

/// The power goes after every single change that a pass makes to the disk.
#[test]
fn a_crash_at_every_step_of_a_pass_loses_no_outcome() {
    let mut seeds = Random::new(11);
    for cut in 0.. {
        let mut producing = Producing::new(compacted());
        for i in 0..9 {
            let producer_id = 7 + i % 3;
            producing.data(producer_id, &format!("k{}", i % 4));
            producing.data(producer_id, &format!("k{}", i % 5));
            let result = if i % 4 == 0 {
                EndTxn::Commit
            } else {
                EndTxn::Abort
            };
            producing.end(producer_id, result);
            if i == 4 {
                producing.seal();
                producing.world.compact(&[1]);
            }
        }
        producing.seal();
        producing.world.disk.cut_power_after(cut);
        let finished = pass_until_power_is_cut(&mut producing.world);
        producing.world.kill();
        producing.world.disk.crash(seeds.next_u64());
        producing.recover();
        producing.check();
        producing.recover();
        producing.check();
        producing.data(7, "k1");
        producing.end(7, EndTxn::Abort);
        producing.seal();
        producing.world.compact(&[]);
        producing.check();
        if finished {
            assert!(cut > 20, "a pass takes more than {cut} changes");
            return;
        }
    }
}

fn pass_until_power_is_cut(world: &mut World) -> bool {
    loop {
        let limit = world.log.end_offset();
        let Some(plan) = world
            .log
            .compaction_plan(world.now, limit, BTreeSet::from([4]))
        else {
            return true;
        };
        let Ok(outcome) = execute(&world.disk, &DiskOp::Compact(Box::new(plan))) else {
            return false;
        };
        let DiskOutcome::Compacted(outcome) = outcome else {
            panic!()
        };
        let ops = world.log.apply_compaction(*outcome, world.now);
        if ops.iter().any(|op| execute(&world.disk, op).is_err()) {
            return false;
        }
        world.log.compaction_installed();
    }
}
