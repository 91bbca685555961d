//! The broker's core behind one lock, and what follows from each input.
//!
//! Whoever has an input (a connection's task, a commit thread, the timer) locks the core, hands
//! the input in, takes all effects out, unlocks, and carries the effects out itself: appends that
//! need no sync are written inline, answers are sent by the thread that caused them. On an idle
//! machine a wake-up costs more than all of that.
//!
//! What leaves the lock in order: answers go into their connection's outbox and disk work into its
//! queue while the core is locked, so that order of emission is order of delivery.
//!
//! Invariants: nothing is handed in or carried out after a failure ([`crate::fatal`]) or after
//! [`Core::stop`]; the core is never called while it is locked by the same thread.

use crate::background::{ReadQueue, StepQueue};
use crate::clock::Clock;
use crate::commit::{self, Commit, Completions, Wake};
use crate::connection::Connection;
use crate::disk::RealDisk;
use crate::fatal::{Failure, Fatal};
use crate::limits;
use crate::outbox::Outgoing;
use oncelog_broker::{Broker, ConnectionId, Effect, Figures, Input, Level, OpId};
use oncelog_commitlog::{Append, DiskOp, DiskOutcome};
use oncelog_wire::clock::{Instant, Now};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Notify;

pub struct Core {
    inner: Mutex<Inner>,
    pub clock: Clock,
    pub disk: Arc<RealDisk>,
    pub fatal: Arc<Fatal>,
    commit: Arc<Commit>,
    steps: StepQueue,
    reads: ReadQueue,
    /// The deadline that the timer task sleeps for, in the core's nanoseconds. It only moves
    /// earlier until it has passed: waking the task whenever a request comes and goes would cost
    /// more than one tick too many.
    armed: AtomicU64,
    deadline_moved: Notify,
    /// How often threads came back with finished disk work.
    completions: AtomicU64,
    /// No further requests are taken (a shutdown has begun).
    draining: AtomicBool,
    /// No further inputs are taken.
    stopped: AtomicBool,
    stopped_changed: Notify,
}

struct Inner {
    broker: Broker,
    connections: HashMap<ConnectionId, Arc<Connection>>,
}

/// What to do once the core is unlocked.
#[derive(Default)]
struct Todo {
    inline: Vec<(OpId, Append)>,
    wake: Wake,
    logs: Vec<(Level, String)>,
    stopped: bool,
}

/// Connections that got something to send.
#[derive(Default)]
struct Touched(Vec<Arc<Connection>>);

impl Core {
    pub fn new(
        broker: Broker,
        clock: Clock,
        disk: Arc<RealDisk>,
        fatal: Arc<Fatal>,
        queues: (Arc<Commit>, StepQueue, ReadQueue),
    ) -> Core {
        let (commit, steps, reads) = queues;
        let connections = HashMap::new();
        Core {
            inner: Mutex::new(Inner {
                broker,
                connections,
            }),
            clock,
            disk,
            fatal,
            commit,
            steps,
            reads,
            armed: AtomicU64::new(u64::MAX),
            deadline_moved: Notify::new(),
            completions: AtomicU64::new(0),
            draining: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            stopped_changed: Notify::new(),
        }
    }

    /// Hands inputs in and carries out all that follows from them, short of what other threads do.
    pub fn submit(&self, inputs: impl IntoIterator<Item = Input>) {
        self.run(|inner, now| {
            for input in inputs {
                inner.broker.handle(now, input);
            }
        });
    }

    pub fn connect(&self, connection: &Arc<Connection>) {
        let connected = Input::Connected {
            connection: connection.id,
            peer: connection.peer.ip().to_string(),
            listener: connection.listener.clone(),
        };
        self.run(|inner, now| {
            inner.connections.insert(connection.id, connection.clone());
            inner.broker.handle(now, connected);
        });
    }

    pub fn disconnect(&self, connection: ConnectionId) {
        self.run(|inner, now| {
            inner.connections.remove(&connection);
            inner.broker.handle(now, Input::Disconnected { connection });
        });
    }

    fn run(&self, work: impl FnOnce(&mut Inner, Now)) {
        let mut touched = Touched::default();
        let mut todo = self.locked(&mut touched, work);
        while !todo.inline.is_empty() {
            let appends = std::mem::take(&mut todo.inline);
            if let Err(failure) = commit::write_appends(&self.disk, &appends) {
                return self.fatal.report(failure);
            }
            todo = self.locked(&mut touched, |inner, now| {
                for (op, _) in appends {
                    let outcome = DiskOutcome::Done;
                    inner.broker.handle(now, Input::DiskDone { op, outcome });
                }
            });
        }
        self.send(touched);
    }

    pub fn figures(&self) -> Option<Figures> {
        self.guard().map(|inner| inner.broker.figures())
    }

    /// Begins a shutdown: connections are read no more, what is in flight is finished.
    pub fn shut_down(&self) {
        self.draining.store(true, Ordering::SeqCst);
        self.submit([Input::ShutDown]);
    }

