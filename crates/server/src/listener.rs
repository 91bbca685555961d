//! The listening sockets, the open connections, and the sweep over them.
//!
//! The sweep closes what is idle, what stopped sending half way through a request, and what does
//! not take its answers, so that connections need no timers of their own. While somebody waits for
//! memory it is stricter ([`crate::pressure`]).

use crate::budget::{Budget, Pressure};
use crate::connection::{CloseReason, Connection, Traffic};
use crate::core::Core;
use crate::limits;
use crate::log::RateLimit;
use crate::pressure;
use crate::reading;
use oncelog_broker::ConnectionId;
use oncelog_coordinator::cluster::Listener;
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Notify;

type Open = HashMap<ConnectionId, Arc<Connection>>;

/// All open connections, and what new ones are made with.
pub struct Connections {
    core: Arc<Core>,
    budget: Arc<Budget>,
    traffic: Arc<Traffic>,
    settings: Settings,
    open: Mutex<Open>,
    next_id: AtomicU64,
    closing: AtomicBool,
    all_gone: Notify,
}

#[derive(Clone, Debug)]
pub struct Settings {
    pub request_bytes_max: usize,
    /// `None`: idle connections stay.
    pub idle_max: Option<Duration>,
    pub connections_max: usize,
}

impl Connections {
    pub fn new(core: Arc<Core>, budget: Arc<Budget>, settings: Settings) -> Connections {
        Connections {
            core,
            budget,
            traffic: Arc::default(),
            settings,
            open: Mutex::default(),
            next_id: AtomicU64::new(1),
            closing: AtomicBool::new(false),
            all_gone: Notify::new(),
        }
    }

    pub fn count(&self) -> usize {
        self.lock().len()
    }

    pub fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// Accepts until the server closes. `advertised`: where clients of this listener are sent.
    pub async fn accept(self: Arc<Self>, listener: TcpListener, advertised: Listener) {
        while !self.closing.load(Ordering::SeqCst) {
            match listener.accept().await {
                Ok((stream, peer)) => self.open(stream, peer, &advertised),
                Err(error) => {
                    static QUIET: RateLimit = RateLimit::new(1);
                    if let Some(unsaid) = QUIET.admit() {
                        tracing::warn!("a connection could not be accepted: {error}{unsaid}");
                    }
                    // Out of descriptors or memory: somebody has to go first.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    fn open(self: &Arc<Self>, stream: TcpStream, peer: SocketAddr, advertised: &Listener) {
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        if self.count() >= self.settings.connections_max {
            static QUIET: RateLimit = RateLimit::new(1);
            if let Some(unsaid) = QUIET.admit() {
                let max = self.settings.connections_max;
                tracing::warn!(
                    "turned {peer} away: {max} connections are open, and no more fit \
                     (max.connections, and half of the limit on open files){unsaid}"
                );
            }
            return;
        }
        warn_if_unreachable(&stream, peer, advertised);
        // Without it, an answer waits for the acknowledgement of the one before.
        let _ = stream.set_nodelay(true);
        let id = ConnectionId(self.next_id.fetch_add(1, Ordering::SeqCst));
        let (clock, traffic) = (self.core.clock, self.traffic.clone());
        let listener = advertised.name.clone();
        let connection = Connection::new(id, stream, peer, listener, clock, traffic);
        let connection = Arc::new(connection);
        self.lock().insert(id, connection.clone());
        let this = self.clone();
        tokio::spawn(async move {
            let request_bytes_max = this.settings.request_bytes_max;
            let _gone = Gone { this: &this, id };
            let (core, budget) = (this.core.clone(), this.budget.clone());
            reading::serve(connection, core, budget, request_bytes_max).await;
        });
    }

    /// Closes what is overdue, again and again.
    pub async fn sweep(self: Arc<Self>) {
        let idle_ms_max = self
            .settings
            .idle_max
            .map_or(u64::MAX, |idle| idle.as_millis() as u64);
        let every = limits::SWEEP_EVERY.min(self.settings.idle_max.unwrap_or(Duration::MAX));
        let mut pressure = Pressure::default();
        while !self.closing.load(Ordering::SeqCst) {
            tokio::time::sleep(every.max(Duration::from_millis(10))).await;
            let now_ms = self.core.clock.instant().0 / 1_000_000;
            let open = self.lock();
            for connection in open.values() {
                if let Some(reason) = connection.overdue(now_ms, idle_ms_max) {
                    connection.close(reason);
                }
            }
            let before = std::mem::replace(&mut pressure, self.budget.pressure());
            if pressure.wanted > 0 {
                self.relieve(&open, now_ms, pressure, before);
            }
            close_deaf(&open, now_ms);
        }
    }

    /// Closes half-read requests that keep memory from those who wait for it.
    fn relieve(&self, open: &Open, now_ms: u64, now: Pressure, before: Pressure) {
        let half = |connection: &Arc<Connection>| {
            let half = connection.half_frame.seen(connection.id, now_ms);
            half.filter(|_| !connection.is_closed())
        };
        let halves = open.values().filter_map(half).collect();
        for victim in pressure::victims(halves, now, before, self.budget.limit()) {
            let why = "others wait for the memory that a half-sent request of it held";
            open[&victim].close(CloseReason::Fault(why.to_owned()));
        }
    }

    /// Asks all connections to end.
    pub fn begin_close(&self) {
        self.closing.store(true, Ordering::SeqCst);
        for connection in self.lock().values() {
            connection.close(CloseReason::Shutdown);
        }
    }

    /// Closes all connections; returns when their tasks have ended.
    pub async fn close(&self) {
        loop {
            let gone = self.all_gone.notified();
            self.begin_close();
            if self.lock().is_empty() {
                return;
            }
            gone.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Closes connections whose answers, which nobody takes, hold too much together.
fn close_deaf(open: &Open, now_ms: u64) {
    let stuck = open
        .values()
        .filter(|c| c.wants_write.load(Ordering::SeqCst));
    let unsent = |connection: &Arc<Connection>| pressure::Unsent {
        connection: connection.id,
        held: connection.outbox.unsent_bytes(),
        idle_ms: now_ms.saturating_sub(connection.last_active_ms.load(Ordering::SeqCst)),
    };
    let all = stuck.map(unsent).collect();
    for victim in pressure::deaf(all, limits::UNSENT_ANSWER_BYTES) {
        let why = "it does not take its answers, and all that nobody takes hold too much memory";
        open[&victim].close(CloseReason::Fault(why.to_owned()));
    }
}

/// Takes a connection off the list, also when its task panicked.
struct Gone<'a> {
    this: &'a Connections,
    id: ConnectionId,
}

impl Drop for Gone<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.this.core.disconnect(self.id);
        }
        let mut open = self.this.lock();
        open.remove(&self.id);
        if open.is_empty() {
            self.this.all_gone.notify_waiters();
        }
    }
}

/// A client from elsewhere that is told "localhost" will connect to itself and fail, with an error
/// that names neither cause nor cure. We can: it reached us at an address that works.
fn warn_if_unreachable(stream: &TcpStream, peer: SocketAddr, advertised: &Listener) {
    let told = advertised.host.as_str();
    let local_only = told == "localhost" || told.parse().is_ok_and(|ip: IpAddr| ip.is_loopback());
    if !local_only || peer.ip().is_loopback() {
        return;
    }
    static QUIET: Mutex<Option<std::time::Instant>> = Mutex::new(None);
    let mut last = QUIET.lock().unwrap_or_else(PoisonError::into_inner);
    if last.is_some_and(|at| at.elapsed() < Duration::from_secs(60)) {
        return;
    }
    let Ok(reached) = stream.local_addr() else {
        return;
    };
    // On the same machine by another of its addresses: "localhost" works there.
    if reached.ip().to_canonical() == peer.ip() {
        return;
    }
    *last = Some(std::time::Instant::now());
    let fixed = Listener {
        name: advertised.name.clone(),
        host: reached.ip().to_canonical().to_string(),
        port: advertised.port,
    };
    tracing::warn!(
        "a client at {} connected, but this broker sends its clients to {told}:{}, which is the \
         client's own machine there. To serve it, start with advertised.listeners={fixed} (or \
         KAFKA_ADVERTISED_LISTENERS={fixed})",
        peer.ip(),
        advertised.port,
    );
}

#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error(
        "cannot listen on {place}: another program uses the port already. Stop it (`ss -ltnp \
         'sport = :{port}'` shows which), or choose another port ({key})"
    )]
    InUse {
        place: String,
        port: u16,
        key: &'static str,
    },
    #[error("cannot listen on {place}: {error} ({key})")]
    Io {
        place: String,
        error: io::Error,
        key: &'static str,
    },
}

