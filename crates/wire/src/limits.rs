//! Every bound of this crate in one place.

/// Bytes of memory that decoding any frame may take, whatever the frame's size.
pub const DECODE_BUDGET_BYTES_MIN: usize = 16 << 20;

/// Above that minimum, decoded values may take this many times the frame's own bytes.
///
/// Ordinary messages need 1 to 3 times their size on the wire; arrays of tiny structs could
/// otherwise reach 50 times.
pub const DECODE_BUDGET_PER_FRAME_BYTE: usize = 4;

/// Kafka's bound on strings: their old length prefix is a signed 16-bit integer.
pub const STRING_BYTES_MAX: usize = i16::MAX as usize;

/// Record bytes at least this long are passed on by reference; shorter ones are copied.
pub const SPLICE_BYTES_MIN: usize = 1024;

/// What one produced batch may hold when decompressed, in bytes.
///
/// Decompression is a stream, so this bounds the time that a bomb can take, not memory. A client
/// with Kafka's default of 32 MiB for all unsent batches stays far below it.
pub const DECOMPRESSED_BYTES_MAX: usize = 256 << 20;

/// Runs of records without a key that are noted of one produced batch.
pub const KEYLESS_RUNS_MAX: usize = 1024;

/// Buffer through which a compressed batch is walked, in bytes.
pub const DECOMPRESS_BUFFER_BYTES: usize = 16 << 10;

/// Largest zstd window that is accepted, as a power of two: what level 22 uses, and Kafka's bound.
pub const ZSTD_WINDOW_LOG_MAX: u32 = 27;

/// What decoding a frame of `frame_len` bytes may allocate in all.
pub fn decode_budget(frame_len: usize) -> usize {
    frame_len
        .saturating_mul(DECODE_BUDGET_PER_FRAME_BYTE)
        .max(DECODE_BUDGET_BYTES_MIN)
}

const _: () = assert!(SPLICE_BYTES_MIN > 0);
const _: () = assert!(DECODE_BUDGET_PER_FRAME_BYTE >= 1);
