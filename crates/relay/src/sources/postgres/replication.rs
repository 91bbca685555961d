//! A connection that PostgreSQL's log is streamed over: the replication protocol
//! (<https://www.postgresql.org/docs/current/protocol-replication.html>), with blocking sockets and
//! one message in memory at a time.
//!
//! Why not a crate: `pgwire-replication` 0.5 buffers a number of messages, whatever their size, where a
//! hard cap in bytes is asked for; it gives no way to its socket, so that a host which is gone is
//! noticed when the kernel gives up, after a quarter of an hour; and it sends a confirmed position when
//! its interval has passed, not when it is told. What is needed of it is what is here.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::BytesMut;
use fallible_iterator::FallibleIterator;
use postgres::error::SqlState;
use postgres_protocol::authentication::{md5_hash, sasl};
use postgres_protocol::message::{backend, frontend};

use super::connection::{Address, SILENCE_MAX, Server, judge};
use super::options::literal;
use super::pgoutput::Lsn;
use super::values;
use crate::source::SourceError;

const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// A statement of replication may have to wait for transactions that run.
const ANSWER_LIMIT: Duration = Duration::from_secs(120);
const READ_BYTES: usize = 128 << 10;
/// PostgreSQL makes no message larger than 1 GiB.
const MESSAGE_BYTES_MAX: usize = (1 << 30) + (1 << 10);
/// Microseconds from 1970 to 2000, where PostgreSQL's time begins.
const EPOCH_MICROS: i64 = 946_684_800_000_000;

pub struct Replication {
    socket: Socket,
    link: Arc<Link>,
    buffer: Buffer,
    /// How long the socket waits for bytes.
    patience: Duration,
    name: String,
}

/// The way back to the server, which two threads use.
pub struct Link {
    socket: Mutex<Socket>,
    flushed: AtomicU64,
}

/// What comes while the log is streamed.
pub enum Received<'a> {
    /// A message of the plugin.
    Data(&'a [u8]),
    KeepAlive {
        /// All that was committed before it has been sent.
        wal_end: Lsn,
        answer: bool,
    },
    /// Nothing, in time.
    Nothing,
}

/// A row of text.
pub type Row = Vec<Option<String>>;

impl Replication {
    pub fn connect(server: &Server) -> Result<Replication, SourceError> {
        let name = server.name();
        let failed = |error: io::Error| lost(&name, &error);
        let socket = Socket::connect(&server.address).map_err(failed)?;
        socket.set_read_timeout(ANSWER_LIMIT).map_err(failed)?;
        let back = socket.try_clone().map_err(failed)?;
        let mut replication = Replication {
            socket,
            link: Arc::new(Link {
                socket: Mutex::new(back),
                flushed: AtomicU64::new(0),
            }),
            buffer: Buffer::default(),
            patience: ANSWER_LIMIT,
            name: name.clone(),
        };
        replication.start_up(server)?;
        Ok(replication)
    }

    pub fn link(&self) -> Arc<Link> {
        Arc::clone(&self.link)
    }

    fn start_up(&mut self, server: &Server) -> Result<(), SourceError> {
        let options: Vec<String> = values::SETTINGS
            .iter()
            .map(|(name, value)| format!("-c {name}={value}"))
            .collect();
        let options = options.join(" ");
        let parameters = [
            ("user", server.user.as_str()),
            ("database", server.database.as_str()),
            ("replication", "database"),
            ("client_encoding", "UTF8"),
            ("application_name", server.application.as_str()),
            ("options", options.as_str()),
        ];
        self.send(|out| frontend::startup_message(parameters, out))?;
        self.authenticate(server)?;
        loop {
            match self.message()? {
                backend::Message::ReadyForQuery(_) => return Ok(()),
                backend::Message::ErrorResponse(body) => return Err(self.refusal(&body)),
                _ => {}
            }
        }
    }

