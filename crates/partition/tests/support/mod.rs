//! A partition on a disk in memory, with a host in miniature: it runs disk work, or holds appends
//! back, or loses them in a crash.

// Each test binary uses its own part of this.
#![allow(dead_code)]

use bytes::Bytes;
use oncelog_commitlog::testing::MemoryDisk;
use oncelog_commitlog::{DiskOp, execute, read};
use oncelog_partition::*;
use oncelog_wire::Uuid;
use oncelog_wire::clock::{Instant, Now};
use oncelog_wire::records::{
    Batch, BatchBuilder, BatchHeader, Batches, Compression, Record, check_produced,
};
use std::collections::{BTreeSet, VecDeque};

pub const DIR: &str = "orders-0";

pub const FETCH: FetchParams = FetchParams {
    fetch_offset: 0,
    current_leader_epoch: None,
    last_fetched_epoch: None,
    isolation: Isolation::ReadUncommitted,
    max_bytes: 1 << 20,
    at_least_one: true,
};

pub struct World {
    pub disk: MemoryDisk,
    pub partition: Option<Partition>,
    pub config: PartitionConfig,
    pub leader_epoch: i32,
    pub now: Now,
    /// Appends that the host has not carried out yet.
    pub held: Vec<Work>,
    clean: bool,
}

/// What a client's request says.
#[derive(Clone, Debug)]
pub struct Produce {
    /// (id, epoch, base sequence)
    pub producer: Option<(i64, i16, i32)>,
    pub count: i32,
    pub timestamp: i64,
    pub key: Option<&'static [u8]>,
    /// Every record has a key of its own, which begins with the value.
    pub own_keys: bool,
    pub value: Vec<u8>,
    pub codec: Compression,
    pub transactional: bool,
    pub guard: Option<VerificationGuard>,
    /// The host does not carry the append out until [`World::complete`].
    pub hold: bool,
}

impl Default for World {
    fn default() -> World {
        World {
            disk: MemoryDisk::new(),
            partition: None,
            config: PartitionConfig::default(),
            leader_epoch: 0,
            now: Now {
                instant: Instant(0),
                wall_ms: 1_000_000,
            },
            held: Vec::new(),
            clean: false,
        }
    }
}

impl World {
    pub fn create(&mut self) {
        let created = Partition::create(self.identity(), self.config.clone(), self.now);
        for op in created.ops {
            execute(&self.disk, &op).unwrap();
        }
        self.partition = Some(created.partition);
    }

    /// Starts the broker again; what recovery had to say.
    pub fn open(&mut self) -> Result<Vec<String>, RecoveryError> {
        let (identity, config) = (self.identity(), self.config.clone());
        let opened = Partition::open(&self.disk, identity, config, self.clean, self.now)?;
        self.clean = false;
        self.partition = Some(opened.partition);
        Ok(opened.notes)
    }

    pub fn shut_down(&mut self) {
        self.complete_all();
        let now = self.now;
        let work = self.partition().shut_down(now);
        self.run(work);
        self.partition = None;
        self.clean = true;
    }

    /// SIGKILL: what was handed to the host and not carried out is lost, the page cache stays.
    pub fn kill(&mut self) {
        self.held.clear();
        self.partition = None;
    }

    /// As [`World::kill`], and `seed` decides which unsynced writes survive.
    pub fn power_cut(&mut self, seed: u64) {
        self.kill();
        self.disk.crash(seed);
        // A monotonic clock starts again with the machine.
        self.now.instant = Instant(0);
    }

    pub fn advance(&mut self, ms: i64) {
        self.now.instant = self.now.instant.plus_ms(ms);
        self.now.wall_ms += ms;
    }

    pub fn partition(&mut self) -> &mut Partition {
        self.partition.as_mut().expect("the broker runs")
    }

    pub fn produce(&mut self, produce: &Produce) -> Result<Appended, Rejection> {
        let now = self.now;
        let batch = check_produced(&produce.build(), 9).expect("a well-formed batch");
        let mut appended = self
            .partition()
            .append_from_client(now, &batch, produce.guard)?;
        self.take(&mut appended, produce.hold);
        Ok(appended)
    }

    /// A transactional batch of a client that keeps to the protocol: asks first, if that is needed,
    /// and is told that the coordinator has the partition in the transaction.
    pub fn produce_verified(&mut self, produce: &Produce) -> Result<Appended, Rejection> {
        let mut produce = produce.clone();
        produce.transactional = true;
        let header = BatchHeader::parse(&produce.build()).expect("a well-formed batch");
        if self.partition().needs_verification(&header) {
            produce.guard = Some(self.partition().begin_verification(&header, false));
        }
        self.produce(&produce)
    }

    pub fn marker(
        &mut self,
        marker: &EndTransactionMarker,
        hold: bool,
    ) -> Result<Appended, Rejection> {
        let now = self.now;
        let mut appended = self.partition().append_marker(now, marker)?;
        self.take(&mut appended, hold);
        Ok(appended)
    }

    /// Carries the work of an append out; `hold`: all but the append itself.
    pub fn take(&mut self, appended: &mut Appended, hold: bool) {
        for work in std::mem::take(&mut appended.work) {
            if hold && matches!(work.op, DiskOp::Append(_)) {
                self.held.push(work);
            } else {
                self.run(vec![work]);
            }
        }
    }

