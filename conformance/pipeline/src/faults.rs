//! What is done to a pipeline while its writers write: kills at random, failpoints, old instances that
//! wake up when new ones have taken over.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use crash_campaign::random::Random;
use oncelog_pipeline::failpoint;
use rustix::process::Signal;

use crate::combination::Level;
use crate::process::{Process, is_abort};
use crate::report::Report;
use crate::stopping;
use crate::watch::Watch;
use crate::world::{Role, World};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Process(Role),
    Broker,
    Source,
    Target,
}

#[derive(Clone, Debug)]
enum Step {
    /// SIGKILL, all of them at once, and each is started again.
    Kill(Vec<Victim>),
    /// SIGKILL, and the next one is ended by the failpoint.
    Failpoint(Role, String),
    /// An instance is stopped, a new one started, the old one continued.
    Zombie(Role),
    /// A second instance comes and one of the two is killed: the group divides the partitions anew.
    Second,
}

/// Of relays without a transaction.
const ONLY_EXACTLY_ONCE: [&str; 2] = ["relay-during-commit", "relay-after-commit"];

/// How long a failpoint, the end of an old instance, or the next arrival may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// The group takes a member for dead after the two seconds that the sink's file says.
const SESSION_MS: (u64, u64) = (2_300, 4_000);

pub struct Faults<'a> {
    pub world: &'a mut World,
    pub watch: &'a Watch,
    pub random: &'a mut Random,
    pub report: &'a mut Report,
}

