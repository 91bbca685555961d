//! Bytes from a socket become request frames.
//!
//! A frame is a 4-byte big-endian length and that many bytes. Whole frames in one read are copied
//! out of the reader's scratch buffer; a frame that is only half there gets a buffer of its own,
//! into which the rest is read directly. That buffer starts small and grows as bytes arrive, each
//! growth charged first ([`crate::budget`]), so an announced length takes no memory.
//!
//! This file deliberately knows no socket and no clock: [`crate::connection`] reads, waits for
//! memory and times out.

use crate::budget::{Budget, Charge, Lane};
use crate::limits;
use bytes::Bytes;
use std::sync::Arc;

/// One complete request with its length prefix, and the memory it is charged for.
pub struct Frame {
    pub bytes: Vec<u8>,
    pub charge: Charge,
}

impl Frame {
    /// The charge stays with the bytes: it is given back when their last slice is dropped.
    pub fn into_charged_bytes(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Frame {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("a request announces {0} bytes, which cannot be: it is not speaking Kafka's protocol")]
    NotALength(i32),
    #[error(
        "a request announces {announced} bytes, more than socket.request.max.bytes = {max}{hint}"
    )]
    TooLarge {
        announced: usize,
        max: usize,
        hint: &'static str,
    },
}

pub struct FrameReader {
    request_bytes_max: usize,
    state: State,
}

enum State {
    /// Up to 3 bytes of a length.
    Length {
        have: [u8; 4],
        count: usize,
    },
    Body(Body),
}

struct Body {
    buffer: Vec<u8>,
    charge: Charge,
    /// The whole frame, length prefix included.
    total: usize,
}

/// Where the next bytes should be read to.
pub enum Next<'a> {
    /// Into the scratch buffer, then [`FrameReader::take`].
    Scratch,
    /// Directly behind these bytes, at most `limit`, then [`FrameReader::body_grew`].
    Body {
        buffer: &'a mut Vec<u8>,
        limit: usize,
    },
    /// Nowhere before the charge has grown by so much.
    Memory {
        charge: &'a mut Charge,
        bytes: usize,
    },
}

impl FrameReader {
    /// `request_bytes_max`: without the length prefix, as Kafka counts.
    pub fn new(request_bytes_max: usize) -> FrameReader {
        FrameReader {
            request_bytes_max,
            state: State::empty(),
        }
    }

    /// Whether a frame has begun and is not complete.
    pub fn is_mid_frame(&self) -> bool {
        !matches!(self.state, State::Length { count: 0, .. })
    }

    /// The size of the frame under way, if it is known.
    pub fn frame_bytes(&self) -> usize {
        match &self.state {
            State::Length { .. } => 0,
            State::Body(body) => body.total,
        }
    }

    /// What of the frame under way has arrived.
    pub fn arrived_bytes(&self) -> usize {
        match &self.state {
            State::Length { count, .. } => *count,
            State::Body(body) => body.buffer.len(),
        }
    }

    /// The memory that the frame under way is charged for.
    pub fn held_bytes(&self) -> usize {
        match &self.state {
            State::Length { .. } => 0,
            State::Body(body) => body.charge.bytes(),
        }
    }

    /// Whether the frame under way was let past the memory limit.
    pub fn is_finisher(&self) -> bool {
        matches!(&self.state, State::Body(body) if body.charge.is_finisher())
    }

    /// How many bytes may be read to scratch when memory is short: only the rest of a length.
    pub fn length_bytes_missing(&self) -> usize {
        match &self.state {
            State::Length { count, .. } => 4 - count,
            State::Body(_) => 0,
        }
    }

