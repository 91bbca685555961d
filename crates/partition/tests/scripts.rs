//! Scenarios as transcripts: `testdata/*.txt`, commands above `---`, what happened below it.
//! `UPDATE_GOLDENFILES=1 cargo test -p oncelog-partition --test scripts` writes the lower halves
//! anew, to be reviewed.

mod support;

use oncelog_commitlog::Disk;
use oncelog_partition::*;
use oncelog_wire::records::{
    Batch, BatchBuilder, BatchHeader, Compression, ControlRecord, TimestampType,
};
use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;
use support::{DIR, Produce, World};

macro_rules! scripts {
    ($($name:ident)*) => {
        mod script {
            $(#[test]
            fn $name() {
                let file = concat!(stringify!($name), ".txt");
                let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/");
                let runner = &mut super::Runner::default();
                goldenscript::run(runner, format!("{dir}{file}")).unwrap();
            })*
        }

        #[test]
        fn every_script_is_run() {
            let listed = [$(concat!(stringify!($name), ".txt")),*];
            let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata");
            for file in std::fs::read_dir(dir).unwrap() {
                let name = file.unwrap().file_name().into_string().unwrap();
                assert!(listed.contains(&name.as_str()), "{name} is not listed");
            }
        }
    };
}

scripts! {
    acks_dropped
    append_checks
    compaction
    crash_before_append
    delete_records
    epochs
    expiry
    fetch
    holes
    log_append_time
    restart
    sequences
    shutdown
    transactions
    transactions_compacted
    transactions_coordinator
    transactions_crash
    transactions_damaged
    transactions_deleted
    transactions_fetch
    transactions_markers
    transactions_verify
    watermark
}

#[derive(goldenscript::Command)]
enum Command {
    /// Makes the partition, with topic configs by their Kafka names.
    Create(#[arg(optional)] BTreeMap<String, String>),
    /// Changes topic configs.
    Set(BTreeMap<String, String>),
    /// A client's batch of `n` records; `hold`: the host does not carry the append out yet.
    Produce {
        #[arg(key)]
        pid: Option<i64>,
        #[arg(key)]
        epoch: Option<i16>,
        #[arg(key)]
        seq: Option<i32>,
        #[arg(key)]
        n: Option<i32>,
        #[arg(key)]
        ts: Option<i64>,
        #[arg(key)]
        codec: Option<String>,
        #[arg(key)]
        bytes: Option<usize>,
        #[arg(key, optional)]
        keyless: bool,
        /// A transactional batch; the coordinator is asked before, if it needs to be.
        #[arg(key, optional)]
        transactional: bool,
        /// Whose answer comes with the batch: nobody's (`none`), or that to the last `ask`.
        #[arg(key)]
        guard: Option<String>,
        #[arg(key, optional)]
        hold: bool,
    },
    /// Begins asking the coordinator about a transactional batch, if it needs to be asked.
    Ask {
        #[arg(key)]
        pid: i64,
        #[arg(key)]
        epoch: Option<i16>,
        #[arg(key)]
        seq: Option<i32>,
        /// The client keeps transactions of version 2.
        #[arg(key, optional)]
        tv2: bool,
    },
    /// A coordinator's records in a client's transaction; `guard` as for `produce`.
    Coordinate {
        #[arg(key)]
        pid: i64,
        #[arg(key)]
        epoch: Option<i16>,
        #[arg(key)]
        guard: Option<String>,
        #[arg(key, optional)]
        hold: bool,
    },
    /// `commit` or `abort`, of transaction version `tv`.
    Marker {
        result: String,
        #[arg(key)]
        pid: i64,
        #[arg(key)]
        epoch: Option<i16>,
        #[arg(key)]
        coordinator: Option<i32>,
        #[arg(key)]
        tv: Option<i8>,
        #[arg(key, optional)]
        hold: bool,
    },
    /// Carries out held appends, by their last offsets, in this order.
    Complete(Vec<i64>),
    /// Lets time pass, and housekeeping run if that makes it due.
    Advance {
        ms: i64,
    },
    /// Runs housekeeping so many times.
    Housekeeping {
        times: i32,
    },
    /// The wall clock jumps.
    Jump {
        ms: i64,
    },
    Kill,
    PowerCut {
        #[arg(key)]
        seed: u64,
    },
    ShutDown,
    Open {
        #[arg(key)]
        leader_epoch: Option<i32>,
    },
    /// Flips a bit of the newest snapshot, or of all.
    DamageSnapshot {
        #[arg(key, optional)]
        all: bool,
    },
    /// Removes the files with this ending, or flips a bit in each.
    Damage {
        suffix: String,
        #[arg(key, optional)]
        remove: bool,
    },
    Producers,
    /// Open transactions.
    Transactions,
    /// What a read_committed consumer is given.
    ReadCommitted,
    /// The files that list aborted transactions.
    TxnIndexes,
    Batches,
    Offsets,
    Snapshots,
    /// One batch with read_committed, unless another size is given.
    Fetch {
        offset: i64,
        #[arg(key)]
        bytes: Option<u64>,
        #[arg(key)]
        current_epoch: Option<i32>,
        #[arg(key)]
        last_epoch: Option<i32>,
    },
    EpochEnd {
        epoch: i32,
        #[arg(key)]
        current_epoch: Option<i32>,
    },
    ListOffset {
        timestamp: i64,
    },
    DeleteRecords {
        before: i64,
    },
}

#[derive(Default)]
struct Runner {
    world: World,
    /// What the last `ask` was given.
    asked: Option<VerificationGuard>,
}

type Output = Result<String, Box<dyn Error>>;

impl goldenscript::Runner for Runner {
    type Command = Command;

