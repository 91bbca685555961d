//! What the binlog source survives, and what it refuses.

use std::sync::atomic::{AtomicUsize, Ordering};

use databases::mariadb::MariaDb;
use mysql::prelude::Queryable;
use oncelog_relay::position::Position;
use oncelog_relay::source::Source;
use oncelog_relay::sources::mysql::Binlog;

use super::*;

#[test]
#[ignore = "needs MariaDB; cargo xtask test runs it"]
fn a_killed_server_loses_and_doubles_nothing() {
    let mut server = MariaDb::start().unwrap();
    let options = options(&server, "{}");
    let mut conn = shop(&options);
    let mut source = Binlog::new(options.clone());
    source.open(None, true).unwrap();
    let mut position = source.read(LIMIT, SOON).unwrap().heartbeat.unwrap();
    let mut seen = Vec::new();
    for round in 0..4 {
        for i in 0..20 {
            insert(&mut conn, "a", &(round * 20 + i).to_string());
        }
        let rows = drain(&mut source, Limit { rows: 7, ..LIMIT }, 7);
        position = rows.last().unwrap().position.clone();
        seen.extend(payloads(&rows));
        server.kill().unwrap();
        let dead = loop {
            match source.read(LIMIT, SOON) {
                // Read ahead, and forgotten with the failure.
                Ok(_) => {}
                Err(error) => break Err::<(), _>(error),
            }
        };
        lost(dead);
        lost(source.open(Some(&progress(&source, &position)), true));
        server.restart().unwrap();
        conn = connect(&options);
        source
            .open(Some(&progress(&source, &position)), true)
            .unwrap();
        let rows = drain(&mut source, LIMIT, (round + 1) * 20 - seen.len());
        position = rows.last().unwrap().position.clone();
        seen.extend(payloads(&rows));
    }
    assert_eq!(seen, numbers(0..80));
    // An orderly stop too.
    server.restart().unwrap();
    let mut source = Binlog::new(options.clone());
    let before = Progress::new(&identity(&options), position);
    source.open(Some(&before), true).unwrap();
    nothing_more(&mut source);
}

fn identity(options: &Options) -> String {
    let mut other = options.clone();
    other.relay = "other".into();
    let mut source = Binlog::new(other);
    source.open(None, true).unwrap();
    source.identity()
}

#[test]
#[ignore = "needs MariaDB; cargo xtask test runs it"]
fn a_transaction_torn_by_a_crash_was_never_committed() {
    let mut server = MariaDb::start().unwrap();
    let options = options(&server, "{}");
    let mut conn = shop(&options);
    let mut source = Binlog::new(options.clone());
    source.open(None, true).unwrap();
    insert(&mut conn, "a", "0");
    let first = drain(&mut source, LIMIT, 1);
    let (file, end): (String, u64) = place(&mut conn);
    conn.query_drop("BEGIN").unwrap();
    for _ in 0..3 {
        insert(&mut conn, "a", "torn");
    }
    conn.query_drop("COMMIT").unwrap();
    let events: Vec<mysql::Row> = conn
        .query(format!("SHOW BINLOG EVENTS IN '{file}' FROM {end}"))
        .unwrap();
    // After the second of its rows.
    let ends = events.iter().filter(|row| is(row, "Write_rows_v1"));
    let cut: u64 = ends.map(|row| row.get(4).unwrap()).nth(1).unwrap();
    server.kill().unwrap();
    let log = server.data().join(&file);
    std::fs::OpenOptions::new()
        .write(true)
        .open(log)
        .unwrap()
        .set_len(cut)
        .unwrap();
    server.restart().unwrap();
    let mut conn = connect(&options);
    insert(&mut conn, "a", "1");
    let before = after(&source, &first[0]);
    source.open(Some(&before), true).unwrap();
    assert_eq!(payloads(&drain(&mut source, LIMIT, 1)), ["1"]);
    nothing_more(&mut source);
}

fn place(conn: &mut Conn) -> (String, u64) {
    let row: mysql::Row = conn.query_first("SHOW MASTER STATUS").unwrap().unwrap();
    (row.get(0).unwrap(), row.get(1).unwrap())
}

