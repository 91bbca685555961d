//! Starting and stopping a broker with everything around it.
//!
//! Start, in order: sockets are bound (a port in use is found before a long recovery), health is
//! served, the data directory is locked, the log is recovered, and only then are clients let in:
//! a connection that succeeds is one that is served.
//!
//! Stop, in order: no further request is read, what is in flight is finished and written, the
//! clean-shutdown marker is left, connections are closed, threads end, the directory is unlocked.

use crate::background::{self, WorkQueue};
use crate::budget::Budget;
use crate::clock::Clock;
use crate::commit::{self, Commit, Completions};
use crate::core::Core;
use crate::disk::RealDisk;
use crate::disk::lock::{DirectoryLock, LockError};
use crate::disk::settled::SettledDisk;
use crate::fatal::{Failure, Fatal, OnFailure};
use crate::figures::{PipelineFigures, ServerFigures};
use crate::limits;
use crate::listener::{BindError, Bound, Connections, Settings, bind};
use oncelog_broker::{Input, OpenError, OpenReport, Opened, open_reporting};
use oncelog_commitlog::Disk;
use oncelog_coordinator::cluster::{BrokerConfig, Listener};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

pub struct ServerConfig {
    pub broker: BrokerConfig,
    pub on_failure: OnFailure,
}

pub struct Server;

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error("the data directory {path} cannot be used: {error}")]
    DataDirectory { path: PathBuf, error: io::Error },
    #[error("the data directory {path} cannot be opened: {error}")]
    Open { path: PathBuf, error: OpenError },
    #[error("the operating system refused: {0}")]
    System(#[from] io::Error),
}

#[derive(Debug, thiserror::Error)]
pub enum ShutdownError {
    #[error(
        "the shutdown made no progress for {0:?} and was given up; the next start recovers \
         from the log, nothing that was acknowledged is lost"
    )]
    TimedOut(Duration),
    #[error(transparent)]
    Failed(#[from] Failure),
}

/// A broker that serves. To be ended with [`RunningServer::shutdown`].
pub struct RunningServer {
    pub(crate) config: BrokerConfig,
    pub(crate) report: OpenReport,
    pub(crate) data_directory: PathBuf,
    pub(crate) took: Duration,
    addresses: Vec<SocketAddr>,
    http_address: Option<SocketAddr>,
    core: Arc<Core>,
    connections: Arc<Connections>,
    figures: Arc<ServerFigures>,
    tasks: JoinSet<()>,
    threads: Threads,
    _lock: Arc<DirectoryLock>,
}

impl Server {
    /// Starts a broker on the current tokio runtime; returns when clients are served.
    pub async fn start(config: ServerConfig) -> Result<RunningServer, StartError> {
        let began = Instant::now();
        let ServerConfig {
            mut broker,
            on_failure,
        } = config;
        let files = raise_file_limit();
        let bound = bind_all(&broker.listeners)?;
        let ports: Vec<u16> = bound.iter().map(Bound::port).collect();
        broker.fill_in_addresses("localhost", &ports);

        let figures = Arc::new(ServerFigures::default());
        let mut tasks = JoinSet::new();
        let http_address = serve_http(&broker, &figures, &mut tasks)?;

        let path = PathBuf::from(&broker.log_dir);
        let (disk, lock) = open_directory(&path, files)?;
        let clock = Clock::start();
        let opened = recover(broker.clone(), &disk, &lock, clock).await?;

        let fatal = Arc::new(Fatal::new(on_failure, Arc::downgrade(&lock)));
        let (core, threads) = Threads::start(opened.broker, clock, disk.clone(), fatal)?;
        let budget = Budget::new(request_memory(&broker));
        let settings = settings(&broker, files);
        let connections = Arc::new(Connections::new(core.clone(), budget.clone(), settings));
        // What recovery left to do.
        core.submit([Input::Tick]);
        let timer = core.clone();
        tasks.spawn(async move { timer.run_timer().await });
        tasks.spawn(connections.clone().sweep());
        let mut addresses = Vec::new();
        for (bound, advertised) in bound.into_iter().zip(&broker.advertised_listeners) {
            let listener = bound.listen()?;
            addresses.push(listener.local_addr()?);
            tasks.spawn(connections.clone().accept(listener, advertised.clone()));
        }
        figures.running(&broker, disk.root(), &core, &connections, &budget);
        Ok(RunningServer {
            report: opened.report,
            data_directory: disk.root().to_owned(),
            took: began.elapsed(),
            config: broker,
            addresses,
            http_address,
            core,
            connections,
            figures,
            tasks,
            threads,
            _lock: lock,
        })
    }
}

impl RunningServer {
    /// Shows the relays and sinks that run beside this broker among its own figures.
    pub fn show_pipeline(&self, figures: PipelineFigures) {
        self.figures.beside(figures);
    }

