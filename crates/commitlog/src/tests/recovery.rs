//! Recovery from what crashes, bit rot and people leave behind.

use super::world::{DIR, START_MS, World, batch_of, rec, small_config};
use crate::{Disk, Log, LogConfig, RecoveryError, recover, replay_batches};
use oncelog_wire::Uuid;
use oncelog_wire::records::{Batches, Compression};

/// 40 batches of one record in several segments, checkpointed; then `tail` more that are not.
fn checkpointed(config: LogConfig, tail: usize) -> World {
    let mut world = World::new(config);
    for i in 0..40 {
        world.write(&[rec(START_MS + i, "key", Some(&format!("{i:060}")))]);
    }
    world.restart_clean();
    for i in 0..tail {
        append(&mut world, i as i64);
    }
    world
}

fn append(world: &mut World, i: i64) {
    let record = rec(START_MS + 100 + i, "key", Some(&format!("tail {i:060}")));
    world.append(&batch_of(Compression::None, &[record]));
    while !world.appends.is_empty() {
        world.run_append(0).unwrap();
    }
}

fn active_file(world: &World) -> String {
    format!("{DIR}/{:020}.log", world.log.active_base_offset())
}

fn refused(world: &mut World) -> RecoveryError {
    let before = world.disk.fork();
    let error = world.try_recover(false).expect_err("recovery refuses");
    for name in before.list(DIR).unwrap() {
        if name.ends_with(".log") {
            let file = format!("{DIR}/{name}");
            assert_eq!(
                world.disk.content(&file),
                before.content(&file),
                "{file} was changed"
            );
        }
    }
    error
}

#[test]
fn only_what_was_not_checkpointed_is_scanned() {
    let mut world = checkpointed(small_config(), 0);
    world.kill();
    world.recover();
    assert_eq!(
        (world.report.scanned_bytes, world.report.rebuilt_indexes),
        (0, 0)
    );
    let before = world.log.size_bytes();
    append(&mut world, 0);
    append(&mut world, 1);
    let appended = world.log.size_bytes() - before;
    world.kill();
    world.recover();
    assert_eq!(world.report.scanned_bytes, appended);
    assert_eq!(world.report.notes("orders-0"), [""; 0]);
    world.check_records();
}

#[test]
fn a_log_without_a_checkpoint_is_scanned_whole() {
    let mut world = checkpointed(small_config(), 2);
    world
        .disk
        .remove(&format!("{DIR}/oncelog-checkpoint"))
        .unwrap();
    world.recover();
    assert_eq!(world.report.scanned_bytes, world.log.size_bytes());
    world.check_records();
    assert!(world.log.checkpoint_due());
    world.run();
    world.recover();
    assert_eq!(world.report.scanned_bytes, 0);
}

#[test]
fn a_segment_that_is_gone_with_its_checkpoint_is_spoken_of() {
    for clean in [true, false] {
        let mut world = checkpointed(small_config(), 0);
        let gone = world.log_files()[1];
        let checkpoint = format!("{DIR}/oncelog-checkpoint");
        world.disk.flip_bit(&checkpoint, 60, 1);
        world.disk.remove(&format!("{DIR}/{gone:020}.log")).unwrap();
        world.try_recover(clean).unwrap();
        let notes = world.report.notes("d");
        let said = format!("d: batches from offset {gone} on are missing");
        assert!(notes.iter().any(|note| note.contains(&said)), "{notes:?}");
    }
}

#[test]
fn a_damaged_checkpoint_is_none() {
    let mut world = checkpointed(small_config(), 2);
    world
        .disk
        .flip_bit(&format!("{DIR}/oncelog-checkpoint"), 60, 1);
    world.recover();
    assert_eq!(world.report.scanned_bytes, world.log.size_bytes());
    assert_eq!(
        world.report.notes("d"),
        ["d: oncelog-checkpoint is damaged; the whole log is scanned"]
    );
    world.check_records();
}

