//! Claims: nothing lost, nothing twice, whatever step is interrupted.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use databases::mariadb::MariaDb;
use mysql::prelude::Queryable;
use oncelog_relay::position::Position;
use oncelog_relay::source::Source;
use oncelog_relay::sources::mysql::Polling;

use super::*;

const NO_WAIT: Duration = Duration::ZERO;

fn claim(token: u64, rows: u64) -> Position {
    Position::Claim { token, rows }
}

fn count(conn: &mut Conn, table: &str) -> u64 {
    conn.query_first(format!("SELECT COUNT(*) FROM {table}"))
        .unwrap()
        .unwrap()
}

fn read(source: &mut Polling) -> Vec<OutboxRow> {
    source.read(LIMIT, NO_WAIT).unwrap().rows
}

#[test]
#[ignore = "needs MariaDB; cargo xtask test runs it"]
fn rows_are_deleted_once_they_are_confirmed() {
    let server = MariaDb::start().unwrap();
    let options = options(&server, r#"{"retention.ms": 86400000}"#);
    let mut conn = shop(&options);
    for i in 0..10 {
        insert(&mut conn, "a", &i.to_string());
    }
    let mut source = Polling::new(options);
    source.open(None, true).unwrap();
    assert!(source.identity().starts_with("mariadb:"));
    let lag = source.lag().unwrap();
    assert_eq!(lag.pending_rows, Some(10));
    assert!(lag.oldest_row_age.unwrap() < LATE);
    let rows = read(&mut source);
    assert_eq!(payloads(&rows), numbers(0..10));
    let positions: Vec<Position> = rows.iter().map(|row| row.position.clone()).collect();
    assert_eq!(positions, (1..=10).map(|i| claim(1, i)).collect::<Vec<_>>());
    source.confirm(&claim(1, 4)).unwrap();
    assert_eq!(
        (
            count(&mut conn, "outbox"),
            count(&mut conn, "outbox_published")
        ),
        (6, 4)
    );
    source.confirm(&claim(1, 10)).unwrap();
    assert_eq!(
        (
            count(&mut conn, "outbox"),
            count(&mut conn, "outbox_published")
        ),
        (0, 10)
    );
    assert_eq!(read(&mut source), []);
    assert_eq!(source.lag().unwrap().pending_rows, Some(0));
    insert(&mut conn, "a", "10");
    assert_eq!(read(&mut source)[0].position, claim(2, 1));
}

#[test]
#[ignore = "needs MariaDB; cargo xtask test runs it"]
fn kept_rows_are_deleted_by_their_age() {
    let server = MariaDb::start().unwrap();
    let options = options(&server, r#"{"retention.ms": 60000}"#);
    let mut conn = shop(&options);
    conn.query_drop(
        "INSERT INTO outbox_published (seq, id, aggregatetype, aggregateid, published_at) \
        SELECT 1000000 + seq, seq, 'o', 'a', NOW(3) - INTERVAL 1 HOUR FROM seq_1_to_2500",
    )
    .unwrap();
    insert(&mut conn, "a", "0");
    let mut source = Polling::new(options);
    source.open(None, true).unwrap();
    drain(&mut source, LIMIT, 1);
    assert_eq!(count(&mut conn, "outbox_published"), 1);
}

/// Each state that a crash can leave behind, and what the relay does with it.
#[test]
#[ignore = "needs MariaDB; cargo xtask test runs it"]
fn a_claim_is_taken_up_at_every_step() {
    let server = MariaDb::start().unwrap();
    let options = options(&server, "{}");
    let mut conn = shop(&options);
    for i in 0..6 {
        insert(&mut conn, "a", &i.to_string());
    }
    let open = |progress: Option<&Progress>| {
        let mut source = Polling::new(options.clone());
        source.open(progress, true).map(|()| source)
    };
    // Claimed, and not published: the same rows again, even if there are more by now.
    let first = read(&mut open(None).unwrap());
    insert(&mut conn, "a", "6");
    let mut source = open(None).unwrap();
    assert_eq!(read(&mut source), first);
    let at = |position: Position| progress(&source, &position);
    // Published, and not deleted: deleted now.
    let mut source = open(Some(&at(claim(1, 6)))).unwrap();
    assert_eq!(count(&mut conn, "outbox"), 1);
    let second = read(&mut source);
    assert_eq!(
        (payloads(&second), &second[0].position),
        (numbers(6..7), &claim(2, 1))
    );
    // Claimed again, and the progress is still that of the one before.
    assert_eq!(read(&mut open(Some(&at(claim(1, 6)))).unwrap()), second);
    // Published and deleted.
    let mut source = open(Some(&at(claim(2, 1)))).unwrap();
    assert_eq!((read(&mut source), count(&mut conn, "outbox")), (vec![], 0));
    // A part of it published.
    for i in 7..12 {
        insert(&mut conn, "a", &i.to_string());
    }
    let third = read(&mut source);
    let mut source = open(Some(&at(claim(3, 2)))).unwrap();
    assert_eq!(count(&mut conn, "outbox"), 3);
    assert_eq!(read(&mut source), third[2..]);
    source.confirm(&claim(3, 5)).unwrap();
    // In small pieces.
    for i in 12..17 {
        insert(&mut conn, "a", &i.to_string());
    }
    let fourth = read(&mut source);
    let mut source = open(Some(&at(claim(3, 5)))).unwrap();
    assert_eq!(drain(&mut source, Limit { rows: 2, ..LIMIT }, 5), fourth);
    assert_eq!((read(&mut source), count(&mut conn, "outbox")), (vec![], 0));
    // Another history.
    for elsewhere in [claim(2, 1), claim(5, 1), claim(9, 9)] {
        assert!(refused(open(Some(&at(elsewhere))).map(drop)).contains("claim"));
    }
    assert!(refused(open(None).map(drop)).contains("progress"));
    let foreign = Progress::new("mariadb:x", claim(4, 5));
    assert!(refused(open(Some(&foreign)).map(drop)).contains("another database"));
}

#[test]
#[ignore = "needs MariaDB; cargo xtask test runs it"]
fn rows_that_somebody_deleted_are_not_waited_for() {
    let server = MariaDb::start().unwrap();
    let options = options(&server, "{}");
    let mut conn = shop(&options);
    for i in 0..4 {
        insert(&mut conn, "a", &i.to_string());
    }
    let mut source = Polling::new(options.clone());
    source.open(None, true).unwrap();
    read(&mut source);
    conn.query_drop("DELETE FROM outbox WHERE payload IN ('\"1\"', '\"3\"')")
        .unwrap();
    let mut source = Polling::new(options.clone());
    source.open(None, true).unwrap();
    let rows = read(&mut source);
    assert_eq!(payloads(&rows), ["0", "2"]);
    assert_eq!(rows[1].position, claim(1, 3));
    // All of them: the claim is made anew, under its token.
    conn.query_drop("DELETE FROM outbox").unwrap();
    let mut source = Polling::new(options.clone());
    source.open(None, true).unwrap();
    assert_eq!(read(&mut source), []);
    insert(&mut conn, "a", "4");
    let rows = read(&mut source);
    assert_eq!(
        (payloads(&rows), &rows[0].position),
        (numbers(4..5), &claim(1, 1))
    );
    let mut source = Polling::new(options);
    source.open(None, true).unwrap();
    assert_eq!(read(&mut source), rows);
}

#[test]
#[ignore = "needs MariaDB; cargo xtask test runs it"]
fn of_two_instances_one_has_the_claim() {
    let server = MariaDb::start().unwrap();
    let options = options(&server, "{}");
    let mut conn = shop(&options);
    let [mut one, mut other] = [Polling::new(options.clone()), Polling::new(options.clone())];
    one.open(None, true).unwrap();
    other.open(None, true).unwrap();
    insert(&mut conn, "a", "0");
    let rows = read(&mut one);
    assert_eq!(rows.len(), 1);
    assert!(lost(other.read(LIMIT, NO_WAIT)).contains("another instance"));
    other.open(None, true).unwrap();
    assert_eq!(read(&mut other), rows);
    // Later tokens too.
    other.confirm(&claim(1, 1)).unwrap();
    one.confirm(&claim(1, 1)).unwrap();
    insert(&mut conn, "a", "1");
    assert_eq!(read(&mut other).len(), 1);
    assert!(lost(one.read(LIMIT, NO_WAIT)).contains("another instance"));
}

#[test]
#[ignore = "needs MariaDB; cargo xtask test runs it"]
fn without_a_progress_topic_a_row_is_done_once_it_is_deleted() {
    let server = MariaDb::start().unwrap();
    let options = options(&server, "{}");
    let mut conn = shop(&options);
    for i in 0..3 {
        insert(&mut conn, "a", &i.to_string());
    }
    let [mut one, mut other] = [Polling::new(options.clone()), Polling::new(options.clone())];
    one.open(None, false).unwrap();
    other.open(None, false).unwrap();
    let rows = read(&mut one);
    assert_eq!(
        (read(&mut other), &rows[2].position),
        (rows.clone(), &claim(0, 3))
    );
    assert_eq!(count(&mut conn, "oncelog_outbox_claim"), 0);
    one.confirm(&claim(0, 2)).unwrap();
    // At most once, it would have published them after this.
    assert!(lost(other.confirm(&claim(0, 3))).contains("2 of 3"));
    assert_eq!(count(&mut conn, "outbox"), 1);
    one.confirm(&claim(0, 3)).unwrap();
    assert_eq!(count(&mut conn, "outbox"), 0);
}

#[test]
#[ignore = "needs MariaDB; cargo xtask test runs it"]
fn who_is_still_writing_holds_nobody_up() {
    let server = MariaDb::start().unwrap();
    let options = options(&server, "{}");
    let mut conn = shop(&options);
    let mut slow = connect(&options);
    insert(&mut conn, "a", "0");
    slow.query_drop("BEGIN").unwrap();
    insert(&mut slow, "b", "late");
    insert(&mut conn, "a", "1");
    let mut source = Polling::new(options);
    source.open(None, true).unwrap();
    let started = Instant::now();
    assert_eq!(payloads(&drain(&mut source, LIMIT, 2)), ["0", "1"]);
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "{:?}",
        started.elapsed()
    );
    assert_eq!(read(&mut source), []);
    slow.query_drop("COMMIT").unwrap();
    assert_eq!(payloads(&drain(&mut source, LIMIT, 1)), ["late"]);
}

#[test]
#[ignore = "needs MariaDB; cargo xtask test runs it"]
fn each_shard_has_its_rows() {
    let server = MariaDb::start().unwrap();
    let shard = |shards, i| options(&server, &format!(r#"{{"shards": {shards}, "shard": {i}}}"#));
    let mut conn = shop(&shard(1, 0));
    for i in 0..60 {
        insert(&mut conn, &format!("o{}", i % 20), &i.to_string());
    }
    let mut all = Vec::new();
    for i in 0..3 {
        let mut source = Polling::new(shard(3, i));
        source.open(None, true).unwrap();
        let rows = read(&mut source);
        if i == 2 {
            // Under way when the number of shards is changed.
            let why = refused(Polling::new(shard(2, 0)).open(None, true));
            assert!(why.contains("orders#2/3"), "{why}");
        }
        source.confirm(&rows.last().unwrap().position).unwrap();
        all.extend(payloads(&rows));
    }
    all.sort_by_key(|payload| payload.parse::<usize>().unwrap());
    assert_eq!(all, numbers(0..60));
    Polling::new(shard(2, 0)).open(None, true).unwrap();
}

/// An aggregate's writers wait for each other by a lock on its row, as a service does that has one.
fn write(options: &Options, writer: usize, rounds: usize) {
    let mut conn = connect(options);
    for round in 0..rounds {
        let aggregate = (writer + round) % 4;
        conn.query_drop("BEGIN").unwrap();
        // Takes a number early, and commits late.
        insert(&mut conn, &format!("free{writer}"), &round.to_string());
        let locked = format!("SELECT version FROM aggregate WHERE id = {aggregate} FOR UPDATE");
        let version: usize = conn.query_first(locked).unwrap().unwrap();
        insert(
            &mut conn,
            &format!("locked{aggregate}"),
            &version.to_string(),
        );
        let next = format!("UPDATE aggregate SET version = version + 1 WHERE id = {aggregate}");
        conn.query_drop(next).unwrap();
        std::thread::sleep(Duration::from_millis(
            ((writer * 7 + round * 3) % 11) as u64,
        ));
        conn.query_drop(if round % 10 == 9 {
            "ROLLBACK"
        } else {
            "COMMIT"
        })
        .unwrap();
    }
}

#[test]
#[ignore = "needs MariaDB; cargo xtask test runs it"]
fn eight_writers_that_commit_out_of_order_lose_nothing() {
    let server = MariaDb::start().unwrap();
    let options = options(&server, "{}");
    let mut conn = shop(&options);
    conn.query_drop("CREATE TABLE aggregate (id int PRIMARY KEY, version int NOT NULL)")
        .unwrap();
    conn.query_drop("INSERT INTO aggregate VALUES (0, 0), (1, 0), (2, 0), (3, 0)")
        .unwrap();
    let (writers, rounds) = (8, 50);
    let done = Arc::new(AtomicBool::new(false));
    let threads: Vec<_> = (0..writers)
        .map(|writer| {
            let options = options.clone();
            std::thread::spawn(move || write(&options, writer, rounds))
        })
        .collect();
    let reader = {
        let (options, done) = (options.clone(), Arc::clone(&done));
        std::thread::spawn(move || follow(&options, &done))
    };
    for thread in threads {
        thread.join().unwrap();
    }
    done.store(true, Ordering::Relaxed);
    let mut seen: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    let mut disordered = 0;
    let mut last = 0;
    for row in reader.join().unwrap() {
        let payload = text(&row, "payload").parse().unwrap();
        seen.entry(text(&row, "aggregateid"))
            .or_default()
            .push(payload);
        let Some(Value::Int(sequence)) = row.value("seq") else {
            panic!()
        };
        disordered += usize::from(*sequence < last);
        last = *sequence;
    }
    let committed: Vec<usize> = (0..rounds).filter(|round| round % 10 != 9).collect();
    for writer in 0..writers {
        assert_eq!(seen[&format!("free{writer}")], committed);
    }
    for aggregate in 0..4 {
        let version = format!("SELECT version FROM aggregate WHERE id = {aggregate}");
        let version: usize = conn.query_first(version).unwrap().unwrap();
        assert_eq!(
            seen[&format!("locked{aggregate}")],
            (0..version).collect::<Vec<_>>()
        );
    }
    println!("{disordered} numbers came after a larger one");
    assert!(disordered > 0, "the writers did not commit out of order");
}

/// A relay that is thrown away now and then, at each of its steps.
fn follow(options: &Options, done: &AtomicBool) -> Vec<OutboxRow> {
    let mut published = Vec::new();
    let mut progress: Option<Progress> = None;
    let mut source = Polling::new(options.clone());
    source.open(None, true).unwrap();
    for step in 0.. {
        let was_done = done.load(Ordering::Relaxed);
        if step % 5 == 4 {
            source = Polling::new(options.clone());
            source.open(progress.as_ref(), true).unwrap();
        }
        // Enough to keep up with the writers: who lags behind sees all in its order.
        let rows = source.read(LIMIT, Duration::from_millis(5)).unwrap().rows;
        let Some(last) = rows.last() else {
            if was_done {
                break;
            }
            continue;
        };
        if step % 5 == 1 {
            // Claimed, not published.
            source = Polling::new(options.clone());
            source.open(progress.as_ref(), true).unwrap();
            continue;
        }
        let end = last.position.clone();
        progress = Some(Progress::new(&source.identity(), end.clone()));
        published.extend(rows);
        if step % 5 == 3 {
            // Published, not deleted: the next step opens it anew.
            source = Polling::new(options.clone());
            source.open(progress.as_ref(), true).unwrap();
            continue;
        }
        source.confirm(&end).unwrap();
    }
    published
}

#[test]
#[ignore = "needs MariaDB; cargo xtask test runs it"]
fn a_killed_server_loses_and_doubles_nothing() {
    let mut server = MariaDb::start().unwrap();
    let options = options(&server, "{}");
    let mut conn = shop(&options);
    let mut source = Polling::new(options.clone());
    source.open(None, true).unwrap();
    let mut before = None;
    let mut seen = Vec::new();
    for round in 0..6 {
        for i in 0..20 {
            insert(&mut conn, "a", &(round * 20 + i).to_string());
        }
        let rows = source.read(Limit { rows: 7, ..LIMIT }, LATE).unwrap().rows;
        let end = rows.last().unwrap().position.clone();
        if round % 3 > 0 {
            seen.extend(payloads(&rows));
            before = Some(progress(&source, &end));
        }
        if round % 3 == 2 {
            source.confirm(&end).unwrap();
        }
        server.kill().unwrap();
        lost(source.confirm(&end).and_then(|()| source.read(LIMIT, SOON)));
        lost(source.open(before.as_ref(), true));
        server.restart().unwrap();
        conn = connect(&options);
        source.open(before.as_ref(), true).unwrap();
        let left = (round + 1) * 20 - seen.len();
        let rows = drain(&mut source, LIMIT, left);
        before = Some(after(&source, rows.last().unwrap()));
        seen.extend(payloads(&rows));
    }
    assert_eq!(seen, numbers(0..120));
}

#[test]
#[ignore = "needs MariaDB; cargo xtask test runs it"]
fn a_batch_ends_by_its_bytes() {
    let server = MariaDb::start().unwrap();
    let options = options(&server, "{}");
    let mut conn = shop(&options);
    conn.query_drop(
        "INSERT INTO outbox (aggregatetype, aggregateid, payload) \
        SELECT 'o', 'a', JSON_QUOTE(REPEAT('x', 50000)) FROM seq_1_to_100",
    )
    .unwrap();
    let mut source = Polling::new(options);
    source.open(None, true).unwrap();
    let mut count = 0;
    while count < 100 {
        let rows = source.read(LIMIT, NO_WAIT).unwrap().rows;
        let bytes: usize = rows.iter().map(OutboxRow::size).sum();
        assert!(bytes <= LIMIT.bytes, "{bytes}");
        count += rows.len();
        source.confirm(&rows.last().unwrap().position).unwrap();
    }
    assert_eq!(count, 100);
}
