//! A sync that fails: the device takes less than it promised, so that writes succeed and fsync says
//! no, once, and yes the next time, while the bytes are gone (which is shown first). The broker has
//! to stop at the first failure; had it acknowledged anything after that, it would be missing. Half
//! of the time it is started again before the page cache is gone, which remembers what the device
//! does not.

use std::collections::BTreeMap;
use std::time::Duration;

use crash_campaign::process::{Broker, START_WAIT, say};
use crash_campaign::random::Random;

use crate::Task;
use crate::disk::{Failing, Format};
use crate::load::{Besides, Load, SETTINGS};
use crate::power::EXIT_IO;
use crate::report::Report;

pub fn run(task: &Task) -> Report {
    let mut report = Report::default();
    let mut failures: BTreeMap<String, usize> = BTreeMap::new();
    for round in 0..task.rounds {
        let seed = task.seed + u64::from(round);
        let mut random = Random::new(seed);
        let format = match seed % 3 {
            0 => Format::Ext4WithoutJournal,
            1 => Format::Ext4Allocated,
            _ => Format::Ext4,
        };
        let said = one_round(task, format, &mut random, &mut report);
        *failures.entry(said).or_default() += 1;
        if report.failure().is_some() {
            say(&format!("  {}", task.replay(1, seed)));
            break;
        }
    }
    for (said, times) in failures {
        say(&format!("  {times} times: {said}"));
    }
    report
}

/// Returns what the broker said that failed.
fn one_round(task: &Task, format: Format, random: &mut Random, report: &mut Report) -> String {
    let dir = task.dir.join(format!("{}", random.draw()));
    std::fs::create_dir_all(&dir).unwrap();
    let mut disk = Failing::create(&dir, format).unwrap();
    // Part of it is taken already, so that it does not take long.
    let taken = random.range(8 << 20, 20 << 20) as usize;
    let ballast = disk.image.path().join("ballast");
    std::fs::write(&ballast, vec![1; taken]).unwrap();
    std::fs::File::open(&ballast).unwrap().sync_all().unwrap();
    let data = disk.image.path().join("data");
    let mut broker = Broker::on(&task.binary, &data, &dir, &SETTINGS);
    broker.start();
    let besides = Besides {
        groups: random.one_in(2),
        churn: false,
    };
    let load = Load::start(&task.binary, &broker.bootstrap(), besides, random);
    let status = broker.wait_for_end(START_WAIT);
    let status = status.unwrap_or_else(|| panic!("it goes on: {}", broker.tail()));
    assert_eq!(status.code(), Some(EXIT_IO), "{}", broker.tail());
    report.fault(match format {
        Format::Ext4WithoutJournal => "failing devices under ext4 without a journal",
        Format::Ext4Allocated => "failing devices under ext4 that goes on",
        _ => "failing devices under ext4 that gives up",
    });
    let said = what_failed(&broker.said());
    let words = "without another acknowledgement";
    assert!(broker.said().contains(words), "{}", broker.tail());
    if format != Format::Ext4 && random.one_in(2) {
        // Still with the page cache that has what the device has not: what is acknowledged now,
        // retries of what failed among it, must not rest on that.
        disk.give_room();
        broker.start();
        std::thread::sleep(Duration::from_millis(500));
        broker.kill();
        report.fault("starts on the page cache of a failed sync");
    }
    disk.mend().unwrap();
    broker.start();
    std::thread::sleep(Duration::from_millis(200));
    load.look(report);
    load.finish(report);
    assert!(broker.terminate().success(), "{}", broker.tail());
    drop((broker, disk));
    if report.failure().is_none() {
        std::fs::remove_dir_all(&dir).unwrap();
    }
    said
}

/// "syncing a .log failed: No space left on device", of the line that says so.
fn what_failed(said: &str) -> String {
    let line = said.lines().find(|line| line.contains(" failed: "));
    let line = line.unwrap_or_else(|| panic!("nothing failed: {said}"));
    let doing = ["writing", "syncing"]
        .into_iter()
        .find(|w| line.contains(*w));
    let kind = [".log", ".index", ".timeindex", ".snapshot", "checkpoint"];
    let kind = kind.into_iter().find(|kind| line.contains(*kind));
    let error = line.split(" failed: ").nth(1).unwrap_or_default();
    let error = error.split('.').next().unwrap_or_default();
    let (doing, kind) = (doing.unwrap_or("something"), kind.unwrap_or("directory"));
    format!("{doing} a {kind} failed: {error}")
}
