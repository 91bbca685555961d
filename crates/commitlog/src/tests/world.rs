//! A log, its disk, the disk work that is under way, and what a reader must find.

use crate::testing::{MemoryDisk, Random};
use crate::{
    DiskOp, DiskOutcome, DiskStep, Log, LogConfig, RecoveryReport, execute, execute_step, read,
    recover,
};
use bytes::Bytes;
use oncelog_wire::Uuid;
use oncelog_wire::clock::{Instant, Now};
use oncelog_wire::records::{Batch, BatchBuilder, BatchHeader, Batches, Compression, HEADER_LEN};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

pub const DIR: &str = "orders-0";
pub const START_MS: i64 = 1_000_000;

/// A record as a reader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rec {
    pub timestamp: i64,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
}

/// A record with a key and a value (`None`: a tombstone).
pub fn rec(timestamp: i64, key: &str, value: Option<&str>) -> Rec {
    Rec {
        timestamp,
        key: Some(key.into()),
        value: value.map(Into::into),
    }
}

/// One batch, base offset 0.
pub fn batch_of(codec: Compression, records: &[Rec]) -> Bytes {
    let mut builder = BatchBuilder::new().compression(codec);
    for record in records {
        let (key, value) = (record.key.as_deref(), record.value.as_deref());
        builder.append(record.timestamp, key, value, &[]);
    }
    builder.build()
}

pub struct World {
    pub disk: MemoryDisk,
    pub log: Log,
    pub now: Now,
    pub leader_epoch: i32,
    /// Steps that were emitted and not executed, in order.
    pub steps: VecDeque<DiskStep>,
    /// Appends that were emitted and not executed: last offset and operation.
    pub appends: Vec<(i64, DiskOp)>,
    pub compaction: Option<DiskOp>,
    /// A compaction's result is among the steps.
    pub installing: bool,
    /// Every record appended, by offset.
    pub records: BTreeMap<i64, Rec>,
    /// Everything below was acknowledged as durable.
    pub acked: i64,
    /// The log's start as of the last executed steps: it may not be lower after a crash.
    pub durable_start: i64,
    /// The recovery point as of the last executed steps, with all of them executed.
    pub durable_point: i64,
    pub report: RecoveryReport,
}

impl World {
    pub fn new(config: LogConfig) -> World {
        let now = Now {
            instant: Instant(0),
            wall_ms: START_MS,
        };
        let (log, ops) = Log::create(DIR, Uuid([9; 16]), config, now);
        let mut world = World {
            disk: MemoryDisk::new(),
            log,
            now,
            leader_epoch: 0,
            steps: VecDeque::new(),
            appends: Vec::new(),
            compaction: None,
            installing: false,
            records: BTreeMap::new(),
            acked: 0,
            durable_start: 0,
            durable_point: 0,
            report: RecoveryReport::default(),
        };
        world.emit(ops);
        world.run_steps();
        world
    }

    pub fn emit(&mut self, ops: Vec<DiskOp>) {
        for op in ops {
            let DiskOp::Steps(steps) = op else {
                panic!("only steps are nobody's to wait for: {op:?}");
            };
            self.steps.extend(steps);
        }
    }

    /// Appends a batch; the work is left to do.
    pub fn append(&mut self, batch: &Bytes) -> (i64, i64) {
        let header = BatchHeader::parse(batch).unwrap();
        let header_bytes: [u8; HEADER_LEN] = batch[..HEADER_LEN].try_into().unwrap();
        let body = batch.slice(HEADER_LEN..);
        let epoch = self.leader_epoch;
        let appended = self
            .log
            .append(&header, header_bytes, body, epoch, self.now);
        let parsed = Batch::parse(batch).unwrap();
        for record in parsed.records(usize::MAX).unwrap() {
            let record = record.unwrap();
            let rec = Rec {
                timestamp: record.timestamp,
                key: record.key.map(|key| key.to_vec()),
                value: record.value.map(|value| value.to_vec()),
            };
            self.records
                .insert(appended.base_offset + record.offset, rec);
        }
        self.appends.push((appended.last_offset, appended.append));
        self.emit(appended.after);
        (appended.base_offset, appended.last_offset)
    }

    /// Appends and carries everything out.
    pub fn write(&mut self, records: &[Rec]) -> (i64, i64) {
        let offsets = self.append(&batch_of(Compression::None, records));
        self.run();
        offsets
    }