/// A log of which everything was deleted does not begin anew at 0.
#[test]
fn a_damaged_checkpoint_costs_an_empty_log_no_offsets() {
    let mut world = checkpointed(small_config(), 2);
    let end = world.log.end_offset();
    let ops = world.log.delete_records_before(end, world.now);
    world.emit(ops);
    world.run();
    for base in world.log_files() {
        let file = format!("{DIR}/{base:020}.log");
        world.disk.remove(&file).unwrap();
    }
    world
        .disk
        .flip_bit(&format!("{DIR}/oncelog-checkpoint"), 60, 1);
    world.durable_start = end;
    world.recover();
    assert_eq!(
        (world.log.start_offset(), world.log.end_offset()),
        (end, end)
    );
}

/// A log whose front was deleted is not taken for a young one that lost its first append.
#[test]
fn a_missing_checkpoint_costs_nothing_where_the_front_was_deleted() {
    let mut world = checkpointed(small_config(), 2);
    let ops = world.log.delete_records_before(30, world.now);
    world.emit(ops);
    world.run();
    let first = world.log_files()[0];
    assert!(first > 0 && first <= 30);
    world
        .disk
        .remove(&format!("{DIR}/oncelog-checkpoint"))
        .unwrap();
    world.durable_start = first; // where exactly it started was in that file alone
    world.recover();
    assert_eq!(
        (world.log.start_offset(), world.log.end_offset()),
        (first, 42)
    );
    world.check_records();
}

/// As Kafka leaves a directory: no checkpoint of ours, and all is well.
#[test]
fn after_a_clean_shutdown_of_another_program_headers_are_enough() {
    let mut world = checkpointed(small_config(), 0);
    world
        .disk
        .remove(&format!("{DIR}/oncelog-checkpoint"))
        .unwrap();
    world.try_recover(true).unwrap();
    assert_eq!(
        (world.report.scanned_bytes, world.report.rebuilt_indexes),
        (0, 0)
    );
    assert_eq!(world.log.end_offset(), 40);
    world.check_records();
}

#[test]
fn a_torn_tail_is_cut_at_the_first_bad_batch() {
    let whole = checkpointed(small_config(), 3);
    let size = whole.log.active().size;
    let batch = size - whole.log.active().end().position + 1; // at least one byte
    assert!(batch > 0);
    let file = active_file(&whole);
    let tail_from = {
        let slice = whole.log.slice(40, 43, u64::MAX, true).unwrap().unwrap();
        crate::resolve(&whole.disk, &slice, u32::MAX, true)
            .unwrap()
            .unwrap()
            .position
    };
    for length in tail_from..size {
        let disk = whole.disk.fork();
        disk.truncate(&file, length).unwrap();
        let recovered = recover(&disk, DIR, small_config(), false, whole.now).unwrap();
        let end = recovered.log.end_offset();
        assert!((40..43).contains(&end));
        let left = disk.len(&file).unwrap().unwrap();
        assert_eq!(left, recovered.log.active().size);
        assert_eq!(recovered.report.truncated_bytes, length - left);
        let again = recover(&disk, DIR, small_config(), false, whole.now).unwrap();
        assert_eq!(again.log.end_offset(), end);
        assert_eq!(again.report.truncated_bytes, 0);
    }
}

#[test]
fn any_flipped_bit_past_the_checkpoint_ends_the_log_before_it() {
    let whole = checkpointed(small_config(), 3);
    let file = active_file(&whole);
    let at = |offset| {
        let slice = whole
            .log
            .slice(offset, 43, u64::MAX, true)
            .unwrap()
            .unwrap();
        crate::resolve(&whole.disk, &slice, u32::MAX, true)
            .unwrap()
            .unwrap()
            .position
    };
    let (second, third) = (at(41), at(42));
    for position in second..third {
        let disk = whole.disk.fork();
        disk.flip_bit(&file, position, (position % 8) as u8);
        let recovered = recover(&disk, DIR, small_config(), false, whole.now).unwrap();
        // The leader epoch lies outside of the CRC.
        let expected = if (12..16).contains(&(position - second)) {
            43
        } else {
            41
        };
        assert_eq!(recovered.log.end_offset(), expected, "byte {position}");
    }
}

