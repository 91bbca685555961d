//! A relay over SQLite and a real broker: what a row that cannot be published does, who is fenced, and
//! what is refused. (Crashes are `cargo xtask pipeline`'s.)

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use oncelog_relay::config::Config;
use oncelog_relay::host::Figures;
use oncelog_relay::kafka::{self, Kafka};
use oncelog_relay::launch;
use oncelog_relay::position::{Position, Progress};
use oncelog_relay::relay::{Delivery, Stop};
use oncelog_relay::topics::Topics;
use oncelog_server::EmbeddedBroker;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message};
use rdkafka::producer::{BaseProducer, BaseRecord};

const PATIENCE: Duration = Duration::from_secs(30);

struct Setup {
    broker: EmbeddedBroker,
    dir: tempfile::TempDir,
}

/// A relay on a thread of its own.
struct Running {
    stop: Arc<AtomicBool>,
    figures: Arc<Figures>,
    thread: JoinHandle<Result<Option<Stop>, String>>,
}

impl Setup {
    fn new() -> Setup {
        let setup = Setup {
            broker: EmbeddedBroker::start().unwrap(),
            dir: tempfile::tempdir().unwrap(),
        };
        launch::apply(&setup.config("")).unwrap();
        setup
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("shop.db")
    }

    fn config(&self, more: &str) -> Config {
        let database = format!("sqlite:{}", self.path().display());
        serde_json::from_str(&format!(
            r#"{{"name": "orders", "database": "{database}"{more}}}"#
        ))
        .unwrap()
    }

    fn insert(&self, aggregate: &str, payload: &str) {
        let connection = rusqlite::Connection::open(self.path()).unwrap();
        connection.busy_timeout(PATIENCE).unwrap();
        let insert =
            "INSERT INTO outbox (aggregatetype, aggregateid, payload) VALUES (?1, 'a', ?2)";
        connection.execute(insert, [aggregate, payload]).unwrap();
    }

    fn waiting(&self) -> i64 {
        let connection = rusqlite::Connection::open(self.path()).unwrap();
        connection.busy_timeout(PATIENCE).unwrap();
        connection
            .query_row("SELECT count(*) FROM outbox", [], |row| row.get(0))
            .unwrap()
    }

    fn run(&self, more: &str) -> Running {
        let (config, bootstrap) = (self.config(more), self.broker.bootstrap_servers());
        let (stop, figures) = (Arc::<AtomicBool>::default(), Arc::<Figures>::default());
        let thread = {
            let (stop, figures) = (Arc::clone(&stop), Arc::clone(&figures));
            std::thread::spawn(move || launch::run(&config, &bootstrap, &stop, &figures))
        };
        Running {
            stop,
            figures,
            thread,
        }
    }

    /// Payloads (their first 20 characters) with the named header, as read_committed shows them.
    fn committed(&self, topic: &str, header: &str) -> Vec<(String, String)> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", self.broker.bootstrap_servers())
            .set("group.id", "reader")
            .set("isolation.level", "read_committed")
            .set("enable.partition.eof", "true")
            .create()
            .unwrap();
        let mut assignment = rdkafka::TopicPartitionList::new();
        let beginning = rdkafka::Offset::Beginning;
        assignment
            .add_partition_offset(topic, 0, beginning)
            .unwrap();
        consumer.assign(&assignment).unwrap();
        let mut seen = Vec::new();
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            match consumer.poll(Duration::from_millis(100)) {
                Some(Ok(message)) => {
                    let payload = String::from_utf8_lossy(message.payload().unwrap()).into_owned();
                    let headers = message.headers().unwrap();
                    let found = headers
                        .iter()
                        .find(|one| one.key == header)
                        .and_then(|one| one.value);
                    let found = String::from_utf8_lossy(found.unwrap_or_default()).into_owned();
                    seen.push((payload.chars().take(20).collect(), found));
                }
                Some(Err(rdkafka::error::KafkaError::PartitionEOF(_))) => return seen,
                _ => {}
            }
        }
        panic!("the end of {topic} was not reached");
    }

    fn payloads(&self, topic: &str) -> Vec<String> {
        self.committed(topic, "id")
            .into_iter()
            .map(|(payload, _)| payload)
            .collect()
    }
}

