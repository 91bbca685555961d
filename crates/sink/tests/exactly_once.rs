//! Sinks against a real broker, with kills: what is in the database at the end is counted there.
//!
//! The target has no key and the sink no inbox unless a test says so: nothing but the fence and the offset
//! stands between a crash and a second row.

mod cluster;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use cluster::{Broker, Events, KEYS, SinkProcess, wait};
use databases::mariadb::MariaDb;
use databases::postgresql::PostgreSql;
use oncelog_sink::config::Config;
use oncelog_sink::host::{self, Figures};
use oncelog_sink::setup;
use oncelog_sink::sink::Stop;
use rdkafka::producer::Producer;
use rusqlite::Connection;

const PATIENCE: Duration = Duration::from_secs(30);

/// Not a test: the process that [`SinkProcess`] starts.
#[test]
#[ignore = "is a process of other tests"]
fn a_sink_process() {
    let Ok(config) = std::env::var("SINK_CONFIG") else {
        return;
    };
    let config: Config = serde_json::from_str(&config).unwrap();
    let bootstrap = std::env::var("SINK_BOOTSTRAP").unwrap();
    tell();
    let ended = host::run(
        &config,
        &bootstrap,
        &AtomicBool::new(false),
        &Figures::default(),
    );
    panic!("{ended:?}");
}

/// What is logged, for whoever looks why a test failed: `RUST_LOG=info`.
fn tell() {
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    let told = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    // Another test of this process was first.
    let _ = told.try_init();
}

struct Place {
    home: tempfile::TempDir,
}

impl Place {
    fn new() -> Place {
        Place {
            home: tempfile::tempdir().unwrap(),
        }
    }

    /// Rows of `events (n, id, k, seq, place)`, `n` being the order of their insertion.
    fn config(&self, more: &str) -> String {
        let path = self.home.path().join("s.db");
        let config = format!(
            r#"{{"name": "s", "topics": ["t"], "database": "sqlite:{}", "table": "events",
            "mode": "insert", "batch.max.rows": 100, "columns": {{"id": "value.id", "k": "key",
            "seq": "value.seq", "place": "offset"}}, "properties": {{"session.timeout.ms": 6000}}
            {more}}}"#,
            path.display()
        );
        let parsed: Config = serde_json::from_str(&config).unwrap();
        let mut statements = setup::ddl(&parsed).unwrap();
        statements.push(
            "CREATE TABLE IF NOT EXISTS events (n INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT, k TEXT, \
             seq INTEGER, place INTEGER)"
                .to_owned(),
        );
        setup::execute(&parsed, &statements).unwrap();
        config
    }

    fn number(&self, query: &str) -> u64 {
        let connection = Connection::open(self.home.path().join("s.db")).unwrap();
        connection.busy_timeout(PATIENCE).unwrap();
        let number: i64 = connection.query_row(query, [], |row| row.get(0)).unwrap();
        number as u64
    }

    fn count(&self) -> u64 {
        self.number("SELECT count(*) FROM events")
    }

    /// Lost, duplicated, out of order; of so many events.
    fn audit(&self, events: u64) -> (u64, u64, u64) {
        let distinct = self.number("SELECT count(DISTINCT id) FROM events");
        let reordered = self.number(
            "SELECT count(*) FROM (SELECT seq - lag(seq, 1, -1) OVER (PARTITION BY k ORDER BY n) AS \
             step FROM events) WHERE step < 0",
        );
        (events - distinct, self.count() - distinct, reordered)
    }

    fn wait_for(&self, events: u64) {
        wait("all events have come", || {
            self.number("SELECT count(DISTINCT id) FROM events") >= events
        });
    }
}

const NO_INBOX: &str = r#", "inbox": false"#;

/// A sink in a thread.
struct Running {
    stop: Arc<AtomicBool>,
    figures: Arc<Figures>,
    thread: Option<JoinHandle<Result<(), Stop>>>,
}

fn run(broker: &Broker, config: &str) -> Running {
    tell();
    let config: Config = serde_json::from_str(config).unwrap();
    let (stop, figures) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(Figures::default()),
    );
    let bootstrap = broker.bootstrap();
    let (stopped, noted) = (Arc::clone(&stop), Arc::clone(&figures));
    Running {
        thread: Some(std::thread::spawn(move || {
            host::run(&config, &bootstrap, &stopped, &noted)
        })),
        stop,
        figures,
    }
}

