//! Every bound of this crate in one place.

/// A batch's header; records follow it. Fixed by Kafka's message format v2.
pub const BATCH_HEADER_BYTES: usize = 61;

/// A new checkpoint is due when this much was synced since the last one. It bounds what recovery
/// scans per partition, and costs a few small writes per this many bytes.
pub const CHECKPOINT_BYTES: u64 = 64 << 20;

/// Without any flush setting, the log still flushes behind the writer once this much is written
/// and not synced, so that recovery after a crash stays bounded. It promises nothing to anybody.
pub const UNSYNCED_BYTES_MAX: u64 = 128 << 20;

/// Batches at the tail of the active segment whose exact positions are kept in memory (16 bytes
/// each), so that a fetch at the tail needs no reading to find its place.
pub const RECENT_BATCHES_MAX: usize = 512;

/// How much recovery, index rebuilds and compaction read at once.
pub const SCAN_CHUNK_BYTES: usize = 256 << 10;

/// How much is read at once to find a batch near an indexed position.
pub const LOCATE_CHUNK_BYTES: usize = 8 << 10;

/// What one batch may decompress to while the log looks into it (compaction, timestamp lookup).
/// A batch that claims more is not looked into: the operation fails and the log is untouched.
pub const DECOMPRESSED_BATCH_BYTES_MAX: usize = 256 << 20;

/// Different keys that one compaction pass can tell apart, 24 bytes each in a table that is at
/// most three quarters full. A pass that meets more cleans as far as it got.
pub const COMPACTION_KEYS_MAX: usize = 3 << 19;

/// How long after a compaction that failed the log waits before it offers another.
pub const COMPACTION_RETRY_MS: i64 = 10 * 60 * 1000;

/// Segments that a timestamp lookup looks into; Kafka looks into one.
pub const LOOKUP_SEGMENTS_MAX: usize = 4;

/// Positions in index files are signed 32-bit.
pub const SEGMENT_BYTES_MAX: u64 = i32::MAX as u64;

/// A checkpoint file larger than this is no checkpoint.
pub const CHECKPOINT_FILE_BYTES_MAX: u64 = 64 << 20;

const _: () = assert!(LOCATE_CHUNK_BYTES > BATCH_HEADER_BYTES);
const _: () = assert!(SCAN_CHUNK_BYTES >= LOCATE_CHUNK_BYTES);
const _: () = assert!(RECENT_BATCHES_MAX >= 2);
const _: () = assert!(CHECKPOINT_BYTES <= UNSYNCED_BYTES_MAX);
