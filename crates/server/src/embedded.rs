//! A broker inside a test (or any program): one line, on a free port, in a temporary directory.
//!
//! It is the same broker as `oncelog start` runs: sockets, files, group commit, recovery. It has a
//! thread and a runtime of its own, so it can be used with and without an async runtime around it.
//! When its disk fails, it stops serving and keeps the reason ([`EmbeddedBroker::failure`]); it
//! never ends the process.

use crate::config::{ConfigProblem, Layers, Place, Property};
use crate::fatal::{Failure, OnFailure};
use crate::server::{RunningServer, Server, ServerConfig, ShutdownError, StartError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use tempfile::TempDir;
use tokio::sync::oneshot;

/// A running broker; stopped cleanly when it is dropped.
///
/// ```
/// use oncelog_server::EmbeddedBroker;
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let broker = EmbeddedBroker::builder()
///     .property("num.partitions", "3")
///     .property("auto.create.topics.enable", "false")
///     .start()?;
/// assert!(broker.bootstrap_servers().starts_with("127.0.0.1:"));
/// # Ok(())
/// # }
/// ```
pub struct EmbeddedBroker {
    facts: Facts,
    stop: Option<oneshot::Sender<Stop>>,
    ended: mpsc::Receiver<Result<(), ShutdownError>>,
    thread: Option<JoinHandle<()>>,
    failure: Arc<Mutex<Option<Failure>>>,
    /// Removed when the broker has stopped.
    _temporary: Option<TempDir>,
}

#[derive(Clone)]
struct Facts {
    bootstrap_servers: String,
    http_address: Option<std::net::SocketAddr>,
    data_directory: PathBuf,
}

enum Stop {
    Cleanly,
    Kill,
}

#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    #[error(transparent)]
    Config(#[from] ConfigProblem),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("the embedded broker could not be set up: {0}")]
    Io(#[from] io::Error),
}

/// How an embedded broker is to be; everything has a default.
#[derive(Clone, Debug, Default)]
pub struct EmbeddedBuilder {
    properties: Vec<Property>,
    data_dir: Option<PathBuf>,
}

impl EmbeddedBuilder {
    /// Any configuration of the broker, as in `server.properties`. `listeners` defaults to a free
    /// port on the loopback interface, `http.listener` to none.
    pub fn property(mut self, key: &str, value: &str) -> EmbeddedBuilder {
        self.properties.push(property(key, value));
        self
    }

    /// A directory that stays, to start again on. Without it, a temporary one is removed on drop.
    pub fn data_dir(mut self, path: impl AsRef<Path>) -> EmbeddedBuilder {
        self.data_dir = Some(path.as_ref().to_owned());
        self
    }

    /// Starts the broker; returns when clients are served.
    pub fn start(self) -> Result<EmbeddedBroker, EmbeddedError> {
        let temporary = match &self.data_dir {
            Some(_) => None,
            None => Some(tempfile::Builder::new().prefix("oncelog-").tempdir()?),
        };
        let directory = self
            .data_dir
            .as_deref()
            .or(temporary.as_ref().map(TempDir::path));
        let directory = directory.expect("one of the two").display().to_string();
        let mut layers = Layers::default();
        layers.add([
            property("listeners", "PLAINTEXT://127.0.0.1:0"),
            property("http.listener", ""),
            property("log.dirs", &directory),
        ]);
        layers.add(self.properties);
        let config = ServerConfig {
            broker: layers.resolve()?,
            on_failure: OnFailure::StopServing,
        };
        EmbeddedBroker::launch(config, temporary)
    }
}

impl EmbeddedBroker {
    /// A broker with the defaults.
    pub fn start() -> Result<EmbeddedBroker, EmbeddedError> {
        EmbeddedBroker::builder().start()
    }

    pub fn builder() -> EmbeddedBuilder {
        EmbeddedBuilder::default()
    }

    /// `host:port`, for a client's `bootstrap.servers`.
    pub fn bootstrap_servers(&self) -> String {
        self.facts.bootstrap_servers.clone()
    }

    /// Where metrics and health are, if `http.listener` was set.
    pub fn http_addr(&self) -> Option<std::net::SocketAddr> {
        self.facts.http_address
    }

    pub fn data_dir(&self) -> &Path {
        &self.facts.data_directory
    }

    /// Why the broker stopped serving by itself, if it did.
    pub fn failure(&self) -> Option<Failure> {
        self.failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Stops cleanly, as drop does, and says how that went.
    pub fn stop(mut self) -> Result<(), ShutdownError> {
        self.end(Stop::Cleanly)
    }

    /// Stops at once, as a crash of the process would: nothing in flight is finished, nothing is
    /// flushed, the next start recovers. When it returns, the data directory is free.
    pub fn kill(mut self) {
        let _ = self.end(Stop::Kill);
    }

    fn launch(
        config: ServerConfig,
        temporary: Option<TempDir>,
    ) -> Result<EmbeddedBroker, EmbeddedError> {
        let (started, start) = mpsc::channel();
        let (has_ended, ended) = mpsc::channel();
        let (stop, stopping) = oneshot::channel();
        let failure = Arc::new(Mutex::new(None));
        let seen = failure.clone();
        let thread = std::thread::Builder::new()
            .name("oncelog".to_owned())
            .spawn(move || {
                let runtime = tokio::runtime::Builder::new_multi_thread()
                    .worker_threads(2)
                    .thread_name("oncelog-io")
                    .enable_all()
                    .build();
                let runtime = match runtime {
                    Ok(runtime) => runtime,
                    Err(error) => return drop(started.send(Err(StartError::System(error)))),
                };
                let serving = runtime.block_on(async {
                    match Server::start(config).await {
                        Ok(server) => {
                            let _ = started.send(Ok(facts_of(&server)));
                            Some(serve(server, stopping, seen).await)
                        }
                        Err(error) => {
                            let _ = started.send(Err(error));
                            None
                        }
                    }
                });
                if let Some(result) = serving {
                    let _ = has_ended.send(result);
                }
            })?;
        let facts = match start.recv() {
            Ok(facts) => facts?,
            Err(_) => match thread.join() {
                Err(panic) => std::panic::resume_unwind(panic),
                Ok(()) => return Err(io::Error::other("it ended while it started").into()),
            },
        };
        Ok(EmbeddedBroker {
            facts,
            stop: Some(stop),
            ended,
            thread: Some(thread),
            failure,
            _temporary: temporary,
        })
    }

    fn end(&mut self, how: Stop) -> Result<(), ShutdownError> {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(how); // it may have ended by itself
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        self.ended.try_recv().unwrap_or(Ok(()))
    }
}

impl Drop for EmbeddedBroker {
    fn drop(&mut self) {
        if let Err(error) = self.end(Stop::Cleanly) {
            tracing::error!("{error}");
        }
    }
}

async fn serve(
    server: RunningServer,
    mut stopping: oneshot::Receiver<Stop>,
    failure: Arc<Mutex<Option<Failure>>>,
) -> Result<(), ShutdownError> {
    let how = tokio::select! {
        how = &mut stopping => how,
        () = server.failed() => {
            let reason = server.failure().cloned();
            *failure.lock().unwrap_or_else(PoisonError::into_inner) = reason.clone();
            server.kill().await;
            return Err(ShutdownError::Failed(reason.expect("it has failed")));
        }
    };
    match how {
        Ok(Stop::Cleanly) => server.shutdown().await,
        Ok(Stop::Kill) | Err(_) => {
            server.kill().await;
            Ok(())
        }
    }
}

fn facts_of(server: &RunningServer) -> Facts {
    Facts {
        bootstrap_servers: server.bootstrap_servers(),
        http_address: server.http_addr(),
        data_directory: server.data_directory.clone(),
    }
}

fn property(key: &str, value: &str) -> Property {
    Property {
        key: key.to_owned(),
        value: value.to_owned(),
        place: Place::Builder,
    }
}
