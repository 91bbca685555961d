//! The log through a slot: what comes, in which order, and where it goes on.

use std::time::Duration;

use oncelog_relay::position::{Position, Progress};
use oncelog_relay::row::Value;
use oncelog_relay::source::{Limit, Source, SourceError};
use oncelog_relay::sources::postgres::Cdc;
use postgres::IsolationLevel;

use crate::support::*;

#[test]
#[ignore = "needs PostgreSQL; cargo xtask test runs it"]
fn rows_come_in_the_order_of_the_commits_and_nothing_else_does() {
    let (server, options) = outbox();
    let mut cdc = Cdc::new(options);
    open(&mut cdc, None, true);
    server.sql("CREATE TABLE orders (id int)").unwrap();
    let (mut first, mut second) = (client(&server), client(&server));
    let mut early = first.transaction().unwrap();
    early.batch_execute(&insert("a", [3, 4])).unwrap();
    second
        .batch_execute(&format!("BEGIN; {} COMMIT", insert("b", [1])))
        .unwrap();
    second
        .batch_execute(&format!("BEGIN; {} ROLLBACK", insert("b", [99])))
        .unwrap();
    second
        .batch_execute("INSERT INTO orders VALUES (1)")
        .unwrap();
    second.batch_execute(&insert("b", [2])).unwrap();
    let savepoint = format!(
        "SAVEPOINT s; {} ROLLBACK TO s; {}",
        insert("a", [98]),
        insert("a", [5])
    );
    early.batch_execute(&savepoint).unwrap();
    early.commit().unwrap();
    second
        .batch_execute("DELETE FROM outbox WHERE aggregateid = 'b'")
        .unwrap();
    second.batch_execute(&insert("b", [6])).unwrap();
    let rows = read(&mut cdc, MANY, 6);
    assert_eq!(payloads(&rows), [1, 2, 3, 4, 5, 6]);
    nothing_more(&mut cdc);
    assert_eq!(text(&rows[0], "aggregatetype"), "order");
    assert_eq!(rows[0].value("seq"), Some(&Value::Int(3)));
    assert_eq!(rows[0].value("type"), Some(&Value::Null));
    assert_eq!(text(&rows[0], "id").len(), 36);
    // Only the last row of a transaction has its end.
    let ends = rows.iter().map(|row| match row.position {
        Position::Wal { end_lsn, rows, .. } => (rows, end_lsn != 0),
        _ => panic!("{}", row.position),
    });
    let expected = [
        (1, true),
        (1, true),
        (1, false),
        (2, false),
        (3, true),
        (1, true),
    ];
    assert_eq!(ends.collect::<Vec<_>>(), expected);
}

#[test]
#[ignore = "needs PostgreSQL; cargo xtask test runs it"]
fn after_every_row_the_rest_follows() {
    let (server, options) = outbox();
    let mut cdc = Cdc::new(options);
    open(&mut cdc, None, true);
    // Rows of one statement, and of one COPY, share log positions.
    server.sql(&insert("a", 0..5)).unwrap();
    server.sql(&insert("a", [5])).unwrap();
    let mut client = client(&server);
    let copy = "COPY outbox (aggregatetype, aggregateid, payload) FROM STDIN";
    let mut writer = client.copy_in(copy).unwrap();
    for payload in 6..12 {
        std::io::Write::write_all(&mut writer, format!("order\ta\t{payload}\n").as_bytes())
            .unwrap();
    }
    writer.finish().unwrap();
    server.sql("DELETE FROM outbox").unwrap();
    server
        .sql(&format!(
            "BEGIN; {} {} COMMIT",
            insert("a", [12]),
            insert("a", [13])
        ))
        .unwrap();
    let all = read(&mut cdc, MANY, 14);
    assert_eq!(payloads(&all), (0..14).collect::<Vec<_>>());
    for (index, row) in all.iter().enumerate() {
        let here = progress(&cdc, row);
        open(&mut cdc, Some(&here), true);
        let rest = read(&mut cdc, MANY, all.len() - index - 1);
        assert_eq!(rest, all[index + 1..], "after row {index}");
        nothing_more(&mut cdc);
    }
}

