//! Places where a crash test ends the process: those of outbox-facts.md, section 8.
//!
//! `ONCELOG_FAILPOINT=name` aborts at the first time that the place is reached, `name@7` at the
//! seventh. Without the variable a place costs one look at a value that never changes.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

pub const RELAY: [&str; 7] = [
    "relay-after-read",
    "relay-during-publish",
    "relay-after-publish",
    "relay-during-commit",
    "relay-after-commit",
    "relay-during-confirm",
    "relay-after-confirm",
];

pub const SINK: [&str; 5] = [
    // Records are read, the database knows nothing of them.
    "sink-after-poll",
    // Within the milliseconds that follow the first statement of a transaction.
    "sink-during-apply",
    // All is written, COMMIT is not sent.
    "sink-before-commit",
    // The database has committed, the sink does not know it.
    "sink-after-commit",
    // The group's offsets are not committed.
    "sink-before-offsets",
];

struct Armed {
    name: String,
    times_left: AtomicU64,
}

/// Ends the process here, as SIGKILL would, where the environment asks for it.
pub fn reach(name: &str) {
    if is_due(name) {
        end(name);
    }
}

/// Ends the process within the milliseconds that follow, while what was asked for is under way and its
/// answer has not come.
pub fn during(name: &'static str) {
    if is_due(name) {
        let delay = Duration::from_micros(u64::from(std::process::id() % 32) * 100);
        std::thread::spawn(move || {
            std::thread::sleep(delay);
            end(name)
        });
    }
}

fn is_due(name: &str) -> bool {
    static ARMED: OnceLock<Option<Armed>> = OnceLock::new();
    debug_assert!(
        RELAY.contains(&name) || SINK.contains(&name),
        "{name} is not listed"
    );
    let armed = ARMED.get_or_init(|| {
        let asked = std::env::var("ONCELOG_FAILPOINT").ok()?;
        let (name, times) = match asked.split_once('@') {
            Some((name, times)) => (name.to_owned(), times.parse().ok()?),
            None => (asked, 1),
        };
        let times_left = AtomicU64::new(times);
        Some(Armed { name, times_left })
    });
    let Some(armed) = armed else { return false };
    armed.name == name && armed.times_left.fetch_sub(1, Ordering::Relaxed) == 1
}

fn end(name: &str) -> ! {
    eprintln!("the failpoint {name} ends this process");
    std::process::abort()
}
