//! What compaction keeps and removes, and that its swap survives a crash at every step.

use super::world::{DIR, Rec, World, batch_of, rec, small_config};
use crate::checkpoint::{Checkpoint, Swap};
use crate::testing::Random;
use crate::{Disk, DiskOp, DiskOutcome, LogConfig, execute};
use oncelog_wire::records::{Batch, BatchBuilder, Batches, Compression, TimestampType};
use std::collections::BTreeSet;

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

/// Writes each record as a batch of its own.
fn write_each(world: &mut World, records: &[(&str, Option<&str>)]) {
    for (key, value) in records {
        let timestamp = world.now.wall_ms;
        world.write(&[rec(timestamp, key, *value)]);
    }
}

/// Fills the active segment until it is rolled, so that all before it may be compacted.
fn seal(world: &mut World) {
    let sealed = world.log.end_offset();
    while world.log.active_base_offset() < sealed {
        write_each(world, &[("filler", Some(&"x".repeat(100)))]);
    }
}

/// `offset key=value`, without the filler.
fn shown(world: &World) -> Vec<String> {
    let text = |bytes: &Option<Vec<u8>>| match bytes {
        Some(bytes) => String::from_utf8(bytes.clone()).unwrap(),
        None => "null".to_owned(),
    };
    let records = world.read_records();
    let shown = records
        .iter()
        .filter(|(_, r)| r.key.as_deref() != Some(b"filler"));
    shown
        .map(|(offset, r)| format!("{offset} {}={}", text(&r.key), text(&r.value)))
        .collect()
}

fn batches(world: &World) -> Vec<Batch> {
    let (start, end) = (world.log.start_offset(), world.log.end_offset());
    world.read_batches(start, end, 1 << 20)
}

fn checkpoint_on_disk(world: &World) -> Checkpoint {
    let content = world.disk.content(&format!("{DIR}/oncelog-checkpoint"));
    Checkpoint::decode(&content.unwrap()).unwrap()
}

#[test]
fn the_last_value_of_each_key_stays_where_it_was() {
    let mut world = World::new(compacted());
    write_each(
        &mut world,
        &[("a", Some("1")), ("b", Some("1")), ("a", Some("2"))],
    );
    write_each(
        &mut world,
        &[("c", Some("1")), ("b", Some("2")), ("a", Some("3"))],
    );
    seal(&mut world);
    let end = world.log.end_offset();
    assert!(world.compact(&[]) > 0);
    assert_eq!(shown(&world), ["3 c=1", "4 b=2", "5 a=3"]);
    assert_eq!(world.log.end_offset(), end);
    assert_eq!(
        world.log.start_offset(),
        0,
        "compaction does not move the log's start"
    );
    assert_eq!(world.compact(&[]), 0, "nothing is dirty any more");
    world.restart_clean();
    assert_eq!(shown(&world), ["3 c=1", "4 b=2", "5 a=3"]);
}

#[test]
fn keys_that_are_not_written_again_stay_through_later_passes() {
    let mut world = World::new(compacted());
    write_each(&mut world, &[("a", Some("1")), ("b", Some("1"))]);
    seal(&mut world);
    world.compact(&[]);
    write_each(&mut world, &[("b", Some("2"))]);
    seal(&mut world);
    world.compact(&[]);
    let shown = shown(&world);
    assert_eq!(shown[0], "0 a=1");
    assert!(shown[1].ends_with("b=2"), "{shown:?}");
}

#[test]
fn records_without_a_key_go() {
    let mut world = World::new(compacted());
    let keyless = Rec {
        timestamp: 1,
        key: None,
        value: Some(b"x".into()),
    };
    world.write(&[keyless, rec(1, "a", Some("1"))]);
    seal(&mut world);
    world.compact(&[]);
    assert_eq!(shown(&world), ["1 a=1"]);
}

