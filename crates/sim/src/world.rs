//! The scheduler: one heap of events, one source of randomness, one virtual clock.
//!
//! The network is a set of connections that keep order in each direction (TCP), with a delay drawn
//! per frame; a break drops what is in flight both ways. A client may give a connection up: what is
//! on its way to the broker then arrives all the same, however late. Frames are never cut: the real
//! server's tests do that.

mod databases;

use crate::actors::{Actor, ActorEvent, Context};
use crate::checks;
use crate::database::{Answer, Ask, DatabaseConnection, Databases};
use crate::history::{Fate, History};
use crate::host::{DiskEvent, Host};
use crate::plan::{Crash, PipelinePlan, Plan};
use bytes::{Bytes, BytesMut};
use oncelog_broker::{Chunk, ConnectionId, Input, Refusal, prepare};
use oncelog_commitlog::Disk;
use oncelog_commitlog::testing::{Fault, MemoryDisk, Random};
use oncelog_wire::ApiKey;
use oncelog_wire::clock::{Instant, Now};
use std::collections::{BTreeMap, BinaryHeap};

/// The virtual wall clock at the start: any fixed moment will do.
const EPOCH_MS: i64 = 1_700_000_000_000;
/// After the last crash, everything must be done within this time.
const HEALED_MS_MAX: u64 = 120_000;
const HEALED_DISK_DELAY_US_MAX: u64 = 5_000;
/// A last stable offset may stand still for as long as a transaction may be open, and this.
const STUCK_MARGIN_MS: i64 = 5_000;
const EVENTS_MAX: u64 = 3_000_000;

#[derive(Debug)]
pub enum Event {
    ToBroker(ConnectionId, Bytes),
    ToClient(ConnectionId, Bytes),
    ClientSeesClose(ConnectionId),
    BrokerSeesClose(ConnectionId),
    ToDatabase {
        connection: DatabaseConnection,
        ticket: u64,
        ask: Box<Ask>,
    },
    FromDatabase {
        actor: usize,
        connection: DatabaseConnection,
        ticket: u64,
        /// None: the connection is lost.
        answer: Option<Box<Answer>>,
    },
    DatabaseSeesClose(DatabaseConnection),
    DatabaseCrash,
    Disk {
        life: u64,
        event: DiskEvent,
    },
    Tick {
        life: u64,
    },
    Wake(usize),
    Crash(usize),
    /// A power cut in the middle of something that it is worst for.
    Strike,
    Restart {
        attempt: u64,
        crash: usize,
    },
    Heal,
}

struct Due {
    at: Instant,
    tie: u64,
    event: Event,
}

impl PartialEq for Due {
    fn eq(&self, other: &Due) -> bool {
        (self.at, self.tie) == (other.at, other.tie)
    }
}
impl Eq for Due {}
impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Due) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Due {
    // The heap gives the largest first; the earliest event is the largest.
    fn cmp(&self, other: &Due) -> std::cmp::Ordering {
        (other.at, other.tie).cmp(&(self.at, self.tie))
    }
}

/// One end-to-end connection.
pub struct Link {
    pub actor: usize,
    /// When the last frame in each direction arrives: order is kept.
    to_broker: Instant,
    to_client: Instant,
    /// What is on its way to the broker arrives no sooner.
    stalled: Instant,
    accepted: bool,
}

impl Link {
    /// Not cut: a cut connection carries nothing, in either direction.
    fn is_whole(&self) -> bool {
        self.to_broker != Instant::NEVER
    }
}

/// Everything that schedules; apart from the host so that both can be borrowed.
pub struct Scheduler {
    heap: BinaryHeap<Due>,
    now: Instant,
    tie: u64,
    pub random: Random,
    pub links: BTreeMap<ConnectionId, Link>,
    next_connection: u64,
    disk_delay_us_max: u64,
    net_delay_us_max: u64,
    hash: u64,
    verbose: bool,
    pub events: u64,
}

impl Scheduler {
    pub fn now(&self) -> Now {
        Now {
            instant: self.now,
            wall_ms: EPOCH_MS + (self.now.0 / 1_000_000) as i64,
        }
    }

    pub fn instant(&self) -> Instant {
        self.now
    }

