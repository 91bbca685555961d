//! How fast the sources are; printed, and only bounded from below by what would be a mistake.

use std::time::{Duration, Instant};

use oncelog_relay::source::{Limit, Source};
use oncelog_relay::sources::postgres::{Cdc, Polling};

use crate::support::*;

const ROWS: usize = 200_000;

const FILL: &str = "INSERT INTO outbox (aggregatetype, aggregateid, type, payload)
    SELECT 'order', (n % 1000)::text, 'created', jsonb_build_object('n', n, 'text', repeat('x', 200))
    FROM generate_series(1, 200000) n";

const EMIT: &str = "SELECT count(pg_logical_emit_message(true, 'outbox',
        json_build_object('id', n, 'aggregatetype', 'order', 'aggregateid', (n % 1000)::text,
            'type', 'created', 'payload', json_build_object('n', n, 'text', repeat('x', 200)))::text))
    FROM generate_series(1, 200000) n";

const BATCH: Limit = Limit {
    rows: 1_000,
    bytes: 8 << 20,
};

fn rate(source: &mut impl Source) -> f64 {
    let started = Instant::now();
    let rows = drain_count(source);
    let rate = rows as f64 / started.elapsed().as_secs_f64();
    assert_eq!(rows, ROWS);
    rate
}

fn drain_count(source: &mut impl Source) -> usize {
    let mut count = 0;
    while count < ROWS {
        let batch = source.read(BATCH, PATIENCE).unwrap();
        count += batch.rows.len();
        source
            .confirm(&batch.rows.last().unwrap().position)
            .unwrap();
    }
    count
}

#[test]
#[ignore = "needs PostgreSQL; cargo xtask test runs it"]
fn sources_are_drained() {
    let (server, options) = outbox();
    let mut cdc = Cdc::new(options.clone());
    open(&mut cdc, None, true);
    server.sql(FILL).unwrap();
    println!("the log, rows of a table: {:.0}/s", rate(&mut cdc));
    server.sql(EMIT).unwrap();
    println!("the log, logical messages: {:.0}/s", rate(&mut cdc));
    drop(cdc);
    server
        .sql("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")
        .ok();
    server.sql("VACUUM ANALYZE outbox").unwrap();
    let mut polling = Polling::new(options.clone());
    open(&mut polling, None, true);
    println!("polling, claims: {:.0}/s", rate(&mut polling));
    server.sql(FILL).unwrap();
    open_weaker(&mut polling);
    println!("polling, no claims: {:.0}/s", rate(&mut polling));
    println!(
        "an empty poll over 400,000 deleted rows: {:.3} ms",
        empty_poll(&mut polling)
    );
    server.sql("VACUUM outbox").unwrap();
    println!(
        "an empty poll after the vacuum: {:.3} ms",
        empty_poll(&mut polling)
    );
}

/// In milliseconds.
fn empty_poll(polling: &mut Polling) -> f64 {
    let started = Instant::now();
    let mut polls = 0;
    while started.elapsed() < Duration::from_secs(1) {
        polling.read(BATCH, Duration::ZERO).unwrap();
        polls += 1;
    }
    1_000.0 / f64::from(polls)
}

fn open_weaker(polling: &mut Polling) {
    open(polling, None, false);
}
