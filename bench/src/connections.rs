//! Many connections: how long they take to open, and what they cost when they then do nothing.
//!
//! Two ways to open them: one after the other, as they come in a day's work, and all at once, as
//! after a restart of everything. A connection is open when the broker has answered an ApiVersions
//! request on it; the kernel alone would accept more than the broker ever sees. One that is reset
//! before that, because the broker's backlog was full, is begun again after a moment, as clients do.
//! Raw sockets and one thread, because 10,000 clients of a library would measure themselves.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use oncelog_wire::frame::{self, LENGTH_PREFIX};
use oncelog_wire::messages::ApiVersionsRequest;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};

use crate::account::Process;
use crate::broker::Broker;
use crate::figures::Figures;

/// Then those that are not open are counted. Dropped attempts are repeated by the kernel after 1, 3,
/// 7, 15, 31, 63 and 127 s.
const LIMIT: Duration = Duration::from_secs(130);

/// A client's pause before it connects again; librdkafka's `reconnect.backoff.ms`.
const BACKOFF: Duration = Duration::from_millis(100);

/// Connections that have just been opened or closed may still keep the broker busy.
const SETTLE: Duration = Duration::from_secs(1);

/// Answers are about 500 bytes.
const ANSWER_MAX: usize = 64 << 10;

#[derive(clap::Args)]
pub struct Args {
    /// The broker's address.
    #[arg(long)]
    bootstrap: String,
    /// The broker's process.
    #[arg(long)]
    pid: u32,
    /// How many at once.
    #[arg(long, default_value_t = 10_000)]
    count: usize,
    /// How many one after the other, before that.
    #[arg(long, default_value_t = 2_000)]
    one_by_one: usize,
    /// How long the idle broker is watched.
    #[arg(long, default_value_t = 5.0)]
    idle_seconds: f64,
}

pub fn run(args: &Args) -> Result<Figures> {
    let process = Process(args.pid);
    let mut figures = Figures::default();
    // The first connection is not like the others in a virtual machine that is new.
    one_by_one(&args.bootstrap, 100)?;
    let took = one_by_one(&args.bootstrap, args.one_by_one)?;
    figures.set(
        "one_by_one_us",
        took.as_secs_f64() * 1e6 / args.one_by_one as f64,
    );
    std::thread::sleep(SETTLE);
    let before = process.resident_bytes()?;
    let started = Instant::now();
    let mut connections = open_at_once(args)?;
    let open = connections.iter().filter(|one| one.answered).count();
    let resets = connections.iter().map(|one| one.resets).sum::<u32>();
    figures.set("resets", f64::from(resets));
    ensure!(open > 0, "not one connection was answered");
    // Where some are missing, this is the limit: it took longer than that.
    figures.set("at_once_s", started.elapsed().as_secs_f64());
    figures.set("not_open", (args.count - open) as f64);
    std::thread::sleep(SETTLE);
    let grown = process.resident_bytes()?.saturating_sub(before);
    figures.set("kb_each", grown as f64 / 1000.0 / open as f64);
    figures.set(
        "idle_cpu_percent",
        process.idle_cpu_percent(args.idle_seconds)?,
    );
    for connection in &mut connections {
        ensure!(
            connection.is_open(),
            "the broker has closed a connection that was idle"
        );
    }
    Ok(figures)
}

fn one_by_one(address: &str, count: usize) -> Result<Duration> {
    let started = Instant::now();
    let mut open = Vec::new();
    for _ in 0..count {
        let mut broker = Broker::connect(address)?;
        broker.ask(0, ApiVersionsRequest::default())?;
        open.push(broker);
    }
    Ok(started.elapsed())
}

/// A connection that is opening: asked when it is there, done when it was answered.
struct Opening {
    stream: TcpStream,
    asked: bool,
    answered: bool,
    received: Vec<u8>,
    resets: u32,
}

