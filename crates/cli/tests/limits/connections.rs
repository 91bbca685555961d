//! Many connections that do nothing, and more than there are descriptors for.

use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::raw::{self, Client};
use crate::{ONCELOG, alone, mib};
use crash_campaign::process::{Broker, say};

const CONNECTIONS: usize = 10_000;
const BYTES_PER_CONNECTION_MAX: u64 = 20_000;
/// The broker keeps a quarter of its descriptors for files.
const DESCRIPTORS_MIN: u64 = 14_000;

#[test]
fn ten_thousand_idle_connections_cost_little_and_hold_nobody_up() {
    let _alone = alone();
    let limit = getrlimit(Resource::Nofile);
    let allowed = limit.maximum.unwrap_or(u64::MAX);
    if allowed < DESCRIPTORS_MIN {
        return say(&format!(
            "SKIPPED ten thousand connections: this process may open {allowed} files, and \
             {DESCRIPTORS_MIN} are needed (ulimit -Hn)"
        ));
    }
    let raised = Rlimit {
        current: Some(allowed),
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, raised).unwrap();
    let broker = Broker::started(ONCELOG, &[]);
    let port = broker.port();
    Client::connect(port).unwrap().create_topic("events", &[]);
    let quiet = raw::bystander(port, "events", 200);
    std::thread::sleep(Duration::from_millis(500));

    let before = broker.resident();
    let began = Instant::now();
    let mut open = Vec::with_capacity(CONNECTIONS);
    for number in 0..CONNECTIONS {
        let mut client = Client::connect(port).unwrap();
        // As a client does that has just come: it asks for versions and then has nothing to say.
        let asked = client.ask(0, &raw::api_versions());
        asked.unwrap_or_else(|error| panic!("connection {number}: {error}"));
        open.push(client);
    }
    let took = began.elapsed();
    std::thread::sleep(Duration::from_millis(500));
    let each = broker.resident().saturating_sub(before) / CONNECTIONS as u64;
    let busy = raw::bystander(port, "events", 200);
    let closing = Instant::now();
    drop(open);
    Client::connect(port)
        .unwrap()
        .ask(0, &raw::api_versions())
        .unwrap();
    let served_again = closing.elapsed();
    std::thread::sleep(Duration::from_secs(1));
    say(&format!(
        "{CONNECTIONS} idle connections: opened and answered once in {took:.1?}, {each} bytes \
         each, {} when all are closed; a new one was served {served_again:.0?} later\n  \
         before: {quiet}\n  meanwhile: {busy}",
        mib(broker.resident())
    ));
    assert!(each < BYTES_PER_CONNECTION_MAX, "{each}");
    assert!(busy.longest() < Duration::from_secs(5), "{busy}");
}

/// Files come before connections: those who are served go on being served, the rest is turned away
/// at once, and there is room again as soon as somebody goes.
#[test]
fn a_broker_out_of_descriptors_serves_who_is_there() {
    let _alone = alone();
    let mut broker = Broker::new(ONCELOG, &["log.segment.bytes=1048576"]);
    broker.files_max = Some(600);
    broker.start();
    let port = broker.port();
    let mut first = Client::connect(port).unwrap();
    first.create_topic("events", &[]);
    let mut served = Vec::new();
    let mut refused = 0;
    for _ in 0..800 {
        let Ok(mut client) = Client::connect(port) else {
            refused += 1;
            continue;
        };
        match client.ask(0, &raw::api_versions()) {
            Ok(_) => served.push(client),
            Err(_) => refused += 1,
        }
    }
    // New segments need new files.
    for _ in 0..20 {
        first.produce("events", &[7; 500_000]).unwrap().unwrap();
    }
    assert!(first.fetch("events", 0).unwrap() > 0);
    let count = served.len();
    served.truncate(count / 2);
    std::thread::sleep(Duration::from_millis(300));
    raw::bystander(port, "events", 10);
    say(&format!(
        "600 descriptors: of 800 connections {count} were served and {refused} turned away; those \
         served produced and fetched, and new ones were served when half of them had gone"
    ));
    assert!(count >= 250 && refused > 0, "{count} {refused}");
}
