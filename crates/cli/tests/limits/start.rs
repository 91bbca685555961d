//! How long a start takes, and what a broker holds when nobody asks it for anything.

use std::time::Duration;

use crate::{ONCELOG, SLACK, alone, mib, raw, spread};
use crash_campaign::process::{Broker, say};

const STARTS: usize = 5;
const READY_MAX: Duration = Duration::from_secs(1);
const IDLE_RESIDENT_MAX: u64 = 50_000_000;

/// From the process's start to the answer to a first request.
#[test]
fn a_broker_is_ready_within_a_second() {
    let _alone = alone();
    let mut new = Vec::new();
    let mut again = Vec::new();
    for _ in 0..STARTS {
        let mut broker = Broker::new(ONCELOG, &[]);
        new.push(broker.start());
        raw::Client::connect(broker.port())
            .unwrap()
            .create_topic("events", &[]);
        raw::bystander(broker.port(), "events", 20);
        broker.kill();
        again.push(broker.start());
    }
    let ((new, new_max), (again, again_max)) = (spread(new), spread(again));
    say(&format!(
        "start: ready after {new:.0?} (median of {STARTS}, longest {new_max:.0?}) on a new \
         directory, {again:.0?} (longest {again_max:.0?}) after a SIGKILL"
    ));
    assert!(new_max < READY_MAX * SLACK && again_max < READY_MAX * SLACK);
}

#[test]
fn a_broker_at_rest_holds_little() {
    let _alone = alone();
    let broker = Broker::started(ONCELOG, &[]);
    std::thread::sleep(Duration::from_millis(500));
    let fresh = broker.resident();
    raw::Client::connect(broker.port())
        .unwrap()
        .create_topic("events", &[]);
    raw::bystander(broker.port(), "events", 200);
    std::thread::sleep(Duration::from_millis(500));
    let used = broker.resident();
    say(&format!(
        "memory at rest: {} after the start, {} after a little use",
        mib(fresh),
        mib(used)
    ));
    assert!(fresh < IDLE_RESIDENT_MAX && used < IDLE_RESIDENT_MAX);
}
