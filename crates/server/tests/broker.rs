//! The whole broker over real sockets and files: what is acknowledged stays.

mod client;

use client::Client;
use oncelog_server::EmbeddedBroker;
use oncelog_wire::ResponseBody;
use std::time::{Duration, Instant};

#[test]
fn what_is_produced_is_fetched() {
    let broker = EmbeddedBroker::start().unwrap();
    let mut client = Client::connect(&broker.bootstrap_servers());
    client.create_topic("events", 1);
    assert_eq!(client.produce("events", &[b"a", b"b"]), Ok(0));
    assert_eq!(client.produce("events", &[b"c"]), Ok(2));
    assert_eq!(client.fetch_all("events"), ["a", "b", "c"]);
    let big = vec![7; 900_000];
    assert_eq!(client.produce("events", &[&big]), Ok(3));
    assert_eq!(client.fetch("events", 3, 0).0, [big]);
}

#[test]
fn what_was_acknowledged_survives_a_kill() {
    let directory = tempfile::tempdir().unwrap();
    let start = || {
        EmbeddedBroker::builder()
            .data_dir(directory.path())
            .start()
            .unwrap()
    };
    let mut expected = Vec::new();
    for round in 0..4 {
        let broker = start();
        let mut client = Client::connect(&broker.bootstrap_servers());
        if round == 0 {
            client.create_topic("events", 1);
        }
        assert_eq!(client.fetch_all("events"), expected);
        for number in 0..50 {
            let value = format!("{round}-{number}");
            assert_eq!(
                client.produce("events", &[value.as_bytes()]),
                Ok(expected.len() as i64)
            );
            expected.push(value);
        }
        match round {
            1 => broker.stop().unwrap(),
            _ => broker.kill(),
        }
    }
    let broker = start();
    assert_eq!(
        Client::connect(&broker.bootstrap_servers()).fetch_all("events"),
        expected
    );
}

#[test]
fn acks_0_and_1_and_no_sync() {
    let broker = EmbeddedBroker::builder()
        .property("log.flush.interval.messages", "9223372036854775807")
        .start()
        .unwrap();
    let mut client = Client::connect(&broker.bootstrap_servers());
    client.create_topic("events", 1);
    for acks in [-1, 0, 1, 0, 1] {
        let request = client::produce("events", 0, acks, &[b"x"]);
        if acks == 0 {
            let frame = oncelog_wire::frame::encode_request(0, None, client::PRODUCE, &request);
            let frame = frame.unwrap().to_bytes().unwrap();
            std::io::Write::write_all(&mut client.stream, &frame).unwrap();
        } else {
            let answer = client.ask(client::PRODUCE, request).unwrap();
            client::base_offset(&answer).unwrap();
        }
    }
    assert_eq!(client.fetch_all("events").len(), 5);
}

#[test]
fn a_waiting_fetch_is_woken_by_the_append() {
    let broker = EmbeddedBroker::start().unwrap();
    let mut producer = Client::connect(&broker.bootstrap_servers());
    producer.create_topic("events", 1);
    let mut consumer = Client::connect(&broker.bootstrap_servers());
    consumer
        .send(client::FETCH, &client::fetch("events", 0, 15_000, 1 << 20))
        .unwrap();
    std::thread::sleep(Duration::from_millis(100));
    let began = Instant::now();
    producer.produce("events", &[b"now"]).unwrap();
    let answer = consumer.receive().unwrap();
    assert_eq!(client::fetched(&answer).0, ["now"]);
    assert!(began.elapsed() < Duration::from_secs(5));
    // And without one, the wait ends by itself.
    let began = Instant::now();
    assert!(consumer.fetch("events", 1, 300).0.is_empty());
    assert!(
        began.elapsed() >= Duration::from_millis(290),
        "{:?}",
        began.elapsed()
    );
}

#[test]
fn many_producers_share_their_syncs_and_lose_nothing() {
    let broker = EmbeddedBroker::start().unwrap();
    let bootstrap = broker.bootstrap_servers();
    Client::connect(&bootstrap).create_topic("events", 1);
    let threads: Vec<_> = (0..8u8)
        .map(|thread| {
            let bootstrap = bootstrap.clone();
            std::thread::spawn(move || {
                let mut client = Client::connect(&bootstrap);
                for _ in 0..10 {
                    // Ten at a time, answered in order.
                    for _ in 0..10 {
                        let request = client::produce("events", 0, -1, &[&[thread; 100]]);
                        client.send(client::PRODUCE, &request).unwrap();
                    }
                    for _ in 0..10 {
                        client::base_offset(&client.receive().unwrap()).unwrap();
                    }
                }
            })
        })
        .collect();
    threads
        .into_iter()
        .for_each(|thread| thread.join().unwrap());
    let values = Client::connect(&bootstrap).fetch_all("events");
    for thread in 0..8u8 {
        assert_eq!(
            values
                .iter()
                .filter(|value| value[..] == [thread; 100])
                .count(),
            100
        );
    }
}

