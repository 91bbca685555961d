//! A disk that fills up under load: the broker stops and says why, and goes on when there is room.
//!
//! The disk is a small tmpfs, which only root may mount; elsewhere the test is skipped, and says so.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::check::{self, Promise};
use crate::client;
use crate::process::{Broker, say};
use crate::producer::{Running, Settings};
use crate::random::Random;

const TOPIC: &str = "full";
const PARTITIONS: i32 = 2;
/// What `oncelog_server` ends with when a file operation fails (sysexits' EX_IOERR).
const EXIT_IO: i32 = 74;

struct Tmpfs {
    at: PathBuf,
    home: tempfile::TempDir,
}

impl Tmpfs {
    fn mount(size: &str) -> Result<Tmpfs, String> {
        let home = tempfile::tempdir().unwrap();
        let at = home.path().join("disk");
        std::fs::create_dir(&at).unwrap();
        let options = format!("size={size}");
        let mounted = run("mount", &["-t", "tmpfs", "-o", &options, "tmpfs"], &at);
        mounted.map(|()| Tmpfs { at, home })
    }

    fn grow(&self, size: &str) {
        let options = format!("remount,size={size}");
        run("mount", &["-o", &options], &self.at).unwrap();
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        if let Err(why) = run("umount", &["-l"], &self.at) {
            say(&format!("{} stays mounted: {why}", self.at.display()));
        }
    }
}

fn run(program: &str, args: &[&str], at: &Path) -> Result<(), String> {
    let output = Command::new(program).args(args).arg(at).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
    }
}

#[test]
fn a_full_disk_stops_the_broker_and_costs_nothing() {
    let disk = match Tmpfs::mount("16m") {
        Ok(disk) => disk,
        Err(why) => {
            return say(&format!(
                "SKIPPED disk_full: no tmpfs can be mounted: {why}"
            ));
        }
    };
    // Most of it is taken, so that it does not take long.
    let ballast = disk.at.join("ballast");
    std::fs::write(&ballast, vec![1; 10 << 20]).unwrap();
    let settings = [
        "log.segment.bytes=1048576",
        "num.partitions=2",
        "offsets.topic.num.partitions=1",
    ];
    // Its log has a disk of its own.
    let mut broker = Broker::on(&disk.at.join("data"), disk.home.path(), &settings);
    broker.start();
    let bootstrap = broker.bootstrap();
    let stop = Arc::new(AtomicBool::new(false));
    let producers: Vec<Running> = (0..2)
        .map(|producer| {
            let settings = Settings {
                producer,
                promise: Promise::ExactlyOnce,
                topic: TOPIC,
                partitions: PARTITIONS,
                codec: "none",
            };
            Running::start(settings, &bootstrap, &stop, Random::new(producer.into()))
        })
        .collect();

    let status = broker
        .wait_for_end(Duration::from_secs(60))
        .expect("the disk is too small for this load");
    assert_eq!(status.code(), Some(EXIT_IO), "{}", broker.tail());
    let data = disk.at.join("data").display().to_string();
    for words in [
        &data[..],
        "The disk is full",
        "Make room",
        "start the broker again",
    ] {
        assert!(
            broker.said().contains(words),
            "no {words:?}: {}",
            broker.tail()
        );
    }

    // With the disk still full, a start may serve what there is or refuse; it may not hang.
    let began = Instant::now();
    broker.spawn();
    let while_full = match broker.wait_until_ready(began) {
        Ok(()) => match broker.wait_for_end(Duration::from_secs(20)) {
            Some(status) => format!("served and ended with {status}"),
            None => {
                broker.kill();
                "served".to_owned()
            }
        },
        Err(why) => {
            assert!(why.contains("full") || why.contains("space"), "{why}");
            "was refused".to_owned()
        }
    };

    disk.grow("64m");
    let ready = broker.start();
    std::thread::sleep(Duration::from_millis(500));
    stop.store(true, Ordering::Relaxed);
    let sent: Vec<_> = producers.into_iter().map(Running::finish).collect();
    let log = client::read_all(&bootstrap, TOPIC, PARTITIONS);
    say(&format!(
        "disk full: the broker ended with {EXIT_IO}; a start on the full disk {while_full}; ready \
         {ready:.0?} after there was room"
    ));
    for (settings, sent) in &sent {
        let tally = check::tally(&log, sent);
        let words = settings.in_words();
        say(&format!("  producer {} ({words}): {tally}", sent.producer));
        assert!(!tally.broken(sent.promise), "{tally}");
    }
    assert!(broker.terminate().success(), "{}", broker.tail());
}
