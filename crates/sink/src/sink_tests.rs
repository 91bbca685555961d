//! Scripts of outcomes: what the sink asks for, and what it is told.

use super::*;
use crate::mapping::Change;
use crate::table::{Column, Kind, Value};

const EXACTLY: &str = "exactly-once";
const AT_LEAST: &str = "at-least-once";
const AT_MOST: &str = "at-most-once";

fn sink(delivery: &str, more: &str) -> Sink {
    let config = format!(
        r#"{{"name": "s", "topics": ["t"], "database": "sqlite:x", "table": "orders",
        "key.columns": ["id"], "columns": {{"id": "value.id"}}, "delivery": "{delivery}"{more}}}"#
    );
    Sink::new(&serde_json::from_str(&config).unwrap())
}

fn table() -> Table {
    Table {
        name: "orders".to_owned(),
        columns: vec![Column {
            name: "id".to_owned(),
            kind: Kind::Text,
            type_name: "text".to_owned(),
            nullable: false,
            optional: false,
            exact: true,
        }],
        unique: vec![],
    }
}

fn tp(partition: i32) -> TopicPartition {
    TopicPartition::new("t", partition)
}

fn record(partition: i32, offset: i64, id: &str) -> SinkRecord {
    SinkRecord {
        topic: "t".into(),
        partition,
        offset,
        timestamp_ms: None,
        key: None,
        value: Some(format!("{{\"id\":{id}}}").into_bytes()),
        headers: vec![(
            "id".into(),
            Some(format!("e{partition}-{offset}").into_bytes()),
        )],
    }
}

/// `0@5` is the record at offset 5 of partition 0; `0@5!` one that is poison.
fn records(script: &str) -> Polled {
    let record = |word: &str| {
        let (place, poison) = word
            .strip_suffix('!')
            .map_or((word, false), |word| (word, true));
        let (partition, offset) = place.split_once('@').unwrap();
        let id = if poison {
            "null".to_owned()
        } else {
            format!("\"{offset}\"")
        };
        record(partition.parse().unwrap(), offset.parse().unwrap(), &id)
    };
    Polled {
        records: script.split_whitespace().map(record).collect(),
        rebalances: vec![],
    }
}

fn assigned(partitions: &[i32]) -> Polled {
    let partitions = partitions.iter().map(|partition| tp(*partition)).collect();
    Polled {
        records: vec![],
        rebalances: vec![Rebalance::Assigned(partitions)],
    }
}

fn ranges(of: &[(i32, i64, i64)]) -> Outcome {
    let range = |(partition, beginning, end): &(i32, i64, i64)| Range {
        partition: tp(*partition),
        beginning: *beginning,
        end: *end,
        committed: None,
    };
    Outcome::Ranges(Ok(of.iter().map(range).collect()))
}

fn claims(of: &[(i32, i64, i64)]) -> Outcome {
    let claim = |(partition, epoch, next_offset): &(i32, i64, i64)| Claim {
        partition: tp(*partition),
        epoch: *epoch,
        next_offset: *next_offset,
    };
    Outcome::Claim(Ok(of.iter().map(claim).collect()))
}

fn applied() -> Outcome {
    Outcome::Apply(Ok(Applied::default()))
}

fn lost() -> TargetError {
    TargetError::Lost("gone".to_owned())
}

fn rejected(index: Option<usize>) -> Outcome {
    let reason = "no".to_owned();
    Outcome::Apply(Err(TargetError::Rejected { index, reason }))
}

