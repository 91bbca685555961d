//! One client connection, as the rest of the server knows it.
//!
//! Its requests are read by a task of its own ([`crate::reading`]). Its answers are sent by
//! whoever made them ([`crate::outbox`]); the task helps only when the socket was full. Timeouts
//! are kept by [`crate::listener`]'s sweep, which looks at the marks that are left here, so that
//! 10,000 idle connections need no 10,000 timers.

use crate::budget::Account;
use crate::clock::Clock;
use crate::disk::RealDisk;
use crate::limits;
use crate::outbox::{Flushed, Outbox, Sent};
use crate::pressure::HalfFrame;
use oncelog_broker::ConnectionId;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};
use tokio::net::TcpStream;
use tokio::sync::Notify;

pub struct Connection {
    pub id: ConnectionId,
    pub peer: SocketAddr,
    /// The name of the listener that it came in on.
    pub listener: String,
    pub outbox: Outbox,
    pub(crate) stream: TcpStream,
    pub(crate) traffic: Arc<Traffic>,
    pub(crate) clock: Clock,
    /// Woken by: room for more requests, something to send, the end.
    pub(crate) wake: Notify,
    closed: AtomicBool,
    pub(crate) close_reason: OnceLock<CloseReason>,
    pub(crate) wants_write: AtomicBool,
    /// The task stopped reading and waits for answers to leave.
    pub(crate) paused: AtomicBool,
    pub(crate) requests_in_flight: AtomicU32,
    pub(crate) request_bytes: AtomicUsize,
    /// Milliseconds of the server's clock.
    pub(crate) last_active_ms: AtomicU64,
    /// When the frame under way must have arrived; 0: there is none.
    pub(crate) frame_due_ms: AtomicU64,
    /// For the sweep, while others wait for memory.
    pub(crate) half_frame: HalfFrame,
}

/// Bytes moved by all connections since the start.
#[derive(Default)]
pub struct Traffic {
    pub bytes_in: AtomicU64,
    pub bytes_out: AtomicU64,
    /// Of `bytes_out`, those of fetched records.
    pub record_bytes_out: AtomicU64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// An ordinary end: nothing to log.
    ByPeer,
    Shutdown,
    Idle,
    /// Something to tell the operator.
    Fault(String),
}

impl Connection {
    pub fn new(
        id: ConnectionId,
        stream: TcpStream,
        peer: SocketAddr,
        listener: String,
        clock: Clock,
        traffic: Arc<Traffic>,
    ) -> Connection {
        let now_ms = millis(clock);
        Connection {
            id,
            peer,
            listener,
            outbox: Outbox::default(),
            stream,
            traffic,
            clock,
            wake: Notify::new(),
            closed: AtomicBool::new(false),
            close_reason: OnceLock::new(),
            wants_write: AtomicBool::new(false),
            paused: AtomicBool::new(false),
            requests_in_flight: AtomicU32::new(0),
            request_bytes: AtomicUsize::new(0),
            last_active_ms: AtomicU64::new(now_ms),
            frame_due_ms: AtomicU64::new(0),
            half_frame: HalfFrame::default(),
        }
    }

    /// Ends the connection; its task does the rest.
    pub fn close(&self, reason: CloseReason) {
        let _ = self.close_reason.set(reason); // the first reason is the one that counts
        self.closed.store(true, SeqCst);
        self.wake.notify_one();
    }

    pub fn is_closed(&self) -> bool {
        self.closed.load(SeqCst)
    }

    /// Sends what can be sent now.
    pub fn flush(&self, disk: &RealDisk) {
        let mut sent = Sent::default();
        let flushed = self.outbox.flush(&self.stream, disk, &mut sent);
        if sent != Sent::default() {
            self.note_sent(sent);
        }
        match flushed {
            Flushed::Done => {}
            Flushed::Unfinished => self.ask_to_flush(),
            Flushed::Closed { reason } => self.close(CloseReason::Fault(reason)),
        }
    }

    /// Leaves the sending to the connection's own task.
    pub fn ask_to_flush(&self) {
        self.wants_write.store(true, SeqCst);
        self.wake.notify_one();
    }

    /// Why the connection should be closed now, if it should.
    pub fn overdue(&self, now_ms: u64, idle_ms_max: u64) -> Option<CloseReason> {
        let due = self.frame_due_ms.load(SeqCst);
        if due != 0 && now_ms > due {
            let what = "a request stopped arriving half way";
            return Some(CloseReason::Fault(what.to_owned()));
        }
        let quiet = now_ms.saturating_sub(self.last_active_ms.load(SeqCst));
        // Who waits for an answer is not idle; who does not take its answers is.
        let waits = self.requests_in_flight.load(SeqCst) > 0 && !self.wants_write.load(SeqCst);
        (quiet > idle_ms_max && !waits).then_some(CloseReason::Idle)
    }

    fn note_sent(&self, sent: Sent) {
        self.requests_in_flight.fetch_sub(sent.answers, SeqCst);
        self.traffic.bytes_out.fetch_add(sent.bytes, SeqCst);
        self.traffic
            .record_bytes_out
            .fetch_add(sent.record_bytes, SeqCst);
        self.last_active_ms.store(millis(self.clock), SeqCst);
        self.wake_if_paused();
    }

    fn wake_if_paused(&self) {
        if self.paused.load(SeqCst) {
            self.wake.notify_one();
        }
    }

    pub(crate) fn has_room(&self) -> bool {
        self.requests_in_flight.load(SeqCst) < limits::REQUESTS_IN_FLIGHT
            && self.request_bytes.load(SeqCst) < limits::REQUEST_BYTES_IN_FLIGHT
    }
}

impl Account for Connection {
    fn returned(&self, bytes: usize) {
        self.request_bytes.fetch_sub(bytes, SeqCst);
        self.wake_if_paused();
    }
}

pub(crate) fn millis(clock: Clock) -> u64 {
    clock.instant().0 / 1_000_000
}
