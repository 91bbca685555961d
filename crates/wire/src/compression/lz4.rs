//! LZ4 as Kafka's clients write and read it: one frame of independent blocks.
//!
//! LZ4's own frame format has more: an older kind of frame, blocks that refer to the ones before
//! them, frames to be skipped, several frames in a row, dictionaries. A batch with any of these would
//! be stored here and then be read by no Java consumer, so it is refused as corrupt, as Kafka does.
//!
//! Deliberately not here: the checksums and the blocks' content, which the decoder looks at.

use std::io::{self, Read};

use lz4_flex::frame::FrameDecoder;

const MAGIC: [u8; 4] = [0x04, 0x22, 0x4d, 0x18];
/// Magic, flags, block size, header checksum.
const HEADER_LEN: usize = 7;

const CONTENT_CHECKSUM: u8 = 1 << 2;
const CONTENT_SIZE: u8 = 1 << 3;
const BLOCK_CHECKSUMS: u8 = 1 << 4;
const INDEPENDENT_BLOCKS: u8 = 1 << 5;

/// In a block's length: it is not compressed.
const UNCOMPRESSED: u32 = 1 << 31;

/// Yields the decompressed bytes, or an error at once if `data` is anything else than such a frame.
pub(super) fn reader<'a>(data: &'a [u8]) -> Box<dyn Read + 'a> {
    match is_one_frame(data) {
        true => Box::new(FrameDecoder::new(data)),
        false => Box::new(Unreadable),
    }
}

struct Unreadable;

impl Read for Unreadable {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::InvalidData.into())
    }
}

/// Whole, and nothing behind it.
fn is_one_frame(data: &[u8]) -> bool {
    end_of_frame(data) == Some(data.len())
}

/// Where the frame ends by its own lengths; it may be past the end of `data`.
fn end_of_frame(data: &[u8]) -> Option<usize> {
    let flags = *data.strip_prefix(&MAGIC)?.first()?;
    if flags & INDEPENDENT_BLOCKS == 0 {
        return None;
    }
    let len_if = |flag, len: usize| if flags & flag != 0 { len } else { 0 };
    let mut at = HEADER_LEN + len_if(CONTENT_SIZE, 8);
    loop {
        let len = u32::from_le_bytes(*data.get(at..)?.first_chunk()?);
        at += 4;
        if len == 0 {
            return Some(at + len_if(CONTENT_CHECKSUM, 4));
        }
        let len = (len & !UNCOMPRESSED) as usize;
        if len == 0 {
            return None; // Kafka takes it for the end, others for an empty block
        }
        at += len + len_if(BLOCK_CHECKSUMS, 4);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compression::{Compression, CompressionError};
    use bytes::Bytes;
    use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};
    use std::io::Write;

    fn frame(info: FrameInfo) -> Vec<u8> {
        let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
        encoder.write_all(&[7; 200_000]).unwrap();
        encoder.finish().unwrap()
    }

    fn independent() -> FrameInfo {
        let info = FrameInfo::new().block_mode(BlockMode::Independent);
        info.block_size(BlockSize::Max64KB)
    }

    #[test]
    fn one_frame_of_independent_blocks_in_all_its_forms() {
        for info in [
            independent(),
            independent().block_checksums(true),
            independent().content_checksum(true),
            independent().content_size(Some(200_000)),
        ] {
            let frame = frame(info.clone());
            assert!(is_one_frame(&frame), "{info:?}");
            for len in 0..frame.len() {
                assert!(!is_one_frame(&frame[..len]), "{info:?} cut to {len}");
            }
        }
    }

    /// Found by the fuzz target `batches`, by the 16 MiB that the older kind of frame takes.
    #[test]
    fn what_kafka_cannot_read_is_refused() {
        // A block of four letters.
        let legacy = [&[0x02, 0x21, 0x4c, 0x18, 5, 0, 0, 0, 0x40][..], b"lz4!"].concat();
        let linked = frame(independent().block_mode(BlockMode::Linked));
        let twice = [frame(independent()), frame(independent())].concat();
        let skipped = [
            &[0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0],
            &frame(independent())[..],
        ]
        .concat();
        for bytes in [legacy, linked, twice, skipped, Vec::new()] {
            let told = Compression::Lz4.decompress(&Bytes::from(bytes), 1 << 20);
            assert_eq!(told, Err(CompressionError::Corrupt("lz4")));
        }
    }
}