/// An operation in a line.
fn show(operation: &Operation) -> String {
    let places = |places: &[Place]| {
        let place = |place: &Place| format!(" {}@{}", place.partition.partition, place.offset);
        places.iter().map(place).collect::<String>()
    };
    match operation {
        Operation::Open => "open".to_owned(),
        Operation::Subscribe => "subscribe".to_owned(),
        Operation::Poll(..) => "poll".to_owned(),
        Operation::Ranges(partitions, committed) => {
            let all: String = partitions
                .iter()
                .map(|one| format!(" {}", one.partition))
                .collect();
            format!("ranges{all}{}", if *committed { " committed" } else { "" })
        }
        Operation::Claim(cluster, requests) => {
            let all = requests
                .iter()
                .map(|one| format!(" {}@{}", one.partition.partition, one.first));
            format!("claim {cluster}{}", all.collect::<String>())
        }
        Operation::Assign(to) => format!("assign{}", places(to)),
        Operation::Seek(to) => format!("seek{}", places(to)),
        Operation::Apply(transaction) => {
            let entry = |entry: &Entry| match &entry.effect {
                Effect::Change(Change::Put(values)) => match &values[0] {
                    Value::Text(text) => format!(" {text}"),
                    other => format!(" {other:?}"),
                },
                Effect::Change(Change::Delete(_)) => " deleted".to_owned(),
                Effect::Letter(letter) => format!(" letter:{}", letter.offset),
            };
            let moved = |moved: &Move| {
                let Move {
                    partition,
                    epoch,
                    from,
                    to,
                } = moved;
                format!(" {}/{epoch}:{from}-{to}", partition.partition)
            };
            let entries: String = transaction.entries().iter().map(entry).collect();
            let moves: String = transaction.moves.iter().map(moved).collect();
            format!("apply{entries};{moves}")
        }
        Operation::Commit(to, advisory) => {
            format!(
                "commit{}{}",
                places(to),
                if *advisory { " advisory" } else { "" }
            )
        }
        Operation::Probe(from) => format!("probe{}", places(from)),
        Operation::Leave => "leave".to_owned(),
        Operation::Wait(_) => "wait".to_owned(),
        Operation::Stop(Stop::Fenced(_)) => "stop: fenced".to_owned(),
        Operation::Stop(Stop::Refused(reason)) => format!("stop: refused: {reason}"),
        Operation::Stop(Stop::Poison(reason)) => format!("stop: poison: {reason}"),
    }
}

#[track_caller]
fn check(sink: &mut Sink, script: Vec<(Outcome, &str)>) {
    for (index, (outcome, expected)) in script.into_iter().enumerate() {
        let told = format!("{outcome:?}");
        let operation = show(&sink.step(outcome));
        let fits = match expected.strip_suffix('…') {
            Some(beginning) => operation.starts_with(beginning),
            None => operation == expected,
        };
        assert!(
            fits,
            "step {index}: told {told}\n  asks {operation}\n  not  {expected}"
        );
    }
}

/// Up to the first poll after partitions 0 and 1 were started, at offsets 5 and 0.
fn begun(delivery: &str, more: &str) -> Sink {
    let mut sink = sink(delivery, more);
    check(
        &mut sink,
        vec![
            (Outcome::Started, "open"),
            (Outcome::Open(Ok(table())), "subscribe"),
            (Outcome::Subscribe(Ok("c".to_owned())), "poll"),
        ],
    );
    if delivery == EXACTLY {
        check(
            &mut sink,
            vec![
                (Outcome::Poll(Ok(assigned(&[0, 1]))), "ranges 0 1"),
                (ranges(&[(0, 0, 90), (1, 0, 90)]), "claim c 0@0 1@0"),
                (claims(&[(0, 3, 5), (1, 1, 0)]), "assign 0@5 1@0"),
                (Outcome::Assign(Ok(())), "poll"),
            ],
        );
    } else {
        check(
            &mut sink,
            vec![
                (Outcome::Poll(Ok(assigned(&[0, 1]))), "ranges 0 1 committed"),
                (ranges(&[(0, 5, 90), (1, 0, 90)]), "assign 0@5 1@0"),
                (Outcome::Assign(Ok(())), "poll"),
            ],
        );
    }
    sink
}

#[test]
fn exactly_once_moves_the_offset_with_the_rows() {
    let mut sink = begun(EXACTLY, "");
    check(
        &mut sink,
        vec![
            (
                Outcome::Poll(Ok(records("0@5 1@0 0@7"))),
                "apply 5 0 7; 0/3:5-8 1/1:0-1",
            ),
            (applied(), "commit 0@8 1@1 advisory"),
            // Nothing depends on it.
            (
                Outcome::Commit(Err(RecordsError::Lost("no".to_owned()))),
                "poll",
            ),
            (Outcome::Poll(Ok(records("0@8"))), "apply 8; 0/3:8-9"),
            (
                Outcome::Apply(Ok(Applied { duplicates: 1 })),
                "commit 0@9 advisory",
            ),
            (Outcome::Commit(Ok(())), "poll"),
        ],
    );
    let counts = sink.counts();
    assert_eq!(
        (
            counts.applied,
            counts.transactions,
            counts.duplicates_skipped
        ),
        (4, 2, 1)
    );
    assert_eq!((sink.partitions(), sink.trouble()), (2, None));
}

