//! The broker's host in the simulation: carries out effects, with a possible crash between any two
//! pieces of disk work.
//!
//! An append is two events (write, then sync), a list of steps is one event each, in order, like
//! the real disk thread. A failed write or sync stops the broker, as in the real host. Reads
//! happen in one piece.

use crate::plan::Plan;
use crate::world::{Event, Scheduler};
use oncelog_broker::{Broker, Effect, Input, OpId};
use oncelog_commitlog::testing::MemoryDisk;
use oncelog_commitlog::{Append, Disk, DiskOp, DiskOutcome, DiskStep, execute};
use oncelog_coordinator::cluster::BrokerConfig;
use oncelog_wire::clock::{Instant, Now};
use std::collections::VecDeque;

/// A broker that is up, and its unfinished disk work.
pub struct Host {
    pub broker: Broker,
    /// Counts the starts, so that events of a broker that died find nobody.
    pub life: u64,
    steps: VecDeque<(OpId, VecDeque<DiskStep>)>,
    stepping: bool,
    tick_at: Option<Instant>,
    pub stopped: bool,
}

/// A piece of disk work that is due.
#[derive(Debug)]
pub enum DiskEvent {
    Write(OpId, Append),
    Sync(OpId, Append),
    Step,
    Read(OpId, DiskOp),
}

/// The disk failed: the broker must stop.
#[derive(Debug)]
pub struct Fatal(pub String);

impl Host {
    /// Recovers a broker from the disk; an error if the disk fails on the way.
    pub fn open(
        plan: &Plan,
        disk: &MemoryDisk,
        now: Now,
        seed: u64,
        life: u64,
    ) -> Result<Host, String> {
        let mut config = BrokerConfig::from_properties(&plan.properties)
            .map_err(|errors| format!("the plan's properties are refused: {errors:?}"))?;
        config.internal_segment_bytes = Some(plan.segment_bytes);
        let opened = oncelog_broker::open(config, disk, now, seed).map_err(|e| e.to_string())?;
        Ok(Host {
            broker: opened.broker,
            life,
            steps: VecDeque::new(),
            stepping: false,
            tick_at: None,
            stopped: false,
        })
    }

    /// Hands the broker an input and carries out what follows.
    pub fn handle(&mut self, scheduler: &mut Scheduler, disk: &MemoryDisk, input: Input) {
        self.broker.handle(scheduler.now(), input);
        while let Some(effect) = self.broker.poll_effect() {
            match effect {
                Effect::Answer(answer) => {
                    let connection = answer.connection;
                    match answer.encode(disk) {
                        Ok(chunks) => {
                            let frame = crate::world::assemble(&chunks, disk);
                            scheduler.to_client(connection, frame);
                        }
                        Err(error) => scheduler.close_from_broker(connection, error.to_string()),
                    }
                }
                Effect::Disk { op, work } => self.begin(scheduler, op, work),
                Effect::Close { connection, reason } => {
                    scheduler.close_from_broker(connection, reason.to_owned());
                }
                Effect::Log { message, .. } => scheduler.trace(|| format!("broker: {message}")),
                Effect::Stopped => self.stopped = true,
            }
        }
        let next = self.broker.next_deadline();
        if let Some(at) = next
            && self
                .tick_at
                .is_none_or(|before| at < before || before <= scheduler.instant())
        {
            self.tick_at = Some(at);
            scheduler.at(at, Event::Tick { life: self.life });
        }
    }

    fn begin(&mut self, scheduler: &mut Scheduler, op: OpId, work: DiskOp) {
        match work {
            DiskOp::Append(append) => self.later(scheduler, DiskEvent::Write(op, append)),
            DiskOp::Steps(steps) => {
                self.steps.push_back((op, steps.into()));
                self.next_step(scheduler);
            }
            read => self.later(scheduler, DiskEvent::Read(op, read)),
        }
    }

    fn later(&self, scheduler: &mut Scheduler, event: DiskEvent) {
        let life = self.life;
        scheduler.after_disk_delay(Event::Disk { life, event });
    }

    fn next_step(&mut self, scheduler: &mut Scheduler) {
        if !self.stepping && !self.steps.is_empty() {
            self.stepping = true;
            self.later(scheduler, DiskEvent::Step);
        }
    }

    /// Does a piece of disk work that is due.
    pub fn disk(
        &mut self,
        scheduler: &mut Scheduler,
        disk: &MemoryDisk,
        event: DiskEvent,
    ) -> Result<(), Fatal> {
        let fatal = |error: std::io::Error| Fatal(error.to_string());
        match event {
            DiskEvent::Write(op, append) => {
                let buffers: [&[u8]; 2] = [&append.header, &append.body];
                disk.write_at(&append.file, append.position, &buffers)
                    .map_err(fatal)?;
                match append.durable {
                    true => self.later(scheduler, DiskEvent::Sync(op, append)),
                    false => self.done(scheduler, disk, op),
                }
            }
            DiskEvent::Sync(op, append) => {
                disk.sync(&append.file).map_err(fatal)?;
                if append.create {
                    let dir = append.file.rsplit_once('/').map_or("", |(dir, _)| dir);
                    disk.sync_dir(dir).map_err(fatal)?;
                    disk.sync_dir("").map_err(fatal)?;
                }
                self.done(scheduler, disk, op);
            }
            DiskEvent::Step => self.step(scheduler, disk)?,
            DiskEvent::Read(op, work) => {
                let input = match execute(disk, &work) {
                    Ok(outcome) => Input::DiskDone { op, outcome },
                    Err(error) => {
                        let error = error.to_string();
                        Input::DiskFailed { op, error }
                    }
                };
                self.handle(scheduler, disk, input);
            }
        }
        Ok(())
    }

    fn step(&mut self, scheduler: &mut Scheduler, disk: &MemoryDisk) -> Result<(), Fatal> {
        self.stepping = false;
        let (op, steps) = self.steps.front_mut().expect("a step was due");
        let op = *op;
        if let Some(step) = steps.pop_front() {
            let one = DiskOp::Steps(vec![step]);
            execute(disk, &one).map_err(|error| Fatal(error.to_string()))?;
        }
        if self
            .steps
            .front()
            .is_some_and(|(_, steps)| steps.is_empty())
        {
            self.steps.pop_front();
            self.done(scheduler, disk, op);
        }
        self.next_step(scheduler);
        Ok(())
    }

    fn done(&mut self, scheduler: &mut Scheduler, disk: &MemoryDisk, op: OpId) {
        let outcome = DiskOutcome::Done;
        self.handle(scheduler, disk, Input::DiskDone { op, outcome });
    }
}
