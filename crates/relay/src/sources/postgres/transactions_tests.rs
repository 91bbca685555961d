//! What the log says becomes rows with positions, and what was done is not handed out again.

use super::*;
use crate::sources::postgres::pgoutput::{Begin, Column, Commit, Old};

const OUTBOX: Oid = 9;
const OTHER: Oid = 10;

fn begin(commit_lsn: Lsn) -> Message<'static> {
    Message::Begin(Begin {
        commit_lsn,
        commit_time: 0,
        xid: 1,
    })
}

/// Each commit record is 5 bytes long.
fn commit(commit_lsn: Lsn) -> Message<'static> {
    Message::Commit(Commit {
        flags: 0,
        commit_lsn,
        end_lsn: commit_lsn + 5,
        commit_time: 0,
    })
}

fn table(oid: Oid, name: &'static [u8]) -> Message<'static> {
    let column = |name, type_oid| Column {
        flags: 0,
        name,
        type_oid,
        type_modifier: -1,
    };
    Message::Relation(Relation {
        oid,
        namespace: b"public",
        name,
        replica_identity: b'd',
        columns: vec![column(b"id", 23), column(b"payload", 25)],
    })
}

fn insert(relation: Oid, id: &'static [u8]) -> Message<'static> {
    let new = vec![Datum::Text(id), Datum::Null];
    Message::Insert { relation, new }
}

fn logical(flags: u8, prefix: &'static [u8]) -> Message<'static> {
    Message::Logical(Logical {
        flags,
        lsn: 1,
        prefix,
        content: b"{\"id\":77}",
    })
}

fn transactions(resume: Resume) -> Transactions {
    let wanted = Wanted {
        table: Some(("public".to_owned(), "outbox".to_owned())),
        message_prefix: "outbox".to_owned(),
    };
    Transactions::new(wanted, resume)
}

/// As `id commit_lsn end_lsn rows`, and `passed lsn`.
fn told(resume: Resume, log: Vec<Message<'_>>) -> Vec<String> {
    let mut transactions = transactions(resume);
    let items = log
        .into_iter()
        .filter_map(|message| transactions.take(message).unwrap());
    let said = items.map(|item| match item {
        Item::Row(row) => {
            let Position::Wal {
                commit_lsn,
                end_lsn,
                rows,
            } = row.position
            else {
                panic!("{:?} is none in a log", row.position);
            };
            let Some(Value::Int(id)) = row.value("id") else {
                panic!("{row:?} has no id");
            };
            format!("{id} {commit_lsn} {end_lsn} {rows}")
        }
        Item::Passed(lsn) => format!("passed {lsn}"),
    });
    said.collect()
}

fn log() -> Vec<Message<'static>> {
    vec![
        begin(100),
        table(OUTBOX, b"outbox"),
        table(OTHER, b"orders"),
        insert(OTHER, b"1"),
        insert(OUTBOX, b"2"),
        insert(OUTBOX, b"3"),
        logical(1, b"outbox"),
        logical(1, b"other"),
        logical(0, b"outbox"),
        insert(OTHER, b"4"),
        commit(100),
        begin(200),
        insert(OTHER, b"5"),
        commit(200),
        begin(300),
        insert(OUTBOX, b"6"),
        Message::Delete {
            relation: OUTBOX,
            old: Old::Key(vec![Datum::Text(b"2"), Datum::Null]),
        },
        commit(300),
    ]
}

#[test]
fn the_last_row_of_a_transaction_carries_its_end() {
    let expected = [
        "2 100 0 1",
        "3 100 0 2",
        "77 100 105 3",
        "passed 205",
        "6 300 305 1",
    ];
    assert_eq!(told(Resume::from_start(), log()), expected);
}

#[test]
fn what_is_done_is_not_handed_out_again() {
    assert_eq!(told(Resume::after(100, 2), log())[0], "77 100 105 3");
    // All of it was done before its end was known.
    assert_eq!(told(Resume::after(100, 3), log())[0], "passed 105");
    assert_eq!(
        told(Resume::after(300, 1), log()),
        ["passed 105", "passed 205", "passed 305"]
    );
}

#[test]
fn an_update_is_told_as_one() {
    let mut transactions = transactions(Resume::from_start());
    let update = Message::Update {
        relation: OUTBOX,
        old: None,
        new: vec![Datum::Text(b"2"), Datum::Unchanged],
    };
    for message in [begin(100), table(OUTBOX, b"outbox"), update] {
        assert_eq!(transactions.take(message), Ok(None));
    }
    assert!(transactions.is_open());
    let Ok(Some(Item::Row(row))) = transactions.take(commit(100)) else {
        panic!("a row");
    };
    assert_eq!(row.operation, Operation::Update);
    assert_eq!(row.value("payload"), Some(&Value::Unchanged));
}

#[test]
fn a_table_may_be_renamed_and_made_anew() {
    let log = vec![
        begin(100),
        table(OUTBOX, b"outbox"),
        insert(OUTBOX, b"1"),
        table(OUTBOX, b"outbox_old"),
        insert(OUTBOX, b"2"),
        table(OTHER, b"outbox"),
        insert(OTHER, b"3"),
        commit(100),
    ];
    assert_eq!(
        told(Resume::from_start(), log),
        ["1 100 0 1", "3 100 105 2"]
    );
}

#[test]
fn a_log_that_makes_no_sense_is_refused() {
    let broken = |log: Vec<Message<'static>>| {
        let mut transactions = transactions(Resume::after(100, 2));
        let mut taken = log.into_iter().map(|message| transactions.take(message));
        taken.find_map(Result::err).unwrap()
    };
    let protocol = |log| matches!(broken(log), Broken::Protocol(_));
    let history = |log| matches!(broken(log), Broken::History(_));
    let short = Message::Insert {
        relation: OUTBOX,
        new: vec![Datum::Null],
    };
    assert!(protocol(vec![begin(200), table(OUTBOX, b"outbox"), short]));
    assert!(protocol(vec![begin(200), commit(300)]));
    assert!(history(vec![commit(100)]));
    assert!(history(vec![begin(100), commit(100)]));
    assert!(history(vec![begin(200), commit(200), begin(100)]));
    assert!(history(vec![logical(1, b"outbox")]));
}