#[test]
fn segments_after_a_flaw_go_with_it() {
    let mut world = checkpointed(small_config(), 0);
    let first_tail_base = world.log.active_base_offset();
    for i in 0..60 {
        append(&mut world, i);
    }
    let bases = world.log_files();
    let flawed = bases
        .iter()
        .position(|base| *base == first_tail_base)
        .unwrap()
        + 1;
    assert!(bases.len() > flawed + 2);
    world
        .disk
        .flip_bit(&format!("{DIR}/{:020}.log", bases[flawed]), 100, 0);
    world.kill();
    world.try_recover(false).unwrap();
    assert_eq!(world.log.end_offset(), bases[flawed]);
    assert_eq!(world.log_files(), bases[..=flawed]);
    world.check_records();
    let notes = world.report.notes("d").join("\n");
    assert!(
        notes.contains("CRC-32C") && notes.contains("segments after it"),
        "{notes}"
    );
    world.acked = 0;
    world.after_recovery();
    append(&mut world, 0);
    world.recover();
    world.check_records();
}

#[test]
fn a_gap_between_segments_past_the_checkpoint_ends_the_log() {
    let mut world = checkpointed(small_config(), 0);
    let known = world.log_files().len();
    for i in 0..60 {
        append(&mut world, i);
    }
    let bases = world.log_files();
    world
        .disk
        .remove(&format!("{DIR}/{:020}.log", bases[known + 1]))
        .unwrap();
    world.kill();
    world.try_recover(false).unwrap();
    assert_eq!(world.log.end_offset(), bases[known + 1]);
    world.check_records();
}

#[test]
fn a_missing_segment_below_the_checkpoint_is_refused() {
    let mut world = checkpointed(small_config(), 2);
    let base = world.log_files()[1];
    world.disk.remove(&format!("{DIR}/{base:020}.log")).unwrap();
    let error = refused(&mut world);
    assert!(matches!(error, RecoveryError::Missing { .. }));
    assert!(error.to_string().starts_with(&format!(
        "orders-0/{base:020}.log is missing: the checkpoint says that it holds "
    )));
}

#[test]
fn a_missing_active_segment_is_refused() {
    let mut world = checkpointed(small_config(), 0);
    let file = active_file(&world);
    world.disk.remove(&file).unwrap();
    assert!(matches!(refused(&mut world), RecoveryError::Missing { .. }));
}

#[test]
fn a_shortened_segment_below_the_checkpoint_is_refused() {
    let mut world = checkpointed(small_config(), 2);
    let base = world.log_files()[1];
    let file = format!("{DIR}/{base:020}.log");
    let length = world.disk.len(&file).unwrap().unwrap();
    world.disk.truncate(&file, length - 1).unwrap();
    assert!(matches!(
        refused(&mut world),
        RecoveryError::WrongSize { .. }
    ));
}

#[test]
fn an_active_segment_shorter_than_the_checkpoint_is_refused() {
    let mut world = checkpointed(small_config(), 0);
    let file = active_file(&world);
    let length = world.disk.len(&file).unwrap().unwrap();
    world.disk.truncate(&file, length - 1).unwrap();
    assert!(matches!(
        refused(&mut world),
        RecoveryError::WrongSize { .. }
    ));
}

#[test]
fn a_damaged_header_where_the_index_is_lost_is_refused() {
    let mut world = checkpointed(small_config(), 0);
    let file = active_file(&world);
    world.disk.flip_bit(&file, 16, 0); // the first batch's magic
    world.disk.remove(&file.replace(".log", ".index")).unwrap();
    let error = refused(&mut world);
    assert!(
        matches!(error, RecoveryError::Damaged { position: 0, .. }),
        "{error}"
    );
    assert!(error.to_string().contains("magic"), "{error}");
}

