//! Time as a value: the cores never read a clock, every entry point is handed a [`Now`].
//!
//! It lives in the lowest crate because every core crate takes it. It deliberately offers no way
//! to ask what time it is: only a host (`server`, `sim`) makes one.

use std::time::Duration;

/// A point on the host's monotonic clock, in nanoseconds since the host started.
///
/// Used for every timeout and deadline, so that a jump of the wall clock expires nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(pub u64);

impl Instant {
    /// The largest instant: a deadline that never comes.
    pub const NEVER: Instant = Instant(u64::MAX);

    pub fn plus(self, duration: Duration) -> Instant {
        Instant(
            self.0
                .saturating_add(duration.as_nanos().min(u128::from(u64::MAX)) as u64),
        )
    }

    /// `ms` after this instant; a negative `ms` (a client's nonsense) counts as 0.
    pub fn plus_ms(self, ms: i64) -> Instant {
        Instant(
            self.0
                .saturating_add((ms.max(0) as u64).saturating_mul(1_000_000)),
        )
    }

    /// Milliseconds from `earlier` to this instant, 0 if `earlier` is later.
    pub fn ms_since(self, earlier: Instant) -> i64 {
        (self.0.saturating_sub(earlier.0) / 1_000_000) as i64
    }
}

/// The time of one input: monotonic for deadlines, wall clock for what is written or shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    pub instant: Instant,
    /// Milliseconds since the Unix epoch, as Kafka's timestamps.
    pub wall_ms: i64,
}