#[test]
fn a_tombstone_goes_in_a_pass_after_its_horizon() {
    let mut world = World::new(compacted());
    let written_ms = world.now.wall_ms;
    world.write(&[
        rec(written_ms - 7, "a", Some("1")),
        rec(written_ms - 3, "b", Some("1")),
    ]);
    world.write(&[
        rec(written_ms + 1, "a", None),
        rec(written_ms + 2, "c", Some("1")),
    ]);
    seal(&mut world);
    world.compact(&[]);
    assert_eq!(shown(&world), ["1 b=1", "2 a=null", "3 c=1"]);
    let horizons: Vec<_> = batches(&world)
        .iter()
        .map(|b| b.header.delete_horizon_ms())
        .collect();
    assert_eq!(horizons[..2], [None, Some(written_ms + 5000)]);
    // Record timestamps are deltas to the horizon now, and the same as before.
    let records = world.read_records();
    assert_eq!(records[&2].timestamp, written_ms + 1);
    assert_eq!(records[&3].timestamp, written_ms + 2);

    world.pass_ms(4999);
    write_each(&mut world, &[("d", Some("1"))]);
    seal(&mut world);
    world.compact(&[]);
    assert!(
        shown(&world).contains(&"2 a=null".to_owned()),
        "one millisecond too early"
    );

    world.pass_ms(1);
    write_each(&mut world, &[("e", Some("1"))]);
    seal(&mut world);
    world.compact(&[]);
    assert_eq!(shown(&world)[..2], ["1 b=1", "3 c=1"]);
    assert_eq!(
        batches(&world)[1].header.delete_horizon_ms(),
        Some(written_ms + 5000)
    );
}

#[test]
fn a_batch_with_a_producers_last_sequence_stays_empty() {
    let mut world = World::new(compacted());
    let value = |value: &'static str| Some(value.as_bytes());
    let mut batch = BatchBuilder::new()
        .producer(77, 3, 40)
        .compression(Compression::Gzip);
    batch
        .append(11, Some(b"a"), value("1"), &[])
        .append(12, Some(b"b"), value("1"), &[]);
    world.append(&batch.build());
    let mut other = BatchBuilder::new().producer(78, 0, 0);
    other.append(13, Some(b"a"), value("2"), &[]);
    world.append(&other.build());
    world.run();
    write_each(&mut world, &[("a", Some("3")), ("b", Some("3"))]);
    seal(&mut world);
    world.compact(&[1]);
    let first = &batches(&world)[0].header;
    assert_eq!(
        (first.base_offset, first.last_offset(), first.records_count),
        (0, 1, 0)
    );
    assert_eq!(
        (first.producer_id, first.producer_epoch, first.base_sequence),
        (77, 3, 40)
    );
    assert_eq!((first.last_sequence(), first.max_timestamp), (41, 12));
    assert_eq!(first.compression().unwrap(), Compression::None);
    assert_eq!(
        shown(&world),
        ["3 a=3", "4 b=3"],
        "the other producer's batch is gone"
    );
    // Its timestamp is nobody's: the first record is found past it.
    let lookup = world.log.timestamp_lookup(12, world.log.end_offset());
    let hit = crate::look_up(&world.disk, &lookup).unwrap().unwrap();
    assert_eq!(hit.offset, 3);

    // Kept only for as long as the producer is known.
    write_each(&mut world, &[("a", Some("4"))]);
    seal(&mut world);
    world.compact(&[]);
    assert_eq!(batches(&world)[0].header.base_offset, 4);
}

#[test]
fn what_stays_keeps_codec_timestamps_epoch_and_headers() {
    for codec in Compression::ALL {
        for timestamp_type in [TimestampType::CreateTime, TimestampType::LogAppendTime] {
            let mut world = World::new(compacted());
            world.leader_epoch = 5;
            let mut builder = BatchBuilder::new().compression(codec).producer(9, 1, 7);
            if timestamp_type == TimestampType::LogAppendTime {
                builder = builder.log_append_time(555);
            }
            let headers: [(&[u8], Option<&[u8]>); 2] = [(b"h", Some(b"v")), (b"h", None)];
            builder.append(100, Some(b"a"), Some(b"old"), &[]);
            builder.append(300, Some(b"b"), Some(b"kept"), &headers);
            builder.append(200, Some(b"a"), Some(b"kept too"), &headers);
            world.append(&builder.build());
            world.run();
            let before = batches(&world)[0].clone();
            seal(&mut world);
            world.compact(&[]);
            let after = batches(&world)[0].clone();
            assert_eq!(after.header.records_count, 2);
            let same = |batch: &Batch| {
                let header = batch.header;
                (
                    header.base_offset,
                    header.last_offset(),
                    header.attributes,
                    header.producer_id,
                )
            };
            assert_eq!(same(&after), same(&before), "{codec:?}");
            assert_eq!(after.header.partition_leader_epoch, 5);
            assert_eq!(after.header.base_sequence, 7);
            assert_eq!(after.header.base_timestamp, before.header.base_timestamp);
            let max_timestamp = match timestamp_type {
                TimestampType::CreateTime => 300,
                TimestampType::LogAppendTime => 555,
            };
            assert_eq!(after.header.max_timestamp, max_timestamp);
            let records = |batch: &Batch| -> Vec<_> {
                batch
                    .records(1 << 20)
                    .unwrap()
                    .map(Result::unwrap)
                    .collect()
            };
            assert_eq!(records(&after), records(&before)[1..]);
        }
    }
}

