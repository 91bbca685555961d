//! Where slot, progress and database disagree, the relay is refused, and the text says what it is.

use oncelog_relay::position::{Position, Progress};
use oncelog_relay::source::{Source, SourceError};
use oncelog_relay::sources::postgres::{Cdc, Options, Snapshot, ddl};

use crate::support::*;

#[test]
#[ignore = "needs PostgreSQL; cargo xtask test runs it"]
fn another_system_and_another_timeline_are_refused() {
    let (mut server, options) = outbox();
    let mut cdc = Cdc::new(options.clone());
    open(&mut cdc, None, true);
    server.sql(&insert("a", 0..3)).unwrap();
    let rows = read(&mut cdc, MANY, 3);
    let here = progress(&cdc, &rows[1]);
    drop(cdc);

    let (_other, others) = outbox();
    let why = refused(&mut Cdc::new(others), Some(&here));
    assert!(why.contains("another system"), "{why}");

    server.promote().unwrap();
    let mut cdc = Cdc::new(options.clone());
    let why = refused(&mut cdc, Some(&here));
    assert!(
        why.contains("timeline 1") && why.contains("timeline 2"),
        "{why}"
    );
    // Somebody has looked and decided.
    let mut options = options;
    options.accept_timeline = Some(2);
    let mut cdc = Cdc::new(options);
    open(&mut cdc, Some(&here), true);
    assert!(cdc.identity().ends_with(":2"));
    assert_eq!(payloads(&read(&mut cdc, MANY, 1)), [2]);
}

#[test]
#[ignore = "needs PostgreSQL; cargo xtask test runs it"]
fn a_slot_that_is_past_the_progress_is_a_gap() {
    let (server, options) = outbox();
    let mut cdc = Cdc::new(options);
    open(&mut cdc, None, true);
    server.sql(&insert("a", [0])).unwrap();
    let rows = read(&mut cdc, MANY, 1);
    let here = progress(&cdc, &rows[0]);
    server.sql(&insert("a", [1])).unwrap();
    let rows = drain(&mut cdc, MANY, 1);
    let newer = progress(&cdc, &rows[0]);
    open(&mut cdc, Some(&newer), true);
    let why = refused(&mut cdc, Some(&here));
    assert!(why.contains("a gap"), "{why}");
    // Nor is a place that the database has not come to.
    let position = Position::Wal {
        commit_lsn: 1 << 60,
        end_lsn: (1 << 60) + 8,
        rows: 1,
    };
    let why = refused(&mut cdc, Some(&Progress::new(&newer.source, position)));
    assert!(why.contains("older copy"), "{why}");
    server
        .sql("SELECT pg_drop_replication_slot('oncelog_orders')")
        .unwrap();
    let why = refused(&mut cdc, Some(&newer));
    assert!(why.contains("there is no slot oncelog_orders"), "{why}");
}

#[test]
#[ignore = "needs PostgreSQL; cargo xtask test runs it"]
fn a_lost_slot_is_told_before_and_after() {
    let settings = [
        ("max_slot_wal_keep_size", "48MB"),
        ("min_wal_size", "32MB"),
        ("max_wal_size", "32MB"),
    ];
    let (server, options) = outbox_with(&settings);
    let mut cdc = Cdc::new(options);
    open(&mut cdc, None, true);
    server.sql(&insert("a", [0])).unwrap();
    let rows = read(&mut cdc, MANY, 1);
    let here = progress(&cdc, &rows[0]);
    let write = |megabytes: u32| {
        let filler = format!(
            "SELECT pg_logical_emit_message(false, 'x', repeat('y', 1048576))
            FROM generate_series(1, {megabytes})"
        );
        server.sql(&filler).map(drop).unwrap();
    };
    write(24);
    let warning = cdc.lag().unwrap().warning.unwrap();
    assert!(warning.contains("of a budget of 48.0 MB"), "{warning}");
    println!("{warning}");
    drop(cdc);
    write(100);
    server.sql("CHECKPOINT").unwrap();
    let state = server
        .sql("SELECT wal_status FROM pg_replication_slots")
        .unwrap();
    assert_eq!(state, "lost");
    let why = refused(
        &mut Cdc::new(Options::new(&server.url(), "orders")),
        Some(&here),
    );
    assert!(why.contains("is lost"), "{why}");
}

