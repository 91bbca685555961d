//! A server with an outbox, and reading from it until it has given what is expected.

use std::time::{Duration, Instant};

use databases::postgresql::PostgreSql;
use oncelog_relay::position::{Position, Progress};
use oncelog_relay::row::{OutboxRow, Value};
use oncelog_relay::source::{Batch, Limit, Source, SourceError};
use oncelog_relay::sources::postgres::{Options, ddl};
use postgres::{Client, NoTls};

pub const PATIENCE: Duration = Duration::from_secs(60);
pub const SHORT: Duration = Duration::from_millis(300);

pub const MANY: Limit = Limit {
    rows: 1_000,
    bytes: 8 << 20,
};

/// A server with an outbox, and the options of a relay named `orders`.
pub fn outbox_with(settings: &[(&str, &str)]) -> (PostgreSql, Options) {
    let server = PostgreSql::start_with(settings).unwrap();
    let options = Options::new(&server.url(), "orders");
    for statement in ddl(&options) {
        server.sql(&statement).unwrap();
    }
    (server, options)
}

pub fn outbox() -> (PostgreSql, Options) {
    outbox_with(&[])
}

pub fn client(server: &PostgreSql) -> Client {
    Client::connect(&server.url(), NoTls).unwrap()
}

/// A statement that inserts rows of one aggregate, whose payloads are these numbers.
pub fn insert(aggregate: &str, payloads: impl IntoIterator<Item = u32>) -> String {
    let row = |payload| format!("('order', '{aggregate}', '{payload}')");
    let rows: Vec<String> = payloads.into_iter().map(row).collect();
    let rows = rows.join(", ");
    format!("INSERT INTO outbox (aggregatetype, aggregateid, payload) VALUES {rows};")
}

/// Opens it as a relay does: again while it is only lost.
pub fn open(source: &mut impl Source, progress: Option<&Progress>, exactly_once: bool) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match source.open(progress, exactly_once) {
            Ok(()) => return,
            Err(SourceError::Lost(why)) => assert!(Instant::now() < deadline, "{why}"),
            Err(SourceError::Refused(why)) => panic!("{why}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Why it cannot be opened.
pub fn refused(source: &mut impl Source, progress: Option<&Progress>) -> String {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match source.open(progress, true) {
            Ok(()) => panic!("it opens with {progress:?}"),
            Err(SourceError::Refused(why)) => return why,
            Err(SourceError::Lost(why)) => assert!(Instant::now() < deadline, "{why}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Reads exactly `count` rows, in batches of `limit`.
pub fn read(source: &mut impl Source, limit: Limit, count: usize) -> Vec<OutboxRow> {
    let deadline = Instant::now() + PATIENCE;
    let mut rows = Vec::new();
    while rows.len() < count {
        assert!(
            Instant::now() < deadline,
            "{} of {count} rows came",
            rows.len()
        );
        let limit = Limit {
            rows: limit.rows.min(count - rows.len()),
            ..limit
        };
        rows.extend(source.read(limit, SHORT).unwrap().rows);
    }
    assert_eq!(rows.len(), count);
    rows
}

/// As [`read`], confirming each batch.
pub fn drain(source: &mut impl Source, limit: Limit, count: usize) -> Vec<OutboxRow> {
    let mut rows = Vec::new();
    while rows.len() < count {
        let rest = Limit {
            rows: limit.rows.min(count - rows.len()),
            ..limit
        };
        let batch = source.read(rest, PATIENCE).unwrap();
        let last = batch.rows.last().expect("more rows");
        source.confirm(&last.position).unwrap();
        rows.extend(batch.rows);
    }
    rows
}

pub fn nothing_more(source: &mut impl Source) {
    let batch = source.read(MANY, SHORT).unwrap();
    assert_eq!(batch.rows, []);
}

pub fn heartbeat(source: &mut impl Source) -> Position {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let Batch { rows, heartbeat } = source.read(MANY, SHORT).unwrap();
        assert_eq!(rows, []);
        if let Some(position) = heartbeat {
            return position;
        }
        assert!(Instant::now() < deadline, "no heartbeat comes");
    }
}

/// Of rows whose payloads are numbers.
pub fn payloads(rows: &[OutboxRow]) -> Vec<u32> {
    rows.iter()
        .map(|row| text(row, "payload").parse().unwrap())
        .collect()
}

pub fn text<'a>(row: &'a OutboxRow, column: &str) -> &'a str {
    match row.value(column) {
        Some(Value::Text(text)) => text,
        other => panic!("{column} is {other:?}"),
    }
}

pub fn progress(source: &impl Source, row: &OutboxRow) -> Progress {
    Progress::new(&source.identity(), row.position.clone())
}
