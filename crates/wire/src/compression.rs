//! The five codecs of record batches, on both sides.
//!
//! Decompression is a stream that the caller bounds: nobody's header is believed about how much
//! will come out. Levels and thread pools are deliberately not here: batches are stored as sent,
//! and what this crate compresses are internal records and tests.

mod lz4;
mod snappy;

use std::io::{self, Read, Write};

use bytes::Bytes;

use crate::limits;

/// The codec of a batch: bits 0-2 of its attributes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Compression {
    #[default]
    None = 0,
    Gzip = 1,
    Snappy = 2,
    Lz4 = 3,
    Zstd = 4,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompressionError {
    #[error("no codec has the id {0}")]
    UnknownCodec(u8),
    #[error("not a valid {0} stream")]
    Corrupt(&'static str),
    #[error("more than {0} bytes when decompressed")]
    TooLarge(usize),
}

impl Compression {
    pub const ALL: [Compression; 5] = [
        Compression::None,
        Compression::Gzip,
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd,
    ];

    /// From a batch's attributes; bits other than the lowest three are ignored.
    pub fn from_attributes(attributes: i16) -> Result<Compression, CompressionError> {
        let id = (attributes & 0x07) as u8;
        Compression::ALL
            .get(usize::from(id))
            .copied()
            .ok_or(CompressionError::UnknownCodec(id))
    }

    /// From the name that `compression.type` has for it; `uncompressed` is Kafka's word for none.
    pub fn from_name(name: &str) -> Option<Compression> {
        if name == "uncompressed" {
            return Some(Compression::None);
        }
        Compression::ALL
            .into_iter()
            .find(|codec| codec.name() == name)
    }

    pub fn id(self) -> i16 {
        self as i16
    }

    pub fn name(self) -> &'static str {
        match self {
            Compression::None => "none",
            Compression::Gzip => "gzip",
            Compression::Snappy => "snappy",
            Compression::Lz4 => "lz4",
            Compression::Zstd => "zstd",
        }
    }

    /// In the framing that Kafka's own clients write.
    pub fn compress(self, data: &[u8]) -> Vec<u8> {
        // Writing to a Vec cannot fail, and no codec refuses input.
        self.try_compress(data)
            .expect("compression into memory does not fail")
    }

    fn try_compress(self, data: &[u8]) -> io::Result<Vec<u8>> {
        match self {
            Compression::None => Ok(data.to_vec()),
            Compression::Gzip => {
                let level = flate2::Compression::default();
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
                encoder.write_all(data)?;
                encoder.finish()
            }
            Compression::Snappy => Ok(snappy::compress(data)),
            Compression::Lz4 => {
                // Kafka's reader knows independent blocks only.
                let info = lz4_flex::frame::FrameInfo::new()
                    .block_mode(lz4_flex::frame::BlockMode::Independent)
                    .block_size(lz4_flex::frame::BlockSize::Max64KB);
                let mut encoder = lz4_flex::frame::FrameEncoder::with_frame_info(info, Vec::new());
                encoder.write_all(data)?;
                encoder.finish().map_err(io::Error::other)
            }
            Compression::Zstd => zstd::stream::encode_all(data, zstd::DEFAULT_COMPRESSION_LEVEL),
        }
    }

    /// All of it in memory; an error if that is more than `limit` bytes.
    pub fn decompress(self, data: &Bytes, limit: usize) -> Result<Bytes, CompressionError> {
        if self == Compression::None {
            return if data.len() > limit {
                Err(CompressionError::TooLarge(limit))
            } else {
                Ok(data.clone())
            };
        }
        let mut out = Vec::new();
        let reader = self.reader(data)?;
        let past_limit = (limit as u64).saturating_add(1);
        reader
            .take(past_limit)
            .read_to_end(&mut out)
            .map_err(|_| self.corrupt())?;
        if out.len() > limit {
            return Err(CompressionError::TooLarge(limit));
        }
        Ok(Bytes::from(out))
    }

    /// A stream of the decompressed bytes. Whoever reads decides how much is too much; an error
    /// of the stream means that the data is corrupt.
    pub(crate) fn reader<'a>(self, data: &'a [u8]) -> Result<Box<dyn Read + 'a>, CompressionError> {
        Ok(match self {
            Compression::None => Box::new(data),
            Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(data)),
            Compression::Snappy => Box::new(snappy::Reader::new(data)),
            Compression::Lz4 => lz4::reader(data),
            Compression::Zstd => {
                let mut decoder =
                    zstd::stream::read::Decoder::with_buffer(data).map_err(|_| self.corrupt())?;
                decoder
                    .window_log_max(limits::ZSTD_WINDOW_LOG_MAX)
                    .map_err(|_| self.corrupt())?;
                Box::new(decoder)
            }
        })
    }

    pub(crate) fn corrupt(self) -> CompressionError {
        CompressionError::Corrupt(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: usize = 1 << 20;

    fn samples() -> Vec<Vec<u8>> {
        let text = b"exactly once, at least once, at most once. ".repeat(4000);
        let noise: Vec<u8> = (0..100_000u64)
            .map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8)
            .collect();
        vec![Vec::new(), b"x".to_vec(), text, noise, vec![0; 300_000]]
    }

    #[test]
    fn round_trip() {
        for codec in Compression::ALL {
            for sample in samples() {
                let packed = Bytes::from(codec.compress(&sample));
                let unpacked = codec.decompress(&packed, LIMIT).unwrap();
                assert_eq!(unpacked, sample, "{}", codec.name());
            }
        }
    }

    #[test]
    fn ids_and_names_are_kafkas() {
        for (id, name) in ["none", "gzip", "snappy", "lz4", "zstd"]
            .into_iter()
            .enumerate()
        {
            let codec = Compression::from_attributes(id as i16 | 0x30).unwrap();
            assert_eq!((codec.id(), codec.name()), (id as i16, name));
            assert_eq!(Compression::from_name(name), Some(codec));
        }
        assert_eq!(
            Compression::from_attributes(5),
            Err(CompressionError::UnknownCodec(5))
        );
        assert_eq!(Compression::from_name("brotli"), None);
    }

    /// What Kafka 4.3.1's `Compression.of(type).build().wrapForOutput` wrote, and for raw snappy
    /// `org.xerial.snappy.Snappy.compress`.
    #[test]
    fn streams_that_kafka_wrote() {
        let plain = b"hello hello hello hello\n";
        for (codec, hex) in [
            (
                Compression::Gzip,
                "1f8b08000000000000ffcb48cdc9c957c84027b9000088590b18000000",
            ),
            (
                Compression::Snappy,
                "82534e415050590000000001000000010000000d181468656c6c6f20420600000a",
            ),
            (Compression::Snappy, "181468656c6c6f20420600000a"),
            (
                Compression::Lz4,
                "04224d186040820f0000006968656c6c6f20060050656c6c6f0a00000000",
            ),
            (
                Compression::Zstd,
                "28b52ffd00586c00003868656c6c6f200a0100994b11010000",
            ),
        ] {
            let unpacked = codec.decompress(&unhex(hex), LIMIT).unwrap();
            assert_eq!(&unpacked[..], plain, "{} {hex}", codec.name());
        }
    }

    #[test]
    fn a_bomb_stops_at_the_limit() {
        for codec in &Compression::ALL[1..] {
            let packed = Bytes::from(codec.compress(&vec![0; 8 << 20]));
            assert!(packed.len() < 1 << 20, "{} is no bomb", codec.name());
            assert_eq!(
                codec.decompress(&packed, LIMIT),
                Err(CompressionError::TooLarge(LIMIT)),
                "{}",
                codec.name()
            );
        }
    }

    #[test]
    fn garbage_and_truncation_are_errors_or_less_data() {
        let mut g = crate::arbitrary::Gen::new(7);
        for codec in &Compression::ALL[1..] {
            for sample in samples() {
                let packed = codec.compress(&sample);
                for _ in 0..40 {
                    let mut broken = packed.clone();
                    match g.below(3) {
                        0 => broken.truncate(g.below(packed.len() + 1)),
                        1 => {
                            let at = g.below(packed.len());
                            broken[at] ^= 1 << g.below(8);
                        }
                        _ => broken = (0..g.below(200)).map(|_| g.next() as u8).collect(),
                    }
                    // Must come back, and within the limit; which error does not matter.
                    if let Ok(out) = codec.decompress(&Bytes::from(broken), LIMIT) {
                        assert!(out.len() <= LIMIT);
                    }
                }
            }
        }
    }

    fn unhex(hex: &str) -> Bytes {
        (0..hex.len() / 2)
            .map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap())
            .collect()
    }
}