    /// Where the first listener is bound.
    pub fn addr(&self) -> SocketAddr {
        self.addresses[0]
    }

    /// Where each of `listeners` is bound, in order.
    pub fn addrs(&self) -> &[SocketAddr] {
        &self.addresses
    }

    pub fn http_addr(&self) -> Option<SocketAddr> {
        self.http_address
    }

    /// What clients are told to connect to, `host:port`, by the first listener.
    pub fn bootstrap_servers(&self) -> String {
        bootstrap(&self.config)
    }

    /// Open client connections.
    pub fn connection_count(&self) -> usize {
        self.connections.count()
    }

    /// Why the broker stopped by itself, if it did.
    pub fn failure(&self) -> Option<&Failure> {
        self.core.fatal.failure()
    }

    /// Returns when the broker has stopped by itself (see [`RunningServer::failure`]).
    pub async fn failed(&self) {
        self.core.fatal.failed().await;
    }

    /// Finishes what is in flight, writes what the next start would otherwise have to rebuild,
    /// and stops.
    pub async fn shutdown(self) -> Result<(), ShutdownError> {
        self.figures.not_ready("the broker is shutting down");
        self.core.shut_down();
        let wait = limits::SHUTDOWN_WAIT;
        let result = tokio::select! {
            () = self.core.stopped() => Ok(()),
            () = self.core.fatal.failed() => {
                let failure = self.core.fatal.failure().expect("reported").clone();
                Err(ShutdownError::Failed(failure))
            }
            () = self.core.stalled(wait) => Err(ShutdownError::TimedOut(wait)),
        };
        self.end().await;
        result
    }

    /// Stops at once, as a crash would: nothing in flight is finished, no marker is left. When it
    /// returns, nothing of this broker touches the data directory any more.
    pub async fn kill(self) {
        self.end().await;
    }

    async fn end(mut self) {
        self.core.stop();
        self.figures.stopped();
        // Their tasks end on their own; a client cannot hold this up.
        let _ = tokio::time::timeout(Duration::from_secs(5), self.connections.close()).await;
        self.tasks.shutdown().await;
        let threads = std::mem::take(&mut self.threads);
        let _ = tokio::task::spawn_blocking(move || threads.join()).await;
    }
}

/// Who lets go of a server without ending it gets a crash, and still a directory that nobody
/// writes to: the lock goes last.
impl Drop for RunningServer {
    fn drop(&mut self) {
        self.core.stop();
        self.figures.stopped();
        self.connections.begin_close();
        std::mem::take(&mut self.threads).join();
    }
}

pub(crate) fn bootstrap(config: &BrokerConfig) -> String {
    let first = &config.advertised_listeners[0];
    match first.host.contains(':') {
        true => format!("[{}]:{}", first.host, first.port),
        false => format!("{}:{}", first.host, first.port),
    }
}

fn bind_all(listeners: &[Listener]) -> Result<Vec<Bound>, BindError> {
    listeners
        .iter()
        .map(|listener| bind(listener, "listeners"))
        .collect()
}

fn serve_http(
    config: &BrokerConfig,
    figures: &Arc<ServerFigures>,
    tasks: &mut JoinSet<()>,
) -> Result<Option<SocketAddr>, StartError> {
    let Some(at) = &config.http_listener else {
        return Ok(None);
    };
    let listener = bind(at, "http.listener")?.listen()?;
    let address = listener.local_addr()?;
    tasks.spawn(oncelog_console::serve(listener, figures.clone()));
    Ok(Some(address))
}

fn open_directory(
    path: &Path,
    files: u64,
) -> Result<(Arc<RealDisk>, Arc<DirectoryLock>), StartError> {
    let unusable = |error| StartError::DataDirectory {
        path: path.to_owned(),
        error,
    };
    let cached = (files / limits::DESCRIPTOR_CACHE_SHARE) as usize;
    let disk = RealDisk::open(path, cached).map_err(unusable)?;
    let lock = DirectoryLock::acquire(disk.root())?;
    Ok((Arc::new(disk), Arc::new(lock)))
}