impl Running {
    fn end(&mut self) -> Result<(), Stop> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap()
    }

    /// How it ends by itself.
    fn ended(&mut self) -> Stop {
        wait("the sink ends", || {
            self.thread.as_ref().unwrap().is_finished()
        });
        self.thread.take().unwrap().join().unwrap().unwrap_err()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[test]
#[ignore = "needs the oncelog binary; cargo xtask test runs it"]
fn a_killed_broker_costs_nothing() {
    let (mut broker, place) = (Broker::start(), Place::new());
    broker.topic("t", 3);
    let mut sink = run(&broker, &place.config(NO_INBOX));
    let mut events = broker.producer(&[]);
    for _ in 0..3 {
        events.send("t", 2_000);
        std::thread::sleep(Duration::from_millis(100));
        broker.kill();
        events.send("t", 1_000);
        broker.spawn();
    }
    events.flush();
    place.wait_for(events.sent);
    sink.end().unwrap();
    assert_eq!(place.audit(events.sent), (0, 0, 0));
}

#[test]
#[ignore = "needs the oncelog binary; cargo xtask test runs it"]
fn a_sink_that_dies_anywhere_loses_and_doubles_nothing() {
    let (broker, place) = (Broker::start(), Place::new());
    broker.topic("t", 3);
    let config = place.config(NO_INBOX);
    let mut events = broker.producer(&[]);
    for failpoint in [
        "sink-after-poll",
        "sink-before-commit",
        "sink-after-commit",
        "sink-before-offsets",
    ] {
        for times in [1, 3] {
            let mut sink =
                SinkProcess::start(&broker, &config, Some(&format!("{failpoint}@{times}")));
            while !sink.has_ended() {
                events.send("t", 100);
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
    for _ in 0..3 {
        let sink = SinkProcess::start(&broker, &config, None);
        let before = place.count();
        events.send("t", 5_000);
        wait("some rows have come", || place.count() > before);
        sink.kill();
    }
    events.flush();
    let _last = SinkProcess::start(&broker, &config, None);
    place.wait_for(events.sent);
    assert_eq!(place.audit(events.sent), (0, 0, 0));
}

#[test]
#[ignore = "needs the oncelog binary; cargo xtask test runs it"]
fn the_weaker_guarantees_keep_their_half() {
    for (delivery, failpoint) in [
        ("at-least-once", "sink-after-commit"),
        ("at-least-once", "sink-before-offsets"),
        ("at-most-once", "sink-after-poll"),
        ("at-most-once", "sink-before-commit"),
    ] {
        let (broker, place) = (Broker::start(), Place::new());
        broker.topic("t", 1);
        let config = place.config(&format!(", \"delivery\": \"{delivery}\""));
        let mut events = broker.producer(&[]);
        events.send("t", 1_000);
        events.flush();
        SinkProcess::start(&broker, &config, Some(&format!("{failpoint}@3"))).wait_for_end();
        let _sink = SinkProcess::start(&broker, &config, None);
        wait("the last event has come", || {
            place.number("SELECT coalesce(max(place), 0) FROM events") == 999
        });
        let (lost, doubled, _) = place.audit(events.sent);
        match (delivery, failpoint) {
            ("at-least-once", _) => assert_eq!((lost, doubled), (0, 100), "{failpoint}"),
            (_, "sink-before-commit") => assert_eq!((lost, doubled), (100, 0)),
            _ => assert_eq!((lost, doubled), (0, 0)),
        }
    }
}

/// The zombie: paused until the group has given its partitions to another, and then awake again.
#[test]
#[ignore = "needs the oncelog binary; cargo xtask test runs it"]
fn a_zombie_writes_nothing() {
    let (broker, place) = (Broker::start(), Place::new());
    broker.topic("t", 2);
    let config = place.config(NO_INBOX);
    let mut events = broker.producer(&[]);
    let zombie = SinkProcess::start(&broker, &config, None);
    for round in 0..2 {
        events.send("t", 3_000);
        let begun = place.count();
        wait("it has begun", || place.count() > begun);
        zombie.pause();
        // A lock of the paused one's would stop SQLite itself, for as long as it is paused.
        while place.is_locked() {
            zombie.resume();
            std::thread::sleep(Duration::from_millis(3));
            zombie.pause();
        }
        let other = SinkProcess::start(&broker, &config, None);
        events.send("t", 500);
        events.flush();
        place.wait_for(events.sent);
        zombie.resume();
        events.send("t", 2_000);
        events.flush();
        place.wait_for(events.sent);
        std::thread::sleep(Duration::from_millis(500));
        assert_eq!(place.audit(events.sent), (0, 0, 0), "round {round}");
        other.kill();
    }
}

impl Place {
    fn is_locked(&self) -> bool {
        let connection = Connection::open(self.home.path().join("s.db")).unwrap();
        connection.busy_timeout(Duration::ZERO).unwrap();
        connection
            .execute_batch("BEGIN IMMEDIATE; ROLLBACK")
            .is_err()
    }
}

#[test]
#[ignore = "needs the oncelog binary; cargo xtask test runs it"]
fn instances_come_and_go() {
    for strategy in ["range", "cooperative-sticky"] {
        let (broker, place) = (Broker::start(), Place::new());
        broker.topic("t", 4);
        let config = place.config(NO_INBOX).replace(
            "\"session.timeout.ms\": 6000",
            &format!(
                "\"session.timeout.ms\": 6000, \"partition.assignment.strategy\": \"{strategy}\""
            ),
        );
        let mut events = broker.producer(&[]);
        let one = SinkProcess::start(&broker, &config, None);
        let mut two = run(&broker, &config);
        let mut three = run(&broker, &config);
        for round in 0..30 {
            events.send("t", 300);
            std::thread::sleep(Duration::from_millis(50));
            match round {
                10 => two.end().unwrap(),
                20 => two = run(&broker, &config),
                _ => {}
            }
        }
        one.kill();
        events.send("t", 1_000);
        events.flush();
        place.wait_for(events.sent);
        wait("both have partitions", || {
            [&two, &three]
                .iter()
                .all(|sink| sink.figures.partitions.load(Ordering::Relaxed) == 2)
        });
        for sink in [&mut two, &mut three] {
            sink.end().unwrap();
        }
        assert_eq!(place.audit(events.sent), (0, 0, 0), "{strategy}");
    }
}

#[test]
#[ignore = "needs the oncelog binary; cargo xtask test runs it"]
fn aborted_transactions_are_not_seen_and_markers_are_passed() {
    let (broker, place) = (Broker::start(), Place::new());
    broker.topic("t", 1);
    let mut sink = run(&broker, &place.config(""));
    let mut events = broker.producer(&[("transactional.id", "x")]);
    events.producer.init_transactions(PATIENCE).unwrap();
    let mut aborted = broker.producer(&[("transactional.id", "y")]);
    aborted.producer.init_transactions(PATIENCE).unwrap();
    for _ in 0..3 {
        for (events, commit) in [(&mut events, true), (&mut aborted, false)] {
            events.producer.begin_transaction().unwrap();
            events.send("t", 10);
            // An abort would leave out what is not sent yet.
            events.flush();
            match commit {
                true => events.producer.commit_transaction(PATIENCE).unwrap(),
                false => events.producer.abort_transaction(PATIENCE).unwrap(),
            }
        }
    }
    place.wait_for(30);
    // Six transactions of ten records and a marker each.
    wait("the offset is past the last marker", || {
        place.number("SELECT next_offset FROM oncelog_sink_offset") == 66
    });
    sink.end().unwrap();
    assert_eq!(place.audit(30), (0, 0, 0));
}

#[test]
#[ignore = "needs the oncelog binary; cargo xtask test runs it"]
fn a_topic_that_was_created_again_is_refused() {
    let (broker, place) = (Broker::start(), Place::new());
    broker.topic("t", 1);
    let config = place.config("");
    let mut events = broker.producer(&[]);
    events.send("t", 100);
    events.flush();
    let mut sink = run(&broker, &config);
    place.wait_for(100);
    sink.end().unwrap();
    broker.oncelog(&["topic", "delete", "t"]);
    broker.topic("t", 1);
    let mut again = broker.producer(&[]);
    again.send("t", 50);
    again.flush();
    let mut sink = run(&broker, &config);
    let Stop::Refused(why) = sink.ended() else {
        panic!("it was not refused")
    };
    assert!(
        why.contains("created again") && why.contains("t-0"),
        "{why}"
    );
    assert_eq!(place.count(), 100);
    // And another cluster is told apart even where its offsets would do.
    let other = Broker::start();
    other.topic("t", 1);
    let mut elsewhere = other.producer(&[]);
    elsewhere.send("t", 200);
    elsewhere.flush();
    let mut sink = run(&other, &config);
    let Stop::Refused(why) = sink.ended() else {
        panic!("it was not refused")
    };
    assert!(why.contains("cluster"), "{why}");
    assert_eq!(place.count(), 100);
}

#[test]
#[ignore = "needs the oncelog binary; cargo xtask test runs it"]
fn records_that_were_deleted_before_they_were_read_are_refused() {
    let (broker, place) = (Broker::start(), Place::new());
    broker.topic("t", 1);
    let config = place.config("");
    let mut events = broker.producer(&[]);
    send_and_read(&broker, &place, &config, &mut events);
    let connection = Connection::open(place.home.path().join("s.db")).unwrap();
    connection
        .execute("UPDATE oncelog_sink_offset SET next_offset = -5", [])
        .unwrap();
    let Stop::Refused(why) = run(&broker, &config).ended() else {
        panic!("it was not refused")
    };
    assert!(why.contains("deleted before they were read"), "{why}");
}

fn send_and_read(broker: &Broker, place: &Place, config: &str, events: &mut Events) {
    events.send("t", KEYS);
    events.flush();
    let mut sink = run(broker, config);
    place.wait_for(events.sent);
    sink.end().unwrap();
}

#[test]
#[ignore = "needs the oncelog binary; cargo xtask test runs it"]
fn poison_halts_or_goes_to_the_dead_letters() {
    let (broker, place) = (Broker::start(), Place::new());
    broker.topic("t", 1);
    let config = place.config("").replace("\"key\"", "\"value.k\"");
    let mut events = broker.producer(&[]);
    events.send("t", 150);
    events.flush();
    broker.oncelog_with_input(&["produce", "t"], "no json\n");
    events.send("t", 10);
    events.flush();
    let Stop::Poison(why) = run(&broker, &config).ended() else {
        panic!("it did not halt")
    };
    assert!(why.contains("t-0@150") && why.contains("no JSON"), "{why}");
    assert_eq!(place.count(), 150, "all before it, and nothing after it");
    let config = place
        .config(r#", "dead.letter": "table""#)
        .replace("\"key\"", "\"value.k\"");
    let mut sink = run(&broker, &config);
    place.wait_for(events.sent);
    sink.end().unwrap();
    assert_eq!(place.audit(events.sent), (0, 0, 0));
    let letters = "SELECT count(*) FROM oncelog_dead_letter WHERE payload = 'no json' \
        AND record_offset = 150";
    assert_eq!(place.number(letters), 1);
}

/// The database itself is killed, again and again, and whatever was under way then is unknown.
fn check_killed_database(
    url: &str,
    table: &str,
    sql: &dyn Fn(&str) -> String,
    kill: &mut dyn FnMut(),
    start: &mut dyn FnMut(),
) {
    let broker = Broker::start();
    broker.topic("t", 3);
    let config = format!(
        r#"{{"name": "s", "topics": ["t"], "database": "{url}", "table": "events", "mode": "insert",
        "batch.max.rows": 100, "inbox": false,
        "columns": {{"id": "value.id", "k": "key", "seq": "value.seq"}}}}"#
    );
    let parsed: Config = serde_json::from_str(&config).unwrap();
    let mut statements = setup::ddl(&parsed).unwrap();
    statements.push(table.to_owned());
    setup::execute(&parsed, &statements).unwrap();
    let mut sink = run(&broker, &config);
    let mut events = broker.producer(&[]);
    for _ in 0..4 {
        let applied = sink.figures.applied.load(Ordering::Relaxed);
        events.send("t", 3_000);
        wait("some are applied", || {
            sink.figures.applied.load(Ordering::Relaxed) > applied + 300
        });
        kill();
        start();
    }
    events.flush();
    let distinct = || {
        sql("SELECT count(DISTINCT id) FROM events")
            .parse::<u64>()
            .unwrap()
    };
    wait("all events have come", || distinct() >= events.sent);
    sink.end().unwrap();
    assert_eq!(sql("SELECT count(*) FROM events"), events.sent.to_string());
    let reordered = sql(
        "SELECT count(*) FROM (SELECT seq - lag(seq, 1) OVER (PARTITION BY k ORDER BY n) AS step \
         FROM events) AS steps WHERE step < 0",
    );
    assert_eq!(reordered, "0");
    assert!(sink.figures.restarts.load(Ordering::Relaxed) >= 4);
    assert_eq!(
        sink.figures.rebalances.load(Ordering::Relaxed),
        1,
        "it stayed in its group"
    );
}

#[test]
#[ignore = "needs PostgreSQL and the oncelog binary; cargo xtask test runs it"]
fn a_killed_postgresql_costs_nothing() {
    let server = std::cell::RefCell::new(PostgreSql::start().unwrap());
    let url = server.borrow().url();
    check_killed_database(
        &url,
        "CREATE TABLE events (n bigserial, id text, k text, seq bigint)",
        &|text| server.borrow().sql(text).unwrap(),
        &mut || server.borrow_mut().kill().unwrap(),
        &mut || server.borrow_mut().restart().unwrap(),
    );
}

#[test]
#[ignore = "needs MariaDB and the oncelog binary; cargo xtask test runs it"]
fn a_killed_mariadb_costs_nothing() {
    let server = std::cell::RefCell::new(MariaDb::start().unwrap());
    let url = server.borrow().url();
    check_killed_database(
        &url,
        "CREATE TABLE events (n bigint AUTO_INCREMENT PRIMARY KEY, id varchar(20), k varchar(20), \
         seq bigint)",
        &|text| server.borrow().sql(text).unwrap(),
        &mut || server.borrow_mut().kill().unwrap(),
        &mut || server.borrow_mut().restart().unwrap(),
    );
}
