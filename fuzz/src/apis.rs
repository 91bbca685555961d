//! Sequences of requests, time and restarts on the pure broker, held against a small model.
//!
//! Asserted: every answer is the model's (base offsets, errors, records, offsets of times, committed
//! offsets, members and generations); answers leave in the order of their requests and can be
//! decoded in their versions (the host checks that); after shutdowns, kills and power cuts the
//! broker still agrees; nothing panics. In the other mode, frames of any content: nothing panics,
//! and the broker works afterwards and after a restart.
//!
//! The host and its requests are those of the broker's own tests. Not here: what happens while the
//! disk is slow or loses what was not synced (`sim`), and damaged files (`recovery`).

mod frames;
mod logs;
mod members;
mod model;

use crate::host::{Host, start};
use members::Members;
use model::Model;
use oncelog_wire::clock::Instant;

const OPERATIONS_MAX: usize = 48;

/// The broker under test, and what it must know.
struct World {
    host: Option<Host>,
    model: Model,
    members: Members,
    /// Makes every value different.
    written: u32,
}

/// The first byte is the mode; operations have four bytes each.
pub fn run(input: &[u8]) {
    match input.split_first() {
        Some((mode, rest)) if mode % 4 == 3 => frames::run(rest),
        Some((_, rest)) => sequence(rest),
        None => {}
    }
}

fn sequence(input: &[u8]) {
    let mut world = World {
        host: Some(start(&[])),
        model: Model::default(),
        members: Members::default(),
        written: 0,
    };
    for operation in input.as_chunks::<4>().0.iter().take(OPERATIONS_MAX) {
        world.step(*operation);
    }
    world.agrees();
    world.restart(2, 1);
    world.agrees();
}

impl World {
    fn step(&mut self, [kind, a, b, c]: [u8; 4]) {
        // A topic, and a partition that it may have.
        let (topic, partition) = (a % 3, i32::from(a / 3 % 4));
        match kind % 24 {
            0 | 1 => self.create(topic, b, c),
            2..=4 => self.produce(topic, partition, b, c),
            5..=8 => self.produce_in_sequence(topic, partition, b, c),
            9 | 10 => self.fetch(topic, partition, b, c),
            11 => self.list_offsets(topic, partition, b),
            12 => self.delete_records(topic, partition, b),
            13 if b < 64 => self.delete_topic(topic),
            13 => self.add_partitions(topic, b),
            14 => self.limit_messages(topic, b),
            15 => self.commit_alone(topic, partition, b),
            16 => self.delete_offset_or_group(topic, partition, b),
            17..=19 => self.classic(a, b, c),
            20 | 21 => self.consumer(a, b, c),
            22 => self.pass_ms([1_000, 4_000, 61_000, 600_000][usize::from(a % 4)]),
            _ => self.restart(a, b),
        }
    }

    fn host(&mut self) -> &mut Host {
        self.host.as_mut().expect("the broker runs")
    }

    fn pass_ms(&mut self, ms: i64) {
        self.host().pass_ms(ms);
        let now = self.now();
        self.members.expire(now);
    }

    fn now(&self) -> Instant {
        self.host.as_ref().expect("the broker runs").now.instant
    }

    /// A shutdown, a kill, or a power cut: everything that was answered is on disk.
    fn restart(&mut self, how: u8, seed: u8) {
        let mut host = self.host.take().expect("the broker runs");
        self.host = Some(match how % 3 {
            0 => {
                host.shut_down();
                host.reopen()
            }
            1 => host.reopen(),
            _ => host.crash(u64::from(seed)),
        });
        let now = self.now();
        if self.members.restarted(now) {
            // A round that was not finished is not on disk: let what is left of it run out.
            self.pass_ms(120_000);
        }
    }

    /// Everything that there is, read from the beginning.
    fn agrees(&mut self) {
        self.check_topics();
        let partitions: Vec<(u8, i32)> = self
            .model
            .topics
            .iter()
            .flat_map(|(topic, known)| (0..known.partitions.len() as i32).map(|p| (*topic, p)))
            .collect();
        for (topic, partition) in partitions {
            self.check_log(topic, partition);
        }
        self.check_committed();
        self.check_members();
    }
}

/// Each operation once in a plausible order, some variations of it, and one of each kind of frame.
pub fn seeds() -> Vec<Vec<u8>> {
    let orders: [&[u8]; 4] = [
        &[0, 2, 5, 6, 7, 9, 11, 12, 9, 23, 5, 9],
        &[0, 13, 2, 14, 2, 15, 16, 15, 23, 13, 0, 2],
        &[0, 17, 17, 18, 18, 19, 17, 22, 23, 18],
        &[0, 20, 21, 20, 13, 21, 22, 20, 23, 21, 20],
    ];
    let mut seeds = Vec::new();
    for variation in 0..8u8 {
        for order in orders {
            let mut seed = vec![0];
            for (at, kind) in order.iter().enumerate() {
                let at = at as u8;
                seed.extend([*kind, 0, variation * 9 + at, variation.wrapping_mul(at)]);
            }
            seeds.push(seed);
        }
    }
    // Six batches of one producer, the last five of them again, and again after a power cut.
    let again: Vec<[u8; 4]> = (0x80..0x85).map(|which| [5, 0, 0, which]).collect();
    let (first, cut) = ([[0, 0, 0, 0]].as_slice(), [[23, 2, 1, 0]].as_slice());
    let window = [first, &[[5, 0, 0, 0]; 6], &again, cut, &again].concat();
    seeds.push([&[0], window.as_flattened()].concat());
    seeds.extend(frames::seeds());
    seeds
}
