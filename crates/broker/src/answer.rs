//! From answer to frame, outside the core: a fetch's slices become exact file ranges here, and
//! messages become bytes.
//!
//! The core only knows where the visible part of a partition begins and ends; which batches fit
//! under the client's limits is found by reading index and batch headers, on the connection's own
//! task. Record bytes themselves are not read: the frame's chunks name them by file and range.

use crate::input::ConnectionId;
use bytes::Bytes;
use oncelog_commitlog::{Disk, FileName, LogSlice, Resolved, resolve};
use oncelog_wire::frame;
use oncelog_wire::messages::FetchResponse;
use oncelog_wire::{ApiKey, ResponseBody};
use oncelog_wire::{EncodeError, Records};
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

/// A piece of an encoded answer.
#[derive(Clone, Debug)]
pub enum Chunk {
    Bytes(Bytes),
    /// Bytes of a log segment, to be sent as they are.
    File {
        file: FileName,
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
    /// The whole frame, its length first.
    pub fn encode(self, disk: &dyn Disk) -> Result<Vec<Chunk>, AnswerError> {
        let mut files = Vec::new();
        let body = match self.body {
            AnswerBody::Message(body) => body,
            AnswerBody::Fetch(fetch) => ResponseBody::Fetch(fill(*fetch, disk, &mut files)?),
        };
        let encoded =
            frame::encode_response(self.correlation_id, self.api_key, self.version, &body)?;
        let chunk = |chunk| match chunk {
            oncelog_wire::Chunk::Bytes(bytes) => Chunk::Bytes(bytes),
            oncelog_wire::Chunk::External { token, .. } => {
                let Resolved {
                    file,
                    position,
                    len,
                } = files[token as usize].clone();
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

/// Finds the exact range of every slice, in order, within the answer's limit.
fn fill(
    fetch: FetchAnswer,
    disk: &dyn Disk,
    files: &mut Vec<Resolved>,
) -> Result<FetchResponse, AnswerError> {
    let mut response = fetch.response;
    let mut room = fetch.max_bytes.max(0) as u32;
    let mut first = true;
    for at in fetch.slices {
        if room == 0 && !first {
            break;
        }
        let resolved = match resolve(disk, &at.slice, room, first) {
            Ok(resolved) => resolved,
            // The segment was deleted since: the client asks again and is told where the log starts.
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error.into()),
        };
        let Some(resolved) = resolved else { continue };
        first = false;
        room = room.saturating_sub(resolved.len);
        let partition = &mut response.responses[at.topic].partitions[at.partition];
        partition.records = Some(Records::External {
            token: files.len() as u32,
            len: resolved.len,
        });
        files.push(resolved);
    }
    Ok(response)
}