#[test]
fn small_neighbours_become_one_segment() {
    let mut world = World::new(compacted());
    for i in 0..30 {
        write_each(&mut world, &[("a", Some(&format!("{i:050}")))]);
    }
    write_each(&mut world, &[("b", Some("1"))]);
    seal(&mut world);
    let before = world.log.segment_count();
    world.compact(&[]);
    assert!(before > 8, "{before}");
    assert!(
        world.log.segment_count() <= 3,
        "{}",
        world.log.segment_count()
    );
    world.run();
    let files = world.log_files();
    assert_eq!(
        files.len(),
        world.log.segment_count(),
        "{:?}",
        world.file_names()
    );
    let sizes = files.iter().map(|base| {
        world
            .disk
            .len(&format!("{DIR}/{base:020}.log"))
            .unwrap()
            .unwrap()
    });
    assert_eq!(sizes.sum::<u64>(), world.log.size_bytes());
    world.check_records();
    world.restart_clean();
    world.check_records();
}

#[test]
fn a_full_key_map_compacts_as_far_as_it_got() {
    let mut world = World::new(compacted());
    for i in 0..20 {
        write_each(
            &mut world,
            &[(&format!("k{}", i % 10), Some(&format!("{i:040}")))],
        );
    }
    seal(&mut world);
    let limit = world.log.end_offset();
    while world.log.cleaner.first_dirty_offset == 0 {
        let plan = world.log.compaction_plan(world.now, limit, BTreeSet::new());
        let mut plan = plan.unwrap();
        plan.limit_keys(4);
        let outcome = execute(&world.disk, &DiskOp::Compact(Box::new(plan))).unwrap();
        let DiskOutcome::Compacted(outcome) = outcome else {
            panic!()
        };
        let ops = world.log.apply_compaction(*outcome, world.now);
        world.emit(ops);
        world.run_steps();
        world.log.compaction_installed();
    }
    assert_eq!(world.log.cleaner.first_dirty_offset, 4);
    world.check_records();
    assert_eq!(
        world.read_records().range(..20).count(),
        20,
        "four keys, once each"
    );
    world.compact(&[]);
    assert_eq!(world.read_records().range(..20).count(), 10);
    world.check_records();
}

#[test]
fn a_damaged_batch_ends_the_pass_and_changes_nothing() {
    damaged(|_| 100, "CRC-32C");
    // Base offsets, which the CRC does not cover: the second batch's moves up by 2^32, or down to
    // its predecessor's. (Found by the fuzz target `recovery`.)
    damaged(|batch| batch + 3, "where 1 or more is expected");
    damaged(
        |batch| batch + 7,
        "offsets 0 to 0 where 1 or more is expected",
    );
}

/// The lowest bit of the byte at `position`, which is told the size of a batch, is flipped.
fn damaged(position: impl Fn(u64) -> u64, why: &str) {
    let mut world = World::new(compacted());
    for i in 0..10 {
        write_each(&mut world, &[("a", Some(&format!("{i:050}")))]);
    }
    seal(&mut world);
    let file = format!("{DIR}/{:020}.log", 0);
    let batch = world.disk.content(&file).unwrap().len() as u64 / 2;
    world.disk.flip_bit(&file, position(batch), 0);
    let before = world.disk.content(&file).unwrap();
    let limit = world.log.end_offset();
    let plan = world
        .log
        .compaction_plan(world.now, limit, BTreeSet::new())
        .unwrap();
    let error = execute(&world.disk, &DiskOp::Compact(Box::new(plan))).unwrap_err();
    assert!(error.to_string().contains(why), "{error}");
    world.log.compaction_failed(world.now);
    assert_eq!(world.disk.content(&file).unwrap(), before);
    assert!(
        world
            .log
            .compaction_plan(world.now, limit, BTreeSet::new())
            .is_none(),
        "not at once"
    );
    world.pass_ms(crate::limits::COMPACTION_RETRY_MS);
    assert!(
        world
            .log
            .compaction_plan(world.now, limit, BTreeSet::new())
            .is_some()
    );
}

