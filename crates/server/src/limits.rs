//! Every bound of the host, in one place. What a user may change is a configuration key and only
//! has its default here.

use std::time::Duration;

/// Connections that wait to be accepted. Kafka's 50 made 10,000 clients take minutes to connect.
pub const LISTEN_BACKLOG: u32 = 4096;

/// What one read from a socket can bring at most; one such buffer per runtime thread, not per
/// connection.
pub const SCRATCH_BYTES: usize = 128 << 10;

/// What one read from a socket can bring of a frame that goes on, and with that its first buffer:
/// a large frame's buffer starts at twice of what has arrived, between these two, and grows fourfold
/// as bytes arrive, so that an announced length alone takes no memory.
pub const FRAME_BUFFER_FIRST_BYTES: usize = 128 << 10;
pub const FRAME_BUFFER_LEAST_BYTES: usize = 4 << 10;

/// Frames up to this size do not wait for memory behind larger ones: a producer's ordinary batch
/// (`batch.size` is 16 KiB) and nearly everything else that clients send.
pub const SMALL_FRAME_BYTES: usize = 32 << 10;

/// Share of the request memory that is for small frames alone: 1 / this.
pub const SMALL_FRAME_SHARE: usize = 8;

/// While others wait for memory, a frame may rest this long without a new byte ...
pub const PRESSED_FRAME_STALL: Duration = Duration::from_secs(2);

/// ... and must come at this pace.
pub const PRESSED_FRAME_BYTES_PER_SECOND_MIN: usize = 128 << 10;

/// Requests of one connection that are not answered yet; its socket is not read past that.
pub const REQUESTS_IN_FLIGHT: u32 = 1_000;

/// Requests up to this size may be handled while others of their connection are not answered yet,
/// if their API is one of `reading::OVERLAPPING`.
pub const OVERLAPPING_REQUEST_BYTES: usize = 4 << 10;

/// Request bytes of one connection that are still in use (a batch on its way to disk); its socket
/// is not read past that.
pub const REQUEST_BYTES_IN_FLIGHT: usize = 64 << 20;

/// A frame may rest this long without a new byte.
pub const FRAME_STALL: Duration = Duration::from_secs(30);

/// ... and must arrive, in all, within a minute plus its size at this pace.
pub const FRAME_BYTES_PER_SECOND_MIN: usize = 32 << 10;

/// The one frame that is let past a full budget must arrive within a grace, plus its size at
/// [`FINISHER_BYTES_PER_SECOND_MIN`], and may rest only shortly: the others wait for it.
pub const FINISHER_GRACE: Duration = Duration::from_secs(5);
pub const FINISHER_STALL: Duration = Duration::from_secs(2);
pub const FINISHER_BYTES_PER_SECOND_MIN: usize = 1 << 20;

/// Encoded answers that clients do not take, over all connections; beyond that the sweep closes
/// those that hold most.
pub const UNSENT_ANSWER_BYTES: usize = 128 << 20;

/// Encoded answer bytes gathered for one write; file slices do not count.
pub const WRITE_BYTES: usize = 256 << 10;

/// Buffers handed to one vectored write.
pub const WRITE_SLICES: usize = 64;

/// What one connection may send in one go before others get their turn.
pub const SEND_TURN_BYTES: usize = 8 << 20;

/// Answers of other connections that the producer of these answers sends itself; beyond that it
/// wakes their tasks instead.
pub const FLUSH_INLINE_MAX: usize = 16;

/// Times that a connection hands requests to the core, one or many that may overlap, before others
/// get their turn.
pub const HAND_IN_TURNS: usize = 4;

/// Frames read from one connection before others get their turn.
pub const READ_TURN_READS: usize = 16;

/// How often idle and stalled connections are looked for.
pub const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// Descriptors that are neither connections nor cached files: listeners, runtime, spare.
pub const DESCRIPTORS_RESERVED: u64 = 128;

/// Share of the descriptor limit that the file cache may use: 1 / this.
pub const DESCRIPTOR_CACHE_SHARE: u64 = 4;

/// Lanes in which appends are written and synced, two threads each; files are spread over them.
pub const COMMIT_LANES: usize = 4;

/// Bytes that one group writes before it syncs; what is beyond is the next group.
pub const COMMIT_GROUP_BYTES: usize = 32 << 20;

/// Buffers of one positional vectored write (Linux takes 1024).
pub const WRITE_AT_SLICES: usize = 1024;

/// Threads for long read-only disk work: timestamp lookups, compaction.
pub const READER_THREADS: usize = 2;

/// From so many waiting pieces of background work on, they are synced together.
pub const STEPS_TOGETHER_MIN: usize = 16;

/// From so many entries of the data directory on, recovery syncs the file system once instead of
/// each partition's files. With fewer, what others have left unsynced there would cost more.
pub const SETTLE_ENTRIES_MIN: usize = 64;

/// How long a clean shutdown may make no progress before the process gives up waiting. (All of it may
/// take long: each of thousands of partitions has files to sync.)
pub const SHUTDOWN_WAIT: Duration = Duration::from_secs(30);

const _: () = assert!(SCRATCH_BYTES >= 4096);
const _: () = assert!(FRAME_BUFFER_LEAST_BYTES <= FRAME_BUFFER_FIRST_BYTES);
const _: () = assert!(SMALL_FRAME_BYTES <= FRAME_BUFFER_FIRST_BYTES);
const _: () = assert!(PRESSED_FRAME_STALL.as_secs() < FRAME_STALL.as_secs());
const _: () = assert!(WRITE_SLICES <= WRITE_AT_SLICES);
const _: () = assert!(DESCRIPTOR_CACHE_SHARE >= 2);