#[test]
fn at_least_once_commits_the_offset_after_the_rows() {
    let mut sink = begun(AT_LEAST, "");
    check(
        &mut sink,
        vec![
            (Outcome::Poll(Ok(records("0@5 0@6"))), "apply 5 6;"),
            (applied(), "commit 0@7"),
            (Outcome::Commit(Ok(())), "poll"),
            (Outcome::Poll(Ok(records("0@7"))), "apply 7;"),
            // Unknown: the same again.
            (Outcome::Apply(Err(lost())), "wait"),
            (Outcome::Wait, "open"),
            (Outcome::Open(Ok(table())), "apply 7;"),
            (applied(), "commit 0@8"),
            (
                Outcome::Commit(Err(RecordsError::Lost("gone".to_owned()))),
                "leave",
            ),
            (Outcome::Leave, "wait"),
            (Outcome::Wait, "subscribe"),
        ],
    );
}

#[test]
fn at_most_once_commits_the_offset_before_the_rows() {
    let mut sink = begun(AT_MOST, "");
    check(
        &mut sink,
        vec![
            (Outcome::Poll(Ok(records("0@5 1@0"))), "commit 0@6 1@1"),
            (Outcome::Commit(Ok(())), "apply 5 0;"),
            (applied(), "poll"),
            (Outcome::Poll(Ok(records("0@6"))), "commit 0@7"),
            (Outcome::Commit(Ok(())), "apply 6;"),
            // Lost, and not sent again.
            (Outcome::Apply(Err(lost())), "wait"),
            (Outcome::Wait, "open"),
            (Outcome::Open(Ok(table())), "poll"),
            (Outcome::Poll(Ok(records("0@7"))), "commit 0@8"),
            (
                Outcome::Commit(Err(RecordsError::Lost("rebalance".to_owned()))),
                "leave",
            ),
        ],
    );
    assert_eq!(sink.counts().given_up, 1);
}

#[test]
fn an_unknown_outcome_is_never_guessed() {
    let mut sink = begun(EXACTLY, "");
    check(
        &mut sink,
        vec![
            (Outcome::Poll(Ok(records("0@5"))), "apply 5; 0/3:5-6"),
            (Outcome::Apply(Err(lost())), "wait"),
            (Outcome::Wait, "open"),
            (Outcome::Open(Err(lost())), "wait"),
            (Outcome::Wait, "open"),
            (Outcome::Open(Ok(table())), "ranges 0 1"),
            (ranges(&[(0, 0, 90), (1, 0, 90)]), "claim c 0@0 1@0"),
            // It was committed after all.
            (claims(&[(0, 4, 6), (1, 2, 0)]), "seek 0@6 1@0"),
            (Outcome::Seek(Ok(())), "poll"),
            (Outcome::Poll(Ok(records("0@6"))), "apply 6; 0/4:6-7"),
        ],
    );
}

#[test]
fn a_deadlock_is_tried_again_as_it_is() {
    let mut sink = begun(EXACTLY, "");
    let again = || Outcome::Apply(Err(TargetError::Again("deadlock".to_owned())));
    check(
        &mut sink,
        vec![
            (Outcome::Poll(Ok(records("0@5"))), "apply 5; 0/3:5-6"),
            (again(), "wait"),
            (Outcome::Wait, "apply 5; 0/3:5-6"),
            (applied(), "commit 0@6 advisory"),
        ],
    );
}

#[test]
fn a_fenced_instance_gives_up_and_comes_anew() {
    let mut sink = begun(EXACTLY, "");
    let fenced = || Outcome::Apply(Err(TargetError::Fenced("taken".to_owned())));
    check(
        &mut sink,
        vec![
            (
                Outcome::Poll(Ok(records("0@5 1@0"))),
                "apply 5 0; 0/3:5-6 1/1:0-1",
            ),
            (fenced(), "leave"),
            (Outcome::Leave, "wait"),
            (Outcome::Wait, "subscribe"),
            (Outcome::Subscribe(Ok("c".to_owned())), "poll"),
            // Nothing of what it had is its own now.
            (Outcome::Poll(Ok(records("0@6"))), "poll"),
        ],
    );
    assert_eq!((sink.counts().fenced, sink.partitions()), (1, 0));
}