#[test]
fn lags_and_ratio_decide_when() {
    let config = LogConfig {
        min_cleanable_dirty_ratio: 0.5,
        min_compaction_lag_ms: 1000,
        max_compaction_lag_ms: 60_000,
        ..compacted()
    };
    let mut world = World::new(config);
    for i in 0..10 {
        write_each(
            &mut world,
            &[
                ("a", Some(&format!("{i:050}"))),
                ("b", Some(&format!("{i:050}"))),
            ],
        );
    }
    seal(&mut world);
    let limit = world.log.end_offset();
    assert_eq!(world.log.dirty_ratio(world.now, limit), None, "too young");
    world.pass_ms(1001);
    assert_eq!(world.log.dirty_ratio(world.now, limit), Some(1.0));
    assert_eq!(
        world.log.dirty_ratio(world.now, 0),
        None,
        "nothing below the limit"
    );
    world.compact(&[]);
    for i in 0..10 {
        write_each(&mut world, &[(&format!("{i}"), Some(&format!("{i:050}")))]);
    }
    world.pass_ms(1001);
    seal(&mut world);
    world.compact(&[]);
    write_each(
        &mut world,
        &[
            ("a", Some(&format!("{:050}", 0))),
            ("c", Some(&format!("{:050}", 0))),
        ],
    );
    world.pass_ms(1001);
    seal(&mut world);
    let limit = world.log.end_offset();
    assert_eq!(
        world.log.dirty_ratio(world.now, limit),
        None,
        "most of it is clean"
    );
    world.pass_ms(60_000);
    assert!(world.log.dirty_ratio(world.now, limit).is_some(), "overdue");
}

#[test]
fn deleting_the_front_meanwhile_throws_the_work_away() {
    let mut world = World::new(compacted());
    for i in 0..30 {
        write_each(&mut world, &[("a", Some(&format!("{i:050}")))]);
    }
    seal(&mut world);
    let limit = world.log.end_offset();
    let plan = world
        .log
        .compaction_plan(world.now, limit, BTreeSet::new())
        .unwrap();
    let outcome = execute(&world.disk, &DiskOp::Compact(Box::new(plan))).unwrap();
    let DiskOutcome::Compacted(outcome) = outcome else {
        panic!()
    };
    let ops = world.log.delete_records_before(20, world.now);
    world.emit(ops);
    let ops = world.log.apply_compaction(*outcome, world.now);
    world.emit(ops);
    world.run();
    assert!(
        !world
            .file_names()
            .iter()
            .any(|name| name.contains(".cleaned"))
    );
    assert_eq!(world.log.start_offset(), 20);
    world.check_records();
}

/// The power goes after every single change that a whole pass makes to the disk, with several
/// ways to lose what was not synced: always the same records are there, and the log goes on.
#[test]
fn a_crash_at_every_step_of_a_pass_loses_nothing() {
    let mut seeds = Random::new(4);
    for cut in 0.. {
        for _ in 0..4 {
            let mut world = World::new(compacted());
            for i in 0..24 {
                let key = format!("k{}", i % 4);
                let value = (i != 9).then(|| format!("{i:060}"));
                write_each(&mut world, &[(&key, value.as_deref())]);
                if i == 11 {
                    // A whole pass before the one that is cut short: it may not be mistaken for it.
                    seal(&mut world);
                    world.compact(&[]);
                }
            }
            seal(&mut world);
            let end = world.log.end_offset();
            world.disk.cut_power_after(cut);
            let finished = pass_until_power_is_cut(&mut world);
            let seed = seeds.next_u64();
            world.kill();
            world.disk.crash(seed);
            world.recover();
            assert_eq!(world.log.end_offset(), end, "cut {cut} seed {seed}");
            world.check_records();
            let leftover = |name: &String| name.contains(".swap") || name.contains(".cleaned");
            assert!(
                !world.file_names().iter().any(leftover),
                "{:?}",
                world.file_names()
            );
            // Recovering once more finds the same; and another pass may be cut short, too.
            world.recover();
            world.check_records();
            write_each(&mut world, &[("k1", Some("new")), ("k2", Some("new"))]);
            seal(&mut world);
            let end = world.log.end_offset();
            world.disk.cut_power_after(seeds.below(80));
            pass_until_power_is_cut(&mut world);
            world.kill();
            world.disk.crash(seeds.next_u64());
            world.recover();
            assert_eq!(world.log.end_offset(), end, "cut {cut} seed {seed}");
            world.check_records();
            world.compact(&[]);
            world.check_records();
            if finished {
                assert!(cut > 20, "a pass takes more than {cut} changes");
                return;
            }
        }
    }
}

