//! What a careless or hostile client can do to the others: nothing.

mod client;

use client::Client;
use oncelog_server::EmbeddedBroker;
use oncelog_wire::ResponseBody;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// Whether the broker serves somebody else as if nothing had happened.
fn serves(broker: &EmbeddedBroker) {
    let began = Instant::now();
    Client::connect(&broker.bootstrap_servers())
        .ask(0, client::api_versions())
        .unwrap();
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
}

fn is_closed(stream: &mut TcpStream) {
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    let mut byte = [0];
    match stream.read(&mut byte) {
        Ok(0) => {}
        Err(e) if e.kind() == ErrorKind::ConnectionReset => {}
        other => panic!("it is open: {other:?}"),
    }
}

#[test]
fn garbage_ends_its_connection_and_no_other() {
    let broker = EmbeddedBroker::start().unwrap();
    let frame = |body: &[u8]| [&(body.len() as u32).to_be_bytes(), body].concat();
    let garbage: Vec<Vec<u8>> = vec![
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        vec![0xff; 64],
        vec![0; 64],
        vec![0x7f; 64],
        frame(b"x"),
        frame(&[0, 99, 0, 0, 0, 0, 0, 1, 0xff, 0xff]), // no such API
        frame(&[0, 3, 0, 99, 0, 0, 0, 1, 0xff, 0xff]), // Metadata in no such version
        frame(&[0, 3, 0, 1, 0, 0, 0, 1, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff]), // a huge count
        frame(&[0, 0, 0, 9]),
    ];
    for bytes in &garbage {
        let mut stream = TcpStream::connect(broker.bootstrap_servers()).unwrap();
        stream.write_all(bytes).unwrap();
        is_closed(&mut stream);
        serves(&broker);
    }
    // Random bytes, and valid frames with random damage.
    let mut state = 12345u64;
    let mut random = || {
        state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (state >> 33) as usize
    };
    let mut client = Client::connect(&broker.bootstrap_servers());
    client.create_topic("events", 1);
    let valid = Client::connect(&broker.bootstrap_servers()).frame(
        client::PRODUCE,
        &client::produce("events", 0, -1, &[&b"abc"[..]; 10]),
    );
    for _ in 0..200 {
        let mut stream = TcpStream::connect(broker.bootstrap_servers()).unwrap();
        let mut bytes = valid.to_vec();
        for _ in 0..1 + random() % 4 {
            let at = 4 + random() % (bytes.len() - 4);
            bytes[at] = random() as u8;
        }
        stream.write_all(&bytes).unwrap();
    }
    serves(&broker);
    // Nothing damaged was taken: every batch there is whole.
    for value in client.fetch_all("events") {
        assert_eq!(value, "abc");
    }
}

