//! Random operations, crashes and recoveries, against a model that remembers every record.
//!
//! Checked: acknowledged records survive; nothing is read that was not written, at any offset; a
//! CRC that does not match is never served; slices are exactly the batches asked for; timestamps
//! find the first record that is late enough; recovery after a crash during recovery, too; and
//! after a clean restart nothing is scanned.

use super::world::{DIR, Rec, World, small_config};
use crate::testing::Random;
use crate::{DiskOp, DiskOutcome, LogConfig, execute, look_up, resolve};
use oncelog_wire::records::{Batch, Batches, Compression};
use proptest::prelude::*;
use std::collections::BTreeSet;

#[derive(Clone, Debug)]
enum Action {
    Append {
        records: u8,
        value_bytes: u16,
        codec: u8,
        seed: u64,
    },
    /// Execute one of the appends under way.
    RunAppend(u8),
    RunSteps(u8),
    RunAll,
    WorkDue,
    Pass {
        ms: u16,
    },
    Retention,
    DeleteRecords {
        part: u8,
    },
    PlanCompaction,
    FinishCompaction,
    NewEpoch,
    Read {
        seed: u64,
    },
    RestartClean,
    Kill,
    Crash {
        seed: u64,
    },
    CrashInRecovery {
        seed: u64,
        after: u8,
    },
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        20 => (1..6u8, 0..400u16, 0..5u8, any::<u64>()).prop_map(
            |(records, value_bytes, codec, seed)| Action::Append { records, value_bytes, codec, seed }
        ),
        12 => any::<u8>().prop_map(Action::RunAppend),
        6 => (1..30u8).prop_map(Action::RunSteps),
        6 => Just(Action::RunAll),
        4 => Just(Action::WorkDue),
        3 => (0..5000u16).prop_map(|ms| Action::Pass { ms }),
        2 => Just(Action::Retention),
        2 => any::<u8>().prop_map(|part| Action::DeleteRecords { part }),
        3 => Just(Action::PlanCompaction),
        3 => Just(Action::FinishCompaction),
        1 => Just(Action::NewEpoch),
        6 => any::<u64>().prop_map(|seed| Action::Read { seed }),
        1 => Just(Action::RestartClean),
        1 => Just(Action::Kill),
        2 => any::<u64>().prop_map(|seed| Action::Crash { seed }),
        2 => (any::<u64>(), 0..30u8).prop_map(|(seed, after)| Action::CrashInRecovery { seed, after }),
    ]
}

fn config() -> impl Strategy<Value = LogConfig> {
    let flush = prop_oneof![
        3 => Just((1, i64::MAX)),
        1 => Just((7, i64::MAX)),
        1 => Just((i64::MAX, 2000)),
        1 => Just((i64::MAX, i64::MAX)),
    ];
    let retention = prop_oneof![Just((-1, -1)), Just((6000, -1)), Just((-1, 20_000))];
    (flush, retention, any::<bool>(), 1000..5000u64, 50..600u64).prop_map(
        |((flush_messages, flush_ms), (bytes, ms), compact, segment_bytes, interval)| LogConfig {
            flush_messages,
            flush_ms,
            retention_bytes: bytes,
            retention_ms: ms,
            cleanup_compact: compact,
            min_cleanable_dirty_ratio: 0.1,
            delete_retention_ms: 3000,
            file_delete_delay_ms: 1000,
            segment_ms: 30_000,
            segment_bytes,
            index_interval_bytes: interval,
            ..small_config()
        },
    )
}

fn check(config: LogConfig, actions: Vec<Action>) {
    let mut world = World::new(config);
    for action in actions {
        step(&mut world, action);
    }
    world.run();
    world.check_records();
    world.restart_clean();
    world.check_records();
}

fn step(world: &mut World, action: Action) {
    match action {
        Action::Append {
            records,
            value_bytes,
            codec,
            seed,
        } => {
            let batch = random_batch(world, records, value_bytes, codec, seed);
            world.append(&batch);
        }
        Action::RunAppend(pick) if !world.appends.is_empty() => {
            let index = usize::from(pick) % world.appends.len();
            world.run_append(index).unwrap();
        }
        Action::RunAppend(_) => {}
        Action::RunSteps(count) => world.try_steps(count.into()).unwrap(),
        Action::RunAll => world.run(),
        Action::WorkDue => {
            let ops = world.log.work_due(world.now);
            world.emit(ops);
            let deadline = world.log.next_deadline();
            assert!(deadline > world.now.instant, "what was due is due again");
        }
        Action::Pass { ms } => world.pass_ms(ms.into()),
        Action::Retention => {
            let limit = world.log.written_end_offset();
            let ops = world.log.apply_retention(world.now, limit);
            world.emit(ops);
        }
        Action::DeleteRecords { part } => {
            let (start, end) = (world.log.start_offset(), world.log.written_end_offset());
            let to = start + (end - start) * i64::from(part) / 255 / 3;
            let ops = world.log.delete_records_before(to, world.now);
            world.emit(ops);
        }
        Action::PlanCompaction => plan_compaction(world),
        Action::FinishCompaction => finish_compaction(world),
        Action::NewEpoch => world.leader_epoch += 1,
        Action::Read { seed } => {
            if !world.installing {
                // Until merged segments are in place, some of their records are not to be had.
                world.check_records();
            }
            check_slices(world, seed);
            check_timestamps(world, seed);
        }
        Action::RestartClean => {
            finish_compaction(world);
            world.restart_clean();
            world.check_records();
        }
        Action::Kill => {
            world.kill();
            world.recover();
            world.check_records();
        }
        Action::Crash { seed } => {
            world.crash(seed);
            world.recover();
            world.check_records();
        }
        Action::CrashInRecovery { seed, after } => {
            world.crash(seed);
            world.disk.cut_power_after(after.into());
            let _ = world.try_recover(false);
            world.disk.crash(seed ^ 1);
            world.recover();
            world.check_records();
        }
    }
}