    /// From here on nothing happens any more.
    pub fn stop(&self) {
        self.draining.store(true, Ordering::SeqCst);
        self.stopped.store(true, Ordering::SeqCst);
        self.stopped_changed.notify_waiters();
        self.deadline_moved.notify_one();
    }

    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }

    fn has_ended(&self) -> bool {
        self.stopped.load(Ordering::SeqCst) || self.fatal.has_failed()
    }

    /// Returns when no disk work was finished for so long.
    pub async fn stalled(&self, wait: Duration) {
        loop {
            let before = self.completions.load(Ordering::Relaxed);
            tokio::time::sleep(wait).await;
            if self.completions.load(Ordering::Relaxed) == before {
                return;
            }
        }
    }

    /// Returns when the core has ended its shutdown.
    pub async fn stopped(&self) {
        loop {
            let changed = self.stopped_changed.notified();
            if self.stopped.load(Ordering::SeqCst) {
                return;
            }
            changed.await;
        }
    }

    /// Sends a tick whenever a deadline has passed; ends with the core.
    pub async fn run_timer(&self) {
        while !self.has_ended() {
            let armed = Instant(self.armed.load(Ordering::SeqCst));
            let due = async {
                if armed == Instant::NEVER {
                    std::future::pending::<()>().await;
                }
                tokio::time::sleep_until(self.clock.at(armed)).await;
            };
            tokio::select! {
                () = due => {
                    self.armed.store(Instant::NEVER.0, Ordering::SeqCst);
                    self.submit([Input::Tick]);
                }
                () = self.deadline_moved.notified() => {}
            }
        }
    }

    fn locked(&self, touched: &mut Touched, work: impl FnOnce(&mut Inner, Now)) -> Todo {
        let mut todo = Todo::default();
        let Some(mut inner) = self.guard() else {
            return todo;
        };
        work(&mut inner, self.clock.now());
        self.drain(&mut inner, touched, &mut todo);
        let next = inner.broker.next_deadline().unwrap_or(Instant::NEVER).0;
        let sooner = self.armed.fetch_min(next, Ordering::SeqCst) > next;
        drop(inner);
        if sooner {
            self.deadline_moved.notify_one();
        }
        self.commit.wake(std::mem::take(&mut todo.wake));
        for (level, message) in todo.logs.drain(..) {
            match level {
                Level::Info => tracing::info!("{message}"),
                Level::Warn => tracing::warn!("{message}"),
                Level::Error => tracing::error!("{message}"),
            }
        }
        if todo.stopped {
            self.stop();
        }
        todo
    }

    fn drain(&self, inner: &mut Inner, touched: &mut Touched, todo: &mut Todo) {
        while let Some(effect) = inner.broker.poll_effect() {
            match effect {
                Effect::Answer(answer) => {
                    if let Some(connection) = inner.connections.get(&answer.connection) {
                        connection.outbox.push(Outgoing::Answer(answer));
                        touched.add(connection);
                    }
                }
                Effect::Close { connection, reason } => {
                    if let Some(connection) = inner.connections.get(&connection) {
                        connection.outbox.push(Outgoing::Close(reason));
                        touched.add(connection);
                    }
                }
                Effect::Disk { op, work } => self.start(op, work, todo),
                Effect::Log { level, message } => todo.logs.push((level, message)),
                Effect::Stopped => todo.stopped = true,
            }
        }
    }

    fn start(&self, op: OpId, work: DiskOp, todo: &mut Todo) {
        match work {
            DiskOp::Append(append) if append.durable => {
                self.commit.push(op, append, &mut todo.wake);
            }
            DiskOp::Append(append) => todo.inline.push((op, append)),
            DiskOp::Steps(steps) => self.steps.push((op, steps)),
            reading => self.reads.push((op, reading)),
        }
    }

    fn send(&self, touched: Touched) {
        if self.fatal.has_failed() {
            return;
        }
        // Many at once (a group commit that a thousand clients waited for): this thread has other
        // things to do, so each connection's own task sends.
        let inline = touched.0.len() <= limits::FLUSH_INLINE_MAX;
        for connection in touched.0 {
            match inline {
                true => connection.flush(&self.disk),
                false => connection.ask_to_flush(),
            }
        }
    }

    fn guard(&self) -> Option<Guard<'_>> {
        if self.has_ended() {
            return None;
        }
        match self.inner.lock() {
            Ok(inner) => Some(Guard {
                inner,
                fatal: &self.fatal,
            }),
            Err(_) => {
                self.fatal.report(Failure::core_panicked());
                None
            }
        }
    }
}

/// The locked core. A panic while it is held means that its state cannot be trusted.
struct Guard<'a> {
    inner: std::sync::MutexGuard<'a, Inner>,
    fatal: &'a Fatal,
}

impl std::ops::Deref for Guard<'_> {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.inner
    }
}

impl std::ops::DerefMut for Guard<'_> {
    fn deref_mut(&mut self) -> &mut Inner {
        &mut self.inner
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.fatal.report(Failure::core_panicked());
        }
    }
}

impl Touched {
    fn add(&mut self, connection: &Arc<Connection>) {
        // Answers to one connection mostly come in a row.
        let last = self.0.last();
        if !last.is_some_and(|last| Arc::ptr_eq(last, connection)) {
            self.0.push(connection.clone());
        }
    }
}

impl Completions for Core {
    fn completed(&self, done: Vec<(OpId, DiskOutcome)>) {
        self.completions.fetch_add(1, Ordering::Relaxed);
        let input = |(op, outcome)| Input::DiskDone { op, outcome };
        self.submit(done.into_iter().map(input));
    }

    fn failed(&self, failure: Failure) {
        self.fatal.report(failure);
    }

    fn has_failed(&self) -> bool {
        self.has_ended()
    }
}