    pub fn next(&mut self) -> Next<'_> {
        let State::Body(body) = &mut self.state else {
            return Next::Scratch;
        };
        let charged = body.charge.bytes();
        if body.buffer.len() >= charged {
            let size = match Lane::of(body.total) {
                Lane::Small => body.total,
                Lane::Large => charged
                    .saturating_mul(4)
                    .max(limits::FRAME_BUFFER_LEAST_BYTES)
                    .min(body.total),
            };
            return Next::Memory {
                bytes: size - charged,
                charge: &mut body.charge,
            };
        }
        let spare = charged - body.buffer.len();
        body.buffer.reserve_exact(spare);
        Next::Body {
            limit: spare,
            buffer: &mut body.buffer,
        }
    }

    /// Takes what was read to scratch; complete frames go to `out`. `reserved` covers at least
    /// `bytes.len()` beyond the rest of a length.
    pub fn take(
        &mut self,
        mut bytes: &[u8],
        budget: &Arc<Budget>,
        reserved: &mut Charge,
        out: &mut Vec<Frame>,
    ) -> Result<(), FrameError> {
        while !bytes.is_empty() {
            match &mut self.state {
                State::Length { have, count } => {
                    let part = bytes.len().min(4 - *count);
                    have[*count..*count + part].copy_from_slice(&bytes[..part]);
                    *count += part;
                    bytes = &bytes[part..];
                    if *count == 4 {
                        let prefix = *have;
                        let total = frame_total(prefix, self.request_bytes_max)?;
                        self.state =
                            State::Body(Body::begin(prefix, total, bytes, budget, reserved));
                    }
                }
                State::Body(body) => {
                    let part = bytes.len().min(body.total - body.buffer.len());
                    body.extend(&bytes[..part], reserved);
                    bytes = &bytes[part..];
                    out.extend(self.finish());
                }
            }
        }
        Ok(())
    }

    /// After bytes were read into [`Next::Body`]'s buffer.
    pub fn body_grew(&mut self, out: &mut Vec<Frame>) {
        out.extend(self.finish());
    }

    fn finish(&mut self) -> Option<Frame> {
        match &self.state {
            State::Body(body) if body.buffer.len() == body.total => {}
            _ => return None,
        }
        let State::Body(mut body) = std::mem::replace(&mut self.state, State::empty()) else {
            unreachable!("matched above");
        };
        body.charge.complete();
        Some(Frame {
            bytes: body.buffer,
            charge: body.charge,
        })
    }
}

impl State {
    fn empty() -> State {
        State::Length {
            have: [0; 4],
            count: 0,
        }
    }
}

impl Body {
    /// `coming`: what follows the prefix in the scratch buffer, of this frame and perhaps others.
    fn begin(
        prefix: [u8; 4],
        total: usize,
        coming: &[u8],
        budget: &Arc<Budget>,
        reserved: &mut Charge,
    ) -> Body {
        let here = 4 + coming.len();
        let lane = Lane::of(total);
        // A frame that is whole, or small, gets exactly its size; a large one that goes on has to
        // show its bytes first.
        let wanted = match lane {
            _ if here >= total => total,
            Lane::Small => total,
            Lane::Large => total.min((2 * here).clamp(
                limits::FRAME_BUFFER_LEAST_BYTES,
                limits::FRAME_BUFFER_FIRST_BYTES,
            )),
        };
        let size = wanted.min(reserved.bytes());
        let mut charge = match size {
            0 => budget.empty(),
            size => reserved.split(size),
        };
        charge.use_lane(lane);
        let mut buffer = Vec::with_capacity(size.max(4));
        buffer.extend_from_slice(&prefix);
        Body {
            buffer,
            charge,
            total,
        }
    }

    fn extend(&mut self, bytes: &[u8], reserved: &mut Charge) {
        let size = self.buffer.len() + bytes.len();
        if size > self.charge.bytes() {
            let more = (size - self.charge.bytes()).min(reserved.bytes());
            self.charge.absorb(reserved.split(more));
        }
        self.buffer.extend_from_slice(bytes);
    }
}

fn frame_total(prefix: [u8; 4], max: usize) -> Result<usize, FrameError> {
    let announced = i32::from_be_bytes(prefix);
    let Some(length) = usize::try_from(announced).ok().filter(|length| *length > 0) else {
        return Err(FrameError::NotALength(announced));
    };
    if length > max {
        let hint = match &prefix {
            b"GET " | b"POST" | b"HEAD" | b"PUT " => ": it speaks HTTP; the HTTP port is another",
            [0x16, 0x03, ..] => ": it speaks TLS, which this listener does not",
            _ => "",
        };
        return Err(FrameError::TooLarge {
            announced: length,
            max,
            hint,
        });
    }
    Ok(length + 4)
}

#[cfg(test)]
mod tests;