#[test]
fn half_frames_and_announced_lengths_cost_nothing() {
    let broker = EmbeddedBroker::builder()
        .property("http.listener", "http://127.0.0.1:0")
        .start()
        .unwrap();
    let mut halves = Vec::new();
    for number in 0..200u32 {
        let mut stream = TcpStream::connect(broker.bootstrap_servers()).unwrap();
        match number % 3 {
            0 => stream.write_all(&[0, 0]).unwrap(),
            1 => stream.write_all(&(100u32 << 20).to_be_bytes()).unwrap(),
            _ => stream.write_all(&[0, 0, 1, 0, 0, 0, 0, 9]).unwrap(),
        }
        halves.push(stream);
    }
    serves(&broker);
    std::thread::sleep(Duration::from_millis(200));
    let mut stream = TcpStream::connect(broker.http_addr().unwrap()).unwrap();
    write!(
        stream,
        "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut metrics = String::new();
    stream.read_to_string(&mut metrics).unwrap();
    let held = metrics
        .lines()
        .find_map(|l| l.strip_prefix("oncelog_request_memory_bytes "));
    let held: u64 = held.unwrap().parse().unwrap();
    assert!(
        held <= 140 * (128 << 10),
        "{held} bytes for 200 connections that sent 8 at most"
    );
    // One over the limit is refused at once.
    let mut stream = TcpStream::connect(broker.bootstrap_servers()).unwrap();
    stream
        .write_all(&((100u32 << 20) + 1).to_be_bytes())
        .unwrap();
    is_closed(&mut stream);
}

#[test]
fn a_frame_that_arrives_byte_by_byte_is_served() {
    let broker = EmbeddedBroker::start().unwrap();
    let mut client = Client::connect(&broker.bootstrap_servers());
    client.create_topic("events", 1);
    let frame = client.frame(
        client::PRODUCE,
        &client::produce("events", 0, -1, &[b"slow"]),
    );
    for byte in frame.iter() {
        client.stream.write_all(&[*byte]).unwrap();
        std::thread::sleep(Duration::from_micros(200));
    }
    assert_eq!(client::base_offset(&client.receive().unwrap()), Ok(0));
}

/// More requests at once than there is memory for: all are served, and in bounded memory.
#[test]
fn large_requests_share_a_small_memory() {
    let broker = EmbeddedBroker::builder()
        .property("queued.max.request.bytes", "4000000")
        .property("message.max.bytes", "10000000")
        .start()
        .unwrap();
    let bootstrap = broker.bootstrap_servers();
    Client::connect(&bootstrap).create_topic("events", 1);
    let threads: Vec<_> = (0..12u8)
        .map(|thread| {
            let bootstrap = bootstrap.clone();
            std::thread::spawn(move || {
                let mut client = Client::connect(&bootstrap);
                let value = vec![thread; 3_000_000];
                let frame = client.frame(
                    client::PRODUCE,
                    &client::produce("events", 0, -1, &[&value]),
                );
                // In pieces, so that all of them are half way at the same time.
                for piece in frame.chunks(200_000) {
                    client.stream.write_all(piece).unwrap();
                    std::thread::sleep(Duration::from_millis(5));
                }
                client::base_offset(&client.receive().unwrap()).unwrap();
            })
        })
        .collect();
    std::thread::sleep(Duration::from_millis(50));
    serves(&broker); // small requests get through between the large ones
    threads
        .into_iter()
        .for_each(|thread| thread.join().unwrap());
    let values = Client::connect(&bootstrap).fetch_all("events");
    assert_eq!(values.len(), 12);
}

/// A client that stops sending half way must not keep the others from the memory that it holds.
#[test]
fn a_finisher_that_stalls_is_closed() {
    let broker = EmbeddedBroker::builder()
        .property("queued.max.request.bytes", "1000000")
        .property("message.max.bytes", "10000000")
        .start()
        .unwrap();
    let bootstrap = broker.bootstrap_servers();
    Client::connect(&bootstrap).create_topic("events", 1);
    // Several take all there is and go no further.
    let mut stalled = Vec::new();
    for _ in 0..4 {
        let mut stream = TcpStream::connect(&bootstrap).unwrap();
        stream.write_all(&(9_000_000u32).to_be_bytes()).unwrap();
        stream.write_all(&vec![0; 600_000]).unwrap();
        stalled.push(stream);
    }
    std::thread::sleep(Duration::from_millis(100));
    let mut client = Client::connect(&bootstrap);
    client
        .stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    let began = Instant::now();
    assert_eq!(client.produce("events", &[&vec![1; 2_000_000]]), Ok(0));
    assert!(
        began.elapsed() < Duration::from_secs(40),
        "{:?}",
        began.elapsed()
    );
}

#[test]
fn a_slow_reader_holds_nothing_up() {
    let broker = EmbeddedBroker::start().unwrap();
    let mut client = Client::connect(&broker.bootstrap_servers());
    client.create_topic("events", 1);
    let value = vec![5; 500_000];
    for _ in 0..20 {
        client.produce("events", &[&value]).unwrap();
    }
    // Asks for 10 MB a hundred times and takes nothing.
    let mut slow = Client::connect(&broker.bootstrap_servers());
    for _ in 0..100 {
        slow.send(client::FETCH, &client::fetch("events", 0, 0, 50 << 20))
            .unwrap();
    }
    std::thread::sleep(Duration::from_millis(300));
    serves(&broker);
    let rss = std::fs::read_to_string("/proc/self/status").unwrap();
    let rss = rss.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap();
    let rss_kb: u64 = rss.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(rss_kb < 700_000, "{rss_kb} kB: the answers are in memory");
    // Then takes it all: complete and in order.
    for _ in 0..100 {
        let (values, _) = client::fetched(&slow.receive().unwrap());
        assert_eq!(values.len(), 20);
        assert!(values.iter().all(|v| v[..] == value[..]));
    }
}

#[test]
fn a_client_that_only_asks_is_made_to_wait() {
    let broker = EmbeddedBroker::start().unwrap();
    let mut client = Client::connect(&broker.bootstrap_servers());
    client
        .stream
        .set_write_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let mut reader = client.stream.try_clone().unwrap();
    // 20,000 pipelined requests; their answers are taken only later.
    let one = client.frame(0, &client::api_versions());
    let answer_bytes = {
        client.stream.write_all(&one).unwrap();
        let mut length = [0; 4];
        reader.read_exact(&mut length).unwrap();
        let mut rest = vec![0; u32::from_be_bytes(length) as usize];
        reader.read_exact(&mut rest).unwrap();
        4 + rest.len()
    };
    let many = 20_000;
    let mut writer = client.stream.try_clone().unwrap();
    let all = one.repeat(many);
    let writing = std::thread::spawn(move || writer.write_all(&all).unwrap());
    std::thread::sleep(Duration::from_millis(300));
    serves(&broker);
    let mut left = many * answer_bytes;
    let mut buffer = vec![0; 1 << 20];
    while left > 0 {
        let read = reader.read(&mut buffer).unwrap();
        assert!(read > 0, "closed with {left} bytes to come");
        left -= read;
    }
    writing.join().unwrap();
}

/// Requests that may overlap and requests that may not, some of which wait: all are answered, and in
/// order, whoever has to wake the connection for it.
#[test]
fn pipelined_requests_of_any_kind_are_answered_in_order() {
    let broker = EmbeddedBroker::start().unwrap();
    let mut client = Client::connect(&broker.bootstrap_servers());
    client.create_topic("events", 1);
    let (mut sent, mut state) = (0, 7u64);
    for _ in 0..20 {
        let (mut kinds, mut ahead) = (Vec::new(), 0);
        for _ in 0..60 {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1);
            let kind = (state >> 60) % 4;
            let (version, body) = match kind {
                0 => (client::PRODUCE, client::produce("events", 0, -1, &[b"v"])),
                1 => (0, client::api_versions()),
                2 => (client::FETCH, client::fetch("events", 0, 0, 1 << 20)),
                // Nothing is there yet: it waits, and those behind it.
                _ => (
                    client::FETCH,
                    client::fetch("events", sent + ahead, 5, 1 << 20),
                ),
            };
            client.send(version, &body).unwrap();
            kinds.push(kind);
            ahead += i64::from(kind == 0);
        }
        for kind in kinds {
            let answer = client.receive().unwrap();
            match (kind, &answer) {
                (0, ResponseBody::Produce(_)) => {
                    assert_eq!(client::base_offset(&answer), Ok(sent));
                    sent += 1;
                }
                (1, ResponseBody::ApiVersions(_)) => {}
                (2 | 3, ResponseBody::Fetch(fetch)) => {
                    assert_eq!(fetch.responses[0].partitions[0].error_code, 0);
                }
                _ => panic!("to {kind}: {answer:?}"),
            }
        }
    }
    assert_eq!(client.fetch_all("events").len() as i64, sent);
}

