//! Kafka's own tool reads our transaction records, and skips the tag that it does not know.
//!
//! Ignored by default: it needs a JVM and Kafka's jars, which `cargo xtask dump-log` fetches. Then:
//! `cargo test -p oncelog-coordinator --test kafka_reads_transactions -- --ignored`

use oncelog_coordinator::transactions::{TransactionConfig, TransactionShard};
use oncelog_coordinator::{Caller, Outcome, ReplyTo, TopicView, Topics};
use oncelog_wire::Uuid;
use oncelog_wire::clock::{Instant, Now};
use oncelog_wire::messages::add_partitions_to_txn_request::{
    AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction,
};
use oncelog_wire::messages::{EndTxnRequest, InitProducerIdRequest};
use oncelog_wire::records::BatchBuilder;
use std::path::{Path, PathBuf};
use std::process::Command;

const NOW: Now = Now {
    instant: Instant(1_000),
    wall_ms: 1_700_000_000_000,
};

struct AnyTopic;

impl Topics for AnyTopic {
    fn topic(&self, _: &str) -> Option<TopicView> {
        Some(TopicView {
            id: Uuid([1; 16]),
            partitions: 10,
        })
    }

    fn topic_by_id(&self, _: Uuid) -> Option<&str> {
        None
    }

    fn names(&self) -> Box<dyn Iterator<Item = &str> + '_> {
        Box::new(std::iter::empty())
    }

    fn epoch(&self) -> u64 {
        0
    }
}

fn jars() -> PathBuf {
    match std::env::var_os("ONCELOG_KAFKA_JARS") {
        Some(dir) => dir.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/conformance/jars"),
    }
}

/// Adds the outcome's records to the batch, and replays them.
fn take(shard: &mut TransactionShard, batch: &mut BatchBuilder, outcome: Outcome) {
    for record in &outcome.records {
        let value = record.value.as_deref();
        batch.append(NOW.wall_ms, Some(&record.key), value, &[]);
        shard.replay(&record.key, value, NOW).unwrap();
    }
}

/// A transaction at the end of a producer id's epochs, with every field that a record can have.
fn some_records() -> BatchBuilder {
    let mut shard = TransactionShard::new(TransactionConfig::default(), 3);
    let _ = shard.loaded(NOW);
    let mut batch = BatchBuilder::new().base_offset(0).leader_epoch(3);
    let caller = Caller {
        client_id: "some client".into(),
        client_host: "/127.0.0.1".into(),
        connection: 1,
        api_version: 5,
    };
    let mut fresh = || 4_000;
    let init = InitProducerIdRequest {
        transactional_id: Some("orders-1".into()),
        transaction_timeout_ms: 60_000,
        ..Default::default()
    };
    let outcome = shard.init_producer_id(NOW, ReplyTo(0), &caller, &init, &mut fresh);
    take(&mut shard, &mut batch, outcome);
    let transaction = AddPartitionsToTxnTransaction {
        transactional_id: "orders-1".into(),
        producer_id: 4_000,
        topics: vec![AddPartitionsToTxnTopic {
            name: "orders".into(),
            partitions: vec![7],
            ..Default::default()
        }],
        ..Default::default()
    };
    let outcome =
        shard.add_partitions_for_leader(NOW, ReplyTo(1), &caller, &transaction, &AnyTopic);
    take(&mut shard, &mut batch, outcome);
    let end = EndTxnRequest {
        transactional_id: "orders-1".into(),
        producer_id: 4_000,
        committed: true,
        ..Default::default()
    };
    let outcome = shard.end_txn(NOW, ReplyTo(2), &caller, &end, &mut fresh);
    take(&mut shard, &mut batch, outcome);
    let outcome = shard.marker_written(NOW, "orders-1", 4_000, 1, ("orders", 7));
    take(&mut shard, &mut batch, outcome);
    batch
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the tool reads a real file")]
#[ignore = "needs java and Kafka's jars (`cargo xtask dump-log` fetches them)"]
fn dump_log_segments_reads_our_transactions() {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("00000000000000000000.log");
    std::fs::write(&file, some_records().build()).unwrap();

    let output = Command::new("java")
        .arg("-cp")
        .arg(jars().join("*"))
        .args(["org.apache.kafka.tools.DumpLogSegments"])
        .args(["--transaction-log-decoder", "--files"])
        .arg(&file)
        .output()
        .expect("java is on the path");
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}{errors}");
    for expected in [
        r#""transactionalId":"orders-1""#,
        r#""producerId":4000"#,
        r#""producerEpoch":1"#,
        r#""transactionTimeoutMs":60000"#,
        r#""topic":"orders""#,
        r#""transactionStatus":2"#,
        r#""transactionStatus":4"#,
        r#""clientTransactionVersion":2"#,
    ] {
        assert!(
            text.contains(expected),
            "no {expected:?} in:\n{text}{errors}"
        );
    }
}
