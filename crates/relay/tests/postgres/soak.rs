//! Writers, a relay that dies at every step, and a server that is killed: at the end each aggregate's
//! rows have come once, in order.
//!
//! The relay here publishes to memory, rows and progress at once, as a Kafka transaction does.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use databases::postgresql::PostgreSql;
use oncelog_relay::position::Progress;
use oncelog_relay::row::OutboxRow;
use oncelog_relay::source::{Limit, Source, SourceError};
use oncelog_relay::sources::postgres::{Cdc, Polling};
use postgres::{Client, NoTls};

use crate::support::*;

const WRITERS: u64 = 3;
const AGGREGATES: u64 = 5;
const KILLS: u32 = 5;
const BETWEEN_KILLS: Duration = Duration::from_millis(1_200);

/// xorshift.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }

    fn one_in(&mut self, bound: u64) -> bool {
        self.below(bound) == 0
    }
}

/// What has been published, with the progress that was published with it.
#[derive(Default)]
struct Topic {
    progress: Option<Progress>,
    aggregates: BTreeMap<String, Vec<u32>>,
    rows: usize,
}

impl Topic {
    fn commit(&mut self, identity: &str, rows: &[OutboxRow]) {
        for row in rows {
            let aggregate = text(row, "aggregateid").to_owned();
            let payload = text(row, "payload").parse().unwrap();
            self.aggregates.entry(aggregate).or_default().push(payload);
        }
        self.rows += rows.len();
        let last = rows.last().expect("a transaction has a row");
        self.progress = Some(Progress::new(identity, last.position.clone()));
    }
}

#[test]
#[ignore = "needs PostgreSQL; cargo xtask test runs it"]
fn the_log_loses_doubles_and_reorders_nothing() {
    let (server, options) = outbox();
    soak(server, Cdc::new(options), 1);
}

#[test]
#[ignore = "needs PostgreSQL; cargo xtask test runs it"]
fn polling_loses_doubles_and_reorders_nothing() {
    let (server, options) = outbox();
    soak(server, Polling::new(options), 2);
}

fn soak(server: PostgreSql, mut source: impl Source, seed: u64) {
    server
        .sql(&format!(
            "CREATE TABLE aggregate (id text PRIMARY KEY, n int NOT NULL DEFAULT 0);
             INSERT INTO aggregate (id) SELECT n::text FROM generate_series(1, {AGGREGATES}) n"
        ))
        .unwrap();
    open(&mut source, None, true);
    let (url, writing, reading) = (server.url(), AtomicBool::new(true), AtomicBool::new(true));
    let server = Mutex::new(server);
    let mut topic = Topic::default();
    let mut deaths = 0;
    std::thread::scope(|scope| {
        for writer in 1..=WRITERS {
            let (url, writing) = (&url, &writing);
            let random = Random(seed * 1_000 + writer);
            scope.spawn(move || {
                while writing.load(Ordering::SeqCst) {
                    // The server may be down.
                    let _ = write(url, writing, Random(random.0));
                    std::thread::sleep(Duration::from_millis(10));
                }
            });
        }
        scope.spawn(|| {
            for _ in 0..KILLS {
                std::thread::sleep(BETWEEN_KILLS);
                let mut server = server.lock().unwrap();
                server.kill().unwrap();
                server.restart().unwrap();
            }
            writing.store(false, Ordering::SeqCst);
            std::thread::sleep(Duration::from_secs(1));
            reading.store(false, Ordering::SeqCst);
        });
        let mut random = Random(seed);
        let mut quiet = false;
        while reading.load(Ordering::SeqCst) || !quiet {
            match relay(&mut source, &mut topic, &mut random) {
                Ok(Some(rows)) => quiet = rows == 0,
                ended => {
                    if let Err(SourceError::Refused(why)) = ended {
                        panic!("{why}");
                    }
                    quiet = false;
                    deaths += 1;
                    open(&mut source, topic.progress.as_ref(), true);
                }
            }
        }
    });
    let server = server.into_inner().unwrap();
    for (aggregate, rows) in &topic.aggregates {
        let query = format!("SELECT n FROM aggregate WHERE id = '{aggregate}'");
        let committed: u32 = server.sql(&query).unwrap().parse().unwrap();
        assert!(
            rows.iter().copied().eq(1..=committed),
            "{aggregate}: {committed} of {rows:?}"
        );
    }
    let committed = server.sql("SELECT sum(n) FROM aggregate").unwrap();
    println!(
        "{} rows published of {committed}, {KILLS} kills, {deaths} relays",
        topic.rows
    );
    assert_eq!(topic.rows.to_string(), committed);
    assert!(topic.rows > 100 && deaths > 10);
}