    fn authenticate(&mut self, server: &Server) -> Result<(), SourceError> {
        let name = self.name.clone();
        let missing = || SourceError::Refused(format!("{name} asks for a password: url has none"));
        let password = || server.password.as_deref().ok_or_else(missing);
        loop {
            match self.message()? {
                backend::Message::AuthenticationOk => return Ok(()),
                backend::Message::AuthenticationCleartextPassword => {
                    let password = password()?;
                    self.send(|out| frontend::password_message(password, out))?;
                }
                backend::Message::AuthenticationMd5Password(body) => {
                    let hash = md5_hash(server.user.as_bytes(), password()?, body.salt());
                    self.send(|out| frontend::password_message(hash.as_bytes(), out))?;
                }
                backend::Message::AuthenticationSasl(body) => {
                    let offered: Vec<&str> = body
                        .mechanisms()
                        .collect()
                        .map_err(|error| lost(&name, &error))?;
                    if !offered.contains(&sasl::SCRAM_SHA_256) {
                        return Err(self.cannot_authenticate());
                    }
                    self.scram(password()?)?;
                }
                backend::Message::ErrorResponse(body) => return Err(self.refusal(&body)),
                backend::Message::NoticeResponse(_) => {}
                _ => return Err(self.cannot_authenticate()),
            }
        }
    }

    fn scram(&mut self, password: &[u8]) -> Result<(), SourceError> {
        let name = self.name.clone();
        let failed = |error: io::Error| SourceError::Refused(format!("{name}: {error}"));
        let binding = sasl::ChannelBinding::unsupported();
        let mut scram = sasl::ScramSha256::new(password, binding);
        let first = scram.message().to_vec();
        self.send(|out| frontend::sasl_initial_response(sasl::SCRAM_SHA_256, &first, out))?;
        match self.message()? {
            backend::Message::AuthenticationSaslContinue(body) => {
                scram.update(body.data()).map_err(failed)?;
            }
            backend::Message::ErrorResponse(body) => return Err(self.refusal(&body)),
            _ => return Err(self.cannot_authenticate()),
        }
        let last = scram.message().to_vec();
        self.send(|out| frontend::sasl_response(&last, out))?;
        match self.message()? {
            backend::Message::AuthenticationSaslFinal(body) => {
                scram.finish(body.data()).map_err(failed)
            }
            backend::Message::ErrorResponse(body) => Err(self.refusal(&body)),
            _ => Err(self.cannot_authenticate()),
        }
    }

    fn cannot_authenticate(&self) -> SourceError {
        SourceError::Refused(format!(
            "{} asks for a way of authentication that this program does not have: it has \
             scram-sha-256, md5 and password (pg_hba.conf)",
            self.name
        ))
    }

    /// A statement of replication, or of SQL without parameters.
    pub fn query(&mut self, statement: &str) -> Result<Vec<Row>, SourceError> {
        self.send(|out| frontend::query(statement, out))?;
        let mut rows = Vec::new();
        let mut refusal = None;
        loop {
            match self.message()? {
                backend::Message::DataRow(body) => {
                    let ranges: Vec<_> = body
                        .ranges()
                        .collect()
                        .map_err(|error| lost(&self.name, &error))?;
                    let text = |range| String::from_utf8_lossy(&body.buffer()[range]).into_owned();
                    rows.push(ranges.into_iter().map(|range| range.map(text)).collect());
                }
                backend::Message::ErrorResponse(body) => refusal = Some(self.refusal(&body)),
                backend::Message::ReadyForQuery(_) => return refusal.map_or(Ok(rows), Err),
                _ => {}
            }
        }
    }

    /// From here on there is only [`Replication::receive`].
    pub fn start(&mut self, slot: &str, from: Lsn, publication: &str) -> Result<(), SourceError> {
        let statement = format!(
            "START_REPLICATION SLOT \"{slot}\" LOGICAL {} (proto_version '1', \
             publication_names {}, messages 'true')",
            crate::resume::Lsn(from),
            // A list of identifiers, as a string.
            literal(&super::options::quoted(publication))
        );
        self.send(|out| frontend::query(&statement, out))?;
        loop {
            // The one message that the crate does not know is what is waited for.
            let tag = self.fill_message()?;
            if tag == b'W' {
                self.buffer.take_message();
                return Ok(());
            }
            if let backend::Message::ErrorResponse(body) = self.message()? {
                return Err(self.refusal(&body));
            }
        }
    }