    pub fn at(&mut self, at: Instant, event: Event) {
        self.tie += 1;
        let at = at.max(self.now);
        let tie = self.tie;
        self.heap.push(Due { at, tie, event });
    }

    pub fn after_ms(&mut self, ms: u64, event: Event) {
        self.at(self.now.plus_ms(ms as i64), event);
    }

    pub fn after_disk_delay(&mut self, event: Event) {
        let us = 10 + self.random.below(self.disk_delay_us_max);
        self.at(Instant(self.now.0 + us * 1_000), event);
    }

    fn net_delay(&mut self) -> u64 {
        (10 + self.random.below(self.net_delay_us_max)) * 1_000
    }

    pub fn connect(&mut self, actor: usize) -> ConnectionId {
        let id = ConnectionId(self.next_connection);
        self.next_connection += 1;
        let link = Link {
            actor,
            to_broker: self.now,
            to_client: self.now,
            stalled: self.now,
            accepted: false,
        };
        self.links.insert(id, link);
        id
    }

    pub fn to_broker(&mut self, id: ConnectionId, frame: Bytes) {
        let arrival = Instant(self.now.0 + self.net_delay());
        if let Some(link) = self.links.get_mut(&id).filter(|link| link.is_whole()) {
            link.to_broker = link.to_broker.max(arrival);
            let at = link.to_broker;
            self.at(at, Event::ToBroker(id, frame));
        }
    }

    pub fn to_client(&mut self, id: ConnectionId, frame: Bytes) {
        let arrival = Instant(self.now.0 + self.net_delay());
        if let Some(link) = self.links.get_mut(&id).filter(|link| link.is_whole()) {
            link.to_client = link.to_client.max(arrival);
            let at = link.to_client;
            self.at(at, Event::ToClient(id, frame));
        }
    }

    /// The broker closes: the client hears of it after what was sent before.
    pub fn close_from_broker(&mut self, id: ConnectionId, why: String) {
        self.trace(|| format!("broker closes {id:?}: {why}"));
        let now = self.now;
        if let Some(link) = self.links.get(&id).filter(|link| link.is_whole()) {
            let at = link.to_client.max(now);
            self.at(at, Event::ClientSeesClose(id));
            self.at(now, Event::BrokerSeesClose(id));
        }
    }

    /// Holds up what is on its way to the broker, and what follows it.
    pub fn stall(&mut self, id: ConnectionId, ms: u64) {
        let until = self.now.plus_ms(ms as i64);
        if let Some(link) = self.links.get_mut(&id).filter(|link| link.is_whole()) {
            link.stalled = link.stalled.max(until);
            // Behind everything that is put off until then.
            link.to_broker = link.to_broker.max(Instant(link.stalled.0 + 1));
        }
    }

    /// The client is gone: the broker hears of it after what was sent before, and whatever it
    /// answers goes nowhere.
    pub fn abandon(&mut self, id: ConnectionId) {
        let delay = self.net_delay();
        if let Some(link) = self.links.get(&id).filter(|link| link.is_whole()) {
            let at = Instant(link.to_broker.max(self.now).0 + delay);
            self.at(at, Event::BrokerSeesClose(id));
            self.at(at, Event::ClientSeesClose(id));
        }
    }

    /// Cuts a connection: what is in flight is gone, both ends hear of it.
    pub fn cut(&mut self, id: ConnectionId) {
        let Some(link) = self.links.get_mut(&id).filter(|link| link.is_whole()) else {
            return;
        };
        link.to_broker = Instant::NEVER;
        link.to_client = Instant::NEVER;
        let (client, broker) = (self.net_delay(), self.net_delay());
        self.at(Instant(self.now.0 + client), Event::ClientSeesClose(id));
        self.at(Instant(self.now.0 + broker), Event::BrokerSeesClose(id));
    }

    /// Mixes into the trace's hash; printed when a seed is replayed.
    pub fn trace(&mut self, line: impl FnOnce() -> String) {
        let line = line();
        for byte in line.bytes() {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        self.hash ^= self.now.0;
        if self.verbose {
            println!("{:>12.3} ms  {line}", self.now.0 as f64 / 1e6);
        }
    }
}

/// What a run came to.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// The same for every run of the same seed.
    pub trace_hash: u64,
    pub events: u64,
    pub acked: usize,
    pub crashes: usize,
    pub virtual_ms: u64,
    /// Transactions whose commit was acknowledged, that were aborted, and that may have gone
    /// either way; instances that were fenced.
    pub committed: usize,
    pub aborted: usize,
    pub in_doubt: usize,
    pub fenced: usize,
    /// Committed events of the service, records of them, lines in the sink's table; relays that had
    /// to stop.
    pub events_committed: usize,
    pub published: usize,
    pub lines: usize,
    pub relays_stopped: usize,
}

