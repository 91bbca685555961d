use serde_json::json;

use crate::run::{Oncelog, unique};

#[test]
fn a_topic_from_create_to_delete() {
    let Some(oncelog) = Oncelog::new("a_topic_from_create_to_delete") else {
        return;
    };
    let name = unique("life");
    let create = [
        "topic",
        "create",
        &name,
        "-p",
        "3",
        "-r",
        "1",
        "-c",
        "retention.ms=123456",
    ];
    assert_eq!(oncelog.ok(&create), format!("created topic {name}\n"));
    oncelog.fails(&create, 1, "TOPIC_ALREADY_EXISTS");
    oncelog.ok(&[&create[..], &["--if-not-exists"]].concat());

    let described = oncelog.json(&["topic", "describe", &name]);
    assert_eq!(described[0]["name"], json!(name));
    assert_eq!(described[0]["configs"]["retention.ms"], "123456");
    let partitions = described[0]["partitions"].as_array().unwrap();
    assert_eq!(partitions.len(), 3);
    assert!(
        partitions
            .iter()
            .all(|partition| partition["leader"].is_i64())
    );
    assert!(
        partitions
            .iter()
            .all(|partition| partition["isr"] == partition["replicas"])
    );
    let id = described[0]["topic_id"].as_str().unwrap();
    assert_eq!(id.len(), 22, "{id} is no topic id");

    let text = oncelog.ok(&["topic", "describe", &name]);
    let first = text.lines().next().unwrap();
    let head =
        format!("Topic: {name}\tTopicId: {id}\tPartitionCount: 3\tReplicationFactor: 1\tConfigs: ");
    assert!(first.starts_with(&head), "{first}");
    let second = text.lines().nth(1).unwrap();
    assert!(
        second.starts_with(&format!("\tTopic: {name}\tPartition: 0\tLeader: ")),
        "{second}"
    );

    oncelog.ok(&[
        "topic",
        "alter",
        &name,
        "-p",
        "5",
        "--set",
        "retention.ms=654321",
    ]);
    oncelog.fails(
        &["topic", "alter", &name, "-p", "2"],
        1,
        "INVALID_PARTITIONS",
    );
    let altered = oncelog.json(&["topic", "describe", &name]);
    assert_eq!(altered[0]["partitions"].as_array().unwrap().len(), 5);
    assert_eq!(altered[0]["configs"]["retention.ms"], "654321");

    let listed = oncelog.json(&["topic", "list"]);
    let row = listed
        .as_array()
        .unwrap()
        .iter()
        .find(|row| row["name"] == json!(name))
        .unwrap();
    assert_eq!(
        (&row["partitions"], &row["replication_factor"]),
        (&json!(5), &json!(1))
    );

    oncelog.ok(&["topic", "delete", &name]);
    oncelog.fails(&["topic", "delete", &name], 1, "UNKNOWN_TOPIC_OR_PARTITION");
    oncelog.fails(
        &["topic", "describe", &name],
        1,
        "UNKNOWN_TOPIC_OR_PARTITION",
    );
}

#[test]
fn dry_runs_change_nothing() {
    let Some(oncelog) = Oncelog::new("dry_runs_change_nothing") else {
        return;
    };
    let name = unique("dry");
    oncelog.ok(&["topic", "create", &name, "-r", "1", "--dry-run"]);
    oncelog.fails(
        &["topic", "describe", &name],
        1,
        "UNKNOWN_TOPIC_OR_PARTITION",
    );
    oncelog.ok(&["topic", "create", &name, "-p", "1", "-r", "1"]);
    oncelog.ok(&[
        "topic",
        "alter",
        &name,
        "-p",
        "2",
        "--set",
        "retention.ms=5",
        "--dry-run",
    ]);
    oncelog.ok(&["topic", "delete", &name, "--dry-run"]);
    let described = oncelog.json(&["topic", "describe", &name]);
    assert_eq!(described[0]["partitions"].as_array().unwrap().len(), 1);
    assert!(described[0]["configs"]["retention.ms"].is_null());
}

#[test]
fn one_bad_name_does_not_hide_the_good_ones() {
    let Some(oncelog) = Oncelog::new("one_bad_name_does_not_hide_the_good_ones") else {
        return;
    };
    let good = unique("good");
    let create = ["topic", "create", &good, "bad/name", "-p", "1", "-r", "1"];
    let done = oncelog.run(&create);
    assert_eq!(done.code, 1, "{}", done.err);
    assert_eq!(done.out, format!("created topic {good}\n"));
    assert!(done.err.contains("INVALID_TOPIC_EXCEPTION"), "{}", done.err);

    let json = oncelog.run(&["topic", "delete", &good, "not-there", "--format", "json"]);
    assert_eq!(json.code, 1);
    let results: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    let of = |name: &str| {
        results
            .as_array()
            .unwrap()
            .iter()
            .find(|row| row["name"] == name)
            .unwrap()
    };
    assert_eq!(of(&good)["ok"], true);
    assert_eq!(of("not-there")["ok"], false);
    assert!(json.err.contains("\"exit_code\":1"), "{}", json.err);
}

#[test]
fn patterns_delete_whole_names_only() {
    let Some(oncelog) = Oncelog::new("patterns_delete_whole_names_only") else {
        return;
    };
    let name = unique("pattern");
    let longer = format!("{name}-archive");
    oncelog.ok(&["topic", "create", &name, &longer, "-p", "1", "-r", "1"]);
    oncelog.fails(
        &["topic", "delete", "-r", "no-such-topic-[0-9]+"],
        1,
        "no topic matches",
    );
    // Without -r a pattern is a name, and no such name exists.
    assert_eq!(
        oncelog.run(&["topic", "delete", &format!("{name}.*")]).code,
        1
    );
    oncelog.ok(&["topic", "delete", "-r", &name]);
    oncelog.ok(&["topic", "describe", &longer]);
    oncelog.ok(&["topic", "delete", "-r", &format!("{name}.*")]);
    oncelog.fails(
        &["topic", "describe", &longer],
        1,
        "UNKNOWN_TOPIC_OR_PARTITION",
    );
}

#[test]
fn deleted_records_move_the_start() {
    let Some(oncelog) = Oncelog::new("deleted_records_move_the_start") else {
        return;
    };
    let topic = oncelog.topic(2);
    oncelog.produce(&[&topic, "-p", "0"], "a\nb\nc\n");
    oncelog.produce(&[&topic, "-p", "1"], "d\ne\n");
    oncelog.ok(&[
        "topic",
        "delete-records",
        &format!("{topic}@0:2"),
        &format!("{topic}@1:end"),
    ]);
    let described = oncelog.json(&["topic", "describe", &topic, "--offsets"]);
    let bounds = |partition: usize| {
        let partition = &described[0]["partitions"][partition];
        (
            partition["first_offset"].as_i64(),
            partition["next_offset"].as_i64(),
        )
    };
    assert_eq!(bounds(0), (Some(2), Some(3)));
    assert_eq!(bounds(1), (Some(2), Some(2)));
    assert_eq!(oncelog.ok(&["consume", &topic, "-e"]), "c\n");
    let beyond = format!("{topic}@0:4");
    oncelog.fails(
        &["topic", "delete-records", &beyond],
        1,
        "OFFSET_OUT_OF_RANGE",
    );
    let missing = format!("{topic}@9:0");
    oncelog.fails(
        &["topic", "delete-records", &missing],
        1,
        "UNKNOWN_TOPIC_OR_PARTITION",
    );
}
