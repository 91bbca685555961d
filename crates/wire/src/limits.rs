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

/// What decoding a frame of `frame_len` bytes may allocate in all.
pub fn decode_budget(frame_len: usize) -> usize {
    frame_len
        .saturating_mul(DECODE_BUDGET_PER_FRAME_BYTE)
        .max(DECODE_BUDGET_BYTES_MIN)
}

const _: () = assert!(SPLICE_BYTES_MIN > 0);
const _: () = assert!(DECODE_BUDGET_PER_FRAME_BYTE >= 1);
