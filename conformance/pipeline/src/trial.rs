//! One combination from its start to its verdict.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use crash_campaign::random::Random;
use rustix::process::Signal;

use crate::broker::Foreign;
use crate::combination::{Combination, Level};
use crate::event::Event;
use crate::faults::{Faults, note};
use crate::judge::{self, Arrived};
use crate::report::Report;
use crate::watch::Watch;
use crate::world::{PARTITIONS, World};
use crate::writers::Writers;
use crate::{stopping, tables, topic};

pub struct Trial<'a> {
    pub combination: Combination,
    pub level: Level,
    pub binary: &'a Path,
    pub home: PathBuf,
    pub kills: u64,
    pub seed: u64,
    pub foreign: Option<Foreign>,
}

/// Nothing has arrived for so long: longer than any pause of relay or sink before another attempt, and
/// than a group waits for a member that was killed.
const QUIET: Duration = Duration::from_secs(25);
/// How often it is counted what has arrived: all of it, each time.
const LOOK: Duration = Duration::from_millis(500);
/// What comes too often comes soon after the rest.
const LATE: Duration = Duration::from_secs(2);
/// How long an orderly end may take.
const END: Duration = Duration::from_secs(15);

/// What was found at the end.
struct Found {
    committed: Vec<Event>,
    topic: Vec<Arrived>,
    target: Vec<Arrived>,
    state: Vec<(String, String)>,
}

impl Trial<'_> {
    pub fn replay(&self) -> String {
        let Trial {
            combination,
            level,
            kills,
            seed,
            ..
        } = self;
        let kafka = if self.foreign.is_some() {
            " --kafka"
        } else {
            ""
        };
        format!(
            "cargo xtask pipeline --only {combination} --level {level} --kills {kills} --seed {seed}{kafka}"
        )
    }

    /// Whatever goes wrong is in the report.
    pub fn run(&self, random: &mut Random) -> Report {
        let began = Instant::now();
        let mut report = Report::default();
        let world = World::start(
            self.combination,
            self.level,
            self.binary,
            &self.home,
            self.foreign.as_ref(),
        );
        match world {
            Err(error) => report
                .broken
                .push(format!("it could not be started: {error:#}")),
            Ok(mut world) => {
                if let Err(error) = self.run_in(&mut world, random, &mut report) {
                    report.broken.push(format!("{error:#}"));
                }
                if report.failure(self.level).is_some() {
                    world.keep_logs();
                }
            }
        }
        report.took = began.elapsed();
        report
    }

    fn run_in(&self, world: &mut World, random: &mut Random, report: &mut Report) -> Result<()> {
        let watch = Watch::start(world.target.url(), self.combination.target);
        let writers = Writers::start(&world.outlet(), random);
        let mut faults = Faults {
            world,
            watch: &watch,
            random,
            report,
        };
        let done = faults.run(self.kills);
        let counts = writers.finish();
        done?;
        for (total, count) in [
            (&mut report.committed, &counts.committed),
            (&mut report.rolled_back, &counts.rolled_back),
            (&mut report.failed, &counts.failed),
        ] {
            *total = count.load(std::sync::atomic::Ordering::Relaxed);
        }
        note(world, "no more is written");
        let committed = tables::committed(&mut world.source.connect()?)?;
        self.drain(world, &watch, &committed, random, report)?;
        report.standstill = watch.longest();
        drop(watch);
        end(world, report);
        let found = self.found(world, committed)?;
        self.judge(&found, report);
        if report.failure(self.level).is_some() {
            self.keep(&found)?;
        }
        Ok(())
    }

    /// Waits until all has arrived, or nothing does any more.
    fn drain(
        &self,
        world: &mut World,
        watch: &Watch,
        committed: &[Event],
        random: &mut Random,
        report: &mut Report,
    ) -> Result<()> {
        let mut target = world.target.connect()?;
        let began = Instant::now();
        let complete = loop {
            ensure!(!stopping(), "stopped by a signal");
            let complete = match self.combination.target.upsert {
                true => {
                    let state = tables::state(&mut target)?;
                    let verdict = judge::of_state(committed, &state);
                    verdict.lost + verdict.phantom == 0
                }
                false => {
                    let count = target.value("SELECT count(DISTINCT event_id) FROM received")?;
                    count.parse::<usize>()? >= committed.len()
                }
            };
            if complete || (watch.quiet() > QUIET && began.elapsed() > QUIET) {
                break complete;
            }
            Faults {
                world,
                watch,
                random,
                report,
            }
            .check();
            std::thread::sleep(LOOK);
        };
        note(
            world,
            if complete {
                "all has arrived"
            } else {
                "nothing arrives any more"
            },
        );
        std::thread::sleep(LATE);
        Ok(())
    }

    fn found(&self, world: &World, committed: Vec<Event>) -> Result<Found> {
        let mut target = world.target.connect()?;
        let topic = topic::read(world.broker.bootstrap(), &world.topic, PARTITIONS);
        let upsert = self.combination.target.upsert;
        Ok(Found {
            committed,
            topic: topic.context("reading the topic")?,
            target: if upsert {
                Vec::new()
            } else {
                tables::received(&mut target)?
            },
            state: if upsert {
                tables::state(&mut target)?
            } else {
                Vec::new()
            },
        })
    }

    fn judge(&self, found: &Found, report: &mut Report) {
        report.topic = judge::of_events(&found.committed, &found.topic);
        report.target = match self.combination.target.upsert {
            true => judge::of_state(&found.committed, &found.state),
            false => judge::of_events(&found.committed, &found.target),
        };
    }

    /// What a run that failed is looked into with.
    fn keep(&self, found: &Found) -> Result<()> {
        let mut committed = String::new();
        for event in &found.committed {
            let Event {
                id,
                account,
                version,
                kind,
            } = event;
            writeln!(committed, "{account} {version} {id} {}", kind.code())?;
        }
        let arrived = |all: &[Arrived]| {
            let line = |one: &Arrived| format!("{} {} {:?}\n", one.account, one.id, one.body);
            all.iter().map(line).collect::<String>()
        };
        let state = found
            .state
            .iter()
            .map(|(account, id)| format!("{account} {id}\n"));
        for (name, text) in [
            ("committed.txt", committed),
            ("topic.txt", arrived(&found.topic)),
            (
                "target.txt",
                arrived(&found.target) + &state.collect::<String>(),
            ),
        ] {
            std::fs::write(self.home.join(name), text)?;
        }
        Ok(())
    }
}

/// SIGTERM, and each has to end well.
fn end(world: &mut World, report: &mut Report) {
    for role in world.roles() {
        let running = world.running(role);
        let Some(mut process) = running.process.take() else {
            continue;
        };
        process.signal(Signal::TERM);
        let name = running.program.name.clone();
        match process.wait(END) {
            Some(status) if status.success() => {}
            Some(status) => {
                let words = process.last_words();
                report
                    .broken
                    .push(format!("{name} ended with {status} at SIGTERM:\n{words}"));
            }
            None => {
                let words = process.last_words();
                report.broken.push(format!(
                    "{name} did not end within {END:?} of SIGTERM:\n{words}"
                ));
            }
        }
    }
}
