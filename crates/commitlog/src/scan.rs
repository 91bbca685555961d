//! Walks the batches of a segment file, header by header, in bounded memory.
//!
//! Nothing read is believed before it is checked against the file: a length never reaches past
//! the end that the caller gave. What does not look like a batch ends the walk as a [`Flaw`],
//! which is data and not an error; only a failed read is an `io::Error`.
//!
//! Deliberately not here: what a flaw means. Past the recovery point it is the log's end, below it
//! is damage.

use crate::disk::{Disk, read_exact_at};
use crate::index::{IndexFile, OffsetEntry};
use crate::limits;
use bytes::Bytes;
use crc_fast::{CrcAlgorithm, Digest};
use oncelog_wire::records::{BatchHeader, HEADER_LEN};
use std::io;

/// Bytes of a batch that its CRC does not cover: everything before the attributes.
const BEFORE_CRC_BYTES: u64 = 21;

/// A batch in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub header: BatchHeader,
    pub position: u64,
}

impl Found {
    pub fn size(&self) -> u64 {
        self.header.size_in_bytes() as u64
    }

    /// Where the next batch begins.
    pub fn end(&self) -> u64 {
        self.position + self.size()
    }
}

/// Why the bytes at a position are no batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Flaw {
    pub position: u64,
    pub what: String,
}

impl Flaw {
    /// For callers to whom a flaw is an error: what they read was written and synced once.
    pub fn into_error(self, file: &str) -> io::Error {
        let message = format!("{file} at byte {}: {}", self.position, self.what);
        io::Error::new(io::ErrorKind::InvalidData, message)
    }
}

pub(crate) type Step = Result<Found, Flaw>;

/// A forward walk over `file`, from a position where a batch begins to `end`.
pub(crate) struct Scanner<'a> {
    disk: &'a dyn Disk,
    file: &'a str,
    position: u64,
    end: u64,
    chunk_bytes: usize,
    buffer: Vec<u8>,
    buffer_position: u64,
    last_size: u64,
}

impl<'a> Scanner<'a> {
    /// `end` is at most the file's length; `chunk_bytes`, how much to read at once.
    pub fn new(disk: &'a dyn Disk, file: &'a str, from: u64, end: u64, chunk_bytes: usize) -> Self {
        Scanner {
            disk,
            file,
            position: from,
            end,
            chunk_bytes,
            buffer: Vec::new(),
            buffer_position: 0,
            last_size: 0,
        }
    }

    /// The next batch's header, `None` at the end. The CRC is not checked.
    pub fn next(&mut self) -> io::Result<Option<Step>> {
        if self.position >= self.end {
            return Ok(None);
        }
        let position = self.position;
        let flaw = |what| Ok(Some(Err(Flaw { position, what })));
        let left = self.end - position;
        // Between large batches only headers are read, between small ones whole chunks.
        let ahead = match self.last_size > limits::LOCATE_CHUNK_BYTES as u64 {
            true => HEADER_LEN,
            false => self.chunk_bytes,
        };
        let bytes = self.bytes_at(position, HEADER_LEN.min(left as usize), ahead)?;
        let header = match BatchHeader::parse(bytes) {
            Ok(header) => header,
            Err(error) => return flaw(error.to_string()),
        };
        if header.base_offset < 0 || header.last_offset() == i64::MAX {
            return flaw(format!(
                "base offset {} is not possible",
                header.base_offset
            ));
        }
        let found = Found { header, position };
        if found.size() > left {
            let size = found.size();
            return flaw(format!(
                "the batch needs {size} bytes, and {left} are there"
            ));
        }
        self.position = found.end();
        self.last_size = found.size();
        Ok(Some(Ok(found)))
    }

    /// As [`Scanner::next`], and the batch's bytes are what its CRC says.
    pub fn next_checked(&mut self) -> io::Result<Option<Step>> {
        let found = match self.next()? {
            Some(Ok(found)) => found,
            end_or_flaw => return Ok(end_or_flaw),
        };
        let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
        let mut position = found.position + BEFORE_CRC_BYTES;
        while position < found.end() {
            let left = (found.end() - position) as usize;
            let chunk = self.chunk_bytes;
            let bytes = self.bytes_at(position, 1, chunk)?;
            let bytes = &bytes[..bytes.len().min(left)];
            digest.update(bytes);
            position += bytes.len() as u64;
        }
        let computed = digest.finalize() as u32;
        if computed == found.header.crc {
            return Ok(Some(Ok(found)));
        }
        self.position = found.position;
        let stored = found.header.crc;
        let what = format!("CRC-32C is {computed:08x}, the header says {stored:08x}");
        let position = found.position;
        Ok(Some(Err(Flaw { position, what })))
    }

