//! Order, commits, places to resume at.

use databases::mariadb::MariaDb;
use mysql::prelude::Queryable;
use oncelog_relay::position::Position;
use oncelog_relay::row::{Operation, OutboxRow};
use oncelog_relay::source::Source;
use oncelog_relay::sources::mysql::Binlog;

use super::*;

const INSERT: &str = "INSERT INTO outbox (aggregatetype, aggregateid, payload) VALUES";

/// A file for LOAD DATA with payloads that are these numbers.
fn load_data(conn: &mut Conn, numbers: std::ops::Range<usize>) {
    let file = tempfile::NamedTempFile::new().unwrap();
    let lines: String = numbers.map(|i| format!("order\ta\t\"{i}\"\n")).collect();
    std::fs::write(file.path(), lines).unwrap();
    conn.query_drop(format!(
        "LOAD DATA LOCAL INFILE '{}' INTO TABLE outbox (aggregatetype, aggregateid, payload)",
        file.path().display()
    ))
    .unwrap();
}

#[test]
#[ignore = "needs MariaDB; cargo xtask test runs it"]
fn commits_come_in_their_order_and_rollbacks_never() {
    let server = MariaDb::start().unwrap();
    let options = options(&server, "{}");
    let mut conn = shop(&options);
    insert(&mut conn, "a", "before the relay");
    let mut source = Binlog::new(options.clone());
    source.open(None, true).unwrap();
    insert(&mut conn, "a", "0");
    for (end, payload) in [("ROLLBACK", "never"), ("COMMIT", "2")] {
        conn.query_drop("BEGIN").unwrap();
        insert(&mut conn, "a", payload);
        let mut other = connect(&options);
        insert(&mut other, "b", if end == "COMMIT" { "1" } else { "0b" });
        conn.query_drop(end).unwrap();
    }
    conn.query_drop("CREATE TABLE t (a int)").unwrap();
    conn.query_drop("CREATE TABLE m (a int) ENGINE=MyISAM")
        .unwrap();
    // A savepoint that is gone back to, with and without a change that cannot be taken back.
    for extra in ["t", "m"] {
        conn.query_drop("BEGIN").unwrap();
        insert(&mut conn, "a", &format!("3{extra}"));
        conn.query_drop("SAVEPOINT s").unwrap();
        insert(&mut conn, "a", "never");
        conn.query_drop(format!("INSERT INTO {extra} VALUES (1)"))
            .unwrap();
        conn.query_drop("ROLLBACK TO s").unwrap();
        insert(&mut conn, "a", &format!("4{extra}"));
        conn.query_drop("COMMIT").unwrap();
    }
    conn.query_drop("BEGIN").unwrap();
    insert(&mut conn, "a", "never");
    conn.query_drop("INSERT INTO m VALUES (1)").unwrap();
    conn.query_drop("ROLLBACK").unwrap();
    conn.query_drop(format!(
        "{INSERT} ('order','a','5'), ('order','a','6'), ('order','a','7')"
    ))
    .unwrap();
    load_data(&mut conn, 8..10);
    conn.query_drop("DELETE FROM outbox WHERE payload = '6'")
        .unwrap();
    conn.query_drop("UPDATE outbox SET payload = '10' WHERE payload = '7'")
        .unwrap();
    conn.query_drop("TRUNCATE outbox").unwrap();
    let rows = drain(&mut source, LIMIT, 14);
    let expected = [
        "0", "0b", "1", "2", "3t", "4t", "3m", "4m", "5", "6", "7", "8", "9", "10",
    ];
    assert_eq!(payloads(&rows), expected);
    let updates = rows
        .iter()
        .filter(|row| row.operation == Operation::Update)
        .count();
    assert_eq!((updates, rows[13].operation), (1, Operation::Update));
    nothing_more(&mut source);
    assert_eq!(source.identity().split(':').next(), Some("mariadb"));
}