/// True if the whole pass was carried out before the power went.
fn pass_until_power_is_cut(world: &mut World) -> bool {
    loop {
        let limit = world.log.end_offset();
        let Some(plan) = world.log.compaction_plan(world.now, limit, BTreeSet::new()) else {
            return true;
        };
        let Ok(outcome) = execute(&world.disk, &DiskOp::Compact(Box::new(plan))) else {
            return false;
        };
        let DiskOutcome::Compacted(outcome) = outcome else {
            panic!()
        };
        let ops = world.log.apply_compaction(*outcome, world.now);
        for op in ops {
            if execute(&world.disk, &op).is_err() {
                return false;
            }
        }
        world.log.compaction_installed();
    }
}

#[test]
fn batches_of_many_records_lose_some_of_them() {
    let mut world = World::new(compacted());
    for codec in Compression::ALL {
        let records: Vec<Rec> = (0..10)
            .map(|i| rec(i, &format!("k{}", i % 5), Some(&format!("{codec:?} {i}"))))
            .collect();
        world.append(&batch_of(codec, &records));
    }
    world.run();
    seal(&mut world);
    world.compact(&[]);
    let kept: Vec<String> = shown(&world);
    assert_eq!(
        kept,
        [
            "45 k0=Zstd 5",
            "46 k1=Zstd 6",
            "47 k2=Zstd 7",
            "48 k3=Zstd 8",
            "49 k4=Zstd 9"
        ]
    );
    for base in world.log_files() {
        let content = world
            .disk
            .content(&format!("{DIR}/{base:020}.log"))
            .unwrap();
        for batch in Batches::new(content.into()) {
            batch.unwrap().check_crc().unwrap();
        }
    }
}

/// A plan made before the last one's files are in place would read the old ones by the new sizes.
#[test]
fn there_is_no_plan_until_the_last_one_is_installed() {
    let mut world = World::new(compacted());
    for i in 0..20 {
        write_each(
            &mut world,
            &[(&format!("k{i}"), Some(&format!("{:060}", 0)))],
        );
        write_each(&mut world, &[("same", Some(&format!("{i:060}")))]);
    }
    seal(&mut world);
    let limit = world.log.end_offset();
    let plan = |world: &mut World| world.log.compaction_plan(world.now, limit, BTreeSet::new());
    let first = plan(&mut world).unwrap();
    assert!(plan(&mut world).is_none(), "one at a time");
    let outcome = execute(&world.disk, &DiskOp::Compact(Box::new(first))).unwrap();
    let DiskOutcome::Compacted(outcome) = outcome else {
        panic!()
    };
    let ops = world.log.apply_compaction(*outcome, world.now);
    assert!(plan(&mut world).is_none(), "the steps are not executed");
    world.check_records(); // from the old file
    world.emit(ops);
    world.run_steps();
    world.check_records(); // from the new one
    assert_eq!(
        checkpoint_on_disk(&world).swap,
        None,
        "the swap is finished"
    );
    assert!(plan(&mut world).is_none());
    world.log.compaction_installed();
    assert!(plan(&mut world).is_some(), "the next group");
}

/// The checkpoint names a swap only for as long as it is under way: a later `.swap` file of the
/// same segment that was not committed must not be taken for it.
#[test]
fn a_finished_swap_is_forgotten() {
    let mut world = World::new(compacted());
    let file = format!("{DIR}/oncelog-checkpoint");
    for i in 0..20 {
        write_each(&mut world, &[("same", Some(&format!("{i:060}")))]);
    }
    write_each(&mut world, &[("other", Some("1"))]);
    seal(&mut world);
    world.compact(&[]);
    assert_eq!(checkpoint_on_disk(&world).swap, None);

    // As if the power had gone before it was.
    let checkpoint = checkpoint_on_disk(&world);
    let base = checkpoint.segments[0].0;
    let unfinished = Checkpoint {
        swap: Some(Swap {
            replaced: vec![base, base + 1],
            replacement: Some(base),
        }),
        ..checkpoint
    };
    let text = unfinished.encode();
    world.disk.write_at(&file, 0, &[text.as_bytes()]).unwrap();
    world.recover();
    assert_eq!(checkpoint_on_disk(&world).swap, None);
    world.check_records();
}