#[test]
fn a_second_broker_on_the_directory_is_refused() {
    let broker = EmbeddedBroker::start().unwrap();
    let second = EmbeddedBroker::builder()
        .data_dir(broker.data_dir())
        .start();
    let said = second.err().expect("refused").to_string();
    assert!(
        said.contains("in use by another broker (process "),
        "{said}"
    );
}

#[test]
fn a_port_in_use_is_refused_in_words() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let second = EmbeddedBroker::builder()
        .property("listeners", &format!("PLAINTEXT://127.0.0.1:{port}"))
        .start();
    let said = second.err().expect("refused").to_string();
    assert!(said.contains("another program uses the port"), "{said}");
}

#[test]
fn a_disk_that_is_full_stops_the_broker_without_an_acknowledgement() {
    let broker = EmbeddedBroker::start().unwrap();
    let mut client = Client::connect(&broker.bootstrap_servers());
    client.create_topic("events", 2);
    assert_eq!(client.produce("events", &[b"before"]), Ok(0));
    // The segment of partition 1 comes into being with its first append: on a full device.
    let segment = broker.data_dir().join("events-1/00000000000000000000.log");
    std::fs::create_dir_all(segment.parent().unwrap()).unwrap(); // if the broker has not yet
    let _ = std::fs::remove_file(&segment);
    std::os::unix::fs::symlink("/dev/full", &segment).unwrap();
    client
        .send(
            client::PRODUCE,
            &client::produce("events", 1, -1, &[b"lost"]),
        )
        .unwrap();
    assert!(client.receive().is_err(), "nothing may be acknowledged");
    let began = Instant::now();
    let failure = loop {
        if let Some(failure) = broker.failure() {
            break failure;
        }
        assert!(
            began.elapsed() < Duration::from_secs(10),
            "the broker went on"
        );
        std::thread::sleep(Duration::from_millis(10));
    };
    let said = failure.to_string();
    assert!(
        said.contains("The disk is full") && said.contains("events-1"),
        "{said}"
    );
    let directory = broker.data_dir().to_owned();
    assert!(broker.stop().is_err());
    // What was acknowledged before is there.
    if directory.exists() {
        panic!("a temporary directory goes with its broker");
    }
}

#[test]
fn stopping_does_not_wait_for_clients() {
    let broker = EmbeddedBroker::start().unwrap();
    let mut client = Client::connect(&broker.bootstrap_servers());
    client.create_topic("events", 1);
    client
        .send(client::FETCH, &client::fetch("events", 0, 60_000, 1 << 20))
        .unwrap();
    let began = Instant::now();
    broker.stop().unwrap();
    assert!(
        began.elapsed() < Duration::from_secs(3),
        "{:?}",
        began.elapsed()
    );
    assert!(client.receive().is_err());
}

#[test]
fn health_and_metrics() {
    let broker = EmbeddedBroker::builder()
        .property("http.listener", "http://127.0.0.1:0")
        .start()
        .unwrap();
    let mut client = Client::connect(&broker.bootstrap_servers());
    client.create_topic("events", 1);
    client.produce("events", &[b"a", b"b"]).unwrap();
    let get = |path: &str| {
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect(broker.http_addr().unwrap()).unwrap();
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    assert!(get("/readyz").starts_with("HTTP/1.1 200"));
    let metrics = get("/metrics");
    for line in [
        "kafka_topic_partition_current_offset{topic=\"events\",partition=\"0\"} 2",
        "kafka_server_brokertopicmetrics_messagesin_total 2",
        "oncelog_connections 1",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
}

#[test]
fn unsupported_versions_are_answered_as_kafka_does() {
    let broker = EmbeddedBroker::start().unwrap();
    let mut client = Client::connect(&broker.bootstrap_servers());
    // ApiVersions in a version of the future, pipelined behind others, is answered in version 0
    // and in its turn.
    client.create_topic("events", 1);
    client
        .send(client::PRODUCE, &client::produce("events", 0, -1, &[b"x"]))
        .unwrap();
    let mut frame = client.frame(0, &client::api_versions()).to_vec();
    frame[6..8].copy_from_slice(&99i16.to_be_bytes());
    std::io::Write::write_all(&mut client.stream, &frame).unwrap();
    client.send(0, &client::api_versions()).unwrap();
    client::base_offset(&client.receive().unwrap()).unwrap();
    let ResponseBody::ApiVersions(answer) = client.receive().unwrap() else {
        panic!()
    };
    assert_eq!(answer.error_code, 35);
    let ResponseBody::ApiVersions(answer) = client.receive().unwrap() else {
        panic!()
    };
    assert_eq!(answer.error_code, 0);
}