fn random_batch(
    world: &World,
    records: u8,
    value_bytes: u16,
    codec: u8,
    seed: u64,
) -> bytes::Bytes {
    let mut random = Random::new(seed);
    let records: Vec<Rec> = (0..records)
        .map(|_| Rec {
            timestamp: world.now.wall_ms - random.below(3000) as i64,
            key: (!random.one_in(20)).then(|| vec![b'a' + random.below(12) as u8]),
            value: (!random.one_in(8))
                .then(|| (0..value_bytes).map(|_| random.below(30) as u8).collect()),
        })
        .collect();
    super::world::batch_of(Compression::ALL[usize::from(codec)], &records)
}

fn plan_compaction(world: &mut World) {
    let limit = world.log.written_end_offset();
    if world.compaction.is_none() {
        let plan = world.log.compaction_plan(world.now, limit, BTreeSet::new());
        world.compaction = plan.map(|plan| DiskOp::Compact(Box::new(plan)));
    }
}

fn finish_compaction(world: &mut World) {
    let Some(op) = world.compaction.take() else {
        return;
    };
    // What the plan was made of may have been deleted, or still be on its way to the disk.
    match execute(&world.disk, &op) {
        Ok(DiskOutcome::Compacted(outcome)) => {
            let ops = world.log.apply_compaction(*outcome, world.now);
            world.emit(ops);
            world.installing = true;
        }
        Ok(other) => panic!("not compacted: {other:?}"),
        Err(_) => world.log.compaction_failed(world.now),
    }
}

/// Slices at random places against the segment files themselves.
fn check_slices(world: &World, seed: u64) {
    if !world.steps.is_empty() {
        return; // the files are about to be renamed
    }
    let mut random = Random::new(seed);
    let (start, end) = (world.log.start_offset(), world.log.written_end_offset());
    for _ in 0..10 {
        let offset = start + random.below((end - start) as u64 + 1) as i64;
        let upper = offset + random.below((end - offset) as u64 + 1) as i64;
        let max_bytes = random.below(3000);
        let at_least_one = random.one_in(2);
        let expected = expected_slice(world, offset, upper, max_bytes, at_least_one);
        let slice = world.log.slice(offset, upper, 2500, true).unwrap();
        let resolved = slice.and_then(|slice| {
            resolve(&world.disk, &slice, max_bytes as u32, at_least_one).unwrap()
        });
        let bytes = resolved.map(|resolved| {
            let content = world.disk.content(&resolved.file).unwrap();
            content[resolved.position as usize..][..resolved.len as usize].to_vec()
        });
        assert_eq!(
            bytes.unwrap_or_default(),
            expected,
            "{offset}..{upper}, {max_bytes} bytes, at least one: {at_least_one}"
        );
    }
}

/// By reading whole files, from the first that has what is asked for.
fn expected_slice(
    world: &World,
    offset: i64,
    upper: i64,
    max_bytes: u64,
    at_least_one: bool,
) -> Vec<u8> {
    let max_bytes = max_bytes.min(2500) as usize;
    for base in world.log_files() {
        let content = world
            .disk
            .content(&format!("{DIR}/{base:020}.log"))
            .unwrap();
        let batches: Vec<Batch> = Batches::with_partial_end(content.into())
            .map_while(Result::ok) // past the written end there may be holes
            .collect();
        if !batches
            .iter()
            .any(|batch| batch.header.last_offset() >= offset)
        {
            continue;
        }
        let mut bytes = Vec::new();
        for batch in batches
            .iter()
            .filter(|batch| batch.header.last_offset() >= offset)
        {
            let first = bytes.is_empty() && at_least_one;
            let fits = bytes.len() + batch.bytes.len() <= max_bytes;
            if batch.header.last_offset() >= upper || !(fits || first) {
                break;
            }
            bytes.extend_from_slice(&batch.bytes);
        }
        return bytes;
    }
    Vec::new()
}

fn check_timestamps(world: &World, seed: u64) {
    if !world.steps.is_empty() {
        return;
    }
    let mut random = Random::new(seed ^ 7);
    let upper = world.log.written_end_offset();
    let records = world.read_records();
    for _ in 0..5 {
        let timestamp = world.now.wall_ms - random.below(10_000) as i64;
        let lookup = world.log.timestamp_lookup(timestamp, upper);
        let hit = look_up(&world.disk, &lookup).unwrap();
        let expected = records
            .iter()
            .find(|(_, record)| record.timestamp >= timestamp);
        assert_eq!(
            hit.map(|hit| (hit.offset, hit.timestamp)),
            expected.map(|(offset, record)| (*offset, record.timestamp)),
            "at or after {timestamp}"
        );
    }
}

/// As many cases as `PROPTEST_CASES` says, 300 if it says nothing.
fn config_of_runs() -> ProptestConfig {
    let set = std::env::var_os("PROPTEST_CASES").is_some();
    let config = ProptestConfig::default();
    let cases = if set { config.cases } else { 300 };
    ProptestConfig { cases, ..config }
}

proptest! {
    #![proptest_config(config_of_runs())]

    #[test]
    fn random_operations_and_crashes(
        config in config(),
        actions in prop::collection::vec(action(), 1..80),
    ) {
        check(config, actions);
    }
}
