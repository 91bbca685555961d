//! What goes out on one connection: answers in the order of their emission.
//!
//! Whoever made an answer also sends it, on the thread where it was made (a wake-up costs more
//! than a write): [`Outbox::flush`] may be called from any thread and one of them does the
//! writing. Only when the socket takes no more does the connection's own task go on, as soon as
//! there is room.
//!
//! Answers wait unencoded, and a fetch answer is encoded only when the one before it has left, so
//! a slow reader holds a few small structs, not bytes. Record bytes go from the file to the socket
//! (sendfile); several answers go out in one write.
//!
//! Invariants: bytes leave in the order of `push`; nothing is lost when two threads flush at the
//! same time (who loses the race leaves its answer to the winner, who looks again before it goes).

use crate::disk::RealDisk;
use crate::limits;
use bytes::{Buf, Bytes};
use oncelog_broker::{Answer, AnswerError, Chunk, PinnedFile};
use oncelog_commitlog::FileName;
use rustix::net::{SendAncillaryBuffer, SendFlags};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IoSlice};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::io::Interest;
use tokio::net::TcpStream;

pub enum Outgoing {
    Answer(Box<Answer>),
    /// An answer that the broker's core never saw (a request refused before it got there).
    Encoded(Bytes),
    /// Close the connection once everything before has left.
    Close(&'static str),
}

#[derive(Default)]
pub struct Outbox {
    inbox: Mutex<VecDeque<Outgoing>>,
    writer: Mutex<Writer>,
}

/// How a flush ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Flushed {
    /// Nothing is left, or another thread is at it.
    Done,
    /// The socket is full or this turn is over: go on when it is writable.
    Unfinished,
    /// Nothing more can go out.
    Closed { reason: String },
}

/// What left in one flush.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Answers whose last byte was handed to the socket.
    pub answers: u32,
    pub bytes: u64,
    /// Of `bytes`, those that came straight from log segments.
    pub record_bytes: u64,
}

#[derive(Default)]
struct Writer {
    pieces: VecDeque<Piece>,
    closed: bool,
}

/// A log segment whose records are being sent.
struct OpenSegment(Arc<File>);

impl PinnedFile for OpenSegment {
    fn read_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            let (rest, at) = (&mut buffer[done..], position + done as u64);
            match rustix::io::retry_on_intr(|| rustix::io::pread(&self.0, &mut *rest, at))? {
                0 => break,
                read => done += read,
            }
        }
        Ok(done)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }
}

enum Piece {
    Bytes(Bytes),
    File {
        file: Arc<File>,
        position: u64,
        left: u64,
    },
    EndOfAnswer,
    Close(&'static str),
}

impl Outbox {
    /// Called with the core locked: short.
    pub fn push(&self, outgoing: Outgoing) {
        lock(&self.inbox).push_back(outgoing);
    }

    /// Sends what the socket takes; adds what left to `sent`.
    pub fn flush(&self, stream: &TcpStream, disk: &RealDisk, sent: &mut Sent) -> Flushed {
        loop {
            let Ok(mut writer) = self.writer.try_lock() else {
                return Flushed::Done;
            };
            let mut turn = Turn {
                outbox: self,
                stream,
                disk,
                sent: Sent::default(),
            };
            let result = turn.run(&mut writer);
            sent.answers += turn.sent.answers;
            sent.bytes += turn.sent.bytes;
            sent.record_bytes += turn.sent.record_bytes;
            drop(writer);
            match result {
                Ok(()) => {}
                Err(Stop::Full) => return Flushed::Unfinished,
                Err(Stop::Closed(reason)) => return Flushed::Closed { reason },
            }
            // Somebody may have pushed and lost the race for the writer while we held it.
            if lock(&self.inbox).is_empty() {
                return Flushed::Done;
            }
        }
    }

    /// Bytes of encoded answers that wait for the socket; record bytes do not count, they are in
    /// files. 0 while somebody is sending.
    pub fn unsent_bytes(&self) -> usize {
        let Ok(writer) = self.writer.try_lock() else {
            return 0;
        };
        let bytes = |piece: &Piece| match piece {
            Piece::Bytes(part) => part.len(),
            Piece::File { .. } | Piece::EndOfAnswer | Piece::Close(_) => 0,
        };
        writer.pieces.iter().map(bytes).sum()
    }

    /// Drops what has not left, with the files and answers that it holds.
    pub fn abandon(&self) {
        lock(&self.inbox).clear();
        let mut writer = lock(&self.writer);
        writer.pieces.clear();
        writer.closed = true;
    }
}

/// Bytes to be sent from memory, and whether a file slice is among them.
type Encoding = Result<(usize, bool), AnswerError>;

enum Stop {
    Full,
    Closed(String),
}

struct Turn<'a> {
    outbox: &'a Outbox,
    stream: &'a TcpStream,
    disk: &'a RealDisk,
    sent: Sent,
}

