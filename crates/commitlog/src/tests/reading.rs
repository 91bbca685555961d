//! Appending and reading back: exact slices, rolls, flush settings, timestamps.

use super::world::{DIR, START_MS, World, batch_of, rec, small_config};
use crate::testing::Fault;
use crate::{Append, Disk, DiskOp, LogConfig, execute, look_up, read, resolve};
use oncelog_wire::clock::Instant;
use oncelog_wire::records::{BatchHeader, Compression};
use std::io;

fn append_op(world: &mut World) -> Append {
    world.append(&batch_of(
        Compression::None,
        &[rec(START_MS, "key", Some("value"))],
    ));
    match &world.appends.last().unwrap().1 {
        DiskOp::Append(append) => append.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_header_is_patched_and_the_rest_stored_as_sent() {
    let mut world = World::new(small_config());
    world.leader_epoch = 7;
    let sent = batch_of(
        Compression::Lz4,
        &[rec(1, "a", Some("1")), rec(2, "b", None)],
    );
    world.append(&sent);
    world.append(&sent);
    world.run();
    let stored = world.disk.content(&format!("{DIR}/{:020}.log", 0)).unwrap();
    let (first, second) = stored.split_at(sent.len());
    let header = BatchHeader::parse(second).unwrap();
    assert_eq!((header.base_offset, header.partition_leader_epoch), (2, 7));
    for copy in [first, second] {
        assert_eq!(copy[8..12], sent[8..12]);
        assert_eq!(copy[16..], sent[16..]);
        assert!(oncelog_wire::records::crc_is_valid(copy));
    }
    assert_eq!(world.log.epoch_at(3), Some(7));
    assert_eq!(world.log.end_offset_for_epoch(7), (7, 4));
}

#[test]
fn at_the_tail_nothing_is_read_to_find_a_batch() {
    let mut world = World::new(small_config());
    for i in 0..10 {
        world.write(&[rec(START_MS + i, "key", Some("value"))]);
    }
    for offset in 0..10 {
        let slice = world.log.slice(offset, 10, 1 << 20, true).unwrap().unwrap();
        world.disk.fail_read(0, Fault::Io);
        let resolved = resolve(&world.disk, &slice, u32::MAX, true)
            .unwrap()
            .unwrap();
        world.disk.clear_faults();
        assert_eq!(u64::from(resolved.len), world.log.bytes_between(offset, 10));
        assert_eq!(
            resolved.position,
            world.log.size_bytes() - u64::from(resolved.len)
        );
    }
    assert!(world.log.slice(10, 10, 100, true).unwrap().is_none());
    let out = world.log.slice(11, 11, 100, true).unwrap_err();
    assert_eq!((out.offset, out.start_offset, out.end_offset), (11, 0, 10));
    assert!(world.log.slice(-1, 10, 100, true).is_err());
}

#[test]
fn what_is_not_below_the_bound_is_not_touched() {
    let mut world = World::new(small_config());
    world.write(&[rec(START_MS, "key", Some("written"))]);
    for _ in 0..3 {
        world.append(&batch_of(
            Compression::None,
            &[rec(START_MS, "key", Some("not yet"))],
        ));
    }
    world.run_append(2).unwrap(); // a hole before it
    assert_eq!(world.log.written_end_offset(), 1);
    assert_eq!(world.read_batches(0, 1, 1 << 20).len(), 1);
    assert!(world.log.slice(1, 1, 100, true).unwrap().is_none());
    world.run();
    assert_eq!(world.read_batches(0, 4, 1 << 20).len(), 4);
}

#[test]
fn a_first_batch_larger_than_the_limit() {
    let mut world = World::new(LogConfig {
        segment_bytes: 1 << 20,
        ..small_config()
    });
    let large = "x".repeat(5000);
    for i in 0..6 {
        let value = if i % 2 == 0 { "small" } else { &large };
        world.write(&[rec(START_MS, "key", Some(value))]);
    }
    let len = |offset, max_bytes, at_least_one| {
        let slice = world.log.slice(offset, 6, 1 << 20, true).unwrap().unwrap();
        let resolved = resolve(&world.disk, &slice, max_bytes, at_least_one).unwrap();
        resolved.map_or(0, |resolved| resolved.len)
    };
    let small = len(0, 200, false);
    assert!((60..100).contains(&small), "{small}");
    assert_eq!(len(1, 200, false), 0);
    assert!(len(1, 200, true) > 5000);
    assert_eq!(len(0, 0, true), small);
    assert_eq!(len(0, 0, false), 0);
    let careful = world.log.slice(1, 6, 200, false).unwrap().unwrap();
    assert_eq!(
        resolve(&world.disk, &careful, u32::MAX, true).unwrap(),
        None
    );
}

/// Old segments through their index files, whatever state those are in.
#[test]
fn an_index_file_is_only_a_hint() {
    let mut world = World::new(small_config());
    for i in 0..60 {
        world.write(&[rec(START_MS + i, "key", Some(&format!("{i:060}")))]);
    }
    let bases = world.log_files();
    assert!(bases.len() > 3);
    let index = format!("{DIR}/{:020}.index", bases[1]);
    let times = format!("{DIR}/{:020}.timeindex", bases[1]);
    let check = |world: &World| {
        world.check_records();
        for offset in 0..60 {
            let lookup = world.log.timestamp_lookup(START_MS + offset, 60);
            let hit = look_up(&world.disk, &lookup).unwrap().unwrap();
            assert_eq!(hit.offset, offset);
        }
    };
    check(&world);
    for bit in 0..64 {
        world.disk.flip_bit(&index, bit / 8 + 8, bit as u8);
        check(&world);
        world.disk.flip_bit(&index, bit / 8 + 8, bit as u8);
    }
    world.disk.truncate(&index, 5).unwrap();
    check(&world);
    world.disk.remove(&index).unwrap();
    check(&world);
    world.disk.remove(&times).unwrap();
    check(&world);
}

#[test]
fn a_batch_that_says_a_place_behind_the_log_is_not_served() {
    let mut world = World::new(small_config());
    for i in 0..60 {
        world.write(&[rec(START_MS + i, "key", Some(&format!("{i:060}")))]);
    }
    let last = *world.log_files().last().unwrap();
    world.restart_clean(); // nothing of the active segment is known from memory
    for base in [0, last] {
        let slice = world.log.slice(base, 60, 1 << 20, true).unwrap().unwrap();
        assert!(!read(&world.disk, &slice).unwrap().is_empty());
        world.disk.flip_bit(&format!("{DIR}/{base:020}.log"), 4, 6); // + 2^30, in front of the CRC
        let error = read(&world.disk, &slice).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
        assert!(
            error.to_string().contains("at byte 0: offset 10737418"),
            "{error}"
        );
    }
}

#[test]
fn a_deleted_segment_is_not_found() {
    let mut world = World::new(small_config());
    for _ in 0..60 {
        world.write(&[rec(START_MS, "key", Some(&"x".repeat(60)))]);
    }
    let slice = world.log.slice(0, 60, 1 << 20, true).unwrap().unwrap();
    let ops = world.log.delete_records_before(50, world.now);
    world.emit(ops);
    world.run();
    assert_eq!(
        read(&world.disk, &slice).unwrap_err().kind(),
        io::ErrorKind::NotFound
    );
}

#[test]
fn every_append_is_durable_by_default() {
    let mut world = World::new(small_config());
    let (first, second) = (append_op(&mut world), append_op(&mut world));
    assert!(first.durable && second.durable);
    assert!(
        first.create && !second.create,
        "the first one makes the file's name durable"
    );
    assert_eq!(
        first
            .dirs_to_sync()
            .iter()
            .map(|d| d.to_string())
            .collect::<Vec<_>>(),
        [DIR, ""]
    );
    assert_eq!(second.dirs_to_sync(), []);
    world.run_append(1).unwrap();
    assert_eq!(
        (world.log.written_end_offset(), world.log.recovery_point()),
        (0, 0)
    );
    world.run_append(0).unwrap();
    assert_eq!(
        (world.log.written_end_offset(), world.log.recovery_point()),
        (2, 2)
    );
    assert_eq!(world.log.next_deadline(), Instant::NEVER);
}

#[test]
fn flush_messages_counts_records() {
    let mut world = World::new(LogConfig {
        flush_messages: 3,
        ..small_config()
    });
    let durable: Vec<bool> = (0..7).map(|_| append_op(&mut world).durable).collect();
    assert_eq!(durable, [false, false, true, false, false, true, false]);
    for _ in 0..7 {
        world.run_append(0).unwrap();
    }
    assert_eq!(world.log.written_end_offset(), 7);
    // Each sync is known to cover only what had come back before it was asked for.
    assert_eq!(world.log.recovery_point(), 0);
}

#[test]
fn flush_ms_is_a_deadline() {
    let mut world = World::new(LogConfig {
        flush_messages: i64::MAX,
        flush_ms: 500,
        ..small_config()
    });
    assert!(!append_op(&mut world).durable);
    world.pass_ms(100);
    append_op(&mut world);
    assert_eq!(
        world.log.next_deadline(),
        Instant(0).plus_ms(500),
        "of the oldest append"
    );
    world.run_append(0).unwrap();
    world.pass_ms(400);
    let ops = world.log.work_due(world.now);
    assert_eq!(ops.len(), 1);
    assert_eq!(
        world.log.recovery_point(),
        1,
        "the second is still on its way"
    );
    world.emit(ops);
    world.run_steps();
    assert_eq!(world.log.next_deadline(), Instant(0).plus_ms(1000));
    world.run_append(0).unwrap();
    world.pass_ms(500);
    world.run();
    assert_eq!(world.log.recovery_point(), 2);
    assert_eq!(world.log.next_deadline(), Instant::NEVER);
    world.crash(1);
    world.recover();
    assert_eq!(world.log.end_offset(), 2);
}

#[test]
fn without_flush_settings_a_roll_flushes_the_old_segment() {
    let mut world = World::new(LogConfig {
        flush_messages: i64::MAX,
        ..small_config()
    });
    while world.log.segment_count() == 1 {
        append_op(&mut world);
    }
    let rolled_at = world.log.active_base_offset();
    let last = world.appends.len() - 1;
    world.run_append(last).unwrap();
    assert_eq!(
        world.log.next_deadline(),
        Instant::NEVER,
        "the old segment is not written yet"
    );
    while !world.appends.is_empty() {
        world.run_append(0).unwrap();
    }
    assert_eq!(world.log.next_deadline(), Instant(0));
    world.run();
    assert!(world.log.recovery_point() >= rolled_at);
    world.crash(2);
    world.recover();
    assert!(world.log.end_offset() >= rolled_at);
}

#[test]
fn what_is_written_behind_is_flushed_before_it_is_too_much() {
    let mut world = World::new(LogConfig {
        flush_messages: i64::MAX,
        segment_bytes: 1 << 30,
        ..small_config()
    });
    let batch = batch_of(
        Compression::None,
        &[rec(1, "key", Some(&"x".repeat(16 << 20)))],
    );
    let mut appended = 0;
    while world.log.next_deadline() == Instant::NEVER {
        world.append(&batch);
        world.run_append(0).unwrap();
        world.records.clear();
        appended += batch.len() as u64;
    }
    assert!(appended >= crate::limits::UNSYNCED_BYTES_MAX);
    world.run();
    assert_eq!(world.log.recovery_point(), world.log.end_offset());
}

/// Found by a server that span for ever: with an append in flight in the new segment, the sealed
/// one's size was taken for unsynced bytes again and again.
#[test]
fn a_flush_after_a_roll_is_not_due_again_at_once() {
    let mut world = World::new(LogConfig {
        flush_messages: i64::MAX,
        segment_bytes: crate::limits::UNSYNCED_BYTES_MAX + (40 << 20),
        ..small_config()
    });
    let batch = batch_of(
        Compression::None,
        &[rec(1, "key", Some(&"x".repeat(16 << 20)))],
    );
    while world.log.segment_count() == 1 {
        while !world.appends.is_empty() {
            world.run_append(0).unwrap();
        }
        world.append(&batch);
        world.records.clear();
    }
    assert_eq!(world.log.next_deadline(), Instant(0), "the sealed segment");
    let ops = world.log.work_due(world.now);
    world.emit(ops);
    assert_eq!(world.log.next_deadline(), Instant::NEVER);
    world.run();
    assert!(world.log.recovery_point() >= world.log.active_base_offset());
}

#[test]
fn rolls_by_size_time_index_and_offset() {
    let rolls = |config: LogConfig, timestamps: &[i64]| -> Vec<i64> {
        let mut world = World::new(config);
        for timestamp in timestamps {
            world.write(&[rec(*timestamp, "key", Some(&"x".repeat(100)))]);
        }
        world.check_records();
        world.log_files()
    };
    let config = LogConfig {
        segment_bytes: 1 << 20,
        ..small_config()
    };
    assert_eq!(rolls(config.clone(), &[5; 10]), [0]);
    let by_size = LogConfig {
        segment_bytes: 600,
        ..config.clone()
    };
    assert_eq!(rolls(by_size, &[5; 10]), [0, 3, 6, 9]);
    let by_time = LogConfig {
        segment_ms: 100,
        ..config.clone()
    };
    assert_eq!(rolls(by_time.clone(), &[5, 105, 106, 206, 207]), [0, 2, 4]);
    assert_eq!(
        rolls(by_time, &[500, 5, 105, 601]),
        [0, 3],
        "by the first batch's time"
    );
    let by_lag = LogConfig {
        cleanup_compact: true,
        max_compaction_lag_ms: 50,
        ..config.clone()
    };
    assert_eq!(rolls(by_lag, &[5, 55, 56]), [0, 2]);
    let by_index = LogConfig {
        segment_index_bytes: 48,
        index_interval_bytes: 100,
        ..config.clone()
    };
    assert_eq!(rolls(by_index, &[5; 10]), [0, 7], "six entries");

    let mut world = World::new(config);
    let far = |delta: i32| {
        let mut bytes = batch_of(Compression::None, &[rec(5, "key", None)]).to_vec();
        bytes[23..27].copy_from_slice(&delta.to_be_bytes());
        let crc = crate::checkpoint::crc32c(&bytes[21..]);
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
        bytes::Bytes::from(bytes)
    };
    for delta in [i32::MAX - 1, 0, 0, i32::MAX] {
        world.append(&far(delta));
    }
    world.run();
    let max = i64::from(i32::MAX);
    assert_eq!(world.log_files(), [0, max + 1, max + 2]);
}

#[test]
fn timestamps_find_records_inside_batches() {
    for codec in Compression::ALL {
        let mut world = World::new(small_config());
        for i in 0..30 {
            let at = START_MS + i * 100;
            let records = [
                rec(at, "a", None),
                rec(at + 50, "b", None),
                rec(at + 20, "c", None),
            ];
            world.append(&batch_of(codec, &records));
        }
        world.leader_epoch = 4;
        world.append(&batch_of(codec, &[rec(START_MS + 1, "late", None)]));
        world.run();
        let end = world.log.end_offset();
        let find = |timestamp, upper| {
            let lookup = world.log.timestamp_lookup(timestamp, upper);
            let hit = execute(&world.disk, &DiskOp::LookupTimestamp(lookup)).unwrap();
            match hit {
                crate::DiskOutcome::Timestamp(hit) => hit.map(|hit| (hit.offset, hit.timestamp)),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(find(0, end), Some((0, START_MS)));
        assert_eq!(find(START_MS + 1, end), Some((1, START_MS + 50)));
        assert_eq!(find(START_MS + 51, end), Some((3, START_MS + 100)));
        assert_eq!(find(START_MS + 2950, end), Some((88, START_MS + 2950)));
        assert_eq!(find(START_MS + 2951, end), None);
        assert_eq!(find(START_MS + 2950, 87), None, "past the bound");
        let max = look_up(&world.disk, &world.log.max_timestamp_lookup(end))
            .unwrap()
            .unwrap();
        assert_eq!(
            (max.offset, max.timestamp, max.leader_epoch),
            (88, START_MS + 2950, 0)
        );
        assert!(
            look_up(&world.disk, &world.log.max_timestamp_lookup(88))
                .unwrap()
                .is_none()
        );
    }
    let empty = World::new(small_config());
    assert!(
        look_up(&empty.disk, &empty.log.max_timestamp_lookup(0))
            .unwrap()
            .is_none()
    );
    assert!(
        look_up(&empty.disk, &empty.log.timestamp_lookup(0, 0))
            .unwrap()
            .is_none()
    );
}

#[test]
fn a_failed_write_or_sync_is_an_error_of_the_append() {
    for fault in [Fault::Io, Fault::NoSpace] {
        let mut world = World::new(small_config());
        append_op(&mut world);
        world.disk.fail_write(0, fault);
        assert!(world.run_append(0).is_err());
        let mut world = World::new(small_config());
        append_op(&mut world);
        world.disk.fail_sync(0, fault);
        assert!(world.run_append(0).is_err());
        assert_eq!(world.acked, 0);
    }
}
