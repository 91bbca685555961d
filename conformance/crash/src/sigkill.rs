//! SIGKILL: a broker is killed again and again under load, now and then in the middle of its
//! recovery or of a clean stop, and what is left is judged. A killed process leaves the page cache
//! behind, so this holds without fsync, too, and some rounds run so.

use std::time::Duration;

use crash_campaign::process::{Broker, say};
use crash_campaign::random::Random;

use crate::Task;
use crate::load::{Besides, Load, SETTINGS};
use crate::report::Report;

/// Left to the page cache, which a killed process does not take along.
pub const LAZY: &str = "log.flush.interval.messages=1000000000";

/// How a round ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Kill,
    /// A clean stop.
    Terminate,
    /// A clean stop that is cut short.
    TerminateAndKill,
}

pub fn run(task: &Task) -> Report {
    let mut report = Report::default();
    let mut random = Random::new(task.seed);
    let mut broker = task.broker(&SETTINGS);
    broker.start();
    let besides = Besides {
        groups: true,
        churn: true,
    };
    let load = Load::start(&task.binary, &broker.bootstrap(), besides, &mut random);
    let mut ready = Vec::new();
    for round in 0..task.rounds {
        let end = match random.range(0, 12) {
            _ if round == task.rounds / 2 => End::Terminate,
            0 => End::Terminate,
            1 | 2 => End::TerminateAndKill,
            _ => End::Kill,
        };
        let lazy = round == task.rounds * 3 / 4 || random.one_in(5);
        ready.push(one_round(&mut broker, end, lazy, &mut random, &mut report));
        load.look(&mut report);
    }
    ready.sort();
    say(&format!(
        "  ready again after {:.0?} (median), {:.0?} (longest)",
        ready.get(ready.len() / 2).copied().unwrap_or_default(),
        ready.last().copied().unwrap_or_default()
    ));
    load.finish(&mut report);
    assert!(broker.terminate().success(), "{}", broker.tail());
    report
}

/// Load for a while, an end, and the next start; returns how long until the broker served again.
fn one_round(
    broker: &mut Broker,
    end: End,
    lazy: bool,
    random: &mut Random,
    report: &mut Report,
) -> Duration {
    std::thread::sleep(Duration::from_millis(random.range(30, 2_000)));
    match end {
        End::Kill => {
            broker.kill();
            report.fault("SIGKILLs under load");
        }
        End::Terminate => {
            let status = broker.terminate();
            assert!(status.success(), "{status}:\n{}", broker.tail());
            report.fault("clean stops");
        }
        End::TerminateAndKill => {
            broker.terminate_and_kill(Duration::from_micros(random.range(0, 30_000)));
            report.fault("SIGKILLs while stopping");
        }
    }
    broker.settings = SETTINGS.iter().map(|s| (*s).to_owned()).collect();
    if lazy {
        broker.settings.push(LAZY.to_owned());
        report.fault("rounds without fsync");
    }
    // Again, a few times, while it recovers or has only just begun to serve.
    while random.one_in(2) {
        broker.spawn();
        std::thread::sleep(Duration::from_micros(random.range(500, 60_000)));
        broker.kill();
        report.fault("SIGKILLs while starting");
    }
    broker.start()
}
