//! Random histories of transactional producers, against what their coordinator knows: a read_committed
//! consumer is never given a record of a transaction that was aborted or is not decided, and in the
//! end it is given every record of every committed one, once, at the offset that its producer was
//! told.
//!
//! Producers keep to transactions of version 2. They have up to five batches in flight and end a
//! transaction when all of them are answered; the coordinator then has a marker written, and again
//! after a crash that may have taken it. Markers come late and twice, too. Appends complete in any
//! order; kills, power cuts, lost snapshots, lost transaction indexes; deletion of records, and in half
//! of the histories compaction, with a key of its own for every record.

mod support;

use oncelog_partition::{Completes, EndTransactionMarker};
use oncelog_wire::records::Record;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use support::{DIR, Produce, World};

const IN_FLIGHT_MAX: usize = 5;
const CLIENTS: usize = 3;

#[derive(Clone, Debug)]
enum Step {
    Send {
        client: usize,
        count: i32,
    },
    /// The client ends its transaction as soon as everything is answered.
    End {
        client: usize,
        commit: bool,
    },
    /// The coordinator has the marker written (again).
    Marker {
        client: usize,
    },
    /// The marker of the transaction before comes once more.
    LateMarker {
        client: usize,
    },
    Complete {
        index: usize,
    },
    CompleteAll,
    Advance {
        ms: i64,
    },
    DeleteRecords {
        percent: i64,
    },
    Kill,
    PowerCut {
        seed: u64,
    },
    Restart,
    LoseSnapshots,
    LoseTxnIndexes,
}

fn step() -> impl Strategy<Value = Step> {
    let client = 0..CLIENTS;
    prop_oneof![
        12 => (client.clone(), 1..4i32).prop_map(|(client, count)| Step::Send { client, count }),
        5 => (client.clone(), any::<bool>()).prop_map(|(client, commit)| Step::End { client, commit }),
        7 => client.clone().prop_map(|client| Step::Marker { client }),
        2 => client.prop_map(|client| Step::LateMarker { client }),
        6 => any::<usize>().prop_map(|index| Step::Complete { index }),
        5 => Just(Step::CompleteAll),
        3 => (1..4_000_000i64).prop_map(|ms| Step::Advance { ms }),
        1 => (0..=100i64).prop_map(|percent| Step::DeleteRecords { percent }),
        1 => Just(Step::Kill),
        1 => any::<u64>().prop_map(|seed| Step::PowerCut { seed }),
        1 => Just(Step::Restart),
        1 => Just(Step::LoseSnapshots),
        1 => Just(Step::LoseTxnIndexes),
    ]
}

#[derive(Clone, Debug)]
struct Sent {
    sequence: i32,
    count: i32,
    /// Base and last offset.
    answer: (i64, i64),
}

#[derive(Debug)]
struct Client {
    id: i64,
    epoch: i16,
    next_sequence: i32,
    in_flight: VecDeque<Sent>,
    /// Something was sent in this epoch.
    open: bool,
    /// The coordinator has decided, and the marker's offset if it is written.
    ending: Option<(bool, Option<i64>)>,
}

struct Test {
    world: World,
    clients: Vec<Client>,
    /// Decided transactions by producer and epoch: committed?
    decided: BTreeMap<(i64, i16), bool>,
    /// Answered batches: by producer, epoch and sequence, their offsets.
    answered: BTreeMap<(i64, i16, i32), (i64, i64)>,
    damaged: bool,
    deleted: bool,
}

impl Test {
    fn new(segment_bytes: u64, compact: bool) -> Test {
        let mut world = World::default();
        let log = &mut world.config.log;
        log.segment_bytes = segment_bytes;
        log.cleanup_compact = compact;
        log.min_cleanable_dirty_ratio = 0.0;
        log.delete_retention_ms = 1_000_000;
        log.retention_ms = -1;
        world.config.producer_id_expiration_ms = 1 << 40;
        world.create();
        let client = |id| Client {
            id: id as i64,
            epoch: 0,
            next_sequence: 0,
            in_flight: VecDeque::new(),
            open: false,
            ending: None,
        };
        Test {
            world,
            clients: (7..7 + CLIENTS).map(client).collect(),
            decided: BTreeMap::new(),
            answered: BTreeMap::new(),
            damaged: false,
            deleted: false,
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Send { client, count } => self.send(*client, *count),
            Step::End { client, commit } => self.end(*client, *commit),
            Step::Marker { client } => self.write_marker(*client),
            Step::LateMarker { client } => self.late_marker(*client),
            Step::Complete { index } => {
                if let Some(index) = index.checked_rem(self.world.held.len())
                    && let Completes::Append { last_offset } = self.world.held[index].completes
                {
                    self.world.complete(last_offset);
                }
            }
            Step::CompleteAll => drop(self.world.complete_all()),
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
            Step::LoseSnapshots if !self.deleted => {
                self.damaged = true;
                self.lose(".snapshot");
            }
            Step::LoseSnapshots => {}
            Step::LoseTxnIndexes => self.lose(".txnindex"),
        }
        self.take_answers();
        self.check_visible();
    }

    /// The files are gone at the next start.
    fn lose(&mut self, suffix: &str) {
        self.world.shut_down();
        for name in self.world.files(suffix) {
            let file = format!("{DIR}/{name}");
            oncelog_commitlog::Disk::remove(&self.world.disk, &file).unwrap();
        }
        self.reopen();
    }

    fn reopen(&mut self) {
        self.world.open().expect("recovers");
        for client in &mut self.clients {
            for sent in &mut client.in_flight {
                deliver(&mut self.world, client.id, client.epoch, sent);
            }
            if let Some((_, written @ Some(_))) = &mut client.ending {
                *written = None;
            }
        }
    }