    fn run(&mut self, command: &Command, _: &goldenscript::Context) -> Output {
        let world = &mut self.world;
        match command {
            Command::Create(configs) => {
                configure(&mut world.config, configs)?;
                world.create();
            }
            Command::Set(configs) => {
                configure(&mut world.config, configs)?;
                let config = world.config.clone();
                world.partition().set_config(config);
            }
            Command::Complete(last_offsets) => return Ok(complete(world, last_offsets)),
            Command::Advance { ms } => {
                world.advance(*ms);
                let instant = world.now.instant;
                if world.partition().next_deadline() <= instant {
                    world.housekeeping();
                }
            }
            Command::Housekeeping { times } => (0..*times).for_each(|_| world.housekeeping()),
            Command::Jump { ms } => world.now.wall_ms += ms,
            Command::Kill => world.kill(),
            Command::PowerCut { seed } => world.power_cut(*seed),
            Command::ShutDown => world.shut_down(),
            Command::Open { leader_epoch } => {
                world.leader_epoch = leader_epoch.unwrap_or(world.leader_epoch);
                let notes = world.open()?;
                return Ok(notes.iter().map(|note| format!("{note}\n")).collect());
            }
            Command::DamageSnapshot { all } => {
                let mut names = world.files(".snapshot");
                let first = names.len().checked_sub(1).ok_or("no snapshot")?;
                for name in names.drain(if *all { 0 } else { first }..) {
                    world.disk.flip_bit(&format!("{DIR}/{name}"), 9, 1);
                }
            }
            Command::Snapshots => {
                let names = world.files(".snapshot");
                let offsets: Vec<&str> = names
                    .iter()
                    .map(|n| n[..20].trim_start_matches('0'))
                    .collect();
                return Ok(format!("{offsets:?}\n"));
            }
            Command::Produce { .. } => return produce(world, command, self.asked),
            Command::Ask { .. } => return ask_coordinator(world, command, &mut self.asked),
            Command::Coordinate { .. } => return coordinate(world, command, self.asked),
            Command::Marker { .. } => return marker(world, command),
            Command::Damage { suffix, remove } => damage(world, suffix, *remove),
            _ => return ask(world, command),
        }
        Ok(String::new())
    }
}

fn configure(
    config: &mut PartitionConfig,
    configs: &BTreeMap<String, String>,
) -> Result<(), Box<dyn Error>> {
    for (name, value) in configs {
        match name.as_str() {
            "segment.bytes" => config.log.segment_bytes = value.parse()?,
            "retention.ms" => config.log.retention_ms = value.parse()?,
            "flush.messages" => config.log.flush_messages = value.parse()?,
            "max.message.bytes" => config.log.max_message_bytes = value.parse()?,
            "cleanup.policy" => {
                config.log.cleanup_compact = value.contains("compact");
                config.log.cleanup_delete = value.contains("delete");
            }
            "compression.type" => {
                config.compression = match Compression::from_name(value) {
                    Some(codec) => TargetCompression::Codec(codec),
                    None => TargetCompression::Producer,
                }
            }
            "message.timestamp.type" => {
                config.timestamp_type = match value.as_str() {
                    "LogAppendTime" => TimestampType::LogAppendTime,
                    _ => TimestampType::CreateTime,
                }
            }
            "message.timestamp.before.max.ms" => config.timestamp_before_max_ms = value.parse()?,
            "message.timestamp.after.max.ms" => config.timestamp_after_max_ms = value.parse()?,
            "delete.retention.ms" => config.log.delete_retention_ms = value.parse()?,
            "min.cleanable.dirty.ratio" => {
                config.log.min_cleanable_dirty_ratio = value.parse()?;
            }
            "producer.id.expiration.ms" => config.producer_id_expiration_ms = value.parse()?,
            name => return Err(format!("unknown config {name}").into()),
        }
    }
    Ok(())
}

fn complete(world: &mut World, last_offsets: &[i64]) -> String {
    let mut output = String::new();
    for last_offset in last_offsets {
        let _ = match world.complete(*last_offset) {
            Some(high_watermark) => writeln!(output, "high watermark {high_watermark}"),
            None => writeln!(output, "high watermark unchanged"),
        };
    }
    output
}

fn produce(world: &mut World, command: &Command, asked: Option<VerificationGuard>) -> Output {
    let Command::Produce {
        pid,
        epoch,
        seq,
        n,
        ts,
        codec,
        bytes,
        keyless,
        transactional,
        guard,
        hold,
    } = command
    else {
        unreachable!("only called for produce");
    };
    let codec = codec.as_deref().unwrap_or("none");
    let produce = Produce {
        producer: pid.map(|pid| (pid, epoch.unwrap_or(0), seq.unwrap_or(0))),
        count: n.unwrap_or(1),
        timestamp: ts.unwrap_or(world.now.wall_ms),
        key: (!keyless).then_some(b"key"),
        value: vec![b'v'; bytes.unwrap_or(5)],
        codec: Compression::from_name(codec).ok_or("unknown codec")?,
        transactional: *transactional,
        guard: guard_of(guard.as_deref(), asked)?,
        hold: *hold,
        own_keys: false,
    };
    let appended = match (transactional, guard) {
        (true, None) => world.produce_verified(&produce),
        _ => world.produce(&produce),
    };
    appended_line(world, appended)
}

fn guard_of(
    guard: Option<&str>,
    asked: Option<VerificationGuard>,
) -> Result<Option<VerificationGuard>, String> {
    match guard {
        None | Some("none") => Ok(None),
        Some("asked") => Ok(asked),
        Some(other) => Err(format!("no guard {other}")),
    }
}

fn appended_line(world: &mut World, appended: Result<Appended, Rejection>) -> Output {
    Ok(match appended {
        Err(rejection) => {
            let code = rejection.code.kafka_name();
            format!("{code}: {}\n", rejection.message)
        }
        Ok(appended) => {
            let what = match appended.duplicate {
                true => "duplicate of",
                false => "appended",
            };
            let mut line = format!("{what} {}..={}", appended.base_offset, appended.last_offset);
            if appended.append_time_ms >= 0 {
                write!(line, " at {}", appended.append_time_ms)?;
            }
            let high_watermark = world.partition().high_watermark();
            if high_watermark <= appended.last_offset {
                write!(line, ", waits (high watermark {high_watermark})")?;
            }
            line + "\n"
        }
    })
}

fn ask_coordinator(
    world: &mut World,
    command: &Command,
    asked: &mut Option<VerificationGuard>,
) -> Output {
    let Command::Ask {
        pid,
        epoch,
        seq,
        tv2,
    } = command
    else {
        unreachable!("only called for ask");
    };
    let produce = Produce {
        producer: Some((*pid, epoch.unwrap_or(0), seq.unwrap_or(0))),
        transactional: true,
        ..Default::default()
    };
    let header = BatchHeader::parse(&produce.build())?;
    if !world.partition().needs_verification(&header) {
        return Ok("nothing to ask\n".to_owned());
    }
    let guard = world.partition().begin_verification(&header, *tv2);
    let again = *asked == Some(guard);
    *asked = Some(guard);
    Ok(format!("asked{}\n", if again { " again" } else { "" }))
}

fn coordinate(world: &mut World, command: &Command, asked: Option<VerificationGuard>) -> Output {
    let Command::Coordinate {
        pid,
        epoch,
        guard,
        hold,
    } = command
    else {
        unreachable!("only called for coordinate");
    };
    let builder = BatchBuilder::new().transactional(true);
    let mut builder = builder.producer(*pid, epoch.unwrap_or(0), -1);
    builder.append(world.now.wall_ms, Some(b"group"), Some(b"offset"), &[]);
    let (now, batch) = (world.now, builder.build());
    let header = BatchHeader::parse(&batch)?;
    let partition = world.partition();
    let guard = match guard.as_deref() {
        None if partition.needs_verification(&header) => {
            Some(partition.begin_verification(&header, true))
        }
        guard => guard_of(guard, asked)?,
    };
    let mut appended = partition.append_transactional(now, batch, guard);
    if let Ok(appended) = &mut appended {
        world.take(appended, *hold);
    }
    appended_line(world, appended)
}

fn marker(world: &mut World, command: &Command) -> Output {
    let Command::Marker {
        result,
        pid,
        epoch,
        coordinator,
        tv,
        hold,
    } = command
    else {
        unreachable!("only called for marker");
    };
    let marker = EndTransactionMarker {
        producer_id: *pid,
        producer_epoch: epoch.unwrap_or(0),
        coordinator_epoch: coordinator.unwrap_or(0),
        transaction_version: tv.unwrap_or(0),
        commit: result == "commit",
    };
    let appended = world.marker(&marker, *hold);
    appended_line(world, appended)
}

fn damage(world: &mut World, suffix: &str, remove: bool) {
    for name in world.files(suffix) {
        let file = format!("{DIR}/{name}");
        match remove {
            true => world.disk.remove(&file).expect("removed"),
            false => world.disk.flip_bit(&file, 9, 1),
        }
    }
}

fn txn_indexes(world: &World, output: &mut String) -> Result<(), Box<dyn Error>> {
    for name in world.files(".txnindex") {
        write!(output, "{}:", name.trim_start_matches('0'))?;
        let content = world.disk.content(&format!("{DIR}/{name}")).ok_or("gone")?;
        for entry in content.chunks(34) {
            let fields = entry[2..].chunks_exact(8);
            let mut fields = fields.map(|f| i64::from_be_bytes(f.try_into().expect("8 bytes")));
            let mut next = || fields.next().ok_or("an entry is cut off");
            let (producer, first, last, stable) = (next()?, next()?, next()?, next()?);
            write!(
                output,
                " producer {producer} {first}..={last} stable {stable};"
            )?;
        }
        writeln!(output)?;
    }
    Ok(())
}

fn ask(world: &mut World, command: &Command) -> Output {
    let mut output = String::new();
    match command {
        Command::Producers => producers(world, &mut output)?,
        Command::Transactions => {
            for open in world.partition().open_transactions() {
                writeln!(
                    output,
                    "producer {}/{} from {}, last batch at {}",
                    open.producer_id, open.producer_epoch, open.first_offset, open.last_timestamp
                )?;
            }
        }
        Command::ReadCommitted => {
            let records = world.read_committed();
            let offsets: Vec<i64> = records.iter().map(|record| record.offset).collect();
            writeln!(output, "{offsets:?}")?;
        }
        Command::TxnIndexes => txn_indexes(world, &mut output)?,
        Command::Batches => {
            for batch in world.batches() {
                let h = &batch.header;
                writeln!(
                    output,
                    "{}..={} epoch {}, producer {}/{}, sequences {}..={}, {} records, {}, {:?} {}",
                    h.base_offset,
                    h.last_offset(),
                    h.partition_leader_epoch,
                    h.producer_id,
                    h.producer_epoch,
                    h.base_sequence,
                    h.last_sequence(),
                    h.records_count,
                    h.compression()?.name(),
                    h.timestamp_type(),
                    h.max_timestamp,
                )?;
                if h.is_transactional() {
                    output.pop();
                    writeln!(output, ", {}", transactional(&batch)?)?;
                }
            }
        }
        Command::Offsets => {
            let p = world.partition();
            let (start, end) = (p.log_start_offset(), p.log_end_offset());
            let (stable, high) = (p.last_stable_offset(), p.high_watermark());
            writeln!(
                output,
                "start {start}, stable {stable}, high watermark {high}, end {end}"
            )?;
        }
        Command::Fetch {
            offset,
            bytes,
            current_epoch,
            last_epoch,
        } => {
            let params = FetchParams {
                fetch_offset: *offset,
                current_leader_epoch: *current_epoch,
                last_fetched_epoch: *last_epoch,
                isolation: Isolation::ReadCommitted,
                max_bytes: bytes.unwrap_or(1),
                at_least_one: true,
            };
            writeln!(output, "{}", fetch(world, &params)?)?;
        }
        Command::EpochEnd {
            epoch,
            current_epoch,
        } => match world
            .partition()
            .offset_for_leader_epoch(*epoch, *current_epoch)
        {
            Ok(end) => writeln!(
                output,
                "epoch {} ends at {}",
                end.leader_epoch, end.end_offset
            )?,
            Err(code) => writeln!(output, "{}", code.kafka_name())?,
        },
        Command::ListOffset { timestamp } => list_offset(world, *timestamp, &mut output)?,
        Command::DeleteRecords { before } => {
            let now = world.now;
            match world.partition().delete_records(now, *before) {
                Ok(deleted) => {
                    writeln!(output, "low watermark {}", deleted.low_watermark)?;
                    world.run(deleted.work);
                }
                Err(code) => writeln!(output, "{}", code.kafka_name())?,
            }
        }
        _ => unreachable!("handled by run"),
    }
    Ok(output)
}

fn producers(world: &mut World, output: &mut String) -> Result<(), Box<dyn Error>> {
    let now = world.now.instant;
    for (id, state) in world.partition().producers().iter() {
        write!(
            output,
            "producer {id}, epoch {}, idle {} ms:",
            state.epoch,
            state.idle_ms(now)
        )?;
        for entry in state.window.entries() {
            let (first, last) = (entry.base_sequence(), entry.last_sequence);
            write!(output, " {first}..={last}@{}", entry.base_offset())?;
        }
        if let Some(first) = state.current_txn_first_offset {
            write!(output, " transaction from {first}")?;
        }
        writeln!(output)?;
    }
    Ok(())
}

/// What a transactional batch is.
fn transactional(batch: &Batch) -> Result<String, Box<dyn Error>> {
    if !batch.header.is_control() {
        return Ok("transactional".to_owned());
    }
    let horizon = match batch.header.delete_horizon_ms() {
        Some(horizon) => format!(" until {horizon}"),
        None => String::new(),
    };
    Ok(match ControlRecord::of_batch(batch)? {
        Some(ControlRecord::EndTxn {
            result,
            coordinator_epoch,
        }) => format!("{result:?} of coordinator {coordinator_epoch}{horizon}"),
        other => format!("{other:?}{horizon}"),
    })
}

fn fetch(world: &mut World, params: &FetchParams) -> Output {
    let view = match world.partition().fetch(params) {
        Err(code) => return Ok(code.kafka_name().to_owned()),
        Ok(view) => view,
    };
    if let Some(end) = view.diverging_epoch {
        let (epoch, offset) = (end.leader_epoch, end.end_offset);
        return Ok(format!("diverging: epoch {epoch} ends at {offset}"));
    }
    let Some(slice) = view.slice else {
        return Ok(format!(
            "nothing yet, high watermark {}",
            view.high_watermark
        ));
    };
    let bytes = oncelog_commitlog::read(&world.disk as &dyn Disk, &slice)?;
    let batch = Batch::parse(&bytes)?;
    let (first, last) = (batch.header.base_offset, batch.header.last_offset());
    assert!(view.available_bytes >= bytes.len() as u64);
    let aborted = view.aborted_transactions.unwrap_or_default();
    let aborted = aborted
        .iter()
        .map(|a| format!(", aborted {}@{}", a.producer_id, a.first_offset));
    Ok(format!(
        "batch {first}..={last}, high watermark {}{}",
        view.high_watermark,
        aborted.collect::<String>()
    ))
}

fn list_offset(
    world: &mut World,
    timestamp: i64,
    output: &mut String,
) -> Result<(), Box<dyn Error>> {
    let answer = world
        .partition()
        .list_offset(timestamp, Isolation::ReadUncommitted, None);
    let listed = match answer {
        Err(code) => return Ok(writeln!(output, "{}", code.kafka_name())?),
        Ok(OffsetAnswer::Known(listed)) => listed,
        Ok(OffsetAnswer::Lookup(lookup)) => {
            let op = oncelog_commitlog::DiskOp::LookupTimestamp(lookup);
            match oncelog_commitlog::execute(&world.disk, &op)? {
                oncelog_commitlog::DiskOutcome::Timestamp(hit) => ListedOffset::from_lookup(hit),
                other => return Err(format!("{other:?}").into()),
            }
        }
    };
    let ListedOffset {
        timestamp,
        offset,
        leader_epoch,
    } = listed;
    writeln!(
        output,
        "offset {offset}, timestamp {timestamp}, epoch {leader_epoch}"
    )?;
    Ok(())
}
