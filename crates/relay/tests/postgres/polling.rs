//! Claims: in the order that causes have, and recovered from every step.

use std::time::Duration;

use databases::postgresql::PostgreSql;
use oncelog_relay::position::{Position, Progress};
use oncelog_relay::source::{Limit, Source, SourceError};
use oncelog_relay::sources::postgres::{Cdc, Options, Polling};

use crate::support::*;

/// Why a window of transaction ids is no order: T1 takes id 100, T3 takes 101 and stays open, T2 takes
/// 102, writes to aggregate A and commits. Then T1 writes to A too, and commits. The window of what is
/// below the oldest open transaction ends before 101: it has T1's row, and not T2's, which is the older
/// one of A. Whoever publishes that window publishes A's rows the wrong way round.
///
/// A claim takes what has committed, in the order of insertion: T2's row, then T1's.
#[test]
#[ignore = "needs PostgreSQL; cargo xtask test runs it"]
fn a_claim_never_has_a_row_without_the_one_that_came_before_it() {
    let (server, options) = outbox();
    server
        .sql(
            "ALTER TABLE outbox ADD COLUMN xid xid8 DEFAULT pg_current_xact_id();
             CREATE TABLE aggregate (id text PRIMARY KEY, n int);
             INSERT INTO aggregate VALUES ('A', 0), ('B', 0), ('C', 0)",
        )
        .unwrap();
    let (mut one, mut two, mut three) = (client(&server), client(&server), client(&server));
    let touch =
        |aggregate: &str| format!("UPDATE aggregate SET n = n + 1 WHERE id = '{aggregate}';");
    let mut polling = Polling::new(options);
    open(&mut polling, None, true);

    let mut t1 = one.transaction().unwrap();
    t1.batch_execute(&touch("B")).unwrap();
    let mut t3 = three.transaction().unwrap();
    t3.batch_execute(&touch("C")).unwrap();
    let mut t2 = two.transaction().unwrap();
    t2.batch_execute(&(touch("A") + &insert("A", [1]))).unwrap();
    t2.commit().unwrap();
    t1.batch_execute(&(touch("A") + &insert("A", [2]))).unwrap();
    t1.commit().unwrap();

    // The recipe that is not used.
    let window = "SELECT payload FROM outbox WHERE xid < pg_snapshot_xmin(pg_current_snapshot())
        ORDER BY seq";
    assert_eq!(
        server.sql(window).unwrap(),
        "2",
        "A's second row without its first"
    );

    let rows = read(&mut polling, MANY, 2);
    assert_eq!(payloads(&rows), [1, 2]);
    polling.confirm(&rows[1].position).unwrap();
    // What commits late has a low number, and is no late sibling of anybody.
    t3.batch_execute(&insert("C", [3])).unwrap();
    two.batch_execute(&insert("D", [4])).unwrap();
    assert_eq!(payloads(&drain(&mut polling, MANY, 1)), [4]);
    t3.commit().unwrap();
    assert_eq!(payloads(&drain(&mut polling, MANY, 1)), [3]);
    nothing_more(&mut polling);
    assert_eq!(left(&server), "");
}

fn left(server: &PostgreSql) -> String {
    server
        .sql("SELECT string_agg(payload::text, ' ' ORDER BY seq) FROM outbox")
        .unwrap()
}

fn claimed(token: u64, rows: u64) -> Position {
    Position::Claim { token, rows }
}

fn at(source: &impl Source, token: u64, rows: u64) -> Option<Progress> {
    Some(Progress::new(&source.identity(), claimed(token, rows)))
}

#[test]
#[ignore = "needs PostgreSQL; cargo xtask test runs it"]
fn a_crash_at_every_step_loses_and_doubles_nothing() {
    let (mut server, options) = outbox();
    server.sql(&insert("a", 0..5)).unwrap();
    let three = Limit { rows: 3, ..MANY };
    let mut polling = Polling::new(options.clone());
    open(&mut polling, None, true);
    let first = read(&mut polling, three, 3);
    assert_eq!(first[2].position, claimed(1, 3));
    let none = None;
    let published = at(&polling, 1, 3);
    let partly = at(&polling, 1, 2);

    // After the claim, before it is published: again, the same rows, whatever came in between.
    server.sql(&insert("a", 5..7)).unwrap();
    server.kill().unwrap();
    server.restart().unwrap();
    let mut polling = Polling::new(options.clone());
    open(&mut polling, none.as_ref(), true);
    assert_eq!(read(&mut polling, MANY, 3), first);

    // Two rows of it were published: the third comes again, and is still that of this claim.
    let mut polling = Polling::new(options.clone());
    open(&mut polling, partly.as_ref(), true);
    assert_eq!(left(&server), "2 3 4 5 6");
    assert_eq!(read(&mut polling, MANY, 1), first[2..]);

    // All of it was published, nothing was deleted.
    let mut polling = Polling::new(options.clone());
    open(&mut polling, published.as_ref(), true);
    assert_eq!(left(&server), "3 4 5 6");
    let second = read(&mut polling, three, 3);
    assert_eq!(
        (payloads(&second), second[0].position.clone()),
        (vec![3, 4, 5], claimed(2, 1))
    );

    // The second was claimed, and is not published.
    let mut polling = Polling::new(options.clone());
    open(&mut polling, published.as_ref(), true);
    assert_eq!(
        read(&mut polling, Limit { rows: 2, ..MANY }, 2),
        second[..2]
    );
    assert_eq!(read(&mut polling, MANY, 1), second[2..]);
    polling.confirm(&second[2].position).unwrap();
    // Published, deleted, and nothing since.
    let mut polling = Polling::new(options.clone());
    let published = at(&polling_identity(&options), 2, 3);
    open(&mut polling, published.as_ref(), true);
    assert_eq!(payloads(&drain(&mut polling, MANY, 1)), [6]);
    nothing_more(&mut polling);

    // Neither side may be older than that.
    let why = refused(&mut polling, None);
    assert!(why.contains("another cluster"), "{why}");
    let why = refused(&mut polling, at(&polling_identity(&options), 9, 1).as_ref());
    assert!(why.contains("older copy"), "{why}");
    let elsewhere = Progress::new("postgresql:1/postgres", claimed(3, 1));
    let why = refused(&mut polling, Some(&elsewhere));
    assert!(why.contains("another one"), "{why}");
}