impl Running {
    fn wait_for(&self, published: u64) {
        let began = Instant::now();
        while self.figures.published.load(Ordering::Relaxed) < published {
            assert!(began.elapsed() < PATIENCE, "{:?}", self.figures);
            assert!(!self.thread.is_finished(), "it has stopped");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn stop(self) -> Option<Stop> {
        self.stop.store(true, Ordering::Relaxed);
        self.end()
    }

    fn end(self) -> Option<Stop> {
        self.thread.join().unwrap().unwrap()
    }
}

#[test]
fn a_row_that_is_too_large_goes_to_the_dead_letters_in_parts_and_the_others_stay_in_order() {
    let setup = Setup::new();
    let large = "x".repeat(2_000_000);
    for payload in ["1", "2", large.as_str(), "3"] {
        setup.insert("order", payload);
    }
    let relay = setup.run(r#", "on.poison": "quarantine""#);
    relay.wait_for(3 + 8);
    while setup.waiting() > 0 {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(relay.stop(), None);
    assert_eq!(setup.payloads("outbox.event.order"), ["1", "2", "3"]);
    let parts = setup.committed("oncelog.relay.orders.dead-letter", "oncelog.part");
    let numbers: Vec<&str> = parts.iter().map(|(_, part)| part.as_str()).collect();
    assert_eq!(
        numbers,
        ["1/8", "2/8", "3/8", "4/8", "5/8", "6/8", "7/8", "8/8"]
    );
}

#[test]
fn a_row_that_cannot_be_routed_halts_the_relay_after_those_before_it() {
    let setup = Setup::new();
    setup.insert("order", "1");
    setup.insert("no topic", "2");
    setup.insert("order", "3");
    let stopped = setup.run("").end();
    assert!(
        matches!(&stopped, Some(Stop::Poison(why)) if why.contains("no topic")),
        "{stopped:?}"
    );
    assert_eq!(setup.payloads("outbox.event.order"), ["1"]);
    assert_eq!(setup.waiting(), 2);
}

#[test]
fn the_later_of_two_instances_goes_on_and_the_earlier_is_fenced() {
    let setup = Setup::new();
    setup.insert("order", "1");
    let first = setup.run("");
    first.wait_for(1);
    let second = setup.run("");
    let began = Instant::now();
    let mut number = 1;
    // Whichever has the next row: the first is fenced with it at the latest.
    while !first.thread.is_finished() {
        assert!(began.elapsed() < PATIENCE, "the first one was not fenced");
        number += 1;
        setup.insert("order", &number.to_string());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(matches!(first.end(), Some(Stop::Fenced(_))));
    while setup.waiting() > 0 {
        assert!(began.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(second.stop(), None);
    let expected: Vec<String> = (1..=number).map(|number| number.to_string()).collect();
    assert_eq!(setup.payloads("outbox.event.order"), expected);
}

#[test]
fn a_database_that_was_made_anew_is_refused() {
    let setup = Setup::new();
    setup.insert("order", "1");
    let relay = setup.run("");
    relay.wait_for(1);
    assert_eq!(relay.stop(), None);
    // The same relay, of a database that was made anew.
    std::fs::remove_file(setup.path()).unwrap();
    launch::apply(&setup.config("")).unwrap();
    let stopped = setup.run("").end();
    assert!(
        matches!(&stopped, Some(Stop::Refused(why)) if why.contains("another database")),
        "{stopped:?}"
    );
}

/// An instance that was overtaken has to find that out: it must not go on reading for as long as its
/// successor writes.
#[test]
fn progress_is_read_to_an_end_while_somebody_writes() {
    let broker = EmbeddedBroker::start().unwrap();
    let settings = kafka::Settings {
        bootstrap: broker.bootstrap_servers(),
        delivery: Delivery::ExactlyOnce,
        transactional_id: "orders".to_owned(),
        progress_topic: "orders.progress".to_owned(),
        shards: 1,
        shard: 0,
        properties: Vec::new(),
    };
    let mut topics = Kafka::new(settings, Arc::default()).unwrap();
    topics.init().unwrap();
    assert_eq!(topics.progress(), Ok(None));
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", broker.bootstrap_servers())
        .set("linger.ms", "0")
        .create()
        .unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let writer = {
        let stop = Arc::clone(&stop);
        std::thread::spawn(move || {
            let mut sequence = 0;
            while !stop.load(Ordering::Relaxed) {
                sequence += 1;
                let progress = Progress::new("sqlite:1", Position::Cursor { sequence });
                let value = progress.encode();
                let record = BaseRecord::to("orders.progress")
                    .key("orders")
                    .payload(&value);
                // A full queue is as good.
                let _ = producer.send(record);
                producer.poll(Duration::from_micros(200));
            }
        })
    };
    // As long as there is nothing, there is nothing to go on reading.
    let began = Instant::now();
    while topics.progress() == Ok(None) {
        assert!(began.elapsed() < PATIENCE);
    }
    let read = Instant::now();
    for _ in 0..10 {
        assert!(topics.progress().unwrap().is_some());
    }
    let took = read.elapsed();
    stop.store(true, Ordering::Relaxed);
    writer.join().unwrap();
    assert!(took < PATIENCE / 3, "it took {took:?}");
}
