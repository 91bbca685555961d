//! The sources of MySQL and MariaDB against a real MariaDB. The part of the topics is played by a
//! `Progress` in memory: what was published is what was read before it.

mod binlog;
mod binlog_faults;
mod making;
mod polling;
mod rates;
mod values;

use std::time::{Duration, Instant};

use databases::mariadb::MariaDb;
use mysql::Conn;
use mysql::prelude::Queryable;
use oncelog_relay::position::{Position, Progress};
use oncelog_relay::row::{OutboxRow, Value};
use oncelog_relay::source::{Limit, Source, SourceError};
use oncelog_relay::sources::mysql::{Options, setup};

const LIMIT: Limit = Limit {
    rows: 1_000,
    bytes: 1 << 20,
};
const ONE: Limit = Limit { rows: 1, ..LIMIT };
const SOON: Duration = Duration::from_millis(300);
const LATE: Duration = Duration::from_secs(60);

/// A server with an outbox, and a session in it.
fn shop(options: &Options) -> Conn {
    setup::init(options).unwrap();
    connect(options)
}

fn connect(options: &Options) -> Conn {
    let url = options.url.as_str();
    let opts = mysql::OptsBuilder::from_opts(mysql::Opts::from_url(url).unwrap());
    let handler = mysql::LocalInfileHandler::new(|name, stream| {
        let file = std::fs::read(String::from_utf8_lossy(name).as_ref())?;
        std::io::Write::write_all(stream, &file)
    });
    Conn::new(
        opts.prefer_socket(false)
            .local_infile_handler(Some(handler)),
    )
    .unwrap()
}

fn options(server: &MariaDb, json: &str) -> Options {
    let mut options: Options = serde_json::from_str(json).unwrap();
    options.url = server.url();
    options.relay = "orders".into();
    options
}

fn insert(conn: &mut Conn, aggregate: &str, payload: &str) {
    let statement = "INSERT INTO outbox (aggregatetype, aggregateid, type, payload) \
        VALUES ('order', ?, 'created', JSON_QUOTE(?))";
    conn.exec_drop(statement, (aggregate, payload)).unwrap();
}

/// The payloads, without JSON's quotes.
fn payloads(rows: &[OutboxRow]) -> Vec<String> {
    rows.iter().map(|row| text(row, "payload")).collect()
}

fn text(row: &OutboxRow, column: &str) -> String {
    match row.value(column) {
        Some(Value::Text(text)) => text.trim_matches('"').to_owned(),
        other => panic!("{column} is {other:?}"),
    }
}

/// Reads, as the relay does, `count` rows and what comes with them.
fn drain(source: &mut impl Source, limit: Limit, count: usize) -> Vec<OutboxRow> {
    let deadline = Instant::now() + LATE;
    let mut rows = Vec::new();
    while rows.len() < count {
        assert!(Instant::now() < deadline, "{} of {count} rows", rows.len());
        let batch = source.read(limit, SOON).unwrap();
        if let Some(end) = batch
            .rows
            .last()
            .map(|row| row.position.clone())
            .or(batch.heartbeat)
        {
            source.confirm(&end).unwrap();
        }
        rows.extend(batch.rows);
    }
    rows
}

/// None come for a while.
fn nothing_more(source: &mut impl Source) {
    for _ in 0..3 {
        assert_eq!(source.read(LIMIT, SOON).unwrap().rows, []);
    }
}

fn progress(source: &impl Source, position: &Position) -> Progress {
    Progress::new(&source.identity(), position.clone())
}

fn after(source: &impl Source, row: &OutboxRow) -> Progress {
    progress(source, &row.position)
}

#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, SourceError>) -> String {
    match result {
        Err(SourceError::Refused(why)) => why,
        other => panic!("not refused: {other:?}"),
    }
}

#[track_caller]
fn lost<T: std::fmt::Debug>(result: Result<T, SourceError>) -> String {
    match result {
        Err(SourceError::Lost(why)) => why,
        other => panic!("not lost: {other:?}"),
    }
}

/// Reads until it is refused; gives the reason.
#[track_caller]
fn read_until_refused(source: &mut impl Source) -> String {
    let deadline = Instant::now() + LATE;
    loop {
        assert!(Instant::now() < deadline, "nothing is refused");
        match source.read(LIMIT, SOON) {
            Ok(batch) => assert!(batch.rows.is_empty(), "{batch:?}"),
            other => return refused(other),
        }
    }
}

/// At once, or by reading.
#[track_caller]
fn open_until_refused(source: &mut impl Source, progress: &Progress) -> String {
    match source.open(Some(progress), true) {
        Ok(()) => read_until_refused(source),
        other => refused(other),
    }
}

fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|i| i.to_string()).collect()
}