impl Opening {
    /// Begins to connect and does not wait.
    fn begin(address: &SocketAddr) -> Result<Opening> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)
            .context("no more sockets: is the limit of open files (ulimit -n) too low?")?;
        match connect(&socket, address) {
            Ok(()) | Err(rustix::io::Errno::INPROGRESS) => {}
            Err(error) => return Err(error).context("connecting"),
        }
        let stream = TcpStream::from(socket);
        Ok(Opening {
            stream,
            asked: false,
            answered: false,
            received: Vec::new(),
            resets: 0,
        })
    }

    /// What can be done now is done.
    fn go_on(&mut self, request: &Bytes) -> Result<Step> {
        if !self.asked {
            if let Some(error) = self.stream.take_error()? {
                return Step::after(error).context("connecting");
            }
            match self.stream.write(request) {
                Ok(sent) => ensure!(sent == request.len(), "a short write to an empty socket"),
                Err(error) if error.kind() == ErrorKind::NotConnected => return Ok(Step::Waits),
                Err(error) => return Step::after(error).context("asking"),
            }
            self.asked = true;
        }
        let mut buffer = [0; 4096];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => bail!("the broker closed a connection instead of answering"),
                Ok(read) => self.received.extend_from_slice(&buffer[..read]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Step::after(error).context("reading the answer"),
            }
        }
        let len = frame::frame_len(&self.received, ANSWER_MAX)?;
        let whole = len.is_some_and(|len| self.received.len() == LENGTH_PREFIX + len);
        Ok(if whole { Step::Answered } else { Step::Waits })
    }

    fn is_open(&mut self) -> bool {
        let read = self.stream.read(&mut [0; 1]);
        read.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    }
}

enum Step {
    Waits,
    Answered,
    Reset,
}

impl Step {
    fn after(error: std::io::Error) -> Result<Step> {
        match error.kind() {
            ErrorKind::WouldBlock => Ok(Step::Waits),
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => Ok(Step::Reset),
            _ => Err(error.into()),
        }
    }
}

fn watch(epoll: &OwnedFd, number: usize, one: &Opening) -> Result<()> {
    let flags = EventFlags::IN | EventFlags::OUT | EventFlags::ET;
    let number = EventData::new_u64(number as u64);
    Ok(epoll::add(epoll, &one.stream, number, flags)?)
}

fn open_at_once(args: &Args) -> Result<Vec<Opening>> {
    let address: SocketAddr = args.bootstrap.parse()?;
    let asked = frame::encode_request(1, Some("bench"), 0, &ApiVersionsRequest::default().into())?;
    let request = asked
        .to_bytes()
        .context("a request has no external bytes")?;
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let mut opening = Vec::new();
    for number in 0..args.count {
        let one = Opening::begin(&address)?;
        watch(&epoll, number, &one)?;
        opening.push(one);
    }
    let mut again = VecDeque::new();
    let started = Instant::now();
    let mut events = Vec::with_capacity(1024);
    let mut answered = 0;
    while answered < args.count && started.elapsed() < LIMIT {
        events.clear();
        let patience = BACKOFF.try_into()?;
        epoll::wait(
            &epoll,
            rustix::buffer::spare_capacity(&mut events),
            Some(&patience),
        )?;
        for event in &events {
            let number = event.data.u64() as usize;
            let one = &mut opening[number];
            if one.answered {
                continue;
            }
            match one.go_on(&request)? {
                Step::Waits => {}
                Step::Answered => {
                    one.answered = true;
                    one.received = Vec::new();
                    answered += 1;
                }
                Step::Reset => {
                    epoll::delete(&epoll, &one.stream)?;
                    again.push_back((Instant::now() + BACKOFF, number));
                }
            }
        }
        while again.front().is_some_and(|(at, _)| *at <= Instant::now()) {
            let (_, number) = again.pop_front().expect("just looked at");
            let resets = opening[number].resets + 1;
            opening[number] = Opening::begin(&address)?;
            opening[number].resets = resets;
            watch(&epoll, number, &opening[number])?;
        }
    }
    Ok(opening)
}