#[test]
#[ignore = "needs MariaDB; cargo xtask test runs it"]
fn resumes_after_every_row() {
    let server = MariaDb::start().unwrap();
    let options = options(&server, "{}");
    let mut conn = shop(&options);
    let mut source = Binlog::new(options.clone());
    source.open(None, true).unwrap();
    let start = source.read(LIMIT, SOON).unwrap().heartbeat.unwrap();
    insert(&mut conn, "a", "0");
    conn.query_drop("BEGIN").unwrap();
    insert(&mut conn, "a", "1");
    conn.query_drop(format!(
        "{INSERT} ('o','a','2'), ('o','a','3'), ('o','a','4')"
    ))
    .unwrap();
    conn.query_drop("UPDATE outbox SET type = 'x' WHERE payload = '2'")
        .unwrap();
    insert(&mut conn, "a", "5");
    conn.query_drop("COMMIT").unwrap();
    conn.query_drop("FLUSH BINARY LOGS").unwrap();
    load_data(&mut conn, 6..16);
    conn.query_drop(format!("{INSERT} ('o','a','16'), ('o','a','17')"))
        .unwrap();
    insert(&mut conn, "a", "18");
    let all = drain(&mut source, ONE, 20);
    let whole = |row: &&OutboxRow| matches!(row.position, Position::Binlog { rows: 0, .. });
    // The last row of each transaction is at a place between transactions.
    assert_eq!(all.iter().filter(whole).count(), 5);
    let mut places = vec![(start, 0)];
    places.extend(
        all.iter()
            .enumerate()
            .map(|(i, row)| (row.position.clone(), i + 1)),
    );
    for (position, done) in places {
        let mut again = Binlog::new(options.clone());
        again
            .open(Some(&progress(&source, &position)), true)
            .unwrap();
        let rows = if done < all.len() {
            drain(&mut again, LIMIT, all.len() - done)
        } else {
            vec![]
        };
        assert_eq!(rows, all[done..], "{position}");
        assert_eq!(again.read(LIMIT, SOON / 3).unwrap().rows, []);
    }
}

#[test]
#[ignore = "needs MariaDB; cargo xtask test runs it"]
fn files_change_while_it_reads() {
    let server = MariaDb::start_with(&[("max_binlog_size", "4096")]).unwrap();
    let options = options(&server, "{}");
    let mut conn = shop(&options);
    let mut source = Binlog::new(options.clone());
    source.open(None, true).unwrap();
    let writer = std::thread::spawn(move || {
        for i in 0..300 {
            insert(&mut conn, "a", &i.to_string());
            if i % 50 == 0 {
                conn.query_drop("FLUSH BINARY LOGS").unwrap();
            }
        }
    });
    let first = drain(&mut source, LIMIT, 100);
    let progress = after(&source, first.last().unwrap());
    let mut source = Binlog::new(options);
    source.open(Some(&progress), true).unwrap();
    let rest = drain(&mut source, LIMIT, 300 - first.len());
    writer.join().unwrap();
    assert_eq!(payloads(&[first, rest].concat()), numbers(0..300));
    nothing_more(&mut source);
}