fn is(row: &mysql::Row, kind: &str) -> bool {
    row.get::<String, _>(2).unwrap() == kind
}

#[test]
#[ignore = "needs MariaDB; cargo xtask test runs it"]
fn a_place_that_is_gone_is_refused() {
    let server = MariaDb::start().unwrap();
    let options = options(&server, "{}");
    let mut conn = shop(&options);
    let mut source = Binlog::new(options.clone());
    source.open(None, true).unwrap();
    insert(&mut conn, "a", "0");
    let row = drain(&mut source, LIMIT, 1).remove(0);
    let before = after(&source, &row);
    let Position::Binlog {
        file,
        created,
        offset,
        ..
    } = row.position.clone()
    else {
        panic!()
    };
    let open = |position: Position| {
        let mut source = Binlog::new(options.clone());
        let progress = Progress::new(&before.source, position);
        // The server may say so after the stream has been opened.
        open_until_refused(&mut source, &progress)
    };
    let at = |created, offset, rows| Position::Binlog {
        file: file.clone(),
        created,
        offset,
        rows,
    };
    // In the middle of an event, past the end, of another file of the name, of another server.
    assert!(open(at(created, offset - 3, 0)).contains("no such place"));
    assert!(open(at(created, offset + 1_000_000, 0)).contains("RESET MASTER"));
    assert!(open(at(created - 1, offset, 0)).contains("RESET MASTER"));
    let foreign = Progress::new("mariadb:9:x", row.position.clone());
    assert!(refused(source.open(Some(&foreign), true)).contains("mariadb:9:x"));
    // More rows than the transaction has.
    insert(&mut conn, "a", "1");
    let mut beyond = Binlog::new(options.clone());
    let nine = Progress::new(&before.source, at(created, offset, 9));
    assert!(open_until_refused(&mut beyond, &nine).contains("9 rows"));
    conn.query_drop("FLUSH BINARY LOGS").unwrap();
    let (now, _) = place(&mut conn);
    // Whoever still reads a file keeps it.
    drop((source, beyond));
    let deadline = Instant::now() + LATE;
    loop {
        conn.query_drop(format!("PURGE BINARY LOGS TO '{now}'"))
            .unwrap();
        let logs: Vec<mysql::Row> = conn.query("SHOW BINARY LOGS").unwrap();
        if logs.len() == 1 {
            break;
        }
        assert!(Instant::now() < deadline);
        std::thread::sleep(SOON);
    }
    let why = open(row.position);
    assert!(why.contains("purged") && why.contains(&now), "{why}");
}

#[test]
#[ignore = "needs MariaDB; cargo xtask test runs it"]
fn another_history_of_the_server_is_refused() {
    let server = MariaDb::start().unwrap();
    let options = options(&server, "{}");
    let mut conn = shop(&options);
    let mut source = Binlog::new(options.clone());
    conn.query_drop("RESET MASTER").unwrap();
    source.open(None, true).unwrap();
    insert(&mut conn, "a", "0");
    let row = drain(&mut source, LIMIT, 1).remove(0);
    let before = after(&source, &row);
    drop(source);
    std::thread::sleep(Duration::from_millis(1_100));
    conn.query_drop("RESET MASTER").unwrap();
    // The same file, and the same places in it.
    insert(&mut conn, "a", "0");
    insert(&mut conn, "a", "1");
    let mut source = Binlog::new(options);
    let why = refused(source.open(Some(&before), true));
    assert!(why.contains("RESET MASTER"), "{why}");
}

#[test]
#[ignore = "needs MariaDB; cargo xtask test runs it"]
fn without_a_progress_it_goes_on_where_it_began() {
    let server = MariaDb::start().unwrap();
    let options = options(&server, "{}");
    let mut conn = shop(&options);
    Binlog::new(options.clone()).open(None, true).unwrap();
    insert(&mut conn, "a", "0");
    // It died before its first progress: this is still where it begins.
    let mut source = Binlog::new(options.clone());
    source.open(None, true).unwrap();
    assert_eq!(payloads(&drain(&mut source, LIMIT, 1)), ["0"]);
    // Something is confirmed now, so a missing progress is a lost one.
    let why = refused(Binlog::new(options).open(None, true));
    assert!(why.contains("published"), "{why}");
}

