//! A consumer group of many members: the time until each has its share, and again after one left.
//!
//! Members speak raw frames, one thread and one connection each; they read nothing. They heartbeat
//! every 100 ms whatever the protocol proposes (3 s and 5 s), because members learn of a rebalance
//! from their heartbeats: at those intervals the wait would be the members' and the same for every
//! broker. A group is settled when every partition belongs to exactly one member, every member has
//! some, and all of them are in one generation.

mod classic;
mod consumer;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use oncelog_wire::ResponseBody;
use oncelog_wire::messages::FindCoordinatorRequest;

use crate::broker::Broker;
use crate::figures::Figures;

const LIMIT: Duration = Duration::from_secs(120);

const HEARTBEAT_EVERY: Duration = Duration::from_millis(100);

/// Between settling and the leave.
const STEADY: Duration = Duration::from_millis(500);

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Protocol {
    /// JoinGroup and SyncGroup
    Classic,
    /// ConsumerGroupHeartbeat (KIP-848)
    Consumer,
}

#[derive(clap::Args)]
pub struct Args {
    /// The broker's address.
    #[arg(long)]
    bootstrap: String,
    /// A topic that does not exist yet; the group has the same name.
    #[arg(long)]
    topic: String,
    #[arg(long, value_enum)]
    protocol: Protocol,
    #[arg(long, default_value_t = 100)]
    members: usize,
    #[arg(long, default_value_t = 300)]
    partitions: i32,
}

/// What a member has, as of a generation (or member epoch).
struct Share {
    generation: i32,
    partitions: Vec<i32>,
}

/// What the members' threads share.
struct Group {
    address: String,
    /// The group's and its topic's.
    name: String,
    partitions: i32,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    shares: BTreeMap<usize, Share>,
    /// The member that has been asked to leave.
    leaving: Option<usize>,
    over: bool,
    failure: Option<String>,
}

/// What a member does next.
enum Next {
    Heartbeat,
    Leave,
    Stop,
}

impl Group {
    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let changed = change(&mut self.state.lock().expect("no thread panics with it"));
        self.changed.notify_all();
        changed
    }

    /// Member `number` has this now; `None` while it has nothing.
    fn report(&self, number: usize, share: Option<Share>) {
        self.with(|state| match share {
            Some(share) => drop(state.shares.insert(number, share)),
            None => drop(state.shares.remove(&number)),
        });
    }

    /// Waits for the next heartbeat of member `number`, or for something else to do.
    fn next(&self, number: usize) -> Next {
        let due = Instant::now() + HEARTBEAT_EVERY;
        let mut state = self.state.lock().expect("no thread panics with it");
        loop {
            if state.over {
                return Next::Stop;
            }
            if state.leaving == Some(number) {
                return Next::Leave;
            }
            let wait = due.saturating_duration_since(Instant::now());
            if wait.is_zero() {
                return Next::Heartbeat;
            }
            let waited = self.changed.wait_timeout(state, wait);
            state = waited.expect("no thread panics with it").0;
        }
    }

    /// Waits until the group is settled; how long that took.
    fn settled(&self, members: usize, partitions: usize) -> Result<Duration> {
        let started = Instant::now();
        let mut state = self.state.lock().expect("no thread panics with it");
        loop {
            if let Some(failure) = &state.failure {
                bail!("a member failed: {failure}");
            }
            if state.is_settled(members, partitions) {
                return Ok(started.elapsed());
            }
            let wait = LIMIT.saturating_sub(started.elapsed());
            ensure!(
                !wait.is_zero(),
                "not settled within {} s: {}",
                LIMIT.as_secs(),
                state.sketch()
            );
            state = self
                .changed
                .wait_timeout(state, wait)
                .expect("no thread panics with it")
                .0;
        }
    }
}

impl State {
    fn is_settled(&self, members: usize, partitions: usize) -> bool {
        let generations: BTreeSet<i32> = self.shares.values().map(|s| s.generation).collect();
        let owned: Vec<i32> = self
            .shares
            .values()
            .flat_map(|s| s.partitions.clone())
            .collect();
        let distinct: BTreeSet<i32> = owned.iter().copied().collect();
        self.shares.len() == members
            && generations.len() == 1
            && owned.len() == partitions
            && distinct.len() == partitions
            && self
                .shares
                .values()
                .all(|share| !share.partitions.is_empty())
    }

    fn sketch(&self) -> String {
        let owned: usize = self
            .shares
            .values()
            .map(|share| share.partitions.len())
            .sum();
        format!("{} members have {owned} partitions", self.shares.len())
    }
}

pub fn run(args: &Args) -> Result<Figures> {
    let mut broker = Broker::connect(&args.bootstrap)?;
    broker.create_topic(&args.topic, args.partitions)?;
    wait_for_coordinator(&mut broker, &args.topic)?;
    let group = Group {
        address: args.bootstrap.clone(),
        name: args.topic.clone(),
        partitions: args.partitions,
        state: Mutex::default(),
        changed: Condvar::new(),
    };
    let member = match args.protocol {
        Protocol::Classic => classic::member,
        Protocol::Consumer => consumer::member,
    };
    let partitions = args.partitions as usize;
    std::thread::scope(|threads| {
        for number in 0..args.members {
            let group = &group;
            threads.spawn(move || {
                if let Err(error) = member(group, number) {
                    group.with(|state| state.failure = Some(format!("{error:#}")));
                }
            });
        }
        let measured = measure(&group, args.members, partitions);
        group.with(|state| state.over = true);
        measured
    })
}

fn measure(group: &Group, members: usize, partitions: usize) -> Result<Figures> {
    let mut figures = Figures::default();
    let whole = group.settled(members, partitions).context("joining")?;
    figures.set("join_s", whole.as_secs_f64());
    std::thread::sleep(STEADY);
    // Not the first one, which may be the leader of a classic group.
    group.with(|state| state.leaving = Some(members - 1));
    let without = group
        .settled(members - 1, partitions)
        .context("after one has left")?;
    figures.set("leave_s", without.as_secs_f64());
    Ok(figures)
}

/// The first group of a cluster makes it create the topic of offsets.
fn wait_for_coordinator(broker: &mut Broker, group: &str) -> Result<()> {
    let started = Instant::now();
    loop {
        let request = FindCoordinatorRequest {
            key: group.to_owned(),
            ..Default::default()
        };
        let ResponseBody::FindCoordinator(answer) = broker.ask(2, request)? else {
            bail!("not an answer to FindCoordinator");
        };
        if answer.error_code == 0 {
            return Ok(());
        }
        ensure!(
            started.elapsed() < LIMIT,
            "no coordinator: error {}",
            answer.error_code
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}
