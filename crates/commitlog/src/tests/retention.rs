//! What is deleted, when, and that deletion holds.

use super::world::{DIR, START_MS, World, rec, small_config};
use crate::{Disk, DiskOp, DiskStep, LogConfig, execute_step};
use oncelog_wire::Uuid;

/// Ten segments of two batches each, at offsets 0, 2, 4, ...; the last one is active.
fn ten_segments(config: LogConfig) -> World {
    let mut world = World::new(LogConfig {
        segment_bytes: 2 * (61 + 100),
        ..config
    });
    for i in 0..20 {
        let value = "x".repeat(80);
        world.write(&[rec(START_MS + i * 1000, "key", Some(&value))]);
    }
    assert_eq!(world.log_files(), [0, 2, 4, 6, 8, 10, 12, 14, 16, 18]);
    world
}

fn retain(world: &mut World) {
    let limit = world.log.written_end_offset();
    let ops = world.log.apply_retention(world.now, limit);
    world.emit(ops);
    world.run_steps();
}

fn check(config: LogConfig, wall_ms: i64, start: i64) {
    let mut world = ten_segments(config);
    world.now.wall_ms = wall_ms;
    retain(&mut world);
    assert_eq!(world.log.start_offset(), start);
    let files = world.log_files();
    assert!(files.first().is_none_or(|base| *base == start), "{files:?}");
    world.check_records();
    world.recover();
    assert_eq!(world.log.start_offset(), start);
    assert_eq!(world.log.end_offset(), 20);
    world.check_records();
}

#[test]
fn by_age_of_the_youngest_record() {
    let by_age = |retention_ms| LogConfig {
        retention_ms,
        ..small_config()
    };
    check(by_age(-1), START_MS + 1_000_000, 0);
    check(by_age(5000), START_MS + 6000, 0); // the first segment's youngest is at +1000
    check(by_age(5000), START_MS + 6001, 2);
    check(by_age(5000), START_MS + 8001, 4);
    check(by_age(5000), START_MS + 24_000, 18);
    check(by_age(5000), START_MS + 24_001, 20); // the active one too, rolled first
    check(by_age(0), START_MS + 30_000, 20);
}

#[test]
fn by_size_of_what_would_stay() {
    let segment_bytes = ten_segments(small_config()).log.size_bytes() as i64 / 10;
    let by_size = |retention_bytes| LogConfig {
        retention_bytes,
        ..small_config()
    };
    check(by_size(-1), START_MS, 0);
    check(by_size(10 * segment_bytes), START_MS, 0);
    check(by_size(9 * segment_bytes + 1), START_MS, 0);
    check(by_size(9 * segment_bytes), START_MS, 2);
    check(by_size(segment_bytes), START_MS, 18);
    check(by_size(0), START_MS, 20);
}

#[test]
fn compacted_logs_are_not_deleted_from() {
    let config = LogConfig {
        retention_ms: 5000,
        cleanup_delete: false,
        cleanup_compact: true,
        ..small_config()
    };
    check(config, START_MS + 1_000_000, 0);
}

#[test]
fn nothing_past_the_limit_goes() {
    let config = LogConfig {
        retention_ms: 0,
        ..small_config()
    };
    let mut world = ten_segments(config);
    world.pass_ms(1_000_000);
    for (limit, start) in [(1, 0), (2, 2), (7, 6), (19, 18), (20, 20)] {
        let ops = world.log.apply_retention(world.now, limit);
        world.emit(ops);
        world.run_steps();
        assert_eq!(world.log.start_offset(), start, "limit {limit}");
    }
    let (base, _) = world.write(&[rec(START_MS, "key", None)]);
    assert_eq!(base, 20);
    world.check_records();
}

#[test]
fn records_without_timestamps_age_from_when_they_were_seen() {
    let config = LogConfig {
        retention_ms: 5000,
        ..small_config()
    };
    let mut world = World::new(config);
    world.write(&[rec(-1, "key", Some("value"))]);
    world.pass_ms(5000);
    retain(&mut world);
    assert_eq!(world.log.start_offset(), 0);
    world.pass_ms(1);
    retain(&mut world);
    assert_eq!(world.log.start_offset(), 1);
}