    /// A batch's bytes, header included.
    pub fn read(&mut self, found: &Found) -> io::Result<Bytes> {
        let size = found.size() as usize; // bounded by the file, see `next`
        let chunk = self.chunk_bytes;
        let bytes = self.bytes_at(found.position, size, chunk)?;
        Ok(Bytes::copy_from_slice(&bytes[..size]))
    }

    /// At least `needed` bytes from `position`, which must be there before `end`; more if they are
    /// buffered. Reads at least `ahead` bytes if it must read at all.
    fn bytes_at(&mut self, position: u64, needed: usize, ahead: usize) -> io::Result<&[u8]> {
        let buffer_end = self.buffer_position + self.buffer.len() as u64;
        let buffered = position >= self.buffer_position && position + needed as u64 <= buffer_end;
        if !buffered {
            let left = (self.end - position) as usize;
            self.buffer.resize(needed.max(ahead).min(left), 0);
            self.buffer_position = position;
            read_exact_at(self.disk, self.file, position, &mut self.buffer)?;
        }
        Ok(&self.buffer[(position - self.buffer_position) as usize..])
    }
}

/// The first batch whose last offset is at least `offset`, looking from `from` on; `None` if there is
/// none before `end`. That batch must be written: it is looked at, and an error if it is none.
pub(crate) fn locate_written(
    disk: &dyn Disk,
    file: &str,
    from: u64,
    end: u64,
    offset: i64,
) -> io::Result<Option<Found>> {
    let mut scanner = Scanner::new(disk, file, from, end, limits::LOCATE_CHUNK_BYTES);
    while let Some(step) = scanner.next()? {
        let found = step.map_err(|flaw| flaw.into_error(file))?;
        if found.header.last_offset() >= offset {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// The first batch from `from` on whose last offset is at least `offset`, `None` if there is none
/// before `end`. Never looks at a batch past one that ends just below `offset`.
pub(crate) fn locate(
    disk: &dyn Disk,
    file: &str,
    from: u64,
    end: u64,
    offset: i64,
) -> io::Result<Located> {
    let mut scanner = Scanner::new(disk, file, from, end, limits::LOCATE_CHUNK_BYTES);
    let mut position = from;
    while let Some(step) = scanner.next()? {
        let found = step.map_err(|flaw| flaw.into_error(file))?;
        if found.header.last_offset() >= offset {
            return Ok(Located::Batch(found));
        }
        position = found.end();
        if found.header.next_offset() >= offset {
            break;
        }
    }
    Ok(Located::Before { end: position })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Located {
    /// The first batch that reaches the offset.
    Batch(Found),
    /// All batches looked at end below the offset, the last of them at this position.
    Before { end: u64 },
}

impl Located {
    /// Where the batches that end below the offset end.
    pub fn position(&self) -> u64 {
        match self {
            Located::Batch(found) => found.position,
            Located::Before { end } => *end,
        }
    }
}

/// The position of an entry, if the batch there is the one that the entry says. If not (there is
/// none; the index file that it came from was damaged), 0, where the segment's first batch is.
pub(crate) fn entry_position(
    disk: &dyn Disk,
    log_file: &str,
    entry: Option<OffsetEntry>,
) -> io::Result<u64> {
    let Some(entry) = entry else { return Ok(0) };
    let header = read_header(disk, log_file, entry.position)?;
    let matches = header.is_some_and(|header| header.last_offset() == entry.last_offset);
    Ok(if matches { entry.position } else { 0 })
}

/// As [`entry_position`], of the entry that `look_up` finds in a sealed segment's index file; 0 also
/// if that was removed or replaced.
pub(crate) fn indexed_position(
    disk: &dyn Disk,
    log_file: &str,
    index_file: &str,
    base_offset: i64,
    look_up: impl FnOnce(&IndexFile<'_>) -> io::Result<Option<OffsetEntry>>,
) -> io::Result<u64> {
    let Some(index) = IndexFile::open(disk, index_file, base_offset)? else {
        return Ok(0);
    };
    entry_position(disk, log_file, look_up(&index).unwrap_or_default())
}

/// The header at a position, if there is one.
pub(crate) fn read_header(
    disk: &dyn Disk,
    file: &str,
    position: u64,
) -> io::Result<Option<BatchHeader>> {
    let mut bytes = [0; HEADER_LEN];
    let read = disk.read_at(file, position, &mut bytes)?;
    Ok(BatchHeader::parse(&bytes[..read]).ok())
}