impl Faults<'_> {
    /// Until there have been about `kills` SIGKILLs, and every other fault.
    pub fn run(&mut self, kills: u64) -> Result<()> {
        for step in self.steps(kills) {
            if stopping() {
                bail!("stopped by a signal");
            }
            self.breathe();
            note(self.world, &format!("{step:?}"));
            match step {
                Step::Kill(victims) => self.kill(&victims)?,
                Step::Failpoint(role, failpoint) => self.failpoint(role, &failpoint)?,
                Step::Zombie(Role::Relay(index)) => self.relay_zombie(index)?,
                Step::Zombie(Role::Sink) => self.sink_zombie()?,
                Step::Second => self.second_sink()?,
            }
            self.check();
        }
        Ok(())
    }

    fn steps(&mut self, kills: u64) -> Vec<Step> {
        let exactly_once = self.world.level == Level::Exactly;
        let mut steps = Vec::new();
        let relays = failpoint::RELAY.iter();
        let relays = relays.filter(|name| exactly_once || !ONLY_EXACTLY_ONCE.contains(name));
        for name in relays.chain(&failpoint::SINK) {
            let role = match failpoint::SINK.contains(name) {
                true => Role::Sink,
                false => self.a_relay(),
            };
            let times = self.random.range(1, 8);
            steps.push(Step::Failpoint(role, format!("{name}@{times}")));
        }
        if exactly_once {
            steps.extend((0..=kills / 12).map(|_| Step::Zombie(self.a_relay())));
        }
        steps.extend((0..=kills / 40).map(|_| Step::Zombie(Role::Sink)));
        steps.extend((0..=kills / 15).map(|_| Step::Second));
        // Each failpoint kills whoever runs before, each sink too many is killed.
        let mut planned = steps
            .iter()
            .filter(|step| !matches!(step, Step::Zombie(Role::Relay(_))))
            .count();
        while planned < kills as usize {
            let mut victims = vec![self.victim()];
            if self.random.one_in(8) {
                let other = self.victim();
                victims.extend((!victims.contains(&other)).then_some(other));
            }
            planned += victims.len();
            steps.push(Step::Kill(victims));
        }
        for index in (1..steps.len()).rev() {
            let other = self.random.range(0, index as u64 + 1) as usize;
            steps.swap(index, other);
        }
        steps
    }

    fn a_relay(&mut self) -> Role {
        Role::Relay(self.random.range(0, self.world.relays.len() as u64) as usize)
    }

    fn victim(&mut self) -> Victim {
        let mut weights = vec![
            (Victim::Process(self.a_relay()), 8),
            (Victim::Process(Role::Sink), 6),
        ];
        if self.world.broker.may_be_killed() {
            weights.push((Victim::Broker, 4));
        }
        for (victim, server) in [
            (Victim::Source, &self.world.source),
            (Victim::Target, &self.world.target),
        ] {
            if server.can_be_killed() {
                weights.push((victim, 3));
            }
        }
        let all: u64 = weights.iter().map(|(_, weight)| weight).sum();
        let mut at = self.random.range(0, all);
        for (victim, weight) in &weights {
            if at < *weight {
                return *victim;
            }
            at -= weight;
        }
        Victim::Process(Role::Sink)
    }

    /// Sometimes not until something has arrived again, sometimes in the middle of a start.
    fn breathe(&mut self) {
        if !self.random.one_in(3) {
            self.pause(10, 700);
            return;
        }
        let before = self.watch.changes();
        let began = Instant::now();
        while self.watch.changes() < before + 2 {
            if began.elapsed() > PATIENCE {
                let words = self.world.roles().into_iter().map(|role| {
                    let running = &self.world.running(role).process;
                    running
                        .as_ref()
                        .map_or_else(String::new, Process::last_words)
                });
                let words = words.collect::<Vec<_>>().join("\n--\n");
                self.broken(format!(
                    "nothing arrived for {PATIENCE:?}, and all run:\n{words}"
                ));
                return;
            }
            if stopping() {
                return;
            }
            self.check();
            std::thread::sleep(Duration::from_millis(10));
        }
        self.pause(0, 300);
    }

    fn pause(&mut self, from_ms: u64, to_ms: u64) {
        std::thread::sleep(Duration::from_millis(self.random.range(from_ms, to_ms)));
    }

    fn kill(&mut self, victims: &[Victim]) -> Result<()> {
        for victim in victims {
            match victim {
                Victim::Process(role) => self.kill_process(*role),
                Victim::Broker => {
                    if let Err(error) = self.world.broker.check() {
                        self.broken(format!("{error:#}"));
                    }
                    self.world.broker.kill();
                    self.count("broker");
                }
                Victim::Source => {
                    self.world.source.kill()?;
                    self.count("source");
                }
                Victim::Target => {
                    self.world.target.kill()?;
                    self.count("target");
                }
            }
        }
        if self.random.one_in(4) {
            self.pause(10, 600);
        }
        for victim in victims {
            match victim {
                Victim::Process(role) => self.start(*role, None)?,
                Victim::Broker => self.world.broker.start()?,
                Victim::Source => self.world.source.start_again()?,
                Victim::Target => self.world.target.start_again()?,
            }
        }
        Ok(())
    }

    fn kill_process(&mut self, role: Role) {
        self.check_one(role);
        if let Some(process) = self.world.running(role).process.take() {
            process.kill();
            self.count(name(role));
        }
    }

    fn start(&mut self, role: Role, failpoint: Option<&str>) -> Result<()> {
        let running = self.world.running(role);
        running.process = Some(running.program.start_with(failpoint)?);
        Ok(())
    }

    fn failpoint(&mut self, role: Role, failpoint: &str) -> Result<()> {
        self.kill_process(role);
        self.start(role, Some(failpoint))?;
        let began = Instant::now();
        let mut process = self.world.running(role).process.take();
        let ended = loop {
            let ended = process.as_mut().and_then(Process::ended);
            if ended.is_some() || began.elapsed() > PATIENCE || stopping() {
                break ended;
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        let words = process
            .as_ref()
            .map_or_else(String::new, Process::last_words);
        match ended {
            Some(status) if is_abort(status) => {
                let (name, _) = failpoint.split_once('@').unwrap_or((failpoint, ""));
                *self.report.failpoints.entry(name.to_owned()).or_default() += 1;
            }
            Some(status) => self.broken(format!("{failpoint}: it ended with {status}:\n{words}")),
            None => self.broken(format!(
                "{failpoint} was not reached in {PATIENCE:?}:\n{words}"
            )),
        }
        drop(process);
        self.start(role, None)
    }

    /// Whoever began first has to find out that it was fenced, and end. Where the old one had lost its
    /// connections meanwhile, it begins anew and is the younger one.
    fn relay_zombie(&mut self, index: usize) -> Result<()> {
        let Some(mut old) = self.world.relays[index].process.take() else {
            return Ok(());
        };
        old.signal(Signal::STOP);
        let mut new = self.world.relays[index].program.start()?;
        self.pause(100, 3_000);
        old.signal(Signal::CONT);
        let began = Instant::now();
        let (ended, left) = loop {
            if old.ended().is_some() {
                break (old, Some(new));
            }
            if new.ended().is_some() {
                break (new, Some(old));
            }
            if began.elapsed() > PATIENCE || stopping() {
                let words = format!("{}\n--\n{}", old.last_words(), new.last_words());
                self.broken(format!(
                    "two relays ran for {PATIENCE:?}, and none was fenced:\n{words}"
                ));
                break (old, Some(new));
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        let mut ended = ended;
        if ended.ended().is_some() {
            match ended.said().contains("fenced") {
                true => self.report.fenced += 1,
                false => self.broken(format!("it was not fenced, but:\n{}", ended.last_words())),
            }
        }
        self.world.relays[index].process = left;
        Ok(())
    }

    fn sink_zombie(&mut self) -> Result<()> {
        let Some(old) = self.world.sink.process.take() else {
            return Ok(());
        };
        old.signal(Signal::STOP);
        let new = self.world.sink.program.start()?;
        // Long enough for the group to go on without it, or not.
        match self.random.one_in(3) {
            true => self.pause(100, 2_000),
            false => self.pause(SESSION_MS.0, SESSION_MS.1),
        }
        old.signal(Signal::CONT);
        self.pause(100, 2_000);
        self.keep_one(old, new);
        Ok(())
    }

    fn second_sink(&mut self) -> Result<()> {
        let Some(first) = self.world.sink.process.take() else {
            return Ok(());
        };
        let second = self.world.sink.program.start()?;
        self.pause(200, 4_000);
        self.keep_one(first, second);
        Ok(())
    }

    /// Kills one of two sinks; both have to be there until then.
    fn keep_one(&mut self, first: Process, second: Process) {
        let (mut killed, left) = match self.random.one_in(2) {
            true => (first, second),
            false => (second, first),
        };
        if let Some(status) = killed.ended() {
            let words = killed.last_words();
            self.broken(format!(
                "one of two sinks ended by itself with {status}:\n{words}"
            ));
        }
        killed.kill();
        self.count("sink");
        self.world.sink.process = Some(left);
    }

    /// Nobody may have ended by itself.
    pub fn check(&mut self) {
        for role in self.world.roles() {
            self.check_one(role);
        }
        if let Err(error) = self.world.broker.check() {
            self.broken(format!("{error:#}"));
        }
    }

    fn check_one(&mut self, role: Role) {
        if let Err(error) = self.world.running(role).check() {
            self.broken(format!("{error:#}"));
        }
    }

    fn broken(&mut self, what: String) {
        note(self.world, &what);
        // One cause may have very many effects.
        if self.report.broken.len() < 20 {
            self.report.broken.push(what);
        }
    }

    fn count(&mut self, victim: &'static str) {
        *self.report.kills.entry(victim).or_default() += 1;
    }
}

fn name(role: Role) -> &'static str {
    match role {
        Role::Relay(_) => "relay",
        Role::Sink => "sink",
    }
}

/// A line of the file that says what was done when.
pub fn note(world: &World, what: &str) {
    use std::io::Write;
    let file = std::fs::File::options()
        .create(true)
        .append(true)
        .open(world.home.join("events.log"));
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = now.map_or(0.0, |now| now.as_secs_f64());
    let written = file.and_then(|mut file| writeln!(file, "{now:.3} {what}"));
    if let Err(error) = written {
        eprintln!("events.log: {error}");
    }
}
