//! A disk of 8 MiB that fills up: the broker stops and says why, or refuses, and goes on when there
//! is room, with everything that it acknowledged.
//!
//! Appends fill a disk by themselves. For the small files (indexes, checkpoints, snapshots, the
//! metadata log), somebody else takes the last byte at the right moment.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crash_campaign::process::{Broker, START_WAIT, say};
use crash_campaign::random::Random;

use crate::Task;
use crate::disk::Mount;
use crate::load::{Besides, Load, SETTINGS};
use crate::power::EXIT_IO;
use crate::report::Report;
use crate::tool::Tool;

/// When the disk becomes full.
#[derive(Clone, Copy, Debug)]
enum When {
    Append,
    /// Between two appends, rolls or checkpoints.
    Suddenly,
    Stop,
    CreateTopic,
    Start,
}

pub fn run(task: &Task) -> Report {
    let mut report = Report::default();
    for round in 0..task.rounds {
        let seed = task.seed + u64::from(round);
        let mut random = Random::new(seed);
        let whens = [
            When::Append,
            When::Suddenly,
            When::Stop,
            When::CreateTopic,
            When::Start,
        ];
        let when = whens[(seed % whens.len() as u64) as usize];
        say(&format!("  full: {when:?} ({})", task.replay(1, seed)));
        one_round(task, when, &mut random, &mut report);
        if report.failure().is_some() {
            break;
        }
    }
    report
}

fn one_round(task: &Task, when: When, random: &mut Random, report: &mut Report) {
    let disk = Mount::tmpfs(&task.dir.join("disk"), "8m").unwrap();
    let data = disk.path().join("data");
    let mut broker = Broker::on(&task.binary, &data, &task.dir, &SETTINGS);
    broker.start();
    let bootstrap = broker.bootstrap();
    let tool = Tool::new(&task.binary, &bootstrap);
    let besides = Besides {
        groups: false,
        churn: false,
    };
    let load = Load::start(&task.binary, &bootstrap, besides, random);
    let ballast = disk.path().join("ballast");
    let mut created = Vec::new();
    let wait = |random: &mut Random| {
        std::thread::sleep(Duration::from_millis(random.range(50, 800)));
    };
    match when {
        When::Append => report.fault("disks filled by appends"),
        When::Suddenly => {
            report.fault("disks filled by somebody else under load");
            wait(random);
            fill(&ballast);
        }
        When::Stop => {
            report.fault("disks full at a clean stop");
            wait(random);
            fill(&ballast);
            broker.terminate_unless_ended();
        }
        When::CreateTopic => {
            report.fault("disks full when topics are created");
            for number in 0..200 {
                let name = format!("more-{number}");
                match tool.run(&["topic", "create", &name, "-p", "1"], "") {
                    Ok(()) => created.push(name),
                    Err(_) => break,
                }
                if number == 2 {
                    fill(&ballast);
                }
            }
        }
        When::Start => {
            report.fault("disks full at a start");
            wait(random);
            broker.kill_unless_ended();
            fill(&ballast);
        }
    }
    ended(&mut broker, &data, when);
    let while_full = start_while_full(&mut broker);
    let _ = std::fs::remove_file(&ballast);
    disk.resize("256m");
    broker.start();
    std::thread::sleep(Duration::from_millis(200));
    say(&format!("  a start on the full disk {while_full}"));
    load.look(report);
    load.finish(report);
    for name in created {
        if tool.run(&["topic", "describe", &name], "").is_err() {
            report.lost += 1;
            report
                .broken
                .push(format!("topic {name} was created and is gone"));
        }
    }
    assert!(broker.terminate().success(), "{}", broker.tail());
}

/// The broker has to have ended, and to have said why and what to do.
fn ended(broker: &mut Broker, data: &Path, when: When) {
    if let When::Start = when {
        return;
    }
    let status = broker.wait_for_end(START_WAIT);
    let status = status.unwrap_or_else(|| panic!("a full disk is not noticed: {}", broker.tail()));
    if let When::Stop = when
        && status.success()
    {
        return; // it had nothing left to write
    }
    assert_eq!(status.code(), Some(EXIT_IO), "{}", broker.tail());
    let data = data.display().to_string();
    for words in [
        &data[..],
        "disk is full",
        "Make room",
        "start the broker again",
    ] {
        let said = broker.said();
        assert!(said.contains(words), "no {words:?}: {}", broker.tail());
    }
}

/// With the disk still full, a start may serve what there is or refuse; it may not hang.
fn start_while_full(broker: &mut Broker) -> String {
    broker.spawn();
    match broker.wait_until_ready(Instant::now()) {
        Ok(()) => match broker.wait_for_end(Duration::from_secs(20)) {
            Some(status) => format!("served and ended with {status}"),
            None => {
                broker.kill();
                "served".to_owned()
            }
        },
        Err(why) => {
            let full = why.contains("full") || why.contains("space");
            assert!(full, "{why}");
            "was refused".to_owned()
        }
    }
}

/// Takes what is free, to the last page.
fn fill(ballast: &PathBuf) {
    let mut file = File::create(ballast).unwrap();
    let page = [1; 4096];
    while file.write_all(&page).is_ok() {}
}
