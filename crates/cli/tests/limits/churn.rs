//! Connections that come and go, that send nothing, or that send a byte a second.
//!
//! `ONCELOG_HOSTILE_CONNECTIONS=1000000` and `ONCELOG_HOSTILE_SECONDS=120` make the short counts of
//! a test run long; `cargo xtask hostile` does that.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketType, bind, connect, socket, sockopt};

use crate::hostile::{SLACK_BYTES, judge, meanwhile, used};
use crate::raw::{self, Client};
use crate::{alone, mib, scaled};
use crash_campaign::process::{Broker, say};

const THREADS: usize = 4;

/// A connection from one of many loopback addresses: one address has 28,000 ports, and those of
/// closed connections rest for a minute.
fn connect_from(source: u8, port: u16) -> std::io::Result<TcpStream> {
    let fd = socket(AddressFamily::INET, SocketType::STREAM, None)?;
    bind(&fd, &SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, source), 0))?;
    connect(&fd, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))?;
    Ok(TcpStream::from(fd))
}

/// What is done with one connection. Most end with a reset, which leaves nothing behind.
fn come_and_go(number: usize, port: u16) -> std::io::Result<()> {
    let source = 2 + (number % 200) as u8;
    let mut stream = connect_from(source, port)?;
    let reset = || sockopt::set_socket_linger(&stream, Some(Duration::ZERO));
    match number % 10 {
        0 => {}                                             // closed at once, in order
        1 => return crash_campaign::process::answers(port), // one that has something to ask
        2 => {
            reset()?;
            stream.write_all(&[0, 0, 1, 0, 0, 3])?; // gone in the middle of a request
        }
        3 => {
            reset()?;
            stream.write_all(b"GET / HTTP/1.1\r\n\r\n")?;
        }
        4 => {
            reset()?;
            // A request that is answered to nobody.
            stream.write_all(&[0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 7, 0xff, 0xff])?;
        }
        _ => reset()?,
    }
    Ok(())
}

#[test]
fn connections_that_come_and_go_leave_nothing() {
    let _alone = alone();
    let (mut broker, before) = used(&[]);
    let port = broker.port();
    let descriptors = broker.descriptors();
    let count = scaled("ONCELOG_HOSTILE_CONNECTIONS", 20_000);
    let next = AtomicUsize::new(0);
    let failed = AtomicUsize::new(0);
    let began = Instant::now();
    let work = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return;
            }
            if come_and_go(number, port).is_err() {
                failed.fetch_add(1, Ordering::Relaxed);
            }
        }
    };
    let ((), served) = meanwhile(port, || {
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(work);
            }
        });
    });
    let (took, failed) = (began.elapsed(), failed.into_inner());
    wait_for_descriptors(&broker, descriptors);
    let what = format!(
        "{count} connections opened and closed in {took:.1?} ({failed} failed), {descriptors} \
         descriptors before and {} after, {} at the end",
        broker.descriptors(),
        mib(broker.resident())
    );
    judge(&mut broker, &what, &served, before, SLACK_BYTES);
    // A reset may overtake the answer of one that asked; hardly ever.
    assert!(failed <= count / 1_000, "{failed} of {count}");
}

/// The bystander's own connection may still be there.
fn wait_for_descriptors(broker: &Broker, before: usize) {
    let began = Instant::now();
    while broker.descriptors() > before + 1 {
        assert!(
            began.elapsed() < Duration::from_secs(60),
            "{} descriptors are open, {before} were before",
            broker.descriptors()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A byte a second keeps a request from ending for ever, and others from nothing.
#[test]
fn a_byte_a_second_costs_little() {
    let _alone = alone();
    let budget: u64 = 32 << 20;
    let (mut broker, before) = used(&[&format!("queued.max.request.bytes={budget}")]);
    let port = broker.port();
    let seconds = scaled("ONCELOG_HOSTILE_SECONDS", 5);
    let ((closed, left), served) = meanwhile(port, || {
        let mut slow = Vec::new();
        for number in 0..1_000usize {
            let mut client = Client::connect(port).unwrap();
            let frame = client.frame(raw::PRODUCE, &raw::produce("events", &[5; 100_000]));
            // Some begin with the length, some have nearly all of it already.
            let begun = [0, 4, 5_000, 90_000][number % 4];
            client.stream.write_all(&frame[..begun]).unwrap();
            slow.push((client, frame, begun));
        }
        for _ in 0..seconds {
            std::thread::sleep(Duration::from_secs(1));
            slow.retain_mut(|(client, frame, at)| {
                *at += 1;
                client.stream.write_all(&frame[*at - 1..*at]).is_ok()
            });
        }
        (1_000 - slow.len(), slow.len())
    });
    let what = format!(
        "1000 clients that sent a byte a second for {seconds} s, against a budget of {} \
         ({left} are still at it, {closed} were closed)",
        mib(budget)
    );
    judge(&mut broker, &what, &served, before, budget + SLACK_BYTES);
}

#[test]
fn silence_costs_little() {
    let _alone = alone();
    let (mut broker, before) = used(&[]);
    let port = broker.port();
    let mut silent = Vec::new();
    let ((), served) = meanwhile(port, || {
        for _ in 0..3_000 {
            match Client::connect(port) {
                Ok(client) => silent.push(client),
                Err(error) => {
                    say(&format!("SKIPPED more silent connections: {error}"));
                    break;
                }
            }
        }
    });
    let what = format!("{} connections that send nothing", silent.len());
    judge(&mut broker, &what, &served, before, SLACK_BYTES);
}