#[test]
#[ignore = "needs MariaDB; cargo xtask test runs it"]
fn heartbeats_move_on_without_rows() {
    let server = MariaDb::start().unwrap();
    let options = options(&server, r#"{"heartbeat.interval.ms": 200}"#);
    let mut conn = shop(&options);
    conn.query_drop("CREATE TABLE t (a int)").unwrap();
    let mut source = Binlog::new(options.clone());
    source.open(None, true).unwrap();
    let mut places = Vec::new();
    for _ in 0..10 {
        conn.query_drop("INSERT INTO t VALUES (1)").unwrap();
        places.extend(source.read(LIMIT, SOON).unwrap().heartbeat);
    }
    assert!(places.len() >= 5, "{}", places.len());
    let distinct = places.windows(2).all(|two| two[0] != two[1]);
    assert!(distinct, "{places:?}");
    // Nothing at all is no reason to write a progress.
    source.read(LIMIT, SOON).unwrap();
    assert_eq!(source.read(LIMIT, SOON).unwrap().heartbeat, None);
    insert(&mut conn, "a", "0");
    let mut again = Binlog::new(options);
    again
        .open(Some(&progress(&source, places.last().unwrap())), true)
        .unwrap();
    assert_eq!(payloads(&drain(&mut again, LIMIT, 1)), ["0"]);
}

#[test]
#[ignore = "needs MariaDB; cargo xtask test runs it"]
fn a_blackhole_is_enough() {
    let server = MariaDb::start().unwrap();
    let plugin = server.sql("INSTALL SONAME 'ha_blackhole'");
    plugin.unwrap();
    let options = options(&server, r#"{"engine": "blackhole"}"#);
    let mut conn = shop(&options);
    conn.query_drop("CREATE TABLE t (a int)").unwrap();
    let mut source = Binlog::new(options);
    source.open(None, true).unwrap();
    insert(&mut conn, "a", "0");
    for (end, payload) in [("ROLLBACK", "never"), ("COMMIT", "1")] {
        conn.query_drop("BEGIN").unwrap();
        conn.query_drop("INSERT INTO t VALUES (1)").unwrap();
        insert(&mut conn, "a", payload);
        conn.query_drop(end).unwrap();
    }
    insert(&mut conn, "a", "2");
    let rows = drain(&mut source, LIMIT, 3);
    assert_eq!(payloads(&rows), numbers(0..3));
    assert_eq!(text(&rows[0], "id").len(), 36);
    nothing_more(&mut source);
}

#[test]
#[ignore = "needs MariaDB; cargo xtask test runs it"]
fn each_shard_has_its_rows() {
    let server = MariaDb::start().unwrap();
    let shard = |i| options(&server, &format!(r#"{{"shards": 3, "shard": {i}}}"#));
    let mut conn = shop(&shard(0));
    let mut sources: Vec<Binlog> = (0..3).map(|i| Binlog::new(shard(i))).collect();
    for source in &mut sources {
        source.open(None, true).unwrap();
    }
    for i in 0..60 {
        insert(&mut conn, &format!("o{}", i % 20), &i.to_string());
    }
    let mut all = Vec::new();
    for (i, source) in sources.iter_mut().enumerate() {
        let asked = format!("SELECT COUNT(*) FROM outbox WHERE CRC32(aggregateid) % 3 = {i}");
        let count: usize = conn.query_first(asked).unwrap().unwrap();
        all.extend(payloads(&drain(source, LIMIT, count)));
        nothing_more(source);
    }
    all.sort_by_key(|payload| payload.parse::<usize>().unwrap());
    assert_eq!(all, numbers(0..60));
}

#[test]
#[ignore = "needs MariaDB; cargo xtask test runs it"]
fn a_huge_transaction_stays_within_its_buffer() {
    let server = MariaDb::start().unwrap();
    let buffer = 8 << 20;
    let options = options(&server, &format!(r#"{{"buffer.bytes": {buffer}}}"#));
    let mut conn = shop(&options);
    let mut source = Binlog::new(options.clone());
    source.open(None, true).unwrap();
    conn.query_drop("BEGIN").unwrap();
    for _ in 0..20 {
        let statement = "INSERT INTO outbox (aggregatetype, aggregateid, payload) \
            SELECT 'order', seq, JSON_QUOTE(REPEAT('x', 100000)) FROM seq_1_to_100";
        conn.query_drop(statement).unwrap();
    }
    insert(&mut conn, "a", "last");
    conn.query_drop("COMMIT").unwrap();
    insert(&mut conn, "a", "next");
    let rows = drain(&mut source, LIMIT, 2_002);
    assert_eq!(payloads(&rows[2_000..]), ["last", "next"]);
    let high_water = source.buffer_high_water();
    println!("200 MB in one transaction, {buffer} bytes of buffer: {high_water} at most");
    assert!(high_water <= buffer, "{high_water}");
    // In the middle of it.
    let middle = after(&source, &rows[1_000]);
    source.open(Some(&middle), true).unwrap();
    assert_eq!(drain(&mut source, LIMIT, 1_001), rows[1_001..]);
    assert!(source.buffer_high_water() <= buffer);
    // A single row may be larger than it.
    insert(&mut conn, "a", &"y".repeat(10 << 20));
    insert(&mut conn, "a", "end");
    let rows = drain(&mut source, LIMIT, 2);
    assert_eq!(payloads(&rows)[0].len(), 10 << 20);
    assert_eq!(payloads(&rows)[1], "end");
}