#[test]
#[ignore = "needs PostgreSQL; cargo xtask test runs it"]
fn a_logical_message_is_a_row_without_a_table() {
    let (server, mut options) = outbox();
    options.table = String::new();
    let mut cdc = Cdc::new(options);
    open(&mut cdc, None, true);
    let emit = |transactional: bool, prefix: &str, content: &str| {
        format!("SELECT pg_logical_emit_message({transactional}, '{prefix}', '{content}');")
    };
    let message = |id: u32| {
        format!(
            r#"{{"id":"{id}","aggregatetype":"order","aggregateid":"7","payload":{{"n": 1.50}}}}"#
        )
    };
    let statements = [
        emit(true, "outbox", &message(1)),
        emit(true, "other", &message(99)),
        emit(false, "outbox", &message(98)),
        insert("a", [97]),
        emit(true, "outbox", "no json"),
    ];
    server
        .sql(&format!("BEGIN; {} COMMIT", statements.join(" ")))
        .unwrap();
    server
        .sql(&format!(
            "BEGIN; {} ROLLBACK",
            emit(true, "outbox", &message(96))
        ))
        .unwrap();
    server.sql(&emit(true, "outbox", &message(2))).unwrap();
    let rows = read(&mut cdc, MANY, 3);
    nothing_more(&mut cdc);
    assert_eq!((text(&rows[0], "id"), text(&rows[2], "id")), ("1", "2"));
    assert_eq!(text(&rows[0], "payload"), r#"{"n": 1.50}"#);
    // The router makes it poison: it has no column that it needs.
    assert_eq!(text(&rows[1], "content"), "no json");
    let here = progress(&cdc, &rows[0]);
    open(&mut cdc, Some(&here), true);
    assert_eq!(read(&mut cdc, MANY, 2), rows[1..]);
}

#[test]
#[ignore = "needs PostgreSQL; cargo xtask test runs it"]
fn large_payloads_come_whole() {
    let (server, mut options) = outbox();
    server
        .sql("ALTER PUBLICATION oncelog_outbox SET (publish = 'insert, update')")
        .unwrap();
    options.queue_bytes = 1 << 20;
    let mut cdc = Cdc::new(options);
    open(&mut cdc, None, true);
    // Does not compress, so that it is stored out of line.
    server
        .sql(
            "INSERT INTO outbox (aggregatetype, aggregateid, payload)
             SELECT 'order', 'a', to_jsonb(string_agg(md5(n::text), '' ORDER BY n))
             FROM generate_series(1, 32768) n",
        )
        .unwrap();
    server.sql("UPDATE outbox SET type = 'changed'").unwrap();
    let rows = read(&mut cdc, MANY, 2);
    let stored = server.sql("SELECT payload #>> '{}' FROM outbox").unwrap();
    assert_eq!(stored.len(), 1 << 20);
    assert_eq!(text(&rows[0], "payload"), format!("\"{stored}\""));
    assert_eq!(rows[1].value("payload"), Some(&Value::Unchanged));
}

#[test]
#[ignore = "needs PostgreSQL; cargo xtask test runs it"]
fn a_large_transaction_does_not_fill_memory() {
    const ROWS: usize = 400;
    const QUEUE: usize = 8 << 20;
    let (server, mut options) = outbox();
    options.queue_bytes = QUEUE;
    let mut cdc = Cdc::new(options);
    open(&mut cdc, None, true);
    server
        .sql(&format!(
            "INSERT INTO outbox (aggregatetype, aggregateid, payload)
             SELECT 'order', n::text, to_jsonb(repeat('x', 524288)) FROM generate_series(1, {ROWS}) n"
        ))
        .unwrap();
    // The stream has time to run ahead as far as it may.
    let first = read(&mut cdc, MANY, 1);
    std::thread::sleep(Duration::from_secs(1));
    let rest = {
        let mut bytes = first[0].size();
        let mut ids = vec![text(&first[0], "aggregateid").to_owned()];
        while ids.len() < ROWS {
            for row in cdc.read(MANY, PATIENCE).unwrap().rows {
                bytes += row.size();
                ids.push(text(&row, "aggregateid").to_owned());
            }
        }
        assert!(bytes > 200 << 20, "{bytes}");
        ids
    };
    let expected: Vec<String> = (1..=ROWS).map(|number| number.to_string()).collect();
    assert_eq!(rest, expected);
    let most = cdc.queue_bytes_max();
    println!("a transaction of 200 MB: at most {most} bytes were waiting");
    assert!((QUEUE / 2..=QUEUE).contains(&most), "{most}");
}

#[test]
#[ignore = "needs PostgreSQL; cargo xtask test runs it"]
fn heartbeats_release_the_log() {
    let (server, mut options) = outbox();
    options.heartbeat_ms = 50;
    let mut cdc = Cdc::new(options);
    open(&mut cdc, None, true);
    // The slot's beginning, so that the progress topic knows of it.
    heartbeat(&mut cdc);
    server
        .sql("CREATE TABLE other AS SELECT generate_series(1, 100000)")
        .unwrap();
    let written = server.sql("SELECT pg_current_wal_lsn() - '0/0'").unwrap();
    let written: u64 = written.parse().unwrap();
    let position = loop {
        let position = heartbeat(&mut cdc);
        let Position::Wal { end_lsn, rows, .. } = position else {
            panic!("{position}");
        };
        assert_eq!(rows, 0);
        if end_lsn >= written {
            break position;
        }
    };
    let confirmed = || {
        let query = "SELECT confirmed_flush_lsn - '0/0' FROM pg_replication_slots";
        server.sql(query).unwrap().parse::<u64>().unwrap()
    };
    assert!(confirmed() < written, "nothing was confirmed yet");
    cdc.confirm(&position).unwrap();
    let deadline = std::time::Instant::now() + PATIENCE;
    while confirmed() < written {
        assert!(std::time::Instant::now() < deadline, "it is not confirmed");
        std::thread::sleep(Duration::from_millis(10));
    }
    // It is a place to go on from.
    server.sql(&insert("a", [7])).unwrap();
    let here = Progress::new(&cdc.identity(), position);
    open(&mut cdc, Some(&here), true);
    assert_eq!(payloads(&read(&mut cdc, MANY, 1)), [7]);
    assert!(cdc.lag().unwrap().retained_wal_bytes.is_some());
}

#[test]
#[ignore = "needs PostgreSQL; cargo xtask test runs it"]
fn a_killed_server_goes_on_where_it_was() {
    let (mut server, options) = outbox();
    let mut cdc = Cdc::new(options);
    open(&mut cdc, None, true);
    let mut all = Vec::new();
    for round in 0..5u32 {
        server
            .sql(&insert("a", round * 10..round * 10 + 10))
            .unwrap();
        // It dies within a transaction, and with one that never commits.
        let mut client = client(&server);
        let transaction = client.build_transaction();
        let mut transaction = transaction
            .isolation_level(IsolationLevel::ReadCommitted)
            .start()
            .unwrap();
        transaction.batch_execute(&insert("a", [999])).unwrap();
        let rows = read(&mut cdc, MANY, 7);
        let here = progress(&cdc, &rows[6]);
        all.extend(payloads(&rows));
        cdc.confirm(&rows[6].position).unwrap();
        server.kill().unwrap();
        let lost = loop {
            match cdc.read(MANY, PATIENCE) {
                Ok(batch) => assert!(!batch.rows.is_empty()),
                Err(error) => break error,
            }
        };
        assert!(matches!(lost, SourceError::Lost(_)), "{lost}");
        server.restart().unwrap();
        open(&mut cdc, Some(&here), true);
        let rest = drain(&mut cdc, MANY, 3);
        all.extend(payloads(&rest));
        let here = progress(&cdc, rest.last().unwrap());
        open(&mut cdc, Some(&here), true);
    }
    assert_eq!(all, (0..50).collect::<Vec<_>>());
}

#[test]
#[ignore = "needs PostgreSQL; cargo xtask test runs it"]
fn without_a_progress_topic_the_table_knows_the_place() {
    let (mut server, options) = outbox();
    let mut cdc = Cdc::new(options);
    open(&mut cdc, None, false);
    server.sql(&insert("a", 0..6)).unwrap();
    let one = Limit { rows: 1, ..MANY };
    for expected in 0..6 {
        // At most once, what was confirmed must never come again.
        assert_eq!(payloads(&drain(&mut cdc, one, 1)), [expected]);
        server.kill().unwrap();
        server.restart().unwrap();
        open(&mut cdc, None, false);
    }
    nothing_more(&mut cdc);
    // What was confirmed at a weaker guarantee is not published again at a stronger one.
    server.sql(&insert("a", [6])).unwrap();
    open(&mut cdc, None, true);
    assert_eq!(payloads(&read(&mut cdc, MANY, 1)), [6]);
}

#[test]
#[ignore = "needs PostgreSQL; cargo xtask test runs it"]
fn old_rows_are_pruned_where_it_is_asked_for() {
    let (server, mut options) = outbox();
    options.retention_ms = Some(1_500);
    let mut cdc = Cdc::new(options);
    open(&mut cdc, None, true);
    server.sql(&insert("a", [1, 2])).unwrap();
    drain(&mut cdc, MANY, 2);
    std::thread::sleep(Duration::from_secs(2));
    server.sql(&insert("a", [3])).unwrap();
    drain(&mut cdc, MANY, 1);
    assert_eq!(server.sql("SELECT payload FROM outbox").unwrap(), "3");
    // Nor does it take a new row for an old one to go.
    std::thread::sleep(Duration::from_secs(2));
    nothing_more(&mut cdc);
    assert_eq!(server.sql("SELECT payload FROM outbox").unwrap(), "");
}

#[test]
#[ignore = "needs PostgreSQL; cargo xtask test runs it"]
fn a_partitioned_outbox_is_one_table() {
    let (server, mut options) = outbox();
    server
        .sql(
            "CREATE TABLE parted (seq bigint, aggregatetype text, aggregateid text, payload text)
                 PARTITION BY RANGE (seq);
             CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (10);
             CREATE TABLE parted_2 PARTITION OF parted FOR VALUES FROM (10) TO (20);
             CREATE PUBLICATION parts FOR TABLE parted WITH (publish = 'insert')",
        )
        .unwrap();
    (options.table, options.publication) = ("public.parted".to_owned(), "parts".to_owned());
    let mut cdc = Cdc::new(options);
    let why = refused(&mut cdc, None);
    let (_, statement) = why.split_once("Run: ").unwrap();
    server.sql(statement).unwrap();
    open(&mut cdc, None, true);
    server
        .sql("INSERT INTO parted VALUES (5, 't', 'a', '1'), (15, 't', 'a', '2')")
        .unwrap();
    server.sql("DROP TABLE parted_1").unwrap();
    server
        .sql("INSERT INTO parted VALUES (16, 't', 'a', '3')")
        .unwrap();
    assert_eq!(payloads(&read(&mut cdc, MANY, 3)), [1, 2, 3]);
    nothing_more(&mut cdc);
}
