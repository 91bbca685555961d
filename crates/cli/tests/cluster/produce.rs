use std::io::Write;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::run::{Oncelog, unique};

#[test]
fn every_codec_with_every_acks() {
    let Some(oncelog) = Oncelog::new("every_codec_with_every_acks") else {
        return;
    };
    let topic = oncelog.topic(1);
    // Compressible, so that a codec that does nothing would show in a broker's check.
    let lines: String = (0..200)
        .map(|number| format!("record {number} {}\n", "x".repeat(50)))
        .collect();
    let mut expected = 0;
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        for acks in ["0", "1", "all"] {
            let args = [
                "produce", &topic, "-z", codec, "--acks", acks, "--format", "json",
            ];
            let done = oncelog.with_input(&args, lines.as_bytes());
            assert_eq!(done.code, 0, "{codec} {acks}: {}", done.err);
            let tally: Value = serde_json::from_str(&done.out).unwrap();
            let acknowledged = if acks == "0" { 0 } else { 200 };
            assert_eq!(tally["sent"], 200, "{codec} {acks}");
            assert_eq!(tally["acknowledged"], acknowledged, "{codec} {acks}");
            expected += 200;
        }
    }
    let read = oncelog.ok(&["consume", &topic, "-e"]);
    assert_eq!(read.lines().count(), expected);
    assert_eq!(read, lines.repeat(expected / 200));
}

#[test]
fn keys_headers_and_partitions() {
    let Some(oncelog) = Oncelog::new("keys_headers_and_partitions") else {
        return;
    };
    let topic = oncelog.topic(3);
    oncelog.produce(
        &[&topic, "-p", "2", "-K", ":", "-H", "a=1", "-H", "b=x=y"],
        "k1:v1\nno key\n",
    );
    oncelog.produce(
        &["-t", &topic, "-p", "2", "-k", "fixed", "-n", "1"],
        "first\nsecond\n",
    );
    oncelog.produce(&[&topic, "-p", "2", "-f", "%k=%v"], "k2=v2\n");
    let format = r"%t %p %o [%k] [%v] [%h] %K %V\n";
    let read = oncelog.ok(&["consume", &topic, "-p", "2", "-e", "-f", format]);
    let expected = format!(
        "{topic} 2 0 [k1] [v1] [a=1,b=x=y] 2 2\n\
         {topic} 2 1 [] [no key] [a=1,b=x=y] -1 6\n\
         {topic} 2 2 [fixed] [first] [] 5 5\n\
         {topic} 2 3 [k2] [v2] [] 2 2\n"
    );
    assert_eq!(read, expected);
    assert_eq!(oncelog.ok(&["consume", &topic, "-p", "0,1", "-e"]), "");
    let listed = oncelog.with_input(&["produce", &topic, "-p", "2", "-v"], b"x\n");
    assert_eq!(listed.out, format!("{topic} partition 2 offset 4\n"));
    assert!(
        listed.err.contains("1 sent, 1 acknowledged"),
        "{}",
        listed.err
    );
}

#[test]
fn keys_go_where_java_clients_put_them() {
    let Some(oncelog) = Oncelog::new("keys_go_where_java_clients_put_them") else {
        return;
    };
    let topic = oncelog.topic(3);
    oncelog.produce(
        &[&topic, "-K", ":"],
        JAVA_PARTITIONS
            .map(|(key, _)| format!("{key}:v\n"))
            .concat()
            .as_str(),
    );
    let read = oncelog.ok(&["consume", &topic, "-e", "-f", r"%k %p\n"]);
    let mut lines: Vec<&str> = read.lines().collect();
    lines.sort_unstable();
    let expected = JAVA_PARTITIONS.map(|(key, partition)| format!("{key} {partition}"));
    assert_eq!(lines, expected);
}

/// Key -> partition of three, from Kafka's own `Utils.toPositive(Utils.murmur2(key)) % 3`.
const JAVA_PARTITIONS: [(&str, i32); 4] = [("21", 0), ("a", 1), ("b", 2), ("key-0", 1)];