impl Turn<'_> {
    /// `Ok`: everything has left.
    fn run(&mut self, writer: &mut Writer) -> Result<(), Stop> {
        if writer.closed {
            return Err(Stop::Closed("it is closed already".to_owned()));
        }
        loop {
            self.gather(&mut writer.pieces)?;
            if writer.pieces.is_empty() {
                return Ok(());
            }
            let result = self.send(&mut writer.pieces);
            if matches!(result, Err(Stop::Closed(_))) {
                writer.closed = true;
                writer.pieces.clear();
            }
            result?;
            if self.sent.bytes >= limits::SEND_TURN_BYTES as u64 {
                return Err(Stop::Full);
            }
        }
    }

    /// Encodes waiting answers until one write is full or a file slice comes.
    fn gather(&self, pieces: &mut VecDeque<Piece>) -> Result<(), Stop> {
        let mut bytes = 0;
        for piece in pieces.iter() {
            match piece {
                Piece::Bytes(part) => bytes += part.len(),
                Piece::File { .. } | Piece::Close(_) => return Ok(()),
                Piece::EndOfAnswer => {}
            }
        }
        while bytes < limits::WRITE_BYTES {
            let Some(next) = lock(&self.outbox.inbox).pop_front() else {
                return Ok(());
            };
            match next {
                Outgoing::Encoded(encoded) => {
                    bytes += encoded.len();
                    pieces.push_back(Piece::Bytes(encoded));
                    pieces.push_back(Piece::EndOfAnswer);
                }
                Outgoing::Answer(answer) => {
                    let encoded = self.encode(*answer, pieces);
                    let (size, has_file) = encoded.map_err(|e| Stop::Closed(e.to_string()))?;
                    bytes += size;
                    if has_file {
                        return Ok(());
                    }
                }
                Outgoing::Close(reason) => {
                    pieces.push_back(Piece::Close(reason));
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn encode(&self, answer: Answer, pieces: &mut VecDeque<Piece>) -> Encoding {
        let (mut bytes, mut has_file) = (0, false);
        // Opened while it is encoded: from here on no removal or compaction changes what is sent.
        let pin = |file: &FileName| self.disk.file(file).map(OpenSegment);
        for chunk in answer.encode_pinned(self.disk, pin)? {
            match chunk {
                Chunk::Bytes(part) => {
                    bytes += part.len();
                    pieces.push_back(Piece::Bytes(part));
                }
                Chunk::File {
                    file: OpenSegment(file),
                    position,
                    len,
                } => {
                    has_file = true;
                    pieces.push_back(Piece::File {
                        file,
                        position,
                        left: u64::from(len),
                    });
                }
            }
        }
        pieces.push_back(Piece::EndOfAnswer);
        Ok((bytes, has_file))
    }

    fn send(&mut self, pieces: &mut VecDeque<Piece>) -> Result<(), Stop> {
        while let Some(first) = pieces.front_mut() {
            match first {
                Piece::EndOfAnswer => {
                    self.sent.answers += 1;
                    pieces.pop_front();
                }
                Piece::Close(reason) => return Err(Stop::Closed((*reason).to_owned())),
                Piece::Bytes(_) => self.send_bytes(pieces)?,
                Piece::File {
                    file,
                    position,
                    left,
                } => {
                    let sent = send_file(self.stream, file, *position, *left).map_err(stop)?;
                    self.sent.bytes += sent;
                    self.sent.record_bytes += sent;
                    *position += sent;
                    *left -= sent;
                    if *left == 0 {
                        pieces.pop_front();
                    }
                    if self.sent.bytes >= limits::SEND_TURN_BYTES as u64 {
                        return Err(Stop::Full);
                    }
                }
            }
        }
        Ok(())
    }

    /// Sends the bytes up to the next file slice in one write.
    fn send_bytes(&mut self, pieces: &mut VecDeque<Piece>) -> Result<(), Stop> {
        let mut slices: Vec<IoSlice<'_>> =
            Vec::with_capacity(pieces.len().min(limits::WRITE_SLICES));
        let mut flags = SendFlags::NOSIGNAL;
        for piece in pieces.iter() {
            match piece {
                Piece::Bytes(part) if slices.len() < limits::WRITE_SLICES => {
                    slices.push(IoSlice::new(part));
                }
                Piece::EndOfAnswer => {}
                // The records follow at once: let them share the packet.
                Piece::File { .. } | Piece::Bytes(_) => {
                    flags |= SendFlags::MORE;
                    break;
                }
                Piece::Close(_) => break,
            }
        }
        let send = || {
            let mut no_control = SendAncillaryBuffer::default();
            rustix::net::sendmsg(self.stream, &slices, &mut no_control, flags)
                .map_err(io::Error::from)
        };
        let sent = self.stream.try_io(Interest::WRITABLE, send).map_err(stop)?;
        drop(slices);
        self.sent.bytes += sent as u64;
        self.sent.answers += advance(pieces, sent);
        Ok(())
    }
}

/// Removes `sent` bytes from the front; returns how many answers ended in them.
fn advance(pieces: &mut VecDeque<Piece>, mut sent: usize) -> u32 {
    let mut answers = 0;
    while let Some(piece) = pieces.front_mut() {
        match piece {
            Piece::EndOfAnswer => answers += 1,
            Piece::Bytes(part) if part.len() > sent => {
                part.advance(sent);
                break;
            }
            Piece::Bytes(part) => sent -= part.len(),
            Piece::File { .. } | Piece::Close(_) => break,
        }
        pieces.pop_front();
    }
    answers
}

/// Sends part of a file without its bytes passing through this process.
fn send_file(stream: &TcpStream, file: &File, position: u64, left: u64) -> io::Result<u64> {
    let count = left.min(limits::SEND_TURN_BYTES as u64) as usize;
    let send = || {
        let mut offset = position;
        rustix::fs::sendfile(stream, file, Some(&mut offset), count).map_err(io::Error::from)
    };
    match stream.try_io(Interest::WRITABLE, send)? {
        0 => Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "the log segment ended before the records that were promised",
        )),
        sent => Ok(sent as u64),
    }
}

fn stop(error: io::Error) -> Stop {
    match error.kind() {
        io::ErrorKind::WouldBlock => Stop::Full,
        // Try again at once: the loop above comes back to the same piece.
        io::ErrorKind::Interrupted => Stop::Full,
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => {
            Stop::Closed("the client closed it".to_owned())
        }
        _ => Stop::Closed(format!("sending failed: {error}")),
    }
}

// A panic in here leaves the connection unusable but harms nobody else; its task closes it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