#[test]
fn what_is_revoked_is_not_applied() {
    let mut sink = begun(EXACTLY, "");
    let mut polled = records("1@0 0@5");
    polled.rebalances = vec![Rebalance::Revoked(vec![tp(0)]), Rebalance::Assigned(vec![])];
    check(
        &mut sink,
        vec![
            (Outcome::Poll(Ok(polled)), "assign"),
            (Outcome::Assign(Ok(())), "apply 0; 1/1:0-1"),
            (applied(), "commit 1@1 advisory"),
            (Outcome::Commit(Ok(())), "poll"),
            (Outcome::Poll(Ok(records("0@5"))), "poll"),
        ],
    );
}

#[test]
fn what_was_applied_before_is_passed_over() {
    let mut sink = begun(EXACTLY, "");
    check(
        &mut sink,
        vec![(
            Outcome::Poll(Ok(records("0@4 0@5 0@5 0@3"))),
            "apply 5; 0/3:5-6",
        )],
    );
}

#[test]
fn offsets_that_the_topic_does_not_have_are_refused() {
    let start = || {
        let mut sink = sink(EXACTLY, "");
        check(
            &mut sink,
            vec![
                (Outcome::Started, "open"),
                (Outcome::Open(Ok(table())), "subscribe"),
                (Outcome::Subscribe(Ok("c".to_owned())), "poll"),
                (Outcome::Poll(Ok(assigned(&[0]))), "ranges 0"),
            ],
        );
        sink
    };
    check(
        &mut start(),
        vec![
            (ranges(&[(0, 7, 9)]), "claim c 0@7"),
            (
                claims(&[(0, 2, 5)]),
                "stop: refused: the next record of t-0 is at offset 5…",
            ),
        ],
    );
    // The one before may have gone on after the ranges were read.
    check(
        &mut start(),
        vec![
            (ranges(&[(0, 0, 9)]), "claim c 0@0"),
            (claims(&[(0, 2, 10)]), "ranges 0"),
            (ranges(&[(0, 0, 10)]), "assign 0@10"),
        ],
    );
    let mut recreated = start();
    check(
        &mut recreated,
        vec![
            (ranges(&[(0, 0, 9)]), "claim c 0@0"),
            (claims(&[(0, 2, 10)]), "ranges 0"),
        ],
    );
    for _ in 1..RECHECKS_MAX {
        check(
            &mut recreated,
            vec![(ranges(&[(0, 0, 9)]), "wait"), (Outcome::Wait, "ranges 0")],
        );
    }
    check(
        &mut recreated,
        vec![(
            ranges(&[(0, 0, 9)]),
            "stop: refused: the next record of t-0 is at…",
        )],
    );
}