/// Transactions that lock an aggregate, and insert its next rows. Some begin long before that; some
/// roll back.
fn write(url: &str, writing: &AtomicBool, random: Random) -> Result<(), postgres::Error> {
    let mut random = random;
    let mut client = Client::connect(url, NoTls)?;
    // Another seed after each failure.
    random.0 ^= u64::from(
        client
            .query_one("SELECT pg_backend_pid()", &[])?
            .get::<_, i32>(0)
            .unsigned_abs(),
    );
    while writing.load(Ordering::SeqCst) {
        let mut transaction = client.transaction()?;
        if random.one_in(3) {
            transaction.batch_execute("SELECT pg_current_xact_id()")?;
            std::thread::sleep(Duration::from_millis(random.below(8)));
        }
        for _ in 0..=random.below(2) {
            let aggregate = (1 + random.below(AGGREGATES)).to_string();
            let count = 1 + i32::try_from(random.below(4)).unwrap_or(0);
            let before: i32 = transaction
                .query_one(
                    "UPDATE aggregate SET n = n + $2 WHERE id = $1 RETURNING n - $2",
                    &[&aggregate, &count],
                )?
                .get(0);
            std::thread::sleep(Duration::from_millis(random.below(3)));
            let insert = "INSERT INTO outbox (aggregatetype, aggregateid, payload)
                SELECT 'order', $1, to_jsonb(n) FROM generate_series($2::int + 1, $2 + $3::int) n";
            transaction.execute(insert, &[&aggregate, &before, &count])?;
        }
        if random.one_in(5) {
            transaction.rollback()?;
        } else {
            transaction.commit()?;
        }
    }
    Ok(())
}

/// One batch, as a relay does it. `None`: it died.
fn relay(
    source: &mut impl Source,
    topic: &mut Topic,
    random: &mut Random,
) -> Result<Option<usize>, SourceError> {
    let limit = Limit {
        rows: 1 + usize::try_from(random.below(40)).unwrap_or(0),
        ..MANY
    };
    let started = Instant::now();
    let batch = source.read(limit, SHORT)?;
    if random.one_in(20) {
        return Ok(None);
    }
    let Some(last) = batch.rows.last() else {
        if let Some(position) = batch.heartbeat {
            topic.progress = Some(Progress::new(&source.identity(), position.clone()));
            source.confirm(&position)?;
        }
        assert!(started.elapsed() < PATIENCE);
        return Ok(Some(0));
    };
    // In one transaction, or in two.
    let identity = source.identity();
    let cut = usize::try_from(random.below(batch.rows.len() as u64 * 2)).unwrap_or(0);
    if (1..batch.rows.len()).contains(&cut) {
        topic.commit(&identity, &batch.rows[..cut]);
        if random.one_in(10) {
            return Ok(None);
        }
        topic.commit(&identity, &batch.rows[cut..]);
    } else {
        topic.commit(&identity, &batch.rows);
    }
    if random.one_in(10) {
        return Ok(None);
    }
    source.confirm(&last.position)?;
    Ok(Some(batch.rows.len()))
}
