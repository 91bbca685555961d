//! How fast the sources are drained, alone with their server. Printed, not judged.

use databases::mariadb::MariaDb;
use mysql::prelude::Queryable;
use oncelog_relay::source::Source;
use oncelog_relay::sources::mysql::{Binlog, Polling};

use super::*;

const BATCH: Limit = Limit {
    rows: 5_000,
    bytes: 4 << 20,
};

fn fill(conn: &mut Conn, count: usize, per_transaction: usize) {
    for _ in 0..count / per_transaction {
        conn.query_drop(format!(
            "INSERT INTO outbox (aggregatetype, aggregateid, type, payload) \
            SELECT 'order', seq % 1000, 'created', JSON_QUOTE(REPEAT('x', 200)) \
            FROM seq_1_to_{per_transaction}"
        ))
        .unwrap();
    }
}

fn measure(what: &str, source: &mut impl Source, count: usize) {
    let started = Instant::now();
    drain(source, BATCH, count);
    let seconds = started.elapsed().as_secs_f64();
    println!(
        "{what}: {count} rows in {seconds:.2} s, {:.0} rows/s",
        count as f64 / seconds
    );
}

#[test]
#[ignore = "measures; cargo test --release -p oncelog-relay --test mysql rates -- --ignored --nocapture"]
fn drain_rates() {
    let server = MariaDb::start_with(&[("innodb_buffer_pool_size", "256M")]).unwrap();
    let options = options(&server, "{}");
    let mut conn = shop(&options);
    let mut source = Binlog::new(options.clone());
    source.open(None, true).unwrap();
    let start = source.read(LIMIT, SOON).unwrap().heartbeat.unwrap();
    let start = progress(&source, &start);
    drop(source);
    fill(&mut conn, 200_000, 1_000);
    conn.query_drop("TRUNCATE outbox").unwrap();
    let mut source = Binlog::new(options.clone());
    source.open(Some(&start), true).unwrap();
    measure("binlog, 1,000 rows to a transaction", &mut source, 200_000);
    let end = source
        .read(LIMIT, Duration::from_secs(11))
        .unwrap()
        .heartbeat
        .unwrap();
    let end = progress(&source, &end);
    drop(source);
    conn.query_drop("SET GLOBAL innodb_flush_log_at_trx_commit = 0")
        .unwrap();
    fill(&mut conn, 40_000, 1);
    let mut source = Binlog::new(options.clone());
    source.open(Some(&end), true).unwrap();
    measure("binlog, single rows", &mut source, 40_000);
    drop(source);
    conn.query_drop("SET GLOBAL innodb_flush_log_at_trx_commit = 1")
        .unwrap();
    fill(&mut conn, 160_000, 1_000);
    let mut source = Polling::new(options);
    source.open(None, true).unwrap();
    measure("polling, claimed and deleted", &mut source, 200_000);
}
