//! From answer to frame, outside the core: a fetch's slices become exact file ranges here, and
//! messages become bytes.
//!
//! The core only knows where the visible part of a partition begins and ends; which batches fit
//! under the client's limits is found by reading index and batch headers, on the connection's own
//! task. Record bytes themselves are not read: the frame's chunks name them by file and range.
//!
//! Meanwhile the core goes on: a compaction may put another file in the place of a segment's, and a
//! topic may be deleted and made anew, with files of the same names. So a slice's file is opened
//! first ("pinned"), its range is found in what was opened, and then the slice is asked whether it
//! is still current. If it is not, the partition is answered without records, and the client asks
//! again: bytes of the wrong file, or from the wrong place of the right one, are never sent.

use crate::input::ConnectionId;
use crate::pinned::{ByName, PinnedFile, ThroughPin};
use bytes::Bytes;
use oncelog_commitlog::{Disk, FileName, LogSlice, Resolved, resolve};
use oncelog_wire::frame;
use oncelog_wire::messages::FetchResponse;
use oncelog_wire::{ApiKey, ResponseBody};
use oncelog_wire::{EncodeError, ErrorCode, Records};
use std::io;

/// An answer on its way to its connection.
#[derive(Debug)]
pub struct Answer {
    pub connection: ConnectionId,
    pub correlation_id: i32,
    pub api_key: ApiKey,
    pub version: i16,
    pub body: AnswerBody,
}

#[derive(Debug)]
pub enum AnswerBody {
    Message(ResponseBody),
    Fetch(Box<FetchAnswer>),
}

/// A fetch answer without its records, and where they are.
#[derive(Debug)]
pub struct FetchAnswer {
    pub response: FetchResponse,
    pub slices: Vec<SliceAt>,
    /// The whole answer's limit in bytes; the first batch is sent even if it is larger.
    pub max_bytes: i32,
}

#[derive(Debug)]
pub struct SliceAt {
    /// Indexes of the topic and the partition in the response.
    pub topic: usize,
    pub partition: usize,
    pub slice: LogSlice,
}

/// A piece of an encoded answer; `F` is what the host holds a file by.
#[derive(Clone, Debug)]
pub enum Chunk<F = FileName> {
    Bytes(Bytes),
    /// Bytes of a log segment, to be sent as they are.
    File {
        file: F,
        position: u64,
        len: u32,
    },
}

#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    #[error("reading the log for a fetch failed: {0}")]
    Io(#[from] io::Error),
    #[error("an answer could not be encoded in the version it was asked in: {0}")]
    Encode(#[from] EncodeError),
}

impl Answer {
    /// The whole frame, its length first, with files by their names: for a host that carries out
    /// no disk work between this and reading the files.
    pub fn encode(self, disk: &dyn Disk) -> Result<Vec<Chunk>, AnswerError> {
        let chunks = self.encode_pinned(disk, |file| Ok(ByName::new(disk, file)))?;
        let named = |chunk: Chunk<ByName<'_>>| match chunk {
            Chunk::Bytes(bytes) => Chunk::Bytes(bytes),
            Chunk::File {
                file,
                position,
                len,
            } => Chunk::File {
                file: file.into_name(),
                position,
                len,
            },
        };
        Ok(chunks.into_iter().map(named).collect())
    }

    /// The whole frame, its length first. `pin` opens a file; `NotFound` if there is none.
    pub fn encode_pinned<F: PinnedFile>(
        self,
        disk: &dyn Disk,
        pin: impl Fn(&FileName) -> io::Result<F>,
    ) -> Result<Vec<Chunk<F>>, AnswerError> {
        let mut files = Vec::new();
        let body = match self.body {
            AnswerBody::Message(body) => body,
            AnswerBody::Fetch(fetch) => ResponseBody::Fetch(fill(*fetch, disk, &pin, &mut files)?),
        };
        let encoded =
            frame::encode_response(self.correlation_id, self.api_key, self.version, &body)?;
        let chunk = |chunk: oncelog_wire::Chunk| match chunk {
            oncelog_wire::Chunk::Bytes(bytes) => Chunk::Bytes(bytes),
            oncelog_wire::Chunk::External { token, .. } => {
                let range = files[token as usize].take();
                let Range {
                    file,
                    position,
                    len,
                } = range.expect("each range stands once in the frame");
                Chunk::File {
                    file,
                    position,
                    len,
                }
            }
        };
        Ok(encoded.chunks.into_iter().map(chunk).collect())
    }
}

/// A range of a file that is held open.
struct Range<F> {
    file: F,
    position: u64,
    len: u32,
}

/// Finds the exact range of every slice, in order, within the answer's limit.
fn fill<F: PinnedFile>(
    fetch: FetchAnswer,
    disk: &dyn Disk,
    pin: &dyn Fn(&FileName) -> io::Result<F>,
    files: &mut Vec<Option<Range<F>>>,
) -> Result<FetchResponse, AnswerError> {
    let mut response = fetch.response;
    let mut room = fetch.max_bytes.max(0) as u32;
    let mut first = true;
    for at in fetch.slices {
        if room == 0 && !first {
            break;
        }
        let range = match find(disk, pin, &at.slice, room, first) {
            // Asked only now that the file is open. An error that comes of a file that is being
            // taken away is no error: the client asks again, and is told where the log starts.
            _ if !at.slice.is_current() => None,
            // Damage on disk is the affair of this partition alone.
            Err(error) if is_damage(&error) => {
                let partition = &mut response.responses[at.topic].partitions[at.partition];
                partition.error_code = ErrorCode::CorruptMessage.code();
                continue;
            }
            range => range?,
        };
        let Some(range) = range else { continue };
        first = false;
        room = room.saturating_sub(range.len);
        let partition = &mut response.responses[at.topic].partitions[at.partition];
        partition.records = Some(Records::External {
            token: files.len() as u32,
            len: range.len,
        });
        files.push(Some(range));
    }
    Ok(response)
}

/// There is no batch where one was written.
fn is_damage(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
    )
}

fn find<F: PinnedFile>(
    disk: &dyn Disk,
    pin: &dyn Fn(&FileName) -> io::Result<F>,
    slice: &LogSlice,
    room: u32,
    first: bool,
) -> io::Result<Option<Range<F>>> {
    let file = pin(slice.file())?;
    let through = ThroughPin::new(disk, slice.file(), &file);
    let Some(resolved) = resolve(&through, slice, room, first)? else {
        return Ok(None);
    };
    let Resolved { position, len, .. } = resolved;
    Ok(Some(Range {
        file,
        position,
        len,
    }))
}
