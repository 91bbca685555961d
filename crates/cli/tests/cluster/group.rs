use std::io::{BufRead, BufReader};

use serde_json::{Value, json};

use crate::run::{Oncelog, eventually, unique};

/// Group protocol, as an option of the member.
const PROTOCOLS: [&str; 2] = ["group.protocol=classic", "group.protocol=consumer"];

fn partition(described: &Value, number: i64) -> &Value {
    let partitions = described[0]["partitions"].as_array().unwrap();
    partitions
        .iter()
        .find(|row| row["partition"] == number)
        .unwrap_or(&Value::Null)
}

fn read(oncelog: &Oncelog, topic: &str, group: &str, protocol: &str) -> String {
    oncelog.ok(&["consume", topic, "-g", group, "-e", "-X", protocol])
}

#[test]
fn a_group_goes_on_where_it_stopped() {
    let Some(oncelog) = Oncelog::new("a_group_goes_on_where_it_stopped") else {
        return;
    };
    for protocol in PROTOCOLS {
        let (topic, group) = (oncelog.topic(1), unique("group"));
        oncelog.produce(&[&topic], "a\nb\nc\n");
        let first = oncelog.ok(&["consume", &topic, "-g", &group, "-n", "2", "-X", protocol]);
        assert_eq!(first, "a\nb\n", "{protocol}");
        let described = oncelog.json(&["group", "describe", &group]);
        assert_eq!(
            partition(&described, 0)["current_offset"],
            2,
            "{protocol}: {described}"
        );
        assert_eq!(partition(&described, 0)["log_end_offset"], 3, "{protocol}");
        assert_eq!(partition(&described, 0)["lag"], 1, "{protocol}");
        assert_eq!(
            read(&oncelog, &topic, &group, protocol),
            "c\n",
            "{protocol}"
        );
        assert_eq!(read(&oncelog, &topic, &group, protocol), "", "{protocol}");
    }
}

#[test]
fn a_live_group_is_described_and_protected() {
    let Some(oncelog) = Oncelog::new("a_live_group_is_described_and_protected") else {
        return;
    };
    for (protocol, kind) in PROTOCOLS.into_iter().zip(["Classic", "Consumer"]) {
        let (topic, group) = (oncelog.topic(2), unique("group"));
        oncelog.produce(&[&topic, "-p", "0"], "a\n");
        let member = [
            "consume",
            &topic,
            "-g",
            &group,
            "-X",
            protocol,
            "-X",
            "client.id=me",
        ];
        let mut running = oncelog.spawn(&member);
        let mut lines = BufReader::new(running.child().stdout.take().unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "a", "{protocol}");
        let described = eventually("the member reads both partitions", || {
            let done = oncelog.run(&["group", "describe", &group, "--format", "json"]);
            let described: Value = serde_json::from_str(&done.out).ok()?;
            (described[0]["members"][0]["partitions"] == 2).then_some(described)
        });
        assert_eq!(described[0]["type"], kind);
        assert_eq!(described[0]["members"][0]["client_id"], "me");
        let member = &described[0]["members"][0]["consumer_id"];
        assert_eq!(
            &partition(&described, 0)["consumer_id"],
            member,
            "{described}"
        );
        assert_eq!(
            &partition(&described, 1)["consumer_id"],
            member,
            "{described}"
        );

        let text = oncelog.ok(&["group", "describe", &group]);
        let headings: Vec<&str> = text.lines().next().unwrap().split_whitespace().collect();
        assert_eq!(
            headings,
            [
                "GROUP",
                "TOPIC",
                "PARTITION",
                "CURRENT-OFFSET",
                "LOG-END-OFFSET",
                "LAG",
                "CONSUMER-ID",
                "HOST",
                "CLIENT-ID",
            ]
        );
        let members = oncelog.ok(&["group", "describe", &group, "--members"]);
        assert!(members.contains(&format!("{topic}(0,1)")), "{members}");
        assert!(
            oncelog
                .ok(&["group", "describe", &group, "--state"])
                .contains("Stable")
        );

        oncelog.fails(&["group", "delete", &group], 1, "NON_EMPTY_GROUP");
        let delete = ["group", "delete-offsets", &group, "-t", &topic];
        oncelog.fails(&delete, 1, "GROUP_SUBSCRIBED_TO_TOPIC");
        let reset = [
            "group",
            "reset-offsets",
            &group,
            "-t",
            &topic,
            "--to-earliest",
            "--execute",
        ];
        oncelog.fails(&reset, 1, "active members");

        let done = running.interrupt();
        assert_eq!(done.code, 0, "{protocol}: {}", done.err);
        // The interrupt left the group and committed what was printed.
        let after = oncelog.json(&["group", "describe", &group]);
        assert_eq!(after[0]["members"], json!([]), "{protocol}");
        assert_eq!(partition(&after, 0)["current_offset"], 1, "{protocol}");
    }
}