impl Outcome {
    /// For a total of several runs, which has no trace of its own.
    pub fn add(&mut self, run: &Outcome) {
        self.events += run.events;
        self.acked += run.acked;
        self.crashes += run.crashes;
        self.virtual_ms += run.virtual_ms;
        self.committed += run.committed;
        self.aborted += run.aborted;
        self.in_doubt += run.in_doubt;
        self.fenced += run.fenced;
        self.events_committed += run.events_committed;
        self.published += run.published;
        self.lines += run.lines;
        self.relays_stopped += run.relays_stopped;
    }
}

/// A promise that was broken, and when.
#[derive(Clone, Debug)]
pub struct Failure {
    pub violation: String,
    pub at_ms: u64,
}

struct World {
    plan: Plan,
    scheduler: Scheduler,
    disk: MemoryDisk,
    host: Option<Host>,
    lives: u64,
    actors: Vec<Box<dyn Actor>>,
    history: History,
    databases: Databases,
    crashes: usize,
    healed_at: Option<Instant>,
    reading_back: bool,
}

/// Runs one seed to its end. `verbose` prints the trace.
pub fn run(seed: u64, verbose: bool) -> Result<Outcome, Failure> {
    let mut random = Random::new(seed);
    let mut plan = Plan::draw(&mut random);
    plan.pipeline = PipelinePlan::draw(&mut Random::new(!seed));
    if verbose {
        println!("{plan:#?}");
    }
    let scheduler = Scheduler {
        heap: BinaryHeap::new(),
        now: Instant(1),
        tie: 0,
        random,
        links: BTreeMap::new(),
        next_connection: 1,
        disk_delay_us_max: plan.disk_delay_us_max,
        net_delay_us_max: plan.net_delay_us_max,
        hash: 0xcbf2_9ce4_8422_2325,
        verbose,
        events: 0,
    };
    let actors = crate::actors::cast(&plan);
    let source = plan.pipeline.as_ref().map(|pipeline| pipeline.source);
    let mut world = World {
        plan,
        scheduler,
        disk: MemoryDisk::new(),
        host: None,
        lives: 0,
        actors,
        history: History::default(),
        databases: Databases::new(source.unwrap_or_default()),
        crashes: 0,
        healed_at: None,
        reading_back: false,
    };
    if let Some(transactions) = &world.plan.transactions {
        let timeout_ms = i64::from(transactions.timeout_ms);
        world.history.transactions.stuck_ms_max = timeout_ms + STUCK_MARGIN_MS;
    }
    let result = world.play();
    let at_ms = world.scheduler.now.0 / 1_000_000;
    match result {
        Ok(()) => Ok(Outcome {
            trace_hash: world.scheduler.hash,
            events: world.scheduler.events,
            acked: world.history.acked.values().map(BTreeMap::len).sum(),
            crashes: world.crashes,
            virtual_ms: at_ms,
            committed: world.history.transactions.count(Fate::Committed),
            aborted: world.history.transactions.count(Fate::Aborted),
            in_doubt: world.history.transactions.count(Fate::InDoubt),
            fenced: world.history.transactions.fenced,
            events_committed: world.history.pipeline.committed.len(),
            published: world.history.pipeline.published.len(),
            lines: world.history.pipeline.lines.len(),
            relays_stopped: world.history.pipeline.fenced + world.history.pipeline.refused,
        }),
        Err(violation) => Err(Failure { violation, at_ms }),
    }
}