#[test]
fn deleted_files_stay_for_a_while_under_another_name() {
    let config = LogConfig {
        retention_ms: 5000,
        file_delete_delay_ms: 60_000,
        ..small_config()
    };
    let mut world = ten_segments(config);
    world.now.wall_ms = START_MS + 8001;
    retain(&mut world);
    let deleted = |world: &World| -> Vec<String> {
        let names = world.file_names().into_iter();
        names.filter(|name| name.ends_with(".deleted")).collect()
    };
    assert_eq!(deleted(&world).len(), 6, "three files each of two segments");
    assert!(deleted(&world).contains(&format!("{:020}.log.deleted", 2)));
    let deadline = world.log.next_deadline();
    assert_eq!(deadline, world.now.instant.plus_ms(60_000));
    world.pass_ms(59_999);
    assert!(world.log.work_due(world.now).is_empty());
    world.pass_ms(1);
    world.run();
    assert_eq!(deleted(&world), [""; 0]);
}

#[test]
fn delete_records_moves_the_start_and_drops_whole_segments() {
    let mut world = ten_segments(small_config());
    let mut delete_to = |offset| {
        let ops = world.log.delete_records_before(offset, world.now);
        world.emit(ops);
        world.run_steps();
        assert_eq!(world.log.start_offset(), offset);
        assert!(world.log.slice(offset - 1, 20, 100, true).is_err());
        world.check_records();
        world.crash(offset as u64);
        world.recover();
        assert_eq!(world.log.start_offset(), offset);
        world.check_records();
        world.log_files()
    };
    assert_eq!(delete_to(1).len(), 10);
    assert_eq!(delete_to(5), [4, 6, 8, 10, 12, 14, 16, 18]);
    assert_eq!(delete_to(18), [18]);
    assert_eq!(
        delete_to(20),
        [18],
        "the active segment stays until it is rolled"
    );
    let (base, _) = world.write(&[rec(START_MS, "key", None)]);
    assert_eq!(base, 20);
    assert_eq!(world.log_files().len(), 2);
    retain(&mut world);
    assert_eq!(world.log_files(), [20]);
    world.check_records();
}

#[test]
fn a_start_past_what_survived_begins_anew_there() {
    let config = LogConfig {
        flush_messages: i64::MAX,
        ..small_config()
    };
    let mut world = World::new(config);
    for i in 0..4 {
        world.append(&super::world::batch_of(
            oncelog_wire::records::Compression::None,
            &[rec(START_MS + i, "key", Some("value"))],
        ));
    }
    while !world.appends.is_empty() {
        world.run_append(0).unwrap();
    }
    let ops = world.log.delete_records_before(3, world.now);
    world.emit(ops);
    world.run_steps();
    let lost = (0..100).find(|seed| {
        let disk = world.disk.fork();
        disk.crash(*seed);
        disk.len(&format!("{DIR}/{:020}.log", 0)).unwrap() == Some(0)
    });
    world.kill();
    world
        .disk
        .crash(lost.expect("some crash loses all records"));
    world.recover();
    assert_eq!((world.log.start_offset(), world.log.end_offset()), (3, 3));
    let (base, _) = world.write(&[rec(START_MS, "key", None)]);
    assert_eq!(base, 3);
    world.check_records();
    world.restart_clean();
    assert_eq!((world.log.start_offset(), world.log.end_offset()), (3, 4));
}

#[test]
fn deleting_a_log_renames_its_directory() {
    let mut world = ten_segments(small_config());
    world.run();
    let id = Uuid([0xab; 16]);
    let (steps, renamed) = world.log.delete(id);
    let unique = "ab".repeat(16);
    assert_eq!(&*renamed, format!("orders-0.{unique}-delete"));
    for step in &steps {
        execute_step(&world.disk, step).unwrap();
    }
    assert!(matches!(steps.last(), Some(DiskStep::SyncDir { dir }) if dir.is_empty()));
    assert_eq!(world.disk.list("").unwrap(), [renamed.to_string()]);
    world.disk.crash(3);
    assert_eq!(world.disk.list("").unwrap(), [renamed.to_string()]);
    let remove = DiskStep::RemoveDir { dir: renamed };
    crate::execute(&world.disk, &DiskOp::Steps(vec![remove])).unwrap();
    assert_eq!(world.disk.list("").unwrap(), [""; 0]);
}

#[test]
fn a_long_name_is_cut_to_what_a_file_name_may_have() {
    let now = oncelog_wire::clock::Now::default();
    let dir = format!("{}-0", "t".repeat(249));
    let (log, _) = crate::Log::create(&dir, Uuid([1; 16]), small_config(), now);
    let (_, renamed) = log.delete(Uuid([2; 16]));
    assert_eq!(renamed.len(), 255);
    assert!(renamed.ends_with("-delete"));
}