/// One that was opened, for its identity.
fn polling_identity(options: &Options) -> Polling {
    let mut polling = Polling::new(options.clone());
    open(&mut polling, None, false);
    polling
}

#[test]
#[ignore = "needs PostgreSQL; cargo xtask test runs it"]
fn two_instances_do_not_claim_the_same_rows() {
    let (server, options) = outbox();
    server.sql(&insert("a", 0..4)).unwrap();
    let (mut old, mut new) = (Polling::new(options.clone()), Polling::new(options));
    open(&mut old, None, true);
    open(&mut new, None, true);
    let one = Limit { rows: 1, ..MANY };
    let rows = read(&mut new, one, 1);
    // A zombie that has not noticed yet.
    let Err(SourceError::Lost(why)) = old.read(one, SHORT) else {
        panic!("both have claimed");
    };
    assert!(why.contains("taken over"), "{why}");
    new.confirm(&rows[0].position).unwrap();
    assert_eq!(payloads(&drain(&mut new, MANY, 3)), [1, 2, 3]);
}

#[test]
#[ignore = "needs PostgreSQL; cargo xtask test runs it"]
fn shards_have_every_aggregate_once() {
    let (server, options) = outbox();
    server
        .sql(
            "INSERT INTO outbox (aggregatetype, aggregateid, payload)
             SELECT 'order', 'o' || n % 50, to_jsonb(n) FROM generate_series(0, 999) n",
        )
        .unwrap();
    let mut seen = Vec::new();
    let mut aggregates = Vec::new();
    for shard in 0..3 {
        let mut options = options.clone();
        (options.shards, options.shard) = (3, shard);
        let mut polling = Polling::new(options);
        open(&mut polling, None, true);
        let mut mine: Vec<String> = Vec::new();
        loop {
            let batch = polling.read(MANY, Duration::ZERO).unwrap();
            let Some(last) = batch.rows.last() else { break };
            polling.confirm(&last.position).unwrap();
            let payloads = payloads(&batch.rows);
            assert!(payloads.is_sorted());
            seen.extend(payloads);
            mine.extend(
                batch
                    .rows
                    .iter()
                    .map(|row| text(row, "aggregateid").to_owned()),
            );
        }
        mine.sort();
        mine.dedup();
        assert!(
            mine.len() > 5,
            "a shard has {} of 50 aggregates",
            mine.len()
        );
        aggregates.extend(mine);
    }
    seen.sort_unstable();
    assert_eq!(seen, (0..1_000).collect::<Vec<_>>());
    assert_eq!(aggregates.len(), 50);

    // Another number of shards, while a claim is open.
    server.sql(&insert("o1", 0..9)).unwrap();
    let unsharded = options.clone();
    let mut options = options;
    options.shards = 3;
    let claims = (0..3).map(|shard| {
        options.shard = shard;
        let mut polling = Polling::new(options.clone());
        let progress = server.sql(&format!(
            "SELECT token FROM oncelog_outbox_claim WHERE relay = 'orders#{shard}/3'"
        ));
        let token = progress.unwrap().parse().unwrap_or(0);
        let progress = at(&polling_identity(&options), token, 0);
        open(&mut polling, progress.as_ref(), true);
        polling.read(MANY, Duration::ZERO).unwrap().rows.len()
    });
    let claimed: usize = claims.sum();
    assert_eq!(claimed, 9);
    let why = refused(&mut Polling::new(unsharded), None);
    assert!(why.contains("number of shards"), "{why}");
}

