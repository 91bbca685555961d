//! Snappy as Kafka's clients write it: in xerial's framing (Java and those who followed), or as
//! one raw block (librdkafka).
//!
//! Xerial: 8 bytes of magic, i32 version, i32 oldest compatible version, then blocks of i32
//! length and a raw snappy block. A header may come again in the middle (joined streams).

use std::io::{self, Read};

const MAGIC: [u8; 8] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
const HEADER_LEN: usize = 16;
/// What xerial's writer puts into one block, in bytes before compression.
const BLOCK_LEN: usize = 32 << 10;

/// The most that snappy can expand: a 3-byte copy makes 64 bytes. A block that claims more lies,
/// and is refused before its claim allocates.
const EXPANSION_MAX: usize = 22;

pub(super) fn compress(data: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER_LEN + data.len() / 2);
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&1i32.to_be_bytes());
    out.extend_from_slice(&1i32.to_be_bytes());
    let mut encoder = snap::raw::Encoder::new();
    for block in data.chunks(BLOCK_LEN) {
        let packed = encoder
            .compress_vec(block)
            .expect("a block is far below snappy's 4 GiB");
        out.extend_from_slice(&(packed.len() as i32).to_be_bytes());
        out.extend_from_slice(&packed);
    }
    out
}

/// Yields the decompressed bytes, one block in memory at a time.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
    framed: bool,
    block: Vec<u8>,
    pos: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(data: &'a [u8]) -> Reader<'a> {
        Reader {
            rest: data,
            framed: data.starts_with(&MAGIC),
            block: Vec::new(),
            pos: 0,
        }
    }

    /// The next raw block, or `None` at the end.
    fn next_block(&mut self) -> io::Result<Option<&'a [u8]>> {
        if !self.framed {
            return Ok(Some(std::mem::take(&mut self.rest)).filter(|block| !block.is_empty()));
        }
        while self.rest.starts_with(&MAGIC) {
            self.take(HEADER_LEN)?;
        }
        if self.rest.is_empty() {
            return Ok(None);
        }
        let len = self.take(4)?.try_into().expect("four bytes were taken");
        let len = usize::try_from(i32::from_be_bytes(len)).map_err(|_| corrupt())?;
        self.take(len).map(Some)
    }

    fn take(&mut self, len: usize) -> io::Result<&'a [u8]> {
        let (head, rest) = self.rest.split_at_checked(len).ok_or_else(corrupt)?;
        self.rest = rest;
        Ok(head)
    }
}

impl Read for Reader<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.pos == self.block.len() {
            let Some(packed) = self.next_block()? else {
                return Ok(0);
            };
            let claim = snap::raw::decompress_len(packed).map_err(|_| corrupt())?;
            if claim > packed.len().saturating_mul(EXPANSION_MAX) {
                return Err(corrupt());
            }
            self.block = snap::raw::Decoder::new()
                .decompress_vec(packed)
                .map_err(|_| corrupt())?;
            self.pos = 0;
        }
        let n = out.len().min(self.block.len() - self.pos);
        out[..n].copy_from_slice(&self.block[self.pos..self.pos + n]);
        self.pos += n;
        Ok(n)
    }
}

fn corrupt() -> io::Error {
    io::Error::from(io::ErrorKind::InvalidData)
}