impl World {
    fn play(&mut self) -> Result<(), String> {
        self.start(None, 0)?;
        if self.plan.failing_sync_after > 0 {
            let after = self
                .scheduler
                .random
                .below(2 * self.plan.failing_sync_after);
            self.disk.fail_sync(after, Fault::Io);
        }
        for index in 0..self.plan.crashes.len() {
            let at = self.plan.crashes[index].at_ms;
            self.scheduler.after_ms(at, Event::Crash(index));
        }
        let pipeline = self.plan.pipeline.as_ref();
        for at in pipeline.map_or_else(Vec::new, |pipeline| pipeline.crashes_ms.clone()) {
            self.scheduler.after_ms(at, Event::DatabaseCrash);
        }
        let last = self
            .plan
            .crashes
            .iter()
            .map(|c| c.at_ms + c.down_ms)
            .max()
            .unwrap_or(0);
        self.scheduler.after_ms(last + 20_000, Event::Heal);
        for actor in 0..self.actors.len() {
            self.scheduler.after_ms(1, Event::Wake(actor));
        }
        while let Some(due) = self.scheduler.heap.pop() {
            self.scheduler.now = due.at;
            self.scheduler.events += 1;
            if self.scheduler.events > EVENTS_MAX {
                return Err(format!("no end after {EVENTS_MAX} events: a livelock"));
            }
            self.event(due.event)?;
            if self.finished()? {
                return checks::at_the_end(&self.plan, &self.history);
            }
        }
        Err("nothing left to do, and not everybody is done".to_owned())
    }

