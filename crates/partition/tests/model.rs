//! Random histories of idempotent clients, against the simplest model there is: every batch that
//! was acknowledged is in the log once, at the offset that the client was told, and each
//! producer's sequences stand there in order, without a gap or a repetition.
//!
//! A client keeps up to five batches in flight. Answers get lost; then, and after every crash, it
//! sends what it has no answer for again, in order. Crashes are kills (the page cache survives)
//! and power cuts (unsynced writes survive or not), with appends completed in any order and some
//! not at all. Every append is durable (`flush.messages` 1).
//!
//! Not covered: batches of several producers racing for one id (fencing, see `sequences.txt`),
//! read errors, and disks that lie about a sync.

mod support;

use oncelog_partition::Completes;
use oncelog_wire::records::Compression;
use proptest::prelude::*;
use std::collections::{BTreeMap, VecDeque};
use support::{Produce, World};

/// What Kafka's clients keep in flight at most with idempotence on.
const IN_FLIGHT_MAX: usize = 5;

#[derive(Clone, Debug)]
enum Step {
    /// Client `client` sends a new batch of so many records.
    Send {
        client: usize,
        count: i32,
    },
    /// The host finishes the held append with this index (modulo how many there are).
    Complete {
        index: usize,
    },
    CompleteAll,
    /// The client reads the answers that have come for it.
    ReadAnswers {
        client: usize,
    },
    /// The client's connection breaks; it sends everything unanswered again.
    Reconnect {
        client: usize,
    },
    Advance {
        ms: i64,
    },
    /// Records below the high watermark, to this share of them, are deleted.
    DeleteRecords {
        percent: i64,
    },
    Kill,
    PowerCut {
        seed: u64,
    },
    Restart,
    /// The newest snapshot rots.
    DamageSnapshot,
}

fn step() -> impl Strategy<Value = Step> {
    let client = 0..2usize;
    prop_oneof![
        12 => (client.clone(), 1..4i32).prop_map(|(client, count)| Step::Send { client, count }),
        6 => any::<usize>().prop_map(|index| Step::Complete { index }),
        3 => Just(Step::CompleteAll),
        4 => client.clone().prop_map(|client| Step::ReadAnswers { client }),
        3 => client.prop_map(|client| Step::Reconnect { client }),
        2 => (1..4_000_000i64).prop_map(|ms| Step::Advance { ms }),
        1 => (0..=100i64).prop_map(|percent| Step::DeleteRecords { percent }),
        1 => Just(Step::Kill),
        1 => any::<u64>().prop_map(|seed| Step::PowerCut { seed }),
        1 => Just(Step::Restart),
        1 => Just(Step::DamageSnapshot),
    ]
}

#[derive(Clone, Debug)]
struct Sent {
    base_sequence: i32,
    count: i32,
    /// The offsets that the broker answers once they are committed.
    answer: Option<(i64, i64)>,
}

struct Client {
    id: i64,
    next_sequence: i32,
    in_flight: VecDeque<Sent>,
}

struct Test {
    world: World,
    clients: Vec<Client>,
    /// (producer, base sequence) of every acknowledged batch, and its base offset.
    acknowledged: BTreeMap<(i64, i32), i64>,
    /// A history has rotten snapshots or deleted records, not both: what only a snapshot knows
    /// dies with it.
    damaged: bool,
    deleted: bool,
}

impl Test {
    fn new(segment_bytes: u64) -> Test {
        let mut world = World::default();
        world.config.log.segment_bytes = segment_bytes;
        // Far beyond what a history lasts: an expired producer is another test.
        world.config.producer_id_expiration_ms = 1 << 40;
        world.create();
        let client = |id, next_sequence| Client {
            id,
            next_sequence,
            in_flight: VecDeque::new(),
        };
        Test {
            world,
            // The second one's sequences soon start again at 0.
            clients: vec![client(7, 0), client(8, i32::MAX - 20)],
            acknowledged: BTreeMap::new(),
            damaged: false,
            deleted: false,
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Send { client, count } => self.send_new(*client, *count),
            Step::Complete { index } => {
                if let Some(index) = index.checked_rem(self.world.held.len())
                    && let Completes::Append { last_offset } = self.world.held[index].completes
                {
                    self.world.complete(last_offset);
                }
            }
            Step::CompleteAll => drop(self.world.complete_all()),
            Step::ReadAnswers { client } => self.read_answers(*client),
            Step::Reconnect { client } => self.send_again(*client),
            Step::Advance { ms } => {
                self.world.advance(*ms);
                self.world.housekeeping();
            }
            Step::DeleteRecords { percent } => self.delete_records(*percent),
            Step::Kill => {
                self.world.kill();
                self.reopen();
            }
            Step::PowerCut { seed } => {
                self.world.power_cut(*seed);
                self.reopen();
            }
            Step::Restart => {
                self.world.shut_down();
                self.reopen();
            }
            Step::DamageSnapshot if !self.deleted => {
                self.damaged = true;
                if let Some(name) = self.world.files(".snapshot").pop() {
                    let path = format!("{}/{name}", support::DIR);
                    self.world.disk.flip_bit(&path, 9, 0);
                }
            }
            Step::DamageSnapshot => {}
        }
    }

