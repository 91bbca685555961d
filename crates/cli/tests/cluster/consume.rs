use std::io::{BufRead, BufReader};

use crate::run::{Oncelog, unique};

#[test]
fn every_way_to_say_where_to_start() {
    let Some(oncelog) = Oncelog::new("every_way_to_say_where_to_start") else {
        return;
    };
    let topic = oncelog.topic(1);
    let input: String = (0..5)
        .map(|number| format!("{}:{number}\n", 1000 * (number + 1)))
        .collect();
    oncelog.produce(&[&topic, "-f", "%T:%v"], &input);
    let from = |offset: &str, expected: &str| {
        let read = oncelog.ok(&["consume", &topic, "-e", "-o", offset, "-f", "%v"]);
        assert_eq!(read, expected, "-o {offset}");
    };
    from("start", "01234");
    from("beginning", "01234");
    from("end", "");
    from("+2", "234");
    from("+99", "");
    from("-2", "34");
    from("-99", "01234");
    from("0", "01234");
    from("3", "34");
    from("5", "");
    from("@0", "01234");
    from("@3000", "234");
    from("@3001", "34");
    from("@1970-01-01T00:00:04Z", "34");
    from("@2200-01-01T00:00:00Z", "");
    oncelog.fails(&["consume", &topic, "-o", "6"], 1, "has no offset 6");
    oncelog.fails(&["consume", &topic, "-o", "soon"], 2, "expected start, end");
    assert_eq!(
        oncelog.ok(&["consume", &topic, "-n", "2", "-f", "%v"]),
        "01"
    );
    assert_eq!(oncelog.ok(&["consume", &topic, "-n", "0"]), "");
}

#[test]
fn a_start_is_found_in_each_partition() {
    let Some(oncelog) = Oncelog::new("a_start_is_found_in_each_partition") else {
        return;
    };
    let topic = oncelog.topic(2);
    oncelog.produce(&[&topic, "-p", "0"], "a\nb\nc\n");
    oncelog.produce(&[&topic, "-p", "1"], "d\n");
    let read = oncelog.ok(&["consume", &topic, "-e", "-o", "-1", "-f", r"%p%v\n"]);
    let mut lines: Vec<&str> = read.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["0c", "1d"]);
    oncelog.fails(
        &["consume", &topic, "-o", "2", "-e"],
        1,
        "partition 1 has no offset 2",
    );
    oncelog.fails(&["consume", &topic, "-p", "2"], 1, "no partition 2");
}

#[test]
fn several_topics() {
    let Some(oncelog) = Oncelog::new("several_topics") else {
        return;
    };
    let (one, two) = (oncelog.topic(2), oncelog.topic(1));
    oncelog.produce(&[&one, "-p", "1"], "a\n");
    oncelog.produce(&[&two], "b\n");
    // With -e one after another, without it both at once.
    let read = oncelog.ok(&["consume", &one, "-t", &two, "-e", "-f", r"%t %v\n"]);
    assert_eq!(read, format!("{one} a\n{two} b\n"));
    let read = oncelog.ok(&["consume", &one, &two, "-n", "2", "-f", "%v"]);
    assert!(read == "ab" || read == "ba", "{read}");
}

#[test]
fn a_topic_that_is_not_there() {
    let Some(oncelog) = Oncelog::new("a_topic_that_is_not_there") else {
        return;
    };
    let topic = unique("absent");
    oncelog.fails(&["consume", &topic], 1, "does not exist");
    oncelog.fails(
        &["consume", &topic, "-g", &unique("group")],
        1,
        "does not exist",
    );
    // Nor has asking for it made it.
    oncelog.fails(
        &["topic", "describe", &topic],
        1,
        "UNKNOWN_TOPIC_OR_PARTITION",
    );
}

#[test]
fn it_waits_for_more_and_a_closed_pipe_is_no_error() {
    let Some(oncelog) = Oncelog::new("it_waits_for_more_and_a_closed_pipe_is_no_error") else {
        return;
    };
    let topic = oncelog.topic(1);
    let mut running = oncelog.spawn(&["consume", &topic]);
    let mut lines = BufReader::new(running.child().stdout.take().unwrap()).lines();
    for line in ["first", "second"] {
        oncelog.produce(&[&topic], &format!("{line}\n"));
        // It comes while the command goes on: nothing is held back in a buffer.
        assert_eq!(lines.next().unwrap().unwrap(), line);
    }
    drop(lines);
    oncelog.produce(&[&topic], "third\n");
    assert_eq!(running.child().wait().unwrap().code(), Some(0));
}

#[test]
fn options_that_contradict_each_other_are_refused() {
    let Some(oncelog) = Oncelog::new("options_that_contradict_each_other_are_refused") else {
        return;
    };
    let topic = oncelog.topic(1);
    oncelog.fails(
        &["consume", &topic, "-g", "g", "-p", "0"],
        2,
        "exclude each other",
    );
    oncelog.fails(
        &["consume", &topic, "-g", "g", "-o", "5"],
        2,
        "only start or end",
    );
    oncelog.fails(
        &["consume", &topic, "-f", "%v", "--format", "json"],
        2,
        "exclude each other",
    );
    oncelog.fails(&["consume", &topic, "-f", "%q"], 2, "no token %q");
    oncelog.fails(
        &["consume", &topic, "-X", "no.such.property=1"],
        2,
        "No such configuration property",
    );
}
