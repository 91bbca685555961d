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
use oncelog_wire::records::{Batch, BatchBuilder, Batches, Compression, check_produced};

pub const DIR: &str = "orders-0";

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
    pub value: Vec<u8>,
    pub codec: Compression,
    pub transactional: bool,
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
        let mut appended = self.partition().append_from_client(now, &batch)?;
        let work = std::mem::take(&mut appended.work);
        for work in work {
            if produce.hold && matches!(work.op, DiskOp::Append(_)) {
                self.held.push(work);
            } else {
                self.run(vec![work]);
            }
        }
        Ok(appended)
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
        let mut queue = std::collections::VecDeque::from(work);
        while let Some(Work { op, completes }) = queue.pop_front() {
            let outcome = execute(&self.disk, &op).unwrap();
            let done = self.partition().work_done(now, completes, outcome);
            high_watermark = done.high_watermark.or(high_watermark);
            queue.extend(done.work);
        }
        high_watermark
    }

    /// Every batch that a reader may see, from the log's start.
    pub fn batches(&mut self) -> Vec<Batch> {
        let mut offset = self.partition().log_start_offset();
        let mut batches = Vec::new();
        loop {
            let params = FetchParams {
                fetch_offset: offset,
                current_leader_epoch: None,
                last_fetched_epoch: None,
                isolation: Isolation::ReadUncommitted,
                max_bytes: 1 << 20,
                at_least_one: true,
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
            value: b"value".to_vec(),
            codec: Compression::None,
            transactional: false,
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
        for _ in 0..self.count {
            builder.append(self.timestamp, self.key, Some(&self.value), &[]);
        }
        builder.build()
    }
}