async fn recover(
    config: BrokerConfig,
    disk: &Arc<RealDisk>,
    lock: &Arc<DirectoryLock>,
    clock: Clock,
) -> Result<Opened, StartError> {
    let mut seed = [0; 8];
    rustix::rand::getrandom(&mut seed, rustix::rand::GetRandomFlags::empty())
        .map_err(io::Error::from)?;
    let (disk, lock, path) = (disk.clone(), lock.clone(), disk.root().to_owned());
    let opened = tokio::task::spawn_blocking(move || {
        let (now, seed) = (clock.now(), u64::from_ne_bytes(seed));
        let mut report = OpenReport::default();
        let broker = match settled(&disk, &lock)? {
            Some(settled) => open_reporting(config, &settled, now, seed, &mut report),
            None => open_reporting(config, &*disk, now, seed, &mut report),
        };
        // Even if the start is refused: a tail that was cut is not found a second time.
        for note in &report.notes {
            tracing::warn!("{note}");
        }
        broker.map(|broker| Opened { broker, report })
    });
    match opened.await {
        Ok(opened) => opened.map_err(|error| StartError::Open { path, error }),
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
}

/// The disk synced as a whole, where recovery is better off with that.
fn settled<'a>(disk: &'a RealDisk, lock: &DirectoryLock) -> io::Result<Option<SettledDisk<'a>>> {
    let failed_before = lock.is_after_disk_failure();
    if disk.list("")?.len() < limits::SETTLE_ENTRIES_MIN && !failed_before {
        return Ok(None);
    }
    let settled = SettledDisk::settle(disk);
    if !failed_before && settled.is_ok() {
        return settled.map(Some);
    }
    // What failed, then or just now, is marked as written all the same; a first sync of the file
    // system also tells of failures that nobody has asked about since.
    tracing::warn!(
        "a write or sync on this file system failed, so that the page cache may hold what the disk \
         does not: everything is read from the disk again"
    );
    // A failure is told once: whoever starts after a kill from here on has to know of it too.
    lock.note_disk_failure(true)?;
    disk.forget_cached()?;
    let settled = SettledDisk::settle(disk)?;
    lock.note_disk_failure(false)?;
    Ok(Some(settled))
}

fn settings(config: &BrokerConfig, files: u64) -> Settings {
    let idle_ms = u64::try_from(config.connections_max_idle_ms).ok();
    let cached = files / limits::DESCRIPTOR_CACHE_SHARE;
    let fit = files
        .saturating_sub(cached + limits::DESCRIPTORS_RESERVED)
        .max(16) as usize;
    Settings {
        request_bytes_max: config.socket_request_max_bytes as usize,
        idle_max: idle_ms.map(Duration::from_millis),
        connections_max: config.max_connections.min(fit),
    }
}

fn request_memory(config: &BrokerConfig) -> usize {
    let limit = config.queued_max_request_bytes.unwrap_or(i64::MAX as u64);
    usize::try_from(limit)
        .unwrap_or(usize::MAX)
        .max(2 * limits::SCRATCH_BYTES)
}

/// Lifts the limit on open files to what is allowed; returns it.
fn raise_file_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let allowed = limit.maximum.unwrap_or(1 << 20);
    let raised = Rlimit {
        current: Some(allowed),
        maximum: limit.maximum,
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => allowed,
        Err(_) => limit.current.unwrap_or(1024),
    }
}

/// The threads beside the runtime, and the queues that feed them.
#[derive(Default)]
struct Threads {
    commit: Option<Arc<Commit>>,
    steps: background::StepQueue,
    reads: background::ReadQueue,
    handles: Vec<JoinHandle<()>>,
}

impl Threads {
    fn start(
        broker: oncelog_broker::Broker,
        clock: Clock,
        disk: Arc<RealDisk>,
        fatal: Arc<Fatal>,
    ) -> io::Result<(Arc<Core>, Threads)> {
        let commit = Arc::new(Commit::new(limits::COMMIT_LANES));
        let steps: background::StepQueue = Arc::new(WorkQueue::default());
        let reads: background::ReadQueue = Arc::new(WorkQueue::default());
        let queues = (commit.clone(), steps.clone(), reads.clone());
        let core = Arc::new(Core::new(broker, clock, disk.clone(), fatal, queues));
        let completions: Arc<dyn Completions> = core.clone();
        let mut handles = commit::spawn(&commit, &disk, &completions)?;
        {
            let (steps, disk) = (steps.clone(), disk.clone());
            handles.push(background::spawn("steps", move || {
                crate::steps::run(&steps, &disk, &*completions);
            })?);
        }
        for number in 0..limits::READER_THREADS {
            let (reads, disk, core) = (reads.clone(), disk.clone(), core.clone());
            handles.push(background::spawn(&format!("reads-{number}"), move || {
                background::run_reads(&reads, &disk, &|(op, outcome)| {
                    core.submit([match outcome {
                        Ok(outcome) => Input::DiskDone { op, outcome },
                        Err(error) => Input::DiskFailed { op, error },
                    }]);
                });
            })?);
        }
        let threads = Threads {
            commit: Some(commit),
            steps,
            reads,
            handles,
        };
        Ok((core, threads))
    }

    /// Ends them; returns when the last has finished what it is at.
    fn join(self) {
        if let Some(commit) = &self.commit {
            commit.close();
        }
        self.steps.close();
        self.reads.close();
        for handle in self.handles {
            let _ = handle.join(); // a panic in it was reported when it happened
        }
    }
}