#[test]
#[ignore = "needs MariaDB; cargo xtask test runs it"]
fn without_a_progress_topic_the_place_is_in_a_table() {
    let server = MariaDb::start().unwrap();
    let options = options(&server, "{}");
    let mut conn = shop(&options);
    let mut source = Binlog::new(options.clone());
    source.open(None, false).unwrap();
    for i in 0..10 {
        insert(&mut conn, "a", &i.to_string());
    }
    let rows = source.read(Limit { rows: 4, ..LIMIT }, LATE).unwrap().rows;
    let confirmed = rows.len();
    source.confirm(&rows[confirmed - 1].position).unwrap();
    let mut again = Binlog::new(options.clone());
    again.open(None, false).unwrap();
    assert_eq!(
        payloads(&drain(&mut again, LIMIT, 10 - confirmed)),
        numbers(confirmed..10)
    );
    drop(again);
    insert(&mut conn, "a", "10");
    let mut again = Binlog::new(options);
    again.open(None, false).unwrap();
    assert_eq!(payloads(&drain(&mut again, LIMIT, 1)), ["10"]);
}

#[test]
#[ignore = "needs MariaDB; cargo xtask test runs it"]
fn of_two_instances_the_older_one_is_thrown_out() {
    let server = MariaDb::start().unwrap();
    let options = options(&server, "{}");
    let mut conn = shop(&options);
    let mut older = Binlog::new(options.clone());
    older.open(None, false).unwrap();
    let mut newer = Binlog::new(options.clone());
    newer.open(None, false).unwrap();
    let why = read_until_refused(&mut older);
    assert!(why.contains("another replica with the id"), "{why}");
    insert(&mut conn, "a", "0");
    assert_eq!(payloads(&drain(&mut newer, LIMIT, 1)), ["0"]);
    drop(newer);
    // Exactly once it is Kafka that says which of them is the one: an old one that has woken up throws
    // out the one that is to go on.
    let options = Options {
        relay: "another".to_owned(),
        ..options
    };
    let mut one = Binlog::new(options.clone());
    one.open(None, true).unwrap();
    let mut other = Binlog::new(options);
    other.open(None, true).unwrap();
    let deadline = Instant::now() + LATE;
    let lost = loop {
        assert!(Instant::now() < deadline, "it is not thrown out");
        if let Err(error) = one.read(LIMIT, SOON) {
            break error;
        }
    };
    assert!(
        matches!(&lost, SourceError::Lost(why) if why.contains("another replica")),
        "{lost}"
    );
}

#[test]
#[ignore = "needs MariaDB; cargo xtask test runs it"]
fn an_altered_outbox_is_read_where_it_can_be() {
    let server = MariaDb::start().unwrap();
    let options = options(&server, "{}");
    let mut conn = shop(&options);
    let mut source = Binlog::new(options.clone());
    source.open(None, true).unwrap();
    insert(&mut conn, "a", "0");
    let first = drain(&mut source, LIMIT, 1);
    conn.query_drop("ALTER TABLE outbox ADD traceparent VARCHAR(55) DEFAULT 't'")
        .unwrap();
    insert(&mut conn, "a", "1");
    let second = drain(&mut source, LIMIT, 1);
    assert_eq!(text(&second[0], "traceparent"), "t");
    // A name alone is nothing that the binlog shows.
    conn.query_drop("ALTER TABLE outbox RENAME COLUMN traceparent TO trace")
        .unwrap();
    insert(&mut conn, "a", "2");
    assert_eq!(text(&drain(&mut source, LIMIT, 1)[0], "trace"), "t");
    // Rows that were waiting while the table was altered.
    let mut behind = Binlog::new(options.clone());
    behind.open(Some(&after(&source, &first[0])), true).unwrap();
    assert_eq!(payloads(&drain(&mut behind, LIMIT, 2)), ["1", "2"]);
    conn.query_drop("ALTER TABLE outbox DROP COLUMN trace")
        .unwrap();
    let mut behind = Binlog::new(options.clone());
    let why = open_until_refused(&mut behind, &after(&source, &first[0]));
    assert!(
        why.contains("altered") && why.contains("binlog_row_metadata"),
        "{why}"
    );
    // With names in the binlog, a column more is no matter.
    conn.query_drop("SET GLOBAL binlog_row_metadata = FULL")
        .unwrap();
    let mut conn = connect(&options);
    let (mut source, _) = (Binlog::new(options.clone()), drop((source, behind)));
    source.open(Some(&later(&options)), true).unwrap();
    insert(&mut conn, "a", "3");
    let third = drain(&mut source, LIMIT, 1);
    insert(&mut conn, "a", "4");
    conn.query_drop("ALTER TABLE outbox ADD extra INT FIRST")
        .unwrap();
    source.open(Some(&after(&source, &third[0])), true).unwrap();
    assert_eq!(payloads(&drain(&mut source, LIMIT, 1)), ["4"]);
}

