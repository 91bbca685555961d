//! A connection's task: reads requests, prepares them, hands them to the core.
//!
//! Reading stops (and TCP makes the client wait) while the connection has
//! [`limits::REQUESTS_IN_FLIGHT`] unanswered requests or [`limits::REQUEST_BYTES_IN_FLIGHT`] bytes
//! of them in use, or while there is no memory for its next frame ([`crate::budget`]). An idle
//! connection owns no buffer at all: it is read into a buffer of the thread, and only what is half
//! of a frame gets one of its own.
//!
//! Requests are handled one by one, as in Kafka, but for those whose answers are small and whose
//! clients pipeline them (produce above all): they overlap, as long as the client takes its answers.
//! So a client that asks and does not listen holds the memory of about one answer, not of a thousand.
//!
//! Nothing in here decides what a client is answered.

use crate::budget::Budget;
use crate::connection::{CloseReason, Connection, millis};
use crate::core::Core;
use crate::disk::RealDisk;
use crate::frames::{Frame, FrameReader, Next};
use crate::limits;
use crate::outbox::Outgoing;
use bytes::{BufMut, Bytes};
use oncelog_broker::{Input, Refusal};
use oncelog_wire::ApiKey;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;
use tokio::io::Interest;
use tokio::net::TcpStream;

/// The reading side, owned by the connection's task.
struct Reading {
    connection: Arc<Connection>,
    core: Arc<Core>,
    budget: Arc<Budget>,
    frames: FrameReader,
    /// Complete requests that are not handed in yet.
    backlog: VecDeque<Frame>,
    /// An answer from outside the core: it goes out when those before it have.
    refusal: Option<Bytes>,
    /// When the frame under way began, or was last given memory that it had to wait for; 0: there is
    /// none. And what of it was here then.
    frame_began_ms: u64,
    frame_arrived_then: usize,
}

