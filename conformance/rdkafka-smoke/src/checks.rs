//! One printed line per check, which `cargo xtask test` counts: ok NAME / FAIL NAME: why /
//! skip NAME: reason. Deliberately knows no Kafka client. A failed check does not stop the next.

use std::fmt::Debug;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

#[derive(Default)]
pub struct Checks {
    pub failed: u32,
}

impl Checks {
    pub fn run(&mut self, name: &str, check: impl FnOnce() -> Result<()>) {
        let only = std::env::var("ONCELOG_SMOKE_ONLY").unwrap_or_default();
        if !name.contains(&only) {
            return;
        }
        let started = Instant::now();
        match check() {
            Ok(()) => println!("ok {name} ({:.1} s)", started.elapsed().as_secs_f32()),
            Err(error) => {
                self.failed += 1;
                let why = format!("{error:#}");
                let why: Vec<&str> = why.split_whitespace().collect();
                println!("FAIL {name}: {}", why.join(" "));
            }
        }
    }

    pub fn skip(&self, name: &str, reason: &str) {
        println!("skip {name}: {reason}");
    }
}

pub fn equal<T: PartialEq + Debug>(got: T, want: T, what: &str) -> Result<()> {
    if got == want {
        return Ok(());
    }
    let shorten = |value: &T| format!("{value:?}").chars().take(300).collect::<String>();
    bail!("{what}: got {}, want {}", shorten(&got), shorten(&want))
}

/// Polls `condition` for up to 30 s.
pub fn wait_for(what: &str, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
    let started = Instant::now();
    while !condition()? {
        if started.elapsed() > Duration::from_secs(30) {
            bail!("not within 30 s: {what}");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}