#[test]
fn idle_connections_are_closed_and_waiting_ones_are_not() {
    let broker = EmbeddedBroker::builder()
        .property("connections.max.idle.ms", "300")
        .start()
        .unwrap();
    let mut client = Client::connect(&broker.bootstrap_servers());
    client.create_topic("events", 1);
    // Waits for an answer for longer than that.
    assert!(client.fetch("events", 0, 1500).0.is_empty());
    let mut idle = TcpStream::connect(broker.bootstrap_servers()).unwrap();
    is_closed(&mut idle);
    is_closed(&mut client.stream);
}

#[test]
fn two_thousand_idle_connections_harm_nobody() {
    let broker = EmbeddedBroker::start().unwrap();
    let idle: Vec<TcpStream> = (0..2000)
        .map(|_| TcpStream::connect(broker.bootstrap_servers()).unwrap())
        .collect();
    serves(&broker);
    let mut last = Client::connect(&broker.bootstrap_servers());
    last.ask(0, client::api_versions()).unwrap();
    drop(idle);
    serves(&broker);
}

#[test]
fn past_max_connections_the_new_one_is_turned_away() {
    let broker = EmbeddedBroker::builder()
        .property("max.connections", "3")
        .start()
        .unwrap();
    let mut clients: Vec<Client> = (0..3)
        .map(|_| Client::connect(&broker.bootstrap_servers()))
        .collect();
    for client in &mut clients {
        client.ask(0, client::api_versions()).unwrap();
    }
    let mut fourth = TcpStream::connect(broker.bootstrap_servers()).unwrap();
    is_closed(&mut fourth);
    drop(clients.pop());
    std::thread::sleep(Duration::from_millis(100));
    Client::connect(&broker.bootstrap_servers())
        .ask(0, client::api_versions())
        .unwrap();
}