    fn reopen(&mut self) {
        self.world.open().expect("recovers");
        for client in 0..self.clients.len() {
            self.send_again(client);
        }
    }

    fn send_new(&mut self, client: usize, count: i32) {
        let client = &mut self.clients[client];
        if client.in_flight.len() == IN_FLIGHT_MAX {
            return; // max.in.flight.requests.per.connection
        }
        let mut sent = Sent {
            base_sequence: client.next_sequence,
            count,
            answer: None,
        };
        client.next_sequence = after(client.next_sequence, count);
        let duplicate = deliver(&mut self.world, client.id, &mut sent);
        assert!(!duplicate, "{sent:?} was never sent before");
        client.in_flight.push_back(sent);
    }

    fn send_again(&mut self, client: usize) {
        let client = &mut self.clients[client];
        for sent in &mut client.in_flight {
            deliver(&mut self.world, client.id, sent);
        }
    }

    /// Takes the answers whose batches are committed, in order.
    fn read_answers(&mut self, client: usize) {
        let high_watermark = self.world.partition().high_watermark();
        let client = &mut self.clients[client];
        while let Some(sent) = client.in_flight.front()
            && let Some((base_offset, last_offset)) = sent.answer
            && last_offset < high_watermark
        {
            let key = (client.id, sent.base_sequence);
            self.acknowledged.insert(key, base_offset);
            client.in_flight.pop_front();
        }
    }

    fn delete_records(&mut self, percent: i64) {
        if self.damaged {
            return;
        }
        self.deleted = true;
        let now = self.world.now;
        let partition = self.world.partition();
        let before = partition.high_watermark() * percent / 100;
        let deleted = partition.delete_records(now, before).expect("in range");
        self.world.run(deleted.work);
    }

    /// The end: everything is delivered, and the log is looked through.
    fn check(mut self) {
        self.world.complete_all();
        for client in 0..self.clients.len() {
            self.send_again(client);
            self.world.complete_all();
            self.read_answers(client);
            assert!(
                self.clients[client].in_flight.is_empty(),
                "everything is answered"
            );
        }
        let log_start = self.world.partition().log_start_offset();
        let batches = self.world.batches();
        for client in &self.clients {
            let mine = batches.iter().filter(|b| b.header.producer_id == client.id);
            let mut expected = None;
            for batch in mine {
                let header = &batch.header;
                let (first, last) = (header.base_sequence, header.last_sequence());
                let expected = expected.replace(after(last, 1));
                let in_order = expected.is_none_or(|expected| expected == first);
                assert!(
                    in_order,
                    "sequence {first} of {} follows {expected:?}",
                    client.id
                );
                let told = self.acknowledged.get(&(client.id, first));
                assert_eq!(
                    told,
                    Some(&header.base_offset),
                    "sequence {first} of {}",
                    client.id
                );
            }
            let end = expected.unwrap_or(client.next_sequence);
            assert_eq!(
                end, client.next_sequence,
                "the log of {} is complete",
                client.id
            );
        }
        let stored = batches.iter().map(|b| b.header.base_offset);
        let mut stored: Vec<i64> = stored.filter(|offset| *offset >= log_start).collect();
        let told = self.acknowledged.values().copied();
        let mut told: Vec<i64> = told.filter(|offset| *offset >= log_start).collect();
        stored.sort_unstable();
        told.sort_unstable();
        assert_eq!(stored, told, "every acknowledged batch once, and no other");
    }
}

/// The sequence `count` after `sequence`: from `i32::MAX` on to 0.
fn after(sequence: i32, count: i32) -> i32 {
    sequence.wrapping_add(count) & i32::MAX
}

/// Sends one batch; whether the broker called it a duplicate.
fn deliver(world: &mut World, id: i64, sent: &mut Sent) -> bool {
    let produce = Produce {
        producer: Some((id, 0, sent.base_sequence)),
        count: sent.count,
        value: format!("{id}-{}", sent.base_sequence).into_bytes(),
        codec: Compression::None,
        hold: true,
        ..Default::default()
    };
    let appended = world
        .produce(&produce)
        .expect("a client that plays by the rules is accepted");
    sent.answer = Some((appended.base_offset, appended.last_offset));
    appended.duplicate
}

proptest! {
    #[test]
    fn acknowledged_once(
        segment_bytes in prop_oneof![Just(300u64), Just(1_000), Just(1 << 20)],
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut test = Test::new(segment_bytes);
        for step in &steps {
            test.step(step);
        }
        test.check();
    }
}
