//! How a partition came to be what it is on the disk: appends, restarts, retention, compaction.
//!
//! Read from bytes so that each keeps its meaning when others change: four for the whole, three for
//! each event, six for each piece of damage.

use super::damage::Damage;
use crate::partition_world::{Produce, World};
use oncelog_partition::{EndTransactionMarker, PartitionConfig};
use oncelog_wire::ErrorCode;
use oncelog_wire::records::Compression;

const EVENTS_MAX: usize = 63;
const DAMAGE_MAX: usize = 8;

#[derive(Debug)]
pub struct Story {
    pub settings: u8,
    pub seed: u8,
    /// Recovery itself is interrupted after this many changes to the disk, unless 0.
    pub interrupt: u8,
    events: Vec<[u8; 3]>,
    pub damage: Vec<Damage>,
}

impl Story {
    pub fn read(input: &[u8]) -> Option<Story> {
        let (head, rest) = input.split_first_chunk::<4>()?;
        let [settings, seed, interrupt, events] = *head;
        let count = usize::from(events) % (EVENTS_MAX + 1);
        let (events, damage) = rest.split_at(rest.len().min(3 * count));
        let damage = damage.as_chunks::<6>().0.iter().take(DAMAGE_MAX);
        Some(Story {
            settings,
            seed,
            interrupt,
            events: events.as_chunks::<3>().0.to_vec(),
            damage: damage.map(Damage::read).collect(),
        })
    }

    fn compacts(&self) -> bool {
        self.settings & 4 != 0
    }

    pub fn ends_clean(&self) -> bool {
        self.settings >> 4 & 3 == 2
    }

    /// Small segments, so that a few appends make several.
    pub fn config(&self) -> PartitionConfig {
        let mut config = PartitionConfig::default();
        config.log.segment_bytes = [300, 600, 2000, 10_000][usize::from(self.settings & 3)];
        config.log.index_interval_bytes = 200;
        config.log.cleanup_compact = self.compacts();
        config.log.cleanup_delete = !self.compacts();
        config.log.retention_ms = if self.compacts() { -1 } else { 3_600_000 };
        config.log.min_cleanable_dirty_ratio = 0.1;
        config.log.delete_retention_ms = 60_000;
        config
    }

    /// The world when the process has ended; what it had acknowledged is on the disk.
    pub fn play(&self) -> World {
        let mut world = World::default();
        world.config = self.config();
        world.create();
        for event in &self.events {
            self.event(&mut world, *event);
        }
        world
    }

    fn event(&self, world: &mut World, [kind, a, b]: [u8; 3]) {
        match kind % 8 {
            _ if kind >= 128 => transaction(world, kind, a, b),
            0..=2 => produce(world, a, b, false),
            3 => produce(world, a, b, true),
            4 => {
                world.complete_all();
                world.advance(i64::from(a) * 10_000);
                world.housekeeping();
            }
            5 => restart(world, a, b),
            6 if !self.compacts() => {
                let partition = world.partition();
                let (start, end) = (partition.log_start_offset(), partition.high_watermark());
                let before = start + i64::from(a) % (end - start + 1);
                let now = world.now;
                let deleted = world.partition().delete_records(now, before);
                world.run(deleted.expect("within the log").work);
            }
            _ => {
                world.leader_epoch += 1;
                let epoch = world.leader_epoch;
                world.partition().set_leader_epoch(epoch);
            }
        }
    }
}

/// `a`: producer (2 bits), records (2), codec (the rest). `b`: key (3 bits), length of the value.
fn produce(world: &mut World, a: u8, b: u8, hold: bool) {
    const KEYS: [Option<&[u8]>; 8] = [
        Some(b"a"),
        Some(b"b"),
        Some(b"c"),
        Some(b"d"),
        Some(b"e"),
        Some(b"f"),
        Some(b"g"),
        Some(b"h"),
    ];
    let id = i64::from(a % 4);
    let last = world.partition().producers().get(id);
    let last = last.and_then(|state| state.window.last());
    let sequence = last.map_or(0, |entry| entry.last_sequence + 1);
    let produce = Produce {
        producer: (id > 0).then_some((id, 0, sequence)),
        count: 1 + i32::from(a >> 2 & 3),
        timestamp: world.now.wall_ms,
        key: KEYS[usize::from(b % 8)],
        value: vec![b; usize::from(b >> 3) * 8],
        codec: Compression::ALL[usize::from(a >> 4) % 5],
        hold,
        ..Default::default()
    };
    if let Err(refused) = world.produce(&produce) {
        assert_eq!(refused.code, ErrorCode::RecordListTooLarge, "in sequence");
    }
}

/// Producers 4 to 7 write in transactions, and in nothing else.
fn transaction(world: &mut World, kind: u8, a: u8, b: u8) {
    let id = 4 + i64::from(a % 4);
    let state = world.partition().producers().get(id);
    let last = state.and_then(|state| state.window.last());
    let sequence = last.map_or(0, |entry| entry.last_sequence + 1);
    let hold = kind & 4 != 0;
    let refused = match kind % 4 {
        0 | 1 => {
            let produce = Produce {
                producer: Some((id, 0, sequence)),
                count: 1 + i32::from(a >> 2 & 3),
                timestamp: world.now.wall_ms,
                own_keys: b & 1 != 0,
                value: vec![b; usize::from(b >> 3) * 8],
                hold,
                ..Default::default()
            };
            world.produce_verified(&produce).err()
        }
        _ => {
            let marker = EndTransactionMarker {
                producer_id: id,
                producer_epoch: 0,
                coordinator_epoch: 0,
                transaction_version: 1,
                commit: kind & 1 != 0,
            };
            world.marker(&marker, hold).err()
        }
    };
    if let Some(refused) = refused {
        assert_eq!(refused.code, ErrorCode::RecordListTooLarge, "{refused:?}");
    }
}

/// Between two events the process ends in one of three ways and comes back.
fn restart(world: &mut World, how: u8, seed: u8) {
    match how % 3 {
        0 => world.shut_down(),
        1 => world.kill(),
        _ => world.power_cut(u64::from(seed)),
    }
    world.open().expect("nothing is damaged");
}
