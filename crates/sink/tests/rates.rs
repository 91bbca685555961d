//! How many rows per second the targets take, each batch with its fence and its inbox: figures to look at
//! (`--nocapture`, and `--release`), not limits.

use std::time::Instant;

use databases::mariadb::MariaDb;
use databases::postgresql::PostgreSql;
use oncelog_sink::config::Config;
use oncelog_sink::mapping::Mapping;
use oncelog_sink::record::{SinkRecord, TopicPartition};
use oncelog_sink::setup;
use oncelog_sink::target::{Effect, Entry, Move, Request, Transaction};
use oncelog_sink::targets;

const ROWS: i64 = 500_000;
const BATCH: i64 = 5_000;
/// Half of the rows are new ones, half replace one.
const KEYS: i64 = ROWS / 2;

/// As a client would make it up: 128 bits without an order.
fn event_id(n: i64) -> String {
    let mixed = |n: u64| {
        let n = (n ^ (n >> 31)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        (n ^ (n >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB)
    };
    format!("{:016x}{:016x}", mixed(n as u64), mixed(!n as u64))
}

fn record(n: i64) -> SinkRecord {
    let key = n * 7_919 % KEYS;
    let value = format!(
        "{{\"id\": {key}, \"customer\": \"c{}\", \"amount\": {}.50, \"note\": \"{}\"}}",
        n % 1_000,
        n,
        "x".repeat(100)
    );
    SinkRecord {
        topic: "t".into(),
        partition: 0,
        offset: n,
        timestamp_ms: Some(n),
        key: Some(key.to_string().into_bytes()),
        value: Some(value.into_bytes()),
        headers: vec![("id".into(), Some(event_id(n).into_bytes()))],
    }
}

fn measure(url: &str) {
    for inbox in [true, false] {
        let table = if inbox { "with_inbox" } else { "without" };
        let config = format!(
            r#"{{"name": "{table}", "topics": ["t"], "database": "{url}", "table": "{table}",
            "inbox": {inbox}, "key.columns": ["id"], "columns": {{"id": "value.id",
            "customer": "value.customer", "amount": "value.amount", "note": "value.note"}}}}"#
        );
        let config: Config = serde_json::from_str(&config).unwrap();
        let mut statements = setup::ddl(&config).unwrap();
        statements.push(format!(
            "CREATE TABLE {table} (id bigint PRIMARY KEY, customer varchar(40), amount decimal(20, 2), \
             note text)"
        ));
        setup::execute(&config, &statements).unwrap();
        let mut target = targets::of(&config).unwrap();
        let mapping = Mapping::new(&config, &target.open().unwrap()).unwrap();
        let partition = TopicPartition::new("t", 0);
        let request = Request {
            partition: partition.clone(),
            first: 0,
        };
        let epoch = target.claim("c", &[request]).unwrap()[0].epoch;
        let records: Vec<SinkRecord> = (0..ROWS).map(record).collect();
        let began = Instant::now();
        for (batch, from) in records
            .chunks(BATCH as usize)
            .zip((0..).step_by(BATCH as usize))
        {
            let entries = batch.iter().map(|record| {
                let id = record.header("id").filter(|_| inbox);
                Entry {
                    event_id: id.map(|id| std::str::from_utf8(id).unwrap().into()),
                    effect: Effect::Change(mapping.change(record).unwrap()),
                }
            });
            let entries = entries.collect();
            let moved = Move {
                partition: partition.clone(),
                epoch,
                from,
                to: from + BATCH,
            };
            target
                .apply(&Transaction::new(entries, vec![moved]))
                .unwrap();
        }
        let rate = ROWS as f64 / began.elapsed().as_secs_f64();
        println!(
            "{}: {rate:.0} rows/s, inbox {inbox}",
            url.split(':').next().unwrap()
        );
    }
}

#[test]
#[ignore = "measures; run it with --release --nocapture"]
fn sqlite_rates() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("s.db");
    rusqlite::Connection::open(&path).unwrap();
    measure(&format!("sqlite:{}", path.display()));
}

#[test]
#[ignore = "measures, and needs PostgreSQL; run it with --release --nocapture"]
fn postgresql_rates() {
    let server = PostgreSql::start().unwrap();
    measure(&server.url());
}

#[test]
#[ignore = "measures, and needs MariaDB; run it with --release --nocapture"]
fn mariadb_rates() {
    let server = MariaDb::start().unwrap();
    measure(&server.url());
}
