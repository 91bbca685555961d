//! Clients that send what no client should, or take nothing of what they asked for. The broker
//! stays up and within its memory, and the others are served.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::raw::{self, Client, Served};
use crate::{ONCELOG, alone, mib};
use crash_campaign::process::{Broker, say};

/// What a broker may hold beside what its configuration lets it: buffers of its threads, the
/// allocator's reserves.
pub const SLACK_BYTES: u64 = 48 << 20;

/// Whether others are served, and how fast.
fn others(broker: &mut Broker, what: &str, before: u64, may_grow: u64) {
    let served = raw::bystander(broker.port(), "events", 20);
    judge(broker, what, &served, before, may_grow);
}

/// Prints what a pattern cost, and fails if it was too much: of memory, or of others' time.
pub fn judge(broker: &mut Broker, what: &str, served: &Served, before: u64, may_grow: u64) {
    assert!(broker.is_running(), "{what}:\n{}", broker.tail());
    let said = broker.said();
    assert!(!said.contains("panicked"), "{what}:\n{}", broker.tail());
    let grown = broker.peak().saturating_sub(before);
    let metrics = Metrics::of(broker);
    say(&format!(
        "{what}:\n  memory grew by {} at most, {} is left of it; requests hold {} of {}, \
         connections waited {} times for memory\n  others: {served}",
        mib(grown),
        mib(broker.resident().saturating_sub(before)),
        mib(metrics.request_memory),
        mib(metrics.request_memory_limit),
        metrics.waits,
    ));
    assert!(metrics.request_memory <= metrics.request_memory_limit + FRAME_MAX);
    assert!(served.longest() < OTHERS_WAIT_MAX, "{what}: {served}");
    assert!(grown < may_grow, "{what}: {}", mib(grown));
}

/// `socket.request.max.bytes` by default: one frame may be let past the limit.
const FRAME_MAX: u64 = 100 << 20;

/// Others are served; how fast is for a benchmark to say, on a machine that has nothing else to do.
const OTHERS_WAIT_MAX: Duration = Duration::from_secs(10);

/// What the broker says of its memory for requests.
struct Metrics {
    request_memory: u64,
    request_memory_limit: u64,
    waits: u64,
}

impl Metrics {
    fn of(broker: &Broker) -> Metrics {
        let said = broker.said();
        let address = said.rsplit_once("http://").expect("HTTP is on").1;
        let address = address.split_whitespace().next().unwrap();
        let mut stream = TcpStream::connect(address).unwrap();
        let request = "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let value = |name: &str| {
            let mut lines = text.lines();
            let found = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            found
                .and_then(|value| value.parse().ok())
                .unwrap_or_else(|| panic!("no {name} in {text}"))
        };
        Metrics {
            request_memory: value("oncelog_request_memory_bytes"),
            request_memory_limit: value("oncelog_request_memory_limit_bytes"),
            waits: value("oncelog_request_memory_waits_total"),
        }
    }
}

/// Others, served while `attack` goes on.
pub fn meanwhile<T: Send>(port: u16, attack: impl FnOnce() -> T + Send) -> (T, Served) {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let attacker = scope.spawn(|| {
            // Also when it panics, or the bystander would go on for ever.
            let _over = SetOnDrop(&over);
            attack()
        });
        let more = || !over.load(Ordering::SeqCst);
        let served = raw::bystander_while(port, "events", more);
        (attacker.join().unwrap(), served)
    })
}

struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// A broker with a topic that has been used a little, and its memory then.
pub fn used(settings: &[&str]) -> (Broker, u64) {
    let http = ["http.listener=http://127.0.0.1:0"];
    let broker = Broker::started(ONCELOG, &[&http, settings].concat());
    let mut client = Client::connect(broker.port()).unwrap();
    client.create_topic("events", &[]);
    raw::bystander(broker.port(), "events", 50);
    broker.forget_peak();
    let before = broker.resident();
    (broker, before)
}

#[test]
fn garbage_ends_its_connection() {
    let _alone = alone();
    let (mut broker, before) = used(&[]);
    let framed = |body: &[u8]| [&(body.len() as u32).to_be_bytes(), body].concat();
    let mut garbage: Vec<Vec<u8>> = vec![
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(), // TLS
        vec![0xff; 64],                                           // a negative length
        vec![0; 64],                                              // empty frames
        0x7fff_ffff_u32.to_be_bytes().to_vec(),                   // 2 GiB are announced
        framed(b"x"),
        framed(&[0, 99, 0, 0, 0, 0, 0, 1, 0xff, 0xff]), // no such API
        framed(&[0xff, 0xff, 0, 0, 0, 0, 0, 1, 0xff, 0xff]),
        framed(&[0, 3, 0x7f, 0xff, 0, 0, 0, 1, 0xff, 0xff]), // Metadata, in no such version
        framed(&[0, 3, 0, 1, 0, 0, 0, 1, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff]), // a huge count
    ];
    // Every API key, known or not, with a body of noise.
    for key in 0..100u8 {
        let mut frame = vec![0, key, 0, 0, 0, 0, 0, 1, 0xff, 0xff];
        frame.extend((0..50).map(|at: u8| at.wrapping_mul(key).wrapping_add(at)));
        garbage.push(framed(&frame));
    }
    let mut open = 0;
    for bytes in &garbage {
        let mut client = Client::connect(broker.port()).unwrap();
        client.stream.write_all(bytes).unwrap();
        let closed = client.is_closed_within(Duration::from_millis(300));
        open += usize::from(!closed);
    }
    let what = format!(
        "garbage on {} connections ({open} stay open)",
        garbage.len()
    );
    others(&mut broker, &what, before, SLACK_BYTES);
    // Some noise is a request by chance.
    assert!(open < garbage.len() / 4, "{open}");
}