/// Serves a connection to its end. `request_bytes_max`: `socket.request.max.bytes`.
pub async fn serve(
    connection: Arc<Connection>,
    core: Arc<Core>,
    budget: Arc<Budget>,
    request_bytes_max: usize,
) {
    core.connect(&connection);
    let mut reading = Reading {
        frames: FrameReader::new(request_bytes_max),
        backlog: VecDeque::new(),
        refusal: None,
        frame_began_ms: 0,
        frame_arrived_then: 0,
        connection: connection.clone(),
        core: core.clone(),
        budget,
    };
    while !connection.is_closed() {
        if reading.hand_in() {
            tokio::task::yield_now().await;
            continue;
        }
        let mut wanted = None;
        if reading.may_read() {
            wanted = Some(Interest::READABLE);
        }
        if connection.wants_write.load(SeqCst) {
            wanted = Some(wanted.map_or(Interest::WRITABLE, |i| i | Interest::WRITABLE));
        }
        let ready = async {
            match wanted {
                Some(interest) => connection.stream.ready(interest).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            ready = ready => match ready {
                Ok(ready) => {
                    if ready.is_writable() && connection.wants_write.swap(false, SeqCst) {
                        connection.flush(&core.disk);
                    }
                    if ready.is_readable() && wanted.is_some_and(|i| i.is_readable()) {
                        reading.turn().await;
                    }
                }
                Err(error) => connection.close(fault_of(&error)),
            },
            () = connection.wake.notified() => {}
        }
    }
    drop(reading);
    core.disconnect(connection.id);
    connection.outbox.abandon();
    let _ = rustix::net::shutdown(&connection.stream, rustix::net::Shutdown::Both);
    tell(&connection);
}

fn tell(connection: &Connection) {
    let peer = connection.peer;
    match connection.close_reason.get() {
        None | Some(CloseReason::ByPeer | CloseReason::Shutdown) => {}
        Some(CloseReason::Idle) => tracing::debug!("closed {peer}: idle"),
        Some(CloseReason::Fault(why)) => {
            static QUIET: crate::log::RateLimit = crate::log::RateLimit::new(10);
            if let Some(unsaid) = QUIET.admit() {
                tracing::warn!("closed the connection of {peer}: {why}{unsaid}");
            }
        }
    }
}

fn fault_of(error: &io::Error) -> CloseReason {
    match error.kind() {
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::TimedOut => {
            CloseReason::ByPeer
        }
        _ => CloseReason::Fault(format!("reading failed: {error}")),
    }
}

impl Reading {
    /// Whether more may be read now; if not, somebody will wake the task.
    fn may_read(&self) -> bool {
        let room = |this: &Reading| {
            this.backlog.is_empty() && this.refusal.is_none() && this.connection.has_room()
        };
        if self.core.is_draining() {
            return false;
        }
        if room(self) {
            self.connection.paused.store(false, SeqCst);
            return true;
        }
        // Announced first, looked at again after: a wake-up in between is not lost.
        self.connection.paused.store(true, SeqCst);
        if !room(self) {
            // A backlog with room again is for the next round of the task's loop.
            if self.backlog_can_go() {
                self.connection.wake.notify_one();
            }
            return false;
        }
        true
    }

    fn backlog_can_go(&self) -> bool {
        match self.refusal {
            Some(_) => self.connection.requests_in_flight.load(SeqCst) == 0,
            None => self.next_can_go(),
        }
    }

    /// Whether the first of the backlog may be handed in now.
    fn next_can_go(&self) -> bool {
        let Some(next) = self.backlog.front() else {
            return false;
        };
        match self.connection.requests_in_flight.load(SeqCst) {
            0 => true,
            limits::REQUESTS_IN_FLIGHT.. => false,
            _ => may_overlap(next) && !self.connection.wants_write.load(SeqCst),
        }
    }

    /// Hands complete requests to the core, as many as may be in flight; whether it should go on
    /// with more once others had their turn.
    fn hand_in(&mut self) -> bool {
        for _ in 0..limits::HAND_IN_TURNS {
            if self.refusal.is_some() && self.connection.requests_in_flight.load(SeqCst) == 0 {
                let answer = self.refusal.take().expect("looked at above");
                self.connection.requests_in_flight.fetch_add(1, SeqCst);
                self.connection.outbox.push(Outgoing::Encoded(answer));
                self.connection.flush(&self.core.disk);
            }
            if self.refusal.is_some() || self.backlog.is_empty() || self.core.is_draining() {
                return false;
            }
            if !self.hand_in_some() {
                return false;
            }
        }
        true
    }

    /// `false`: nothing could be handed in.
    fn hand_in_some(&mut self) -> bool {
        let mut inputs = Vec::new();
        let mut charges = Vec::new();
        let mut end = None;
        while self.next_can_go() {
            let Some(mut frame) = self.backlog.pop_front() else {
                break;
            };
            let bytes = if is_produce(&frame) {
                // Its batches stay in use until they are on disk: charged until then.
                let bytes = frame.charge.bytes();
                self.connection.request_bytes.fetch_add(bytes, SeqCst);
                frame.charge.report_to(self.connection.clone());
                frame.into_charged_bytes()
            } else {
                charges.push(frame.charge);
                Bytes::from(frame.bytes)
            };
            match oncelog_broker::prepare(bytes.slice(4..)) {
                Ok(request) => {
                    if !request.wants_no_answer() {
                        self.connection.requests_in_flight.fetch_add(1, SeqCst);
                    }
                    inputs.push(Input::Request {
                        connection: self.connection.id,
                        request: Box::new(request),
                    });
                }
                Err(Refusal::Answer(answer)) => {
                    self.refusal = answer.to_bytes();
                    break;
                }
                Err(Refusal::Close(why)) => {
                    end = Some(CloseReason::Fault(why));
                    break;
                }
            }
        }
        let any = !inputs.is_empty() || self.refusal.is_some();
        if !inputs.is_empty() {
            self.core.submit(inputs);
        }
        if let Some(reason) = end {
            self.backlog.clear();
            self.connection.close(reason);
        }
        any
    }

    /// Reads what is there, up to this connection's turn.
    async fn turn(&mut self) {
        for _ in 0..limits::READ_TURN_READS {
            match self.read_once().await {
                Ok(true) if self.backlog.is_empty() => {}
                Ok(_) => break,
                Err(reason) => {
                    // What came whole before it is still handled.
                    while self.hand_in() {
                        tokio::task::yield_now().await;
                    }
                    self.connection.close(reason);
                    return;
                }
            }
        }
        self.mark_frame();
    }

    /// `Ok(false)`: the socket has no more for now.
    async fn read_once(&mut self) -> Result<bool, CloseReason> {
        let connection = &*self.connection;
        let stream = &connection.stream;
        let mut complete = Vec::new();
        let read = match self.frames.next() {
            Next::Scratch => return self.read_scratch(),
            Next::Body { buffer, limit } => stream.try_read_buf(&mut buffer.limit(limit)),
            Next::Memory { charge, bytes } => {
                if charge.try_grow(bytes) {
                    return Ok(true);
                }
                // The time that it waits for memory is not the client's fault.
                connection.frame_due_ms.store(0, SeqCst);
                connection.half_frame.waits(charge.bytes());
                tokio::select! {
                    () = charge.grow(bytes) => {}
                    () = send_until_closed(connection, &self.core.disk) => {}
                }
                self.frame_began_ms = millis(connection.clock);
                self.frame_arrived_then = self.frames.arrived_bytes();
                return Ok(true);
            }
        };
        let goes_on = received(connection, read)?;
        self.frames.body_grew(&mut complete);
        self.backlog.extend(complete);
        Ok(goes_on)
    }

    fn read_scratch(&mut self) -> Result<bool, CloseReason> {
        thread_local! {
            static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
        }
        let connection = &*self.connection;
        let mut complete = Vec::new();
        let result = SCRATCH.with_borrow_mut(|scratch| {
            scratch.resize(limits::SCRATCH_BYTES, 0);
            let reserved = self.budget.try_charge(limits::SCRATCH_BYTES);
            let size = match reserved {
                Some(_) => limits::SCRATCH_BYTES,
                None => self.frames.length_bytes_missing(),
            };
            let mut reserved = reserved.unwrap_or_else(|| self.budget.empty());
            let read = read_some(&connection.stream, &mut scratch[..size]);
            let count = *read.as_ref().unwrap_or(&0);
            let goes_on = received(connection, read)?;
            let taken = self.frames.take(
                &scratch[..count],
                &self.budget,
                &mut reserved,
                &mut complete,
            );
            // A short read means that the socket is empty, unless only a length was asked for.
            taken
                .map(|()| goes_on && count == size)
                .map_err(|e| CloseReason::Fault(e.to_string()))
        });
        self.backlog.extend(complete);
        result
    }

    /// Leaves the mark by which the sweep finds a frame that does not come to its end.
    fn mark_frame(&mut self) {
        if !self.frames.is_mid_frame() {
            if self.frame_began_ms != 0 {
                self.frame_began_ms = 0;
                self.connection.frame_due_ms.store(0, SeqCst);
                self.connection.half_frame.none();
            }
            return;
        }
        let now_ms = millis(self.connection.clock);
        if self.frame_began_ms == 0 {
            self.frame_began_ms = now_ms;
            self.frame_arrived_then = 0;
        }
        let arrived = self.frames.arrived_bytes();
        let arrived = arrived.saturating_sub(self.frame_arrived_then);
        let held = self.frames.held_bytes();
        let half_frame = &self.connection.half_frame;
        half_frame.goes_on(held, self.frame_began_ms, arrived, now_ms);
        let size = self.frames.frame_bytes();
        let (stall, grace, bytes_per_second) = match self.frames.is_finisher() {
            true => (
                limits::FINISHER_STALL,
                limits::FINISHER_GRACE,
                limits::FINISHER_BYTES_PER_SECOND_MIN,
            ),
            false => (
                limits::FRAME_STALL,
                2 * limits::FRAME_STALL,
                limits::FRAME_BYTES_PER_SECOND_MIN,
            ),
        };
        let stall_due = now_ms + stall.as_millis() as u64;
        let due = self.frame_began_ms + allowance(grace, size, bytes_per_second);
        self.connection
            .frame_due_ms
            .store(stall_due.min(due), SeqCst);
    }
}

/// Milliseconds that `bytes` may take.
fn allowance(grace: Duration, bytes: usize, bytes_per_second: usize) -> u64 {
    grace.as_millis() as u64 + (bytes as u64 * 1000) / bytes_per_second as u64
}

fn is_produce(frame: &Frame) -> bool {
    is(ApiKey::Produce, frame)
}

fn is(key: ApiKey, frame: &Frame) -> bool {
    frame.bytes.get(4..6) == Some(&(key as i16).to_be_bytes()[..])
}

/// Whether a request may be handled while others of its connection are not answered yet.
fn may_overlap(frame: &Frame) -> bool {
    let small = || frame.bytes.len() <= limits::OVERLAPPING_REQUEST_BYTES;
    is_produce(frame) || (small() && OVERLAPPING.iter().any(|key| is(*key, frame)))
}

/// What clients send without waiting for the answer to the one before.
const OVERLAPPING: [ApiKey; 5] = [
    ApiKey::OffsetCommit,
    ApiKey::Heartbeat,
    ApiKey::ConsumerGroupHeartbeat,
    ApiKey::ApiVersions,
    ApiKey::InitProducerId,
];

/// Goes on sending while nothing is read; returns when the connection is to be closed.
async fn send_until_closed(connection: &Connection, disk: &RealDisk) {
    while !connection.is_closed() {
        let writable = async {
            match connection.wants_write.load(SeqCst) {
                true => connection.stream.writable().await,
                false => std::future::pending().await,
            }
        };
        tokio::select! {
            result = writable => match result {
                Ok(()) => {
                    connection.wants_write.store(false, SeqCst);
                    connection.flush(disk);
                }
                Err(error) => connection.close(fault_of(&error)),
            },
            () = connection.wake.notified() => {}
        }
    }
}

/// Judges a read: `Ok(true)` if bytes came.
fn received(connection: &Connection, read: io::Result<usize>) -> Result<bool, CloseReason> {
    match read {
        Ok(0) => Err(CloseReason::ByPeer),
        Ok(count) => {
            connection.traffic.bytes_in.fetch_add(count as u64, SeqCst);
            connection
                .last_active_ms
                .store(millis(connection.clock), SeqCst);
            Ok(true)
        }
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok(true),
        Err(e) => Err(fault_of(&e)),
    }
}

/// Reads once. A short read tells the runtime that the socket is empty, which saves the read that
/// would only find that out (with edge-triggered readiness, later bytes wake the task again).
fn read_some(stream: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    let mut short = None;
    let read = stream.try_io(Interest::READABLE, || {
        let count = rustix::io::read(stream, &mut *buffer).map_err(io::Error::from)?;
        if count > 0 && count < buffer.len() {
            short = Some(count);
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(count)
    });
    short.map_or(read, Ok)
}
