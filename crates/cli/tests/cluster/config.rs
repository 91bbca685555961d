use serde_json::{Value, json};

use crate::run::Oncelog;

fn value<'a>(entries: &'a Value, name: &str) -> &'a Value {
    let entries = entries.as_array().unwrap();
    entries
        .iter()
        .find(|entry| entry["name"] == name)
        .map_or(&Value::Null, |entry| &entry["value"])
}

#[test]
fn topic_configuration_changes_key_by_key() {
    let Some(oncelog) = Oncelog::new("topic_configuration_changes_key_by_key") else {
        return;
    };
    let topic = oncelog.topic(1);
    let alter =
        |changes: &[&str]| oncelog.ok(&[&["config", "alter", "topic", &topic], changes].concat());
    let describe = || oncelog.json(&["config", "describe", "topic", &topic]);
    alter(&[
        "--set",
        "retention.ms=1000",
        "--set",
        "segment.bytes=2000000",
    ]);
    assert_eq!(value(&describe(), "retention.ms"), "1000");
    // Changing one key leaves the other alone.
    alter(&["--set", "retention.ms=2000"]);
    assert_eq!(value(&describe(), "segment.bytes"), "2000000");
    alter(&[
        "--delete",
        "segment.bytes",
        "--append",
        "cleanup.policy=compact",
    ]);
    let now = describe();
    assert_eq!(value(&now, "segment.bytes"), &Value::Null);
    assert_eq!(value(&now, "retention.ms"), "2000");
    assert!(
        value(&now, "cleanup.policy")
            .as_str()
            .unwrap()
            .contains("compact"),
        "{now}"
    );
    alter(&["--set", "retention.ms=3000", "--dry-run"]);
    assert_eq!(value(&describe(), "retention.ms"), "2000");

    let all = oncelog.json(&["config", "describe", "topic", &topic, "--all"]);
    assert!(all.as_array().unwrap().len() > describe().as_array().unwrap().len());
    oncelog.fails(
        &["config", "alter", "topic", &topic, "--set", "no.such.key=1"],
        1,
        "no.such.key",
    );
    oncelog.fails(
        &["config", "alter", "topic", &topic],
        2,
        "nothing to change",
    );
    oncelog.fails(
        &["config", "describe", "topic", "not-there"],
        1,
        "UNKNOWN_TOPIC_OR_PARTITION",
    );
}

#[test]
fn a_broker_tells_its_configuration() {
    let Some(oncelog) = Oncelog::new("a_broker_tells_its_configuration") else {
        return;
    };
    let info = oncelog.json(&["cluster", "info"]);
    let id = info["brokers"][0]["id"].to_string();
    let all = oncelog.json(&["config", "describe", "broker", &id, "--all"]);
    assert!(
        value(&all, "log.retention.ms").is_string()
            || value(&all, "log.retention.hours").is_string()
    );
    oncelog.fails(
        &["config", "describe", "broker", "987654"],
        1,
        "broker 987654 is not there",
    );
    oncelog.fails(
        &["config", "describe", "broker", "x"],
        2,
        "not a broker's id",
    );
}

#[test]
fn the_cluster_is_described_and_healthy() {
    let Some(oncelog) = Oncelog::new("the_cluster_is_described_and_healthy") else {
        return;
    };
    let info = oncelog.json(&["cluster", "info"]);
    assert!(!info["cluster_id"].as_str().unwrap().is_empty());
    assert!(info["controller"].is_i64());
    assert!(info["brokers"][0]["port"].is_i64());
    assert!(oncelog.ok(&["cluster", "info"]).contains("CONTROLLER"));
    oncelog.ok(&[
        "cluster",
        "health",
        "--exit-when-healthy",
        "--timeout",
        "30s",
    ]);
    let health = oncelog.json(&["cluster", "health"]);
    assert_eq!(
        (&health["healthy"], &health["reasons"]),
        (&json!(true), &json!([]))
    );
}
