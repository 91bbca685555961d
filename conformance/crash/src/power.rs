//! Power cuts: the data is on a file system of its own, which is shut down without a last word
//! (what is not on the device then never gets there) and mounted again. Under load, during a
//! start and during a clean stop, with the broker killed a moment before or still running.
//!
//! That this takes unsynced records away is shown first: with fsync switched off, records that
//! were acknowledged have to be lost, or the part fails.

use std::time::Duration;

use crash_campaign::check::{self, Promise};
use crash_campaign::client;
use crash_campaign::process::{Broker, say};
use crash_campaign::producer::{FULL_LOAD, Running, Settings};
use crash_campaign::random::Random;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::Task;
use crate::disk::{Format, Image};
use crate::load::{Besides, Load, SETTINGS};
use crate::report::Report;
use crate::sigkill::LAZY;
use crate::tool::Tool;

const IMAGE_BYTES: u64 = 8 << 30;
/// What `oncelog` ends with when a file operation fails (sysexits' EX_IOERR).
pub const EXIT_IO: i32 = 74;

pub fn run(task: &Task, format: Format) -> Report {
    let mut report = Report::default();
    let mut random = Random::new(task.seed);
    let lost = without_fsync(task, format);
    say(&format!(
        "  with fsync switched off, a power cut takes {lost} acknowledged records"
    ));
    if lost == 0 {
        let what = "with fsync switched off, a power cut loses nothing: this part proves nothing";
        report.broken.push(what.to_owned());
    }
    report.faults(
        "records lost when told not to sync (as they have to be)",
        lost,
    );

    let mut image = Image::create(&task.dir, format, IMAGE_BYTES).unwrap();
    let data = image.path().join("data");
    let mut broker = Broker::on(&task.binary, &data, &task.dir, &SETTINGS);
    broker.start();
    let besides = Besides {
        groups: true,
        churn: true,
    };
    let load = Load::start(&task.binary, &broker.bootstrap(), besides, &mut random);
    for _ in 0..task.rounds {
        one_round(&mut broker, &mut image, &mut random, &mut report);
        load.look(&mut report);
    }
    load.finish(&mut report);
    assert!(broker.terminate().success(), "{}", broker.tail());
    report
}

/// Load for a while, power cuts, and the start after the last of them.
fn one_round(broker: &mut Broker, image: &mut Image, random: &mut Random, report: &mut Report) {
    std::thread::sleep(Duration::from_millis(random.range(30, 2_500)));
    match random.range(0, 4) {
        0 => {
            report.fault("power cuts while stopping");
            broker.terminate_and_kill(Duration::from_micros(random.range(0, 30_000)));
            image.shut_down().unwrap();
        }
        1 => {
            report.fault("power cuts under a broker that runs on");
            image.shut_down().unwrap();
            // Every file operation fails from now on; it may not go on, and not acknowledge.
            let status = broker.wait_for_end(Duration::from_secs(30));
            let status = status.unwrap_or_else(|| panic!("it runs on: {}", broker.tail()));
            assert_eq!(status.code(), Some(EXIT_IO), "{}", broker.tail());
        }
        _ => {
            report.fault("power cuts under load");
            broker.kill();
            image.shut_down().unwrap();
        }
    }
    image.mount_again().unwrap();
    while random.one_in(3) {
        report.fault("power cuts while starting");
        broker.spawn();
        std::thread::sleep(Duration::from_micros(random.range(500, 60_000)));
        broker.kill();
        image.shut_down().unwrap();
        image.mount_again().unwrap();
    }
    broker.start();
}

/// How many acknowledged records are gone when nothing was told to be synced.
fn without_fsync(task: &Task, format: Format) -> usize {
    const TOPIC: &str = "unsynced";
    let dir = task.dir.join("without-fsync");
    let mut image = Image::create(&dir, format, IMAGE_BYTES).unwrap();
    let mut broker = Broker::on(&task.binary, &image.path().join("data"), &dir, &[LAZY]);
    broker.start();
    let bootstrap = broker.bootstrap();
    Tool::new(&task.binary, &bootstrap).create_topic(TOPIC, 1, &[]);
    let stop = Arc::new(AtomicBool::new(false));
    let settings = Settings {
        producer: 0,
        promise: Promise::ExactlyOnce,
        topic: TOPIC,
        partitions: 1,
        codec: "none",
        pause_ms_max: FULL_LOAD,
    };
    let producer = Running::start(settings, &bootstrap, &stop, Random::new(task.seed));
    std::thread::sleep(Duration::from_millis(700));
    stop.store(true, Ordering::Relaxed);
    let (_, sent) = producer.finish();
    broker.kill();
    image.shut_down().unwrap();
    image.mount_again().unwrap();
    broker.start();
    let read = client::read_all(&bootstrap, TOPIC, 1);
    let tally = check::tally(&read.log, &sent);
    broker.kill();
    tally.lost
}