#[test]
#[ignore = "needs PostgreSQL; cargo xtask test runs it"]
fn published_rows_stay_as_long_as_is_asked_for() {
    let (server, mut options) = outbox();
    options.retention_ms = Some(1_500);
    let mut polling = Polling::new(options);
    open(&mut polling, None, true);
    server.sql(&insert("a", 0..3)).unwrap();
    drain(&mut polling, MANY, 3);
    let published = "SELECT string_agg(payload::text, ' ' ORDER BY seq) FROM outbox_published
        WHERE published_at IS NOT NULL AND id IS NOT NULL";
    assert_eq!(server.sql(published).unwrap(), "0 1 2");
    assert_eq!(left(&server), "");
    std::thread::sleep(Duration::from_secs(2));
    server.sql(&insert("a", [3])).unwrap();
    drain(&mut polling, MANY, 1);
    assert_eq!(server.sql(published).unwrap(), "3");
}

#[test]
#[ignore = "needs PostgreSQL; cargo xtask test runs it"]
fn large_rows_come_a_few_at_a_time() {
    let (server, options) = outbox();
    let large = |count: u32, bytes: u32| {
        format!(
            "INSERT INTO outbox (aggregatetype, aggregateid, payload)
             SELECT 'order', n::text, to_jsonb(repeat('x', {bytes})) FROM generate_series(1, {count}) n"
        )
    };
    server.sql(&large(2_000, 100)).unwrap();
    server.sql(&large(40, 1 << 20)).unwrap();
    let mut polling = Polling::new(options);
    open(&mut polling, None, true);
    let limit = Limit {
        rows: 1_000,
        bytes: 4 << 20,
    };
    let mut count = 0;
    while count < 2_040 {
        let rows = polling.read(limit, PATIENCE).unwrap().rows;
        let bytes: usize = rows.iter().map(|row| row.size()).sum();
        assert!(bytes <= limit.bytes, "{bytes}");
        count += rows.len();
        polling.confirm(&rows.last().unwrap().position).unwrap();
    }
    nothing_more(&mut polling);
    // One that is larger than all comes alone.
    server.sql(&large(2, 5 << 20)).unwrap();
    assert_eq!(polling.read(limit, PATIENCE).unwrap().rows.len(), 1);
}

#[test]
#[ignore = "needs PostgreSQL; cargo xtask test runs it"]
fn values_are_those_of_the_log() {
    let (server, options) = outbox();
    server
        .sql(
            "ALTER TABLE outbox ADD COLUMN flag boolean, ADD COLUMN small smallint,
                 ADD COLUMN real double precision, ADD COLUMN blob bytea, ADD COLUMN amount numeric",
        )
        .unwrap();
    let mut cdc = Cdc::new(options.clone());
    open(&mut cdc, None, true);
    server
        .sql(
            r#"INSERT INTO outbox (aggregatetype, aggregateid, payload, flag, small, real, blob, amount)
               VALUES ('order', 'ä', '{"b": 1.10, "a": "x"}', true, -3, 0.1, '\x00ff', 1.500)"#,
        )
        .unwrap();
    let logged = read(&mut cdc, MANY, 1);
    let mut polling = Polling::new(options);
    open(&mut polling, None, false);
    let polled = read(&mut polling, MANY, 1);
    assert_eq!(logged[0].columns, polled[0].columns);
    assert_eq!(logged[0].values, polled[0].values);
}

#[test]
#[ignore = "needs PostgreSQL; cargo xtask test runs it"]
fn without_exactly_once_nothing_is_claimed() {
    let (server, options) = outbox();
    let mut polling = Polling::new(options);
    open(&mut polling, None, false);
    server.sql(&insert("a", 0..4)).unwrap();
    let rows = read(&mut polling, Limit { rows: 3, ..MANY }, 3);
    assert_eq!(rows[1].position, claimed(0, 2));
    polling.confirm(&rows[1].position).unwrap();
    assert_eq!(left(&server), "2 3");
    polling.confirm(&rows[2].position).unwrap();
    assert_eq!(left(&server), "3");
    let lag = polling.lag().unwrap();
    assert_eq!(lag.pending_rows, Some(1));
    assert!(lag.oldest_row_age.unwrap() < PATIENCE);
    assert_eq!(
        server
            .sql("SELECT count(*) FROM oncelog_outbox_claim")
            .unwrap(),
        "0"
    );
}

#[test]
#[ignore = "needs PostgreSQL; cargo xtask test runs it"]
fn a_table_without_an_order_is_refused() {
    let (server, mut options) = outbox();
    server
        .sql("CREATE TABLE stock (id uuid PRIMARY KEY, aggregateid text)")
        .unwrap();
    let mut polling = Polling::new(options.clone());
    server
        .sql("ALTER TABLE outbox ALTER COLUMN seq SET CACHE 20")
        .unwrap();
    let why = refused(&mut polling, None);
    assert!(why.contains("SET CACHE 1"), "{why}");
    options.table = "stock".to_owned();
    let mut polling = Polling::new(options);
    let why = refused(&mut polling, None);
    let (_, statement) = why.split_once("Run: ").unwrap();
    let (statement, _) = statement.split_once(';').unwrap();
    server.sql(statement).unwrap();
    open(&mut polling, None, true);
}
