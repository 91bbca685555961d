//! The hole in the older protocol of transactions, over real sockets and with librdkafka: a proxy holds
//! an EndTxn back, lets the client's retry and its next transaction through, and then lets it go. It must
//! not end the transaction that it has never belonged to.
//!
//! (The same with every interleaving is the simulator's; the planted bug "late EndTxn accepted" removes
//! the guard, and makes this test fail, too.)

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use oncelog_server::EmbeddedBroker;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

const END_TXN: i16 = 26;
const PATIENCE: Duration = Duration::from_secs(60);

/// A TCP proxy that knows as much of the protocol as the length of a request and its key.
struct Proxy {
    port: u16,
    hold: Arc<AtomicBool>,
    held: Arc<Mutex<Option<Held>>>,
}

/// A request that was not passed on, and the connection to the broker on which it would have been.
struct Held {
    frame: Vec<u8>,
    upstream: TcpStream,
}

impl Proxy {
    fn start(listener: TcpListener, broker: String) -> Proxy {
        let proxy = Proxy {
            port: listener.local_addr().unwrap().port(),
            hold: Arc::default(),
            held: Arc::default(),
        };
        let (hold, held) = (Arc::clone(&proxy.hold), Arc::clone(&proxy.held));
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let upstream = TcpStream::connect(&broker).unwrap();
                let (mut from, mut to) =
                    (upstream.try_clone().unwrap(), client.try_clone().unwrap());
                std::thread::spawn(move || io::copy(&mut from, &mut to));
                let (hold, held) = (Arc::clone(&hold), Arc::clone(&held));
                std::thread::spawn(move || requests(client, upstream, &hold, &held));
            }
        });
        proxy
    }

    fn wait_for_held(&self) {
        let began = Instant::now();
        while self.held.lock().unwrap().is_none() {
            assert!(began.elapsed() < PATIENCE, "no EndTxn came by");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn let_go(&self) {
        let mut held = self.held.lock().unwrap().take().unwrap();
        held.upstream.write_all(&held.frame).unwrap();
        // Its answer, so that it has been dealt with.
        std::thread::sleep(Duration::from_millis(300));
    }
}

/// Passes requests on, but for the first EndTxn while `hold` is set: from then on nothing of this
/// connection is passed on, and the broker's side of it stays open.
fn requests(
    mut client: TcpStream,
    mut upstream: TcpStream,
    hold: &AtomicBool,
    held: &Mutex<Option<Held>>,
) -> io::Result<()> {
    loop {
        let mut frame = vec![0; 4];
        if client.read_exact(&mut frame).is_err() {
            return upstream.shutdown(Shutdown::Both);
        }
        let length = i32::from_be_bytes([frame[0], frame[1], frame[2], frame[3]]);
        frame.resize(4 + length as usize, 0);
        client.read_exact(&mut frame[4..])?;
        let key = i16::from_be_bytes([frame[4], frame[5]]);
        if key == END_TXN && hold.swap(false, Ordering::SeqCst) {
            *held.lock().unwrap() = Some(Held { frame, upstream });
            // The client gives up and connects anew.
            let mut ignored = Vec::new();
            let _ = client.read_to_end(&mut ignored);
            return Ok(());
        }
        upstream.write_all(&frame)?;
    }
}

fn committed(bootstrap: &str, topic: &str) -> Vec<String> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", "reader")
        .set("isolation.level", "read_committed")
        .set("enable.partition.eof", "true")
        .set("auto.offset.reset", "earliest")
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
                seen.push(String::from_utf8(message.payload().unwrap().to_vec()).unwrap());
            }
            Some(Err(rdkafka::error::KafkaError::PartitionEOF(_))) => return seen,
            _ => {}
        }
    }
    panic!("the end of {topic} was not reached");
}

fn send(producer: &BaseProducer, topic: &str, value: &str) {
    producer
        .send(BaseRecord::<(), str>::to(topic).payload(value))
        .unwrap();
    producer.flush(PATIENCE).unwrap();
}

#[test]
fn an_end_txn_that_comes_late_ends_no_later_transaction() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    // Free a moment ago: clients are told the proxy's address, so the broker cannot say its own.
    let own = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let _broker = EmbeddedBroker::builder()
        .property("listeners", &format!("PLAINTEXT://{own}"))
        .property(
            "advertised.listeners",
            &format!("PLAINTEXT://127.0.0.1:{port}"),
        )
        .start()
        .unwrap();
    let proxy = Proxy::start(listener, own.to_string());
    let bootstrap = format!("127.0.0.1:{}", proxy.port);
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &bootstrap)
        .set("transactional.id", "late")
        // It gives up on the held request soon.
        .set("socket.timeout.ms", "1500")
        .set("transaction.timeout.ms", "60000")
        .create()
        .unwrap();
    producer.init_transactions(PATIENCE).unwrap();

    proxy.hold.store(true, Ordering::SeqCst);
    producer.begin_transaction().unwrap();
    send(&producer, "t", "first");
    producer.commit_transaction(PATIENCE).unwrap();
    proxy.wait_for_held();

    producer.begin_transaction().unwrap();
    send(&producer, "t", "second");
    assert_eq!(committed(&bootstrap, "t"), ["first"]);
    proxy.let_go();
    assert_eq!(
        committed(&bootstrap, "t"),
        ["first"],
        "the second transaction was ended by it"
    );
    producer.abort_transaction(PATIENCE).unwrap();
    assert_eq!(committed(&bootstrap, "t"), ["first"]);

    producer.begin_transaction().unwrap();
    send(&producer, "t", "third");
    producer.commit_transaction(PATIENCE).unwrap();
    assert_eq!(committed(&bootstrap, "t"), ["first", "third"]);
}