#[test]
#[ignore = "needs PostgreSQL; cargo xtask test runs it"]
fn a_database_that_is_not_set_up_is_refused_with_the_fix() {
    let (mut server, options) = outbox();
    let refused_with = |options: &Options| refused(&mut Cdc::new(options.clone()), None);
    let changed = |change: fn(&mut Options)| {
        let mut options = options.clone();
        change(&mut options);
        options
    };
    let why = refused_with(&changed(|options| options.publication = "none".into()));
    assert!(why.contains("no publication none"), "{why}");
    let why = refused_with(&changed(|options| options.table = "none".into()));
    assert!(why.contains("no table none"), "{why}");
    server.sql("CREATE PUBLICATION empty").unwrap();
    let why = refused_with(&changed(|options| options.publication = "empty".into()));
    assert!(
        why.contains("ALTER PUBLICATION \"empty\" ADD TABLE"),
        "{why}"
    );
    let why = refused_with(&changed(|options| options.url.push_str("?sslmode=require")));
    assert!(why.contains("TLS is not built"), "{why}");

    // Rows that the slot's log will not have.
    server.sql(&insert("a", [0])).unwrap();
    let why = refused_with(&options);
    assert!(why.contains("before the slot"), "{why}");
    assert_eq!(
        server
            .sql("SELECT count(*) FROM pg_replication_slots")
            .unwrap(),
        "0"
    );
    let mut cdc = Cdc::new(changed(|options| options.snapshot = Some(Snapshot::NoData)));
    open(&mut cdc, None, true);
    server.sql(&insert("a", [1])).unwrap();
    assert_eq!(payloads(&read(&mut cdc, MANY, 1)), [1]);
    drop(cdc);

    server.sql("CREATE DATABASE other").unwrap();
    let mut elsewhere = Options::new(&options.url, "orders");
    elsewhere
        .url
        .truncate(elsewhere.url.len() - "postgres".len());
    elsewhere.url.push_str("other");
    elsewhere.table = String::new();
    let mut client = postgres::Client::connect(&elsewhere.url, postgres::NoTls).unwrap();
    client.batch_execute(&ddl(&elsewhere).join(";")).unwrap();
    let why = refused_with(&elsewhere);
    assert!(why.contains("is of database postgres"), "{why}");
    drop(client);

    server
        .sql("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")
        .unwrap();
    server.set("wal_level", "replica");
    server.restart().unwrap();
    let why = refused_with(&options);
    assert!(why.contains("wal_level is replica"), "{why}");
}

#[test]
#[ignore = "needs PostgreSQL; cargo xtask test runs it"]
fn a_predecessor_that_was_fenced_is_ended() {
    let (server, options) = outbox();
    let mut old = Cdc::new(options.clone());
    open(&mut old, None, true);
    let mut stranger = options.clone();
    stranger.slot_name = Some(options.slot());
    stranger.relay = "payments".to_owned();
    let Err(SourceError::Lost(why)) = Cdc::new(stranger).open(None, true) else {
        panic!("two readers of one slot");
    };
    assert!(why.contains("cannot share"), "{why}");
    // Without a fence it may live.
    let Err(SourceError::Lost(why)) = Cdc::new(options.clone()).open(None, false) else {
        panic!("two readers of one slot");
    };
    assert!(why.contains("held by another reader"), "{why}");
    let mut new = Cdc::new(options);
    open(&mut new, None, true);
    let lost = old.read(MANY, PATIENCE).unwrap_err();
    assert!(matches!(lost, SourceError::Lost(_)), "{lost}");
    server.sql(&insert("a", [1])).unwrap();
    assert_eq!(payloads(&read(&mut new, MANY, 1)), [1]);
}

#[test]
#[ignore = "needs PostgreSQL; cargo xtask test runs it"]
fn passwords_are_asked_for_in_three_ways() {
    let (server, options) = outbox();
    let hba = server.data().join("pg_hba.conf");
    for (number, way) in ["scram-sha-256", "md5", "password"].iter().enumerate() {
        let stored = if *way == "md5" {
            "md5"
        } else {
            "scram-sha-256"
        };
        let role = format!("app{number}");
        server
            .sql(&format!(
                "SET password_encryption = '{stored}';
                 CREATE ROLE {role} LOGIN REPLICATION PASSWORD 'se:cret';
                 GRANT SELECT ON outbox TO {role}"
            ))
            .unwrap();
        let rules =
            format!("host all {role} all {way}\nhost all all all trust\nlocal all all trust\n");
        std::fs::write(&hba, rules).unwrap();
        server.sql("SELECT pg_reload_conf()").unwrap();
        let login = |password: &str| {
            let mut options = options.clone();
            let (user, url) = (format!("{role}{password}@"), server.url());
            options.url = url.replace("postgres@", &user);
            options.slot_name = Some(role.clone());
            Cdc::new(options)
        };
        let deadline = std::time::Instant::now() + PATIENCE;
        // The new rules come soon.
        while login(":wrong").open(None, true).is_ok() {
            assert!(std::time::Instant::now() < deadline);
        }
        let why = refused(&mut login(":wrong"), None);
        assert!(why.contains("password authentication failed"), "{why}");
        let mut cdc = login(":se%3Acret");
        open(&mut cdc, None, true);
        server.sql(&insert("a", [1])).unwrap();
        assert_eq!(payloads(&read(&mut cdc, MANY, 1)), [1]);
        server.sql("DELETE FROM outbox").unwrap();
    }
}