    fn send(&mut self, client: usize, count: i32) {
        let client = &mut self.clients[client];
        if client.in_flight.len() == IN_FLIGHT_MAX || client.ending.is_some() {
            return;
        }
        let mut sent = Sent {
            sequence: client.next_sequence,
            count,
            answer: (0, 0),
        };
        client.next_sequence += count;
        client.open = true;
        deliver(&mut self.world, client.id, client.epoch, &mut sent);
        client.in_flight.push_back(sent);
    }

    fn end(&mut self, client: usize, commit: bool) {
        let client = &mut self.clients[client];
        if client.open && client.in_flight.is_empty() && client.ending.is_none() {
            client.ending = Some((commit, None));
            self.decided.insert((client.id, client.epoch), commit);
        }
    }

    fn write_marker(&mut self, client: usize) {
        let client = &mut self.clients[client];
        let Some((commit, written)) = &mut client.ending else {
            return;
        };
        let marker = marker(client.id, client.epoch + 1, *commit);
        let appended = self.world.marker(&marker, true).expect("is accepted");
        *written = Some(appended.last_offset);
    }

    /// It must not end what is open now, nor write anything.
    fn late_marker(&mut self, client: usize) {
        let client = &self.clients[client];
        let Some(before) = client.epoch.checked_sub(1) else {
            return;
        };
        let Some(commit) = self.decided.get(&(client.id, before)) else {
            return;
        };
        let marker = marker(client.id, client.epoch, *commit);
        let end = self.world.partition().log_end_offset();
        let open: Vec<_> = self.world.partition().open_transactions().collect();
        if let Ok(appended) = self.world.marker(&marker, true) {
            assert!(appended.duplicate);
        }
        let still_open: Vec<_> = self.world.partition().open_transactions().collect();
        assert_eq!(still_open, open);
        assert_eq!(self.world.partition().log_end_offset(), end);
    }

    fn take_answers(&mut self) {
        let high_watermark = self.world.partition().high_watermark();
        for client in &mut self.clients {
            while let Some(sent) = client.in_flight.front()
                && sent.answer.1 < high_watermark
            {
                let key = (client.id, client.epoch, sent.sequence);
                self.answered.insert(key, sent.answer);
                client.in_flight.pop_front();
            }
            if let Some((_, Some(marker))) = client.ending
                && marker < high_watermark
            {
                client.ending = None;
                client.epoch += 1;
                client.next_sequence = 0;
                client.open = false;
            }
        }
    }

    /// Nothing that is aborted or undecided is seen, and nothing unstable holds readers back when
    /// every transaction is over.
    fn check_visible(&mut self) -> Vec<Record> {
        let seen = self.world.read_committed();
        for record in &seen {
            let (id, epoch, sequence) = parse(record);
            let committed = self.decided.get(&(id, epoch)) == Some(&true);
            assert!(committed, "sequence {sequence} of {id}/{epoch} is seen");
        }
        let partition = self.world.partition();
        if self.clients.iter().all(|client| !client.open) {
            assert_eq!(partition.last_stable_offset(), partition.high_watermark());
        }
        seen
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

    fn check(mut self) {
        self.world.complete_all();
        self.take_answers();
        for client in 0..CLIENTS {
            self.end(client, client == 0);
            self.write_marker(client);
        }
        self.world.complete_all();
        self.take_answers();
        assert!(self.clients.iter().all(|client| !client.open));
        self.world.housekeeping();
        let log_start = self.world.partition().log_start_offset();
        let mut expected = BTreeSet::new();
        for ((id, epoch, sequence), (first, last)) in &self.answered {
            if self.decided[&(*id, *epoch)] {
                let offsets = (*first..=*last).map(|offset| (offset, (*id, *epoch, *sequence)));
                expected.extend(offsets);
            }
        }
        let seen = self.check_visible();
        let seen: Vec<_> = seen.iter().map(|r| (r.offset, parse(r))).collect();
        let is_there = |(offset, _): &&(i64, _)| *offset >= log_start;
        let seen: Vec<_> = seen.iter().filter(is_there).collect();
        let expected: Vec<_> = expected.iter().filter(is_there).collect();
        assert_eq!(seen, expected);
    }
}

fn marker(producer_id: i64, producer_epoch: i16, commit: bool) -> EndTransactionMarker {
    EndTransactionMarker {
        producer_id,
        producer_epoch,
        coordinator_epoch: 0,
        transaction_version: 2,
        commit,
    }
}

/// Producer, epoch and sequence, which a record's value names.
fn parse(record: &Record) -> (i64, i16, i32) {
    let value = record.value.as_ref().expect("has a value");
    let text = std::str::from_utf8(value).expect("is text");
    let mut words = text.split(' ');
    let mut next = || words.next().expect("three words");
    (
        next().parse().unwrap(),
        next().parse().unwrap(),
        next().parse().unwrap(),
    )
}

fn deliver(world: &mut World, id: i64, epoch: i16, sent: &mut Sent) {
    let produce = Produce {
        producer: Some((id, epoch, sent.sequence)),
        count: sent.count,
        value: format!("{id} {epoch} {}", sent.sequence).into_bytes(),
        own_keys: true,
        hold: true,
        ..Default::default()
    };
    let appended = world.produce_verified(&produce);
    let appended = appended.expect("a client that plays by the rules is accepted");
    sent.answer = (appended.base_offset, appended.last_offset);
}

proptest! {
    #[test]
    fn committed_once_and_nothing_else(
        segment_bytes in prop_oneof![Just(300u64), Just(1_000), Just(1 << 20)],
        compact in any::<bool>(),
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut test = Test::new(segment_bytes, compact);
        for step in &steps {
            test.step(step);
        }
        test.check();
    }
}
