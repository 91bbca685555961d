//! Kafka's own tool reads our snapshots, the tail that it does not know included.
//!
//! Ignored by default: it needs a JVM and Kafka's jars, which `cargo xtask dump-log` fetches. Then:
//! `cargo test -p oncelog-partition --test kafka_reads_snapshots -- --ignored`

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;
use support::{DIR, Produce, World};

fn jars() -> PathBuf {
    match std::env::var_os("ONCELOG_KAFKA_JARS") {
        Some(dir) => dir.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/conformance/jars"),
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the tool reads a real file")]
#[ignore = "needs java and Kafka's jars (`cargo xtask dump-log` fetches them)"]
fn dump_log_segments_reads_our_snapshot() {
    let mut world = World::default();
    world.create();
    for sequence in 0..7 {
        let produce = |id, epoch, count| Produce {
            producer: Some((id, epoch, sequence * count)),
            count,
            timestamp: 1_000_000 + i64::from(sequence),
            ..Default::default()
        };
        world.produce(&produce(7, 0, 3)).unwrap();
        world.produce(&produce(4000, 2, 1)).unwrap();
    }
    world.shut_down();
    let name = "00000000000000000028.snapshot";
    let content = world.disk.content(&format!("{DIR}/{name}")).unwrap();
    assert!(
        content.windows(4).any(|w| w == b"ONCE"),
        "the tail is there"
    );
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join(name);
    std::fs::write(&file, content).unwrap();

    let output = Command::new("java")
        .arg("-cp")
        .arg(jars().join("*"))
        .args(["org.apache.kafka.tools.DumpLogSegments", "--files"])
        .arg(&file)
        .output()
        .expect("java is on the path");
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}{errors}");
    for expected in [
        "producerId: 7 producerEpoch: 0",
        "producerId: 4000 producerEpoch: 2",
        "lastSequence: 20",
        "lastOffset: 26",
        "offsetDelta: 2",
        "timestamp: 1000006",
    ] {
        assert!(
            text.contains(expected),
            "no {expected:?} in:\n{text}{errors}"
        );
    }
}