#[test]
fn announced_lengths_cost_nothing() {
    let _alone = alone();
    let (mut broker, before) = used(&[]);
    let mut halves = Vec::new();
    for number in 0..2_000u32 {
        let mut client = Client::connect(broker.port()).unwrap();
        let bytes: &[u8] = match number % 3 {
            0 => &[0, 0],                   // half a length
            1 => &[6, 0x40, 0, 0],          // 100 MiB to come
            _ => &[0, 0, 1, 0, 0, 0, 0, 9], // half a frame
        };
        client.stream.write_all(bytes).unwrap();
        halves.push(client);
    }
    others(&mut broker, "2,000 half frames", before, SLACK_BYTES);
}

/// Together they hold more than there is. Small requests do not notice; large ones wait until the
/// sweep has closed some of those that stall.
fn stalled_frames(count: usize, bytes: usize) {
    let budget = 32 << 20;
    let (mut broker, before) = used(&[&format!("queued.max.request.bytes={budget}")]);
    let mut stalled = Vec::new();
    for _ in 0..count {
        let mut client = Client::connect(broker.port()).unwrap();
        client
            .stream
            .write_all(&(90u32 << 20).to_be_bytes())
            .unwrap();
        client.stream.write_all(&vec![0; bytes]).unwrap();
        stalled.push(client);
    }
    std::thread::sleep(Duration::from_millis(500));
    let port = broker.port();
    let (took, small) = meanwhile(port, || {
        let began = Instant::now();
        let mut client = Client::connect(port).unwrap();
        client
            .produce("events", &vec![7; 500_000])
            .unwrap()
            .unwrap();
        began.elapsed()
    });
    let gone = stalled
        .iter_mut()
        .filter_map(|client| {
            client
                .is_closed_within(Duration::from_millis(1))
                .then_some(())
        })
        .count();
    let what = format!(
        "{count} half frames with {bytes} bytes each against a budget of {}: a request of 500 kB \
         was served after {took:.1?}, when {gone} were closed",
        mib(budget)
    );
    judge(&mut broker, &what, &small, before, budget + SLACK_BYTES);
    assert!(took < Duration::from_secs(45), "{took:?}");
}

#[test]
fn frames_that_stall_give_way_when_others_wait() {
    let _alone = alone();
    stalled_frames(100, 400 << 10);
}

/// Each holds a little and wants more, so that the line itself holds all the memory there is.
#[test]
fn frames_that_wait_for_each_other_give_way() {
    let _alone = alone();
    stalled_frames(600, (64 << 10) + 1);
}

#[test]
fn readers_that_take_nothing_hold_nothing_up() {
    let _alone = alone();
    let (mut broker, _) = used(&[]);
    let mut client = Client::connect(broker.port()).unwrap();
    client.create_topic("large", &[]);
    for _ in 0..25 {
        client.produce("large", &[5; 800_000]).unwrap().unwrap();
    }
    broker.forget_peak();
    let before = broker.resident();
    // Each asks for 20 MB a hundred times and takes nothing: 20 GB.
    let mut slow = Vec::new();
    for _ in 0..10 {
        let mut client = Client::connect(broker.port()).unwrap();
        for _ in 0..100 {
            client.send(raw::FETCH, &raw::fetch("large", 0)).unwrap();
        }
        slow.push(client);
    }
    std::thread::sleep(Duration::from_millis(500));
    let what = "10 readers that asked for 2 GB each and take nothing";
    others(&mut broker, what, before, SLACK_BYTES);
    // One of them changes its mind: all of it is there.
    let mut late = slow.pop().unwrap();
    for _ in 0..3 {
        let answer = late.receive(oncelog_wire::ApiKey::Fetch, raw::FETCH);
        assert!(matches!(answer, Ok(oncelog_wire::ResponseBody::Fetch(_))));
    }
}

/// Requests that are never read an answer of, without end: the socket is not read any more.
#[test]
fn a_flood_of_requests_is_not_read_without_end() {
    let _alone = alone();
    let (mut broker, before) = used(&[]);
    let mut client = Client::connect(broker.port()).unwrap();
    let short = Some(Duration::from_millis(500));
    client.stream.set_write_timeout(short).unwrap();
    let mut sent = 0u64;
    while sent < 1 << 30 {
        let frame = client.frame(0, &raw::api_versions());
        let many = frame.repeat(1_000);
        match client.stream.write_all(&many) {
            Ok(()) => sent += many.len() as u64,
            Err(_) => break, // the broker does not take it: that is what is asked for
        }
    }
    let what = format!("a flood of requests ({} were taken)", mib(sent));
    others(&mut broker, &what, before, SLACK_BYTES);
    assert!(sent < 256 << 20, "{}", mib(sent));
}