    /// Executes the append at `index` of those under way.
    pub fn run_append(&mut self, index: usize) -> std::io::Result<()> {
        let (last_offset, op) = self.appends.remove(index);
        execute(&self.disk, &op)?;
        let DiskOp::Append(append) = &op else {
            panic!("not an append: {op:?}");
        };
        let written = self.log.append_done(last_offset);
        if self.log.config().every_append_durable() {
            assert!(append.durable);
            self.acked = written;
        }
        Ok(())
    }

    /// Executes up to `count` steps.
    pub fn try_steps(&mut self, count: usize) -> std::io::Result<()> {
        for _ in 0..count {
            let Some(step) = self.steps.pop_front() else {
                break;
            };
            execute_step(&self.disk, &step)?;
        }
        if self.steps.is_empty() {
            self.durable_start = self.log.start_offset();
            self.durable_point = self.log.recovery_point();
            if std::mem::take(&mut self.installing) {
                self.log.compaction_installed();
            }
        }
        Ok(())
    }

    pub fn run_steps(&mut self) {
        self.try_steps(usize::MAX).unwrap();
    }

    /// Everything under way, and what falls due by it.
    pub fn run(&mut self) {
        while !self.appends.is_empty() {
            self.run_append(0).unwrap();
        }
        while self.log.next_deadline() <= self.now.instant {
            let ops = self.log.work_due(self.now);
            assert!(!ops.is_empty(), "a deadline has passed and nothing is due");
            self.emit(ops);
        }
        self.run_steps();
    }

    pub fn pass_ms(&mut self, ms: i64) {
        self.now.instant = self.now.instant.plus_ms(ms);
        self.now.wall_ms += ms;
    }

    /// One compaction pass, all of its steps; how many groups it took.
    pub fn compact(&mut self, keep: &[i64]) -> usize {
        let mut groups = 0;
        loop {
            let limit = self.log.written_end_offset();
            let keep: BTreeSet<i64> = keep.iter().copied().collect();
            let Some(plan) = self.log.compaction_plan(self.now, limit, keep) else {
                return groups;
            };
            let outcome = execute(&self.disk, &DiskOp::Compact(Box::new(plan))).unwrap();
            let DiskOutcome::Compacted(outcome) = outcome else {
                panic!("not compacted: {outcome:?}");
            };
            let ops = self.log.apply_compaction(*outcome, self.now);
            self.emit(ops);
            self.run_steps();
            self.log.compaction_installed();
            groups += 1;
        }
    }

    /// The process is gone with all that it had in mind; what it wrote stays.
    pub fn kill(&mut self) {
        self.steps.clear();
        self.appends.clear();
        self.compaction = None;
        self.installing = false;
    }

    /// Power goes: some of what is under way gets written first.
    pub fn crash(&mut self, seed: u64) {
        let mut random = Random::new(seed);
        while !self.appends.is_empty() && !random.one_in(3) {
            let index = random.below(self.appends.len() as u64) as usize;
            let (_, op) = self.appends.remove(index);
            let DiskOp::Append(append) = &op else {
                continue;
            };
            let bytes = [&append.header[..], &append.body];
            self.disk
                .write_at_unsynced(&append.file, append.position, &bytes);
        }
        if !self.steps.is_empty() {
            self.disk
                .cut_power_after(random.below(self.steps.len() as u64 + 1));
            while let Some(step) = self.steps.pop_front() {
                if execute_step(&self.disk, &step).is_err() {
                    break;
                }
            }
        }
        self.kill();
        self.disk.crash(random.next_u64());
    }

    pub fn try_recover(&mut self, clean: bool) -> Result<(), crate::RecoveryError> {
        let config = self.log.config().clone();
        let recovered = recover(&self.disk, DIR, config, clean, self.now)?;
        self.log = recovered.log;
        self.report = recovered.report;
        let end = self.log.end_offset();
        self.records.split_off(&end);
        Ok(())
    }

    pub fn recover(&mut self) {
        self.try_recover(false).unwrap();
        self.after_recovery();
    }

    /// What must hold after any recovery; and the new state is as durable as recovery made it.
    pub fn after_recovery(&mut self) {
        let (start, end) = (self.log.start_offset(), self.log.end_offset());
        assert!(
            end >= self.acked,
            "acknowledged up to {}, recovered to {end}",
            self.acked
        );
        assert!(
            end >= self.durable_point,
            "synced up to {}, recovered to {end}",
            self.durable_point
        );
        assert!(
            start >= self.durable_start,
            "starts at {start}, deleted up to {}",
            self.durable_start
        );
        self.acked = end;
        self.durable_start = start;
        self.durable_point = end;
    }

