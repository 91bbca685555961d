//! The one place where this process asks what time it is.

use oncelog_wire::clock::{Instant, Now};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Cheap to copy; every reading of one clock counts from the same origin.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: std::time::Instant,
}

impl Clock {
    pub fn start() -> Clock {
        Clock {
            origin: std::time::Instant::now(),
        }
    }

    pub fn now(&self) -> Now {
        Now {
            instant: self.instant(),
            wall_ms: wall_ms(),
        }
    }

    pub fn instant(&self) -> Instant {
        Instant::default().plus(self.origin.elapsed())
    }

    /// When the core's `instant` is, for the runtime's timers.
    pub fn at(&self, instant: Instant) -> tokio::time::Instant {
        let after_origin = Duration::from_nanos(instant.0);
        let far = Duration::from_secs(86_400 * 365);
        tokio::time::Instant::from_std(self.origin + after_origin.min(self.origin.elapsed() + far))
    }
}

fn wall_ms() -> i64 {
    // A wall clock before 1970 is a machine without one: 0 is as good as any.
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as i64)
}