#[test]
fn a_sealed_segment_that_reaches_into_the_next_is_refused() {
    let world = checkpointed(small_config(), 0);
    let bases = world.log_files();
    let sealed = bases.len() - 1;
    assert!(sealed > 1);
    for at in 0..sealed {
        for clean in [false, true] {
            let mut world = checkpointed(small_config(), 0);
            let file = format!("{DIR}/{:020}.log", bases[at]);
            let batches = Batches::new(world.disk.content(&file).unwrap().into());
            let sizes = batches.map(|batch| batch.unwrap().bytes.len() as u64);
            let sizes: Vec<u64> = sizes.collect();
            let last: u64 = sizes[..sizes.len() - 1].iter().sum();
            world.disk.flip_bit(&file, last + 26, 2); // of its last offset delta: 4 more
            if clean {
                // The headers alone are read, with no checkpoint to say where segments end.
                let checkpoint = format!("{DIR}/oncelog-checkpoint");
                world.disk.remove(&checkpoint).unwrap();
            }
            let error = world.try_recover(clean).expect_err("recovery refuses");
            assert!(matches!(error, RecoveryError::Damaged { .. }), "{error}");
            let next = format!("the next segment begins at {}", bases[at + 1]);
            assert!(error.to_string().contains(&next), "{error}");
        }
    }
}

/// Segments are searched by their ends: this one's would lead readers of others past these.
#[test]
fn a_sealed_segment_that_ends_before_it_begins_is_refused() {
    // Neither index names its last batch: there is no entry of the one, and the other has the first of
    // those with the greatest time.
    let mut world = World::new(LogConfig {
        index_interval_bytes: u64::MAX,
        ..small_config()
    });
    for i in 0..40 {
        world.write(&[rec(START_MS, "key", Some(&format!("{i:060}")))]);
    }
    world.restart_clean();
    let file = format!("{DIR}/{:020}.log", world.log_files()[1]);
    let batches = Batches::new(world.disk.content(&file).unwrap().into());
    let sizes: Vec<usize> = batches.map(|batch| batch.unwrap().bytes.len()).collect();
    assert!(sizes.len() > 1);
    let last: usize = sizes[..sizes.len() - 1].iter().sum();
    let base_offset = &[0; 8];
    world
        .disk
        .write_at(&file, last as u64, &[base_offset])
        .unwrap();
    let error = refused(&mut world);
    assert!(matches!(error, RecoveryError::Damaged { .. }), "{error}");
}

#[test]
fn a_stranger_among_the_segments_is_refused() {
    let mut world = checkpointed(small_config(), 0);
    let base = world.log_files()[1] + 1;
    world
        .disk
        .write_at(&format!("{DIR}/{base:020}.log"), 0, &[b"x"])
        .unwrap();
    assert!(matches!(
        refused(&mut world),
        RecoveryError::Unexpected { .. }
    ));
}

#[test]
fn lost_and_damaged_indexes_are_rebuilt_as_they_were() {
    let world = checkpointed(small_config(), 0);
    let names = world.file_names();
    let indexes: Vec<&String> = names.iter().filter(|name| name.contains("index")).collect();
    assert!(indexes.len() > 4);
    let check = |damage: &dyn Fn(&crate::testing::MemoryDisk, &str)| {
        for name in &indexes {
            let file = format!("{DIR}/{name}");
            let original = world.disk.content(&file).unwrap();
            let disk = world.disk.fork();
            damage(&disk, &file);
            let recovered = recover(&disk, DIR, small_config(), false, world.now).unwrap();
            assert_eq!(recovered.log.end_offset(), 40);
            let active = format!("{DIR}/{:020}.", recovered.log.active_base_offset());
            if !file.starts_with(&active) {
                assert_eq!(recovered.report.rebuilt_indexes, 1, "{file}");
                assert_eq!(disk.content(&file).unwrap(), original, "{file}");
            }
            let mut log = recovered.log;
            for op in log.shut_down() {
                crate::execute(&disk, &op).unwrap();
            }
        }
    };
    check(&|disk, file| disk.remove(file).unwrap());
    check(&|disk, file| {
        let length = disk.len(file).unwrap().unwrap();
        disk.truncate(file, length - 1).unwrap();
    });
    for bit in 0..8 {
        check(&|disk, file| {
            let length = disk.len(file).unwrap().unwrap();
            disk.flip_bit(file, length - 5, bit); // in the last entry
        });
    }
}