#[test]
fn a_sink_may_begin_at_the_end() {
    let mut sink = sink(EXACTLY, r#", "auto.offset.reset": "latest""#);
    check(
        &mut sink,
        vec![
            (Outcome::Started, "open"),
            (Outcome::Open(Ok(table())), "subscribe"),
            (Outcome::Subscribe(Ok("c".to_owned())), "poll"),
            (Outcome::Poll(Ok(assigned(&[0]))), "ranges 0"),
            (ranges(&[(0, 7, 9)]), "claim c 0@9"),
        ],
    );
}

#[test]
fn poison_halts_after_what_is_before_it() {
    let mut sink = begun(EXACTLY, "");
    check(
        &mut sink,
        vec![
            (
                Outcome::Poll(Ok(records("0@5 0@6! 0@7"))),
                "apply 5; 0/3:5-6",
            ),
            (applied(), "commit 0@6 advisory"),
            (
                Outcome::Commit(Ok(())),
                "stop: poison: the record t-0@6 column id…",
            ),
        ],
    );
}

#[test]
fn poison_of_the_databases_is_found_by_halves() {
    let mut sink = begun(EXACTLY, "");
    check(
        &mut sink,
        vec![
            (
                Outcome::Poll(Ok(records("0@5 0@6 0@7 0@8"))),
                "apply 5 6 7 8; 0/3:5-9",
            ),
            (rejected(None), "apply 5 6; 0/3:5-7"),
            (applied(), "apply 7 8; 0/3:7-9"),
            (rejected(Some(1)), "apply 7; 0/3:7-8"),
            (applied(), "apply 8; 0/3:8-9"),
            (rejected(None), "commit 0@8 advisory"),
            (
                Outcome::Commit(Ok(())),
                "stop: poison: the record t-0@8 is refused by the database: no",
            ),
        ],
    );
}

#[test]
fn dead_letters_go_with_the_offset_past_them() {
    let mut sink = begun(EXACTLY, r#", "dead.letter": "table""#);
    check(
        &mut sink,
        vec![
            (
                Outcome::Poll(Ok(records("0@5! 0@6 0@7"))),
                "apply letter:5 6 7; 0/3:5-8",
            ),
            (rejected(Some(1)), "apply letter:5; 0/3:5-6"),
            (applied(), "apply 6 7; 0/3:6-8"),
            (rejected(Some(0)), "apply 6; 0/3:6-7"),
            (rejected(None), "apply letter:6 7; 0/3:6-8"),
            (applied(), "commit 0@8 advisory"),
        ],
    );
    assert_eq!(sink.counts().dead_letters, 2);
}

#[test]
fn a_letter_that_is_refused_has_nowhere_to_go() {
    let mut sink = begun(EXACTLY, r#", "dead.letter": "table""#);
    check(
        &mut sink,
        vec![
            (
                Outcome::Poll(Ok(records("0@5!"))),
                "apply letter:5; 0/3:5-6",
            ),
            (rejected(None), "stop: poison: the record t-0@5 is refused…"),
        ],
    );
}

#[test]
fn offsets_move_past_what_nobody_can_read() {
    let mut sink = begun(EXACTLY, "");
    for _ in 1..IDLE_POLLS {
        check(
            &mut sink,
            vec![(Outcome::Poll(Ok(Polled::default())), "poll")],
        );
    }
    let end = Place {
        partition: tp(0),
        offset: 6,
    };
    check(
        &mut sink,
        vec![
            (Outcome::Poll(Ok(Polled::default())), "probe 0@5 1@0"),
            (Outcome::Probe(Ok(vec![end])), "apply; 0/3:5-6"),
            (applied(), "commit 0@6 advisory"),
            (Outcome::Commit(Ok(())), "poll"),
            // Once, until there are records again.
            (Outcome::Poll(Ok(Polled::default())), "poll"),
            (Outcome::Poll(Ok(records("0@6"))), "apply 6; 0/3:6-7"),
        ],
    );
}

#[test]
fn another_cluster_is_refused() {
    let (known, other) = ("one", "two");
    assert!(
        crate::target::other_cluster(&tp(0), known, other)
            .unwrap()
            .contains("t-0")
    );
    assert_eq!(crate::target::other_cluster(&tp(0), known, known), None);
    assert_eq!(crate::target::other_cluster(&tp(0), "", other), None);
    assert_eq!(crate::target::other_cluster(&tp(0), known, ""), None);
}

#[test]
fn a_stop_comes_where_it_costs_nothing() {
    let mut sink = begun(AT_LEAST, "");
    check(
        &mut sink,
        vec![(Outcome::Poll(Ok(records("0@5"))), "apply 5;")],
    );
    assert!(sink.may_stop());
    check(&mut sink, vec![(applied(), "commit 0@6")]);
    assert!(!sink.may_stop());
    check(&mut sink, vec![(Outcome::Commit(Ok(())), "poll")]);
    assert!(sink.may_stop());
    let mut sink = begun(AT_MOST, "");
    check(
        &mut sink,
        vec![(Outcome::Poll(Ok(records("0@5"))), "commit 0@6")],
    );
    assert!(sink.may_stop());
    check(&mut sink, vec![(Outcome::Commit(Ok(())), "apply 5;")]);
    assert!(!sink.may_stop());
    check(&mut sink, vec![(applied(), "poll")]);
    assert!(sink.may_stop());
}