    /// Carries out the held append that ends with `last_offset`; the high watermark if it moved.
    pub fn complete(&mut self, last_offset: i64) -> Option<i64> {
        let wanted = Completes::Append { last_offset };
        let index = self.held.iter().position(|work| work.completes == wanted);
        let work = self.held.remove(index.expect("such an append is held"));
        self.run(vec![work])
    }

    pub fn complete_all(&mut self) -> Option<i64> {
        let held = std::mem::take(&mut self.held);
        self.run(held)
    }

    pub fn housekeeping(&mut self) {
        let now = self.now;
        let mut work = self.partition().apply_retention(now);
        work.extend(self.partition().housekeeping(now));
        work.extend(self.partition().compact(now));
        self.run(work);
    }

    /// Carries work out, follow-ups included; the last high watermark that it moved.
    pub fn run(&mut self, work: Vec<Work>) -> Option<i64> {
        let (now, mut high_watermark) = (self.now, None);
        let mut queue = VecDeque::from(work);
        while let Some(Work { op, completes }) = queue.pop_front() {
            let outcome = match execute(&self.disk, &op) {
                // The segments of a pass that goes on may be deleted meanwhile.
                Err(error) if completes == Completes::Compaction => {
                    assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
                    self.partition().compaction_failed(now);
                    continue;
                }
                outcome => outcome.unwrap(),
            };
            let done = self.partition().work_done(now, completes, outcome);
            high_watermark = done.high_watermark.or(high_watermark);
            queue.extend(done.work);
        }
        high_watermark
    }

    /// What a read_committed consumer is given, from the log's start: it reads the way that Kafka's
    /// clients do, with the lists of aborted transactions and the markers.
    pub fn read_committed(&mut self) -> Vec<Record> {
        let (mut offset, mut given) = (self.partition().log_start_offset(), Vec::new());
        loop {
            let params = FetchParams {
                fetch_offset: offset,
                isolation: Isolation::ReadCommitted,
                max_bytes: 250,
                ..FETCH
            };
            let view = self.partition().fetch(&params).expect("in range");
            let aborted = view.aborted_transactions.expect("is read_committed");
            let (mut aborted, mut aborting) = (VecDeque::from(aborted), BTreeSet::new());
            let Some(slice) = view.slice else {
                return given;
            };
            for batch in Batches::new(read(&self.disk, &slice).unwrap()) {
                let batch = batch.unwrap();
                let header = &batch.header;
                assert!(header.last_offset() < slice.end_offset_max());
                while let Some(next) = aborted.front()
                    && next.first_offset <= header.last_offset()
                {
                    aborting.extend(aborted.pop_front().map(|a| a.producer_id));
                }
                let skipped = aborting.contains(&header.producer_id) && header.is_transactional();
                if header.is_control() {
                    aborting.remove(&header.producer_id);
                } else if !skipped {
                    let records = batch.records(1 << 20).unwrap();
                    given.extend(records.map(|record| record.unwrap()));
                }
                offset = header.next_offset();
            }
        }
    }

    /// Every batch that a reader may see, from the log's start.
    pub fn batches(&mut self) -> Vec<Batch> {
        let mut offset = self.partition().log_start_offset();
        let mut batches = Vec::new();
        loop {
            let params = FetchParams {
                fetch_offset: offset,
                ..FETCH
            };
            let view = self.partition().fetch(&params).expect("in range");
            let Some(slice) = view.slice else {
                return batches;
            };
            let before = batches.len();
            for batch in Batches::new(read(&self.disk, &slice).unwrap()) {
                batches.push(batch.unwrap());
            }
            let last = batches[before..].last().expect("a slice holds a batch");
            offset = last.header.next_offset();
        }
    }

    pub fn files(&self, suffix: &str) -> Vec<String> {
        let names = oncelog_commitlog::Disk::list(&self.disk, DIR).unwrap();
        names
            .into_iter()
            .filter(|name| name.ends_with(suffix))
            .collect()
    }

    fn identity(&self) -> Identity {
        Identity {
            topic: "orders".into(),
            index: 0,
            topic_id: Uuid([7; 16]),
            leader_epoch: self.leader_epoch,
        }
    }
}

impl Default for Produce {
    fn default() -> Produce {
        Produce {
            producer: None,
            count: 1,
            timestamp: 1_000_000,
            key: Some(b"key"),
            own_keys: false,
            value: b"value".to_vec(),
            codec: Compression::None,
            transactional: false,
            guard: None,
            hold: false,
        }
    }
}

impl Produce {
    pub fn build(&self) -> Bytes {
        let mut builder = BatchBuilder::new()
            .compression(self.codec)
            .transactional(self.transactional);
        if let Some((id, epoch, sequence)) = self.producer {
            builder = builder.producer(id, epoch, sequence);
        }
        for i in 0..self.count {
            let own = [&self.value[..], &i.to_be_bytes()].concat();
            let key = if self.own_keys {
                Some(&own[..])
            } else {
                self.key
            };
            builder.append(self.timestamp, key, Some(&self.value), &[]);
        }
        builder.build()
    }
}