    pub fn restart_clean(&mut self) {
        self.run();
        let ops = self.log.shut_down();
        self.emit(ops);
        self.run_steps();
        self.disk.crash(1); // everything was synced: nothing to lose
        let end = self.log.end_offset();
        self.try_recover(true).unwrap();
        assert_eq!(self.log.end_offset(), end);
        assert_eq!(self.report.scanned_bytes, 0, "a clean start scans nothing");
        assert_eq!(self.report.rebuilt_indexes, 0, "{:?}", self.report);
        self.after_recovery();
    }

    /// All batches from `offset` to `upper_bound`, read as a consumer with this limit reads them.
    pub fn read_batches(&self, offset: i64, upper_bound: i64, max_bytes: u64) -> Vec<Batch> {
        let mut batches = Vec::new();
        let mut at = offset;
        while let Some(slice) = self.log.slice(at, upper_bound, max_bytes, true).unwrap() {
            let bytes = read(&self.disk, &slice).unwrap();
            if bytes.is_empty() {
                break;
            }
            for batch in Batches::new(bytes) {
                let batch = batch.unwrap();
                batch.check_crc().unwrap();
                assert!(
                    batch.header.last_offset() >= at,
                    "a batch before offset {at}"
                );
                assert!(batch.header.last_offset() < upper_bound);
                at = batch.header.next_offset();
                batches.push(batch);
            }
        }
        batches
    }

    /// All records from the log's start to what is written, by offset.
    pub fn read_records(&self) -> BTreeMap<i64, Rec> {
        let (start, end) = (self.log.start_offset(), self.log.written_end_offset());
        let mut records = BTreeMap::new();
        for batch in self.read_batches(start, end, 1000) {
            for record in batch.records(usize::MAX).unwrap() {
                let record = record.unwrap();
                let rec = Rec {
                    timestamp: record.timestamp,
                    key: record.key.map(|key| key.to_vec()),
                    value: record.value.map(|value| value.to_vec()),
                };
                if record.offset >= start {
                    assert!(records.insert(record.offset, rec).is_none());
                }
            }
        }
        records
    }

    /// What is read is what was written: all of it or, of a compacted log, all that matters.
    pub fn check_records(&self) {
        let (start, end) = (self.log.start_offset(), self.log.written_end_offset());
        let read = self.read_records();
        let written: BTreeMap<i64, &Rec> = self
            .records
            .range(start..end)
            .map(|(o, r)| (*o, r))
            .collect();
        for (offset, record) in &read {
            assert_eq!(Some(&record), written.get(offset), "at offset {offset}");
        }
        if !self.log.config().cleanup_compact {
            assert_eq!(
                read.len(),
                written.len(),
                "records of {start}..{end} are missing"
            );
            return;
        }
        let mut newest = BTreeMap::new();
        for (offset, record) in &written {
            newest.insert(&record.key, *offset);
        }
        for (key, offset) in newest {
            let is_tombstone = written[&offset].value.is_none();
            let keyless = key.is_none();
            let there = read.contains_key(&offset) || is_tombstone || keyless;
            assert!(there, "the newest record of {key:?}, at {offset}, is gone");
        }
    }

    /// Base offsets of the `.log` files in the directory.
    pub fn log_files(&self) -> Vec<i64> {
        use crate::Disk;
        let names = self.disk.list(DIR).unwrap();
        let bases = names.iter().filter_map(|name| name.strip_suffix(".log"));
        bases.map(|base| base.parse().unwrap()).collect()
    }

    pub fn file_names(&self) -> Vec<String> {
        use crate::Disk;
        self.disk.list(DIR).unwrap()
    }
}

impl MemoryDisk {
    fn write_at_unsynced(&self, file: &str, position: u64, buffers: &[&[u8]]) {
        use crate::Disk;
        self.write_at(file, position, buffers).unwrap();
    }
}

/// Small enough for rolls, indexes and checkpoints to matter after a few appends.
pub fn small_config() -> LogConfig {
    LogConfig {
        segment_bytes: 2000,
        index_interval_bytes: 200,
        retention_ms: -1,
        ..Default::default()
    }
}
