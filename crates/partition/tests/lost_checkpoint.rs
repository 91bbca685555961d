//! What a crash took is not known to anybody, whatever snapshots say: also where the checkpoint, which
//! would tell a hole from compaction's work, is damaged.

mod support;

use support::{DIR, Produce, World};

fn batch(producer: i64, sequence: i32, hold: bool) -> Produce {
    Produce {
        producer: Some((producer, 0, sequence)),
        count: 1,
        timestamp: 1,
        key: Some(b"k"),
        value: vec![b'v'; 60],
        hold,
        ..Default::default()
    }
}

#[test]
fn a_batch_that_was_lost_in_a_hole_is_not_taken_for_a_duplicate() {
    let mut world = World::default();
    world.config.log.segment_bytes = 300;
    world.create();
    world.produce(&batch(7, 0, false)).unwrap();
    world.shut_down();
    world.open().unwrap();
    // The append of producer 9 is not carried out; those behind it are, into the next segments, with
    // snapshots that know of producer 9.
    let lost = world.produce(&batch(9, 0, true)).unwrap().base_offset;
    for sequence in 1..8 {
        world.produce(&batch(7, sequence, false)).unwrap();
    }
    assert!(world.partition().high_watermark() <= lost);
    world.kill();
    world
        .disk
        .flip_bit(&format!("{DIR}/oncelog-checkpoint"), 60, 1);
    world.open().unwrap();
    assert!(
        world.partition().log_end_offset() > lost,
        "the hole is kept"
    );
    let again = world.produce(&batch(9, 0, false)).unwrap();
    assert!(!again.duplicate);
    assert!(again.base_offset > lost);
}