#[test]
fn offsets_are_moved_and_deleted() {
    let Some(oncelog) = Oncelog::new("offsets_are_moved_and_deleted") else {
        return;
    };
    for protocol in PROTOCOLS {
        let (topic, group) = (oncelog.topic(2), unique("group"));
        oncelog.produce(
            &[&topic, "-p", "0", "-f", "%T:%v"],
            "1000:a\n2000:b\n3000:c\n",
        );
        oncelog.produce(&[&topic, "-p", "1"], "d\n");
        read(&oncelog, &topic, &group, protocol);
        let reset = |scope: &str, to: &[&str], expected: i64| {
            let args = ["group", "reset-offsets", &group, "-t", scope, "--execute"];
            oncelog.ok(&[&args[..], to].concat());
            let described = oncelog.json(&["group", "describe", &group]);
            assert_eq!(
                partition(&described, 0)["current_offset"],
                expected,
                "{protocol} {to:?}"
            );
        };
        let first = format!("{topic}:0");
        reset(&first, &["--to-offset", "1"], 1);
        reset(&first, &["--to-earliest"], 0);
        reset(&first, &["--shift-by", "2"], 2);
        reset(&first, &["--shift-by", "-1"], 1);
        reset(&first, &["--to-current"], 1);
        reset(&first, &["--to-latest"], 3);
        reset(&first, &["--to-datetime", "1500"], 1);
        reset(&first, &["--to-offset", "99"], 3);
        // Without --execute it only says what it would do; partition 1 was never touched.
        let plan = [
            "group",
            "reset-offsets",
            &group,
            "--all-topics",
            "--to-earliest",
        ];
        assert_eq!(oncelog.json(&plan).as_array().unwrap().len(), 2);
        let described = oncelog.json(&["group", "describe", &group]);
        assert_eq!(partition(&described, 0)["current_offset"], 3);
        assert_eq!(partition(&described, 1)["current_offset"], 1);
        reset(&topic, &["--to-earliest"], 0);
        let mut again: Vec<String> = read(&oncelog, &topic, &group, protocol)
            .lines()
            .map(str::to_owned)
            .collect();
        again.sort();
        assert_eq!(again, ["a", "b", "c", "d"], "{protocol}");

        oncelog.ok(&["group", "delete-offsets", &group, "-t", &first]);
        let described = oncelog.json(&["group", "describe", &group]);
        assert_eq!(
            partition(&described, 0),
            &Value::Null,
            "{protocol}: {described}"
        );
        assert_eq!(partition(&described, 1)["current_offset"], 1, "{protocol}");
        let missing = format!("{topic}:7");
        oncelog.fails(
            &["group", "delete-offsets", &group, "-t", &missing],
            1,
            "no partition 7",
        );

        let listed = oncelog.json(&["group", "list"]);
        assert!(
            listed
                .as_array()
                .unwrap()
                .iter()
                .any(|row| row["group"] == json!(group))
        );
        oncelog.ok(&["group", "delete", &group]);
        oncelog.fails(&["group", "delete", &group], 1, "GROUP_ID_NOT_FOUND");
        oncelog.fails(&["group", "describe", &group], 1, "GROUP_ID_NOT_FOUND");
    }
}

#[test]
fn offsets_can_be_set_before_a_group_exists() {
    let Some(oncelog) = Oncelog::new("offsets_can_be_set_before_a_group_exists") else {
        return;
    };
    let (topic, group) = (oncelog.topic(1), unique("group"));
    oncelog.produce(&[&topic], "a\nb\nc\n");
    oncelog.ok(&[
        "group",
        "reset-offsets",
        &group,
        "-t",
        &topic,
        "--to-offset",
        "2",
        "--execute",
    ]);
    assert_eq!(read(&oncelog, &topic, &group, PROTOCOLS[0]), "c\n");
    let nothing = [
        "group",
        "reset-offsets",
        &unique("group"),
        "--all-topics",
        "--to-latest",
    ];
    oncelog.fails(&nothing, 1, "has committed nothing");
    let shift = [
        "group",
        "reset-offsets",
        &unique("group"),
        "-t",
        &topic,
        "--shift-by",
        "-1",
    ];
    oncelog.fails(&shift, 1, "cannot shift");
    oncelog.fails(
        &["group", "reset-offsets", &group, "-t", &topic],
        2,
        "required",
    );
}