/// A socket that has its port and does not listen yet.
///
/// So a port in use is found before anything else is done (binding fails if somebody listens
/// there), and yet no client gets through before the broker can serve it.
pub struct Bound {
    socket: TcpSocket,
    port: u16,
}

impl Bound {
    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn listen(self) -> io::Result<TcpListener> {
        self.socket.listen(limits::LISTEN_BACKLOG)
    }
}

/// Binds a listener; an empty host means every interface. `key`: the configuration to change.
pub fn bind(at: &Listener, key: &'static str) -> Result<Bound, BindError> {
    let place = at.to_string();
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::AddrInUse => BindError::InUse {
            place: place.clone(),
            port: at.port,
            key,
        },
        _ => BindError::Io {
            place: place.clone(),
            error,
            key,
        },
    };
    if at.host.is_empty() {
        // One socket for both families, where the machine has IPv6.
        let everywhere = SocketAddr::from((Ipv6Addr::UNSPECIFIED, at.port));
        match bind_to(everywhere) {
            Err(e) if e.kind() != io::ErrorKind::AddrInUse => {}
            result => return result.map_err(failed),
        }
        let everywhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, at.port));
        return bind_to(everywhere).map_err(failed);
    }
    let addresses = (at.host.as_str(), at.port)
        .to_socket_addrs()
        .map_err(failed)?;
    // As Java does: where a name has both, clients that know one family know IPv4.
    let mut addresses: Vec<SocketAddr> = addresses.collect();
    addresses.sort_by_key(SocketAddr::is_ipv6);
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    for address in addresses {
        match bind_to(address) {
            Ok(bound) => return Ok(bound),
            Err(error) => last = error,
        }
    }
    Err(failed(last))
}

fn bind_to(address: SocketAddr) -> io::Result<Bound> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => {
            let socket = TcpSocket::new_v6()?;
            rustix::net::sockopt::set_ipv6_v6only(&socket, !address.ip().is_unspecified())?;
            socket
        }
    };
    // A restart must not wait for the connections of the last run to be forgotten.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    let port = socket.local_addr()?.port();
    Ok(Bound { socket, port })
}