#[test]
fn json_goes_round_unharmed() {
    let Some(oncelog) = Oncelog::new("json_goes_round_unharmed") else {
        return;
    };
    let (from, to) = (oncelog.topic(1), oncelog.topic(1));
    let lines = [
        json!({"key": null, "value": "text", "headers": [], "timestamp": 1_700_000_000_000_i64}),
        json!({"key": "/w==", "key_encoding": "base64", "value": null,
               "headers": [{"name": "raw", "value": "AP8=", "encoding": "base64"},
                           {"name": "raw", "value": null}],
               "timestamp": 1_700_000_000_001_i64}),
        json!({"key": "", "value": "", "headers": [], "timestamp": 1_700_000_000_002_i64}),
    ];
    let input: String = lines.iter().map(|line| format!("{line}\n")).collect();
    oncelog.produce(&[&from, "--input", "json"], &input);
    let first = oncelog.ok(&["consume", &from, "-e", "--format", "json"]);
    oncelog.produce(&[&to, "--input", "json"], &first);
    let second = oncelog.ok(&["consume", &to, "-e", "--format", "json"]);
    assert_eq!(second.lines().count(), 3);
    for (line, expected) in second.lines().zip(&lines) {
        let read: Value = serde_json::from_str(line).unwrap();
        assert_eq!(read["topic"], json!(to));
        assert_eq!(read["timestamp_type"], "CreateTime");
        for (name, value) in expected.as_object().unwrap() {
            assert_eq!(&read[name], value, "{name} in {line}");
        }
    }
}

#[test]
fn what_is_refused_is_not_called_acknowledged() {
    let Some(oncelog) = Oncelog::new("what_is_refused_is_not_called_acknowledged") else {
        return;
    };
    let topic = unique("small");
    oncelog.ok(&[
        "topic",
        "create",
        &topic,
        "-p",
        "1",
        "-r",
        "1",
        "-c",
        "max.message.bytes=2000",
    ]);
    // One batch for each record, so that the large one takes no other with it.
    let args = [
        "produce",
        &topic,
        "-X",
        "batch.num.messages=1",
        "--format",
        "json",
    ];
    let done = oncelog.with_input(&args, format!("a\n{}\nb\n", "x".repeat(5000)).as_bytes());
    assert_eq!(done.code, 1, "{}", done.err);
    let tally: Value = serde_json::from_str(&done.out).unwrap();
    assert_eq!(tally["sent"], 3, "{tally}");
    assert_eq!(tally["acknowledged"], 2, "{tally}");
    assert_eq!(tally["refused"], 1, "{tally}");
    assert_eq!(oncelog.ok(&["consume", &topic, "-e"]), "a\nb\n");
}

#[test]
fn a_bad_line_ends_it_but_what_was_sent_is_reported() {
    let Some(oncelog) = Oncelog::new("a_bad_line_ends_it_but_what_was_sent_is_reported") else {
        return;
    };
    let topic = oncelog.topic(1);
    let done = oncelog.with_input(
        &["produce", &topic, "--input", "json"],
        b"{\"value\":\"a\"}\nnot json\n",
    );
    assert_eq!(done.code, 1);
    assert!(done.err.contains("1 sent, 1 acknowledged"), "{}", done.err);
    assert!(done.err.contains("line 2 cannot be sent"), "{}", done.err);
}

#[test]
fn options_that_contradict_each_other_are_refused() {
    let Some(oncelog) = Oncelog::new("options_that_contradict_each_other_are_refused") else {
        return;
    };
    oncelog.fails(
        &["produce", "t", "--acks", "1", "--idempotent"],
        2,
        "needs --acks all",
    );
    oncelog.fails(
        &["produce", "t", "-X", "acks=0", "--idempotent=true"],
        2,
        "needs --acks all",
    );
    oncelog.fails(
        &["produce", "t", "--input", "json", "-K", ":"],
        2,
        "excludes",
    );
    oncelog.fails(
        &["produce", "t", "-k", "a", "-K", ":"],
        2,
        "cannot be used with",
    );
    oncelog.fails(&["produce"], 2, "required");
}

#[test]
fn an_interrupt_reports_what_was_sent() {
    let Some(oncelog) = Oncelog::new("an_interrupt_reports_what_was_sent") else {
        return;
    };
    let topic = oncelog.topic(1);
    let mut child = oncelog
        .command(&["produce", &topic, "-v"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"one\ntwo\n").unwrap();
    // The input stays open: only the signal ends it.
    crate::run::eventually("both records are written", || {
        (oncelog.ok(&["consume", &topic, "-e"]) == "one\ntwo\n").then_some(())
    });
    let done = crate::run::Running::from(child).interrupt();
    drop(stdin);
    assert_eq!(done.code, 0, "{}", done.err);
    assert!(done.err.contains("2 sent, 2 acknowledged"), "{}", done.err);
}
