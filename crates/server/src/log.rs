//! Log lines that a misbehaving client could otherwise repeat without end.

use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Lets a few lines a second through and counts the rest.
pub struct RateLimit {
    per_second: u32,
    state: Mutex<Option<Window>>,
}

struct Window {
    began: Instant,
    said: u32,
    unsaid: u32,
}

/// To be put behind the line: how many like it were left out.
pub struct Unsaid(u32);

impl std::fmt::Display for Unsaid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            0 => Ok(()),
            n => write!(f, " ({n} more such lines were left out)"),
        }
    }
}

impl RateLimit {
    pub const fn new(per_second: u32) -> RateLimit {
        RateLimit {
            per_second,
            state: Mutex::new(None),
        }
    }

    /// `None`: do not say it.
    pub fn admit(&self) -> Option<Unsaid> {
        let mut state = self.state.lock().ok()?;
        let now = Instant::now();
        let window = state.get_or_insert(Window {
            began: now,
            said: 0,
            unsaid: 0,
        });
        if now.duration_since(window.began) >= Duration::from_secs(1) {
            window.began = now;
            window.said = 0;
        }
        if window.said >= self.per_second {
            window.unsaid += 1;
            return None;
        }
        window.said += 1;
        Some(Unsaid(std::mem::take(&mut window.unsaid)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_counted() {
        let limit = RateLimit::new(2);
        assert!(limit.admit().is_some());
        assert!(limit.admit().is_some());
        assert!(limit.admit().is_none());
        assert!(limit.admit().is_none());
        std::thread::sleep(Duration::from_millis(1010));
        assert_eq!(
            limit.admit().unwrap().to_string(),
            " (2 more such lines were left out)"
        );
        assert_eq!(limit.admit().unwrap().to_string(), "");
    }
}