/// The active segment's index goes on from its file: an entry that points too far must not make a
/// reader miss what is before it.
#[test]
fn a_damaged_entry_of_the_active_index_hides_nothing() {
    let config = LogConfig {
        segment_bytes: 1 << 20,
        index_interval_bytes: 200,
        ..small_config()
    };
    let world = checkpointed(config.clone(), 0);
    let index = active_file(&world).replace(".log", ".index");
    let content = world.disk.content(&index).unwrap();
    assert!(content.len() > 8 * 4);
    for entry in 0..content.len() / 8 - 1 {
        for clean in [false, true] {
            let mut world = checkpointed(config.clone(), 0);
            // It names an earlier batch than the one that it points to.
            let last_offset = content[8 * entry..].first_chunk::<4>().unwrap();
            let before = i32::from_be_bytes(*last_offset) - 1;
            let at = 8 * entry as u64;
            world
                .disk
                .write_at(&index, at, &[&before.to_be_bytes()])
                .unwrap();
            world.try_recover(clean).unwrap();
            for offset in 0..40 {
                let found = world.read_batches(offset, 40, 1);
                assert_eq!(found[0].header.base_offset, offset, "entry {entry}");
            }
        }
    }
}

#[test]
fn leftovers_are_removed() {
    let mut world = checkpointed(small_config(), 1);
    let before = world.file_names();
    let leftovers = [
        "00000000000000000000.log.deleted",
        "00000000000000000007.index.deleted",
        "00000000000000000000.log.cleaned",
        "00000000000000000000.timeindex.cleaned",
        "00000000000000000000.log.swap",
        "00000000000000000000.index.swap",
        "00000000000000000000.index.tmp",
        "oncelog-checkpoint.tmp",
        "00000000000000000999.index",
        "leader-epoch-checkpoint.tmp",
    ];
    for name in leftovers {
        world
            .disk
            .write_at(&format!("{DIR}/{name}"), 0, &[b"old"])
            .unwrap();
    }
    let others = ["00000000000000000040.snapshot", "unknown"];
    for name in others {
        world
            .disk
            .write_at(&format!("{DIR}/{name}"), 0, &[b"another's"])
            .unwrap();
    }
    world.recover();
    world.check_records();
    let mut expected = before;
    expected.extend(others.map(str::to_owned));
    expected.sort();
    assert_eq!(world.file_names(), expected);
}

/// Kafka was killed between making a `.swap` file and renaming it: the swap is completed.
#[test]
fn a_swap_without_a_checkpoint_is_completed() {
    let mut world = checkpointed(small_config(), 0);
    let bases = world.log_files();
    let path = |base: i64, suffix: &str| format!("{DIR}/{base:020}.log{suffix}");
    let mut merged = world.disk.content(&path(bases[0], "")).unwrap();
    merged.extend(world.disk.content(&path(bases[1], "")).unwrap());
    world
        .disk
        .write_at(&path(0, ".swap"), 0, &[&merged])
        .unwrap();
    world
        .disk
        .remove(&format!("{DIR}/oncelog-checkpoint"))
        .unwrap();
    world.recover();
    assert_eq!(world.disk.content(&path(0, "")).unwrap(), merged);
    let mut expected = bases.clone();
    expected.remove(1);
    assert_eq!(world.log_files(), expected);
    world.check_records();
}

