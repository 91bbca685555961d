//! Kafka's own tool reads our markers and transaction indexes.
//!
//! Ignored by default: it needs a JVM and Kafka's jars, which `cargo xtask dump-log` fetches. Then:
//! `cargo test -p oncelog-partition --test kafka_reads_transactions -- --ignored`

mod support;

use oncelog_partition::EndTransactionMarker;
use std::path::{Path, PathBuf};
use std::process::Command;
use support::{DIR, Produce, World};

fn jars() -> PathBuf {
    match std::env::var_os("ONCELOG_KAFKA_JARS") {
        Some(dir) => dir.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/conformance/jars"),
    }
}

/// Two transactions that overlap, one aborted and one committed, and a clean shutdown.
fn world() -> World {
    let mut world = World::default();
    world.create();
    for producer_id in [7, 4000] {
        let produce = Produce {
            producer: Some((producer_id, 3, 0)),
            ..Default::default()
        };
        world.produce_verified(&produce).unwrap();
    }
    for (producer_id, commit) in [(7, false), (4000, true)] {
        let marker = EndTransactionMarker {
            producer_id,
            producer_epoch: 4,
            coordinator_epoch: 12,
            transaction_version: 2,
            commit,
        };
        world.marker(&marker, false).unwrap();
    }
    world.shut_down();
    world
}

#[expect(clippy::disallowed_methods, reason = "the tool reads a real file")]
fn dumped(world: &World, name: &str) -> String {
    let content = world.disk.content(&format!("{DIR}/{name}")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join(name);
    std::fs::write(&file, content).unwrap();
    let output = Command::new("java")
        .arg("-cp")
        .arg(jars().join("*"))
        .args([
            "org.apache.kafka.tools.DumpLogSegments",
            "--deep-iteration",
            "--files",
        ])
        .arg(&file)
        .output()
        .expect("java is on the path");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}{errors}");
    text
}

#[test]
#[ignore = "needs java and Kafka's jars (`cargo xtask dump-log` fetches them)"]
fn dump_log_segments_reads_our_transactions() {
    let world = world();
    let index = dumped(&world, "00000000000000000000.txnindex");
    for expected in [
        "producerId: 7",
        "firstOffset: 0",
        "lastOffset: 2",
        "lastStableOffset: 1",
    ] {
        assert!(index.contains(expected), "no {expected:?} in:\n{index}");
    }
    let log = dumped(&world, "00000000000000000000.log");
    for expected in [
        "isTransactional: true isControl: true",
        "endTxnMarker: ABORT coordinatorEpoch: 12",
        "endTxnMarker: COMMIT coordinatorEpoch: 12",
    ] {
        assert!(log.contains(expected), "no {expected:?} in:\n{log}");
    }
}