    /// The next message of the stream, waiting for it up to `wait`.
    pub fn receive(&mut self, wait: Duration) -> Result<Received<'_>, SourceError> {
        if self.patience != wait {
            let set = self.socket.set_read_timeout(wait);
            set.map_err(|error| lost(&self.name, &error))?;
            self.patience = wait;
        }
        while self
            .buffer
            .message()
            .map_err(|error| lost(&self.name, &error))?
            .is_none()
        {
            match self.buffer.fill(&mut self.socket) {
                Ok(()) => {}
                Err(error) if timed_out(&error) => return Ok(Received::Nothing),
                Err(error) => return Err(lost(&self.name, &error)),
            }
        }
        let tag = self.buffer.tag();
        match tag {
            Some(b'd') => {
                let body = self.buffer.take_message();
                received(body).ok_or_else(|| {
                    SourceError::Lost(format!(
                        "{}: a message of the stream is malformed",
                        self.name
                    ))
                })
            }
            Some(b'E') => match self.message()? {
                backend::Message::ErrorResponse(body) => Err(self.refusal(&body)),
                _ => Err(SourceError::Lost(format!(
                    "{}: the stream has ended",
                    self.name
                ))),
            },
            Some(b'c' | b'C' | b'Z') => Err(SourceError::Lost(format!(
                "{} has ended the stream",
                self.name
            ))),
            _ => {
                self.buffer.take_message();
                Ok(Received::Nothing)
            }
        }
    }

    fn fill_message(&mut self) -> Result<u8, SourceError> {
        while self
            .buffer
            .message()
            .map_err(|error| lost(&self.name, &error))?
            .is_none()
        {
            let filled = self.buffer.fill(&mut self.socket);
            filled.map_err(|error| lost(&self.name, &error))?;
        }
        Ok(self.buffer.tag().unwrap_or_default())
    }

    /// One of those that the crate knows.
    fn message(&mut self) -> Result<backend::Message, SourceError> {
        self.fill_message()?;
        let mut whole = BytesMut::from(self.buffer.whole_message());
        self.buffer.take_message();
        let parsed = backend::Message::parse(&mut whole);
        let parsed = parsed.map_err(|error| lost(&self.name, &error))?;
        parsed.ok_or_else(|| SourceError::Lost(format!("{}: a message is cut off", self.name)))
    }

    fn send(
        &mut self,
        write: impl FnOnce(&mut BytesMut) -> io::Result<()>,
    ) -> Result<(), SourceError> {
        let mut out = BytesMut::new();
        let sent = write(&mut out).and_then(|()| self.socket.write_all(&out));
        sent.map_err(|error| lost(&self.name, &error))
    }

    fn refusal(&self, body: &backend::ErrorResponseBody) -> SourceError {
        let mut code = String::new();
        let mut text = format!("{}: ", self.name);
        let mut fields = body.fields();
        while let Ok(Some(field)) = fields.next() {
            let value = String::from_utf8_lossy(field.value_bytes());
            match field.type_() {
                b'C' => code = value.into_owned(),
                b'M' => text.push_str(&value),
                b'D' | b'H' => text.push_str(&format!(". {value}")),
                _ => {}
            }
        }
        text.push_str(&format!(" ({code})"));
        match code.as_str() {
            // The slot's log is gone, or was never kept.
            "55000" | "58P01" => SourceError::Refused(text),
            code => judge(text, &SqlState::from_code(code)),
        }
    }
}

impl Link {
    /// All up to `lsn` is durable elsewhere; the server hears of it at once.
    pub fn confirm(&self, lsn: Lsn) -> io::Result<()> {
        self.flushed.fetch_max(lsn, Ordering::SeqCst);
        self.report()
    }

    /// Says that we are there, and what is confirmed.
    pub fn report(&self) -> io::Result<()> {
        let mut socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        // Read under the lock: no older one goes out after a newer one.
        let flushed = self.flushed.load(Ordering::SeqCst);
        let message = status(flushed, now_micros());
        socket.write_all(&message)
    }

    /// Ends the stream, which whoever waits for it notices.
    pub fn end(&self) {
        let mut socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        let mut farewell = BytesMut::new();
        frontend::copy_done(&mut farewell);
        frontend::terminate(&mut farewell);
        // The server may be gone already.
        let _ = socket.write_all(&farewell);
        let _ = socket.shutdown();
    }
}

/// A standby status update. Written and applied are what is flushed: a server that thinks us behind
/// says how far it is (a keep-alive) whenever it has nothing to send. The last byte would ask for one.
fn status(flushed: Lsn, micros: i64) -> [u8; 39] {
    let mut message = [0; 39];
    message[0] = b'd';
    message[1..5].copy_from_slice(&38u32.to_be_bytes());
    message[5] = b'r';
    for field in [6, 14, 22] {
        message[field..field + 8].copy_from_slice(&flushed.to_be_bytes());
    }
    message[30..38].copy_from_slice(&micros.to_be_bytes());
    message
}

/// Since 2000.
fn now_micros() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX) - EPOCH_MICROS
}

