//! A socket of the floor: bytes in until a request is whole, answers out as the socket takes them.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use oncelog_wire::frame::LENGTH_PREFIX;

/// Room for the largest request of the clients used here, and for more behind it.
const BUFFER_BYTES: usize = 4 << 20;

/// A piece of an answer.
pub enum Piece {
    Bytes(Bytes),
    File {
        file: Arc<File>,
        at: u64,
        len: usize,
    },
}

pub struct Connection {
    stream: TcpStream,
    /// Received and not handled: `buffer[start..end]`.
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    pub answers: VecDeque<Piece>,
}

impl Connection {
    pub fn new(stream: TcpStream) -> Connection {
        Connection {
            stream,
            buffer: vec![0; BUFFER_BYTES].into_boxed_slice(),
            start: 0,
            end: 0,
            answers: VecDeque::new(),
        }
    }

    /// Reads until the socket is empty, handing over each whole request without its length; whether
    /// the connection is still open.
    pub fn read_all(
        &mut self,
        mut handle: impl FnMut(&[u8], &mut VecDeque<Piece>) -> Result<()>,
    ) -> Result<bool> {
        loop {
            match self.stream.read(&mut self.buffer[self.end..]) {
                Ok(0) => return Ok(false),
                Ok(read) => self.end += read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => return Ok(false),
            }
            while let Some(request) = self.next_request()? {
                handle(&self.buffer[request.clone()], &mut self.answers)?;
                self.start = request.end;
            }
            self.make_room();
        }
    }

    fn next_request(&self) -> Result<Option<std::ops::Range<usize>>> {
        let received = &self.buffer[self.start..self.end];
        let Some(prefix) = received.first_chunk::<LENGTH_PREFIX>() else {
            return Ok(None);
        };
        let len = u32::from_be_bytes(*prefix) as usize;
        ensure!(
            LENGTH_PREFIX + len <= BUFFER_BYTES,
            "a request of {len} bytes"
        );
        let first = self.start + LENGTH_PREFIX;
        Ok((received.len() >= LENGTH_PREFIX + len).then_some(first..first + len))
    }

    /// Moves an incomplete request to the front when little room is left behind it.
    fn make_room(&mut self) {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.end > BUFFER_BYTES / 2 {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
    }

    pub fn send(&mut self) -> Result<()> {
        while let Some(piece) = self.answers.front_mut() {
            let (sent, left) = match piece {
                Piece::Bytes(bytes) => match self.stream.write(bytes) {
                    Ok(sent) => {
                        let _ = bytes.split_to(sent);
                        (sent, bytes.len())
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                    Err(_) => return Ok(()),
                },
                Piece::File { file, at, len } => {
                    match rustix::fs::sendfile(&self.stream, &*file, Some(at), *len) {
                        Ok(sent) => {
                            *len -= sent;
                            (sent, *len)
                        }
                        Err(rustix::io::Errno::AGAIN) => return Ok(()),
                        Err(error) => return Err(error).context("sendfile"),
                    }
                }
            };
            if left == 0 {
                self.answers.pop_front();
            } else if sent == 0 {
                return Ok(());
            }
        }
        Ok(())
    }
}