    fn event(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::ToBroker(id, frame) => self.frame_to_broker(id, frame),
            Event::ToClient(id, frame) => self.frame_to_client(id, frame)?,
            Event::ClientSeesClose(id) => self.client_sees_close(id)?,
            Event::BrokerSeesClose(id) => {
                self.give_host(Input::Disconnected { connection: id });
            }
            Event::ToDatabase {
                connection,
                ticket,
                ask,
            } => self.question(connection, ticket, *ask),
            Event::FromDatabase {
                actor,
                connection,
                ticket,
                answer,
            } => self.act(actor, ActorEvent::Answered(connection, ticket, answer))?,
            Event::DatabaseSeesClose(connection) => {
                self.databases.disconnect(connection);
            }
            Event::DatabaseCrash => self.crash_databases(),
            Event::Disk { life, event } => self.disk_event(life, event),
            Event::Tick { life } => {
                if self.host.as_ref().is_some_and(|host| host.life == life) {
                    self.give_host(Input::Tick);
                }
            }
            Event::Wake(actor) => self.act(actor, ActorEvent::Wake)?,
            Event::Crash(index) => self.crash(index),
            Event::Strike => self.strike(),
            Event::Restart { attempt, crash } => self.start(Some(crash), attempt)?,
            Event::Heal => self.heal(),
        }
        Ok(())
    }

    fn frame_to_broker(&mut self, id: ConnectionId, frame: Bytes) {
        let Some(link) = self.scheduler.links.get_mut(&id) else {
            return;
        };
        if !link.is_whole() {
            return; // the connection was cut while the frame was on its way
        }
        if link.stalled > self.scheduler.now {
            let at = link.stalled;
            return self.scheduler.at(at, Event::ToBroker(id, frame));
        }
        if self.host.is_none() {
            return self.scheduler.cut(id);
        }
        if !std::mem::replace(&mut link.accepted, true) {
            let peer = "127.0.0.1".to_owned();
            let listener = "PLAINTEXT".to_owned();
            self.give_host(Input::Connected {
                connection: id,
                peer,
                listener,
            });
        }
        match prepare(frame.slice(4..)) {
            Ok(request) => {
                let key = request.body.api_key();
                self.scheduler
                    .trace(|| format!("{id:?} asks {}", key.name()));
                let request = Box::new(request);
                self.give_host(Input::Request {
                    connection: id,
                    request,
                });
                if key == ApiKey::EndTxn {
                    self.may_strike();
                }
            }
            Err(Refusal::Answer(_)) => unreachable!("the actors ask in served versions"),
            Err(Refusal::Close(why)) => self.scheduler.close_from_broker(id, why),
        }
        let one_in = self.plan.break_one_in;
        if one_in > 0 && self.healed_at.is_none() && self.scheduler.random.one_in(one_in) {
            self.scheduler.trace(|| format!("{id:?} breaks"));
            self.scheduler.cut(id);
        }
    }

    fn frame_to_client(&mut self, id: ConnectionId, frame: Bytes) -> Result<(), String> {
        let Some(link) = self.scheduler.links.get(&id) else {
            return Ok(());
        };
        if !link.is_whole() {
            return Ok(());
        }
        let actor = link.actor;
        self.act(actor, ActorEvent::Frame(id, frame.slice(4..)))
    }

    fn client_sees_close(&mut self, id: ConnectionId) -> Result<(), String> {
        match self.scheduler.links.remove(&id) {
            Some(link) => self.act(link.actor, ActorEvent::Closed(id)),
            None => Ok(()),
        }
    }

    fn give_host(&mut self, input: Input) {
        if let Some(host) = &mut self.host {
            host.handle(&mut self.scheduler, &self.disk, input);
            if host.stopped {
                self.die(true);
            }
        }
    }

    fn disk_event(&mut self, life: u64, event: DiskEvent) {
        let Some(host) = self.host.as_mut().filter(|host| host.life == life) else {
            return;
        };
        let result = host.disk(&mut self.scheduler, &self.disk, event);
        let stopped = host.stopped;
        if let Err(fatal) = result {
            // The real host exits here; what was not synced may be gone.
            self.scheduler
                .trace(|| format!("disk failure, the broker stops: {}", fatal.0));
            self.crashes += 1;
            self.lose(true);
            self.die(false);
            self.scheduler.after_ms(
                500,
                Event::Restart {
                    attempt: 0,
                    crash: usize::MAX,
                },
            );
        } else if stopped {
            self.die(true);
        }
    }

    fn act(&mut self, actor: usize, event: ActorEvent) -> Result<(), String> {
        let mut context = Context {
            id: actor,
            scheduler: &mut self.scheduler,
            history: &mut self.history,
            databases: &mut self.databases,
            healed: self.healed_at.is_some(),
            reading_back: self.reading_back,
        };
        self.actors[actor].on(&mut context, event)
    }

    fn crash(&mut self, index: usize) {
        if self.host.is_none() {
            return; // already down
        }
        let crash = self.plan.crashes[index];
        self.crashes += 1;
        let restart = Event::Restart {
            attempt: 0,
            crash: index,
        };
        self.scheduler.after_ms(crash.down_ms, restart);
        if crash.controlled {
            self.scheduler.trace(|| "controlled shutdown".to_owned());
            return self.give_host(Input::ShutDown);
        }
        self.scheduler.trace(|| format!("crash: {crash:?}"));
        self.lose(crash.power_cut);
        self.die(false);
    }

    /// Lets the power go before all that follows from an EndTxn can be on the disk.
    fn may_strike(&mut self) {
        let plan = self.plan.transactions.as_ref();
        let one_in = plan.map_or(0, |plan| plan.strike_one_in);
        if one_in > 0 && self.healed_at.is_none() && self.scheduler.random.one_in(one_in) {
            self.scheduler.after_disk_delay(Event::Strike);
        }
    }

    fn strike(&mut self) {
        if self.host.is_none() || self.healed_at.is_some() {
            return;
        }
        self.scheduler
            .trace(|| "the power goes while a transaction is ended".to_owned());
        self.crashes += 1;
        self.lose(true);
        self.die(false);
        let (attempt, crash) = (0, usize::MAX);
        let restart = Event::Restart { attempt, crash };
        self.scheduler.after_ms(500, restart);
    }

    fn lose(&mut self, power_cut: bool) {
        match power_cut {
            true => self.disk.crash(self.scheduler.random.next_u64()),
            false => self.disk.sync_everything(),
        }
    }

    /// The process is gone; its connections break.
    fn die(&mut self, controlled: bool) {
        self.scheduler
            .trace(|| format!("the broker is down (controlled: {controlled})"));
        self.host = None;
        let links: Vec<ConnectionId> = self.scheduler.links.keys().copied().collect();
        for id in links {
            self.scheduler.cut(id);
        }
    }

    /// Starts a broker; the plan may cut its recovery off.
    fn start(&mut self, crash: Option<usize>, attempt: u64) -> Result<(), String> {
        if self.host.is_some() {
            // A controlled shutdown that did not end in time is killed.
            self.lose(false);
            self.die(false);
        }
        let crash = crash
            .and_then(|index| self.plan.crashes.get(index))
            .copied();
        let cut = crash.map_or(0, |crash: Crash| crash.during_recovery);
        if cut > 0 && attempt < 3 {
            self.disk.cut_power_after(cut * (attempt + 1));
        }
        self.lives += 1;
        let seed = self.scheduler.random.next_u64();
        let now = self.scheduler.now();
        match Host::open(&self.plan, &self.disk, now, seed, self.lives) {
            Ok(host) => {
                self.scheduler.trace(|| "the broker is up".to_owned());
                self.host = Some(host);
                if cut > 0 && attempt < 3 {
                    // It was quicker than the cut: let the cut come when it comes.
                    self.disk.clear_faults();
                }
                self.give_host(Input::Tick);
                Ok(())
            }
            Err(error) if cut > 0 && attempt < 3 => {
                self.scheduler
                    .trace(|| format!("crash during recovery: {error}"));
                self.lose(crash.is_some_and(|crash| crash.power_cut));
                self.disk.clear_faults();
                let again = Event::Restart {
                    attempt: attempt + 1,
                    crash: self.index_of(crash),
                };
                self.scheduler.after_ms(100, again);
                Ok(())
            }
            Err(error) if error.contains("injected") => {
                // The failing sync struck here; whoever runs the broker starts it again.
                self.scheduler
                    .trace(|| format!("disk failure during recovery: {error}"));
                self.lose(true);
                let again = Event::Restart {
                    attempt: 9,
                    crash: usize::MAX,
                };
                self.scheduler.after_ms(100, again);
                Ok(())
            }
            Err(error) => Err(format!("the broker does not start: {error}")),
        }
    }

    fn index_of(&self, crash: Option<Crash>) -> usize {
        let at = |wanted: Crash| {
            self.plan
                .crashes
                .iter()
                .position(|c| c.at_ms == wanted.at_ms)
        };
        crash.and_then(at).unwrap_or(usize::MAX)
    }

    /// From here on nothing fails, and the disk is quick again; everybody must get done.
    fn heal(&mut self) {
        self.scheduler.trace(|| "healed".to_owned());
        self.disk.clear_faults();
        let delay_us_max = &mut self.scheduler.disk_delay_us_max;
        *delay_us_max = HEALED_DISK_DELAY_US_MAX.min(*delay_us_max);
        self.healed_at = Some(self.scheduler.now);
        self.history.transactions.healed_at = self.healed_at;
        if self.host.is_none() {
            self.scheduler.after_ms(
                1,
                Event::Restart {
                    attempt: 9,
                    crash: usize::MAX,
                },
            );
        }
        for actor in 0..self.actors.len() {
            self.scheduler.after_ms(1, Event::Wake(actor));
        }
    }

    /// The clients are done, and then the readers who look at everything once more.
    fn finished(&mut self) -> Result<bool, String> {
        let Some(healed) = self.healed_at else {
            return Ok(false);
        };
        if self.scheduler.now.ms_since(healed) as u64 > HEALED_MS_MAX {
            let late: Vec<String> = self
                .actors
                .iter()
                .filter(|actor| !actor.done())
                .map(|actor| actor.describe())
                .collect();
            return Err(format!(
                "not done {HEALED_MS_MAX} ms after healing: {late:?}"
            ));
        }
        if !self.actors.iter().all(|actor| actor.done()) {
            return Ok(false);
        }
        if self.reading_back {
            return Ok(true);
        }
        self.reading_back = true;
        for reader in crate::actors::readers(&self.plan, &self.history) {
            self.actors.push(reader);
            let id = self.actors.len() - 1;
            self.scheduler.after_ms(1, Event::Wake(id));
        }
        Ok(false)
    }
}

/// The bytes of an encoded answer, file ranges read in.
pub fn assemble(chunks: &[Chunk], disk: &MemoryDisk) -> Bytes {
    let mut frame = BytesMut::new();
    for chunk in chunks {
        match chunk {
            Chunk::Bytes(bytes) => frame.extend_from_slice(bytes),
            Chunk::File {
                file,
                position,
                len,
            } => {
                let start = frame.len();
                frame.resize(start + *len as usize, 0);
                let read = disk.read_at(file, *position, &mut frame[start..]);
                assert_eq!(
                    read.ok(),
                    Some(*len as usize),
                    "{file} changed under a fetch"
                );
            }
        }
    }
    frame.freeze()
}