/// `None`: malformed.
fn received(body: &[u8]) -> Option<Received<'_>> {
    match body.split_first()? {
        // Begin and end of the data in the log, and the server's time.
        (b'w', rest) => Some(Received::Data(rest.get(24..)?)),
        (b'k', rest) => Some(Received::KeepAlive {
            wal_end: u64::from_be_bytes(*rest.first_chunk()?),
            answer: *rest.get(16)? != 0,
        }),
        _ => Some(Received::Nothing),
    }
}

fn lost(name: &str, error: &io::Error) -> SourceError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => {
            SourceError::Lost(format!("{name} has closed the replication connection"))
        }
        _ => SourceError::Lost(format!("{name}: {error}")),
    }
}

fn timed_out(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}

/// What was read and not yet taken: `bytes[start..end]`.
#[derive(Default)]
struct Buffer {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

const HEADER: usize = 5;

impl Buffer {
    /// The length of the first message with its header, if all of it is there.
    fn message(&self) -> io::Result<Option<usize>> {
        let length = self.length()?;
        Ok(length.filter(|length| *length <= self.end - self.start))
    }

    fn length(&self) -> io::Result<Option<usize>> {
        let Some(header) = self.bytes[self.start..self.end].first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let [_, a, b, c, d] = *header;
        let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
        if !(4..=MESSAGE_BYTES_MAX).contains(&length) {
            let what = format!("a message of {length} bytes is none of PostgreSQL");
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        Ok(Some(length + 1))
    }

    fn tag(&self) -> Option<u8> {
        self.bytes[self.start..self.end].first().copied()
    }

    /// The first message with its header; nothing where it is not all there.
    fn whole_message(&self) -> &[u8] {
        let length = self.message().ok().flatten().unwrap_or(0);
        &self.bytes[self.start..self.start + length]
    }

    /// The first message without its header; it is done with when the next is asked for.
    fn take_message(&mut self) -> &[u8] {
        let whole = self.whole_message().len();
        let begin = self.start;
        self.start += whole;
        &self.bytes[(begin + HEADER).min(self.start)..self.start]
    }

    fn fill(&mut self, from: &mut impl Read) -> io::Result<()> {
        let missing = self
            .length()?
            .unwrap_or(HEADER)
            .saturating_sub(self.end - self.start);
        self.make_room(missing.max(1));
        let count = loop {
            match from.read(&mut self.bytes[self.end..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read?,
            }
        };
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.end += count;
        Ok(())
    }

    /// Room for the message grows with what has come of it, not with what it says of itself.
    fn make_room(&mut self, missing: usize) {
        if self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.end == 0 && self.bytes.len() > 8 * READ_BYTES {
            // After a large message.
            self.bytes = Vec::new();
        }
        let wanted = self.end + missing.clamp(READ_BYTES, READ_BYTES + self.end);
        if self.bytes.len() < wanted {
            self.bytes.reserve_exact(wanted - self.bytes.len());
            self.bytes.resize(wanted, 0);
        }
    }
}

enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    fn connect(address: &Address) -> io::Result<Socket> {
        let socket = match address {
            Address::Unix { folder, port } => {
                let path = folder.join(format!(".s.PGSQL.{port}"));
                Socket::Unix(UnixStream::connect(path)?)
            }
            Address::Tcp(host, port) => Socket::Tcp(connect_tcp(host, *port)?),
        };
        match &socket {
            Socket::Tcp(socket) => socket.set_write_timeout(Some(SILENCE_MAX))?,
            Socket::Unix(socket) => socket.set_write_timeout(Some(SILENCE_MAX))?,
        }
        Ok(socket)
    }

    fn set_read_timeout(&self, timeout: Duration) -> io::Result<()> {
        match self {
            Socket::Tcp(socket) => socket.set_read_timeout(Some(timeout)),
            Socket::Unix(socket) => socket.set_read_timeout(Some(timeout)),
        }
    }

    fn try_clone(&self) -> io::Result<Socket> {
        match self {
            Socket::Tcp(socket) => socket.try_clone().map(Socket::Tcp),
            Socket::Unix(socket) => socket.try_clone().map(Socket::Unix),
        }
    }

    fn shutdown(&self) -> io::Result<()> {
        match self {
            Socket::Tcp(socket) => socket.shutdown(Shutdown::Both),
            Socket::Unix(socket) => socket.shutdown(Shutdown::Both),
        }
    }
}

fn connect_tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut failed = io::Error::new(io::ErrorKind::NotFound, format!("{host} has no address"));
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, CONNECT_LIMIT) {
            Ok(socket) => {
                socket.set_nodelay(true)?;
                notice_silence(&socket)?;
                return Ok(socket);
            }
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

/// A host that is gone says nothing, and neither does one that has nothing to say: the kernel has to
/// ask.
#[cfg(target_os = "linux")]
fn notice_silence(socket: &TcpStream) -> io::Result<()> {
    use rustix::net::sockopt;
    sockopt::set_socket_keepalive(socket, true)?;
    sockopt::set_tcp_keepidle(socket, SILENCE_MAX / 3)?;
    sockopt::set_tcp_keepintvl(socket, SILENCE_MAX / 3)?;
    sockopt::set_tcp_keepcnt(socket, 2)?;
    let millis = u32::try_from(SILENCE_MAX.as_millis()).unwrap_or(u32::MAX);
    sockopt::set_tcp_user_timeout(socket, millis)?;
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn notice_silence(socket: &TcpStream) -> io::Result<()> {
    rustix::net::sockopt::set_socket_keepalive(socket, true)?;
    Ok(())
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(socket) => socket.read(buffer),
            Socket::Unix(socket) => socket.read(buffer),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(socket) => socket.write(bytes),
            Socket::Unix(socket) => socket.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(tag: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).unwrap();
        [&[tag][..], &length.to_be_bytes(), body].concat()
    }

    /// Gives what it has in pieces.
    struct Pieces<'a>(&'a [u8], usize);

    impl Read for Pieces<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = self.1.min(self.0.len()).min(buffer.len());
            let (taken, rest) = self.0.split_at(count);
            buffer[..count].copy_from_slice(taken);
            self.0 = rest;
            Ok(count)
        }
    }

    #[test]
    fn messages_are_cut_out_of_a_stream_however_it_arrives() {
        let large = vec![7; 3 * READ_BYTES];
        let stream = [
            framed(b'd', b"one"),
            framed(b'd', &large),
            framed(b'c', b""),
        ]
        .concat();
        for piece in [1, 2, 1_000, READ_BYTES, usize::MAX] {
            let mut buffer = Buffer::default();
            let mut pieces = Pieces(&stream, piece);
            let mut bodies = Vec::new();
            while bodies.len() < 3 {
                if buffer.message().unwrap().is_some() {
                    bodies.push(buffer.take_message().to_vec());
                } else {
                    buffer.fill(&mut pieces).unwrap();
                }
            }
            assert_eq!(bodies, [b"one".to_vec(), large.clone(), vec![]]);
            assert_eq!(
                buffer.fill(&mut pieces).unwrap_err().kind(),
                io::ErrorKind::UnexpectedEof
            );
        }
    }

    #[test]
    fn a_length_that_lies_takes_no_memory() {
        let mut buffer = Buffer::default();
        let mut claim = framed(b'd', b"x");
        claim[1..5].copy_from_slice(&(1u32 << 30).to_be_bytes());
        buffer.fill(&mut Pieces(&claim, usize::MAX)).unwrap();
        assert_eq!(buffer.message().unwrap(), None);
        assert!(buffer.bytes.len() <= 2 * READ_BYTES);
        claim[1..5].copy_from_slice(&u32::MAX.to_be_bytes());
        let mut buffer = Buffer::default();
        buffer.fill(&mut Pieces(&claim, usize::MAX)).unwrap();
        assert!(buffer.message().is_err());
    }

    #[test]
    fn a_status_says_what_is_flushed() {
        let message = status(0x0102, -1);
        let lsn = 0x0102u64.to_be_bytes();
        let body = [&b"r"[..], &lsn, &lsn, &lsn, &[0xFF; 8], &[0]].concat();
        assert_eq!(message.to_vec(), framed(b'd', &body));
    }

    #[test]
    fn the_stream_has_data_and_keep_alives() {
        let data = [&b"w"[..], &[0; 24], b"B"].concat();
        assert!(matches!(received(&data), Some(Received::Data(b"B"))));
        let alive = [&b"k"[..], &7u64.to_be_bytes(), &[0; 8], &[1]].concat();
        let Some(Received::KeepAlive { wal_end, answer }) = received(&alive) else {
            panic!("a keep-alive");
        };
        assert_eq!((wal_end, answer), (7, true));
        assert!(received(b"w").is_none());
        assert!(received(b"").is_none());
    }
}