/// A progress at the end of the binlog.
fn later(options: &Options) -> Progress {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let mut fresh = options.clone();
    fresh.relay = format!("later{}", COUNT.fetch_add(1, Ordering::Relaxed));
    let mut source = Binlog::new(fresh);
    source.open(None, true).unwrap();
    let place = source.read(LIMIT, SOON).unwrap().heartbeat.unwrap();
    progress(&source, &place)
}

#[test]
#[ignore = "needs MariaDB; cargo xtask test runs it"]
fn what_is_not_in_the_binlog_as_rows_is_refused() {
    let server = MariaDb::start().unwrap();
    let options = options(&server, "{}");
    let mut conn = shop(&options);
    let set = |conn: &mut Conn, one: &str| conn.query_drop(format!("SET SESSION {one}")).unwrap();
    for (setting, said, back) in [
        (
            "binlog_format = STATEMENT",
            "as a statement",
            "binlog_format = ROW",
        ),
        (
            "binlog_row_image = MINIMAL",
            "binlog_row_image",
            "binlog_row_image = FULL",
        ),
    ] {
        let mut source = Binlog::new(options.clone());
        source.open(Some(&later(&options)), true).unwrap();
        set(&mut conn, setting);
        conn.query_drop(
            "INSERT INTO outbox (id, aggregatetype, aggregateid) VALUES ('x', 'o', 'a')",
        )
        .unwrap();
        let why = read_until_refused(&mut source);
        assert!(why.contains(said), "{why}");
        set(&mut conn, back);
        conn.query_drop("DELETE FROM outbox").unwrap();
    }
    let mut source = Binlog::new(options.clone());
    source.open(Some(&later(&options)), true).unwrap();
    conn.query_drop("XA START 'x'").unwrap();
    insert(&mut conn, "a", "0");
    conn.query_drop("XA END 'x'").unwrap();
    conn.query_drop("XA PREPARE 'x'").unwrap();
    let why = read_until_refused(&mut source);
    assert!(why.contains("XA"), "{why}");
    conn.query_drop("XA ROLLBACK 'x'").unwrap();
    for (setting, said) in [
        ("log_bin_compress = ON", "log_bin_compress is ON"),
        ("binlog_row_image = NOBLOB", "binlog_row_image is NOBLOB"),
        ("binlog_format = MIXED", "binlog_format is MIXED"),
    ] {
        conn.query_drop(format!("SET GLOBAL {setting}")).unwrap();
        let why = refused(Binlog::new(options.clone()).open(None, true));
        assert!(why.contains(said) && why.contains("SET GLOBAL"), "{why}");
        let name = setting.split(' ').next().unwrap();
        conn.query_drop(format!("SET GLOBAL {name} = DEFAULT"))
            .unwrap();
        conn.query_drop("SET GLOBAL binlog_format = ROW").unwrap();
    }
}