#[test]
fn epochs_survive_with_and_without_their_file() {
    let mut world = World::new(small_config());
    for epoch in [0, 1, 1, 4, 9] {
        world.leader_epoch = epoch;
        for i in 0..8 {
            world.write(&[rec(START_MS + i, "key", Some(&"x".repeat(60)))]);
        }
    }
    let epochs = |log: &Log| -> Vec<(i32, i64)> {
        (0..11)
            .map(|epoch| log.end_offset_for_epoch(epoch))
            .collect()
    };
    let expected = epochs(&world.log);
    assert_eq!(expected[..5], [(0, 8), (1, 24), (1, 24), (1, 24), (4, 32)]);
    world.restart_clean();
    assert_eq!(epochs(&world.log), expected);
    let file = format!("{DIR}/leader-epoch-checkpoint");
    let content = world.disk.content(&file).unwrap();
    assert_eq!(
        String::from_utf8(content).unwrap(),
        "0\n4\n0 0\n1 8\n4 24\n9 32\n"
    );
    world.disk.flip_bit(&file, 0, 0);
    world.recover();
    assert_eq!(epochs(&world.log), expected);
    world.disk.remove(&file).unwrap();
    world.recover();
    assert_eq!(epochs(&world.log), expected);
    let ops = world.log.delete_records_before(20, world.now);
    world.emit(ops);
    world.run();
    world.recover();
    assert_eq!(world.log.end_offset_for_epoch(0), (0, 20));
}

#[test]
fn replay_visits_every_header_from_an_offset_on() {
    for tail in [0, 5] {
        let mut world = checkpointed(small_config(), tail);
        world.kill();
        world.recover();
        for from in 0..=40 + tail as i64 {
            let mut seen = Vec::new();
            replay_batches(&world.disk, &world.log, from, &mut |header, _| {
                seen.push(header.base_offset);
                Ok(())
            })
            .unwrap();
            let expected: Vec<i64> = (from..40 + tail as i64).collect();
            assert_eq!(seen, expected, "from {from}");
        }
    }
}

#[test]
fn the_topic_id_is_read_and_an_empty_directory_is_an_empty_log() {
    let world = checkpointed(small_config(), 0);
    let recovered = recover(&world.disk, DIR, small_config(), false, world.now).unwrap();
    assert_eq!(recovered.topic_id, Some(Uuid([9; 16])));
    let disk = crate::testing::MemoryDisk::new();
    let recovered = recover(&disk, DIR, small_config(), false, world.now).unwrap();
    assert_eq!((recovered.topic_id, recovered.log.end_offset()), (None, 0));
}

/// No read may panic or loop, whatever is in the files.
#[test]
fn random_damage_is_never_a_panic() {
    let world = checkpointed(small_config(), 5);
    let mut random = crate::testing::Random::new(11);
    let names = world.file_names();
    for _ in 0..1500 {
        let disk = world.disk.fork();
        for _ in 0..=random.below(3) {
            let name = &names[random.below(names.len() as u64) as usize];
            let file = format!("{DIR}/{name}");
            let Some(length) = disk.len(&file).unwrap().filter(|length| *length > 0) else {
                continue;
            };
            match random.below(4) {
                0 => disk.truncate(&file, random.below(length)).unwrap(),
                1 => disk
                    .write_at(&file, random.below(length), &[&[0xff; 9]])
                    .unwrap(),
                2 => disk
                    .write_at(&file, random.below(length), &[&[0; 70]])
                    .unwrap(),
                _ => disk.flip_bit(&file, random.below(length), random.below(8) as u8),
            }
        }
        let Ok(recovered) = recover(&disk, DIR, small_config(), random.one_in(3), world.now) else {
            continue;
        };
        let log = recovered.log;
        let mut offset = log.start_offset();
        while let Ok(Some(slice)) = log.slice(offset, log.end_offset(), 500, true) {
            if crate::read(&disk, &slice).is_err() {
                break;
            }
            offset += 1;
        }
        let lookup = log.timestamp_lookup(START_MS + 20, log.end_offset());
        let _ = crate::look_up(&disk, &lookup);
        let _ = replay_batches(&disk, &log, log.start_offset(), &mut |_, _| Ok(()));
    }
}
