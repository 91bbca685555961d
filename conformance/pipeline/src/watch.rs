//! Looks at the target all the time: how long it was that nothing arrived.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::combination::Target;
use crate::sql::Connection;
use crate::tables;

const EVERY: Duration = Duration::from_millis(50);

pub struct Watch {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Seen>>,
    thread: Option<JoinHandle<()>>,
}

struct Seen {
    last: String,
    /// When it last changed.
    at: Instant,
    /// How often it has.
    changes: u64,
    longest: Duration,
}

impl Watch {
    pub fn start(url: String, target: Target) -> Watch {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::new(Mutex::new(Seen {
            last: String::new(),
            at: Instant::now(),
            changes: 0,
            longest: Duration::ZERO,
        }));
        let thread = {
            let (stop, seen) = (Arc::clone(&stop), Arc::clone(&seen));
            std::thread::spawn(move || look(&url, target, &stop, &seen))
        };
        Watch {
            stop,
            seen,
            thread: Some(thread),
        }
    }

    /// How often something has arrived, as far as it was looked at.
    pub fn changes(&self) -> u64 {
        self.lock().changes
    }

    /// How long nothing has arrived.
    pub fn quiet(&self) -> Duration {
        self.lock().at.elapsed()
    }

    /// The longest that nothing arrived until something did.
    pub fn longest(&self) -> Duration {
        self.lock().longest
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn look(url: &str, target: Target, stop: &AtomicBool, seen: &Mutex<Seen>) {
    let mut connection = None;
    while !stop.load(Ordering::Relaxed) {
        std::thread::sleep(EVERY);
        // A server that is down is a target at which nothing arrives.
        let client = match &mut connection {
            Some(client) => client,
            empty => match Connection::open(url) {
                Ok(client) => empty.insert(client),
                Err(_) => continue,
            },
        };
        let Ok(progress) = tables::progress(client, target) else {
            connection = None;
            continue;
        };
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.last != progress {
            let quiet = seen.at.elapsed();
            // What comes before the first arrival is the start.
            if seen.changes > 1 {
                seen.longest = seen.longest.max(quiet);
            }
            seen.last = progress;
            seen.at = Instant::now();
            seen.changes += 1;
        }
    }
}
