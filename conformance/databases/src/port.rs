//! Ports that nobody else is given: outside of the range that the kernel takes for connections, so that
//! a server which is killed finds its port free when it comes back.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Context, Result};

/// Up to where the kernel's own range may begin at the latest.
const FIRST: u16 = 21_000;
const COUNT: u16 = 9_000;

/// A port of 127.0.0.1 that is free now. Two calls of one process never give the same one soon; other
/// processes start at another place.
pub fn free() -> Result<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = (std::process::id() % u32::from(COUNT / 32)) * 32;
    for _ in 0..COUNT {
        let step = u32::from(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = FIRST + u16::try_from((start + step) % u32::from(COUNT)).context("a port")?;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    anyhow::bail!(
        "no port of 127.0.0.1 from {FIRST} to {} is free",
        FIRST + COUNT
    )
}
